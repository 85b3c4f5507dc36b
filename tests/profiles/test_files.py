"""Tables on disk: round trips, independent readers, real files, and everything that can be wrong with a file."""

import datetime
import gzip
import pathlib
import pickle
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pytest

from coos.profiles import deepprofiler, files
from coos.profiles.table import Table


def make_table(rows=7, features=5):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(rows, features)).astype(np.float32)
    values[1, 2], values[2, 0] = np.nan, np.inf
    values[3, 1] = np.float32(1e-42)  # subnormal
    metadata = pl.DataFrame(
        {
            "Metadata_Plate": ["00123"] * rows,
            "Metadata_Well": [f"{i:02d}" for i in range(rows)],
            "Metadata_site": pl.Series(range(rows), dtype=pl.Int16),
            "Metadata_dose": [None, *np.linspace(0, 1, rows - 1)],
            "Metadata_kind": pl.Series(["a", "b", None] + ["a"] * (rows - 3), dtype=pl.Categorical),
            "Metadata_control": [True, None] + [False] * (rows - 2),
            "Metadata_day": [datetime.date(2016, 3, 22)] * rows,
        }
    )
    return Table(metadata, values, [f"Cells_{i}" for i in range(features)][::-1])


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_parquet_gives_back_every_bit_type_and_name(tmp_path):
    table = make_table()
    files.write_parquet(table, tmp_path / "new" / "wells[1].parquet")
    back = files.read(tmp_path / "new" / "wells[1].parquet")
    np.testing.assert_array_equal(back.features.view(np.uint32), table.features.view(np.uint32))
    assert back.metadata.schema == table.metadata.schema
    assert back.metadata.equals(table.metadata)
    assert back.feature_names == table.feature_names
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["wells[1].parquet"]
    pandas = pd.read_parquet(tmp_path / "new" / "wells[1].parquet")
    assert list(pandas.columns) == [*table.metadata.columns, *table.feature_names]
    assert pandas["Cells_3"].dtype == np.float32


@pytest.mark.parametrize(("rows", "features"), [(0, 3), (4, 0)])
def test_parquet_without_rows_or_features(rows, features, tmp_path):
    table = make_table().filter(np.arange(rows)).keep_features(np.arange(5) < features)
    files.write_parquet(table, tmp_path / "small.parquet")
    back = files.read(tmp_path / "small.parquet")
    assert back.features.shape == (rows, features)
    assert back.metadata.equals(table.metadata)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    files.write_parquet(make_table(), tmp_path / "wells.parquet")

    def fail(frame, file, **options):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_parquet(make_table(rows=5), tmp_path / "wells.parquet")
    assert len(files.read(tmp_path / "wells.parquet")) == 7
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["wells.csv", "wells.csv.gz", "wells.tsv", "wells.txt.gz"])
def test_csv_of_pandas_is_read_exactly(name, tmp_path):
    table = make_table()
    frame = pd.concat(
        [table.metadata.to_pandas(), pd.DataFrame(table.features, columns=table.feature_names)], axis=1
    )
    frame.to_csv(tmp_path / name, index=False, sep="," if ".csv" in name else "\t")
    back = files.read(tmp_path / name)
    np.testing.assert_array_equal(back.features, table.features)
    assert back.feature_names == table.feature_names
    wanted = [pl.String, pl.String, pl.Int64, pl.Float64, pl.String, pl.Boolean, pl.String]
    assert back.metadata.dtypes == wanted
    for column in table.metadata.columns[:6]:
        assert back.metadata[column].to_list() == table.metadata[column].to_list()


def test_types_are_inferred_from_all_rows_and_names_stay_text(tmp_path):
    rows = [f"12345,{i % 12 + 1:02d},{i},{i},0{i % 10}7,1,," for i in range(3000)]
    rows[2999] = '12345,12,2999.5,x,007,NA,,"1e-3"'
    header = (
        "Metadata_Plate,Metadata_Well,Metadata_dose,Metadata_name,Metadata_code,Metadata_n,Metadata_none,f"
    )
    table = files.read(save(tmp_path / "a.csv", "\n".join([header, *rows]).encode()))
    assert table.metadata["Metadata_Plate"].unique().to_list() == ["12345"]
    assert table.metadata["Metadata_Well"][0] == "01"
    assert table.metadata["Metadata_dose"].dtype == pl.Float64
    assert table.metadata["Metadata_name"][-1] == "x"
    assert table.metadata["Metadata_code"][0] == "007"
    assert table.metadata["Metadata_n"].dtype == pl.Int64
    assert table.metadata["Metadata_n"].null_count() == 1
    assert table.metadata["Metadata_none"].null_count() == 3000
    assert np.isnan(table.features[:2999]).all()
    assert table.features[2999, 0] == np.float32(1e-3)


