"""AUROC, average precision and F1 of many binary tasks at once, where most labels are missing.

All functions take scores (N, T), labels (N, T) and mask (N, T), and give one value per task, (T,) float32. A label
above 0 is active, any other inactive, so that {False, True}, {0, 1} and {-1, +1} all do. Entries outside the mask
may hold anything, NaN included. mask=None counts every entry: a matrix in which 0 stands for "not measured" needs
`mask=labels != 0`.

Scores are compared as float32 (float64 ones are rounded to it, unless JAX's 64-bit mode is on), bit by bit: numbers
below 1e-38, which a CPU would take for 0, keep their order, and 0 equals -0. Equal scores are ties. A NaN score of a
labelled entry has no place in any order: its task is NaN in every convention.

Each labelled entry is placed among those of the other class by binary search in their sorted scores: time
O(T N log N), memory O(T N). Placements are whole numbers, and so are their sums: exact up to 2^20 rows.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

UNDEFINED = ("nan", "half")
MAX_ROWS = 1 << 20  # up to here `_exact_sum` fits 32 bits
LIMB = 11  # bits of the lower part of a whole number, see `_exact_sum`
LOW = (1 << LIMB) - 1


def check_shapes(scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None) -> None:
    """Raise a ValueError unless scores, labels and mask (or None) are (N, T) and of equal shape."""
    shape = jnp.shape(scores)
    if len(shape) != 2:
        raise ValueError(f"scores must be (rows, tasks), got shape {shape}; for one task use scores[:, None]")
    if jnp.shape(labels) != shape:
        raise ValueError(f"labels have shape {jnp.shape(labels)}, scores have {shape}; they must be equal")
    if mask is not None and jnp.shape(mask) != shape:
        raise ValueError(f"mask has shape {jnp.shape(mask)}, scores have {shape}; they must be equal")
    if shape[0] > MAX_ROWS:
        raise ValueError(
            f"{shape[0]:,} rows; counts are exact up to {MAX_ROWS:,}: average the rows of a well"
        )


def _classes(labels: ArrayLike, mask: ArrayLike | None) -> tuple[Array, Array]:
    """Labelled active and labelled inactive entries, (T, N) bool each."""
    active = jnp.asarray(labels).T > 0
    labelled = jnp.ones(active.shape, bool) if mask is None else jnp.asarray(mask).T.astype(bool)
    return active & labelled, ~active & labelled


def _floats(scores: ArrayLike) -> Array:
    """(T, N) float32, or float64 if that is what they are."""
    scores = jnp.asarray(scores).T
    return scores if scores.dtype == jnp.float64 else scores.astype(jnp.float32)


def _keys(scores: Array) -> Array:
    """Integers in the order of the floating-point scores: equal where these are, all below the greatest integer."""
    whole = jnp.int64 if scores.dtype == jnp.float64 else jnp.int32
    bits = jax.lax.bitcast_convert_type(scores, whole)
    return jnp.where(bits < 0, -(bits & jnp.iinfo(whole).max), bits)


def _twice_below(keys: Array, others: Array) -> Array:
    """(T, N): 2 (entries of `others` with a lower key) + (those with the same key), for every entry."""
    ordered = jnp.sort(jnp.where(others, keys, jnp.iinfo(keys.dtype).max), axis=1)
    return _count(ordered, keys, "left") + _count(ordered, keys, "right")


def _count(ordered: Array, keys: Array, side: str) -> Array:
    """(T, N) int32: how many numbers in a row of `ordered` are below ("left"), or not above ("right"), each key.

    Binary search for all keys in step; `jnp.searchsorted` under `vmap` takes three times as long on a CPU.
    """
    size = ordered.shape[1]
    passes = jnp.less if side == "left" else jnp.less_equal

    def halve(step: Array, found: Array) -> Array:
        further = found + (jnp.int32(1) << (size.bit_length() - 1 - step))
        at = jnp.minimum(further, size) - 1
        number = jnp.take_along_axis(ordered, at, axis=1, mode="promise_in_bounds")
        return jnp.where((further <= size) & passes(number, keys), further, found)

    return jax.lax.fori_loop(0, size.bit_length(), halve, jnp.zeros(keys.shape, jnp.int32))


def _exact_sum(values: Array, where: Array) -> Array:
    """Float32 sum over rows of whole numbers up to 2^21: parts of 11 bits are summed exactly, rounded at the end."""
    values = jnp.where(where, values, 0)
    return join((values & LOW).sum(1), (values >> LIMB).sum(1))


def join(low: Array, high: Array) -> Array:
    """The float32 nearest (to two roundings) to a whole number that was added up in two parts."""
    return high.astype(jnp.float32) * (1 << LIMB) + low.astype(jnp.float32)


def _sum(values: Array) -> Array:
    """Sum of (T, N) over rows in two levels, so that rounding errors do not add up over thousands of terms."""
    padded = jnp.pad(values, ((0, 0), (0, -values.shape[1] % 128)))
    return padded.reshape(len(values), padded.shape[1] // 128, 128).sum(2).sum(1)


def _broken(scores: Array, labelled: Array) -> Array:
    """(T,) bool: is the score of any labelled entry NaN?"""
    return (jnp.isnan(scores) & labelled).any(1)


def _ratio(numerator: Array, denominator: Array, broken: Array) -> Array:
    """numerator / denominator, NaN where the denominator is 0 or the task is broken."""
    undefined = (denominator == 0) | broken
    return jnp.where(undefined, jnp.nan, numerator / jnp.where(denominator == 0, 1, denominator))


@jax.jit
def counts(labels: ArrayLike, mask: ArrayLike | None = None) -> tuple[Array, Array]:
    """How many entries of each task are labelled active, and inactive: two (T,) int32."""
    check_shapes(labels, labels, mask)
    active, inactive = _classes(labels, mask)
    return active.sum(1, dtype=jnp.int32), inactive.sum(1, dtype=jnp.int32)


@jax.jit
def placements(scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """(N, T) int32: twice the number of entries of the other class that each labelled entry is on the right side of.

    An active entry: 2 (inactive below) + (inactive tied); an inactive one: 2 (active above) + (active tied). Entries
    without a label get 0. NaN scores are placed as if above all others.
    """
    check_shapes(scores, labels, mask)
    active, inactive = _classes(labels, mask)
    keys = _keys(_floats(scores))
    above = 2 * active.sum(1, keepdims=True, dtype=jnp.int32) - _twice_below(keys, active)
    return jnp.where(active, _twice_below(keys, inactive), jnp.where(inactive, above, 0)).T


@functools.partial(jax.jit, static_argnames="undefined")
def auroc(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, *, undefined: str = "nan"
) -> Array:
    """Area under the ROC curve, (T,): the probability that an active entry scores above an inactive one.

        AUROC = (pairs in the right order + half the tied pairs) / (active * inactive)

    A task without active or without inactive entries has none: NaN, or 0.5 with `undefined="half"`, which is the
    convention of the published code of Hofmarcher et al. 2019. NaN scores give NaN in both.
    """
    check_shapes(scores, labels, mask)
    if undefined not in UNDEFINED:
        raise ValueError(f"undefined={undefined!r}: choose one of {', '.join(UNDEFINED)}")
    active, inactive = _classes(labels, mask)
    values = _floats(scores)
    num_active, num_inactive = active.sum(1), inactive.sum(1)
    won = _exact_sum(_twice_below(_keys(values), inactive), active) / jnp.maximum(num_inactive, 1) / 2
    pairs_exist = (num_active > 0) & (num_inactive > 0)
    found = jnp.where(pairs_exist, won / jnp.maximum(num_active, 1), jnp.nan if undefined == "nan" else 0.5)
    return jnp.where(_broken(values, active | inactive), jnp.nan, found)


@jax.jit
def average_precision(scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """Average precision, (T,): the sum over distinct scores k, from above, of (R_k - R_{k-1}) P_k.

    P_k and R_k are the precision and the recall of predicting active from score k on (scikit-learn's definition:
    no interpolation, ties taken together). It is the mean over active entries of the precision at their own score.
    NaN without active entries; 1 without inactive ones.
    """
    check_shapes(scores, labels, mask)
    active, inactive = _classes(labels, mask)
    values = _floats(scores)
    keys = _keys(values)

    def from_here_on(entries: Array) -> Array:
        """(T, N): how many of the `entries` score as high as this one, or higher."""
        ordered = jnp.sort(jnp.where(entries, keys, jnp.iinfo(keys.dtype).max), axis=1)
        return entries.sum(1, keepdims=True) - _count(ordered, keys, "left")

    true, false = from_here_on(active), from_here_on(inactive)
    precision = jnp.where(active, true / jnp.maximum(true + false, 1), 0)
    return _ratio(_sum(precision), active.sum(1), _broken(values, active | inactive))


@functools.partial(jax.jit, static_argnames="threshold")
def f1(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, *, threshold: float = 0.5
) -> Array:
    """F1, (T,): 2 TP / (2 TP + FP + FN), where a score of `threshold` or more predicts active.

    NaN where it is 0/0: nothing is active and nothing was predicted to be.
    """
    check_shapes(scores, labels, mask)
    active, inactive = _classes(labels, mask)
    values = _floats(scores)
    predicted = values >= threshold
    hits = 2 * (predicted & active).sum(1)
    wrong = (predicted & inactive).sum(1) + (~predicted & active).sum(1)
    return _ratio(hits, hits + wrong, _broken(values, active | inactive))
