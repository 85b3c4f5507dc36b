"""What mechanism a treatment is called, by a network or by its nearest neighbour, and how often that is right.

    called = mechanism_fields.treatment_probabilities(predictions, metadata, mechanisms=names)
    called = nearest_neighbour_predictions(profiles, exclude=("Metadata_compound",))  # NSC; with the batch: NSCB
    accuracy(called).share, per_mechanism(called), spread(called).median, confusion(called), mistakes(called)

A treatment is a compound at a concentration. Every function below works on either, since both give `Called`. A tie is
a call shared among what is tied, so that scores are expectations over random choices among equals, as in
`coos.metrics.retrieval`. A treatment that cannot be called right whatever is done, because no eligible neighbour has
its mechanism, is undefined: left out and counted.

Networks: Godinez et al. (2017), section 2.4. NSC: Ljosa et al. (2013). NSCB: Ando et al. (2017).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import polars as pl

from coos.evaluators import spread as spreads
from coos.evaluators.held_out import Interval, wilson
from coos.evaluators.spread import Spread
from coos.metrics import retrieval
from coos.metrics.retrieval import inputs
from coos.profiles.table import Table

TREATMENT = ("compound", "concentration")
TIED = " | "  # between names of which neither is preferred
REPLICATES = 10_000  # of the bootstrap over compounds


class Called(NamedTuple):
    """What T treatments are called, among K mechanisms.

    table: a row per treatment, sorted by `compound` and `concentration`, with its `mechanism` (the true one),
        `predicted` (tied names joined by " | ", null where undefined), `tied` (how many mechanisms are called) and
        `score` (the expected share of right calls, null where undefined); of networks `fields`, `replicates`, `rank`
        (of the true mechanism, 1 is the most probable; ties count against it) and "probability: <mechanism>"; of
        profiles `neighbour` and `similarity`.
    mechanisms: the K names. calls: (T, K) float64, rows add up to 1, or are NaN where undefined.
    """

    table: pl.DataFrame
    mechanisms: tuple[str, ...]
    calls: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """(T,) float64, NaN where undefined."""
        return self.table["score"].cast(pl.Float64).fill_null(np.nan).to_numpy()


class Accuracy(NamedTuple):
    """Share of right calls: Wilson's interval takes treatments for independent, `over_compounds` does not.

    right: expected number of right calls among `counted` treatments; `undefined` more are left out; of the counted,
    `tied` are called several mechanisms.
    """

    share: Interval
    over_compounds: Interval
    right: float
    counted: int
    undefined: int
    tied: int


def require_known(keys: pl.DataFrame) -> None:
    """ValueError, naming column and row, if any value is null."""
    for name in keys.columns:
        null = keys[name].is_null().arg_true()
        if len(null):
            raise ValueError(
                f"{name} is unknown (null) in {len(null)} rows, first row {null[0]} (from 0); name it"
            )


def nearest_neighbour_predictions(
    profiles: Table,
    *,
    exclude: Sequence[str] = ("Metadata_compound",),
    similarity: str = "cosine",
    label: str = "Metadata_moa",
    treatment: Sequence[str] = ("Metadata_compound", "Metadata_concentration"),
) -> Called:
    """The mechanism of the most similar treatment that shares none of the columns `exclude`.

    With the compound alone this is the not-same-compound protocol, with the batch as well not-same-compound-or-batch.
    `score` is `retrieval.precision_at_k(..., 1)`. Rows without a label are no treatments and no neighbours.

    Raises:
        ValueError: missing columns, unknown values in them, a treatment on two rows, or undefined similarities.
    """
    neighbours = compare_profiles(
        profiles, exclude=exclude, similarity=similarity, label=label, treatment=treatment
    )
    return called_by_votes(neighbours, votes(neighbours))


class Neighbours(NamedTuple):
    """T labelled treatments compared with each other: `similarity` (T, T) float32, `excluded` (T, T) bool."""

    table: pl.DataFrame
    mechanisms: tuple[str, ...]
    labels: np.ndarray
    similarity: np.ndarray
    excluded: np.ndarray


def compare_profiles(
    profiles: Table, *, exclude: Sequence[str], similarity: str, label: str, treatment: Sequence[str]
) -> Neighbours:
    """All similarities of the labelled rows, sorted by treatment; arguments as `nearest_neighbour_predictions`."""
    profiles.require(label, *exclude, *treatment)
    chosen = profiles.filter(profiles.metadata[label].is_not_null().to_numpy())
    chosen.require_unique(treatment)
    keys = chosen.metadata.select(pl.col(list(treatment))).rename(
        dict(zip(treatment, TREATMENT, strict=True))
    )
    require_known(chosen.metadata.select(pl.col(list({*exclude, *treatment}))))
    order = keys.with_row_index("row").sort(TREATMENT)["row"].to_numpy()
    chosen, keys = chosen.filter(order), keys[order]
    texts = chosen.metadata[label].cast(pl.String).to_list()
    excluded = np.eye(len(chosen), dtype=bool)
    for column in exclude:
        codes = retrieval.encode(chosen.metadata[column].to_list())
        excluded |= codes[:, None] == codes
    rows = inputs.comparable_rows(chosen.features, similarity=similarity)
    found = np.asarray(inputs.similarities(rows, jnp.arange(len(chosen))))
    return Neighbours(keys, tuple(sorted(set(texts))), retrieval.encode(texts), found, excluded)


def votes(neighbours: Neighbours, *, without: np.ndarray | None = None) -> np.ndarray:
    """(T, K) the share of each mechanism among the most similar neighbours, several where similarities tie.

    `without` (T,) bool are treatments that are nobody's neighbour. NaN for treatments without a neighbour of their
    own mechanism.
    """
    excluded = neighbours.excluded if without is None else neighbours.excluded | without
    hot = np.eye(len(neighbours.mechanisms))[neighbours.labels]
    nearest = _nearest(neighbours.similarity, excluded)
    shares = nearest @ hot / np.maximum(nearest.sum(1, keepdims=True), 1)
    matches = (neighbours.labels[:, None] == neighbours.labels) & ~excluded
    return np.where(matches.any(1, keepdims=True), shares, np.nan)


def _nearest(similarity: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """(T, T) bool: the most similar of the neighbours that are not excluded."""
    eligible = np.where(excluded, -np.inf, similarity)
    return (eligible == eligible.max(1, keepdims=True)) & ~excluded


def called_by_votes(
    neighbours: Neighbours, calls: np.ndarray, *, extra: pl.DataFrame | None = None
) -> Called:
    """`calls` (T, K) as `Called`; `extra` columns instead of the neighbours' names."""
    if extra is None:
        nearest = _nearest(neighbours.similarity, neighbours.excluded)
        names = np.array([f"{compound} {dose:g}" for compound, dose in neighbours.table.iter_rows()])
        highest = np.where(nearest, neighbours.similarity, np.nan)
        strongest = [float(np.nanmax(row)) if np.isfinite(row).any() else None for row in highest]
        extra = pl.DataFrame(
            {
                "neighbour": pl.Series([TIED.join(names[row]) or None for row in nearest], dtype=pl.String),
                "similarity": pl.Series(strongest, dtype=pl.Float64),
            }
        )
    return as_called(neighbours.table, neighbours.labels, calls, neighbours.mechanisms, extra)


