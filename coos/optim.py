"""Optimizers from a config: a learning-rate schedule, an update rule, optional clipping."""

from typing import Any

import jax
import optax

SCHEDULES = ("staircase", "cosine", "constant")
OPTIMIZERS = ("adam", "adamw", "sgd")


def schedule(config: Any, *, num_steps: int) -> optax.Schedule:
    """Learning rate as a function of the step.

    `config.schedule` is "staircase" (rate * decay ** floor(step / decay_every), DeepLoc's), "cosine" (linear
    warm-up over `warmup_steps`, then half a cosine to 0 at `num_steps`) or "constant".
    """
    if config.schedule == "staircase":
        return optax.exponential_decay(
            config.learning_rate, transition_steps=config.decay_every, decay_rate=config.decay, staircase=True
        )
    if config.schedule == "cosine":
        warmup = min(config.warmup_steps, num_steps // 2)
        return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, num_steps)
    if config.schedule == "constant":
        return optax.constant_schedule(config.learning_rate)
    raise ValueError(f"optimizer.schedule={config.schedule!r}: choose one of {SCHEDULES}")


def create(config: Any, *, num_steps: int) -> optax.GradientTransformation:
    """The optimizer of `config` (name, learning_rate, schedule, weight_decay, momentum, clip_norm).

    "adamw" decays kernels only (arrays of two or more axes), not biases and batch norms. "sgd" is PyTorch's: after
    the clipping weight_decay * parameter is added to the gradient of every parameter, then v = momentum v + gradient
    and parameter -= rate v, without Nesterov (what Hofmarcher et al. 2019 train with).
    """
    rate = schedule(config, num_steps=num_steps)
    rules = {
        "adam": lambda: optax.adam(rate),
        "adamw": lambda: optax.adamw(rate, weight_decay=config.weight_decay, mask=_is_kernel),
        "sgd": lambda: optax.chain(
            optax.add_decayed_weights(config.weight_decay), optax.sgd(rate, momentum=config.momentum)
        ),
    }
    if config.name not in rules:
        raise ValueError(f"optimizer.name={config.name!r}: choose one of {OPTIMIZERS}")
    if config.weight_decay and config.name == "adam":
        raise ValueError(
            f"optimizer.weight_decay={config.weight_decay} works with 'adamw' or 'sgd', not 'adam'"
        )
    rule = rules[config.name]()
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule) if config.clip_norm else rule


def _is_kernel(parameters: Any) -> Any:
    return jax.tree.map(lambda x: x.ndim > 1, parameters)
