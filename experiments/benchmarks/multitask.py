"""Metrics and tests of many tasks beside a loop over tasks with scikit-learn, on the size of the ChEMBL study.

Scores are random. Labels are simulated in the pattern of the study's test set (2,115 compounds, 209 assays): the
number of labelled compounds per assay is log-uniform from 22 to 2,790 of 10,574, scaled to 2,115, a third of them
active, at least four of each class. With `real_data`, 2,115 random rows of its label matrix are measured as well; a
matrix with every entry labelled in any case.
"""

import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.io

from coos.metrics import multitask
from coos.metrics import statistics as tests

ROWS, ALL_ROWS, TASKS = 2115, 10_574, 209
REPLICATES, PEER_REPLICATES = 1000, 10  # scikit-learn's time is scaled from the fewer ones


def simulated(generator: np.random.Generator) -> np.ndarray:
    """Labels (2115, 209) int8: 1 active, -1 inactive, 0 unlabelled."""
    labels = np.zeros((ROWS, TASKS), np.int8)
    for column in labels.T:
        number = np.exp(generator.uniform(np.log(22), np.log(2790))) * ROWS / ALL_ROWS
        active = max(round(number / 3), 4)
        inactive = max(round(number) - active, 4)
        rows = generator.permutation(ROWS)[: active + inactive]
        column[rows[:active]], column[rows[active:]] = 1, -1
    return labels


def matrices(real_data: str | None) -> dict[str, np.ndarray]:
    """Label matrices by name."""
    generator = np.random.default_rng(0)
    found = {"simulated pattern": simulated(generator)}
    if real_data:
        whole = scipy.io.mmread(pathlib.Path(real_data) / "chembl_labels" / "label-matrix.mtx").tocsr()
        rows = generator.choice(whole.shape[0], ROWS, replace=False)
        found["rows of the real matrix"] = whole[rows].toarray().astype(np.int8)
    found["fully labelled"] = np.where(generator.random((ROWS, TASKS)) < 1 / 3, 1, -1).astype(np.int8)
    return found


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def loop(score: Callable, scores: np.ndarray, labels: np.ndarray) -> list[float]:
    """scikit-learn's score of every task with both classes, one after another."""
    found = []
    for column, label in zip(scores.T, labels.T, strict=True):
        known = label != 0
        active = label[known] > 0
        found.append(score(active, column[known]) if active.any() and not active.all() else np.nan)
    return found


def loop_bootstrap(scores: np.ndarray, labels: np.ndarray, replicates: int) -> None:
    """The AUROC of every task, with rows drawn anew `replicates` times."""
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    for _ in range(replicates):
        rows = generator.integers(0, len(scores), len(scores))
        loop(roc_auc_score, scores[rows], labels[rows])


def line(name: str, first: float, again: float, peer: float | None = None, note: str = "") -> None:
    """Print one measurement, with scikit-learn's seconds beside it where there are any."""
    beside = "" if peer is None else f"   scikit-learn {peer:8.3f} s{note}   {peer / again:6.1f} x coos"
    print(f"  {name:<32}first call {first:6.2f} s   then {again:7.3f} s{beside}", flush=True)


def measure_scores(scores: np.ndarray, labels: np.ndarray, rounds: int) -> None:
    """AUROC, average precision and F1 of all tasks."""
    from sklearn import metrics

    kinds: dict[str, tuple[Callable, Callable]] = {
        "AUROC": (multitask.auroc, metrics.roc_auc_score),
        "average precision": (multitask.average_precision, metrics.average_precision_score),
        "F1": (multitask.f1, lambda active, score: metrics.f1_score(active, score >= 0.5)),
    }
    for name, (ours, theirs) in kinds.items():

        def work(ours: Callable = ours) -> np.ndarray:
            return np.asarray(ours(scores, labels, labels != 0))

        def peer(theirs: Callable = theirs) -> list[float]:
            return loop(theirs, scores, labels)

        first = timed(work)
        again = statistics.median(timed(work) for _ in range(rounds))
        line(name, first, again, statistics.median(timed(peer) for _ in range(rounds)))


def measure_bootstrap(scores: np.ndarray, labels: np.ndarray, rounds: int) -> None:
    """1,000 replicates of all tasks' AUROCs; scikit-learn's time is scaled from ten."""

    def work() -> None:
        multitask.bootstrap(scores, labels, labels != 0, num_replicates=REPLICATES)

    first = timed(work)
    again = statistics.median(timed(work) for _ in range(rounds))
    peer = timed(lambda: loop_bootstrap(scores, labels, PEER_REPLICATES)) * REPLICATES / PEER_REPLICATES
    line(f"bootstrap, {REPLICATES:,} replicates", first, again, peer, f" (scaled from {PEER_REPLICATES})")


def measure_tests(scores: np.ndarray, other: np.ndarray, labels: np.ndarray, rounds: int) -> None:
    """Both tests of two models, all tasks."""
    kinds: dict[str, Callable] = {
        "DeLong": lambda: tests.delong(scores, other, labels, labels != 0),
        "Venkatraman, 2,000 permutations": lambda: tests.venkatraman(scores, other, labels, labels != 0),
    }
    for name, work in kinds.items():
        first = timed(work)
        line(name, first, statistics.median(timed(work) for _ in range(rounds)))


def main(*, rounds: int, real_data: str | None = None) -> None:
    """Measure everything and print it, medians of `rounds` calls after the first (which compiles).

    real_data: folder that holds chembl_labels/label-matrix.mtx.
    """
    generator = np.random.default_rng(1)
    for title, labels in matrices(real_data).items():
        share = (labels != 0).mean()
        print(
            f"{labels.shape[0]:,} compounds x {labels.shape[1]} tasks, {title}, {share:.2%} labelled",
            flush=True,
        )
        scores, other = generator.random((2, *labels.shape), np.float32)
        measure_scores(scores, labels, rounds)
        measure_bootstrap(scores, labels, rounds)
        measure_tests(scores, other, labels, rounds)
