"""Zoom, brightness and contrast as DeepProfiler augments crops; `coos.data.preprocess.augment` puts all together.

In pure JAX, for one image; `jax.vmap` them over a batch.
"""

import jax
import jax.numpy as jnp
from jax import Array

from coos.data.device_crops import bilinear


def zoom_positions(key: Array, size: int, *, probability: float, low: float) -> Array:
    """Where to look in an image (size, size, C) for a random square crop of it that is brought back to its size.

    With a probability the side of the crop is a uniform integer in [int(low * size), size), its place uniform among
    those inside. Resized as `tf.image.resize` and `jax.image.resize` do: sample i lies at (i + 0.5) side / size - 0.5
    of the crop, moved to its outer pixels where it is beyond them. Else positions are those of the pixels.

    Returns:
        float32 (size, size, 2): y and x, for `sample`.

    Raises:
        ValueError: such crops would be as large as the image, or empty.
    """
    smallest = int(low * size)
    if not 1 <= smallest < size:
        raise ValueError(f"zoom_low={low}: crops of {smallest} of {size} pixels; choose less than 1, above 0")
    chosen_key, side_key, place_key = jax.random.split(key, 3)
    side = jax.random.randint(side_key, (), smallest, size)
    corner = jax.random.randint(place_key, (2,), 0, size - side + 1)
    index = jnp.arange(size)
    inside = jnp.clip((index + 0.5) * side / size - 0.5, 0, side - 1)
    chosen = jax.random.bernoulli(chosen_key, probability)
    y, x = (jnp.where(chosen, start + inside, index) for start in corner)
    return jnp.stack(jnp.meshgrid(y, x, indexing="ij"), -1)


def sample(image: Array, positions: Array) -> Array:
    """Bilinear values of an image (H, W, C) at positions (h, w, 2) inside it: float32 (h, w, C)."""
    whole = jnp.floor(positions)
    (row, column), (down, right) = (
        jnp.moveaxis(part, -1, 0) for part in (whole.astype(jnp.int32), positions - whole)
    )
    last_row, last_column = image.shape[0] - 1, image.shape[1] - 1
    return bilinear(
        lambda y, x: image[jnp.minimum(y, last_row), jnp.minimum(x, last_column)],
        (row, down),
        (column, right),
    )


def random_brightness(key: Array, image: Array, *, spread: float) -> Array:
    """Add to each channel a uniform value in [-spread, spread], in units of the scaled image; nothing is clipped."""
    return image + jax.random.uniform(key, image.shape[-1:], minval=-spread, maxval=spread)


def random_contrast(key: Array, image: Array, *, spread: float) -> Array:
    """Multiply what each channel deviates from its mean by a uniform factor in [1 - spread, 1 + spread], unclipped."""
    mean = image.mean((0, 1))
    factor = jax.random.uniform(key, image.shape[-1:], minval=1 - spread, maxval=1 + spread)
    return (image - mean) * factor + mean
