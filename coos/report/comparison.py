"""Finished runs that belong on one page: checked against each other, grouped by name, aligned by id."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from coos.workdir import Predictions, Run

# Each run may hold out other training cells for these, so their ids may differ between runs.
FROM_TRAINING = ("train", "training", "validation")
DATASET_KEYS = ("name", "version", "class_names", "channels", "simulated")
CONFIG_KEYS = ("run", "seed", "report")


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """One set as every run saw it: one `Predictions` per run, with equal rows in all of them if `shared`."""

    predictions: tuple[Predictions, ...]
    shared: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs of one or more configurations on the same sets; `runs` are ordered by configuration and seed."""

    runs: tuple[Run, ...]
    sets: tuple[str, ...]
    evaluated: dict[str, Evaluated]

    @property
    def configurations(self) -> dict[str, list[int]]:
        """Positions in `runs` of each configuration's seeds."""
        groups: dict[str, list[int]] = {}
        for position, run in enumerate(self.runs):
            groups.setdefault(run.name, []).append(position)
        return groups

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        return list(self.runs[0].dataset["class_names"])

    @property
    def channels(self) -> list[str]:
        """Names of the image channels."""
        return list(self.runs[0].dataset["channels"])

    @property
    def simulated(self) -> bool:
        """Whether the cells are made up."""
        return bool(self.runs[0].dataset["simulated"])

    @property
    def reference(self) -> str:
        """The set that all others are compared with; it may not have been evaluated."""
        return self.runs[0].config["report"]["reference"]

    @property
    def shifted(self) -> tuple[str, ...]:
        """The evaluated sets that are held against the reference; none if the reference is missing."""
        others = tuple(s for s in self.sets if s != self.reference and s not in FROM_TRAINING)
        return others if self.reference in self.sets else ()

    @property
    def published(self) -> dict[str, dict[str, Any]]:
        """Published rows by name: {"source": text, "errors": {set: balanced error in percent}}."""
        found: dict[str, dict[str, Any]] = {}
        for run in self.runs:
            report = run.config["report"]
            source = report.get("published_source") or "source not given"
            for name, errors in (report.get("published") or {}).items():
                found.setdefault(name, {"source": source, "errors": dict(errors)})
        return found

    def pairs(self, sets: Iterable[str]) -> list[tuple[str, list[int], str]]:
        """Configuration, positions of its runs, and set: set by set, configurations beside each other."""
        return [(name, runs, set_name) for set_name in sets for name, runs in self.configurations.items()]

    def mean_text(self, positions: Sequence[int]) -> str:
        """How a caption ends whose numbers are means over these runs."""
        return f" (mean of {len(positions)} seeds)." if len(positions) > 1 else "."


def compare(runs: Sequence[Run]) -> Comparison:
    """Check that `runs` belong together and line up their predictions; ValueError names what disagrees."""
    if not runs:
        raise ValueError("no runs given; name at least one work directory")
    for run in runs:
        _check_run(run)
    names = list(dict.fromkeys(run.name for run in runs))
    ordered = tuple(sorted(runs, key=lambda run: (names.index(run.name), run.seed)))
    _check_agreement(ordered)
    sets = _sets(ordered)
    return Comparison(ordered, sets, {name: _evaluated(name, ordered) for name in sets})


def _check_run(run: Run) -> None:
    for part, record, keys in (
        ("config", run.config, CONFIG_KEYS),
        ("dataset", run.dataset, DATASET_KEYS),
        ("config.report", run.config.get("report") or {}, ("reference",)),
    ):
        missing = [key for key in keys if key not in record]
        if missing:
            raise ValueError(f"{run.path}: {part} in config.json lacks {', '.join(missing)}")
    if not run.predictions:
        raise ValueError(
            f"{run.path}: no predictions; run experiments/evaluate.py on this work directory first"
        )
    if len(set(run.prediction_steps.values())) > 1:
        raise ValueError(
            f"{run.path}: predictions are of different steps {run.prediction_steps}; run experiments/evaluate.py "
            "again on all sets"
        )
    refuse_stale(run)
    for name, predictions in run.predictions.items():
        _check_predictions(f"{run.path}, set {name!r}", predictions, len(run.dataset["class_names"]))


def _check_predictions(where: str, predictions: Predictions, num_classes: int) -> None:
    ids, labels, probabilities = predictions.ids, predictions.labels, predictions.probabilities
    if len(ids) == 0:
        raise ValueError(f"{where}: the predictions are empty; evaluate the set again")
    if probabilities.shape != (len(ids), num_classes):
        expected = (len(ids), num_classes)
        raise ValueError(
            f"{where}: probabilities are {probabilities.shape}, expected {expected} (cells, classes)"
        )
    if len(np.unique(ids)) != len(ids):
        raise ValueError(f"{where}: some ids occur more than once; every cell needs its own id")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"{where}: labels reach {labels.min()}..{labels.max()}, not in 0..{num_classes - 1}")
    if not np.isfinite(probabilities).all():
        raise ValueError(f"{where}: probabilities hold NaN or infinity; did training diverge?")


