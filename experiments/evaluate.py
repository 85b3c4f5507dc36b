"""Judge a trained run: its best step on every set of its config.

    python experiments/evaluate.py --workdir=runs/modern
    python experiments/evaluate.py --workdir=runs/modern --directory=data/cell_folder/mine/1.0.0 --sets=test

    python experiments/evaluate.py --workdir=runs/modern --statistics=set

With --statistics batch-norm statistics are those of the judged images, without a label: of each set, or of each plate
or well in it. The result is a run of its own in <workdir>/statistics_<by>, which report.py shows beside the first.
Writes predictions/<set>.npz and result rows to the work directory and prints a table. Predictions of another
dataset go to other_datasets/<name>/ in the work directory, so that they never replace those of the run's own.
"""

import pathlib
import re
import sys
from typing import Any

from absl import app, flags

from coos import console
from coos.evaluators import adapted, trained

_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of experiments/train.py.", required=True)
_DIRECTORY = flags.DEFINE_string("directory", None, "Another built dataset (default: the one trained on).")
_SETS = flags.DEFINE_list("sets", None, "Sets to judge (default: config.evaluation.sets).")
_STATISTICS = flags.DEFINE_string(
    "statistics",
    None,
    "Batch-norm statistics of the judged images, by 'set', 'plate', 'well' or 'id:PATTERN'.",
)

SHOWN = (
    ("balanced_error", "accuracy", "cross_entropy", "expected_calibration_error"),
    ("mean_auroc", "mean_auroc_half", "mean_average_precision", "mean_f1", "undefined_auroc"),
    ("mean_squared_error", "pasted_source_squared_error"),
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


def evaluate(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Judge the run as the flags say; returns the result rows."""
    by = _STATISTICS.value
    if not by:
        return trained.evaluate(workdir, directory=_DIRECTORY.value, sets=_SETS.value)
    if _DIRECTORY.value:
        raise ValueError("--statistics: goes with the run's own data set, not with --directory")
    out = workdir / re.sub(r"[^\w.+-]", "_", f"statistics_{by}")
    return adapted.evaluate(workdir, out, by=by, sets=_SETS.value or ())


def main(argv: list[str]) -> None:
    """Judge the run and print the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    workdir = pathlib.Path(_WORKDIR.value).resolve()
    try:
        rows = evaluate(workdir)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate.py: {error}")
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
