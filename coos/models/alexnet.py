"""AlexNet, of Krizhevsky, Sutskever and Hinton 2012 ("caffe") and as one tower of 2014 ("torchvision", the default).

    torchvision, 224x224                       caffe, 227x227
    conv1  11x11 stride 4 pad 2    64 -> 55    conv1  11x11 stride 4   96 -> 55   response norm
    pool1                             -> 27    pool1                      -> 27
    conv2  5x5 pad 2              192          conv2  5x5 pad 2       256, 2 groups, response norm
    pool2                             -> 13    pool2                      -> 13
    conv3  3x3 pad 1              384          conv3  3x3 pad 1       384
    conv4  3x3 pad 1              256          conv4  3x3 pad 1       384, 2 groups
    conv5  3x3 pad 1              256          conv5  3x3 pad 1       256, 2 groups
    pool5                             ->  6    pool5                      ->  6
    adaptive average to 6x6, flatten (height, width, channel order)
    dropout, fc6 4096, dropout, fc7 4096       fc6 4096, dropout, fc7 4096, dropout
    logits

Pools are max 3x3, stride 2; Caffe's keep an incomplete last window. Every layer but the logits ends in ReLU, before
the response norm over five channels. At the published sizes the adaptive average changes nothing; it is torchvision's
way to take other sizes. Parameters for three channels and 1,000 outputs: torchvision 61,100,840; caffe 60,965,224
(that of Caffe's reference model "bvlc_alexnet"; Caffe's other one, CaffeNet, norms after the pools).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from coos.models import layers

PUBLISHED = layers.Published("Krizhevsky 2012; 2014 (one tower)", (224, 224, 3), 1000, 61_100_840)

CONVOLUTIONS = (("conv1", 11), ("conv2", 5), ("conv3", 3), ("conv4", 3), ("conv5", 3))  # name, kernel
POOL_AFTER = {"conv1": "pool1", "conv2": "pool2", "conv5": "pool5"}
TORCH = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
POOLED_SIZE = 6


class Variant(NamedTuple):
    """What the variants differ in, besides response norm, pools, initial values and the place of dropout."""

    channels: tuple[int, ...]
    groups: tuple[int, ...]
    conv1_padding: int
    smallest: int


VARIANTS = {
    "torchvision": Variant((64, 192, 384, 256, 256), (1, 1, 1, 1, 1), 2, 63),
    "caffe": Variant((96, 256, 384, 384, 256), (1, 2, 1, 2, 2), 0, 39),
}
CAFFE_BIASES = {"conv2": 0.1, "conv4": 0.1, "conv5": 0.1, "fc6": 0.1, "fc7": 0.1}  # the others 0
CAFFE_DEVIATIONS = {"fc6": 0.005, "fc7": 0.005}  # the others 0.01


def _scaled(variant: str, width: int | None) -> list[int]:
    """Channels of the five convolutions when the first has `width`."""
    published = VARIANTS[variant].channels
    return [channels * (width or published[0]) // published[0] for channels in published]


def _initial(variant: str, name: str, fan_in: int) -> dict[str, Any]:
    """Initial kernel and bias: PyTorch's default, uniform in +-1 / sqrt(fan_in), or those of Caffe's model."""
    if variant == "caffe":
        kernel = nn.initializers.normal(CAFFE_DEVIATIONS.get(name, 0.01))
        return {"kernel_init": kernel, "bias_init": nn.initializers.constant(CAFFE_BIASES.get(name, 0.0))}

    def bias(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

    return {"kernel_init": layers.torch_linear_uniform(), "bias_init": bias}


class AlexNet(nn.Module):
    """AlexNet as a Linen module.

    Features: "conv1" ... "conv5" (after the ReLU, before the response norm), "pool1", "pool2", "pool5", "fc6", "fc7".

    Attributes:
        num_outputs: number of logits.
        variant: "torchvision" (one tower) or "caffe" (two groups, response norm; Krizhevsky 2012). The Caffe model's
            initial biases are 0.1 where the paper has 1.
        width: channels of conv1, the others in proportion; None is the variant's own (torchvision 64, caffe 96).
            A multiple of 6 in the caffe variant.
        fc_units: of fc6 and fc7 (4096 is the original).
        dropout: rate before fc6 and fc7 (torchvision) or after them (caffe).
        dtype: compute dtype; parameters are float32.
        axis_name: not used (there is no batch norm); taken as in the other networks.
    """

    num_outputs: int
    variant: str = "torchvision"
    width: int | None = None
    fc_units: int = 4096
    dropout: float = 0.5
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}."""
        smallest = VARIANTS[self.variant].smallest
        layers.check_images(f"AlexNet ({self.variant})", images, smallest=(smallest, smallest))
        features = self._convolutions(images.astype(self.dtype))
        x = layers.adaptive_average_pool(features["pool5"], POOLED_SIZE)
        x = layers.flatten(x)
        dropout = nn.Dropout(self.dropout, deterministic=not train)
        for name in ("fc6", "fc7"):
            x = dropout(x) if self.variant == "torchvision" else x
            features[name] = x = nn.relu(self._dense(name, self.fc_units, x))
            x = dropout(x) if self.variant == "caffe" else x
        return {"logits": layers.as_logits(self._dense("logits", self.num_outputs, x)), "features": features}

    def _convolutions(self, x: jax.Array) -> dict[str, jax.Array]:
        """Features of the convolutions and pools."""
        variant, caffe = VARIANTS[self.variant], self.variant == "caffe"
        pool = layers.ceil_max_pool if caffe else layers.max_pool
        features = {}
        widths = _scaled(self.variant, self.width)
        for (name, kernel), channels, groups in zip(CONVOLUTIONS, widths, variant.groups, strict=True):
            padding = variant.conv1_padding if name == "conv1" else kernel // 2
            conv = nn.Conv(
                channels,
                (kernel, kernel),
                strides=4 if name == "conv1" else 1,
                padding=padding,
                feature_group_count=groups,
                dtype=self.dtype,
                name=name,
                **_initial(self.variant, name, kernel**2 * x.shape[-1] // groups),
            )
            features[name] = x = nn.relu(conv(x))
            if caffe and name in ("conv1", "conv2"):
                x = layers.local_response_norm(x)
            if name in POOL_AFTER:
                features[POOL_AFTER[name]] = x = pool(x, 3, 2)
        return features

    def _dense(self, name: str, units: int, x: jax.Array) -> jax.Array:
        initial = _initial(self.variant, name, x.shape[-1])
        return nn.Dense(units, dtype=self.dtype, name=name, **initial)(x)


def layout(module: AlexNet) -> list[layers.WeightSource]:
    """Where the weights of `module` stand in torchvision (nowhere for the caffe variant)."""
    flattened = (_scaled(module.variant, module.width)[-1], POOLED_SIZE, POOLED_SIZE)
    sources = [
        *(layers.WeightSource((name,), "conv", f"features.{TORCH[name]}") for name, _ in CONVOLUTIONS),
        layers.WeightSource(("fc6",), "dense", "classifier.1", flattened=flattened),
        layers.WeightSource(("fc7",), "dense", "classifier.4"),
        layers.WeightSource(("logits",), "dense", "classifier.6"),
    ]
    return [source._replace(torch=None) for source in sources] if module.variant == "caffe" else sources


def create(
    num_outputs: int,
    *,
    variant: str = "torchvision",
    width: int | None = None,
    fc_units: int = 4096,
    dropout: float = 0.5,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> AlexNet:
    """AlexNet with the options of `AlexNet`."""
    if variant not in VARIANTS:
        raise ValueError(f"AlexNet variant {variant!r}: choose one of {tuple(VARIANTS)}")
    if variant == "caffe" and (width or 96) % 6:
        raise ValueError(f"AlexNet (caffe) takes a width that 6 divides; got {width}")
    return AlexNet(
        num_outputs,
        variant=variant,
        width=width,
        fc_units=fc_units,
        dropout=dropout,
        dtype=dtype,
        axis_name=axis_name,
    )
