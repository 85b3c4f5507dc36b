"""Sphering: make the reference rows white, so that what varies among controls counts no more than the rest.

    white = Spherize(reference="Metadata_broad_sample = 'DMSO'").fit(table).transform(table)
    z = Spherize(method="PCA").fit(x).transform(x)                              # bare arrays

With mean m and covariance C = U diag(l) U' of the reference rows, and V = diag(C) (Kessy et al. 2018):

    PCA       z = gain(l) U' (x - m)             ZCA       z = U gain(l) U' (x - m)
    PCA-cor, ZCA-cor: the same on (x - m) / max(V, epsilon)^1/2, so with the correlation matrix in place of C

`gain(l)` is max(l, epsilon)^-1/2 with `regularization="clip"`: pycytominer until 1.0, and thereby Bornholdt
(2021), with `ddof=0`; or (l + epsilon)^-1/2 with "add": DeepProfilerExperiments. Ando et al. (2017) proposed
the operation for profiles as typical variation normalization.

n reference rows span at most n - 1 directions. If there are more features, the others have no variance to
divide by: ZCA gives them gain(0) = epsilon^-1/2, 1,000 by default, as in the thesis, whose 3,264 control wells
met 6,400 features. That is the default because treatments differ from controls there, too: dropping them
(`null_directions="drop"`) discards that signal, and amplifying them is what the published figures rest on.
Mind that they then dominate similarities. PCA has coordinates for directions with variance only.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from absl import logging
from scipy import linalg

from coos.profiles.step import Data, GroupedStep
from coos.profiles.table import listing

METHODS = ("PCA", "ZCA", "PCA-cor", "ZCA-cor")
REGULARIZATIONS = ("clip", "add")
NULL_DIRECTIONS = ("keep", "drop")
BLOCK = 1024  # rows that are transformed at a time, in float64
ACCURACY = 1e-6  # of the covariance after sphering; eigenvectors that miss it give way to singular vectors


@dataclasses.dataclass(frozen=True)
class Sphering:
    """What was learned from the n reference rows of a group.

    With y = (x - mean) / scale, rows become `y matrix`, or, where D x D would be too large, that is with n <= D,
    `gain y + ((y vectors) * weights) vectors'`. `mean` and `scale` are (D,), `vectors` (D, k). Of the covariance
    of y, `eigenvalues` (rank,) are those that can be told from zero, largest first; `num_below_epsilon` counts
    the directions, out of D, with a variance below epsilon. `whiteness_error` is the largest |cov - I| of the
    sphered reference rows in the span of the eigenvectors, measured in float64. All arrays are float64.
    """

    mean: np.ndarray
    scale: np.ndarray
    eigenvalues: np.ndarray
    num_reference: int
    num_below_epsilon: int
    matrix: np.ndarray | None = None
    vectors: np.ndarray | None = None
    weights: np.ndarray | None = None
    gain: float = 0.0
    whiteness_error: float = np.nan

    @property
    def rank(self) -> int:
        """In how many directions the variance of the reference rows can be told from zero."""
        return len(self.eigenvalues)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Rows `x` (m, D), not too many at a time, sphered: (m, D), or (m, rank) for PCA; float64."""
        y = (x - self.mean) / self.scale
        if self.matrix is not None:
            return y @ self.matrix
        inside = y @ self.vectors
        inside *= self.weights
        y *= self.gain
        y += inside @ self.vectors.T  # type: ignore[union-attr]
        return y

    def covariance(self, y: np.ndarray, divisor: int, directions: np.ndarray | None) -> np.ndarray:
        """Of sphered reference rows `y` (n, D) along `directions` (D, k): (k, k); None: of all components."""
        if self.vectors is None:
            white = y @ (self.matrix if directions is None else self.matrix @ directions)
        else:
            white = y @ directions
            inside = white if directions is self.vectors else y @ self.vectors
            white = self.gain * white + (inside * self.weights) @ (self.vectors.T @ directions)
        return white.T @ white / divisor


