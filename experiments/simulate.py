"""Write a small simulated release of a study, in the layout of the official one.

python experiments/simulate.py coos7 --out=DIR --cells_per_class=300 --seed=0
python experiments/simulate.py features --out=DIR     # features of single cells of a LINCS-like screen
python experiments/simulate.py cell_painting --out=DIR --compounds=400 --height=96 --width=128   # fields and assays
python experiments/simulate.py lincs --out=DIR --doses=1.111111,10 --height=1080 --width=1080   # plates
python experiments/simulate.py bbbc --set=bbbc021 --out=DIR --mechanisms=4   # whole fields of view, eight sets
"""

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import h5py
from absl import app, flags

from coos.data import simulate

FLAGS = flags.FLAGS
flags.DEFINE_string("out", None, "Folder for the files of the release.", required=True)
flags.DEFINE_integer("cells_per_class", 300, "coos7: training cells of each class.", lower_bound=1)
flags.DEFINE_integer("compounds", 400, "cell_painting: compounds; every tenth has two wells.", lower_bound=1)
flags.DEFINE_integer(
    "height",
    None,
    "Height of a field in px. cell_painting: 96, 520 in the study; lincs: 256; bbbc: 96.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "width",
    None,
    "Width of a field in px. cell_painting: 128, 696 in the study; lincs: 256; bbbc: 96.",
    lower_bound=1,
)
flags.DEFINE_integer("views_per_well", 6, "cell_painting: views of each well.", lower_bound=1)
flags.DEFINE_enum("format", "npz", simulate.FORMATS, "cell_painting: one .npz a view, or one TIFF a channel.")
flags.DEFINE_integer(
    "mechanisms", None, "lincs: mechanisms that compounds share (8); bbbc021: likewise (3).", lower_bound=1
)
flags.DEFINE_integer(
    "compounds_per_mechanism",
    None,
    "lincs: compounds of each (3); four more are without. bbbc021: compounds of each (2).",
    lower_bound=1,
)
flags.DEFINE_list("doses", ["3.333333", "10"], "lincs: doses of each compound in uM, rising.")
flags.DEFINE_integer(
    "replicates", None, "lincs: plates of each plate map (5); bbbc021: plates (2).", lower_bound=1
)
flags.DEFINE_integer("maps", 1, "lincs: plate maps.", lower_bound=1)
flags.DEFINE_integer("batches", 2, "lincs: batches of plates.", lower_bound=1)
flags.DEFINE_boolean(
    "even_batches", False, "lincs: spread the replicates of a map evenly, not one here and the rest there."
)
flags.DEFINE_integer("dmso", 24, "lincs: control wells of each plate.", lower_bound=1)
flags.DEFINE_integer(
    "wells", None, "lincs: wells of a plate, up to 384; as many as needed if not given.", lower_bound=1
)
flags.DEFINE_integer(
    "sites_per_well", None, "lincs: fields of each well (1); bbbc021: likewise (4).", lower_bound=1
)
flags.DEFINE_enum("set", "bbbc013", tuple(simulate.RELEASES), "bbbc: the set.")
flags.DEFINE_integer("concentrations", 2, "bbbc021: concentrations of each compound.", lower_bound=1)
flags.DEFINE_integer("images_per_class", 12, "bbbc, class folders: images of each class.", lower_bound=1)
flags.DEFINE_enum("image_format", "png", simulate.IMAGE_FORMATS, "lincs: files of the images.")
flags.DEFINE_enum("dtype", "uint8", simulate.DTYPES, "lincs: dtype of the images.")
flags.DEFINE_integer("seed", 0, "Seed: the same seed gives the same pixels.", lower_bound=0)
flags.DEFINE_boolean("overwrite", False, "Replace files of an earlier release.")

PLATES = ("mechanisms", "compounds_per_mechanism", "replicates", "sites_per_well")


def _given(*names: str) -> dict[str, Any]:
    """Flags with a value; what is not given is for the simulation to choose."""
    return {name: FLAGS[name].value for name in names if FLAGS[name].value is not None}


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
        **_given("height", "width"),
        views_per_well=FLAGS.views_per_well,
        view_format=FLAGS.format,
        seed=FLAGS.seed,
        progress=True,
        overwrite=FLAGS.overwrite,
    )


def simulate_lincs() -> int:
    """Write plates, where their cells are and what they got, and return how many cells there are."""
    return simulate.write_plates(
        FLAGS.out,
        doses=[_number(dose) for dose in FLAGS.doses],
        maps=FLAGS.maps,
        batches=FLAGS.batches,
        even_batches=FLAGS.even_batches,
        dmso=FLAGS.dmso,
        image_format=FLAGS.image_format,
        dtype=FLAGS.dtype,
        seed=FLAGS.seed,
        progress=True,
        overwrite=FLAGS.overwrite,
        **_given("wells", "height", "width", *PLATES),
    )


def simulate_bbbc() -> int:
    """Write whole fields of view of one set, and return how many there are."""
    return simulate.write_fields(
        FLAGS.out,
        FLAGS.set,
        doses=FLAGS.concentrations,
        images_per_class=FLAGS.images_per_class,
        seed=FLAGS.seed,
        progress=True,
        overwrite=FLAGS.overwrite,
        **_given("height", "width", *PLATES),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"--doses has {text!r}; it takes numbers with commas between, such as 1.111111,10"
        ) from None


# What simulates a study, and what it counts.
STUDIES: Mapping[str, tuple[Callable[[], int], str]] = {
    "coos7": (simulate_coos7, "cells"),
    "features": (simulate_features, "cells"),
    "cell_painting": (simulate_cell_painting, "views"),
    "lincs": (simulate_lincs, "cells"),
    "bbbc": (simulate_bbbc, "fields"),
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
