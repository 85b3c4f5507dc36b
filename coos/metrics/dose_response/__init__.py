"""Concentration-response curves: at which concentration is half the effect reached, and is there one at all?

    found = dose_response.fit(log10_concentration, response, mask)     # (C, N) each; a NamedTuple of (C,)
    found.log10_ec50, found.low, found.high                            # NaN where there is no potency to report
    dose_response.VERDICTS[int(found.verdict[0])]                      # "active"
    found = dose_response.fit(x, y, mask, summarize="median")          # medians of the replicates
    middle = dose_response.median_and_mad(responses, mask, axis)       # .median, .mad, .num_values
    line = dose_response.curve(x, bottom=..., top=..., log10_ec50=found.midpoint[0], hill=...)

The curve is the four-parameter logistic

    y = bottom + (top - bottom) / (1 + 10^(hill (log10_ec50 - x))),    x = log10 concentration.

Godinez et al. 2017 (section 3.1, Figures 3b and 5b) take the probability of a phenotype as the response, plot medians
and median absolute deviations of replicates and read EC50 from a sigmoid through the medians. All is pure JAX, in
blocks of curves, and can be called inside `jax.jit` and `jax.vmap`.
"""

from coos.metrics.dose_response.curve import curve
from coos.metrics.dose_response.description import VERDICTS, Fit
from coos.metrics.dose_response.fitting import SUMMARIES, VARIANTS, fit
from coos.metrics.dose_response.replicates import Spread, median_and_mad

__all__ = ["SUMMARIES", "VARIANTS", "VERDICTS", "Fit", "Spread", "curve", "fit", "median_and_mad"]
