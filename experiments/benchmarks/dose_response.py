"""Concentration-response fits beside a loop over curves with SciPy: speed, agreement, and how often each is wrong.

Curves are simulated: ten three-fold dilutions, Hill slopes of 0.8 to 2, EC50s at least one and a half doses inside the
tested range, Gaussian noise with a standard deviation of 5 % or 10 % of the span.
"""

import statistics
import time
import warnings
from typing import NamedTuple

import jax
import numpy as np
import scipy.optimize

from coos.metrics import dose_response

CURVES, PEER_CURVES, CHECKED = 10_000, 200, 1000
DOSES = np.log10(3) * np.arange(10) - 9
ACTIVE = dose_response.VERDICTS.index("active")


class Simulated(NamedTuple):
    """log10 concentrations (N,), responses (C, N), true log10 EC50s (C,) and Hill slopes (C,)."""

    x: np.ndarray
    y: np.ndarray
    log10_ec50: np.ndarray
    hill: np.ndarray


def logistic(x: np.ndarray, bottom: float, top: float, log10_ec50: float, hill: float) -> np.ndarray:
    """The curve in NumPy."""
    return bottom + (top - bottom) / (1 + 10.0 ** (hill * (log10_ec50 - x)))


def simulate(count: int, *, replicates: int, noise: float, seed: int) -> Simulated:
    """`count` curves from 0 to 1."""
    generator = np.random.default_rng(seed)
    x = np.repeat(DOSES, replicates)
    location = generator.uniform(x.min() + 0.75, x.max() - 0.75, count)
    hill = generator.uniform(0.8, 2, count)
    y = 1 / (1 + 10.0 ** (hill[:, None] * (location[:, None] - x)))
    return Simulated(x, y + noise * generator.normal(size=y.shape), location, hill)


def peer(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(C, 4) parameters by `scipy.optimize.curve_fit`, from the range of the responses; NaN without convergence."""
    found = np.full((len(y), 4), np.nan)
    for row, values in enumerate(y):
        try:
            start = (values.min(), values.max(), np.median(x), 1.0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # covariances that cannot be estimated
                found[row] = scipy.optimize.curve_fit(logistic, x, values, p0=start)[0]
        except RuntimeError:
            continue  # no convergence is counted by the caller
    return found


def seconds_of(x: np.ndarray, y: np.ndarray, summarize: str) -> float:
    """Seconds of one fit of all curves."""
    began = time.perf_counter()
    jax.block_until_ready(dose_response.fit(x, y, summarize=summarize))
    return time.perf_counter() - began


def measure_speed(rounds: int) -> None:
    """10,000 curves of ten doses with four replicates; SciPy's time is scaled from 200 curves."""
    x, y, *_ = simulate(CURVES, replicates=4, noise=0.05, seed=0)
    began = time.perf_counter()
    peer(x, y[:PEER_CURVES])
    scaled = (time.perf_counter() - began) * CURVES / PEER_CURVES
    for summarize in dose_response.SUMMARIES:
        first = seconds_of(x, y, summarize)
        again = statistics.median(seconds_of(x, y, summarize) for _ in range(rounds))
        beside = f"   scipy {scaled:6.1f} s (scaled from {PEER_CURVES}, no interval)   {scaled / again:5.1f} x coos"
        note = beside if summarize == "points" else ""
        print(
            f"  fit and interval, {summarize:<14}first call {first:6.2f} s   then {again:6.2f} s{note}",
            flush=True,
        )


def measure_agreement() -> None:
    """Largest relative deviation from SciPy on curves without noise that go from 10 to 110."""
    x, y, location, hill = simulate(PEER_CURVES, replicates=4, noise=0.0, seed=1)
    y = 10 + 100 * y
    found = dose_response.fit(x, y)
    ours = np.stack([found.bottom, found.top, 10.0 ** np.asarray(found.log10_ec50), found.hill], 1)
    theirs = peer(x, y)
    theirs[:, 2] = 10 ** theirs[:, 2]
    known = ~np.isnan(theirs).any(1) & (np.abs(theirs[:, 2] / 10**location - 1) < 0.01)
    for name, values in (
        ("scipy", theirs[known]),
        ("truth", np.stack([0 * hill + 10, 0 * hill + 110, 10**location, hill], 1)),
    ):
        which = ours[known] if name == "scipy" else ours
        worst = np.abs(which / values - 1).max(0)
        text = ", ".join(
            f"{n} {w:.1e}" for n, w in zip(("bottom", "top", "EC50", "hill"), worst, strict=True)
        )
        print(f"  largest deviation from {name}, {len(values)} clean curves: {text}", flush=True)


def measure_coverage() -> None:
    """Share of 95 % intervals with the true EC50 in them, of 1,000 curves each."""
    for replicates in (4, 2):
        for noise in (0.05, 0.1):
            x, y, location, _ = simulate(CHECKED, replicates=replicates, noise=noise, seed=2)
            found = dose_response.fit(x, y)
            covered = (np.asarray(found.low) <= location) & (location <= np.asarray(found.high))
            width = np.median(np.asarray(found.high) - np.asarray(found.low))
            active = (np.asarray(found.verdict) == ACTIVE).mean()
            print(
                f"  {replicates} replicates, noise {noise:3.0%}: {covered.mean():6.1%} of the intervals cover, "
                f"median width {width:.2f} decades; {active:6.1%} active",
                flush=True,
            )


def bad_curves() -> dict[str, np.ndarray]:
    """1,000 curves (N = 40) of each kind that has no potency within the tested range."""
    generator = np.random.default_rng(3)
    x = np.repeat(DOSES, 4)
    flat, half, outlier = (generator.normal(size=(CHECKED, 40)) for _ in range(3))
    location = generator.uniform(x.max() + 0.1, x.max() + 0.7, (CHECKED, 1))
    outlier[np.arange(CHECKED), generator.integers(0, 40, CHECKED)] += 30
    rising = 1 / (1 + 10.0 ** (1.2 * (location - x)))
    return {"flat noise": flat, "half a curve": rising + 0.05 * half, "one outlier": outlier}


def measure_bad_curves() -> None:
    """How often is noise active, and an EC50 more than a decade outside the tested range (or not found at all)?"""
    x = np.repeat(DOSES, 4)
    for name, y in bad_curves().items():
        found = dose_response.fit(x, y)
        ours, theirs = np.asarray(found.log10_ec50), peer(x, y[:PEER_CURVES])[:, 2]
        absurd = int((np.abs(ours - (x.min() + x.max()) / 2) > (x.max() - x.min()) / 2 + 1).sum())
        far = np.abs(theirs - (x.min() + x.max()) / 2) > (x.max() - x.min()) / 2 + 1
        active = (np.asarray(found.verdict) == ACTIVE).mean()
        print(
            f"  {name:<13}{active:6.1%} active, absurd EC50s {absurd} of {len(y)}   "
            f"scipy {far.sum()} of {PEER_CURVES}, {np.isnan(theirs).sum()} without convergence",
            flush=True,
        )


def main(*, rounds: int) -> None:
    """Measure everything and print it, times as medians of `rounds` calls after the first (which compiles)."""
    print(f"{CURVES:,} curves, 10 concentrations x 4 replicates, {jax.devices()[0].device_kind}", flush=True)
    measure_speed(rounds)
    measure_agreement()
    measure_coverage()
    measure_bad_curves()
