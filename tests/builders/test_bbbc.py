"""The builder of whole fields: every set's layout, pixels and wells, controls, kills, every error; the real BBBC013."""

import csv
import json
import os
import pathlib
import shutil

import numpy as np
import PIL.Image
import polars as pl
import pytest
import tensorflow_datasets as tfds
import tifffile
from run_scripts import call_script
from scipy import stats

from coos.data import identity, plate_fields, plate_maps, simulate
from tfds_builders import bbbc
from tfds_builders.bbbc import bbbc021, examples

SIZE = 32
SETS = tuple(simulate.RELEASES)
SMALL = {"mechanisms": 2, "compounds_per_mechanism": 1, "doses": 2, "replicates": 2, "sites_per_well": 2}


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """A small simulated release of every set."""
    root = tmp_path_factory.mktemp("releases")
    for name in SETS:
        simulate.write_fields(root / name, name, height=SIZE, width=SIZE + 8, images_per_class=2, **SMALL)
    return root


@pytest.fixture
def copy(releases, tmp_path):
    """Copies one of them, to be damaged."""

    def copy_of(name):
        return pathlib.Path(shutil.copytree(releases / name, tmp_path / "release" / name))

    return copy_of


def make(source, data_dir, **options):
    builder = bbbc.Builder(source=source, config=source.name, data_dir=data_dir, **options)
    builder.download_and_prepare()
    return builder


def read(path):
    """The examples by id, the table, and the metadata of a dataset."""
    builder = tfds.builder_from_directory(str(path))
    source, found = builder.as_data_source("fields"), {}
    for i in range(len(source)):
        example = {k: v.decode() if isinstance(v, bytes) else v for k, v in source[i].items()}
        found[example["id"]] = example
    table = pl.read_parquet(pathlib.Path(path) / builder.info.metadata["fields"])
    assert len(found) == len(source) == len(table)
    return found, table, builder.info.metadata


def plain(path):
    """A plane by another way: Pillow's own greys."""
    if path.suffix.lower() == ".tif":
        return tifffile.imread(path)
    image = PIL.Image.open(path)
    return np.asarray(image if image.mode == "I;16" else image.convert("L"))


def files_of(source, row):
    """The files of a field in the order of its channels, as the official names have them."""
    well, site, column = row["Metadata_Well"], row["Metadata_Site"], row["Metadata_Column"]
    if source.name in ("bbbc013", "bbbc014"):
        pattern = {"bbbc013": "*/Channel{}-*-{}-{}.BMP", "bbbc014": "*/Channel {}-*-{}-{}-00.Bmp"}[
            source.name
        ]
        patterns = [pattern.format(c, well[0], well[1:]) for c in (1, 2)]
    elif source.name == "bbbc015":
        patterns = [f"*/{well}_{site}_{c}.JPG" for c in (1, 2)]
    elif source.name == "bbbc016":
        patterns = [f"*/04211_O{column:02}f0{site}d{c}.TIF" for c in (2, 0)]
    elif source.name == "bbbc021":
        patterns = [f"*/{row['Metadata_Plate']}/{well}_s{site}_w{c}.tif" for c in (1, 2, 4)]
    else:
        label, stem = row["Metadata_id"].rsplit("-", 1)
        assert label == row["Metadata_class"]
        patterns = [f"{label}/{stem}.*"]
    found = [list(source.glob(pattern)) for pattern in patterns]
    assert [len(paths) for paths in found] == [1] * len(patterns)
    return [paths[0] for paths in found]


