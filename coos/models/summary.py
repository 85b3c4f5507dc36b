"""What a network has and costs, without computing anything: parameters, floating-point operations, feature layers."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Summary(NamedTuple):
    """Size and cost of a network for one example.

    Attributes:
        parameters: trainable values.
        statistics: running values of batch norms.
        flops: floating-point operations of the logits of one example, a multiplication and its addition counted as
            two, as XLA counts the unoptimized program. Papers often print half of it, multiply-adds.
        features: {layer: shape without the batch axis}, in the order of the network.
    """

    parameters: int
    statistics: int
    flops: float
    features: dict[str, tuple[int, ...]]


def summarize(module: nn.Module, input_shape: tuple[int, ...]) -> Summary:
    """The `Summary` of a module for examples of `input_shape`, such as (520, 696, 5)."""
    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.PRNGKey(0), x), images)
    features: dict[str, tuple[int, ...]] = {}

    def logits(tree: Any, x: jax.Array) -> jax.Array:
        output = module.apply(tree, x, train=False)
        features.update({name: array.shape[1:] for name, array in output["features"].items()})
        return output["logits"]

    cost = jax.jit(logits).lower(variables, images).cost_analysis() or {}
    return Summary(
        parameters=count(variables["params"]),
        statistics=count(variables.get("batch_stats", {})),
        flops=float(cost.get("flops", np.nan)),
        features=features,
    )


def count(tree: Any) -> int:
    """Number of values in a tree of arrays or shapes."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
