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
        flops: floating-point operations of the convolutions and matrix products of one forward pass, those on padding
            included; a multiplication and its addition count as two. Papers often print multiply-adds, half of it.
        features: {layer: shape without the batch axis}, in the order of the network.
    """

    parameters: int
    statistics: int
    flops: int
    features: dict[str, tuple[int, ...]]


def summarize(module: nn.Module, input_shape: tuple[int, ...]) -> Summary:
    """The `Summary` of a module for examples of `input_shape`, such as (520, 696, 5)."""
    variables = shapes(module, input_shape)
    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    features: dict[str, tuple[int, ...]] = {}

    def logits(tree: Any, x: jax.Array) -> jax.Array:
        output: Any = module.apply(tree, x, train=False)
        features.update({name: array.shape[1:] for name, array in output["features"].items()})
        return output["logits"]

    return Summary(
        parameters=count(variables["params"]),
        statistics=count(variables.get("batch_stats", {})),
        flops=_flops(jax.make_jaxpr(logits)(variables, images).jaxpr),
        features=features,
    )


def shapes(module: nn.Module, input_shape: tuple[int, ...]) -> Any:
    """Shapes of a module's variables for examples of `input_shape`, without computing them."""
    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    return jax.eval_shape(lambda x: module.init(jax.random.PRNGKey(0), x), images)


def count(tree: Any) -> int:
    """Number of values in a tree of arrays or shapes."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def _flops(jaxpr: Any) -> int:
    """Two per multiply-add of all convolutions and matrix products, those of inner functions included."""
    total = 0
    for equation in jaxpr.eqns:
        total += 2 * _multiply_adds(equation)
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            total += _flops(inner) if hasattr(inner, "eqns") else 0
    return total


def _multiply_adds(equation: Any) -> int:
    """Outputs times the values that each is made of."""
    outputs = int(np.prod(equation.outvars[0].aval.shape)) if equation.outvars else 0
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return outputs * int(np.prod(kernel)) // features
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return outputs * int(np.prod([equation.invars[0].aval.shape[axis] for axis in contracted]))
    return 0
