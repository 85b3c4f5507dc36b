"""What the metrics take: features to be compared, labels and exclusions as integers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax import Array
from jax.typing import ArrayLike

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
    columns = [exclude] if np.ndim(exclude) == 1 else list(exclude)  # type: ignore[arg-type]
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
    length is divided out after the product, so that whole numbers (and ranks) with equal similarities tie exactly.
    """

    values: Array
    scale: Array


def comparable_rows(features: ArrayLike, *, similarity: str = "pearson") -> Rows:
    """`Rows` of `features` (N, D).

    "cosine" divides by the length; "pearson" subtracts the row's mean first (eq. 3.7 of Bornholdt 2021);
    "spearman" replaces values by their average ranks first. NumPy input is prepared in float64, so that a
    large common mean costs no digits. The result is float32, or float64 where JAX has that enabled.

    Raises:
        ValueError: wrong shape, NaN or infinite values, or rows whose similarity is not defined.
    """
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity={similarity!r}: choose one of {SIMILARITIES}")
    on_device = isinstance(features, jax.Array) and similarity != "spearman"
    x = jnp.asarray(features) if on_device else np.asarray(features)
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"features must be (rows, features), got shape {x.shape}")
    if x.dtype.kind not in "fiub" and not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"features must be numbers, got {x.dtype}")
    xp: Any = jnp if on_device else np
    _check_finite(np.asarray(xp.isfinite(x).all(1)))
    if similarity == "spearman":
        x = scipy.stats.rankdata(x, axis=1)
    centred = _centred(x, xp, times=0 if similarity == "cosine" else 2)
    lengths = np.asarray(xp.sqrt((centred * centred).sum(1)), np.float64)
    _check_defined(lengths, np.asarray(xp.abs(x).max(1, initial=0)), x.dtype, x.shape[1], similarity)
    power = np.exp2(np.round(np.log2(lengths)))
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    values = centred / xp.asarray(power, centred.dtype)[:, None]
    return Rows(jnp.asarray(values, dtype), jnp.asarray(power / lengths, dtype))


def _centred(x: Any, xp: Any, *, times: int) -> Any:
    """`x` in floating point without its row means; the second time removes the rounding of the first."""
    if xp is np:
        x = x.astype(np.float64)
    elif not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.itemsize < 4:
        x = x.astype(jnp.float32)
    for _ in range(times):
        x = x - x.mean(1, keepdims=True)
    return x


def similarities(rows: Rows, first: Array, second: Array | None = None) -> Array:
    """(A, B) similarities of the rows at positions `first` (A,) to those at `second` (B,), or to all rows."""
    others, scale = rows if second is None else (rows.values[second], rows.scale[second])
    product = jnp.dot(rows.values[first], others.T, precision="highest")
    return product * (rows.scale[first][:, None] * scale)


def _check_finite(finite: np.ndarray) -> None:
    if not finite.all():
        rows = np.flatnonzero(~finite)
        raise ValueError(
            f"{len(rows)} rows have NaN or infinite features, first row {rows[0]}; drop or fill them"
        )


def _check_defined(
    lengths: np.ndarray, largest: np.ndarray, dtype: Any, num_features: int, similarity: str
) -> None:
    resolution = np.finfo(dtype).eps if jnp.issubdtype(dtype, jnp.floating) else 0.0
    flat = np.flatnonzero(lengths <= 4 * resolution * np.sqrt(num_features) * largest)
    if len(flat):
        what = "are all zero" if similarity == "cosine" else "are all equal"
        raise ValueError(
            f"{len(flat)} rows have features that {what}, first row {flat[0]}: their {similarity} similarity is "
            "not defined; drop these rows"
        )
