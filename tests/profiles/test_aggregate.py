"""Mean and median of groups against slow loops and pycytominer; streams against tables in memory."""

import warnings

import numpy as np
import polars as pl
import pycytominer
import pytest

from coos.profiles import aggregate, deepprofiler, files
from coos.profiles.table import Table

KEYS = ["Metadata_Plate", "Metadata_Well"]
SLOW = {"mean": np.nanmean, "median": np.nanmedian}


def make_cells(rows=500, features=7, wells=12, *, missing=0.0, seed=0, ordered=False):
    """Cells of wells of very different sizes, in random order unless `ordered`."""
    generator = np.random.default_rng(seed)
    x = (generator.normal(size=(rows, features)) * 10.0 ** generator.integers(-3, 4, features)).astype(
        np.float32
    )
    x[generator.random(x.shape) < missing] = np.nan
    well = (wells * generator.random(rows) ** 2).astype(int)
    well = np.sort(well) if ordered else well
    metadata = pl.DataFrame(
        {
            "Metadata_Plate": [f"P{number % 2}" for number in well],
            "Metadata_Well": [f"W{number:02d}" for number in well],
            "Metadata_Site": generator.integers(1, 10, rows),
            "Metadata_moa": [None if number % 3 == 0 else f"moa {number % 3}" for number in well],
        }
    )
    return Table(metadata, x, [f"f{i}" for i in range(features)])


def slow(table, method):
    """Keys in order of first appearance, aggregated features, numbers of rows: one group after the other."""
    rows = table.metadata.select(KEYS).rows()
    keys = list(dict.fromkeys(rows))
    members = [np.array([row == key for row in rows]) for key in keys]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of means of nothing
        values = [SLOW[method](table.features[m].astype(np.float64), axis=0) for m in members]
    return keys, np.array(values).astype(np.float32), [int(m.sum()) for m in members]


def parts(table, size):
    """`table` in pieces of `size` rows, with empty tables in between."""
    for start in range(0, len(table), size):
        yield table.filter(np.arange(start, min(start + size, len(table))))
        yield table.filter(np.arange(0))


@pytest.mark.parametrize("method", ["mean", "median"])
@pytest.mark.parametrize("missing", [0.0, 0.7])
def test_equals_a_slow_loop(method, missing):
    table = make_cells(missing=missing)
    table.features[table.metadata["Metadata_Well"] == "W03", 2] = np.nan
    wells = aggregate.Aggregate(method=method).transform(table)
    keys, values, sizes = slow(table, method)
    assert wells.metadata.select(KEYS).rows() == keys
    np.testing.assert_array_equal(wells.features, values)
    assert np.isnan(wells.features[keys.index(("P1", "W03")), 2])
    assert wells.metadata["Metadata_cell_count"].to_list() == sizes
    assert wells.metadata["Metadata_cell_count"].dtype == pl.Int64
    assert wells.feature_names == table.feature_names


@pytest.mark.parametrize("method", ["mean", "median"])
def test_equals_pycytominer(method):
    table = make_cells(rows=2000, missing=0.1)
    wells = aggregate.Aggregate(method=method).transform(table)
    frame = table.metadata.to_pandas().assign(**dict(zip(table.feature_names, table.features.T, strict=True)))
    frame = frame.astype(dict.fromkeys(table.feature_names, np.float64))
    wanted = pycytominer.aggregate(frame, KEYS, list(table.feature_names), operation=method).set_index(KEYS)
    wanted = wanted.loc[wells.metadata.select(KEYS).rows()]
    np.testing.assert_allclose(wells.features, wanted.to_numpy(), rtol=2e-7, atol=0)


@pytest.mark.parametrize("method", ["mean", "median"])
@pytest.mark.parametrize("size", [1, 37, 10_000])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_stream_equals_the_table_in_memory(method, size, missing):
    table = make_cells(rows=150, missing=missing, ordered=method == "median")
    wanted = aggregate.Aggregate(method=method).transform(table)
    found = aggregate.aggregate_stream(parts(table, size), method=method)
    np.testing.assert_array_equal(found.features, wanted.features)
    assert found.metadata.equals(wanted.metadata)
    assert found.metadata.schema == wanted.metadata.schema