def as_called(
    keys: pl.DataFrame, labels: np.ndarray, calls: np.ndarray, mechanisms: Sequence[str], extra: pl.DataFrame
) -> Called:
    """`Called` of the calls (T, K) of treatments with true labels (T,)."""
    names = np.array(mechanisms, np.str_)
    scores = calls[np.arange(len(labels)), labels]
    table = keys.with_columns(
        pl.Series("mechanism", names[labels]),
        pl.Series("predicted", [TIED.join(names[row > 0]) or None for row in calls], dtype=pl.String),
        pl.Series("tied", (calls > 0).sum(1)),
        pl.Series("score", scores).fill_nan(None),
        *extra.get_columns(),
    )
    return Called(table, tuple(mechanisms), calls)


def accuracy(called: Called, *, seed: int = 0) -> Accuracy:
    """Right calls among the treatments that have a score."""
    scores = called.scores
    known = ~np.isnan(scores)
    tied = int((called.table["tied"].to_numpy()[known] > 1).sum())
    counted, right = int(known.sum()), float(scores[known].sum())
    return Accuracy(
        wilson(right, counted),  # type: ignore[arg-type]  # expectations are fractions of a call
        over_compounds(scores, called.table["compound"].to_numpy(), seed=seed),
        right,
        counted,
        int((~known).sum()),
        tied,
    )


