"""Mean, standard deviation, median and median absolute deviation, as in Godinez et al. 2017, Table 1."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Of `counted` values; sd divides by counted - 1 (NaN of a single one), mad is the median of |x - median|."""

    mean: float
    sd: float
    median: float
    mad: float
    counted: int


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """The statistics of the values that are defined; NaN of none."""
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    if not len(x):
        return Spread(np.nan, np.nan, np.nan, np.nan, 0)
    sd, middle = float(x.std(ddof=1)) if len(x) > 1 else np.nan, float(np.median(x))
    return Spread(float(x.mean()), sd, middle, float(np.median(np.abs(x - middle))), len(x))
