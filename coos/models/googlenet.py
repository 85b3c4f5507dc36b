"""GoogLeNet (Inception v1) of Szegedy et al. 2015 ("caffe") and with batch norm ("torchvision", the default).

    224x224  conv1 7x7 stride 2                64     112x112     pool1 -> 56x56
     56x56   conv2_reduce 1x1, conv2 3x3  64, 192                 pool2 -> 28x28
     28x28   inception_3a, 3b            256, 480                 pool3 -> 14x14
     14x14   inception_4a ... 4e         512, 512, 512, 528, 832  pool4 ->  7x7
      7x7    inception_5a, 5b            832, 1024
    global mean "pool5", dropout, logits

An inception module joins four branches: 1x1; 1x1 and 3x3; 1x1 and 5x5; max pool 3x3 and 1x1. Every convolution ends in
ReLU. The pools between are max 3x3, stride 2, and keep an incomplete last window. In training, two auxiliary
classifiers may look at inception_4a and 4d.

    variant      convolutions                 "5x5"   pool4   norms                            dropout
    torchvision  batch norm, no bias          3x3     2x2     batch norm                       0.2
    caffe        bias                         5x5     3x3     response norm around conv2       0.4

The 3x3 in place of the 5x5 is a slip in the TensorFlow code from which torchvision's weights come; `kernel_5x5=5`
takes the printed size. Parameters for three channels and 1,000 outputs: torchvision 6,624,904 (13,004,888 with
`auxiliary`); caffe 6,998,552 (13,378,280).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from coos.models import layers

PUBLISHED = layers.Published("Szegedy 2015, with batch norm", (224, 224, 3), 1000, 6_624_904)

INCEPTIONS = {  # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARIES = {"inception_4a": "aux1", "inception_4d": "aux2"}
IGNORED_TENSORS = ("aux1.", "aux2.")  # torchvision's public file has them; in evaluation nothing uses them
AUXILIARY_SIZE = 4
AUXILIARY_DROPOUT = 0.7
TORCH_STEM = {"conv1": "conv1", "conv2_reduce": "conv2", "conv2": "conv3"}
TORCH_BRANCHES = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}


class Variant(NamedTuple):
    """What the variants differ in; the smallest images are those without and with auxiliary classifiers."""

    batch_norm: bool
    kernel_5x5: int
    pool4: int
    dropout: float
    kernel_init: Callable[..., jax.Array]
    bias: float
    smallest: tuple[int, int]


VARIANTS = {
    "torchvision": Variant(True, 3, 2, 0.2, nn.initializers.normal(0.01), 0.0, (15, 15)),
    "caffe": Variant(
        False, 5, 3, 0.4, nn.initializers.variance_scaling(1.0, "fan_in", "uniform"), 0.2, (31, 79)
    ),
}


class Unit(nn.Module):
    """Convolution, batch norm if `norm` is given (else a bias), ReLU."""

    channels: int
    kernel: int
    variant: str
    norm: Callable[..., nn.BatchNorm] | None
    dtype: Any
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, any) -> (B, h, w, channels)."""
        variant = VARIANTS[self.variant]
        conv = nn.Conv(
            self.channels,
            (self.kernel, self.kernel),
            (self.stride, self.stride),
            padding=self.kernel // 2,
            use_bias=self.norm is None,
            kernel_init=variant.kernel_init,
            bias_init=nn.initializers.constant(variant.bias),
            dtype=self.dtype,
            name="conv",
        )
        x = conv(x)
        return nn.relu(x if self.norm is None else self.norm(name="bn")(x))


