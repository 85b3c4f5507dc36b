"""Whole fields of view, 520 x 696 x 5 in 16 bits: how fast they are read, and how fast GapNet trains on them.

The fields are simulated once, built by the study's own builder and read back in random order, from the records as
training does and from a decoded copy. Then what a network keeps between forward and backward, from the shapes alone.
"""

import contextlib
import functools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from configs.cell_painting import gapnet
from coos import models, optim
from coos.data import pipeline, simulate
from coos.data import source as sources
from coos.data.source import Source
from coos.models import summary
from coos.train import run
from coos.train import state as states
from tfds_builders.cell_painting import Builder

SHAPE = (520, 696, 5)
FEWEST_COMPOUNDS = 53  # that a simulated release has
KEPT = (("gapnet", 128), ("milnet", 64), ("mcnn", 100), ("resnet101", 24), ("densenet121", 12))
WITH_REMAT = ("resnet101", "densenet121")


def build_views(folder: pathlib.Path) -> str:
    """The dataset of simulated full-size fields; its folder."""
    release = folder / "release"
    height, width, _ = SHAPE
    simulate.write_screen(
        release,
        compounds=FEWEST_COMPOUNDS,
        height=height,
        width=width,
        views_per_well=2,
        write_labels=True,
        progress=True,
    )
    builder = Builder(source=release, data_dir=folder / "data", split_fractions=(0.9, 0.05, 0.05))
    began = time.perf_counter()
    builder.download_and_prepare()
    seconds = time.perf_counter() - began
    number = sum(split.num_examples for split in builder.info.splits.values())
    print(f"built {number} views: {number / seconds:.1f} views/s ({_megabytes(number / seconds):.0f} MB/s)")
    return str(builder.data_path)


def _megabytes(views: float) -> float:
    return views * np.prod(SHAPE) * 2 / 1e6


def reading(source: Source, *, batch_size: int, seconds: float = 5.0) -> float:
    """Views/s of shuffled batches up to the device, prefetched, as training gets them."""
    iterator = pipeline.index_iterator(len(source), batch_size=batch_size, seed=0)
    chunks = pipeline.chunks(iterator, source, lengths=iter([1] * 10**6), resident=False)
    done, began = 0, time.perf_counter()
    with contextlib.closing(pipeline.prefetch(chunks)) as prefetched:
        for chunk in prefetched:
            jax.block_until_ready(chunk.batch)
            done += batch_size
            if time.perf_counter() - began > seconds:
                return done / (time.perf_counter() - began)
    raise AssertionError("the batches are endless")


def training(source: Source, *, batch_size: int, dtype: str, steps: int) -> dict[str, Callable[[], float]]:
    """Views/s of GapNet's step on one batch that stays on the device, and on batches streamed to it."""
    config = gapnet.get_config()
    config.update({"batch_size": batch_size, "num_steps": 1})
    config.model.dtype = dtype
    learner = run.make_learner(config, source.dataset, {})
    optimizer = optim.create(config.optimizer, num_steps=1)
    host = states.create(learner.init, optimizer, seed=0)
    step = run.make_step(learner, optimizer, None)

    def chunks(number: int) -> Iterator[pipeline.Chunk]:
        iterator = run.make_iterator(config, source)
        return pipeline.chunks(iterator, source, lengths=iter([1] * number), resident=False)

    (fixed,) = chunks(1)
    jax.block_until_ready(step(pipeline.replicate(host), fixed.batch))

    def timed(batches: Iterator[pipeline.Chunk]) -> float:
        state, began = pipeline.replicate(host), time.perf_counter()
        for chunk in batches:
            state, _ = step(state, chunk.batch)
        jax.block_until_ready(state)
        return steps * batch_size / (time.perf_counter() - began)

    return {
        "GapNet step, batch on the device": lambda: timed(iter([fixed] * steps)),
        "GapNet step, streamed from records": lambda: timed(pipeline.prefetch(chunks(steps))),
    }


def kept_bytes(name: str, *, batch_size: int, dtype: str, remat: bool) -> int:
    """Bytes of what the backward pass needs of the forward one, parameters included, at the study's size."""
    options = {"remat": True} if remat else {}
    model = models.create(name, num_outputs=209, dtype=jnp.dtype(dtype), **options)
    variables = summary.shapes(model, SHAPE)
    statistics = variables.get("batch_stats", {})

    def backward(params, images):
        def loss(params):
            inputs = {"params": params, "batch_stats": statistics}
            rngs = {"dropout": jax.random.PRNGKey(0)}
            output, _ = model.apply(inputs, images, train=True, mutable=["batch_stats"], rngs=rngs)
            return jnp.square(output["logits"]).sum()

        return jax.vjp(loss, params)[1]

    statistics = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), statistics)
    images = jax.ShapeDtypeStruct((batch_size, *SHAPE), jnp.float32)
    kept = jax.eval_shape(backward, variables["params"], images)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))


def print_memory() -> None:
    """What each network keeps at the published batch size."""
    print(f"\n{'kept for the backward pass, GiB':<34}{'batch':>6}{'float32':>10}{'bfloat16':>10}")
    for name, batch_size in KEPT:
        for remat in (False, True) if name in WITH_REMAT else (False,):
            sizes = [
                kept_bytes(name, batch_size=batch_size, dtype=dtype, remat=remat) / 2**30
                for dtype in ("float32", "bfloat16")
            ]
            title = name + (", recomputed (remat)" if remat else "")
            print(f"{title:<34}{batch_size:>6}" + "".join(f"{size:>10.1f}" for size in sizes))


def main(*, rounds: int, batch: int | None, dtype: str | None, steps: int) -> None:
    """Build, read, train and print, in turns, medians over `rounds`."""
    on_cpu = jax.default_backend() == "cpu"
    batch_size = batch or (4 if on_cpu else 32)
    with tempfile.TemporaryDirectory() as folder:
        directory = build_views(pathlib.Path(folder))
        measures: dict[str, Callable[[], float]] = {}
        for store in ("records", "cache"):
            source = sources.load(directory, "train", store=store)
            measures[f"reading, {store}"] = functools.partial(reading, source, batch_size=batch_size)
        source = sources.load(directory, "train", store="records")
        precision = dtype or ("float32" if on_cpu else "bfloat16")
        measures |= training(source, batch_size=batch_size, dtype=precision, steps=3 if on_cpu else steps)
        found: dict[str, list[float]] = {name: [] for name in measures}
        for _ in tqdm(range(rounds), desc="rounds", disable=None):
            for name, measure in measures.items():
                found[name].append(measure())
    device = jax.local_devices()[0].device_kind
    print(
        f"\n520 x 696 x 5 uint16 views, batch {batch_size}, {len(jax.local_devices())} x {device}, {precision}"
    )
    for name, values in found.items():
        middle = statistics.median(values)
        print(f"{name:<38}{middle:>9.1f} views/s{_megabytes(middle):>8.0f} MB/s")
    print_memory()
