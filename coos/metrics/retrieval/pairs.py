"""Exact quantiles and counts over the similarities of all pairs, tile by tile.

Each unordered pair is looked at once. Memory is O(N * D + tile²). A quantile is found without sorting and
without sampling: the bits of a float, with the sign turned round, order as the floats do, so a histogram of
their upper 16 bits says in which of 65,536 ranges an order statistic lies, and a second pass over the pairs, with
a histogram of the lower 16 bits inside these ranges, gives its exact value and the exact count above it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from coos.metrics.retrieval.inputs import Rows, similarities
from coos.metrics.retrieval.ranking import Prepared

TILE = {"cpu": 1024, "default": 4096}
BINS = 1 << 16
POPULATIONS = ("all", "unmatched")


class PairCounts(NamedTuple):
    """Q thresholds, and pairs strictly above them.

    threshold: (Q,) float64. above: (Q, 2) int64, non-matching and matching pairs above each threshold.
    total: (2,) int64, all non-matching and matching pairs.
    """

    threshold: np.ndarray
    above: np.ndarray
    total: np.ndarray


def counts_above_quantiles(
    prepared: Prepared, quantiles: np.ndarray, *, population: str = "all"
) -> PairCounts:
    """Quantiles of the similarities of all pairs (or of those that do not match), and the pairs above them.

    The threshold is the linearly interpolated quantile v[k] + (h - k) (v[k + 1] - v[k]) with h = q (n - 1) and
    k = floor(h), NumPy's and pandas' default; a pair is above if its similarity is strictly greater.
    """
    coarse = _histogram(prepared, _coarse, BINS).reshape(2, BINS)
    total = coarse.sum(1)
    chosen = coarse.sum(0) if population == "all" else coarse[0]
    if not chosen.sum():
        raise ValueError("there are no pairs" + (" that do not match" if population != "all" else ""))
    positions = np.asarray(quantiles, np.float64) * (chosen.sum() - 1)
    lower = np.floor(positions).astype(np.int64)
    upper = np.minimum(lower + 1, chosen.sum() - 1)
    cumulative = np.cumsum(chosen)
    wanted = np.searchsorted(cumulative, np.concatenate([lower, upper]), side="right")
    ranges = np.unique(wanted)
    size = 1 << (len(ranges) - 1).bit_length()  # few different sizes are compiled
    table = np.full(BINS, size, np.int32)
    table[ranges] = np.arange(len(ranges))
    fine = _histogram(prepared, _fine, size, table).reshape(2, size, BINS)
    inside = fine.sum(0) if population == "all" else fine[0]

    def value_at(position: int) -> tuple[int, int, float]:
        """(upper bits, lower bits, value) of the pair at this place of the ascending order."""
        high = int(np.searchsorted(cumulative, position, side="right"))
        rest = position - (int(cumulative[high - 1]) if high else 0)
        low = int(np.searchsorted(np.cumsum(inside[table[high]]), rest, side="right"))
        return high, low, _value(high, low)

    thresholds, above = [], []
    for position, low_position, high_position in zip(positions, lower, upper, strict=True):
        high, low, value = value_at(int(low_position))
        thresholds.append(value + (position - low_position) * (value_at(int(high_position))[2] - value))
        # No pair lies between two neighbouring order statistics: above the threshold is above the lower one.
        above.append(coarse[:, high + 1 :].sum(1) + fine[:, table[high], low + 1 :].sum(1))
    return PairCounts(np.array(thresholds), np.array(above, np.int64).reshape(-1, 2), total)


def _value(high: int, low: int) -> float:
    """The float32 whose ordered bits are these."""
    key = np.uint32(high << 16 | low)
    bits = key ^ np.uint32(0x80000000) if key & np.uint32(0x80000000) else ~key
    return float(np.array(bits, np.uint32).view(np.float32))


def _ordered_bits(values: Array) -> tuple[Array, Array]:
    """Upper and lower 16 bits, int32, of keys that order as the float32 `values` do (-0 counts as 0)."""
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32) + 0.0, jnp.uint32)
    key = jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(0x80000000))
    return (key >> 16).astype(jnp.int32), (key & 0xFFFF).astype(jnp.int32)


def _coarse(counts: Array, values: Array, matching: Array, use: Array, table: Array, *, size: int) -> Array:
    """Add to (2 * size,) `counts`: pairs by upper bits, non-matching ones first."""
    high, _ = _ordered_bits(values)
    return counts.at[jnp.where(use, high + matching * size, 2 * size).ravel()].add(1, mode="drop")


def _fine(counts: Array, values: Array, matching: Array, use: Array, table: Array, *, size: int) -> Array:
    """Add to (2 * size * BINS,) `counts`: pairs in one of `size` ranges of the table, by lower bits."""
    high, low = _ordered_bits(values)
    where = table[high]
    place = (matching * size + where) * BINS + low
    return counts.at[jnp.where(use & (where < size), place, 2 * size * BINS).ravel()].add(1, mode="drop")


@functools.partial(jax.jit, static_argnames=("add", "size", "side"), donate_argnames=("counts",))
def _tile(
    counts: Array,
    compared: Rows,
    labels: Array,
    groups: Array,
    table: Array,
    place: Array,
    *,
    add: Callable,
    size: int,
    side: int,
) -> Array:
    """`counts` after `add` of the pairs of one (side, side) tile, at rows place[0] and columns place[1]."""
    count = compared.values.shape[0]
    rows = place[0] + jnp.arange(side)
    columns = place[1] + jnp.arange(side)
    use = (rows[:, None] < columns) & (columns < count)
    rows, columns = jnp.minimum(rows, count - 1), jnp.minimum(columns, count - 1)
    for group in groups:
        use &= (group[rows][:, None] != group[columns]) | (group[columns] < 0)
    values = similarities(compared, rows, columns)
    if labels.ndim == 1:
        matching = (labels[rows][:, None] == labels[columns]) & (labels[columns] >= 0)
    else:
        matching = jnp.dot(labels[rows].astype(jnp.float32), labels[columns].T.astype(jnp.float32)) > 0
    return add(counts, values, matching.astype(jnp.int32), use, table, size=size)


def _histogram(prepared: Prepared, add: Callable, size: int, table: np.ndarray | None = None) -> np.ndarray:
    """What `add` counts over all tiles, flat int64; tiles go to the local devices in turn."""
    devices = jax.local_devices()
    side, places = _tiles(prepared.num_rows)
    table = np.zeros(1, np.int32) if table is None else table
    fixed = (prepared.compared, prepared.matches.labels, prepared.matches.exclude, table)
    inputs = [jax.device_put(fixed, device) for device in devices]
    empty = np.zeros(2 * size * (BINS if add is _fine else 1), np.int32)
    totals = empty.astype(np.int64)
    most = max((2**31 - 1) // side**2, 1)  # tiles before a 32-bit count could overflow
    for begin in range(0, len(places), most * len(devices)):
        batch = places[begin : begin + most * len(devices)]
        counts = [jax.device_put(empty, device) for device in devices[: len(batch)]]
        for number, place in enumerate(batch):
            which = number % len(devices)
            position = np.array(place, np.int32)
            counts[which] = _tile(counts[which], *inputs[which], position, add=add, size=size, side=side)
        totals += sum(np.asarray(count).astype(np.int64) for count in counts)
    return totals


def _tiles(count: int) -> tuple[int, list[tuple[int, int]]]:
    """The side of a tile, and the first row and column of every tile on or above the diagonal."""
    largest = TILE.get(jax.default_backend(), TILE["default"])
    parts = -(-count // largest)
    side = -(-count // parts // 8) * 8
    starts = range(0, count, side)
    return side, [(row, column) for row in starts for column in starts if column >= row]
