"""From one curve's points to a least-squares problem in standard units, and from its solution to what is reported."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax import Array

from coos.metrics.dose_response import least_squares, replicates
from coos.metrics.dose_response.curve import LOG10_EC50, TOP, Problem, curve
from coos.metrics.dose_response.interval import profile_interval
from coos.metrics.dose_response.least_squares import Solution

VERDICTS = ("inactive", "active", "outside tested range", "undefined")
INACTIVE, ACTIVE, OUTSIDE, UNDEFINED = range(4)
FEWEST_POINTS, FEWEST_CONCENTRATIONS = 5, 4
FAR = 10.0  # ranges of responses
VEHICLE = -1000.0  # standard log10 concentration of 0: even a slope of 0.1 has no effect left there


class Fit(NamedTuple):
    """Curves of (C,), or scalars for one curve; float unless said otherwise, NaN where undefined.

    bottom, top: lower and upper asymptote. log10_ec50: NaN unless active. hill: slope, negative if the response falls.
    low, high: ends of the interval of log10_ec50, NaN if inactive; -inf or inf where the data do not bound it.
    r_squared: 1 - SSE / sum of squares about the mean (NaN for equal responses).
    residual_error: sqrt(SSE / (n - p)), in units of the response. num_points: int32 n, the points that were fitted.
    p_value: of the F test against a flat line. verdict: int32, an index of `VERDICTS`.
    midpoint: log10 concentration of half the change in the fitted curve, whatever the verdict: to draw the curve
    with, no potency.
    """

    bottom: Array
    top: Array
    log10_ec50: Array
    hill: Array
    low: Array
    high: Array
    r_squared: Array
    residual_error: Array
    num_points: Array
    p_value: Array
    verdict: Array
    midpoint: Array


class Options(NamedTuple):
    """What `fit` takes by name, all of it known when it is compiled."""

    variant: str
    summarize: str
    num_fixed: int
    num_groups: int
    range_margin: float
    hill_bounds: tuple[float, float]
    widen: float
    level: float
    significance: float
    effect: float


class Units(NamedTuple):
    """Of one curve: the middle of its tested range, half its width, and response = offset + scale * standard."""

    middle: Array
    half_width: Array
    offset: Array
    scale: Array


def is_defined(x: Array, keep: Array) -> Array:
    """Has the curve (N,) enough points and concentrations for a fit?"""
    return (keep.sum() >= FEWEST_POINTS) & (replicates.num_distinct(x, keep) >= FEWEST_CONCENTRATIONS)


def standard(
    x: Array, y: Array, keep: Array, lowest: Array, highest: Array, *, fixed: Array, options: Options
) -> tuple[Problem, Units]:
    """The problem of one curve (N,); `lowest` and `highest` response become 0 and 1."""
    tested = keep & jnp.isfinite(x)
    first, last = jnp.where(tested, x, jnp.inf).min(), jnp.where(tested, x, -jnp.inf).max()
    some = tested.any()
    middle = jnp.where(some, (first + last) / 2, 0)
    half_width = jnp.where(some, (last - first) / 2, 0)
    known = jnp.isfinite(lowest) & jnp.isfinite(highest)
    offset = jnp.where(known, lowest, 0)
    scale = jnp.where(known & (highest > lowest), highest - lowest, 1)
    (bottom_low, top_low), (bottom_high, top_high) = _asymptote_bounds(
        (fixed - offset) / scale, options.widen
    )
    reach = half_width + options.range_margin
    slope = jnp.log10(jnp.array(options.hill_bounds, y.dtype))
    problem = Problem(
        x=jnp.where(tested, x - middle, jnp.where(keep, VEHICLE, 0)),
        y=jnp.where(keep, (y - offset) / scale, 0),
        weight=keep.astype(y.dtype),
        low=jnp.stack([bottom_low, top_low, -reach, slope[0]]),
        high=jnp.stack([bottom_high, top_high, reach, slope[1]]),
        top_target=jnp.zeros((), y.dtype),
        top_weight=jnp.zeros((), y.dtype),
    )
    return problem, Units(middle, half_width, offset, scale)


def _asymptote_bounds(given: Array, widen: float) -> tuple[Array, Array]:
    """Lower and upper bounds (2,) of bottom and top in standard units; `given` is NaN where one is free.

    A given top bounds the bottom from above, and a given bottom the top from below.
    """
    bottom, top = given
    highest_bottom, lowest_top = jnp.fmin(1 + widen, top), jnp.fmax(-widen, bottom)
    low = jnp.stack([jnp.minimum(-widen, highest_bottom), lowest_top])
    high = jnp.stack([highest_bottom, jnp.maximum(1 + widen, lowest_top)])
    return jnp.where(jnp.isnan(given), low, given), jnp.where(jnp.isnan(given), high, given)


def released(problem: Problem) -> Problem:
    """The problem of an interval: bottom and top, unless given, may go far beyond the responses."""
    free = (problem.low < problem.high) & (jnp.arange(4) <= TOP)
    return problem._replace(
        low=problem.low - jnp.where(free, FAR, 0), high=problem.high + jnp.where(free, FAR, 0)
    )


def directions(variant: str) -> tuple[float, ...]:
    """Which ways a curve is tried: with free asymptotes a falling one is a rising one with both swapped."""
    return (1.0,) if variant == "free" else (1.0, -1.0)


def describe(given: Problem, open_: Problem, units: Units, defined: Array, *, options: Options) -> Fit:
    """The fit of `given`; its interval is that of `open_`, in which a shared top may move."""
    best = least_squares.solve(given, directions=directions(options.variant))
    count, num_parameters = given.weight.sum(), 4 - options.num_fixed
    freedom = jnp.maximum(count - num_parameters, 1)
    # The floor keeps the interval of points without any noise open for a hair.
    variance = jnp.maximum(best.squares, 10 * jnp.finfo(count.dtype).eps ** 2) / freedom
    quantile = _quantiles(len(given.x), num_parameters, options.level, count.dtype)[count.astype(jnp.int32)]
    start = best if options.variant != "shared_top" else least_squares.refine(open_, best, num_steps=5)
    low, high = profile_interval(open_, start, start.squares + variance * quantile**2)
    total = _squares_about_mean(given)
    p_value = _p_value(best.squares, total, num_parameters - 1, freedom)
    change = _change(best, units.half_width, given)
    responds = (
        (p_value <= options.significance) & (change >= options.effect * jnp.sqrt(variance)) & (total > 0)
    )
    located = _is_inside(best, given, units) & jnp.isfinite(low) & jnp.isfinite(high)
    verdict = jnp.where(responds, jnp.where(located, ACTIVE, OUTSIDE), INACTIVE)
    bottom, top, location, log10_hill = best.parameters
    fit = Fit(
        bottom=units.offset + units.scale * jnp.minimum(bottom, top),
        top=units.offset + units.scale * jnp.maximum(bottom, top),
        log10_ec50=jnp.where(verdict == ACTIVE, units.middle + location, jnp.nan),
        hill=best.direction * jnp.where(top < bottom, -1, 1) * 10**log10_hill,
        low=jnp.where(responds, units.middle + low, jnp.nan),
        high=jnp.where(responds, units.middle + high, jnp.nan),
        r_squared=1 - best.squares / jnp.where(total > 0, total, jnp.nan),
        residual_error=units.scale * jnp.sqrt(best.squares / freedom),
        num_points=count.astype(jnp.int32),
        p_value=p_value,
        verdict=jnp.where(defined, verdict, UNDEFINED).astype(jnp.int32),
        midpoint=units.middle + location,
    )
    return Fit(*(jnp.where(defined | (a.dtype == jnp.int32), a, jnp.nan).astype(a.dtype) for a in fit))


def _is_inside(best: Solution, problem: Problem, units: Units) -> Array:
    """Is the EC50 within the tested range, with neither asymptote at a bound that was not given?"""
    asymptotes, low, high = (array[:2] for array in (best.parameters, problem.low, problem.high))
    at_bound = (low < high) & ((asymptotes <= low) | (asymptotes >= high))
    return (jnp.abs(best.parameters[LOG10_EC50]) <= units.half_width) & ~at_bound.any()


def _quantiles(num_points: int, num_parameters: int, level: float, kind: np.dtype) -> Array:
    """Student's quantile for each number of points from 0 to `num_points`."""
    freedom = np.maximum(np.arange(num_points + 1) - num_parameters, 1)
    return jnp.asarray(scipy.stats.t.ppf((1 + level) / 2, freedom), kind)


def _squares_about_mean(problem: Problem) -> Array:
    mean = (problem.weight * problem.y).sum() / jnp.maximum(problem.weight.sum(), 1)
    return (problem.weight * (problem.y - mean) ** 2).sum()


def _p_value(squares: Array, total: Array, numerator: int, freedom: Array) -> Array:
    """Of F = ((total - squares) / numerator) / (squares / freedom): the upper tail is a beta integral of the ratio."""
    ratio = jnp.clip(squares / jnp.where(total > 0, total, 1), 0, 1)
    p_value = jax.scipy.special.betainc(freedom / 2, jnp.full_like(freedom, numerator / 2), ratio)
    return jnp.where(total > 0, p_value, 1)


def _change(best: Solution, half_width: Array, problem: Problem) -> Array:
    """How much the fitted curve changes from the lowest to the highest concentration, controls included."""
    bottom, top, location, log10_hill = best.parameters
    lowest = jnp.where((problem.x == VEHICLE).any(), VEHICLE, -half_width)
    at = jnp.stack([lowest, half_width])
    first, last = curve(at, bottom=bottom, top=top, log10_ec50=location, hill=best.direction * 10**log10_hill)
    return jnp.abs(last - first)
