"""Choice of rows: slow counting, and the published choice of real compounds from their metadata."""

import collections

import numpy as np
import polars as pl
import pytest

from coos.profiles import annotate, choose
from coos.profiles.table import Table

LEVELS = (0.04, 0.12, 0.37, 1.11, 3.33, 10, 20)
DOSE, COMPOUND, MOA = "Metadata_mmoles_per_liter", "Metadata_broad_sample", "Metadata_moa"


def make(**columns):
    """A table of these metadata, whose only feature is the number of the row."""
    metadata = pl.DataFrame({f"Metadata_{name}": values for name, values in columns.items()}, strict=False)
    return Table(metadata, np.arange(metadata.height)[:, None], ["number"])


def numbers(table):
    return table.features[:, 0].astype(int).tolist()


def test_rows_of_a_query(caplog):
    caplog.set_level("INFO", logger="absl")
    table = make(moa=["a", None, "b", "a"], dose=[1, 2, 3, None])
    assert numbers(choose.KeepRows(query="Metadata_moa = 'a'").fit_transform(table)) == [0, 3]
    assert "2 of 4 rows are kept: \"Metadata_moa = 'a'\"" in caplog.text
    assert numbers(choose.KeepRows(query="NOT Metadata_dose > 2").transform(table)) == [0, 1]
    with pytest.raises(ValueError, match=r"none of 4 rows: 'Metadata_dose > 3'; relax the condition"):
        choose.KeepRows(query="Metadata_dose > 3").transform(table)
    with pytest.raises(ValueError, match="query 'Metadata_well = 1'"):
        choose.KeepRows(query="Metadata_well = 1").transform(table)


def test_nearest_dose_level_by_difference():
    generator = np.random.default_rng(0)
    doses = [*(10 ** generator.uniform(-3, 2, 500)), *LEVELS]
    table = make(dose=[*doses, None, 0.0, -1.0, np.nan, np.inf])
    found = choose.NearestDose(column="Metadata_dose", levels=LEVELS).transform(table)
    slow = [min(range(7), key=lambda i: abs(LEVELS[i] - dose)) + 1 for dose in doses]
    assert found.metadata["Metadata_dose_level"].to_list() == [*slow, None, None, None, None, None]
    assert found.metadata["Metadata_dose_level"].dtype == pl.Int64
    assert slow[-7:] == [1, 2, 3, 4, 5, 6, 7]
    assert numbers(found) == list(range(512))


def test_borders_between_levels_and_whole_numbers():
    table = make(dose=[14, 15, 16, 100])
    step = choose.NearestDose(column="Metadata_dose", levels=[10, 20], output="Metadata_level")
    assert step.transform(table).metadata["Metadata_level"].to_list() == [1, 1, 2, 2]


@pytest.mark.parametrize("levels", [(), (1, 1), (2, 1), (0, 1), (-1, 1), (1, np.nan)])
def test_levels_must_rise(levels):
    with pytest.raises(ValueError, match=r"levels \(.*\) must be positive numbers that rise"):
        choose.NearestDose(column="Metadata_dose", levels=levels).transform(make(dose=[1.0]))


def test_doses_must_be_numbers():
    with pytest.raises(ValueError, match=r"Metadata_dose is String, not a number; such as \['1 uM'\]"):
        choose.NearestDose(column="Metadata_dose", levels=(1,)).transform(make(dose=["1 uM"]))
    with pytest.raises(ValueError, match="no column Metadata_conc"):
        choose.NearestDose(column="Metadata_conc", levels=(1,)).transform(make(dose=[1.0]))


@pytest.mark.parametrize("minimum", [1, 2, 3])
def test_shared_labels_against_counting(minimum):
    generator = np.random.default_rng(0)
    unit = [None if u == 0 else f"u{u}" for u in generator.integers(0, 15, 60)]
    label = [None if i == 0 else f"moa {i}" for i in generator.integers(0, 20, 60)]
    units = collections.defaultdict(set)
    for a, b in zip(label, unit, strict=True):
        units[a] |= {b} - {None}
    wanted = [i for i in range(60) if label[i] and unit[i] and len(units[label[i]]) >= minimum]
    step = choose.KeepShared(label="Metadata_label", unit="Metadata_unit", minimum=minimum)
    table = make(label=label, unit=unit)
    assert 0 < len(wanted) < 60
    assert numbers(step.transform(table)) == wanted
    step.keep = "Metadata_unit IS NULL"
    extra = [i for i in range(60) if unit[i] is None]
    assert numbers(step.transform(table)) == sorted({*wanted, *extra})


def test_replicates_of_one_unit_do_not_share():
    table = make(label=["a", "a", "a", "b", "b"], unit=["x", "x", "x", "y", "z"])
    step = choose.KeepShared(label="Metadata_label", unit="Metadata_unit")
    assert numbers(step.transform(table)) == [3, 4]
    step.minimum = 3
    with pytest.raises(
        ValueError, match="none of 5 rows: Metadata_label known and shared by at least 3 Metadata_un"
    ):
        step.transform(table)
    with pytest.raises(ValueError, match="no column Metadata_moa"):
        choose.KeepShared(label="Metadata_moa", unit="Metadata_unit").transform(table)


@pytest.fixture(scope="module")
def wells(real_data):
    """All wells of the real plate maps with their mechanism of action, and no features."""
    maps = annotate.read_platemaps(real_data / "lincs_metadata" / "platemap")
    step = annotate.Annotate(
        path=real_data / "lincs_metadata" / "repurposing_info_external_moa_map_resolved.tsv",
        on=COMPOUND,
        columns=("moa",),
        unmatched="keep",
    )
    return step.transform(Table(maps, np.zeros((maps.height, 0)), ()))


