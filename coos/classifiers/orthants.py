"""Least smooth function plus L1 norm by quasi-Newton steps within orthants (Andrew & Gao 2007), in JAX.

Minimises f(w) + sum_j penalty_j |w_j|. Within an orthant, where no w_j changes sign, the sum is smooth: an L-BFGS step
is taken along the steepest-descent side of the orthant that the pseudo-gradient points into, and coordinates that leave
it stop at zero. Optimal where the pseudo-gradient (the subgradient of least magnitude) vanishes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

HISTORY = 20  # remembered steps
DECREASE = 1e-4  # of what the pseudo-gradient promises, for a step to be taken
HALVINGS = 25
ROUNDING = 8  # units in the last place by which equal values may differ

Smooth = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
Residual = Callable[
    [jax.Array, jax.Array], jax.Array
]  # of a place and the gradient of the smooth function there


class State(NamedTuple):
    """Where the minimisation stands; vectors are (P,), the memory of steps (HISTORY, P)."""

    w: jax.Array
    value: jax.Array
    gradient: jax.Array
    steps: jax.Array
    changes: jax.Array
    curvatures: jax.Array  # (HISTORY,) steps . changes; 0 where nothing is remembered
    remembered: jax.Array
    iteration: jax.Array
    residual: jax.Array
    stalled: jax.Array  # no step decreases the value any more: rounding is reached


class Trial(NamedTuple):
    """A step and where it leads."""

    w: jax.Array
    value: jax.Array
    gradient: jax.Array
    residual: jax.Array
    halvings: jax.Array
    accepted: jax.Array


def pseudo_gradient(w: jax.Array, gradient: jax.Array, penalty: jax.Array) -> jax.Array:
    """The element of least magnitude of the subdifferential of f + penalty |w|, elementwise."""
    at_zero = jnp.sign(gradient) * jnp.maximum(jnp.abs(gradient) - penalty, 0)
    return jnp.where(w == 0, at_zero, gradient + penalty * jnp.sign(w))


def minimize(
    smooth: Smooth,
    start: jax.Array,
    penalty: jax.Array,
    *,
    importance: jax.Array,
    tolerance: jax.Array,
    max_iterations: jax.Array,
) -> State:
    """From `start` (P,) until the largest |pseudo-gradient| is at most `tolerance`; to be called within `jax.jit`.

    `smooth(w)` gives f and its gradient. Coordinate j counts `importance[j]` times in what is held against the
    tolerance. The dtype is that of `start`.
    """

    def residual_of(w: jax.Array, gradient: jax.Array) -> jax.Array:
        return (importance * jnp.abs(pseudo_gradient(w, gradient, penalty))).max()

    def goes_on(state: State) -> jax.Array:
        return (state.residual > tolerance) & (state.iteration < max_iterations) & ~state.stalled

    memory = jnp.zeros((HISTORY, len(start)), start.dtype)
    smooth_value, gradient = smooth(start)
    zero = jnp.zeros((), jnp.int32)
    state = State(
        w=start,
        value=smooth_value + jnp.sum(penalty * jnp.abs(start)),
        gradient=gradient,
        steps=memory,
        changes=memory,
        curvatures=jnp.zeros(HISTORY, start.dtype),
        remembered=zero,
        iteration=zero,
        residual=residual_of(start, gradient),
        stalled=jnp.zeros((), bool),
    )
    return jax.lax.while_loop(goes_on, lambda state: _step(smooth, penalty, residual_of, state), state)


def _step(smooth: Smooth, penalty: jax.Array, residual_of: Residual, state: State) -> State:
    slope = pseudo_gradient(state.w, state.gradient, penalty)
    direction = -_inverse_hessian_times(state, slope)
    direction = jnp.where((penalty > 0) & (direction * slope >= 0), 0, direction)
    direction = jnp.where(direction @ slope < 0, direction, -slope)
    first = jnp.minimum(1, 1 / jnp.linalg.norm(slope))
    length = jnp.where(state.remembered > 0, jnp.ones_like(first), first)
    trial = _search(smooth, penalty, residual_of, state, slope, direction, length)
    moved = _remember(state, trial)
    moved = moved._replace(
        w=trial.w,
        value=trial.value,
        gradient=trial.gradient,
        residual=trial.residual,
        iteration=state.iteration + 1,
    )
    still = state._replace(stalled=jnp.ones((), bool), iteration=state.iteration + 1)
    return jax.tree.map(lambda new, old: jnp.where(trial.accepted, new, old), moved, still)


def _search(
    smooth: Smooth,
    penalty: jax.Array,
    residual_of: Residual,
    state: State,
    slope: jax.Array,
    direction: jax.Array,
    length: jax.Array,
) -> Trial:
    """Halve the step until the value decreases enough; within its rounding, until the residual does."""
    orthant = jnp.where(state.w == 0, -jnp.sign(slope), jnp.sign(state.w))

    def attempt(length: jax.Array, halvings: jax.Array) -> Trial:
        w = state.w + length * direction
        w = jnp.where((penalty > 0) & (w * orthant <= 0), 0, w)
        value, gradient = smooth(w)
        value = value + jnp.sum(penalty * jnp.abs(w))
        residual = residual_of(w, gradient)
        enough = (value <= state.value + DECREASE * slope @ (w - state.w)) & (value < state.value)
        equal = value <= state.value + ROUNDING * jnp.finfo(w.dtype).eps * jnp.abs(state.value)
        accepted = enough | (equal & (residual < state.residual))
        return Trial(w, value, gradient, residual, halvings, accepted)

    return jax.lax.while_loop(
        lambda trial: ~trial.accepted & (trial.halvings < HALVINGS),
        lambda trial: attempt(length / 2.0 ** (trial.halvings + 1), trial.halvings + 1),
        attempt(length, jnp.zeros((), jnp.int32)),
    )


def _remember(state: State, trial: Trial) -> State:
    """The state with the step of `trial` in its memory, if the curvature along it is positive."""
    step, change = trial.w - state.w, trial.gradient - state.gradient
    curvature = step @ change
    useful = curvature > 1e-3 * jnp.finfo(step.dtype).eps * (change @ change)
    place = state.remembered % HISTORY
    kept = state._replace(
        steps=state.steps.at[place].set(step),
        changes=state.changes.at[place].set(change),
        curvatures=state.curvatures.at[place].set(curvature),
        remembered=state.remembered + 1,
    )
    return jax.tree.map(lambda new, old: jnp.where(useful, new, old), kept, state)


def _inverse_hessian_times(state: State, vector: jax.Array) -> jax.Array:
    """L-BFGS product (Nocedal & Wright, algorithm 7.4) from the steps remembered; nothing remembered: the vector."""
    order = (state.remembered - 1 - jnp.arange(HISTORY)) % HISTORY  # the newest first
    known = state.curvatures != 0
    inverse = jnp.where(known, 1 / jnp.where(known, state.curvatures, 1), 0)

    def backward(carried: jax.Array, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        weight = inverse[place] * (state.steps[place] @ carried)
        return carried - weight * state.changes[place], weight

    def forward(carried: jax.Array, item: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        place, weight = item
        correction = weight - inverse[place] * (state.changes[place] @ carried)
        return carried + correction * state.steps[place], None

    carried, weights = jax.lax.scan(backward, vector, order)
    newest = state.changes[order[0]]
    scale = jnp.where(known[order[0]], state.curvatures[order[0]] / jnp.maximum(newest @ newest, 1e-37), 1)
    return jax.lax.scan(forward, carried * scale, (order[::-1], weights[::-1]))[0]
