"""Measure what training costs, each figure beside its peer in the same run.

    python experiments/benchmark.py train     # the whole loop beside the bare compiled step
    python experiments/benchmark.py input     # the input pipeline beside a plain memory-mapped read
    python experiments/benchmark.py retrieval # profile steps and retrieval metrics beside other tools
    python experiments/benchmark.py models    # every network, forward and training, beside the same in PyTorch
    python experiments/benchmark.py multitask # scores of sparse assays, bootstrap, tests, beside scikit-learn
    python experiments/benchmark.py views     # reading whole fields of view and training GapNet on them; memory
    python experiments/benchmark.py lincs     # single cells: export, cropping, training, profiling; beside PyTorch
    python experiments/benchmark.py dose_response # concentration-response fits, beside SciPy; coverage, false alarms
    python experiments/benchmark.py folds     # networks side by side on devices, beside one after another
    python experiments/benchmark.py features  # texture of cells, beside mahotas
    python experiments/benchmark.py classifiers # kNN and L1 logistic regression, beside scikit-learn

Other networks and sizes: --config=configs/coos7/modern.py --config.model.width=64 and so on. The images are
simulated in memory: their content does not matter for speed.
"""

import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from absl import app, flags
from benchmarks import cells, classifiers, dose_response, features, folds, models, multitask, retrieval, views
from ml_collections import config_flags

from coos import console, optim
from coos import workdir as work
from coos.data import pipeline, simulate
from coos.data.source import Source
from coos.train import loop, run
from coos.train import state as states

DEFAULT = str(pathlib.Path(__file__).parent.parent / "configs" / "coos7" / "quickstart.py")
_CONFIG = config_flags.DEFINE_config_file("config", DEFAULT, "Config of the network and the optimizer.")
_CELLS = flags.DEFINE_integer("cells_per_class", 300, "Size of the simulated training set.", lower_bound=10)
_STEPS = flags.DEFINE_integer("steps", 60, "Steps of each timed stretch.", lower_bound=5)
_ONLY = flags.DEFINE_string(
    "only", "", "retrieval: measure what has this in its title. models: names of networks, comma-separated."
)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed stretches of each kind, taken in turns.", lower_bound=1)
_BATCH = flags.DEFINE_integer(
    "batch", None, "models, views, lincs, features: images per batch, instead of the usual.", 1
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16"],
    "models, views, lincs: compute dtype; bfloat16 on GPUs, float32 on CPUs.",
)
_COMPILE = flags.DEFINE_boolean("compile", None, "models: torch.compile; on GPUs yes, on CPUs no.")
_SOURCE = flags.DEFINE_string("source", "", "lincs: folder with real plates, instead of simulated ones.")
_JSON = flags.DEFINE_string("json", "", "models: save the figures as JSON here.")


def simulated_source(folder: pathlib.Path) -> Source:
    """A simulated training set in a memory-mapped file, as `coos.data.source` would give it."""
    arrays = simulate.simulate_split("training", cells_per_class=_CELLS.value)
    images = np.ascontiguousarray(np.moveaxis(arrays["data"], 1, -1))
    np.save(folder / "images.npy", images)
    count = len(images)
    dataset = {"name": "simulated", "class_names": list(simulate.CLASSES), "channels": ["protein", "nucleus"]}
    return Source(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=arrays["labels"].astype(np.int32),
        ids=np.array([f"cell{i}" for i in range(count)]),
        rows=np.arange(count),
        dataset={**dataset, "image_shape": list(images.shape[1:]), "simulated": True},
    )


