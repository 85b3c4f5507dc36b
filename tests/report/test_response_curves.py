"""Figures of concentration-response curves: what stands in them is what the points and the fit say."""

import numpy as np
import pytest
import scipy.stats
from matplotlib.container import ErrorbarContainer

from coos.metrics import dose_response
from coos.report import plots, response_curves

MOLAR = np.concatenate([np.zeros(4), np.repeat(1e-9 * 3.0 ** np.arange(10), 4)])
LOG10 = np.where(MOLAR > 0, np.log10(np.maximum(MOLAR, 1e-30)), -np.inf)


def one_fit(**values):
    """A fit by hand."""
    usual = dict.fromkeys(dose_response.Fit._fields, np.float32(np.nan))
    known = {"bottom": 0.0, "top": 1.0, "hill": 1.0, "midpoint": -7.0, "p_value": 0.4, "num_points": 44}
    return dose_response.Fit(**{**usual, **known, **values})


def responses(location=-7.0):
    generator = np.random.default_rng(0)
    return 1 / (1 + 10.0 ** (location - np.maximum(LOG10, -30))) + 0.05 * generator.normal(size=44)


def panel(fit, **options):
    """The figure of one curve and its axes."""
    curve = response_curves.Curve("taxol", MOLAR, responses(), fit)
    figure = response_curves.response_plot([curve], **options)
    return figure, figure.axes[0]


def error_bars(axes):
    """Per series: positions, medians, lower and upper ends."""
    for series in axes.containers:
        assert isinstance(series, ErrorbarContainer)
        x, y = series.lines[0].get_data()
        segments = np.array(series.lines[2][0].get_segments())
        yield x, y, segments[:, 0, 1], segments[:, 1, 1]


def test_points_are_medians_with_mad():
    _, axes = panel(None)
    (x0, median0, *_), (x, median, low, high) = error_bars(axes)
    y = responses().reshape(11, 4)
    np.testing.assert_allclose(median, np.median(y[1:], 1), rtol=1e-5)
    np.testing.assert_allclose(high - low, 2 * scipy.stats.median_abs_deviation(y[1:], 1), rtol=1e-3)
    np.testing.assert_allclose(x, 3.0 ** np.arange(10))  # nM
    np.testing.assert_allclose(x0, [0.1])  # the control, a decade below
    np.testing.assert_allclose(median0, [np.median(y[0])], rtol=1e-5)


def test_axis_of_concentrations():
    figure, axes = panel(None, response="probability")
    figure.draw_without_rendering()
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels[0] == "0"
    assert {"1", "10", "100", "1000", "10000"} <= set(labels)
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("concentration (nM)", "probability")


def test_active_curve_shows_its_potency():
    fit = one_fit(verdict=1, log10_ec50=-7.0, low=-7.1, high=-6.9)
    _, axes = panel(fit)
    assert axes.get_title() == "taxol\nactive: EC50 100 nM (79.4 nM to 126 nM)"
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 200]
    x, y = lines[0].get_data()
    assert np.interp(100, x, y) == pytest.approx(0.5, abs=0.01)
    vertical = [
        line.get_xdata()[0] for line in axes.get_lines() if line.get_color() == response_curves.ACCENT
    ]
    assert vertical == pytest.approx([100])
    (band,) = axes.patches
    assert band.get_x() == pytest.approx(10**1.9)
    assert band.get_x() + band.get_width() == pytest.approx(10**2.1)


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ({"verdict": 0}, "inactive (p = 0.4)"),
        ({"verdict": 3}, "undefined"),
        ({"verdict": 2, "low": -5.0, "high": np.inf}, "outside tested range: EC50 above 10 µM"),
        ({"verdict": 2, "low": -np.inf, "high": -9.0}, "outside tested range: EC50 below 1 nM"),
        ({"verdict": 2, "low": -np.inf, "high": np.inf}, "outside tested range"),
    ],
)
def test_other_verdicts_show_no_potency(values, title):
    _, axes = panel(one_fit(**values))
    assert axes.get_title() == f"taxol\n{title}"
    assert not axes.patches
    assert response_curves.ACCENT not in [line.get_color() for line in axes.get_lines()]
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 200]
    assert len(lines) == (values["verdict"] != 3)
    if values["verdict"] == 0:
        np.testing.assert_allclose(lines[0].get_ydata(), responses().mean())


def test_a_real_fit_and_dose_steps():
    steps = np.repeat(np.arange(9.0), 3)
    y = 1 / (1 + 10 ** (0.8 * (4.3 - steps))) + 0.05 * np.random.default_rng(1).normal(size=27)
    fit = dose_response.fit(np.where(steps > 0, steps, -np.inf), y)
    curve = response_curves.Curve("a", steps, y, fit)
    axes = response_curves.response_plot([curve], unit="step").axes[0]
    assert axes.get_title().startswith(
        f"a\nactive: EC50 step {float(fit.log10_ec50):.3g} ({float(fit.low):.3g} to "
    )
    assert (axes.get_xscale(), axes.get_xlabel()) == ("linear", "dose step")
    line = next(line for line in axes.get_lines() if len(line.get_xdata()) == 200)
    np.testing.assert_allclose(line.get_xdata()[[0, -1]], [1, 8])
    middle = (float(fit.bottom) + float(fit.top)) / 2
    assert np.interp(float(fit.log10_ec50), *line.get_data()) == pytest.approx(middle, abs=0.01)


def test_one_colour_per_class():
    generator = np.random.default_rng(2)
    names = [f"mechanism {k}" for k in range(13)]
    probabilities = generator.dirichlet(np.ones(13), 44)
    probabilities[0, 2] = np.nan
    curves = [response_curves.Curve(name, MOLAR, probabilities) for name in "abcd"]
    figure = response_curves.class_response_plot(curves, names, simulated=True)
    assert [axes.get_title() for axes in figure.axes] == list("abcd")
    assert plots.SIMULATED_LABEL in [text.get_text() for text in figure.texts]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    series = list(error_bars(figure.axes[1]))
    assert len(series) == 26  # controls apart
    np.testing.assert_allclose(series[4][1], [np.nanmedian(probabilities[:4, 2])], rtol=1e-5)
    np.testing.assert_allclose(series[5][1], np.median(probabilities[4:, 2].reshape(10, 4), 1), rtol=1e-5)
    colours = {tuple(s.lines[0].get_color()) for s in figure.axes[0].containers}
    assert len(colours) == 13


def test_nothing_overlaps():
    fit = one_fit(verdict=1, log10_ec50=-7.0, low=-7.1, high=-6.9)
    curves = [response_curves.Curve("x" * 60, MOLAR, responses(), fit)] * 5
    figure = response_curves.response_plot(curves, title="title", simulated=True)
    figure.draw_without_rendering()
    drawn = figure.axes[:5]
    assert all(axes.get_title().startswith("x" * 34 + " …\n") for axes in drawn)
    boxes = [axes.get_tightbbox() for axes in drawn] + [figure.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="no curve to draw"):
        response_curves.response_plot([])
    with pytest.raises(ValueError, match="dmso: no concentration above 0"):
        response_curves.response_plot([response_curves.Curve("dmso", np.zeros(3), np.ones(3))])
    curve = response_curves.Curve("taxol", MOLAR, responses())
    with pytest.raises(ValueError, match="unit='nM': must be 'M' or 'step'"):
        response_curves.response_plot([curve], unit="nM")
    with pytest.raises(ValueError, match=r"taxol: responses are \(44,\); 44 concentrations and 2 classes"):
        response_curves.class_response_plot([curve], ["a", "b"])
