"""Fits of many concentration-response curves, in blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from coos.metrics.dose_response import replicates, shared
from coos.metrics.dose_response.blocks import over_curves
from coos.metrics.dose_response.description import Fit, Options, describe, is_defined, released, standard

VARIANTS = ("free", "fixed", "shared_top")
SUMMARIES = ("points", "median")


def fit(
    log10_concentration: ArrayLike,
    response: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    variant: str = "free",
    bottom: float | None = None,
    top: float | None = None,
    groups: ArrayLike | None = None,
    num_groups: int | None = None,
    summarize: str = "points",
    range_margin: float = 1.0,
    hill_bounds: tuple[float, float] = (0.1, 10.0),
    widen: float = 0.5,
    level: float = 0.95,
    significance: float = 0.05,
    effect: float = 2.0,
) -> Fit:
    """Least-squares fit of `curve` to each of C concentration-response curves.

    log10_concentration, response, mask: (C, N), or (N,) for one curve; concentrations may be (N,) for all curves.
    Replicates are further points; `mask` (None: all) marks those that count, and NaN never do. A concentration of 0 is
    -inf: such a vehicle control pins the response without any effect, but does not extend the tested range.

    variant: "free"; "fixed" with `bottom`, `top` or both given, such as 0 and 1 for a probability; "shared_top" with
    one top for all curves of each of `groups`, (C,) integers in 0..num_groups-1 (None: one group). The top of a group
    is the one with the least sum of squares over its curves; its uncertainty is part of the curves' intervals.
    summarize: fit all points, or "median" those of the replicates of each concentration (Godinez et al. 2017,
    section 3.1: a sigmoid is fitted to medians). n is then the number of concentrations.

    Bounds: log10_ec50 within `range_margin` decades of the tested concentrations, |hill| within `hill_bounds`, bottom
    and top within the curve's (the group's) range of responses widened by the share `widen` on both sides, with top at
    least bottom. The interval (coos.metrics.dose_response.interval) covers `level`; for it bottom and top may go ten
    ranges beyond the responses, so that an unseen plateau opens it.

    The F test compares with a flat line at the mean: F = ((SSE_flat - SSE) / (p - 1)) / (SSE / (n - p)) with p free
    parameters. Verdicts, the first that applies:

        undefined               fewer than 5 points or than 4 distinct concentrations above 0
        inactive                p_value > `significance`, or the curve changes by less than `effect` residual errors
                                over the tested concentrations
        outside tested range    the EC50 is not between the lowest and highest tested concentration, its interval is
                                open, or bottom or top (unless given) is at its bound. log10_ec50 is NaN; low and
                                high are what is known, such as "above low"
        active                  otherwise

    Can be called inside `jax.jit` and `jax.vmap`; then `groups` need `num_groups`. Raises ValueError at unknown options
    and at shapes that do not fit.
    """
    _check_options(variant, summarize, bottom, top, level=level, hill_bounds=hill_bounds)
    y = jnp.asarray(response, jnp.result_type(float))
    x = jnp.asarray(log10_concentration, y.dtype)
    if y.ndim not in (1, 2) or x.shape not in (y.shape, y.shape[-1:]):
        raise ValueError(f"response must be (C, N) or (N,), concentrations too; got {y.shape} and {x.shape}")
    x = jnp.broadcast_to(x, y.shape)
    keep = replicates.usable(y, mask) & ~jnp.isnan(x) & (x < jnp.inf)
    group, number = _groups(groups, num_groups, y.shape[:-1])
    fixed = jnp.array([jnp.nan if value is None else value for value in (bottom, top)], y.dtype)
    num_fixed = sum(value is not None for value in (bottom, top))
    options = Options(
        variant, summarize, num_fixed, number, range_margin, hill_bounds, widen, level, significance, effect
    )
    found = _fit(jnp.atleast_2d(x), jnp.atleast_2d(y), jnp.atleast_2d(keep), fixed, group, options)
    return found if y.ndim == 2 else Fit(*(value[0] for value in found))


def _check_options(
    variant: str,
    summarize: str,
    bottom: float | None,
    top: float | None,
    *,
    level: float,
    hill_bounds: tuple[float, float],
) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: choose one of {', '.join(VARIANTS)}")
    if summarize not in SUMMARIES:
        raise ValueError(f"summarize={summarize!r}: choose one of {', '.join(SUMMARIES)}")
    if (variant == "fixed") == (bottom is None and top is None):
        raise ValueError(
            f"variant={variant!r} with bottom={bottom}, top={top}: give them for 'fixed', else neither"
        )
    if bottom is not None and top is not None and bottom >= top:
        raise ValueError(f"bottom={bottom} must be below top={top}")
    if not 0 < level < 1 or not 0 < hill_bounds[0] < hill_bounds[1]:
        raise ValueError(
            f"level={level}, hill_bounds={hill_bounds}: needs 0 < level < 1 and 0 < lower < upper"
        )


def _groups(groups: ArrayLike | None, num_groups: int | None, shape: tuple[int, ...]) -> tuple[Array, int]:
    """(C,) int32 and the number of groups."""
    count = shape[0] if shape else 1
    if groups is None:
        return jnp.zeros(count, jnp.int32), 1
    group = jnp.asarray(groups)
    if group.shape != (count,):
        raise ValueError(f"groups must be ({count},), one for each curve; got {group.shape}")
    if isinstance(group, jax.core.Tracer):
        if num_groups is None:
            raise ValueError("groups inside jax.jit or jax.vmap need num_groups")
        return group.astype(jnp.int32), num_groups
    least, most = (int(reduce(np.asarray(group), initial=0)) for reduce in (np.min, np.max))
    number = most + 1 if num_groups is None else num_groups
    if least < 0 or most >= number:
        raise ValueError(f"groups must be 0 to {number - 1}; found {least} to {most}")
    return group.astype(jnp.int32), number


@functools.partial(jax.jit, static_argnames="options")
def _fit(x: Array, y: Array, keep: Array, fixed: Array, group: Array, options: Options) -> Fit:
    """All curves (C, N) in blocks."""
    if options.summarize == "median":
        y, keep = over_curves(lambda one: replicates.medians(*one), (x, y, keep))
    lowest, highest = jnp.where(keep, y, jnp.inf).min(1), jnp.where(keep, y, -jnp.inf).max(1)
    if options.variant == "shared_top":
        lowest = jax.ops.segment_min(lowest, group, options.num_groups)[group]
        highest = jax.ops.segment_max(highest, group, options.num_groups)[group]
    problems, units = jax.vmap(functools.partial(standard, fixed=fixed, options=options))(
        x, y, keep, lowest, highest
    )
    given, open_ = problems, problems
    if options.variant == "shared_top":
        given, open_ = shared.tops(problems, group, num_groups=options.num_groups)
    open_ = released(open_)
    defined = jax.vmap(is_defined)(x, keep)
    everything = (given, open_, units, defined)
    found = over_curves(lambda one: describe(*one, options=options), everything)
    # A given asymptote is reported as it was given, not as it came back from standard units.
    bottom, top = (
        jnp.where(jnp.isnan(value) | ~defined, asymptote, value)
        for value, asymptote in zip(fixed, (found.bottom, found.top), strict=True)
    )
    return found._replace(bottom=bottom, top=top)
