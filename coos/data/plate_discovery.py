"""Which images of which fields of view a release of plates has: by the names of its files, or by an index.

Both ways give `Found`. Wells are named "A01", sites "1".
"""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl
from absl import logging
from tqdm import tqdm

from coos.data.sample_index import PLACE, refuse_repeated, site_name, well_name
from coos.profiles import delimited, files
from coos.profiles.table import PREFIX, listing

CHANNELS = {"ch1": "DNA", "ch2": "ER", "ch3": "RNA", "ch4": "AGP", "ch5": "Mito"}
SUFFIXES = (".png", ".tif", ".tiff")
IMAGE = re.compile(r"r([0-9]+)c([0-9]+)f([0-9]+)(?:p[0-9]+)?-ch([0-9]+).*\.(?:png|tiff?)", re.IGNORECASE)
EXPECTED = "r01c01f01p01-ch1sk1fk1fl1.png or .tif (row, column, field, channel)"
WELL = re.compile(r"[A-Za-z]{1,2}[0-9]+")
LOCATIONS = re.compile(r"(.+)-([^-]+)-Nuclei\.csv", re.IGNORECASE)
ROWS, COLUMNS = 32, 48  # of a plate with 1536 wells
FEW = 20  # plates that are listed without a progress bar

Channels = Mapping[str, str] | Sequence[str]
Image = tuple[str, str, int]  # well, site, number of the channel


class Found(NamedTuple):
    """The places (S rows: Metadata_Plate, Metadata_Well, Metadata_Site and more), the channels, and a path of each."""

    frame: pl.DataFrame
    channels: tuple[str, ...]
    images: list[tuple[str, ...]]


def by_name(images: pathlib.Path, channels: Channels, plates: Sequence[str] | None) -> Found:
    """What the names of the files in <images>/<plate> tell; errors as of `plate_files.find`."""
    names = _numbered(channels)
    places, paths = [], []
    unread: dict[int, str] = {}
    folders = _plate_folders(images, plates)
    for plate in tqdm(folders, desc="plates", disable=None if len(folders) > FEW else True):
        found = _scan_plate(images / plate)
        for place in dict.fromkeys(image[:2] for image in found):
            places.append((plate, *place))
            paths.append(tuple(found.get((*place, number), "") for number in names))
        unread |= {number: path for (_, _, number), path in found.items() if number not in names}
    for number, path in sorted(unread.items()):
        logging.info("channel ch%d is not read; there is, for example, %s", number, path)
    for channel, number in enumerate(names):
        if not any(path[channel] for path in paths):
            known = ", ".join(f"ch{n}" for n in sorted({*names, *unread}) if n != number)
            raise ValueError(
                f"{images}: no file is of channel ch{number} ({names[number]}); name other channels ({known})"
            )
    frame = pl.DataFrame(places, schema=dict.fromkeys(PLACE, pl.String), orient="row")
    return Found(frame, tuple(names.values()), paths)


def _numbered(channels: Channels) -> dict[int, str]:
    """Names by the number of the channel, in the wanted order."""
    if not isinstance(channels, Mapping):
        channels = {f"ch{number}": name for number, name in enumerate(channels, 1)}
    wrong = [key for key in channels if not re.fullmatch("ch[1-9][0-9]*", key)]
    if wrong:
        raise ValueError(f"channel {wrong[0]!r} is not ch1, ch2, ...; channels are {dict(channels.items())}")
    names = {int(key[2:]): name for key, name in channels.items()}
    _require_distinct(list(names.values()))
    return names


def _require_distinct(names: Sequence[str]) -> None:
    if not names or len(set(names)) < len(names):
        raise ValueError(f"channels {list(names)}: name at least one, and none twice")


def _plate_folders(images: pathlib.Path, plates: Sequence[str] | None) -> list[str]:
    if not images.is_dir():
        raise ValueError(f"{images}: no such folder; expected <plate>/{EXPECTED} below it")
    found = sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    missing = [plate for plate in plates or () if plate not in found]
    if missing or not found:
        what = f"plate {listing(missing)} missing" if missing else f"no plates; expected <plate>/{EXPECTED}"
        raise ValueError(f"{images}: {what}; found folders {listing(found, 10) or 'none'}")
    return found if plates is None else list(dict.fromkeys(plates))


def _scan_plate(folder: pathlib.Path) -> dict[Image, str]:
    """The images of a plate; ValueError if there are none, or two of one place and channel."""
    found: dict[Image, str] = {}
    others = []
    for name in sorted(os.listdir(folder)):
        match = IMAGE.fullmatch(name)
        if not match:
            others.append(name)
            continue
        path = os.path.join(folder, name)
        other = found.setdefault(_parts(path, *map(int, match.groups())), path)
        if other != path:
            raise ValueError(f"{path}: same well, site and channel as {other}; keep one of the two")
    others = [name for name in others if not name.startswith(".")]
    if not found:
        raise ValueError(
            f"{folder}: no images; expected {EXPECTED}, found {listing(others, 3) or 'nothing'}; "
            "remove the folder, or name the plates to read"
        )
    strange = [name for name in others if name.lower().endswith(SUFFIXES)]
    if strange:
        logging.warning("%s: %d images are not read, as they are not called %s: %s",
                        folder, len(strange), EXPECTED, listing(strange, 3))  # fmt: skip
    return found


