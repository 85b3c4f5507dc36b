"""Plates on disk: which fields of view there are, their images, and where their cells are."""

import pathlib
import pickle

import numpy as np
import PIL.Image
import polars as pl
import pytest
import tifffile
from ml_collections import ConfigDict

from coos.data import plate_files, plate_locations
from coos.data.plate_files import FieldError, find, read_centers, read_field

HEADER = "Nuclei_Location_Center_X,Nuclei_Location_Center_Y\n"
TWO = ("DNA", "ER")
CELLS = HEADER + "3.5,2.25\n0,8.999\n11.5,0\n"


def plane(seed, *, dtype="uint8", shape=(9, 12)):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png":
        PIL.Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, **options)


def image_name(row, column, site, channel, suffix=".png"):
    return f"r{row:02}c{column:02}f{site:02}p01-ch{channel}sk1fk1fl1{suffix}"


def make_release(folder, places, *, channels=(1, 2), suffix=".png", dtype="uint8"):
    """`places` are (plate, row, column, site); returns the planes by path."""
    planes = {}
    for number, (plate, *place) in enumerate(places):
        for channel in channels:
            path = folder / "inputs" / "images" / plate / image_name(*place, channel, suffix)
            planes[str(path)] = plane(100 * number + channel, dtype=dtype)
            write(path, planes[str(path)])
    return planes


@pytest.fixture
def one(tmp_path):
    """One field of two channels with a location file; returns the folder."""
    make_release(tmp_path, [("P1", 2, 3, 1)])
    path = tmp_path / "inputs" / "locations" / "P1" / "B03-1-Nuclei.csv"
    path.parent.mkdir(parents=True)
    path.write_text(CELLS)
    return tmp_path


def images_of(folder, plate="P1"):
    return sorted((folder / "inputs" / "images" / plate).iterdir())


# --- what there is


def test_sites_are_in_natural_order_with_their_files(tmp_path):
    places = [
        ("P10", 1, 1, 1),
        ("P2", 1, 10, 1),
        ("P2", 27, 2, 1),
        ("P2", 1, 2, 10),
        ("P2", 2, 1, 1),
        ("P2", 1, 2, 9),
    ]
    planes = make_release(tmp_path, places)
    sites = find(tmp_path, channels=TWO)
    expected = ["P2-A02-9", "P2-A02-10", "P2-A10-1", "P2-B01-1", "P2-AA02-1", "P10-A01-1"]
    assert [sites.name(site) for site in range(len(sites))] == expected
    assert (sites.plates, sites.channels, sites.locations) == (("P2", "P10"), TWO, ("",) * 6)
    assert sites.frame.schema == dict.fromkeys(
        ["Metadata_Plate", "Metadata_Well", "Metadata_Site"], pl.String
    )
    for site, number in enumerate([5, 3, 1, 4, 2, 0]):
        plate, *place = places[number]
        paths = [tmp_path / "inputs/images" / plate / image_name(*place, channel) for channel in (1, 2)]
        assert sites.images[site] == tuple(map(str, paths))
        np.testing.assert_array_equal(read_field(sites, site)[..., 1], planes[str(paths[1])])


@pytest.mark.parametrize(
    "name",
    [
        "r02c03f01p01-ch2.png",
        "R2C3F1P1-CH2SK1FK1FL1.PNG",
        "r02c03f01-ch2_corrected.Tiff",
        "r02c03f001p01-ch02-x.tif",
    ],
)
def test_names_may_vary(tmp_path, name):
    folder = tmp_path / "images" / "P1"
    write(folder / "r02c03f01p01-ch1sk1fk1fl1.png", plane(1))
    write(folder / name, plane(2))
    for stray in ("._r02c03f01p01-ch1sk1fk1fl1.png", "Index.idx.xml", "overview.png"):
        (folder / stray).write_bytes(b"x")
    sites = find(tmp_path, channels=TWO)
    assert [sites.name(site) for site in range(len(sites))] == ["P1-B03-1"]
    np.testing.assert_array_equal(read_field(sites, 0), np.stack([plane(1), plane(2)], -1))


