"""Multinomial logistic regression with an L1 penalty, as scikit-learn states it (Lu et al. 2019, section 3.1).

    minimise  C sum_i CE(softmax(x_i W + b), y_i) + sum |W|        the bias is not penalised

A fit comes with a certificate, computed in float64 from the data: the residual is the largest |subgradient of least
magnitude| over weights and biases, in units of the penalty, whose own is 1. At 0 the fit is optimal. By convexity the
objective is above its least value by no more than residual * (|W - W*|_1 + |b - b*|_1), W* and b* the optimal ones.

Probabilities at the optimum are unique; weights are if the number of classes is odd. If it is even, the weights of a
feature may all move by the same amount, between the middle two of them being 0, at no cost.
"""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from coos.classifiers import checks, orthants

BACKENDS = ("jax", "sklearn")
BLOCK = 4096  # rows that are held in float64 at a time

Judge = Callable[[np.ndarray, np.ndarray], tuple[float, float]]  # weights, bias: objective and residual


class Logistic(NamedTuple):
    """A fitted model.

    `weights` (D, K) and `bias` (K,) float64; a class that was not in training has weights 0 and bias -infinity. Biases
    of the others have mean 0. `residual` says how far from optimal, see the module; `converged` whether that is within
    the tolerance. `iterations` are steps, or epochs of scikit-learn's solver.
    """

    weights: np.ndarray
    bias: np.ndarray
    objective: float
    residual: float
    iterations: int
    converged: bool


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    C: float = 1.0,
    backend: str = "jax",
    tolerance: float = 1e-3,
    max_iterations: int = 10_000,
    seed: int = 0,
) -> Logistic:
    """Minimise the objective of the module.

    Args:
        features: (N, D) float32, scaled.
        labels: (N,) int.
        num_classes: number of classes K; those that do not occur get probability 0.
        C: weight of the data against the penalty. Lu et al. do not state it; 1 is scikit-learn's default.
        backend: "jax" (orthant-wise quasi-Newton) or "sklearn" (saga, epochs until the residual is small enough).
        tolerance: largest residual that counts as converged.
        max_iterations: steps or epochs at most; more are needed where a UserWarning says that it did not converge.
        seed: of the order in which saga takes the rows.

    Raises:
        ValueError: C not positive, one class, labels out of range, NaN.
    """
    features = np.asarray(features, np.float32)
    checks.finite(features, what="training features")
    present = checks.classes(labels, num_classes=num_classes, rows=len(features))
    if not (np.isfinite(C) and C > 0):
        raise ValueError(f"C={C}: want a positive number")
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}; choose from {', '.join(BACKENDS)}")
    codes = np.searchsorted(present, labels)
    center = features.mean(
        0, dtype=np.float64
    )  # the bias takes it up; centred, the problem is better conditioned
    solve = _by_orthants if backend == "jax" else functools.partial(_by_saga, seed=seed)
    judge = functools.partial(certificate, features=features, labels=codes, C=C, center=center)
    weights, bias, iterations = solve(
        features, center, codes, C, len(present), judge, tolerance=tolerance, limit=max_iterations
    )
    objective, residual = judge(weights, bias)
    if residual > tolerance:
        warnings.warn(
            f"L1 logistic regression ({backend}) stopped after {iterations} iterations at objective {objective:.8g}, "
            f"residual {residual:.2g}, above the tolerance {tolerance:.2g}: raise max_iterations or the tolerance",
            stacklevel=2,
        )
    bias = bias - center @ weights
    full = np.zeros((features.shape[1], num_classes)), np.full(num_classes, -np.inf)
    full[0][:, present], full[1][present] = weights, bias - bias.mean()
    return Logistic(*full, objective, residual, iterations, residual <= tolerance)


def predict(model: Logistic, features: np.ndarray) -> np.ndarray:
    """Probabilities (M, K) float32 of features (M, D); computed in float64. ValueError for NaN or another width."""
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] != len(model.weights):
        raise ValueError(f"features: shape {features.shape}, but the model has {len(model.weights)} weights")
    checks.finite(features)
    found = np.empty((len(features), len(model.bias)), np.float32)
    for start in range(0, len(features), BLOCK):
        logits = features[start : start + BLOCK].astype(np.float64) @ model.weights + model.bias
        found[start : start + BLOCK] = scipy.special.softmax(logits, axis=1)
    return found


