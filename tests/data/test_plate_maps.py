"""Plate maps that are lists, tables of concentrations, files of one plane, and the table of fields they end in."""

import pathlib

import numpy as np
import PIL.Image
import polars as pl
import pytest
import tifffile

from coos.data import plane_files, plate_fields, plate_maps

RNG = np.random.default_rng(3)
PLANE = RNG.integers(0, 256, (7, 9)).astype(np.uint8)
RAMP = [value for grey in range(256) for value in (grey, grey, grey)]


def text(path, content):
    path.write_text(content)
    return path


# ------------------------------------------------------------------------------------------------- plate maps


def test_a_list_has_a_header_and_entries_of_both_kinds(tmp_path):
    path = text(tmp_path / "map.txt", "Concentration (M)\r\n0\r\n10^-7\r\n10^-7.5 0.98\r\n\r\n3e-9\r\n")
    entries = plate_maps.read_list(path, count=5)
    assert [entry.value for entry in entries] == [0, 1e-7, pytest.approx(10**-7.5), 0.98, 3e-9]
    assert [entry.line for entry in entries] == [2, 3, 4, 4, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("head\n1\n2\n", r"map.txt: has 2 entries after its header line; expected 3"),
        ("head\n1\n2\n3\n4\n", "has 4 entries"),
        ("head\n1\ntwo\n3\n", r"map.txt, line 3: 'two' is no number, nor a power"),
        ("head\n1\n2\n-3\n", r"map.txt, line 4: concentration -3 is negative or not finite"),
        ("head\n1\n2\nnan\n", r"line 4: concentration nan is negative or not finite"),
        ("head\n1\n10^7\n10^999\n", r"line 4: '10\^999' is no number"),
    ],
)
def test_a_wrong_list_is_told_with_its_line(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plate_maps.read_list(text(tmp_path / "map.txt", content), count=3)


def test_wells_are_numbered_row_by_row():
    names = [f"{row}{column:02}" for row in "ABCDEFGH" for column in range(1, 13)]
    assert [plate_maps.well_name(number) for number in range(96)] == names
    assert [plate_maps.well_number(name) for name in names] == list(range(96))
    assert plate_maps.well_name(24, columns=24) == "B01"


HEAD = "compound,dose_step,concentration,unit\n"


def test_a_table_of_concentrations_is_looked_up(tmp_path):
    path = text(tmp_path / "table.csv", f"{HEAD}one,1,0.5,uM\none,2,10^-6,M\ntwo,1,3,nM\n")
    table = plate_maps.read_concentrations(path)
    assert table == {("one", 1): (0.5, "uM"), ("one", 2): (1e-6, "M"), ("two", 1): (3, "nM")}
    assert plate_maps.concentration_of(table, "two", 1, where="t") == (3, "nM")
    with pytest.raises(ValueError, match=r"t: step 3 of 'one' missing; it has steps \[1, 2\]"):
        plate_maps.concentration_of(table, "one", 3, where="t")
    with pytest.raises(ValueError, match="t: compound 'three' missing; it has one, two"):
        plate_maps.concentration_of(table, "three", 1, where="t")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("compound,dose_step,concentration\none,1,2\n", "column 'unit' missing"),
        (f"{HEAD}one,1,2,uM\none,1,3,uM\n", "line 3: one, step 1 occurs twice"),
        (f"{HEAD}one,1,2,furlong\n", "line 2: unknown unit of concentration 'furlong'"),
        (f"{HEAD}one,1,-2,uM\n", "line 2: concentration -2 is negative"),
        (f"{HEAD}one,first,2,uM\n", "line 2: dose_step 'first': expected 0, 1, 2"),
        (f"{HEAD}one,1,,uM\n", "line 2: has an empty field"),
        (f"{HEAD}one,1\n", "line 2: has an empty field"),
    ],
)
def test_a_wrong_table_is_told_with_its_line(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plate_maps.read_concentrations(text(tmp_path / "table.csv", content))


# ------------------------------------------------------------------------------------------------- planes


@pytest.mark.parametrize("name", ["a.bmp", "a.dib", "a.png", "a.tif", "a.jpg"])
def test_grey_planes_come_back_as_they_were(name, tmp_path):
    plane = np.full((8, 8), 77, np.uint8) if name.endswith("jpg") else PLANE
    PIL.Image.fromarray(plane).save(tmp_path / name, format="DIB" if name.endswith("dib") else None)
    found = plane_files.read_plane(tmp_path / name)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, plane)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_stay(name, tmp_path):
    plane = PLANE.astype(np.uint16) * 257
    (tifffile.imwrite if name == "a.tif" else lambda p, x: PIL.Image.fromarray(x).save(p))(
        tmp_path / name, plane
    )
    found = plane_files.read_plane(tmp_path / name)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, plane)


