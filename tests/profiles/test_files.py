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


def test_parquet_without_rows_or_features(tmp_path):
    table = make_table().filter(np.arange(0))
    files.write_parquet(table, tmp_path / "small.parquet")
    back = files.read(tmp_path / "small.parquet")
    assert back.features.shape == (0, 5)
    assert back.metadata.equals(table.metadata)
    files.write_parquet(make_table().keep_features(np.arange(5) < 0), tmp_path / "small.parquet")
    with pytest.raises(ValueError, match=r"small\.parquet: has no features, all columns are metadata: Met"):
        files.read(tmp_path / "small.parquet")


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
    "not text": ("a.txt", b"\x1f\x8b", {}, r"a\.txt: is not UTF-8 text .*; save it as UTF-8"),
    "not gzip": ("a.txt.gz", b"Metadata_Well\tf\n", {"plain": True}, r"a\.txt\.gz: cannot be read"),
    "UTF-16": (
        "a.csv",
        "Metadata_Well,f\n".encode("utf-16"),
        {},
        r"a\.csv: is not UTF-8 text .*; save it as",
    ),
    "semicolons": (
        "a.csv",
        b"Metadata_Well;f\nA01;1\n",
        {},
        r"a\.csv: has no features, all columns are metadata: Metadata_Well;f; only commas, or tabs in",
    ),
    "semicolons, no metadata": (
        "a.csv",
        b"Plate;Well;f\nP;A01;1\n",
        {},
        r"a\.csv: no column starts with 'Metadata_'; .*; only commas, or tabs in \.tsv and \.txt, separate",
    ),
    "an index": (
        "a.csv",
        b"Metadata_Well,Unnamed: 0,f\nA01,0,1\n",
        {},
        r"a\.csv: column 'Unnamed: 0' is the index of a pandas frame, .* index=False, or name it in `drop`",
    ),
    "quote closed rows later": (
        "a.csv",
        b'Metadata_Well,f\n"A01,1\nA02,2\nA03",3\n',
        {},
        r"a\.csv: column 'Metadata_Well' has a line break within 'A01,1\\nA02.*a quote is probably not closed",
    ),
    "open quote in the last column": (
        "a.csv",
        b'f,Metadata_Well\n1,"A01\n2,A02\n',
        {},
        r"a\.csv: column 'Metadata_Well' has a line break within 'A01",
    ),
    "open quote in a dropped column": (
        "a.csv",
        b'Metadata_Well,f,note\nA01,1,"x\nA02,2,y\n',
        {"drop": ["note"]},
        r"a\.csv: column 'note' has a line break within b'x",
    ),
    "text behind a dropped column": (
        "a.csv",
        b"note,f,Metadata_Well,g\nx,1,A01,DMSO\n",
        {"drop": ["note"]},
        r"a\.csv: column 'g' is not all numbers",
    ),
    "too large": (
        "a.csv",
        b"Metadata_Well,f,g\nA01,1,-1e39\n",
        {},
        r"a\.csv: 1 features have values too large for float32 \(above 3\.4e38\): g; correct",
    ),
    "not parquet": ("a.parquet", b"Metadata_Well,f\n", {}, r"a\.parquet: cannot be read as parquet"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_file_is_named(kind, tmp_path):
    name, content, options, message = WRONG[kind]
    if "plain" in options:
        (tmp_path / name).write_bytes(content)
        options = {}
    elif content is not None:
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


def read_columns(path, **columns):
    pd.DataFrame({f"Metadata_{name}": values for name, values in columns.items()} | {"f": 1.0}).to_csv(
        path, index=False
    )
    return files.read(path).metadata


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["0", "-12", "999999999999999"], [0, -12, 999999999999999]),
        (["12345678901234567890", "1"], None),
        (["1234567890123456", "1"], None),
        (["1234567890123456", "1.5"], None),
        (["12E1", "130"], None),
        (["12E4", "1.5"], None),
        (["INF", "1"], None),
        (["inf", "1.5"], None),
        (["+5", "6"], None),
        (["007", "8"], None),
        (["00.5", "8"], None),
        (["1e+400", "1.5"], None),
        (["1_000", "5"], None),
        (["0.003000", "3.3333", "1e-05", "7", "5."], [0.003, 3.3333, 1e-05, 7.0, 5.0]),
        (["0.6000000000000001", "0.0411522633744855896"], [0.6000000000000001, 0.0411522633744855896]),
        (["true", "false"], [True, False]),
        (["TRUE", "TRUE"], [True, True]),
        (["True", "false"], None),
        (["True", "1"], None),
    ],
)
def test_only_what_is_surely_a_number_becomes_one(values, wanted, tmp_path):
    found = read_columns(tmp_path / "a.csv", id=[*values, None])["Metadata_id"].to_list()
    assert found == [*(values if wanted is None else wanted), None]
    assert [type(value) for value in found[:-1]] == [type(value) for value in (wanted or values)]


