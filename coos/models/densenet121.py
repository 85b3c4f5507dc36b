"""DenseNet-121 (Huang et al. 2017, arXiv:1608.06993, Table 1): each layer takes all earlier maps of its block.

    224x224  conv1         7x7, stride 2, 64, batch norm, ReLU      112x112
             pool1         max 3x3, stride 2                         56x56
             dense1         6 layers,  64 +  6 x 32 =  256           56x56
             transition1   1x1, 128, mean 2x2, stride 2              28x28
             dense2        12 layers, 128 + 12 x 32 =  512           28x28
             transition2   1x1, 256, mean 2x2, stride 2              14x14
             dense3        24 layers, 256 + 24 x 32 = 1024           14x14
             transition3   1x1, 512, mean 2x2, stride 2               7x7
             dense4        16 layers, 512 + 16 x 32 = 1024            7x7
             norm5         batch norm, ReLU
             pool5         global mean, 1024
    logits

A layer: batch norm, ReLU, 1x1 to 4 x 32, batch norm, ReLU, 3x3 to 32 (the "growth"), appended to its input. A
transition begins with batch norm and ReLU too. No convolution has a bias.

Trainable parameters: 7,978,856 for three channels and 1000 classes; 7,174,353 for five channels and 209 assays,
the DenseNet of Hofmarcher et al. 2019 (Table 2). The variants compute the same but for batch norm's epsilon;
their momentum and first values differ:

                       "torchvision"                        "keras" (Keras Applications)
    batch norm         epsilon 1e-5, momentum 0.9           epsilon 1.001e-5, momentum 0.99
    kernels at first   normal, 2 / fan-in                   uniform, Glorot
    logits at first    uniform, +-1 / sqrt(fan-in); bias 0  uniform, Glorot; bias 0
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from coos.models import layers
from coos.models.layers import WeightSource

PUBLISHED = layers.Published("Huang 2017; Hofmarcher 2019, Table 2", (520, 696, 5), 209, 7_174_353)


class _Variant(NamedTuple):
    """What the two variants do differently."""

    momentum: float
    epsilon: float
    kernel_init: Callable[..., Array]
    logits_init: Callable[..., Array]


KAIMING_FAN_IN = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
GLOROT = nn.initializers.glorot_uniform()
VARIANTS = {
    "torchvision": _Variant(0.9, 1e-5, KAIMING_FAN_IN, layers.torch_linear_uniform()),
    "keras": _Variant(0.99, 1.001e-5, GLOROT, GLOROT),
}


class _DenseLayer(nn.Module):
    """The `growth` new maps of one layer."""

    growth: int
    conv: Callable[..., nn.Conv]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(self.norm(name="norm1")(x))
        x = self.conv(4 * self.growth, (1, 1), padding=0, name="conv1")(x)
        x = nn.relu(self.norm(name="norm2")(x))
        return self.conv(self.growth, (3, 3), padding=1, name="conv2")(x)


class _Transition(nn.Module):
    """Half as many maps of half the size; an odd last row or column is left out."""

    conv: Callable[..., nn.Conv]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.relu(self.norm(name="norm")(x))
        y = self.conv(x.shape[-1] // 2, (1, 1), padding=0, name="conv")(y)
        return nn.avg_pool(y, (2, 2), (2, 2))


class DenseNet(nn.Module):
    """DenseNet as a Linen module.

    Features: "conv1" (after batch norm and ReLU), "pool1", each layer's new maps "dense1_1", "dense1_2", ..., each
    block's input and all its new maps "dense1", ..., "transition1", ... (all these without activation), "norm5"
    (after batch norm and ReLU), "pool5".

    Attributes:
        num_outputs: number of logits.
        growth: new maps per layer; all widths follow in proportion.
        blocks: layers of each dense block.
        initial: channels of conv1; None: twice the growth.
        variant: "torchvision" or "keras".
        momentum: of the running statistics; None: the variant's.
        epsilon: of batch norm; None: the variant's.
        remat: compute what is inside a layer again for its gradient instead of keeping it: less memory, more time.
        dtype: compute dtype; parameters and statistics are float32.
        axis_name: pmap axis over which batch statistics are averaged, or None.
    """

    num_outputs: int
    growth: int = 32
    blocks: tuple[int, ...] = (6, 12, 24, 16)
    initial: int | None = None
    variant: str = "torchvision"
    remat: bool = False
    momentum: float | None = None
    epsilon: float | None = None
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"DenseNet variant {self.variant!r}: choose one of {tuple(VARIANTS)}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}."""
        variant, smallest = VARIANTS[self.variant], 2 ** (len(self.blocks) + 1) - 3
        layers.check_images("DenseNet", images, smallest=(smallest, smallest))
        conv = functools.partial(nn.Conv, use_bias=False, kernel_init=variant.kernel_init, dtype=self.dtype)
        norm = layers.batch_norm(
            train=train,
            momentum=variant.momentum if self.momentum is None else self.momentum,
            epsilon=variant.epsilon if self.epsilon is None else self.epsilon,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        features: dict[str, Array] = {}
        dense_layer = nn.remat(_DenseLayer) if self.remat else _DenseLayer
        x = images.astype(self.dtype)
        x = conv(self.initial or 2 * self.growth, (7, 7), 2, padding=3, name="conv1")(x)
        features["conv1"] = x = nn.relu(norm(name="norm1")(x))
        features["pool1"] = x = layers.max_pool(x, 3, 2, padding=1)  # Keras pads zeros: the same after a ReLU
        for b, size in enumerate(self.blocks, 1):
            for i in range(1, size + 1):
                name = f"dense{b}_{i}"
                features[name] = dense_layer(self.growth, conv, norm, name=name)(x)
                x = jnp.concatenate([x, features[name]], -1)
            features[f"dense{b}"] = x
            if b < len(self.blocks):
                features[f"transition{b}"] = x = _Transition(conv, norm, name=f"transition{b}")(x)
        features["norm5"] = x = nn.relu(norm(name="norm5")(x))
        features["pool5"] = x = layers.global_mean(x)
        dense = nn.Dense(self.num_outputs, kernel_init=variant.logits_init, dtype=self.dtype, name="logits")
        return {"logits": layers.as_logits(dense(x)), "features": features}


def layout(module: DenseNet) -> list[WeightSource]:
    """Places of the module's parameters in the checkpoints of the library whose variant it is.

    Torchvision's names are those of its state dict today: checkpoints of old say "norm.1" for "norm1".
    """
    of_torch = module.variant == "torchvision"

    def source(path: tuple[str, ...], kind: str, torch: str, keras: str) -> WeightSource:
        return WeightSource(path, kind, torch if of_torch else None, None if of_torch else keras)

    def layer(b: int, i: int) -> list[WeightSource]:
        ours, torch, keras = f"dense{b}_{i}", f"features.denseblock{b}.denselayer{i}", f"conv{b + 1}_block{i}"
        return [
            source((ours, "norm1"), "norm", f"{torch}.norm1", f"{keras}_0_bn"),
            source((ours, "conv1"), "conv", f"{torch}.conv1", f"{keras}_1_conv"),
            source((ours, "norm2"), "norm", f"{torch}.norm2", f"{keras}_1_bn"),
            source((ours, "conv2"), "conv", f"{torch}.conv2", f"{keras}_2_conv"),
        ]

    sources = [
        source(("conv1",), "conv", "features.conv0", "conv1_conv"),
        source(("norm1",), "norm", "features.norm0", "conv1_bn"),
    ]
    for b, size in enumerate(module.blocks, 1):
        sources += [entry for i in range(1, size + 1) for entry in layer(b, i)]
        if b < len(module.blocks):
            ours, torch = f"transition{b}", f"features.transition{b}"
            sources += [
                source((ours, "norm"), "norm", f"{torch}.norm", f"pool{b + 1}_bn"),
                source((ours, "conv"), "conv", f"{torch}.conv", f"pool{b + 1}_conv"),
            ]
    return sources + [
        source(("norm5",), "norm", "features.norm5", "bn"),
        source(("logits",), "dense", "classifier", "predictions"),
    ]


def create(
    num_outputs: int,
    *,
    growth: int = 32,
    blocks: tuple[int, ...] = (6, 12, 24, 16),
    initial: int | None = None,
    variant: str = "torchvision",
    remat: bool = False,
    momentum: float | None = None,
    epsilon: float | None = None,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> DenseNet:
    """DenseNet-121 with the options of `DenseNet`."""
    return DenseNet(
        num_outputs,
        growth=growth,
        blocks=tuple(blocks),
        initial=initial,
        variant=variant,
        remat=remat,
        momentum=momentum,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=axis_name,
    )
