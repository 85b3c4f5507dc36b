"""Whole fields as examples: images beside their rows, classes where queries meet, wells drawn, controls of plates."""

import pathlib
import shutil

import numpy as np
import polars as pl
import pytest
import tensorflow_datasets as tfds

from coos.data import simulate, whole_fields
from tfds_builders import bbbc

SMALL = {"mechanisms": 2, "compounds_per_mechanism": 1, "doses": 2, "replicates": 2, "sites_per_well": 2}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Forty fields of two plates with controls, in BBBC021's layout."""
    root = tmp_path_factory.mktemp("fields")
    simulate.write_fields(root / "release", "bbbc021", height=32, width=40, **SMALL)
    builder = bbbc.Builder(source=root / "release", config="bbbc021", data_dir=root)
    builder.download_and_prepare()
    return pathlib.Path(builder.data_path)


@pytest.mark.parametrize("store", ["cache", "records"])
def test_images_stand_beside_their_row_of_the_table(directory, tmp_path, store):
    source, table = whole_fields.load(directory, cache_dir=tmp_path, store=store)
    read = tfds.builder_from_directory(str(directory)).as_data_source("fields")
    examples = {example["id"].decode(): example["image"] for example in (read[i] for i in range(len(read)))}
    assert len(source) == len(table) == len(examples) == 40
    assert source.ids.tolist() == table["Metadata_id"].to_list()
    for start in range(0, 40, 7):
        rows = np.arange(start, min(start + 7, 40))[::-1]
        expected = np.stack([examples[name] for name in source.ids[rows]])
        np.testing.assert_array_equal(source.gather(rows), expected)
    assert set(source.labels.tolist()) == {-1}


def test_records_that_are_not_those_of_the_table_are_refused(directory, tmp_path, dataset):
    copy = pathlib.Path(shutil.copytree(directory, tmp_path / "copy"))
    table = whole_fields.read_table(copy)
    table[:-1].write_parquet(copy / "fields.parquet")
    with pytest.raises(ValueError, match="40 records for 39 rows"):
        whole_fields.load(copy)
    (copy / "fields.parquet").unlink()
    with pytest.raises(ValueError, match="missing; build the dataset again"):
        whole_fields.load(copy)
    with pytest.raises(ValueError, match="no dataset of whole fields"):
        whole_fields.load(dataset)


def fields(**columns):
    number = len(next(iter(columns.values())))
    return pl.DataFrame({"Metadata_id": [f"f{k}" for k in range(number)], **columns})


def test_only_fields_that_take_part_can_be_in_two_classes():
    table = fields(Metadata_dose_step=[0, 1, 2, 3, 4])
    rules = (("low", "Metadata_dose_step < 3"), ("high", "Metadata_dose_step > 1"))
    with pytest.raises(ValueError, match="f2 is both 'low' and 'high'; make the queries exclusive"):
        whole_fields.classes(table, rules)
    labels, _ = whole_fields.classes(table, rules, where="Metadata_dose_step <> 2")
    assert labels.tolist() == [0, 0, -1, 1, 1]
    labels, names = whole_fields.classes(table, rules[::-1], where="Metadata_dose_step <> 2")
    assert (labels.tolist(), names) == ([1, 1, -1, 0, 0], ("high", "low"))  # in the order of the rules


def test_classes_without_fields_are_refused():
    table = fields(Metadata_dose_step=[0, 1, 2], Metadata_class=["a", "a", None])
    with pytest.raises(ValueError, match=r"data\.where='Metadata_dose_step = 9': no well matches"):
        whole_fields.classes(table, "Metadata_class", where="Metadata_dose_step = 9")
    with pytest.raises(ValueError, match=r"fields by class are \{'a': 2\}; at least two"):
        whole_fields.classes(table, "Metadata_class")
    rules = (("low", "Metadata_dose_step < 1"), ("high", "Metadata_dose_step > 1"))
    with pytest.raises(ValueError, match=r"\{'low': 1, 'high': 0\}"):
        whole_fields.classes(table, rules, where="Metadata_dose_step < 2")


