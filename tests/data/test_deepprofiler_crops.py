"""DeepProfiler's crops: its files and table, a round trip, kills, other exports in the same place, damage."""

import csv
import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import PIL.Image
import polars as pl
import pytest
from run_scripts import call_script

from coos.data import crops, deepprofiler_crops, plate_files

SHAPE, SIZE = (26, 34), 7
HEADER = "Number,Nuclei_Location_Center_X,Nuclei_Location_Center_Y"
PLACES = [("P1", "A01", "1"), ("P1", "A02", "3"), ("P2", "B01", "1")]
LABELS = ["b", "a", "b"]
CENTERS = {
    ("P1", "A01", "1"): [(3.25, 30.12345678901234), (0.0, 0.5), (12.0, 7.0)],
    ("P1", "A02", "3"): [(20.1, 9.9)],
    ("P2", "B01", "1"): [(5.5, 5.25), (13.0, 17.0)],
}


def pixels(number, dtype=np.uint8):
    return np.random.default_rng(number).integers(1, 200, (*SHAPE, 3)).astype(dtype)


@pytest.fixture
def sites(tmp_path):
    """Three fields of three channels, as files; one column of labels, one of splits."""
    images, locations = [], []
    for number, (plate, well, site) in enumerate(PLACES):
        folder = tmp_path / "raw" / plate
        folder.mkdir(parents=True, exist_ok=True)
        image = pixels(number)
        if number == 2:
            image[:12, :12] = 9  # nothing but one value around its first cell
        files = [folder / f"{well}-{site}-{channel}.png" for channel in range(3)]
        for channel, file in enumerate(files):
            PIL.Image.fromarray(image[..., channel]).save(file)
        path = folder / f"{well}-{site}-Nuclei.csv"
        rows = [f"{k},{x},{y}" for k, (y, x) in enumerate(CENTERS[plate, well, site])]
        path.write_text("\n".join([HEADER, *rows]) + "\n")
        images.append(tuple(map(str, files)))
        locations.append(str(path))
    columns = dict(
        zip(("Metadata_Plate", "Metadata_Well", "Metadata_Site"), zip(*PLACES, strict=True), strict=True)
    )
    frame = pl.DataFrame({**columns, "Metadata_moa": LABELS, "Metadata_Split": ["t", "t", "v"]})
    return plate_files.Sites(frame, ("DNA", "ER", "RNA"), tuple(images), tuple(locations))


def write(folder, sites, **options):
    options = {"label_column": "Metadata_moa", "split_column": "Metadata_Split", "size": SIZE, **options}
    return deepprofiler_crops.write(folder, sites, **options)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dict_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_files_and_table_are_those_of_deepprofiler(sites, tmp_path):
    assert write(tmp_path / "out", sites) == []
    rows = dict_rows(tmp_path / "out" / "sc-metadata.csv")
    location = ["Number", "Nuclei_Location_Center_X", "Nuclei_Location_Center_Y"]
    assert list(rows[0]) == [*location, "Key", "Target", "Metadata_moa", "Metadata_Split", "Image_Name"]
    assert [row["Image_Name"] for row in rows] == [
        "P1/A01/1/1@30.12345678901234x3.25.png",
        "P1/A01/1/1@0.5x0.0.png",
        "P1/A01/1/1@7.0x12.0.png",
        "P1/A02/3/0@9.9x20.1.png",
        "P2/B01/1/1@17.0x13.0.png",  # the other has one value throughout
    ]
    assert [row["Key"] for row in rows] == ["P1/A01/1"] * 3 + ["P1/A02/3", "P2/B01/1"]
    assert [(row["Target"], row["Metadata_moa"], row["Metadata_Split"]) for row in rows] == [
        *[("1", "b", "t")] * 3,
        ("0", "a", "t"),
        ("1", "b", "v"),
    ]
    assert [row["Number"] for row in rows] == ["0", "1", "2", "0", "1"]
    pngs = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")}
    assert pngs == {row["Image_Name"] for row in rows}
    with PIL.Image.open(tmp_path / "out" / rows[0]["Image_Name"]) as image:
        assert (image.size, image.mode) == ((3 * SIZE, SIZE), "L")


