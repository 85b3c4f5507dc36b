"""Optimizers from a config: a learning-rate schedule, an update rule, optional clipping."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

SCHEDULES = ("staircase", "cosine", "cosine_harmonic", "step", "flat")
OPTIMIZERS = ("adam", "adamw", "sgd")
DECAYED = ("all", "kernels")
WARMUP_EPOCHS = 5  # of "cosine_harmonic"


def schedule(config: Any, *, num_steps: int) -> optax.Schedule:
    """Learning rate as a function of the step, as `config.schedule` says.

    - "staircase": rate * decay ** floor(step / decay_every), DeepLoc's.
    - "cosine": linear warm-up from 0 over `warmup_steps`, then half a cosine to 0 at `num_steps`.
    - "cosine_harmonic": that of DeepProfiler's code. In epoch t of E, from 0, it is rate / (5 - t) before the fifth,
      then 0.5 (1 + cos(pi t / E)) rate: not moved by the warm-up, so that it drops from its top at once.
    - "step": from epoch `boundaries[i]` on it is `rates[i]`, and `learning_rate` before the first.
    - "flat": always `learning_rate`. Runs from before call it "constant".

    "cosine_harmonic" and "step" need `steps_per_epoch`, which training fills in. Raises ValueError naming the field.
    """
    rate = config.learning_rate
    if config.schedule == "staircase":
        return optax.exponential_decay(
            rate, transition_steps=config.decay_every, decay_rate=config.decay, staircase=True
        )
    if config.schedule == "cosine":
        warmup = min(config.warmup_steps, num_steps // 2)
        return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, num_steps)
    if config.schedule == "cosine_harmonic":
        epoch = _steps_per_epoch(config)
        return _cosine_harmonic(rate, epoch=epoch, num_epochs=math.ceil(num_steps / epoch))
    if config.schedule == "step":
        return _step(config)
    if config.schedule in ("flat", "constant"):
        return optax.constant_schedule(rate)
    raise ValueError(f"optimizer.schedule={config.schedule!r}: choose one of {SCHEDULES}")


def _steps_per_epoch(config: Any) -> int:
    steps = config.get("steps_per_epoch", 0)
    if steps < 1:
        raise ValueError(
            f"optimizer.steps_per_epoch={steps}: schedule {config.schedule!r} counts epochs; must be at least 1"
        )
    return steps


def _cosine_harmonic(rate: float, *, epoch: int, num_epochs: int) -> optax.Schedule:
    def at(step: Any) -> jax.Array:
        t = jnp.asarray(step) // epoch
        falling = 0.5 * (1 + jnp.cos(jnp.pi * t / num_epochs))
        return rate * jnp.where(t < WARMUP_EPOCHS, 1 / jnp.maximum(WARMUP_EPOCHS - t, 1), falling)

    return at


def _step(config: Any) -> optax.Schedule:
    epoch = _steps_per_epoch(config)
    boundaries, rates = tuple(config.get("boundaries", ())), tuple(config.get("rates", ()))
    if len(boundaries) != len(rates) or not rates:
        raise ValueError(
            f"optimizer.boundaries={boundaries}, optimizer.rates={rates}: 'step' needs as many rates as boundaries"
        )
    if any(after <= before for before, after in itertools.pairwise((0, *boundaries))):
        raise ValueError(f"optimizer.boundaries={boundaries}: must be ascending epochs from 1 on")
    starts, values = jnp.asarray(boundaries), jnp.asarray((config.learning_rate, *rates), jnp.float32)
    return lambda step: values[(jnp.asarray(step) // epoch >= starts).sum()]


def create(config: Any, *, num_steps: int) -> optax.GradientTransformation:
    """The optimizer of `config` (name, learning_rate, schedule, weight_decay, momentum, clip_norm).

    "adamw" decays kernels only (arrays of two or more axes), not biases and batch norms. It and "adam" take `beta1`
    from the config, 0.9 where it has none.

    "sgd" adds weight_decay * parameter to the gradient after the clipping. By default it is PyTorch's (what Hofmarcher
    et al. 2019 train with): every parameter decays, v = momentum v + gradient, parameter -= rate v. Fields that a
    config may leave out:

    - `nesterov` True: Keras' form, v = momentum v - rate gradient, parameter += momentum v - rate gradient. The rate
      is inside v, so what was gathered under a higher rate keeps it.
    - `decay_on` "kernels" instead of "all": arrays of two or more axes alone, as Keras' kernel_regularizer has it. That
      one does not reach depthwise kernels, which decay here.

    An L2 penalty lambda * sum(w ** 2) has the gradient 2 lambda w: it is weight_decay = 2 lambda. Bornholdt 2021 prints
    lambda = 1e-4 (equation 3.1); the code has 1e-5.
    """
    rate = schedule(config, num_steps=num_steps)
    beta1 = config.get("beta1", 0.9)
    rules = {
        "adam": lambda: optax.adam(rate, b1=beta1),
        "adamw": lambda: optax.adamw(rate, b1=beta1, weight_decay=config.weight_decay, mask=_is_kernel),
        "sgd": lambda: _sgd(config, rate),
    }
    if config.name not in rules:
        raise ValueError(f"optimizer.name={config.name!r}: choose one of {OPTIMIZERS}")
    if config.weight_decay and config.name == "adam":
        raise ValueError(
            f"optimizer.weight_decay={config.weight_decay} works with 'adamw' or 'sgd', not 'adam'"
        )
    rule = rules[config.name]()
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule) if config.clip_norm else rule


def _sgd(config: Any, rate: optax.Schedule) -> optax.GradientTransformation:
    decay_on = config.get("decay_on", "all")
    if decay_on not in DECAYED:
        raise ValueError(f"optimizer.decay_on={decay_on!r}: choose one of {DECAYED}")
    mask = _is_kernel if decay_on == "kernels" else None
    decay = optax.add_decayed_weights(config.weight_decay, mask)
    if not config.get("nesterov", False):
        return optax.chain(decay, optax.sgd(rate, momentum=config.momentum))
    trace = optax.trace(config.momentum, nesterov=True)
    return optax.chain(decay, optax.scale_by_learning_rate(rate), trace)


def _is_kernel(parameters: Any) -> Any:
    return jax.tree.map(lambda x: x.ndim > 1, parameters)
