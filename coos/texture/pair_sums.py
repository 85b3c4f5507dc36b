"""Integer sums over the pixel pairs of an image, of which Haralick's features are made.

A cell of 64 x 64 pixels has 4,096 pairs in a direction, while p has 65,536 entries. So nothing runs over p: pairs are
counted by scattering them into it, and every pair then reads the count of its own entry. All sums are of integers
(logarithms in fixed point), hence exact, and the same in any order, batch and device.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

DIRECTIONS = {0: (0, 1), 45: (1, 1), 90: (1, 0), 135: (1, -1)}  # angle, clockwise: step in rows, columns


class Table(NamedTuple):
    """Numbers >= 0 as two int32 each, digits (2, N), and the units of the high and the low one."""

    digits: np.ndarray
    units: tuple[float, float]

    def value(self, digits: jax.Array) -> jax.Array:
        """Float32 of sums of digits (..., 2)."""
        return (
            digits[..., 0].astype(jnp.float32) * self.units[0]
            + digits[..., 1].astype(jnp.float32) * self.units[1]
        )


class Tables(NamedTuple):
    """log2 n of counts n, 0 for 0; and 1 / (1 + k^2) of differences k."""

    log2: Table
    inverse: Table


def offsets(distances: tuple[int, ...]) -> np.ndarray:
    """(D, 2) rows and columns from a pixel to its partner; D = 4 len(distances)."""
    return np.array([(d * y, d * x) for d in distances for y, x in DIRECTIONS.values()])


def pair_counts(steps: np.ndarray, height: int, width: int) -> np.ndarray:
    """(D,) number of pairs in an image."""
    return (height - steps[:, 0]) * (width - np.abs(steps[:, 1]))


def tables(pairs: int, levels: int) -> Tables:
    """For up to `pairs` pairs, that is, twice as many pixels in them."""
    counts = np.arange(2 * pairs + 1)
    log2 = _fixed_point(np.log2(np.maximum(counts, 1)), 2 * pairs)
    return Tables(log2, _fixed_point(1 / (1 + np.arange(levels) ** 2.0), pairs))


def _fixed_point(values: np.ndarray, terms: int) -> Table:
    """Digits of which `terms` high ones add up to at most 2^30, and low ones to 2^28."""
    high_bits = 30 - math.ceil(math.log2(terms * max(values.max(), 1)))
    low_bits = 28 - math.ceil(math.log2(terms))
    scaled = values * 2.0**high_bits
    high = np.floor(scaled)
    low = np.floor((scaled - high) * 2.0**low_bits)
    return Table(np.stack([high, low]).astype(np.int32), (2.0**-high_bits, 2.0 ** -(high_bits + low_bits)))


def of_image(grey: jax.Array, steps: np.ndarray, levels: int, table: Tables) -> dict[str, jax.Array]:
    """Sums over the pairs of an image (H, W) of levels below `levels`, (D,) each at D offsets, digits (D, 2).

    "center" is the integer nearest to the mean level of the pixels in pairs (a pixel counts as often as it is in one),
    "residual" the sum of their deviations from it, "deviation" of the squares; "contrast" the sum of (i - j)^2,
    "inverse" of 1 / (1 + (i - j)^2), "difference_squares" of squared counts of |i - j|. "..._logs" are sums of n log2 n
    over counts n: of pixels per level, of i + j, of |i - j|, and of the entries of the symmetric matrix. The sum of
    squares of the latter is 2 ("pairs" + "alike").
    """
    margin = int(steps.max())
    padded = jnp.pad(grey, ((0, margin), (margin, margin)), constant_values=-1)
    marginals = jnp.zeros((levels, len(steps)), jnp.int32)
    memberships = jnp.asarray(_memberships(steps, *grey.shape))
    marginals = marginals.at[grey.reshape(-1)].add(memberships, mode="promise_in_bounds").T

    def at_offset(given: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        (rows, columns), marginal = given
        partner = jax.lax.dynamic_slice(padded, (rows, columns + margin), grey.shape)
        pairs = _of_pairs(grey, partner, levels, table)
        return pairs | _of_joint(grey, partner, levels, table.log2) | _of_marginal(marginal, table.log2)

    return jax.lax.map(at_offset, (jnp.asarray(steps), marginals))


def _memberships(steps: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H W, D) int32: in how many pairs, 0 to 2, a pixel is."""
    found = np.zeros((len(steps), height, width), np.int32)
    for row, (y, x) in enumerate(steps):
        left, right = max(-x, 0), max(x, 0)
        found[row, : height - y, left : width - right] += 1
        found[row, y:, right : width - left] += 1
    return found.reshape(len(steps), -1).T


def _count(bins: int, codes: jax.Array) -> jax.Array:
    return jnp.zeros(bins, jnp.int32).at[codes].add(1, mode="promise_in_bounds")


def _log_sum(counts: jax.Array, log2: Table) -> jax.Array:
    """Digits (2,) of the sum of n log2 n."""
    return (counts * jnp.asarray(log2.digits)[:, counts]).sum(1)


def _weighted(counts: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum of products, up to 2^32."""
    return (counts.astype(jnp.uint32) * weights.astype(jnp.uint32)).sum()


def _of_pairs(grey: jax.Array, partner: jax.Array, levels: int, table: Tables) -> dict[str, jax.Array]:
    """Sums over i + j and |i - j|; a partner of -1 lies outside, and its pair goes to a spare bin."""
    inside = partner >= 0
    sums = _count(2 * levels, jnp.where(inside, grey + partner, 2 * levels - 1))[:-1]
    differences = _count(levels + 1, jnp.where(inside, jnp.abs(grey - partner), levels))[:-1]
    return {
        "contrast": _weighted(differences, jnp.arange(levels) ** 2),
        "inverse": (differences * jnp.asarray(table.inverse.digits)).sum(1),
        "difference_squares": _weighted(differences, differences),
        "sum_logs": _log_sum(sums, table.log2),
        "difference_logs": _log_sum(differences, table.log2),
    }


def _of_joint(grey: jax.Array, partner: jax.Array, levels: int, log2: Table) -> dict[str, jax.Array]:
    """Sums over the entries of the count matrix.

    An unordered pair of levels has one bin. Off the diagonal the bin is two entries, on it one of twice the count.
    Either way n pairs in a bin whose entries are c add 2 n log2 c, that is, every pair adds 2 log2 c.
    """
    high, low = jnp.maximum(grey, partner), jnp.minimum(grey, partner)
    spare = levels * (levels + 1) // 2
    code = jnp.where(partner >= 0, high * (high + 1) // 2 + low, spare)
    pairs = jnp.where(partner >= 0, _count(spare + 1, code)[code], 0)
    alike = jnp.where(grey == partner, pairs, 0)
    return {
        "joint_logs": 2 * jnp.asarray(log2.digits)[:, pairs + alike].sum((1, 2)),
        "pairs": pairs.astype(jnp.uint32).sum(),
        "alike": alike.astype(jnp.uint32).sum(),
    }


def _of_marginal(marginal: jax.Array, log2: Table) -> dict[str, jax.Array]:
    """Sums over levels. About an integer next to the mean, differences of these sums lose nothing."""
    level = jnp.arange(len(marginal))
    total, first = marginal.sum(), (marginal * level).sum()
    center = (first + total // 2) // total
    return {
        "center": center,
        "residual": first - total * center,
        "deviation": _weighted(marginal, (level - center) ** 2),
        "marginal_logs": _log_sum(marginal, log2),
    }
