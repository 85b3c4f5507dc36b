"""Interval of the EC50 by profile likelihood.

All locations e belong to it at which the best curve with its EC50 at e has

    (SSE(e) - SSE) / s^2 <= t^2,    s^2 = SSE / (n - p),

where t is the quantile of Student's distribution with n - p degrees of freedom, SSE(e) the sum of squares with the
other parameters refitted. Unlike an interval from the curvature at the optimum it may be lopsided, and it is open
(infinite) where the data do not bound the EC50.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from coos.metrics.dose_response import least_squares
from coos.metrics.dose_response.curve import LOG10_EC50, Problem
from coos.metrics.dose_response.least_squares import Solution

NUM_TRIALS, NUM_STEPS = 8, 6


def profile_interval(problem: Problem, best: Solution, allowed: Array) -> tuple[Array, Array]:
    """Lower and upper end of the locations with a sum of squares of at most `allowed`; infinite beyond the bounds."""
    limits = jnp.stack([problem.low[LOG10_EC50], problem.high[LOG10_EC50]])
    ends, bounded = jax.vmap(lambda limit: _end(problem, best, allowed, limit))(limits)
    return jnp.where(bounded[0], ends[0], -jnp.inf), jnp.where(bounded[1], ends[1], jnp.inf)


def _refit(problem: Problem, warm: Solution, location: Array) -> Solution:
    """The best curve with its EC50 at `location`, from `warm` and from the best slope of the grid."""
    problem = problem._replace(
        low=problem.low.at[LOG10_EC50].set(location), high=problem.high.at[LOG10_EC50].set(location)
    )
    grid = least_squares.best(least_squares.starts(problem, location[None], warm.direction))
    both = jax.tree.map(lambda *pair: jnp.stack(pair), warm, grid)
    refined = jax.vmap(lambda start: least_squares.refine(problem, start, num_steps=NUM_STEPS))(both)
    return least_squares.best(refined)


class _Side(NamedTuple):
    """One end of a bracket: where, the excess there, and the factor by which the search takes it for less."""

    location: Array
    excess: Array
    factor: Array

    @property
    def taken(self) -> Array:
        return self.excess * self.factor


class _Search(NamedTuple):
    """A location inside the interval, one outside, the refit at the inner one, the side that moved last, and whether
    the limit is outside the interval."""

    inner: _Side
    outer: _Side
    warm: Solution
    moved_inner: Array
    bounded: Array


def _between(inner: _Side, outer: _Side, inner_excess: Array, outer_excess: Array) -> Array:
    """Where a straight line through both excesses is 0."""
    share = jnp.clip(-inner_excess / jnp.maximum(outer_excess - inner_excess, 1e-12), 0.01, 0.99)
    return inner.location + share * (outer.location - inner.location)


def _end(problem: Problem, best: Solution, allowed: Array, limit: Array) -> tuple[Array, Array]:
    """The end of the interval between the optimum and `limit`, and whether there is one.

    False position; a side that stays twice is taken for half its excess (Illinois), so that both close in.
    """
    margin = jnp.maximum(allowed - best.squares, jnp.finfo(limit.dtype).tiny)
    one = jnp.ones_like(limit)

    def excess(solution: Solution) -> Array:
        """sqrt((SSE(e) - SSE) / margin) - 1: nearly a straight line in e, 0 at the end of the interval."""
        return jnp.sqrt(jnp.maximum(solution.squares - best.squares, 0) / margin) - 1

    def trial(number: Array, search: _Search) -> _Search:
        inner, outer = search.inner, search.outer
        location = jnp.where(number == 0, limit, _between(inner, outer, inner.taken, outer.taken))
        refitted = _refit(problem, search.warm, location)
        side = _Side(location, excess(refitted), one)
        less_outer = outer._replace(factor=outer.factor * jnp.where(search.moved_inner, 0.5, 1))
        less_inner = inner._replace(
            factor=inner.factor * jnp.where(search.moved_inner | (number == 0), 1, 0.5)
        )
        bounded = jnp.where(number == 0, side.excess > 0, search.bounded)
        moved_inner = _Search(side, less_outer, refitted, jnp.array(True), bounded)
        moved_outer = _Search(less_inner, side, search.warm, jnp.array(False), bounded)
        inside = (side.excess <= 0) & (number > 0)
        return jax.tree.map(lambda a, b: jnp.where(inside, a, b), moved_inner, moved_outer)

    # The first trial is the limit itself; where that belongs to the interval the others find nothing, and are not used.
    inner = _Side(best.parameters[LOG10_EC50], -one, one)
    start = _Search(inner, _Side(limit, one, one), best, jnp.array(False), jnp.array(False))
    found = jax.lax.fori_loop(0, NUM_TRIALS + 1, trial, start)
    return _between(found.inner, found.outer, found.inner.excess, found.outer.excess), found.bounded