def test_a_crop_is_the_resampled_window_with_its_channels_side_by_side(sites, tmp_path):
    write(tmp_path / "out", sites)
    center = np.array([CENTERS["P1", "A02", "3"][0]])
    window = crops.resample(pixels(1), center, SIZE)[0].astype(np.float64)
    low, high = window.min(), window.max()
    with PIL.Image.open(tmp_path / "out" / "P1" / "A02" / "3" / "0@9.9x20.1.png") as file:
        image = np.asarray(file)
    for channel in range(3):
        for y in range(SIZE):
            for x in range(SIZE):
                exact = (window[y, x, channel] - low) / (high - low) * 255
                assert image[y, x + channel * SIZE] in (int(exact), int(exact + 1e-4), int(exact - 1e-4))


def test_what_is_written_comes_back(sites, tmp_path):
    write(tmp_path / "out", sites)
    images, table = deepprofiler_crops.read(tmp_path / "out")
    assert images.shape == (5, SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    assert table["Target"].to_list() == [1, 1, 1, 0, 1]
    start = 0
    for number, place in enumerate(PLACES):
        centers = np.array(CENTERS[place])
        wanted = crops.to_deepprofiler_bytes(crops.resample(pixels(number), centers, SIZE))
        if number == 2:
            wanted, centers = wanted[1:], centers[1:]
        stop = start + len(wanted)
        np.testing.assert_array_equal(images[start:stop], wanted)
        found = table[start:stop].select("Nuclei_Location_Center_Y", "Nuclei_Location_Center_X").to_numpy()
        np.testing.assert_array_equal(found, centers)
        start = stop
    singles = list(deepprofiler_crops.cells(tmp_path / "out", table[3:]))
    assert [row["Key"] for _, row in singles] == ["P1/A02/3", "P2/B01/1"]
    np.testing.assert_array_equal(singles[0][0], images[3])


def test_folding_is_the_inverse_of_unfolding():
    crop = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    flat = deepprofiler_crops.unfold(crop)
    assert flat.shape == (4, 12)
    for channel in range(3):
        np.testing.assert_array_equal(flat[:, 4 * channel : 4 * channel + 4], crop[..., channel])
    np.testing.assert_array_equal(deepprofiler_crops.fold(flat), crop)


@pytest.mark.parametrize("scaling", ["minmax", "max", "zscore"])
def test_channels_may_be_scaled_first_as_versions_of_deepprofiler_do(scaling, sites, tmp_path):
    write(tmp_path / "out", sites, scaling=scaling)
    window = crops.resample(pixels(1), np.array([CENTERS["P1", "A02", "3"][0]]), SIZE)[0]
    for k in range(3):
        x = window[..., k].copy()
        low, high = x.min(), x.max()
        if scaling == "zscore":
            window[..., k] = (x - x.mean()) / x.std()
        else:
            window[..., k] = (x - low) / (high if scaling == "max" else high - low + np.float32(1e-7))
    found = deepprofiler_crops.read_crop(tmp_path / "out" / "P1" / "A02" / "3" / "0@9.9x20.1.png")
    np.testing.assert_array_equal(found, crops.to_deepprofiler_bytes(window[None])[0])


def test_a_killed_export_goes_on_and_ends_alike(sites, tmp_path, monkeypatch):
    write(tmp_path / "whole", sites, threads=2)

    class Killed(BaseException):
        pass

    def dies(image, centers, size):
        if len(centers) == 2:
            raise Killed
        return original(image, centers, size)

    original = crops.resample
    monkeypatch.setattr(crops, "resample", dies)
    with pytest.raises(Killed):
        write(tmp_path / "out", sites, threads=1)
    assert not (tmp_path / "out" / "sc-metadata.csv").exists()
    assert not (tmp_path / "out" / "P2").exists()
    half = tmp_path / "out" / "P2" / "B01" / ".1.77.tmp"  # of one that died while it wrote
    half.mkdir(parents=True)
    (half / "1@1.0x1.0.png").write_bytes(b"half")
    done = tmp_path / "out" / "P1" / "A01" / "1"
    before = {path.name: path.stat().st_mtime_ns for path in done.iterdir()}
    assert len(before) == 3
    monkeypatch.setattr(crops, "resample", original)
    write(tmp_path / "out", sites)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert {path.name: path.stat().st_mtime_ns for path in done.iterdir()} == before


def test_another_export_in_the_same_place_is_refused(sites, tmp_path):
    write(tmp_path / "out", sites)
    with pytest.raises(
        ValueError, match=r"out: holds an export of something else \(crop_size: 7 there, 8 now\)"
    ):
        write(tmp_path / "out", sites, size=8)
    with pytest.raises(ValueError, match=r"classes: \['a', 'b'\] there, \['b'\] now"):
        write(tmp_path / "out", sites.subset([0, 2]))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"mine: holds files, but no export\.json"):
        write(tmp_path / "mine", sites)


