"""One top for a group of curves, and how sure it is."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from coos.metrics.dose_response import least_squares
from coos.metrics.dose_response.blocks import over_curves
from coos.metrics.dose_response.curve import TOP, Problem

GOLDEN = (5**0.5 - 1) / 2
NUM_COARSE, NUM_FINE = 9, 16
NUDGE = 0.02  # of the range of responses, for the second difference


def tops(problems: Problem, group: Array, *, num_groups: int) -> tuple[Problem, Problem]:
    """Problems with the top of each group that has the least sum of squares over its curves, and open ones.

    In the open ones the top may move, at the price that the other curves of the group ask for: their sum of squares as
    a function of the top, a parabola through its values at and beside the optimum, is added to the curve's own.
    """

    def squares(top: Array) -> Array:
        """(C,) sums of squares with the group's `top`."""
        fixed = with_top(problems, top[group])
        return over_curves(lambda one: least_squares.solve(one, directions=(1.0, -1.0)).squares, fixed)

    def total(top: Array) -> Array:
        return jax.ops.segment_sum(squares(top), group, num_groups)

    low = jax.ops.segment_min(problems.low[:, TOP], group, num_groups)
    high = jax.ops.segment_max(problems.high[:, TOP], group, num_groups)
    best = _minimum(total, low, high)
    before, at, after = jax.lax.map(squares, jnp.stack([best - NUDGE, best, best + NUDGE]))
    slope, curvature = (after - before) / (2 * NUDGE), jnp.maximum(after - 2 * at + before, 0) / NUDGE**2
    others_slope = jax.ops.segment_sum(slope, group, num_groups)[group] - slope
    others = jax.ops.segment_sum(curvature, group, num_groups)[group] - curvature
    sure = others > 1e-3
    moved = jnp.where(sure, -others_slope / jnp.where(sure, others, 1), 0)
    target = jnp.clip(best[group] + moved, low[group], high[group])
    opened = problems._replace(top_target=target, top_weight=jnp.where(sure, others / 2, 0))
    return with_top(problems, best[group]), opened


def with_top(problems: Problem, top: Array) -> Problem:
    """Problems whose top is fixed at `top` (C,), which the bottom may not exceed."""
    low = problems.low.at[:, TOP].set(top)
    high = problems.high.at[:, TOP].set(top)
    return problems._replace(
        low=low, high=high.at[:, 0].set(jnp.maximum(low[:, 0], jnp.minimum(high[:, 0], top)))
    )


def _minimum(total: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """(G,) where `total` (G,) -> (G,) is least between `low` and `high`: a coarse grid, then golden sections."""
    share = jnp.linspace(0, 1, NUM_COARSE)
    grid = low + share[:, None] * (high - low)
    nearest = jnp.argmin(jax.lax.map(total, grid), axis=0)
    spacing = (high - low) / (NUM_COARSE - 1)
    middle = low + nearest * spacing

    def section(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        left, right = bracket
        inner, outer = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
        first, second = jax.lax.map(total, jnp.stack([inner, outer]))
        lower = first <= second
        return jnp.where(lower, left, inner), jnp.where(lower, outer, right)

    ends = (jnp.maximum(middle - spacing, low), jnp.minimum(middle + spacing, high))
    left, right = jax.lax.fori_loop(0, NUM_FINE, section, ends)
    return (left + right) / 2
