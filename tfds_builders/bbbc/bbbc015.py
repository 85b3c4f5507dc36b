"""BBBC015: beta2 adrenergic receptor and arrestin under isoproterenol, three rows of 12 concentrations, four fields.

    BBBC015_v1_images/A01_1_1.JPG     well, field, channel (1 receptor, 2 arrestin); red, green and blue are equal
    BBBC015_v1_platemap.txt           a header line, then a concentration in mol/L for each well there is, row by row

This layout is from descriptions of the set; we have not seen its files.
"""

import collections
import pathlib

from coos.data import plate_fields, plate_maps
from coos.data.plate_fields import Fields
from coos.data.sample_index import site_name, well_name
from coos.profiles.table import listing

NAME = "BBBC015"
CHANNELS = ("beta2AR", "arrestin")
FOLDERS, MAP = ("BBBC015_v1_images", "images"), "BBBC015_v1_platemap.txt"
COMPOUND, UNIT = "isoproterenol", "M"
EXPECTED = "A01_1_1.JPG"
PATTERN = r"(?P<well>[A-P]\d{1,2})_(?P<field>\d+)_(?P<channel>[12])"


def find(source: pathlib.Path) -> Fields:
    """All fields; every well must have the same ones."""
    folder, path = plate_fields.folder_of(source, *FOLDERS), plate_fields.require_file(source, MAP)
    files = [
        ((well_name(match["well"]), site_name(match["field"])), CHANNELS[int(match["channel"]) - 1], image)
        for match, image in plate_fields.matches(folder, PATTERN, expected=EXPECTED)
    ]
    images = plate_fields.pair(files, CHANNELS)
    require_all_sites(images, folder)
    wells = sorted({well for well, _ in images})
    letters = sorted({well[0] for well in wells})
    doses = dict(zip(wells, plate_maps.read_list(path, count=len(wells)), strict=True))
    rows = [
        {
            "plate": NAME,
            "well": well,
            "site": site,
            "compound": COMPOUND if doses[well].value else plate_fields.VEHICLE,
            "concentration": doses[well].value,
            "concentration_unit": UNIT,
            "replicate": letters.index(well[0]) + 1,
            "control": None if doses[well].value else "negative",
            "cell_line": "U2OS",
        }
        for well, site in images
    ]
    return plate_fields.make(rows, CHANNELS, list(images.values()), where=str(source))


def require_all_sites(places: collections.abc.Iterable[tuple[str, str]], folder: pathlib.Path) -> None:
    """ValueError for a well that lacks a field which others have."""
    there = set(places)
    wells, sites = {well for well, _ in there}, {site for _, site in there}
    missing = sorted(f"{well}, field {site}" for well in wells for site in sites if (well, site) not in there)
    if missing:
        raise ValueError(
            f"{folder}: images missing: {listing(missing)}; every well needs fields {sorted(sites)}"
        )
