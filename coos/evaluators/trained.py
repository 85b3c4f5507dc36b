"""Judge a trained run: its best step on each of its sets, every metric of its task as result rows."""

import functools
import pathlib
import zlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from absl import logging

from coos import workdir as work
from coos.data import pipeline
from coos.data import source as sources
from coos.evaluators import classification, inpainting, multitask, single_cells
from coos.train import run
from coos.train.predict import predict
from coos.train.record import refuse_other_images

# Modules with score_set(predictions, config=..., dataset=...) -> {metric: value}, baseline(training, judged), which
# predicts without a network or is None, and shared(training, judged), which says what a network must not know, or "".
# `training` gives the examples that the network was trained on.
TASKS: dict[str, ModuleType] = {
    "classification": classification,
    "multitask": multitask,
    "single_cells": single_cells,
    "inpainting": inpainting,
}


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
    judged = run.task_of(config).describe(config, directory)
    refuse_other_images(trained, judged, where=str(workdir))
    compiled = run.make_predict(classifier, validating=False)
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
    task, load_set = TASKS[config.task], run.task_of(config).load_set
    own = directory if place == workdir else trained["directory"]
    training = functools.cache(
        functools.partial(load_set, config, own, config.data.get("train_split", "training"))
    )
    for name in wanted:
        source = load_set(config, directory, name)
        found = predict(compiled, replicated, source, batch_size=config.evaluation.batch_size, progress=name)
        if not np.isfinite(found.probabilities).all():
            raise ValueError(f"{workdir}, set {name}: probabilities are not finite; did training diverge?")
        work.save_predictions(place, name, found, step=step)
        values = task.score_set(found, config=config, dataset=judged)
        number = int(values.pop("n", len(source)))
        rows += [{**labels, "split": name, "metric": k, "value": v, "n": number} for k, v in values.items()]
        if place == workdir and (baseline := task.baseline(training, source)) is not None:
            work.save_predictions(workdir, name, baseline, folder="baseline")
        if place != workdir and (known := _shared(task, training, source)):
            logging.warning("set %s: %s", name, known)
    best = {"split": "validation", "metric": "best_step", "value": step, "n": None}
    work.replace_rows(workdir / "results.jsonl", [*rows, {**labels, **best}])
    return rows


def _shared(task: ModuleType, training: Callable[[], sources.Source], judged: sources.Source) -> str:
    """What the network was trained on among what is judged, or why that cannot be told."""
    try:
        return task.shared(training, judged)
    except ValueError as error:
        return f"cannot tell what of it was trained on ({error})"


def _predictions_folder(
    workdir: pathlib.Path, trained: dict[str, Any], judged: dict[str, Any]
) -> pathlib.Path:
    """The work directory itself for the cells that the run was made for, a folder of its own for any others."""
    if trained["digests"] == judged["digests"]:
        return workdir
    cells = zlib.crc32("".join(sorted(judged["digests"].values())).encode())
    return workdir / "other_datasets" / f"{judged['name']}-{judged['version']}-{cells:08x}".replace("/", "_")