def test_channels_are_chosen_and_ordered(tmp_path):
    planes = make_release(tmp_path, [("P1", 1, 1, 1)], channels=range(1, 11))
    folder = tmp_path / "inputs" / "images" / "P1"
    first, second, tenth = (planes[str(folder / image_name(1, 1, 1, channel))] for channel in (1, 2, 10))
    assert find(tmp_path).channels == ("DNA", "ER", "RNA", "AGP", "Mito")
    sites = find(tmp_path, channels={"ch10": "Light", "ch2": "ER"})
    assert sites.channels == ("Light", "ER")
    np.testing.assert_array_equal(read_field(sites, 0), np.stack([tenth, second], -1))
    np.testing.assert_array_equal(read_field(find(tmp_path, channels="Nucleus"), 0)[..., 0], first)


def test_only_the_plates_asked_for(tmp_path):
    make_release(tmp_path, [("P1", 1, 1, 1), ("P2", 1, 1, 1), ("P3", 1, 1, 1)])
    (tmp_path / "inputs" / "images" / "empty").mkdir()
    some = find(tmp_path, channels=TWO, plates=["P3", "P1", "P1"])
    assert [some.name(site) for site in range(len(some))] == ["P1-A01-1", "P3-A01-1"]
    assert find(tmp_path, channels=TWO, plates="P2").plates == ("P2",)


def test_subset_keeps_rows_together(tmp_path):
    make_release(tmp_path, [("P1", 1, column, 1) for column in range(1, 6)])
    sites = find(tmp_path, channels=TWO)
    for rows, expected in (([3, 0], [3, 0]), (np.arange(5) % 2 == 1, [1, 3]), ([], [])):
        part = sites.subset(rows)
        assert [part.name(i) for i in range(len(part))] == [sites.name(i) for i in expected]
        assert part.images == tuple(sites.images[i] for i in expected)
    with pytest.raises(ValueError, match="mask of shape"):
        sites.subset(np.array([True, False]))


def add_image(name, plate="P1"):
    return lambda folder: write(folder / "inputs" / "images" / plate / name, plane(0))


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


FIND_ERRORS = {
    "no folder": (rename("inputs", "other"), {}, r"images: no such folder; expected <plate>/r01c01f01p01-ch1"),
    "no plates": (rename("inputs/images/P1", "P1"), {}, r"images: no plates; expected .*; found folders none"),
    "plate without images": (
        lambda folder: write(folder / "inputs/images/P0/cells.png", plane(0)), {},
        r"P0: no images; expected r01c01f01p01-ch1.*found cells.png; remove the folder"),
    "unknown plate": (None, {"plates": ["P1", "P9"]}, r"images: plate P9 missing; found folders P1"),
    "second plane": (
        add_image("r02c03f01p02-ch1sk1fk1fl1.png"), {},
        r"p02-ch1sk1fk1fl1.png: same well, site and channel as .*r02c03f01p01-ch1sk1fk1fl1.png"),
    "second suffix": (
        add_image("r02c03f01p01-ch2sk1fk1fl1.tif"), {}, r"ch2sk1fk1fl1.tif: same well, site and channel as .*png"),
    "row": (add_image("r33c01f01p01-ch1.png"), {}, r"r33c01f01p01-ch1.png: row 33, column 1; plates have up to 32"),
    "row 0": (add_image("r00c01f01p01-ch1.png"), {}, r"row 0, column 1"),
    "column": (add_image("r01c00f01p01-ch1.png"), {}, r"row 1, column 0"),
    "no plate": (None, {"plates": []}, "`plates` names no plate; None takes all"),
    "channel number": (None, {"channels": {"ch1": "DNA", "ch01": "ER"}}, "channel 'ch01' is not ch1, ch2"),
    "absent channel": (
        None, {"channels": {"ch1": "DNA", "ch7": "X"}}, r"no file is of channel ch7 \(X\).*\(ch1, ch2\)"),
    "default channels": (None, {"channels": None}, r"no file is of channel ch3 \(RNA\)"),
    "channel twice": (None, {"channels": ["DNA", "DNA"]}, "name at least one, and none twice"),
    "no order": (None, {"channels": ConfigDict({"ch2": "ER", "ch1": "DNA"})}, "have no order; give a dict"),
    "no channel": (None, {"channels": []}, "name at least one"),
    "channel key": (None, {"channels": {"DNA": "ch1"}}, "channel 'DNA' is not ch1, ch2"),
    "locations twice": (
        lambda folder: (folder / "inputs/locations/P1/b3-01-Nuclei.csv").write_text(CELLS), {},
        r"b3-01-Nuclei.csv: same well and site as .*B03-1-Nuclei.csv"),
}  # fmt: skip