COUNTS = {  # fields, wells, plates, compounds, mechanisms, classes, negative, positive
    "bbbc013": (96, 96, 1, 2, 0, 0, 16, 8),
    "bbbc014": (96, 96, 1, 1, 0, 0, 0, 0),
    "bbbc015": (144, 36, 1, 1, 0, 0, 0, 0),
    "bbbc016": (72, 24, 1, 1, 0, 0, 6, 0),
    "bbbc021": (40, 20, 2, 2, 2, 0, 24, 0),
    "hela": (20, 0, 0, 0, 0, 10, 0, 0),
    "cho": (10, 0, 0, 0, 0, 5, 0, 0),
    "hpa": (12, 0, 0, 0, 0, 6, 0, 0),
}


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_built_with_its_pixels_and_what_is_known(name, releases, tmp_path):
    """Pixels are read again without our readers, statistics of controls computed over all their pixels at once."""
    source = releases / name
    found, table, metadata = read(make(source, tmp_path).data_path)
    controls = table["Metadata_control"].to_list()
    counts = (*metadata["counts"].values(), controls.count("negative"), controls.count("positive"))
    assert counts == COUNTS[name]
    measured = [
        f"Metadata_control_{kind}_{channel}" for kind in ("mean", "std") for channel in metadata["channels"]
    ]
    assert table.columns == [*plate_fields.COLUMNS, *measured]
    assert metadata["simulated"] is True
    assert table.filter(pl.col("Metadata_control") == "negative")["Metadata_moa"].is_null().all()
    assert (metadata["form"], metadata["fields"]) == ("whole_fields", "fields.parquet")
    assert not {"places", "tasks", "class_names"} & set(metadata)
    planes = {}
    for number, row in enumerate(table.iter_rows(named=True)):
        example = found[row["Metadata_id"]]
        planes[number] = np.stack([plain(path) for path in files_of(source, row)], -1)
        np.testing.assert_array_equal(example["image"], planes[number])
        assert example["image"].dtype == planes[number].dtype
        assert example["image"].shape == (SIZE, SIZE + 8, len(metadata["channels"]))
        assert example["field"] == number
        for feature, column in examples.TEXTS.items():
            assert example[feature] == (row[f"Metadata_{column}"] or "")
        for feature, column in examples.NUMBERS.items():
            assert example[feature] == (
                -1 if row[f"Metadata_{column}"] is None else row[f"Metadata_{column}"]
            )
    for row in table.iter_rows(named=True):
        example = found[row["Metadata_id"]]
        own = [
            planes[number]
            for number in range(len(table))
            if controls[number] == "negative" and table["Metadata_Plate"][number] == row["Metadata_Plate"]
        ]
        if own:
            pixels = np.concatenate([plane.reshape(-1, plane.shape[-1]) for plane in own]).astype(np.float64)
            np.testing.assert_allclose(example["control_mean"], pixels.mean(0), rtol=1e-6)
            np.testing.assert_allclose(example["control_std"], pixels.std(0), rtol=1e-6)
        else:
            assert np.isnan([example["control_mean"], example["control_std"]]).all()
        stated = np.array([row[name] for name in measured], np.float32)
        np.testing.assert_array_equal(stated, [*example["control_mean"], *example["control_std"]])


def test_two_drugs_have_nine_steps_in_four_replicates(releases, tmp_path):
    """Of the official plate map: concentrations by hand."""
    _, table, _ = read(make(releases / "bbbc013", tmp_path).data_path)
    rows = {row["Metadata_Well"]: row for row in table.iter_rows(named=True)}
    for row, drug, factor, top in (("C", "wortmannin", 1e9, 250), ("F", "LY294002", 1e6, 80)):
        for column in range(3, 12):
            known = rows[f"{row}{column:02}"]
            assert known["Metadata_compound"] == drug
            assert known["Metadata_dose_step"] == column - 2
            assert known["Metadata_concentration"] == pytest.approx(top / 2 ** (11 - column), rel=0.02)
            assert known["Metadata_concentration_molar"] == pytest.approx(
                known["Metadata_concentration"] / factor, rel=1e-12
            )
            assert known["Metadata_replicate"] == (3 if row == "C" else 2)
    for wells, control, compound, step in (
        (("A01", "D02", "E02", "H12"), "negative", "DMSO", 0),
        (("A12", "D12", "E01", "H01"), "positive", None, None),
    ):
        for well in wells:
            known = rows[well]
            assert (known["Metadata_control"], known["Metadata_compound"]) == (control, compound)
            assert known["Metadata_dose_step"] == step
    assert rows["A12"]["Metadata_concentration_molar"] == pytest.approx(150e-9)
    assert rows["E01"]["Metadata_concentration_molar"] == pytest.approx(80e-6)