class Inception(nn.Module):
    """The four branches, joined in the order 1x1, 3x3, 5x5, pool; `unit` is `Unit` with the network's settings."""

    channels: tuple[int, ...]
    kernel_5x5: int
    unit: Callable[..., Unit]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, any) -> (B, H, W, sum of the branches' channels)."""
        sizes = dict(zip(TORCH_BRANCHES, self.channels, strict=True))

        def branch(name: str, kernel: int, inputs: jax.Array) -> jax.Array:
            return self.unit(sizes[name], kernel, name=name)(inputs)

        branches = (
            branch("1x1", 1, x),
            branch("3x3", 3, branch("3x3_reduce", 1, x)),
            branch("5x5", self.kernel_5x5, branch("5x5_reduce", 1, x)),
            branch("pool_proj", 1, layers.max_pool(x, 3, 1, 1)),
        )
        return jnp.concatenate(branches, -1)


class Auxiliary(nn.Module):
    """Auxiliary classifier: 4x4 means, 1x1 convolution, a fully connected layer, dropout, logits.

    Caffe's 4x4 means are those of 5x5 windows with stride 3 of a 14x14 map; on maps that give another number than
    4x4, their adaptive average is taken. torchvision's are adaptive at once.
    """

    num_outputs: int
    width: int
    variant: str
    unit: Callable[..., Unit]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, H, W, C) -> (B, num_outputs)."""
        settings = VARIANTS[self.variant]
        x = nn.avg_pool(x, (5, 5), (3, 3)) if self.variant == "caffe" else x
        x = layers.adaptive_average_pool(x, AUXILIARY_SIZE)
        x = self.unit(2 * self.width, 1, name="conv")(x).reshape(x.shape[0], -1)
        bias = nn.initializers.constant(settings.bias)
        dense = {"kernel_init": settings.kernel_init, "dtype": self.dtype}
        x = nn.relu(nn.Dense(16 * self.width, bias_init=bias, name="fc", **dense)(x))
        x = nn.Dropout(AUXILIARY_DROPOUT, deterministic=not train)(x)
        return layers.as_logits(nn.Dense(self.num_outputs, name="logits", **dense)(x))


class GoogLeNet(nn.Module):
    """GoogLeNet as a Linen module.

    Features: "conv1", "pool1", "conv2_reduce", "conv2", "pool2", "inception_3a" ... "inception_5b", "pool3", "pool4",
    "pool5"; with `auxiliary`, in training, the logits "aux1" and "aux2" (the paper adds their losses times 0.3).
    torchvision calls conv2_reduce and conv2 "conv2" and "conv3". Its `transform_input` is input scaling: not here.

    Initial values: normal of deviation 0.01 (torchvision); uniform in +-sqrt(3 / fan_in), biases 0.2, those of logits
    0 (the Caffe model). torchvision leaves the biases of its fully connected layers at PyTorch's small random
    default; they start from 0 here.

    Attributes:
        num_outputs: number of logits.
        variant: "torchvision" or "caffe", see above.
        kernel_5x5: size of the "5x5" convolutions; None is the variant's own (torchvision 3, caffe 5, the paper's).
        auxiliary: whether there are auxiliary classifiers.
        width: channels of conv1, the others in proportion (64 is the original; a multiple of 8).
        dropout: rate before the logits; None is the variant's own (torchvision 0.2; caffe 0.4, the paper's).
        momentum: of the running statistics (torchvision variant).
        epsilon: of batch norm (torchvision variant).
        dtype: compute dtype; parameters and statistics are float32.
        axis_name: pmap axis over which batch statistics are averaged, or None (not used in the caffe variant).
    """

    num_outputs: int
    variant: str = "torchvision"
    kernel_5x5: int | None = None
    auxiliary: bool = False
    width: int = 64
    dropout: float | None = None
    momentum: float = 0.9
    epsilon: float = 1e-3
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}."""
        variant = VARIANTS[self.variant]
        smallest = variant.smallest[self.auxiliary]
        layers.check_images(f"GoogLeNet ({self.variant})", images, smallest=(smallest, smallest))
        unit = self._unit(train)
        features = self._stem(images.astype(self.dtype), unit)
        x = features["pool2"]
        for name, channels in INCEPTIONS.items():
            widths = tuple(number * self.width // 64 for number in channels)
            inception = Inception(widths, self.kernel_5x5 or variant.kernel_5x5, unit, name=name)
            features[name] = x = inception(x)
            if self.auxiliary and name in AUXILIARIES and (train or self.is_initializing()):
                features[AUXILIARIES[name]] = self._auxiliary(AUXILIARIES[name], unit)(x, train=train)
            if name == "inception_3b":
                features["pool3"] = x = layers.ceil_max_pool(x, 3, 2)
            elif name == "inception_4e":
                features["pool4"] = x = layers.ceil_max_pool(x, variant.pool4, 2)
        features["pool5"] = x = layers.global_mean(x)
        rate = variant.dropout if self.dropout is None else self.dropout
        x = nn.Dropout(rate, deterministic=not train)(x)
        x = nn.Dense(self.num_outputs, kernel_init=variant.kernel_init, dtype=self.dtype, name="logits")(x)
        return {"logits": layers.as_logits(x), "features": features}

    def _unit(self, train: bool) -> Callable[..., Unit]:
        """`Unit` with the network's settings."""
        norm = None
        if VARIANTS[self.variant].batch_norm:
            norm = layers.batch_norm(
                train=train,
                momentum=self.momentum,
                epsilon=self.epsilon,
                dtype=self.dtype,
                axis_name=self.axis_name,
            )
        return functools.partial(Unit, variant=self.variant, norm=norm, dtype=self.dtype)

    def _auxiliary(self, name: str, unit: Callable[..., Unit]) -> Auxiliary:
        return Auxiliary(self.num_outputs, self.width, self.variant, unit, self.dtype, name=name)

    def _stem(self, x: jax.Array, unit: Callable[..., Unit]) -> dict[str, jax.Array]:
        """Features up to pool2."""
        norm = layers.local_response_norm if self.variant == "caffe" else lambda x: x
        features = {"conv1": unit(self.width, 7, stride=2, name="conv1")(x)}
        features["pool1"] = layers.ceil_max_pool(features["conv1"], 3, 2)
        features["conv2_reduce"] = unit(self.width, 1, name="conv2_reduce")(norm(features["pool1"]))
        features["conv2"] = unit(3 * self.width, 3, name="conv2")(features["conv2_reduce"])
        features["pool2"] = layers.ceil_max_pool(norm(features["conv2"]), 3, 2)
        return features


def layout(module: GoogLeNet) -> list[layers.WeightSource]:
    """Where the weights of `module` stand in torchvision (nowhere for the caffe variant); Keras has no GoogLeNet."""
    caffe = module.variant == "caffe"

    def unit(path: tuple[str, ...], torch: str) -> list[layers.WeightSource]:
        conv = layers.WeightSource((*path, "conv"), "conv", f"{torch}.conv")
        return [conv] if caffe else [conv, layers.WeightSource((*path, "bn"), "norm", f"{torch}.bn")]

    sources = [source for name, torch in TORCH_STEM.items() for source in unit((name,), torch)]
    for name in INCEPTIONS:
        for branch, torch in TORCH_BRANCHES.items():
            sources += unit((name, branch), f"{name.replace('_', '')}.{torch}")
    for name in AUXILIARIES.values() if module.auxiliary else ():
        flattened = (2 * module.width, AUXILIARY_SIZE, AUXILIARY_SIZE)
        sources += [
            *unit((name, "conv"), f"{name}.conv"),
            layers.WeightSource((name, "fc"), "dense", f"{name}.fc1", flattened=flattened),
            layers.WeightSource((name, "logits"), "dense", f"{name}.fc2"),
        ]
    sources.append(layers.WeightSource(("logits",), "dense", "fc"))
    return [source._replace(torch=None) for source in sources] if caffe else sources


def create(
    num_outputs: int,
    *,
    variant: str = "torchvision",
    kernel_5x5: int | None = None,
    auxiliary: bool = False,
    width: int = 64,
    dropout: float | None = None,
    momentum: float = 0.9,
    epsilon: float = 1e-3,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> GoogLeNet:
    """GoogLeNet with the options of `GoogLeNet`."""
    if variant not in VARIANTS:
        raise ValueError(f"GoogLeNet variant {variant!r}: choose one of {tuple(VARIANTS)}")
    if width % 8:
        raise ValueError(f"GoogLeNet takes a width that 8 divides; got {width}")
    return GoogLeNet(
        num_outputs,
        variant=variant,
        kernel_5x5=kernel_5x5,
        auxiliary=auxiliary,
        width=width,
        dropout=dropout,
        momentum=momentum,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=axis_name,
    )