@pytest.mark.parametrize("case", FIND_ERRORS)
def test_find_refuses(one, case):
    change, options, message = FIND_ERRORS[case]
    if change:
        change(one)
    with pytest.raises(ValueError, match=message):
        find(one, **{"channels": TWO, **options})


# --- an index


def write_index(folder, rows, name="inputs/metadata/index.csv"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    return path


INDEX = [
    [
        "",
        "Metadata_Plate",
        "Metadata_Well",
        "Metadata_Site",
        "ER",
        "Compound",
        "DNA",
        "dose",
        "Metadata_File",
    ],
    ["0", "P2", "b3", "02", "a/er.tif", "x", "a/dna.tif", "0.5", "raw.tif"],
    ["1", "P2", "A10", "1", "b/er.tif", "NA", "b/dna.tif", "10.0", "raw.tif"],
    ["2", "P2", "A9", "1", "", "007", "c/dna.tif", "", "raw.tif"],
    ["3", "P1", "C01", "1", "d/er.tif", "008", "d/dna.tif", "1.0", "raw.tif"],
]


def test_an_index_says_it_all(tmp_path):
    write_index(tmp_path, INDEX)
    folder = tmp_path / "inputs" / "locations" / "P2"
    folder.mkdir(parents=True)
    (folder / "B03-2-Nuclei.csv").write_text(CELLS)
    for channel, seed in (("er", 1), ("dna", 2)):
        write(tmp_path / "inputs" / "images" / "a" / f"{channel}.tif", plane(seed, dtype="uint16"))
    sites = find(tmp_path)
    assert [sites.name(i) for i in range(4)] == ["P1-C01-1", "P2-A09-1", "P2-A10-1", "P2-B03-2"]
    assert sites.channels == ("ER", "DNA")
    assert sites.images[1] == ("", str(tmp_path / "inputs/images/c/dna.tif"))
    assert sites.locations == ("", "", "", str(folder / "B03-2-Nuclei.csv"))
    assert sites.frame["Metadata_Compound"].to_list() == ["008", "007", None, "x"]
    assert sites.frame["Metadata_dose"].to_list() == [1.0, None, 10.0, 0.5]
    assert sites.frame["Metadata_File"].to_list() == ["raw.tif"] * 4
    expected = np.stack([plane(1, dtype="uint16"), plane(2, dtype="uint16")], -1)
    np.testing.assert_array_equal(read_field(sites, 3), expected)
    other = find(tmp_path, channels={"ch1": "DNA"}, plates=["P1"])
    assert (other.channels, other.plates, len(other)) == (("DNA",), ("P1",), 1)
    assert other.frame["Metadata_ER"].to_list() == ["d/er.tif"]


def test_an_index_elsewhere_beats_the_names_of_files(one):
    rows = [["Metadata_Plate", "Metadata_Well", "Metadata_Site", "A"], ["P7", "A1", "s", "x.png"]]
    path = write_index(one, rows, "i.csv")
    sites = find(one, index=path)
    assert (sites.name(0), sites.channels, len(sites)) == ("P7-A01-s", ("A",), 1)
    assert find(one, channels=TWO).name(0) == "P1-B03-1"


INDEX_ERRORS = {
    "no column": (
        lambda rows: rows[0].__setitem__(2, "Well"), {}, "column Metadata_Well missing; found Metadata_Plate"),
    "no site": (lambda rows: rows[2].__setitem__(3, ""), {}, "index.csv, line 3: Metadata_Site is empty"),
    "place twice": (
        lambda rows: rows.append([*rows[1][:2], "B03", *rows[1][3:]]), {},
        r"index.csv, line 6: plate, well and site \('P2', 'B03', '2'\) is on line 2 already"),
    "no images": (
        lambda rows: [row.__setitem__(slice(4, 7, 2), "xy") for row in rows], {}, "no column with images only"),
    "unknown channel": (
        None, {"channels": ["DNA", "Actin"]}, "no images of channel Actin .*columns are Metadata_Plate"),
    "channel twice": (None, {"channels": ["DNA", "DNA"]}, "none twice"),
    "unknown plate": (None, {"plates": ["P9"]}, "index.csv: plate P9 missing; found P2, P1"),
    "prefix": (lambda rows: rows[0].__setitem__(5, "File"), {}, "with and without the prefix would be the same"),
    "no file": (None, {"index": "nowhere.csv"}, "nowhere.csv"),
}  # fmt: skip


@pytest.mark.parametrize("case", INDEX_ERRORS)
def test_find_refuses_an_index(tmp_path, case):
    change, options, message = INDEX_ERRORS[case]
    rows = [list(row) for row in INDEX]
    if change:
        change(rows)
    write_index(tmp_path, rows)
    with pytest.raises(ValueError, match=message):
        find(tmp_path, **options)


# --- images


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_fields_are_read_as_stored(tmp_path, suffix, dtype):
    planes = make_release(tmp_path, [("P1", 1, 1, 1)], suffix=suffix, dtype=dtype)
    image = read_field(find(tmp_path, channels=TWO), 0)
    assert (image.dtype, image.flags.c_contiguous) == (np.dtype(dtype), True)
    np.testing.assert_array_equal(image, np.stack([planes[key] for key in sorted(planes)], -1))


def test_other_byte_order_becomes_that_of_the_machine(tmp_path):
    for channel, order in ((1, ">"), (2, "<")):
        path = tmp_path / "images" / "P1" / f"r01c01f01p01-ch{channel}.tif"
        write(path, plane(channel, dtype="uint16"), byteorder=order)
    image = read_field(find(tmp_path, channels=TWO), 0)
    assert image.dtype.isnative
    np.testing.assert_array_equal(image, np.stack([plane(n, dtype="uint16") for n in (1, 2)], -1))


def save(mode, array):
    return lambda path: PIL.Image.fromarray(array).convert(mode).save(path)


GREY = np.arange(108, dtype=np.uint8).reshape(9, 12)
FIELD_ERRORS = {
    "gone": (lambda path: path.unlink(), "missing channel", "cannot be read as PNG"),
    "empty": (lambda path: path.write_bytes(b""), "unreadable image", "cannot be read as PNG"),
    "text": (
        lambda path: path.write_text("no image"),
        "unreadable image",
        r"cannot be read as PNG \(it is none\)$",
    ),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:80]), "unreadable image", "truncated"),
    "size": (save("L", GREY[:, 1:]), "image size", r"is uint8 \(9, 11\); DNA is uint8 \(9, 12\)"),
    "dtype": (
        lambda path: write(path, plane(0, dtype="uint16")),
        "image size",
        r"is uint16 .*; DNA is uint8",
    ),
    "RGB": (save("RGB", GREY), "unreadable image", "is RGB of 8 bits; expected grey of 8 or 16"),
    "palette": (save("P", GREY), "unreadable image", "is palette of"),
    "alpha": (save("LA", GREY), "unreadable image", "is grey with alpha of 8 bits"),
    "bilevel": (save("1", GREY), "unreadable image", "is grey of 1 bits"),
}


