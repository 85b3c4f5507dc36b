"""ResNet-50 V2 of Keras Applications: identity mappings (He et al. 2016b, arXiv:1603.05027).

    224x224  conv1     7x7, stride 2, 64, bias                                  112x112
             pool1     zero padding 1, max 3x3, stride 2                         56x56
             conv2_x   3 bottlenecks  64,  64,  256, stride 2 in the third       28x28
             conv3_x   4 bottlenecks 128, 128,  512, stride 2 in the fourth      14x14
             conv4_x   6 bottlenecks 256, 256, 1024, stride 2 in the sixth        7x7
             conv5_x   3 bottlenecks 512, 512, 2048                               7x7
             post      batch norm, ReLU
             pool5     global mean, 2048
    logits

A block: batch norm and ReLU ("preactivation"); 1x1 without bias, batch norm, ReLU; 3x3 without bias, with the
stride, batch norm, ReLU; 1x1 with bias; sum with the shortcut, nothing after it. The first block's shortcut is
a 1x1 convolution with bias of the preactivation, the strided block's a 1x1 max pool of its input (every second
pixel). As conv1 has neither batch norm nor ReLU, pool1's input can be negative and its padding shows.

25,568,360 trainable parameters for three channels and 1000 classes.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from coos.models import layers
from coos.models.layers import WeightSource

PUBLISHED = layers.Published("He 2016 (identity mappings); Bornholdt 2021", (224, 224, 3), 1000, 25_568_360)


class _Bottleneck(nn.Module):
    """Preactivated bottleneck."""

    width: int
    stride: int
    project: bool  # the shortcut is a 1x1 convolution of the preactivation
    conv: Callable[..., nn.Conv]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        preactivation = nn.relu(self.norm(name="preact_bn")(x))
        if self.project:
            shortcut = self.conv(4 * self.width, (1, 1), self.stride, padding=0, name="shortcut_conv")
            x = shortcut(preactivation)
        elif self.stride > 1:
            x = layers.max_pool(x, 1, self.stride)
        y = self.conv(self.width, (1, 1), padding=0, use_bias=False, name="conv1")(preactivation)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.width, (3, 3), self.stride, padding=1, use_bias=False, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        return x + self.conv(4 * self.width, (1, 1), padding=0, name="conv3")(y)


class ResNetV2(nn.Module):
    """Keras' ResNet50V2 as a Linen module.

    Features: "conv1" and "pool1" (no activation), every block's sum "conv2_1", "conv2_2", ... (no activation),
    "post" (after the last batch norm and ReLU), "pool5" (B, 32 width).

    Attributes:
        num_outputs: number of logits.
        stage_sizes: blocks of conv2_x, conv3_x, ...; the last block of each but the last stage halves the size.
        width: channels of conv1 and of the first stage's 3x3 convolutions; all others follow in proportion.
        momentum: of the running statistics.
        epsilon: of batch norm.
        dtype: compute dtype; parameters and statistics are float32.
        axis_name: pmap axis over which batch statistics are averaged, or None.
    """

    num_outputs: int
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    momentum: float = 0.99
    epsilon: float = 1.001e-5
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}."""
        layers.check_images("ResNetV2", images, smallest=(1, 1))
        glorot = nn.initializers.glorot_uniform()
        conv = functools.partial(nn.Conv, kernel_init=glorot, dtype=self.dtype)
        norm = layers.batch_norm(
            train=train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        features: dict[str, Array] = {}
        x = conv(self.width, (7, 7), 2, padding=3, name="conv1")(images.astype(self.dtype))
        features["conv1"] = x
        features["pool1"] = x = layers.max_pool(layers.zero_padded(x, 1), 3, 2)
        for name, stage, block in _blocks(self):
            last_of_stage = block == self.stage_sizes[stage] - 1
            x = _Bottleneck(
                width=self.width * 2**stage,
                stride=2 if last_of_stage and stage < len(self.stage_sizes) - 1 else 1,
                project=block == 0,
                conv=conv,
                norm=norm,
                name=name,
            )(x)
            features[name] = x
        features["post"] = x = nn.relu(norm(name="post_bn")(x))
        features["pool5"] = x = layers.global_mean(x)
        logits = nn.Dense(self.num_outputs, kernel_init=glorot, dtype=self.dtype, name="logits")(x)
        return {"logits": layers.as_logits(logits), "features": features}


def _blocks(module: ResNetV2) -> list[tuple[str, int, int]]:
    """Name, stage and place in the stage of all blocks, counted from 0."""
    return [
        (f"conv{stage + 2}_{block + 1}", stage, block)
        for stage, size in enumerate(module.stage_sizes)
        for block in range(size)
    ]


# Ours, the kind and Keras' name in a block, in the order of Keras' layers.
_LAYERS = (
    ("preact_bn", "norm", "preact_bn"),
    ("conv1", "conv", "1_conv"),
    ("bn1", "norm", "1_bn"),
    ("conv2", "conv", "2_conv"),
    ("bn2", "norm", "2_bn"),
    ("shortcut_conv", "conv", "0_conv"),
    ("conv3", "conv", "3_conv"),
)


def layout(module: ResNetV2) -> list[WeightSource]:
    """Places of the module's parameters in Keras' checkpoints."""
    sources = [WeightSource(("conv1",), "conv", keras="conv1_conv")]
    for name, stage, block in _blocks(module):
        prefix = f"conv{stage + 2}_block{block + 1}"
        sources += [
            WeightSource((name, layer), kind, keras=f"{prefix}_{keras}")
            for layer, kind, keras in _LAYERS
            if layer != "shortcut_conv" or block == 0
        ]
    return sources + [
        WeightSource(("post_bn",), "norm", keras="post_bn"),
        WeightSource(("logits",), "dense", keras="predictions"),
    ]


def create(
    num_outputs: int,
    *,
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3),
    width: int = 64,
    momentum: float = 0.99,
    epsilon: float = 1.001e-5,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> ResNetV2:
    """ResNet-50 V2 with the options of `ResNetV2`."""
    return ResNetV2(
        num_outputs,
        stage_sizes=tuple(stage_sizes),
        width=width,
        momentum=momentum,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=axis_name,
    )
