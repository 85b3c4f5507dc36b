"""Enrichment and batch enrichment before and after normalization, beside published values."""

import math
from collections.abc import Mapping, Sequence

from coos.evaluators.before_after import BeforeAfter
from coos.metrics.retrieval import Enrichment
from coos.report import html
from coos.report.folder import Folder
from coos.report.retrieval_tables import Row, odds_ratio_cell, ratio, word

VALUES = ("odds_ratio_before", "odds_ratio_after", "batch_before", "batch_after")
COLUMNS = ("table", "published", "rows", *VALUES, "reason")
Published = Mapping[str, Mapping[str, float]]


def section(folder: Folder, found: Sequence[BeforeAfter], published: Published, source: str) -> str:
    """HTML table, a row per work directory and below them the published ones, {name: {of `VALUES`: value}}."""
    folder.csv("before_after", [*map(_row, found), *_published_rows(published)], COLUMNS)
    lines = [("", [html.escape(one.name), *map(_cell, _enrichments(one))]) for one in found]
    lines += [("published", _published_cells(name, values)) for name, values in published.items()]
    percent = f"{100 * found[0].percentile:g} %"
    heads = (
        "Table",
        f"Odds ratio at {percent}, before",
        "after",
        "Batch enrichment of the controls, before",
        "after",
    )
    caption = (
        "Before and after normalization (compare table 4.19 of Bornholdt 2021). Before: the same wells without any "
        "normalization, merged to profiles in the same way. Odds ratios are better the larger they are; batch "
        "enrichment is best near 1. Features that are missing in some wells are left out before."
        + f" Published, in grey: {source or 'source not named'}."
        * bool(published)
    )
    return html.table(html.head(heads), lines, caption=caption)


def _enrichments(one: BeforeAfter) -> tuple[Enrichment | str, ...]:
    return one.before, one.after, one.batch_before, one.batch_after


def _cell(found: Enrichment | str) -> str:
    return html.undefined(found) if isinstance(found, str) else odds_ratio_cell(found)


def _row(one: BeforeAfter) -> Row:
    enriched = dict(zip(VALUES, _enrichments(one), strict=True))
    reasons = [f"{name}: {value}" for name, value in enriched.items() if isinstance(value, str)]
    numbers = {
        name: math.nan if isinstance(value, str) else float(value.odds_ratio)
        for name, value in enriched.items()
    }
    return {
        "table": one.name,
        "published": False,
        "rows": one.num_rows,
        **numbers,
        "reason": "; ".join(reasons),
    }


def _published_rows(published: Published) -> list[Row]:
    return [
        {
            "table": name,
            "published": True,
            "rows": "",
            "reason": "",
            **dict.fromkeys(VALUES, math.nan),
            **values,
        }
        for name, values in published.items()
    ]


def _published_cells(name: str, values: Mapping[str, float]) -> list[str]:
    cells = [ratio(values[key]) if key in values else word("not published") for key in VALUES]
    return [html.cell(html.escape(name), small="published"), *cells]
