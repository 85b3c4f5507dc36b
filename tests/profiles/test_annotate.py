"""Annotation: against pandas merges, without losing or doubling a row, and what cannot be matched."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from coos.profiles import annotate
from coos.profiles.table import Table

KEYS = {"Metadata_map": "plate_map_name", "Metadata_Well": "well_position"}


def make_profiles(rows=60):
    """Rows in random order, whose only feature is their number."""
    generator = np.random.default_rng(0)
    metadata = pl.DataFrame(
        {
            "Metadata_map": [f"M{i}" for i in generator.integers(0, 3, rows)],
            "Metadata_Well": [f"{i:02d}" for i in generator.integers(0, 8, rows)],
        }
    )
    return Table(metadata, np.arange(rows)[:, None], ["number"])


def make_maps():
    rows = [(f"M{m}", f"{w:02d}", f"BRD-{w}" if w else None, w / 10) for m in range(3) for w in range(8)]
    return pl.DataFrame(
        rows, schema=["plate_map_name", "well_position", "broad_sample", "dose"], orient="row"
    )


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_equals_a_merge_of_pandas_with_rows_in_their_order():
    table, maps = make_profiles(), make_maps().sample(fraction=1, shuffle=True, seed=0)
    found = annotate.join(table, maps, on=KEYS)
    wanted = table.metadata.to_pandas().merge(
        maps.to_pandas(), "left", left_on=list(KEYS), right_on=list(KEYS.values()), validate="m:1"
    )
    np.testing.assert_array_equal(found.features, table.features)
    assert found.metadata.columns == [
        "Metadata_map",
        "Metadata_Well",
        "Metadata_broad_sample",
        "Metadata_dose",
    ]
    assert found.metadata["Metadata_dose"].to_list() == wanted["dose"].tolist()
    samples = [None if pd.isna(name) else name for name in wanted["broad_sample"]]
    assert found.metadata["Metadata_broad_sample"].to_list() == samples


def test_prefix_names_and_chosen_columns():
    table = make_profiles()
    maps = make_maps().rename({"plate_map_name": "map", "well_position": "Metadata_Well"})
    for on in (("Metadata_map", "Metadata_Well"), ["map", "Well"], {"map": "Metadata_map", "Well": "Well"}):
        found = annotate.join(table, maps, on=on, columns=("dose",))
        assert found.metadata.columns == ["Metadata_map", "Metadata_Well", "Metadata_dose"]
        assert found.metadata["Metadata_dose"].to_list() == [
            int(w) / 10 for w in table.metadata["Metadata_Well"]
        ]


def test_rows_without_annotation():
    table = make_profiles()
    maps = make_maps().filter(pl.col("well_position") != "03")
    lonely = (table.metadata["Metadata_Well"] == "03").to_numpy()
    message = rf"{lonely.sum()} of 60 rows have no annotation: 3 keys, such as Metadata_map=M\d, Metadata_Well=03 \(\d"
    with pytest.raises(ValueError, match=message):
        annotate.join(table, maps, on=KEYS)
    kept = annotate.join(table, maps, on=KEYS, unmatched="keep")
    np.testing.assert_array_equal(kept.features, table.features)
    np.testing.assert_array_equal(kept.metadata["Metadata_dose"].is_null().to_numpy(), lonely)
    dropped = annotate.join(table, maps, on=KEYS, unmatched="drop")
    np.testing.assert_array_equal(dropped.features, table.features[~lonely])
    assert dropped.metadata["Metadata_dose"].null_count() == 0
    with pytest.raises(ValueError, match="unmatched='inner' is not one of"):
        annotate.join(table, maps, on=KEYS, unmatched="inner")


def test_dropped_and_repeated_rows_are_logged(caplog):
    caplog.set_level("INFO", logger="absl")
    maps = make_maps().filter(pl.col("well_position") != "03")
    annotate.join(make_profiles(), pl.concat([maps, maps.head(5)]), on=KEYS, unmatched="drop")
    assert "5 annotation rows repeat others and count once" in caplog.text
    assert "rows have no annotation: 3 keys" in caplog.text
    assert "they are dropped" in caplog.text


def test_an_unknown_key_matches_nothing():
    table = Table(pl.DataFrame({"Metadata_moa": ["a", None]}), np.zeros((2, 1)), ["f"])
    frame = pl.DataFrame({"moa": ["a", None, None], "target": ["x", "y", "z"]})
    found = annotate.join(table, frame, on="moa", unmatched="keep")
    assert found.metadata["Metadata_target"].to_list() == ["x", None]
    with pytest.raises(
        ValueError, match=r"1 of 2 rows have no annotation: 1 keys, such as Metadata_moa=None"
    ):
        annotate.join(table, frame, on="moa")


def test_keys_on_differing_rows_are_refused():
    maps = make_maps()
    other = maps.filter(pl.col("well_position") == "05").with_columns(pl.lit(99.0).alias("dose"))
    message = (
        "3 keys stand on more than one row of the annotation, which differ: Metadata_plate_map_name=M0, "
        "Metadata_well_position=05"
    )
    with pytest.raises(ValueError, match=message):
        annotate.join(make_profiles(), pl.concat([maps, other]), on=KEYS)
    found = annotate.join(make_profiles(), pl.concat([maps, other]), on=KEYS, columns=("broad_sample",))
    assert len(found) == 60  # the rows differ in no column that is taken


def test_columns_that_exist_already():
    table = annotate.join(make_profiles(), make_maps(), on=KEYS)
    again = annotate.join(table, make_maps(), on=KEYS)
    assert again.metadata.equals(table.metadata)
    changed = make_maps().with_columns(
        pl.when(pl.col("dose") == 0.5).then(7.0).otherwise(pl.col("dose")).alias("dose")
    )
    count = (table.metadata["Metadata_dose"] == 0.5).sum()
    with pytest.raises(
        ValueError, match=rf"Metadata_dose exists already .* in {count} rows, such as 0\.5, not 7\.0"
    ):
        annotate.join(table, changed, on=KEYS)
    assert len(annotate.join(table, changed, on=KEYS, columns=("broad_sample",))) == 60
    without = changed.filter(pl.col("dose") != 7.0)  # a row without annotation contradicts nothing
    kept = annotate.join(table, without, on=KEYS, unmatched="keep")
    assert kept.metadata.equals(table.metadata)


def test_keys_of_different_types():
    plates = Table(pl.DataFrame({"Metadata_Plate": ["12", "7"]}), np.zeros((2, 1)), ["f"])
    frame = pl.DataFrame({"plate": [7, 12], "batch": ["b", "a"]})
    assert annotate.join(plates, frame, on={"Plate": "plate"}).metadata["Metadata_batch"].to_list() == [
        "a",
        "b",
    ]
    doses = Table(pl.DataFrame({"Metadata_dose": [1.0, 2.0]}), np.zeros((2, 1)), ["f"])
    frame = pl.DataFrame({"dose": [2, 1], "level": ["high", "low"]})
    assert annotate.join(doses, frame, on="dose").metadata["Metadata_level"].to_list() == ["low", "high"]


@pytest.mark.parametrize(
    ("on", "columns", "message"),
    [
        ("Metadata_plate", None, "no column Metadata_plate; metadata columns are Metadata_map"),
        ({"map": "Map"}, None, "the annotation has no column Metadata_Map; it has Metadata_plate_map_name"),
        (KEYS, ("moa",), "the annotation has no column Metadata_moa"),
        ((), None, "`on` names no column"),
    ],
)
def test_columns_that_are_not_there(on, columns, message):
    with pytest.raises(ValueError, match=message):
        annotate.join(make_profiles(), make_maps(), on=on, columns=columns)
    both = make_maps().with_columns(Metadata_dose=1)
    with pytest.raises(ValueError, match="with and without the prefix would be the same: Metadata_dose"):
        annotate.join(make_profiles(), both, on=KEYS)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".csv.gz", ".parquet"])
def test_a_step_reads_any_file(suffix, tmp_path):
    maps, path = make_maps(), tmp_path / f"maps{suffix}"
    if suffix == ".parquet":
        maps.write_parquet(path)
    else:  # wells such as 01 must not become numbers
        maps.to_pandas().to_csv(path, index=False, sep="," if ".csv" in suffix else "\t")
    step = annotate.Annotate(path=path, on=KEYS)
    wanted = annotate.join(make_profiles(), maps, on=KEYS)
    assert step.fit_transform(make_profiles()).metadata.equals(wanted.metadata)
    with pytest.raises(ValueError, match=rf"maps\{suffix}: the annotation has no column Metadata_Map"):
        annotate.Annotate(path=path, on={"map": "Map"}).transform(make_profiles())


def test_barcodes_that_look_like_numbers_match_text(tmp_path):
    table = Table(pl.DataFrame({"Metadata_barcode": ["12E4", "1000"]}), np.zeros((2, 1)), ["f"])
    path = write(tmp_path / "a.csv", "barcode,batch\n1000,1\n12E4,2\n")
    assert annotate.Annotate(path=path, on="barcode").transform(table).metadata[
        "Metadata_batch"
    ].to_list() == [2, 1]


def test_several_files(tmp_path):
    for name, rows in (("b.txt", "M2\t01\t7\n"), ("a.txt", "M1\t01\tx\nM1\t02\t7")):
        write(tmp_path / "maps" / name, f"plate_map_name\twell_position\tdose\n{rows}")
    write(tmp_path / "maps" / "notes.md", "nothing")
    for path in (tmp_path / "maps", tmp_path / "maps" / "*.txt", f"{tmp_path}/m*/?.txt"):
        frame = annotate.read_platemaps(path)
        assert frame.rows() == [("M1", "01", "x"), ("M1", "02", "7"), ("M2", "01", "7")]
    write(tmp_path / "maps" / "c.txt", "plate_map_name\twell_position\nM1\t01\n")
    with pytest.raises(ValueError, match=r"c\.txt: has columns .*; but .*a\.txt has .*need the same"):
        annotate.read_annotation(tmp_path / "maps")
    write(tmp_path / "maps" / "c.txt", "plate_map_name\twell_position\tdose\nM1\t02\t8\n")
    with pytest.raises(
        ValueError, match=r"maps: 1 keys stand on .*name=M1, Metadata_well_position=02; keep one"
    ):
        annotate.read_platemaps(tmp_path / "maps")
    write(tmp_path / "maps" / "c.txt", "plate_map_name\twell_position\tdose\n\t02\t8\n")
    with pytest.raises(ValueError, match="must be known in every row"):
        annotate.read_platemaps(tmp_path / "maps")
    with pytest.raises(ValueError, match=r"b\.txt: the annotation has no column Metadata_Map"):
        annotate.read_platemaps(tmp_path / "maps" / "b.txt", map_column="Map")
    with pytest.raises(ValueError, match=r"\*\.csv: no such file, .* or no file that matches"):
        annotate.read_platemaps(tmp_path / "*.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.csv: is empty"),
        ("map,well\nM1,A01\nM1", r"a\.csv: .*Row #3: Expected 2 columns, got 1.*cut short"),
        ("map,well,map\nM1,A01,M2", r"a\.csv: columns named twice: map"),
        (
            "map,Metadata_map\nM1,M1",
            r"a\.csv: columns with and without the prefix would be the same: Metadata_map",
        ),
    ],
)
def test_damaged_files(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        annotate.read_annotation(write(tmp_path / "a.csv", text))


def test_real_plate_maps(real_data):
    frame = annotate.read_platemaps(real_data / "lincs_metadata" / "platemap")
    assert frame.height == 28 * 384
    assert frame.schema["Metadata_mmoles_per_liter"] == pl.Float64
    assert frame["Metadata_mmoles_per_liter"].null_count() == 28 * 24
    plates = annotate.read_annotation(real_data / "lincs_metadata" / "barcode_platemap.csv")
    assert plates["Metadata_Assay_Plate_Barcode"].n_unique() == plates.height == 140
    assert plates["Metadata_Batch_Number"].dtype == pl.Int64


def test_nan_matches_no_nan():
    table = Table(pl.DataFrame({"Metadata_dose": [1.0, np.nan]}), np.zeros((2, 1)), ["f"])
    frame = pl.DataFrame({"dose": [1.0, np.nan, np.nan], "level": ["low", "x", "y"]})
    found = annotate.join(table, frame, on="dose", unmatched="keep")
    assert found.metadata["Metadata_level"].to_list() == ["low", None]
    again = annotate.join(
        found, frame.with_columns(weight=pl.Series([1.0, np.nan, 2.0])), on="dose", unmatched="keep"
    )
    assert again.metadata["Metadata_weight"].to_list() == [1.0, None]


def test_a_pandas_index_is_no_annotation_and_suffixes_may_be_capitals(tmp_path):
    pd.DataFrame({"plate": ["1", "2"], "batch": ["a", "b"]}, index=[5, 3]).to_parquet(tmp_path / "a.PARQUET")
    assert annotate.read_annotation(tmp_path / "a.PARQUET").columns == ["Metadata_plate", "Metadata_batch"]
    assert annotate.read_annotation(tmp_path).height == 2
    write(tmp_path / "b.CSV", "plate,batch\n1,a\n")
    assert annotate.read_annotation(tmp_path / "*.CSV").rows() == [(1, "a")]
