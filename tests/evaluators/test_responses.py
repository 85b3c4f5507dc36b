"""Responses of wells beside a loop: which wells belong to a curve, where they stand, what a table says of it."""

import numpy as np
import polars as pl
import pytest

from coos.evaluators import responses
from coos.workdir import Predictions

COLUMNS = {
    "Metadata_Plate": pl.String,
    "Metadata_Well": pl.String,
    "Metadata_compound": pl.String,
    "Metadata_cell_line": pl.String,
    "Metadata_control": pl.String,
    "Metadata_concentration_molar": pl.Float64,
    "Metadata_dose_step": pl.Int64,
}
DOSES = 1e-8 * 4.0 ** np.arange(8)  # mol/L


def fields(wells, *, sites=3):
    """A table of `sites` fields of every well; `wells` are values of the columns above."""
    rows = [(*well, f"{well[0]}-{well[1]}-{site}") for well in wells for site in range(sites)]
    return pl.DataFrame(rows, schema={**COLUMNS, "Metadata_id": pl.String}, orient="row")


def predictions(table, of_class):
    """Predictions of two classes; `of_class` (F,) are the probabilities of the second."""
    p = np.asarray(of_class, np.float32)
    labels = np.full(len(table), -1, np.int32)
    return Predictions(np.array(table["Metadata_id"].to_list(), np.str_), labels, np.stack([1 - p, p], 1))


def screen(*, molar=True, lines=(None,)):
    """Plates P and Q: compound a on both, b on Q; three vehicle and two positive wells of every line each."""
    wells = []
    for plate, compounds in (("P", "a"), ("Q", "ab")):
        for line in lines:
            prefix = f"{line or ''}"
            for k in range(3):
                wells.append((plate, f"{prefix}v{k}", "DMSO", line, "negative", None, 0))
            for k in range(2):  # as tall as a dose, and no dose
                known = DOSES[-1] if molar else None
                wells.append((plate, f"{prefix}p{k}", "a", line, "positive", known, 8))
            for compound in compounds:
                for step, dose in enumerate(DOSES, start=1):
                    name = f"{prefix}{compound}{step}"
                    wells.append((plate, name, compound, line, None, dose if molar else None, step))
    return fields(wells)


def logistic(table, middles, *, molar, slope=1.2):
    """0.05 + 0.9 / (1 + 10 ** (slope (log10 EC50 - x))); 0.05 without a drug; the middle of `middles[compound]`."""
    dose = table["Metadata_concentration_molar" if molar else "Metadata_dose_step"].fill_null(0).to_numpy()
    x = np.log10(np.where(dose > 0, dose, 1)) if molar else dose.astype(float)
    middle = np.array([middles.get(name, np.inf) for name in table["Metadata_compound"].to_list()])
    p = 0.05 + 0.9 / (1 + 10.0 ** (slope * (middle - x)))
    p = np.where(dose > 0, p, 0.05)
    return np.where((table["Metadata_control"] == "positive").fill_null(False).to_numpy(), 1.0, p)


@pytest.mark.parametrize("molar", [True, False])
def test_a_planted_potency_is_found_in_its_unit_and_beside_any_other(molar):
    table = screen(molar=molar)
    middles = {"a": -6.3, "b": -5.4} if molar else {"a": 3.3, "b": 5.6}
    found = predictions(table, logistic(table, middles, molar=molar))
    curves = responses.treatments(*responses.of_wells(table, found))
    assert [(one.name, one.unit) for one in curves] == [(name, "M" if molar else "step") for name in "ab"]
    assert [len(one.concentrations) for one in curves] == [6 + 16, 3 + 8]  # of unlike length, fitted together
    for one, fitted in zip(curves, responses.fit(curves, 1), strict=True):
        line = responses.describe(one, fitted)
        expected = 10.0 ** middles[one.name] if molar else middles[one.name]
        assert line["ec50"] == pytest.approx(expected, rel=1e-2)
        assert line["ec50_low"] <= line["ec50"] <= line["ec50_high"]
        assert (line["unit"], line["verdict"]) == ("M" if molar else "step", "active")
        assert line["hill"] == pytest.approx(1.2, rel=2e-2)
        assert (line["bottom"], line["top"]) == pytest.approx((0.05, 0.95), abs=5e-3)
        assert line["wells"] == len(one.concentrations)
        assert line["r_squared"] > 0.999
        (alone,) = responses.fit([one], 1)
        assert float(alone.log10_ec50) == pytest.approx(float(fitted.log10_ec50), rel=1e-4)
    (other,) = responses.fit(curves[:1], 0)  # the other class falls at the same place
    (same,) = responses.fit(curves[:1], 1)
    assert float(other.log10_ec50) == pytest.approx(float(same.log10_ec50), rel=1e-3)


