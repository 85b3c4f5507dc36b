"""Covariate-shift metrics against scikit-learn, slow loops, and their identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from coos.metrics import covariate_shift as cs


def draw(seed, n=400, num_classes=5, *, decimals=8):
    """Labels, probabilities (rounded, so that ties occur with few decimals) and a mask."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, n)
    logits = generator.normal(size=(n, num_classes)) + 2 * np.eye(num_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, np.round(probabilities, decimals).astype(np.float32), generator.random(n) < 0.7


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scikit_learn_on_masked_data(seed):
    labels, probabilities, mask = draw(seed)
    predicted = probabilities.argmax(1)
    confusion = cs.confusion_matrix(labels, predicted, num_classes=5, mask=mask)
    true, found = labels[mask], predicted[mask]
    np.testing.assert_array_equal(confusion, sk.confusion_matrix(true, found, labels=range(5)))
    np.testing.assert_allclose(
        cs.sensitivity(confusion), sk.recall_score(true, found, average=None), atol=1e-6
    )
    np.testing.assert_allclose(
        cs.precision(confusion), sk.precision_score(true, found, average=None), atol=1e-6
    )
    np.testing.assert_allclose(
        cs.balanced_error(confusion), 1 - sk.balanced_accuracy_score(true, found), atol=1e-6
    )
    np.testing.assert_allclose(cs.accuracy(confusion), sk.accuracy_score(true, found), atol=1e-6)
    normalized = probabilities[mask].astype(np.float64)
    loss = sk.log_loss(true, normalized / normalized.sum(1, keepdims=True), labels=range(5))
    np.testing.assert_allclose(cs.cross_entropy(labels, probabilities, mask=mask), loss, atol=1e-6)


def slow_calibration_error(labels, probabilities, num_bins):
    total = 0.0
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    for i in range(num_bins):
        inside = (confidence > i / num_bins) & (confidence <= (i + 1) / num_bins)
        if inside.any():
            total += inside.sum() * abs(correct[inside].mean() - confidence[inside].mean())
    return total / len(labels)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_calibration_error_equals_slow_loop(num_bins):
    labels, probabilities, mask = draw(7)
    found = cs.expected_calibration_error(labels, probabilities, num_bins=num_bins, mask=mask)
    expected = slow_calibration_error(labels[mask], probabilities[mask].astype(np.float64), num_bins)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_perfect_certainty_is_calibrated_and_lossless():
    labels = np.array([0, 1, 2, 1])
    probabilities = np.eye(3, dtype=np.float32)[labels]
    assert cs.expected_calibration_error(labels, probabilities) == 0
    assert cs.cross_entropy(labels, probabilities) == 0


def test_certain_mistake_costs_a_finite_amount():
    loss = cs.cross_entropy(np.array([0]), np.array([[0.0, 1.0]], np.float32))
    np.testing.assert_allclose(loss, -np.log(np.finfo(np.float32).tiny), rtol=1e-6)


def test_ties_go_to_the_first_class_as_argmax_does():
    labels, probabilities, mask = draw(3, decimals=1)
    predicted = probabilities.argmax(1)
    by_jax = jnp.asarray(probabilities).argmax(1)
    np.testing.assert_array_equal(by_jax, predicted)
    assert (np.sort(probabilities, 1)[:, -1] == np.sort(probabilities, 1)[:, -2]).any()
    expected = sk.confusion_matrix(labels[mask], predicted[mask], labels=range(5))
    np.testing.assert_array_equal(cs.confusion_matrix(labels, by_jax, num_classes=5, mask=mask), expected)


def test_mask_equals_subset_and_permutation_changes_nothing():
    labels, probabilities, mask = draw(11)
    order = np.random.default_rng(0).permutation(len(labels))
    for metric in (cs.cross_entropy, cs.expected_calibration_error):
        masked = metric(labels, probabilities, mask=mask)
        np.testing.assert_allclose(masked, metric(labels[mask], probabilities[mask]), rtol=1e-6)
        np.testing.assert_allclose(
            masked, metric(labels[order], probabilities[order], mask=mask[order]), rtol=1e-5, atol=1e-6
        )


def test_masked_rows_may_hold_anything():
    labels, probabilities, mask = draw(5)
    spoiled, wild = probabilities.copy(), labels.copy()
    spoiled[~mask], wild[~mask] = np.nan, -1
    np.testing.assert_array_equal(
        cs.confusion_matrix(wild, probabilities.argmax(1), num_classes=5, mask=mask),
        cs.confusion_matrix(labels, probabilities.argmax(1), num_classes=5, mask=mask),
    )
    np.testing.assert_allclose(
        cs.cross_entropy(wild, spoiled, mask=mask), cs.cross_entropy(labels, probabilities, mask=mask)
    )


def test_absent_class_is_undefined_counted_and_a_convention_by_name():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    confusion = cs.confusion_matrix(labels, predicted, num_classes=3)
    assert np.isnan(cs.sensitivity(confusion)[2])
    assert np.isnan(cs.precision(confusion)[2])
    assert cs.absent_classes(confusion) == 1
    np.testing.assert_allclose(cs.balanced_error(confusion), 0.25)
    assert np.isnan(cs.balanced_error(confusion, absent="nan"))
    with pytest.raises(ValueError, match="absent='zero': choose one of"):
        cs.balanced_error(confusion, absent="zero")


def test_nothing_to_measure_is_nan():
    labels, probabilities = np.zeros(3, int), np.full((3, 2), 0.5, np.float32)
    mask = np.zeros(3, bool)
    confusion = cs.confusion_matrix(labels, labels, num_classes=2, mask=mask)
    assert confusion.sum() == 0
    assert cs.absent_classes(confusion) == 2
    for value in (
        cs.balanced_error(confusion),
        cs.accuracy(confusion),
        cs.cross_entropy(labels, probabilities, mask=mask),
        cs.expected_calibration_error(labels, probabilities, mask=mask),
    ):
        assert np.isnan(value)


def test_one_class_only():
    confusion = cs.confusion_matrix(np.zeros(4, int), np.array([0, 0, 0, 1]), num_classes=2)
    np.testing.assert_allclose(cs.balanced_error(confusion), 0.25)


def test_wrong_shapes_are_refused():
    labels, probabilities, mask = draw(0)
    with pytest.raises(ValueError, match=r"mask has shape \(5,\), labels have \(400,\)"):
        cs.cross_entropy(labels, probabilities, mask=mask[:5])
    with pytest.raises(ValueError, match=r"predicted have N rows; got \(400,\) and \(399,\)"):
        cs.confusion_matrix(labels, labels[1:], num_classes=5)


def test_growth_says_where_the_lost_sensitivity_went():
    reference = np.array([[9, 1, 0], [0, 10, 0], [1, 0, 9]])
    shifted = np.array([[5, 1, 4], [0, 20, 0], [0, 0, 10]])
    growth = np.asarray(cs.confusion_growth(shifted, reference))
    np.testing.assert_allclose(growth.sum(1), 0, atol=1e-6)
    np.testing.assert_allclose(growth[0], [-0.4, 0.0, 0.4], atol=1e-6)
    np.testing.assert_allclose(
        np.diag(growth),
        np.asarray(cs.sensitivity(shifted)) - np.asarray(cs.sensitivity(reference)),
        atol=1e-6,
    )
    np.testing.assert_allclose(cs.gap(0.3, 0.1), 0.2, atol=1e-6)


def test_published_example_of_early_endosomes():
    """Lu et al. 2019, section 3.3: early endosomes fall from 0.989 sensitivity in Test1 to 0.684 in Test4."""
    reference, shifted = np.diag([1000] * 7), np.diag([1000] * 7)
    reference[4, 4], reference[4, 2] = 989, 11
    shifted[4, 4], shifted[4, 2] = 684, 316
    growth = cs.confusion_growth(shifted, reference)
    np.testing.assert_allclose(growth[4, 2], 0.305, atol=1e-6)
    np.testing.assert_allclose(cs.balanced_error(shifted), (1 - 0.684) / 7, atol=1e-6)


def error_statistic(labels, predicted, mask):
    return cs.balanced_error(cs.confusion_matrix(labels, predicted, num_classes=3, mask=mask))


def test_bootstrap_spread_is_the_stratified_one():
    """Given class sizes n_c and sensitivities p_c, the error of a resample has variance sum p(1-p)/n_c / K^2."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [300, 60, 20])
    predicted = np.where(generator.random(380) < 0.8, labels, (labels + 1) % 3)
    samples = cs.bootstrap(error_statistic, jax.random.PRNGKey(0), labels, predicted, num_resamples=4000)
    found = np.array([(predicted[labels == c] == c).mean() for c in range(3)])
    expected = np.sqrt((found * (1 - found) / [300, 60, 20]).sum()) / 3
    assert samples.shape == (4000,)
    np.testing.assert_allclose(samples.mean(), 1 - found.mean(), atol=4 * expected / np.sqrt(4000))
    np.testing.assert_allclose(samples.std(), expected, rtol=0.05)


def test_bootstrap_keeps_class_sizes_and_ignores_masked_rows():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    mask = np.array([1, 1, 1, 1, 1, 0, 0, 1], bool)
    rows = np.arange(8)

    def keep(labels, rows, mask):
        return jnp.where(mask, labels, -1), jnp.where(mask, rows, -1)

    drawn_labels, drawn_rows = cs.bootstrap(
        keep, jax.random.PRNGKey(1), labels, rows, mask=mask, num_resamples=200, block=7
    )
    for sample in np.asarray(drawn_labels):
        assert np.bincount(sample[sample >= 0], minlength=3).tolist() == [3, 2, 1]
    used = np.unique(np.asarray(drawn_rows))
    assert used.tolist() == [-1, 0, 1, 2, 3, 4, 7]


def test_interval_is_numpys_percentile():
    samples = np.random.default_rng(0).normal(size=(999, 2))
    expected = np.percentile(samples, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(cs.interval(samples), expected, atol=1e-5)  # the rank itself is float32


def test_everything_is_jittable():
    labels, probabilities, mask = draw(2)

    @jax.jit
    def everything(labels, probabilities, mask):
        confusion = cs.confusion_matrix(labels, probabilities.argmax(1), num_classes=5, mask=mask)
        return cs.balanced_error(confusion), cs.expected_calibration_error(labels, probabilities, mask=mask)

    assert all(np.isfinite(x) for x in everything(labels, probabilities, mask))