def test_texts_that_become_one_number_are_reported(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    found = read_columns(tmp_path / "a.csv", version=["1.10", "1.1", "2.0"], other=["1.5", "1.5", "2"])
    assert found["Metadata_version"].to_list() == [1.1, 1.1, 2.0]
    assert "column Metadata_version: texts become one number, such as 1.10, 1.1\n" in caplog.text
    assert "Metadata_other" not in caplog.text


def test_types_are_inferred_over_all_files(tmp_path):
    first = save(tmp_path / "1.csv", b"Metadata_dose,Metadata_n,f,g\n3,1,1,2\n")
    second = save(tmp_path / "2.tsv", b"Metadata_dose\tMetadata_n\tf\tg\nvehicle\t2\t3\t4\n")
    table = files.read_all([first, second])
    assert table.metadata.rows() == [("3", 1), ("vehicle", 2)]
    assert table.features.tolist() == [[1, 2], [3, 4]]
    third = tmp_path / "3.parquet"
    frame = pl.DataFrame({"Metadata_n": [7], "Metadata_flag": [True], "f": [5.0], "g": [6.0]})
    frame.write_parquet(third)
    table = files.read_all(path for path in (third, first, second))
    assert table.metadata.rows() == [(7, True, None), (1, None, "3"), (2, None, "vehicle")]
    assert files.read_all([third]).metadata.rows() == [(7, True)]
    assert files.read_all([first, second], drop=["g"]).feature_names == ("f",)
    with pytest.raises(ValueError, match="no files to read"):
        files.read_all([])


@pytest.mark.parametrize(("header", "differing"), [("f,h", "g, h"), ("g,f", "their order")])
def test_files_with_other_features_are_named(header, differing, tmp_path):
    first = save(tmp_path / "1.csv", b"Metadata_Well,f,g\nA01,1,2\n")
    second = save(tmp_path / "2.csv", f"Metadata_Well,{header}\nA01,1,2\n".encode())
    with pytest.raises(
        ValueError, match=rf"2\.csv: has other features than .*1\.csv; they differ in {differing}"
    ):
        files.read_all([first, second])


def test_a_pandas_index_in_parquet(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    frame = pd.DataFrame({"Metadata_Well": ["a", "b", "c"], "id": [7, 8, 9], "f": [1.0, 2.0, 3.0]})
    path = tmp_path / "a.parquet"
    frame.drop(columns="id")[frame["f"] != 2].to_parquet(path)
    assert files.read(path).feature_names == ("f",)
    assert "a.parquet: __index_level_0__, the index of a pandas frame, is left out" in caplog.text
    assert files.read(path, drop=["__index_level_0__"]).feature_names == ("f",)
    frame.set_index("id").to_parquet(path)
    assert files.read(path).feature_names == ("f",)
    assert files.read(path, metadata_columns=["id"]).metadata["Metadata_id"].to_list() == [7, 8, 9]
    frame.set_index("Metadata_Well").to_parquet(path)
    assert files.read(path).metadata["Metadata_Well"].to_list() == ["a", "b", "c"]
    pl.from_pandas(frame.rename(columns={"id": "__index_level_0__"})).write_parquet(path)
    with pytest.raises(ValueError, match=r"a\.parquet: column '__index_level_0__' is the index of a pandas"):
        files.read(path)
    assert files.read(path, drop=["__index_level_0__"]).feature_names == ("f",)


@pytest.mark.parametrize("name", ["a.CSV", "a.Tsv", "a.txt.GZ", "a.PARQUET"])
def test_suffixes_in_capitals(name, tmp_path):
    frame, path = pl.DataFrame({"Metadata_Well": ["A01"], "f": [1.0]}), tmp_path / name
    if name == "a.PARQUET":
        frame.write_parquet(path)
    else:
        text = frame.write_csv(separator="," if name == "a.CSV" else "\t").encode()
        path.write_bytes(gzip.compress(text) if name.endswith("GZ") else text)
    assert files.read(path).features.tolist() == [[1.0]]


def test_metadata_nan_is_null_and_features_must_fit_float32():
    metadata = pl.DataFrame({"Metadata_dose": [1.0, np.nan]})
    table = Table(metadata, np.array([[1.0, np.inf], [np.nan, 3e38]]), ["f", "g"])
    assert table.metadata["Metadata_dose"].to_list() == [1.0, None]
    assert np.isinf(table.features[0, 1])
    with pytest.raises(ValueError, match=r"1 features have values too large for float32 .*: g; correct"):
        Table(metadata, np.array([[1.0, 2.0], [np.inf, 3.5e38]]), ["f", "g"])


def test_sites_without_cells_are_reported(tmp_path, caplog):
    caplog.set_level("WARNING", logger="absl")
    for site, features in {
        "P1/A01/1": np.zeros(0),
        "P1/A01/2": np.zeros((0, 4)),
        "P1/B02/1": np.zeros((2, 4)),
        "P1/B02/2": np.zeros(0),
    }.items():
        write_site(tmp_path / f"{site}.npz", len(features), features=features)
    tables = list(deepprofiler.sites(tmp_path))
    assert [table.features.shape for table in tables] == [(0, 4), (2, 4), (0, 4)]
    assert "3 of 4 sites have no cells: P1/A01/1, P1/A01/2, P1/B02/2; 1 wells have none" in caplog.text
    assert "no profile: P1/A01\n" in caplog.text
    assert len(list(deepprofiler.sites(tmp_path, feature_names="abcd"))) == 4
    write_site(tmp_path / "empty/P1/A01/1.npz", 0, features=np.zeros(0))
    with pytest.raises(ValueError, match="have no cells: 1 files; profile them again"):
        deepprofiler.read(tmp_path / "empty")


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, datetime.timedelta(1), b"raw"])
def test_a_column_that_anndata_cannot_hold_is_named(value, tmp_path):
    pytest.importorskip("anndata")
    table = Table(pl.DataFrame({"Metadata_Well": ["a"], "Metadata_x": [value]}), np.zeros((1, 1)), ["f"])
    with pytest.raises(
        ValueError, match=r"AnnData cannot hold Metadata_x, which is .*; make it text or drop it"
    ):
        files.write_anndata(table, tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())
