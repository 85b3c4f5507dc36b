"""What the metrics take: features to be compared, labels and exclusions as integers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax import Array
from jax.typing import ArrayLike

# Similarities held at a time: small enough for a CPU's caches and memory, large enough to fill an accelerator.
ELEMENTS = {"cpu": 1 << 22, "default": 1 << 27}
CHUNK = 4096  # rows prepared at a time
SIMILARITIES = ("pearson", "cosine", "spearman")
Exclude = ArrayLike | Sequence[ArrayLike] | None


def encode(values: Sequence[Any]) -> np.ndarray:
    """Codes (N,) int32 of text or other values; None, NaN and "" are unlabelled (-1).

    Equal values get equal codes, numbered in sorted order of their text.
    """
    known = np.array([value is not None and value == value and value != "" for value in values], bool)
    codes = np.full(len(known), -1, np.int32)
    text = np.array([str(value) for value, yes in zip(values, known, strict=True) if yes])
    codes[known] = np.unique(text, return_inverse=True)[1].astype(np.int32)
    return codes


def encode_sets(values: Sequence[str | None], *, separator: str = "|") -> tuple[np.ndarray, list[str]]:
    """Multi-hot labels (N, M) bool of texts such as `"PPAR agonist|insulin sensitizer"`, and the M names.

    With them two rows match if they share any label; None and "" have no label.
    """
    parts = [{part.strip() for part in (value or "").split(separator)} - {""} for value in values]
    names = sorted(set().union(*parts)) if parts else []
    column = {name: position for position, name in enumerate(names)}
    hot = np.zeros((len(parts), len(names)), bool)
    for row, labels in enumerate(parts):
        hot[row, [column[name] for name in labels]] = True
    return hot, names


def check_labels(labels: ArrayLike, count: int) -> np.ndarray:
    """`labels` as (N,) int32 codes, negative = unlabelled, or as multi-hot (N, M) bool.

    Raises:
        TypeError: labels are text or fractions.
        ValueError: not one label (or row of labels) for each of `count` rows.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iub":
        raise TypeError(
            f"labels must be integers, got {array.dtype}; encode text with retrieval.encode(labels)"
        )
    if array.ndim not in (1, 2) or len(array) != count:
        raise ValueError(f"labels must be ({count},) or multi-hot ({count}, M); got shape {array.shape}")
    if array.ndim == 2:
        if not np.isin(array, (0, 1)).all():
            raise ValueError(f"multi-hot labels must be 0 or 1; found {array.min()} to {array.max()}")
        return array.astype(bool)
    codes = np.unique(array, return_inverse=True)[1].astype(np.int32)  # any integers become small ones
    return np.where(array < 0, -1, codes).astype(np.int32)


def check_exclude(exclude: Exclude, count: int) -> np.ndarray:
    """Exclusion groups as (G, N) int32, G = 0 for None; a negative code excludes nothing."""
    if exclude is None:
        return np.zeros((0, count), np.int32)
    several: Any = exclude
    columns = [exclude] if len(several) and np.ndim(several[0]) == 0 else list(several)
    found = []
    for number, column in enumerate(columns):
        array = np.asarray(column)
        if array.dtype.kind not in "iu":
            raise TypeError(f"exclude[{number}] must be integers, got {array.dtype}; use retrieval.encode")
        if array.shape != (count,):
            raise ValueError(f"exclude[{number}] must be ({count},), got shape {array.shape}")
        found.append(check_labels(array, count))
    return np.stack(found) if found else np.zeros((0, count), np.int32)


class Rows(NamedTuple):
    """N rows ready to be compared: similarity of i and j = scale[i] scale[j] (values[i] . values[j]).

    values: (N, D), of length 0.7 to 1.5; scale: (N,). Rows are only scaled by powers of two and the rest of the
    length is divided out after the product, so that ranks, signs and whole numbers with equal similarities tie.
    similarity: all of it, (N, N), where that is no larger than a block would be, so that small tables are
    multiplied once; else (0, 0). In float32 it is good to 1e-6, for nearly identical rows to 5e-6.
    """

    values: Array
    scale: Array
    similarity: Array


def comparable_rows(features: ArrayLike, *, similarity: str = "pearson") -> Rows:
    """`Rows` of `features` (N, D).

    "cosine" divides by the length; "pearson" subtracts the row's mean first (eq. 3.7 of Bornholdt 2021);
    "spearman" replaces values by their average ranks first. NumPy input is prepared in float64, a few thousand
    rows at a time, so that a large common mean costs no digits; arrays on a device are prepared there. The
    result is float32, or float64 where JAX has that enabled.

    Raises:
        ValueError: wrong shape, NaN or infinite values, or rows whose similarity is not defined.
        TypeError: features are not numbers.
    """
    values, scale = _compare(features, similarity)
    undefined = np.flatnonzero(np.isnan(scale))
    if len(undefined):
        what = "are all zero" if similarity == "cosine" else "are all equal"
        raise ValueError(
            f"{len(undefined)} rows have features that {what}, first row {undefined[0]}: their {similarity} "
            "similarity is not defined; drop these rows"
        )
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    rows = Rows(jnp.asarray(values, dtype), jnp.asarray(scale, dtype), jnp.zeros((0, 0), dtype))
    return rows._replace(similarity=_all_similarities(rows)) if len(scale) ** 2 <= block_elements() else rows