def test_classes_of_a_column_follow_their_names_whatever_the_order():
    values = ["b", None, "a", "c", "a", "b"]
    order = np.random.default_rng(0).permutation(6)
    labels, names = whole_fields.classes(fields(Metadata_moa=values), "Metadata_moa")
    mixed, again = whole_fields.classes(fields(Metadata_moa=[values[k] for k in order]), "Metadata_moa")
    assert names == again == ("a", "b", "c")
    assert labels.tolist() == [1, -1, 0, 2, 0, 1]
    assert mixed.tolist() == labels[order].tolist()
    numbers = fields(Metadata_dose_step=pl.Series([3, None, 1], dtype=pl.Int64))
    labels, names = whole_fields.classes(numbers, "Metadata_dose_step")
    assert (labels.tolist(), names) == ([1, -1, 0], ("1", "3"))


def wells_and_fields():
    """Compounds of one to six wells, wells of one to three fields, one compound on two plates; rows shuffled."""
    generator, rows = np.random.default_rng(2), []
    for compound in range(6):
        for well in range(compound + 1):
            for _ in range(generator.integers(1, 4)):
                rows.append((f"P{well % 2}", f"{compound}{well}", f"c{compound}"))
    order = generator.permutation(len(rows))
    plate, well, compound = zip(*(rows[k] for k in order), strict=True)
    return fields(Metadata_Plate=plate, Metadata_Well=well, Metadata_compound=compound)


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_so_many_units_of_every_group_are_drawn_with_all_their_fields(number):
    table = wells_and_fields()
    rows = np.flatnonzero(np.random.default_rng(3).random(len(table)) < 0.9)
    options = {"of": ("Metadata_compound",), "unit": ("Metadata_Plate", "Metadata_Well"), "seed": 1}
    found = whole_fields.drawn(table, rows, number=number, **options)
    well, compound = whole_fields.wells(table), table["Metadata_compound"].to_numpy()
    for one in set(compound[rows]):
        there = set(well[rows][compound[rows] == one])
        kept = set(well[found][compound[found] == one])
        assert kept <= there
        assert len(kept) == min(number, len(there))
    assert found.tolist() == [row for row in rows if well[row] in set(well[found])]


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_order():
    table = wells_and_fields()
    rows, order = np.arange(len(table)), np.random.default_rng(4).permutation(len(table))
    options = {"of": ("Metadata_compound",), "unit": ("Metadata_Plate", "Metadata_Well"), "number": 2}
    mixed = table[order.tolist()]
    drawn = {}
    for seed in range(8):
        found = whole_fields.drawn(table, rows, seed=seed, **options)
        again = whole_fields.drawn(mixed, rows, seed=seed, **options)
        drawn[seed] = frozenset(table["Metadata_id"].to_numpy()[found])
        assert set(mixed["Metadata_id"].to_numpy()[again]) == drawn[seed]
    assert len(set(drawn.values())) > 4


def test_statistics_of_controls_are_those_of_the_plate_or_refused(directory, tmp_path):
    source, table = whole_fields.load(directory, cache_dir=tmp_path)
    found = whole_fields.control_statistics(table, source.channels)
    plate, control = table["Metadata_Plate"].to_numpy(), table["Metadata_control"].fill_null("").to_numpy()
    pixels = source.gather(np.arange(len(table))).astype(np.float64)
    for row in range(len(table)):
        controls = pixels[(plate == plate[row]) & (control == "negative")]
        np.testing.assert_allclose(found["mean"][row], controls.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(found["std"][row], controls.std((0, 1, 2)), rtol=1e-5)
    column = f"Metadata_control_std_{source.channels[1]}"
    flat = table.with_columns(
        pl.when(pl.col("Metadata_Plate") == plate[-1]).then(0.0).otherwise(column).alias(column)
    )
    with pytest.raises(ValueError, match=f"plate {plate[-1]} has no usable negative controls"):
        whole_fields.control_statistics(flat, source.channels)
    with pytest.raises(ValueError, match=f"no '{column}'; its builder measured no controls"):
        whole_fields.control_statistics(table.drop(column), source.channels)