@pytest.mark.parametrize("name", ["a.bmp", "a.tif", "a.png"])
def test_a_palette_becomes_luminance(name, tmp_path):
    colours = RNG.integers(0, 256, (256, 3))
    image = PIL.Image.fromarray(PLANE)
    image.putpalette(colours.ravel().tolist())
    image.save(tmp_path / name)
    red, green, blue = np.moveaxis(colours[PLANE].astype(float), -1, 0)
    wanted = np.floor(0.299 * red + 0.587 * green + 0.114 * blue + 0.5)
    assert np.abs(plane_files.read_plane(tmp_path / name) - wanted).max() == 0
    pillow = np.asarray(PIL.Image.open(tmp_path / name).convert("RGB").convert("L")).astype(int)
    assert np.abs(pillow - wanted).max() <= 1  # it rounds in fixed point
    image.putpalette(RAMP)
    image.save(tmp_path / name)
    np.testing.assert_array_equal(plane_files.read_plane(tmp_path / name), PLANE)


@pytest.mark.parametrize("name", ["a.bmp", "a.tif", "a.png"])
def test_colours_must_be_greys(name, tmp_path):
    pixels = np.repeat(PLANE[..., None], 3, -1)
    PIL.Image.fromarray(pixels).save(tmp_path / name)
    np.testing.assert_array_equal(plane_files.read_plane(tmp_path / name), PLANE)
    pixels[2, 5, 1] ^= 1
    PIL.Image.fromarray(pixels).save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: pixel \(2, 5\) has red, green, blue"):
        plane_files.read_plane(tmp_path / name)


@pytest.mark.parametrize("name", ["a.bmp", "a.tif", "a.jpg", "a.dib", "a.png"])
def test_damaged_files_are_named(name, tmp_path):
    (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(ValueError, match=f"{name}: cannot be read"):
        plane_files.read_plane(tmp_path / name)


def test_several_images_and_other_modes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "two.tif", np.stack([PLANE, PLANE]), photometric="minisblack")
    with pytest.raises(ValueError, match=r"two.tif: .*two-dimensional plane"):
        plane_files.read_plane(tmp_path / "two.tif")
    PIL.Image.fromarray(np.repeat(PLANE[..., None], 4, -1), "RGBA").save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="pixels are RGBA"):
        plane_files.read_plane(tmp_path / "a.png")


def test_partners_must_be_alike(tmp_path):
    for name, plane in (("a", PLANE), ("b", PLANE[:5]), ("c", PLANE.astype(np.uint16))):
        tifffile.imwrite(tmp_path / f"{name}.tif", plane)
    paths = [tmp_path / f"{name}.tif" for name in "aabc"]
    np.testing.assert_array_equal(plane_files.read_planes(paths[:2]), np.stack([PLANE, PLANE], -1))
    with pytest.raises(ValueError, match=r"b.tif: is uint8 \(5, 9\); its partner a.tif is uint8 \(7, 9\)"):
        plane_files.read_planes(paths[1:3])
    with pytest.raises(ValueError, match=r"c.tif: is uint16 \(7, 9\); its partner"):
        plane_files.read_planes([paths[0], paths[3]])


# ------------------------------------------------------------------------------------------------- the table


