"""The paragraph on top of the page of assays: the right model, the right sign, the numbers of its tables."""

import dataclasses
import re

import assay_runs
import numpy as np
from assay_runs import make_labels, make_run

from coos.metrics import multitask
from coos.report import assay_comparison, assay_scores, assay_summary, assay_tables, training
from coos.report.assay_comparison import BASELINE


def comparison_of(tmp_path):
    labels = make_labels(60, 12)
    return assay_comparison.compare(
        [
            make_run(tmp_path / "weak", run="weak", labels=labels, strength=0.1, seed=1, baseline=False),
            make_run(tmp_path / "strong", run="strong", labels=labels, strength=2.0, seed=2),
        ]
    )


def test_the_sentences_have_the_right_direction(tmp_path):
    found = comparison_of(tmp_path)
    scores = assay_scores.score(found, num_resamples=50)
    p = assay_scores.wilcoxon(scores)
    assert assay_tables.not_outperformed(scores, p) == ["strong"]
    against = [
        assay_scores.compare_pair(found, n, BASELINE, num_permutations=999, seed=0)
        for n in ("strong", "weak")
    ]
    text = assay_summary.paragraph(found, scores, assay_scores.summary_rows(found, scores), p, against)
    assert "Over assays it outperforms weak significantly" in text
    low, high = assay_scores.interval(scores[1].mean_replicates - scores[0].mean_replicates)
    assert f"(95 % interval {low:+.3f} to {high:+.3f})" in text
    assert low > 0
    won, lost = against[0].first_better.sum(), against[0].second_better.sum()
    assert won > 0 == lost
    assert f"significantly better than it in {won} of 9 assays and significantly worse in 0" in text


def test_the_cell_count_is_compared_as_the_tables_show_it(tmp_path):
    """With several weak seeds, the mean of AUCs and the AUC of mean probabilities differ in sign here and there."""
    labels = make_labels(60, 12)
    seeds = range(50, 53)
    found = assay_comparison.compare(
        [make_run(tmp_path / str(k), labels=labels, strength=0.05, views=1, seed=k) for k in seeds]
    )
    scores = assay_scores.score(found, num_resamples=5)
    against = [assay_scores.compare_pair(found, "gapnet", BASELINE, num_permutations=9, seed=0)]
    own, cells = (next(s.auroc for s in scores if s.name == name) for name in ("gapnet", BASELINE))
    p = assay_scores.wilcoxon(scores)
    text = assay_summary.paragraph(found, scores, assay_scores.summary_rows(found, scores), p, against)
    shown = int((own <= cells).sum())
    assert shown != int((against[0].found.difference <= 0).sum())
    assert re.search(rf"In {shown} assays? its AUC is not above that of the cell count", text)
    assert "Tests take the probabilities averaged over seeds; the AUCs shown are means over seeds." in text


def test_intervals_draw_compounds_and_hold_95_percent(tmp_path):
    labels = np.repeat(make_labels(20, 6), 3, axis=0)
    run = make_run(tmp_path / "run", labels=labels, baseline=False, shape=(9,), views=1)
    one = run.predictions["test"]
    compounds = np.array([f"K{int(name[3:]) // 3}" for name in one.columns["compound"]])
    run.predictions["test"] = one._replace(columns={**one.columns, "compound": compounds})
    found = assay_comparison.compare([run])
    (score,) = assay_scores.score(found, num_resamples=200)
    expected = multitask.bootstrap(
        found.models[0].scores[0],
        found.labels > 0,
        found.mask,
        groups=found.compounds,
        num_replicates=200,
    )
    np.testing.assert_allclose(score.low, expected.low, atol=1e-6)
    np.testing.assert_allclose(score.high, expected.high, atol=1e-6)
    assert "Some compounds are in several wells" in assay_runs.write(tmp_path / "out", [run])


def test_a_training_curve_is_of_the_runs_own_data(tmp_path):
    run = make_run(tmp_path / "run", labels=make_labels(20, 6), baseline=False)
    other = {**run.rows[-1], "dataset": "another", "split": "validation", "metric": "mean_auroc"}
    judged = dataclasses.replace(run, rows=[*run.rows, {**other, "step": 10, "value": 0.11}])
    _, before = training.curve(run, "validation", "mean_auroc")
    np.testing.assert_array_equal(training.curve(judged, "validation", "mean_auroc")[1], before)
    assert len(before) == 3
