"""Figures of concentration-response curves: one panel per treatment, or all classes of a classifier in each panel.

Points are medians with their median absolute deviations over replicates, as in Godinez et al. 2017 (Figures 3b, 5b).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from coos import concentrations
from coos.metrics import dose_response
from coos.report import plots

ACCENT, LINE = "#D55E00", "#000000"
PANEL_WIDTH, PANEL_HEIGHT = 3.3, 2.75
CONTROL_GAP = 1.0  # decades, or steps, between the lowest concentration and the vehicle control
MOST_IN_LEGEND_ROW = 4
LONGEST_NAME = 36  # characters that fit above a panel


class Curve(NamedTuple):
    """What one panel shows.

    name: of the treatment. concentrations: (N,) mol/L or steps, 0 for vehicle controls. responses: (N,) of one class,
    or (N, K) of K classes; NaN are left out. fit: `dose_response.fit` of the points (scalars), or None for no line;
    its concentrations are log10 of mol/L, or the steps themselves.
    """

    name: str
    concentrations: np.ndarray
    responses: np.ndarray
    fit: dose_response.Fit | None = None


class _Axis(NamedTuple):
    """Where concentrations stand: mol/L in `unit` on a logarithmic axis, or steps on a linear one."""

    is_step: bool
    unit: str
    control: float | None

    def place(self, values: np.ndarray) -> np.ndarray:
        """Coordinates on the axis; vehicle controls stand apart on the left."""
        shown = values if self.is_step else values * concentrations.UNITS[self.unit]
        return shown if self.control is None else np.where(values == 0, self.control, shown)

    def from_fit(self, position: np.ndarray | float) -> np.ndarray:
        """Coordinates of what a fit calls log10 concentration."""
        values = np.asarray(position, float)
        return values if self.is_step else 10**values * concentrations.UNITS[self.unit]

    def to_fit(self, coordinates: np.ndarray) -> np.ndarray:
        """The reverse."""
        if self.is_step:
            return coordinates
        return np.log10(coordinates / concentrations.UNITS[self.unit])


def response_plot(
    curves: Sequence[Curve],
    *,
    unit: str = "M",
    response: str = "response",
    title: str = "",
    simulated: bool = False,
) -> Figure:
    """One panel per curve: medians with MAD, replicates as dots, the fitted line, EC50 with its interval.

    unit: "M" (concentrations in mol/L, logarithmic axis in a unit that fits) or `concentrations.DIMENSIONLESS`
    (linear axis). The title of a panel gives verdict and EC50; the line of an inactive curve is flat, at the mean.
    """
    figure, panels = _panels(curves, unit, title=title, simulated=simulated)
    for axes, axis, curve in panels:
        _fitted(axes, axis, curve)
        axes.plot(
            axis.place(curve.concentrations), curve.responses, ".", color="#8a8a8a", ms=4, mew=0, zorder=2
        )
        _medians(axes, axis, curve.concentrations, curve.responses, plots.COLOURS[0])
        axes.set_title("\n".join([_shortened(curve.name), *_verdict(curve.fit, unit)]), fontsize=9)
        _finish(axes, axis, response)
    handles = [
        Line2D([], [], color=plots.COLOURS[0], marker="o", ms=5, lw=1.2, label="median, MAD"),
        Line2D([], [], color="#8a8a8a", marker=".", ls="none", label="replicate"),
        Line2D([], [], color=LINE, lw=1.4, label="fit"),
        Line2D([], [], color=ACCENT, lw=4, alpha=0.5, label="EC50, 95 % interval"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def class_response_plot(
    curves: Sequence[Curve],
    class_names: Sequence[str],
    *,
    unit: str = "M",
    response: str = "probability",
    title: str = "",
    simulated: bool = False,
) -> Figure:
    """The response (N, K) of every class against concentration, one colour per class (Godinez et al. 2017, Fig. 5b)."""
    for curve in curves:
        if np.shape(curve.responses) != (len(curve.concentrations), len(class_names)):
            raise ValueError(
                f"{curve.name}: responses are {np.shape(curve.responses)}; {len(curve.concentrations)} "
                f"concentrations and {len(class_names)} classes were given"
            )
    figure, panels = _panels(curves, unit, title=title, simulated=simulated, sharey=True)
    colours, markers = _class_colours(len(class_names)), plots.MARKERS
    for axes, axis, curve in panels:
        for k in range(len(class_names)):
            _medians(
                axes,
                axis,
                curve.concentrations,
                curve.responses[:, k],
                colours[k],
                marker=markers[k % len(markers)],
                joined=True,
            )
        axes.set_title(_shortened(curve.name), fontsize=9)
        _finish(axes, axis, response)
    handles = [
        Line2D([], [], color=colours[k], marker=markers[k % len(markers)], ms=5, lw=1.2, label=name)
        for k, name in enumerate(class_names)
    ]
    columns = min(MOST_IN_LEGEND_ROW, 2 * min(len(curves), 2))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    return figure


def _panels(
    curves: Sequence[Curve], unit: str, *, title: str, simulated: bool, sharey: bool = False
) -> tuple[Figure, list[tuple[Axes, _Axis, Curve]]]:
    """A grid of axes, each with its scale and curve; places that are left over stay empty."""
    if not curves:
        raise ValueError("no curve to draw")
    columns = 2 if len(curves) == 4 else min(len(curves), 3)
    rows = -(-len(curves) // columns)
    size = (max(columns * PANEL_WIDTH, 5.6), rows * PANEL_HEIGHT + 0.7)
    figure = plots.new_figure(*size, simulated=simulated, title=title)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for axes in grid[len(curves) :]:
        axes.set_axis_off()
    return figure, [(axes, _axis(curve, unit), curve) for axes, curve in zip(grid, curves, strict=False)]


def _axis(curve: Curve, unit: str) -> _Axis:
    """The scale of one panel."""
    if unit not in ("M", concentrations.DIMENSIONLESS):
        raise ValueError(f"unit={unit!r}: must be 'M' or {concentrations.DIMENSIONLESS!r}")
    values = np.asarray(curve.concentrations, float)
    positive = values[values > 0]
    if not positive.size:
        raise ValueError(f"{curve.name}: no concentration above 0 to draw")
    if unit == concentrations.DIMENSIONLESS:
        return _Axis(True, "", float(positive.min()) - CONTROL_GAP if (values == 0).any() else None)
    name = concentrations.fitting_unit([10 ** np.log10(positive).mean()])  # of the middle of the axis
    lowest = positive.min() * concentrations.UNITS[name]
    return _Axis(False, name, float(lowest / 10**CONTROL_GAP) if (values == 0).any() else None)


def _medians(
    axes: Axes,
    axis: _Axis,
    values: np.ndarray,
    responses: np.ndarray,
    colour: Any,
    *,
    marker: str = "o",
    joined: bool = False,
) -> None:
    """Medians with MAD of the replicates of every concentration; `joined` by a line, controls apart."""
    levels = np.unique(values)
    spreads = [dose_response.median_and_mad(np.asarray(responses)[values == level]) for level in levels]
    median, mad = (np.array([float(spread[i]) for spread in spreads]) for i in range(2))
    style: dict[str, Any] = {"color": colour, "ms": 5, "elinewidth": 1, "capsize": 2, "zorder": 3}
    for chosen in (levels == 0, levels > 0):
        line = "-" if joined else "none"
        axes.errorbar(
            axis.place(levels[chosen]), median[chosen], mad[chosen], marker=marker, ls=line, lw=1.2, **style
        )


def _fitted(axes: Axes, axis: _Axis, curve: Curve) -> None:
    """The fitted line over the tested concentrations; EC50 and its interval as a line and a band."""
    fit = curve.fit
    values = np.asarray(curve.concentrations, float)
    tested = axis.place(values[values > 0])
    if fit is None or _name(fit) == "undefined":
        return
    space = np.linspace if axis.is_step else np.geomspace
    coordinates = space(tested.min(), tested.max(), 200)
    parameters = {name: float(getattr(fit, name)) for name in ("bottom", "top", "hill")}
    line = np.asarray(
        dose_response.curve(axis.to_fit(coordinates), log10_ec50=float(fit.midpoint), **parameters)
    )
    if _name(fit) == "inactive":
        line = np.full(len(coordinates), np.nanmean(curve.responses))
    axes.plot(coordinates, line, color=LINE, lw=1.4, ls="--" if _name(fit) == "inactive" else "-", zorder=4)
    if _name(fit) == "active":
        low, middle, high = (float(axis.from_fit(float(end))) for end in (fit.low, fit.log10_ec50, fit.high))
        axes.axvspan(max(low, tested.min()), min(high, tested.max()), color=ACCENT, alpha=0.2, lw=0, zorder=0)
        axes.axvline(middle, color=ACCENT, lw=1.2, zorder=1)


def _name(fit: dose_response.Fit) -> str:
    return dose_response.VERDICTS[int(fit.verdict)]


def _verdict(fit: dose_response.Fit | None, unit: str) -> list[str]:
    """Lines that say what the fit found."""
    if fit is None:
        return []

    def text(position: float) -> str:
        value = float(position) if unit == concentrations.DIMENSIONLESS else 10 ** float(position)
        if unit == concentrations.DIMENSIONLESS and value < 0:
            return f"step {value:.3g}"
        return concentrations.format_concentration(value, unit=unit)

    low, high = float(fit.low), float(fit.high)
    if _name(fit) == "active":
        ends = f"{text(low)} to {text(high)}".replace("to step ", "to ")  # "step 4.1 to 4.4"
        return [f"active: EC50 {text(float(fit.log10_ec50))} ({ends.removeprefix('step ')})"]
    if _name(fit) == "outside tested range":
        above = np.isfinite(low) and (not np.isfinite(high) or float(fit.midpoint) > (low + high) / 2)
        bound = (
            f": EC50 above {text(low)}"
            if above
            else f": EC50 below {text(high)}"
            if np.isfinite(high)
            else ""
        )
        return [f"outside tested range{bound}"]
    return [_name(fit) + (f" (p = {float(fit.p_value):.2g})" if _name(fit) == "inactive" else "")]


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 2].rstrip()} …"


def _class_colours(count: int) -> list[Any]:
    """Okabe and Ito's colours as far as they reach, else as many hues as there are classes."""
    if count <= len(plots.COLOURS):
        return list(plots.COLOURS[:count])
    return [matplotlib.colormaps["turbo"](share) for share in np.linspace(0.03, 0.97, count)]