def test_the_map_in_steps_says_the_same_but_the_concentrations(copy, tmp_path):
    source = copy("bbbc013")
    _, listed, _ = read(make(source, tmp_path / "list").data_path)
    concentrations = tmp_path / "table.csv"
    doses = listed.filter(pl.col("Metadata_control").is_null())
    keys = [
        "Metadata_compound",
        "Metadata_dose_step",
        "Metadata_concentration",
        "Metadata_concentration_unit",
    ]
    doses.select(keys).unique().rename(dict(zip(keys, plate_maps.STEPS, strict=True))).write_csv(
        concentrations
    )
    _, given, _ = read(make(source, tmp_path / "given", concentrations=concentrations).data_path)
    positive = listed["Metadata_control"].eq_missing("positive")
    values = ("Metadata_concentration", "Metadata_concentration_unit", "Metadata_concentration_molar")
    assert given.filter(~positive).equals(listed.filter(~positive))
    assert given.drop(values).equals(listed.drop(values))
    (source / "BBBC013_v1_platemap_all.txt").unlink()
    found, stepped, _ = read(make(source, tmp_path / "steps").data_path)
    assert stepped.drop(values).equals(listed.drop(values))
    assert stepped.select(pl.col(values).null_count()).row(0) == (96, 96, 96)
    assert np.isnan([example["concentration"] for example in found.values()]).all()
    assert {example["concentration_unit"] for example in found.values()} == {""}


def test_two_cell_lines_share_their_concentrations(releases):
    fields = bbbc.Builder(source=releases / "bbbc014", config="bbbc014")._fields.frame
    line = (
        fields.group_by("Metadata_cell_line")
        .agg(pl.col("Metadata_Row").unique().sort())
        .sort("Metadata_cell_line")
    )
    assert line.rows() == [("A549", ["E", "F", "G", "H"]), ("MCF7", ["A", "B", "C", "D"])]
    first = fields.filter(pl.col("Metadata_Column") == 3)
    np.testing.assert_allclose(first["Metadata_concentration_molar"], 1e-8)
    assert set(first["Metadata_dose_step"]) == {10}
    assert first["Metadata_replicate"].to_list() == [1, 2, 3, 4, 1, 2, 3, 4]


def test_doses_without_a_unit_have_no_molar_concentration(copy):
    source = copy("bbbc016")
    path = source / "BBBC016_v1_platemap.txt"
    known = bbbc.Builder(source=source, config="bbbc016")._fields.frame
    assert known["Metadata_concentration_molar"].max() == pytest.approx(50e-6)
    assert set(known["Metadata_replicate"]) == {1, 2}
    path.write_text(path.read_text().replace("(uM)", ""))
    fields = bbbc.Builder(source=source, config="bbbc016")._fields.frame
    assert fields["Metadata_concentration_molar"].null_count() == 72
    same = ["Metadata_concentration", "Metadata_dose_step", "Metadata_replicate", "Metadata_control"]
    assert fields.select(same).equals(known.select(same))
    assert fields["Metadata_dose_step"].max() == 11


# ------------------------------------------------------------------------------------------------- what is planted


def nuclear_share(image):
    """Light of the protein in nuclei over that around them, by a threshold on DNA."""
    nuclei = image[..., 1] > image[..., 1].min() + 0.4 * np.ptp(image[..., 1])
    return image[..., 0][nuclei].mean() / image[..., 0][~nuclei].mean()


def spottiness(channel):
    """Of a picture's light the share in its brightest pixels."""

    def measure(image):
        light = image[..., channel].astype(float) - image[..., channel].min()
        return np.sort(light, axis=None)[-light.size // 20 :].sum() / light.sum()

    return measure


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("bbbc013", nuclear_share),
        ("bbbc014", nuclear_share),
        ("bbbc015", spottiness(1)),
        ("bbbc016", spottiness(0)),
    ],
)
def test_the_planted_response_is_seen_in_the_pixels(name, measure, releases):
    builder = bbbc.Builder(source=releases / name, config=name)
    about = json.loads((releases / name / "simulated.json").read_text())
    frame, fields = builder._fields.frame, builder._fields
    for key, curve in about["responses"].items():
        column = "Metadata_cell_line" if name == "bbbc014" else "Metadata_compound"
        rows = np.flatnonzero((frame[column] == key).to_numpy())
        molar = frame["Metadata_concentration_molar"].to_numpy()[rows]
        values = np.array([measure(fields.read(int(row))) for row in rows])
        doses = np.unique(molar)
        means = [values[molar == dose].mean() for dose in doses]
        share = curve["bottom"] + (curve["top"] - curve["bottom"]) * doses ** curve["hill"] / (
            doses ** curve["hill"] + curve["ec50"] ** curve["hill"]
        )
        assert stats.pearsonr(share, means).statistic > 0.9
        assert molar.min() < curve["ec50"] < molar.max()


