"""Builder of whole fields of view of plates, or of class folders, in the layouts of their releases."""

import functools
import hashlib
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import tensorflow_datasets as tfds

from coos.data import identity, shard_plan, sharded_builder, shards
from tfds_builders.bbbc import examples, layouts

TABLE = "fields.parquet"


class Builder(sharded_builder.ShardedBuilder):
    """Whole fields as ArrayRecord; see README.md beside this file for what is read and what is written.

    Args (beyond those of `ShardedBuilder`, whose workers share out plates):
        source: folder with the files of the release.
        config: which set, one of `layouts.LAYOUTS`.
        concentrations: bbbc013: table of concentrations of the dose steps, see `plate_maps.read_concentrations`.
        channels: hela, cho, hpa: names at the ends of file names; None: one plane a file.
        plates: bbbc021: these alone.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=layout.description)
        for name, layout in layouts.LAYOUTS.items()
    ]

    def __init__(
        self,
        *,
        source: str | pathlib.Path | None = None,
        config: str = "bbbc013",
        concentrations: str | pathlib.Path | None = None,
        channels: Sequence[str] | None = None,
        plates: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        if config not in layouts.LAYOUTS:
            raise ValueError(f"config={config!r}: choose one of {', '.join(layouts.LAYOUTS)}")
        if source is None or not pathlib.Path(source).is_dir():
            raise ValueError(f"bbbc needs source=FOLDER with the files of {config}; {source!r} is no folder")
        self._source = pathlib.Path(source).resolve()
        options = {"concentrations": concentrations, "channels": channels, "plates": plates}
        self._fields = layouts.find(config, self._source, **options)
        first = self._fields.read(0)
        self._shape, self._dtype = first.shape, first.dtype
        super().__init__(config=config, **kwargs)

    @functools.cached_property
    def recipe(self) -> dict[str, Any]:
        """What the dataset is built from; a dataset with another recipe is not this one."""
        paths = (path for files in self._fields.images for path in files)
        return {**self._plan_recipe(), "files": identity.files_digest(paths)}

    def _plan_recipe(self) -> dict[str, Any]:
        """All of it but for the files of fields, which are compared shard by shard: a mended one costs its shard."""
        paths = [[str(path.relative_to(self._source)) for path in files] for files in self._fields.images]
        return {
            "source": str(self._source),
            "channels": list(self._fields.channels),
            "table": _digest(self._fields.frame.write_csv()),
            "paths": _digest(json.dumps(paths)),
        }

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=examples.features(self._shape, self._dtype),
            homepage=layouts.LAYOUTS[self.builder_config.name].homepage,
            metadata=tfds.core.MetadataDict(self._metadata()),
        )

    def _metadata(self) -> dict[str, Any]:
        return {
            "channels": list(self._fields.channels),
            "simulated": (self._source / "simulated.json").exists(),
            "source": str(self._source),
            "form": "whole_fields",
            "fields": TABLE,
        }

    def shard_plan(self) -> tuple[shard_plan.Plan, shards.Read]:
        """The plan, in which a plate is a group, and what reads the examples."""
        plan = shard_plan.make_plan(
            self.name,
            {examples.SPLIT: np.ones(len(self._fields), np.int64)},
            example_bytes=int(np.prod(self._shape)) * self._dtype.itemsize + 512,
            recipe={**self._plan_recipe(), "config": self.builder_config.name},
            num_shards=self.num_shards,
            groups={examples.SPLIT: self._fields.frame["Metadata_Plate"].fill_null("").to_numpy()},
        )
        cache = shards.building_folder(self.info.data_dir) / "progress"
        self._reader = examples.Reader(self._fields, self._shape, self._dtype, cache)
        return plan, self._reader

    def finish(self, left_out: Sequence[Any]) -> Mapping[str, bytes]:
        """The table of fields; what the dataset is and how many fields there are in the metadata."""
        del left_out  # a field that cannot be read stops the build
        self.info.metadata.clear()  # it may be that of a dataset which this one replaces
        self.info.metadata.update(self._metadata(), counts=counts_of(self._fields.frame), recipe=self.recipe)
        buffer = io.BytesIO()
        examples.with_controls(self._fields, self._reader).write_parquet(buffer)
        return {TABLE: buffer.getvalue()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def counts_of(frame: pl.DataFrame) -> dict[str, int]:
    """How many fields, wells, plates, compounds, mechanisms and classes there are; controls are no compounds."""
    wells = frame.drop_nulls("Metadata_Well").select("Metadata_Plate", "Metadata_Well")
    treated = frame.filter(pl.col("Metadata_control").is_null())
    return {
        "fields": frame.height,
        "wells": wells.n_unique() if wells.height else 0,
        "plates": frame["Metadata_Plate"].drop_nulls().n_unique(),
        "compounds": treated["Metadata_compound"].drop_nulls().n_unique(),
        "mechanisms": treated["Metadata_moa"].drop_nulls().n_unique(),
        "classes": frame["Metadata_class"].drop_nulls().n_unique(),
    }
