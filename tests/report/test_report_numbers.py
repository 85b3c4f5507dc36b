"""The report's numbers against scikit-learn, and runs that do not belong together."""

import csv
import math
import re
import types

import jax
import numpy as np
import pytest
from report_runs import SETS, make_run
from sklearn import metrics

from coos.metrics import covariate_shift as shift_metrics
from coos.report import comparison, scores
from coos.workdir import Predictions


def test_errors_equal_scikit_learn(page, seeds):
    with open(page[0] / "tables" / "errors.csv") as file:
        rows = list(csv.DictReader(file))
    assert {(r["configuration"], r["set"]) for r in rows} == {
        (name, s) for name in ("raw", "stretched") for s in ("validation", "test1", "test4")
    }
    for row in rows:
        found = [run.predictions[row["set"]] for run in seeds if run.name == row["configuration"]]
        errors = [1 - metrics.balanced_accuracy_score(p.labels, p.probabilities.argmax(-1)) for p in found]
        losses = [metrics.log_loss(p.labels, p.probabilities, labels=range(3)) for p in found]
        accuracies = [(p.labels == p.probabilities.argmax(-1)).mean() for p in found]
        assert float(row["balanced_error"]) == pytest.approx(np.mean(errors), abs=1e-6)
        assert [float(e) for e in row["balanced_error_of_each_seed"].split()] == pytest.approx(
            errors, abs=1e-6
        )
        assert float(row["cross_entropy"]) == pytest.approx(np.mean(losses), abs=1e-5)
        assert float(row["accuracy"]) == pytest.approx(np.mean(accuracies), abs=1e-6)
        assert (
            float(row["balanced_error_low"])
            <= float(row["balanced_error"])
            <= float(row["balanced_error_high"])
        )
    by_set = {row["set"]: row for row in rows if row["configuration"] == "raw"}
    gap = float(by_set["test4"]["balanced_error"]) - float(by_set["test1"]["balanced_error"])
    assert float(by_set["test4"]["gap"]) == pytest.approx(gap, abs=1e-6)


def test_classes_and_growth_equal_scikit_learn(page, seeds):
    run = seeds[2]
    rates = {}
    for name in SETS:
        labels, predicted = run.predictions[name].labels, run.predictions[name].probabilities.argmax(-1)
        rates[name] = metrics.confusion_matrix(labels, predicted, normalize="true")
    with open(page[0] / "tables" / "classes.csv") as file:
        rows = [r for r in csv.DictReader(file) if (r["configuration"], r["set"]) == ("stretched", "test4")]
    expected = metrics.precision_score(labels, predicted, average=None)
    assert [float(r["sensitivity"]) for r in rows] == pytest.approx(np.diag(rates["test4"]), abs=1e-6)
    assert [float(r["precision"]) for r in rows] == pytest.approx(expected, abs=1e-6)
    with open(page[0] / "tables" / "growth.csv") as file:
        top = next(r for r in csv.DictReader(file) if r["configuration"] == "stretched")
    assert (top["true"], top["predicted"], top["set"]) == ("Early Endosome", "Golgi", "test4")
    assert float(top["growth"]) == pytest.approx((rates["test4"] - rates["test1"])[2, 1], abs=1e-6)
    assert f"Early Endosome called Golgi: <strong>{100 * float(top['growth']):+.1f} points" in page[1]


def test_resampled_seeds_see_the_same_cells(seeds):
    """Two equal runs have equal errors in every resample, and their gap stays within the seed."""
    twin = comparison.compare([seeds[0], types.SimpleNamespace(**{**vars(seeds[0]), "name": "b", "seed": 0})])
    samples = scores.error_samples(twin, num_resamples=10)
    assert np.array_equal(samples["test4"][:, 0], samples["test4"][:, 1])
    assert samples["test4"].std() > 0


def test_one_seed_interval_is_the_plain_bootstrap(seeds):
    alone = comparison.compare([seeds[2]])
    rows = scores.error_rows(alone, scores.confusions(alone), num_resamples=30, seed=3)
    row = next(r for r in rows if r["set"] == "test1")
    found = seeds[2].predictions["test1"]
    key = jax.random.split(jax.random.key(3), 3)[alone.sets.index("test1")]

    def error(labels, predicted, mask):
        confusion = shift_metrics.confusion_matrix(labels, predicted, num_classes=3, mask=mask)
        return shift_metrics.balanced_error(confusion)

    samples = shift_metrics.bootstrap(
        error, key, found.labels, found.probabilities.argmax(-1), num_resamples=30
    )
    low, high = np.asarray(shift_metrics.interval(samples))
    assert (row["balanced_error_low"], row["balanced_error_high"]) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": {"class_names": ["ER", "Golgi", "Cytosol"]}}, "class_names"),
        ({"dataset": {"channels": ["protein"]}}, "channels"),
        ({"dataset": {"version": "2.0.0"}}, "version"),
        ({"dataset": {"simulated": True}}, "simulated"),
        ({"sets": {"test1": 60, "test4": 61}}, "ids of set 'test4'"),
        ({"sets": {"test1": 60}}, "not evaluated on the same sets"),
        ({"report": {"reference": "test4"}}, "reference"),
        ({"seed": 0}, "both run 'raw' with seed 0"),
    ],
)
def test_runs_that_disagree_are_named(tmp_path, changes, message):
    first, second = tmp_path / "first", tmp_path / "second"
    runs = [make_run(first), make_run(second, **{"seed": 1, **changes})]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        comparison.compare(runs)
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)


def test_bad_runs_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"run experiments/evaluate\.py"):
        comparison.compare([make_run(tmp_path / "none", sets={})])
    with pytest.raises(ValueError, match="no runs"):
        comparison.compare([])
    run = make_run(tmp_path / "run")
    del run.dataset["simulated"]
    with pytest.raises(ValueError, match="lacks simulated"):
        comparison.compare([run])
    run = make_run(tmp_path / "nan")
    run.predictions["test1"].probabilities[0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        comparison.compare([run])


def test_rows_are_aligned_by_id(tmp_path):
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)
    order = np.random.default_rng(0).permutation(SETS["test1"])
    shuffled = Predictions(*(array[order] for array in second.predictions["test1"][:3]))
    expected = second.predictions["test1"]
    second.predictions["test1"] = shuffled
    aligned = comparison.compare([first, second]).evaluated["test1"].predictions[1]
    assert all(np.array_equal(a, b) for a, b in zip(aligned, expected, strict=True))
