"""Single cells of plates: exporting crops, cropping on the device, training and profiling EfficientNet-B0, in cells/s.

Beside the figures that Bornholdt 2021 reports of DeepProfiler (section 4.9, run logs), and beside the same network in
PyTorch in the same run, if it is installed. Plates are simulated at the size of the real ones, 1080 x 1080 pixels in
five channels, with as many cells in a field as LINCS has; `--source` takes real ones instead. Last, what the
profiles of JUMP's two billion cells would take at the measured rate.
"""

import csv
import functools
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks import models
from configs.lincs import base
from coos import optim
from coos.data import cells, crops, pipeline, plate_files, simulate
from coos.data.source import Source
from coos.extract import representations
from coos.extract import run as extraction
from coos.models.pretrained import scaling
from coos.train import run
from coos.train import state as states
from tfds_builders.lincs import Builder

CELLS_PER_FIELD = 234  # 110 million in 136 plates of 384 wells with nine fields
CLASSES = 1144
JUMP_CELLS, DOLLARS_PER_GPU_HOUR = 2e9, 1.25  # eight A100 for $10 an hour, Bornholdt 2021, section 4.9
THESIS = {
    "export": "28 (100,000 an hour)",
    "training": "350-494 at batch 256, A100",
    "profiling": "930, ImageNet weights, A100",
}
NETWORK = "efficientnet_b0"


def simulated_release(folder: pathlib.Path) -> pathlib.Path:
    """Four plates with a few full-size fields, whose location files name as many cells as a field of LINCS has."""
    release = folder / "release"
    simulate.write_plates(
        release,
        mechanisms=1,
        compounds_per_mechanism=2,
        doses=(10.0,),
        replicates=4,
        batches=2,
        dmso=2,
        height=1080,
        width=1080,
        progress=True,
    )
    for path in release.glob("inputs/locations/*/*.csv"):
        with open(path, newline="") as file:
            rows = list(csv.reader(file))
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(rows[: CELLS_PER_FIELD + 1])
    return release


def export(release: pathlib.Path, *, form: str, processes: int) -> tuple[float, str]:
    """Cells/s of building a dataset, and its folder (one of its own every time)."""
    builder = Builder(
        source=release, config=form, data_dir=tempfile.mkdtemp(dir=release.parent), processes=processes
    )
    began = time.perf_counter()
    builder.download_and_prepare()
    seconds = time.perf_counter() - began
    return builder.info.metadata["counts"]["cells"] / seconds, str(builder.data_path)


def cropping(fields: Source, *, batch_size: int) -> Callable[[], float]:
    """Cells/s of cutting windows on the device out of fields that it holds."""
    resident = jax.device_put(fields.resident())
    cut = jax.jit(functools.partial(fields.take, resident))
    examples = jnp.asarray(np.random.default_rng(0).integers(len(fields), size=batch_size))
    jax.block_until_ready(cut(examples))
    return lambda: batch_size * _rate(lambda: jax.block_until_ready(cut(examples)))


def _rate(step: Callable[[], object], *, seconds: float = 1.0) -> float:
    """Steps/s, over at least `seconds`."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        done += 1
    return done / (time.perf_counter() - began)


def training(source: Source, *, batch_size: int, dtype: str, steps: int) -> dict[str, Callable[[], float]]:
    """Cells/s of the study's training step: the batch stays on the device, or is streamed from the crops."""
    config = base.augmented(base.get_config())
    config.update({"batch_size": batch_size, "num_steps": 1, "num_epochs": 1})
    config.data.balance = False
    config.optimizer.schedule = "flat"
    config.model.dtype = dtype
    dataset = {**source.dataset, "class_names": [str(k) for k in range(CLASSES)]}
    labels = np.random.default_rng(0).integers(CLASSES, size=len(source)).astype(np.int32)
    source = Source(source.images, labels, source.ids, source.rows, dataset)
    learner = run.make_learner(config, dataset, {})
    optimizer = optim.create(config.optimizer, num_steps=1)
    host = states.create(learner.init, optimizer, seed=0)
    step = run.make_step(learner, optimizer, None)

    def chunks(number: int):
        lengths = iter([1] * number)
        return pipeline.chunks(run.make_iterator(config, source), source, lengths=lengths, resident=False)

    (fixed,) = chunks(1)
    jax.block_until_ready(step(pipeline.replicate(host), fixed.batch))

    def timed(batches) -> float:
        state, began = pipeline.replicate(host), time.perf_counter()
        for chunk in batches:
            state, _ = step(state, chunk.batch)
        jax.block_until_ready(state)
        return steps * batch_size / (time.perf_counter() - began)

    return {
        "training, batch on the device": lambda: timed(iter([fixed] * steps)),
        "training, streamed from crops": lambda: timed(pipeline.prefetch(chunks(steps))),
    }


