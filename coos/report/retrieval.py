"""The page that shows how well tables of profiles retrieve rows with the same label, side by side."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from coos.evaluators.before_after import BeforeAfter
from coos.evaluators.retrieval import BASELINE, Judgement
from coos.evaluators.retrieval_subsets import Part
from coos.evaluators.wells import FeatureSpace
from coos.metrics.retrieval import Enrichment
from coos.report import (
    html,
    plots,
    retrieval_before_after,
    retrieval_plots,
    retrieval_protocol,
    retrieval_published,
    retrieval_scatter,
    retrieval_subsets,
    retrieval_summary,
    retrieval_tables,
)
from coos.report.folder import Folder

NO_BASELINE = (
    "No cell counts were given, so no baseline was possible: these numbers do not tell whether a table knows more "
    "than how many cells survived."
)


def write(
    out: str | os.PathLike,
    judgements: Sequence[Judgement],
    *,
    title: str,
    published: Mapping[str, Mapping[str, float]] | None = None,
    published_source: str = "",
    spaces: Sequence[tuple[str, FeatureSpace]] = (),
    batch_effects: Mapping[str, Enrichment | str] | None = None,
    before_after: Sequence[BeforeAfter] = (),
    published_before_after: Mapping[str, Mapping[str, float]] | None = None,
    parts: Sequence[Part] = (),
    subsets: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    simulated: bool = False,
) -> pathlib.Path:
    """Write `index.html`, `figures/*.png` and `tables/*.csv` to `out`; return the path of the page.

    Args:
        out: a folder; figures and tables of an earlier report in it are replaced.
        judgements: of tables, and of the baseline "cell count only" if cell counts are known.
        title: of the page.
        published: {table: {"odds_ratio": ..., "precision_at_r": ...}}, shown beside the measured values;
            "odds_ratio" is that of the first percentile, any other metric of the judgement goes by its name.
        published_source: where these stand.
        spaces: (name, principal components) of tables.
        batch_effects: {name: enrichment of controls by batch at one percentile, or why there is none}.
        before_after: of work directories; shown with the batch effects.
        published_before_after: {name: {"odds_ratio_before": ..., "odds_ratio_after": ..., "batch_before": ...,
            "batch_after": ...}}, shown below them.
        parts: of each table all rows, and in and out of each subset.
        subsets: {subset: what is in it}; without any there is no such section.
        notes: sentences that a reader must know, shown below the summary.
        simulated: whether the data are; then the page and every figure say so.

    Raises:
        ValueError: no judgement, two with one name, or they differ in label, ks or percentiles.
    """
    retrieval_protocol.check(judgements)
    folder = Folder(pathlib.Path(out))
    effects = _batch_effects(folder, batch_effects or {})
    if before_after:
        effects += retrieval_before_after.section(
            folder, before_after, published_before_after or {}, published_source
        )
    sections = [
        ("Scores", _scores(folder, judgements, published or {}, published_source)),
        ("Enrichment", _enrichment(folder, judgements, simulated)),
        ("Precision and recall", _precision_recall(folder, judgements, simulated)),
        ("Hits", _hits(folder, judgements, simulated)),
        ("Labels", _labels(folder, judgements, simulated)),
        ("Feature space", _spaces(folder, spaces, simulated)),
        ("Batch effect", effects),
        ("Protocol", retrieval_protocol.section(judgements)),
    ]
    if subsets:
        place = [name for name, _ in sections].index("Labels") + 1
        found = retrieval_subsets.section(folder, parts, subsets, simulated=simulated)
        sections.insert(place, ("Subsets", found))
    text = html.page(
        title,
        lead=_lead(judgements, notes),
        sections=sections,
        footer=f"Tables: {len(judgements)}, {'simulated' if simulated else 'real'} data.",
        banner=plots.SIMULATED_LABEL if simulated else "",
    )
    return folder.page(text)


def _lead(judgements: Sequence[Judgement], notes: Sequence[str]) -> str:
    warnings = retrieval_protocol.warnings(judgements)
    if BASELINE not in {judgement.name for judgement in judgements}:
        warnings.insert(0, NO_BASELINE)
    lead = html.paragraph(retrieval_summary.paragraph(judgements), css="summary")
    lead += "".join(html.paragraph(text, css="warning") for text in warnings)
    return lead + "".join(html.paragraph(note) for note in notes)


def _scores(
    folder: Folder, judgements: Sequence[Judgement], published: Mapping[str, Mapping[str, float]], source: str
) -> str:
    rows = retrieval_tables.score_rows(judgements)
    folder.csv("scores", rows, ("table", "metric", "value", "n"))
    table = retrieval_tables.score_table(judgements)
    if not published:
        return table
    rows = retrieval_published.rows(judgements, published, source)
    folder.csv("published", rows, retrieval_published.COLUMNS)
    return table + retrieval_published.table(judgements, published, source)


def _enrichment(folder: Folder, judgements: Sequence[Judgement], simulated: bool) -> str:
    percentiles = judgements[0].protocol.percentiles
    rows = [
        r for j in judgements for r in retrieval_tables.enrichment_rows(j.name, j.enrichment, percentiles)
    ]
    folder.csv("enrichment", rows, retrieval_tables.ENRICHMENT_COLUMNS)
    ratios = {j.name: np.asarray(j.enrichment.odds_ratio, float) for j in judgements}
    return folder.figure(
        "enrichment",
        retrieval_plots.enrichment_plot(ratios, percentiles, simulated=simulated),
        alt=f"Odds ratio over percentiles of similarity for {_names(judgements)}; numbers in tables/enrichment.csv",
        caption="Odds ratio of a match above against below each percentile of the similarity of all pairs "
        "(compare figure 4.1, left, of Bornholdt 2021).",
    )


def _precision_recall(folder: Folder, judgements: Sequence[Judgement], simulated: bool) -> str:
    ks = judgements[0].protocol.ks
    curves = {j.name: (j.precision_at_k, j.recall_at_k) for j in judgements}
    rows = [
        {"table": name, "k": k, "precision": float(precision[i]), "recall": float(recall[i])}
        for name, (precision, recall) in curves.items()
        for i, k in enumerate(ks)
    ]
    folder.csv("precision_recall", rows, ("table", "k", "precision", "recall"))
    first = judgements[0]
    chance = float(np.nanmean(first.scores.num_matches / first.scores.num_neighbors))
    return folder.figure(
        "precision_recall",
        retrieval_plots.precision_recall_plot(curves, ks, chance=chance, simulated=simulated),
        alt=f"Precision against recall at several K for {_names(judgements)}; numbers in tables/precision_recall.csv",
        caption="Precision among the K nearest neighbours against the share of matches found among them, means "
        f"over rows (compare figure 4.1, right, of Bornholdt 2021). The small numbers are K = "
        f"{', '.join(map(str, ks))}, the same along every line. Chance: a random order of {first.name}.",
    )


def _hits(folder: Folder, judgements: Sequence[Judgement], simulated: bool) -> str:
    lengths = {j.name: _list_length(j) for j in judgements}
    curves = {j.name: retrieval_plots.accumulated_hits(j.hits.ranks, lengths[j.name]) for j in judgements}
    rows = [
        {"table": name, "percent": percent, "share_above_chance": float(value)}
        for name, curve in curves.items()
        for percent, value in enumerate(curve)
    ]
    folder.csv("hits", rows, ("table", "percent", "share_above_chance"))
    main = folder.figure(
        "hits",
        retrieval_plots.hit_curves_plot(curves, simulated=simulated),
        alt=f"Accumulated hits above chance over the list of neighbours for {_names(judgements)}; numbers in "
        "tables/hits.csv",
        caption="Share of all hits that stand in the first part of the list of neighbours, minus that part: the "
        "normalised accumulated score (compare figure 4.2 of Bornholdt 2021). The hit score above looks at the "
        "shaded first 20 %." + _unequal_lists(judgements),
    )
    return main + html.grid([_histogram(folder, j, lengths[j.name], simulated) for j in judgements])


def _list_length(judgement: Judgement) -> float:
    """Neighbours of a row, the mean over hits: exclusions can leave rows with lists of different lengths."""
    scores = judgement.scores
    known = scores.num_matches > 0
    return float(np.average(scores.num_neighbors[known], weights=scores.num_matches[known]))


def _unequal_lists(judgements: Sequence[Judgement]) -> str:
    lengths = [np.nanmin(j.scores.num_neighbors) != np.nanmax(j.scores.num_neighbors) for j in judgements]
    text = (
        " Rows have lists of different lengths because of exclusions; ranks are divided by their mean length."
    )
    return text * any(lengths)


def _histogram(folder: Folder, judgement: Judgement, length: float, simulated: bool) -> str:
    ranks, name = judgement.hits.ranks, judgement.name
    first = int((ranks < retrieval_plots.BIN).sum())
    return folder.figure(
        f"hits_{name}",
        retrieval_plots.hit_histogram(ranks, length, name=name, simulated=simulated),
        alt=f"Histogram of the ranks of all hits of {name}",
        caption=f"{name}: {first:,} of {len(ranks):,} hits are among the first {retrieval_plots.BIN} neighbours.",
    )


def _labels(folder: Folder, judgements: Sequence[Judgement], simulated: bool) -> str:
    rows = {judgement.name: retrieval_tables.label_rows(judgement) for judgement in judgements}
    folder.csv("labels", [r for found in rows.values() for r in found], retrieval_tables.LABEL_COLUMNS)
    figures = []
    for name, found in rows.items():
        values, p_values = (
            [r[key] for r in found] for key in ("mean_average_precision", "corrected_p_value")
        )
        plot = retrieval_scatter.labels_plot(
            np.array(values), np.array(p_values), [r["label"] for r in found], title=name, simulated=simulated
        )
        alt = (
            f"Corrected p-value against mean average precision of the labels of {name}; numbers in the table"
        )
        caption = f"{name}: a point per label; the dotted line is p = 0.05 after correction for all labels."
        figures.append(folder.figure(f"labels_{name}", plot, alt=alt, caption=caption))
    tables = {name: retrieval_tables.label_table(found) for name, found in rows.items()}
    if len(tables) == 1:
        return html.grid(figures) + "".join(tables.values())
    return html.grid(figures) + "".join(html.details(f"Labels of {n}", table) for n, table in tables.items())


def _spaces(folder: Folder, spaces: Sequence[tuple[str, FeatureSpace]], simulated: bool) -> str:
    if not spaces:
        return html.paragraph("No principal components were given.")
    figures = []
    for name, space in spaces:
        plot = retrieval_scatter.components_plot(
            space.points,
            space.explained,
            space.batches,
            space.is_control,
            title=name,
            simulated=simulated,
        )
        shares = " and ".join(f"{100 * share:.3g} %" for share in space.explained)
        figures.append(
            folder.figure(
                f"feature_space_{name}",
                plot,
                alt=f"First two principal components of {name}, coloured by batch and by control or treated",
                caption=f"{name}: first two principal components of {len(space.points):,} rows, which explain "
                f"{shares} of the variance (compare figures 4.3 and 4.19 of Bornholdt 2021). The rest is not seen "
                "here: groups that overlap may be apart in other directions.",
            )
        )
    return "".join(figures)


def _batch_effects(folder: Folder, effects: Mapping[str, Enrichment | str]) -> str:
    if not effects:
        return html.paragraph("No batch effect was measured.")
    folder.csv("batch_effects", retrieval_tables.batch_rows(effects), retrieval_tables.BATCH_COLUMNS)
    return retrieval_tables.batch_table(effects)


def _names(judgements: Sequence[Judgement]) -> str:
    return ", ".join(judgement.name for judgement in judgements)
