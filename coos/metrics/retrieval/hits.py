"""Hit@k: at which rank the matches stand (section 3.4.3 of Bornholdt 2021), and one number for it."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from coos.metrics.retrieval import inputs, ranking
from coos.metrics.retrieval.ranking import Ranks

TOP = 0.2


class HitAtK(NamedTuple):
    """Where all hits stand.

    ranks: (H,) float64, 0 = the most similar neighbour; a hit that is tied has the mean rank of its ties.
    histogram: (N,) how many hits have rank n (half ranks rounded down), of N rows.
    accumulated: (N,) running sum of histogram - H / N: the thesis' accumulated score, and cytominer-eval's.
    normalized: accumulated / H, as the thesis plots it.
    percent_scores: {p: hits with rank <= p N / 100, minus int(p H / 100)}, as cytominer-eval has it.
    score: one number that compares profiles, 0 for chance, 1 for perfect; see `hit_at_k`.
    """

    ranks: np.ndarray
    histogram: np.ndarray
    accumulated: np.ndarray
    normalized: np.ndarray
    percent_scores: dict[float, int]
    score: float


class Hits(NamedTuple):
    """Hits of B rows: rank and valid (B, R); the areas of `hit_at_k` gain, chance and perfect (B,)."""

    rank: Any
    valid: Any
    gain: Any
    chance: Any
    perfect: Any


def hit_at_k(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    percents: Sequence[float] = (2, 5, 10, 100),
    top: float = TOP,
    similarity: str = "pearson",
    exclude: inputs.Exclude = None,
) -> HitAtK:
    """Ranks of all matches of all rows, pooled; features, labels and options as in `precision_at_k`.

    The single number (wanted in section 5.12 of Bornholdt 2021, which suggests the first 20 % of neighbours)
    is the area under the curve of hits found, over the first K = ceil(top * n) of a row's n neighbours, between
    chance and perfection:

        score = sum over rows (A - C) / sum over rows (P - C)
        A = sum over k = 1..K of the hits among the first k    (ties: expected over random orders)
        C = R K (K + 1) / (2 n), what a random order gives     P = sum over k = 1..K of min(k, R)

    with R the number of the row's matches. Its expectation is 0 for random features and exactly 0 for features
    that tie all neighbours; it is 1 if all matches stand first, negative if they stand last. A score of 0.1 means
    a tenth of the way from chance to perfection. NaN where no row has a match, or no order could be wrong.
    """
    if not 0 < top <= 1:
        raise ValueError(f"top={top}: must be in (0, 1]")
    if not all(0 <= percent <= 100 for percent in percents):
        raise ValueError(f"percents={tuple(percents)}: must be from 0 to 100")
    prepared = ranking.prepare(features, labels, similarity=similarity, exclude=exclude)
    blocks = ranking.ranked_blocks(prepared, functools.partial(block_hits, top=top))
    return gather([block for _, block in blocks], num_rows=prepared.num_rows, percents=percents)


def gather(blocks: Sequence[Hits], *, num_rows: int, percents: Sequence[float]) -> HitAtK:
    """`hit_at_k` from the `Hits` of all of `num_rows` rows that have a match, as NumPy arrays."""
    ranks = np.concatenate([np.zeros(0), *(block.rank[block.valid] for block in blocks)])
    gain, chance, perfect = (
        sum(float(area.sum(dtype=np.float64)) for area in areas) for areas in _areas(blocks)
    )
    histogram = np.bincount(ranks.astype(np.int64), minlength=num_rows)
    accumulated = np.cumsum(histogram - len(ranks) / num_rows)
    return HitAtK(
        ranks=np.sort(ranks),
        histogram=histogram,
        accumulated=accumulated,
        normalized=accumulated / max(len(ranks), 1),
        percent_scores={p: _percent_score(ranks, num_rows, p) for p in percents},
        score=(gain - chance) / (perfect - chance) if perfect > chance else float("nan"),
    )


def _percent_score(ranks: np.ndarray, num_rows: int, percent: float) -> int:
    return int((ranks <= percent * num_rows / 100).sum()) - int(percent * len(ranks) / 100)


def _areas(blocks: Sequence[Hits]) -> list[list[np.ndarray]]:
    return [[block.gain for block in blocks], [b.chance for b in blocks], [b.perfect for b in blocks]]


@jax.jit
def block_hits(ranks: Ranks, *, top: float) -> Hits:
    """Mean ranks of the hits, and the areas of `hit_at_k`."""
    number, matches = ranks.num_neighbors.astype(jnp.float32), ranks.num_matches.astype(jnp.float32)
    first = jnp.ceil(number * top)
    room = first[:, None] - ranks.above
    slots = jnp.clip(room, 0, ranks.tied)  # places of the tied neighbours that are among the first
    area = (slots * room - slots * (slots - 1) / 2) / jnp.maximum(ranks.tied, 1)
    few = jnp.minimum(first, matches)
    return Hits(
        rank=ranks.above + (ranks.tied - 1) / 2,
        valid=ranks.valid,
        gain=jnp.where(ranks.valid, area, 0).sum(1),
        chance=matches * first * (first + 1) / (2 * number),
        perfect=few * (few + 1) / 2 + (first - few) * matches,
    )
