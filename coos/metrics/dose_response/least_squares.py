"""Bounded least squares of one curve: a grid of starts, then projected Levenberg-Marquardt, always as many steps.

For a given EC50 and Hill slope the best bottom and top follow from two linear equations (variable projection), so the
grid has two dimensions only. Its best point for every slope is refined with all parameters free.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from coos.metrics.dose_response.curve import LN10, LOG10_EC50, Normal, Problem, normal_equations

NUM_LOCATIONS = 16  # of the EC50, evenly over its bounds
HILLS = (0.4, 0.8, 1.6, 4.0)
NUM_STEPS = 20
FIRST_DAMPING, CALMER, STRICTER = 1e-2, 0.2, 5.0


class Solution(NamedTuple):
    """Parameters (4,), direction (1 rises, -1 falls) and sum of squares."""

    parameters: Array
    direction: Array
    squares: Array


def solve(problem: Problem, *, directions: tuple[float, ...]) -> Solution:
    """The best of all starts after refinement."""
    locations = jnp.linspace(problem.low[LOG10_EC50], problem.high[LOG10_EC50], NUM_LOCATIONS)
    found = jax.vmap(lambda way: starts(problem, locations, way))(jnp.array(directions, problem.x.dtype))
    return best(jax.vmap(lambda start: refine(problem, start, num_steps=NUM_STEPS))(_flat(found)))


def _flat(solutions: Solution) -> Solution:
    """(directions, hills, ...) in one axis."""
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), solutions)


def best(solutions: Solution) -> Solution:
    """The one with the smallest sum of squares along the first axis."""
    chosen = jnp.argmin(solutions.squares)
    return jax.tree.map(lambda array: array[chosen], solutions)


def starts(problem: Problem, locations: Array, direction: Array) -> Solution:
    """For each of `HILLS` (in front) the best of `locations`, with the best bottom and top."""

    def one(hill: Array, location: Array) -> Solution:
        share = jax.nn.sigmoid(LN10 * direction * hill * (problem.x - location))
        bottom, top, squares = asymptotes(problem, share)
        return Solution(jnp.stack([bottom, top, location, jnp.log10(hill)]), direction, squares)

    def best_location(hill: Array) -> Solution:
        return best(jax.vmap(lambda location: one(hill, location))(locations))

    return jax.vmap(best_location)(jnp.array(HILLS, problem.x.dtype))


def asymptotes(problem: Problem, share: Array) -> tuple[Array, Array, Array]:
    """Bottom, top and sum of squares of y = bottom (1 - share) + top share, within the bounds.

    Where the free solution is out of bounds, one of the two is clipped and the other one solved for, either way round.
    """
    rest, weight = 1 - share, problem.weight
    aa, bb = (weight * rest * rest).sum(), (weight * share * share).sum() + problem.top_weight
    ab = (weight * rest * share).sum()
    a = (weight * rest * problem.y).sum()
    b = (weight * share * problem.y).sum() + problem.top_weight * problem.top_target
    constant = (weight * problem.y**2).sum() + problem.top_weight * problem.top_target**2
    tiny = jnp.finfo(share.dtype).eps * (weight.sum() + 1)
    determinant = jnp.maximum(aa * bb - ab * ab, tiny * tiny)
    (low_b, low_t), (high_b, high_t) = problem.low[:2], problem.high[:2]

    def bottom_for(top: Array) -> Array:
        return jnp.clip((a - ab * top) / jnp.maximum(aa, tiny), low_b, high_b)

    def top_for(bottom: Array) -> Array:
        return jnp.clip((b - ab * bottom) / jnp.maximum(bb, tiny), low_t, high_t)

    def squares(bottom: Array, top: Array) -> Array:
        return constant + bottom * (aa * bottom - 2 * a) + top * (bb * top - 2 * b) + 2 * ab * bottom * top

    bottom_1 = jnp.clip((a * bb - ab * b) / determinant, low_b, high_b)
    top_1 = top_for(bottom_1)
    top_2 = jnp.clip((b * aa - ab * a) / determinant, low_t, high_t)
    bottom_2 = bottom_for(top_2)
    squares_1, squares_2 = squares(bottom_1, top_1), squares(bottom_2, top_2)
    first = squares_1 <= squares_2
    return (
        jnp.where(first, bottom_1, bottom_2),
        jnp.where(first, top_1, top_2),
        jnp.minimum(squares_1, squares_2),
    )


def refine(problem: Problem, start: Solution, *, num_steps: int) -> Solution:
    """Levenberg-Marquardt from `start`; a parameter at a bound stays there while the gradient pushes it outward."""

    def evaluate(parameters: Array) -> Normal:
        return normal_equations(problem, parameters, start.direction)

    def step(_: Array, carry: tuple[Array, Normal, Array]) -> tuple[Array, Normal, Array]:
        parameters, normal, damping = carry
        trial = jnp.clip(parameters - _step(problem, parameters, normal, damping), problem.low, problem.high)
        tried = evaluate(trial)
        better = tried.squares < normal.squares
        kept = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (trial, tried), (parameters, normal)
        )
        return *kept, jnp.clip(damping * jnp.where(better, CALMER, STRICTER), 1e-7, 1e7)

    inside = jnp.clip(start.parameters, problem.low, problem.high)
    damping = jnp.asarray(FIRST_DAMPING, problem.x.dtype)
    parameters, normal, _ = jax.lax.fori_loop(0, num_steps, step, (inside, evaluate(inside), damping))
    return Solution(parameters, start.direction, normal.squares)


def _step(problem: Problem, parameters: Array, normal: Normal, damping: Array) -> Array:
    """The damped Gauss-Newton step of the parameters that may move; 0 for the others."""
    outward = ((parameters <= problem.low) & (normal.gradient > 0)) | (
        (parameters >= problem.high) & (normal.gradient < 0)
    )
    free = ~outward & (problem.low < problem.high)
    diagonal = jnp.diagonal(normal.matrix)
    floor = jnp.finfo(diagonal.dtype).eps * (diagonal.max() + 1)
    matrix = jnp.where(free[:, None] & free, normal.matrix, 0)
    matrix = matrix + jnp.diag(jnp.where(free, damping * jnp.maximum(diagonal, 1e-3 * floor) + floor, 1))
    return solve_positive(matrix, jnp.where(free, normal.gradient, 0))


def solve_positive(matrix: Array, vector: Array) -> Array:
    """Solution of a small positive definite system by Cholesky, written out: batches of LAPACK calls are slow."""
    size = vector.shape[0]
    lower: dict[tuple[int, int], Array] = {}
    for column in range(size):
        rest = matrix[column, column] - sum(lower[column, k] ** 2 for k in range(column))
        lower[column, column] = jnp.sqrt(jnp.maximum(rest, jnp.finfo(matrix.dtype).tiny))
        for row in range(column + 1, size):
            rest = matrix[row, column] - sum(lower[row, k] * lower[column, k] for k in range(column))
            lower[row, column] = rest / lower[column, column]
    forward: list[Array] = []
    for row in range(size):
        forward.append((vector[row] - sum(lower[row, k] * forward[k] for k in range(row))) / lower[row, row])
    found: dict[int, Array] = {}
    for row in reversed(range(size)):
        found[row] = (forward[row] - sum(lower[k, row] * found[k] for k in range(row + 1, size))) / lower[
            row, row
        ]
    return jnp.stack([found[row] for row in range(size)])
