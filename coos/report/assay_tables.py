"""The tables of a report on assay predictions as HTML: Tables 1 to 3 of Hofmarcher et al. 2019, and every assay."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from coos import workdir
from coos.data import pipeline
from coos.metrics.multitask.summary import ABOVE
from coos.report import assay_published as published
from coos.report import html
from coos.report.assay_comparison import BASELINE, Comparison, Model
from coos.report.assay_scores import LEVEL, WILCOXON_LEVEL, Row, Scores
from coos.report.retrieval_tables import word

NONE = "no assay is defined"
NOT_PUBLISHED = word("not published")


def score_table(
    comparison: Comparison,
    rows: Sequence[Row],
    scores: Sequence[Scores],
    p_values: np.ndarray,
    num_resamples: int,
) -> str:
    """HTML of Table 1: our models, then the published ones."""
    bold = not_outperformed(scores, p_values) if len(scores) > 1 else []
    lines = [_score_line(row, row["model"] in bold) for row in rows]
    lines += [_published_line(name, found) for name, found in published.SCORES.items()]
    heads = ["Model", "Mean AUC ± sd", "Mean AUC ± sd, undefined as 0.5", "Mean F1 ± sd", "Mean AP ± sd"]
    heads += [f"AUC > {level}" for level in ABOVE]
    return html.table(html.head(heads), lines, caption=_score_caption(comparison, num_resamples, bool(bold)))


def not_outperformed(scores: Sequence[Scores], p_values: np.ndarray) -> list[str]:
    """The model with the highest mean AUC, and those that it does not outperform significantly."""
    means = [float(np.nanmean(s.auroc)) if not np.isnan(s.auroc).all() else -math.inf for s in scores]
    best = int(np.argmax(means))
    if means[best] == -math.inf:
        return []
    return [s.name for i, s in enumerate(scores) if i == best or not p_values[i, best] < WILCOXON_LEVEL]


def _score_line(row: Row, bold: bool) -> tuple[str, list[str]]:
    baseline = row["model"] == BASELINE
    mean = _mean_and_std(row, "auroc")
    low, high = row["mean_auroc_low"], row["mean_auroc_high"]
    bounds = "" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"
    cells = [
        html.cell(html.escape(row["model"]), small="baseline" if baseline else _seeds(row["seeds"])),
        html.cell(f"<strong>{mean}</strong>" if bold else mean, small=bounds) + _assays(row, "auroc"),
        f"{row['mean_auroc_half']:.3f} ± {row['std_auroc_half']:.2f}",
        _mean_and_std(row, "f1") + _assays(row, "f1"),
        _mean_and_std(row, "average_precision") + _assays(row, "average_precision"),
        *(f"{row[f'auroc_above_{level}']:,}" for level in ABOVE),
    ]
    return "baseline" if baseline else "", cells


def _seeds(number: int) -> str:
    return f"mean of {number} seeds" if number > 1 else ""


def _mean_and_std(row: Row, name: str) -> str:
    mean, std = row[f"mean_{name}"], row[f"std_{name}"]
    return html.undefined(NONE) if math.isnan(mean) else f"{mean:.3f} ± {std:.2f}"


def _assays(row: Row, name: str) -> str:
    """How many assays a mean is over, where these are not all."""
    number = row[f"defined_{name}"]
    return (
        html.cell("", small=f"{number:,} of {row['num_assays']:,} assays")
        if 0 < number < row["num_assays"]
        else ""
    )


def _published_line(name: str, found: published.Scores) -> tuple[str, list[str]]:
    cells = [
        html.cell(html.escape(name), small=f"published, {found.kind}"),
        NOT_PUBLISHED,
        f"{found.auc:.3f} ± {found.auc_std:.2f}",
        f"{found.f1:.3f} ± {found.f1_std:.2f}",
        NOT_PUBLISHED,
        *map(str, found.above),
    ]
    return "published", cells


def _score_caption(comparison: Comparison, num_resamples: int, bold: bool) -> str:
    text = (
        "Means and standard deviations over assays; views are averaged per "
        f"{comparison.level}. In square brackets 95 % bootstrap intervals over compounds ({num_resamples:,} "
        "resamples). F1 at a probability of 0.5. Average precision (AP) and F1 depend on the share of actives, AP is 1 "
        "for an assay without inactives. An assay without actives or without inactives has no AUC; the published code "
        "counts it as 0.5, hence the second column. "
    )
    if bold:
        text += (
            f"Bold: not significantly outperformed by the best (p < {WILCOXON_LEVEL:g}, as in the paper). "
        )
    return f"{text}{_comparable(comparison)} Published: {published.SOURCE}, Table 1."


def _comparable(comparison: Comparison) -> str:
    if comparison.simulated:
        return "The published values are of real data and not comparable with these simulated ones."
    if len(comparison.tasks) != published.NUM_ASSAYS:
        return f"The published values are of {published.NUM_ASSAYS} other assays and not comparable."
    return "The published values are of the authors' own split into training and test compounds."


COST_COLUMNS = (
    "model",
    "parameters",
    "seconds_per_epoch",
    "images_per_second",
    "examples_per_epoch",
    "input",
    "devices",
)


def cost_rows(comparison: Comparison) -> list[Row]:
    """A row per network: parameters, and seconds per epoch = examples that an epoch sees / median images per second."""
    return [_cost_row(model) for model in comparison.networks]


def _cost_row(model: Model) -> Row:
    run = model.runs[0]
    rates = [
        row["value"]
        for run in model.runs
        for row in run.rows
        if row["split"] == "speed" and row["metric"] == "images_per_second"
    ]
    data = run.config.get("data") or {}
    total = (run.dataset.get("splits") or {}).get(data.get("train_split"))
    examples = pipeline.examples_per_epoch(total, data.get("epoch_share", 1.0)) if total else math.nan
    speed = statistics.median(rates) if rates else math.nan
    return {
        "model": model.name,
        "parameters": math.nan if run.parameters is None else run.parameters,
        "seconds_per_epoch": examples / speed,
        "images_per_second": speed,
        "examples_per_epoch": examples,
        "input": "×".join(map(str, run.dataset.get("image_shape") or ())),
        "devices": _devices(model),
    }


def _devices(model: Model) -> str:
    """The devices that the runs' own records name; nothing if they do not."""
    found: dict[str, None] = {}
    for run in model.runs:
        path = run.path / "config.json"
        names = workdir.read_json(path).get("devices", []) if path.exists() else []
        found.update(dict.fromkeys(names))
    return ", ".join(found)


