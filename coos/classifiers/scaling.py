"""Features centred and scaled by the training set (Lu et al. 2019, section 3.1).

Statistics are taken in float64: a feature with a large mean and a small spread loses its spread in float32.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from coos.classifiers import checks

BLOCK = 4096  # rows that are held in float64 at a time


class Scaling(NamedTuple):
    """Mean and standard deviation of every feature, (D,) float64; where it is constant, `std` is 1."""

    mean: np.ndarray
    std: np.ndarray


def fit(features: np.ndarray, *, names: Sequence[str] | None = None) -> Scaling:
    """Mean and population standard deviation (divided by N, as scikit-learn does) of features (N, D).

    Raises:
        ValueError: no rows, or a feature that is NaN or infinite somewhere, with its index, name and number of rows.
    """
    features = np.asarray(features)
    checks.finite(features, names=names, what="training features")
    if not len(features):
        raise ValueError("training features: no rows")
    blocks = range(0, len(features), BLOCK)
    first = features[0].astype(np.float64)  # the sum of deviations from it is exact for a constant feature
    total = sum((_deviations(features, start, first).sum(0) for start in blocks), np.zeros_like(first))
    mean = first + total / len(features)
    squares = sum(
        ((_deviations(features, start, mean) ** 2).sum(0) for start in blocks), np.zeros_like(first)
    )
    std = np.sqrt(squares / len(features))
    return Scaling(mean, np.where(std > 0, std, 1.0))


def apply(scaling: Scaling, features: np.ndarray, *, what: str = "features") -> np.ndarray:
    """(features - mean) / std, (N, D) float32, computed in float64. ValueError as for `fit`, saying `what` is bad."""
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] != len(scaling.mean):
        raise ValueError(
            f"{what}: shape {features.shape}, but the scaling is of {len(scaling.mean)} features"
        )
    checks.finite(features, what=what)
    scaled = np.empty(features.shape, np.float32)
    for start in range(0, len(features), BLOCK):
        scaled[start : start + BLOCK] = _deviations(features, start, scaling.mean) / scaling.std
    return scaled


def _deviations(features: np.ndarray, start: int, center: np.ndarray) -> np.ndarray:
    return features[start : start + BLOCK].astype(np.float64) - center
