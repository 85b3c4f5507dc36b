"""Replicates of one concentration in two numbers, median and median absolute deviation."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

NORMAL_SCALE = 1.4826  # makes the MAD of a normal distribution its standard deviation
SAME = 1e-4  # two log10 concentrations closer than this are one (0.02 %): float32 tells no finer


class Spread(NamedTuple):
    """Median, median absolute deviation (float) and number of values (int32); NaN, NaN and 0 without a value."""

    median: Array
    mad: Array
    num_values: Array


def median_and_mad(
    responses: ArrayLike, mask: ArrayLike | None = None, axis: int = -1, *, scaled: bool = False
) -> Spread:
    """Median over `axis` and median of the absolute deviations from it (Godinez et al. 2017, section 3.1, Fig. 3b).

    mask: which responses count, of their shape (None: all); NaN never does. scaled: multiply the MAD by 1.4826; the
    paper's error bars are not said to be, and its text defines the plain one (section 2.4).
    """
    values = jnp.asarray(responses, jnp.result_type(float))
    known = usable(values, mask)
    values = jnp.where(known, values, jnp.nan)
    median = jnp.nanmedian(values, axis=axis, keepdims=True)
    mad = jnp.nanmedian(jnp.abs(values - median), axis=axis)
    return Spread(median.squeeze(axis), NORMAL_SCALE * mad if scaled else mad, known.sum(axis))


def usable(values: Array, mask: ArrayLike | None) -> Array:
    """Where `mask` (None: everywhere) holds and the value is finite."""
    if mask is None:
        return jnp.isfinite(values)
    if jnp.shape(mask) != values.shape:
        raise ValueError(
            f"mask has shape {jnp.shape(mask)}, the values have {values.shape}; they must be equal"
        )
    return jnp.asarray(mask).astype(bool) & jnp.isfinite(values)


def medians(log10_concentration: Array, response: Array, keep: Array) -> tuple[Array, Array]:
    """Of one curve (N,): the median of all points of the same concentration, and which point stands for each.

    Returns (N,) medians and (N,) bool, True for the first point of every concentration. Memory is O(N^2).
    """
    same = (jnp.abs(log10_concentration[:, None] - log10_concentration) < SAME) & keep
    same = same | (
        (log10_concentration[:, None] == log10_concentration) & keep
    )  # -inf, whose difference is NaN
    found = jnp.nanmedian(jnp.where(same, response, jnp.nan), axis=1)
    earlier = jnp.tril(same, -1).any(1)
    return jnp.where(keep, found, 0), keep & ~earlier


def num_distinct(log10_concentration: Array, keep: Array) -> Array:
    """Number (int32) of distinct finite concentrations of one curve (N,)."""
    finite = keep & jnp.isfinite(log10_concentration)
    ordered = jnp.sort(jnp.where(finite, log10_concentration, jnp.inf))
    new = jnp.concatenate([jnp.ones(1, bool), jnp.diff(ordered) >= SAME])
    return (new & jnp.isfinite(ordered)).sum().astype(jnp.int32)
