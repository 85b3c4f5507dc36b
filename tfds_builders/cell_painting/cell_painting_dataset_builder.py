"""Builder of screens whose compounds have sparse labels in many assays: views, crops of cells, or profiles of wells."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from coos.data import (
    field_files,
    identity,
    label_matrix,
    sample_index,
    shard_plan,
    sharded_builder,
    shards,
    well_tables,
)
from tfds_builders.cell_painting import examples, splitting

CHANNELS = ("Mito", "ERSyto", "ERSytoBleed", "Ph_golgi", "Hoechst")
CROP_SIZE = 96  # Hofmarcher et al. 2019, section 3
LABEL_FILES = (label_matrix.MATRIX, label_matrix.COMPOUNDS, label_matrix.ASSAYS)
UNKNOWN = -1
TEXTS = ("id", "plate", "well", "site", "compound")


class Builder(sharded_builder.ShardedBuilder):
    """A screen as ArrayRecord; see README.md beside this file for what is read and what is written.

    Args (beyond those of `ShardedBuilder`):
        source: folder with the images and tables.
        config: "views" (default), "cells" or "profiles".
        labels: label matrix folder; None: `labels` in the source.
        index: sample index; None: `sample-index.csv` in the source.
        split: "random" or "scaffold" (by compound), or a folder with train.csv, validation.csv and test.csv that
            list INCHIKEY or SAMPLE_KEY.
        split_fractions: shares of the compounds in train, validation and test.
        split_seed: of the random order of compounds, or of scaffolds of one size.
        channels: their names in `.npz` files, or those to store, in this order, of TIFF files.
        profiles: table of profiles; None: `profiles.parquet` or `profiles.csv` in the source.
        cells: table of cell centres; None: `cells.parquet` or `cells.csv` in the source.
        crop_size: height and width of the crops of config "cells", in pixels; None: 96.
        drop_nonfinite_features: leave out features that have a value that is not finite, instead of stopping.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="views", description="Whole fields of view."),
        tfds.core.BuilderConfig(name="cells", description="Crops around the centres of cells."),
        tfds.core.BuilderConfig(name="profiles", description="One feature vector per well."),
    ]

    def __init__(
        self,
        *,
        source: str | pathlib.Path | None = None,
        config: str = "views",
        labels: str | pathlib.Path | None = None,
        index: str | pathlib.Path | None = None,
        split: str | pathlib.Path = "random",
        split_fractions: Sequence[float] = (0.7, 0.1, 0.2),
        split_seed: int = 0,
        channels: Sequence[str] | None = None,
        profiles: str | pathlib.Path | None = None,
        cells: str | pathlib.Path | None = None,
        crop_size: int | None = None,
        drop_nonfinite_features: bool = False,
        **kwargs: Any,
    ):
        names = [known.name for known in self.BUILDER_CONFIGS]
        if config not in names:
            raise ValueError(f"config={config!r}: choose one of {names}")
        if crop_size is not None and config != "cells":
            raise ValueError(f"crop_size={crop_size}: config {config!r} has no crops, config 'cells' has")
        if drop_nonfinite_features and config != "profiles":
            raise ValueError(f"drop_nonfinite_features: config {config!r} has no features; 'profiles' has")
        if profiles is not None and config != "profiles":
            raise ValueError(f"profiles={profiles}: config {config!r} has no features; 'profiles' has")
        if channels is not None and config == "profiles":
            raise ValueError(f"channels={','.join(channels)}: config 'profiles' has no images")
        if source is None or not pathlib.Path(source).is_dir():
            raise ValueError(
                f"cell_painting needs source=FOLDER with images and tables; {source!r} is no folder"
            )
        self._source = pathlib.Path(source).resolve()
        self._labels = pathlib.Path(labels or self._source / "labels").resolve()
        if not self._labels.is_dir():
            raise ValueError(
                f"{self._labels}: no label matrix; make one with experiments/label_matrix.py, or give labels=FOLDER"
            )
        self._index_path = pathlib.Path(index or self._source / "sample-index.csv").resolve()
        self._tables = {
            "profiles": _table(self._source, "profiles", profiles, needed=True)
            if config == "profiles"
            else None,
            "cells": _table(self._source, "cells", cells, needed=config == "cells"),
        }
        self._split = splitting.describe(str(split), split_fractions, split_seed)
        self._read_index()
        self._locations = self._read_locations()
        self._content = self._make_content(
            config,
            channels=tuple(channels or CHANNELS),
            crop_size=CROP_SIZE if crop_size is None else crop_size,
            drop_nonfinite=drop_nonfinite_features,
        )
        sizes = self._content.sizes()
        self._units = {part: np.flatnonzero((self._parts == part) & (sizes > 0)) for part in splitting.PARTS}
        self._sizes = {part: sizes[views] for part, views in self._units.items()}
        super().__init__(config=config, **kwargs)

    def _read_index(self) -> None:
        """Read labels and views, and keep the views that belong to a part of the split."""
        self._matrix = label_matrix.read(self._labels)
        everything = sample_index.read(self._index_path, self._matrix)
        parts = splitting.assign(everything, self._split)
        self._index = everything.subset(parts != "", reason="views that no file of the split lists")
        self._parts = parts[parts != ""]

    def _read_locations(self) -> well_tables.Locations:
        path = self._tables["cells"]
        return (
            well_tables.read_locations(path, self._index) if path else well_tables.no_locations(self._index)
        )

    def _make_content(
        self, config: str, *, channels: tuple[str, ...], crop_size: int, drop_nonfinite: bool
    ) -> examples.Content:
        counts = self._locations.counts if self._tables["cells"] else np.full(len(self._index), UNKNOWN)
        known = examples.Known(self._index, self._matrix, counts.astype(np.int32))
        if config == "profiles":
            path = str(self._tables["profiles"])
            profiles = well_tables.read_profiles(path, self._index, drop_nonfinite=drop_nonfinite)
            return examples.WellProfiles(known, profiles)
        files = field_files.find(self._source, self._index, channels=channels)
        if config == "cells":
            return examples.Cells(known, files, self._locations, size=crop_size)
        return examples.Views(known, files)

    @functools.cached_property
    def recipe(self) -> dict[str, Any]:
        """What the dataset is built from; a dataset with another recipe is not this one."""
        tables = [self._index_path, *(self._labels / name for name in LABEL_FILES)]
        tables += [path for path in self._tables.values() if path]
        return {
            "source": str(self._source),
            "tables": identity.files_digest(tables),
            "split": self._split,
            **self._content.recipe(),
        }

    def _info(self) -> tfds.core.DatasetInfo:
        content = self._content
        features = {name: tfds.features.Text() for name in TEXTS}
        features |= {
            "label_positions": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "label_values": tfds.features.Tensor(shape=(None,), dtype=np.int8),
            "cell_count": tfds.features.Scalar(dtype=np.int32),
            content.feature: tfds.features.Tensor(shape=content.shape, dtype=content.dtype, encoding="bytes"),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage="https://github.com/ml-jku/hti-cnn",
            metadata=tfds.core.MetadataDict(self._metadata()),
        )

    def _metadata(self) -> dict[str, Any]:
        return {
            "channels": list(self._content.names),
            "tasks": list(self._matrix.task_names),
            "assay_ids": list(self._matrix.assays),
            "simulated": (self._source / "simulated.json").exists(),
            "source": str(self._source),
            "split": self._split,
            "counts": {part: self._counts(part) for part in splitting.PARTS},
            "left_out": self._index.left_out | self._locations.left_out | self._content.left_out,
        }

    def _counts(self, part: str) -> dict[str, int]:
        """What a split holds; `active` and `inactive` are entries of the label matrix, counted once per compound."""
        units = self._units[part]
        values = self._matrix.values[np.isin(self._matrix.rows, self._index.rows[units])]
        return {
            "examples": int(self._sizes[part].sum()),
            "wells": len(np.unique(self._index.well_ids[units])),
            "compounds": len(np.unique(self._index.rows[units])),
            "active": int((values == 1).sum()),
            "inactive": int((values == -1).sum()),
        }

    def shard_plan(self) -> tuple[shard_plan.Plan, shards.Read]:
        """The plan, and what reads the examples; all image files are known to be there."""
        content = self._content
        # Image files are compared shard by shard: one that was mended costs its shard, not the whole build.
        recipe = {name: value for name, value in self.recipe.items() if name != "files"}
        plan = shard_plan.make_plan(
            self.name,
            self._sizes,
            example_bytes=int(np.prod(content.shape)) * content.dtype.itemsize + 512,
            recipe={**recipe, "config": self.builder_config.name},
            num_shards=self.num_shards,
        )
        self.info.metadata.clear()  # it may be that of a dataset which this one replaces
        self.info.metadata.update(self._metadata(), recipe=self.recipe)
        return plan, examples.Reader(content, self._units)


def _table(
    source: pathlib.Path, name: str, given: str | pathlib.Path | None, *, needed: bool
) -> pathlib.Path | None:
    """The file of a table: as given, or the parquet or CSV file of this name in the source, or None."""
    candidates = [pathlib.Path(given)] if given else [source / f"{name}.parquet", source / f"{name}.csv"]
    found = [path.resolve() for path in candidates if path.exists()]
    if not found and (given or needed):
        raise ValueError(f"{candidates[-1]}: missing; give the table with {name}=FILE")
    if len(found) > 1:
        raise ValueError(f"{source}: both {found[0].name} and {found[1].name}; keep one, or give {name}=FILE")
    return found[0] if found else None