def _parts(path: str, row: int, column: int, site: int, channel: int) -> Image:
    if not (1 <= row <= ROWS and 1 <= column <= COLUMNS):
        raise ValueError(f"{path}: row {row}, column {column}; plates have up to {ROWS} and {COLUMNS}")
    letters = chr(64 + row) if row <= 26 else "A" + chr(64 + row - 26)
    return f"{letters}{column:02d}", str(site), channel


def by_index(
    path: pathlib.Path, images: pathlib.Path, channels: Channels | None, plates: Sequence[str] | None
) -> Found:
    """What the rows of an index tell; errors as of `plate_files.find`."""
    table = _read_table(path)
    missing = [name for name in PLACE if name not in table.columns]
    if missing:
        raise ValueError(f"{path}: column {listing(missing)} missing; found {listing(table.columns, 20)}")
    table = _with_places(path, table)
    if plates is not None:
        table = _of_plates(path, table, plates)
    names = _index_channels(path, table, channels)
    paths = [
        tuple(os.path.join(images, file) if file else "" for file in row)
        for row in table.select(names).iter_rows()
    ]
    return Found(_metadata(path, table.drop(names)), names, paths)


def _read_table(path: pathlib.Path) -> pl.DataFrame:
    """All columns as text, but for those that are the index of a pandas frame."""
    names = enumerate(delimited.header(path))
    kept = [i for i, name in names if name and not re.fullmatch(files.INDEX, name)]
    return delimited.read_text_frame(path)[:, kept]


def _with_places(path: pathlib.Path, table: pl.DataFrame) -> pl.DataFrame:
    """The table with wells as "A01" and sites as "1"; each place must be known and stand on one row."""
    for name in PLACE:
        if table[name].null_count():
            line = int(table[name].is_null().arg_max() or 0) + 2
            raise ValueError(
                f"{path}, line {line}: {name} is empty; name plate, well and site of every image"
            )
    plates, wells, sites = (table[name].to_list() for name in PLACE)
    for line, well in enumerate(wells, 2):
        if not WELL.fullmatch(well):
            raise ValueError(
                f"{path}, line {line}: {PLACE[1]} is {well!r}; a well is a letter or two and a number, such as A01"
            )
    wells, sites = list(map(well_name, wells)), list(map(site_name, sites))
    refuse_repeated(path, list(zip(plates, wells, sites, strict=True)), "plate, well and site")
    return table.with_columns(pl.Series(PLACE[1], wells, pl.String), pl.Series(PLACE[2], sites, pl.String))


def _of_plates(path: pathlib.Path, table: pl.DataFrame, plates: Sequence[str]) -> pl.DataFrame:
    known = table[PLACE[0]].unique(maintain_order=True).to_list()
    missing = [plate for plate in plates if plate not in known]
    if missing:
        raise ValueError(f"{path}: plate {listing(missing)} missing; found {listing(known, 10)}")
    return table.filter(pl.col(PLACE[0]).is_in(list(plates)))


def _index_channels(path: pathlib.Path, table: pl.DataFrame, channels: Channels | None) -> tuple[str, ...]:
    """The columns of images: those asked for, or those that hold paths of images and nothing else."""
    names = _columns_of_paths(table)
    if channels is not None:
        names = list(channels.values() if isinstance(channels, Mapping) else channels)
    missing = [name for name in names if name not in table.columns or not table[name].count()]
    if missing or not names:
        what = f"no images of channel {listing(missing)}" if missing else "no column with images only"
        raise ValueError(f"{path}: {what} ({', '.join(SUFFIXES)}); columns are {listing(table.columns, 20)}")
    _require_distinct(names)
    return tuple(names)


def _columns_of_paths(table: pl.DataFrame) -> list[str]:
    texts = {column.name: column.drop_nulls().str.to_lowercase() for column in table}
    return [
        name
        for name, text in texts.items()
        if not name.startswith(PREFIX) and len(text) and text.str.contains(r"\.(png|tiff?)$").all()
    ]


def _metadata(path: pathlib.Path, table: pl.DataFrame) -> pl.DataFrame:
    """The columns with their types and the prefix."""
    names = [files.prefixed(name) for name in table.columns]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{path}: columns with and without the prefix would be the same in {listing(names, 20)}"
        )
    return delimited.infer(table.rename(dict(zip(table.columns, names, strict=True))), text=PLACE)


def find_locations(folder: pathlib.Path, places: Sequence[tuple[str, str, str]]) -> tuple[str, ...]:
    """The location file of each place, "" where there is none; a warning says which files are of no place."""
    known = {plate: _scan_locations(folder / plate) for plate in dict.fromkeys(place[0] for place in places)}
    wanted = set(places)
    unread = [
        path for plate, files in known.items() for key, path in files.items() if (plate, *key) not in wanted
    ]
    if unread:
        logging.warning("%d location files are not read, as no field of view is of their plate, well and site: %s",
                        len(unread), listing(unread, 3))  # fmt: skip
    return tuple(known[plate].get((well, site), "") for plate, well, site in places)


def _scan_locations(folder: pathlib.Path) -> dict[tuple[str, str], str]:
    """Location files of a plate by well and site; ValueError if a site has two."""
    found: dict[tuple[str, str], str] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        match = LOCATIONS.fullmatch(name)
        if match and not name.startswith("."):
            path = os.path.join(folder, name)
            other = found.setdefault((well_name(match[1]), site_name(match[2])), path)
            if other != path:
                raise ValueError(f"{path}: same well and site as {other}; keep one of the two")
    return found
