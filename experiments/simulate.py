"""Write a small simulated release of a study, in the layout of the official one.

python experiments/simulate.py coos7 --out=DIR --cells_per_class=300 --seed=0
python experiments/simulate.py features --out=DIR     # features of single cells of a LINCS-like screen
python experiments/simulate.py cell_painting --out=DIR --compounds=400 --height=96 --width=128   # fields and assays
"""

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import h5py
from absl import app, flags

from coos.data import simulate

FLAGS = flags.FLAGS
flags.DEFINE_string("out", None, "Folder for the files of the release.", required=True)
flags.DEFINE_integer("cells_per_class", 300, "coos7: training cells of each class.", lower_bound=1)
flags.DEFINE_integer("compounds", 400, "cell_painting: compounds; every tenth has two wells.", lower_bound=1)
flags.DEFINE_integer("height", 96, "cell_painting: height of a view in px; 520 in the study.", lower_bound=1)
flags.DEFINE_integer("width", 128, "cell_painting: width of a view in px; 696 in the study.", lower_bound=1)
flags.DEFINE_integer("views_per_well", 6, "cell_painting: views of each well.", lower_bound=1)
flags.DEFINE_enum("format", "npz", simulate.FORMATS, "cell_painting: one .npz a view, or one TIFF a channel.")
flags.DEFINE_integer("seed", 0, "Seed: the same seed gives the same pixels.", lower_bound=0)
flags.DEFINE_boolean("overwrite", False, "Replace files of an earlier release.")


def simulate_coos7() -> int:
    """Write the five files of a COOS-7-like release and return how many cells they hold."""
    paths = simulate.write_release(
        FLAGS.out,
        cells_per_class=FLAGS.cells_per_class,
        seed=FLAGS.seed,
        progress=True,
        overwrite=FLAGS.overwrite,
    )
    sizes = {}
    for split, path in paths.items():
        with h5py.File(path) as file:
            sizes[split] = len(file["labels"])
        print(f"{split:>8}: {sizes[split]:7,} cells in {path}")
    return sum(sizes.values())


def simulate_features() -> int:
    """Write features of single cells and their metadata, and return how many cells there are."""
    return simulate.write_cell_features(
        pathlib.Path(FLAGS.out), seed=FLAGS.seed, progress=True, overwrite=FLAGS.overwrite
    )


def simulate_cell_painting() -> int:
    """Write views, profiles and centres of cells of treated wells and a ChEMBL; return how many views there are."""
    return simulate.write_screen(
        FLAGS.out,
        compounds=FLAGS.compounds,
        height=FLAGS.height,
        width=FLAGS.width,
        views_per_well=FLAGS.views_per_well,
        view_format=FLAGS.format,
        seed=FLAGS.seed,
        progress=True,
        overwrite=FLAGS.overwrite,
    )


# What simulates a study, and what it counts.
STUDIES: Mapping[str, tuple[Callable[[], int], str]] = {
    "coos7": (simulate_coos7, "cells"),
    "features": (simulate_features, "cells"),
    "cell_painting": (simulate_cell_painting, "views"),
}


def main(argv: Sequence[str]) -> None:
    """Simulate the study named on the command line and print how fast it went."""
    if len(argv) != 2 or argv[1] not in STUDIES:
        raise app.UsageError(f"name one study of: {', '.join(STUDIES)}; got {' '.join(argv[1:]) or 'none'}")
    simulate_study, unit = STUDIES[argv[1]]
    start = time.perf_counter()
    try:
        count = simulate_study()
    except (OSError, ValueError) as error:
        raise SystemExit(f"cannot write the release: {error}") from error
    seconds = time.perf_counter() - start
    print(f"{count:,} {unit} in {seconds:.1f} s: {count / seconds:,.0f} {unit}/s")


if __name__ == "__main__":
    app.run(main)
