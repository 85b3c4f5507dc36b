"""Judge a table of profiles by retrieval: every score of `coos.metrics.retrieval` in two passes, as result rows."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from absl import logging

from coos import workdir
from coos.metrics import retrieval
from coos.metrics.retrieval import contingency, hits, precision, ranking, significance
from coos.profiles.table import Table

UNLABELLED = ("drop", "enrichment", "keep")
HARMONICS = 64  # of the cell count: differences down to 1/10,000 of the range are told apart
PERCENTS = (2, 5, 10, 100)  # of the list of neighbours, as cytominer-eval counts hits
BASELINE = "cell count only"
DOUBTFUL = {"nan", "NaN", "NA", "N/A", "#N/A", "null", "unknown", "Unknown"}  # unlabelled, perhaps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """What counts as a match, and what is scored.

    label: the metadata column whose equal values match, such as "Metadata_moa".
    separator: "" compares whole texts (the thesis); "|" lets rows match that share any part of them.
    exclude: columns; two rows equal in any of them are no neighbours (same compound, batch, plate).
    unlabelled: rows without a label are dropped ("drop"), kept as non-matching ("keep"), or kept in the pairs of
        the enrichment alone ("enrichment": the thesis, whose one DMSO row has no label).
    ks, percentiles: of precision and recall, and of the enrichment (Bornholdt 2021, figure 4.1).
    null_size, seed: of the random draws behind p-values.
    """

    label: str = "Metadata_moa"
    separator: str = ""
    exclude: Sequence[str] = ()
    similarity: str = "pearson"
    unlabelled: str = "drop"
    ks: Sequence[int] = (1, 5, 10, 15, 20, 25, 30, 40, 50)
    percentiles: Sequence[float] = (0.995, 0.99, 0.985, 0.98, 0.975, 0.97, 0.965)
    null_size: int = 10_000
    seed: int = 0

    def __post_init__(self):
        if self.unlabelled not in UNLABELLED:
            raise ValueError(f"unlabelled={self.unlabelled!r}: choose one of {UNLABELLED}")


def follows(protocol: Protocol, settings: Mapping[str, Any]) -> bool:
    """Whether `protocol` is what a config's `settings` ask for; fields that they leave out have their defaults."""
    ours, asked = dataclasses.asdict(protocol), dataclasses.asdict(Protocol())
    asked |= {name: value for name, value in settings.items() if name in asked}
    return workdir.plain(ours) == workdir.plain(asked)


class Judgement(NamedTuple):
    """All scores of one table of N rows. K = len(ks), Q = len(percentiles), L ranked rows, G groups.

    labels: (N,) codes or (N, M) multi-hot. ranked, paired: (N,) bool, the rows that `scores` and `hits` are about,
    in this order, and those whose pairs the enrichment counts.
    """

    name: str
    protocol: Protocol
    num_rows: int
    num_features: int
    scores: precision.Scores
    hits: retrieval.HitAtK
    enrichment: retrieval.Enrichment
    mean_average_precision: retrieval.MeanAveragePrecision
    group_names: list[str]
    labels: np.ndarray
    ranked: np.ndarray
    paired: np.ndarray

    @property
    def precision_at_k(self) -> np.ndarray:
        """(K,) mean over rows that have a match."""
        return np.nanmean(self.scores.hits / np.asarray(self.protocol.ks, float), axis=0)

    @property
    def recall_at_k(self) -> np.ndarray:
        """(K,) mean over rows that have a match."""
        return np.nanmean(self.scores.hits / self.scores.num_matches[:, None], axis=0)


class _Both(NamedTuple):
    scores: precision.Scores
    hits: hits.Hits


def judge(table: Table, protocol: Protocol, *, name: str) -> Judgement:
    """Score the rows of a table.

    Raises:
        ValueError: a column is missing, features are NaN or undefined, or no two rows have a common label.
    """
    try:
        return _judge(table, protocol, name)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def _judge(table: Table, protocol: Protocol, name: str) -> Judgement:
    labels, names = _labels(table, protocol)
    ranked, paired = _chosen(table, labels, protocol)
    if not ranked.all():
        logging.info("%s: %d of %d rows are ranked by %s", name, ranked.sum(), len(table), protocol.label)
    prepared = prepare(table, labels, protocol, ranked)
    if not prepared.matches.counts().any():
        raise ValueError(
            f"no two rows share a {protocol.label}" + (" outside of exclusions" * bool(protocol.exclude))
        )
    scored, found = _ranked(prepared, protocol)
    return Judgement(
        name=name,
        protocol=protocol,
        num_rows=prepared.num_rows,
        num_features=table.num_features,
        scores=scored,
        hits=hits.gather(found, num_rows=prepared.num_rows, percents=PERCENTS),
        enrichment=_enrichment(
            prepared if paired is ranked else prepare(table, labels, protocol, paired), protocol
        ),
        mean_average_precision=significance.from_scores(
            scored, labels[ranked], null_size=protocol.null_size, seed=protocol.seed
        ),
        group_names=names,
        labels=labels,
        ranked=ranked,
        paired=paired,
    )


