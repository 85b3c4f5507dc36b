"""Intensities of an image: grey levels, scaling to [0, 1], and their statistics."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

MAX_LEVELS, MAX_PIXELS = 256, 65536  # within them sums of integers over the pairs of an image fit 32 bits
STATISTICS = ("mean", "sum", "std", "correlation")
EXACT = ("uint8", "int8", "uint16", "int16")


def check_images(shape: tuple[int, ...], *, axes: tuple[str, ...]) -> None:
    """Refuses other axes, and images without pixels or with too many."""
    if len(shape) != len(axes) or 0 in shape[1:]:
        raise ValueError(f"images of shape {shape}; expected ({', '.join(axes)}), none of a cell's 0")
    if shape[1] * shape[2] > MAX_PIXELS:
        raise ValueError(
            f"images of {shape[1]} x {shape[2]} pixels; at most {MAX_PIXELS}: crop or shrink them"
        )


def check_levels(levels: int) -> None:
    """Refuses fewer than 2 grey levels, and more than 256."""
    if not 2 <= levels <= MAX_LEVELS:
        raise ValueError(f"{levels} grey levels; choose 2 to {MAX_LEVELS}")


def quantize(images: ArrayLike, levels: int = 256) -> jax.Array:
    """Grey levels floor((levels - 1) (x - min) / (max - min) + 1/2) of each image, that is, rounded half up.

    Args:
        images: (B, H, W) intensities. Integers of 8 or 16 bits are divided exactly, everything else in float32.
        levels: number of grey levels, 2 to 256.

    Returns:
        (B, H, W) int32 from 0 to levels - 1. A constant image is 0; one with a value that is not finite is -1, which
        `haralick` answers with NaN.
    """
    images = jnp.asarray(images)
    check_images(images.shape, axes=("B", "H", "W"))
    check_levels(levels)
    return _quantize(images, levels)


@functools.partial(jax.jit, static_argnums=1)
def _quantize(images: jax.Array, levels: int) -> jax.Array:
    if images.dtype.name in EXACT:
        images = images.astype(jnp.int32)
        low = images.min((1, 2), keepdims=True)
        span = jnp.maximum(images.max((1, 2), keepdims=True) - low, 1)
        return (2 * (levels - 1) * (images - low) + span) // (2 * span)
    scaled = rescale(images.astype(jnp.float32))
    grey = jnp.floor(scaled * (levels - 1) + 0.5)
    return jnp.where(jnp.isfinite(scaled), grey, -1).astype(jnp.int32)


def rescale(images: jax.Array) -> jax.Array:
    """(B, H, W) float32 to [0, 1] per image; 0 where constant, NaN where a value of the image is not finite."""
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    scaled = (images - low) / jnp.where(high > low, high - low, 1)
    return jnp.where(jnp.isfinite(high) & jnp.isfinite(low), scaled, jnp.nan)


def statistics(first: jax.Array, second: jax.Array) -> jax.Array:
    """(B, 4) float32 in the order of `STATISTICS`: of the first channel, and the Pearson correlation of both.

    Both are (B, P) float32. The correlation is NaN where a channel is constant.
    """
    total, of_first, spread = _centered(first)
    _, of_second, other = _centered(second)
    varied = (first.max(1) > first.min(1)) & (second.max(1) > second.min(1))
    scale = jnp.where(varied, jnp.sqrt(spread) * jnp.sqrt(other), jnp.nan)
    correlation = jnp.clip(_total(of_first * of_second) / scale, -1, 1)
    pixels = first.shape[1]
    return jnp.stack([total / pixels, total, jnp.sqrt(spread / pixels), correlation], axis=1)


def _centered(values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(B,) sums, (B, P) deviations from the mean, and (B,) sums of their squares, of (B, P)."""
    total = _total(values)
    deviations = values - (total / values.shape[1])[:, None]
    return total, deviations, _total(deviations**2)


def _total(values: jax.Array) -> jax.Array:
    """(B,) sums of (B, P), half onto half: accurate, and in one order whatever the batch is."""
    size = 1 << (values.shape[1] - 1).bit_length()
    values = jnp.pad(values, ((0, 0), (0, size - values.shape[1])))
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        values = values[:, :half] + values[:, half:]
    return values[:, 0]