@pytest.mark.parametrize("case", FIELD_ERRORS)
def test_a_field_that_cannot_be_read_names_place_channel_and_file(one, case):
    change, problem, message = FIELD_ERRORS[case]
    sites = find(one, channels=TWO)
    change(pathlib.Path(sites.images[0][1]))
    with pytest.raises(
        FieldError, match=f"^P1-B03-1: {problem}: ER: .*ch2sk1fk1fl1.png.*{message}"
    ) as caught:
        read_field(sites, 0)
    assert caught.value.problem[:4] == ("P1", "B03", "1", problem)
    assert problem in plate_files.PROBLEMS
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes from another process
    assert (str(again), again.problem) == (str(caught.value), caught.value.problem)


def test_a_field_without_a_channel_is_found_and_not_read(tmp_path):
    make_release(tmp_path, [("P1", 1, 1, 1), ("P1", 1, 1, 2)])
    images_of(tmp_path)[-1].unlink()
    sites = find(tmp_path, channels=TWO)
    assert [[bool(path) for path in paths] for paths in sites.images] == [[True, True], [True, False]]
    with pytest.raises(FieldError, match=r"^P1-A01-2: missing channel: ER has no file$"):
        read_field(sites, 1)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (GREY.astype(np.float32), {}, "has dtype float32; expected uint8 or uint16"),
        (np.stack([GREY] * 3, -1), {"photometric": "rgb"}, r"has shape \(9, 12, 3\)"),
        (np.stack([GREY] * 2), {"photometric": "minisblack"}, "expected one two-dimensional plane"),
    ],
)
def test_odd_tiffs_are_refused(tmp_path, array, options, message):
    write(tmp_path / "images" / "P1" / "r01c01f01p01-ch1.tif", array, **options)
    with pytest.raises(FieldError, match=f"^P1-A01-1: unreadable image: DNA: .*ch1.tif: .*{message}"):
        read_field(find(tmp_path, channels=["DNA"]), 0)


