"""Runs that predict the same assays on one page: checked against each other, averaged per well, lined up by well."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from coos.report.comparison import refuse_stale
from coos.train.multitask import pooled
from coos.workdir import Predictions, Run

BASELINE = "cell count only"
LEVELS = ("well", "compound")
SET = "test"
CONFIG_KEYS = ("run", "seed")
DATASET_KEYS = ("name", "tasks", "simulated")
Part = tuple[str, Run | None, Predictions]  # name of a model, one of its runs (None: baseline), its wells


@dataclasses.dataclass(frozen=True)
class Model:
    """One configuration: `scores` (S, N, T) float32 of its S seeds on the N common wells, and the runs they are from.

    `num_left_out` wells (of the seed that has most) are not common to all models. The baseline has no runs.
    """

    name: str
    scores: np.ndarray
    runs: tuple[Run, ...]
    num_left_out: int

    @property
    def mean_scores(self) -> np.ndarray:
        """(N, T): probabilities averaged over seeds."""
        return self.scores.mean(axis=0)

    @property
    def is_baseline(self) -> bool:
        """Whether it saw nothing but the number of cells."""
        return not self.runs


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Models on the same wells (or compounds, see `level`) of one set; the baseline, if there is one, comes last.

    ids, compounds: (N,) str. labels: (N, T) int8, +1 active, -1 inactive, 0 not measured.
    """

    set_name: str
    level: str
    tasks: tuple[str, ...]
    ids: np.ndarray
    compounds: np.ndarray
    labels: np.ndarray
    models: tuple[Model, ...]

    @property
    def mask(self) -> np.ndarray:
        """(N, T) bool: what was measured."""
        return self.labels != 0

    @property
    def networks(self) -> tuple[Model, ...]:
        """The models without the baseline."""
        return tuple(model for model in self.models if not model.is_baseline)

    @property
    def baseline(self) -> Model | None:
        """The model that saw nothing but the number of cells, if the data set knows it."""
        return self.models[-1] if self.models[-1].is_baseline else None

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, by configuration and seed."""
        return tuple(run for model in self.models for run in model.runs)

    @property
    def simulated(self) -> bool:
        """Whether cells and labels are made up."""
        return bool(self.runs[0].dataset["simulated"])

    def units(self, count: int) -> str:
        """E.g. "1 well", "2,115 compounds"."""
        return f"{count:,} {self.level}{'s' * (count != 1)}"

    def model(self, name: str) -> Model:
        """The model of that name; ValueError lists the known ones."""
        for model in self.models:
            if model.name == name:
                return model
        raise ValueError(f"no model {name!r}; there are {', '.join(model.name for model in self.models)}")


def compare(runs: Sequence[Run], *, set_name: str | None = None, level: str = "well") -> Comparison:
    """Check that `runs` belong together and line up their predictions of one set; ValueError names what disagrees.

    `set_name` None is "test" if the first run has it, else its first set. `level` says over what the views are
    averaged: "well" or "compound".
    """
    if not runs:
        raise ValueError("no runs given; name at least one work directory")
    if level not in LEVELS:
        raise ValueError(f"level={level!r}: choose one of {', '.join(LEVELS)}")
    for run in runs:
        _check_run(run)
    names = list(dict.fromkeys(run.name for run in runs))
    ordered = sorted(runs, key=lambda run: (names.index(run.name), run.seed))
    _check_agreement(ordered)
    chosen = set_name or (SET if SET in ordered[0].predictions else next(iter(ordered[0].predictions)))
    found: list[Part] = [(run.name, run, _pooled(run, run.predictions, chosen, level)) for run in ordered]
    baseline = next((run for run in ordered if chosen in run.baseline), None)
    if baseline:
        found.append((BASELINE, None, _pooled(baseline, baseline.baseline, chosen, level)))
    return _line_up(found, chosen, level, tuple(ordered[0].dataset["tasks"]))


def _check_run(run: Run) -> None:
    for part, record, keys in (("config", run.config, CONFIG_KEYS), ("dataset", run.dataset, DATASET_KEYS)):
        missing = [key for key in keys if key not in record]
        if missing:
            raise ValueError(f"{run.path}: {part} in config.json lacks {', '.join(missing)}")
    if run.name == BASELINE:
        raise ValueError(f"{run.path}: a run cannot be called {BASELINE!r}, the name of the baseline")
    if not run.predictions:
        raise ValueError(
            f"{run.path}: no predictions; run experiments/evaluate.py on this work directory first"
        )
    refuse_stale(run)


def _check_agreement(runs: Sequence[Run]) -> None:
    first, seen = runs[0], dict[tuple[str, int], Run]()
    for run in runs:
        both = f"{first.path} and {run.path}"
        _check_tasks(first.dataset["tasks"], run.dataset["tasks"], both)
        if bool(first.dataset["simulated"]) != bool(run.dataset["simulated"]):
            raise ValueError(f"{both}: one is of simulated data, the other is not; report them apart")
        if twin := seen.get((run.name, run.seed)):
            raise ValueError(
                f"{twin.path} and {run.path} are both run {run.name!r} with seed {run.seed}; leave one out"
            )
        seen[run.name, run.seed] = run


def _check_tasks(ours: Sequence[str], theirs: Sequence[str], both: str) -> None:
    if len(ours) != len(theirs):
        raise ValueError(f"{both} predict {len(ours)} and {len(theirs)} assays; report them apart")
    for position, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one != other:
            raise ValueError(
                f"{both} disagree in the assays or their order: number {position + 1} is {one!r} and {other!r}; "
                "build both data sets from the same label matrix"
            )


def _pooled(run: Run, sets: dict[str, Predictions], set_name: str, level: str) -> Predictions:
    """Predictions of one set, averaged over views; ValueError names the run where they cannot be right."""
    where = f"{run.path}, set {set_name!r}"
    if set_name not in sets:
        raise ValueError(
            f"{where}: not evaluated (there are {', '.join(sets)}); run experiments/evaluate.py on it"
        )
    found, num_tasks = sets[set_name], len(run.dataset["tasks"])
    if not len(found.ids):
        raise ValueError(f"{where}: the predictions are empty; evaluate the set again")
    for name, array in (("probabilities", found.probabilities), ("labels", found.labels)):
        if array.shape != (len(found.ids), num_tasks):
            expected = (len(found.ids), num_tasks)
            raise ValueError(f"{where}: {name} are {array.shape}, expected {expected} (views, assays)")
    missing = [name for name in ("well", "compound", "cell_count") if name not in found.columns]
    if missing:
        raise ValueError(f"{where}: columns {missing} missing; run experiments/evaluate.py again")
    if not np.isfinite(found.probabilities).all():
        raise ValueError(f"{where}: probabilities hold NaN or infinity; did training diverge?")
    try:
        return pooled(found, level=level)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _line_up(found: Sequence[Part], set_name: str, level: str, tasks: tuple[str, ...]) -> Comparison:
    """The wells that every model has, in the order of their names; labels must be the same in all."""
    common = found[0][2].ids
    for _, _, predictions in found[1:]:
        common = np.intersect1d(common, predictions.ids)
    if not len(common):
        raise ValueError(
            f"set {set_name!r}: no {level} is common to all {len(found)} runs; are they of other splits?"
        )
    rows = [_rows(predictions.ids, common) for _, _, predictions in found]
    first, kept = found[0][2], rows[0]
    first_place = found[0][1].path if found[0][1] else found[0][0]
    labels, compounds = first.labels[kept], first.columns["compound"][kept]
    for (name, run, predictions), own in zip(found, rows, strict=True):
        where = f"set {set_name!r}: {run.path if run else name} and {first_place}"
        _check_labels(labels, predictions.labels[own], where, common, tasks)
        _check_compounds(compounds, predictions.columns["compound"][own], where, common)
    groups: dict[str, list[int]] = {}
    for position, (name, _, _) in enumerate(found):
        groups.setdefault(name, []).append(position)
    models = tuple(
        Model(
            name,
            np.stack([found[i][2].probabilities[rows[i]] for i in places]),
            tuple(run for i in places if (run := found[i][1])),
            max(len(found[i][2].ids) for i in places) - len(common),
        )
        for name, places in groups.items()
    )
    return Comparison(set_name, level, tasks, common, compounds, labels, models)


def _rows(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    order = np.argsort(ids, kind="stable")
    return order[np.searchsorted(ids, wanted, sorter=order)]


def _check_labels(
    ours: np.ndarray, theirs: np.ndarray, where: str, ids: np.ndarray, tasks: Sequence[str]
) -> None:
    if (ours != theirs).any():
        row, task = np.argwhere(ours != theirs)[0]
        raise ValueError(
            f"{where} disagree in the label of {str(ids[row])!r}, assay {tasks[task]!r}: {theirs[row, task]} and "
            f"{ours[row, task]}; build both data sets from the same label matrix"
        )


def _check_compounds(ours: np.ndarray, theirs: np.ndarray, where: str, ids: np.ndarray) -> None:
    if (ours != theirs).any():
        row = np.flatnonzero(ours != theirs)[0]
        raise ValueError(
            f"{where} disagree in the compound of {str(ids[row])!r}: {theirs[row]} and {ours[row]}"
        )