def another_image(sites):
    path = pathlib.Path(sites.images[1][0])
    PIL.Image.fromarray(pixels(9)[..., 0]).save(path)
    os.utime(path, ns=(1, 1))
    return sites


def other_cells(sites):
    with open(sites.locations[1], "a") as file:
        file.write("1,8.0,9.0\n")
    return sites


def swapped_channels(sites):
    images = (sites.images[0], sites.images[1][::-1], sites.images[2])
    return dataclasses.replace(sites, images=images)


def another_label(sites):
    return dataclasses.replace(
        sites, frame=sites.frame.with_columns(pl.Series("Metadata_moa", ["a", "b", "b"]))
    )


@pytest.mark.parametrize("change", [another_image, other_cells, swapped_channels, another_label])
@pytest.mark.parametrize("killed", [False, True])
def test_crops_of_files_that_have_changed_are_not_mixed_with_new_ones(sites, tmp_path, change, killed):
    out = tmp_path / "out"
    write(out, sites)
    if killed:
        (out / "sc-metadata.csv").unlink()
        shutil.rmtree(out / "P1" / "A02")
    now = change(sites)
    before = contents(out)
    with pytest.raises(ValueError, match=r"1 plates have changed since .*; remove \S+/out/P1 and run again"):
        write(out, now)
    assert contents(out) == before
    shutil.rmtree(out / "P1")
    kept = (out / "P2" / "B01" / "1").stat().st_mtime_ns
    write(out, now)
    assert (out / "P2" / "B01" / "1").stat().st_mtime_ns == kept
    write(tmp_path / "whole", now)
    assert contents(out) == contents(tmp_path / "whole")


def test_files_that_are_absent_are_known_as_such(sites, tmp_path):
    """An export without them does not go on when they are there; a plate may be exported on its own."""
    pathlib.Path(sites.images[2][1]).rename(tmp_path / "aside.png")
    write(tmp_path / "out", sites, problems="list")
    write(tmp_path / "out", sites, problems="list")
    (tmp_path / "out" / "P2").mkdir(exist_ok=True)
    (tmp_path / "aside.png").rename(sites.images[2][1])
    with pytest.raises(ValueError, match=r"remove \S+/out/P2 and run again"):
        write(tmp_path / "out", sites, problems="list")
    write(tmp_path / "out", sites.subset([0, 1]))
    noted = json.loads((tmp_path / "out" / "export.json").read_text())["files"]
    assert sorted(noted) == ["P1", "P2"]


def test_a_table_of_crops_that_were_removed_goes_as_well(sites, tmp_path):
    write(tmp_path / "out", sites)
    shutil.rmtree(tmp_path / "out" / "P2")
    damaged = pathlib.Path(sites.images[2][0])
    damaged.write_bytes(damaged.read_bytes()[:90])
    with pytest.raises(ValueError, match="P2-B01-1: unreadable image"):
        write(tmp_path / "out", sites)
    assert not (tmp_path / "out" / "sc-metadata.csv").exists()


