"""Feature selection against pycytominer, slow loops and hand-made cases."""

import itertools

import numpy as np
import pandas as pd
import polars as pl
import pycytominer
import pytest
from pycytominer import operations

from coos.profiles import correlation, select
from coos.profiles.select import (
    Blocklist,
    CorrelationThreshold,
    DropMissing,
    DropOutliers,
    MinimumVariance,
    NoiseRemoval,
    Select,
    VarianceThreshold,
)
from coos.profiles.table import Table


def draw(n=300, d=40, missing=0.0, seed=0):
    """Correlated features, some rounded, nearly binary, constant, with outliers or nearly copies of others."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 8)) @ generator.normal(size=(8, d)) + generator.normal(size=(n, d))
    x[:, 20:30] = x[:, :10] + generator.normal(size=(n, 10)) * np.linspace(0.2, 2, 10)
    x[:, 10:15] = -x[:, 15:20] + 0.1 * generator.normal(size=(n, 5))
    x[:, 5], x[:, 6], x[:, 7] = np.round(x[:, 5] / 4), x[:, 6] > 5, 1.0
    x[3, 33], x[4, 34] = 600, -40
    x[generator.random(x.shape) < missing] = np.nan
    x[:, 36] = np.where(generator.random(n) < 2 * missing, np.nan, x[:, 36])
    return x.astype(np.float32)


def make_table(x):
    groups = np.random.default_rng(9).integers(0, 30, len(x)).astype(str)
    metadata = pl.DataFrame({"Metadata_compound": groups, "Metadata_control": np.arange(len(x)) % 3 == 0})
    return Table(metadata, x, [f"Cells_{i}" for i in range(x.shape[1])])


def make_frame(table):
    frame = pd.DataFrame(table.features.astype(np.float64), columns=table.feature_names)
    return frame.assign(**{name: table.metadata[name].to_numpy() for name in table.metadata.columns})


def dropped(step, table):
    return {name for name, kept in zip(table.feature_names, step.fit(table).keep_, strict=True) if not kept}


PAIRS = [
    (CorrelationThreshold(), operations.correlation_threshold, {}),
    (CorrelationThreshold(threshold=0.4), operations.correlation_threshold, {"threshold": 0.4}),
    (
        CorrelationThreshold(threshold=0.4, method="spearman"),
        operations.correlation_threshold,
        {"threshold": 0.4, "method": "spearman"},
    ),
    (VarianceThreshold(), operations.frequency_threshold, {}),
    (
        VarianceThreshold(freq_cut=0.3, unique_cut=0.1),
        operations.frequency_threshold,
        {"freq_cut": 0.3, "unique_cut": 0.1},
    ),
    (MinimumVariance(min_variance=5.0), operations.variance_threshold, {"min_variance": 5.0}),
    (DropMissing(), operations.get_na_columns, {}),
    (
        NoiseRemoval(by="Metadata_compound", cutoff=2.5),
        operations.noise_removal,
        {"noise_removal_perturb_groups": "Metadata_compound", "noise_removal_stdev_cutoff": 2.5},
    ),
]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("missing", [0.0, 0.04])
@pytest.mark.parametrize(("step", "theirs", "options"), PAIRS)
def test_equal_to_pycytominer(step, theirs, options, missing):
    if missing and getattr(step, "method", "") == "spearman":
        pytest.skip("refused")
    table = make_table(draw(missing=missing))
    features = list(table.feature_names)
    found = dropped(step, table)
    assert found == set(theirs(make_frame(table), features=features, **options))
    assert found or (isinstance(step, DropMissing) and not missing)
    step.reference = "Metadata_control"
    found = dropped(step, table)
    step.reference = None
    assert found == set(theirs(make_frame(table), features=features, samples="Metadata_control", **options))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("defaults", select.DEFAULTS)
def test_operations_in_order_are_pycytominers(defaults, tmp_path):
    table = make_table(draw(missing=0.03))
    order = ("drop_na_columns", "variance_threshold", "correlation_threshold", "drop_outliers", "blocklist")
    old = defaults == "pycytominer-0.1"
    for operation in (order, order[::-1], ("correlation_threshold", "noise_removal")):
        blocklist = ["Cells_1", "Cells_99", "Cells_38"]
        expected = pycytominer.feature_select(
            make_frame(table),
            features=list(table.feature_names),
            operation=["frequency_threshold" if name == "variance_threshold" else name for name in operation],
            unique_cut=0.1 if old else 0.01,
            outlier_cutoff=15 if old else 500,
            corr_threshold=0.8,
            blocklist=blocklist,
            noise_removal_perturb_groups="Metadata_compound",
            noise_removal_stdev_cutoff=3.0,
        )
        step = Select(
            operations=operation,
            defaults=defaults,
            corr_threshold=0.8,
            blocklist=blocklist,
            noise_by="Metadata_compound",
            noise_cutoff=3.0,
        )
        selected = step.fit_transform(table)
        assert list(selected.feature_names) == [n for n in expected.columns if n.startswith("Cells_")]
        np.testing.assert_array_equal(selected.features, expected[list(selected.feature_names)])
        assert len(step.steps_) == len(operation)


def test_named_defaults_differ_and_give_way_to_options():
    x = draw()
    kept = {
        name: Select(operations=("drop_outliers",), defaults=name).fit(x).keep_ for name in select.DEFAULTS
    }
    assert np.flatnonzero(~kept["pycytominer-1.0"]).tolist() == [33]
    assert {33, 34} <= set(np.flatnonzero(~kept["pycytominer-0.1"]).tolist())
    assert Select(operations=("drop_outliers",), outlier_cutoff=1e3).fit(x).keep_.all()
    assert Select(operations=("minimum_variance",)).fit(x).keep_.sum() == 39
    assert Select(operations=()).fit(x).keep_.all()


def test_order_matters():
    """A feature that a first operation drops has no say in the next: here, it would have cost its partner."""
    generator = np.random.default_rng(0)
    base, other = generator.normal(size=(2, 500))
    x = np.column_stack([base + 0.3 * other, base, other])
    x[0, 1] = np.nan
    assert Select(operations=("correlation_threshold",)).fit(x).keep_.tolist() == [False, True, True]
    step = Select(operations=("drop_na_columns", "correlation_threshold"), na_cutoff=0.0).fit(x)
    assert step.keep_.tolist() == [True, False, True]
    assert [s.keep_.tolist() for s in step.steps_] == [[True, False, True], [True, True]]


def slow_correlation(x, threshold):
    r = np.corrcoef(x, rowvar=False)
    sums, gone = np.abs(r).sum(0), set()
    for i, j in itertools.combinations(range(len(r)), 2):
        if r[i, j] > threshold:
            gone.add(i if sums[i] > sums[j] else j)
    return [i not in gone for i in range(len(r))]


@pytest.mark.parametrize("block", [1, 7, 64])
def test_correlation_equals_slow_loop_whatever_the_blocks(block, monkeypatch):
    monkeypatch.setattr(correlation, "BLOCK", block)
    x = np.delete(draw(seed=3), 7, axis=1).astype(np.float64) + 1e4
    for threshold in (0.9, 0.5, 0.1):
        step = CorrelationThreshold(threshold=threshold).fit(x)
        assert step.keep_.tolist() == slow_correlation(x, threshold)
        assert not step.keep_.all()


def test_correlation_of_rows_where_both_are_there_equals_pandas():
    """Large values are missing more often, so that means differ from pair to pair."""
    x = draw(200, seed=4)[:, :30].astype(np.float64)
    generator = np.random.default_rng(0)
    x[(x > np.median(x, 0)) & (generator.random(x.shape) < 0.6)] = np.nan
    table = Table(pl.DataFrame({"Metadata_row": range(200)}), x, [f"Cells_{i}" for i in range(30)])
    found = []
    for threshold in np.linspace(0.05, 0.95, 19):
        expected = operations.correlation_threshold(
            make_frame(table), list(table.feature_names), threshold=threshold
        )
        found.append(dropped(CorrelationThreshold(threshold=threshold), table))
        assert found[-1] == set(expected)
    assert len({len(names) for names in found}) > 5


def test_correlation_is_signed_and_keeps_the_first_of_equal_features():
    x = np.random.default_rng(0).normal(size=(50, 1))
    assert CorrelationThreshold().fit(np.hstack([x, -x])).keep_.all()
    assert CorrelationThreshold().fit(np.hstack([x, x, 2 * x + 3])).keep_.tolist() == [True, False, False]
    skewed = np.hstack([x, np.exp(4 * x)])
    assert CorrelationThreshold().fit(skewed).keep_.all()
    assert CorrelationThreshold(method="spearman").fit(skewed).keep_.sum() == 1
    with pytest.raises(ValueError, match="method='kendall': choose"):
        CorrelationThreshold(method="kendall")
    x[0] = np.nan
    with pytest.raises(ValueError, match="cannot rank missing values; use"):
        CorrelationThreshold(method="spearman").fit(x)


def test_few_values_are_counted_as_documented():
    n = 100
    columns = {
        "constant": (np.zeros(n), False),
        "signed zeros": (np.where(np.arange(n) < 50, 0.0, -0.0), False),
        "all different": (np.arange(n), True),
        "one other": (np.arange(n) == 3, False),
        "5 of 95": (np.arange(n) < 5, True),
        "missing": (np.full(n, np.nan), False),
        "two are there": (np.where(np.arange(n) < 2, np.arange(n), np.nan), True),
        "ties at the end": (np.minimum(np.arange(n), 60), False),
    }
    x = np.column_stack([column for column, _ in columns.values()]).astype(np.float32)
    kept = VarianceThreshold(unique_cut=0.02).fit(x).keep_
    assert dict(zip(columns, kept.tolist(), strict=True)) == {k: v for k, (_, v) in columns.items()}
    assert VarianceThreshold(unique_cut=0.03, freq_cut=0.0).fit(x).keep_.tolist() == [
        *[False, False, True, False, False, False, False, True]
    ]


def test_minimum_variance_near_a_large_mean():
    x = np.column_stack([np.full(50, 1e6 + 0.1), np.arange(50) * 1e-4 + 1e6, np.full(50, 0.1)])
    assert MinimumVariance().fit(x).keep_.tolist() == [False, True, False]
    assert MinimumVariance(min_variance=0.0).fit(x).keep_.tolist() == [False, True, False]


def test_outliers_and_missing_values_at_their_cutoffs():
    x = np.zeros((20, 6), np.float32)
    x[4, 1], x[5, 2], x[6, 3], x[7, 4], x[:2, 4], x[:, 5] = 500, -501, np.inf, 3, np.nan, np.nan
    assert DropOutliers().fit(x).keep_.tolist() == [True, True, False, False, True, True]
    assert DropMissing(cutoff=0.1).fit(x).keep_.tolist() == [True] * 5 + [False]
    assert DropMissing(cutoff=0.09).fit(x).keep_.tolist() == [True] * 4 + [False] * 2


def test_blocklist_by_name_and_by_file(tmp_path):
    table = make_table(draw(30)[:, :6])
    path = tmp_path / "blocklist.csv"
    path.write_text("blocklist,why\nCells_2,noisy\nNuclei_9,absent\n")
    for names in (("Cells_2", "Nuclei_9"), str(path), path):
        assert dropped(Blocklist(names=names), table) == {"Cells_2"}
    assert Select(operations=("blocklist",), blocklist=str(path)).fit(table).keep_.sum() == 5
    path.write_text("name\nCells_2\n")
    with pytest.raises(ValueError, match="no column 'blocklist'; columns are name"):
        Blocklist(names=path).fit(table)


def test_noise_is_a_mean_over_groups_of_known_rows():
    x = np.array([[0, 0], [2, 0], [5, 5], [0, 9], [100, 9]], np.float32)
    metadata = pl.DataFrame({"Metadata_p": ["a", "a", "b", None, None]})
    table = Table(metadata, x, ["x", "y"])  # standard deviations: x 1 and 0, y 0 and 0
    assert NoiseRemoval(by="Metadata_p", cutoff=0.5).fit(table).keep_.all()
    assert NoiseRemoval(by=("Metadata_p",), cutoff=0.49).fit(table).keep_.tolist() == [False, True]
    absent = table.with_features(np.where(table.features == 5, np.nan, table.features))
    assert NoiseRemoval(by="Metadata_p", cutoff=0.9).fit(absent).keep_.tolist() == [False, True]
    with pytest.raises(ValueError, match="bare arrays lack; give it a Table"):
        NoiseRemoval(by="Metadata_p").fit(x)
    with pytest.raises(ValueError, match="no row has known values"):
        NoiseRemoval(by="Metadata_p").fit(table.filter(np.array([3, 4])))


def test_what_was_learned_is_applied_to_other_rows():
    x = draw()
    step = CorrelationThreshold(threshold=0.5).fit(x[:100])
    np.testing.assert_array_equal(step.transform(x[100:]), x[100:, step.keep_])
    table = make_table(x)
    step = VarianceThreshold(reference="Metadata_control").fit(table)
    selected = step.transform(table)
    np.testing.assert_array_equal(selected.features, x[:, step.keep_])
    assert selected.metadata.equals(table.metadata)
    x64 = draw().astype(np.float64)
    assert DropMissing().fit_transform(x64).dtype == np.float64


def test_wrong_use_is_refused():
    x = draw(30)[:, :36]
    table = make_table(x)
    with pytest.raises(ValueError, match="VarianceThreshold: none of 2 features is left; relax"):
        Select(operations=("variance_threshold",)).fit(np.ones((9, 2)))
    with pytest.raises(ValueError, match="not fitted yet"):
        DropMissing().transform(table)
    with pytest.raises(ValueError, match="differ in Cells_0"):
        DropMissing().fit(table).transform(table.keep_features(np.arange(36) > 0))
    with pytest.raises(ValueError, match="fitted on 36 features, these are 35"):
        DropMissing().fit(x).transform(x[:, 1:])
    with pytest.raises(ValueError, match="no rows to learn from; reference is"):
        DropMissing(reference="Metadata_compound = 'none'").fit(table)
    with pytest.raises(ValueError, match="`reference` needs a Table"):
        DropMissing(reference="Metadata_control").fit(x)
    with pytest.raises(ValueError, match="defaults='1': choose one of"):
        Select(defaults="1")
    for operations_ in (("drop",), "blocklist"):
        with pytest.raises(ValueError, match="choose among"):
            Select(operations=operations_)