@dataclasses.dataclass(kw_only=True)
class Spherize(GroupedStep):
    """Sphere (whiten) features by the mean and covariance of the reference rows; the module has the formulas.

    Args:
        method: "ZCA-cor" (default) and "ZCA" keep the features; "PCA" and "PCA-cor" make new ones, PC1, PC2...
        epsilon: the variance below which a direction does not count as measured.
        regularization: "clip" raises eigenvalues below epsilon to it, "add" adds epsilon to all.
        ddof: the covariance is divided by n - ddof; 1 gives np.cov = I, 0 is the thesis' convention.
        null_directions: for ZCA, what becomes of directions in which the reference does not vary: "keep"
            multiplies them by epsilon^-1/2, "drop" removes them.

    After fitting, `states_` holds a `Sphering` for each group and `whiteness_error_` the largest error of them.
    A warning tells of reference rows that do not allow whiteness. Results are float32 for tables and float32
    arrays, otherwise float64. They are computed in float64: large gains amplify rounding, too. A feature with
    variance below epsilon is divided by epsilon^1/2 before -cor takes eigenvalues (the code of 2021 did so after).

    Raises:
        ValueError: unknown options; missing or infinite values; fewer than two reference rows, or rows without
            variance; constant features with a -cor method; groups of different rank with a PCA method.
    """

    method: str = "ZCA-cor"
    epsilon: float = 1e-6
    regularization: str = "clip"
    ddof: int = 1
    null_directions: str = "keep"

    def __post_init__(self):
        known = {"method": METHODS, "regularization": REGULARIZATIONS, "null_directions": NULL_DIRECTIONS}
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {choices}")
        if not self.epsilon > 0:
            raise ValueError(
                f"epsilon={self.epsilon}: must be positive, it bounds how much noise is amplified"
            )

    def fit(self, data: Data) -> Self:
        """Learn mean and sphering of the reference rows of each group."""
        super().fit(data)
        ranks = sorted({state.rank for state in self.states_.values()})
        if self._is_pca and len(ranks) > 1:
            raise ValueError(
                f"the reference rows of the groups have different ranks ({listing(ranks)}), which would give "
                "them different numbers of components; use a ZCA method, or by=None"
            )
        self.whiteness_error_ = max(state.whiteness_error for state in self.states_.values())
        for key, state in self.states_.items():
            self._report(", ".join(map(str, key)) or "all rows", state)
        return self

    def output_names(self, names: Sequence[str]) -> Sequence[str]:
        """`names`, or PC1, PC2... for a PCA method."""
        rank = next(iter(self.states_.values())).rank
        return [f"PC{i + 1}" for i in range(rank)] if self._is_pca else names

    def learn(self, x: np.ndarray, names: Sequence[str]) -> Sphering:
        """The sphering of reference rows `x` (n, D)."""
        require_finite(x, names)
        divisor = len(x) - self.ddof
        if len(x) < 2 or divisor < 1:
            raise ValueError(
                f"{len(x)} reference rows have no covariance with ddof={self.ddof}; give it more"
            )
        y = x.astype(np.float64)
        mean = y.mean(0)
        y -= mean
        scale = self._scale(x, y, divisor, names)
        y /= scale
        noise = (np.finfo(x.dtype).eps * np.abs(x).max(0) / scale) ** 2
        eigenvalues, vectors, resolved = _eigenvectors(y, divisor, noise, self.epsilon)
        learned, covariance = self._sphering(mean, scale, eigenvalues, vectors, y, divisor)
        if not resolved or _off(covariance, eigenvalues * self._gains(eigenvalues) ** 2) > ACCURACY:
            eigenvalues, vectors = _singular_vectors(y, divisor, noise)
            learned, covariance = self._sphering(mean, scale, eigenvalues, vectors, y, divisor)
        return dataclasses.replace(learned, whiteness_error=_off(covariance, 1.0))

    def apply(self, state: Sphering, x: np.ndarray) -> np.ndarray:
        """Rows `x` (n, D), sphered: (n, D), or (n, rank) for PCA."""
        if x.shape[1] != len(state.mean):
            raise ValueError(f"fitted on {len(state.mean)} features, these are {x.shape[1]}")
        require_finite(x, getattr(self, "names_", range(x.shape[1])))
        sphered = np.empty((len(x), state.rank if self._is_pca else x.shape[1]), x.dtype)
        for start in range(0, len(x), BLOCK):
            sphered[start : start + BLOCK] = state(x[start : start + BLOCK])
        return sphered

    @property
    def _is_pca(self) -> bool:
        return self.method.startswith("PCA")

    def _gains(self, eigenvalues: np.ndarray | float) -> np.ndarray:
        if self.regularization == "clip":
            return 1 / np.sqrt(np.maximum(eigenvalues, self.epsilon))
        return 1 / np.sqrt(np.asarray(eigenvalues) + self.epsilon)

    def _scale(self, x: np.ndarray, centered: np.ndarray, divisor: int, names: Sequence[str]) -> np.ndarray:
        if not self.method.endswith("-cor"):
            return np.ones(x.shape[1])
        constant = np.flatnonzero(x.max(0) == x.min(0))
        if len(constant):
            raise ValueError(
                f"{len(constant)} features are constant in the reference rows and have no correlation: "
                f"{listing([names[i] for i in constant.tolist()])}; drop them first with select.MinimumVariance"
            )
        variance = np.einsum("nd,nd->d", centered, centered) / divisor
        return np.sqrt(np.maximum(variance, self.epsilon))

    def _sphering(self, mean, scale, eigenvalues, vectors, y, divisor) -> tuple[Sphering, np.ndarray]:
        """The sphering, and the covariance it gives the reference rows `y` in the span of `vectors`."""
        num_below = len(mean) - int((eigenvalues > self.epsilon).sum())
        learned = Sphering(mean, scale, eigenvalues, len(y), num_below)
        learned = dataclasses.replace(learned, **self._map(self._gains(eigenvalues), vectors, len(y)))
        return learned, learned.covariance(y, divisor, None if self._is_pca else vectors)

    def _map(self, gains: np.ndarray, vectors: np.ndarray, n: int) -> dict[str, Any]:
        """The fields of `Sphering` that say what becomes of y."""
        if self._is_pca:
            return {"matrix": _signed(vectors) * gains}
        has_null = vectors.shape[1] < len(vectors)
        gain = float(self._gains(0.0)) if has_null and self.null_directions == "keep" else 0.0
        weights = gains - gain
        if n > len(vectors):
            return {"matrix": (vectors * weights) @ vectors.T + gain * np.eye(len(vectors))}
        used = weights != 0  # with "clip", directions below epsilon are multiplied like null directions
        vectors = vectors if used.all() else vectors[:, used]
        return {"vectors": vectors, "weights": weights[used], "gain": gain}

    def _report(self, label: str, state: Sphering) -> None:
        if state.num_below_epsilon == 0 and state.whiteness_error <= 10 * ACCURACY:
            return
        kept = not self._is_pca and self.null_directions == "keep"
        logging.warning(
            f"{label}: the reference rows cannot become white in all directions: {state.num_reference} rows, "
            f"{len(state.mean)} features, rank {state.rank}; {state.num_below_epsilon} directions have a variance "
            f"below epsilon={self.epsilon:g}, {len(state.mean) - state.rank} of them none: the latter are "
            f"{f'multiplied by {self.epsilon**-0.5:g}' if kept else 'left out'}. In the span of the reference "
            f"rows, max |cov - I| is {state.whiteness_error:.2g}"
        )