def profiling(
    release: pathlib.Path, representation: representations.Representation, *, batch_size: int
) -> Callable[[], float]:
    """Cells/s from the image files of one plate to profiles of its wells."""
    everything = plate_files.find(release)
    sites = everything.subset(everything.frame["Metadata_Plate"].to_numpy() == everything.plates[0])

    def once() -> float:
        with tempfile.TemporaryDirectory(dir=release.parent) as out:
            options = extraction.Options(
                out=pathlib.Path(out), batch_size=batch_size, readers=len(os.sched_getaffinity(0)) + 1
            )
            began = time.perf_counter()
            notes = extraction.extract(sites, representation, options)
            return sum(note["cells"] for note in notes.values()) / (time.perf_counter() - began)

    return once


def of_network(*, channels: int, dtype: str, pretrained: bool) -> representations.Representation:
    """EfficientNet-B0 with weights drawn at random: trained on all channels, or ImageNet's, channel by channel."""
    network = models.NETWORKS[NETWORK]
    module = models.coos.models.create(NETWORK, num_outputs=network.outputs, dtype=jnp.dtype(dtype))
    size, inputs = (224, 3) if pretrained else (128, channels)
    shapes = jax.eval_shape(lambda: module.init(jax.random.PRNGKey(0), jnp.zeros((1, size, size, inputs))))
    variables = jax.tree_util.tree_map_with_path(models.fill, shapes)

    def features(variables, images):
        if pretrained:
            images = scaling.channels_as_images(images, scaling.named("tf"), size=size)
        else:
            images = images.astype(jnp.float32) / 255
        output: Any = module.apply(variables, images, train=False)
        found = output["features"]["pool5"].astype(jnp.float32)
        return scaling.join_channels(found, channels) if pretrained else found

    return representations.Representation(
        window=representations.Window(),
        features=features,
        variables=variables,
        prefix="pool5",
        identity={"kind": "benchmark", "network": NETWORK, "pretrained": pretrained},
    )


def in_torch(*, batch_size: int, dtype: str) -> dict[str, Callable[[], float]]:
    """Cells/s of the same network in PyTorch on a batch that stays on the device; {} if it is not installed."""
    try:
        from benchmarks import torch_runs
    except ImportError as error:
        print(f"PyTorch is left out: {error}")
        return {}
    generator = np.random.default_rng(0)
    images = generator.standard_normal((batch_size, 128, 128, 5), np.float32)
    data = images, generator.integers(CLASSES, size=batch_size)
    compiled = jax.default_backend() != "cpu"
    runs = torch_runs.torch_runs(NETWORK, CLASSES, {}, data, dtype, compiled)
    for step in runs.values():
        step(1)

    def timed(step: Callable[[int], None]) -> Callable[[], float]:
        return lambda: batch_size * _rate(lambda: step(1))

    return {f"PyTorch, {kind}, batch on the device": timed(step) for kind, step in runs.items()}


