"""Accuracies over divisions and responses of wells, beside scikit-learn, SciPy and loops."""

import numpy as np
import polars as pl
import pytest
import scipy.stats
from sklearn import metrics

from coos.evaluators import kernel_maps, phenotypes, responses
from coos.metrics import dose_response
from coos.workdir import Predictions

GENERATOR = np.random.default_rng(0)


def predictions(labels, probabilities, ids=None):
    labels = np.asarray(labels, np.int32)
    ids = np.array([f"f{k}" for k in range(len(labels))] if ids is None else ids, np.str_)
    return Predictions(ids, labels, np.asarray(probabilities, np.float32), {})


def test_the_spread_over_divisions():
    values = GENERATOR.random(9)
    found = phenotypes.spread([*values, np.nan])
    expected = (values.mean(), values.std(ddof=1), np.median(values))
    np.testing.assert_allclose(found[:3], expected)
    assert found.mad == pytest.approx(scipy.stats.median_abs_deviation(values))
    assert found.counted == 9
    assert np.isnan(phenotypes.spread([0.5]).sd)
    assert np.isnan(phenotypes.spread([])[:4]).all()


def test_accuracies_and_confusions_equal_scikit_learn():
    labels, probabilities = GENERATOR.integers(0, 3, 60), GENERATOR.random((60, 3))
    labels[labels == 2] = np.where(GENERATOR.random((labels == 2).sum()) < 0.7, 0, 2)
    found, called = predictions(labels, probabilities), probabilities.argmax(1)
    assert phenotypes.accuracy(found) == pytest.approx(metrics.accuracy_score(labels, called))
    expected = metrics.balanced_accuracy_score(labels, called)
    assert phenotypes.balanced_accuracy(found) == pytest.approx(expected)
    expected = metrics.confusion_matrix(labels, called, labels=range(4))
    np.testing.assert_array_equal(phenotypes.confusion(found, 4), expected)
    nothing = predictions([], np.zeros((0, 3)))
    assert np.isnan([phenotypes.accuracy(nothing), phenotypes.balanced_accuracy(nothing)]).all()


def test_scores_add_confusions_up_and_name_what_is_often_wrong():
    right, wrong = [[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.7, 0.3]]
    found = {"a": predictions([0, 1], right, ["x", "y"]), "b": predictions([0, 1], wrong, ["x", "y"])}
    scores = phenotypes.scores(found, 2)
    assert scores.values["accuracy"] == {"a": 1.0, "b": 0.5}
    assert scores.confusion.tolist() == [[2, 0], [1, 1]]
    assert phenotypes.often_wrong(found) == [("y", 1, 2)]
    rows = phenotypes.result_rows(scores, {"split": "net"})
    means = {row["metric"]: row["value"] for row in rows if row["fold"] is None}
    assert (means["accuracy/mean"], means["accuracy/counted"]) == (0.75, 2)
    empty = phenotypes.scores({}, 2)
    assert empty.confusion.shape == (2, 2)
    assert empty.spreads["accuracy"].counted == 0


def plate(*, molar, fields=2):
    """Two drugs at nine doses with four replicates, and vehicle and positive wells, of several fields each."""
    rows = []
    for drug, letters in (("p", "AB"), ("q", "CD")):
        for letter in letters:
            for column in range(1, 12):
                step = column - 1
                control = "negative" if not step else "positive" if step == 10 else None
                known = {0: ("DMSO", 0.0), 10: (None, None)}.get(step, (drug, 1e-9 * 3.0**step))
                rows += [
                    {
                        "Metadata_Plate": "P",
                        "Metadata_Well": f"{letter}{column:02}",
                        "Metadata_compound": known[0],
                        "Metadata_cell_line": "U2OS",
                        "Metadata_control": control,
                        "Metadata_concentration_molar": known[1] if molar else None,
                        "Metadata_dose_step": None if step == 10 else step,
                        "Metadata_id": f"{letter}{column:02}-{site}",
                    }
                    for site in range(fields)
                ]
    kinds = {"Metadata_concentration_molar": pl.Float64, "Metadata_dose_step": pl.Int64}
    return pl.DataFrame(rows, schema_overrides=kinds)


def answer(table, middles, *, slope=1.5):
    """Probabilities of the second class by a logistic in the dose step, 0 without a dose."""
    step = table["Metadata_dose_step"].fill_null(10).to_numpy().astype(float)
    middle = np.array([middles.get(c, 5.0) for c in table["Metadata_compound"].to_list()])
    p = np.where(step == 0, 0.0, 1 / (1 + 10 ** (slope * (middle - step))))
    return np.stack([1 - p, p], 1)


@pytest.mark.parametrize("molar", [True, False])
def test_planted_potencies_are_found(molar):
    table, middles = plate(molar=molar), {"p": 3.5, "q": 6.2}
    found = predictions(np.zeros(len(table)), answer(table, middles), table["Metadata_id"].to_list())
    wells, probabilities = responses.of_wells(table, found)
    assert "positive" not in wells["Metadata_control"].to_list()
    treatments = responses.treatments(wells, probabilities)
    assert [(t.name, t.unit) for t in treatments] == [(d, "M" if molar else "step") for d in "pq"]
    assert all((t.concentrations == 0).sum() == 4 and len(t.concentrations) == 22 for t in treatments)
    for one, fitted in zip(treatments, responses.fit(treatments, 1), strict=True):
        line = responses.describe(one, fitted)
        assert line["verdict"] == "active"
        expected = 1e-9 * 3.0 ** middles[one.name] if molar else middles[one.name]
        assert line["ec50"] == pytest.approx(expected, rel=0.01)
        assert dose_response.VERDICTS[int(fitted.verdict)] == "active"
        assert np.isneginf(responses.position(one)[:4]).all()


def test_wells_are_medians_over_their_fields():
    table = plate(molar=False, fields=3)
    found = predictions(
        np.zeros(len(table)), GENERATOR.random((len(table), 2)), table["Metadata_id"].to_list()
    )
    wells, probabilities = responses.of_wells(table, found)
    for row, known in enumerate(wells.iter_rows(named=True)):
        fields = np.flatnonzero((table["Metadata_Well"] == known["Metadata_Well"]).to_numpy())
        np.testing.assert_allclose(probabilities[row], np.median(found.probabilities[fields], axis=0))


def test_doses_that_cannot_be_are_refused():
    table = plate(molar=False)
    found = predictions(np.zeros(len(table)), answer(table, {}), table["Metadata_id"].to_list())
    with pytest.raises(ValueError, match="not of the fields of the table"):
        responses.of_wells(table[::-1], found)
    twice = table.with_columns(
        pl.when(pl.col("Metadata_id") == "A03-1")
        .then(7)
        .otherwise("Metadata_dose_step")
        .alias("Metadata_dose_step")
    )
    with pytest.raises(ValueError, match="plate P, well A03: its fields have different doses"):
        responses.of_wells(twice, found)
    nothing = table.with_columns(pl.lit(None, pl.Int64).alias("Metadata_dose_step"))
    with pytest.raises(ValueError, match="no field has a known concentration"):
        responses.of_wells(nothing, found)


def test_kernels_are_ordered_by_how_far_classes_lie_apart():
    labels = np.repeat([0, 1], 20)
    values = GENERATOR.normal(size=(40, 3))
    values[:, 1] += 10 * labels
    values[:, 2] = 4.0  # constant: tells nothing
    order = kernel_maps.most_different(values, labels)
    assert (order[0], order[-1]) == (1, 2)
