"""The bottleneck ResNet of He et al. 2016 (arXiv:1512.03385); `resnet50` and `resnet101` say which stages it has.

Two published variants, which cannot share weights:

                          "torchvision" (v1.5)          "keras" (Keras Applications, as Caffe's)
    convolution bias      no                            yes
    stride of a stage     on the 3x3 of its first       on the first 1x1 of its first block
                          block, and on the shortcut    and on the shortcut
    batch norm            epsilon 1e-5, momentum 0.9    epsilon 1.001e-5, momentum 0.99
    kernels at first      normal, 2 / fan-out           uniform, Glorot
    logits at first       uniform, +-1 / sqrt(fan-in),  uniform, Glorot; biases 0
                          biases too

Paddings are symmetric in both: size n becomes ceil(n / 2) at every stride. The stem's pool has -inf padding in
one and zeros in the other: the same, because it follows a ReLU.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from coos.models import layers
from coos.models.layers import WeightSource


class _Variant(NamedTuple):
    """What the two variants do differently."""

    bias: bool
    stride_on_3x3: bool
    momentum: float
    epsilon: float
    kernel_init: Callable[..., Array]
    logits_init: Callable[[int], dict[str, Any]]  # from fan-in to the arguments of nn.Dense


def torch_linear_init(fan_in: int) -> dict[str, Any]:
    """PyTorch's start of a linear layer, bias included, as arguments of `nn.Dense`."""

    def bias_init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

    return {"kernel_init": layers.torch_linear_uniform(), "bias_init": bias_init}