@pytest.mark.parametrize("method", ["mean", "median"])
def test_blocks_do_not_show(method, monkeypatch):
    table = make_cells(rows=200, missing=0.2)
    wanted = aggregate.Aggregate(method=method).transform(table)
    for block in (1, 50, 1000):
        monkeypatch.setattr(aggregate, "BLOCK", block)
        found = aggregate.Aggregate(method=method).transform(table)
        np.testing.assert_array_equal(found.features, wanted.features)
        assert found.metadata.equals(wanted.metadata)


def test_metadata_that_varies_within_a_group_is_left_out():
    table = make_cells()
    wells = aggregate.Aggregate().transform(table)
    assert wells.metadata.columns == [*KEYS, "Metadata_moa", "Metadata_cell_count"]
    known = {row[:2]: row[3] for row in table.metadata.rows()}
    assert [row[2] for row in wells.metadata.rows()] == [known[row[:2]] for row in wells.metadata.rows()]
    moa = table.metadata["Metadata_moa"].to_list()
    changed = moa.index("moa 1")
    for value, kept in ((None, True), ("moa 2", False)):  # an unknown among known ones contradicts nothing
        other = table.metadata.with_columns(
            Metadata_moa=pl.Series([*moa[:changed], value, *moa[changed + 1 :]])
        )
        for method in ("mean", "median"):
            wells = aggregate.Aggregate(method=method).transform(table.with_metadata(other))
            assert ("Metadata_moa" in wells.metadata.columns) == kept


def test_constant_in_each_table_but_not_in_the_group():
    table = make_cells(rows=40, wells=1)
    first, second = table.filter(np.arange(10)), table.filter(np.arange(10, 40))
    tables = [
        part.with_metadata(part.metadata.with_columns(Metadata_batch=pl.lit(batch), Metadata_day=pl.lit(1)))
        for part, batch in ((first, "a"), (second, "b"))
    ]
    for method in ("mean", "median"):
        columns = aggregate.aggregate_stream(iter(tables), method=method).metadata.columns
        assert "Metadata_batch" not in columns
        assert "Metadata_day" in columns


def test_counts_add_up_over_two_aggregations():
    cells = make_cells()
    wells = aggregate.Aggregate(method="median").transform(cells)
    plates = aggregate.Aggregate(by="Metadata_Plate").transform(wells)
    for plate, count in plates.metadata.select("Metadata_Plate", "Metadata_cell_count").rows():
        assert count == (cells.metadata["Metadata_Plate"] == plate).sum()
        chosen = wells.features[(wells.metadata["Metadata_Plate"] == plate).to_numpy()]
        row = plates.metadata["Metadata_Plate"].to_list().index(plate)
        np.testing.assert_array_equal(
            plates.features[row], chosen.astype(np.float64).mean(axis=0).astype(np.float32)
        )
    assert "Metadata_cell_count" not in aggregate.Aggregate(count=None).transform(cells).metadata.columns
    named = aggregate.Aggregate(by="Metadata_Plate", count="Metadata_wells").transform(wells)
    assert named.metadata["Metadata_wells"].sum() == len(wells)
    assert "Metadata_cell_count" not in named.metadata.columns  # it varies within plates


def test_a_large_mean_keeps_its_digits():
    x = np.full((300_000, 1), 1e6, np.float32)
    x[::2] += 1
    table = Table(pl.DataFrame({"Metadata_Well": ["A01"] * len(x)}), x, ["f"])
    found = aggregate.Aggregate(by="Metadata_Well").transform(table).features[0, 0]
    assert found == np.float32(1e6 + 0.5)


@pytest.mark.parametrize("method", ["mean", "median"])
def test_infinities_single_rows_and_nothing(method):
    x = np.float32([[np.inf, 1], [np.inf, np.inf], [-np.inf, 5]])
    table = Table(pl.DataFrame({"Metadata_Well": ["a", "a", "b"]}), x, ["f", "g"])
    found = aggregate.Aggregate(by=("Metadata_Well",), method=method).transform(table)
    np.testing.assert_array_equal(found.features, np.float32([[np.inf, np.inf], [-np.inf, 5]]))
    empty = aggregate.Aggregate(by="Metadata_Well", method=method).transform(table.filter(np.arange(0)))
    assert empty.features.shape == (0, 2)
    assert empty.metadata.columns == ["Metadata_Well", "Metadata_cell_count"]


