"""Judge a trained run: its best step on every set of its config, with DeepLoc's crops.

    python experiments/evaluate.py --workdir=runs/modern
    python experiments/evaluate.py --workdir=runs/modern --directory=data/cell_folder/mine/1.0.0 --sets=test

Writes predictions/<set>.npz and result rows to the work directory and prints a table. Predictions of another
dataset go to other_datasets/<name>/ in the work directory, so that they never replace those of the run's own.
"""

import pathlib
import sys
from typing import Any

import numpy as np
from absl import app, flags

from coos import console
from coos import workdir as work
from coos.data import pipeline
from coos.data import source as sources
from coos.evaluators import classification as evaluator
from coos.train import classification

_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of experiments/train.py.", required=True)
_DIRECTORY = flags.DEFINE_string("directory", None, "Another built dataset (default: the one trained on).")
_SETS = flags.DEFINE_list("sets", None, "Sets to judge (default: config.evaluation.sets).")

SHOWN = ("balanced_error", "accuracy", "cross_entropy", "expected_calibration_error")


def evaluate(workdir: pathlib.Path, *, directory: str | None, sets: list[str] | None) -> list[dict[str, Any]]:
    """Predict and score the sets; write predictions and result rows; return the rows."""
    classifier, variables, record = classification.load_best(workdir)
    config, step = classifier.config, record["best"]["step"]
    directory = directory or record["dataset"]["directory"]
    classification.refuse_other_images(record["dataset"], sources.describe(directory), where=str(workdir))
    predict = classification.make_predict(classifier, num_crops=config.evaluation.crops)
    replicated = pipeline.replicate(variables)
    place = predictions_folder(workdir, record["dataset"], sources.describe(directory))
    rows = []
    for name in sets or config.evaluation.sets:
        source = sources.load(directory, name, cache_dir=config.data.cache_dir or None)
        size = config.evaluation.batch_size
        found = evaluator.predict(predict, replicated, source, batch_size=size, progress=name)
        if not np.isfinite(found.probabilities).all():
            raise ValueError(f"{workdir}, set {name}: probabilities are not finite; did training diverge?")
        work.save_predictions(place, name, found)
        labels = {
            **classification.row_labels(config, source.dataset),
            "split": name,
            "fold": None,
            "step": step,
        }
        values = evaluator.score(found, class_names=source.class_names)
        rows += [
            {**labels, "metric": metric, "value": value, "n": len(source)} for metric, value in values.items()
        ]
    best = {**classification.row_labels(config, record["dataset"]), "split": "validation", "fold": None}
    rows.append({**best, "metric": "best_step", "value": step, "n": None, "step": step})
    work.replace_rows(workdir / "results.jsonl", rows)
    return rows


def predictions_folder(
    workdir: pathlib.Path, trained: dict[str, Any], judged: dict[str, Any]
) -> pathlib.Path:
    """The work directory for the dataset that the run was trained on, a folder inside it for any other."""
    if (trained["name"], trained["version"]) == (judged["name"], judged["version"]):
        return workdir
    return workdir / "other_datasets" / judged["name"].replace("/", "_")


def table(rows: list[dict[str, Any]]) -> str:
    """The overall metrics, one line per set."""
    lines = [f"{'set':<12}{'images':>8}" + "".join(f"{name:>28}" for name in SHOWN)]
    for split in dict.fromkeys(row["split"] for row in rows if row["metric"] in SHOWN):
        here = {row["metric"]: row for row in rows if row["split"] == split}
        cells = "".join(f"{here[name]['value']:>28.4f}" for name in SHOWN)
        lines.append(f"{split:<12}{here[SHOWN[0]]['n']:>8}{cells}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    workdir = pathlib.Path(_WORKDIR.value).resolve()
    try:
        rows = evaluate(workdir, directory=_DIRECTORY.value, sets=_SETS.value)
    except ValueError as error:
        sys.exit(f"evaluate.py: {error}")
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
