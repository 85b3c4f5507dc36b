"""Read trees of single-cell images: `<split>/<class>/<stem>_<channel>.tif`, one TIFF file per channel.

Splits, classes and channels are discovered; every file must have its partners, and every error names a file.
"""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import tifffile

SUFFIXES = (".tif", ".tiff")


class CellEntry(NamedTuple):
    """One cell of a tree: its split, class folder, stem and one file per channel (in channel order)."""

    split: str
    class_name: str
    stem: str
    files: tuple[pathlib.Path, ...]


class ImageTree(NamedTuple):
    """A checked tree: `entries` by split and the names that were discovered or asked for."""

    root: pathlib.Path
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    channels: tuple[str, ...]
    entries: tuple[CellEntry, ...]


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_of_class(folder: pathlib.Path) -> list[pathlib.Path]:
    """TIFF files of a class folder; a folder inside it, or no TIFF at all, would lose cells silently."""
    inside = _folders(folder)
    if inside:
        raise ValueError(
            f"{inside[0]}: a folder inside a class folder; expected <split>/<class>/<stem>_<channel>.tif"
        )
    found = _tiff_files(folder)
    if not found:
        raise ValueError(f"{folder}: no TIFF files; remove the folder, or convert its images")
    return found


def _tiff_files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _classes_of_split(folder: pathlib.Path) -> list[pathlib.Path]:
    """Class folders of a split; TIFF files beside them belong to no class."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", folder.name) or folder.name == "all":
        raise ValueError(f"{folder}: a split needs a name of letters, digits, '_' and '-', other than 'all'")
    stray = _tiff_files(folder)
    if stray:
        raise ValueError(f"{stray[0]}: belongs to no class; expected <split>/<class>/<stem>_<channel>.tif")
    return _folders(folder)


def scan(
    root: str | pathlib.Path, *, channels: Sequence[str] | None = None, splits: Sequence[str] | None = None
) -> ImageTree:
    """List and check a tree without opening its images.

    Args:
        root: the folder that holds the split folders.
        channels: channel names in the wanted order; None takes all that occur, sorted by name.
        splits: split folders to read; None takes all.

    Raises:
        ValueError: no splits, no images, a file whose name has no channel, a channel file without its
            partner, or a channel or split that does not exist.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected <split>/<class>/<stem>_<channel>.tif below it")
    split_folders = {folder.name: folder for folder in _folders(root)}
    missing = [name for name in splits or () if name not in split_folders]
    if missing:
        raise ValueError(f"{root}: split folder {missing[0]!r} missing; found {sorted(split_folders)}")
    found = {
        (split, folder.name): _images_of_class(folder)
        for split in splits or split_folders
        for folder in _classes_of_split(split_folders[split])
    }
    if not found:
        raise ValueError(f"{root}: no TIFF files; expected <split>/<class>/<stem>_<channel>.tif below it")
    names = tuple(channels or _discover_channels([path for paths in found.values() for path in paths]))
    entries = tuple(
        entry for (split, label), paths in found.items() for entry in _pair(split, label, paths, names)
    )
    return ImageTree(
        root=root,
        splits=tuple(dict.fromkeys(entry.split for entry in entries)),
        class_names=tuple(sorted({entry.class_name for entry in entries})),
        channels=names,
        entries=entries,
    )


def _discover_channels(paths: list[pathlib.Path]) -> list[str]:
    """All channels that occur; one that most cells do not have is a stray file, not a channel."""
    by_channel: dict[str, list[pathlib.Path]] = {}
    for path in paths:
        by_channel.setdefault(_channel(path), []).append(path)
    most = max(len(members) for members in by_channel.values())
    for channel, members in by_channel.items():
        if len(members) < most / 2:
            raise ValueError(
                f"{members[0]}: channel {channel!r} occurs in {len(members)} of about {most} cells; every cell "
                "needs every channel (remove the file, or name the channels to read)"
            )
    return sorted(by_channel)


def _channel(path: pathlib.Path) -> str:
    stem, separator, channel = path.stem.rpartition("_")
    if not (stem and separator and channel):
        raise ValueError(f"{path}: file name is not <stem>_<channel>{path.suffix}")
    return channel


