"""Speed of the networks beside the same networks in PyTorch: images/s forward and in training, in alternating rounds.

Forward is evaluation mode. A training step is forward, loss, backward and an SGD update with momentum, in training
mode with dropout and batch norm. Each network is measured in a process of its own, on the first device. On a GPU
both sides compute in bfloat16 with float32 parameters, and PyTorch gets torch.compile, its fused SGD and cuDNN's
autotuner; on a CPU both compute in float32, PyTorch eagerly unless told otherwise. PyTorch's images are channels_last.

A multiply-add counts as two operations, those of convolutions and matrix products are counted (`coos.models.summary`),
and a training step counts as three forward passes.
"""

import importlib.util
import json
import math
import multiprocessing
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import coos.models
from coos import registry
from coos.models import summary

INSTALL = 'PyTorch is not installed: our figures alone. For the peer: pip install -e ".[bench]"'
LONG = 45.0  # seconds for one network, after which no further round begins
Run = Callable[[int], None]  # takes a number of steps and returns when they are done


class Network(NamedTuple):
    """What is measured of one network: input (without batch), outputs, default batches, options of either side."""

    shape: tuple[int, ...]
    outputs: int
    cpu_batch: int
    gpu_batch: int
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}


BATCHES = {  # on a CPU, on a GPU
    "gapnet": (2, 64),
    "sc_cnn": (32, 2048),
    "milnet": (2, 64),
    "mcnn": (2, 64),
    "resnet101": (2, 32),
    "densenet121": (2, 32),
    "fnn": (256, 4096),
    "deeploc": (32, 1024),
    "pci": (8, 256),
    "efficientnet_b0": (16, 512),
    "resnet50": (4, 256),
    "resnet50v2": (4, 256),
    "vgg16": (4, 128),
    "alexnet": (16, 1024),
    "googlenet": (8, 256),
}
SIZES: dict[str, dict[str, Any]] = {
    "mcnn": {"size": (520, 696)},
    "deeploc": {"size": (60, 60)},
}  # PyTorch's must know them


def published(name: str) -> Network:
    """A network in its published setting."""
    setting = registry.lookup("coos.models", name).PUBLISHED
    return Network(setting.input_shape, setting.num_outputs, *BATCHES[name], theirs=SIZES.get(name, {}))


NETWORKS = {name: published(name) for name in BATCHES}


class Settings(NamedTuple):
    """How to measure; None stands for the platform's default."""

    rounds: int = 3
    batch: int | None = None
    dtype: str | None = None  # float32 or bfloat16
    compiled: bool | None = None  # torch.compile
    seconds: float = 1.0  # a timed stretch is at least this long


# Both sides


def clock(run: Run, steps: int) -> float:
    """Seconds per step."""
    began = time.perf_counter()
    run(steps)
    return (time.perf_counter() - began) / steps


def in_turns(runs: dict[str, Run], *, rounds: int, seconds: float) -> dict[str, float]:
    """Median seconds per step; rounds alternate between the runs, so that all see the same machine.

    No further round begins after `LONG` seconds; without any, the second step of each run stands.
    """
    began = time.perf_counter()
    for run in runs.values():
        run(1)  # compiles
    first = {key: clock(run, 1) for key, run in runs.items()}
    found: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        if time.perf_counter() - began > LONG:
            break
        for key, run in runs.items():
            found[key].append(clock(run, max(1, math.ceil(seconds / first[key]))))
    return {key: statistics.median(found[key] or [first[key]]) for key in runs}