def test_the_same_seed_gives_the_same_files_and_overwriting_leaves_others_alone(releases, tmp_path):
    again = tmp_path / "bbbc021"
    simulate.write_fields(again, "bbbc021", height=SIZE, width=SIZE + 8, images_per_class=2, **SMALL)
    names = json.loads((again / "simulated.json").read_text())["files"]
    assert all((again / n).read_bytes() == (releases / "bbbc021" / n).read_bytes() for n in names)
    with pytest.raises(FileExistsError, match="choose another, or overwrite"):
        simulate.write_fields(again, "cho", height=SIZE, width=SIZE, images_per_class=1)
    (again / "mine.txt").write_text("mine")
    simulate.write_fields(again, "cho", height=SIZE, width=SIZE, images_per_class=1, overwrite=True)
    assert (again / "mine.txt").exists()
    assert not any((again / name).exists() for name in names)
    (again / "simulated.json").unlink()
    with pytest.raises(FileExistsError, match="not simulated"):
        simulate.write_fields(again, "cho", height=SIZE, width=SIZE, overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "bbbc099"}, "set 'bbbc099': choose one of bbbc013"),
        ({"height": 8}, "fields of 8 x 96 px; they must be 32"),
        ({"replicates": 0}, "replicates is 0"),
        ({"mechanisms": 16}, "mechanisms is 16; there are 15"),
        ({"mechanisms": 12, "compounds_per_mechanism": 4}, "96 treatments .* do not fit 90 wells"),
    ],
)
def test_impossible_simulations_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        simulate.write_fields(tmp_path / "out", **{"name": "bbbc021", **options})
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------- errors


def one(source, pattern):
    return sorted(source.rglob(pattern))[0]


def edit(pattern, old, new):
    """What replaces `old` in a table."""

    def damage(source):
        path = one(source, pattern)
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new, 1))

    return damage


def without(pattern):
    return lambda source: one(source, pattern).unlink()


def also(pattern, name):
    """Another file beside one."""

    def damage(source):
        path = one(source, pattern)
        shutil.copy(path, path.with_name(name))

    return damage


def picture(pattern, shape, dtype=np.uint8):
    """A file with other pixels."""

    def damage(source):
        path = one(source, pattern)
        plane = np.zeros(shape, dtype)
        if path.suffix.lower() == ".tif":
            tifffile.imwrite(path, plane)
        else:
            PIL.Image.fromarray(plane).save(path)

    return damage


def broken(pattern):
    return lambda source: one(source, pattern).write_bytes(b"nothing")


def both(*damages):
    return lambda source: [damage(source) for damage in damages]


