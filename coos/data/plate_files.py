"""Plates on disk, as DeepProfiler lays them out: images of fields of view, and where their cells are.

    sites = plate_files.find("release")
    image = plate_files.read_field(sites, 0)                       # (H, W, C)
    centers, rows, problems = plate_files.check_locations(sites, shape=image.shape[:2])

    <source>/inputs/images/<plate>/r{row:02}c{col:02}f{site:02}p01-ch{n}sk1fk1fl1.png    .tif, .tiff; 8 or 16 bit grey
    <source>/inputs/locations/<plate>/<Well>-<site>-Nuclei.csv                           see `coos.data.plate_locations`
    <source>/inputs/metadata/index.csv                                                   optional, see `find`

The folders may also lie directly below <source>. Wells are named "A01", sites "1".
"""

import dataclasses
import functools
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import polars as pl
from absl import logging
from tqdm import tqdm

from coos.data import image_tree, plate_discovery
from coos.data.plate_discovery import CHANNELS, SUFFIXES, Channels
from coos.data.plate_locations import read_centers, read_many
from coos.data.sample_index import PLACE
from coos.profiles.table import listing

__all__ = [
    "PROBLEMS",
    "FieldError",
    "Problem",
    "Sites",
    "check_locations",
    "find",
    "read_centers",
    "read_field",
]

PROBLEMS = (
    "missing channel",
    "no locations",
    "empty locations",
    "damaged locations",
    "cell outside",
    "image size",
    "unreadable image",
)
DTYPES = ("uint8", "uint16")
PNG = b"\x89PNG\r\n\x1a\n"
COLOUR = {
    0: "grey",
    2: "RGB",
    3: "palette",
    4: "grey with alpha",
    6: "RGB with alpha",
}  # PNG specification, 11.2.2


class Problem(NamedTuple):
    """What is wrong with a field of view: `problem` is one of `PROBLEMS`, `detail` names channel and file."""

    plate: str
    well: str
    site: str
    problem: str
    detail: str


class FieldError(ValueError):
    """A field of view that cannot be read; `problem` is its entry for a list of problems."""

    def __init__(self, problem: Problem):
        super().__init__(problem)  # all there is, so that it can be pickled
        self.problem = problem

    def __str__(self) -> str:
        return f"{'-'.join(self.problem[:3])}: {self.problem.problem}: {self.problem.detail}"


@dataclasses.dataclass(frozen=True, eq=False)
class Sites:
    """S fields of view, ordered by plate, well and site.

    `frame` has Metadata_Plate, Metadata_Well, Metadata_Site (text) and what else an index says. `images` has for every
    site a path per channel, `locations` one path; "" where there is none. `location_folder` is where the latter were
    looked for.
    """

    frame: pl.DataFrame
    channels: tuple[str, ...]
    images: tuple[tuple[str, ...], ...]
    locations: tuple[str, ...]
    location_folder: str = ""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def plates(self) -> tuple[str, ...]:
        """The distinct plates, in order."""
        return tuple(self.frame[PLACE[0]].unique(maintain_order=True))

    def place(self, site: int) -> tuple[str, str, str]:
        """Plate, well and site of a row."""
        plate, well, name = (self.frame[column][site] for column in PLACE)
        return plate, well, name

    def name(self, site: int) -> str:
        """`<plate>-<well>-<site>` of a row."""
        return "-".join(self.place(site))

    def subset(self, rows: np.ndarray | Sequence[int]) -> "Sites":
        """The sites chosen by a (S,) bool mask, or those at integer positions, in that order."""
        rows = np.asarray(rows)
        if rows.dtype == bool and rows.shape != (len(self),):
            raise ValueError(f"a mask of shape {rows.shape} for {len(self)} sites")
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return dataclasses.replace(
            self,
            frame=self.frame[rows],
            images=tuple(self.images[row] for row in rows),
            locations=tuple(self.locations[row] for row in rows),
        )