def _finish(axes: Axes, axis: _Axis, response: str) -> None:
    """Scale, labels, and the "0" of vehicle controls behind a break in the axis."""
    axes.set_ylabel(response, fontsize=9)
    axes.set_xlabel("dose step" if axis.is_step else f"concentration ({axis.unit})", fontsize=9)
    axes.margins(x=0.06, y=0.08)
    if axis.is_step:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    else:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=7))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if axis.control is not None:
        _break(axes, axis)
    elif not axis.is_step:
        axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(labelsize=8, labelleft=True)
    plots.tidy(axes)


def _break(axes: Axes, axis: _Axis) -> None:
    """Ticks of the concentrations and of 0, with two strokes across the axis between them."""
    control = float(axis.control or 0)
    first = control + CONTROL_GAP if axis.is_step else control * 10**CONTROL_GAP
    limits = axes.get_xlim()
    kept = [t for t in axes.xaxis.get_majorticklocs() if first * 0.999 <= t <= limits[1]]
    axes.set_xticks([control, *kept])
    if not axis.is_step:
        minor = [t for t in axes.xaxis.get_minorticklocs() if first <= t <= limits[1]]
        axes.set_xticks(minor, minor=True)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: "0" if np.isclose(value, control) else f"{value:g}")
    )
    axes.set_xlim(limits)
    middle = control + CONTROL_GAP / 2 if axis.is_step else control * 10 ** (CONTROL_GAP / 2)
    at = axes.transData.transform((middle, 1.0))[0]
    share = axes.transAxes.inverted().transform((at, 0.0))[0]
    for shift in (-0.008, 0.008):
        stroke = [share + shift - 0.008, share + shift + 0.008]
        axes.plot(stroke, [-0.02, 0.02], color="black", lw=0.8, transform=axes.transAxes, clip_on=False)
