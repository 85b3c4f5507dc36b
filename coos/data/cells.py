"""Single cells of plates as examples to learn from, whether they were stored as crops or as fields with locations.

    source = cells.load("data/lincs/crops/1.0.0")
    source.columns["place"]                 # (N,) the row of `source.dataset["places"]`'s table, which knows the well
    places = cells.read_places("data/lincs/crops/1.0.0")

A cell has no label of its own: `coos.data.cell_parts` gives it one of what is known of its well. Memory grows by about
100 bytes a cell.
"""

import os
import pathlib
from typing import Any

import numpy as np
import polars as pl

from coos.data import crops, device_crops
from coos.data import source as sources
from coos.data.source import Source

UNLABELLED = -1


class FieldCrops:
    """Windows around cells, cut out of fields when they are asked for, as an array (N, size, size, C) would give them.

    Args:
        fields: (F, H, W, C) in the raw dtype, or what is indexed alike.
        field, center: of N cells the row of their field (N,) and their centre (N, 2), y and x in pixels.
        size: of the window in pixels.
        window: "exact" (whole pixels, the raw dtype) or "deepprofiler" (resampled as DeepProfiler does, float32).
    """

    def __init__(self, fields: Any, field: np.ndarray, center: np.ndarray, *, size: int, window: str):
        self.fields, self.field, self.center, self.size, self.window = fields, field, center, size, window
        self.shape = (len(field), size, size, fields.shape[-1])
        self.dtype = fields.dtype if window == "exact" else np.dtype(np.float32)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Windows of the given cells (any shape), in that order; every field is looked up once."""
        rows = np.asarray(rows)
        flat = rows.ravel()
        images = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for field in np.unique(self.field[flat]):
            here = np.flatnonzero(self.field[flat] == field)
            images[here] = self._cut(np.asarray(self.fields[field]), self.center[flat[here]])
        return images.reshape(*rows.shape, *self.shape[1:])

    def _cut(self, image: np.ndarray, centers: np.ndarray) -> np.ndarray:
        if self.window == "exact":
            return crops.cut(image, crops.corners(centers, self.size), self.size)
        return crops.resample(image, centers, self.size)

    def resident(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """For the device: the fields of these cells, and of every cell the position of its field and its place."""
        fields, position = np.unique(self.field[rows], return_inverse=True)
        kept = np.stack([np.asarray(self.fields[field]) for field in fields])
        return {"fields": kept, "field": position.astype(np.int32), "place": self._places(rows)}

    def _places(self, rows: np.ndarray) -> np.ndarray:
        if self.window == "exact":
            return crops.corners(self.center[rows], self.size).astype(np.int32)
        return self.center[rows].astype(np.float32)

    def resident_bytes(self, rows: np.ndarray) -> int:
        """Bytes of those fields."""
        return (
            len(np.unique(self.field[rows]))
            * int(np.prod(self.fields.shape[1:]))
            * self.fields.dtype.itemsize
        )

    def take(self, resident: dict[str, Any], examples: Any) -> dict[str, Any]:
        """Images of the examples, cut on the device."""
        cut = device_crops.cut_from if self.window == "exact" else device_crops.resample_from
        field, place = resident["field"][examples], resident["place"][examples]
        return {"image": cut(resident["fields"], field, place, self.size)}


def describe(directory: str | os.PathLike) -> dict[str, Any]:
    """The description of a built dataset of plates; `image_shape` is that of a cell in either form.

    Raises ValueError when it holds something else than cells of plates.
    """
    dataset = sources.describe(directory)
    if "places" not in dataset:
        kinds = {"tasks": "have assays", "fields": "are whole fields"}
        kind = next((text for name, text in kinds.items() if name in dataset), "have classes")
        raise ValueError(f"{directory}: its examples {kind}, not places on plates")
    size = dataset["crop_size"]
    dataset["image_shape"] = [size, size, dataset["image_shape"][-1]]
    if dataset["form"] == "fields" and dataset["window"] != "exact":
        dataset["image_dtype"] = "float32"
    return dataset


def read_places(directory: str | os.PathLike) -> pl.DataFrame:
    """What is known of every field: plate, well, site, compound, dose, batch, MOA, cell count (`Metadata_...`)."""
    path = pathlib.Path(directory, "places.parquet")
    if not path.exists():
        raise ValueError(f"{path}: missing; build the dataset again with experiments/build.py")
    return pl.read_parquet(path)


def load(
    directory: str | os.PathLike, *, cache_dir: str | os.PathLike | None = None, store: str = "auto"
) -> Source:
    """All cells of a dataset, in the order of plate, well, site and location file, without labels (all -1).

    `columns` has "place" and "cell" (its row in the location file), int32. `store`: see `coos.data.source.load`.
    """
    dataset = describe(directory)
    form = dataset["form"]
    _, images, columns = sources.open_split(
        directory, "cells" if form == "crops" else "fields", cache_dir=cache_dir, store=store
    )
    order = np.lexsort((columns["cell"], columns["place"]))
    columns = {name: column[order] for name, column in columns.items()}
    rows = columns["field"].astype(np.int64)
    if form == "fields":
        images = FieldCrops(
            images, columns["field"], columns["center"], size=dataset["crop_size"], window=dataset["window"]
        )
        rows = np.arange(len(order))
    return Source(
        images,
        np.full(len(order), UNLABELLED, np.int32),
        _ids(read_places(directory), columns["place"], columns["cell"]),
        rows,
        dataset,
        {name: columns[name] for name in ("place", "cell")},
    )


def _ids(places: pl.DataFrame, place: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """(N,) `<plate>-<well>-<site>-<cell>`, as the builder names crops."""
    return np.char.add(place_names(places)[place], np.char.mod("-%04d", cell))


def place_names(places: pl.DataFrame) -> np.ndarray:
    """(S,) `<plate>-<well>-<site>`."""
    columns = (places[name].to_list() for name in ("Metadata_Plate", "Metadata_Well", "Metadata_Site"))
    return np.array(["-".join(parts) for parts in zip(*columns, strict=True)], dtype=np.str_)


def with_wells(source: Source, places: pl.DataFrame) -> Source:
    """The source with the columns "plate" and "well" ("<plate>-<well>") as text, for those who judge predictions."""
    plates = np.array(places["Metadata_Plate"].to_list(), dtype=np.str_)
    wells = np.char.add(np.char.add(plates, "-"), np.array(places["Metadata_Well"].to_list(), dtype=np.str_))
    place = source.columns["place"]
    columns = {**source.columns, "plate": plates[place], "well": wells[place]}
    return Source(source.images, source.labels, source.ids, source.rows, source.dataset, columns)
