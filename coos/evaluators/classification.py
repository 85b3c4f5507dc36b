"""Judge a trained classifier: its best step on each of its sets, every covariate-shift metric as result rows."""

import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from coos import workdir as work
from coos.data import pipeline
from coos.data import source as sources
from coos.metrics import covariate_shift
from coos.train import classification
from coos.train.predict import predict
from coos.train.record import refuse_other_images
from coos.workdir import Predictions

_scores = jax.jit(covariate_shift.scores)


def score(predictions: Predictions, *, class_names: Sequence[str]) -> dict[str, float]:
    """{metric: value}: overall metrics, then `sensitivity/<class>` and `precision/<class>`; NaN if undefined."""
    if len(class_names) != predictions.probabilities.shape[-1]:
        raise ValueError(
            f"{predictions.probabilities.shape[-1]} probabilities for {len(class_names)} classes"
        )
    found = {k: np.asarray(v) for k, v in _scores(predictions.labels, predictions.probabilities).items()}
    overall = {name: float(value) for name, value in found.items() if value.ndim == 0}
    return overall | {
        f"{name}/{class_name}": float(value)
        for name in ("sensitivity", "precision")
        for class_name, value in zip(class_names, found[name], strict=True)
    }


def evaluate(
    workdir: pathlib.Path, *, directory: str | None = None, sets: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Predict and score sets with the best step of a run; write predictions and rows, return the rows.

    `directory` is another built dataset with the same channels, classes and image shape (default: the run's
    own); `sets` are its splits (default: the config's). Predictions of another dataset go to
    `other_datasets/<name>/`, so that they never replace those of the run's own.
    """
    classifier, variables, record = classification.load_best(workdir)
    config, trained = classifier.config, record["dataset"]
    directory = directory or trained["directory"]
    judged = sources.describe(directory)
    refuse_other_images(trained, judged, where=str(workdir))
    compiled = classification.make_predict(classifier, num_crops=config.evaluation.crops)
    replicated, place = pipeline.replicate(variables), _predictions_folder(workdir, trained, judged)
    step, rows = record["best"]["step"], []
    labels = {**classification.row_labels(config, judged), "fold": None, "step": step}
    if place != workdir:
        labels["dataset"] = place.name
    wanted = list(sets or config.evaluation.sets)
    missing = [name for name in wanted if name not in judged["splits"]]
    if missing:
        raise ValueError(f"{directory}: no split {missing[0]!r}; it has {list(judged['splits'])}")
    for name in wanted:
        source = sources.load(directory, name, cache_dir=config.data.cache_dir or None)
        found = predict(compiled, replicated, source, batch_size=config.evaluation.batch_size, progress=name)
        if not np.isfinite(found.probabilities).all():
            raise ValueError(f"{workdir}, set {name}: probabilities are not finite; did training diverge?")
        work.save_predictions(place, name, found, step=step)
        values = score(found, class_names=source.class_names)
        rows += [
            {**labels, "split": name, "metric": k, "value": v, "n": len(source)} for k, v in values.items()
        ]
    best = {"split": "validation", "metric": "best_step", "value": step, "n": None}
    work.replace_rows(workdir / "results.jsonl", [*rows, {**labels, **best}])
    return rows


def _predictions_folder(
    workdir: pathlib.Path, trained: dict[str, Any], judged: dict[str, Any]
) -> pathlib.Path:
    """The work directory itself for the cells that the run was made for, a folder of its own for any others."""
    if trained["digests"] == judged["digests"]:
        return workdir
    cells = zlib.crc32("".join(sorted(judged["digests"].values())).encode())
    return workdir / "other_datasets" / f"{judged['name']}-{judged['version']}-{cells:08x}".replace("/", "_")
