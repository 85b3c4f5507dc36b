"""What the two forms make of a field of view: a crop around each of its cells, or the field with their places."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import tensorflow_datasets as tfds

from coos.data import crops, identity, plate_files, plate_problems, shards
from coos.data.plate_files import FieldError, Sites

Example = dict[str, Any]

SPLITS = {"crops": "cells", "fields": "fields"}  # the one TFDS split of each form
WINDOWS = ("exact", "deepprofiler")

TEXTS = ("id", "plate", "well", "site", "compound")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How cells are stored; the same for all fields.

    Args:
        form: "crops" or "fields".
        crop_size: height and width of the window around a cell, in pixels.
        window: "exact" (whole pixels) or "deepprofiler" (resampled as DeepProfiler does).
        problems: "stop" at a field that cannot be read, or leave it out and "list" it.
    """

    form: str
    crop_size: int
    window: str
    problems: str

    def __post_init__(self):
        for name, known in (
            ("form", tuple(SPLITS)),
            ("window", WINDOWS),
            ("problems", plate_problems.POLICIES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {known}")
        if self.crop_size < 1:
            raise ValueError(f"crop_size={self.crop_size}: must be positive")

    @property
    def split(self) -> str:
        """The name of the one split."""
        return SPLITS[self.form]


@dataclasses.dataclass(frozen=True, eq=False)
class Fields:
    """S fields of view, all of one `shape` (H, W, C) and `dtype`, and the `compounds` (S,) of their wells.

    Where the cells are is read with the image, not held: at 110 million cells they would be sent to every process.
    """

    sites: Sites
    compounds: Sequence[str]
    shape: tuple[int, ...]
    dtype: np.dtype

    def image(self, site: int) -> np.ndarray:
        """The image (H, W, C) of a field; FieldError if it cannot be read or has another size or dtype."""
        return plate_problems.read_like(self.sites, site, shape=self.shape, dtype=self.dtype)

    def cells(self, site: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the cells inside a field their rows (n,) int32 in its location file and their centres (n, 2), (y, x)."""
        centers = plate_files.read_centers(self.sites.locations[site])
        inside = ((centers >= 0) & (centers < self.shape[:2])).all(1)
        return np.flatnonzero(inside).astype(np.int32), centers[inside]

    def known(self, site: int) -> Example:
        """What every example of a field says of it."""
        plate, well, name = self.sites.place(site)
        place = {"place": site, "compound": self.compounds[site]}
        return {"id": f"{plate}-{well}-{name}", "plate": plate, "well": well, "site": name, **place}

    def files(self, sites: Sequence[int] | np.ndarray) -> Iterator[pathlib.Path]:
        """The files of some fields that are there."""
        for site in sites:
            paths = map(pathlib.Path, filter(None, (*self.sites.images[site], self.sites.locations[site])))
            yield from (path for path in paths if path.exists())


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """`read(split, unit)` of `coos.data.shards`: a unit is a position in `units` (U,), which are rows of the fields."""

    fields: Fields
    units: np.ndarray
    options: Options

    def __call__(self, split: str, unit: int) -> Iterator[Example]:
        """The examples of a field, which is read once.

        Raises:
            shards.LeftOut: the field cannot be read, and problems are listed.
            ValueError: likewise, and they stop the build.
        """
        site = int(self.units[unit])
        try:
            image = self.fields.image(site)
        except FieldError as error:
            if self.options.problems == "list":
                raise shards.LeftOut([list(error.problem)]) from error
            raise ValueError(
                f"{error}; mend it, or leave such fields out and list them: --problems=list"
            ) from error
        yield from self._examples(site, image)

    def _examples(self, site: int, image: np.ndarray) -> Iterator[Example]:
        known, (cells, centers) = self.fields.known(site), self.fields.cells(site)
        if self.options.form == "fields":
            yield {**known, "cells": cells, "centers": centers, "image": image}
            return
        images = cut(image, centers, self.options)
        for cell, center, crop in zip(cells.tolist(), centers, images, strict=True):
            yield {**known, "id": f"{known['id']}-{cell:04d}", "cell": cell, "center": center, "image": crop}

    def digest(self, split: str, units: np.ndarray) -> str:
        """What the files of some units are known by."""
        return identity.files_digest(self.fields.files(self.units[units]))


def cut(image: np.ndarray, centers: np.ndarray, options: Options) -> np.ndarray:
    """(n, size, size, C) windows around `centers`: of whole pixels in the raw dtype, or resampled as uint8."""
    if options.window == "exact":
        return crops.cut(image, crops.corners(centers, options.crop_size), options.crop_size)
    return crops.to_deepprofiler_bytes(crops.resample(image, centers, options.crop_size))


def features(options: Options, shape: Sequence[int], dtype: np.dtype) -> tfds.features.FeaturesDict:
    """The features of an example; coordinates are stored as bytes, because records know no float64."""
    tensor = functools.partial(tfds.features.Tensor, encoding="bytes")
    common = {name: tfds.features.Text() for name in TEXTS} | {"place": tfds.features.Scalar(dtype=np.int32)}
    if options.form == "fields":
        return tfds.features.FeaturesDict(
            {
                **common,
                "cells": tfds.features.Tensor(shape=(None,), dtype=np.int32),
                "centers": tensor(shape=(None, 2), dtype=np.float64),
                "image": tensor(shape=tuple(shape), dtype=dtype),
            }
        )
    window = (options.crop_size, options.crop_size, shape[2])
    return tfds.features.FeaturesDict(
        {
            **common,
            "cell": tfds.features.Scalar(dtype=np.int32),
            "center": tensor(shape=(2,), dtype=np.float64),
            "image": tensor(shape=window, dtype=dtype if options.window == "exact" else np.uint8),
        }
    )


def example_bytes(options: Options, shape: Sequence[int], dtype: np.dtype) -> int:
    """About how many bytes an example takes."""
    height, width, channels = shape
    if options.form == "crops":
        height = width = options.crop_size
        dtype = dtype if options.window == "exact" else np.dtype(np.uint8)
    return height * width * channels * dtype.itemsize + 512


def counts_of(places: pl.DataFrame) -> dict[str, int]:
    """How many fields with cells, cells, wells and plates there are, by `Metadata_cell_count`, null where left out."""
    kept = places.filter(pl.col("Metadata_cell_count") > 0)
    wells = kept.select("Metadata_Plate", "Metadata_Well").n_unique() if len(kept) else 0
    cells = int(kept["Metadata_cell_count"].sum())
    return {"fields": len(kept), "cells": cells, "wells": wells, "plates": kept["Metadata_Plate"].n_unique()}
