"""The task of naming the compound, the mechanism or the well of single cells: weak labels of whole wells.

Cells of plates have no label of their own; each gets that of its well (Caicedo et al. 2018; Bornholdt 2021, chapter 3).
What is wanted is the representation inside the network, so that errors here are only the auxiliary task's. Which wells
train and which validate is said by the config (`coos.data.cell_parts`), not by the data set.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import ml_collections
import numpy as np
import polars as pl
from absl import logging

from coos import workdir as work
from coos.data import cell_parts, cells, pipeline, preprocess
from coos.data.source import Source
from coos.train import checks, classification, epochs, loop
from coos.train.learner import Learner
from coos.workdir import Predictions

MAXIMIZED = ()  # validation values are errors and losses
CHOICES = {
    "select": ("balanced_error", "cross_entropy", loop.NEWEST),
    "evaluation.crops": (1,),
    "evaluation.validation_crops": (1,),
}
RULES = tuple(field.name for field in dataclasses.fields(cell_parts.Rules) if field.name != "seed")


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with its epochs in steps; ValueError where it cannot be right, by itself or for the data set."""
    checks.check_choices(config, CHOICES)
    dataset = cells.describe(config.data.directory)
    training = load_set(config, config.data.directory, "training")
    config = epochs.in_steps(config, examples=_epoch_size(config, training))
    checks.check_settings(config)
    sets = [*cell_parts.PARTS, *config.evaluation.queries]
    checks.check_against(config, {**dataset, "splits": dict.fromkeys(sets)})
    return config


def _epoch_size(config: ml_collections.ConfigDict, training: Source) -> int:
    balance = training.labels if config.data.balance else None
    return pipeline.examples_per_epoch(len(training), config.data.epoch_share, balance=balance)


def rules(config: ml_collections.ConfigDict) -> cell_parts.Rules:
    """What the config says about which cells are which."""
    given = {name: config.data[name] for name in RULES}
    # A config that was read from JSON has lists for tuples.
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return cell_parts.Rules(seed=config.seed, **options)


def divided(
    config: ml_collections.ConfigDict, directory: str
) -> tuple[Source, cell_parts.Parts, pl.DataFrame]:
    """All cells of a data set with their labels, the parts they make up, and what is known of their wells."""
    return _divided(str(directory), config.data.cache_dir, config.data.store, rules(config))


@functools.lru_cache(
    maxsize=2
)  # training and validation part, and what checks them, come one after the other
def _divided(
    directory: str, cache_dir: str, store: str, how: cell_parts.Rules
) -> tuple[Source, cell_parts.Parts, pl.DataFrame]:
    everything = cells.load(directory, cache_dir=cache_dir or None, store=store)
    places = cells.read_places(directory)
    found = cell_parts.parts(places, everything.columns["place"], how)
    dataset = {**everything.dataset, "class_names": list(found.class_names)}
    return dataclasses.replace(everything, labels=found.labels, dataset=dataset), found, places


def describe(config: ml_collections.ConfigDict, directory: str) -> dict[str, Any]:
    """The data set as this config sees it: classes of its target, and the parts as its splits."""
    everything, found, _ = divided(config, directory)
    splits = {part: len(rows) for part, rows in found.cells.items()}
    return {**everything.dataset, "splits": splits | dict.fromkeys(config.evaluation.queries)}


def load_set(config: ml_collections.ConfigDict, directory: str, name: str) -> Source:
    """The cells of one part, or of a query of `evaluation.queries`, with the plate and the well of each as columns."""
    everything, found, places = divided(config, directory)
    rows = found.cells[name] if name in found.cells else _queried(config, name, everything, found, places)
    if not len(rows):
        raise ValueError(f"set {name!r} has no cells: config.data.held_out says which wells to hold out")
    return cells.with_wells(everything.subset(rows), places)


def _queried(
    config: ml_collections.ConfigDict,
    name: str,
    everything: Source,
    found: cell_parts.Parts,
    places: pl.DataFrame,
) -> np.ndarray:
    """Rows of the cells of known classes in the wells that match `evaluation.queries.<name>`."""
    chosen = cell_parts.matching(places, config.evaluation.queries[name], f"evaluation.queries.{name}")
    rows = np.flatnonzero(chosen[everything.columns["place"]] & (everything.labels >= 0))
    trained = np.isin(rows, found.cells["training"]).sum()
    if trained:
        logging.warning("set %s: %d of %d cells are training cells", name, trained, len(rows))
    return rows


def parts(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, *, resuming: bool
) -> tuple[Source, Source]:
    """Training and validation part, the same whenever the config and the data set are."""
    del workdir, resuming
    everything, found, _ = divided(config, config.data.directory)
    return everything.subset(found.cells["training"]), everything.subset(found.cells["validation"])


def write_parts(workdir: pathlib.Path, training: Source, validation: Source) -> None:
    """Write parts.csv: of every field how many cells train and how many validate."""
    places = cells.read_places(training.dataset["directory"])
    counts = {
        part: np.bincount(source.columns["place"], minlength=len(places))
        for part, source in (("training", training), ("validation", validation))
    }
    table = places.select(pl.col("^Metadata_(Plate|Well|Site)$")).with_columns(
        pl.Series(part, count) for part, count in counts.items()
    )
    used = table.filter((pl.col("training") > 0) | (pl.col("validation") > 0))
    text = used.write_csv()
    work.write_atomically(workdir / "parts.csv", lambda file: file.write(text))


def constants(config: ml_collections.ConfigDict, training: Source) -> dict[str, Any]:
    """What the intensity transform needs: statistics of the training cells for "standardize"."""
    name = config.preprocess.intensity
    if name == "standardize":
        rows = np.sort(np.random.default_rng(config.seed).permutation(len(training))[:20_000])
        images = training.gather(rows)
        mean, std = preprocess.channel_statistics(images, np.arange(len(images)))
        return {"mean": mean.tolist(), "std": std.tolist()}
    return {"min_span": config.preprocess.min_span} if name == "stretch" else {}


def make(config: ml_collections.ConfigDict, dataset: dict[str, Any], constants: dict[str, Any]) -> Learner:
    """The classifier of a config with known constants, for cells as `dataset` describes them."""
    return classification.make(config, dataset, constants)


def validation_scores(predictions: Predictions) -> dict[str, float]:
    """Errors and losses on the validation cells."""
    return classification.validation_scores(predictions)
