"""The builder of plates: pixels of every cell, what is known of its well, shards by plate, kills, every damage."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import PIL.Image
import polars as pl
import pytest
import tensorflow_datasets as tfds
from run_scripts import REPOSITORY, call_script, command, environment

from coos.data import crops, plate_files, plate_problems
from tfds_builders import lincs

SHAPE, SIZE = (30, 44), 9
PLATES = {"PA1": ("MAP1", "1"), "PA2": ("MAP1", "1"), "PB10": ("MAP2", "2")}
WELLS = {"A01": ("", ""), "A02": ("BRD-one", "10"), "B03": ("BRD-two", "3.33")}
SITES = ("1", "2")


def field(plate, well, site):
    seed = [list(PLATES).index(plate), list(WELLS).index(well), int(site)]
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, 5)).astype(np.uint8)


def centers_of(plate, well, site):
    """Some cells (n, 2) as (y, x), the first two of which are in corners."""
    seed = [7, list(PLATES).index(plate), list(WELLS).index(well), int(site)]
    generator = np.random.default_rng(seed)
    inner = generator.random((generator.integers(1, 5), 2)) * (np.array(SHAPE) - 1)
    return np.concatenate([[[0.2, 1.7], [SHAPE[0] - 0.6, SHAPE[1] - 0.5]], inner])


def locations(root, plate, well, site):
    return root / "inputs" / "locations" / plate / f"{well}-{site}-Nuclei.csv"


def image(root, plate, well, site, channel):
    row, column = ord(well[0]) - 64, int(well[1:])
    name = f"r{row:02}c{column:02}f{int(site):02}p01-ch{channel}sk1fk1fl1.png"
    return root / "inputs" / "images" / plate / name


def write_centers(path, centers):
    lines = [f"{x},{y}" for y, x in centers.tolist()]
    path.write_text("\n".join(["Nuclei_Location_Center_X,Nuclei_Location_Center_Y", *lines]) + "\n")


def write_table(path, rows, *, delimiter="\t"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_metadata(folder):
    barcodes = [
        {"Assay_Plate_Barcode": plate, "Plate_Map_Name": name, "Batch_Number": batch}
        for plate, (name, batch) in PLATES.items()
    ]
    write_table(folder / "barcode_platemap.csv", barcodes, delimiter=",")
    for name in ("MAP1", "MAP2"):
        wells = [
            {"plate_map_name": name, "well_position": well, "broad_sample": sample, "mmoles_per_liter": dose}
            | {"solvent": "DMSO"}
            for well, (sample, dose) in WELLS.items()
        ]
        write_table(folder / "platemap" / f"{name}.txt", wells)
    known = [{"broad_sample": "BRD-one", "pert_iname": "one", "moa": "inhibitor", "target": "X"}]
    write_table(folder / "repurposing_info_external_moa_map_resolved.tsv", known)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """Three plates in two batches, three wells each, with two sites."""
    root = tmp_path_factory.mktemp("plates") / "release"
    for plate in PLATES:
        for well in WELLS:
            for site in SITES:
                pixels, path = field(plate, well, site), locations(root, plate, well, site)
                for channel in range(5):
                    file = image(root, plate, well, site, channel + 1)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    PIL.Image.fromarray(pixels[..., channel]).save(file)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_centers(path, centers_of(plate, well, site))
    write_metadata(root / "metadata")
    return root


@pytest.fixture
def release(pristine, tmp_path):
    """A copy of it, to be damaged."""
    shutil.copytree(pristine, tmp_path / "release")
    return tmp_path / "release"


def build(root, data_dir, **options):
    builder = lincs.Builder(source=root, data_dir=data_dir, **{"crop_size": SIZE, **options})
    builder.download_and_prepare()
    assert builder.missing_shards == []
    return tfds.builder_from_directory(str(builder.data_path))


def read(builder):
    """All examples by id."""
    (split,) = builder.info.splits
    source, found = builder.as_data_source(split), {}
    for i in range(len(source)):
        example = {k: v.decode() if isinstance(v, bytes) else v for k, v in source[i].items()}
        assert example["id"] not in found
        found[example["id"]] = example
    return found


def everything():
    """Every place, in order."""
    return [(plate, well, site) for plate in PLATES for well in WELLS for site in SITES]


def plain_cut(pixels, center, size):
    """One window, pixel by pixel."""
    crop = np.zeros((size, size, pixels.shape[2]), pixels.dtype)
    top, left = (int(np.floor(c + 0.5)) - size // 2 for c in center)
    for y in range(size):
        for x in range(size):
            if 0 <= top + y < pixels.shape[0] and 0 <= left + x < pixels.shape[1]:
                crop[y, x] = pixels[top + y, left + x]
    return crop


def shards_of(builder):
    return {path.name: path.read_bytes() for path in pathlib.Path(builder.data_path).glob("*.array_record-*")}


def listed(builder):
    text = pathlib.Path(builder.data_path, "problems.csv").read_text()
    return [tuple(row.values()) for row in csv.DictReader(text.splitlines())]


def places_of(builder):
    return pl.read_parquet(pathlib.Path(builder.data_path, "places.parquet"))


def test_every_cell_is_there_with_its_pixels_and_what_is_known_of_its_well(pristine, tmp_path):
    builder = build(pristine, tmp_path)
    found, places = read(builder), places_of(builder)
    total = 0
    for place, (plate, well, site) in enumerate(everything()):
        centers = centers_of(plate, well, site)
        total += len(centers)
        for cell, center in enumerate(centers):
            example = found[f"{plate}-{well}-{site}-{cell:04d}"]
            assert (example["plate"], example["well"], example["site"]) == (plate, well, site)
            assert (example["place"], example["cell"]) == (place, cell)
            assert example["compound"] == (WELLS[well][0] or "DMSO")
            assert example["center"].tolist() == center.tolist()
            np.testing.assert_array_equal(example["image"], plain_cut(field(plate, well, site), center, SIZE))
        row = places.row(place, named=True)
        assert (row["Metadata_Plate"], row["Metadata_Well"], row["Metadata_Site"]) == (plate, well, site)
        assert row["Metadata_cell_count"] == len(centers)
        assert (row["Metadata_Plate_Map_Name"], str(row["Metadata_Batch_Number"])) == PLATES[plate]
        assert row["Metadata_dose_level"] == {"A01": None, "A02": 6, "B03": 5}[well]
        assert row["Metadata_moa"] == ("inhibitor" if well == "A02" else None)
    assert len(found) == total
    assert len(places) == 18
    assert places["Metadata_cell_count"].dtype == pl.Int64
    metadata = builder.info.metadata
    assert metadata["counts"] == {"fields": 18, "cells": total, "wells": 9, "plates": 3}
    assert metadata["channels"] == ["DNA", "ER", "RNA", "AGP", "Mito"]
    assert (metadata["form"], metadata["window"], metadata["crop_size"]) == ("crops", "exact", SIZE)
    assert (metadata["simulated"], metadata["problems"]) == (False, {})
    assert listed(builder) == []


def test_fields_hold_the_same_cells_as_crops(pristine, tmp_path):
    cells = read(build(pristine, tmp_path))
    builder = build(pristine, tmp_path, config="fields")
    fields, number = read(builder), 0
    assert list(builder.info.splits) == ["fields"]
    assert fields.keys() == {"-".join(place) for place in everything()}
    for key, example in fields.items():
        np.testing.assert_array_equal(example["image"], field(*key.split("-")))
        assert example["cells"].dtype == np.int32
        for cell, center in zip(example["cells"], example["centers"], strict=True):
            same = cells[f"{key}-{cell:04d}"]
            number += 1
            assert center.tolist() == same["center"].tolist()
            for name in ("place", "compound", "plate", "well", "site"):
                assert same[name] == example[name]
            np.testing.assert_array_equal(same["image"], plain_cut(example["image"], center, SIZE))
    assert number == len(cells)
    assert builder.info.metadata["form"] == "fields"


def test_deepprofilers_window_is_resampled_and_stored_as_bytes(pristine, tmp_path):
    builder = build(pristine, tmp_path, window="deepprofiler", plates=["PA2"])
    found = read(builder)
    assert {example["plate"] for example in found.values()} == {"PA2"}
    assert builder.info.metadata["counts"]["plates"] == 1
    place = ("PA2", "A02", "1")
    wanted = crops.to_deepprofiler_bytes(crops.resample(field(*place), centers_of(*place), SIZE))
    for cell, crop in enumerate(wanted):
        example = found[f"PA2-A02-1-{cell:04d}"]
        assert example["place"] == 2  # of the places of this plate
        np.testing.assert_array_equal(example["image"], crop)
        assert example["image"].dtype == np.uint8
        exact = plain_cut(field(*place), example["center"], SIZE)
        assert not np.array_equal(example["image"], exact)


def test_sixteen_bits_an_index_and_no_metadata(release, tmp_path):
    """Two channels by an index, whose further columns are kept; nothing is known of wells."""
    shutil.rmtree(release / "metadata")
    rows = []
    for plate, well, site in everything()[:4]:
        pixels = field(plate, well, site).astype(np.uint16) * 257
        files = {}
        for channel in (1, 3):
            path = image(release, plate, well, site, channel)
            PIL.Image.fromarray(pixels[..., channel - 1]).save(path)
            files[f"C{channel}"] = f"{plate}/{path.name}"
        rows.append(
            {
                "Metadata_Plate": plate,
                "Metadata_Well": well,
                "Metadata_Site": site,
                **files,
                "Metadata_Hue": "x",
            }
        )
    write_table(tmp_path / "index.csv", rows, delimiter=",")
    builder = build(release, tmp_path / "data", index=tmp_path / "index.csv", channels=["C3", "C1"])
    found = read(builder)
    for example in found.values():
        assert example["image"].dtype == np.uint16
        pixels = (
            field(example["plate"], example["well"], example["site"])[..., [2, 0]].astype(np.uint16) * 257
        )
        np.testing.assert_array_equal(example["image"], plain_cut(pixels, example["center"], SIZE))
        assert example["compound"] == ""
    assert places_of(builder).columns[3:] == ["Metadata_Hue", "Metadata_cell_count"]
    assert builder.info.metadata["channels"] == ["C3", "C1"]


def test_shards_processes_and_workers_change_nothing_but_the_files(pristine, tmp_path):
    one = build(pristine, tmp_path / "one", num_shards=5)
    digests = one.info.metadata["digests"]
    assert build(pristine, tmp_path / "two", num_shards=5, processes=2).info.metadata["digests"] == digests
    assert shards_of(build(pristine, tmp_path / "two", num_shards=5)) == shards_of(one)
    assert build(pristine, tmp_path / "more", num_shards=12).info.metadata["digests"] == digests
    assert build(pristine, tmp_path / "other", crop_size=8).info.metadata["digests"] != digests
    missing = []
    for worker in (1, 2, 0):
        builder = lincs.Builder(
            source=pristine,
            data_dir=tmp_path / "w",
            crop_size=SIZE,
            num_shards=5,
            worker=worker,
            num_workers=3,
        )
        builder.download_and_prepare()
        missing.append(len(builder.missing_shards))
        if worker == 1:
            names = {
                name: data for name, data in shards_of(one).items() if name not in builder.missing_shards
            }
            (folder,) = (tmp_path / "w").rglob("*.building")
            assert {path.name: path.read_bytes() for path in folder.glob("lincs-*")} == names
    assert missing[-1] == 0
    assert missing[0] > missing[1] > 0
    assert shards_of(builder) == shards_of(one)
    for name in ("places.parquet", "problems.csv"):
        made, wanted = pathlib.Path(builder.data_path, name), pathlib.Path(one.data_path, name)
        assert made.read_bytes() == wanted.read_bytes()


def test_no_shard_holds_cells_of_two_plates(pristine, tmp_path):
    builder = build(pristine, tmp_path, num_shards=5)
    source, start = builder.as_data_source("cells"), 0
    lengths = builder.info.splits["cells"].shard_lengths
    assert len(lengths) >= 5
    for length in lengths:
        plates = {source[i]["plate"] for i in range(start, start + length)}
        assert len(plates) == 1
        start += length


def test_a_worker_reads_images_of_its_own_plates_only(pristine, tmp_path, monkeypatch):
    seen, original = set(), plate_files.read_field

    def watched(sites, site):
        seen.add(sites.place(site)[0])
        return original(sites, site)

    builder = lincs.Builder(source=pristine, data_dir=tmp_path, crop_size=SIZE, worker=2, num_workers=3)
    monkeypatch.setattr(plate_files, "read_field", watched)
    builder.download_and_prepare()
    assert seen == {"PB10"}


# ------------------------------------------------------------------------------------------------- damage


def cut_short(path):
    path.write_bytes(path.read_bytes()[:300])


def other_size(path):
    PIL.Image.fromarray(np.zeros((SHAPE[0], SHAPE[1] - 1), np.uint8)).save(path)


def all_smaller(root):
    for channel in range(1, 6):
        other_size(image(root, "PA2", "A02", "1", channel))


def deeper(root):
    for channel in range(1, 6):
        path = image(root, "PA2", "A02", "1", channel)
        PIL.Image.fromarray(np.zeros(SHAPE, np.uint16)).save(path)


def one_outside(path):
    centers = centers_of("PA2", "A02", "1")
    centers[1] = [SHAPE[0], 3.0]
    write_centers(path, centers)


HERE = ("PA2", "A02", "1")
PLANNED = {  # found before anything is written: what to do, kind, cells that are lost (None: all of the field)
    "no image": (lambda root: image(root, *HERE, 3).unlink(), "missing channel", None),
    "no location file": (lambda root: locations(root, *HERE).unlink(), "no locations", None),
    "only a header": (
        lambda root: write_centers(locations(root, *HERE), np.zeros((0, 2))),
        "empty locations",
        None,
    ),
    "text": (lambda root: locations(root, *HERE).write_text("a,b\n1,2\n"), "damaged locations", None),
    "outside": (lambda root: one_outside(locations(root, *HERE)), "cell outside", [1]),
}
MET = {
    "cut short": (lambda root: cut_short(image(root, *HERE, 2)), "unreadable image"),
    "no image at all": (lambda root: image(root, *HERE, 5).write_bytes(b"hello"), "unreadable image"),
    "one channel smaller": (lambda root: other_size(image(root, *HERE, 4)), "image size"),
    "all smaller": (all_smaller, "image size"),
    "other dtype": (deeper, "image size"),
}


@pytest.mark.parametrize("kind", PLANNED)
def test_what_is_wrong_before_anything_is_written(kind, release, tmp_path):
    damage, problem, lost = PLANNED[kind]
    damage(release)
    with pytest.raises(ValueError, match=rf"1 problems \(1 {problem}: PA2-A02-1\).*--problems=list"):
        build(release, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    check_listed(release, tmp_path, problem, lost)


@pytest.mark.parametrize("kind", MET)
def test_what_is_wrong_with_an_image(kind, release, tmp_path):
    damage, problem = MET[kind]
    damage(release)
    with pytest.raises(ValueError, match=r"PA2-A02-1: .*r01c02f01p01-ch.*--problems=list"):
        build(release, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("1.0.0"))
    check_listed(release, tmp_path, problem, None)


def check_listed(release, tmp_path, problem, lost):
    """With problems="list" the rest is built, in both forms, and what is missing is said."""
    wanted = {
        f"{'-'.join(place)}-{cell:04d}"
        for place in everything()
        for cell in range(len(centers_of(*place)))
        if place != HERE or (lost is not None and cell not in lost)
    }
    builder = build(release, tmp_path / "data", problems="list")  # goes on where the other stopped?
    assert read(builder).keys() == wanted
    assert [row[:4] for row in listed(builder)] == [(*HERE, problem)]
    assert builder.info.metadata["problems"] == {problem: 1}
    assert builder.info.metadata["counts"]["cells"] == len(wanted)
    assert builder.info.metadata["counts"]["fields"] == (17 if lost is None else 18)
    count = places_of(builder)["Metadata_cell_count"].to_list()[8]
    left = len(centers_of(*HERE)) - len(lost or [])
    assert count == (left if lost else 0 if problem == "empty locations" else None)
    fields = read(build(release, tmp_path / "data", problems="list", config="fields"))
    cells = {f"{key}-{cell:04d}" for key, example in fields.items() for cell in example["cells"]}
    assert cells == wanted


def test_all_problems_are_counted_and_the_first_of_each_kind_named(release, tmp_path):
    for well in ("A02", "B03"):
        for site in SITES:
            locations(release, "PA1", well, site).unlink()
    for channel in (1, 2):
        image(release, "PB10", "A01", "2", channel).unlink()
    locations(release, "PB10", "A01", "2").write_text("x\n")
    with pytest.raises(ValueError, match="6 problems") as error:
        build(release, tmp_path / "data")
    message = str(error.value)
    assert (
        "1 missing channel: PB10-A01-2; 4 no locations: PA1-A02-1, PA1-A02-2, PA1-B03-1, PA1-B03-2;"
        in message
    )
    assert "1 damaged locations: PB10-A01-2)" in message
    builder = build(release, tmp_path / "data", problems="list")
    problems = {"missing channel": 1, "no locations": 4, "damaged locations": 1}
    assert builder.info.metadata["problems"] == problems
    assert [row[:3] for row in listed(builder)] == [
        *(("PA1", well, site) for well in ("A02", "B03") for site in SITES),
        *[("PB10", "A01", "2")] * 2,
    ]
    assert "DNA, ER" in listed(builder)[4][4]
    assert len({key[:-5] for key in read(builder)}) == 18 - 5


def test_the_first_readable_field_says_what_all_look_like(release, tmp_path):
    cut_short(image(release, "PA1", "A01", "1", 1))
    with pytest.raises(ValueError, match=r"PA1-A01-1: .*; mend it, .*--problems=list"):
        lincs.Builder(source=release)
    builder = build(release, tmp_path, problems="list")
    assert [row[:4] for row in listed(builder)] == [("PA1", "A01", "1", "unreadable image")]
    for path in (release / "inputs" / "images").rglob("*ch1*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="PB10-B03-2: "):
        lincs.Builder(source=release, problems="list")


def test_no_cells_at_all(release, tmp_path):
    for path in (release / "inputs" / "locations").rglob("*.csv"):
        write_centers(path, np.zeros((0, 2)))
    with pytest.raises(ValueError, match=r"no field of view has cells; .*'empty locations': 18"):
        build(release, tmp_path, problems="list")


def test_a_field_left_out_by_one_worker_is_not_slipped_into_a_strict_build(release, tmp_path):
    cut_short(image(release, *HERE, 2))
    options = {"source": release, "data_dir": tmp_path / "data", "crop_size": SIZE, "num_workers": 2}
    lincs.Builder(**options, worker=1, problems="list").download_and_prepare()
    with pytest.raises(ValueError, match=r"left out by a worker.*1 unreadable image: PA2-A02-1"):
        lincs.Builder(**options, worker=0).download_and_prepare()
    assert not list((tmp_path / "data").rglob("1.0.0"))
    lincs.Builder(**options, worker=0, problems="list").download_and_prepare()
    assert list((tmp_path / "data").rglob("1.0.0"))


def test_mended_files_cost_their_shard_alone(release, tmp_path):
    path = image(release, "PB10", "B03", "2", 2)
    good, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    cut_short(path)
    with pytest.raises(ValueError, match="PB10-B03-2"):
        build(release, tmp_path, num_shards=6)
    (folder,) = tmp_path.rglob("*.building")
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("lincs-*")}
    assert len(before) >= 4
    path.write_bytes(good)
    os.utime(path, ns=times)
    builder = build(release, tmp_path, num_shards=6)
    after = {path.name: path.stat().st_mtime_ns for path in pathlib.Path(builder.data_path).iterdir()}
    assert all(after[name] == time for name, time in before.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "cells"}, r"form='cells': choose one of \('crops', 'fields'\)"),
        ({"window": "round"}, "window='round': choose one of"),
        ({"problems": "ignore"}, "problems='ignore': choose one of"),
        ({"crop_size": 0}, "crop_size=0: must be positive"),
        ({"metadata": "nowhere"}, "metadata='nowhere': no such folder"),
        ({"plates": ["PA1", "PX"]}, "PX"),
    ],
)
def test_wrong_options_are_refused(options, message, pristine):
    with pytest.raises(ValueError, match=message):
        lincs.Builder(source=pristine, **options)


def test_a_source_is_needed():
    with pytest.raises(ValueError, match="lincs needs source=FOLDER"):
        lincs.Builder()


def test_a_plate_without_annotation_is_named(release):
    write_metadata(release / "metadata")
    table = release / "metadata" / "barcode_platemap.csv"
    table.write_text(table.read_text().replace("PA2", "PA3"))
    with pytest.raises(ValueError, match="PA2"):
        lincs.Builder(source=release)


# ------------------------------------------------------------------------------------------------- the script


def test_the_command_sums_up_reuses_and_refuses(release, tmp_path):
    locations(release, "PA1", "A02", "1").unlink()
    arguments = [f"--source={release}", f"--data_dir={tmp_path / 'data'}", f"--crop_size={SIZE}"]
    stopped = call_script("build.py", "lincs", *arguments)
    assert "1 no locations: PA1-A02-1" in stopped.stderr
    assert str(locations(release, "PA1", "A02", "1")) in stopped.stderr
    assert stopped.returncode == 1
    done = call_script("build.py", "lincs", *arguments, "--problems=list", "--processes=1")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    cells = {place: len(centers_of(*place)) for place in everything() if place != ("PA1", "A02", "1")}
    assert ["cells", str(sum(cells.values()))] in lines
    assert ["fields", "17"] in lines
    assert ["wells", "9"] in lines
    assert ["plates", "3"] in lines
    assert f"images ({SIZE}, {SIZE}, 5) uint8; exact windows of {SIZE} pixels" in done.stdout
    for well, name in (("A01", "DMSO"), ("A02", "one"), ("B03", "BRD-two")):
        number = sum(count for place, count in cells.items() if place[1] == well)
        assert ["cells", "of", name, str(number)] in lines
    assert "NOTE problems: 1 no locations; see " in done.stdout
    path = pathlib.Path(lines[-1][0])
    assert json.loads((path / "metadata.json").read_text())["counts"]["fields"] == 17
    times = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    again = call_script("build.py", "lincs", *arguments, "--problems=list")
    assert again.returncode == 0
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == times
    refused = call_script("build.py", "lincs", *arguments, "--problems=list", "--window=deepprofiler")
    assert (
        "already built, but from something else (window: 'exact' there, 'deepprofiler' now" in refused.stderr
    )
    smaller = [*arguments, "--problems=list", "--crop_size=6", "--overwrite"]
    replaced = call_script("build.py", "lincs", *smaller)
    assert "images (6, 6, 5) uint8; exact windows of 6 pixels" in replaced.stdout, replaced.stderr
    assert json.loads((path / "metadata.json").read_text())["recipe"]["crop_size"] == 6
    examples = read(tfds.builder_from_directory(str(path)))
    example = examples["PB10-B03-2-0001"]
    np.testing.assert_array_equal(
        example["image"], plain_cut(field("PB10", "B03", "2"), example["center"], 6)
    )
    refused = call_script("build.py", "lincs", *arguments, "--split=random")
    assert "--split: lincs does not have this option" in refused.stderr


# ------------------------------------------------------------------------------------------------- real plates


HALF = 32  # of the window: a quarter of the bytes of 128 pixels


@pytest.fixture(scope="session")
def real(real_data, tmp_path_factory):
    """The five real plates: their folder, that of their metadata, and a folder for datasets."""
    return real_data / "lincs_example", real_data / "lincs_metadata", tmp_path_factory.mktemp("real")


@pytest.fixture(scope="session")
def real_crops(real):
    source, metadata, folder = real
    return build(source, folder, metadata=metadata, crop_size=2 * HALF, num_shards=8)


def test_real_plates_give_7184_cells_with_their_pixels(real, real_crops):
    """Random cells and those nearest an edge, cut with plain NumPy out of the files."""
    source, _, _ = real
    assert real_crops.info.metadata["counts"] == {"fields": 40, "cells": 7184, "wells": 20, "plates": 5}
    assert real_crops.info.metadata["problems"] == {}
    data = real_crops.as_data_source("cells")
    assert len(data) == 7184
    generator, edges, planes = np.random.default_rng(5), 0, {}
    for number in generator.permutation(7184)[:100].tolist():
        example = data[number]
        plate, well, site = (example[name].decode() for name in ("plate", "well", "site"))
        if (plate, well, site) not in planes:
            files = [image(source, plate, well, site, channel) for channel in range(1, 6)]
            planes[plate, well, site] = np.pad(
                np.stack([np.asarray(PIL.Image.open(file)) for file in files], -1),
                ((HALF, HALF), (HALF, HALF), (0, 0)),
            )
        rows = locations(source, plate, well, site).read_text().splitlines()[1:]
        x, y = map(float, rows[example["cell"]].split(","))
        assert example["center"].tolist() == [y, x]
        top, left = (
            int(np.floor(y + 0.5)),
            int(np.floor(x + 0.5)),
        )  # HALF less of the window, as much more of the padding
        np.testing.assert_array_equal(
            example["image"], planes[plate, well, site][top : top + 2 * HALF, left : left + 2 * HALF]
        )
        edges += not (HALF <= top <= 1080 - HALF and HALF <= left <= 1080 - HALF)
    assert edges >= 5


def test_real_plates_are_joined_to_their_compounds_doses_and_batches(real_crops):
    places = places_of(real_crops)
    batch = dict(zip(places["Metadata_Plate"], places["Metadata_Batch_Number"], strict=True))
    assert {plate: int(number) for plate, number in batch.items()} == {
        "SQ00015198": 1, "SQ00015230": 3, "SQ00015231": 3, "SQ00015232": 3, "SQ00015233": 3
    }  # fmt: skip
    assert set(places["Metadata_Plate_Map_Name"]) == {"C-7161-01-LM6-014"}
    for well, name, level in (
        ("A01", None, None),
        ("J18", None, None),
        ("A13", "orantinib", 6),
        ("P13", "lonafarnib", 6),
    ):
        rows = places.filter(pl.col("Metadata_Well") == well)
        assert len(rows) == 10
        assert set(rows["Metadata_pert_iname"]) == {name}
        assert set(rows["Metadata_dose_level"]) == {level}
        assert (rows["Metadata_broad_sample"] == "DMSO").all() == (name is None)
    data, compound = real_crops.as_data_source("cells"), dict(enumerate(places["Metadata_broad_sample"]))
    for number in range(0, 7184, 500):
        assert data[number]["compound"].decode() == compound[data[number]["place"]]
    assert places["Metadata_cell_count"].sum() == 7184


def test_a_build_killed_in_the_middle_ends_with_the_same_bytes(real, tmp_path):
    source, metadata, _ = real
    options = {"crop_size": 40, "num_shards": 8, "plates": ["SQ00015198", "SQ00015233"]}
    whole = build(source, tmp_path / "whole", metadata=metadata, **options)
    flags = [f"--source={source}", f"--metadata={metadata}", f"--data_dir={tmp_path}", "--crop_size=40"]
    flags += ["--num_shards=8", "--plates=SQ00015198,SQ00015233"]
    process = subprocess.Popen(
        command("build.py", "lincs", *flags), cwd=REPOSITORY, env=environment(), stderr=subprocess.DEVNULL
    )
    folder = tmp_path / "lincs" / "crops" / "1.0.0.building"
    deadline = time.monotonic() + 120
    while not list((folder / "progress").glob("lincs-*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    notes = [path.name.removesuffix(".json") for path in (folder / "progress").glob("lincs-*.json")]
    done = {name: (folder / name).stat().st_mtime_ns for name in notes}
    assert 1 <= len(done) < len(shards_of(whole))
    builder = build(source, tmp_path, metadata=metadata, **options)
    assert shards_of(builder) == shards_of(whole)
    assert builder.info.metadata["digests"] == whole.info.metadata["digests"]
    for name, written in done.items():
        assert pathlib.Path(builder.data_path, name).stat().st_mtime_ns == written
    left = {
        path.name for path in pathlib.Path(builder.data_path).iterdir() if "array_record" not in path.name
    }
    wanted = {"dataset_info.json", "features.json", "metadata.json", "places.parquet", "problems.csv"}
    assert left == wanted


def test_problems_are_of_known_kinds():
    kinds = {problem for _, problem, _ in PLANNED.values()} | {problem for _, problem in MET.values()}
    assert kinds == set(plate_files.PROBLEMS)
    assert set(plate_problems.LEAVE_OUT) < kinds


def with_index(root, *, swapped=False, missing=False):
    """An index of all files: as they are, two channels of the first field swapped, or one of its files not there."""
    rows = []
    sites = plate_files.find(root)
    for site in range(len(sites)):
        plate, well, name = sites.place(site)
        paths = dict(zip(sites.channels, sites.images[site], strict=True))
        if swapped and site == 0:
            paths["DNA"], paths["ER"] = paths["ER"], paths["DNA"]
        if missing and site == 0:
            paths["ER"] = f"{paths['ER']}.gone.png"
        place = {"Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Site": name}
        rows.append(
            place
            | {channel: os.path.relpath(path, root / "inputs/images") for channel, path in paths.items()}
        )
    table = root / "index.csv"
    pl.DataFrame(rows).write_csv(table)
    return table, list(sites.channels)


def test_a_corrected_index_is_another_recipe(release, tmp_path):
    index, channels = with_index(release)
    first = build(release, tmp_path / "data", index=index, channels=channels)
    with_index(release, swapped=True)
    second = lincs.Builder(source=release, data_dir=tmp_path / "other", index=index, channels=channels)
    assert first.info.metadata["recipe"]["paths"] != second.recipe["paths"]


def test_a_file_that_the_index_names_and_that_is_not_there_is_a_problem_of_its_field(release, tmp_path):
    index, channels = with_index(release, missing=True)
    with pytest.raises(ValueError, match=r"1 missing channel: .*there is no image of ER \(.*gone.png\)"):
        build(release, tmp_path / "stop", index=index, channels=channels)
    assert not (tmp_path / "stop").exists()
    builder = build(release, tmp_path / "list", index=index, channels=channels, problems="list")
    assert [row[3] for row in listed(builder)] == ["missing channel"]


def test_an_index_whose_files_are_all_elsewhere_is_told_with_the_first(release):
    index, channels = with_index(release)
    shutil.rmtree(release / "inputs" / "images")
    message = (
        r"no field of view has images of all channels; PA1-A01-1: there is no image of DNA \(.*ch1.*png\)"
    )
    with pytest.raises(ValueError, match=message):
        lincs.Builder(source=release, index=index, channels=channels, problems="list")


def test_files_that_a_field_lacks_are_not_the_folder_one_stands_in(release):
    image(release, *HERE, 3).unlink()
    locations(release, *HERE).unlink()
    fields = lincs.Builder(source=release)._fields
    rows = range(len(fields.sites))
    paths = set(fields.files(rows))
    assert all(path.is_file() for path in paths)
    assert len(paths) == 18 * 6 - 2


def test_problems_have_no_address_in_memory(release, tmp_path):
    broken = next((release / "inputs/images").rglob("*ch3*.png"))
    broken.write_bytes(b"nothing")
    builder = build(release, tmp_path, problems="list")
    assert "0x" not in str(listed(builder))
