"""How well networks tell phenotypes apart over many divisions, and what they make of every concentration.

Accuracies are those of Godinez et al. 2017, section 2.4: the trace of a division's confusion matrix over its sum, and
over all divisions mean, standard deviation, median and median absolute deviation; the matrices are added up. Divisions
share fields, so that the spread says how much a single division varies, not how sure the mean is.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from coos import workdir as work
from coos.evaluators.held_out import together
from coos.evaluators.spread import Spread, spread
from coos.splits import Fold
from coos.train import folds
from coos.train.phenotypes import EVERYTHING, Study
from coos.workdir import Predictions


@dataclasses.dataclass(frozen=True)
class Trained:
    """One network on all folds: its config, what it was trained on, where it lies, and the folds not finished."""

    config: ml_collections.ConfigDict
    study: Study
    workdir: pathlib.Path
    parameters: int
    missing: list[Fold]

    @property
    def folds(self) -> dict[str, Predictions]:
        """Predictions of every fold of the protocol, by name."""
        return {
            fold.name: work.load_predictions(folds.prediction_path(self.workdir, fold))
            for fold in self.study.folds
            if fold.name != EVERYTHING
        }

    @property
    def everything(self) -> Predictions | None:
        """Predictions of all fields by the network that was trained on all labelled ones, if there is one."""
        path = self.workdir / EVERYTHING / f"{EVERYTHING}.npz"
        return work.load_predictions(path) if path.exists() else None

    @property
    def training_loss(self) -> dict[str, float]:
        """Mean loss of the last epoch of training of every fold of the protocol."""
        held_out = (fold for fold in self.study.folds if fold.name != EVERYTHING)
        return {f.name: work.read_json(folds.loss_path(self.workdir, f))["training_loss"] for f in held_out}


def confusion(predictions: Predictions, num_classes: int) -> np.ndarray:
    """(K, K) counts of true class (row) and called class (column); the first of equal probabilities is called."""
    found = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(found, (predictions.labels, predictions.probabilities.argmax(-1)), 1)
    return found


def accuracy(predictions: Predictions) -> float:
    """Share of examples that are called what they are; NaN of none."""
    if not len(predictions.labels):
        return np.nan
    return float((predictions.probabilities.argmax(-1) == predictions.labels).mean())


def balanced_accuracy(predictions: Predictions) -> float:
    """Mean over the classes that occur of the share called what they are; NaN of none."""
    right = predictions.probabilities.argmax(-1) == predictions.labels
    shares = [right[predictions.labels == k].mean() for k in np.unique(predictions.labels)]
    return float(np.mean(shares)) if shares else np.nan


METRICS = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy}


class Scores(NamedTuple):
    """Of one network: {fold: value} and spread of every metric, and the confusion matrix of all folds together."""

    values: Mapping[str, Mapping[str, float]]
    spreads: Mapping[str, Spread]
    confusion: np.ndarray


def scores(found: Mapping[str, Predictions], num_classes: int) -> Scores:
    """The scores of a network from its folds' predictions."""
    values = {name: {fold: metric(p) for fold, p in found.items()} for name, metric in METRICS.items()}
    counts = sum(
        (confusion(p, num_classes) for p in found.values()), np.zeros((num_classes, num_classes), int)
    )
    return Scores(values, {name: spread(list(v.values())) for name, v in values.items()}, counts)


def result_rows(found: Scores, labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of results.jsonl: every metric of every fold, and their mean, deviation, median and MAD."""
    rows = [
        {**labels, "fold": fold, "metric": metric, "value": value}
        for metric, by_fold in found.values.items()
        for fold, value in by_fold.items()
    ]
    for metric, over in found.spreads.items():
        for name in Spread._fields:
            rows.append({**labels, "fold": None, "metric": f"{metric}/{name}", "value": getattr(over, name)})
    return rows


def often_wrong(found: Mapping[str, Predictions]) -> list[tuple[str, int, int]]:
    """Fields that were called wrong: (id, times wrong, times tested), the most often wrong first."""
    pooled = together(list(found.values()))
    wrong = pooled.probabilities.argmax(-1) != pooled.labels
    names, place = np.unique(pooled.ids, return_inverse=True)
    tested, missed = np.bincount(place), np.bincount(place, wrong).astype(int)
    order = sorted(np.flatnonzero(missed), key=lambda k: (-missed[k] / tested[k], names[k]))
    return [(str(names[k]), int(missed[k]), int(tested[k])) for k in order]
