"""Write a small simulated release of a study, in the layout of the official one.

python experiments/simulate.py coos7 --out=DIR --cells_per_class=300 --seed=0
python experiments/simulate.py features --out=DIR     # features of single cells of a LINCS-like screen
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


STUDIES: Mapping[str, Callable[[], int]] = {"coos7": simulate_coos7, "features": simulate_features}


def main(argv: Sequence[str]) -> None:
    """Simulate the study named on the command line and print how fast it went."""
    if len(argv) != 2 or argv[1] not in STUDIES:
        raise app.UsageError(f"name one study of: {', '.join(STUDIES)}; got {' '.join(argv[1:]) or 'none'}")
    start = time.perf_counter()
    try:
        cells = STUDIES[argv[1]]()
    except OSError as error:
        raise SystemExit(f"cannot write the release: {error}") from error
    seconds = time.perf_counter() - start
    print(f"{cells:,} cells in {seconds:.1f} s: {cells / seconds:,.0f} cells/s")


if __name__ == "__main__":
    app.run(main)
