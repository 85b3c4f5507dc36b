"""How well a classifier does on one set of cells, and what it loses on another.

Everything follows from the confusion matrix M, where M[t, p] counts examples of true class t that were
predicted as class p (Lu et al. 2019, sections 3.1, 3.3 and 3.4):

    sensitivity[c] = M[c, c] / sum_p M[c, p]        precision[c] = M[c, c] / sum_t M[t, c]
    balanced error = 1 - mean over classes of sensitivity

All functions are jit-able and take a `mask` (padding does not count). A value that the data do not define,
such as the sensitivity of a class without examples, is NaN; `absent_classes` counts them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

ABSENT_CONVENTIONS = ("skip", "nan")


def _mask(mask: ArrayLike | None, labels: Array) -> Array:
    if mask is None:
        return jnp.ones(labels.shape, bool)
    if jnp.shape(mask) != labels.shape:
        raise ValueError(f"mask has shape {jnp.shape(mask)}, labels have {labels.shape}; they must be equal")
    return jnp.asarray(mask).astype(bool)


def _check_rows(name: str, array: Array, labels: Array) -> None:
    if labels.ndim != 1 or array.shape[:1] != labels.shape:
        raise ValueError(f"labels must be (N,) and {name} have N rows; got {labels.shape} and {array.shape}")


def confusion_matrix(
    labels: ArrayLike, predicted: ArrayLike, *, num_classes: int, mask: ArrayLike | None = None
) -> Array:
    """Counts (num_classes, num_classes) int32: row = true class, column = predicted class.

    `labels` and `predicted` are (N,) integers, `mask` (N,) or None. Masked rows may hold any label; an
    unmasked pair outside 0..num_classes-1 is not counted in any cell.
    """
    labels, predicted = jnp.asarray(labels), jnp.asarray(predicted)
    _check_rows("predicted", predicted, labels)
    inside = (labels >= 0) & (labels < num_classes) & (predicted >= 0) & (predicted < num_classes)
    counted = (_mask(mask, labels) & inside).astype(jnp.int32)
    cell = jnp.where(inside, labels * num_classes + predicted, 0)
    counts = jnp.zeros(num_classes * num_classes, jnp.int32).at[cell].add(counted)
    return counts.reshape(num_classes, num_classes)


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """numerator / denominator, NaN where the denominator is 0."""
    denominator = jnp.asarray(denominator)
    safe = jnp.where(denominator == 0, 1, denominator)
    return jnp.where(denominator == 0, jnp.nan, numerator / safe)


def confusion_rates(confusion: ArrayLike) -> Array:
    """Each row of the confusion matrix divided by its sum: P(predicted | true); NaN rows without examples."""
    confusion = jnp.asarray(confusion)
    return _ratio(confusion, confusion.sum(-1, keepdims=True))


def sensitivity(confusion: ArrayLike) -> Array:
    """Per class (K,): the share of its examples that were found (recall); NaN without examples."""
    return jnp.diagonal(confusion_rates(confusion), axis1=-2, axis2=-1)


def precision(confusion: ArrayLike) -> Array:
    """Per class (K,): the share of its predictions that are right; NaN if it was never predicted."""
    confusion = jnp.asarray(confusion)
    return _ratio(jnp.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-2))


def absent_classes(confusion: ArrayLike) -> Array:
    """How many classes have no example, i.e. for how many the sensitivity is undefined (int32)."""
    return (jnp.asarray(confusion).sum(-1) == 0).sum(-1)


def balanced_error(confusion: ArrayLike, *, absent: str = "skip") -> Array:
    """Class-balanced error, 1 - mean sensitivity (Lu et al. 2019, Table 3, there in percent).

    `absent` says what a class without examples does: "skip" averages over the classes that are present
    (scikit-learn's `balanced_accuracy_score`), "nan" makes the error NaN. No examples at all give NaN.
    """
    if absent not in ABSENT_CONVENTIONS:
        raise ValueError(f"absent={absent!r}: choose one of {ABSENT_CONVENTIONS}")
    mean = jnp.nanmean if absent == "skip" else jnp.mean
    return 1.0 - mean(sensitivity(confusion), axis=-1)


def accuracy(confusion: ArrayLike) -> Array:
    """Share of all examples that were predicted right; NaN without examples."""
    confusion = jnp.asarray(confusion)
    return _ratio(jnp.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def cross_entropy(labels: ArrayLike, probabilities: ArrayLike, *, mask: ArrayLike | None = None) -> Array:
    """Mean of -log p[label] in nats; `probabilities` (N, K) are clipped at the smallest normal float32."""
    labels, probabilities = jnp.asarray(labels), jnp.asarray(probabilities)
    _check_rows("probabilities", probabilities, labels)
    keep = _mask(mask, labels)
    safe = jnp.clip(labels, 0, probabilities.shape[-1] - 1)
    chosen = jnp.take_along_axis(probabilities, safe[:, None], axis=-1)[:, 0]
    losses = -jnp.log(jnp.maximum(chosen, jnp.finfo(jnp.float32).tiny))
    return _ratio(jnp.where(keep, losses, 0).sum(), keep.sum())


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, *, num_bins: int = 15, mask: ArrayLike | None = None
) -> Array:
    """Mean over examples of |accuracy - confidence| of the example's confidence bin (Guo et al. 2017).

    Confidence is the largest probability; bins are (i/num_bins, (i+1)/num_bins], equally wide.
    """
    labels, probabilities = jnp.asarray(labels), jnp.asarray(probabilities)
    _check_rows("probabilities", probabilities, labels)
    keep = _mask(mask, labels).astype(jnp.float32)
    confidence = probabilities.max(-1)
    correct = (probabilities.argmax(-1) == labels).astype(jnp.float32)
    bin_of = jnp.clip(jnp.ceil(confidence * num_bins).astype(jnp.int32) - 1, 0, num_bins - 1)
    difference = jnp.zeros(num_bins).at[bin_of].add(jnp.where(keep > 0, correct - confidence, 0.0))
    return _ratio(jnp.abs(difference).sum(), keep.sum())


def scores(labels: ArrayLike, probabilities: ArrayLike, *, mask: ArrayLike | None = None) -> dict[str, Array]:
    """All of the above for class probabilities (N, K): scalars, and sensitivity and precision (K,)."""
    labels, probabilities = jnp.asarray(labels), jnp.asarray(probabilities)
    predicted = probabilities.argmax(-1)
    confusion = confusion_matrix(labels, predicted, num_classes=probabilities.shape[-1], mask=mask)
    return {
        "balanced_error": balanced_error(confusion),
        "accuracy": accuracy(confusion),
        "cross_entropy": cross_entropy(labels, probabilities, mask=mask),
        "expected_calibration_error": expected_calibration_error(labels, probabilities, mask=mask),
        "absent_classes": absent_classes(confusion),
        "sensitivity": sensitivity(confusion),
        "precision": precision(confusion),
    }


def gap(value: ArrayLike, reference: ArrayLike) -> Array:
    """value - reference: what a shift costs when both are errors (positive = worse than the reference set)."""
    return jnp.asarray(value) - jnp.asarray(reference)


def confusion_growth(confusion: ArrayLike, reference: ArrayLike) -> Array:
    """Where each class's lost sensitivity went between two sets (Lu et al. 2019, section 3.4).

    G = rates(confusion) - rates(reference), (K, K). The diagonal is the change in sensitivity; off the
    diagonal, G[t, p] > 0 is the share of class t that is newly called p. Every defined row sums to 0, so the
    loss of a class is exactly what its other columns gained.
    """
    return confusion_rates(confusion) - confusion_rates(reference)


def _resampled_rows(key: Array, labels: Array, keep: Array) -> tuple[Array, Array]:
    """Rows (N,) of one bootstrap sample drawn with replacement inside each class, and the rows they replace.

    Rows are sorted by class, masked rows last; the row in place i is replaced by a random row of its class.
    """
    stratum = jnp.where(keep, labels, jnp.iinfo(jnp.int32).max)
    order = jnp.argsort(stratum)
    ordered = stratum[order]
    first = jnp.searchsorted(ordered, ordered, side="left")
    size = jnp.searchsorted(ordered, ordered, side="right") - first
    return order[first + jax.random.randint(key, labels.shape, 0, size)], order


def bootstrap(
    statistic: Callable[..., Any],
    key: Array,
    labels: ArrayLike,
    *arrays: ArrayLike,
    mask: ArrayLike | None = None,
    num_resamples: int = 1000,
    block: int = 50,
) -> Any:
    """`statistic(labels, *arrays, mask)` on `num_resamples` stratified bootstrap samples, stacked in front.

    Examples are drawn with replacement inside each class, so that every sample has the class sizes of the
    set: the balanced error depends on them as given, not as drawn. Samples are computed `block` at a time
    (memory grows with N * block). `arrays` have N rows each. Under an outer jit pass the arrays as its
    arguments: captured as constants they are folded at compile time, slowly.
    """
    labels = jnp.asarray(labels)
    keep = _mask(mask, labels)
    columns = [jnp.asarray(array) for array in arrays]
    for column in columns:
        _check_rows("arrays", column, labels)

    def one(sample_key: Array) -> Any:
        rows, places = _resampled_rows(sample_key, labels, keep)
        return statistic(labels[rows], *(column[rows] for column in columns), keep[places])

    return jax.lax.map(one, jax.random.split(key, num_resamples), batch_size=min(block, num_resamples))


def interval(samples: ArrayLike, *, level: float = 0.95) -> Array:
    """Percentile interval (2, ...) over the first axis, ignoring NaN: lower and upper bound."""
    tail = (1.0 - level) / 2
    return jnp.nanquantile(jnp.asarray(samples), jnp.array([tail, 1.0 - tail]), axis=0)
