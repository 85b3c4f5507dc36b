"""Judge a trained run: its best step on every set of its config.

    python experiments/evaluate.py --workdir=runs/modern
    python experiments/evaluate.py --workdir=runs/modern --directory=data/cell_folder/mine/1.0.0 --sets=test

Writes predictions/<set>.npz and result rows to the work directory and prints a table. Predictions of another
dataset go to other_datasets/<name>/ in the work directory, so that they never replace those of the run's own.
"""

import pathlib
import sys
from typing import Any

from absl import app, flags

from coos import console
from coos.evaluators import trained

_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of experiments/train.py.", required=True)
_DIRECTORY = flags.DEFINE_string("directory", None, "Another built dataset (default: the one trained on).")
_SETS = flags.DEFINE_list("sets", None, "Sets to judge (default: config.evaluation.sets).")

SHOWN = (
    ("balanced_error", "accuracy", "cross_entropy", "expected_calibration_error"),
    ("mean_auroc", "mean_auroc_half", "mean_average_precision", "mean_f1", "undefined_auroc"),
)


def table(rows: list[dict[str, Any]]) -> str:
    """The overall metrics of the run's task, one line per set."""
    found = {row["metric"] for row in rows}
    shown = next(names for names in SHOWN if found.issuperset(names))
    lines = [f"{'set':<12}{'examples':>10}" + "".join(f"{name:>28}" for name in shown)]
    for split in dict.fromkeys(row["split"] for row in rows if row["metric"] in shown):
        here = {row["metric"]: row for row in rows if row["split"] == split}
        cells = "".join(f"{here[name]['value']:>28.4f}" for name in shown)
        lines.append(f"{split:<12}{here[shown[0]]['n']:>10}{cells}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Judge the run and print the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    workdir = pathlib.Path(_WORKDIR.value).resolve()
    try:
        rows = trained.evaluate(workdir, directory=_DIRECTORY.value, sets=_SETS.value)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate.py: {error}")
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