def test_an_empty_last_field_is_missing_and_a_short_row_is_refused(tmp_path):
    table = files.read(save(tmp_path / "a.csv", b"Metadata_Well,f,g\nA01,1,2\nA02,3,"))
    np.testing.assert_array_equal(table.features, np.float32([[1, 2], [3, np.nan]]))
    with pytest.raises(
        ValueError, match=r"a\.csv: .*Row #3: Expected 3 columns, got 2: A02,3; was the file cut"
    ):
        files.read(save(tmp_path / "a.csv", b"Metadata_Well,f,g\nA01,1,2\nA02,3"))


def test_columns_that_lack_the_prefix_and_columns_to_leave_out(tmp_path):
    path = save(tmp_path / "a.csv", b'"Image_Plate","Image_Well",note,f\r\n7,01,text,1\r\n')
    table = files.read(
        path, metadata_columns={"Image_Plate": "Metadata_Plate", "Image_Well": "Well"}, drop=("note",)
    )
    assert table.metadata.rows(named=True) == [{"Metadata_Plate": "7", "Metadata_Well": "01"}]
    assert table.feature_names == ("f",)
    table = files.read(path, metadata_columns=("Image_Plate", "Image_Well", "note"))
    assert table.metadata.columns == ["Metadata_Image_Plate", "Metadata_Image_Well", "Metadata_note"]


WRONG = {
    "missing": ("a.csv", None, {}, r"a\.csv: cannot be read .*No such file"),
    "missing parquet": ("a.parquet", None, {}, r"a\.parquet: cannot be read as parquet .*No such file"),
    "suffix": ("a.xlsx", b"PK", {}, r"a\.xlsx: suffix '\.xlsx' is not one of \.parquet, \.csv"),
    "empty": ("a.csv", b"", {}, r"a\.csv: is empty"),
    "empty gz": ("a.csv.gz", b"", {}, r"a\.csv\.gz: is empty"),
    "header only, cut": ("a.csv", b"Metadata_Well,f", {}, r"a\.csv: CSV parse error: Empty.*cut short\?"),
    "short row": (
        "a.csv",
        b"Metadata_Well,f\nA01,1\nA02\nA03,2\n",
        {},
        r"Row #3: Expected 2 columns, got 1: A02",
    ),
    "long row": ("a.csv", b"Metadata_Well,f\nA01,1,2\n", {}, r"Row #2: Expected 2 columns, got 3"),
    "open quote": ("a.csv", b'Metadata_Well,f\n"A01,1\nA02,2\n', {}, r"Row #2: Expected 2 columns"),
    "text": (
        "a.csv",
        b"Metadata_Well,f,g\nA01,1,2\nA02,3,DMSO\n",
        {},
        r"a\.csv: column 'g' is not all numbers .*Row #3: .*invalid value 'DMSO'.*metadata_columns or in drop",
    ),
    "twice": ("a.csv", b"Metadata_Well,f,g,f\nA01,1,2,3\n", {}, r"a\.csv: columns named twice: f; rename"),
    "no name": (
        "a.csv",
        b",Metadata_Well,f\n0,A01,1\n",
        {},
        r"a\.csv: column 1 has no name, perhaps an index",
    ),
    "no metadata": (
        "a.csv",
        b"Plate,f\n1,2\n",
        {},
        r"a\.csv: no column starts with 'Metadata_'; found Plate, f",
    ),
    "not there": (
        "a.csv",
        b"Metadata_Well,f\n",
        {"drop": ["g"]},
        r"a\.csv: no column g; there are Metadata_Well, f",
    ),
    "same name": (
        "a.csv",
        b"Metadata_Well,well,f\nA01,A01,1\n",
        {"metadata_columns": {"well": "Well"}},
        r"a\.csv: two metadata columns would get one name",
    ),
    "not UTF-8": ("a.csv", b"Metadata_Well,f\n\xb5M,1\n", {}, r"a\.csv: .*(utf-?8|UTF8)"),
    "not UTF-8, far in": (
        "a.csv",
        b"Metadata_Well,f\n" + b"A,1\n" * 9999 + b"\xb5M,1\n",
        {},
        r"a\.csv: .*save .* as UTF-8",
    ),
    "not gzip": ("a.txt", b"\x1f\x8b", {}, r"a\.txt: cannot be read"),
    "not parquet": ("a.parquet", b"Metadata_Well,f\n", {}, r"a\.parquet: cannot be read as parquet"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_file_is_named(kind, tmp_path):
    name, content, options, message = WRONG[kind]
    if content is not None:
        save(tmp_path / name, content)
    with pytest.raises(ValueError, match=message):
        files.read(tmp_path / name, **options)


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_truncated_files_are_refused(kept, tmp_path):
    table = make_table(rows=500)
    files.write_parquet(table, tmp_path / "a.parquet")
    table.metadata.with_columns(pl.Series("f", table.features[:, 0])).write_csv(tmp_path / "plain.csv")
    save(tmp_path / "a.csv.gz", (tmp_path / "plain.csv").read_bytes())
    for name, message in [
        ("a.parquet", "cannot be read as parquet"),
        ("a.csv.gz", "Truncated|cannot be read"),
    ]:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(kept * len(content))])
        with pytest.raises(ValueError, match=rf"{name}: .*({message})"):
            files.read(tmp_path / name)


