"""Curves in blocks: what a block needs stays in the cache, and memory does not grow with their number."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

BLOCK = 256


def over_curves(function: Callable[[Any], Any], arrays: Any) -> Any:
    """`function` of each row of a tree of arrays (C, ...), `BLOCK` rows side by side.

    The last block is filled up with copies of a row: a smaller one would be compiled once more.
    """
    count = jax.tree.leaves(arrays)[0].shape[0]
    if count == 0:
        return jax.vmap(function)(arrays)
    size = min(BLOCK, count)
    rows = jnp.minimum(jnp.arange(-(-count // size) * size), count - 1)
    shaped = jax.tree.map(lambda array: array[rows].reshape(-1, size, *array.shape[1:]), arrays)
    found = jax.lax.map(jax.vmap(function), shaped)
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:])[:count], found)