KAIMING_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
GLOROT = nn.initializers.glorot_uniform()
VARIANTS = {
    "torchvision": _Variant(False, True, 0.9, 1e-5, KAIMING_FAN_OUT, torch_linear_init),
    "keras": _Variant(True, False, 0.99, 1.001e-5, GLOROT, lambda fan_in: {"kernel_init": GLOROT}),
}
HEADS = ("global", "pool7")


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut; batch norm after each, ReLU after the first two and the sum."""

    width: int
    stride: int
    project: bool  # the shortcut is a 1x1 convolution instead of the identity
    stride_on_3x3: bool
    conv: Callable[..., nn.Conv]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        first, second = (1, self.stride) if self.stride_on_3x3 else (self.stride, 1)
        y = self.conv(self.width, (1, 1), first, padding=0, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.width, (3, 3), second, padding=1, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.conv(4 * self.width, (1, 1), padding=0, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        if self.project:
            x = self.conv(4 * self.width, (1, 1), self.stride, padding=0, name="shortcut_conv")(x)
            x = self.norm(name="shortcut_bn")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Bottleneck ResNet as a Linen module.

    Features: "conv1" (after batch norm and ReLU), "pool1", every block's output "conv2_1", "conv2_2", ... (after the
    ReLU; names of the paper), "pool5" (B, 32 width).

    Attributes:
        num_outputs: number of logits.
        stage_sizes: blocks of conv2_x, conv3_x, ...; each stage halves the size, but for the first.
        width: channels of conv1 and of the first stage's 3x3 convolutions; all others follow in proportion.
        variant: "torchvision" or "keras".
        head: "global" mean, or "pool7": means of all 7x7 windows, then their mean. It is the same on 7x7 maps (images
            of 224 pixels); on larger ones the border weighs less. So the code of Hofmarcher et al. 2019
            (ml-jku/hti-cnn, resnet.py).
        momentum: of the running statistics; None: the variant's.
        epsilon: of batch norm; None: the variant's.
        remat: compute what is inside a block again for its gradient instead of keeping it: less memory, more time.
        dtype: compute dtype; parameters and statistics are float32.
        axis_name: pmap axis over which batch statistics are averaged, or None.
    """

    num_outputs: int
    stage_sizes: tuple[int, ...]
    width: int = 64
    variant: str = "torchvision"
    head: str = "global"
    remat: bool = False
    momentum: float | None = None
    epsilon: float | None = None
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"ResNet variant {self.variant!r}: choose one of {tuple(VARIANTS)}")
        if self.head not in HEADS:
            raise ValueError(f"ResNet head {self.head!r}: choose one of {HEADS}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}."""
        variant = VARIANTS[self.variant]
        layers.check_images("ResNet", images, smallest=(self._smallest(), self._smallest()))
        conv = functools.partial(
            nn.Conv, use_bias=variant.bias, kernel_init=variant.kernel_init, dtype=self.dtype
        )
        norm = layers.batch_norm(
            train=train,
            momentum=variant.momentum if self.momentum is None else self.momentum,
            epsilon=variant.epsilon if self.epsilon is None else self.epsilon,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        features: dict[str, Array] = {}
        x = conv(self.width, (7, 7), 2, padding=3, name="conv1")(images.astype(self.dtype))
        features["conv1"] = x = nn.relu(norm(name="bn1")(x))
        features["pool1"] = x = layers.max_pool(x, 3, 2, padding=1)
        bottleneck = nn.remat(_Bottleneck) if self.remat else _Bottleneck
        for name, stage, block in _blocks(self):
            x = bottleneck(
                width=self.width * 2**stage,
                stride=2 if stage > 0 and block == 0 else 1,
                project=block == 0,
                stride_on_3x3=variant.stride_on_3x3,
                conv=conv,
                norm=norm,
                name=name,
            )(x)
            features[name] = x
        features["pool5"] = x = self._pooled(x)
        dense = nn.Dense(
            self.num_outputs, dtype=self.dtype, name="logits", **variant.logits_init(x.shape[-1])
        )
        return {"logits": layers.as_logits(dense(x)), "features": features}

    def _pooled(self, x: Array) -> Array:
        if self.head == "pool7":
            x = nn.avg_pool(layers.as_logits(x), (7, 7))
        return layers.global_mean(x).astype(self.dtype)

    def _smallest(self) -> int:
        """Least size that leaves one pixel, or seven: each of the stem's and the stages' strides rounds up."""
        return 1 if self.head == "global" else 6 * 2 ** (len(self.stage_sizes) + 1) + 1


def _blocks(module: ResNet) -> list[tuple[str, int, int]]:
    """Name, stage and place in the stage of all blocks, counted from 0: ("conv2_1", 0, 0), ("conv2_2", 0, 1)..."""
    return [
        (f"conv{stage + 2}_{block + 1}", stage, block)
        for stage, size in enumerate(module.stage_sizes)
        for block in range(size)
    ]


# Our name, the kind, torchvision's and Keras' name in a block, in the order of Keras' layers.
_LAYERS = (
    ("conv1", "conv", "conv1", "1_conv"),
    ("bn1", "norm", "bn1", "1_bn"),
    ("conv2", "conv", "conv2", "2_conv"),
    ("bn2", "norm", "bn2", "2_bn"),
    ("shortcut_conv", "conv", "downsample.0", "0_conv"),
    ("conv3", "conv", "conv3", "3_conv"),
    ("shortcut_bn", "norm", "downsample.1", "0_bn"),
    ("bn3", "norm", "bn3", "3_bn"),
)


def layout(module: ResNet) -> list[WeightSource]:
    """Places of the module's parameters in the checkpoints of the library whose variant it is."""
    of_torch = module.variant == "torchvision"

    def source(path: tuple[str, ...], kind: str, torch: str, keras: str) -> WeightSource:
        return WeightSource(path, kind, torch if of_torch else None, None if of_torch else keras)

    sources = [
        source(("conv1",), "conv", "conv1", "conv1_conv"),
        source(("bn1",), "norm", "bn1", "conv1_bn"),
    ]
    for name, stage, block in _blocks(module):
        torch, keras = f"layer{stage + 1}.{block}", f"conv{stage + 2}_block{block + 1}"
        sources += [
            source((name, layer), kind, f"{torch}.{torch_layer}", f"{keras}_{keras_layer}")
            for layer, kind, torch_layer, keras_layer in _LAYERS
            if block == 0 or not layer.startswith("shortcut")
        ]
    return sources + [source(("logits",), "dense", "fc", "predictions")]


def create(
    num_outputs: int,
    *,
    stage_sizes: tuple[int, ...],
    width: int = 64,
    variant: str = "torchvision",
    head: str = "global",
    remat: bool = False,
    momentum: float | None = None,
    epsilon: float | None = None,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> ResNet:
    """A ResNet with the options of `ResNet`."""
    return ResNet(
        num_outputs,
        stage_sizes=tuple(stage_sizes),
        width=width,
        variant=variant,
        head=head,
        remat=remat,
        momentum=momentum,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=axis_name,
    )
