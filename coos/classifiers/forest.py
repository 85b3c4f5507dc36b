"""Random forests chosen by random search (Lu et al. 2019, section 3.1): 100 draws, 5-fold cross-validation.

The forests are scikit-learn's. The search gives what its RandomizedSearchCV gives for the same grid, folds and seed,
and can be cut and resumed: every finished draw is a line of a file. Threads share one copy of the features.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import get_scorer
from sklearn.model_selection import ParameterGrid, ParameterSampler, StratifiedKFold
from tqdm import tqdm

from coos.classifiers import checks

GRID: dict[str, list] = {
    "n_estimators": [20, 40, 60, 80, 120, 140, 160, 180, 200],
    "max_features": ["log2", "sqrt"],
    "max_depth": [1, 13, 25, 37, 50, None],
    "min_samples_split": [2, 5, 10, 20, 40],
    "min_samples_leaf": [1, 2, 4, 8, 16],
}
SCORINGS = ("accuracy", "balanced_accuracy")


class Search(NamedTuple):
    """Best settings, their number among the draws, all draws, and the score of every draw on every fold."""

    best: dict[str, Any]
    best_draw: int
    draws: list[dict[str, Any]]
    scores: np.ndarray  # (draws, folds) float64

    @property
    def score(self) -> float:
        """Mean score of the best settings over the folds."""
        return float(self.scores[self.best_draw].mean())


def draw(number: int = 100, seed: int = 0, *, grid: Mapping[str, list] | None = None) -> list[dict[str, Any]]:
    """`number` distinct settings of the grid, in the order of scikit-learn's ParameterSampler with that seed."""
    grid = dict(GRID if grid is None else grid)
    available = len(ParameterGrid(grid))
    if not 1 <= number <= available:
        raise ValueError(f"{number} draws of a grid of {available} settings; want 1 to {available}")
    return list(ParameterSampler(grid, number, random_state=seed))


def search(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    draws: int = 100,
    folds: int = 5,
    seed: int = 0,
    path: pathlib.Path | None = None,
    jobs: int | None = None,
    progress: bool = True,
    scoring: str = "accuracy",
    grid: Mapping[str, list] | None = None,
) -> Search:
    """Score random settings by stratified cross-validation; the first of equally good ones is the best.

    Args:
        features: (N, D) float32.
        labels: (N,) int.
        draws: settings to try.
        folds: of `StratifiedKFold`, shuffled by `seed`.
        seed: of draws, folds and forests.
        path: JSON-lines file to which finished draws are added, and from which those of an earlier search are taken.
        jobs: forests that grow at the same time; None: as many as there are cores. It changes no result.
        progress: whether to show a progress bar, where there is a terminal.
        scoring: "accuracy", scikit-learn's default, or "balanced_accuracy"; the paper says "best performance".
        grid: values of every setting; None takes those of the paper, `GRID`.

    Raises:
        ValueError: fewer members of a class than folds, one class, NaN, an unknown scoring, a file of another search.
    """
    features = np.asarray(features, np.float32)
    checks.finite(features, what="training features")
    present = checks.classes(labels, num_classes=int(np.max(labels, initial=0)) + 1, rows=len(features))
    _check(labels, present, folds, scoring)
    grid = dict(GRID if grid is None else grid)
    settings = draw(draws, seed, grid=grid)
    options = {"grid": grid, "draws": draws, "folds": folds, "seed": seed, "scoring": scoring}
    known = _resume(path, fingerprint(features, labels, **options)) if path else {}
    parts = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, labels))
    work = (
        joblib.delayed(_score)(settings[number], features, labels, parts[fold], (number, fold), seed, scoring)
        for number in range(draws)
        if number not in known
        for fold in range(folds)
    )
    threads = joblib.Parallel(n_jobs=jobs or -1, backend="threading", return_as="generator_unordered")
    with tqdm(total=draws, initial=len(known), desc="forests", disable=None if progress else True) as bar:
        for number, scores in _whole_draws(threads(work), folds):
            known[number] = scores
            if path:
                _append(path, {"draw": number, "settings": settings[number], "scores": scores})
            bar.update()
    table = np.array([known[number] for number in range(draws)])
    best = int(table.mean(1).argmax())
    return Search(settings[best], best, settings, table)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    settings: Mapping[str, Any],
    *,
    seed: int,
    jobs: int | None = None,
) -> RandomForestClassifier:
    """A forest of these settings on all rows; the number of jobs changes no tree."""
    features = np.asarray(features, np.float32)
    checks.finite(features, what="training features")
    checks.classes(labels, num_classes=int(np.max(labels, initial=0)) + 1, rows=len(features))
    return RandomForestClassifier(**settings, random_state=seed, n_jobs=jobs or -1).fit(features, labels)