def cost_table(rows: Sequence[Row]) -> str:
    """HTML of Table 2: our models, then the published ones."""
    lines = [("", _cost_line(row)) for row in rows]
    for name, (parameters, seconds) in published.COSTS.items():
        cells = [
            html.cell(html.escape(name), small="published"),
            f"{parameters:,}",
            f"{seconds:,.0f}",
            NOT_PUBLISHED,
            f"{published.TRAINING_VIEWS:,}",
            html.escape(published.VIEW),
            html.escape(published.DEVICE),
        ]
        lines.append(("published", cells))
    heads = (
        "Model",
        "Parameters",
        "Seconds per epoch",
        "Images per second",
        "Examples per epoch",
        "Size of an example",
        "Devices",
    )
    caption = (
        "Seconds per epoch: training examples that an epoch sees, divided by the median of the measured images per "
        "second. Examples of another size, on other devices, take another time: compare only where both agree. "
        f"Published: {published.SOURCE}, Table 2; the number of assays is part of the number of parameters."
    )
    return html.table(html.head(heads), lines, caption=caption)


def _cost_line(row: Row) -> list[str]:
    speed = "no speed was recorded"
    seconds = row["seconds_per_epoch"]
    return [
        html.escape(row["model"]),
        _whole(row["parameters"], "not recorded"),
        html.number(
            seconds, reason=speed if math.isnan(row["images_per_second"]) else "not recorded", digits=1
        ),
        html.number(row["images_per_second"], reason=speed, digits=1),
        _whole(row["examples_per_epoch"], "not recorded"),
        html.escape(row["input"]) or word("not recorded"),
        html.escape(row["devices"]) or word("not recorded"),
    ]