MAP13, MAP16 = "BBBC013_v1_platemap_all.txt", "BBBC016_v1_platemap.txt"
STEPS = "1049_Metadata.csv"
CASES = {
    # plate maps
    "few": ("bbbc013", edit(MAP13, "150\n", ""), r"platemap_all.txt: has 95 entries"),
    "text": ("bbbc013", edit(MAP13, "150\n", "lots\n"), r"platemap_all.txt, line 13: 'lots' is no number"),
    "minus": ("bbbc013", edit(MAP13, "150\n", "-150\n"), r"line 13: concentration -150 is negative"),
    "shifted": ("bbbc013", edit(MAP13, "0\n", "5\n"), r"line 2: well A01 has concentration 5, but is a negative"),
    "no map": ("bbbc013", both(without(MAP13), without(STEPS)), f"no {MAP13}, nor {STEPS}"),
    "step": (
        "bbbc013",
        both(without(MAP13), edit(STEPS, "4,04,A,2,0", "4,04,A,two,0")),
        rf"{STEPS}, line 5: SBS_Doses is 'two'",
    ),
    "step of control": (
        "bbbc013",
        both(without(MAP13), edit(STEPS, "4,04,A,2,0", "4,04,A,2,-1")),
        r"line 5: well A04 has dose step 2 and control -1",
    ),
    "well twice": (
        "bbbc013",
        both(without(MAP13), edit(STEPS, "4,04,A,2,0", "4,03,A,2,0")),
        r"line 5: well A03 occurs twice",
    ),
    "no well": (
        "bbbc013",
        both(without(MAP13), edit(STEPS, "4,04,A,2,0", "4,04,K,2,0")),
        r"line 5: row 'K', column '04' is no well",
    ),
    "column": ("bbbc013", both(without(MAP13), edit(STEPS, "SBS_Doses", "Dose")), "column 'SBS_Doses' missing"),
    "14 few": ("bbbc014", edit("*map_all.txt", "10^-7\n", ""), "has 95 entries"),
    "14 no map": ("bbbc014", without("*map_all.txt"), "no BBBC014_v1_platemap_all.txt"),
    "15 few": ("bbbc015", edit("*map.txt", "1e-05\n", ""), "has 35 entries .*; expected 36"),
    "16 mixed": ("bbbc016", edit(MAP16, "50\n", "49\n"), "line 3: well O01, field 1 has dose 50, .* before it 49"),
    # images
    "no partner": ("bbbc013", without("Channel2-04-*"), r"Channel1-04-A-04.BMP: its partner, channel DNA of .*A04"),
    "no well's images": ("bbbc013", without("Channel*-04-*"), "its partner, channel GFP"),
    "no images of a well": (
        "bbbc013",
        both(without("Channel1-04-*"), without("Channel2-04-*")),
        "wells without images in .*: A04",
    ),
    "duplicate": ("bbbc013", also("Channel1-04-*", "Channel1-04-A-04.tif"), "same field and channel GFP as"),
    "wrong number": ("bbbc013", also("Channel1-04-*", "Channel1-05-A-04.BMP"), "well A04 is number 4 .*, not 05"),
    "other name": ("bbbc013", also("Channel1-04-*", "copy.bmp"), "copy.bmp: name does not look like Channel1-01"),
    "no folder": ("bbbc014", lambda source: shutil.rmtree(source / "BBBC014_v1_images"), "no images; expected"),
    "15 field": ("bbbc015", both(without("C07_2_1*"), without("C07_2_2*")), "images missing: C07, field 2"),
    "16 plates": (
        "bbbc016",
        both(also("*O01f00d0*", "9_O01f00d0.TIF"), also("*O01f00d2*", "9_O01f00d2.TIF")),
        "images of several plates",
    ),
    "16 field": ("bbbc016", both(without("*O05f01d0*"), without("*O05f01d2*")), "images missing: O05, field 1"),
    "unreadable": ("bbbc013", broken("Channel2-96-*"), r"BBBC013-H12-1: .*Channel2-96-H-12.BMP: cannot be read"),
    "unreadable first": ("bbbc014", broken("Channel 1-01-*"), r"BBBC014-A01-1: .*cannot be read"),
    "size": (
        "bbbc013",
        both(picture("Channel1-50-*", (5, 5)), picture("Channel2-50-*", (5, 5))),
        r"field BBBC013-E02-1: .*: is uint8 \(5, 5, 2\); the first field of the set is uint8 \(32, 40, 2\)",
    ),
    "size of one": ("bbbc013", picture("Channel2-50-*", (5, 5)), r"is uint8 \(5, 5\); its partner Channel1-50"),
    "dtype": ("bbbc021", picture("*D02_s1_w2*", (SIZE, SIZE + 8)), r"w2.tif: is uint8 .*; its partner .* uint16"),
    "colours": (
        "bbbc015",
        lambda source: PIL.Image.new("RGB", (SIZE + 8, SIZE), (200, 30, 30)).save(one(source, "B01_1_1.JPG")),
        "B01_1_1.JPG: pixel .* has red, green, blue",
    ),
    # BBBC021
    "moa column": ("bbbc021", edit("*moa.csv", ",moa", ",mechanism"), r"moa.csv: column 'moa' missing; found"),
    "moa compound": (
        "bbbc021",
        edit("*moa.csv", "SIM-1a", "SIM-9z"),
        r"moa.csv: 1 rows match no field of .*: SIM-9z at 1 uM \(no such compound\)",
    ),
    "moa dose": ("bbbc021", edit("*moa.csv", "SIM-1a,1,", "SIM-1a,1.1,"), r"moa.csv: 1 rows .*: SIM-1a at 1.1 uM$"),
    "moa twice": ("bbbc021", edit("*moa.csv", "SIM-1a,10,", "SIM-1a,1,"), "SIM-1a at 1 uM occurs twice"),
    "moa dose text": ("bbbc021", edit("*moa.csv", "SIM-1a,1,", "SIM-1a,one,"), "line 2: 'one' is no number"),
    "no moa": ("bbbc021", without("*moa.csv"), "no BBBC021_v1_moa.csv or moa.csv"),
    "no index": ("bbbc021", without("*image.csv"), "no BBBC021_v1_image.csv"),
    "index column": ("bbbc021", edit("*image.csv", "Image_PathName_Actin", "Path"), "'Image_PathName_Actin' missing"),
    "index dose": ("bbbc021", edit("*image.csv", "SIM-1a,1.0", "SIM-1a,-1.0"), "concentration -1.00.* is negative"),
    "index well": ("bbbc021", edit("*image.csv", ",B02,", ",B03,"), "is not of a site of well B03"),
    "index twice": ("bbbc021", edit("*image.csv", "B02_s2_w1", "B02_s1_w1"), "fields occur twice: Week1_22001-B02-1"),
    "index replicate": ("bbbc021", edit("*image.csv", ",B02,1,", ",B02,x,"), "Replicate is 'x'"),
    "index empty": ("bbbc021", edit("*image.csv", ",B02,1,", ",,1,"), "Image_Metadata_Well_DAPI is empty"),
    "index image": ("bbbc021", without("B02_s1_w4.tif"), r"1 images are not there, such as .*B02_s1_w4.tif"),
    "compounds": ("bbbc021", edit("*compound.csv", "SIM-1a", "x"), "lacks compounds of .*: SIM-1a"),
    # class folders
    "stray": ("cho", lambda source: shutil.copy(one(source, "r001.dib"), source / "x.dib"), "belongs to no class"),
    "nested": ("cho", lambda source: (source / "LAMP2" / "more").mkdir(), "more: a folder within a class folder"),
    "empty": ("cho", lambda source: (source / "Other").mkdir(), "Other: no images"),
    "one class": (
        "cho",
        lambda source: [shutil.rmtree(p) for p in source.iterdir() if p.is_dir() and p.name != "LAMP2"],
        "has 1 class folders",
    ),
    "class size": ("hpa", picture("Vesicles/r002.png", (9, 9)), r"field Vesicles-r002: .*is uint8 \(9, 9, 1\)"),
    "class dtype": ("hela", picture("Nucleolus/r002.tif", (SIZE, SIZE + 8)), "field Nucleolus-r002: .*is uint8"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "message"), CASES.values(), ids=CASES)
