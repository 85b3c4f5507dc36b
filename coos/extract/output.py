"""What an extraction writes, so that a kill loses at most a well and nothing is half there.

extract.json                    what was computed from what; another extraction in the same folder is refused
wells/<plate>.parquet           a finished plate: a row per well with cells
wells/<plate>.json              of which files it was made, and how many fields, cells and problems it has
problems/<plate>.csv            what was left out, if anything
cells/<plate>/<well>/<site>.npz or cells/<plate>/<well>.parquet    single cells, on demand
unfinished/<plate>/             finished wells of a plate that is not
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from absl import logging

from coos import workdir as work
from coos.data import identity, plate_problems
from coos.data.plate_files import Problem, Sites
from coos.extract.fields import Known
from coos.profiles import aggregate, deepprofiler, files
from coos.profiles.table import Table, listing

METHODS = ("median", "mean")
CELLS = ("none", "npz", "parquet")
SOURCE = "source.json"
Place = tuple[str, str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """A folder of profiles.

    Args:
        folder: where everything goes.
        names: D names of the features.
        method: how cells become a well, "median" or "mean".
        cells: whether single cells are kept, as "npz" (DeepProfiler's), "parquet", or "none".
        model: what DeepProfiler's files call the network.
    """

    folder: pathlib.Path
    names: tuple[str, ...]
    method: str
    cells: str
    model: str

    def check(self, recipe: dict[str, Any], about: dict[str, Any]) -> None:
        """Note what is extracted; ValueError if something else was before."""
        path, wanted = self.folder / "extract.json", work.plain(recipe)
        if not path.exists():
            work.write_json(path, {**wanted, "about": about, "versions": work.versions()})
            return
        before, now = ({**x.pop("config"), **x} for x in (work.read_json(path), wanted))
        different = [
            f"{name}: {before.get(name)!r} there, {now.get(name)!r} now"
            for name in {**before, **now}
            if name not in ("about", "versions") and before.get(name) != now.get(name)
        ]
        if different:
            raise ValueError(
                f"{self.folder}: was extracted otherwise ({'; '.join(different)}); take another --out"
            )

    def unfinished(self, plate: str) -> pathlib.Path:
        """The folder of the finished wells of a plate that is not."""
        return self.folder / "unfinished" / plate

    def is_finished(self, plate: str, source: str) -> bool:
        """Whether a plate is finished; ValueError if its files, by their digest `source`, are others now."""
        table, note = self._table(plate), self._note(plate)
        if not (table.exists() and note.exists()):
            return False
        if work.read_json(note)["source"] != source:
            raise ValueError(
                f"{table}: the images or locations of this plate, or which channel is which, have changed since; "
                "remove it and run again, or take another --out"
            )
        shutil.rmtree(self.unfinished(plate), ignore_errors=True)  # left by a kill in `finish`
        return True

    def begin(self, plate: str, source: str) -> None:
        """Make ready for a plate; what was made of other files is removed."""
        path = self.unfinished(plate) / SOURCE
        if path.exists() and work.read_json(path) == source:
            return
        if path.exists():
            logging.warning("%s: its images or locations have changed; all wells are computed again", plate)
        shutil.rmtree(self.unfinished(plate) / "wells", ignore_errors=True)
        shutil.rmtree(self.folder / "cells" / plate, ignore_errors=True)
        work.write_json(path, source)

    def has_well(self, plate: str, well: str) -> bool:
        """Whether a well of an unfinished plate is finished."""
        return self._part(plate, well).exists()

    def stored(self, place: Place, number: int) -> np.ndarray | None:
        """Features (number, D) of a field whose single cells were written, None if they were not."""
        if self.cells != "npz" or not self._site(place).exists():
            return None
        features = deepprofiler.read_site(self._site(place)).features
        if features.shape != (number, len(self.names)) or features.dtype != np.float32:
            raise ValueError(
                f"{self._site(place)}: has {features.dtype} {features.shape}; expected float32 "
                f"{(number, len(self.names))}; remove it and run again"
            )
        return features

    def write_site(self, place: Place, field: Known) -> None:
        """Keep the cells of a field, if that is wanted field by field; a field without cells has no file."""
        path = self._site(place)
        if self.cells == "npz" and len(field.cells) and not path.exists():
            known = dict(zip(("Metadata_Plate", "Metadata_Well", "Metadata_Site"), place, strict=True))
            metadata = {**known, "Metadata_Model": self.model}
            deepprofiler.write_site(path, field.features, field.centers[:, ::-1], metadata)

    def write_well(
        self, plate: str, well: str, fields: Sequence[tuple[str, Known]], problems: Sequence[Problem]
    ) -> None:
        """Keep the profile of a well, made of its fields by name of the site."""
        features = np.concatenate([field.features for _, field in fields])
        odd = int((~np.isfinite(features)).any(1).sum())
        if odd:
            logging.warning(
                "%s-%s: %d of %d cells have features that are no finite numbers",
                plate,
                well,
                odd,
                len(features),
            )
        if self.cells == "parquet" and len(features):
            table = self._cells(plate, well, fields, features)
            files.write_parquet(table, self.folder / "cells" / plate / f"{well}.parquet")
        profile = aggregate.Aggregate(method=self.method).transform(
            Table(_known(plate, well, len(features)), features, self.names)
        )
        content: dict[str, Any] = {
            "features": profile.features,
            "cells": np.array(len(features)),
            "fields": np.array(sum(len(field.cells) > 0 for _, field in fields)),
            "problems": np.array(problems, dtype=np.str_).reshape(-1, len(Problem._fields)),
        }
        work.write_atomically(self._part(plate, well), lambda file: np.savez(file, **content), mode="wb")

    def _cells(
        self, plate: str, well: str, fields: Sequence[tuple[str, Known]], features: np.ndarray
    ) -> Table:
        """All cells of a well, with their rows in the location files."""
        centers = np.concatenate([field.centers for _, field in fields])
        sites = np.repeat([site for site, _ in fields], [len(field.cells) for _, field in fields])
        metadata = _known(plate, well, len(features)).with_columns(
            pl.Series("Metadata_Site", sites.tolist(), pl.String),
            pl.Series("Metadata_Cell", np.concatenate([field.cells for _, field in fields])),
            pl.Series("Metadata_Location_Center_X", centers[:, 1]),
            pl.Series("Metadata_Location_Center_Y", centers[:, 0]),
        )
        return Table(metadata, features, self.names)

    def finish(self, plate: str, wells: Iterable[str], source: str) -> None:
        """Put the wells of a plate together, in this order."""
        parts = {well: _read_part(self._part(plate, well)) for well in wells}
        problems = [Problem(*row) for part in parts.values() for row in part["problems"].tolist()]
        without = [well for well, part in parts.items() if not part["cells"]]
        if without:
            logging.warning(
                "%s: %d wells have no cells and get no row: %s", plate, len(without), listing(without)
            )
        path = self.folder / "problems" / f"{plate}.csv"
        path.unlink(missing_ok=True)  # of an earlier time, when the files were others
        if problems:
            content = plate_problems.as_csv(problems)
            work.write_atomically(path, lambda file: file.write(content), mode="wb")
        table = self._profiles(plate, {well: part for well, part in parts.items() if part["cells"]})
        note = {
            "source": source,
            "wells": len(table),
            "fields": sum(int(part["fields"]) for part in parts.values()),
            "cells": int(table.metadata[aggregate.COUNT].sum()),
            "wells_without_cells": without,
            "problems": plate_problems.count(problems),
        }
        work.write_json(self._note(plate), note)
        files.write_parquet(table, self._table(plate))
        shutil.rmtree(self.unfinished(plate))
        with contextlib.suppress(OSError):  # of other plates there may be something
            self.unfinished(plate).parent.rmdir()

    def _profiles(self, plate: str, parts: dict[str, dict[str, np.ndarray]]) -> Table:
        """The table of a plate."""
        metadata = {
            "Metadata_Plate": pl.repeat(plate, len(parts), dtype=pl.String, eager=True),
            "Metadata_Well": pl.Series(list(parts), dtype=pl.String),
            aggregate.COUNT: pl.Series([int(part["cells"]) for part in parts.values()], dtype=pl.Int64),
        }
        nothing = np.zeros((0, len(self.names)), np.float32)
        features = np.concatenate([nothing, *(part["features"] for part in parts.values())])
        return Table(pl.DataFrame(metadata), features, self.names)

    def note(self, plate: str) -> dict[str, Any]:
        """What `finish` noted about a plate."""
        return work.read_json(self._note(plate))

    def _table(self, plate: str) -> pathlib.Path:
        return self.folder / "wells" / f"{plate}.parquet"

    def _note(self, plate: str) -> pathlib.Path:
        return self.folder / "wells" / f"{plate}.json"

    def _part(self, plate: str, well: str) -> pathlib.Path:
        return self.unfinished(plate) / "wells" / f"{well}.npz"

    def _site(self, place: Place) -> pathlib.Path:
        plate, well, site = place
        return self.folder / "cells" / plate / well / f"{site}.npz"


def _known(plate: str, well: str, rows: int) -> pl.DataFrame:
    """Plate and well of every row."""
    known = {"Metadata_Plate": plate, "Metadata_Well": well}
    return pl.DataFrame({name: pl.repeat(x, rows, dtype=pl.String, eager=True) for name, x in known.items()})


def _read_part(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def source_digest(sites: Sites) -> str:
    """Hash of sites in order: channels, places, and name, size and time of every file."""
    digest = hashlib.sha256(json.dumps(sites.channels).encode())
    for site in range(len(sites)):
        files = [identity.stamp(path) for path in (*sites.images[site], sites.locations[site])]
        digest.update(json.dumps([sites.place(site), files]).encode())
    return digest.hexdigest()[:16]
