"""EfficientNet-B0 of Tan and Le 2019, the network of DeepProfiler and of the Cell Painting CNN.

    stem   3x3 stride 2    32 channels
    block  kernel  repeats  channels  expansion  stride    size at 224, at 128 pixels
    1      3       1         16       1          1         112   64
    2      3       2         24       6          2          56   32
    3      5       2         40       6          2          28   16
    4      3       3         80       6          2          14    8
    5      5       3        112       6          1          14    8
    6      5       4        192       6          2           7    4
    7      3       1        320       6          1           7    4
    top    1x1            1,280;  global mean "pool5";  logits

The first block of a row is "block6a", the next ones "block6b" ...: 1x1 expansion, depthwise convolution, squeeze and
excitation (to a quarter of the block's input channels), 1x1 projection without activation; the input is added where
shape allows. Every convolution but the two of squeeze and excitation is without bias and is batch-normed; the
activation is swish, the gate's a sigmoid.

Trainable parameters: 5,288,548 for three channels and 1,000 outputs; 4,008,124 without classifier for five channels
(DeepProfiler), so 5,473,588 with 1,144 outputs and 4,635,814 with the 490 of the Cell Painting CNN. Its published
features are the spatial means of "block6a_activation" (672). The counts hold for both variants.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from coos.models import layers

PUBLISHED = layers.Published("Tan 2019; Bornholdt 2021 (five channels)", (128, 128, 5), 1144, 5_473_588)

STAGES = (  # kernel, repeats, channels, expansion, stride
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
NORMS = {"keras": {"momentum": 0.99, "epsilon": 1e-3}, "torchvision": {"momentum": 0.9, "epsilon": 1e-5}}
SMALLEST_SIZE = 1  # every padding keeps a pixel


class Block(NamedTuple):
    """One inverted residual block: `depth` is the share of blocks before it, `torch` its prefix in torchvision."""

    name: str
    torch: str
    kernel: int
    stride: int
    inputs: int
    channels: int
    expansion: int
    depth: float


def scaled_channels(channels: int, width_coefficient: float) -> int:
    """The nearest multiple of 8, at least 8 and at least nine tenths of the scaled number."""
    scaled = channels * width_coefficient
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def blocks(width_coefficient: float, depth_coefficient: float) -> list[Block]:
    """The blocks in order, widths and repeats scaled by the coefficients."""
    repeats = [math.ceil(depth_coefficient * stage[1]) for stage in STAGES]
    inputs = scaled_channels(32, width_coefficient)
    found: list[Block] = []
    for number, (kernel, _, channels, expansion, stride) in enumerate(STAGES, 1):
        channels = scaled_channels(channels, width_coefficient)
        for i in range(repeats[number - 1]):
            name, torch = f"block{number}{chr(ord('a') + i)}", f"features.{number}.{i}.block"
            depth = len(found) / sum(repeats)
            found.append(
                Block(name, torch, kernel, stride if i == 0 else 1, inputs, channels, expansion, depth)
            )
            inputs = channels
    return found


def kernel_init(variant: str, *, depthwise: bool) -> Callable[..., jax.Array]:
    """Variance 2 / fan_out, cut off at two deviations in Keras.

    A depthwise kernel's fan_out is its window alone in Keras, the window times all channels in torchvision.
    """
    if variant == "torchvision":
        return nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    # In our (k, k, 1, C) kernels, the window alone is the fan_in.
    return nn.initializers.variance_scaling(2.0, "fan_in" if depthwise else "fan_out", "truncated_normal")


def convolution(
    channels: int, kernel: int, *, variant: str, stride: int = 1, depthwise: bool = False, **options: Any
) -> nn.Conv:
    """Square convolution with the variant's padding and initial values."""
    margin = (kernel - 1) // 2
    return nn.Conv(
        channels,
        (kernel, kernel),
        (stride, stride),
        padding="SAME" if variant == "keras" else [(margin, margin)] * 2,
        feature_group_count=channels if depthwise else 1,
        conv_general_dilated=layers.depthwise_convolution if depthwise else None,
        kernel_init=kernel_init(variant, depthwise=depthwise),
        **options,
    )


