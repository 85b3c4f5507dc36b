"""GapNet of Hofmarcher et al. 2019 (Accurate prediction of biological assays with high-throughput microscopy images).

    520x692  conv1              32, stride 2    260x346    pool1 -> 130x173    mean: gap1    32
    130x173  conv2              64, stride 2     65x87
     65x87   conv3, conv4       64               65x87     pool2 ->  33x44     mean: gap2    64
     33x44   conv5 ... conv7   128               33x44     pool3 ->  16x22     mean: gap3   128
     16x22   conv8, 9, 10      256, dilated 2, 2, 4        16x22               mean: gap4   256
    gap (gap1 ... gap4 side by side, 480), fc1 1024, fc2 1024, logits

Convolutions are 3x3 with bias and as much zero padding as dilation; pools are max 2x2, stride 2, floor, and pool2
has one pixel of padding on each side. All but the logits end in SELU; there is no batch norm. Any image size from
11x11 on.

3,694,545 trainable parameters for five channels and 209 outputs (the paper's Table 2), whatever the image size. The
paper's text says four channels, and its Fig. 2 prints 512 beside the concatenation; Table 2 needs five and 480.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from coos.models import layers

PUBLISHED = layers.Published("Hofmarcher 2019, Table 2", (520, 696, 5), 209, 3_694_545)

BLOCKS = (  # layers of a block, and their channels in units of the first layer's
    (("conv1",), 1),
    (("conv2", "conv3", "conv4"), 2),
    (("conv5", "conv6", "conv7"), 4),
    (("conv8", "conv9", "conv10"), 8),
)
STRIDED = ("conv1", "conv2")
SMALLEST_SIZE = {0: 27, 1: 11}  # by the padding of pool2
SELU_LIMIT = -1.7580993408473766  # of SELU towards minus infinity: -1.0507 * 1.6733
LINEAR_INITS = {
    "lecun_normal": nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
    "fan_out": nn.initializers.variance_scaling(1.0, "fan_out", "normal"),
}


def alpha_dropout(key: Array, x: Array, *, rate: float) -> Array:
    """Dropout for SELU networks (Klambauer et al. 2017): inputs of mean 0 and variance 1 keep both on average.

    Dropped units take SELU's lower limit instead of 0; an affine map undoes what that does to mean and variance.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"alpha_dropout: rate {rate}: choose 0 <= rate < 1")
    keep = 1 - rate
    scale = (keep + keep * rate * SELU_LIMIT**2) ** -0.5
    dropped = jnp.where(jax.random.bernoulli(key, keep, x.shape), x, SELU_LIMIT)
    return scale * (dropped - rate * SELU_LIMIT)


class GapNet(nn.Module):
    """GapNet, and with other dilations and padding SC-CNN, as a Linen module.

    Attributes:
        num_outputs: number of logits.
        width: channels of the first convolution; the other convolutions follow in proportion (32 is the original).
        fc_units: units of each of the two hidden fully connected layers.
        dropout: rate of the alpha dropout after each of them (0 in the published configuration).
        dilations: of conv8, conv9, conv10; (1, 1, 1) in SC-CNN.
        pool2_padding: 1, or 0 as in SC-CNN.
        linear_init: "lecun_normal", what self-normalizing networks and the paper mean, or "fan_out": the published
            code (ml-jku/hti-cnn) takes the number of outputs for that of inputs, standard deviation sqrt(1 / outputs).
        dtype: compute dtype; parameters are float32.
        axis_name: unused, there is no batch norm; accepted like everywhere.
    """

    num_outputs: int
    width: int = 32
    fc_units: int = 1024
    dropout: float = 0.0
    dilations: tuple[int, int, int] = (2, 2, 4)
    pool2_padding: int = 1
    linear_init: str = "lecun_normal"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}.

        fc1 and fc2 among the features are before dropout.
        """
        linear_init = self._check_options()
        smallest = SMALLEST_SIZE[self.pool2_padding]
        layers.check_images("GapNet", images, smallest=(smallest, smallest))
        features: dict[str, Array] = {}
        x = images.astype(self.dtype)
        for number, (names, factor) in enumerate(BLOCKS, start=1):
            for name in names:
                features[name] = x = nn.selu(self._convolution(name, factor)(x))
            if number < len(BLOCKS):
                padding = self.pool2_padding if number == 2 else 0
                features[f"pool{number}"] = x = layers.max_pool(x, 2, 2, padding)
            features[f"gap{number}"] = layers.global_mean(x)
        gaps = [features[f"gap{number}"] for number in range(1, len(BLOCKS) + 1)]
        features["gap"] = x = jnp.concatenate(gaps, -1)
        linear = {"kernel_init": linear_init, "dtype": self.dtype}
        for name in ("fc1", "fc2"):
            features[name] = x = nn.selu(nn.Dense(self.fc_units, name=name, **linear)(x))
            if train and self.dropout:
                x = alpha_dropout(self.make_rng("dropout"), x, rate=self.dropout)
        x = nn.Dense(self.num_outputs, name="logits", **linear)(x)
        return {"logits": layers.as_logits(x), "features": features}

    def _convolution(self, name: str, factor: int) -> nn.Conv:
        dilation = dict(zip(BLOCKS[-1][0], self.dilations, strict=True)).get(name, 1)
        return nn.Conv(
            factor * self.width,
            (3, 3),
            strides=2 if name in STRIDED else 1,
            padding=dilation,
            kernel_dilation=dilation,
            kernel_init=LINEAR_INITS["lecun_normal"],
            dtype=self.dtype,
            name=name,
        )

    def _check_options(self) -> Callable[..., Array]:
        if self.linear_init not in LINEAR_INITS:
            raise ValueError(f"GapNet: linear_init {self.linear_init!r}: choose one of {tuple(LINEAR_INITS)}")
        if self.pool2_padding not in SMALLEST_SIZE:
            raise ValueError(f"GapNet: pool2_padding {self.pool2_padding}: choose 0 or 1")
        if len(self.dilations) != 3:
            raise ValueError(f"GapNet: dilations {self.dilations}: give three, of conv8, conv9 and conv10")
        return LINEAR_INITS[self.linear_init]


def create(
    num_outputs: int,
    *,
    width: int = 32,
    fc_units: int = 1024,
    dropout: float = 0.0,
    dilations: Sequence[int] = (2, 2, 4),
    pool2_padding: int = 1,
    linear_init: str = "lecun_normal",
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> GapNet:
    """GapNet with the options of `GapNet`."""
    return GapNet(
        num_outputs,
        width=width,
        fc_units=fc_units,
        dropout=dropout,
        dilations=tuple(dilations),  # type: ignore[arg-type]  # its length is checked by the module
        pool2_padding=pool2_padding,
        linear_init=linear_init,
        dtype=dtype,
        axis_name=axis_name,
    )
