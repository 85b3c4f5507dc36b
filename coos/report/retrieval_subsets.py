"""The section of a retrieval report on subsets of rows: their scores, and the enrichment in, out and of all rows."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from coos.evaluators import retrieval_subsets as judging
from coos.evaluators.retrieval import BASELINE
from coos.evaluators.retrieval_subsets import ALL, Part
from coos.report import html, retrieval_plots
from coos.report.folder import Folder
from coos.report.retrieval_tables import (
    NO_ROOM,
    Row,
    at,
    odds_ratio_cell,
    pairs_cell,
)

COLUMNS = ("table", "subset", "part", "rows", "metric", "value", "n", "reason")
SHOWN_K = 10
NO_ROWS, NO_MATCH, NO_PAIR = "no rows", "no row has a match", "no two of its rows match"
EVERY_PAIR, ONE_SIDE = "every pair matches", "no pair is above the threshold"


def section(folder: Folder, parts: Sequence[Part], conditions: Mapping[str, str], *, simulated: bool) -> str:
    """HTML: what the subsets are, a table of scores, and for each table and subset a figure of its enrichment.

    Args:
        folder: takes tables/subsets.csv and the figures.
        parts: of each table first all rows, then in and out of each subset.
        conditions: {subset: what is in it}.
        simulated: whether the data are.
    """
    folder.csv("subsets", rows(parts), COLUMNS)
    what = "; ".join(f"{name}: {condition}" for name, condition in conditions.items())
    lead = html.paragraph(f"In the subsets are the rows with: {what}. All others are out.")
    wholes = {part.table: part for part in parts if part.part == ALL}
    pairs = [[part for part in parts if part.subset == name] for name in conditions]
    figures = [
        _figure(folder, [wholes[name], *(part for part in found if part.table == name)], simulated)
        for found in pairs
        for name in wholes
    ]
    return lead + _table(parts) + html.grid(figures)


def rows(parts: Sequence[Part]) -> list[Row]:
    """Rows for CSV: all of `coos.evaluators.retrieval_subsets.values`, unrounded, with the reason of each NaN."""
    return [
        {
            "table": part.table,
            "subset": part.subset,
            "part": part.part,
            "rows": part.num_rows,
            "metric": metric,
            "value": value,
            "n": n,
            "reason": reason(part, metric) if math.isnan(value) else "",
        }
        for part in parts
        for metric, (value, n) in judging.values(part).items()
    ]


def reason(part: Part, metric: str) -> str:
    """Why a metric of a part is undefined."""
    if not part.num_rows:
        return NO_ROWS
    if metric.startswith(("odds_ratio", "log10")):
        matching, others = np.asarray(part.enrichment.table)[0].sum(0)
        return NO_PAIR if not matching else EVERY_PAIR if not others else ONE_SIDE
    if metric == "hit_score":
        return NO_ROOM if len(part.hits.ranks) else NO_PAIR
    return NO_ROOM if metric.startswith("normalized") and np.nansum(part.scores.num_matches) else NO_MATCH


def _table(parts: Sequence[Part]) -> str:
    protocol = parts[0].protocol
    k = SHOWN_K if SHOWN_K in protocol.ks else protocol.ks[-1]
    metrics = {
        "Precision@R": "precision_at_r",
        "mAP": "average_precision",
        f"Precision@{k}": f"precision_at_{k}",
        f"Recall@{k}": f"recall_at_{k}",
        "Hit score": "hit_score",
    }
    heads = ["Table", "Part", "Rows", f"Odds ratio at {100 * protocol.percentiles[0]:g} %", *metrics]
    caption = (
        "Odds ratio and hit score are those of the part alone; precision, recall and mAP are those that its rows have "
        "among all rows, averaged over the part (compare figure 4.6 of Bornholdt 2021). Precision rises with the "
        "number of rows of a label, whatever the profiles are. All numbers are in tables/subsets.csv."
    )
    lines = [_line(part, list(metrics.values())) for part in parts]
    return html.table(html.head(heads, text_columns=2), lines, caption=caption, text_columns=2)


def _line(part: Part, metrics: Sequence[str]) -> tuple[str, list[str]]:
    found = judging.values(part)
    first = at(part.enrichment, 0)
    undefined = math.isnan(first.odds_ratio)
    cells = [
        html.escape(part.table),
        html.escape(part.label),
        html.cell(f"{part.num_rows:,}", small=_matched(part)),
        (html.undefined(reason(part, "odds_ratio")) if undefined else odds_ratio_cell(first))
        + (pairs_cell(first.table) if first.table.any() else ""),
    ]
    cells += [html.number(found[name][0], reason=reason(part, name), digits=4) for name in metrics]
    return "baseline published" * (part.table == BASELINE), cells


def _matched(part: Part) -> str:
    matched = int((np.nan_to_num(part.scores.num_matches) > 0).sum())
    return f"{matched:,} matched" if matched != part.num_rows else ""


def _figure(folder: Folder, parts: Sequence[Part], simulated: bool) -> str:
    """Figure 4.6 of Bornholdt 2021, left or right: one table, one subset."""
    ratios = {part.label: np.asarray(part.enrichment.odds_ratio, float) for part in parts}
    table, subset = parts[-1].table, parts[-1].subset
    return folder.figure(
        f"subset_{subset}_{table}",
        retrieval_plots.enrichment_plot(ratios, parts[0].protocol.percentiles, simulated=simulated),
        alt=f"Odds ratio over percentiles of similarity of {table} in and out of {subset}; numbers in "
        "tables/subsets.csv",
        caption=f"{table}: enrichment of the rows in {subset}, of those out of it, and of all.",
    )
