"""A network that names the compound of single cells, judged per cell and per well (the mean of its cells).

Wells are what is repeated, so that intervals are over wells: cells of one well are not independent.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from coos.data.source import Source
from coos.evaluators import classification
from coos.metrics import multitask
from coos.workdir import Predictions


def score_set(predictions: Predictions, *, config: Any, dataset: dict[str, Any]) -> dict[str, float]:
    """Every metric of cells, and as `well/<metric>` of wells; "wells" is their number."""
    del config
    names = dataset["class_names"]
    per_well = wells(predictions)
    found = classification.score(per_well, class_names=names)
    return {
        **classification.score(predictions, class_names=names),
        **{f"well/{name}": value for name, value in found.items()},
        "wells": float(len(per_well.ids)),
    }


def wells(predictions: Predictions) -> Predictions:
    """One row per well: the mean of its cells' probabilities. Wells are named `<plate>-<well>`."""
    well = predictions.columns["well"]
    names, first = np.unique(well, return_index=True)
    _, probabilities = multitask.average(predictions.probabilities, well)
    return Predictions(names, predictions.labels[first], probabilities)


def baseline(training: Callable[[], Source], judged: Source) -> None:
    """None here: experiments/hold_out.py fits baselines beside networks."""


def shared(training: Callable[[], Source], judged: Source) -> str:
    """Nothing: parts of plates are told apart by the wells that the config names."""
    return ""
