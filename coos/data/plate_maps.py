"""Plate maps that are a plain list: a header line, then one entry for each well, row by row.

    values = read_list("platemap.txt", count=96)          # floats; entries such as 0.98 or 10^-7
    well_name(5)                                          # "A06", the sixth well of a plate with 12 columns
    table = read_concentrations("concentrations.csv")     # {("wortmannin", 3): (3.91, "nM"), ...}

The last is for plates whose map says which step of a dilution series a well got, and not the concentration.
"""

import csv
import os
import pathlib
import re
from typing import NamedTuple

from coos import concentrations

COLUMNS = 12
POWER = re.compile(r"10\^\(?([+-]?\d+(?:\.\d+)?)\)?")
STEPS = ("compound", "dose_step", "concentration", "unit")


class Entry(NamedTuple):
    """One entry of a plate map and the line (from 1) on which it stands."""

    value: float
    line: int


def well_name(number: int, *, columns: int = COLUMNS) -> str:
    """The name of a well by its place in row-major order, from 0: 0 is A01."""
    row, column = divmod(number, columns)
    return f"{chr(ord('A') + row)}{column + 1:02}"


def well_number(well: str, *, columns: int = COLUMNS) -> int:
    """The inverse of `well_name`."""
    return (ord(well[0]) - ord("A")) * columns + int(well[1:]) - 1


def read_list(path: str | os.PathLike, *, count: int) -> list[Entry]:
    """Read a header line and `count` concentrations, one or several a line.

    Raises:
        ValueError: an entry that is no number (or power such as 10^-7) or is negative, with its line; or another
            number of entries.
    """
    path = pathlib.Path(path)
    lines = _text(path).splitlines()
    entries = [
        Entry(parse(token, f"{path}, line {number}"), number)
        for number, line in enumerate(lines[1:], start=2)
        for token in line.split()
    ]
    if len(entries) != count:
        raise ValueError(
            f"{path}: has {len(entries)} entries after its header line; expected {count}, one for each well"
        )
    return entries


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text ({error})") from error


def parse(token: str, where: str) -> float:
    """A concentration as a number or a power of ten; 0 or more.

    Raises:
        ValueError: anything else, with `where` it stands.
    """
    power = POWER.fullmatch(token)
    try:
        value = 10.0 ** float(power[1]) if power else float(token)
    except (ValueError, OverflowError):
        raise ValueError(f"{where}: {token!r} is no number, nor a power such as 10^-7") from None
    if not 0 <= value < float("inf"):
        raise ValueError(f"{where}: concentration {token} is negative or not finite")
    return value


def read_concentrations(path: str | os.PathLike) -> dict[tuple[str, int], tuple[float, str]]:
    """Concentrations and their units by compound and dose step, from a CSV with the columns of `STEPS`.

    Raises:
        ValueError: a column is missing, or a row has another unit, no number, or a compound and step that were there.
    """
    path = pathlib.Path(path)
    reader = csv.DictReader(_text(path).splitlines())
    missing = [name for name in STEPS if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} missing; expected {', '.join(STEPS)}")
    found: dict[tuple[str, int], tuple[float, str]] = {}
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if any(not row[name] for name in STEPS):
            raise ValueError(f"{where}: has an empty field; expected {', '.join(STEPS)}")
        if not re.fullmatch(r"\d+", row["dose_step"]):
            raise ValueError(f"{where}: dose_step {row['dose_step']!r}: expected 0, 1, 2, ...")
        key = (row["compound"].strip(), int(row["dose_step"]))
        if key in found:
            raise ValueError(f"{where}: {key[0]}, step {key[1]} occurs twice")
        value = parse(row["concentration"].strip(), where)
        concentrations.to_molar(value, row["unit"], where=where)  # refuses a unit that is none
        found[key] = value, row["unit"].strip()
    return found


def concentration_of(
    table: dict[tuple[str, int], tuple[float, str]], compound: str, step: int, *, where: str
) -> tuple[float, str]:
    """Concentration and unit of a step.

    Raises:
        ValueError: the table lacks the compound or the step, with what it has; `where` names the table.
    """
    if (compound, step) in table:
        return table[compound, step]
    steps = sorted(number for name, number in table if name == compound)
    if not steps:
        known = ", ".join(sorted({name for name, _ in table})) or "nothing"
        raise ValueError(f"{where}: compound {compound!r} missing; it has {known}")
    raise ValueError(f"{where}: step {step} of {compound!r} missing; it has steps {steps}")