def _check_agreement(runs: Sequence[Run]) -> None:
    first = runs[0]
    seen: dict[tuple[str, int], Run] = {}
    for run in runs:
        both = f"{first.path} and {run.path}"
        for key in DATASET_KEYS:
            ours, theirs = first.dataset[key], run.dataset[key]
            if ours != theirs:
                raise ValueError(
                    f"{both} disagree in dataset {key}: {ours!r} and {theirs!r}; report them apart"
                )
        ours, theirs = first.config["report"]["reference"], run.config["report"]["reference"]
        if ours != theirs:
            raise ValueError(f"{both} disagree in config report.reference: {ours!r} and {theirs!r}")
        twin = seen.setdefault((run.name, run.seed), run)
        if twin is not run:
            raise ValueError(
                f"{twin.path} and {run.path} are both run {run.name!r} with seed {run.seed}; leave one out"
            )


def _sets(runs: Sequence[Run]) -> tuple[str, ...]:
    """Evaluated sets in the config's order, others after them; all runs must have evaluated the same ones."""
    first = runs[0]
    for run in runs:
        different = sorted(set(first.predictions) ^ set(run.predictions))
        if different:
            raise ValueError(
                f"{first.path} and {run.path} were not evaluated on the same sets (only one has "
                f"{', '.join(different)}); run experiments/evaluate.py on both"
            )
    listed = first.config.get("evaluation", {}).get("sets") or ()
    wanted = [name for name in listed if name in first.predictions]
    return tuple(wanted) + tuple(name for name in sorted(first.predictions) if name not in wanted)


def _evaluated(name: str, runs: Sequence[Run]) -> Evaluated:
    """Every run's predictions for one set, in the first run's order of cells."""
    first = runs[0].predictions[name]
    aligned = []
    for run in runs:
        predictions = run.predictions[name]
        if not np.array_equal(np.sort(first.ids), np.sort(predictions.ids)):
            if name in FROM_TRAINING:
                return Evaluated(tuple(run.predictions[name] for run in runs), shared=False)
            raise ValueError(f"{runs[0].path} and {run.path} disagree in the ids of set {name!r}")
        aligned.append(_in_order(predictions, first.ids))
        if not np.array_equal(first.labels, aligned[-1].labels):
            raise ValueError(f"{runs[0].path} and {run.path} disagree in the labels of set {name!r}")
    return Evaluated(tuple(aligned), shared=True)


def _in_order(predictions: Predictions, ids: np.ndarray) -> Predictions:
    """`predictions` with its rows in the order of `ids` (the same ids, each once)."""
    if np.array_equal(predictions.ids, ids):
        return predictions
    rows = np.empty(len(ids), np.int64)
    rows[np.argsort(ids, kind="stable")] = np.argsort(predictions.ids, kind="stable")
    columns = {name: column[rows] for name, column in predictions.columns.items()}
    return Predictions(
        predictions.ids[rows], predictions.labels[rows], predictions.probabilities[rows], columns
    )


def refuse_stale(run: Run) -> None:
    """Raise ValueError if the training went on after its predictions were made: another step is the best now."""
    stale = {name: step for name, step in run.prediction_steps.items() if step != run.best_step}
    if run.best_step is not None and stale:
        name, step = next(iter(stale.items()))
        raise ValueError(
            f"{run.path}: predictions of {name!r} are of step {step}, the best one is {run.best_step}; "
            "run experiments/evaluate.py again"
        )


def footer(runs: Sequence[Run]) -> str:
    """The line at the end of a page: data sets, whether they are real, number of runs, version of the code."""
    names = dict.fromkeys(f"{run.dataset['name']} {run.dataset.get('version', '')}".strip() for run in runs)
    kind = "simulated" if runs[0].dataset["simulated"] else "real"
    commit = runs[0].versions.get("commit", "unknown")
    return f"Data set {', '.join(names)} ({kind}), {len(runs)} run{'s' * (len(runs) > 1)}, coos {commit}."


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """Names of settings, other than the seed, in which runs differ: seeds of one configuration have none."""
    flat = [_flatten(run.config) for run in runs]
    keys = sorted(set().union(*flat) - {"seed", "workdir"})
    return [key for key in keys if any(config.get(key) != flat[0].get(key) for config in flat)]


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        nested = isinstance(value, dict)
        flat.update(_flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value})
    return flat
