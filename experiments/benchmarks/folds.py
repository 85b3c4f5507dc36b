"""Training several networks: one after another, side by side on simulated devices, and vectorised on one.

Each way in a process of its own, because the number of CPU devices is fixed when JAX starts; they take turns.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

NETWORKS = 2
BATCH, SIZE, CHANNELS = 4, 128, 2  # M-CNN on binned BBBC013
WAYS = {"one after another": (1, "pmap"), "side by side": (NETWORKS, "pmap"), "vectorised": (1, "vmap")}


def main(*, rounds: int, seconds: float = 6.0) -> None:
    """Print images/s of every way, medians of alternating rounds, and ratios to one after another."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(_in_process(way, seconds))
    base = statistics.median(found["one after another"])
    print(
        f"{NETWORKS} M-CNNs, batches of {BATCH} fields of {SIZE} x {SIZE} x {CHANNELS}, {os.cpu_count()} CPU cores"
    )
    for way, values in found.items():
        middle = statistics.median(values)
        print(f"{way:<20}{middle:8.1f} images/s   {middle / base:5.2f} of one after another")


def _in_process(way: str, seconds: float) -> float:
    devices, kind = WAYS[way]
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PJRT_NPROC": str(4 * devices),
    }
    command = [sys.executable, __file__, kind, str(devices), str(seconds)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(kind: str, devices: int, seconds: float) -> float:
    """Images/s of the training steps of the networks that are trained at once in one way."""
    import jax
    import jax.numpy as jnp
    import optax

    from coos import losses, models
    from coos.train import state as states
    from coos.train import steps

    number = NETWORKS if kind == "vmap" else devices
    model = models.create("mcnn", num_outputs=2)
    optimizer = optax.sgd(1e-3, momentum=0.9)

    def loss(params, batch_stats, batch, key):
        output: Any = model.apply({"params": params}, batch["image"], train=True)
        return losses.softmax_cross_entropy(output["logits"], batch["label"]), (batch_stats, {})

    shape = (BATCH, SIZE, SIZE, CHANNELS)
    key = jax.random.PRNGKey(0)
    state = states.create(lambda k: model.init(k, jax.random.uniform(k, (1, *shape[1:]))), optimizer, seed=0)
    chunk = steps.make_fold_chunk(loss, optimizer)
    if kind == "vmap":
        one = functools.partial(steps.train_step, loss=loss, optimizer=optimizer, axis=None)
        chunk = jax.jit(jax.vmap(lambda s, _, batch: one(s, jax.tree.map(lambda x: x[0], batch))))
    batch = {
        "image": jax.random.uniform(key, (number, 1, *shape)),
        "label": jnp.tile(jnp.arange(BATCH) % 2, (number, 1, 1)),
    }
    state = jax.tree.map(lambda x: jnp.stack([x] * number), state)
    for _ in range(3):  # compiles, once more for the layout of its own output
        state, metrics = chunk(state, {}, batch)
    jax.block_until_ready(metrics)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        state, metrics = chunk(state, {}, batch)
        jax.block_until_ready(metrics)
        done += 1
    return done * number * BATCH / (time.perf_counter() - began)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
