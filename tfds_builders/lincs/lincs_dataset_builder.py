"""Builder of plates with located cells: crops of single cells, or fields of view with the places of their cells."""

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

from coos.data import (
    identity,
    plate_annotation,
    plate_files,
    plate_problems,
    shard_plan,
    sharded_builder,
    shards,
)
from coos.data.plate_files import Problem
from tfds_builders.lincs import examples

CROP_SIZE = 128  # Bornholdt 2021, section 4.1
COMPOUND = "Metadata_broad_sample"
COUNT = "Metadata_cell_count"
PLACES, PROBLEM_LIST = "places.parquet", "problems.csv"


class Builder(sharded_builder.ShardedBuilder):
    """Plates as ArrayRecord; see README.md beside this file for what is read and what is written.

    Args (beyond those of `ShardedBuilder`, whose workers share out plates):
        source: folder with images and locations, see `coos.data.plate_files`.
        metadata: folder with barcodes, plate maps and mechanisms, see `coos.data.plate_annotation`; None: `metadata`
            in the source if it is there, else nothing is known of wells but what an index says.
        config: "crops" (default) or "fields".
        index, channels, plates: see `plate_files.find`.
        crop_size: height and width of the window around a cell in pixels; of config "fields", when it is cut later.
        window: "exact" (default) or "deepprofiler", likewise.
        problems: "stop" (default) where files are missing or wrong, or leave out what they concern and "list" it.
        dose_levels: see `plate_annotation.annotate`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="crops", description="Windows around the centres of cells."),
        tfds.core.BuilderConfig(name="fields", description="Whole fields of view with the centres of cells."),
    ]

    def __init__(
        self,
        *,
        source: str | pathlib.Path | None = None,
        metadata: str | pathlib.Path | None = None,
        config: str = "crops",
        index: str | pathlib.Path | None = None,
        channels: Mapping[str, str] | Sequence[str] | None = None,
        plates: Sequence[str] | None = None,
        crop_size: int = CROP_SIZE,
        window: str = "exact",
        problems: str = "stop",
        dose_levels: Sequence[float] = plate_annotation.LEVELS,
        **kwargs: Any,
    ):
        self._options = examples.Options(form=config, crop_size=crop_size, window=window, problems=problems)
        if source is None or not pathlib.Path(source).is_dir():
            raise ValueError(f"lincs needs source=FOLDER with images and locations; {source!r} is no folder")
        self._source = pathlib.Path(source).resolve()
        self._metadata_folder = _metadata_folder(self._source, metadata)
        self._sites = plate_files.find(self._source, index=index, channels=channels, plates=plates)
        self._places = self._sites.frame
        if self._metadata_folder:
            self._places = plate_annotation.annotate(
                self._places, self._metadata_folder, dose_levels=dose_levels
            )
        image = plate_problems.first_image(self._sites, problems=problems)
        self._fields = examples.Fields(self._sites, _compounds(self._places), image.shape, image.dtype)
        super().__init__(config=config, **kwargs)

    @functools.cached_property
    def recipe(self) -> dict[str, Any]:
        """What the dataset is built from; a dataset with another recipe is not this one."""
        return {
            **self._plan_recipe(),
            "files": identity.files_digest(self._fields.files(range(len(self._sites)))),
        }

    def _plan_recipe(self) -> dict[str, Any]:
        """All of it but for the files of fields, which are compared shard by shard: a mended one costs its shard."""
        return {
            "source": str(self._source),
            "metadata": str(self._metadata_folder or ""),
            "places": hashlib.sha256(self._places.write_csv().encode()).hexdigest()[:16],
            "paths": self._paths_digest(),
            "channels": list(self._sites.channels),
            "crop_size": self._options.crop_size,
            "window": self._options.window,
        }

    def _paths_digest(self) -> str:
        """Hash of which file is which channel of which field: an index that was corrected is another one."""
        digest = hashlib.sha256()
        for site, (images, locations) in enumerate(
            zip(self._sites.images, self._sites.locations, strict=True)
        ):
            digest.update(json.dumps([self._sites.place(site), images, locations]).encode())
        return digest.hexdigest()[:16]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=examples.features(self._options, self._fields.shape, self._fields.dtype),
            homepage="https://github.com/broadinstitute/lincs-cell-painting",
            metadata=tfds.core.MetadataDict(self._metadata()),
        )

    def _metadata(self) -> dict[str, Any]:
        return {
            "channels": list(self._sites.channels),
            "simulated": (self._source / "simulated.json").exists(),
            "source": str(self._source),
            "form": self._options.form,
            "crop_size": self._options.crop_size,
            "window": self._options.window,
            "places": PLACES,
        }

    def shard_plan(self) -> tuple[shard_plan.Plan, shards.Read]:
        """The plan, and what reads the examples.

        Raises:
            ValueError: files are missing or wrong and problems are to stop the build, or there are no cells at all.
        """
        self._counts, self._problems = plate_problems.check(self._sites, shape=self._fields.shape)
        if self._options.problems == "stop":
            plate_problems.refuse(self._problems, str(self._source))
        units = np.flatnonzero(self._counts > 0)
        if not len(units):
            raise ValueError(
                f"{self._source}: no field of view has cells; {plate_problems.count(self._problems)}"
            )
        split, of_fields = self._options.split, self._options.form == "fields"
        plan = shard_plan.make_plan(
            self.name,
            {split: np.ones(len(units), np.int64) if of_fields else self._counts[units]},
            example_bytes=examples.example_bytes(self._options, self._fields.shape, self._fields.dtype),
            recipe={**self._plan_recipe(), "config": self.builder_config.name},
            num_shards=self.num_shards,
            groups={split: self._places["Metadata_Plate"].to_numpy()[units]},
        )
        return plan, examples.Reader(self._fields, units, self._options)

    def finish(self, left_out: Sequence[Any]) -> Mapping[str, bytes]:
        """The table of places and the list of problems; counts both in the metadata.

        Raises:
            ValueError: problems are to stop the build, but another worker left fields out.
        """
        met = [Problem(*record) for record in left_out]
        if self._options.problems == "stop":
            plate_problems.refuse(met, f"{self._source}: left out by a worker with problems=list")
        every = plate_problems.ordered([*self._problems, *met], self._sites)
        lost = {problem[:3] for problem in met}
        counts = [
            None if count < 0 or (lost and self._sites.place(site) in lost) else count
            for site, count in enumerate(self._counts.tolist())
        ]
        places = self._places.with_columns(pl.Series(COUNT, counts, dtype=pl.Int64))
        self.info.metadata.clear()  # it may be that of a dataset which this one replaces
        found = {"counts": examples.counts_of(places), "problems": plate_problems.count(every)}
        self.info.metadata.update(self._metadata(), **found, recipe=self.recipe)
        buffer = io.BytesIO()
        places.write_parquet(buffer)
        return {PLACES: buffer.getvalue(), PROBLEM_LIST: plate_problems.as_csv(every)}


def _metadata_folder(source: pathlib.Path, given: str | pathlib.Path | None) -> pathlib.Path | None:
    """The folder that was named, or `metadata` in the source if it is there."""
    folder = pathlib.Path(given or source / "metadata").resolve()
    if folder.is_dir():
        return folder
    if given is not None:
        raise ValueError(f"metadata={str(given)!r}: no such folder")
    return None


def _compounds(places: pl.DataFrame) -> tuple[str, ...]:
    """(S,) the compound of every field, "" where none is known."""
    if COMPOUND not in places.columns:
        return ("",) * len(places)
    return tuple(places[COMPOUND].cast(pl.String).fill_null("").to_list())
