"""Haralick's thirteen features from the sums over pixel pairs."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from coos.texture import pair_sums
from coos.texture.intensity import check_images, check_levels

BLOCK = 32
FEATURES = (
    "angular_second_moment",
    "contrast",
    "correlation",
    "variance",
    "inverse_difference_moment",
    "sum_average",
    "sum_variance",
    "sum_entropy",
    "entropy",
    "difference_variance",
    "difference_entropy",
    "information_1",
    "information_2",
)


def haralick(
    grey: ArrayLike, *, levels: int = 256, distances: Sequence[int] = (1,), block: int = BLOCK
) -> jax.Array:
    """The thirteen features of each image, distance and direction, as `mahotas.features.haralick` defines them.

    In the order of `FEATURES`, with H the entropy in bits:
    sum p^2; sum p (i - j)^2; covariance / variance; variance of p_x; sum p / (1 + (i - j)^2); mean of i + j; variance
    of i + j; H(i + j); H(p); variance of the numbers P(|i - j| = k), k = 0 to the highest level in the image;
    H(|i - j|); (H(p) - 2 H(p_x)) / H(p_x); sqrt(1 - exp(-2 (2 H(p_x) - H(p)))).
    As p is symmetric, p_x = p_y, and the entropies of p and of p_x p_y relative to p_x p_y are both 2 H(p_x).

    Args:
        grey: (B, H, W) integers from 0 to levels - 1; at most 65,536 pixels.
        levels: number of grey levels, 2 to 256.
        distances: steps between the pixels of a pair (a diagonal step is sqrt(2) pixels), from 1 to min(H, W) - 1.
        block: images counted at once; the counts of each take about 2 levels^2 bytes.

    Returns:
        (B, len(distances), 4, 13) float32, directions as in `DIRECTIONS`. Where all pixels of the pairs are alike, the
        correlation is 1 and information_1 is 0, as in mahotas. An image with a level out of range is NaN.
    """
    grey = jnp.asarray(grey)
    check_images(grey.shape, axes=("B", "H", "W"))
    check_levels(levels)
    if not jnp.issubdtype(grey.dtype, jnp.integer):
        raise ValueError(f"grey levels are integers, not {grey.dtype}; quantize() makes them")
    if block < 1:
        raise ValueError(f"blocks of {block} images; at least 1")
    return _haralick(grey, levels, checked_distances(distances, grey.shape[1:]), block)


def checked_distances(distances: Sequence[int], size: tuple[int, ...]) -> tuple[int, ...]:
    """As a tuple, if there are any and all have pairs in every direction."""
    if not distances or min(distances) < 1 or max(distances) >= min(size):
        raise ValueError(
            f"distances {tuple(distances)} in images of {size[0]} x {size[1]} pixels; "
            f"choose one or more from 1 to {min(size) - 1}"
        )
    return tuple(int(distance) for distance in distances)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _haralick(grey: jax.Array, levels: int, distances: tuple[int, ...], block: int) -> jax.Array:
    steps = pair_sums.offsets(distances)
    pairs = pair_sums.pair_counts(steps, *grey.shape[1:])
    table = pair_sums.tables(int(pairs.max()), levels)
    grey = grey.astype(jnp.int32)
    lowest, highest = grey.min((1, 2)), grey.max((1, 2))
    known = (lowest >= 0) & (highest < levels)
    of_image = functools.partial(pair_sums.of_image, steps=steps, levels=levels, table=table)
    sums = jax.lax.map(of_image, jnp.clip(grey, 0, levels - 1), batch_size=max(min(block, len(grey)), 1))
    found = _moments(sums, jnp.asarray(pairs), highest[:, None] + 1) | _entropies(sums, pairs, table.log2)
    found["inverse_difference_moment"] = table.inverse.value(sums["inverse"]) / pairs
    ordered = jnp.stack([found[name] for name in FEATURES], axis=-1)
    shaped = ordered.reshape(len(grey), len(distances), len(pair_sums.DIRECTIONS), len(FEATURES))
    return jnp.where(known[:, None, None, None], shaped, jnp.nan)


def _moments(sums: dict[str, jax.Array], pairs: jax.Array, grades: jax.Array) -> dict[str, jax.Array]:
    """(B, D) features that are means of powers, of (D,) numbers of pairs and (B, 1) numbers of grey levels in use."""
    value = {name: array.astype(jnp.float32) for name, array in sums.items()}
    residual = value["residual"] / (2 * pairs)
    variance = value["deviation"] / (2 * pairs) - residual**2
    contrast = value["contrast"] / pairs
    # (u + v)^2 = 2 u^2 + 2 v^2 - (u - v)^2 in integers: where i + j hardly varies, the rest is no rounding error.
    spread = (2 * sums["deviation"] - sums["contrast"]).astype(jnp.float32) / pairs
    varied = jnp.where(variance > 0, variance, 1)
    squares = value["difference_squares"] / pairs.astype(jnp.float32) ** 2
    return {
        "angular_second_moment": (value["pairs"] + value["alike"]) / (2 * pairs.astype(jnp.float32) ** 2),
        "contrast": contrast,
        "correlation": jnp.where(variance > 0, 1 - contrast / (2 * varied), 1),
        "variance": variance,
        "sum_average": 2 * (value["center"] + residual),
        "sum_variance": spread - (2 * residual) ** 2,
        "difference_variance": squares / grades - 1 / grades.astype(jnp.float32) ** 2,
    }


def _entropies(sums: dict[str, jax.Array], pairs: np.ndarray, log2: pair_sums.Table) -> dict[str, jax.Array]:
    """(B, D) features that are entropies in bits: of counts n that add up to N, log2 N - sum n log2 n / N."""
    of_pairs, of_pixels = (
        jnp.asarray((n * log2.digits[:, n]).T) for n in (pairs, 2 * pairs)
    )  # N log2 N, (D, 2)
    joint, marginal = sums["joint_logs"], sums["marginal_logs"]
    of_levels = log2.value(of_pixels - marginal) / (2 * pairs)
    # Digits are subtracted before they become floats: the root below turns an error of 1e-7 into one of 4e-4.
    shared = jnp.maximum(log2.value(of_pixels - 2 * marginal + joint) / (2 * pairs), 0)
    return {
        "sum_entropy": log2.value(of_pairs - sums["sum_logs"]) / pairs,
        "entropy": log2.value(of_pixels - joint) / (2 * pairs),
        "difference_entropy": log2.value(of_pairs - sums["difference_logs"]) / pairs,
        "information_1": -shared / jnp.where(of_levels > 0, of_levels, 1),
        "information_2": jnp.sqrt(-jnp.expm1(-2 * shared)),
    }
