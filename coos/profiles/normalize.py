"""Normalization: put each feature on the scale of reference rows, such as the control wells of its plate.

    step = MadRobustize(reference="Metadata_broad_sample = 'DMSO'", by="Metadata_Plate")
    normalized = step.fit(table).transform(table)
    z = Standardize().fit(x).transform(x)                                   # bare arrays

For each feature, from the reference rows of a group:

    Standardize     (x - mean) / population standard deviation
    Robustize       (x - median) / (75 % quantile - 25 % quantile)
    MadRobustize    (x - median) / (1.4826 median|x - median| + epsilon)

`Spherize` (coos.profiles.spherize) works on all features at once. These are the operations of pycytominer, of
Bornholdt (2021), section 3.3. The thesis prints the mean in equations 3.4 and 3.6, and 3.6 without the factor
1.4826; the code that made its figures uses the median and the factor, and so does this.

Missing values (NaN) are left out of the statistics and stay missing.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from absl import logging

from coos.profiles.spherize import BLOCK, Spherize
from coos.profiles.step import Data, GroupedStep
from coos.profiles.table import column_names, describe, listing

__all__ = ["MadRobustize", "Robustize", "Scaling", "Spherize", "Standardize"]


class Scaling(NamedTuple):
    """What is subtracted from each feature, and what the difference is divided by: (D,) float64 each.

    Features without spread over the `rows` reference rows are marked in `flat`, (D,) bool.
    """

    center: np.ndarray
    scale: np.ndarray
    flat: np.ndarray
    rows: int


@dataclasses.dataclass(kw_only=True)
class _Scale(GroupedStep):
    """(x - center) / scale, feature by feature; subclasses say what center and scale are.

    Results are float32 for tables and float32 arrays, otherwise float64; center, scale and the difference are
    float64, so that a spread that is small beside the mean is not lost. A warning names the groups in whose
    reference rows features have no spread.

    Raises:
        ValueError: infinite values, or features that are missing in all reference rows of a group.
    """

    def fit(self, data: Data) -> Self:
        """Learn center and scale of the reference rows of each group."""
        super().fit(data)
        flat = [self._described(key, state) for key, state in self.states_.items() if state.flat.any()]
        if flat:
            logging.warning(
                f"{type(self).__name__}: in {len(flat)} of {len(self.states_)} groups {self._flatness()}: "
                f"{'; '.join(flat[:5])}{f'; and {len(flat) - 5} more' if len(flat) > 5 else ''}"
            )
        return self

    def _described(self, key: tuple, state: Scaling) -> str:
        group = describe(dict(zip(column_names(self.by or ()), key, strict=True))) if key else "all rows"
        names = [str(self.names_[i]) for i in np.flatnonzero(state.flat).tolist()]
        return f"{group}: {len(names)} features over {state.rows} reference rows: {listing(names)}"

    def _flatness(self) -> str:
        """What the warning says about features without spread."""
        return "features have no spread, and their differences are divided by 1"

    def learn(self, x: np.ndarray, names: Sequence[str]) -> Scaling:
        """Center and scale of each feature of the reference rows `x` (n, D)."""
        _refuse_infinite(x, names)
        missing = np.isnan(x)
        absent = np.flatnonzero(missing.all(0)).tolist()
        if absent:
            raise ValueError(
                f"{len(absent)} features are missing in all {len(x)} reference rows: "
                f"{listing([names[i] for i in absent])}; drop them first, with select.DropMissing(reference=...)"
            )
        return self._statistics(x, len(x) - missing.sum(0))

    def apply(self, state: Scaling, x: np.ndarray) -> np.ndarray:
        """Rows `x` (n, D) scaled."""
        if x.shape[1] != len(state.center):
            raise ValueError(f"fitted on {len(state.center)} features, these are {x.shape[1]}")
        _refuse_infinite(x, getattr(self, "names_", range(x.shape[1])))
        scaled = np.empty_like(x)
        for start in range(0, len(x), BLOCK):
            difference = x[start : start + BLOCK] - state.center
            difference /= state.scale
            scaled[start : start + BLOCK] = difference
        return scaled

    def _statistics(self, x: np.ndarray, counts: np.ndarray) -> Scaling:
        """From `x` (n, D), of which `counts` (D,) > 0 values are there."""
        raise NotImplementedError


@dataclasses.dataclass(kw_only=True)
class Standardize(_Scale):
    """(x - mean) / population standard deviation; a feature without spread is divided by 1.

    No spread is a deviation within the rounding of the mean, n eps |mean| (in float64), as in scikit-learn.
    """

    def _statistics(self, x: np.ndarray, counts: np.ndarray) -> Scaling:
        values = np.where(np.isnan(x), 0.0, x)
        mean = values.sum(0, dtype=np.float64) / counts
        deviation = np.where(np.isnan(x), 0.0, x - mean)
        std = np.sqrt(np.einsum("nd,nd->d", deviation, deviation) / counts)
        rounding = counts * np.finfo(np.float64).eps * np.abs(mean)
        flat = std <= rounding
        return Scaling(mean, np.where(flat, 1.0, std), flat, len(x))


@dataclasses.dataclass(kw_only=True)
class Robustize(_Scale):
    """(x - median) / (75 % quantile - 25 % quantile), interpolated linearly; a zero range is replaced by 1."""

    def _statistics(self, x: np.ndarray, counts: np.ndarray) -> Scaling:
        ordered = np.sort(x, axis=0)
        spread = _quantile(ordered, counts, 0.75) - _quantile(ordered, counts, 0.25)
        flat = spread == 0
        return Scaling(_quantile(ordered, counts, 0.5), np.where(flat, 1.0, spread), flat, len(x))


@dataclasses.dataclass(kw_only=True)
class MadRobustize(_Scale):
    """(x - median) / (1.4826 median|x - median| + epsilon).

    Args:
        epsilon: positive. 1e-18 is pycytominer's default, and the published figures' value. It keeps zeros
            finite but not small: a feature that more than half of the reference rows share has no MAD, and
            whatever differs from the median is multiplied by 1e18. A warning says which features do;
            drop them before with select.VarianceThreshold, or after with select.DropOutliers.
    """

    epsilon: float = 1e-18

    def __post_init__(self):
        if not self.epsilon > 0:
            raise ValueError(
                f"epsilon={self.epsilon}: must be positive, or features without MAD are undefined"
            )

    def _flatness(self) -> str:
        return (
            f"features have no median absolute deviation, and their differences are divided by "
            f"epsilon={self.epsilon:g} (drop such features before or after)"
        )

    def _statistics(self, x: np.ndarray, counts: np.ndarray) -> Scaling:
        median = _quantile(np.sort(x, axis=0), counts, 0.5)
        mad = _quantile(np.sort(np.abs(x - median), axis=0), counts, 0.5)
        return Scaling(median, 1.4826 * mad + self.epsilon, mad == 0, len(x))


def _quantile(ordered: np.ndarray, counts: np.ndarray, q: float) -> np.ndarray:
    """The q-quantile (D,) float64 of the first `counts` (D,) values of sorted columns (n, D), interpolated."""
    position = q * (counts - 1)
    below = np.floor(position).astype(int)
    share = position - below
    columns = np.arange(len(counts))
    low = ordered[below, columns].astype(np.float64)
    return low + share * (ordered[np.minimum(below + 1, counts - 1), columns] - low)


def _refuse_infinite(x: np.ndarray, names: Sequence[object]) -> None:
    infinite = np.isinf(x)
    if infinite.any():
        where = np.flatnonzero(infinite.any(0)).tolist()
        raise ValueError(
            f"{int(infinite.sum())} values are infinite, in {len(where)} features: "
            f"{listing([str(names[i]) for i in where])}; mark them as missing (NaN), or drop the features"
        )
