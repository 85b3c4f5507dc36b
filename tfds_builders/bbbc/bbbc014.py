"""BBBC014: NF-kB goes into the nucleus under TNF-alpha, 96 wells of one plate, two cell lines, one field each.

    BBBC014_v1_images/Channel 1-01-A-01-00.Bmp     1 FITC (NF-kB), 2 DAPI; number of the well row by row, row, column
    BBBC014_v1_platemap_all.txt                    a header line, then 96 concentrations in mol/L, such as 10^-7

Rows A-D are MCF7, rows E-H A549: four replicates of each concentration. There are no wells of controls; where the map
says 0 the well is a negative one.
"""

import pathlib

from coos.data import plate_fields, plate_maps
from coos.data.plate_fields import Fields

NAME = "BBBC014"
CHANNELS = ("NFkB", "DNA")
FOLDERS, MAP = ("BBBC014_v1_images", "images"), "BBBC014_v1_platemap_all.txt"
CELL_LINES = ("MCF7", "A549")
COMPOUND, UNIT = "TNF-alpha", "M"
EXPECTED = "Channel 1-01-A-01-00.Bmp"
PATTERN = r"channel *(?P<channel>[12])-(?P<number>\d{2})-(?P<row>[A-H])-(?P<column>\d{2})-00"


def find(source: pathlib.Path) -> Fields:
    """The 96 fields."""
    folder, path = plate_fields.folder_of(source, *FOLDERS), plate_fields.require_file(source, MAP)
    images = plate_fields.numbered_wells(folder, PATTERN, CHANNELS, expected=EXPECTED)
    entries = plate_maps.read_list(path, count=96)
    wells = [plate_maps.well_name(number) for number in range(96)]
    plate_fields.require_same(wells, images, source=str(path), folder=str(folder))
    rows = [
        {
            "plate": NAME,
            "well": well,
            "site": "1",
            "compound": COMPOUND if entry.value else plate_fields.VEHICLE,
            "concentration": entry.value,
            "concentration_unit": UNIT,
            "replicate": number // 12 % 4 + 1,
            "control": None if entry.value else "negative",
            "cell_line": CELL_LINES[number // 48],
        }
        for number, (well, entry) in enumerate(zip(wells, entries, strict=True))
    ]
    return plate_fields.make(rows, CHANNELS, [images[well] for well in wells], where=str(source))
