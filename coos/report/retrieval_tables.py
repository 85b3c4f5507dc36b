"""The numbers of a retrieval report: from judgements to rows of text for the page and plain rows for CSV files."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coos.evaluators import retrieval as judging
from coos.evaluators.retrieval import BASELINE, Judgement
from coos.metrics.retrieval import Enrichment
from coos.report import html

Row = dict[str, Any]
LABEL_COLUMNS = (
    "table", "label", "num_rows", "mean_average_precision", "normalized", "p_value", "corrected_p_value", "exact",
)  # fmt: skip
ENRICHMENT_COLUMNS = (
    "table", "percentile", "threshold", "a", "b", "c", "d", "odds_ratio", "corrected_odds_ratio", "p_value",
    "log10_p_value",
)  # fmt: skip
BATCH_COLUMNS = (
    "name", "a", "b", "c", "d", "odds_ratio", "corrected_odds_ratio", "log10_p_value", "reason",
)  # fmt: skip
NO_ROOM = "every neighbour matches"


def percentile(judgement: Judgement) -> str:
    """The percentile of the headline odds ratio, such as "99.5 %"."""
    return f"{100 * judgement.protocol.percentiles[0]:g} %"


def headline(judgement: Judgement) -> dict[str, float]:
    """The scores that are compared between tables, by name; NaN where undefined."""
    found = {metric: value for metric, (value, _) in judging.values(judgement).items()}
    return {
        f"odds ratio at {percentile(judgement)}": found[f"odds_ratio_at_{judgement.protocol.percentiles[0]}"],
        "precision@R": found["precision_at_r"],
        "mAP": found["average_precision"],
        "normalised AP": found["normalized_average_precision"],
        "hit score": found["hit_score"],
        "nearest-neighbour accuracy": found.get("precision_at_1", float("nan")),
    }


def ratio(value: float) -> str:
    """An odds ratio as text, as the thesis prints them: "15.45", "23,097"."""
    if math.isinf(value):
        return "infinite"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def odds_ratio_cell(enriched: Enrichment) -> str:
    """HTML of the odds ratio of one percentile; where it is no number, the table's empty cell is the reason."""
    value, (a, b, c, d) = float(enriched.odds_ratio), np.asarray(enriched.table).ravel().tolist()
    if math.isinf(value):
        reason = "all pairs above match" if b == 0 else "all matching pairs are above"
        return html.cell("infinite", small=reason)
    if math.isnan(value):
        empty = ((a + b, "no pair is above the threshold"), (c + d, "no pair is below the threshold"),
                 (a + c, "no pair matches"), (b + d, "every pair matches"))  # fmt: skip
        return html.undefined(next(reason for total, reason in empty if total == 0))
    return ratio(value)


def pairs_cell(table: np.ndarray) -> str:
    """HTML of the counts, matching pairs of all pairs: "31 of 353 above", "940 of 70,000 below"."""
    a, b, c, d = np.asarray(table).ravel().tolist()
    return f"<small>{a:,} of {a + b:,} above</small><small>{c:,} of {c + d:,} below</small>"


def at(enriched: Enrichment, position: int) -> Enrichment:
    """`Enrichment` of one of several percentiles."""
    return Enrichment(*(np.asarray(value)[position] for value in enriched))


def score_table(judgements: Sequence[Judgement]) -> str:
    """HTML: a row per table, a column per score; the best value of each column is bold."""
    scores = {judgement.name: headline(judgement) for judgement in judgements}
    names = list(next(iter(scores.values())))
    rows = [_score_row(judgement, scores, names) for judgement in judgements]
    heads = ["table", names[0], "log10 p", *names[1:], "significant labels (%)", "rows", "labels", "features"]
    caption = (
        "All scores beside each other (compare table 4.1 of Bornholdt 2021). Below the odds "
        "ratio: how many of all pairs match, above and below the threshold. Bold: the largest of a column, the "
        "baseline left out. All scores are better the larger they are, log10 p the smaller. Where not all "
        "rows or labels have another row to find, those that have are matched; the others have no score."
    )
    plain = ("mAP", "log10 p")
    return html.table(
        html.head([h if h in plain else h[0].upper() + h[1:] for h in heads]), rows, caption=caption
    )


def best(scores: Mapping[str, Mapping[str, float]], score: str) -> list[str]:
    """The tables with the largest value of a score, several if they tie; the baseline does not take part."""
    values = {name: found[score] for name, found in scores.items() if name != BASELINE}
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    top = max(known.values(), default=math.nan)
    return [name for name, value in known.items() if alike(value, top)]


def alike(first: float, second: float) -> bool:
    """Equal but for the rounding of float32."""
    return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)


def _score_row(
    judgement: Judgement, scores: Mapping[str, Mapping[str, float]], names: Sequence[str]
) -> tuple[str, list[str]]:
    first = at(judgement.enrichment, 0)
    cells = [odds_ratio_cell(first)]
    cells += [_number(scores[judgement.name][name], _reason(name)) for name in names[1:]]
    several = len(scores) - (BASELINE in scores) > 1
    for i, name in enumerate(names):
        if several and judgement.name in best(scores, name):
            cells[i] = f"<strong>{cells[i]}</strong>"
    cells[0] += pairs_cell(first.table)
    cells.insert(1, _log(first.log10_p_value))
    name = html.escape(judgement.name)
    if judgement.name == BASELINE:
        # The class of published rows makes the type grey.
        name = html.cell(name, small="baseline")
    return "baseline published" * (judgement.name == BASELINE), [name, *cells, *_sizes(judgement)]


def _log(value: float) -> str:
    text = f"{float(value):.1f}"
    return "0.0" if text == "-0.0" else text


