"""Paired cell inpainting (Lu et al. 2019): predict a cell's protein from its marker and from another, whole cell.

    source cell (64x64, protein and markers)         target cell's markers (64x64)
    conv1_1   96   64x64   pool -> 32x32             target1  16   64x64   pool -> 32x32
    conv2_1  256   32x32   pool -> 16x16             target2  32   32x32   pool -> 16x16
    conv3_1  384   16x16                             target3  32   16x16
    conv4_1  384   16x16
    conv5_1  256   16x16

    both side by side (288)   16x16
    conv6_1  256, conv7_1 384, conv8_1 384   16x16   doubled -> 32x32
    conv9_1  256   32x32                             doubled -> 64x64
    conv10_1  96   64x64
    logits         1x1, linear: the target cell's protein, 64x64

Convolutions are 3x3 with bias and ReLU and keep the size. In the encoders batch norm follows the ReLU; the decoder has
none. Pools are max 2x2, stride 2; doubling repeats pixels. Features are what leaves the ReLU, before the batch norm:
the published profiles are the spatial maxima of conv1_1 ... conv5_1 (`layers.pool_features` with pooling="max").

7,320,609 trainable parameters for two source channels, one target marker and one predicted channel, of which the source
encoder has 3,323,616 (7,321,617 for three source channels and two target markers). Train with the mean squared error.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from coos.models import layers

PUBLISHED = layers.Published("Lu 2019 (paired cell inpainting)", (64, 64, 3), 1, 7_320_609)

# Channels in units of width / 6: the original width of 96 makes the unit 16.
SOURCE = (("conv1_1", 6), ("conv2_1", 16), ("conv3_1", 24), ("conv4_1", 24), ("conv5_1", 16))
TARGET = (("target1", 1), ("target2", 2), ("target3", 2))
DECODER = (("conv6_1", 16), ("conv7_1", 24), ("conv8_1", 24), ("conv9_1", 16), ("conv10_1", 6))
DOUBLE_BEFORE = ("conv9_1", "conv10_1")
NUM_POOLS = 2
FACTOR = 2**NUM_POOLS


def doubled(x: Array) -> Array:
    """(B, H, W, C) -> (B, 2H, 2W, C): every pixel as a block of 2 x 2 (Keras' UpSampling2D)."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


class _Encoder(nn.Module):
    """3x3 convolutions with ReLU, then batch norm; the first two also with a max pool. Returns output and features."""

    convolutions: tuple[tuple[str, int], ...]
    unit: int
    momentum: float
    epsilon: float
    dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
        weights = {"kernel_init": nn.initializers.glorot_uniform(), "dtype": self.dtype}
        norm = layers.batch_norm(
            train=train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        features: dict[str, Array] = {}
        x = x.astype(self.dtype)
        for number, (name, factor) in enumerate(self.convolutions):
            features[name] = x = nn.relu(nn.Conv(factor * self.unit, (3, 3), name=name, **weights)(x))
            x = norm(name=f"{name}_norm")(x)
            x = layers.max_pool(x, 2, 2) if number < NUM_POOLS else x
        return x, features


class _Decoder(nn.Module):
    """3x3 convolutions with ReLU, doubling the size on the way. Returns the features; the last is the output."""

    unit: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        weights = {"kernel_init": nn.initializers.glorot_uniform(), "dtype": self.dtype}
        features: dict[str, Array] = {}
        for name, factor in DECODER:
            x = doubled(x) if name in DOUBLE_BEFORE else x
            features[name] = x = nn.relu(nn.Conv(factor * self.unit, (3, 3), name=name, **weights)(x))
        return features


class PairedCellInpainting(nn.Module):
    """Paired cell inpainting as a Linen module.

    Attributes:
        num_outputs: number of predicted channels (1 in the original: the protein).
        source_channels: how many of the input's channels, from the first on, are the source cell; the rest are the
            target cell's markers.
        width: channels of the first convolution, a multiple of 6; all others follow in proportion (96 is the original).
        momentum: of the running statistics of the batch norms (Keras' default).
        epsilon: of the batch norms (Keras' default).
        dtype: compute dtype; parameters and statistics are float32.
        axis_name: pmap axis over which batch statistics are averaged, or None.
    """

    num_outputs: int
    source_channels: int = 2
    width: int = 96
    momentum: float = 0.99
    epsilon: float = 1e-3
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def setup(self) -> None:
        """Encoders, decoder and the last convolution: `encode` needs the first alone."""
        if self.width % 6:
            raise ValueError(f"PairedCellInpainting: width {self.width}: choose a multiple of 6")
        unit = self.width // 6
        norm = (self.momentum, self.epsilon, self.dtype, self.axis_name)
        self.source_encoder = _Encoder(SOURCE, unit, *norm)
        self.target_encoder = _Encoder(TARGET, unit, *norm)
        self.decoder = _Decoder(unit, self.dtype)
        self.logits = nn.Conv(
            self.num_outputs, (1, 1), kernel_init=nn.initializers.glorot_uniform(), dtype=self.dtype
        )

    def __call__(self, images: Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, source channels + target markers) float -> {"logits": ..., "features": {layer: array}}.

        The logits are the predicted image, (B, H, W, num_outputs) float32. H and W are multiples of 4.
        """
        self._check(images)
        source, source_features = self.source_encoder(images[..., : self.source_channels], train=train)
        target, target_features = self.target_encoder(images[..., self.source_channels :], train=train)
        decoded = self.decoder(jnp.concatenate([source, target], -1))
        logits = layers.as_logits(self.logits(decoded[DECODER[-1][0]]))
        return {"logits": logits, "features": {**source_features, **target_features, **decoded}}

    def encode(self, images: Array, *, train: bool = False) -> dict[str, Array]:
        """Features of the source encoder alone, for profiles: images (B, H, W, source channels), of any size from 4 on.

        Call it as `module.apply(variables, images, method="encode")`.
        """
        layers.check_images("PairedCellInpainting", images, smallest=(FACTOR, FACTOR))
        if images.shape[-1] != self.source_channels:
            raise ValueError(
                f"PairedCellInpainting.encode takes the {self.source_channels} channels of source cells; "
                f"got {images.shape[-1]}: leave out the target's markers, or set source_channels"
            )
        return self.source_encoder(images, train=train)[1]

    def _check(self, images: Array) -> None:
        layers.check_images("PairedCellInpainting", images, smallest=(FACTOR, FACTOR))
        height, width, channels = images.shape[1:]
        if height % FACTOR or width % FACTOR:
            raise ValueError(
                f"PairedCellInpainting halves and doubles images twice: height and width must be multiples of "
                f"{FACTOR}; got {height} x {width}: crop or pad them"
            )
        if channels <= self.source_channels:
            raise ValueError(
                f"PairedCellInpainting takes {self.source_channels} source channels and at least one target marker; "
                f"got {channels} channels in all"
            )


def create(
    num_outputs: int,
    *,
    source_channels: int = 2,
    width: int = 96,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> PairedCellInpainting:
    """Paired cell inpainting with the options of `PairedCellInpainting`."""
    return PairedCellInpainting(
        num_outputs,
        source_channels=source_channels,
        width=width,
        momentum=momentum,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=axis_name,
    )
