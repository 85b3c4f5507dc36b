"""kNN and L1 logistic regression beside scikit-learn: time, agreement of predictions, and how good both optima are.

Features are simulated: seven overlapping classes in a space of 40 dimensions, mixed into 512 rectified features, as the
layer of a network gives them. Both run in one process on all cores. The logistic regressions are compared at the same
optimum: both go on until the same certificate (the largest subgradient, see `coos.classifiers.logistic`) is met.
"""

import functools
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from coos.classifiers import logistic, neighbors, scaling

CLASSES, HIDDEN, WIDTH = 7, 40, 512
TRAIN, QUERIES = 20_000, 5_000
FIT_ROWS, FIT_WIDTH = 4_000, 128
RESIDUALS = (0.1, 0.001)
LARGE_ROWS = 20_000


def simulate(rows: int, *, width: int, separation: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scaled features (rows, width) float32 and classes (rows,)."""
    fixed, generator = np.random.default_rng(0), np.random.default_rng(seed)
    centers = separation * fixed.normal(size=(CLASSES, HIDDEN))
    mixing = fixed.normal(size=(HIDDEN, width)) / np.sqrt(HIDDEN)
    labels = generator.integers(0, CLASSES, rows)
    hidden = centers[labels] + generator.normal(size=(rows, HIDDEN))
    features = np.maximum(hidden @ mixing + 0.3 * generator.normal(size=(rows, width)), 0)
    return scaling.apply(scaling.fit(features), features), labels


def in_turns(kinds: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each, after one call that compiles, and what they return; rounds alternate."""
    found = {name: function() for name, function in kinds.items()}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, function in kinds.items():
            began = time.perf_counter()
            found[name] = function()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}, found


def measure_neighbors(rounds: int) -> None:
    """Eleven neighbours of 5,000 queries among 20,000 rows."""
    train, labels = simulate(TRAIN, width=WIDTH, separation=0.4, seed=1)
    queries, truth = simulate(QUERIES, width=WIDTH, separation=0.4, seed=2)

    def run(backend: str) -> np.ndarray:
        return neighbors.predict(train, labels, queries, num_classes=CLASSES, backend=backend)

    seconds, found = in_turns({name: functools.partial(run, name) for name in neighbors.BACKENDS}, rounds)
    same = (found["jax"].argmax(1) == found["sklearn"].argmax(1)).mean()
    equal = (found["jax"] == found["sklearn"]).all(1).mean()
    print(
        f"  kNN, {TRAIN:,} x {WIDTH}, {QUERIES:,} queries: coos {seconds['jax']:6.2f} s   scikit-learn "
        f"{seconds['sklearn']:6.2f} s   {seconds['sklearn'] / seconds['jax']:4.1f} x   predictions equal {same:.2%}, "
        f"votes {equal:.2%}; error {(found['jax'].argmax(1) != truth).mean():.1%}",
        flush=True,
    )


def fit(features: np.ndarray, labels: np.ndarray, backend: str, residual: float) -> logistic.Logistic:
    """A fit with C = 1; one that stops short is seen by its residual."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return logistic.fit(
            features, labels, num_classes=CLASSES, backend=backend, tolerance=residual, max_iterations=20_000
        )


def measure_logistic(rounds: int) -> None:
    """The same optimum by both, loosely and tightly."""
    features, labels = simulate(FIT_ROWS, width=FIT_WIDTH, separation=0.4, seed=1)
    for residual in RESIDUALS:
        kinds = {name: functools.partial(fit, features, labels, name, residual) for name in logistic.BACKENDS}
        seconds, found = in_turns(kinds, rounds)
        ours, theirs = found["jax"], found["sklearn"]
        apart = np.abs(logistic.predict(ours, features) - logistic.predict(theirs, features)).max()
        print(
            f"  L1 logistic regression, {FIT_ROWS:,} x {FIT_WIDTH}, residual below {residual:g}: coos "
            f"{seconds['jax']:6.2f} s   scikit-learn {seconds['sklearn']:6.2f} s   "
            f"{seconds['sklearn'] / seconds['jax']:4.1f} x\n"
            f"      coos {say(ours)}\n      scikit-learn {say(theirs)}\n"
            f"      probabilities differ by at most {apart:.1e}",
            flush=True,
        )


def say(model: logistic.Logistic) -> str:
    """Objective and residual of a fit."""
    return f"objective {model.objective:.8g}, residual {model.residual:.1e}, {model.iterations} iterations"


def measure_large_fit() -> None:
    """One fit of the size of a real study; scikit-learn at its default stop, 100 epochs."""
    features, labels = simulate(LARGE_ROWS, width=WIDTH, separation=0.4, seed=1)
    for backend, limit in (("jax", 10_000), ("sklearn", 100)):
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model = logistic.fit(features, labels, num_classes=CLASSES, backend=backend, max_iterations=limit)
        name = {"jax": "coos", "sklearn": "scikit-learn, 100 epochs"}[backend]
        print(
            f"  L1 logistic regression, {LARGE_ROWS:,} x {WIDTH}, {name}: {time.perf_counter() - began:6.1f} s, "
            f"{say(model)}",
            flush=True,
        )


def main(*, rounds: int) -> None:
    """Measure everything and print it, times as medians of `rounds` calls after the first (which compiles)."""
    print(f"{jax.devices()[0].device_kind}, {CLASSES} classes", flush=True)
    measure_neighbors(rounds)
    measure_logistic(rounds)
    measure_large_fit()