def test_what_is_wrong_is_said(name, damage, message, copy, tmp_path):
    source = copy(name)
    damage(source)
    with pytest.raises(ValueError, match=message):
        make(source, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("1.0.0"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["wortmannin,1,1,nM"], r"step 2 of 'wortmannin' missing; it has steps \[1\]"),
        (
            [f"wortmannin,{step},{step},nM" for step in range(1, 10)],
            "compound 'LY294002' missing; it has wortmannin",
        ),
        (["wortmannin,1,1,grains"], "unknown unit of concentration 'grains'"),
    ],
)
def test_a_table_of_concentrations_must_have_all(lines, message, releases, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["compound,dose_step,concentration,unit", *lines]))
    with pytest.raises(ValueError, match=message):
        bbbc.Builder(source=releases / "bbbc013", config="bbbc013", concentrations=path)


def test_options_of_other_sets_are_refused(releases):
    with pytest.raises(ValueError, match="plates: hela does not have this option"):
        bbbc.Builder(source=releases / "hela", config="hela", plates=["A"])
    with pytest.raises(ValueError, match="config='bbbc099': choose one of bbbc013"):
        bbbc.Builder(source=releases / "hela", config="bbbc099")
    with pytest.raises(ValueError, match="bbbc needs source=FOLDER"):
        bbbc.Builder()
    with pytest.raises(ValueError, match="has no plate 'Week9'"):
        bbbc.Builder(source=releases / "bbbc021", config="bbbc021", plates=["Week9"])


def test_class_folders_may_have_several_channels(tmp_path):
    rng, source = np.random.default_rng(0), tmp_path / "hpa"
    planes = rng.integers(0, 255, (2, 2, 6, 5)).astype(np.uint8)
    for k, label in enumerate(("one", "two")):
        (source / label).mkdir(parents=True)
        for channel, plane in zip(("protein", "nucleus"), planes[k], strict=True):
            PIL.Image.fromarray(plane).save(source / label / f"cell_1_{channel}.png")
    found, table, metadata = read(make(source, tmp_path, channels=["nucleus", "protein"]).data_path)
    assert metadata["simulated"] is False
    assert table["Metadata_class"].to_list() == ["one", "two"]
    np.testing.assert_array_equal(found["two-cell_1"]["image"], planes[1, ::-1].transpose(1, 2, 0))
    with pytest.raises(ValueError, match=r"expected <stem>_<channel>.png with a channel of protein"):
        make(source, tmp_path, channels=["protein"])
    (source / "two" / "cell_1_nucleus.png").unlink()
    with pytest.raises(ValueError, match="its partner, channel nucleus of field two-cell_1, is missing"):
        make(source, tmp_path, channels=["nucleus", "protein"])


