"""What training changes from step to step."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


@flax.struct.dataclass
class TrainState:
    """Everything a step reads and writes, and everything a checkpoint must hold beside the data iterator.

    `rng` is the run's key and never changes: step s uses fold_in(rng, s), so no key is carried along.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    rng: jax.Array


def create(
    init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, *, seed: int
) -> TrainState:
    """A fresh state on the host (NumPy arrays). `init(key)` returns the model's variables."""
    return creator(init, optimizer)(seed)


def creator(
    init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation
) -> Callable[[int], TrainState]:
    """`create` as a function of the seed that is compiled once."""

    @jax.jit
    def build(key: jax.Array, rng: jax.Array) -> TrainState:
        variables = init(key)
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
            rng=rng,
        )

    def of_seed(seed: int) -> TrainState:
        return jax.device_get(build(*jax.random.split(jax.random.PRNGKey(seed))))

    return of_seed


def to_host(tree: Any) -> Any:
    """One copy of a replicated tree as NumPy arrays, read from this process's first device alone."""
    first = jax.tree.map(lambda x: x.addressable_shards[0].data if isinstance(x, jax.Array) else x, tree)
    return jax.tree.map(lambda x: np.asarray(x)[0], jax.device_get(first))