def over_compounds(values: np.ndarray, compounds: np.ndarray, *, seed: int = 0) -> Interval:
    """The mean of `values` (T,), NaN left out, and the central 95 % of those of drawn compounds."""
    totals, counts = per_compound(values, compounds)
    if not counts.sum():
        return Interval(np.nan, np.nan, np.nan)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(REPLICATES, len(counts)))
    means = totals[drawn].sum(1) / counts[drawn].sum(1)
    return Interval(
        float(totals.sum() / counts.sum()), *(float(q) for q in np.percentile(means, [2.5, 97.5]))
    )


def per_compound(values: np.ndarray, compounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C,) sums and (C,) counts of the values that are not NaN; compounds without any are left out."""
    known = ~np.isnan(values)
    names, codes = np.unique(compounds[known], return_inverse=True)
    return np.bincount(codes, values[known], len(names)), np.bincount(codes, minlength=len(names))


def per_mechanism(called: Called) -> pl.DataFrame:
    """For each of the K mechanisms its `treatments`, how many are `counted` and `right`, and `accuracy` (or null)."""
    scores = called.scores
    truth = called.table["mechanism"].to_numpy()
    rows = []
    for name in called.mechanisms:
        own = scores[truth == name]
        known = own[~np.isnan(own)]
        share = float(known.mean()) if len(known) else None
        rows.append((name, len(own), len(known), float(known.sum()), share))
    columns = {"mechanism": pl.String, "treatments": pl.Int64, "counted": pl.Int64}
    return pl.DataFrame(rows, schema=columns | {"right": pl.Float64, "accuracy": pl.Float64}, orient="row")


def spread(called: Called) -> Spread:
    """Mean, SD, median and MAD of the mechanisms' accuracies, as table 1 of Godinez et al. (2017) sums them up."""
    return spreads.spread(per_mechanism(called)["accuracy"].drop_nulls().to_numpy())


def confusion(called: Called) -> np.ndarray:
    """(K, K) float64 counts, true mechanism by row, called by column; tied calls are shared, undefined left out."""
    index = {name: k for k, name in enumerate(called.mechanisms)}
    labels = np.array([index[name] for name in called.table["mechanism"]])
    known = ~np.isnan(called.scores)
    counts = np.zeros((len(index), len(index)))
    np.add.at(counts, labels[known], called.calls[known])
    return counts


def mistakes(called: Called) -> pl.DataFrame:
    """Rows of `called.table` whose call is wrong, or shared with a wrong one."""
    return called.table.filter(pl.col("score") < 1)


def result_rows(called: Called, labels: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of results.jsonl: accuracy with its intervals, the spread over mechanisms, and each mechanism's accuracy."""
    found, shares = accuracy(called), spread(called)
    values = {
        "accuracy": (found.share.value, found.counted),
        "accuracy/low": (found.share.low, found.counted),
        "accuracy/high": (found.share.high, found.counted),
        "accuracy/compounds_low": (found.over_compounds.low, found.counted),
        "accuracy/compounds_high": (found.over_compounds.high, found.counted),
        "undefined": (float(found.undefined), found.counted + found.undefined),
        "tied": (float(found.tied), found.counted),
        **{
            f"mechanisms/{name}": (getattr(shares, name), shares.counted)
            for name in ("mean", "sd", "median", "mad")
        },
    }
    for row in per_mechanism(called).iter_rows(named=True):
        share = np.nan if row["accuracy"] is None else row["accuracy"]
        values[f"accuracy/{row['mechanism']}"] = (share, row["counted"])
    return [{**labels, "metric": metric, "value": value, "n": n} for metric, (value, n) in values.items()]