def row(well, compound, concentration, control=None, **more):
    place = {"plate": "P", "well": well, "site": "1"}
    known = {"compound": compound, "concentration": concentration, "concentration_unit": "uM"}
    return place | known | {"control": control} | more


def test_the_table_is_sorted_converted_and_ranked():
    rows = [
        row("B10", "one", 10.0),
        row("B02", "one", 0.1),
        row("A01", "DMSO", 0.0, "negative"),
        row("A02", "one", 0.1 * (1 + 1e-9)),  # the same, written otherwise
        row("A03", "two", 10.0),
        row("A04", None, 5.0, "positive"),
        row("A05", "one", 3.0, "positive"),  # no dose of the series
        row("A06", "one", 10.0, "positive"),  # one of its doses
        row("A07", "three", None, dose_step=4),
        row("A08", "one", 100.0, concentration_unit="nM"),
        row("A09", "four", 7.0, concentration_unit=None),
    ]
    fields = plate_fields.make(rows, ["x"], [[pathlib.Path(r["well"])] for r in rows], where="here")
    frame = fields.frame
    assert tuple(frame.columns) == plate_fields.COLUMNS
    wells = frame["Metadata_Well"].to_list()
    assert wells == sorted(r["well"] for r in rows)
    assert [str(path) for (path,) in fields.images] == wells
    steps = dict(zip(wells, frame["Metadata_dose_step"], strict=True))
    assert steps == {
        **{"A01": 0, "A02": 1, "A03": 1, "A04": None, "A05": None, "A06": 2, "A07": 4, "A08": 1, "A09": 1},
        **{"B02": 1, "B10": 2},
    }
    molar = dict(zip(wells, frame["Metadata_concentration_molar"], strict=True))
    assert molar["B10"] == 1e-5
    assert molar["A08"] == 1e-7
    assert molar["A01"] == 0
    assert molar["A07"] is None
    assert molar["A09"] is None
    assert frame["Metadata_concentration"][wells.index("A09")] == 7
    assert frame.filter(pl.col("Metadata_Well") == "B10").select("Metadata_Row", "Metadata_Column").row(
        0
    ) == ("B", 10)
    assert frame["Metadata_id"][0] == "P-A01-1"


def test_sites_that_are_numbers_are_sorted_as_numbers():
    rows = [{"plate": "P", "well": "A01", "site": site} for site in ("10", "9", "1")]
    assert plate_fields.make(rows, ["x"], None, where="here").frame["Metadata_Site"].to_list() == [
        "1",
        "9",
        "10",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "here: no fields of view"),
        ([row("A01", "one", 1.0), row("A01", "one", 1.0)], "here: 1 fields occur twice: P-A01-1"),
        ([row("A01", "one", 1.0, concentration_unit="mg/ml")], "here: unit 'mg/ml' is a mass per volume"),
        ([row("A01", "one", -1.0)], "here: concentration -1 at position 0"),
        ([row("A01", "one", 1.0, "perhaps")], "here: control 'perhaps'; known: negative, positive"),
    ],
)
def test_wrong_rows_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        plate_fields.make(rows, ["x"], None, where="here")


def test_files_are_paired_or_named(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    files = [("A01", "y", b), ("A01", "x", a), ("A02", "x", c)]
    assert plate_fields.pair(files[:2], ["x", "y"]) == {"A01": (a, b)}
    with pytest.raises(ValueError, match=r"c: its partner, channel y of field A02, is missing"):
        plate_fields.pair(files, ["x", "y"])
    with pytest.raises(ValueError, match=r"c: same field and channel x as .*a; keep one"):
        plate_fields.pair([*files[:2], ("A01", "x", c)], ["x", "y"])


def test_missing_files_are_found_whether_or_not_their_folder_is_there(tmp_path):
    (tmp_path / "a").write_text("")
    wanted = [tmp_path / "a", tmp_path / "b", tmp_path / "no" / "c"]
    assert plate_fields.exists(wanted) == [str(path) for path in wanted[1:]]
