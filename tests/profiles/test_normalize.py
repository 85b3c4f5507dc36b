"""Normalization against pycytominer, slow loops, and what it must refuse."""

import numpy as np
import pandas as pd
import polars as pl
import pycytominer
import pytest
from absl import logging

from coos.profiles import normalize
from coos.profiles.normalize import MadRobustize, Robustize, Standardize
from coos.profiles.table import Table

STEPS = {"standardize": Standardize, "robustize": Robustize, "mad_robustize": MadRobustize}


def draw(n=60, d=7, dtype=np.float32, mean=5.0, missing=0.0, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, d)) ** 3 * 10.0 ** generator.uniform(-2, 2, d) + mean
    x[generator.random(x.shape) < missing] = np.nan
    return x.astype(dtype)


def make_table(x, plates=("A", "B", "C")):
    n = len(x)
    metadata = {"Metadata_Plate": np.resize(plates, n), "Metadata_control": np.arange(n) % 7 < 4}
    return Table(pl.DataFrame(metadata), x, [f"Cells_{i}" for i in range(x.shape[1])])


def slow(column, name):
    """Center and scale of one feature, in float64, by NumPy."""
    column = column[~np.isnan(column)].astype(np.float64)
    if name == "standardize":
        return column.mean(), column.std() or 1
    median = np.median(column)
    if name == "robustize":
        return median, np.percentile(column, 75) - np.percentile(column, 25) or 1
    return median, 1.4826 * np.median(np.abs(column - median)) + 1e-18


