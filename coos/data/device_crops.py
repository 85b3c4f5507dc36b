"""Windows around cells, cut on the device out of fields that stay there in their raw dtype: see `coos.data.crops`."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from coos.data import crops


def cut_from(images: Array, field: Array, corner: Array, size: int = 128) -> Array:
    """`crops.cut` on the device, one window for every row of `field` and `corner`.

    One gather: on a CPU it is as fast as slices that are moved and masked, or faster, and simpler.

    Args:
        images: (F, H, W, C), raw.
        field: (B,) integers, rows of `images`.
        corner: (B, 2) integers, anywhere.
        size: of the windows in pixels.

    Returns:
        (B, size, size, C) in the dtype of the images, 0 outside them.
    """

    def one(field: Array, corner: Array) -> Array:
        y, x = (corner[axis] + jnp.arange(size) for axis in (0, 1))
        y_inside, x_inside = (
            (at >= 0) & (at < extent) for at, extent in zip((y, x), images.shape[1:3], strict=True)
        )
        pixels = _pixels(images, field, y[:, None], x)
        return jnp.where((y_inside[:, None] & x_inside)[..., None], pixels, 0)

    return jax.vmap(one)(field, corner)


def resample_from(images: Array, field: Array, center: Array, size: int = 128) -> Array:
    """`crops.resample` on the device: float32 (B, size, size, C) from `center` (B, 2) float32, else as `cut_from`.

    Centres in float32 are themselves off by up to 3e-5 pixel at 1,000 pixels.
    """
    crops.refuse_small(size)

    def one(field: Array, center: Array) -> Array:
        *y, y_inside = (values[:, None] for values in _samples_from(center[0], images.shape[1], size))
        *x, x_inside = _samples_from(center[1], images.shape[2], size)
        values = bilinear(lambda rows, columns: _pixels(images, field, rows, columns), y, x)
        return jnp.where((y_inside & x_inside)[..., None], values, 0)

    return jax.vmap(one)(field, center)


def _samples_from(center: Array, extent: int, size: int) -> tuple[Array, Array, Array]:
    """`crops.resample`'s positions of one centre in float32: pixels before (size,), fractions, and which are inside.

    Whole pixels are kept apart from the rest, which lies within a few pixels of 0: float32 positions of 1,000 pixels
    would be off by 6e-5.
    """
    whole, index = jnp.floor(center), np.arange(size)
    drift = jnp.asarray(index * (extent - size) / ((size - 1) * extent), jnp.float32)
    rest = (center - whole) - size % 2 / 2 - (center - size / 2) / extent + drift
    rest = jnp.round(rest * crops.GRID) / crops.GRID
    before = jnp.floor(rest)
    pixel, fraction = whole.astype(jnp.int32) - size // 2 + index + before.astype(jnp.int32), rest - before
    inside = (pixel >= 0) & ((pixel < extent - 1) | ((pixel == extent - 1) & (fraction == 0)))
    return pixel, fraction, inside


def _pixels(images: Array, field: Array, rows: Array, columns: Array) -> Array:
    """(..., C) of one field at rows and columns that broadcast, moved inside."""
    y, x = jnp.clip(rows, 0, images.shape[1] - 1), jnp.clip(columns, 0, images.shape[2] - 1)
    return images[field, y, x]


def bilinear(read: Callable[[Array, Array], Array], y: Sequence[Array], x: Sequence[Array]) -> Array:
    """Values between pixels, float32 (..., C), at rows and columns that broadcast.

    Args:
        read: pixels (..., C) at whole rows and columns; it is asked for the pixel behind the last one as well.
        y, x: the pixels at or before the positions, and how far behind them, from 0 to 1.
    """
    (row, down), (column, right) = y, x
    places = [(row, column), (row, column + 1), (row + 1, column), (row + 1, column + 1)]
    corner, beside, below, across = (read(*place).astype(jnp.float32) for place in places)
    above = corner + (beside - corner) * right[..., None]
    under = below + (across - below) * right[..., None]
    return above + (under - above) * down[..., None]