def require_finite(x: np.ndarray, names: Sequence[object]) -> None:
    """Raise ValueError, naming features, if `x` (n, D) has missing or infinite values."""
    bad = ~np.isfinite(x)
    if bad.any():
        where = np.flatnonzero(bad.any(0))
        raise ValueError(
            f"{int(bad.sum())} values are missing or infinite, in {len(where)} features: "
            f"{listing([str(names[i]) for i in where.tolist()])}; leave out the rows, or drop the features first "
            "with select.DropMissing(cutoff=0) and select.DropOutliers"
        )


def _eigenvectors(
    y: np.ndarray, divisor: int, noise: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Eigenvalues (rank,), eigenvectors (D, rank) of y' y / divisor; whether they resolve variance epsilon."""
    n, d = y.shape
    values, vectors = from_gram(y, divisor) if n <= d else from_covariance(y, divisor)
    floor = max(n, d) * np.finfo(np.float64).eps * values[0]
    values, vectors = _above(floor, values, vectors, noise)
    return values, vectors, floor < epsilon


def from_covariance(y: np.ndarray, divisor: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, largest first, and eigenvectors (D, D) of y' y / divisor, by that D x D matrix."""
    values, vectors = linalg.eigh(y.T @ y / divisor, driver="evr", overwrite_a=True, check_finite=False)
    return values[::-1], vectors[:, ::-1]


def from_gram(y: np.ndarray, divisor: int) -> tuple[np.ndarray, np.ndarray]:
    """The same, for as many as `y` (n, D) has rows, by the n x n matrix y y': u = y' q / |y' q|."""
    values, vectors = linalg.eigh(y @ y.T / divisor, driver="evr", overwrite_a=True, check_finite=False)
    vectors = y.T @ vectors[:, ::-1]
    lengths = np.sqrt(np.einsum("dn,dn->n", vectors, vectors))
    vectors /= np.where(lengths > 0, lengths, 1)
    return values[::-1], vectors


def _singular_vectors(y: np.ndarray, divisor: int, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_eigenvectors`, slower, but exact to eps times the root of the largest eigenvalue, not to eps times it."""
    n, d = y.shape
    small = linalg.qr(y, mode="r", check_finite=False)[0][:d] if n > d else y
    _, singular, rows = linalg.svd(small, full_matrices=False, check_finite=False)
    floor = (max(n, d) * np.finfo(np.float64).eps * singular[0]) ** 2 / divisor
    return _above(floor, singular**2 / divisor, rows.T, noise)


def _above(floor: float, values: np.ndarray, vectors: np.ndarray, noise: np.ndarray) -> tuple:
    """The eigenpairs whose variance exceeds `floor` and what rounding `y` to its dtype would give (`noise`, (D,))."""
    found = values > np.maximum(floor, np.einsum("dr,dr,d->r", vectors, vectors, noise))
    if not found.any():
        raise ValueError("the reference rows are all alike, nothing varies; give other reference rows")
    return (values, vectors) if found.all() else (values[found], vectors[:, found])


def _signed(vectors: np.ndarray) -> np.ndarray:
    """Vectors (D, k) with their signs chosen such that the entry of largest magnitude is positive."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)
    return vectors * np.sign(largest)


def _off(covariance: np.ndarray, diagonal: np.ndarray | float) -> float:
    """The largest |covariance - diag(diagonal)|."""
    return float(np.abs(covariance - np.eye(len(covariance)) * diagonal).max())
