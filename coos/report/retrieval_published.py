"""Published scores of tables of profiles beside the measured ones."""

import math
from collections.abc import Mapping, Sequence

from coos.evaluators import retrieval as judging
from coos.evaluators.retrieval import Judgement
from coos.report import html
from coos.report.retrieval_tables import Row, percentile, ratio, word

Published = Mapping[str, Mapping[str, float]]
COLUMNS = ("table", "metric", "measured", "published", "source")
NAMES = {
    "precision_at_r": "precision@R",
    "precision_at_1": "nearest-neighbour accuracy",
    "average_precision": "mAP",
}


def rows(judgements: Sequence[Judgement], published: Published, source: str) -> list[Row]:
    """Rows for CSV: measured (NaN: not judged) and published value of each table and metric.

    The metric "odds_ratio" is that of the first percentile; others are called as in
    `coos.evaluators.retrieval.values`.
    """
    first = f"odds_ratio_at_{judgements[0].protocol.percentiles[0]}"
    measured = {judgement.name: judging.values(judgement) for judgement in judgements}
    return [
        {
            "table": name,
            "metric": metric,
            "measured": float(_measured(measured, name, first if metric == "odds_ratio" else metric)),
            "published": float(value),
            "source": source,
        }
        for name, values in published.items()
        for metric, value in values.items()
    ]


def _measured(measured: Mapping[str, Mapping[str, tuple[float, int]]], name: str, metric: str) -> float:
    return measured.get(name, {}).get(metric, (math.nan, 0))[0]


def table(judgements: Sequence[Judgement], published: Published, source: str) -> str:
    """HTML: for each metric that was published a column of measured and one of published values."""
    found = {(row["table"], row["metric"]): row for row in rows(judgements, published, source)}
    metrics = list(dict.fromkeys(metric for _, metric in found))
    judged = [judgement.name for judgement in judgements]
    names = [name for name in judged if name in published] + [n for n in published if n not in judged]
    lines, heads = [], ["Table"]
    for metric in metrics:
        name = (
            f"Odds ratio at {percentile(judgements[0])}"
            if metric == "odds_ratio"
            else NAMES.get(metric, metric)
        )
        heads += [f"{name}, measured", "published"]
    for name in names:
        cells = [html.escape(name)]
        for metric in metrics:
            cells += _pair(found.get((name, metric)), name in judged, metric)
        lines.append(("", cells))
    caption = f"Measured beside published values. Source of the published ones: {source or 'not named'}."
    return html.table(html.head(heads), lines, caption=caption)


def _pair(row: Row | None, judged: bool, metric: str) -> list[str]:
    """Cells of the measured and the published value, or why there is none."""
    if row is None:
        return [word("see above" if judged else "not judged"), word("not published")]
    missing = "undefined or not measured" if judged else "not judged"
    values = (row["measured"], missing), (row["published"], "not published")
    return [word(text) if math.isnan(value) else _text(value, metric) for value, text in values]


def _text(value: float, metric: str) -> str:
    return ratio(value) if metric.startswith("odds_ratio") else f"{value:.4f}"