def _chosen(table: Table, labels: np.ndarray, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool each: rows to rank, and rows whose pairs are counted."""
    known = np.asarray(labels.any(1) if labels.ndim == 2 else labels >= 0)
    if not known.any():
        raise ValueError(f"no row has a {protocol.label}")
    _require_finite(table, known)
    if protocol.unlabelled == "drop" or known.all():
        return known, known
    every = known | _comparable(table, protocol, ~known)
    return (every if protocol.unlabelled == "keep" else known), every


def _ranked(prepared: ranking.Prepared, protocol: Protocol) -> tuple[precision.Scores, list[hits.Hits]]:
    """Scores of all rows, and their hits block by block, in one pass."""

    def both(ranks: ranking.Ranks) -> _Both:
        return _Both(
            precision.score_ranks(ranks, ks=tuple(protocol.ks)), hits.block_hits(ranks, top=hits.TOP)
        )

    blocks = list(ranking.ranked_blocks(prepared, both))
    rows_of_scores = [(rows, found.scores) for rows, found in blocks]
    scored = ranking.per_row(prepared.num_rows, rows_of_scores, precision.no_rows(len(protocol.ks)))
    return scored, [found.hits for _, found in blocks]


def enrichment(table: Table, protocol: Protocol) -> retrieval.Enrichment:
    """The enrichment of `judge` alone, (Q,); errors as there."""
    labels, _ = _labels(table, protocol)
    return _enrichment(prepare(table, labels, protocol, _chosen(table, labels, protocol)[1]), protocol)


def _enrichment(prepared: ranking.Prepared, protocol: Protocol) -> retrieval.Enrichment:
    return contingency.from_pairs(prepared, np.asarray(protocol.percentiles))


def _require_finite(table: Table, rows: np.ndarray) -> None:
    """ValueError that names a row and a feature, unless all features of these rows are finite."""
    broken = ~np.isfinite(table.features).all(1) & rows
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        feature = table.feature_names[int(np.flatnonzero(~np.isfinite(table.features[row]))[0])]
        raise ValueError(
            f"{int(broken.sum())} labelled rows have missing or infinite features, first row {row} (from 0), feature "
            f"{feature}; drop such features with the step drop_missing, or leave the rows out"
        )


def _labels(table: Table, protocol: Protocol) -> tuple[np.ndarray, list[str]]:
    """Codes or multi-hot labels of all rows, and the name of each code or column."""
    values = table.column(protocol.label).to_list()
    doubtful = sorted({str(value) for value in values} & DOUBTFUL)
    if doubtful:
        logging.warning("%s: %s are taken as labels like any other", protocol.label, doubtful)
    if protocol.separator:
        texts = [None if value is None else str(value) for value in values]
        return retrieval.encode_sets(texts, separator=protocol.separator)
    codes = retrieval.encode(values)
    names = {int(code): str(value) for code, value in zip(codes, values, strict=True) if code >= 0}
    return codes, [names[code] for code in range(len(names))]


def _comparable(table: Table, protocol: Protocol, rows: np.ndarray) -> np.ndarray:
    """(N,) bool: those of `rows` whose similarity is defined.

    The consensus of all controls after a robust normalization on their medians is exactly zero. The thesis lost
    its DMSO row there (N = 1,143 instead of 1,144), since an undefined correlation is no pair.
    """
    defined = np.zeros(len(table), bool)
    if rows.any():
        finite = rows & np.isfinite(table.features).all(1)
        defined[finite] = retrieval.defined_rows(table.features[finite], similarity=protocol.similarity)
    lost = int((rows & ~defined).sum())
    if lost:
        logging.warning("%d unlabelled rows with equal or missing features are left out", lost)
    return defined


def prepare(table: Table, labels: np.ndarray, protocol: Protocol, rows: np.ndarray) -> ranking.Prepared:
    """The chosen `rows` (N,) bool of a table, with the protocol's exclusions, as the metrics take them."""
    exclude = [retrieval.encode(table.column(column).to_list())[rows] for column in protocol.exclude]
    return ranking.prepare(
        table.features[rows], labels[rows], similarity=protocol.similarity, exclude=exclude or None
    )


def values(judgement: Judgement) -> dict[str, tuple[float, int]]:
    """{metric: (value, how many rows, pairs or groups it is about)} of a judgement."""
    groups, found = judgement.mean_average_precision, judgement.hits
    known = ~np.isnan(groups.corrected_p_value)
    significant = (groups.corrected_p_value[known] < 0.05).mean() if known.any() else float("nan")
    return {
        **score_values(judgement.scores, judgement.protocol.ks),
        "significant_labels": (float(significant), int(known.sum())),
        "hit_score": (found.score, len(found.ranks)),
        **pair_values(judgement.enrichment, judgement.protocol.percentiles),
        **{f"hits_at_{p}_percent": (float(v), len(found.ranks)) for p, v in found.percent_scores.items()},
    }


def score_values(scored: precision.Scores, ks: Sequence[int]) -> dict[str, tuple[float, int]]:
    """{metric: (mean over the rows that have a match, how many these are)} of rows' scores."""
    normalized = retrieval.normalized_average_precision(
        scored.average_precision, scored.num_matches, scored.num_neighbors
    )
    found = {
        "precision_at_r": retrieval.mean_defined(scored.precision_at_r),
        "average_precision": retrieval.mean_defined(scored.average_precision),
        "normalized_average_precision": retrieval.mean_defined(normalized),
    }
    for k, hits_at_k in zip(ks, scored.hits.T, strict=True):
        found[f"precision_at_{k}"] = retrieval.mean_defined(hits_at_k / k)
        found[f"recall_at_{k}"] = retrieval.mean_defined(hits_at_k / scored.num_matches)
    return found


def pair_values(enriched: retrieval.Enrichment, percentiles: Sequence[float]) -> dict[str, tuple[float, int]]:
    """{metric: (value, number of pairs)} of an enrichment."""
    found = {}
    for position, percentile in enumerate(percentiles):
        number = int(enriched.table[position].sum())
        found[f"odds_ratio_at_{percentile}"] = (float(enriched.odds_ratio[position]), number)
        found[f"log10_p_value_at_{percentile}"] = (float(enriched.log10_p_value[position]), number)
    return found


def result_rows(judgement: Judgement, *, study: str, dataset: str) -> list[dict[str, Any]]:
    """Result rows of a judgement, one per metric; `split` is the name of the label column."""
    about = {"study": study, "run": judgement.name, "dataset": dataset, "split": judgement.protocol.label}
    rest = {"seed": judgement.protocol.seed, "fold": None, "step": None}
    return [
        {**about, "metric": metric, "value": value, "n": n, **rest}
        for metric, (value, n) in values(judgement).items()
    ]


def cell_count_table(table: Table, column: str) -> Table:
    """Profiles that know nothing but the cell count, for `similarity="cosine"`; rows without a count are dropped.

    With x = log(1 + count) stretched to angles 0..pi over the table, the features are cos(k x) / k and
    sin(k x) / k for odd k. Their cosine similarity is the partial sum of a triangle wave, which falls strictly
    with |x_i - x_j| and nearly in proportion: neighbours are rows with like counts. (Any representation that does
    no better has learned cell death.)
    """
    series = table.column(column)
    if not series.dtype.is_numeric():
        raise ValueError(f"{column} is {series.dtype}, not a number of cells")
    counts = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
    known = np.isfinite(counts)
    if (counts[known] < 0).any():
        raise ValueError(f"{column}: a cell count is negative")
    x = np.log1p(counts[known])
    if not len(x) or x.max() == x.min():
        raise ValueError(f"{column}: all cell counts are equal or missing")
    k = np.arange(1, 2 * HARMONICS, 2)
    angle = np.pi * (x - x.min()) / (x.max() - x.min()) * k[:, None]
    features = np.concatenate([np.cos(angle), np.sin(angle)]) / np.concatenate([k, k])[:, None]
    names = [f"log_count_{i}" for i in range(len(features))]
    return Table(table.metadata.filter(pl.Series(known)), features.T, tuple(names))


def judge_cell_counts(table: Table, protocol: Protocol, column: str) -> Judgement:
    """The baseline: `judge` of `cell_count_table`."""
    protocol = dataclasses.replace(protocol, similarity="cosine")
    return judge(cell_count_table(table, column), protocol, name=BASELINE)