def choose_shared(table, levels, *, controls=False):
    either = f" OR {COMPOUND} IS NULL" if controls else ""
    steps = [
        choose.NearestDose(column=DOSE, levels=levels),
        choose.KeepRows(query=f"Metadata_dose_level = 6{either}"),
        choose.KeepShared(label=MOA, unit=COMPOUND, keep=f"{COMPOUND} IS NULL" if controls else None),
    ]
    for step in steps:
        table = step.fit_transform(table)
    return table


def test_real_compounds_at_one_dose_that_share_a_mechanism(wells):
    compounds = choose_shared(wells, LEVELS).metadata.select(COMPOUND, MOA).unique()
    sizes = np.array(list(collections.Counter(compounds[MOA]).values()))
    assert (compounds[COMPOUND].n_unique(), len(sizes)) == (1143, 234)
    assert (sizes * (sizes - 1) // 2).sum() == 4990
    assert compounds.height * (compounds.height - 1) // 2 == 652_653
    assert (sizes * (sizes - 1)).sum() / sizes.sum() == pytest.approx(8.731409, abs=5e-7)
    without_the_last = choose_shared(wells, LEVELS[:6])  # then 20 uM counts as 10 uM
    assert without_the_last.metadata[COMPOUND].n_unique() == 1146


def test_real_wells_and_cells_of_these_compounds_and_the_controls(wells, real_data):
    folder = real_data / "lincs_metadata"
    counts = annotate.read_annotation(folder / "cell_count" / "*" / "*.csv")
    assert (counts.height, counts["Metadata_cell_count"].sum()) == (52_223, 110_012_425)
    names = {f"Metadata_Image_Metadata_{name}": f"Metadata_{name}" for name in ("Plate", "Well")}
    table = Table(counts.rename(names), np.zeros((counts.height, 0)), ())
    plates = annotate.Annotate(path=folder / "barcode_platemap.csv", on={"Plate": "Assay_Plate_Barcode"})
    chosen = choose_shared(wells, LEVELS, controls=True)
    table = annotate.join(
        plates.transform(table),
        chosen.metadata,
        on={"Plate_Map_Name": "plate_map_name", "Well": "well_position"},
        unmatched="drop",
    )
    assert (len(table), table.metadata["Metadata_cell_count"].sum()) == (8818, 18_404_170)
    assert table.metadata[COMPOUND].null_count() == 24 * 136


def test_fill_puts_a_value_where_it_is_unknown():
    table = Table(
        pl.DataFrame({"Metadata_c": ["a", None], "Metadata_n": [1, None]}), np.zeros((2, 1)), ("f",)
    )
    found = choose.Fill(column="Metadata_c", value="DMSO").transform(table)
    assert found.metadata["Metadata_c"].to_list() == ["a", "DMSO"]
    with pytest.raises(ValueError, match="Metadata_n is Int64, not text"):
        choose.Fill(column="Metadata_n", value="DMSO").transform(table)
    with pytest.raises(ValueError, match="no column Metadata_x"):
        choose.Fill(column="Metadata_x", value="DMSO").transform(table)


def test_extract_takes_a_part_of_a_column():
    plates = ["Week4_27481", "Week10_40111", "other", None]
    table = Table(pl.DataFrame({"Metadata_Plate": plates}), np.zeros((4, 1)), ("f",))
    step = choose.Extract(column="Metadata_Plate", pattern="^(Week[0-9]+)_", output="week")
    assert step.transform(table).metadata["Metadata_week"].to_list() == ["Week4", "Week10", None, None]
    for pattern, message in (
        ("(Year[0-9]+)", "is in none of Metadata_Plate, such as"),
        ("(", "pattern '\\('"),
    ):
        with pytest.raises(ValueError, match=message):
            choose.Extract(column="Metadata_Plate", pattern=pattern, output="week").transform(table)


def test_a_well_that_came_twice_stops_the_pipeline():
    wells = pl.DataFrame({"Metadata_Plate": ["p", "p", "q"], "Metadata_Well": ["A01", "A01", "A01"]})
    table = Table(wells, np.zeros((3, 1)), ("f",))
    with pytest.raises(
        ValueError, match="1 ids stand on more than one row: Metadata_Plate=p, Metadata_Well=A01"
    ):
        choose.RequireUnique().transform(table)
    assert choose.RequireUnique().transform(table.filter(np.array([0, 2]))).metadata.height == 2


def test_empty_text_is_unknown():
    table = make(label=["a", "a", "", "", "b", "b"], unit=["x", "y", "x", "y", "x", ""])
    for dtype in (pl.String, pl.Categorical):
        typed = table.with_metadata(table.metadata.cast(dtype))
        step = choose.KeepShared(label="Metadata_label", unit="Metadata_unit")
        assert numbers(step.transform(typed)) == [0, 1]
    filled = choose.Fill(column="Metadata_unit", value="DMSO").transform(table)
    assert filled.metadata["Metadata_unit"].to_list() == ["x", "y", "x", "y", "x", "DMSO"]


@pytest.mark.parametrize("query", [None, 5, ["Metadata_dose > 5"]])
def test_a_query_must_be_text(query):
    with pytest.raises(ValueError, match=r"query .* is not text; write a condition"):
        make(dose=[1.0]).where(query)


def test_nan_is_unknown_in_a_query():
    assert make(dose=[1.0, np.nan, 6.0]).where("Metadata_dose > 5").tolist() == [False, False, True]