def test_text_among_the_features_of_a_parquet_file(tmp_path):
    frame = pl.DataFrame({"Metadata_Well": ["A01", "A02"], "f": [1, 2], "g": [None, "DMSO"]})
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"column 'g' is String, not numbers \(row 1 holds \['DMSO'\]\)"):
        files.read(tmp_path / "a.parquet")
    assert files.read(tmp_path / "a.parquet", drop=("g",)).features.tolist() == [[1], [2]]


def write_site(path, cells=3, *, seed=0, **arrays):
    generator = np.random.default_rng(seed)
    content = {
        "features": generator.normal(size=(cells, 4)).astype(np.float32),
        "locations": generator.random((cells, 2)) * 1080,
        "metadata": np.array({"Metadata_Model": "efficientnet"}, object),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path, **{name: value for name, value in (content | arrays).items() if value is not None}
    )
    return content["features"]


def test_deepprofiler_layouts_order_and_locations(tmp_path):
    names = ["P2/A01_1", "P1/B02/10", "P1/B02/9", "P1/B02/2", "P1/A01-1", "P1/B02/0"]
    written = {name: write_site(tmp_path / f"{name}.npz", seed=i) for i, name in enumerate(names)}
    write_site(tmp_path / "P1/B02/0.npz", cells=0)
    (tmp_path / "P1" / "._A01-1.npz").write_bytes(b"left by a file manager")
    tables = list(deepprofiler.sites(tmp_path))
    keys = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    assert [len(table) for table in tables] == [3, 0, 3, 3, 3, 3]
    order = [table.metadata.select(keys).row(0) for table in tables if len(table)]
    assert order == [("P1", "A01", "1"), *[("P1", "B02", s) for s in ("2", "9", "10")], ("P2", "A01", "1")]
    np.testing.assert_array_equal(tables[4].features, written["P1/B02/10"])
    with np.load(tmp_path / "P1/B02/10.npz") as file:
        centres = tables[4].metadata.select("Metadata_Location_Center_X", "Metadata_Location_Center_Y")
        np.testing.assert_array_equal(centres.to_numpy(), file["locations"])
    together = files.read(tmp_path)
    np.testing.assert_array_equal(together.features, np.concatenate([table.features for table in tables]))
    assert together.feature_names == ("DP_0", "DP_1", "DP_2", "DP_3")
    assert deepprofiler.read(tmp_path, feature_names="abcd").feature_names == ("a", "b", "c", "d")


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("member", ["features", "metadata", "locations"])
def test_nothing_is_ever_unpickled(member, tmp_path):
    trap = tmp_path / "executed"
    array = np.empty(3, object)
    array[:] = [Hostile(trap)] * 3
    write_site(tmp_path / "features/P1/A01_1.npz", **{member: array})
    if member == "features":
        with pytest.raises(ValueError, match=r"P1/A01_1\.npz: Object arrays cannot be loaded"):
            files.read(tmp_path / "features")
    else:
        table = files.read(tmp_path / "features")
        assert table.features.shape == (3, 4)
        assert ("Metadata_Location_Center_X" in table.metadata.columns) == (member == "metadata")
    assert not trap.exists()
    with np.load(tmp_path / "features/P1/A01_1.npz", allow_pickle=True) as file:
        file[member]
    assert trap.exists()  # the trap works