@pytest.mark.parametrize("kind", ["no cells", "no images", "no windows"])
def test_an_export_of_no_cells_leaves_no_table(kind, sites, tmp_path):
    if kind == "no windows":  # one value throughout
        sites = sites.subset([2])
        pathlib.Path(sites.locations[0]).write_text(f"{HEADER}\n0,5.25,5.5\n")
        message = "no cell has a window that can be scaled"
    else:
        for path in sites.locations[:1] if kind == "no images" else sites.locations:
            pathlib.Path(path).write_text(f"{HEADER}\n")
        for paths in sites.images[1:] if kind == "no images" else ():
            pathlib.Path(paths[0]).write_bytes(b"x")
        message = "no field of view has cells"
        message += (
            " and images; .*'unreadable image': 2" if kind == "no images" else "; .*'empty locations': 3"
        )
    with pytest.raises(ValueError, match=f"out: {message}"):
        write(tmp_path / "out", sites, problems="list")
    assert not (tmp_path / "out" / "sc-metadata.csv").exists()
    assert (tmp_path / "out").exists() == (kind != "no cells")


def test_the_command_takes_options_alone(tmp_path):
    done = call_script("export_crops.py", "stray", f"--source={tmp_path}", f"--out={tmp_path / 'out'}")
    assert done.returncode
    assert "unexpected argument 'stray'; options start with --" in done.stderr


def test_fields_without_a_label_are_left_out(sites, tmp_path):
    frame = sites.frame.with_columns(pl.Series("Metadata_moa", [None, "a", "c"], dtype=pl.String))
    some = plate_files.Sites(frame, sites.channels, sites.images, sites.locations)
    write(tmp_path / "out", some)
    table = deepprofiler_crops.read_table(tmp_path / "out")
    assert list(zip(table["Key"], table["Target"], strict=True)) == [("P1/A02/3", 0), ("P2/B01/1", 1)]
    with pytest.raises(ValueError, match="no column Metadata_colour; fields have Metadata_Plate"):
        write(tmp_path / "other", sites, label_column="Metadata_colour")
    none = frame.with_columns(pl.lit(None, pl.String).alias("Metadata_moa"))
    with pytest.raises(ValueError, match="Metadata_moa is unknown for all 3 fields"):
        write(tmp_path / "other", plate_files.Sites(none, sites.channels, sites.images, sites.locations))
    with pytest.raises(ValueError, match="scaling='log': choose one of"):
        write(tmp_path / "other", sites, scaling="log")


@pytest.mark.parametrize("kind", ["missing location file", "damaged image"])
def test_what_is_wrong_stops_the_export_or_is_listed(kind, sites, tmp_path):
    if kind == "damaged image":
        path = pathlib.Path(sites.images[1][2])
        path.write_bytes(path.read_bytes()[:90])
        message, problem = r"P1-A02-3: .*A02-3-2\.png", "unreadable image"
    else:
        locations = (sites.locations[0], "", sites.locations[2])
        sites = plate_files.Sites(sites.frame, sites.channels, sites.images, locations)
        message, problem = "1 no locations: P1-A02-3", "no locations"
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "out", sites)
    assert not (tmp_path / "out" / "sc-metadata.csv").exists()
    problems = write(tmp_path / "out", sites, problems="list")
    assert [p[:4] for p in problems] == [("P1", "A02", "3", problem)]
    assert deepprofiler_crops.read_table(tmp_path / "out")["Key"].to_list() == ["P1/A01/1"] * 3 + ["P2/B01/1"]


