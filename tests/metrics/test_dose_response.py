"""Concentration-response curves: SciPy, profile likelihood by root finding, coverage, flat noise, invariances."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from coos.metrics import dose_response
from coos.metrics.dose_response import least_squares
from coos.metrics.dose_response.curve import Problem, normal_equations

INACTIVE, ACTIVE, OUTSIDE, UNDEFINED = range(4)
DOSES = np.log10(3) * np.arange(10) - 9
X = np.repeat(DOSES, 4)


def logistic(x, bottom, top, log10_ec50, hill):
    return bottom + (top - bottom) / (1 + 10.0 ** (hill * (log10_ec50 - x)))


def simulate(count, x=X, *, noise=0.0, hill=(0.8, 2.0), seed=0, bottom=0.0, top=1.0):
    """Responses (count, N) and their parameters by name; EC50s at least two doses inside the range."""
    generator = np.random.default_rng(seed)
    location = generator.uniform(x.min() + 0.75, x.max() - 0.75, count)
    slope = generator.uniform(*hill, count)
    clean = logistic(x, *(np.broadcast_to(p, count)[:, None] for p in (bottom, top, location, slope)))
    return clean + noise * generator.normal(size=clean.shape), {"log10_ec50": location, "hill": slope}


def scipy_fit(x, y, start):
    """(bottom, top, log10_ec50, hill) by scipy.optimize.curve_fit."""
    return quiet(scipy.optimize.curve_fit)(logistic, x, y, p0=start, maxfev=20_000)[0]


@functools.cache
def noisy():
    """Sixty-four curves with noise that most tests look at: responses and fit."""
    y, true = simulate(64, noise=0.05, seed=3)
    return y, true, dose_response.fit(X, y)


def close(found, expected, **tolerance):
    """Equal fits, whole numbers exactly."""
    for name, value, other in zip(dose_response.Fit._fields, found, expected, strict=True):
        exact = name in ("verdict", "num_points")
        np.testing.assert_allclose(value, other, err_msg=name, **({"rtol": 0} if exact else tolerance))


# The optimum


def test_clean_curves_are_found_and_equal_scipy():
    generator = np.random.default_rng(0)
    bottom = generator.uniform(10, 50, 64)
    top = bottom + generator.uniform(20, 200, 64)
    sign = generator.choice([-1, 1], 64)
    y, true = simulate(64, hill=(0.7, 3), bottom=bottom, top=top)
    y = np.where(sign[:, None] > 0, y, bottom[:, None] + top[:, None] - y)  # falling ones
    found = dose_response.fit(X, y)
    for i in range(64):
        ours = [found.bottom[i], found.top[i], 10.0 ** found.log10_ec50[i], found.hill[i]]
        start = (y[i].min(), y[i].max(), true["log10_ec50"][i], sign[i])
        theirs = scipy_fit(X, y[i], start)
        np.testing.assert_allclose(ours, [*theirs[:2], 10 ** theirs[2], theirs[3]], rtol=0.01)
        np.testing.assert_allclose(ours[2], 10 ** true["log10_ec50"][i], rtol=0.01)
    assert (found.verdict == ACTIVE).all()
    np.testing.assert_allclose(found.r_squared, 1, atol=1e-5)


def test_noisy_curves_have_the_optimum_that_scipy_has():
    y, true, found = noisy()
    for i in range(64):
        theirs = scipy_fit(X, y[i], (0, 1, true["log10_ec50"][i], 1))
        ours = [found.bottom[i], found.top[i], found.log10_ec50[i], found.hill[i]]
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-3)
        residual = y[i] - logistic(X, *theirs)
        assert found.residual_error[i] == pytest.approx(np.sqrt((residual**2).sum() / 36), rel=1e-3)
        total = ((y[i] - y[i].mean()) ** 2).sum()
        assert found.r_squared[i] == pytest.approx(1 - (residual**2).sum() / total, abs=1e-4)


def test_p_value_is_the_f_test():
    y = 0.6 * simulate(64, noise=0)[0] + np.random.default_rng(1).normal(size=(64, 40))
    found = dose_response.fit(X, y)
    squares = 36 * np.asarray(found.residual_error, float) ** 2
    total = ((y - y.mean(1, keepdims=True)) ** 2).sum(1)
    expected = scipy.stats.f.sf((total - squares) / 3 / (squares / 36), 3, 36)
    np.testing.assert_allclose(found.p_value, expected, rtol=5e-3, atol=1e-6)
    assert 0 < (found.verdict == INACTIVE).sum() < 64


def test_gradient_is_that_of_the_sum_of_squares():
    generator = np.random.default_rng(2)
    x, y, weight = (jnp.asarray(generator.random((12,)), jnp.float32) for _ in range(3))
    problem = Problem(x, y, weight, jnp.zeros(4), jnp.ones(4), jnp.float32(0.3), jnp.float32(2.0))
    at = jnp.array([0.2, 0.8, 0.4, 0.1])
    for direction in (1.0, -1.0):
        found = normal_equations(problem, at, direction)
        line = dose_response.curve(x, bottom=0.2, top=0.8, log10_ec50=0.4, hill=direction * 10**0.1)
        expected = ((line - y) ** 2 * weight).sum() + 2 * 0.5**2
        assert float(found.squares) == pytest.approx(float(expected), rel=1e-5)
        slope = jax.grad(lambda p, d=direction: normal_equations(problem, p, d).squares)(at)
        np.testing.assert_allclose(found.gradient, slope / 2, rtol=1e-4, atol=1e-5)


def test_small_systems_equal_numpy():
    root = np.random.default_rng(0).normal(size=(20, 4, 6))
    matrices, vectors = root @ root.swapaxes(1, 2), root[:, :, 0]
    found = jax.vmap(least_squares.solve_positive)(jnp.asarray(matrices), jnp.asarray(vectors))
    np.testing.assert_allclose(
        found, np.linalg.solve(matrices, vectors[..., None])[..., 0], rtol=1e-3, atol=1e-4
    )


# The interval


def test_interval_is_where_the_profile_crosses_the_quantile():
    y, _, found = noisy()
    for i in range(6):

        def squares(location, y=y[i]):
            def residuals(p):
                return logistic(X, p[0], p[1], location, 10 ** p[2]) - y

            return 2 * scipy.optimize.least_squares(residuals, [0, 1, 0.1], x_scale="jac").cost

        least = 36 * float(found.residual_error[i]) ** 2
        allowed = least * (1 + scipy.stats.t.ppf(0.975, 36) ** 2 / 36)
        best = float(found.log10_ec50[i])
        for end, bracket in ((found.low[i], (best - 0.6, best)), (found.high[i], (best, best + 0.6))):
            expected = scipy.optimize.brentq(lambda e, a=allowed: squares(e) - a, *bracket)
            assert float(end) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("replicates", "noise"), [(4, 0.05), (4, 0.1), (2, 0.1)])
def test_interval_covers(replicates, noise):
    x = np.repeat(DOSES, replicates)
    y, true = simulate(1000, x, noise=noise, seed=7)
    found = dose_response.fit(x, y)
    covered = (found.low <= true["log10_ec50"]) & (true["log10_ec50"] <= found.high)
    assert 0.93 <= covered.mean() <= 0.97
    assert (found.verdict == ACTIVE).mean() > 0.85
    narrower = dose_response.fit(x[None], y[:1], level=0.5)
    assert float(narrower.high[0] - narrower.low[0]) < 0.5 * float(found.high[0] - found.low[0])


# Verdicts


@pytest.mark.parametrize("replicates", [4, 1])
def test_flat_noise_is_rarely_active(replicates):
    x = np.repeat(DOSES, replicates)
    y = np.random.default_rng(5).normal(size=(1000, len(x)))
    found = dose_response.fit(x, y)
    assert (found.verdict == ACTIVE).mean() <= 0.05
    assert (found.verdict == INACTIVE).mean() >= 0.95
    assert (found.p_value < 0.05).mean() <= 0.06
    idle = found.verdict == INACTIVE
    for value in (found.log10_ec50, found.low, found.high):
        assert np.isnan(np.asarray(value)[idle]).all()
    assert np.isfinite(found.p_value).all()


def bad_curves():
    """192 curves (N = 40): flat noise, the lower half of a curve, and curves with one outlier."""
    generator = np.random.default_rng(6)
    flat = 0.1 * generator.normal(size=(64, 40))
    half = logistic(X, 0, 1, generator.uniform(-4.6, -4.0, 64)[:, None], 1.2) + 0.05 * generator.normal(
        size=(64, 40)
    )
    outlier = 0.1 * generator.normal(size=(64, 40))
    outlier[np.arange(64), generator.integers(0, 40, 64)] += 3
    return np.concatenate([flat, half, outlier])


def test_bad_curves_have_no_absurd_potency_where_scipy_has():
    y = bad_curves()
    found = dose_response.fit(X, y)
    ours = np.asarray(found.log10_ec50)
    known = ~np.isnan(ours)
    assert ((ours[known] >= X.min() - 1e-3) & (ours[known] <= X.max() + 1e-3)).all()
    absurd = 0
    for row in y:
        try:
            location = scipy_fit(X, row, (row.min(), row.max(), np.median(X), 1))[2]
        except RuntimeError:  # no convergence
            location = np.inf
        absurd += not X.min() - 1 <= location <= X.max() + 1
    assert absurd > 20
    assert np.bincount(found.verdict[:64], minlength=4)[INACTIVE] >= 60
    half = jax.tree.map(lambda a: np.asarray(a)[64:128], found)
    assert (half.verdict == OUTSIDE).mean() > 0.75
    assert (half.low <= -3.7).all()
    assert (half.high[half.verdict == OUTSIDE] > DOSES[-1]).all()
    assert (np.asarray(found.verdict)[128:] != ACTIVE).mean() > 0.9


def test_potency_beyond_the_range_is_one_sided():
    generator = np.random.default_rng(8)
    y = np.stack([logistic(X, 0, 1, location, 1.0) for location in (-4.2, -9.5, -3.0, -6.0)] * 16)
    found = dose_response.fit(X, y + 0.01 * generator.normal(size=y.shape), variant="fixed", bottom=0, top=1)
    assert found.verdict[:4].tolist() == [OUTSIDE, OUTSIDE, OUTSIDE, ACTIVE]
    assert np.isnan(found.log10_ec50[:3]).all()
    assert -4.3 < found.low[0] < -4.2 < found.high[0] < -4.0
    assert found.low[2] > DOSES[-1]
    assert np.isinf(found.high[2])  # more than a decade beyond


def test_a_plateau_out_of_bounds_is_no_potency():
    """These rise to less than half their plateau; the highest top allowed would put the EC50 into the range."""
    location = X.max() + np.linspace(0.1, 0.3, 64)[:, None]
    y = logistic(X, 0, 1, location, 2.0) + 1e-3 * np.random.default_rng(0).normal(size=(64, 40))
    found = dose_response.fit(X, y)
    assert (found.midpoint < X.max()).any()
    assert (found.verdict == OUTSIDE).all()
    assert np.isnan(found.log10_ec50).all()


def test_hard_curves():
    y, _, expected = noisy()
    y, x = y.copy(), np.broadcast_to(X, y.shape).copy()
    y[0] = np.nan
    y[1] = 3.0
    y[2, 4:] = np.nan  # one concentration
    x[3, 12:] = np.nan  # three
    x[4, 20:] = np.inf
    y[5, :] = np.where(np.arange(40) % 10 == 0, y[5], np.nan)  # four concentrations, four points
    x[6, :4] = -np.inf  # vehicle
    mask = np.ones(y.shape, bool)
    mask[7] = False
    found = dose_response.fit(x, y, mask)
    assert found.verdict[:8].tolist() == [3, INACTIVE, 3, 3, found.verdict[4], 3, ACTIVE, 3]
    assert found.num_points[:8].tolist() == [0, 40, 4, 12, 20, 4, 40, 0]
    for i in (0, 2, 3, 5, 7):
        assert all(np.isnan(value[i]) for value in found if value.dtype == jnp.float32)
    assert float(found.p_value[1]) == 1
    assert np.isnan(found.r_squared[1])
    assert float(found.bottom[1]) == pytest.approx(3)
    assert float(found.log10_ec50[6]) == pytest.approx(float(expected.log10_ec50[6]), abs=0.05)
    close(jax.tree.map(lambda a: a[8:], found), jax.tree.map(lambda a: a[8:], expected), rtol=1e-3, atol=1e-4)


def test_vehicle_pins_the_bottom():
    x = np.concatenate([np.full(4, -np.inf), X[4:]])
    y, _ = simulate(64, noise=0.0, seed=4)
    y[:, :4] = 0.0
    found = dose_response.fit(x, y)
    far = dose_response.fit(np.where(np.isinf(x), -30.0, x), y)
    np.testing.assert_allclose(found.bottom, far.bottom, atol=2e-3)
    assert (np.asarray(found.log10_ec50)[found.verdict == ACTIVE] > DOSES[1] - 1e-3).all()


# Invariances


def test_order_mask_and_padding_do_not_matter():
    y, _, expected = noisy()
    generator = np.random.default_rng(9)
    order = generator.permuted(np.broadcast_to(np.arange(40), y.shape), axis=1)
    close(dose_response.fit(X[order], np.take_along_axis(y, order, 1)), expected, rtol=2e-3, atol=1e-4)
    padded_x = np.concatenate([np.broadcast_to(X, y.shape), np.full((64, 3), 5.0)], 1)
    padded_y = np.concatenate([y, [[np.nan, 1e9, -np.inf]] * np.ones((64, 1))], 1)
    mask = np.arange(43) < np.full((64, 1), 40)
    close(dose_response.fit(padded_x, padded_y, mask), expected, rtol=2e-3, atol=1e-4)
    rows = generator.permutation(64)
    close(dose_response.fit(X, y[rows]), jax.tree.map(lambda a: a[rows], expected), rtol=2e-3, atol=1e-4)


def test_units_of_both_axes_do_not_matter():
    y, _, expected = noisy()
    scaled = dose_response.fit(X + 3, 50 - 20 * y)
    options = {"rtol": 2e-3, "atol": 1e-3}
    np.testing.assert_allclose(scaled.log10_ec50, np.asarray(expected.log10_ec50) + 3, **options)
    np.testing.assert_allclose(scaled.low, np.asarray(expected.low) + 3, **options)
    np.testing.assert_allclose(scaled.hill, -np.asarray(expected.hill), **options)
    np.testing.assert_allclose(scaled.top, 50 - 20 * np.asarray(expected.bottom), **options)
    np.testing.assert_allclose(scaled.residual_error, 20 * np.asarray(expected.residual_error), **options)
    np.testing.assert_allclose(scaled.p_value, expected.p_value, atol=1e-4)
    np.testing.assert_array_equal(scaled.verdict, expected.verdict)


def test_one_curve_jit_and_vmap():
    y, _, expected = noisy()
    first = jax.tree.map(lambda a: a[0], expected)
    close(dose_response.fit(X, y[0]), first, rtol=1e-3, atol=1e-4)
    close(jax.jit(dose_response.fit)(X, y), expected, rtol=1e-3, atol=1e-4)
    twice = jax.vmap(lambda rows: dose_response.fit(X, rows))(jnp.asarray(y).reshape(2, 32, 40))
    close(jax.tree.map(lambda a: a.reshape(64), twice), expected, rtol=1e-3, atol=1e-4)
    assert dose_response.fit(X, y[:0]).verdict.shape == (0,)


def test_double_precision_says_the_same():
    y, _, expected = noisy()
    with jax.enable_x64(True):
        found = dose_response.fit(X, y)
        assert found.top.dtype == jnp.float64
    close(found, expected, rtol=3e-3, atol=1e-3)


# Variants


def test_fixed_asymptotes_equal_scipy():
    y, true, _ = noisy()
    rising = dose_response.fit(X, y, variant="fixed", bottom=0, top=1)
    falling = dose_response.fit(X, 1 - y, variant="fixed", bottom=0, top=1)
    for i in range(0, 64, 4):
        theirs = scipy.optimize.curve_fit(
            lambda x, e, h: logistic(x, 0, 1, e, h), X, y[i], p0=(true["log10_ec50"][i], 1)
        )[0]
        np.testing.assert_allclose([rising.log10_ec50[i], rising.hill[i]], theirs, rtol=2e-3)
        np.testing.assert_allclose([falling.log10_ec50[i], -falling.hill[i]], theirs, rtol=2e-3)
    assert (rising.bottom == 0).all()
    assert (rising.top == 1).all()


def test_shared_top_equals_a_joint_fit():
    locations = np.array([-7.5, -5.0, -6.5])
    y = logistic(X, 0, 1, locations[:, None], 1.2) + 0.05 * np.random.default_rng(1).normal(size=(3, 40))
    y = np.concatenate([y, 7 * y[::-1]])  # another group
    groups = np.array([0, 0, 0, 1, 1, 1])
    found = dose_response.fit(X, y, variant="shared_top", groups=groups)

    def residuals(p):
        rows = p[1:].reshape(3, 3)
        return (logistic(X, rows[:, :1], p[0], rows[:, 1:2], rows[:, 2:]) - y[:3]).ravel()

    start = np.concatenate([[1], np.stack([np.zeros(3), locations, np.ones(3)], 1).ravel()])
    joint = scipy.optimize.least_squares(residuals, start).x
    assert float(found.top[0]) == pytest.approx(joint[0], abs=2e-3)
    np.testing.assert_allclose(found.log10_ec50[:3], joint[1:].reshape(3, 3)[:, 1], atol=3e-3)
    assert (np.unique(found.top[:3]).size, np.unique(found.top[3:]).size) == (1, 1)
    np.testing.assert_allclose(found.top[3:], 7 * np.asarray(found.top[:3]), rtol=2e-3)
    free = dose_response.fit(X, y)
    width, free_width = (np.asarray(f.high - f.low)[1] for f in (found, free))
    assert width < 0.7 * free_width  # the incomplete curve learns its top from the others


def test_medians_of_replicates():
    y, _, _ = noisy()
    middle = np.median(y.reshape(64, 10, 4), axis=2)
    found = dose_response.fit(X, y, summarize="median")
    close(found, dose_response.fit(DOSES, middle), rtol=2e-3, atol=1e-3)
    assert (found.num_points == 10).all()
    outlier = y.copy()
    outlier[:, 7] += 50
    calm = dose_response.fit(X, outlier, summarize="median")
    assert np.nanmax(np.abs(calm.midpoint - found.midpoint)) < 0.3


def quiet(function):
    """Without its warnings of slices that are all NaN."""

    def call(*args, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **options)

    return call


def test_median_and_mad_equal_scipy():
    values = np.random.default_rng(0).normal(size=(5, 7, 3))
    mask = np.random.default_rng(1).random(values.shape) < 0.7
    values[0, 0, 1], mask[4, 0, :] = np.nan, False
    expected = np.where(mask, values, np.nan)
    for axis in (-1, 1, 0):
        found = dose_response.median_and_mad(values, mask, axis)
        np.testing.assert_allclose(found.median, quiet(np.nanmedian)(expected, axis), rtol=1e-5, atol=1e-6)
        mad = quiet(scipy.stats.median_abs_deviation)(expected, axis, nan_policy="omit")
        np.testing.assert_allclose(found.mad, mad, rtol=1e-4, atol=1e-6)
        assert (np.asarray(found.num_values) == (~np.isnan(expected)).sum(axis)).all()
        scaled = dose_response.median_and_mad(values, mask, axis, scaled=True)
        np.testing.assert_allclose(scaled.mad, 1.4826 * np.asarray(found.mad), rtol=1e-6)
    normal = dose_response.median_and_mad(np.random.default_rng(2).normal(size=20_000), scaled=True)
    assert float(normal.mad) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "three"}, "variant='three': choose one of free, fixed, shared_top"),
        ({"summarize": "mean"}, "summarize='mean': choose one of points, median"),
        ({"variant": "fixed"}, "variant='fixed' with bottom=None, top=None"),
        ({"top": 1.0}, "variant='free' with bottom=None, top=1.0"),
        ({"variant": "fixed", "bottom": 1, "top": 1}, "bottom=1 must be below top=1"),
        ({"level": 1.0}, "level=1.0"),
        ({"hill_bounds": (0, 1)}, "needs 0 < level < 1 and 0 < lower < upper"),
        ({"variant": "shared_top", "groups": [0, 1]}, r"groups must be \(3,\)"),
        ({"variant": "shared_top", "groups": [0, -1, 1]}, "groups must be 0 to 1; found -1 to 1"),
        (
            {"variant": "shared_top", "groups": [0, 2, 1], "num_groups": 2},
            "groups must be 0 to 1; found 0 to 2",
        ),
        ({"mask": np.ones(40)}, "mask has shape"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dose_response.fit(X, np.zeros((3, 40)), **options)
    with pytest.raises(ValueError, match="response must be"):
        dose_response.fit(X[:5], np.zeros((3, 40)))
