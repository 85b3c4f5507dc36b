"""How far a perturbation is from the controls: grit and the multidimensional perturbation value."""

from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from coos.metrics.retrieval import inputs, ranking
from coos.metrics.retrieval.matches import Matches

_similar = jax.jit(inputs.similarities)
SUMMARIES = ("mean", "median")


class Grit(NamedTuple):
    """profiles: (P,) the codes; value: (P,) float64, NaN where undefined; num_mates: (P,) pairs averaged."""

    profiles: np.ndarray
    value: np.ndarray
    num_mates: np.ndarray


def grit(
    features: ArrayLike,
    profiles: ArrayLike,
    groups: ArrayLike,
    *,
    controls: ArrayLike,
    summary: str = "mean",
    similarity: str = "pearson",
) -> Grit:
    """How much more a profile resembles its group than the controls (cytominer-eval's grit).

    For a profile (all rows with its code, such as replicates of a guide) the similarities of its rows to rows of
    the same group (gene) but other profiles are turned into z-scores with the mean and the population standard
    deviation of its similarities to the control rows; grit is their mean or median.

    Args:
        features: (N, D) numbers. profiles, groups: (N,) integers, negative = none.
        controls: (N,) bool. Control rows are no mates and get no grit.
        summary: "mean" or "median".

    Returns:
        `Grit`; NaN for profiles without mates, with fewer than two control pairs or a zero deviation.
    """
    if summary not in SUMMARIES:
        raise ValueError(f"summary={summary!r}: choose one of {SUMMARIES}")
    count = len(np.asarray(profiles))
    is_control = np.asarray(controls)
    if is_control.dtype != bool or is_control.shape != (count,):
        raise ValueError(
            f"controls must be a bool mask ({count},), got {is_control.dtype} {is_control.shape}"
        )
    codes = np.where(is_control, -1, np.asarray(profiles))
    mates = np.where(is_control, -1, inputs.check_labels(groups, count))
    inputs.check_labels(codes, len(np.asarray(features)))
    compared = inputs.comparable_rows(features, similarity=similarity)
    names, member = np.unique(codes, return_inverse=True)
    matches = Matches.create(mates.astype(np.int32), inputs.check_exclude(codes, count))
    pooled: list[list] = [[] for _ in names]
    size = ranking.block_size(count)
    rows = np.flatnonzero(codes >= 0)
    for begin in range(0, len(rows), size):
        block = rows[begin : begin + size]
        similar = np.asarray(_similar(compared, block), np.float64)
        first, second = matches.pairs(block)
        values = np.split(similar[first, second], np.cumsum(np.bincount(first, minlength=len(block)))[:-1])
        for row, to_controls, to_mates in zip(block, similar[:, is_control], values, strict=True):
            pooled[member[row]].append((to_controls, to_mates))
    keep = names >= 0
    found = [_z_score(parts, summary) for parts, yes in zip(pooled, keep, strict=True) if yes]
    return Grit(names[keep], np.array([v for v, _ in found]), np.array([n for _, n in found], np.int64))


def _z_score(parts: list[tuple[np.ndarray, np.ndarray]], summary: str) -> tuple[float, int]:
    to_controls = np.concatenate([part for part, _ in parts])
    to_mates = np.concatenate([part for _, part in parts])
    spread = to_controls.std() if len(to_controls) > 1 else 0.0
    if not len(to_mates) or spread == 0:
        return float("nan"), len(to_mates)
    z = (to_mates - to_controls.mean()) / spread
    return float(z.mean() if summary == "mean" else np.median(z)), len(to_mates)


class MpValue(NamedTuple):
    """distance: squared Mahalanobis distance from the controls; p_value: of it; components: kept axes."""

    distance: float
    p_value: float
    components: int


def mp_value(
    perturbation: ArrayLike,
    controls: ArrayLike,
    *,
    explained_variance: float = 0.9,
    num_permutations: int = 100,
    seed: int = 0,
    add_one: bool = True,
) -> MpValue:
    """Multidimensional perturbation value of replicates against controls (Hutz et al. 2013).

    Principal components of both together that explain 90 % of the variance; the squared Mahalanobis distance of
    the mean of the perturbation's rows from the controls, with the controls' mean and population covariance
    (cytominer-eval multiplies every component by its share of the variance first, which cancels here); and its
    p-value over random exchanges of rows: (count + 1) / (permutations + 1), or cytominer-eval's
    count / permutations if not `add_one`.

    Args:
        perturbation: (n, D) replicates of one perturbation. controls: (m, D) control rows, m >= 2.
    """
    treated, control = np.asarray(perturbation, np.float64), np.asarray(controls, np.float64)
    if treated.ndim != 2 or control.ndim != 2 or treated.shape[1] != control.shape[1]:
        raise ValueError(f"must be (n, D) and (m, D); got {treated.shape} and {control.shape}")
    if len(control) < 2 or not len(treated):
        raise ValueError(f"{len(treated)} replicates and {len(control)} controls: needs 1 and 2 at least")
    if not 0 < explained_variance <= 1:
        raise ValueError(f"explained_variance={explained_variance}: must be in (0, 1]")
    together = np.concatenate([treated, control])
    if not np.isfinite(together).all():
        raise ValueError("features are NaN or infinite; drop or fill them")
    reduced = _principal_components(together, explained_variance)
    is_treated = np.arange(len(together)) < len(treated)
    distance = _mahalanobis(reduced, is_treated)
    generator = np.random.default_rng(seed)
    others = [_mahalanobis(reduced, generator.permutation(is_treated)) for _ in range(num_permutations)]
    reached = sum(other >= distance for other in others)
    p = (reached + add_one) / (num_permutations + add_one) if num_permutations + add_one else float("nan")
    return MpValue(distance, float(p), reduced.shape[1])


def _principal_components(x: np.ndarray, share: float) -> np.ndarray:
    """Scores (n, K) on the fewest components that explain more than `share` of the variance."""
    left, singular, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    ratio = singular**2 / max((singular**2).sum(), np.finfo(np.float64).tiny)
    count = min(int(np.searchsorted(np.cumsum(ratio), share, side="right")) + 1, len(singular))
    return left[:, :count] * singular[:count]


def _mahalanobis(x: np.ndarray, is_treated: np.ndarray) -> float:
    control = x[~is_treated]
    centre = control.mean(0)
    difference = x[is_treated].mean(0) - centre
    covariance = (control - centre).T @ (control - centre) / len(control)
    return float(difference @ np.linalg.pinv(covariance, hermitian=True) @ difference)
