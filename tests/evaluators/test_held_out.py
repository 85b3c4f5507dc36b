"""Held-out wells: intervals against slow loops and SciPy, baselines that see no image, one set out of all folds."""

import numpy as np
import pytest
from scipy import stats

from coos.data.source import Source
from coos.evaluators import held_out
from coos.report import held_out as report
from coos.workdir import Predictions


def make_predictions(seed, *, wells=6, skill=1.0, prefix="P"):
    """Wells of three classes with 20 to 40 cells each, named right more often the higher the skill."""
    generator = np.random.default_rng(seed)
    labels, well = [], []
    for number in range(wells):
        cells = int(generator.integers(20, 40))
        labels += [number % 3] * cells
        well += [f"{prefix}-{number:02d}"] * cells
    labels = np.array(labels, np.int32)
    logits = generator.standard_normal((len(labels), 3)) + skill * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ids = np.array([f"{name}-{i}" for i, name in enumerate(well)])
    return Predictions(ids, labels, probabilities.astype(np.float32), {"well": np.array(well)})


def test_accuracy_is_the_mean_over_classes_and_its_interval_is_over_wells():
    found = make_predictions(0)
    interval = held_out.cell_accuracy(found)
    right = found.probabilities.argmax(1) == found.labels
    assert interval.value == pytest.approx(np.mean([right[found.labels == k].mean() for k in range(3)]))
    generator, replicates = np.random.default_rng(1), []
    names = {k: np.unique(found.columns["well"][found.labels == k]) for k in range(3)}
    for _ in range(2000):
        shares = []
        for k in range(3):
            drawn = generator.choice(names[k], len(names[k]))
            cells = np.concatenate([np.flatnonzero(found.columns["well"] == name) for name in drawn])
            shares.append(right[cells].mean())
        replicates.append(np.mean(shares))
    np.testing.assert_allclose(interval[1:], np.percentile(replicates, [2.5, 97.5]), atol=0.02)


def test_difference_draws_the_same_wells_for_both():
    good, bad = make_predictions(2, wells=12, skill=2.0), make_predictions(2, wells=12, skill=0.0)
    found = held_out.difference(good, bad)
    assert found.low > 0.2
    nothing = held_out.difference(good, good)
    assert nothing == (0, 0, 0)
    turned = held_out.difference(bad, good)
    np.testing.assert_allclose(turned, [-found.value, -found.high, -found.low])
    with pytest.raises(ValueError, match="not of the same cells"):
        held_out.difference(good, make_predictions(3, wells=12))


@pytest.mark.parametrize(("right", "total"), [(0, 4), (4, 4), (13, 20), (1, 1)])
def test_wilson_is_scipys(right, total):
    expected = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    found = held_out.wilson(right, total)
    np.testing.assert_allclose(found, [right / total, expected.low, expected.high], atol=1e-12)


def test_no_well_is_undefined():
    assert np.isnan(held_out.wilson(0, 0)).all()


def test_all_folds_are_one_set():
    folds = [make_predictions(seed, prefix=f"P{seed}") for seed in range(3)]
    found = held_out.together(folds)
    assert len(found.ids) == sum(len(fold.ids) for fold in folds)
    assert len(np.unique(found.columns["well"])) == 18
    wells = held_out.scores(found)["well_accuracy"]
    parts = [held_out.scores(fold)["well_accuracy"].value for fold in folds]
    assert wells.value == pytest.approx(np.mean(parts))


def source(images, labels, place):
    dataset = {"class_names": ["a", "b"], "image_shape": list(images.shape[1:])}
    number = len(images)
    columns = {"place": place, "well": np.array([f"P-{p}" for p in place])}
    return Source(images, labels, np.arange(number).astype(str), np.arange(number), dataset, columns)


def test_baselines_find_what_they_can_see_and_nothing_else():
    generator = np.random.default_rng(0)
    labels = np.tile([0, 1], 60).astype(np.int32)
    bright = (generator.integers(0, 60, (120, 6, 6, 2)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    dark = generator.integers(0, 60, (120, 6, 6, 2)).astype(np.uint8)
    places = {"alike": np.zeros(120, np.int32), "apart": labels.copy()}
    counts = np.array([200, 20])

    def scores(images, place):
        train, judge = (
            source(images[rows], labels[rows], place[rows]) for rows in (slice(0, 60), slice(60, None))
        )
        found = held_out.baselines(train, judge, counts)
        return {name: (p.probabilities.argmax(1) == p.labels).mean() for name, p in found.items()}

    intensities = scores(bright, places["alike"])
    assert intensities["intensity statistics"] > 0.95
    assert intensities["cell count"] == 0.5
    numbers = scores(dark, places["apart"])
    assert numbers["cell count"] == 1
    assert numbers["intensity statistics"] < 0.7


def test_a_class_that_was_not_trained_on_has_probability_zero():
    found = held_out.fit_and_predict(
        np.array([[0.0], [1.0], [0.1], [0.9]]),
        np.array([0, 2, 0, 2]),
        np.array([[0.0], [1.0]]),
        num_classes=4,
    )
    assert found.shape == (2, 4)
    assert (found[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_the_page_says_who_wins_only_where_the_interval_does(tmp_path):
    folds = {
        f"plate {k}": {
            "network": make_predictions(k, wells=9, skill=2.0, prefix=f"P{k}"),
            "intensity statistics": make_predictions(k, wells=9, skill=0.5, prefix=f"P{k}"),
            "cell count": make_predictions(k, wells=9, skill=2.0, prefix=f"P{k}"),
        }
        for k in range(2)
    }
    page, found = report.write(
        tmp_path,
        folds,
        title="T",
        by="Metadata_Plate",
        class_names=["x", "y", "<z>"],
        simulated=True,
        details={"a": 1},
    )
    text = page.read_text()
    assert "SIMULATED" in text
    assert "better than intensity statistics" in text
    assert "not clearly different from cell count (+0.0 points" in text
    assert "&lt;z&gt;" in text
    assert set(found) == {"plate 0", "plate 1", report.ALL}
    assert found[report.ALL]["network"]["cell_accuracy"].value > 0.7
    assert len(list(tmp_path.glob("figures/*.png"))) == 2
    rows = held_out.result_rows("plate 0", found["plate 0"], {"run": "r"})
    assert {r["metric"] for r in rows} >= {"cell_accuracy", "cell_accuracy/low", "well_accuracy/high"}
    assert len((tmp_path / "tables" / "scores.csv").read_text().splitlines()) == 1 + 3 * 3 * 2