def test_a_median_group_that_comes_back_is_refused():
    table = make_cells(rows=100, ordered=True)
    pieces = list(parts(table, 10))
    with pytest.raises(
        ValueError, match=r"Metadata_Plate=P0, Metadata_Well=W00: comes back in table 20.*sort by M"
    ):
        aggregate.aggregate_stream([*pieces, pieces[0]], method="median")
    assert len(aggregate.aggregate_stream([*pieces, pieces[0]], method="mean")) == 12


def with_column(table, name, values):
    return table.with_metadata(table.metadata.with_columns(pl.Series(name, values, strict=False)))


WRONG = {
    "method": ({"method": "mode"}, lambda t: [t], "method 'mode' is neither 'mean' nor 'median'"),
    "no tables": ({}, lambda t: [], "no tables to aggregate"),
    "column": (
        {"by": "Metadata_plate"},
        lambda t: [t],
        "no column Metadata_plate; metadata columns are Metadata_P",
    ),
    "no column": ({"by": ()}, lambda t: [t], "name at least one column to group by"),
    "unknown key": (
        {"by": "Metadata_moa"},
        lambda t: [t],
        r"table 0: Metadata_moa is unknown in \d+ of 20 rows; drop",
    ),
    "NaN key": (
        {"by": "Metadata_dose"},
        lambda t: [with_column(t, "Metadata_dose", [np.nan] * 20)],
        "table 0: Metadata_dose is unknown in 20 of 20 rows",
    ),
    "features": (
        {},
        lambda t: [t, t.keep_features(np.arange(7) < 6)],
        "table 1 has other features .* differ in f6",
    ),
    "some counted": (
        {},
        lambda t: [t, with_column(t, "Metadata_cell_count", [1] * 20)],
        "table 1: only some tables have a column Metadata_cell_count",
    ),
    "counts": (
        {},
        lambda t: [with_column(t, "Metadata_cell_count", [1, None] * 10)],
        "table 0: Metadata_cell_count is not a number in every row",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("method", ["mean", "median"])
def test_what_cannot_be_aggregated(kind, method):
    options, tables, message = WRONG[kind]
    with pytest.raises(ValueError, match=message):
        aggregate.aggregate_stream(tables(make_cells(rows=20)), **{"method": method, **options})


def test_real_single_cells(real_data, tmp_path):
    (tmp_path / "SQ00014812").symlink_to(real_data / "deepprofiler_features")
    cells = files.read(tmp_path)
    for method in ("mean", "median"):
        well = aggregate.aggregate_stream(deepprofiler.sites(tmp_path), method=method)
        assert well.metadata.rows() == [("SQ00014812", "A01", 337)]
        wanted = SLOW[method](cells.features.astype(np.float64), axis=0)
        np.testing.assert_array_equal(well.features[0], wanted.astype(np.float32))


@pytest.mark.parametrize("method", ["mean", "median"])
@pytest.mark.parametrize("size", [1, 2, 6])
def test_the_known_value_of_a_group_is_kept_wherever_it_stands(method, size, caplog):
    caplog.set_level("INFO", logger="absl")
    columns = {
        "Metadata_Well": ["a", "a", "a", "b", "b", "b"],
        "Metadata_moa": [None, "x", None, None, None, None],
        "Metadata_dose": [np.nan, 2.0, 2.0, 1.0, np.nan, 1.0],
        "Metadata_site": [1, None, 2, 3, 3, 3],
    }
    table = Table(pl.DataFrame(columns), np.arange(6)[:, None], ["f"])
    found = aggregate.aggregate_stream(parts(table, size), by="Metadata_Well", method=method).metadata
    assert found.rows() == [("a", "x", 2.0, 3), ("b", None, 1.0, 3)]
    assert "left out, since they vary within Metadata_Well: Metadata_site" in caplog.text


@pytest.mark.parametrize("by", [["Metadata_Well", "Metadata_Well"], None, [1], 3])
def test_groups_are_of_columns_that_are_named_once(by):
    for act in (make_cells(10).groups, lambda by: aggregate.aggregate_stream([make_cells(10)], by=by)):
        with pytest.raises(ValueError, match=r"columns to group by (are named twice|must be names)"):
            act(by)
