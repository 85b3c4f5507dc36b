"""The four-parameter logistic curve, and what a fit to one curve is made of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

LN10 = float(np.log(10.0))
BOTTOM, TOP, LOG10_EC50, LOG10_HILL = range(4)


def curve(
    log10_concentration: ArrayLike,
    *,
    bottom: ArrayLike,
    top: ArrayLike,
    log10_ec50: ArrayLike,
    hill: ArrayLike,
) -> Array:
    """bottom + (top - bottom) / (1 + 10^(hill (log10_ec50 - log10_concentration))), of what the shapes broadcast to.

    A positive `hill` rises with the concentration, a negative one falls. A concentration of 0 (-inf) gives the bottom,
    or the top if `hill` is negative.
    """
    distance = jnp.asarray(log10_concentration) - log10_ec50
    low, high = jnp.asarray(bottom), jnp.asarray(top)
    return low + (high - low) * jax.nn.sigmoid(LN10 * hill * distance)


class Problem(NamedTuple):
    """One curve in standard units: responses in 0..1, the middle of the tested concentrations at 0.

    x, y, weight: (N,) log10 concentration, response, and 1 where the point counts, else 0.
    low, high: (4,) bounds of (bottom, top, log10_ec50, log10 |hill|); equal ones fix a parameter.
    top_target, top_weight: scalars; top_weight * (top - top_target)^2 is added to the sum of squares.
    """

    x: Array
    y: Array
    weight: Array
    low: Array
    high: Array
    top_target: Array
    top_weight: Array


class Normal(NamedTuple):
    """Sum of squares at one point of the parameters, half its gradient (4,), and the Gauss-Newton matrix (4, 4)."""

    squares: Array
    gradient: Array
    matrix: Array


def normal_equations(problem: Problem, parameters: Array, direction: ArrayLike) -> Normal:
    """Of a curve that rises (`direction` 1) or falls (-1) where the top is above the bottom."""
    bottom, top, log10_ec50, log10_hill = parameters
    slope = LN10 * direction * 10.0**log10_hill
    exponent = slope * (problem.x - log10_ec50)
    share = jax.nn.sigmoid(exponent)
    change = (top - bottom) * share * (1 - share)
    residual = bottom + (top - bottom) * share - problem.y
    columns = (1 - share, share, -change * slope, change * exponent * LN10)
    weighted = [column * problem.weight for column in columns]
    pulled = jnp.zeros(4, problem.y.dtype).at[TOP].set(problem.top_weight)
    off_target = top - problem.top_target
    products = {(i, j): (weighted[i] * columns[j]).sum() for i in range(4) for j in range(i, 4)}
    matrix = jnp.stack([jnp.stack([products[min(i, j), max(i, j)] for j in range(4)]) for i in range(4)])
    return Normal(
        (residual**2 * problem.weight).sum() + problem.top_weight * off_target**2,
        jnp.stack([(column * residual).sum() for column in weighted]) + pulled * off_target,
        matrix + jnp.diag(pulled),
    )
