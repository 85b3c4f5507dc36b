"""Every covariate-shift metric of a classifier on one set."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from coos.data.source import Source
from coos.metrics import covariate_shift
from coos.workdir import Predictions

_scores = jax.jit(covariate_shift.scores)


def score_set(predictions: Predictions, *, config: Any, dataset: dict[str, Any]) -> dict[str, float]:
    """`score` with the class names of the data set."""
    del config
    return score(predictions, class_names=dataset["class_names"])


def baseline(training: Callable[[], Source], judged: Source) -> None:
    """None: nothing is known of a cell but its image."""


def shared(training: Callable[[], Source], judged: Source) -> str:
    """Nothing: sets of cells are told apart by the digests of their data sets."""
    return ""


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
