"""What is checked of features and labels before anything is fitted to them; errors say which feature, row or class."""

from collections.abc import Sequence

import numpy as np


def finite(features: np.ndarray, *, names: Sequence[str] | None = None, what: str = "features") -> None:
    """ValueError if features (N, D) are not a matrix of finite numbers, with the first bad feature and its rows."""
    if features.ndim != 2 or not features.shape[1]:
        raise ValueError(f"{what}: want (rows, features) with at least one feature, have {features.shape}")
    if names is not None and len(names) != features.shape[1]:
        raise ValueError(f"{what}: {len(names)} names for {features.shape[1]} features")
    bad = np.zeros(features.shape[1], np.int64)
    for start in range(0, len(features), 4096):  # no mask as large as the features
        bad += (~np.isfinite(features[start : start + 4096])).sum(0)
    if bad.any():
        first = int(bad.argmax() if bad.max() == len(features) else np.flatnonzero(bad)[0])
        name = f"{first}" if names is None else f"{first} ({names[first]})"
        row = int(np.flatnonzero(~np.isfinite(features[:, first]))[0])
        raise ValueError(
            f"{what}: feature {name} is NaN or infinite in {bad[first]} of {len(features)} rows, first in row {row}; "
            f"{np.count_nonzero(bad)} of {len(bad)} features are affected; drop or impute them first"
        )


def same_width(train: np.ndarray, other: np.ndarray, *, what: str) -> None:
    """ValueError if `other` (M, D) has another number of features than `train` (N, D)."""
    if other.ndim != 2 or other.shape[1] != train.shape[1]:
        raise ValueError(f"{what}: shape {other.shape}, but training rows have {train.shape[1]} features")


def classes(labels: np.ndarray, *, num_classes: int, rows: int) -> np.ndarray:
    """Classes (P,) that occur among labels (N,), sorted; ValueError for labels that cannot be trained on."""
    labels = np.asarray(labels)
    if labels.shape != (rows,):
        raise ValueError(f"labels: shape {labels.shape} for {rows} training rows")
    if not rows:
        raise ValueError("labels: no training rows")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels: want integers, have {labels.dtype}")
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        row = outside[0]
        raise ValueError(
            f"labels: {len(outside)} outside 0 to {num_classes - 1}; the first is {labels[row]}, row {row}"
        )
    present = np.unique(labels)
    if len(present) < 2:
        raise ValueError(f"labels: all {rows} training rows are of class {present[0]}; nothing to tell apart")
    return present


def spread(probabilities: np.ndarray, present: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Probabilities (M, P) of the classes `present` as (M, num_classes) float32; 0 for the others."""
    found = np.zeros((len(probabilities), num_classes), np.float32)
    found[:, present] = probabilities
    return found
