"""BBBC013: FKHR-GFP goes into the nucleus of U2OS cells, 96 wells of one plate, one field each.

    BBBC013_v1_images_bmp/Channel1-01-A-01.BMP     1 FKHR-GFP, 2 DNA; number of the well row by row, row, column
    BBBC013_v1_platemap_all.txt                    a header line, then 96 concentrations: rows A-D nM, E-H µM
    1049_Metadata.csv                              or this: Column, Row, SBS_Doses (0 to 10), SBS_Controls (-1, 1, 0)

Rows A-D got wortmannin, rows E-H LY294002: four replicates of nine concentrations each, in columns 3-11.
"""

import csv
import pathlib
from collections.abc import Iterator
from typing import Any

from coos.data import plate_fields, plate_maps
from coos.data.plate_fields import Fields

NAME = "BBBC013"
CHANNELS = ("GFP", "DNA")
FOLDERS = ("BBBC013_v1_images_bmp", "BBBC013_v1_images", "images")
MAP, STEPS = "BBBC013_v1_platemap_all.txt", "1049_Metadata.csv"
DRUGS = (("wortmannin", "nM"), ("LY294002", "uM"))  # of rows A-D and E-H
NEGATIVE = ((1, 2), (2, 12))  # columns of the controls beside each
POSITIVE = (12, 1)
COLUMNS = ("Column", "Row", "SBS_Doses", "SBS_Controls")
CONTROLS = {"-1": "negative", "1": "positive", "0": None}
EXPECTED = "Channel1-01-A-01.BMP"
PATTERN = r"channel *(?P<channel>[12])-(?P<number>\d{2})-(?P<row>[A-H])-(?P<column>\d{2})"


def find(source: pathlib.Path, *, concentrations: str | pathlib.Path | None = None) -> Fields:
    """The 96 fields; `concentrations` is a table for a plate map in steps (`plate_maps.read_concentrations`)."""
    folder = plate_fields.folder_of(source, *FOLDERS)
    images = plate_fields.numbered_wells(folder, PATTERN, CHANNELS, expected=EXPECTED)
    known = {row["well"]: row for row in _known(source, concentrations)}
    plate_fields.require_same(known, images, source=str(source), folder=str(folder))
    rows = [known[well] for well in images]
    return plate_fields.make(rows, CHANNELS, list(images.values()), where=str(source))


def _known(source: pathlib.Path, concentrations: str | pathlib.Path | None) -> Iterator[dict[str, Any]]:
    path = plate_fields.file_of(source, MAP)
    if path is not None and concentrations is None:
        yield from _from_list(path)
        return
    steps = plate_fields.file_of(source, STEPS)
    if steps is None:
        raise ValueError(
            f"{source}: no {STEPS if path else MAP}"
            + (", which the table of concentrations is for" if path else f", nor {STEPS}")
        )
    yield from _from_steps(steps, concentrations)


def _row(well: str, control: str | None) -> dict[str, Any]:
    """What is known of a well whatever its concentration. The drug of a positive control is not one of its doses."""
    number = ord(well[0]) - ord("A")
    compound = {"negative": plate_fields.VEHICLE, "positive": None, None: DRUGS[number // 4][0]}[control]
    return {
        "plate": NAME,
        "well": well,
        "site": "1",
        "compound": compound,
        "replicate": number % 4 + 1,
        "control": control,
        "cell_line": "U2OS",
    }


def _from_list(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(plate_maps.read_list(path, count=96)):
        well = plate_maps.well_name(number)
        half = number // 48
        column = int(well[1:])
        control = "negative" if column in NEGATIVE[half] else "positive" if column == POSITIVE[half] else None
        if (entry.value == 0) != (control == "negative"):
            raise ValueError(
                f"{path}, line {entry.line}: well {well} has concentration {entry.value:g}, but is "
                f"{'a negative' if control == 'negative' else 'no negative'} control"
            )
        yield {**_row(well, control), "concentration": entry.value, "concentration_unit": DRUGS[half][1]}


def _from_steps(path: pathlib.Path, concentrations: str | pathlib.Path | None) -> Iterator[dict[str, Any]]:
    table = None if concentrations is None else plate_maps.read_concentrations(concentrations)
    seen: set[str] = set()
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: column {missing[0]!r} missing; expected {', '.join(COLUMNS)}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            known = _step_row(row, where)
            if known["well"] in seen:
                raise ValueError(f"{where}: well {known['well']} occurs twice")
            seen.add(known["well"])
            yield known if table is None else {**known, **_looked_up(known, table, str(concentrations))}


def _step_row(row: dict[str, str], where: str) -> dict[str, Any]:
    if row["SBS_Controls"] not in CONTROLS:
        raise ValueError(f"{where}: SBS_Controls is {row['SBS_Controls']!r}; expected -1, 1 or 0")
    if not (row["SBS_Doses"] or "").isdecimal():
        raise ValueError(f"{where}: SBS_Doses is {row['SBS_Doses']!r}; expected 0, 1, 2, ...")
    if not (row["Row"] in tuple("ABCDEFGH") and (row["Column"] or "").isdecimal()):
        raise ValueError(
            f"{where}: row {row['Row']!r}, column {row['Column']!r} is no well; expected A to H, 01 to 12"
        )
    well, control, step = (
        f"{row['Row']}{int(row['Column']):02}",
        CONTROLS[row["SBS_Controls"]],
        int(row["SBS_Doses"]),
    )
    if (step == 0) != (control == "negative"):
        raise ValueError(f"{where}: well {well} has dose step {step} and control {row['SBS_Controls']}")
    return {**_row(well, control), "dose_step": None if control == "positive" else step}


def _looked_up(
    known: dict[str, Any], table: dict[tuple[str, int], tuple[float, str]], where: str
) -> dict[str, Any]:
    """Concentration and unit: 0 of negative controls, unknown of positive ones, else what the table says."""
    if known["control"] == "positive":
        return {}
    if known["control"] == "negative":
        return {"concentration": 0.0, "concentration_unit": DRUGS["EFGH".find(known["well"][0]) >= 0][1]}
    value, unit = plate_maps.concentration_of(table, known["compound"], known["dose_step"], where=where)
    return {"concentration": value, "concentration_unit": unit}