# ------------------------------------------------------------------------------------------------- shards


def shards_of(path):
    return {file.name: file.read_bytes() for file in pathlib.Path(path).glob("bbbc-*")}


def test_workers_and_resumed_builds_give_the_same_and_read_controls_once(copy, tmp_path, monkeypatch):
    """A build stopped by a damaged image goes on where it was; what was found of the controls is not read again."""
    source = copy("bbbc021")
    whole = make(source, tmp_path / "whole", num_shards=4)
    workers = [bbbc.Builder(source=source, config="bbbc021", data_dir=tmp_path / "many", num_shards=4, worker=k,
                            num_workers=2) for k in (0, 1)]  # fmt: skip
    for worker in workers:
        worker.download_and_prepare()
    assert shards_of(workers[1].data_path) == shards_of(whole.data_path)
    fields = whole._fields
    treated = fields.frame["Metadata_control"].is_null().to_list()
    last = next(unit for unit in whole.shard_plan()[0].shards()[-1].units.tolist() if treated[unit])
    path = fields.images[last][2]
    content, read_fields = path.read_bytes(), []
    kept = path.stat()
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=fields.frame["Metadata_id"][last]):
        make(source, tmp_path / "data", num_shards=4)
    noted = list((tmp_path / "data").rglob("progress/controls-*.json"))
    assert len(noted) == 2
    path.write_bytes(content)

    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    plain_image = examples.Reader.image
    monkeypatch.setattr(
        examples.Reader, "image", lambda self, f: read_fields.append(f) or plain_image(self, f)
    )
    builder = make(source, tmp_path / "data", num_shards=4)
    assert shards_of(builder.data_path) == shards_of(whole.data_path)
    assert len(read_fields) < len(fields) / 2
    assert len(set(read_fields)) == len(read_fields)  # each at most once: none for the sake of the controls
    assert not list(pathlib.Path(builder.data_path).rglob("controls-*"))


def test_mended_controls_cost_the_shards_of_their_plate(copy, tmp_path):
    source = copy("bbbc021")
    reader = bbbc.Builder(source=source, config="bbbc021", data_dir=tmp_path).shard_plan()[1]
    frame = reader.fields.frame
    control = frame["Metadata_control"].eq_missing("negative").to_numpy()
    plates = frame["Metadata_Plate"].to_numpy()
    treated = [np.flatnonzero(~control & (plates == plate))[:2] for plate in sorted(set(plates))]
    before = [reader.digest("fields", units) for units in treated]
    changed = reader.fields.images[int(np.flatnonzero(control & (plates == plates[0]))[0])][0]
    changed.write_bytes(changed.read_bytes() + b" ")
    after = [reader.digest("fields", units) for units in treated]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True]


def test_plates_can_be_chosen(releases, tmp_path):
    _, table, _ = read(make(releases / "bbbc021", tmp_path, plates=["Week2_22002"]).data_path)
    assert set(table["Metadata_Plate"]) == {"Week2_22002"}
    assert len(table) == 20


def test_pooled_statistics_are_those_of_all_pixels_even_far_from_zero():
    images = [60_000 + np.random.default_rng(k).normal(k, 0.5, (6, 7, 2)) for k in range(5)]
    found = examples.pooled(iter(images))
    pixels = np.concatenate([image.reshape(-1, 2) for image in images])
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-7)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-6)


def test_a_checksum_tells_what_is_known_of_a_field():
    example = {"field": 0, "id": "a", "compound": "x", "concentration": np.float32(1), "control": "",
               "class_name": "", "image": np.zeros((2, 2, 1), np.uint8)}  # fmt: skip
    first = identity.checksum(example)
    changes = [("id", "b"), ("compound", "y"), ("concentration", np.float32(2)), ("control", "negative"),
               ("class_name", "c"), ("image", np.ones((2, 2, 1), np.uint8))]  # fmt: skip
    sums = {identity.checksum({**example, name: value}) for name, value in changes}
    assert len(sums | {first}) == len(changes) + 1