def forward(crops_source: Source, *, batch_size: int, dtype: str) -> Callable[[], float]:
    """Cells/s of the network alone, on a batch that stays on the device."""
    found = of_network(channels=5, dtype=dtype, pretrained=False)
    images = jax.device_put(crops_source.gather(np.arange(batch_size) % len(crops_source)))
    compute, variables = jax.jit(found.features), jax.device_put(found.variables)
    jax.block_until_ready(compute(variables, images))
    return lambda: batch_size * _rate(lambda: jax.block_until_ready(compute(variables, images)))


def main(*, rounds: int, batch: int | None, dtype: str | None, steps: int, source: str) -> None:
    """Export, crop, train and profile in turns; medians over `rounds`."""
    on_cpu = jax.default_backend() == "cpu"
    batch_size, precision = batch or (32 if on_cpu else 256), dtype or ("float32" if on_cpu else "bfloat16")
    processes = len(os.sched_getaffinity(0))
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        release = pathlib.Path(os.path.abspath(source)) if source else simulated_release(folder)
        if source:  # what is written goes beside the copy's links, not beside the original
            (folder / "release").symlink_to(release)
            release = folder / "release"
        built = {form: export(release, form=form, processes=processes)[1] for form in ("crops", "fields")}
        of_crops, of_fields = cells.load(built["crops"], store="cache"), cells.load(built["fields"])
        measures: dict[str, Callable[[], float]] = {
            f"export of crops, {n} processes": functools.partial(
                lambda n: export(release, form="crops", processes=n)[0], n
            )
            for n in dict.fromkeys((1, processes))
        }
        measures["cropping on the device"] = cropping(of_fields, batch_size=batch_size)
        measures["cropping on the host"] = functools.partial(_host_cropping, release)
        measures |= training(of_crops, batch_size=batch_size, dtype=precision, steps=3 if on_cpu else steps)
        measures["network alone, forward"] = forward(of_crops, batch_size=batch_size, dtype=precision)
        channels = of_crops.images.shape[-1]
        for name, pretrained in (("five channels, 128 px", False), ("ImageNet weights, 5 x 224 px", True)):
            if pretrained and on_cpu and not source:
                continue  # minutes on a CPU
            shown = of_network(channels=channels, dtype=precision, pretrained=pretrained)
            measures[f"profiling from files, {name}"] = profiling(release, shown, batch_size=batch_size)
        measures |= in_torch(batch_size=batch_size, dtype=precision)
        for _ in tqdm(range(rounds), desc="rounds", disable=None):
            for name, measure in measures.items():
                found.setdefault(name, []).append(measure())
    _show(found, batch_size=batch_size, precision=precision, source=source)


def _host_cropping(release: pathlib.Path) -> float:
    """Cells/s of cutting the windows of one field on the host, the image in memory."""
    sites = plate_files.find(release)
    image, centers = plate_files.read_field(sites, 0), plate_files.read_centers(sites.locations[0])
    corners = crops.corners(centers, 128)
    return len(centers) * _rate(lambda: crops.cut(image, corners, 128))


def _show(found: dict[str, list[float]], *, batch_size: int, precision: str, source: str) -> None:
    devices = jax.local_devices()
    kind = f"plates in {source}" if source else "simulated plates"
    print(
        f"\n{kind}, EfficientNet-B0, batch {batch_size}, {precision}, {len(devices)} x {devices[0].device_kind}"
    )
    print(f"{'':<48}{'cells/s':>10}   thesis")
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, middle in medians.items():
        thesis = next((text for word, text in THESIS.items() if name.startswith(word)), "")
        print(f"{name:<48}{middle:>10,.0f}   {thesis}")
    rate = medians["profiling from files, five channels, 128 px"]
    hours = JUMP_CELLS / rate / 3600
    print(
        f"JUMP's {JUMP_CELLS / 1e9:.0f} billion cells at {rate:,.0f} cells/s: {hours:,.0f} hours of this machine; on a "
        f"GPU as fast, at ${DOLLARS_PER_GPU_HOUR} an hour: ${hours * DOLLARS_PER_GPU_HOUR:,.0f}"
    )
