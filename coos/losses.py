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


def masked_binary_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Sum over labelled tasks of -(y log p + (1 - y) log(1 - p)) in nats with p = sigmoid(logit), and their number.

    logits (..., T) float; labels (..., T): above 0 active (y = 1), below 0 inactive (y = 0), 0 not measured. Both
    results are (...) float32 (float64 if the logits are); dividing one sum by the other over a whole batch gives the
    mean over its labelled entries (Hofmarcher et al. 2019, section 2, and code). What is not measured contributes
    nothing, whatever its logit, NaN and infinity included.
    """
    _check_tasks("logits", logits, labels)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    measured = labels != 0
    # With the sign of the label: -log sigmoid(z) for actives, -log sigmoid(-z) for inactives.
    signed = jnp.where(measured, jnp.where(labels > 0, logits, -logits), 0.0)
    losses = jnp.where(measured, jax.nn.softplus(-signed), 0.0)
    return losses.sum(-1), measured.sum(-1).astype(losses.dtype)


def masked_probability_cross_entropy(probabilities: Array, labels: Array) -> tuple[Array, Array]:
    """`masked_binary_cross_entropy` of probabilities instead of logits, clipped to [1e-7, 1 - 1e-7]."""
    _check_tasks("probabilities", probabilities, labels)
    probabilities = probabilities.astype(jnp.promote_types(probabilities.dtype, jnp.float32))
    measured = labels != 0
    right = jnp.where(labels > 0, probabilities, 1 - probabilities)
    losses = jnp.where(measured, -jnp.log(jnp.clip(jnp.where(measured, right, 1.0), 1e-7, 1 - 1e-7)), 0.0)
    return losses.sum(-1), measured.sum(-1).astype(losses.dtype)


def _check_tasks(name: str, values: Array, labels: Array) -> None:
    if values.shape != labels.shape:
        raise ValueError(
            f"{name} {values.shape} and labels {labels.shape} must have the same shape, (..., tasks)"
        )