def in_turns(kinds: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median over rounds of what each function returns; rounds alternate, so that all see the same machine."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(_ROUNDS.value):
        for name, measure in kinds.items():
            found[name].append(measure())
            print(f"  round {turn + 1}, {name}: {found[name][-1]:,.0f} images/s", flush=True)
    return {name: statistics.median(values) for name, values in found.items()}


def measure_training(config, folder: pathlib.Path) -> dict[str, float]:
    """Images/s of the compiled step on one batch that stays on the device, and of the whole loop.

    The loop's figure is the one it logs: index iterator, gathering, transfer, augmentation, step, losses to
    the host, finiteness check, result rows, TensorBoard, progress bar; without evaluations and checkpoints.
    """
    source = simulated_source(folder)
    classifier = run.build(config, source, folder)
    optimizer = optim.create(config.optimizer, num_steps=config.num_steps)
    host = states.create(classifier.init, optimizer, seed=0)
    when = run.plan(config)
    resident = pipeline.fits_on_device(source, mode=config.data.mode)
    step = run.make_step(classifier, optimizer, source if resident else None)
    number = max(2, _STEPS.value // when.per_dispatch)

    def chunks(count: int) -> Iterator[pipeline.Chunk]:
        iterator = pipeline.index_iterator(len(source), batch_size=config.batch_size, seed=0)
        lengths = iter([when.per_dispatch] * count)
        return pipeline.chunks(iterator, source, lengths=lengths, resident=resident)

    (fixed,) = chunks(1)
    jax.block_until_ready(step(pipeline.replicate(host), fixed.batch))

    def bare_step() -> float:
        state = pipeline.replicate(host)
        began = time.perf_counter()
        for _ in range(number):
            state, _ = step(state, fixed.batch)
        jax.block_until_ready(state)
        return number * when.per_dispatch * config.batch_size / (time.perf_counter() - began)

    def whole_loop() -> float:
        total = (number + 2) * when.per_dispatch
        plan = dataclasses.replace(
            when,
            num_steps=total,
            log_every=when.per_dispatch,
            evaluate_every=total,
            checkpoint_every=total,
            select="none",
        )
        labels = {"study": "benchmark", "run": "train", "dataset": "simulated", "seed": 0}
        with tempfile.TemporaryDirectory(dir=folder) as place:
            workdir = pathlib.Path(place)
            loop.fit(
                pipeline.replicate(host),
                step=step,
                chunks=pipeline.prefetch(chunks(number + 2)),
                plan=plan,
                evaluate=lambda state: {"none": 0.0},
                recorder=loop.Recorder(workdir, plan, start=0, batch_size=config.batch_size, labels=labels),
                ids=source.ids,
                best=loop.Best(),
            )
            rows = work.read_rows(workdir / "results.jsonl")
        rates = [row["value"] for row in rows if row["metric"] == "images_per_second"]
        return statistics.harmonic_mean(rates[1:])  # the first one has the start in it

    return in_turns({"step": bare_step, "loop": whole_loop})


def measure_input(config, folder: pathlib.Path) -> dict[str, float]:
    """Images/s of batches gathered at random from the memory map, and of the pipeline up to the device."""
    source = simulated_source(folder)
    batch_size, number = config.batch_size, 20 * _STEPS.value
    generator = np.random.default_rng(0)

    def memmap() -> float:
        batches = generator.integers(0, len(source), (number, batch_size))
        began = time.perf_counter()
        for rows in batches:
            source.images[rows]
        return number * batch_size / (time.perf_counter() - began)

    def indices() -> float:
        iterator = pipeline.index_iterator(len(source), batch_size=batch_size, seed=0)
        began = time.perf_counter()
        for _ in range(number):
            next(iterator)
        return number * batch_size / (time.perf_counter() - began)

    def streamed(resident: bool) -> float:
        iterator = pipeline.index_iterator(len(source), batch_size=batch_size, seed=0)
        chunks = pipeline.chunks(iterator, source, lengths=iter([1] * number), resident=resident)
        began = time.perf_counter()
        for chunk in pipeline.prefetch(chunks):
            jax.block_until_ready(chunk.batch)
        return number * batch_size / (time.perf_counter() - began)

    return in_turns(
        {
            "memmap": memmap,
            "indices": indices,
            "pipeline, streamed": lambda: streamed(False),
            "pipeline, resident": lambda: streamed(True),
        }
    )


MEASURES = {"train": (measure_training, "step"), "input": (measure_input, "memmap")}


def measure_models() -> None:
    """The networks, with the flags that only they have."""
    settings = models.Settings(_ROUNDS.value, _BATCH.value, _DTYPE.value, _COMPILE.value)
    models.main(settings, only=_ONLY.value, json_path=_JSON.value)


OTHERS: dict[str, Callable[[], None]] = {
    "retrieval": lambda: retrieval.main(rounds=_ROUNDS.value, only=_ONLY.value),
    "models": measure_models,
    "folds": lambda: folds.main(rounds=_ROUNDS.value),
    "features": lambda: features.main(rounds=_ROUNDS.value, batch=_BATCH.value),
    "classifiers": lambda: classifiers.main(rounds=_ROUNDS.value),
    "dose_response": lambda: dose_response.main(rounds=_ROUNDS.value),
    "multitask": lambda: multitask.main(rounds=_ROUNDS.value),
    "views": lambda: views.main(
        rounds=_ROUNDS.value, batch=_BATCH.value, dtype=_DTYPE.value, steps=_STEPS.value
    ),
    "lincs": lambda: cells.main(
        rounds=_ROUNDS.value,
        batch=_BATCH.value,
        dtype=_DTYPE.value,
        steps=_STEPS.value,
        source=_SOURCE.value,
    ),
}


def print_measure(name: str) -> None:
    """Print a measurement of the config's training beside its peer."""
    measure, peer = MEASURES[name]
    devices = jax.local_devices()
    config = _CONFIG.value
    print(
        f"{len(devices)} x {devices[0].device_kind}, {config.model.name} width {config.model.width}, "
        f"{config.model.dtype}, batch {config.batch_size}"
    )
    with tempfile.TemporaryDirectory() as folder:
        found = measure(config, pathlib.Path(folder))
    for kind, value in found.items():
        print(f"{kind:<20}{value:>12,.0f} images/s   {value / found[peer]:6.1%} of {peer}")


def main(argv: list[str]) -> None:
    """Run the named measurement and print it beside its peer."""
    if len(argv) != 2 or argv[1] not in (*MEASURES, *OTHERS):
        raise app.UsageError(f"name one of: {', '.join((*MEASURES, *OTHERS))}")
    console.setup()
    try:
        if argv[1] in OTHERS:
            OTHERS[argv[1]]()
        else:
            print_measure(argv[1])
    except ValueError as error:
        sys.exit(f"benchmark.py: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=console.parse_flags)