def test_a_drug_without_effect_has_no_potency():
    table = screen()
    noise = 0.05 + 0.01 * np.random.default_rng(0).random(len(table))
    curves = responses.treatments(*responses.of_wells(table, predictions(table, noise)))
    for one, fitted in zip(curves, responses.fit(curves, 1), strict=True):
        line = responses.describe(one, fitted)
        assert line["verdict"] != "active"
        assert not np.isfinite(line["ec50"])


def test_wells_are_those_of_a_loop_whatever_the_order_of_fields():
    table = screen()
    p = np.random.default_rng(1).random(len(table))
    order = np.random.default_rng(2).permutation(len(table))
    for rows in (np.arange(len(table)), order):
        mixed = table[rows.tolist()]
        wells, medians = responses.of_wells(mixed, predictions(mixed, p[rows]))
        expected = {}
        for row, known in enumerate(table.iter_rows(named=True)):
            if known["Metadata_control"] != "positive":
                expected.setdefault((known["Metadata_Plate"], known["Metadata_Well"]), []).append(
                    np.float32(p[row])
                )
        found = dict(zip(wells.select("Metadata_Plate", "Metadata_Well").rows(), medians[:, 1], strict=True))
        assert found.keys() == expected.keys()
        for well, values in expected.items():
            assert found[well] == pytest.approx(sorted(values)[1], abs=1e-7)
        np.testing.assert_allclose(medians.sum(1), 1, atol=1e-6)


def test_every_drug_has_the_vehicle_of_its_plates_at_no_dose():
    table = screen()
    plate = (table["Metadata_Plate"] == "Q").to_numpy()
    vehicle = (table["Metadata_control"] == "negative").fill_null(False).to_numpy()
    found = predictions(table, np.where(vehicle, np.where(plate, 0.2, 0.1), 0.7))
    a, b = responses.treatments(*responses.of_wells(table, found))
    assert sorted(a.responses[a.concentrations == 0, 1]) == pytest.approx([0.1] * 3 + [0.2] * 3)
    assert b.responses[b.concentrations == 0, 1] == pytest.approx([0.2] * 3)
    for one in (a, b):
        place = responses.position(one)
        assert np.isneginf(place[one.concentrations == 0]).all()
        dosed = one.concentrations > 0
        np.testing.assert_allclose(10.0 ** place[dosed], one.concentrations[dosed])
        assert one.responses[dosed, 1] == pytest.approx(np.full(dosed.sum(), 0.7))


def test_cell_lines_are_curves_of_their_own():
    table = screen(lines=("A549", "MCF7"))
    line = table["Metadata_cell_line"].to_numpy()
    found = predictions(table, np.where(line == "MCF7", 0.9, 0.3))
    curves = responses.treatments(*responses.of_wells(table, found))
    assert [one.name for one in curves] == ["a, A549", "a, MCF7", "b, A549", "b, MCF7"]
    for one in curves:
        assert one.responses[:, 1] == pytest.approx(0.9 if "MCF7" in one.name else 0.3)
        assert (one.concentrations == 0).sum() == (6 if one.name[0] == "a" else 3)
    single = screen(lines=("A549",))
    curves = responses.treatments(*responses.of_wells(single, predictions(single, np.zeros(len(single)))))
    assert [one.name for one in curves] == ["a", "b"]


def test_a_single_known_concentration_makes_steps_no_dose():
    """Where some concentrations are known, wells without one are left out rather than placed by their step."""
    table = screen().with_columns(
        pl.when(pl.col("Metadata_compound") == "b")
        .then(None)
        .otherwise("Metadata_concentration_molar")
        .alias("Metadata_concentration_molar")
    )
    wells, _ = responses.of_wells(table, predictions(table, np.zeros(len(table))))
    assert set(wells["Metadata_compound"]) == {"DMSO", "a"}
    assert set(wells["unit"]) == {"M"}


def test_doses_that_cannot_be_placed_are_refused():
    table = screen(molar=False)
    found = predictions(table, np.zeros(len(table)))
    with pytest.raises(ValueError, match="not of the fields of the table, in their order"):
        responses.of_wells(table[:-1], found)
    step = pl.col("Metadata_dose_step")
    other = table.with_columns(
        pl.when(pl.col("Metadata_id") == "Q-b5-1").then(2).otherwise(step).alias(step.meta.output_name())
    )
    with pytest.raises(ValueError, match="plate Q, well b5: its fields have different doses"):
        responses.of_wells(other, found)
    vehicle = table.filter(pl.col("Metadata_control") == "negative")
    with pytest.raises(ValueError, match="there is no curve to draw"):
        responses.of_wells(vehicle, predictions(vehicle, np.zeros(len(vehicle))))
