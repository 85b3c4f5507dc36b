"""Classifiers on features of cells, as Lu et al. 2019, section 3.1, compare representations with them.

Features are centred and scaled by the training set; k nearest neighbours (k = 11), logistic regression with an L1
penalty, and a random forest chosen by random search. kNN and the logistic regression are coos's own, in JAX, and give
what scikit-learn gives (`backend="sklearn"` runs that instead); forests are scikit-learn's.

All predictions are probabilities (M, num_classes) float32 whose argmax is the predicted class; a class that is absent
from training gets 0. Training rows that are predicted are not left out of what is known: each counts among its own
nearest neighbours, as in scikit-learn, which is how training errors of kNN are usually published.
"""

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from coos.classifiers import checks, forest, logistic, neighbors, scaling

CLASSIFIERS = {
    "knn": "kNN",
    "l1_logistic_regression": "L1 logistic regression",
    "random_forest": "random forest",
}
OPTIONS = {
    "knn": ("k", "backend", "block", "train_block"),
    "l1_logistic_regression": ("C", "backend", "tolerance", "max_iterations"),
    "random_forest": ("draws", "folds", "jobs", "progress", "scoring", "grid"),
}
SEARCH_FILE = "random_search.jsonl"

Predict = Callable[[np.ndarray], np.ndarray]


def fit_and_predict(
    name: str,
    train: np.ndarray,
    labels: np.ndarray,
    sets: Mapping[str, np.ndarray],
    *,
    num_classes: int,
    folder: pathlib.Path | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Scale, fit on the training rows, and predict every set.

    Args:
        name: a key of `CLASSIFIERS`.
        train: (N, D) training features.
        labels: (N,) int, 0 to num_classes - 1.
        sets: name to features (M, D).
        num_classes: number of columns of the predictions.
        folder: where a random search writes its draws, to be resumed; None: nowhere.
        seed: of what is random: saga, the draws, folds and trees.
        options: those of `OPTIONS`, keyword arguments of `neighbors.predict`, `logistic.fit`, or `forest.search`.

    Returns:
        Probabilities (M, num_classes) float32 of every set, and a note for JSON of what was fitted: settings, how good
        the optimum or the cross-validation is, and seconds.

    Raises:
        ValueError: an unknown name or option, NaN, one class, or what the classifier refuses; it says what and where.
    """
    if name not in CLASSIFIERS:
        raise ValueError(f"no classifier {name!r}; choose from {', '.join(CLASSIFIERS)}")
    options = dict(options or {})
    if unknown := [key for key in options if key not in OPTIONS[name]]:
        raise ValueError(f"{name}: no option {', '.join(unknown)}; it has {', '.join(OPTIONS[name])}")
    began = time.perf_counter()
    train, labels = np.asarray(train), np.asarray(labels)
    checks.classes(labels, num_classes=num_classes, rows=len(train))
    scale = scaling.fit(train)
    scaled = scaling.apply(scale, train)
    ready = {key: scaling.apply(scale, of_set, what=f"set {key!r}") for key, of_set in sets.items()}
    makers: dict[str, Any] = {"knn": _knn, "l1_logistic_regression": _logistic, "random_forest": _forest}
    predict, note = makers[name](scaled, labels, num_classes, folder=folder, seed=seed, **options)
    fitted = time.perf_counter()
    found = {key: predict(of_set) for key, of_set in ready.items()}
    seconds = {"fit_seconds": round(fitted - began, 3), "seconds": round(time.perf_counter() - began, 3)}
    shape = {"rows": len(train), "features": train.shape[1]}
    return found, {"classifier": name, **shape, **note, **seconds}


def _knn(
    train: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    folder: pathlib.Path | None,
    seed: int,
    k: int = 11,
    backend: str = "jax",
    **options: Any,
) -> tuple[Predict, dict[str, Any]]:
    del folder, seed

    def predict(queries: np.ndarray) -> np.ndarray:
        return neighbors.predict(
            train, labels, queries, num_classes=num_classes, k=k, backend=backend, **options
        )

    predict(train[:1])  # refuses here what it refuses at all
    return predict, {"k": k, "backend": backend}


def _logistic(
    train: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    folder: pathlib.Path | None,
    seed: int,
    C: float = 1.0,
    backend: str = "jax",
    **options: Any,
) -> tuple[Predict, dict[str, Any]]:
    del folder
    model = logistic.fit(train, labels, num_classes=num_classes, C=C, backend=backend, seed=seed, **options)
    note = {
        "C": C,
        "backend": backend,
        "objective": model.objective,
        "residual": model.residual,
        "iterations": model.iterations,
        "converged": model.converged,
        "nonzero_weights": int(np.count_nonzero(model.weights)),
    }
    return lambda features: logistic.predict(model, features), note


def _forest(
    train: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    folder: pathlib.Path | None,
    seed: int,
    scoring: str = "accuracy",
    jobs: int | None = None,
    **options: Any,
) -> tuple[Predict, dict[str, Any]]:
    path = None if folder is None else pathlib.Path(folder) / SEARCH_FILE
    found = forest.search(train, labels, seed=seed, path=path, scoring=scoring, jobs=jobs, **options)
    model = forest.fit(train, labels, found.best, seed=seed, jobs=jobs)
    note = {
        "settings": found.best,
        "scoring": scoring,
        "cross_validated": found.score,
        "draws": len(found.draws),
        "folds": found.scores.shape[1],
    }
    return lambda features: forest.predict(model, features, num_classes=num_classes), note