def find(
    source: str | os.PathLike,
    *,
    index: str | os.PathLike | None = None,
    channels: Channels | None = None,
    plates: Sequence[str] | None = None,
) -> Sites:
    """List the fields of view of a release without opening their images.

    An index is a CSV file with Metadata_Plate, Metadata_Well, Metadata_Site and one column per channel with a path
    relative to the folder of images; its other columns are kept. Without an index the names of the files tell.

    Args:
        source: the folder of the release.
        index: None takes <source>/inputs/metadata/index.csv if it is there, and the names of the files if not.
        channels: the channels to read, in this order. Of files: a mapping from ch1, ch2, ... to names, or the names of
            ch1, ch2, ... in turn; None: `plate_discovery.CHANNELS`. Of an index: names of its columns (the values, if
            it is a mapping); None: all columns that hold paths of images and nothing else.
        plates: only these plates.

    Raises:
        ValueError: no images, a plate without images, two files or rows for one plate, well, site and channel, a
            channel without any image, an unknown plate, or an index that lacks a column or a value; the file or folder
            is named.
    """
    source = pathlib.Path(source)
    plates = [plates] if isinstance(plates, str) else plates
    channels = [channels] if isinstance(channels, str) else channels
    if not isinstance(channels, Mapping | Sequence | None):  # a ConfigDict sorts its keys
        raise ValueError(
            f"channels {channels} have no order; give a dict, or the names of ch1, ch2, ... in turn"
        )
    if plates is not None and not len(plates):
        raise ValueError(f"{source}: `plates` names no plate; None takes all")
    images = _below(source, "images")
    index = index or _default_index(source)
    if index:
        found = plate_discovery.by_index(pathlib.Path(index), images, channels, plates)
    else:
        found = plate_discovery.by_name(images, CHANNELS if channels is None else channels, plates)
    places = list(zip(*(found.frame[name].to_list() for name in PLACE), strict=True))
    order = sorted(range(len(places)), key=lambda row: _rank(*places[row]))
    folder = _below(source, "locations")
    return Sites(
        frame=found.frame[order],
        channels=found.channels,
        images=tuple(found.images[row] for row in order),
        locations=plate_discovery.find_locations(folder, [places[row] for row in order]),
        location_folder=str(folder),
    )


def _below(source: pathlib.Path, folder: str) -> pathlib.Path:
    """<source>/inputs/<folder>, or <source>/<folder> if only that is there."""
    inside, beside = source / "inputs" / folder, source / folder
    return beside if beside.is_dir() and not inside.is_dir() else inside


def _default_index(source: pathlib.Path) -> pathlib.Path | None:
    path = _below(source, "metadata") / "index.csv"
    if not path.exists():
        return None
    logging.info("%s lists the fields of view", path)
    return path


def _rank(plate: str, well: str, site: str) -> tuple:
    """For sorting: numbers as numbers, and row AA behind row Z."""
    letters = len(re.match("[A-Z]*", well)[0])  # type: ignore[index]
    return _natural(plate), letters, _natural(well), _natural(site)


@functools.lru_cache(maxsize=100_000)
def _natural(text: str) -> tuple:
    parts = re.split("([0-9]+)", text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], text  # the text tells 1 from 01


def read_field(sites: Sites, site: int) -> np.ndarray:
    """The image (H, W, C) of a site, uint8 or uint16 as stored, its channels in the order of `sites.channels`.

    Raises:
        FieldError: a channel has no file, a file cannot be read or is not grey of 8 or 16 bits, or channels differ in
            size or dtype; a ValueError that names plate, well, site, channel and file.
    """
    planes: list[np.ndarray] = []
    for channel, path in zip(sites.channels, sites.images[site], strict=True):
        if not path:
            raise _field_error(sites, site, "missing channel", f"{channel} has no file")
        try:
            planes.append(_read_plane(path))
        except ValueError as error:
            gone = isinstance(error.__cause__, FileNotFoundError)
            kind = "missing channel" if gone else "unreadable image"
            raise _field_error(sites, site, kind, f"{channel}: {error}") from error
        first, plane = planes[0], planes[-1]
        if (plane.shape, plane.dtype) != (first.shape, first.dtype):
            detail = f"{channel}: {path} is {plane.dtype} {plane.shape}; "
            detail += f"{sites.channels[0]} is {first.dtype} {first.shape}"
            raise _field_error(sites, site, "image size", detail)
    return np.stack(planes, axis=-1)


