"""Judge a trained run: its best step on each of its sets, every metric of its task as result rows."""

import pathlib
import zlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from absl import logging

from coos import workdir as work
from coos.data import pipeline
from coos.data import source as sources
from coos.evaluators import classification, multitask
from coos.train import run
from coos.train.predict import predict
from coos.train.record import refuse_other_images

# Modules with score_set(predictions, config=..., dataset=...) -> {metric: value}.
TASKS: dict[str, ModuleType] = {"classification": classification, "multitask": multitask}


def evaluate(
    workdir: pathlib.Path, *, directory: str | None = None, sets: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Predict and score sets with the best step of a run; write predictions and rows, return the rows.

    `directory` is another built dataset with the same channels, classes and image shape (default: the run's
    own); `sets` are its splits (default: the config's). Predictions of another dataset go to
    `other_datasets/<name>/`, so that they never replace those of the run's own.
    """
    classifier, variables, record = run.load_best(workdir)
    config, trained = classifier.config, record["dataset"]
    directory = directory or trained["directory"]
    judged = sources.describe(directory)
    refuse_other_images(trained, judged, where=str(workdir))
    compiled = run.make_predict(classifier, num_crops=config.evaluation.crops)
    replicated, place = pipeline.replicate(variables), _predictions_folder(workdir, trained, judged)
    step, rows = record["best"]["step"], []
    labels = {**run.row_labels(config, judged), "fold": None, "step": step}
    if place != workdir:
        labels["dataset"] = place.name
    logging.info("judging step %d, the best so far of %d", step, config.num_steps)
    wanted = list(sets or config.evaluation.sets)
    missing = [name for name in wanted if name not in judged["splits"]]
    if missing:
        raise ValueError(f"{directory}: no split {missing[0]!r}; it has {list(judged['splits'])}")
    for name in wanted:
        source = _load(config, directory, name)
        found = predict(compiled, replicated, source, batch_size=config.evaluation.batch_size, progress=name)
        if not np.isfinite(found.probabilities).all():
            raise ValueError(f"{workdir}, set {name}: probabilities are not finite; did training diverge?")
        work.save_predictions(place, name, found, step=step)
        values = TASKS[config.task].score_set(found, config=config, dataset=judged)
        number = int(values.pop("n", len(source)))
        rows += [{**labels, "split": name, "metric": k, "value": v, "n": number} for k, v in values.items()]
        if config.task == "multitask" and place == workdir:
            _save_baseline(config, source, workdir, name)
        elif config.task == "multitask":
            _warn_of_trained_compounds(config, trained, source, name)
    best = {"split": "validation", "metric": "best_step", "value": step, "n": None}
    work.replace_rows(workdir / "results.jsonl", [*rows, {**labels, **best}])
    return rows


def _load(config: Any, directory: str, split: str) -> sources.Source:
    """A split, read as the config says."""
    store = config.data.get("store", "auto")
    return sources.load(directory, split, cache_dir=config.data.cache_dir or None, store=store)


def _warn_of_trained_compounds(
    config: Any, trained: dict[str, Any], judged: sources.Source, name: str
) -> None:
    """Say how many compounds of another data set's split the network was trained on."""
    try:
        training = _load(config, trained["directory"], config.data.train_split)
    except ValueError as error:
        logging.warning("set %s: cannot tell whether its compounds were trained on (%s)", name, error)
        return
    compounds = set(judged.columns["compound"].tolist())
    known = compounds & set(training.columns["compound"].tolist())
    if known:
        logging.warning("set %s: %d of its %d compounds were trained on", name, len(known), len(compounds))


def _save_baseline(config: Any, judged: sources.Source, workdir: pathlib.Path, name: str) -> None:
    """Write what the cell count alone predicts for a set, if the data set knows it."""
    training = _load(config, judged.dataset["directory"], config.data.train_split)
    if multitask.knows_cell_counts(training) and multitask.knows_cell_counts(judged):
        work.save_predictions(
            workdir, name, multitask.cell_count_baseline(training, judged), folder="baseline"
        )


def _predictions_folder(
    workdir: pathlib.Path, trained: dict[str, Any], judged: dict[str, Any]
) -> pathlib.Path:
    """The work directory itself for the cells that the run was made for, a folder of its own for any others."""
    if trained["digests"] == judged["digests"]:
        return workdir
    cells = zlib.crc32("".join(sorted(judged["digests"].values())).encode())
    return workdir / "other_datasets" / f"{judged['name']}-{judged['version']}-{cells:08x}".replace("/", "_")
