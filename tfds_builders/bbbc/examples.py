"""What an example of a field is, and how intensities of the control wells of its plate are found."""

import dataclasses
import functools
import json
import os
import pathlib
import socket
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import tensorflow_datasets as tfds

from coos.data import identity
from coos.data.plate_fields import Fields

Example = dict[str, Any]

SPLIT = "fields"
TEXTS = {  # feature: column of the table
    "id": "id",
    "plate": "Plate",
    "well": "Well",
    "row": "Row",
    "site": "Site",
    "compound": "compound",
    "concentration_unit": "concentration_unit",
    "control": "control",
    "cell_line": "cell_line",
    "moa": "moa",
    "class_name": "class",
}
NUMBERS = {"column": "Column", "dose_step": "dose_step", "replicate": "replicate"}  # -1 where unknown


class Statistics(NamedTuple):
    """Mean and population standard deviation (C,) float32 of all pixels of the negative controls of a plate."""

    mean: np.ndarray
    std: np.ndarray


def features(shape: Sequence[int], dtype: np.dtype) -> tfds.features.FeaturesDict:
    """The features of an example."""
    channels = functools.partial(tfds.features.Tensor, shape=(shape[2],), dtype=np.float32)
    return tfds.features.FeaturesDict(
        {
            **{name: tfds.features.Text() for name in TEXTS},
            **{name: tfds.features.Scalar(dtype=np.int32) for name in (*NUMBERS, "field")},
            "concentration": tfds.features.Scalar(dtype=np.float32),
            "control_mean": channels(),
            "control_std": channels(),
            "image": tfds.features.Tensor(shape=tuple(shape), dtype=dtype, encoding="bytes"),
        }
    )


def known(fields: Fields, field: int) -> Example:
    """What an example says of its field: "" and -1 are unknown, and NaN is an unknown concentration."""
    row = fields.frame.row(field, named=True)
    texts = {name: row[f"Metadata_{column}"] or "" for name, column in TEXTS.items()}
    numbers = {name: row[f"Metadata_{column}"] for name, column in NUMBERS.items()}
    concentration = row["Metadata_concentration"]
    return {
        **texts,
        **{name: -1 if value is None else value for name, value in numbers.items()},
        "concentration": np.float32(np.nan if concentration is None else concentration),
        "field": field,
    }


@dataclasses.dataclass(eq=False)
class Reader:
    """`read(split, unit)` of `coos.data.shards`: a unit is a field.

    Args:
        fields: the table and files of all.
        shape, dtype: (H, W, C) and dtype of all images.
        cache: folder in which what was found of the controls of a plate is kept until the dataset is complete.
    """

    fields: Fields
    shape: tuple[int, ...]
    dtype: np.dtype
    cache: pathlib.Path

    def __post_init__(self):
        self._controls = controls_of(self.fields)
        self._found: dict[str, Statistics] = {}

    def __call__(self, split: str, unit: int) -> Iterator[Example]:
        """The example of a field."""
        image = self.image(unit)
        found = self.statistics(self.fields.frame["Metadata_Plate"][unit] or "")
        yield {
            **known(self.fields, unit),
            "control_mean": found.mean,
            "control_std": found.std,
            "image": image,
        }

    def image(self, field: int) -> np.ndarray:
        """(H, W, C), checked to be like the others."""
        return self.fields.read(field, shape=self.shape, dtype=self.dtype)

    def digest(self, split: str, units: np.ndarray) -> str:
        """What the files of some fields are known by, and those of the controls of their plates."""
        plates = {self.fields.frame["Metadata_Plate"][unit] or "" for unit in units.tolist()}
        controls = [field for plate in plates for field in self._controls.get(plate, ())]
        return self._digest({*units.tolist(), *controls})

    def _digest(self, fields: set[int]) -> str:
        return identity.files_digest(path for field in fields for path in self.fields.images[field])

    def statistics(self, plate: str) -> Statistics:
        """Those of a plate: read once, then kept here and in the cache; NaN if it has no negative control."""
        if plate not in self._found:
            self._found[plate] = self._load(plate)
        return self._found[plate]

    def _load(self, plate: str) -> Statistics:
        controls = self._controls.get(plate, [])
        if not controls:
            nothing = np.full(self.shape[2], np.nan, np.float32)
            return Statistics(nothing, nothing)
        path = self.cache / f"controls-{self._digest(set(controls))}.json"
        if path.exists():
            noted = json.loads(path.read_text())
            return Statistics(*(np.array(noted[name], np.float32) for name in Statistics._fields))
        found = pooled(self.image(field) for field in controls)
        _put(path, {name: value.tolist() for name, value in found._asdict().items()})
        return found


def _put(path: pathlib.Path, value: Any) -> None:
    """Write JSON atomically, in a folder that must exist: other processes may write the same."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


def controls_of(fields: Fields) -> dict[str, list[int]]:
    """The fields of the negative controls of every plate that has some."""
    found: dict[str, list[int]] = {}
    columns = fields.frame["Metadata_Plate"].to_list(), fields.frame["Metadata_control"].to_list()
    for field, (plate, control) in enumerate(zip(*columns, strict=True)):
        if control == "negative":
            found.setdefault(plate or "", []).append(field)
    return found


def pooled(images: Iterator[np.ndarray]) -> Statistics:
    """Mean and standard deviation over all pixels of images (H, W, C) of one size, one image in memory at a time.

    var = mean of the variances within images + variance of their means, which does not cancel as sums of squares do.
    """
    pairs = [(np.mean(image, (0, 1), np.float64), np.var(image, (0, 1), np.float64)) for image in images]
    means, variances = (np.array(values) for values in zip(*pairs, strict=True))
    std = np.sqrt(variances.mean(0) + means.var(0))
    return Statistics(means.mean(0).astype(np.float32), std.astype(np.float32))


def with_controls(fields: Fields, reader: Reader) -> pl.DataFrame:
    """The table of fields with `Metadata_control_mean_<channel>` and `..._std_...` of their plates' controls."""
    plates = fields.frame["Metadata_Plate"].fill_null("").to_list()
    of_plate = {plate: reader.statistics(plate) for plate in dict.fromkeys(plates)}
    return fields.frame.with_columns(
        pl.Series(
            f"Metadata_control_{kind}_{channel}", [float(getattr(of_plate[p], kind)[c]) for p in plates]
        )
        for kind in Statistics._fields
        for c, channel in enumerate(fields.channels)
    )