@pytest.mark.parametrize("n", [1, 2, 3, 4, 59, 60])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("name", STEPS)
def test_equal_to_slow_loop(name, n, missing):
    x = draw(n, 9, np.float64, missing=missing)
    x[0] = 1.5  # no feature is missing throughout
    z = STEPS[name]().fit(x).transform(x)
    for column, result in zip(x.T, z.T, strict=True):
        center, scale = slow(column, name)
        np.testing.assert_allclose(result, (column - center) / scale, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(np.isnan(z), np.isnan(x))


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("name", STEPS)
def test_equal_to_pycytominer_plate_by_plate(name, missing):
    table = make_table(draw(210, missing=missing))
    step = STEPS[name](reference="Metadata_control", by="Metadata_Plate")
    z = step.fit_transform(table)
    frame = pd.DataFrame(table.features.astype(np.float64), columns=table.feature_names)
    frame = frame.assign(**{name: table.metadata[name].to_numpy() for name in table.metadata.columns})
    for plate, rows in frame.groupby("Metadata_Plate"):
        expected = pycytominer.normalize(
            rows, features=list(table.feature_names), samples="Metadata_control", method=name
        )
        found = z.features[table.where(f"Metadata_Plate = '{plate}'")]
        np.testing.assert_allclose(found, expected[list(table.feature_names)], rtol=1e-5, atol=1e-5)
    assert z.feature_names == table.feature_names
    assert z.metadata.equals(table.metadata)


@pytest.mark.parametrize("name", STEPS)
def test_reference_rows_get_center_0_and_scale_1(name):
    x = draw(301, dtype=np.float64)
    z = STEPS[name]().fit(x[:201]).transform(x)[:201]
    center, scale = np.transpose([slow(column, name) for column in z.T])
    np.testing.assert_allclose(center, 0, atol=1e-9)
    np.testing.assert_allclose(scale, 1, rtol=1e-9)


@pytest.mark.parametrize("name", STEPS)
def test_spread_that_is_small_beside_the_mean_survives(name):
    exact = np.random.default_rng(0).normal(size=(500, 3))
    x = (exact + 1e9) if name == "standardize" else (exact + 1e6)
    z = STEPS[name]().fit(x).transform(x)
    expected = STEPS[name]().fit(exact).transform(exact)
    np.testing.assert_allclose(z, expected, atol=1e-5)
    single = (exact * 100 + 1e5).astype(np.float32)
    z = STEPS[name]().fit(single).transform(single)
    assert z.dtype == np.float32
    expected = STEPS[name]().fit(single.astype(np.float64)).transform(single.astype(np.float64))
    np.testing.assert_allclose(z, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", STEPS)
def test_groups_are_separate_fits_whatever_the_order_of_rows(name):
    table = make_table(draw(100))
    z = STEPS[name](by="Metadata_Plate").fit_transform(table)
    for plate in "ABC":
        rows = table.where(f"Metadata_Plate = '{plate}'")
        alone = STEPS[name]().fit_transform(table.features[rows])
        np.testing.assert_array_equal(z.features[rows], alone)
    order = np.random.default_rng(1).permutation(100)
    again = STEPS[name](by="Metadata_Plate").fit_transform(table.filter(order))
    np.testing.assert_allclose(again.features, z.features[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.1, 0.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_feature_is_divided_by_1(value, dtype):
    x = np.full((77, 1), value, dtype)
    for step in (Standardize(), Robustize()):
        z = step.fit(x).transform(x + dtype(1))
        np.testing.assert_allclose(z, np.float64(x + dtype(1)) - np.float64(x), atol=1e-9)


def test_feature_without_mad_explodes_and_is_reported(caplog):
    x = draw(40, 4)
    x[:30, 1], x[:39, 3] = 2.0, 2.0
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        step = MadRobustize().fit(make_table(x, ("A",)))
    assert "in 1 of 1 groups features have no median absolute deviation" in caplog.text
    assert "all rows: 2 features over 40 reference rows: Cells_1, Cells_3" in caplog.text
    z = step.transform(make_table(x, ("A",))).features
    np.testing.assert_array_equal(z[:30, 1], 0)
    assert np.abs(z[30:, 1]).min() > 1e12
    gentle = MadRobustize(epsilon=0.5).fit(x).transform(x)
    np.testing.assert_allclose(gentle[:, 1], (x[:, 1] - 2) / 0.5, rtol=1e-6)
    caplog.clear()
    with caplog.at_level("WARNING"):
        MadRobustize().fit(x[:, [0, 2]])
    assert not caplog.text
    with pytest.raises(ValueError, match=r"epsilon=0\.0: must be positive"):
        MadRobustize(epsilon=0.0)


@pytest.mark.parametrize("name", STEPS)
def test_what_cannot_be_normalized_is_refused(name):
    x = draw(30)
    table = make_table(x)
    absent = x.copy()
    absent[1::3, 4] = np.nan  # plate B
    message = r"Metadata_Plate=B: 1 features are missing in all 10 reference rows: Cells_4; drop them first"
    with pytest.raises(ValueError, match=message):
        STEPS[name](by="Metadata_Plate").fit(table.with_features(absent))
    infinite = x.copy()
    infinite[2, 5] = -np.inf
    for act in (STEPS[name]().fit, STEPS[name]().fit(table).transform):
        with pytest.raises(ValueError, match="1 values are infinite, in 1 features: Cells_5; mark them"):
            act(table.with_features(infinite))
    with pytest.raises(
        ValueError, match=r"Metadata_Plate=A: none of its 10 rows matches .Metadata_Plate = 'B'"
    ):
        STEPS[name](by="Metadata_Plate", reference="Metadata_Plate = 'B'").fit(
            table.filter(np.arange(30)[::3])
        )
    with pytest.raises(ValueError, match="Metadata_Plate=C was not there"):
        STEPS[name](by="Metadata_Plate").fit(table.filter(table.where("Metadata_Plate <> 'C'"))).transform(
            table
        )
    with pytest.raises(ValueError, match="not fitted yet"):
        STEPS[name]().transform(x)
    with pytest.raises(ValueError, match="fitted on 7 features, these are 6"):
        STEPS[name]().fit(x).transform(x[:, 1:])
    with pytest.raises(ValueError, match="differ in Cells_0"):
        STEPS[name]().fit(table).transform(table.keep_features(np.arange(7) > 0))
    with pytest.raises(ValueError, match="bare arrays have no metadata"):
        STEPS[name](by="Metadata_Plate").fit(x)


def test_dtypes_and_blocks(monkeypatch):
    x = draw(50, 3, np.float64)
    for step in STEPS.values():
        z = step().fit(x).transform(x)
        assert z.dtype == np.float64
        assert step().fit_transform(make_table(x)).features.dtype == np.float32
        assert step().fit(np.arange(12).reshape(4, 3)).transform(np.ones((2, 3), int)).dtype == np.float64
        with monkeypatch.context() as patch:
            patch.setattr(normalize, "BLOCK", 7)
            np.testing.assert_array_equal(step().fit(x).transform(x), z)


def test_quantiles_of_24_controls():
    """As on a LINCS plate: both sides of every interpolation are used."""
    x = draw(24, 5, np.float64)
    scaling = Robustize().fit(x).states_[()]
    np.testing.assert_allclose(scaling.center, np.median(x, 0), rtol=1e-12)
    np.testing.assert_allclose(
        scaling.scale, np.quantile(x, 0.75, axis=0) - np.quantile(x, 0.25, axis=0), rtol=1e-12
    )


@pytest.mark.parametrize("step", [Standardize, Robustize])
def test_features_without_spread_are_reported_by_group(step, caplog):
    x = draw(30)
    x[::3, 2], x[::3, 5] = 1.0, 2.0  # plate A
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        step(by="Metadata_Plate", reference="Metadata_control").fit(make_table(x))
    rows = sum(i % 7 < 4 for i in range(0, 30, 3))
    assert "in 1 of 3 groups features have no spread" in caplog.text
    assert f"Metadata_Plate=A: 2 features over {rows} reference rows: Cells_2, Cells_5\n" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        step(by="Metadata_Plate").fit(make_table(draw(30)))
    assert not caplog.text


@pytest.mark.parametrize("by", ["Metadata_Plate", None])
def test_no_rows_and_unknown_groups_are_refused(by):
    table = make_table(draw(30))
    with pytest.raises(ValueError, match="no rows to fit Standardize on"):
        Standardize(by=by).fit(table.filter(np.arange(0)))
    dose = table.with_metadata(pl.DataFrame({"Metadata_dose": [1.0, np.nan, 2.0] * 10}))
    with pytest.raises(ValueError, match="Metadata_dose=None: rows of an unknown group"):
        Standardize(by="Metadata_dose").fit(dose)
    with pytest.raises(ValueError, match="columns to group by are named twice: Metadata_Plate"):
        Standardize(by=["Metadata_Plate", "Metadata_Plate"]).fit(table)
