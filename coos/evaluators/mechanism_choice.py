"""A normalization chosen without the labels that it is judged by, and whether the choice was worth it.

    chosen = nested(tables, chosen_by=NSC, exclude=NSCB)       # labels of the other compounds alone
    name = label_free(reproducibilities)                       # no mechanism at all
    compare(chosen.called, called)                             # on the same treatments, compounds drawn together

Nested leave-one-compound-out: for each compound c, a setting is scored by how often the treatments of the other
compounds find their mechanism among themselves, c being nobody's neighbour; the best setting then calls the
treatments of c, among all others. Settings with the best score share the call (see `coos.evaluators.mechanisms`).
What is chosen for c depends on neither the mechanism nor the profiles of c, but for what all settings see: features
may have been selected and scaled on wells of all plates, if a setting says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from coos.evaluators import mechanisms
from coos.evaluators.held_out import Interval
from coos.evaluators.mechanisms import Called, Neighbours
from coos.metrics import retrieval
from coos.profiles.table import Table

NSC = ("Metadata_compound",)
EXACT = 16  # compounds that differ, up to which all signs are tried
DRAWS = 100_000


class Choice(NamedTuple):
    """What was chosen for each of C compounds among S settings, and what that calls their treatments.

    inner: (C, S) accuracy of the other compounds' treatments. weights: (C, S) share of each setting in the call, 1
    for one that is best alone.
    """

    compounds: tuple[str, ...]
    settings: tuple[str, ...]
    inner: np.ndarray
    weights: np.ndarray
    called: Called

    def frequencies(self) -> dict[str, float]:
        """For how many compounds each setting was chosen, ties shared; those never chosen left out."""
        found = dict(zip(self.settings, self.weights.sum(0).tolist(), strict=True))
        return {name: count for name, count in found.items() if count}

    @property
    def tied(self) -> int:
        """For how many compounds several settings were best."""
        return int(((self.weights > 0).sum(1) > 1).sum())


class Comparison(NamedTuple):
    """First minus second on the treatments that both call.

    difference: of accuracy, with the central 95 % of drawn compounds. gained, lost: expected right calls of the first
    alone, of the second alone. p_value: two-sided, that signs of the compounds' differences are coin flips; 1 if none
    differs, NaN if there is nothing to compare. compounds: how many differ.
    """

    difference: Interval
    gained: float
    lost: float
    p_value: float
    compounds: int
    counted: int


def nested(
    tables: Mapping[str, Table],
    *,
    chosen_by: Sequence[str] = NSC,
    exclude: Sequence[str] = NSC,
    similarity: str = "cosine",
    label: str = "Metadata_moa",
    treatment: Sequence[str] = ("Metadata_compound", "Metadata_concentration"),
) -> Choice:
    """Choose a setting for each compound by the others, and call its treatments with it.

    Args:
        tables: the treatments' profiles of every setting, the same treatments in each.
        chosen_by: the columns whose sharing excludes neighbours when a setting is scored. exclude: when it is used.

    Raises:
        ValueError: no tables, tables of different treatments, a single compound, or a compound without which no
            treatment finds its mechanism; and as `mechanisms.nearest_neighbour_predictions`.
    """
    options: dict[str, Any] = {"similarity": similarity, "label": label, "treatment": treatment}
    scored, used = (
        {name: mechanisms.compare_profiles(table, exclude=by, **options) for name, table in tables.items()}
        for by in (chosen_by, exclude)
    )
    first = _require_same(used)
    compounds, codes = np.unique(first.table["compound"].to_numpy().astype(np.str_), return_inverse=True)
    if len(compounds) < 2:
        raise ValueError(f"only the compound {compounds[0]}: there is no other to choose by")
    inner = np.array(
        [[_accuracy_without(n, codes == c) for n in scored.values()] for c in range(len(compounds))]
    )
    if np.isnan(inner).any():
        name = compounds[np.isnan(inner).any(1).argmax()]
        raise ValueError(
            f"without {name} no treatment has a neighbour of its mechanism: nothing to choose by"
        )
    best = inner == inner.max(1, keepdims=True)
    weights = best / best.sum(1, keepdims=True)
    calls = np.einsum("ts,stk->tk", weights[codes], np.stack([mechanisms.votes(n) for n in used.values()]))
    names = np.array(list(tables))
    chosen = pl.DataFrame({"setting": [mechanisms.TIED.join(names[row > 0]) for row in weights[codes]]})
    called = mechanisms.called_by_votes(first, calls, extra=chosen)
    return Choice(tuple(compounds.tolist()), tuple(tables), inner, weights, called)


def _require_same(neighbours: Mapping[str, Neighbours]) -> Neighbours:
    """The first; ValueError unless all are of the same treatments with the same mechanisms."""
    if not neighbours:
        raise ValueError("no settings to choose among")
    first_name, first = next(iter(neighbours.items()))
    for name, other in neighbours.items():
        same = other.mechanisms == first.mechanisms and other.table.equals(first.table)
        if not same or not np.array_equal(other.labels, first.labels):
            raise ValueError(f"{name!r} and {first_name!r} are not about the same treatments and mechanisms")
    return first


def _accuracy_without(neighbours: Neighbours, left_out: np.ndarray) -> float:
    """Share of right calls of the other treatments among themselves; NaN if none has a match."""
    calls = mechanisms.votes(neighbours, without=left_out)
    scores = calls[np.arange(len(calls)), neighbours.labels]
    # Sums in another order would tell equal settings apart by rounding.
    return round(retrieval.mean_defined(scores[~left_out])[0], 9)


def label_free(values: Mapping[str, float]) -> tuple[str, int]:
    """The setting with the largest value, such as the reproducibility of replicates, and how many share it.

    Among equals it is the first by name. ValueError if a value is NaN.
    """
    undefined = [name for name, value in values.items() if np.isnan(value)]
    if undefined or not values:
        raise ValueError(f"undefined for {undefined[0]!r}: cannot be chosen by" if values else "no settings")
    best = max(values.values())
    equals = sorted(name for name, value in values.items() if value == best)
    return equals[0], len(equals)


def reproducibility(
    wells: Table, *, treatment: Sequence[str], similarity: str = "cosine"
) -> dict[str, float]:
    """How alike the wells (rows) of one treatment are, without a word about mechanisms.

    replicates: share of pairs of one treatment that are more similar than 95 % of the pairs of two treatments.
    average_precision: of wells of the own treatment among all wells, mean over wells; it does not saturate as early.
    """
    labels = wells.groups(treatment)[0]
    found = retrieval.average_precision(wells.features, labels, similarity=similarity)
    return {
        "replicates": retrieval.replicate_reproducibility(wells.features, labels, similarity=similarity),
        "average_precision": retrieval.mean_defined(found)[0],
    }


def compare(first: Called, second: Called, *, seed: int = 0) -> Comparison:
    """How much more often the first is right; ValueError unless both are about the same treatments."""
    keys = [*mechanisms.TREATMENT, "mechanism"]
    if not first.table.select(keys).equals(second.table.select(keys)):
        raise ValueError("the two are not about the same treatments")
    gaps, compounds = first.scores - second.scores, first.table["compound"].to_numpy()
    totals, counts = mechanisms.per_compound(gaps, compounds)
    known = gaps[~np.isnan(gaps)]
    return Comparison(
        mechanisms.over_compounds(gaps, compounds, seed=seed),
        float(known[known > 0].sum()),
        float(-known[known < 0].sum()),
        sign_flips(totals, seed=seed) if counts.sum() else np.nan,
        int((np.abs(totals) > 1e-9).sum()),
        len(known),
    )


def sign_flips(differences: np.ndarray, *, seed: int = 0) -> float:
    """P(|sum of +-d| >= |sum of d|) for independent random signs: exact for up to 16 differences that are not 0.

    Beyond, 100,000 signs are drawn, and the observed ones count as one more, so that p is never 0.
    """
    d = differences[np.abs(differences) > 1e-9]
    observed = abs(d.sum()) - 1e-9
    if len(d) <= EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
        return float((np.abs(signs @ d) >= observed).mean())
    signs = np.random.default_rng(seed).choice([-1, 1], size=(DRAWS, len(d)))
    return float((1 + (np.abs(signs @ d) >= observed).sum()) / (1 + DRAWS))