def random_data(name: str, network: Network, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets: class indices, or for an image-to-image network images."""
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((batch, *network.shape), np.float32)
    if name == "pci":
        return inputs, generator.standard_normal((batch, *network.shape[:-1], network.outputs), np.float32)
    return inputs, generator.integers(0, network.outputs, batch)


# Ours


def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Plausible values of a variable: what a network's own initializers would compile is not what is measured."""
    name = path[-1].key
    if name == "kernel":
        deviation = math.sqrt(1 / math.prod(leaf.shape[:-1]))
        return np.random.default_rng(0).standard_normal(leaf.shape, np.float32) * np.float32(deviation)
    return np.full(leaf.shape, name in ("scale", "var"), np.float32)


def our_runs(name: str, network: Network, batch: int, dtype: str) -> tuple[dict[str, Run], dict[str, int]]:
    """Forward and training steps of the JAX network, and its parameters and operations per image."""
    model = coos.models.create(name, num_outputs=network.outputs, dtype=jnp.dtype(dtype), **network.ours)
    images, targets = map(jnp.asarray, random_data(name, network, batch))
    key = jax.random.PRNGKey(0)
    shapes = jax.eval_shape(lambda: model.init({"params": key, "dropout": key}, images, train=False))
    variables = jax.device_put(jax.tree_util.tree_map_with_path(fill, shapes))
    optimizer = optax.sgd(1e-3, momentum=0.9)

    @jax.jit
    def forward(variables, images):
        output: Any = model.apply(variables, images, train=False)
        return output["logits"]

    def loss(params, others, images, targets, key):
        options: dict[str, Any] = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": key}}
        output, updated = model.apply({"params": params, **others}, images, **options)
        if targets.ndim > 1:
            return jnp.mean((output["logits"] - targets) ** 2), updated
        losses = optax.softmax_cross_entropy_with_integer_labels(output["logits"], targets)
        return losses.mean(), updated

    def step(state, images, targets):
        params, others, trace, key = state
        key, now = jax.random.split(key)
        gradient, others = jax.grad(loss, has_aux=True)(params, others, images, targets, now)
        update, trace = optimizer.update(gradient, trace, params)
        return optax.apply_updates(params, update), others, trace, key

    step = jax.jit(step, donate_argnums=0)
    others = {kind: value for kind, value in variables.items() if kind != "params"}
    state = jax.tree.map(jnp.copy, (variables["params"], others, optimizer.init(variables["params"]), key))
    on_cpu = jax.default_backend() == "cpu"  # where steps of one queue may overlap: wait for each

    def run_forward(steps: int) -> None:
        for _ in range(steps):
            logits = forward(variables, images)
            if on_cpu:
                jax.block_until_ready(logits)
        jax.block_until_ready(logits)

    def run_training(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state = step(state, images, targets)
            if on_cpu:
                jax.block_until_ready(state)
        jax.block_until_ready(state)

    found = summary.summarize(model, network.shape)
    facts = {"parameters": found.parameters, "flops": found.flops}
    return {"forward": run_forward, "training": run_training}, facts


# One network


def peak_memory() -> dict[str, float]:
    """Bytes at the highest, where the backends report it."""
    found = {"coos": (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["pytorch"] = torch.cuda.max_memory_allocated() or None
    return {side: value for side, value in found.items() if value}


def measure(name: str, network: Network, settings: Settings) -> dict[str, Any]:
    """Measure both sides in this process: images/s by "mode, side" and what else the table shows."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both libraries share the GPU
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    batch = settings.batch or (network.cpu_batch if on_cpu else network.gpu_batch)
    dtype = settings.dtype or ("float32" if on_cpu else "bfloat16")
    compiled = settings.compiled if settings.compiled is not None else not on_cpu
    ours, facts = our_runs(name, network, batch, dtype)
    runs = {f"{mode}, coos": run for mode, run in ours.items()}
    row = {"network": name, "device": device.device_kind, "batch": batch, "dtype": dtype, **facts}
    try:
        from benchmarks import torch_runs

        data = random_data(name, network, batch)
        theirs = torch_runs.torch_runs(name, network.outputs, network.theirs, data, dtype, compiled)
        runs |= {f"{mode}, pytorch": run for mode, run in theirs.items()}
        row["peer"] = f"PyTorch with{'' if compiled else 'out'} torch.compile"
    except ImportError as error:
        row["peer"] = f"no PyTorch ({error})"
    seconds = in_turns(dict(sorted(runs.items())), rounds=settings.rounds, seconds=settings.seconds)
    return row | {"images_per_second": {key: batch / value for key, value in seconds.items()},
                  "peak_bytes": peak_memory()}  # fmt: skip


def measure_apart(name: str, network: Network, settings: Settings) -> dict[str, Any]:
    """`measure` in a fresh process; a failure there (out of memory) is returned under "error"."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, name, network, settings).result()
        except Exception as error:  # whatever it was, the other networks can still be measured
            return {"network": name, "error": f"{error!r:.160}"}


# The table

HEADER = (
    f"{'':<16}{'batch':>6}{'params':>13}{'GFLOP/image':>12}   {'forward, images/s: ours, PyTorch, ratio':<42}"
    f"{'training, images/s: ours, PyTorch, ratio':<43}{'TFLOP/s ours':>14}   peak GB"
)


def format_row(row: dict[str, Any]) -> str:
    """One line of the table."""
    if "error" in row:
        return f"{row['network']:<16}{row['error']}"
    line = f"{row['network']:<16}{row['batch']:>6}{row['parameters']:>13,}{row['flops'] / 1e9:>12.3f}   "
    rates = row["images_per_second"]
    for mode in ("forward", "training"):
        ours, theirs = rates[f"{mode}, coos"], rates.get(f"{mode}, pytorch")
        peer = f"{theirs:>13,.1f}{ours / theirs:>9.2f} x" if theirs else f"{'-':>13}{'':>11}"
        line += f"{ours:>13,.1f}{peer}     "
    achieved = [rates["forward, coos"] * row["flops"], 3 * rates["training, coos"] * row["flops"]]
    memory = ", ".join(f"{value / 1e9:.1f}" for value in row["peak_bytes"].values()) or "-"
    return f"{line}{achieved[0] / 1e12:>8.3f}{achieved[1] / 1e12:>8.3f}   {memory}"


def chosen(only: str) -> list[str]:
    """The names in a comma-separated list, or all."""
    names = [name.strip() for name in only.split(",") if name.strip()] or list(NETWORKS)
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        raise ValueError(f"--only: no network {unknown[0]!r}; there are {', '.join(NETWORKS)}")
    return names


def main(settings: Settings, *, only: str = "", json_path: str = "") -> None:
    """Measure the networks named in `only` (comma-separated; all by default) and print a line for each."""
    names = chosen(only)
    load = os.getloadavg()[0]
    if load > 0.5 * len(os.sched_getaffinity(0)):  # PyTorch's threads wait for each other, and lose most
        print(
            f"Others are at work on this machine (load {load:.1f}): its figures, above all PyTorch's, are too low"
        )
    if importlib.util.find_spec("torch") is None:
        print(INSTALL)
    rows: list[dict[str, Any]] = []
    for name in tqdm(names, unit="network", leave=False, disable=None):
        row = measure_apart(name, NETWORKS[name], settings)
        if not any("device" in earlier for earlier in rows) and "device" in row:
            tqdm.write(f"{row['device']}, {row['dtype']}, {row['peer']}\n{HEADER}")
        rows.append(row)
        tqdm.write(format_row(row))
        if json_path:
            pathlib.Path(json_path).write_text(json.dumps(rows, indent=1) + "\n")
