"""Read releases of single-cell crops in HDF5: datasets `data` and `labels`, and others of one value per image.

The release is checked before anything is written from it: every error names the file and the row.
"""

import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import h5py
import numpy as np

BLOCK = 1024


class CellFile(NamedTuple):
    """What one checked file holds: where, how many images, their layout, and its extra per-image datasets."""

    path: pathlib.Path
    num_images: int
    channels_last: bool
    labels: np.ndarray
    columns: dict[str, np.ndarray]
    simulated: bool


def open_checked(path: pathlib.Path) -> h5py.File:
    """Open an HDF5 file for reading; a missing, truncated or foreign file raises ValueError with its path."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read as HDF5 ({error}); the file is missing, truncated or no HDF5 file: "
            "download it again and compare its size with the one the release states"
        ) from error


def inspect(path: pathlib.Path, *, image_shape: tuple[int, int, int], num_classes: int) -> CellFile:
    """Check shapes, labels and columns of one file without reading its images.

    `image_shape` is (channels, height, width); images may be stored so or channels last.
    """
    with open_checked(path) as file:
        missing = [name for name in ("data", "labels") if not isinstance(file.get(name), h5py.Dataset)]
        if missing:
            raise ValueError(f"{path}: dataset {missing[0]!r} missing; found {sorted(file)}")
        data = file["data"]
        channels_last = _channels_last(path, data, image_shape)
        labels = _labels(path, file["labels"], data.shape[0], num_classes)
        columns = _columns(path, file, data.shape[0])
        return CellFile(
            path, len(labels), channels_last, labels, columns, bool(file.attrs.get("simulated", False))
        )


def _channels_last(path: pathlib.Path, data: h5py.Dataset, image_shape: tuple[int, int, int]) -> bool:
    channels, height, width = image_shape
    if data.dtype.kind not in "iuf":
        raise ValueError(f"{path}: 'data' has dtype {data.dtype}; expected integers or floats")
    if data.ndim == 4 and data.shape[1:] == (channels, height, width):
        return False
    if data.ndim == 4 and data.shape[1:] == (height, width, channels):
        return True
    raise ValueError(
        f"{path}: 'data' has shape {data.shape}; expected (N, {channels}, {height}, {width}) "
        f"or (N, {height}, {width}, {channels})"
    )


def _labels(path: pathlib.Path, dataset: h5py.Dataset, num_images: int, num_classes: int) -> np.ndarray:
    if dataset.shape not in ((num_images,), (num_images, 1)):
        raise ValueError(
            f"{path}: 'labels' has shape {dataset.shape} for {num_images} images; expected ({num_images},) "
            f"or ({num_images}, 1)"
        )
    raw = dataset[()].reshape(num_images)
    labels = raw.astype(np.int64)
    bad = np.flatnonzero((labels != raw) | (labels < 0) | (labels >= num_classes))
    if bad.size:
        raise ValueError(
            f"{path}, row {bad[0]}: label {raw[bad[0]]} is not one of 0..{num_classes - 1} "
            f"({bad.size} such rows)"
        )
    return labels


def _columns(path: pathlib.Path, file: h5py.File, num_images: int) -> dict[str, np.ndarray]:
    """Every further dataset with one value per image, as strings."""
    columns = {}
    for name, dataset in file.items():
        if name in ("data", "labels") or not isinstance(dataset, h5py.Dataset):
            continue
        if dataset.shape not in ((num_images,), (num_images, 1)):
            raise ValueError(
                f"{path}: {name!r} has shape {dataset.shape}; expected one value for each of {num_images}"
            )
        values = dataset[()].reshape(num_images)
        try:
            texts = [v.decode() if isinstance(v, bytes) else str(v) for v in values]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: {name!r} holds text that is not UTF-8 ({error})") from error
        columns[name] = np.array(texts, dtype=np.str_)
    return columns


def read_images(cells: CellFile, *, dtype: np.dtype, channel_order: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield images (H, W, C) of `dtype` in row order, reading blocks of rows.

    A value that `dtype` cannot hold exactly (NaN, a fraction or a negative number in uint16) is an error.
    """
    with open_checked(cells.path) as file:
        for start in range(0, cells.num_images, BLOCK):
            block = _read_block(cells.path, file["data"], start)
            if not cells.channels_last:
                block = block.transpose(0, 2, 3, 1)
            yield from exact_cast(block, dtype, lambda i, start=start: f"{cells.path}, row {start + i}")[
                ..., list(channel_order)
            ]


def _read_block(path: pathlib.Path, data: h5py.Dataset, start: int) -> np.ndarray:
    try:
        return data[start : start + BLOCK]
    except OSError as error:
        stop = min(start + BLOCK, data.shape[0])
        raise ValueError(f"{path}, rows {start} to {stop - 1}: cannot be read ({error})") from error


def exact_cast(images: np.ndarray, dtype: Any, where: Any) -> np.ndarray:
    """Cast (N, ...) images to `dtype`; ValueError at the first image with a value that it cannot hold.

    `where(i)` names image i. Floats may be rounded to float32; integers must come out the same.
    """
    dtype = np.dtype(dtype)
    _refuse(images, ~np.isfinite(images) if images.dtype.kind == "f" else None, where, "NaN or infinite", "")
    if dtype.kind == "f" or images.dtype == dtype:
        return images.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    inexact = (images < limits.min) | (images > limits.max)
    if images.dtype.kind == "f":
        inexact |= images != np.floor(images)
    _refuse(
        images, inexact, where, f"not a raw {dtype.name} intensity", "; build the float32 config to keep it"
    )
    return images.astype(dtype)


def _refuse(images: np.ndarray, bad: np.ndarray | None, where: Any, what: str, advice: str) -> None:
    if bad is None or not bad.any():
        return
    place = tuple(np.argwhere(bad)[0])
    raise ValueError(f"{where(place[0])}: pixel value {images[place]} is {what}{advice}")
