"""BBBC016: GFP-arrestin gathers in spots under a compound that is not named, 24 wells of row O, three fields each.

    BBBC016_v1_images/1234_O01f00d0.TIF     barcode, well, field, d0 DNA or d2 GFP
    BBBC016_v1_platemap.txt                 a header line, then 72 doses: one for each field, ordered by well and field

A dose of 0 is a negative control. The unit is the one that stands in the header line of the map; without one the
doses are numbers without a unit, and their concentrations in mol/L unknown.
"""

import collections
import pathlib
import re

from coos import concentrations
from coos.data import plate_fields, plate_maps
from coos.data.plate_fields import Fields
from coos.data.sample_index import site_name
from tfds_builders.bbbc.bbbc015 import require_all_sites

CHANNELS = ("GFP", "DNA")
FOLDERS, MAP = ("BBBC016_v1_images", "images"), "BBBC016_v1_platemap.txt"
COMPOUND = "undisclosed"
CODES = {"2": "GFP", "0": "DNA"}
EXPECTED = "<barcode>_O01f00d0.TIF"
PATTERN = r"(?P<barcode>.+)_(?P<well>[A-P]\d{2})f(?P<field>\d{2})d(?P<code>[02])"

Place = tuple[str, str]


def find(source: pathlib.Path) -> Fields:
    """The 72 fields."""
    folder, path = plate_fields.folder_of(source, *FOLDERS), plate_fields.require_file(source, MAP)
    files, barcodes = [], {}
    for match, image in plate_fields.matches(folder, PATTERN, expected=EXPECTED):
        files.append(((match["well"].upper(), site_name(match["field"])), CODES[match["code"]], image))
        barcodes[match["barcode"]] = image
    if len(barcodes) > 1:
        raise ValueError(f"{folder}: images of several plates: {', '.join(map(str, barcodes.values()))}")
    images = plate_fields.pair(files, CHANNELS)
    require_all_sites(images, folder)
    places = sorted(images)
    doses = _doses(path, places)
    replicates, unit = _replicates(doses), _unit(path)
    rows = [
        {
            "plate": next(iter(barcodes)),
            "well": well,
            "site": site,
            "compound": COMPOUND if doses[well] else plate_fields.VEHICLE,
            "concentration": doses[well],
            "concentration_unit": unit,
            "replicate": replicates[well],
            "control": None if doses[well] else "negative",
            "cell_line": "U2OS",
        }
        for well, site in places
    ]
    return plate_fields.make(rows, CHANNELS, [images[place] for place in places], where=str(source))


def _doses(path: pathlib.Path, places: list[Place]) -> dict[str, float]:
    """The dose of every well; its fields must have the same."""
    found: dict[str, float] = {}
    for (well, site), entry in zip(places, plate_maps.read_list(path, count=len(places)), strict=True):
        if found.setdefault(well, entry.value) != entry.value:
            raise ValueError(
                f"{path}, line {entry.line}: well {well}, field {site} has dose {entry.value:g}, but the fields before "
                f"it {found[well]:g}; the map must be ordered by well and field"
            )
    return found


def _replicates(doses: dict[str, float]) -> dict[str, int]:
    """Of the wells with the same dose the first is replicate 1, the next 2, ..."""
    counts: dict[float, int] = collections.Counter()
    found = {}
    for well, dose in doses.items():
        counts[dose] += 1
        found[well] = counts[dose]
    return found


def _unit(path: pathlib.Path) -> str | None:
    """The unit that the header line of a map names, if it names one."""
    header = path.read_text(encoding="utf-8-sig").splitlines()[0]
    words = re.findall(r"[^\W\d_]+", header)
    return next((word for word in words if word in concentrations.UNITS), None)