# ------------------------------------------------------------------------------------------------- the scripts


def test_the_commands_simulate_build_sum_up_and_refuse(tmp_path):
    source, data = tmp_path / "release", tmp_path / "data"
    arguments = [
        "--set=bbbc021",
        "--height=32",
        "--width=32",
        "--mechanisms=1",
        "--compounds_per_mechanism=1",
    ]
    done = call_script(
        "simulate.py", "bbbc", f"--out={source}", *arguments, "--replicates=1", "--sites_per_well=1"
    )
    assert done.returncode == 0, done.stderr
    assert "8 fields in" in done.stdout
    command = ["build.py", "bbbc", f"--source={source}", f"--data_dir={data}", "--builder_config=bbbc021"]
    done = call_script(*command)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    for line in (["fields", "8"], ["wells", "8"], ["control", "negative", "6"], ["compound", "SIM-1a", "2"]):
        assert line in lines
    assert "channels DNA, Tubulin, Actin; images (32, 32, 3) uint16" in done.stdout
    assert pathlib.Path(lines[-1][0]).is_dir()
    assert call_script(*command).returncode == 0
    index = source / "BBBC021_v1_moa.csv"
    index.write_text(index.read_text().replace("mechanism 1", "another"))
    refused = call_script(*command)
    assert "already built, but from something else (table: " in refused.stderr
    refused = call_script(*command, "--problems=list")
    assert "--problems: bbbc does not have this option" in refused.stderr


# ------------------------------------------------------------------------------------------------- real plates


def test_the_real_plate_has_its_pixels_wells_and_controls(real_data, tmp_path):
    source = real_data / "bbbc013"
    builder = bbbc.Builder(source=source, config="bbbc013", data_dir=tmp_path)
    builder.download_and_prepare()
    found, table, metadata = read(builder.data_path)
    assert metadata["simulated"] is False
    with open(source / "1049_Metadata.csv", newline="") as file:
        rows = {f"{row['Row']}{row['Column']}": row for row in csv.DictReader(file)}
    for known in table.iter_rows(named=True):
        well = known["Metadata_Well"]
        row = rows[well]
        control = {"-1": "negative", "1": "positive", "0": None}[row["SBS_Controls"]]
        assert known["Metadata_control"] == control
        assert known["Metadata_dose_step"] == (None if control == "positive" else int(row["SBS_Doses"]))
        number = int(row["ImageNumber"])
        for channel in (1, 2):
            path = source / "images" / f"Channel{channel}-{number:02}-{row['Row']}-{row['Column']}.tif"
            grey = np.asarray(PIL.Image.open(path).convert("L"))
            np.testing.assert_array_equal(found[f"BBBC013-{well}-1"]["image"][..., channel - 1], grey)
    doses = table.filter(pl.col("Metadata_control").is_null())
    counts = doses.group_by("Metadata_compound", "Metadata_dose_step").len()
    assert sorted(counts["Metadata_compound"].value_counts().rows()) == [("LY294002", 9), ("wortmannin", 9)]
    assert set(counts["len"]) == {4}
    assert table["Metadata_control"].value_counts().drop_nulls().sort("count").rows() == [
        ("positive", 8), ("negative", 16)
    ]  # fmt: skip


def test_the_real_index_has_103_treatments_of_38_compounds_and_12_mechanisms(real_data):
    table = bbbc021.index(real_data / "bbbc021")
    known = table.drop_nulls("Metadata_moa")
    treatments = known.select("Metadata_compound", "Metadata_concentration").n_unique()
    assert (len(table), table["Metadata_Plate"].n_unique(), treatments) == (13_200, 55, 103)
    assert (known["Metadata_compound"].n_unique(), known["Metadata_moa"].n_unique()) == (38, 12)
    controls = dict(table["Metadata_control"].value_counts().drop_nulls().rows())
    assert controls == {"negative": 55 * 6 * 4, "positive": 55 * 6 * 4}
    positive = table.filter(pl.col("Metadata_control") == "positive")
    assert set(positive["Metadata_compound"]) == {"taxol"}
    assert set(positive.group_by("Metadata_Plate").len()["len"]) == {24}
    assert table.filter(pl.col("Metadata_compound") == "DMSO")["Metadata_control"].unique().to_list() == [
        "negative"
    ]
    assert table["Metadata_concentration_molar"].null_count() == 0
    assert known.filter(pl.col("Metadata_control").is_null()).height == 1208
