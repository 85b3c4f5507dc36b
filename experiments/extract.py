"""Profiles of wells: the cells of every field through a network, aggregated well by well.

    python experiments/extract.py --source=RELEASE --workdir=runs/x --out=features/x               # a trained network
    python experiments/extract.py --source=RELEASE --workdir=runs/x --untrained --out=features/u   # before training
    python experiments/extract.py --source=RELEASE --weights=weights/efficientnet --out=features/i # ImageNet
    python experiments/extract.py --source=RELEASE --statistics --out=features/s                   # intensities alone
    python experiments/extract.py ... --worker=3 --num_workers=16                                  # one of 16 machines

Writes <out>/wells/<plate>.parquet, and with --cells the single cells. The same command again goes on after a kill, and
does nothing when all is there. Then experiments/profile.py --config.data='<out>/wells/*.parquet'.
"""

import pathlib
import sys
from typing import Any

from absl import app, flags

from coos import console
from coos.data import plate_files, plate_problems
from coos.data.plate_files import Sites
from coos.extract import output, representations, run, windows
from coos.extract.representations import Representation

_SOURCE = flags.DEFINE_string("source", None, "Folder with images and locations of plates.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for the tables.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of a run: its network, after its best step.")
_UNTRAINED = flags.DEFINE_bool("untrained", False, "With --workdir: its network with fresh weights.")
_SEED = flags.DEFINE_integer("seed", None, "Of fresh weights (default: that of the run).")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Folder of experiments/import_weights.py (three channels): each channel through it."
)
_STATISTICS = flags.DEFINE_bool(
    "statistics", False, "No network: statistics of the intensities of each channel."
)
_CORRELATIONS = flags.DEFINE_bool(
    "correlations", False, "With --statistics: correlations between channels too."
)
_LAYER = flags.DEFINE_string("layer", "pool5", "Layer of the network; maps are averaged over space.")
_SIZE = flags.DEFINE_integer(
    "size", 224, "With --weights: pixels of the network's input; 0: as cut.", lower_bound=0
)
_SCALING = flags.DEFINE_enum(
    "scaling",
    "tf",
    representations.SCALINGS,
    "With --weights: input in [-1, 1] as Bornholdt 2021, or the own one.",
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    ("float32", "bfloat16"),
    "Of the network (default: as trained; float32 with --weights).",
)
_INDEX = flags.DEFINE_string(
    "index", None, "index.csv (default: SOURCE/inputs/metadata/index.csv if it is there)."
)
_CHANNELS = flags.DEFINE_list("channels", None, "Names of ch1, ch2, ..., or columns of the index.")
_PLATES = flags.DEFINE_list("plates", None, "Only these plates.")
_CROP_SIZE = flags.DEFINE_integer(
    "crop_size", None, "Pixels around a cell (default: those of the training, else 128).", lower_bound=1
)
_WINDOW = flags.DEFINE_enum(
    "window",
    None,
    windows.WINDOWS,
    "Whole pixels, or resampled (default: as in training, else exact).",
)
_AGGREGATE = flags.DEFINE_enum(
    "aggregate", "median", output.METHODS, "How the cells of a well become one row."
)
_CELLS = flags.DEFINE_enum(
    "cells", "none", output.CELLS, "Keep single cells: DeepProfiler's .npz per field, or parquet per well."
)
_PROBLEMS = flags.DEFINE_enum(
    "problems", "stop", plate_problems.POLICIES, "Stop at missing or wrong files, or leave out and list them."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Cells that a device computes at once.", lower_bound=1)
_READERS = flags.DEFINE_integer("readers", 4, "Threads that read images.", lower_bound=1)
_WORKER = flags.DEFINE_integer(
    "worker", 0, "The number of this machine, from 0, of --num_workers.", lower_bound=0
)
_NUM_WORKERS = flags.DEFINE_integer("num_workers", 1, "Machines that share out the plates.", lower_bound=1)

ONLY_WITH = {  # flags that mean nothing without another
    "untrained": "workdir",
    "seed": "untrained",
    "correlations": "statistics",
    "size": "weights",
    "scaling": "weights",
}


def check_flags() -> None:
    """Raise ValueError unless one kind of features is asked for, and only what belongs to it."""
    given = [name for name in ("workdir", "weights", "statistics") if flags.FLAGS[name].value]
    if len(given) != 1:
        said = " and ".join(f"--{name}" for name in given) or "none of them"
        raise ValueError(f"give one of --workdir, --weights and --statistics; found {said}")
    for name, other in ONLY_WITH.items():
        if flags.FLAGS[name].present and not flags.FLAGS[other].value:
            raise ValueError(f"--{name}: goes with --{other}")


def make_representation(sites: Sites) -> Representation:
    """What to compute of every cell, as the flags say."""
    window: dict[str, Any] = {"crop_size": _CROP_SIZE.value, "window": _WINDOW.value}
    if _STATISTICS.value:
        return representations.of_statistics(sites.channels, correlations=_CORRELATIONS.value, **window)
    network = {"layer": _LAYER.value, "precision": _PRECISION.value, **window}
    if _WORKDIR.value:
        folder = pathlib.Path(_WORKDIR.value).resolve()
        return representations.of_run(folder, untrained=_UNTRAINED.value, seed=_SEED.value, **network)
    folder, channels = pathlib.Path(str(_WEIGHTS.value)).resolve(), len(sites.channels)
    return representations.of_weights(
        folder, num_channels=channels, size=_SIZE.value, scaling=_SCALING.value, **network
    )


def extract(out: pathlib.Path) -> dict[str, dict]:
    """Extract as the flags say; returns the notes about the plates."""
    check_flags()
    options = run.Options(
        out=out,
        aggregate=_AGGREGATE.value,
        cells=_CELLS.value,
        problems=_PROBLEMS.value,
        batch_size=_BATCH_SIZE.value,
        readers=_READERS.value,
        worker=_WORKER.value,
        num_workers=_NUM_WORKERS.value,
    )
    source = pathlib.Path(_SOURCE.value).resolve()
    sites = plate_files.find(source, index=_INDEX.value, channels=_CHANNELS.value, plates=_PLATES.value)
    settings = {"source": str(source), "index": _INDEX.value}
    return run.extract(sites, make_representation(sites), options, settings=settings)


def summary(notes: dict[str, dict]) -> str:
    """How much there is, and what was left out."""
    total = {name: sum(note[name] for note in notes.values()) for name in ("wells", "fields", "cells")}
    lines = [f"{len(notes)} plates: " + ", ".join(f"{number:,} {name}" for name, number in total.items())]
    problems: dict[str, int] = {}
    for note in notes.values():
        for problem, number in note["problems"].items():
            problems[problem] = problems.get(problem, 0) + number
    lines += [f"NOTE problems: {number:,} {problem}; see problems/" for problem, number in problems.items()]
    empty = sum(len(note["wells_without_cells"]) for note in notes.values())
    return "\n".join(lines + ([f"NOTE {empty:,} wells have no cells and no profile"] if empty else []))


def main(argv: list[str]) -> None:
    """Extract, and say what there is."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    out = pathlib.Path(_OUT.value).resolve()
    try:
        notes = extract(out)
    except (ValueError, OSError) as error:
        sys.exit(f"extract.py: {error}")
    print(summary(notes))
    print(out / "wells")


if __name__ == "__main__":
    app.run(main)