def predict(model: RandomForestClassifier, features: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Mean over trees of the class shares in a row's leaf, (M, num_classes) float32; 0 for classes not in training."""
    features = np.asarray(features, np.float32)
    checks.finite(features)
    # one after another: threads add up trees in the order in which they end, and sums differ in the last digit
    model = model.set_params(n_jobs=1)
    found = model.predict_proba(features) if len(features) else np.zeros((0, len(model.classes_)))
    return checks.spread(found, model.classes_, num_classes=num_classes)


def fingerprint(features: np.ndarray, labels: np.ndarray, **options: Any) -> str:
    """Hash of what the scores depend on: features, labels and options."""
    digest = hashlib.sha256()
    for array in (features, np.asarray(labels, np.int64)):
        digest.update(str((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(json.dumps(options, sort_keys=True).encode())
    return digest.hexdigest()


def _check(labels: np.ndarray, present: np.ndarray, folds: int, scoring: str) -> None:
    if scoring not in SCORINGS:
        raise ValueError(f"no scoring {scoring!r}; choose from {', '.join(SCORINGS)}")
    if folds < 2:
        raise ValueError(f"{folds} folds; cross-validation needs 2 or more")
    counts = np.bincount(labels)[present]
    if counts.min() < folds:
        rarest = present[counts.argmin()]
        raise ValueError(
            f"class {rarest} has {counts.min()} training rows, fewer than {folds} folds; take fewer folds, or drop it"
        )


def _score(
    settings: Mapping[str, Any],
    features: np.ndarray,
    labels: np.ndarray,
    part: tuple[np.ndarray, np.ndarray],
    place: tuple[int, int],
    seed: int,
    scoring: str,
) -> tuple[int, int, float]:
    """Draw, fold and score of one forest."""
    train, held_out = part
    forest = RandomForestClassifier(**settings, random_state=seed, n_jobs=1)
    forest.fit(features[train], labels[train])
    return *place, float(get_scorer(scoring)(forest, features[held_out], labels[held_out]))


def _whole_draws(scored: Iterator[tuple[int, int, float]], folds: int) -> Iterator[tuple[int, list[float]]]:
    """Draws whose folds are all there, as they become so."""
    waiting: dict[int, dict[int, float]] = {}
    for number, fold, score in scored:
        own = waiting.setdefault(number, {})
        own[fold] = score
        if len(own) == folds:
            yield number, [own[i] for i in range(folds)]
            del waiting[number]


def _resume(path: pathlib.Path, search_print: str) -> dict[int, list[float]]:
    """Scores of the finished draws of a file, which is begun if there is none."""
    rows = _read(path)
    if not rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"search": search_print}) + "\n")
        return {}
    if rows[0].get("search") != search_print:
        raise ValueError(
            f"{path}: holds a search of other features, labels, grid, draws, folds, scoring or seed; remove it, or "
            "take another folder"
        )
    return {row["draw"]: row["scores"] for row in rows[1:]}


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a file; a last one that a kill cut short is left out."""
    text = path.read_text() if path.exists() else ""
    rows = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from error
    return rows


def _append(path: pathlib.Path, row: dict[str, Any]) -> None:
    """Add a line and flush it; what a kill left of a line is dropped first."""
    with open(path, "ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write((json.dumps(row) + "\n").encode())
