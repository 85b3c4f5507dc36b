"""The texture features of Lu et al. 2019: Haralick's at five scales, and four statistics of intensity."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from coos.texture import cooccurrence
from coos.texture import intensity as intensities
from coos.texture.pair_sums import DIRECTIONS

SCALES = (1, 2, 4, 8, 16)
INTENSITIES = ("raw", "rescaled")


def names(scales: Sequence[int] = SCALES) -> list[str]:
    """Names of the columns of `texture`, in order: "haralick_d1_a45_contrast" is at distance 1 and angle 45."""
    of_pairs = [
        f"haralick_d{d}_a{a}_{name}" for d in scales for a in DIRECTIONS for name in cooccurrence.FEATURES
    ]
    return [*of_pairs, *intensities.STATISTICS]


def texture(
    images: ArrayLike,
    *,
    levels: int = 256,
    scales: Sequence[int] = SCALES,
    intensity: str = "raw",
    block: int = cooccurrence.BLOCK,
) -> jax.Array:
    """Haralick's features of channel 0, rescaled per image, at several scales, and four statistics of intensity.

    The paper (section 3.1) does not say what a scale is: here it is the distance between the pixels of a pair, doubled
    from 1 to 16, a quarter of an image of 64, so that every octave of sizes inside a cell is measured. Nor does it say
    whether the statistics are of the measured or of the rescaled intensities.

    Args:
        images: (B, H, W, C) intensities with at least two channels, of at most 65,536 pixels.
        levels: grey levels of channel 0 (see `quantize`), 2 to 256.
        scales: distances, see `haralick`.
        intensity: whether mean, sum and standard deviation (of the population) of channel 0 are of the intensities as
            given, "raw", or after min-max scaling of the image to [0, 1], "rescaled". The Pearson correlation of
            channels 0 and 1 does not depend on it.
        block: images counted at once, see `haralick`.

    Returns:
        (B, 52 len(scales) + 4) float32, named by `names`. The correlation is NaN where one of its channels is constant,
        and all of an image is NaN where a value of its first two channels is not finite.
    """
    images = jnp.asarray(images)
    intensities.check_images(images.shape, axes=("B", "H", "W", "C"))
    intensities.check_levels(levels)
    scales = cooccurrence.checked_distances(scales, images.shape[1:3])
    if images.shape[3] < 2:
        raise ValueError(
            "images of one channel have no correlation of two; haralick() takes a single channel"
        )
    if intensity not in INTENSITIES:
        raise ValueError(f"no intensity {intensity!r}; available: {', '.join(INTENSITIES)}")
    return _texture(images, levels, scales, intensity, block)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _texture(
    images: jax.Array, levels: int, scales: tuple[int, ...], intensity: str, block: int
) -> jax.Array:
    grey = intensities.quantize(images[..., 0], levels)
    of_pairs = cooccurrence.haralick(grey, levels=levels, distances=scales, block=block)
    first, second = jnp.moveaxis(images[..., :2].astype(jnp.float32), 3, 0)
    scaled = intensities.rescale(first) if intensity == "rescaled" else first
    height, width = first.shape[1:]
    flat = (plane.reshape(len(images), height * width) for plane in (scaled, second))
    features = of_pairs.reshape(len(images), math.prod(of_pairs.shape[1:]))
    found = [features, intensities.statistics(*flat)]
    known = jnp.isfinite(images[..., :2]).all((1, 2, 3))
    return jnp.where(known[:, None], jnp.concatenate(found, axis=1), jnp.nan)
