"""The input that each set of public weights was trained with, and how it carries over to other channels.

A scaling is affine on pixels from 0 to 255 with channels in the order red, green, blue: (x - offset) / scale.
Weights trained on blue, green, red have the channels of their first kernel turned round when they are imported, so
that every network here takes red, green, blue.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from coos.data.preprocess import standardize, to_bytes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STEMS = ("cyclic", "rescaled")


class Scaling(NamedTuple):
    """(x - offset) / scale of pixels in 0..255, one value per input channel; `reversed_stem`: trained on BGR."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    reversed_stem: bool = False


SCALINGS = {
    "none": Scaling((0.0,) * 3, (1.0,) * 3),  # 0..255 as they are
    "unit": Scaling((0.0,) * 3, (255.0,) * 3),  # [0, 1]
    "tf": Scaling((127.5,) * 3, (127.5,) * 3),  # [-1, 1]: Keras ResNetV2, torchvision GoogLeNet
    "torch": Scaling(  # torchvision; Keras DenseNet and EfficientNet
        tuple(255 * m for m in IMAGENET_MEAN), tuple(255 * s for s in IMAGENET_STD)
    ),
    "caffe": Scaling((123.68, 116.779, 103.939), (1.0,) * 3, reversed_stem=True),  # Keras VGG and ResNet V1
}


def named(name: str) -> Scaling:
    """The scaling called `name`; ValueError lists them."""
    if name not in SCALINGS:
        raise ValueError(f"input scaling {name!r}: choose one of {', '.join(SCALINGS)}")
    return SCALINGS[name]


def for_channels(scaling: Scaling, channels: int) -> Scaling:
    """Offset and scale of red, green, blue repeated cyclically over `channels`, as the stem is."""
    repeated = [tuple(values[i % 3] for i in range(channels)) for values in scaling[:2]]
    return Scaling(repeated[0], repeated[1], scaling.reversed_stem)


def adapt_stem(kernel: np.ndarray, channels: int, *, stem: str) -> np.ndarray:
    """The first kernel (k, k, 3, F) for `channels` input channels.

    "cyclic": channel i takes the weights of channel i mod 3, unchanged (DeepProfiler). "rescaled": the same times
    3 / channels, so that an input with equal channels gives the activations that it gave with three.
    """
    if stem not in STEMS:
        raise ValueError(f"stem {stem!r}: choose one of {STEMS}")
    if channels < 1:
        raise ValueError(f"channels={channels}: at least one")
    given = kernel.shape[2]
    if given not in (3, channels):
        raise ValueError(
            f"the first layer takes {given} channels, not {channels}; only from three can others be made"
        )
    repeated = kernel[:, :, np.arange(channels) % given]
    return repeated * np.float32(given / channels) if stem == "rescaled" else repeated


def apply(pixels: Array, scaling: Scaling) -> Array:
    """(pixels - offset) / scale for pixels (..., C) in 0..255, float32."""
    if pixels.shape[-1] != len(scaling.offset):
        raise ValueError(f"{pixels.shape[-1]} channels, but a scaling of {len(scaling.offset)}")
    return standardize(pixels, mean=jnp.array(scaling.offset), std=jnp.array(scaling.scale))


def channels_as_images(images: Array, scaling: Scaling, *, size: int | None = None) -> Array:
    """Each channel as an RGB image of its own: (B, H, W, C) -> (B * C, size, size, 3), channels of one image adjacent.

    Each is resized (bilinear, no antialiasing, as DeepProfiler does), taken from its minimum and maximum to 0..255,
    repeated over red, green and blue, and scaled. With the scaling "tf" the network sees [-1, 1], as in Bornholdt
    2021; the thesis' 6,400 EfficientNet-B0 features are 5 channels x 1,280 of these images (`size=224`).
    """
    if images.ndim != 4:
        raise ValueError(f"channels_as_images takes (B, H, W, C); got shape {images.shape}")
    batch, height, width, channels = images.shape
    grey = jnp.moveaxis(images, -1, 1).reshape(batch * channels, height, width, 1).astype(jnp.float32)
    if size is not None:
        grey = jax.image.resize(grey, (batch * channels, size, size, 1), "bilinear", antialias=False)
    return apply(jnp.repeat(to_bytes(grey), 3, axis=-1), scaling)


def join_channels(features: Array, channels: int) -> Array:
    """Features of `channels_as_images` (B * C, F) as one row per image, channel after channel: (B, C * F).

    Raises ValueError for feature maps (pool them first) and for rows that are no multiple of `channels`.
    """
    if features.ndim != 2:
        raise ValueError(
            f"features of shape {features.shape}: join_channels takes (B * C, F); "
            "make vectors of maps with coos.models.layers.pool_features"
        )
    if channels < 1 or len(features) % channels:
        raise ValueError(f"{len(features)} rows of features are no multiple of {channels} channels")
    return features.reshape(-1, channels * features.shape[-1])