def test_images_of_other_formats_in_an_index_are_refused(tmp_path):
    write_index(
        tmp_path, [["Metadata_Plate", "Metadata_Well", "Metadata_Site", "A"], ["P", "A1", "1", "x.jpg"]]
    )
    with pytest.raises(FieldError, match=r"x.jpg: suffix '.jpg' is not one of .png"):
        read_field(find(tmp_path, channels=["A"]), 0)


def test_a_png_cut_anywhere_is_refused_or_whole(one):
    sites = find(one, channels=TWO)
    path = pathlib.Path(sites.images[0][0])
    whole, data = read_field(sites, 0), path.read_bytes()
    refused = 0
    for length in range(0, len(data), 5):
        path.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(read_field(sites, 0), whole)
        except FieldError:
            refused += 1
    assert refused * 5 > 0.7 * len(data)


# --- locations


def slow_centers(text):
    """(y, x) of every line, one character at a time."""
    header, *lines = text.strip().split("\n")
    x, y = (header.split(",").index(f"Nuclei_Location_Center_{axis}") for axis in "XY")
    return np.array([[float(line.split(",")[y]), float(line.split(",")[x])] for line in lines]).reshape(-1, 2)


WIDE = "ImageNumber,Nuclei_Location_Center_Y,Name,Nuclei_Location_Center_X\n1,2.5,a,3.5\n1,-4e1,,0.1\n"


@pytest.mark.parametrize("text", [CELLS, HEADER, WIDE, CELLS[:-1], CELLS + "\n\n"])
def test_centers_of_a_file(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text)
    centers = read_centers(path)
    assert centers.dtype == np.float64
    np.testing.assert_array_equal(centers, slow_centers(text))


