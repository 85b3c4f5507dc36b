"""HeLa, CHO and HPA: a folder of images for each class, one grey plane a file, or one file a channel.

<class>/<name>.tif                one plane: .tif, .tiff, .bmp, .dib, .png
<class>/<stem>_<channel>.tif      with channels=("protein", "nucleus"), say
"""

import pathlib
from collections.abc import Iterator, Sequence

from coos.data import plate_fields
from coos.data.plate_fields import Fields

ONE = ("grey",)
SUFFIXES = (".tif", ".tiff", ".bmp", ".dib", ".png")


def hela(source: pathlib.Path, *, channels: Sequence[str] | None = None) -> Fields:
    """The images of ten organelles in HeLa cells."""
    return find(source, channels, cell_line="HeLa")


def cho(source: pathlib.Path, *, channels: Sequence[str] | None = None) -> Fields:
    """The images of five organelles in CHO cells."""
    return find(source, channels, cell_line="CHO")


def hpa(source: pathlib.Path, *, channels: Sequence[str] | None = None) -> Fields:
    """The images of proteins with a single location, a class for each location."""
    return find(source, channels, cell_line=None)


def find(source: pathlib.Path, channels: Sequence[str] | None, *, cell_line: str | None) -> Fields:
    """The images of all class folders.

    Raises:
        ValueError: less than two classes, a class without images, a folder within one, an image that belongs to none,
            or an image that lacks a channel.
    """
    names = tuple(channels) if channels else ONE
    files = [(key, channel, path) for key, channel, path in _files(source, channels)]
    images = plate_fields.pair(files, names)
    rows = [{"class": name, "id": f"{name}-{stem}", "cell_line": cell_line} for name, stem in images]
    return plate_fields.make(rows, names, list(images.values()), where=str(source))


def _files(
    source: pathlib.Path, channels: Sequence[str] | None
) -> Iterator[tuple[tuple[str, str], str, pathlib.Path]]:
    stray = _images(source)
    if stray:
        raise ValueError(f"{stray[0]}: belongs to no class; expected <class>/{stray[0].name}")
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        raise ValueError(
            f"{source}: has {len(folders)} class folders; expected <class>/<name>.tif of two or more"
        )
    for folder in folders:
        yield from _files_of(folder, channels)


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _files_of(
    folder: pathlib.Path, channels: Sequence[str] | None
) -> Iterator[tuple[tuple[str, str], str, pathlib.Path]]:
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if inside:
        raise ValueError(f"{inside[0]}: a folder within a class folder; expected <class>/<name>.tif")
    found = _images(folder)
    if not found:
        raise ValueError(
            f"{folder}: no images ({', '.join(SUFFIXES)}); remove the folder, or convert its images"
        )
    for path in found:
        if channels is None:
            yield (folder.name, path.stem), ONE[0], path
            continue
        stem, _, channel = path.stem.rpartition("_")
        if not stem or channel not in channels:
            raise ValueError(
                f"{path}: expected <stem>_<channel>{path.suffix} with a channel of {', '.join(channels)}"
            )
        yield (folder.name, stem), channel, path