class InvertedResidual(nn.Module):
    """One block; returns what enters squeeze and excitation, and the output.

    Attributes:
        block: its sizes.
        drop_rate: probability to leave out the block's branch for one image in training; the kept ones are scaled up.
        conv, norm: `convolution` and `nn.BatchNorm` with the network's settings.
    """

    block: Block
    drop_rate: float
    conv: Callable[..., nn.Conv]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, inputs) -> (B, h, w, expansion * inputs), (B, h, w, channels)."""
        block, x = self.block, inputs
        expanded = block.inputs * block.expansion
        plain = functools.partial(self.conv, use_bias=False)
        if block.expansion > 1:
            x = plain(expanded, 1, name="expand_conv")(x)
            x = nn.swish(self.norm(name="expand_bn")(x))
        x = plain(expanded, block.kernel, stride=block.stride, depthwise=True, name="dwconv")(x)
        activation = nn.swish(self.norm(name="bn")(x))
        gate = layers.global_mean(activation)[:, None, None]
        gate = nn.swish(self.conv(max(1, block.inputs // 4), 1, name="se_reduce")(gate))
        gate = nn.sigmoid(self.conv(expanded, 1, name="se_expand")(gate))
        x = plain(block.channels, 1, name="project_conv")(activation * gate)
        x = self.norm(name="project_bn")(x)
        if block.stride == 1 and block.inputs == block.channels:
            one_draw_per_image = nn.Dropout(self.drop_rate, broadcast_dims=(1, 2, 3), deterministic=not train)
            x = inputs + one_draw_per_image(x)
        return activation, x


class EfficientNetB0(nn.Module):
    """EfficientNet-B0 as a Linen module; the coefficients make it B1 ... B7.

    Features: "stem_activation"; of every block "block1a_activation" (after the depthwise convolution's swish) and
    "block1a" (the block's output, which has no activation); "top_activation"; "pool5".

    Attributes:
        num_outputs: number of logits.
        variant: "keras" (of Keras and DeepProfiler: where the stride is 2, an even size is padded by one pixel less at
            the top and left) or "torchvision" (padded alike on all sides; other batch norm constants, initial values).
        momentum: of the running statistics; None is the variant's own (keras 0.99, torchvision 0.9).
        epsilon: of batch norm; None is the variant's own (keras 1e-3, torchvision 1e-5).
        dropout: rate before the classifier (DeepProfiler has none; ImageNet training used 0.2 for B0).
        drop_connect: drop rate of the last of the residual branches, in proportion for those before it.
        width_coefficient: scales all channels, rounded to multiples of 8 (published: 1.0, 1.0, 1.1, 1.2, 1.4, 1.6,
            1.8, 2.0 for B0 ... B7).
        depth_coefficient: scales the repeats, rounded up (1.0, 1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1).
        dtype: compute dtype; parameters and statistics are float32.
        axis_name: pmap axis over which batch statistics are averaged, or None.
    """

    num_outputs: int
    variant: str = "keras"
    momentum: float | None = None
    epsilon: float | None = None
    dropout: float = 0.0
    drop_connect: float = 0.2
    width_coefficient: float = 1.0
    depth_coefficient: float = 1.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def _norm(self, train: bool) -> Callable[..., nn.BatchNorm]:
        chosen = {"momentum": self.momentum, "epsilon": self.epsilon}
        own = NORMS[self.variant]
        settings = {name: own[name] if value is None else value for name, value in chosen.items()}
        return layers.batch_norm(train=train, dtype=self.dtype, axis_name=self.axis_name, **settings)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}."""
        layers.check_images("EfficientNet-B0", images, smallest=(SMALLEST_SIZE, SMALLEST_SIZE))
        conv = functools.partial(convolution, variant=self.variant, dtype=self.dtype)
        norm = self._norm(train)
        stem, top = (scaled_channels(channels, self.width_coefficient) for channels in (32, 1280))
        features: dict[str, jax.Array] = {}
        x = conv(stem, 3, stride=2, use_bias=False, name="stem_conv")(images.astype(self.dtype))
        features["stem_activation"] = x = nn.swish(norm(name="stem_bn")(x))
        for block in blocks(self.width_coefficient, self.depth_coefficient):
            residual = InvertedResidual(block, self.drop_connect * block.depth, conv, norm, name=block.name)
            features[f"{block.name}_activation"], x = residual(x, train=train)
            features[block.name] = x
        x = conv(top, 1, use_bias=False, name="top_conv")(x)
        features["top_activation"] = x = nn.swish(norm(name="top_bn")(x))
        features["pool5"] = x = layers.global_mean(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
        x = nn.Dense(self.num_outputs, kernel_init=uniform, dtype=self.dtype, name="logits")(x)
        return {"logits": layers.as_logits(x), "features": features}


def _block_layout(block: Block) -> list[layers.WeightSource]:
    """The layers of one block; torchvision numbers its parts, of which the expansion may be missing."""
    part = int(block.expansion > 1)
    rows = [("expand_conv", "conv", "0.0"), ("expand_bn", "norm", "0.1")] if part else []
    rows += [
        ("dwconv", "depthwise", f"{part}.0"),
        ("bn", "norm", f"{part}.1"),
        ("se_reduce", "conv", f"{part + 1}.fc1"),
        ("se_expand", "conv", f"{part + 1}.fc2"),
        ("project_conv", "conv", f"{part + 2}.0"),
        ("project_bn", "norm", f"{part + 2}.1"),
    ]
    return [
        layers.WeightSource((block.name, layer), kind, f"{block.torch}.{torch}", f"{block.name}_{layer}")
        for layer, kind, torch in rows
    ]


def layout(module: EfficientNetB0) -> list[layers.WeightSource]:
    """Where the weights of `module` stand in the library that its variant is named after."""
    body = blocks(module.width_coefficient, module.depth_coefficient)
    top = f"features.{len(STAGES) + 1}"
    sources = [
        layers.WeightSource(("stem_conv",), "conv", "features.0.0", "stem_conv"),
        layers.WeightSource(("stem_bn",), "norm", "features.0.1", "stem_bn"),
        *(source for block in body for source in _block_layout(block)),
        layers.WeightSource(("top_conv",), "conv", f"{top}.0", "top_conv"),
        layers.WeightSource(("top_bn",), "norm", f"{top}.1", "top_bn"),
        layers.WeightSource(("logits",), "dense", "classifier.1", "predictions"),
    ]
    if module.variant == "keras":
        return [source._replace(torch=None) for source in sources]
    return [source._replace(keras=None) for source in sources]


def create(
    num_outputs: int,
    *,
    variant: str = "keras",
    momentum: float | None = None,
    epsilon: float | None = None,
    dropout: float = 0.0,
    drop_connect: float = 0.2,
    width_coefficient: float = 1.0,
    depth_coefficient: float = 1.0,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> EfficientNetB0:
    """EfficientNet-B0 with the options of `EfficientNetB0`."""
    if variant not in NORMS:
        raise ValueError(f"EfficientNet-B0 variant {variant!r}: choose one of {tuple(NORMS)}")
    return EfficientNetB0(
        num_outputs,
        variant=variant,
        momentum=momentum,
        epsilon=epsilon,
        dropout=dropout,
        drop_connect=drop_connect,
        width_coefficient=width_coefficient,
        depth_coefficient=depth_coefficient,
        dtype=dtype,
        axis_name=axis_name,
    )