def defined_rows(features: ArrayLike, *, similarity: str = "pearson") -> np.ndarray:
    """(N,) bool: rows whose similarity to others is defined, as it is not for rows of equal features."""
    return ~np.isnan(_compare(features, similarity)[1])


def _compare(features: ArrayLike, similarity: str) -> tuple[Any, np.ndarray]:
    """Values and scale of `Rows`, the latter float64 and NaN for rows whose similarity is not defined."""
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity={similarity!r}: choose one of {SIMILARITIES}")
    on_device = isinstance(features, jax.Array) and similarity != "spearman"
    x = jnp.asarray(features) if on_device else np.asarray(features)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"features must be (rows, features) with at least one of each, got shape {x.shape}")
    if x.dtype.kind not in "fiub" and not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"features must be numbers, got {x.dtype}")
    if on_device:
        values, scale = _compare_block(x, jnp, similarity)
        _check_finite(np.asarray(scale))
        return values, np.where(np.asarray(scale) == 0, np.nan, np.asarray(scale, np.float64))
    values = np.empty(x.shape, jax.dtypes.canonicalize_dtype(np.float64))
    scale = np.empty(len(x))
    for begin in range(0, len(x), CHUNK):
        rows = slice(begin, begin + CHUNK)
        values[rows], scale[rows] = _compare_block(x[rows], np, similarity)
    _check_finite(scale)
    return values, np.where(scale == 0, np.nan, scale)


def _compare_block(x: Any, xp: Any, similarity: str) -> tuple[Any, Any]:
    """Values and scale; scale is NaN for rows with values that are not finite, 0 where it is not defined."""
    resolution = float(jnp.finfo(x.dtype).eps) if jnp.issubdtype(x.dtype, jnp.floating) else 0.0
    if xp is np:
        x = x.astype(np.float64, copy=False)
    elif not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.itemsize < 4:
        x = x.astype(jnp.float32)
    largest = xp.abs(x).max(1)
    finite = xp.isfinite(largest)  # a maximum is NaN if any value is
    if not finite.all():
        x = xp.where(finite[:, None], x, 0)
    if similarity == "spearman":
        x = scipy.stats.rankdata(x, axis=1)
        largest = x.max(1)
    x = x / _power_of_two(largest, finite, xp)[:, None]  # within 1.5: squares neither overflow nor vanish
    for _ in range(0 if similarity == "cosine" else 2):
        x = x - x.mean(1, keepdims=True)  # the second time removes the rounding of the first
    lengths = xp.sqrt(xp.einsum("nd,nd->n", x, x))
    power = _power_of_two(lengths, finite, xp)
    flat = lengths <= resolution * np.sqrt(x.shape[1])
    scale = xp.where(flat, 0, power / xp.where(flat, 1, lengths))
    return x / power[:, None], xp.where(finite, scale, np.nan)


def _power_of_two(x: Any, finite: Any, xp: Any) -> Any:
    """The nearest power of two, 1 for 0 and where not `finite`: dividing by it is exact."""
    return xp.exp2(xp.round(xp.log2(xp.where(finite & (x > 0), x, 1))))


def similarities(rows: Rows, first: Array, second: Array | None = None) -> Array:
    """(A, B) similarities of the rows at positions `first` (A,) to those at `second` (B,), or to all rows."""
    if rows.similarity.size:
        found = rows.similarity[first]
        return found if second is None else found[:, second]
    others, scale = (rows.values, rows.scale) if second is None else (rows.values[second], rows.scale[second])
    product = jnp.dot(rows.values[first], others.T, precision="highest")
    return product * (rows.scale[first][:, None] * scale)


@jax.jit
def _all_similarities(rows: Rows) -> Array:
    return similarities(rows, jnp.arange(rows.scale.shape[0]))


def block_elements() -> int:
    """How many similarities are held at a time."""
    return ELEMENTS.get(jax.default_backend(), ELEMENTS["default"])


def _check_finite(scale: np.ndarray) -> None:
    rows = np.flatnonzero(np.isnan(scale))
    if len(rows):
        raise ValueError(
            f"{len(rows)} rows have NaN or infinite features, first row {rows[0]}; drop or fill them"
        )
