"""The error of painted cells on one set of pairs."""

from collections.abc import Callable
from typing import Any

from coos.data.source import Source
from coos.workdir import Predictions


def score_set(predictions: Predictions, *, config: Any, dataset: dict[str, Any]) -> dict[str, float]:
    """Mean squared errors over the pixels of all targets' proteins, scaled as the config says.

    `mean_squared_error` is the network's; `pasted_source_squared_error` that of the source's own protein taken for the
    target's, pair by pair: what copying gives without a network. Neither says that a network looks at its source: the
    mean of all targets, which does not, may err less than both (`coos.report.inpainting` shows it beside them).
    """
    del config, dataset
    painted, pasted = predictions.probabilities.mean(0, dtype=float)
    return {"mean_squared_error": float(painted), "pasted_source_squared_error": float(pasted)}


def baseline(training: Callable[[], Source], judged: Source) -> None:
    """None: no probabilities are predicted."""


def shared(training: Callable[[], Source], judged: Source) -> str:
    """Nothing: sets of cells are told apart by the digests of their data sets."""
    return ""
