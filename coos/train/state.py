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
    init_key, rng = jax.random.split(jax.random.PRNGKey(seed))

    @jax.jit
    def build(key: jax.Array) -> TrainState:
        variables = init(key)
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
            rng=rng,
        )

    return jax.device_get(build(init_key))


def to_host(tree: Any) -> Any:
    """One copy of a replicated tree as NumPy arrays, read from this process's first device alone."""
    first = jax.tree.map(lambda x: x.addressable_shards[0].data if isinstance(x, jax.Array) else x, tree)
    return jax.tree.map(lambda x: np.asarray(x)[0], jax.device_get(first))