def certificate(
    weights: np.ndarray,
    bias: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    C: float,
    center: np.ndarray | float = 0.0,
) -> tuple[float, float]:
    """Objective and residual of weights (D, K) and bias (K,) on features less `center`, for classes that all occur."""
    loss, slope_weights, slope_bias = 0.0, np.zeros_like(weights), np.zeros_like(bias)
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK].astype(np.float64) - center
        own = labels[start : start + BLOCK]
        logits = block @ weights + bias
        logs = scipy.special.log_softmax(logits, axis=1)
        rows = np.arange(len(own))
        loss -= logs[rows, own].sum()
        excess = np.exp(logs)
        excess[rows, own] -= 1
        slope_weights += block.T @ excess
        slope_bias += excess.sum(0)
    slope_weights, slope_bias = C * slope_weights, C * slope_bias
    at_zero = np.maximum(np.abs(slope_weights) - 1, 0)
    violation = np.where(weights == 0, at_zero, np.abs(slope_weights + np.sign(weights)))
    return float(C * loss + np.abs(weights).sum()), float(max(violation.max(), np.abs(slope_bias).max()))


def _centered(features: np.ndarray, center: np.ndarray, dtype: type) -> np.ndarray:
    centered: np.ndarray = np.empty(features.shape, dtype)
    for start in range(0, len(features), BLOCK):
        centered[start : start + BLOCK] = features[start : start + BLOCK] - center
    return centered


@jax.jit
def minimize(
    features: jax.Array,
    labels: jax.Array,
    start: jax.Array,
    C: jax.Array,
    *,
    tolerance: jax.Array,
    max_iterations: jax.Array,
) -> orthants.State:
    """From `start` (K, D + 1), whose last column is the bias, in the dtype of `start`; the `w` of the state is flat.

    Logits are (K, N): with few classes XLA's products are then several times faster on CPUs.
    """
    num_classes, width = start.shape[0], features.shape[1]
    own = jax.nn.one_hot(labels, num_classes, dtype=start.dtype, axis=0)
    exact = jax.lax.Precision.HIGHEST

    def smooth(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
        w = flat.reshape(num_classes, width + 1)
        logits = jnp.einsum("kd,nd->kn", w[:, :-1], features, precision=exact) + w[:, -1:]
        logs = jax.nn.log_softmax(logits, axis=0)
        excess = jnp.exp(logs) - own
        # Biases count up to a common shift, which rounding would let grow without bound: the first one stays at 0.
        biases = excess.sum(1).at[0].set(0)
        slope = jnp.concatenate([jnp.matmul(excess, features, precision=exact), biases[:, None]], 1)
        return -C * (logs * own).sum(), C * slope.ravel()

    penalty = jnp.ones_like(start).at[:, -1].set(0).ravel()
    return orthants.minimize(
        smooth,
        start.ravel(),
        penalty,
        # the slope of the first bias is minus the sum of the others, and must be as small
        importance=jnp.where(penalty > 0, 1, num_classes - 1).astype(start.dtype),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def _by_orthants(
    features: np.ndarray,
    center: np.ndarray,
    labels: np.ndarray,
    C: float,
    num_classes: int,
    judge: Judge,
    *,
    tolerance: float,
    limit: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """In float32 for as long as its rounding allows, then in float64, if that is not enough."""
    w = np.zeros((num_classes, features.shape[1] + 1))
    done = 0
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype is np.float64):
            # aims lower than asked: the residual is judged again, of other sums
            state = minimize(
                jnp.asarray(_centered(features, center, dtype)),
                jnp.asarray(labels, jnp.int32),
                jnp.asarray(w, dtype),
                dtype(C),
                tolerance=dtype(tolerance * 0.9),
                max_iterations=np.int32(limit - done),
            )
            w = np.asarray(state.w, np.float64).reshape(w.shape)
        done += int(state.iteration)
        if judge(w[:, :-1].T, w[:, -1])[1] <= tolerance:
            break
    return w[:, :-1].T, w[:, -1], done


def _by_saga(
    features: np.ndarray,
    center: np.ndarray,
    labels: np.ndarray,
    C: float,
    num_classes: int,
    judge: Judge,
    *,
    tolerance: float,
    limit: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """saga stops when weights move little, whatever the residual: so ever less, until the residual is small."""
    done, movement = 0, 1e-3
    exact = _centered(features, center, np.float64)
    solver = LogisticRegression(l1_ratio=1.0, C=C, solver="saga", warm_start=True, random_state=seed)
    while True:
        solver.set_params(tol=movement, max_iter=limit - done)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the caller says so, with the residual
            solver.fit(exact, labels)
        done += int(solver.n_iter_[0])
        weights, bias = solver.coef_.T, solver.intercept_
        if num_classes == 2:  # scikit-learn keeps the difference of the two
            weights, bias = np.hstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
        if done >= limit or movement < 1e-12:
            return weights, bias, done
        if judge(weights, bias)[1] <= tolerance:
            return weights, bias, done
        movement /= 4
