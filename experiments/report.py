"""Write one HTML page about finished runs: how a classifier's errors grow under covariate shift, or assays.

    python experiments/report.py --workdirs "runs/raw_*,runs/stretched_*" --out report
    python experiments/report.py --workdirs "runs/gapnet_*,runs/fnn_*" --pair gapnet,fnn --out report

Work directories need predictions (experiments/evaluate.py). Runs of the same name are seeds of one
configuration; several configurations stand side by side. Which page it is depends on the task of the runs.
"""

import functools
import glob
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from coos import console, workdir
from coos.report import covariate_shift

FLAGS = flags.FLAGS
flags.DEFINE_list("workdirs", None, "Work directories, comma separated; globs are expanded.", required=True)
flags.DEFINE_string("out", None, "Folder for index.html, figures/ and tables/.", required=True)
flags.DEFINE_bool("images", True, "Show cells. Needs the data set; --noimages does without.")
flags.DEFINE_string("data_dir", None, "Where the data set lies now, if not where the runs read it.")
flags.DEFINE_integer("num_resamples", 1000, "Bootstrap resamples behind the intervals.", lower_bound=1)
flags.DEFINE_integer(
    "cells", 3, "Cells shown per class and set; of assays, views per assay and class.", lower_bound=1
)
flags.DEFINE_integer("mistakes", 8, "Mistakes shown per configuration and set.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the resamples and of the choice of cells.")
flags.DEFINE_string(
    "set", None, "Assays only: the set that is judged; default: test, or the first without it."
)
flags.DEFINE_enum("level", "well", ["well", "compound"], "Assays only: what views are averaged over.")
flags.DEFINE_list("pair", None, "Assays only: two runs for the scatter plot; default: the two best.")
flags.DEFINE_string("assay_groups", None, "Assays only: CSV of ASSAY_ID, GROUP, for their means.")
flags.DEFINE_bool("open", True, "Say how to open the page.")


def find_workdirs(patterns: Sequence[str]) -> list[pathlib.Path]:
    """Work directories that match, each once; a pattern takes only folders that hold a run."""
    found: dict[pathlib.Path, pathlib.Path] = {}
    for pattern in filter(None, (pattern.strip() for pattern in patterns)):
        name = str(pathlib.Path(pattern.strip()).expanduser())
        paths = [pathlib.Path(name)]
        # A folder may have brackets or stars in its name: a path that exists is taken as it is.
        if glob.has_magic(name) and not paths[0].exists():
            paths = [pathlib.Path(path) for path in sorted(glob.glob(name))]
            paths = [path for path in paths if (path / "config.json").exists()]
        if not paths:
            raise ValueError(f"--workdirs: no work directory matches {pattern!r}")
        found.update({path.resolve(): path for path in paths})
    if not found:
        raise ValueError("--workdirs: name at least one work directory")
    return list(found.values())


def image_loader(runs: Sequence[workdir.Run], data_dir: str | None) -> Callable[[str], Any]:
    """A function from set name to its images, read from `data_dir` or from where the first run read them."""
    # --noimages must work without the data set and what reads it.
    import ml_collections

    from coos.train import run

    directory = data_dir or runs[0].dataset.get("directory")
    if not directory or not pathlib.Path(directory).is_dir():
        raise ValueError(
            f"data set folder {directory!r} not found: give --data_dir, or --noimages for no pictures"
        )
    config = ml_collections.ConfigDict({"task": "classification", **runs[0].config})
    return functools.partial(run.task_of(config).load_set, config, directory)


def how_to_open(page: pathlib.Path) -> str:
    """What to do with the page, on this machine or from another one."""
    return (
        f"Open it in a browser: {page.resolve().as_uri()}\n"
        f"From another machine: copy the one file {page.name} (it holds all figures) and open it there."
    )


def task_of(runs: Sequence[workdir.Run]) -> str:
    """The task that all runs share; runs of before there were several are classifiers."""
    tasks = {run.config.get("task", "classification"): run for run in runs}
    if len(tasks) > 1:
        listed = ", ".join(f"{run.path} {task}" for task, run in tasks.items())
        raise ValueError(f"runs of different tasks do not fit on one page: {listed}; report them apart")
    task = next(iter(tasks))
    if task not in PAGES:
        raise ValueError(f"{runs[0].path}: no page for the task {task!r}; there are {', '.join(PAGES)}")
    return task


def write_covariate_shift(runs: Sequence[workdir.Run]) -> pathlib.Path:
    """The page of classifiers."""
    return covariate_shift.write(
        FLAGS.out,
        runs,
        images=image_loader(runs, FLAGS.data_dir) if FLAGS.images else None,
        num_resamples=FLAGS.num_resamples,
        cells=FLAGS.cells,
        mistakes=FLAGS.mistakes,
        seed=FLAGS.seed,
    )


def write_assays(runs: Sequence[workdir.Run]) -> pathlib.Path:
    """The page of assay predictions; its pictures are those of the first run of images."""
    # Reads data sets and networks, which the other page can do without.
    from coos.report import assay_groups, assays

    shown = [run for run in runs if len(run.dataset.get("image_shape") or ()) == 3]
    return assays.write(
        FLAGS.out,
        runs,
        set_name=FLAGS.set,
        level=FLAGS.level,
        pair=FLAGS.pair,
        groups=assay_groups.read(FLAGS.assay_groups) if FLAGS.assay_groups else None,
        images=image_loader(shown, FLAGS.data_dir) if FLAGS.images and shown else None,
        num_resamples=FLAGS.num_resamples,
        views=FLAGS.cells,
        seed=FLAGS.seed,
    )


PAGES = {
    "classification": write_covariate_shift,
    "multitask": write_assays,
    "single_cells": write_covariate_shift,
}


def main(argv: Sequence[str]) -> None:
    """Read the runs, write the page, print where it is; mistakes of the user end in one line."""
    if len(argv) > 1:
        raise app.UsageError(
            f"unexpected arguments {argv[1:]}; quote --workdirs so that the shell leaves it alone"
        )
    console.setup()
    try:
        runs = [workdir.load_run(path) for path in find_workdirs(FLAGS.workdirs)]
        page = PAGES[task_of(runs)](runs)
    except (ValueError, OSError) as error:
        raise SystemExit(f"report: {error}") from error
    print(page)
    if FLAGS.open:
        print(how_to_open(page))


if __name__ == "__main__":
    app.run(main)
