"""Losses: one value per example, so that masks and sums over devices stay exact."""

import jax
import jax.numpy as jnp
from jax import Array


def softmax_cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """-sum_k t_k log softmax(logits)_k in nats, per example.

    logits (..., K) float, labels (...) int; t is one-hot, or mixed with 1/K by `label_smoothing`. Computed in
    float32, or in float64 if the logits are.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} do not belong together")
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=log_probabilities.dtype)
    targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    return -(targets * log_probabilities).sum(-1)