def _pair(
    split: str, class_name: str, paths: list[pathlib.Path], channels: tuple[str, ...]
) -> list[CellEntry]:
    """Group the files of one class folder by stem; each stem must have exactly one file per channel."""
    by_stem: dict[str, dict[str, pathlib.Path]] = {}
    for path in paths:
        stem, channel = path.stem.rpartition("_")[0], _channel(path)
        if channel not in channels:
            raise ValueError(f"{path}: channel {channel!r} is not one of {list(channels)}")
        other = by_stem.setdefault(stem, {}).setdefault(channel, path)
        if other != path:
            raise ValueError(f"{path}: same cell and channel as {other.name}; keep one of the two")
    for stem, files in by_stem.items():
        absent = [channel for channel in channels if channel not in files]
        if absent:
            have = next(iter(files.values()))
            raise ValueError(f"{have}: its partner '{stem}_{absent[0]}{have.suffix}' is missing")
    return [
        CellEntry(split, class_name, stem, tuple(files[channel] for channel in channels))
        for stem, files in sorted(by_stem.items())
    ]


def read_plane(path: pathlib.Path) -> np.ndarray:
    """One TIFF as a two-dimensional array of intensities; anything else raises ValueError with the path."""
    try:
        plane, count, kind = _decode(path)
    except Exception as error:  # damaged files raise many types; all mean the same to the user
        raise ValueError(f"{path}: cannot be read as TIFF ({type(error).__name__}: {error})") from error
    if count != 1:
        raise ValueError(f"{path}: holds {count} images; expected one two-dimensional plane")
    if kind in (tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.MINISWHITE):
        raise ValueError(f"{path}: pixels are {kind.name}, not intensities; save it as plain greyscale")
    plane = np.squeeze(plane)
    if plane.ndim != 2 or not plane.size:
        raise ValueError(f"{path}: has shape {plane.shape}; expected one two-dimensional plane")
    if plane.dtype.kind not in "uif":
        raise ValueError(f"{path}: has dtype {plane.dtype}; expected integers or floats")
    return plane


def _decode(path: pathlib.Path) -> tuple[np.ndarray, int, tifffile.PHOTOMETRIC]:
    """Pixels, number of images and kind of pixels; Pillow reads LZW, which tifffile alone cannot."""
    with tifffile.TiffFile(path) as file:
        first, count = file.pages.first, len(file.series)
        if first.compression != tifffile.COMPRESSION.LZW:
            return file.asarray(), count, tifffile.PHOTOMETRIC(first.photometric)
    with PIL.Image.open(path) as image:
        return np.asarray(image), count, tifffile.PHOTOMETRIC(first.photometric)


def read_planes(entry: CellEntry) -> np.ndarray:
    """The image (H, W, C) of one cell; all its channels must have one shape and every pixel be finite."""
    planes = [read_plane(path) for path in entry.files]
    for path, plane in zip(entry.files, planes, strict=True):
        if plane.shape != planes[0].shape:
            raise ValueError(f"{path}: is {plane.shape} pixels; {entry.files[0].name} is {planes[0].shape}")
        if plane.dtype.kind == "f" and not np.isfinite(plane).all():
            row, column = np.argwhere(~np.isfinite(plane))[0]
            raise ValueError(f"{path}: pixel ({row}, {column}) is {plane[row, column]}")
    return np.stack(planes, axis=-1)


def read_entry(entry: CellEntry, *, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """The image (H, W, C) of one cell, of the given `shape` and `dtype`, which must hold it exactly."""
    image = read_planes(entry)
    if image.shape[:2] != shape:
        raise ValueError(f"{entry.files[0]}: is {image.shape[:2]} pixels; the other images are {shape}")
    if not np.can_cast(image.dtype, dtype, casting="safe"):
        raise ValueError(
            f"{entry.files[0]}: dtype {image.dtype} does not fit the {np.dtype(dtype)} of the first image"
        )
    return image.astype(dtype)


def check_unique_ids(entries: Sequence[tuple[str, str]]) -> None:
    """`entries` are (id, where it stands); an id that occurs twice raises ValueError naming both places."""
    seen: dict[str, str] = {}
    for identifier, where in entries:
        if identifier in seen:
            raise ValueError(
                f"id {identifier!r} occurs twice: {seen[identifier]} and {where}; ids must be unique"
            )
        seen[identifier] = where