def _reason(score: str) -> str:
    if score == "nearest-neighbour accuracy":
        return "K = 1 was not asked for"
    return NO_ROOM if score in ("normalised AP", "hit score") else "no row has a match"


def _number(value: float, reason: str) -> str:
    return html.number(value, reason=reason, digits=4)


def _sizes(judgement: Judgement) -> list[str]:
    """Cells: significant labels, rows, labels, features."""
    share, known = judging.values(judgement)["significant_labels"]
    scored = int(np.isfinite(judgement.scores.average_precision).sum())
    return [
        html.percent(share, reason="no label has a p-value"),
        _matched(judgement.num_rows, scored),
        _matched(len(judgement.group_names), known),
        f"{judgement.num_features:,}",
    ]


def _matched(total: int, matched: int) -> str:
    return html.cell(f"{total:,}", small=f"{matched:,} matched" if matched != total else "")


def score_rows(judgements: Sequence[Judgement]) -> list[Row]:
    """Rows for CSV: all of `coos.evaluators.retrieval.values`, unrounded."""
    return [
        {"table": judgement.name, "metric": metric, "value": float(value), "n": n}
        for judgement in judgements
        for metric, (value, n) in judging.values(judgement).items()
    ]


def enrichment_rows(name: str, enriched: Enrichment, percentiles: Sequence[float]) -> list[Row]:
    """Rows for CSV: the enrichment at each percentile, with the counts a, b, c, d of pairs."""
    rows = []
    for position, fraction in enumerate(percentiles):
        one = at(enriched, position)
        cells = dict(zip("abcd", np.asarray(one.table).ravel().tolist(), strict=True))
        numbers = {key: float(value) for key, value in one._asdict().items() if key != "table"}
        rows.append({"table": name, "percentile": fraction, **cells, **numbers})
    return rows


def label_rows(judgement: Judgement) -> list[Row]:
    """Rows for CSV, a label each: smallest corrected p first, of equal ones the largest precision."""
    groups = judgement.mean_average_precision
    order = np.lexsort((-groups.value, groups.corrected_p_value))  # NaN come last
    return [
        {
            "table": judgement.name,
            "label": judgement.group_names[int(groups.groups[i])],
            "num_rows": int(groups.num_rows[i]),
            "mean_average_precision": float(groups.value[i]),
            "normalized": float(groups.normalized[i]),
            "p_value": float(groups.p_value[i]),
            "corrected_p_value": float(groups.corrected_p_value[i]),
            "exact": bool(groups.exact[i]),
        }
        for i in order
    ]


def label_table(rows: Sequence[Row], *, count: int = 20) -> str:
    """HTML of the first `count` of `label_rows`."""
    none, shown = "no two rows have this label", []
    for row in rows[:count]:
        shown.append(
            (
                "",
                [
                    html.escape(row["label"]),
                    f"{row['num_rows']:,}",
                    _number(row["mean_average_precision"], none),
                    _number(row["normalized"], NO_ROOM if row["num_rows"] else none),
                    *(_p_value(row[key], none) for key in ("p_value", "corrected_p_value")),
                ],
            )
        )
    heads = ("Label", "Rows with a match", "mAP", "Normalised AP", "p", "Corrected p")
    extent = f"The {count} best of {len(rows):,} labels" if len(rows) > count else f"All {len(rows):,} labels"
    caption = f"{extent} of {rows[0]['table']}, by corrected p, then mAP; all are in tables/labels.csv."
    return html.table(html.head(heads), shown, caption=caption)


def _p_value(value: float, reason: str) -> str:
    return html.undefined(reason) if math.isnan(value) else f"{value:.2g}"


def word(text: str) -> str:
    """HTML of a word that stands where a number would."""
    return f'<span class="undefined">{html.escape(text)}</span>'


def batch_rows(effects: Mapping[str, Enrichment | str]) -> list[Row]:
    """Rows for CSV: the batch enrichment of each name, or the reason why there is none."""
    rows = []
    for name, found in effects.items():
        row: Row = {"name": name, **dict.fromkeys(BATCH_COLUMNS[1:], float("nan")), "reason": ""}
        if isinstance(found, str):
            row["reason"] = found
        else:
            row |= dict(zip("abcd", np.asarray(found.table).ravel().tolist(), strict=True))
            row |= {key: float(getattr(found, key)) for key in BATCH_COLUMNS[5:8]}
        rows.append(row)
    return rows


def batch_table(effects: Mapping[str, Enrichment | str]) -> str:
    """HTML of the batch enrichment scores."""
    rows = []
    for name, found in effects.items():
        if isinstance(found, str):
            # A reason can be long; only the first column wraps.
            rows.append(("", [html.cell(html.escape(name), small=found), *[word("undefined")] * 4]))
            continue
        (a, b), (c, d) = np.asarray(found.table).tolist()
        above = f"{a + b:,} of {a + b + c + d:,}{pairs_cell(found.table)}"
        finite, p = ratio(float(found.corrected_odds_ratio)), _log(found.log10_p_value)
        rows.append(("", [html.escape(name), odds_ratio_cell(found), finite, p, above]))
    heads = ("Table", "Odds ratio", "Corrected odds ratio", "log10 p", "Pairs above the threshold")
    caption = (
        "Batch enrichment score: the odds ratio of control rows with the batch as label (compare table 4.19 of "
        "Bornholdt 2021). About 1 means no batch effect, larger is worse. The corrected one adds 1/2 to each "
        "count (Haldane and Anscombe), so that it is always finite. "
        "Small type: how many pairs above and below the threshold are of one batch."
    )
    return html.table(html.head(heads), rows, caption=caption)
