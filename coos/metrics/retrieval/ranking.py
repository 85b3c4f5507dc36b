"""Where the matches of every row stand among all its neighbours, block by block of rows.

Neighbours of a row are all other rows but those it shares an exclusion group with. For a match with similarity
s the rank is a count, of neighbours with similarity > s and of those with = s; nothing is sorted but the matches
themselves, since sorting all similarities is what XLA does slowest on a CPU. Each similarity is placed between
the sorted matches by bisection, and the places are counted.

All scores follow from these counts. Ties: the neighbours tied with a match are in random order, and scores are
expectations over it, unless a score says otherwise; so features that tell nothing score as chance does.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from coos.metrics.retrieval import inputs
from coos.metrics.retrieval.matches import Matches

IN_FLIGHT = 2
Scored = TypeVar("Scored")


class Ranks(NamedTuple):
    """Places of the matches of B rows, R (padded) matches each, int32; padding has `valid` False.

    above, tied: (B, R) neighbours more similar than the match, and equally similar (itself among them).
    matches_above, matches_tied: (B, R) the same, counting matches alone.
    valid: (B, R) bool. num_matches, num_neighbors: (B,).
    """

    above: Array
    tied: Array
    matches_above: Array
    matches_tied: Array
    valid: Array
    num_matches: Array
    num_neighbors: Array


@jax.jit
def rank_block(compared: inputs.Rows, groups: Array, rows: Array, listed: Array, counts: Array) -> Ranks:
    """`Ranks` of the rows at positions `rows` (B,), whose matches are `listed` (B, R), `counts` (B,) real ones.

    `compared` are all N rows, `groups` (G, N) exclusion groups.
    """
    found = inputs.similarities(compared, rows)
    excluded = rows[:, None] == jnp.arange(found.shape[1])
    for group in groups:
        excluded |= (group[rows][:, None] == group) & (group >= 0)
    found = jnp.where(excluded, -jnp.inf, found)
    valid = jnp.arange(listed.shape[1]) >= listed.shape[1] - counts[:, None]  # padding is sorted to the front
    matched = jnp.take_along_axis(found, listed, axis=1)
    is_match = jnp.arange(listed.shape[1]) < counts[:, None]
    matched = jnp.sort(jnp.where(is_match, matched, -jnp.inf), axis=1)
    above, at_least = _count(found, matched)
    matches_above, matches_at_least = _count(matched, matched)
    return Ranks(
        above=above,
        tied=at_least - above,
        matches_above=matches_above,
        matches_tied=matches_at_least - matches_above,
        valid=valid,
        num_matches=counts,
        num_neighbors=found.shape[1] - excluded.sum(1, dtype=jnp.int32),
    )


def _count(values: Array, matched: Array) -> tuple[Array, Array]:
    """For sorted `matched` (B, R): how many `values` (B, N) of its row are greater, and how many at least it."""
    num_rows, width = matched.shape
    steps = width.bit_length()
    size = 2**steps - 1
    table = jnp.pad(matched, ((0, 0), (0, size - width)), constant_values=jnp.inf).ravel()
    start = (jnp.arange(num_rows, dtype=jnp.int32) * size)[:, None]
    less = jnp.zeros(values.shape, jnp.int32)  # matches below each value, by bisection
    for step in reversed(range(steps)):
        middle = table.at[start + less + (2**step - 1)].get(mode="promise_in_bounds")
        less += jnp.where(middle < values, 2**step, 0).astype(jnp.int32)
    same = table.at[start + jnp.minimum(less, size - 1)].get(mode="promise_in_bounds") == values
    places = 2 * width + 2  # 2i: between matches i - 1 and i; 2i + 1: equal to match i, the first of its ties
    offset = (jnp.arange(num_rows, dtype=jnp.int32) * places)[:, None]
    histogram = jnp.zeros(num_rows * places, jnp.int32).at[(offset + 2 * less + same).ravel()].add(1)
    from_top = jnp.cumsum(histogram.reshape(num_rows, places)[:, ::-1], axis=1)[:, ::-1]
    is_new = jnp.diff(matched, axis=1, prepend=jnp.nan) != 0  # -inf - -inf is NaN: padding counts as new
    first = jax.lax.cummax(jnp.where(is_new, jnp.arange(width), 0), axis=1)
    at_least = jnp.take_along_axis(from_top, 2 * first + 1, axis=1)
    return jnp.take_along_axis(from_top, 2 * first + 2, axis=1), at_least


class Prepared(NamedTuple):
    """Checked inputs: N rows to be compared, on the device, and which of them match."""

    compared: inputs.Rows
    matches: Matches

    @property
    def num_rows(self) -> int:
        """N, the number of rows."""
        return len(self.matches.labels)


def prepare(
    features: ArrayLike, labels: ArrayLike, *, similarity: str = "pearson", exclude: inputs.Exclude = None
) -> Prepared:
    """Check what a metric was given; see `inputs` for the errors."""
    count = int(np.shape(features)[0]) if np.ndim(features) else 0
    checked = inputs.check_labels(labels, count)
    groups = inputs.check_exclude(exclude, count)
    return Prepared(inputs.comparable_rows(features, similarity=similarity), Matches.create(checked, groups))


def ranked_blocks(
    prepared: Prepared, score: Callable[[Ranks], Scored]
) -> Iterator[tuple[np.ndarray, Scored]]:
    """(rows, `score` of their ranks as NumPy arrays) for blocks of all rows that have a match.

    `score` gives a pytree (a NamedTuple, say) of arrays with a leading axis of rows. Blocks go to the local
    devices in turn; each device holds all rows once and a few blocks of similarities, O(N * block). Rows
    come in the order of how many matches they have, so that little is padded.
    """
    compared, matches = prepared
    counts = matches.counts()
    rows = np.argsort(counts, kind="stable")
    rows = rows[counts[rows] > 0]
    devices = jax.local_devices()
    places = [jax.device_put((compared, matches.exclude), device) for device in devices]
    size = block_size(prepared.num_rows)
    waiting: deque = deque()
    for number, begin in enumerate(range(0, len(rows), size)):
        chosen = rows[begin : begin + size]
        padded = np.resize(chosen, size) if begin else chosen  # one compiled shape for all but a lone block
        ranks = rank_block(*places[number % len(devices)], padded.astype(np.int32), *matches.listed(padded))
        waiting.append((chosen, score(ranks)))
        if len(waiting) > IN_FLIGHT * len(devices):
            yield _to_host(*waiting.popleft())
    while waiting:
        yield _to_host(*waiting.popleft())


def _to_host(rows: np.ndarray, scores: Scored) -> tuple[np.ndarray, Scored]:
    return rows, jax.tree.map(lambda value: np.asarray(value)[: len(rows)], scores)


def block_size(count: int) -> int:
    """Rows of a block when there are `count` columns, a multiple of 8 unless there are fewer rows."""
    return min(max(inputs.block_elements() // max(count, 1) // 8 * 8, 8), max(count, 1))


def per_row(count: int, blocks: Iterable[tuple[np.ndarray, Scored]], empty: Scored) -> Scored:
    """Blocks put together: float64 arrays with `count` rows, NaN where a row is in none.

    `empty` has the shapes of no rows (0, …), for the case of no blocks.
    """
    whole = jax.tree.map(lambda value: np.full((count, *value.shape[1:]), np.nan), empty)
    for rows, scores in blocks:
        for all_rows, part in zip(jax.tree.leaves(whole), jax.tree.leaves(scores), strict=True):
            all_rows[rows] = part
    return whole