def _whole(value: float, reason: str) -> str:
    return word(reason) if math.isnan(value) else f"{value:,.0f}"


def wilcoxon_table(names: Sequence[str], p_values: np.ndarray, *, caption: str) -> str:
    """HTML of Table 3: one-sided p-values (M, M) that the column outperforms the row, significant ones bold."""
    lines = []
    for row, name in enumerate(names):
        cells = [_p_value(p_values[row, column], same=row == column) for column in range(len(names))]
        lines.append(("", [html.escape(name), *cells]))
    return html.table(html.head(["Row \\ column", *names]), lines, caption=caption)


def _p_value(value: float, *, same: bool = False) -> str:
    if same:
        return "–"
    if math.isnan(value):
        return html.undefined(NONE)
    return f"<strong>{value:.2e}</strong>" if value < WILCOXON_LEVEL else f"{value:.2e}"


def published_wilcoxon() -> str:
    """HTML of the published Table 3."""
    rows, columns = published.WILCOXON_ROWS, list(published.WILCOXON)
    lines = []
    for position, name in enumerate(rows):
        cells = []
        for values in published.WILCOXON.values():
            place = position - (len(rows) - len(values))
            cells.append(_p_value(values[place]) if place >= 0 else "")
        lines.append(("published", [html.escape(name), *cells]))
    caption = f"The published p-values that the column outperforms the row: {published.SOURCE}, Table 3."
    return html.table(html.head(["Row \\ column", *columns]), lines, caption=caption)


def assay_table(comparison: Comparison, rows: Sequence[Row]) -> str:
    """HTML of `assay_scores.assay_rows`: a line per assay, a column per model."""
    names = [model.name for model in comparison.models]
    lines = []
    for start in range(0, len(rows), len(names)):
        own = rows[start : start + len(names)]
        first = own[0]
        cells = [html.escape(first["assay"]), f"{first['active']:,}", f"{first['inactive']:,}"]
        lines.append(
            ("", cells + [_assay_cell(row, compared=comparison.baseline is not None) for row in own])
        )
    caption = (
        "AUC with its 95 % bootstrap interval over compounds, average precision (AP) and F1. "
        + (
            f"p: Venkatraman's test against the cell count, corrected for the number of assays; bold up to {LEVEL:g}. "
            if comparison.baseline
            else ""
        )
        + "All numbers are in tables/assays.csv."
    )
    heads = ["Assay", f"Active {comparison.level}s", f"Inactive {comparison.level}s", *names]
    return html.table(html.head(heads), lines, caption=caption)


def _assay_cell(row: dict[str, Any], *, compared: bool) -> str:
    if row["undefined"]:
        return html.undefined(row["undefined"])
    low, high = row["auroc_low"], row["auroc_high"]
    text = f"{row['auroc']:.3f}"
    if not math.isnan(low):
        text = html.cell(text, small=f"[{low:.3f}, {high:.3f}]")
    f1 = "undefined" if math.isnan(row["f1"]) else f"{row['f1']:.3f}"
    text = html.cell(text, small=f"AP {row['average_precision']:.3f}, F1 {f1}")
    if compared and row["model"] != BASELINE:
        p = row["corrected_p_against_cell_count"]
        shown = f"p = {p:.2g}"
        text += f"<small>{f'<strong>{shown}</strong>' if p <= LEVEL else shown}</small>"
    return text
