"""The builder of screens with sparse labels: real labels and pixels, three configs, splits by compound, damage."""

import concurrent.futures
import csv
import json
import os
import pathlib
import pickle
import shutil

import jax
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
import tifffile
from absl.testing import flagsaver
from run_scripts import loaded

from configs.cell_painting import gapnet
from coos.data import label_matrix, records
from coos.data import source as sources
from coos.train import multitask
from tfds_builders import cell_painting
from tfds_builders.cell_painting import examples

CHANNELS = ("Mito", "ERSyto", "ERSytoBleed", "Ph_golgi", "Hoechst")
SMILES = [f"{'C' * (1 + i % 4)}c1ccccc1" for i in range(4)] + ["C1CCCCC1", "C1CCCC1", "c1ccncc1", "C1CCNCC1"]
SHAPE = (40, 52, 5)


def inchikey(number):
    letters = "".join(chr(65 + number // 26**k % 26) for k in range(14))
    return f"{letters}-UHFFFAOYSA-N"


def write_labels(folder, *, compounds=12, tasks=5):
    """Every compound but the last has labels in some tasks; two assays share an ID."""
    dense = np.random.default_rng(1).integers(-1, 2, (compounds, tasks))
    dense[:, 0], dense[-1] = 1, 0
    rows, columns = np.nonzero(dense)
    matrix = label_matrix.from_entries(
        rows,
        columns,
        dense[rows, columns],
        compounds=[inchikey(i) for i in range(compounds)],
        assays=["11", "22", "22", "33", "44"],
    )
    label_matrix.write(folder, matrix)
    return dense


def write_table(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def read_table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def change(path, edit):
    """Edit the rows of a table in place; what `edit` returns, if anything, is the new table."""
    rows = read_table(path)
    write_table(path, edit(rows) or rows)


def write_release(root, *, dtype=np.uint16, tiff=False):
    """Twelve compounds in a well each, two views per well; returns the labels (12, 5) and the images by key."""
    generator, images, index, cells, load, profiles = np.random.default_rng(0), {}, [], [], [], []
    (root / ("images" if tiff else "views")).mkdir(parents=True)
    labels = write_labels(root / "labels")
    for compound in range(12):
        plate, well = ("P1", "P2")[compound % 2], f"B{compound + 1:02d}"
        place = {"Metadata_Plate": plate, "Metadata_Well": well.lower()}
        profiles.append({**place, "Area": compound + 0.25, "Round": -compound, "Odd": compound})
        for site in ("1", "2"):
            key = f"{plate}-{well}-{site}"
            image = (generator.random(SHAPE) * 250).astype(dtype)
            images[key] = image
            known = {"SAMPLE_KEY": key, "PLATE_ID": plate, "WELL_POSITION": well, "SITE": site}
            smiles = SMILES[compound % len(SMILES)]
            index.append(
                {**known, "ROW_NR_LABEL_MAT": compound, "SMILES": smiles, "INCHIKEY": inchikey(compound)}
            )
            for cell in range(compound % 3 + int(site) - 1):
                row, column = generator.random(2) * (SHAPE[0] - 1, SHAPE[1] - 1)
                center = {"Nuclei_Location_Center_X": column, "Nuclei_Location_Center_Y": row}
                cells.append({**place, "Metadata_Site": site, "Extra": cell, **center})
            files = {f"FileName_Orig{c}": f"{key}_{c}.tif" for c in CHANNELS}
            paths = {f"PathName_Orig{c}": "images" for c in CHANNELS}
            load.append({**place, "Metadata_Site": f"0{site}", **files, **paths})
            if tiff:
                for c, channel in enumerate(CHANNELS):
                    tifffile.imwrite(root / "images" / f"{key}_{channel}.tif", image[..., c])
            else:
                np.savez_compressed(root / "views" / f"{key}.npz", sample=image)
    write_table(root / "sample-index.csv", index)
    write_table(root / "cells.csv", cells)
    write_table(root / "profiles.csv", profiles)
    if tiff:
        write_table(root / "load_data.csv", load)
    return labels, images


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A release that nobody changes, with its labels and images."""
    root = tmp_path_factory.mktemp("pristine") / "release"
    return root, *write_release(root)


@pytest.fixture
def release(pristine, tmp_path):
    """A copy of the release, to be damaged."""
    shutil.copytree(pristine[0], tmp_path / "release")
    return tmp_path / "release"


def build(root, data_dir, **options):
    builder = cell_painting.Builder(source=root, data_dir=data_dir, **options)
    builder.download_and_prepare()
    return tfds.builder_from_directory(str(builder.data_path))


def read(builder):
    """All examples by id, and the split of each."""
    found, split_of = {}, {}
    for split in builder.info.splits:
        source = builder.as_data_source(split)
        for i in range(len(source)):
            example = {k: v.decode() if isinstance(v, bytes) else v for k, v in source[i].items()}
            assert example["id"] not in found
            found[example["id"]], split_of[example["id"]] = example, split
    return found, split_of


def dense(example, tasks=5):
    row = np.zeros(tasks, int)
    row[example["label_positions"]] = example["label_values"]
    return row


@pytest.mark.parametrize("tiff", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_views_come_back_as_they_were(dtype, tiff, tmp_path):
    labels, images = write_release(tmp_path / "release", dtype=dtype, tiff=tiff)
    builder = build(tmp_path / "release", tmp_path / "data")
    found, split_of = read(builder)
    assert found.keys() == {key for key in images if not key.startswith("P2-B12")}  # the one without labels
    cells = read_table(tmp_path / "release" / "cells.csv")
    for key, example in found.items():
        plate, well, site = key.split("-")
        compound = int(well[1:]) - 1
        np.testing.assert_array_equal(example["image"], images[key])
        assert example["image"].dtype == dtype
        assert (example["plate"], example["well"], example["site"]) == (plate, well, site)
        assert example["compound"] == inchikey(compound)
        assert dense(example).tolist() == labels[compound].tolist()
        inside = [c for c in cells if c["Metadata_Well"].upper() == well and c["Metadata_Site"] == site]
        assert example["cell_count"] == len(inside)
    metadata = builder.info.metadata
    assert metadata["tasks"] == ["11", "22", "22 (2)", "33", "44"]
    assert metadata["assay_ids"] == ["11", "22", "22", "33", "44"]
    assert metadata["channels"] == list(CHANNELS)
    assert metadata["simulated"] is False
    note = {"number": 2, "such as": ["P2-B12-1", "P2-B12-2"]}
    assert metadata["left_out"]["views of compounds without labels"] == note
    for split, count in metadata["counts"].items():
        compounds = {int(found[key]["well"][1:]) - 1 for key in found if split_of[key] == split}
        assert count == {
            "examples": 2 * len(compounds),
            "wells": len(compounds),
            "compounds": len(compounds),
            "active": int((labels[list(compounds)] == 1).sum()),
            "inactive": int((labels[list(compounds)] == -1).sum()),
        }


def test_cells_are_crops_of_real_pixels_around_every_centre(pristine, tmp_path):
    root, _, images = pristine
    builder = build(root, tmp_path, config="cells", crop_size=15)
    found, _ = read(builder)
    numbers, wanted = {}, {}
    for cell in read_table(root / "cells.csv"):
        key = f"{cell['Metadata_Plate']}-{cell['Metadata_Well'].upper()}-{cell['Metadata_Site']}"
        numbers[key] = numbers.get(key, -1) + 1
        place = [float(cell[f"Nuclei_Location_Center_{axis}"]) for axis in "YX"]
        corner = [
            min(max(int(np.floor(c + 0.5)) - 7, 0), n - 15) for c, n in zip(place, SHAPE[:2], strict=True)
        ]
        crop = images[key][corner[0] : corner[0] + 15, corner[1] : corner[1] + 15]
        if not key.startswith("P2-B12"):
            wanted[f"{key}-{numbers[key]:04d}"] = crop
    assert found.keys() == wanted.keys()
    for key, crop in wanted.items():
        np.testing.assert_array_equal(found[key]["image"], crop)
        assert found[key]["cell_count"] == numbers[key[:-5]] + 1
    assert builder.info.metadata["left_out"]["views without cells"]["number"] == 4


def test_windows_are_centred_or_moved_inside():
    centers = np.array([[50, 60], [0, 0], [99, 199], [47.4, 47.5], [48, 48.5]])
    corners = examples.crop_corners(centers, (100, 200), 96)
    assert corners.tolist() == [[2, 12], [0, 0], [4, 104], [0, 0], [0, 1]]


def test_profiles_keep_features_and_wells(pristine, tmp_path):
    root, labels, _ = pristine
    builder = build(root, tmp_path, config="profiles")
    found, _ = read(builder)
    assert sorted(found) == sorted(f"{('P1', 'P2')[i % 2]}-B{i + 1:02d}" for i in range(11))
    for key, example in found.items():
        compound = int(key[-2:]) - 1
        assert example["profile"].tolist() == [compound + 0.25, -compound, compound]
        assert example["site"] == ""
        assert dense(example).tolist() == labels[compound].tolist()
        assert example["cell_count"] == 2 * (compound % 3) + 1
    assert builder.info.metadata["channels"] == ["Area", "Round", "Odd"]
    left_out = builder.info.metadata["left_out"]["profiles of wells that the index does not have"]
    assert left_out == {"number": 1, "such as": ["P2-B12"]}


def test_all_configs_and_layouts_have_one_split_of_compounds(pristine, release, tmp_path):
    root = pristine[0]
    change(release / "sample-index.csv", lambda rows: rows[::-1])
    compounds = []
    cells = {"config": "cells", "crop_size": 8}
    for source, options in ((root, {}), (root, cells), (release, {"config": "profiles"})):
        found, split_of = read(build(source, tmp_path, **options))
        compounds.append({found[key]["compound"]: split_of[key] for key in found})
    assert compounds[0] == compounds[2]
    assert compounds[1].items() <= compounds[0].items()
    assert sorted(compounds[0].values()) == ["test"] * 2 + ["train"] * 8 + ["validation"]
    other = build(root, tmp_path / "other", config="profiles", split_seed=1)
    found, split_of = read(other)
    assert {found[key]["compound"]: split_of[key] for key in found} != compounds[0]


def test_scaffolds_stay_together(pristine, tmp_path):
    pytest.importorskip("rdkit")
    builder = build(pristine[0], tmp_path, config="profiles", split="scaffold")
    found, split_of = read(builder)
    rings = {}
    for key in found:
        smiles = SMILES[(int(key[-2:]) - 1) % len(SMILES)]
        ring = "benzene" if "c1ccccc1" in smiles else smiles
        rings.setdefault(ring, set()).add(split_of[key])
    assert len(rings) == 5
    assert all(len(parts) == 1 for parts in rings.values())
    assert rings["benzene"] == {"train"}
    assert "largest first" in builder.info.metadata["split"]["rule"]


@pytest.mark.parametrize("column", ["INCHIKEY", "SAMPLE_KEY"])
def test_given_splits(column, pristine, tmp_path):
    rows = read_table(pristine[0] / "sample-index.csv")
    parts = {"train": rows[:10], "validation": rows[10:14], "test": rows[14:20]}
    for part, members in parts.items():
        names = list(dict.fromkeys(row[column] for row in members))
        write_table(tmp_path / f"{part}.csv", [{column: name} for name in names])
    builder = build(pristine[0], tmp_path / "data", split=tmp_path)
    _, split_of = read(builder)
    assert split_of == {row["SAMPLE_KEY"]: part for part, members in parts.items() for row in members}
    note = builder.info.metadata["left_out"]["views that no file of the split lists"]
    assert note == {"number": 2, "such as": ["P1-B11-1", "P1-B11-2"]}
    shared = read_table(tmp_path / "test.csv") + [{column: rows[1][column]}]
    write_table(tmp_path / "test.csv", shared)
    with pytest.raises(ValueError, match=f"{column}s stand in 'test'"):
        cell_painting.Builder(source=pristine[0], split=tmp_path)


def test_views_of_one_compound_in_two_parts_are_refused(pristine, tmp_path):
    rows = [row["SAMPLE_KEY"] for row in read_table(pristine[0] / "sample-index.csv")]
    for part, keys in {"train": rows[0:3], "validation": rows[3:5], "test": rows[6:8]}.items():
        write_table(tmp_path / f"{part}.csv", [{"SAMPLE_KEY": key} for key in keys])
    with pytest.raises(ValueError, match="1 compounds stand in 'validation' and in another part"):
        cell_painting.Builder(source=pristine[0], split=tmp_path)


def set_cell(name, line, value):
    def edit(rows):
        rows[line - 2][name] = value

    return edit


INDEX_DAMAGE = {
    "key twice": (set_cell("SAMPLE_KEY", 5, "P1-B01-1"), "line 5: SAMPLE_KEY P1-B01-1 is on line 2 already"),
    "row outside": (set_cell("ROW_NR_LABEL_MAT", 4, "12"), "line 4: ROW_NR_LABEL_MAT 12; .* rows 0 to 11"),
    "row is no number": (set_cell("ROW_NR_LABEL_MAT", 4, "x"), "line 4: ROW_NR_LABEL_MAT 'x' is not a row"),
    "other compound": (
        set_cell("INCHIKEY", 3, inchikey(4)),
        f"line 3: .* 0 is {inchikey(0)} .* {inchikey(4)}",
    ),
    "no InChIKey": (set_cell("INCHIKEY", 3, "BENZENE"), "line 3: INCHIKEY 'BENZENE' is not an InChIKey"),
    "place twice": (
        lambda rows: [{**row, "SITE": "1"} if i == 1 else row for i, row in enumerate(rows)],
        "line 3: plate, well and site .* is on line 2 already",
    ),
    "two compounds": (
        lambda rows: [
            {**row, "ROW_NR_LABEL_MAT": "", "INCHIKEY": inchikey(3)} if i == 1 else row
            for i, row in enumerate(rows)
        ],
        "line 3: well P1-B01 has .*, but on line 2 .*; a well holds one compound",
    ),
    "empty": (set_cell("PLATE_ID", 6, ""), "line 6: PLATE_ID is empty"),
    "no column": (
        lambda rows: [{k: v for k, v in row.items() if k != "SITE"} for row in rows],
        "column SITE missing",
    ),
}


@pytest.mark.parametrize("kind", INDEX_DAMAGE)
def test_damaged_index_is_named(kind, release):
    edit, message = INDEX_DAMAGE[kind]
    change(release / "sample-index.csv", edit)
    with pytest.raises(ValueError, match=message):
        cell_painting.Builder(source=release)


def test_compounds_are_found_by_row_key_or_smiles(release, tmp_path):
    chemistry = pytest.importorskip("coos.data.chemistry")
    pytest.importorskip("rdkit")
    keys = chemistry.inchikeys(SMILES)
    matrix = label_matrix.read(release / "labels")
    named = [*keys, *matrix.compounds[8:]]
    label_matrix.write(
        release / "labels",
        label_matrix.from_entries(
            matrix.rows, matrix.columns, matrix.values, compounds=named, assays=matrix.assays
        ),
    )

    def edit(rows):
        for row in rows:
            number = int(row["ROW_NR_LABEL_MAT"])
            row["INCHIKEY"] = named[number] if number % 3 == 1 else ""
            row["ROW_NR_LABEL_MAT"] = f"{number}.0" if number % 3 == 2 or number >= 8 else ""
        rows[0]["SMILES"] = "C1CC"
        rows[2]["INCHIKEY"] = inchikey(77)
        rows[4] |= {"ROW_NR_LABEL_MAT": "", "SMILES": ""}

    change(release / "sample-index.csv", edit)
    builder = build(release, tmp_path, split_fractions=(0.5, 0.25, 0.25))
    found, _ = read(builder)
    for key, example in found.items():
        assert example["compound"] == named[int(key[4:6]) - 1]
    assert len(found) == 22 - 3
    assert {reason: note["such as"] for reason, note in builder.info.metadata["left_out"].items()} == {
        "views of compounds without labels": ["P2-B12-1", "P2-B12-2"],
        "views whose SMILES has no InChIKey": ["P1-B01-1"],
        "views of compounds that are not in the label matrix": ["P2-B02-1"],
        "views without a compound": ["P1-B03-1"],
        "places with cells but without a view": ["P2-B02-1", "P1-B03-1", "P2-B12-1", "P2-B12-2"],
    }


class Evil:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("evil"),))


def save(**arrays):
    return lambda path: np.savez(path, **arrays)


FILE_DAMAGE = {
    "gone": (lambda path: path.unlink(), r"1 of 22 image files are missing: .*P1-B03-1\.npz"),
    "size": (
        save(sample=np.zeros((40, 51, 5), np.uint16)),
        r"P1-B03-1\.npz: the view is \(40, 51, 5\); the first",
    ),
    "dtype": (
        save(sample=np.zeros(SHAPE, np.uint8)),
        r"P1-B03-1\.npz: the view is uint8; the first one is uint16",
    ),
    "array": (
        save(image=np.zeros(SHAPE, np.uint16)),
        r"P1-B03-1\.npz: cannot be read as \.npz with an array 'sample'",
    ),
    "flat": (save(sample=np.zeros((4, 5), np.uint16)), r"P1-B03-1\.npz: 'sample' is \(4, 5\)"),
    "pickle": (save(sample=np.array([Evil()], object)), r"P1-B03-1\.npz: cannot be read .*allow_pickle"),
    "bare pickle": (lambda path: path.write_bytes(pickle.dumps(Evil())), r"P1-B03-1\.npz: cannot be read"),
    "no zip": (lambda path: path.write_bytes(b"PK\3\4nothing"), r"P1-B03-1\.npz: cannot be read"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:4000]), r"P1-B03-1\.npz: cannot be read"),
    "bits": (
        lambda path: path.write_bytes(path.read_bytes()[:3000] + bytes(40) + path.read_bytes()[3040:]),
        r"P1-B03-1\.npz: cannot be read",
    ),
}


@pytest.mark.parametrize("kind", FILE_DAMAGE)
def test_damaged_view_is_named_and_no_dataset_remains(kind, release, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    damage, message = FILE_DAMAGE[kind]
    damage(release / "views" / "P1-B03-1.npz")
    with pytest.raises(ValueError, match=message):
        build(release, tmp_path / "data")
    assert not (tmp_path / "data" / "cell_painting" / "views" / "1.0.0").exists()
    assert not (tmp_path / "evil").exists()
    if kind == "gone":  # noticed before anything is written
        assert not (tmp_path / "data" / "cell_painting").exists()


def test_tiff_files_may_be_lzw_or_of_another_place_but_not_of_another_kind(tmp_path):
    _, images = write_release(tmp_path / "release", tiff=True)
    root = tmp_path / "release"
    for path in (root / "images").glob("*Mito.tif"):
        PIL.Image.fromarray(tifffile.imread(path)).save(path, compression="tiff_lzw")
    (root / "images").rename(tmp_path / "elsewhere")

    def move(rows):
        for row in rows:
            row |= {f"PathName_Orig{channel}": str(tmp_path / "elsewhere") for channel in CHANNELS}

    change(root / "load_data.csv", move)
    builder = build(root, tmp_path / "data", channels=("Hoechst", "Mito"))
    found, _ = read(builder)
    for key, example in found.items():
        np.testing.assert_array_equal(example["image"], images[key][..., [4, 0]])
    tifffile.imwrite(tmp_path / "elsewhere" / "P1-B05-1_Ph_golgi.tif", np.zeros(SHAPE[:2], np.uint8))
    with pytest.raises(
        ValueError, match=r"P1-B05-1_Ph_golgi\.tif: is uint8 \(40, 52\); P1-B05-1_Mito\.tif is uint16"
    ):
        build(root, tmp_path / "other")
    for channel in CHANNELS[:3]:
        (tmp_path / "elsewhere" / f"P2-B06-2_{channel}.tif").unlink()
    with pytest.raises(ValueError, match=r"3 of 110 image files are missing: .*P2-B06-2_Mito\.tif, "):
        build(root, tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"load_data\.csv: no column FileName_OrigDNA; channels there are OrigMito"
    ):
        cell_painting.Builder(source=root, channels=("Mito", "DNA"))
    change(root / "load_data.csv", lambda rows: rows[:2] + rows[4:])
    with pytest.raises(
        ValueError, match=r"load_data\.csv: 2 views of the index have no row: P2-B02-1, P2-B02-2"
    ):
        cell_painting.Builder(source=root)


def test_damaged_tables_beside_the_index_are_named(release):
    change(release / "profiles.csv", set_cell("Round", 4, "nan"))
    change(release / "profiles.csv", set_cell("Odd", 5, "inf"))
    with pytest.raises(
        ValueError, match=r"profiles\.csv: 2 features have values that are not finite: Round, Odd"
    ):
        cell_painting.Builder(source=release, config="profiles")
    builder = cell_painting.Builder(source=release, config="profiles", drop_nonfinite_features=True)
    assert builder.info.features["profile"].shape == (1,)
    assert builder.recipe["dropped_features"] == ["Round", "Odd"]
    change(release / "profiles.csv", lambda rows: rows + rows[:1])
    with pytest.raises(ValueError, match="line 14: well P1-B01 is on line 2 already"):
        cell_painting.Builder(source=release, config="profiles")
    (release / "profiles.csv").unlink()
    with pytest.raises(ValueError, match=r"profiles\.csv: missing; give the table with profiles=FILE"):
        cell_painting.Builder(source=release, config="profiles")
    with pytest.raises(ValueError, match="crop_size=41: views have 40 x 52 pixels"):
        cell_painting.Builder(source=release, config="cells", crop_size=41)
    change(release / "cells.csv", set_cell("Nuclei_Location_Center_Y", 3, "40.1"))
    with pytest.raises(ValueError, match=r"1 cells lie outside their view of \(40, 52\) pixels"):
        cell_painting.Builder(source=release, config="cells", crop_size=8)
    change(release / "cells.csv", set_cell("Nuclei_Location_Center_Y", 3, ""))
    with pytest.raises(ValueError, match=r"cells\.csv, row 2: .*nan.*; cells need finite"):
        cell_painting.Builder(source=release)
    change(release / "cells.csv", lambda rows: [{**row, "Metadata_Plate": "other"} for row in rows])
    change(release / "cells.csv", set_cell("Nuclei_Location_Center_Y", 3, "1"))
    with pytest.raises(ValueError, match=r"none of its .* cells is in a view of the index"):
        cell_painting.Builder(source=release)
    (release / "cells.csv").unlink()
    builder = cell_painting.Builder(source=release, data_dir=release / "data")
    assert next(builder.shard_plan()[1]("train", 0))["cell_count"] == -1
    with pytest.raises(ValueError, match="'crops': choose one of"):
        cell_painting.Builder(source=release, config="crops")
    with pytest.raises(ValueError, match="'nowhere' is no folder"):
        cell_painting.Builder(source="nowhere")
    with pytest.raises(ValueError, match="split='stratified': neither random nor scaffold, nor a folder"):
        cell_painting.Builder(source=release, split="stratified")
    with pytest.raises(ValueError, match=r"fractions .* must be positive and add up to 1"):
        cell_painting.Builder(source=release, split_fractions=(0.7, 0.1, 0.1))


@pytest.fixture
def run_build():
    """experiments/build.py as a function of its flags."""
    with loaded("build.py") as module:

        def run(options):
            with flagsaver.flagsaver(**options):
                module.main(["build.py", "cell_painting"])

        yield run


def test_the_command_builds_in_parts_reuses_refuses_and_overwrites(run_build, pristine, tmp_path, capsys):
    options = {"source": str(pristine[0]), "data_dir": str(tmp_path), "num_shards": 4}
    run_build(options | {"worker": 1, "num_workers": 2})
    assert (
        "3 shards are still missing, such as cell_painting-train.array_record-00000"
        in capsys.readouterr().out
    )
    with pytest.raises(
        SystemExit, match=r"an unfinished build of something else \(recipe\.split\.seed: 0 there, 5 now"
    ):
        run_build(options | {"split_seed": 5})
    run_build(options | {"worker": 0, "num_workers": 2})
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert lines[1] == ["train", "validation", "test"]
    assert ["examples", "16", "2", "4"] in lines
    assert ["compounds", "8", "1", "2"] in lines
    assert "images (40, 52, 5) uint16; 5 tasks" in printed
    assert "NOTE left out: 2 views of compounds without labels, such as P2-B12-1, P2-B12-2" in printed
    path = pathlib.Path(lines[-1][0])
    counts = json.loads((path / "metadata.json").read_text())["counts"]["train"]
    density = (counts["active"] + counts["inactive"]) / (counts["compounds"] * 5)
    assert f"{density:.3%}" == next(line for line in lines if line[0] == "density")[1]
    times = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    run_build(options)
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == times
    with pytest.raises(
        SystemExit, match=r"already built, but from something else \(split: .*'seed': 0.*'seed': 5"
    ):
        run_build(options | {"split_seed": 5})
    with pytest.raises(SystemExit, match="--overwrite is for one worker"):
        run_build(options | {"overwrite": True, "num_workers": 2})
    run_build(options | {"split_seed": 5, "overwrite": True})
    metadata = json.loads((path / "metadata.json").read_text())
    assert metadata["recipe"]["split"]["seed"] == metadata["split"]["seed"] == 5
    assert [entry.name for entry in path.parent.iterdir()] == ["1.0.0"]
    with pytest.raises(SystemExit, match="--mirror: cell_painting does not have this option"):
        run_build(options | {"mirror": "http://127.0.0.1"})


def test_tables_that_a_dataset_is_not_made_of_may_change(run_build, release, tmp_path):
    options = {"source": str(release), "data_dir": str(tmp_path), "num_shards": 4}
    run_build(options | {"worker": 1, "num_workers": 2})
    for name, stays in (("profiles.csv", True), ("labels/label-matrix.mtx", False)):
        before = (release / name).stat()
        os.utime(release / name, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
        if stays:
            run_build(options | {"worker": 0, "num_workers": 2})
        else:
            with pytest.raises(SystemExit, match=r"already built, but from something else \(tables"):
                run_build(options)


def test_records_are_read_without_decoding_them(pristine, tmp_path):
    builder = build(pristine[0], tmp_path)
    source = builder.as_data_source("train")
    rows = [3, 0, 3, 7]
    for pool in (None, concurrent.futures.ThreadPoolExecutor(2)):
        images = records.read_images(
            source.data_source, rows, name="image", shape=SHAPE, dtype=np.uint16, pool=pool
        )
        np.testing.assert_array_equal(images, [source[row]["image"] for row in rows])
    with pytest.raises(ValueError, match="a record has no feature 'picture'"):
        records.bytes_feature(source.data_source[0], "picture")
    with pytest.raises(ValueError, match="record 3: 'image' has 20800 bytes, not 10400"):
        records.read_images(source.data_source, rows, name="image", shape=SHAPE, dtype=np.uint8)


def test_real_labels_stand_at_the_right_compound_and_task(real_data, tmp_path):
    """Every entry of the published matrix, five repeated assay IDs included, read off the files line by line."""
    folder = real_data / "chembl_labels"
    compounds = [row["INCHIKEY"] for row in read_table(folder / "row-compound-index.csv")]
    lines = (folder / "label-matrix.mtx").read_text().splitlines()[3:]
    entries = {(int(r) - 1, int(c) - 1): int(v) for r, c, v in (line.split() for line in lines)}
    index, profiles = [], []
    for number, key in enumerate(compounds):
        plate, well = str(24000 + number // 384), f"{chr(65 + number % 384 // 24)}{number % 24 + 1:02d}"
        known = {"SAMPLE_KEY": f"{plate}-{well}-1", "PLATE_ID": plate, "WELL_POSITION": well, "SITE": 1}
        index.append(
            known
            | ({"INCHIKEY": key, "ROW_NR_LABEL_MAT": ""}, {"INCHIKEY": "", "ROW_NR_LABEL_MAT": number})[
                number % 2
            ]
        )
        profiles.append({"Metadata_Plate": plate, "Metadata_Well": well, "a": number, "b": 0.5, "c": -1})
    write_table(tmp_path / "sample-index.csv", index)
    write_table(tmp_path / "profiles.csv", profiles)
    builder = build(tmp_path, tmp_path / "data", labels=folder, config="profiles")
    found, _ = read(builder)
    assert len(found) == 10574
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == {
        "train": 7402,
        "validation": 1057,
        "test": 2115,
    }
    row_of, stored = {key: row for row, key in enumerate(compounds)}, {}
    for example in found.values():
        row = row_of[example["compound"]]
        assert example["profile"][0] == row
        for column, value in zip(example["label_positions"], example["label_values"], strict=True):
            stored[row, int(column)] = int(value)
    assert len(entries) == 55542
    assert stored == entries
    metadata = builder.info.metadata
    assert round(100 * len(stored) / (10574 * len(metadata["tasks"])), 3) == 2.513
    ids = [row["ASSAY_ID"] for row in read_table(folder / "column-assay-index.csv")]
    assert metadata["assay_ids"] == ids
    assert sum(ids.count(one) > 1 for one in set(ids)) == 5
    assert len(set(metadata["tasks"])) == 209


def test_real_pixels_pass_through_the_builder_and_gapnet(real_data, tmp_path):
    """One field of Bray et al. 2017 as three views, in the channel order of the study."""
    write_labels(tmp_path / "labels")
    field, index, load = real_data / "bray_field", [], []
    for number, plate in enumerate(("24277", "24278", "24279")):
        known = {"SAMPLE_KEY": f"{plate}-A01-3", "PLATE_ID": plate, "WELL_POSITION": "A01", "SITE": "3"}
        index.append({**known, "INCHIKEY": inchikey(number)})
        files = {f"FileName_Orig{channel}": f"{channel}.tif" for channel in sorted(CHANNELS)}
        paths = {f"PathName_Orig{channel}": str(field) for channel in CHANNELS}
        load.append({"Metadata_Plate": plate, "Metadata_Well": "a01", "Metadata_Site": 3, **files, **paths})
    write_table(tmp_path / "sample-index.csv", index)
    write_table(tmp_path / "load_data.csv", load)
    builder = build(tmp_path, tmp_path / "data", split_fractions=(0.34, 0.33, 0.33))
    found, _ = read(builder)
    wanted = [
        tifffile.imread(field / f"{name}.tif")
        for name in ("Mito", "ERSyto", "ERSytoBleed", "Ph_golgi", "Hoechst")
    ]
    for example in found.values():
        assert example["image"].shape == (520, 696, 5)
        assert example["image"].dtype == np.uint16
        for channel, plane in enumerate(wanted):
            np.testing.assert_array_equal(example["image"][..., channel], plane)
    source = sources.load(builder.data_path, "test")
    assert source.channels[4] == "Hoechst"
    learner = multitask.make(gapnet.get_config(), source.dataset, {})
    pixels = np.stack(wanted, -1).astype(np.float64)
    expected = (pixels - pixels.mean((0, 1))) / pixels.std((0, 1), ddof=1)
    raw = source.gather(np.array([0]))
    np.testing.assert_allclose(learner.prepare(raw)[0], expected, atol=1e-3)
    variables = learner.init(jax.random.key(0, impl="unsafe_rbg"))
    probabilities = jax.jit(learner.predict)(variables, {"image": raw})
    assert probabilities.shape == (1, len(source.dataset["tasks"]))
    assert np.isfinite(probabilities).all()


def one_of_the_last_shards(release, folder):
    """The dataset of the whole release, and a view that is written after others."""
    whole = build(release, folder, num_shards=20)
    parts = read(whole)[1]
    return whole, release / "views" / f"{next(key for key, part in parts.items() if part == 'test')}.npz"


def test_a_mended_file_costs_its_shard_alone(release, tmp_path):
    """What was written of the other files stays."""
    whole, path = one_of_the_last_shards(release, tmp_path / "whole")
    good, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=path.name):
        build(release, tmp_path / "data", num_shards=20)
    (folder,) = (tmp_path / "data").rglob("*.building")
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.array_record-*")}
    assert before
    path.write_bytes(good)
    os.utime(path, ns=times)
    mended = build(release, tmp_path / "data", num_shards=20)
    after = {path.name: path.stat().st_mtime_ns for path in pathlib.Path(mended.data_path).iterdir()}
    assert all(after[name] == time for name, time in before.items())
    assert mended.info.metadata["digests"] == whole.info.metadata["digests"]
    assert mended.info.metadata["recipe"] == whole.info.metadata["recipe"]


def test_a_shard_of_a_file_that_changed_is_written_again(release, tmp_path):
    _, path = one_of_the_last_shards(release, tmp_path / "whole")
    good = path.read_bytes()
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=path.name):
        build(release, tmp_path / "data", num_shards=20)
    path.write_bytes(good)
    for other in (release / "views").iterdir():
        with np.load(other) as arrays:
            pixels = arrays["sample"]
        np.savez(other, sample=pixels + np.uint16(1))
    found, _ = read(build(release, tmp_path / "data", num_shards=20))
    for key, example in found.items():
        with np.load(release / "views" / f"{key}.npz") as arrays:
            np.testing.assert_array_equal(example["image"], arrays["sample"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "views", "crop_size": 48}, "crop_size=48: config 'views' has no crops"),
        ({"config": "cells", "drop_nonfinite_features": True}, "config 'cells' has no features"),
        ({"config": "views", "profiles": "mine.csv"}, "profiles=mine.csv: config 'views' has no features"),
        ({"config": "profiles", "channels": ("a", "b")}, "channels=a,b: config 'profiles' has no images"),
    ],
)
def test_options_of_another_config_are_refused(pristine, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build(pristine[0], tmp_path, **options)
