"""The page that shows how well models predict the outcome of assays, beside Hofmarcher et al. 2019."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from coos.report import (
    assay_comparison,
    assay_groups,
    assay_pictures,
    assay_plots,
    assay_scores,
    assay_summary,
    assay_tables,
    assay_training,
    html,
    plots,
)
from coos.report.assay_comparison import BASELINE, Comparison
from coos.report.assay_scores import LEVEL, WILCOXON_LEVEL, Pair, Row, Scores
from coos.report.comparison import differing_settings, footer
from coos.report.folder import Folder
from coos.report.retrieval_summary import join
from coos.workdir import Run

SHOWN = 2  # scatter plots that are not collapsed


def write(
    out: str | os.PathLike,
    runs: Sequence[Run],
    *,
    set_name: str | None = None,
    level: str = "well",
    pair: Sequence[str] | None = None,
    groups: Mapping[str, str] | None = None,
    images: assay_pictures.Images | None = None,
    num_resamples: int = 1000,
    num_permutations: int = 2000,
    assays: int = 3,
    views: int = 4,
    seed: int = 0,
) -> pathlib.Path:
    """Write `index.html`, `figures/*.png` and `tables/*.csv` to `out`; return the path of the page.

    Runs with the same `config["run"]` are seeds of one configuration; configurations stand side by side.

    Args:
        out, runs: a folder, in which an earlier report is replaced; runs with predictions of the same assays.
        set_name, level: the set that is judged (None: "test", else the first); average per "well" or "compound".
        pair: names of the two models of the scatter plot; None takes the two with the highest mean AUC.
        groups: of assays, {assay ID: group}, for a table of their means.
        images: gives the pictures of a set, in any order, found by id; None: a page without.
        num_resamples, num_permutations, seed: behind the intervals, and behind each of Venkatraman's tests.
        assays, views: assays whose views are shown, and views of each and class.

    Raises:
        ValueError: says which runs do not belong together, or that a model of the pair is not there.
    """
    comparison = assay_comparison.compare(runs, set_name=set_name, level=level)
    scores = assay_scores.score(comparison, num_resamples=num_resamples, seed=seed)
    rows = assay_scores.summary_rows(comparison, scores)
    p_values = assay_scores.wilcoxon(scores)
    tests = _tests(comparison, scores, pair, num_permutations, seed)
    against = [test for test in tests if test.second == BASELINE]
    folder = Folder(pathlib.Path(out))
    shown = assay_pictures.section(folder, comparison, scores, images, assays=assays, count=views)
    sections = [
        ("Scores", _scores(folder, comparison, rows, scores, p_values, num_resamples)),
        ("Parameters and time", _costs(folder, comparison)),
        ("Which model outperforms which", _wilcoxon(folder, scores, p_values)),
        ("AUC over assays", _boxes(folder, comparison, scores)),
        ("Two models, assay by assay", _pairs(folder, comparison, scores, tests)),
        ("Every assay", _assays(folder, comparison, scores, against)),
        ("Views predicted and labelled active", shown),
        ("Training", assay_training.section(folder, comparison)),
        ("Data, configuration and versions", _data(folder, comparison)),
    ]
    if groups is not None:
        sections.insert(1, ("Groups of assays", assay_groups.section(folder, comparison, scores, groups)))
    lead = html.paragraph(assay_summary.paragraph(comparison, scores, rows, p_values, against), css="summary")
    return folder.page(_page(comparison, lead + _warnings(comparison), sections))


def _page(comparison: Comparison, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    config = comparison.runs[0].config
    title = (config.get("report") or {}).get("title") or f"{config.get('study', 'Assays')}: assay predictions"
    banner = plots.SIMULATED_LABEL if comparison.simulated else ""
    return html.page(title, lead=lead, sections=sections, footer=footer(comparison.runs), banner=banner)


def _tests(
    comparison: Comparison,
    scores: Sequence[Scores],
    pair: Sequence[str] | None,
    num_permutations: int,
    seed: int,
) -> list[Pair]:
    """The pair of networks that is looked at, then every network against the baseline."""
    pairs = [_chosen_pair(comparison, scores, pair)]
    if comparison.baseline:
        best = [found.name for found in assay_scores.ranked(scores) if found.name != BASELINE]
        pairs += [(name, BASELINE) for name in best]
    wanted = list(dict.fromkeys(names for names in pairs if names))
    return [
        assay_scores.compare_pair(comparison, first, second, num_permutations=num_permutations, seed=seed)
        for first, second in wanted
    ]


def _chosen_pair(
    comparison: Comparison, scores: Sequence[Scores], pair: Sequence[str] | None
) -> tuple[str, str] | None:
    if pair:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"pair={','.join(pair)}: name two different models")
        return comparison.model(pair[0]).name, comparison.model(pair[1]).name
    best = [found.name for found in assay_scores.ranked(scores) if found.name != BASELINE]
    return (best[0], best[1]) if len(best) > 1 else None


def _warnings(comparison: Comparison) -> str:
    """What a reader must know first: wells left out, repeated compounds, runs that differ in more than the seed."""
    texts = []
    left_out: dict[int, list[str]] = {}
    for model in comparison.models:
        left_out.setdefault(model.num_left_out, []).append(model.name)
    left_out.pop(0, None)
    if left_out:
        listed = "; ".join(
            f"{comparison.units(number)} of {join(names)}" for number, names in left_out.items()
        )
        texts.append(f"Compared are the {comparison.level}s that all models have; left out: {listed}.")
    for model in comparison.networks:
        keys = differing_settings(model.runs)
        if keys:
            texts.append(f"The runs of {model.name} differ in more than the seed: {', '.join(keys)}.")
    if comparison.level == "well" and len(np.unique(comparison.compounds)) < len(comparison.ids):
        texts.append(
            "Some compounds are in several wells. The intervals draw whole compounds; Venkatraman's test takes the "
            "wells as independent, so that its p-values are somewhat too small."
        )
    return "".join(html.paragraph(text, css="warning") for text in texts)


def _scores(
    folder: Folder,
    comparison: Comparison,
    rows: Sequence[Row],
    scores: Sequence[Scores],
    p_values: np.ndarray,
    num_resamples: int,
) -> str:
    folder.csv("scores", list(rows), assay_scores.SUMMARY_COLUMNS)
    return assay_tables.score_table(comparison, rows, scores, p_values, num_resamples)


def _costs(folder: Folder, comparison: Comparison) -> str:
    rows = assay_tables.cost_rows(comparison)
    folder.csv("costs", rows, assay_tables.COST_COLUMNS)
    return assay_tables.cost_table(rows)


def _wilcoxon(folder: Folder, scores: Sequence[Scores], p_values: np.ndarray) -> str:
    names = [found.name for found in scores]
    published = html.details("The published table", assay_tables.published_wilcoxon())
    if len(names) < 2:
        return html.paragraph("There is only one model, nothing to compare it with.") + published
    order = [names.index(found.name) for found in assay_scores.ranked(scores)]
    names, p_values = [names[i] for i in order], p_values[np.ix_(order, order)]
    rows = [
        {"outperformed": names[r], "outperforms": names[c], "p_value": float(p_values[r, c])}
        for r, c in np.ndindex(p_values.shape)
        if r != c
    ]
    folder.csv("wilcoxon", rows, ("outperforms", "outperformed", "p_value"))
    caption = (
        "p-values of the paired Wilcoxon test over the AUC of all defined assays, one-sided: the alternative is that "
        f"the column outperforms the row. Bold: p < {WILCOXON_LEVEL:g}. Models stand by falling mean AUC. Assays share "
        "compounds, and the test takes them as independent; nor does it know that another seed gives another model."
    )
    return assay_tables.wilcoxon_table(names, p_values, caption=caption) + published


def _boxes(folder: Folder, comparison: Comparison, scores: Sequence[Scores]) -> str:
    values = {found.name: found.auroc for found in scores}
    undefined = int(np.isnan(scores[0].auroc).sum())
    return folder.figure(
        "auc",
        assay_plots.box_plot(values, simulated=comparison.simulated),
        alt=f"Boxplots of the AUC of {', '.join(values)} over assays; numbers in tables/assays.csv",
        caption="AUC over assays (compare Figure 3 of Hofmarcher et al. 2019): quartiles, median in colour, whiskers "
        "up to 1.5 times the range between the quartiles, a dot per assay, number of assays in brackets. "
        f"The dotted line is chance. {undefined} assays are undefined and not shown.",
    )


def _pairs(folder: Folder, comparison: Comparison, scores: Sequence[Scores], tests: Sequence[Pair]) -> str:
    if not tests:
        return html.paragraph("There is only one model and no cell count, nothing to compare it with.")
    rows = [row for test in tests for row in assay_scores.pair_rows(comparison, scores, test)]
    folder.csv("pairs", rows, assay_scores.PAIR_COLUMNS)
    figures = [_pair(folder, comparison, scores, test) for test in tests]
    others = html.details("Every other model against the cell count", html.grid(figures[SHOWN:]))
    return html.grid(figures[:SHOWN]) + (others if figures[SHOWN:] else "")


def _pair(folder: Folder, comparison: Comparison, scores: Sequence[Scores], test: Pair) -> str:
    by_name = {found.name: found for found in scores}
    first, second = by_name[test.first], by_name[test.second]
    plot = assay_plots.scatter_plot(
        first.auroc,
        second.auroc,
        names=(first.name, second.name),
        x_better=test.first_better,
        y_better=test.second_better,
        simulated=comparison.simulated,
    )
    r = assay_scores.pearson(first, second)
    number = int((~np.isnan(test.found.p_value)).sum())
    caption = (
        f"{first.name} against {second.name}, a dot per assay (compare Figure 4 of Hofmarcher et al. 2019). Of "
        f"{number} assays, {first.name} is significantly better in {test.first_better.sum()} and {second.name} in "
        f"{test.second_better.sum()}: Venkatraman's test, false discovery rate {LEVEL:g} (Benjamini-Hochberg). "
        f"Pearson correlation: {'undefined' if math.isnan(r) else f'{r:.2f}'}."
        f"{assay_summary.seeds_note(comparison)}"
    )
    alt = f"AUC of {second.name} against AUC of {first.name} for every assay; numbers in tables/pairs.csv"
    return folder.figure(f"pair_{first.name}_{second.name}", plot, alt=alt, caption=caption)


def _assays(folder: Folder, comparison: Comparison, scores: Sequence[Scores], against: Sequence[Pair]) -> str:
    rows = assay_scores.assay_rows(comparison, scores, against)
    folder.csv("assays", rows, assay_scores.ASSAY_COLUMNS)
    table = assay_tables.assay_table(comparison, rows)
    return html.details(f"All {len(comparison.tasks)} assays", table)


def _data(folder: Folder, comparison: Comparison) -> str:
    rows = [
        {"model": model.name, "common": len(comparison.ids), "left_out": model.num_left_out}
        for model in comparison.models
    ]
    folder.csv("left_out", rows, ("model", "common", "left_out"))
    parts = []
    for run in comparison.runs:
        # Hundreds of assays are in the tables already.
        dataset = {key: value for key, value in run.dataset.items() if key not in ("tasks", "assay_ids")}
        text = {"config": run.config, "dataset": dataset, "versions": run.versions}
        content = html.preformatted(json.dumps(text, indent=2, default=str))
        parts.append(html.details(f"{run.name}, seed {run.seed}", content))
    return "".join(parts)