def truncate(path):
    path.write_bytes(path.read_bytes()[:-30])


def pickled(path):
    path.write_bytes(pickle.dumps({"features": [1, 2]}))


def raw_member(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", b"not an array")


DAMAGE = {
    "not a zip": (lambda p: p.write_bytes(b"hello"), r"P1/B02/1\.npz: File is not a zip file"),
    "empty file": (lambda p: p.write_bytes(b""), r"P1/B02/1\.npz: File is not a zip file"),
    "a pickle": (pickled, r"P1/B02/1\.npz: File is not a zip file"),
    "an npy": (lambda p: np.save(p.open("wb"), np.zeros((3, 4))), r"P1/B02/1\.npz: File is not a zip file"),
    "truncated": (truncate, r"P1/B02/1\.npz: File is not a zip file"),
    "no array": (raw_member, r"P1/B02/1\.npz: .*magic string"),
    "no features": (lambda p: write_site(p, features=None), r"P1/B02/1\.npz: no array 'features'; found \["),
    "one dimension": (
        lambda p: write_site(p, features=np.zeros(4)),
        r"P1/B02/1\.npz: features are float64 \(4,\); expected numbers \(cells, features\)",
    ),
    "text": (
        lambda p: write_site(p, features=np.array([["a"]])),
        r"P1/B02/1\.npz: features are <U1 \(1, 1\)",
    ),
    "other width": (
        lambda p: write_site(p, features=np.zeros((3, 5))),
        r"P1/B02/1\.npz: has 5 features; expected 4, .* in .*P1/A01/1\.npz",
    ),
    "locations": (
        lambda p: write_site(p, locations=np.zeros((2, 2))),
        r"P1/B02/1\.npz: 2 locations for 3 rows of features",
    ),
    "twice": (
        lambda p: write_site(p.parent.parent / "B02_1.npz"),
        r"P1/B02_1\.npz: the same plate, well and site as .*P1/B02/1\.npz",
    ),
    "too deep": (
        lambda p: write_site(p.parent / "x" / "1.npz"),
        r"P1/B02/x/1\.npz: is not <plate>/<well>/<site>",
    ),
    "batch above": (lambda p: write_site(p.parent / "A01_1.npz"), r"P1/B02/A01_1\.npz: is not <plate>"),
    "no plate": (
        lambda p: write_site(p.parent.parent.parent / "A01_1.npz"),
        r"A01_1\.npz: is not .*; give the folder that holds the plate folders",
    ),
    "no site": (lambda p: write_site(p.parent.parent / "A02.npz"), r"P1/A02\.npz: is not <plate>"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_deepprofiler_files_are_named(kind, tmp_path):
    damage, message = DAMAGE[kind]
    for well in ("A01", "B02"):
        write_site(tmp_path / "P1" / well / "1.npz")
    damage(tmp_path / "P1" / "B02" / "1.npz")
    with pytest.raises(ValueError, match=message):
        deepprofiler.read(tmp_path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_flipped_byte_changes_a_feature(save, tmp_path):
    path = tmp_path / "P1" / "A01_1.npz"
    path.parent.mkdir()
    generator = np.random.default_rng(0)
    features = generator.normal(size=(3, 40)).astype(np.float32)
    save(path, features=features)
    good, refused = path.read_bytes(), 0
    for position in range(0, len(good), 2):
        damaged = bytearray(good)
        damaged[position] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(deepprofiler.read(tmp_path).features, features)
        except ValueError as error:
            refused += str(path) in str(error)
    assert refused > 240  # every byte of the values


def test_deepprofiler_folders_and_names_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder; expected <plate>/<well>/<site>"):
        deepprofiler.sites(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no \.npz files; expected <plate>"):
        deepprofiler.sites(tmp_path)
    write_site(tmp_path / "P1" / "A01_1.npz")
    with pytest.raises(ValueError, match=r"A01_1\.npz: has 4 features; expected 3, the number of names"):
        deepprofiler.read(tmp_path, feature_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="is a folder; metadata_columns and drop are for files"):
        files.read(tmp_path, drop=("DP_0",))


def test_anndata(tmp_path, monkeypatch):
    anndata = pytest.importorskip("anndata")
    table = make_table()
    table = table.with_metadata(
        table.metadata.with_columns(Metadata_none=None, Metadata_name=pl.lit(None, pl.String))
    )
    files.write_anndata(table, tmp_path / "wells.h5ad")
    back = anndata.read_h5ad(tmp_path / "wells.h5ad")
    np.testing.assert_array_equal(back.X, table.features)
    assert back.X.dtype == np.float32
    assert list(back.var_names) == list(table.feature_names)
    assert list(back.obs_names) == [str(i) for i in range(7)]
    assert list(back.obs.columns) == table.metadata.columns
    assert list(back.obs["Metadata_Plate"]) == ["00123"] * 7
    assert back.obs["Metadata_control"].iloc[0]
    assert pd.isna(back.obs["Metadata_control"].iloc[1])
    assert back.obs[["Metadata_none", "Metadata_name"]].isna().all(axis=None)
    assert list(back.obs["Metadata_day"]) == ["2016-03-22"] * 7
    assert list(back.obs["Metadata_kind"].isna()) == [False, False, True, False, False, False, False]
    np.testing.assert_array_equal(back.obs["Metadata_dose"], table.metadata["Metadata_dose"].to_numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["wells.h5ad"]
    monkeypatch.setitem(__import__("sys").modules, "anndata", None)
    with pytest.raises(ImportError, match=r'pip install "coos\[anndata\]"'):
        files.write_anndata(table, tmp_path / "wells.h5ad")


def test_real_plate(real_data):
    path = real_data / "lincs_plate" / "SQ00015054_normalized_feature_select.csv.gz"
    table, wanted = files.read(path), pd.read_csv(path)
    assert (len(table), table.num_features, table.metadata.width) == (384, 454, 26)
    assert not np.isnan(table.features).any()
    np.testing.assert_array_equal(table.features, wanted[list(table.feature_names)].to_numpy(np.float32))
    for column in table.metadata:
        missing = wanted[column.name].isna().to_numpy()
        np.testing.assert_array_equal(column.is_null().to_numpy(), missing)
        assert column.drop_nulls().to_list() == wanted[column.name][~missing].tolist()


def test_real_wells_with_columns_without_the_prefix(real_data):
    path = real_data / "bbbc021" / "ljosa_jbiomolscreen_2013_per_well_mean.csv.gz"
    names = {"Image_Metadata_Plate": "Metadata_Plate", "Image_Metadata_Well": "Metadata_Well"}
    table = files.read(path, metadata_columns=names)
    assert (len(table), table.num_features) == (632, 516)
    assert table.metadata["Metadata_Plate"].n_unique() == 55
    with pytest.raises(ValueError, match="no column starts with 'Metadata_'; found Image_Metadata_Plate"):
        files.read(path)


def test_real_deepprofiler_features(real_data, tmp_path):
    (tmp_path / "SQ00014812").symlink_to(real_data / "deepprofiler_features")
    sites = list(deepprofiler.sites(f"{tmp_path}/"))
    assert [(len(site), site.num_features) for site in sites] == [(158, 6400), (179, 6400)]
    assert sites[1].metadata.row(0)[:3] == ("SQ00014812", "A01", "8")
    assert sites[0].metadata["Metadata_Location_Center_X"][0] == pytest.approx(223.49555132)
