"""Extraction, plate by plate: fields are read ahead, cells computed, wells made and kept; a kill loses one well."""

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

from coos import workdir as work
from coos.data import pipeline, plate_problems
from coos.data.plate_files import Problem, Sites
from coos.extract import fields, output, representations, stream
from coos.extract.fields import Known
from coos.extract.output import Output
from coos.extract.representations import Representation

PLATE, WELL = "Metadata_Plate", "Metadata_Well"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to extract.

    Args:
        out: folder for the tables; one for all workers.
        aggregate: how cells become a well: "median" or "mean".
        cells: whether to keep single cells: "none", "npz" (DeepProfiler's) or "parquet".
        problems: "stop" where files are missing or wrong, or leave out what they concern and "list" it.
        batch_size: cells that a device computes at once.
        readers: threads that read images.
        worker, num_workers: the number of this machine, from 0, and of all; they share out plates.
    """

    out: pathlib.Path
    aggregate: str = "median"
    cells: str = "none"
    problems: str = "stop"
    batch_size: int = 64
    readers: int = 4
    worker: int = 0
    num_workers: int = 1

    def __post_init__(self):
        for name, known in (
            ("aggregate", output.METHODS),
            ("cells", output.CELLS),
            ("problems", plate_problems.POLICIES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {known}")
        for name in ("batch_size", "readers", "num_workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.worker < self.num_workers:
            raise ValueError(
                f"worker={self.worker}: must be from 0 to num_workers - 1 = {self.num_workers - 1}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class _Plate:
    """A plate that is to be extracted: its sites, the rows among them still to do, and the digest of its files."""

    name: str
    sites: Sites
    todo: np.ndarray
    source: str


def extract(
    sites: Sites, representation: Representation, options: Options, *, settings: dict[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Write profiles of the wells of some sites, see `coos.extract.output`; what is finished already stays.

    The features of a field depend on its files and the representation alone (and in the last digits on the kind of
    machine), not on the other fields, the number of workers, or where a run was interrupted.

    Args:
        sites: S fields of view, such as of `plate_files.find`; the same for all workers.
        representation: what to compute of a cell.
        options: how.
        settings: what else tells this extraction from others in the same folder, such as the source.

    Returns:
        The note about each plate of this worker, see `Output.finish`.

    Raises:
        ValueError: channels or windows that the network does not take, another extraction in the folder, problems with
            files if they are to stop it, files that changed since a plate was finished, or another process at work.
    """
    sites, reordered = representations.in_order(sites, representation.channels)
    if reordered:
        logging.info("channels are read in the order of the training: %s", ", ".join(sites.channels))
    listing = options.problems == "list"
    image = plate_problems.first_image(sites, problems=options.problems)
    names = representation.feature_names(image.shape, image.dtype)
    out = Output(
        folder=options.out,
        names=names,
        method=options.aggregate,
        cells=options.cells,
        model=representation.identity.get("network", representation.identity["kind"]),
    )
    out.check(
        _recipe(sites, representation, options, image, settings or {}, len(names)), representation.about
    )
    mine = sites.plates[options.worker :: options.num_workers]
    plates = _pending(sites, mine, out)
    counts, problems = _look(plates, image.shape, options)
    compute = stream.compiled(representation)
    total = sum(int(np.maximum(c[p.todo], 0).sum()) for p, c in zip(plates, counts, strict=True))
    with tqdm(total=total, desc="cells", unit="cell", disable=None) as bar:
        for plate, number in zip(plates, counts, strict=True):
            reader = _reader(plate.sites, number, image, representation, out, listing=listing)
            with (
                work.locked(out.unfinished(plate.name)),
                _computed(plate, reader, compute, representation, options) as computed,
            ):
                _write_plate(plate, computed, problems, out, bar)
    return {name: out.note(name) for name in mine}


@contextlib.contextmanager
def _computed(
    plate: _Plate,
    reader: fields.Reader,
    compute: stream.Compute,
    representation: Representation,
    options: Options,
) -> Iterator[Iterable[Known]]:
    """The fields of a plate with their features, computed while others are written; its threads end with it."""
    with contextlib.closing(fields.read_ahead(reader, plate.todo.tolist(), readers=options.readers)) as ahead:
        stages = stream.represent(ahead, compute, representation.window, batch_size=options.batch_size)
        with contextlib.closing(pipeline.prefetch(stages)) as computed:
            yield computed


def _recipe(
    sites: Sites,
    representation: Representation,
    options: Options,
    image: np.ndarray,
    settings: dict[str, Any],
    width: int,
) -> dict[str, Any]:
    """What the numbers depend on, beside the files of a plate."""
    return {
        "config": {
            **settings,
            "channels": list(sites.channels),
            "window": dataclasses.asdict(representation.window),
            "aggregate": options.aggregate,
            "cells": options.cells,
            "batch_size": options.batch_size,
        },
        "weights": representation.identity,
        "images": {"shape": list(image.shape), "dtype": str(image.dtype)},
        "features": width,
    }


def _pending(sites: Sites, names: tuple[str, ...], out: Output) -> list[_Plate]:
    """The plates that are not finished, with the fields of their unfinished wells."""
    of_plate = sites.frame[PLATE].to_numpy()
    found = []
    for name in tqdm(names, desc="plates", disable=None if len(names) > 20 else True):
        part = sites.subset(of_plate == name)
        source = output.source_digest(part)
        if out.is_finished(name, source):
            continue
        with work.locked(out.unfinished(name)):
            out.begin(name, source)
        wells = part.frame[WELL].to_list()
        done = {well for well in set(wells) if out.has_well(name, well)}
        found.append(_Plate(name, part, np.flatnonzero([well not in done for well in wells]), source))
    return found


def _look(
    plates: list[_Plate], shape: tuple[int, ...], options: Options
) -> tuple[list[np.ndarray], dict[tuple[str, str], list[Problem]]]:
    """The cells of every field of the plates (-1: left out), and by well what is wrong; ValueError if that stops."""
    counts, found = [], []
    for plate in plates:
        number, problems = plate_problems.check(plate.sites, shape=shape)
        counts.append(number)
        found += problems
    if options.problems == "stop":
        plate_problems.refuse(found, "the plates")
    by_well: dict[tuple[str, str], list[Problem]] = {}
    for problem in found:
        by_well.setdefault((problem.plate, problem.well), []).append(problem)
    return counts, by_well


def _reader(
    sites: Sites,
    counts: np.ndarray,
    image: np.ndarray,
    representation: Representation,
    out: Output,
    *,
    listing: bool,
) -> fields.Reader:
    def measure(image: np.ndarray, centers: np.ndarray) -> np.ndarray:
        return representation.features({}, representation.window.cut(image, centers))

    return fields.Reader(
        sites=sites,
        shape=image.shape,
        dtype=image.dtype,
        counts=counts,
        width=len(out.names),
        stored=lambda site, number: out.stored(sites.place(site), number),
        measure=None if representation.on_device else measure,
        listing=listing,
    )


def _write_plate(
    plate: _Plate,
    computed: Iterable[Known],
    problems: dict[tuple[str, str], list[Problem]],
    out: Output,
    bar: tqdm,
) -> None:
    """Write wells as their last field comes, and the plate at the end."""
    for well, group in itertools.groupby(computed, key=lambda field: plate.sites.place(field.site)[1]):
        found = []
        for field in group:
            place = plate.sites.place(field.site)
            out.write_site(place, field)
            found.append((place[2], field))
            bar.update(len(field.cells))
        unread = [field.problem for _, field in found if field.problem]
        known = [*problems.get((plate.name, well), []), *unread]
        out.write_well(plate.name, well, found, plate_problems.ordered(known, plate.sites))
    out.finish(plate.name, plate.sites.frame[WELL].unique(maintain_order=True).to_list(), plate.source)