def _field_error(sites: Sites, site: int, problem: str, detail: str) -> FieldError:
    return FieldError(Problem(*sites.place(site), problem, detail))


def _read_plane(path: str) -> np.ndarray:
    """One PNG or TIFF (H, W), in the byte order of this machine; ValueError naming the file."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: suffix {suffix!r} is not one of {', '.join(SUFFIXES)}")
    plane = _read_png(path) if suffix == ".png" else image_tree.read_plane(pathlib.Path(path))
    if plane.dtype.name not in DTYPES:
        raise ValueError(f"{path}: has dtype {plane.dtype}; expected {' or '.join(DTYPES)}")
    return plane


def _read_png(path: str) -> np.ndarray:
    """Pillow decodes outside the GIL, and faster from memory than from the file."""
    try:
        data = pathlib.Path(path).read_bytes()
        with PIL.Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            plane = np.asarray(image)
    except PIL.UnidentifiedImageError as error:  # whose message has an address in memory
        raise ValueError(f"{path}: cannot be read as PNG (it is none)") from error
    except Exception as error:  # damaged files raise many types; all mean the same to the user
        raise ValueError(f"{path}: cannot be read as PNG ({type(error).__name__}: {error})") from error
    bits, colour = data[24], data[25]  # of the header, which comes first
    if colour != 0 or bits not in (8, 16):
        raise ValueError(
            f"{path}: is {COLOUR.get(colour, 'odd')} of {bits} bits; expected grey of 8 or 16, save it as such"
        )
    return plane


def check_locations(
    sites: Sites, *, shape: tuple[int, int], progress: bool = False
) -> tuple[list[np.ndarray], list[np.ndarray], list[Problem]]:
    """Read the location files of all sites, and keep the cells within images of `shape` (H, W).

    Returns:
        Of every site the centers (n, 2) float64 (y, x) with 0 <= y < H and 0 <= x < W, and their rows (n,) int32 in the
        file, from 0; and what was wrong: no file, no cells, a damaged file (which gives no cells), cells outside.
    """
    centers, rows, problems = [], [], []
    paths = [path for path in sites.locations if path]
    contents = read_many(paths)
    bar = tqdm(sites.locations, desc="locations", unit="site", disable=None if progress else True)
    for site, path in enumerate(bar):
        content = next(contents) if path else np.zeros((0, 2))
        found = content if isinstance(content, np.ndarray) else np.zeros((0, 2))
        inside: np.ndarray = np.all((found >= 0) & (found < shape), axis=1)
        problem = _location_problem(path, content, inside, shape) if path else _no_locations(sites, site)
        if problem:
            problems.append(Problem(*sites.place(site), *problem))
        centers.append(found[inside])
        rows.append(np.flatnonzero(inside).astype(np.int32))
    return centers, rows, problems


def _no_locations(sites: Sites, site: int) -> tuple[str, str]:
    """The problem of a field without a location file: which one was looked for."""
    plate, well, name = sites.place(site)
    path = os.path.join(sites.location_folder, plate, f"{well}-{name}-Nuclei.csv")
    return "no locations", f"{path}: there is no such file"


def _location_problem(
    path: str, content: np.ndarray | ValueError, inside: np.ndarray, shape: tuple[int, int]
) -> tuple[str, str] | None:
    """The problem of a location file and its detail, None if all is well."""
    if isinstance(content, ValueError):
        return "damaged locations", str(content)
    if not len(content):
        return "empty locations", f"{path} has no cells"
    outside = np.flatnonzero(~inside)
    if not len(outside):
        return None
    y, x = content[outside[0]]
    return "cell outside", (
        f"{path}: {len(outside)} of {len(content)} cells are outside {shape[0]} x {shape[1]} pixels: rows "
        f"{listing(list(map(str, outside)))}; the first at y {y:g}, x {x:g}"
    )