@pytest.mark.parametrize("data", [
    CELLS.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + CELLS.encode(),
    ('"' + CELLS.strip().replace(",", '","').replace("\n", '"\n"') + '"\n').encode(),
])  # fmt: skip
def test_centers_of_files_of_other_programs(tmp_path, data):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_centers(path), slow_centers(CELLS))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs one column Nuclei_Location_Center_Y, Nuclei_Location_Center_X; found nothing"),
        ("1,2\n3,4\n", "needs one column .*; found 1, 2"),
        (
            HEADER.strip() + ",Nuclei_Location_Center_X\n3,4,5\n",
            "needs one column Nuclei_Location_Center_X; found",
        ),
        ("Nuclei_Location_Center_X\n3\n", "needs one column Nuclei_Location_Center_Y; found"),
        (
            HEADER + "1,2\n3,nan\n",
            "a.csv, line 3: Nuclei_Location_Center_Y is 'nan'; cells need finite numbers",
        ),
        (HEADER + "1,2\ninf,4\n", "a.csv, line 3: Nuclei_Location_Center_X is 'inf'"),
        (HEADER + "\n1,2\n\n3,x\n", "a.csv, line 5: Nuclei_Location_Center_Y is 'x'"),
        (HEADER + "1,2\n3,\n", "a.csv, line 3: Nuclei_Location_Center_Y is ''"),
        (HEADER + "1,2\n3\n", "a.csv, line 3: has 1 values; expected 2; was the file cut short"),
        (HEADER + "1,2,3\n4\n", "a.csv, line 2: has 3 values; expected 2"),
        (WIDE + "1,2.5,a,3.5,7\n", "a.csv, line 4: has 5 values; expected 4"),
        (HEADER + '1,2\n"3,4\n', "a.csv: is no CSV file"),
        (HEADER + "1,2\n\xff\n", "a.csv: is no CSV file .*utf-8"),
    ],
)
def test_damaged_locations_are_refused(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read_centers(path)


def test_locations_of_all_sites_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(plate_locations, "BLOCK", 3)
    texts = {
        1: CELLS,
        2: None,
        3: HEADER,
        4: HEADER + "1,2\n1,x\n",
        5: HEADER + "12,1\n11.999,8.999\n-0.001,3\n0,0\n3,9\n",
        6: HEADER + "5,6\n",
        7: "",
    }
    make_release(tmp_path, [("P1", 1, 1, site) for site in texts])
    folder = tmp_path / "inputs" / "locations" / "P1"
    folder.mkdir(parents=True)
    for site, text in texts.items():
        if text is not None:
            (folder / f"A01-{site}-Nuclei.csv").write_text(text)
    centers, rows, problems = plate_files.check_locations(find(tmp_path, channels=TWO), shape=(9, 12))
    expected = [[0, 1, 2], [], [], [], [1, 3], [0], []]
    assert [found.tolist() for found in rows] == expected
    assert {found.dtype for found in rows} == {np.dtype(np.int32)}
    for site, (found, kept) in enumerate(zip(centers, expected, strict=True), 1):
        every = slow_centers(texts[site]) if kept else np.zeros((0, 2))
        np.testing.assert_array_equal(found, every[kept])
    assert [problem[:4] for problem in problems] == [
        ("P1", "A01", "2", "no locations"),
        ("P1", "A01", "3", "empty locations"),
        ("P1", "A01", "4", "damaged locations"),
        ("P1", "A01", "5", "cell outside"),
        ("P1", "A01", "7", "damaged locations"),
    ]
    assert problems[0].detail == f"{folder / 'A01-2-Nuclei.csv'}: there is no such file"
    assert "line 3" in problems[2].detail
    assert (
        "3 of 5 cells are outside 9 x 12 pixels: rows 0, 2, 4; the first at y 1, x 12" in problems[3].detail
    )
    assert {problem.problem for problem in problems} < set(plate_files.PROBLEMS)


def test_a_location_folder_that_cannot_be_read_is_a_problem(one):
    (one / "inputs/locations/P1/B03-1-Nuclei.csv").unlink()
    (one / "inputs/locations/P1/B03-1-Nuclei.csv").mkdir()
    _, _, problems = plate_files.check_locations(find(one, channels=TWO), shape=(9, 12))
    assert [problem.problem for problem in problems] == ["damaged locations"]


# --- the real example


def test_real_plates(real_data):
    source = real_data / "lincs_example"
    sites = find(source)
    assert len(sites) == 40
    assert sites.plates == ("SQ00015198", "SQ00015230", "SQ00015231", "SQ00015232", "SQ00015233")
    assert sites.channels == ("DNA", "ER", "RNA", "AGP", "Mito")
    of_plate = [f"{well}-{site}" for well in ("A01", "A13", "J18", "P13") for site in (1, 2)]
    assert [sites.name(i) for i in range(40)] == [
        f"{plate}-{place}" for plate in sites.plates for place in of_plate
    ]
    centers, rows, problems = plate_files.check_locations(sites, shape=(1080, 1080))
    assert (sum(map(len, centers)), problems) == (7184, [])
    for site in range(40):
        text = pathlib.Path(sites.locations[site]).read_text()
        np.testing.assert_array_equal(centers[site], slow_centers(text))
        np.testing.assert_array_equal(rows[site], np.arange(len(centers[site])))


def test_a_real_field(real_data):
    sites = find(real_data / "lincs_example", plates=["SQ00015231"])
    image = read_field(sites, 5)
    assert (sites.name(5), image.shape, image.dtype) == ("SQ00015231-J18-2", (1080, 1080, 5), np.uint8)
    for channel in range(5):
        name = f"SQ00015231/r10c18f02p01-ch{channel + 1}sk1fk1fl1.png"
        with PIL.Image.open(real_data / "lincs_example" / "inputs" / "images" / name) as expected:
            assert image[..., channel].tobytes() == expected.tobytes()
    centers = read_centers(sites.locations[5])
    dna = image[..., 0]
    at_cells = dna[tuple(np.floor(centers + 0.5).astype(int).clip(0, 1079).T)]
    assert np.median(at_cells) > np.percentile(dna, 80)  # nuclei are bright in DNA where they are said to be