def test_an_export_of_deepprofiler_itself_is_read(sites, tmp_path):
    """It has no note of ours, integers where a column has only such, and lists cells that it skipped."""
    write(tmp_path / "out", sites)
    (tmp_path / "out" / "export.json").unlink()
    table = tmp_path / "out" / "sc-metadata.csv"
    lines = table.read_text().splitlines()
    row = "9,100,200,P1/A01/1,1,b,t,P1/A01/1/1@100x200.png"
    table.write_text("\n".join([*lines, row]) + "\n")
    images, found = deepprofiler_crops.read(tmp_path / "out")
    assert len(images) == len(found) == len(lines) - 1
    shutil.copy(tmp_path / "out" / "P1/A02/3/0@9.9x20.1.png", tmp_path / "out" / "P1/A01/1/1@100x200.png")
    images, found = deepprofiler_crops.read(tmp_path / "out")
    assert found["Nuclei_Location_Center_X"][-1] == 100.0
    np.testing.assert_array_equal(images[-1], images[3])


def test_damage_is_named(sites, tmp_path):
    write(tmp_path / "out", sites)
    path, table = tmp_path / "out" / "P1/A02/3/0@9.9x20.1.png", tmp_path / "out" / "sc-metadata.csv"
    good, text = path.read_bytes(), table.read_text()
    path.write_bytes(good[:50])
    with pytest.raises(ValueError, match=r"0@9\.9x20\.1\.png: cannot be read as PNG"):
        deepprofiler_crops.read(tmp_path / "out")
    PIL.Image.fromarray(np.zeros((7, 20), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"0@9\.9x20\.1\.png: is uint8 \(7, 20\); a crop is"):
        deepprofiler_crops.read(tmp_path / "out")
    PIL.Image.fromarray(np.zeros((8, 24), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"0@9\.9x20\.1\.png: is \(8, 8, 3\); the first is \(7, 7, 3\)"):
        deepprofiler_crops.read(tmp_path / "out")
    table.write_text(text.replace("Image_Name", "Image"))
    with pytest.raises(ValueError, match=r"sc-metadata\.csv: no column Image_Name; found Number"):
        deepprofiler_crops.read(tmp_path / "out")
    table.write_text(text.replace(",0,a,", ",x,a,"))
    with pytest.raises(ValueError, match=r"sc-metadata\.csv: a coordinate or target is no number"):
        deepprofiler_crops.read(tmp_path / "out")
    table.write_text(text)
    shutil.rmtree(tmp_path / "out" / "P1")
    shutil.rmtree(tmp_path / "out" / "P2")
    with pytest.raises(ValueError, match="none of its 5 crops has a file, such as P1/A01/1/1@30"):
        deepprofiler_crops.read(tmp_path / "out")


def test_the_command_exports_real_cells(real_data, tmp_path):
    """One real plate at a small size; windows agree with their fields."""
    source = real_data / "lincs_example"
    flags = [f"--source={source}", f"--metadata={real_data / 'lincs_metadata'}", f"--out={tmp_path / 'out'}"]
    flags += ["--label_column=Metadata_broad_sample", "--plates=SQ00015233", "--crop_size=24"]
    done = call_script("export_crops.py", *flags)
    assert done.returncode == 0, done.stderr
    images, table = deepprofiler_crops.read(tmp_path / "out")
    sites = plate_files.find(source, plates=["SQ00015233"])
    total = 0
    for site in range(len(sites)):
        rows = table.with_row_index().filter(pl.col("Key") == "/".join(sites.place(site)))
        centers = plate_files.read_centers(sites.locations[site])
        total += len(centers)
        found = rows.select("Nuclei_Location_Center_Y", "Nuclei_Location_Center_X").to_numpy()
        np.testing.assert_array_equal(found, centers)
        if site == 3:
            wanted = crops.to_deepprofiler_bytes(
                crops.resample(plate_files.read_field(sites, site), centers, 24)
            )
            np.testing.assert_array_equal(images[rows["index"].to_numpy()], wanted)
    assert len(images) == total
    assert "DMSO" in done.stdout
    assert json.loads((tmp_path / "out" / "export.json").read_text())["classes"] == sorted(
        set(table["Metadata_broad_sample"])
    )
    refused = call_script("export_crops.py", *flags, "--crop_size=25")
    assert "crop_size: 24 there, 25 now" in refused.stderr
