"""Hold out one plate (batch, donor, ...) after the other: train on the rest, judge on it, beside two baselines.

    python experiments/hold_out.py --config=configs/lincs/held_out_plates.py --workdir=runs/plates \
        --config.data.directory=data/lincs/crops/1.0.0
    python experiments/hold_out.py --config=configs/lincs/held_out_plates.py --by=Metadata_Batch_Number --workdir=...

Every fold is a run of its own below the work directory, as of experiments/train.py: the same command goes on where
it was stopped. Then index.html shows cells and wells named right with 95 % intervals, for the network, for a logistic
regression on intensity statistics of every channel, and for one that knows nothing but the number of cells.
"""

import pathlib
import re
import sys
from collections.abc import Mapping

import ml_collections
import polars as pl
from absl import app, flags, logging
from ml_collections import config_flags

from coos import console
from coos import workdir as work
from coos.data import cell_parts, cells
from coos.evaluators import held_out, trained
from coos.profiles.table import listing
from coos.report import held_out as report
from coos.train import loop, run, single_cells

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file of task 'single_cells'.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the folds and the page.", required=True)
_BY = flags.DEFINE_string("by", "Metadata_Plate", "Column of the wells; each of its values is held out once.")
flags.mark_flag_as_required("config")

NETWORK = "network"


def values(config: ml_collections.ConfigDict, by: str) -> list[str]:
    """The values of the column among the wells that `data.where` takes, as text; ValueError for fewer than two."""
    places = cells.read_places(config.data.directory)
    if by not in places.columns:
        raise ValueError(f"--by={by}: no such column; there are {', '.join(places.columns)}")
    taken = places.filter(
        pl.Series(cell_parts.matching(places, config.data.where, "data.where", default=True))
    )
    found = taken[by].drop_nulls().cast(pl.String).unique().sort().to_list()
    if len(found) < 2:
        raise ValueError(f"--by={by}: only {found}; holding out needs at least two values")
    return found


def fold_config(config: ml_collections.ConfigDict, by: str, value: str) -> ml_collections.ConfigDict:
    """The config of the fold without the wells of this value; of those, the ones that `data.where` takes are judged."""
    fold = config.copy_and_resolve_references()
    quoted = value.replace("'", "''")
    taken = f"({config.data.where}) AND " if config.data.where else ""
    fold.data.held_out = f"{taken}CAST({by} AS VARCHAR) = '{quoted}'"
    if taken:  # the others of this value must not be trained on either
        fold.data.where = f"({config.data.where}) AND CAST({by} AS VARCHAR) <> '{quoted}'"
    fold.evaluation.sets = ("held_out",)
    fold.report.reference = "held_out"
    return fold


def check_folds(configs: Mapping[str, ml_collections.ConfigDict]) -> None:
    """ValueError, before anything is trained, where folds have other classes, or a fold nothing to judge."""
    classes: dict[str, list[str]] = {}
    for value, config in configs.items():
        try:
            dataset = single_cells.describe(config, config.data.directory)
        except ValueError as error:
            raise ValueError(f"holding out {value}: {error}") from error
        classes[value] = dataset["class_names"]
    first, names = next(iter(classes.items()))
    for value, others in classes.items():
        alone = sorted(set(names) ^ set(others))
        if alone:
            raise ValueError(
                f"without {value} the classes are others than without {first}: {listing(alone)} stand in one alone; "
                "leave them out with --config.data.where"
            )


def judge(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, work.Predictions]:
    """Train one fold, and predict its held-out cells with the network and with the baselines."""
    if not run.train(config, workdir):
        raise InterruptedError(f"{workdir}: stopped; the same command goes on")
    trained.evaluate(workdir)
    predictions = {NETWORK: work.load_predictions(workdir / "predictions" / "held_out.npz")}
    counts = cells.read_places(config.data.directory)["Metadata_cell_count"].to_numpy()
    training, judged = (
        single_cells.load_set(config, config.data.directory, name) for name in ("training", "held_out")
    )
    for name, found in held_out.baselines(training, judged, counts).items():
        work.save_predictions(workdir, f"held_out_{name.replace(' ', '_')}", found, folder="baseline")
        predictions[name] = found
    return predictions


def show(found: dict) -> str:
    """The table of the page as text."""
    lines = [f"{'':<22}{'':<24}" + "".join(f"{text:>34}" for text in report.METRICS.values())]
    for fold, methods in found.items():
        for method, scores in methods.items():
            texts = (
                f"{100 * s.value:.1f} % [{100 * s.low:.1f}, {100 * s.high:.1f}]" for s in scores.values()
            )
            lines.append(f"{fold:<22}{method:<24}" + "".join(f"{text:>34}" for text in texts))
    return "\n".join(lines)


def hold_out(config: ml_collections.ConfigDict, workdir: pathlib.Path, by: str) -> pathlib.Path:
    """All folds, the table, and the page; returns where the page is."""
    if config.data.held_out:
        raise ValueError(
            f"data.held_out={config.data.held_out!r}: this script holds out; leave wells out with data.where"
        )
    configs = {value: fold_config(config, by, value) for value in values(config, by)}
    check_folds(configs)
    folds = {}
    for value, fold in configs.items():
        logging.info("holding out %s = %s", by, value)
        folds[value] = judge(fold, workdir / re.sub(r"[^\w.-]", "_", value))
    dataset = single_cells.describe(config, config.data.directory)
    details = {"dataset": dataset["directory"], "config": config.to_json_best_effort()}
    page, found = report.write(
        workdir,
        folds,
        title=f"{config.report.title}: held out by {by}",
        by=by,
        class_names=dataset["class_names"],
        simulated=dataset["simulated"],
        details=details,
    )
    labels = {**run.row_labels(config, dataset), "step": None, "n": None}
    rows = [row for fold, methods in found.items() for row in held_out.result_rows(fold, methods, labels)]
    (workdir / "results.jsonl").unlink(missing_ok=True)
    work.append_rows(workdir / "results.jsonl", rows)
    print(show(found))
    print(report.summary(report.pooled(folds), by))
    return page


def main(argv: list[str]) -> None:
    """Hold out in turn, and say where the page is."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    workdir = pathlib.Path(_WORKDIR.value).resolve()
    try:
        if _CONFIG.value.get("task") != "single_cells":
            raise ValueError("the config's task is not 'single_cells'; see configs/lincs/")
        page = hold_out(_CONFIG.value, workdir, _BY.value)
    except (ValueError, OSError, loop.NonFiniteLoss) as error:
        sys.exit(f"hold_out.py: {error}")
    print(page)


if __name__ == "__main__":
    app.run(main, flags_parser=console.parse_flags)
