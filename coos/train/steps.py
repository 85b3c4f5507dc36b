"""The compiled steps: data-parallel training and prediction. `jax.pmap` is called here and nowhere else.

Gradients, losses and weights are summed over the examples of all devices and divided once, so that a step is
the same whatever the number of devices (up to the order of additions).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from coos.data.source import take_rows
from coos.train.state import TrainState

AXIS = "device"

# loss(params, batch_stats, batch, key) -> (per-example losses (B,), (new batch_stats, {name: (B,)})). Where examples
# count differently, such as by their number of labels, the values hold "weight" (B,); the others are sums over it.
LossFunction = Callable[[Any, Any, dict[str, Array], Array], tuple[Array, tuple[Any, dict[str, Array]]]]


def _scan(body: Callable[[Any, Any], tuple[Any, Any]], start: Any, inputs: Any) -> tuple[Any, Any]:
    """`lax.scan` on accelerators; on a CPU the same written out.

    XLA runs the body of a CPU loop, even one of a single turn, without its fast convolutions: a DeepLoc step
    takes eight times as long inside `lax.scan`.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.scan(body, start, inputs)
    outputs = []
    for turn in range(jax.tree.leaves(inputs)[0].shape[0]):
        start, output = body(start, jax.tree.map(lambda x, turn=turn: x[turn], inputs))
        outputs.append(output)
    return start, jax.tree.map(lambda *x: jnp.stack(x), *outputs)


def _accumulate(
    loss: LossFunction, state: TrainState, batch: dict[str, Array], key: Array, *, parts: int
) -> tuple[Any, Any, dict[str, Array]]:
    """Summed gradients, batch statistics and per-example values of a batch, `parts` pieces one after another."""

    def piece(carry: tuple[Any, Any], part: dict[str, Array]):
        gradients, batch_stats = carry

        def summed(params: Any):
            losses, (new_stats, values) = loss(params, batch_stats, part, key)
            return losses.sum(), (new_stats, {**values, "loss": losses})

        new_gradients, (batch_stats, values) = jax.grad(summed, has_aux=True)(state.params)
        return (jax.tree.map(jnp.add, gradients, new_gradients), batch_stats), values

    split = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch)
    start = (jax.tree.map(jnp.zeros_like, state.params), state.batch_stats)
    (gradients, batch_stats), values = _scan(piece, start, split)
    return gradients, batch_stats, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), values)


def _sum(tree: Any, axis: str | None) -> Any:
    """Sums over the devices of an axis; of no axis the values themselves."""
    return tree if axis is None else jax.lax.psum(tree, axis)


def train_step(
    state: TrainState,
    batch: dict[str, Array],
    *,
    loss: LossFunction,
    optimizer: optax.GradientTransformation,
    accumulation_steps: int = 1,
    axis: str | None = AXIS,
) -> tuple[TrainState, dict[str, Array]]:
    """One update on this device's share of a batch, inside a pmap over `axis`; with None the batch is all here.

    Returns the new state, and means over the whole batch of the loss and of what it reports, with the
    per-example losses of this device under "example_loss". Sums over all devices are divided by the sum of all
    weights (1 an example, unless the loss reports others); a batch of weight 0 gives no gradient and means of 0.
    """
    key = jax.random.fold_in(state.rng, state.step)
    gradients, batch_stats, values = _accumulate(loss, state, batch, key, parts=accumulation_steps)
    weight = _sum(values.pop("weight", jnp.ones_like(values["loss"])).sum(), axis)
    weight = jnp.where(weight > 0, weight, 1)
    gradients = jax.tree.map(lambda x: x / weight, _sum(gradients, axis))
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    new_state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats if axis is None else jax.lax.pmean(batch_stats, axis),
        opt_state=opt_state,
    )
    means = {name: _sum(value.sum(), axis) / weight for name, value in values.items()}
    return new_state, {**means, "example_loss": values["loss"]}


def make_train_chunk(
    loss: LossFunction,
    optimizer: optax.GradientTransformation,
    *,
    accumulation_steps: int = 1,
    take: Callable[[dict[str, Array], Array], dict[str, Array]] = take_rows,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """A function (state, resident, batches) -> (state, metrics) that runs several steps in one dispatch.

    All arguments have a leading axis over local devices; `batches` a second one over steps. `resident` is {}
    or {"image": all training images}, or other arrays of which `take(resident, batch["example"])` makes the images of a
    batch. The state is donated: its buffers are reused for the new one.
    """

    step = functools.partial(
        train_step, loss=loss, optimizer=optimizer, accumulation_steps=accumulation_steps
    )
    return jax.pmap(_chunk(step, take), axis_name=AXIS, donate_argnums=(0,))


def make_fold_chunk(
    loss: LossFunction,
    optimizer: optax.GradientTransformation,
    *,
    accumulation_steps: int = 1,
    take: Callable[[dict[str, Array], Array], dict[str, Array]] = take_rows,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """`make_train_chunk` where every device trains a network of its own: the leading axis of a state is over networks.

    Nothing crosses devices, so that a network comes out the same whichever others are trained beside it.
    """
    step = functools.partial(
        train_step, loss=loss, optimizer=optimizer, accumulation_steps=accumulation_steps, axis=None
    )
    return jax.pmap(_chunk(step, take), donate_argnums=(0,))


def _chunk(step: Callable[..., Any], take: Callable[..., dict[str, Array]]) -> Callable[..., Any]:
    """Several steps on one device, one after another."""

    def one(state: TrainState, resident: dict[str, Array], batch: dict[str, Array]):
        return step(state, {**(take(resident, batch["example"]) if resident else {}), **batch})

    def chunk(state: TrainState, resident: dict[str, Array], batches: dict[str, Array]):
        return _scan(lambda s, b: one(s, resident, b), state, batches)

    return chunk


def make_predict(predict: Callable[[Any, dict[str, Array]], Array]) -> Callable[..., Array]:
    """`predict(variables, batch)` over all devices; every array has a leading axis over local devices."""
    return jax.pmap(predict, axis_name=AXIS)
