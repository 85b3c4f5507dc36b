"""Tests of models against each other: SciPy, enumeration, definitions word by word, levels and planted differences."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from coos.metrics import multitask, retrieval, statistics
from coos.metrics.statistics.venkatraman import line_up, permuted, statistic


def pairs_of_models(tasks, *, size=(80, 151), prevalence=0.3, signal=(1.0, 1.0), noise=(1.0, 1.0), seed=0):
    """Correlated scores of two models (N, T) each, labels and a mask: `tasks` data sets of random sizes."""
    generator = np.random.default_rng(seed)
    numbers = generator.integers(*size, tasks)
    mask = generator.permuted(np.arange(size[1])[:, None] < numbers, axis=0)
    labels = generator.random(mask.shape) < prevalence
    shared = generator.normal(size=mask.shape)
    first, second = (
        s * labels + shared + sigma * generator.normal(size=mask.shape)
        for s, sigma in zip(signal, noise, strict=True)
    )
    return first, second, labels, mask


# Wilcoxon


def test_wilcoxon_equals_scipy_for_all_pairs():
    values = np.random.default_rng(0).normal(size=(4, 60)) + np.arange(4)[:, None] / 4
    values[2, 5], values[0, :3] = np.nan, values[1, :3]
    for alternative in ("greater", "less", "two-sided"):
        found = statistics.paired_wilcoxon(values, alternative=alternative)
        assert np.isnan(np.diag(found.p_value)).all()
        for row, column in itertools.permutations(range(4), 2):
            kept = ~np.isnan(values[row] + values[column])
            expected = scipy.stats.wilcoxon(values[column, kept], values[row, kept], alternative=alternative)
            assert found.p_value[row, column] == pytest.approx(expected.pvalue, rel=1e-12)
    assert found.num_tasks[2].tolist() == [59, 59, 59, 59]
    assert (found.num_left_out[2, 0], found.num_left_out[0, 1], found.num_zero[0, 1]) == (1, 0, 3)


def test_wilcoxon_equals_all_patterns_of_signs():
    difference = np.array([0.3, -0.1, 0.7, 0.2, -0.4, 0.9, 1.1])
    ranks = np.abs(difference).argsort().argsort() + 1
    observed = ranks[difference > 0].sum()
    sums = [np.dot(signs, ranks) for signs in itertools.product([0, 1], repeat=len(ranks))]
    found = statistics.paired_wilcoxon(np.stack([np.zeros(7), difference]))
    assert found.p_value[0, 1] == pytest.approx(np.mean(np.array(sums) >= observed))
    assert found.p_value[1, 0] == pytest.approx(np.mean(np.array(sums) <= observed))


def test_wilcoxon_without_differences_or_tasks():
    same = np.array([[0.5, 0.7], [0.5, 0.7], [np.nan, np.nan]])
    found = statistics.paired_wilcoxon(same)
    assert (found.p_value[0, 1], found.num_zero[0, 1]) == (1, 2)
    assert np.isnan(found.p_value[0, 2])
    assert found.num_left_out[0, 2] == 2
    with pytest.raises(ValueError, match="alternative='better'"):
        statistics.paired_wilcoxon(same, alternative="better")
    with pytest.raises(ValueError, match="models, tasks"):
        statistics.paired_wilcoxon(same[0])


# Venkatraman


def errors(active, ranks):
    """(n,) errors of one model at the cut points 1..n, by definition."""
    cuts = np.arange(1, len(ranks) + 1)[:, None]
    return ((ranks <= cuts) & active).sum(1) + ((ranks > cuts) & ~active).sum(1)


def slow_permutation(ranks, active, swapped, second_comes_first):
    """E after exchanging ranks (2, n): those of model 2 win ties where `second_comes_first` of that rank."""
    exchanged = np.where(swapped, ranks[::-1], ranks)
    values = []
    for model in range(2):
        from_second = swapped if model == 0 else ~swapped
        first = second_comes_first[exchanged[model] - 1]
        order = np.lexsort((np.where(first, ~from_second, from_second), exchanged[model]))
        values.append(errors(active, order.argsort() + 1))
    return np.abs(values[1] - values[0]).sum()


def test_permutations_equal_the_definition_step_by_step():
    first, second, labels, mask = pairs_of_models(6, size=(1, 30), seed=1)
    labels[:, 0], labels[:, 1], mask[:, 2] = True, ~labels[:, 1], False
    line = line_up(first, second, labels, mask, seed=0)
    generator = np.random.default_rng(0)
    swapped, coin = generator.random((2, len(line.second), 50)) < 0.5
    found = np.asarray(permuted(jax.tree.map(jnp.asarray, line), swapped, coin))
    begin = 0
    for task in range(6):
        rows = np.flatnonzero(mask[:, task])
        ranks = np.stack([scipy.stats.rankdata(x[rows, task]).astype(int) for x in (first, second)])
        places, active = begin + ranks[0] - 1, labels[rows, task]
        whole = slice(begin, begin + len(rows))
        for number in range(50):
            expected = slow_permutation(ranks, active, swapped[places, number], coin[whole, number])
            assert 2 * found[task, number] == expected
        assert 2 * line.observed[task] == np.abs(errors(active, ranks[0]) - errors(active, ranks[1])).sum()
        begin += len(rows)
    assert begin == len(line.second)


def test_statistic_is_twice_the_area_between_the_curves():
    generator = np.random.default_rng(0)
    active = generator.permuted(np.arange(40)[None].repeat(2, 0) < 13, axis=1)
    below = [np.cumsum(~order)[order] for order in active]  # inactive ones below each active one
    assert statistic(*active) == 2 * np.abs(below[0] - below[1]).sum()
    assert statistic(active[0], active[0]) == 0


def test_venkatraman_holds_its_level_and_sees_planted_differences():
    null, better = pairs_of_models(1000), pairs_of_models(100, signal=(1.0, 2.5), seed=1)
    both = [np.concatenate(parts, axis=1) for parts in zip(null, better, strict=True)]
    p = statistics.venkatraman(*both, num_permutations=99).p_value
    assert not np.isnan(p).any()
    assert 0.035 <= (p[:1000] <= 0.05).mean() <= 0.065
    assert abs((p[:1000] <= 0.5).mean() - 0.5) < 0.05
    assert (p[1000:] <= 0.05).mean() > 0.9


def test_venkatraman_sees_curves_that_cross_where_areas_are_equal():
    generator = np.random.default_rng(0)
    labels = np.arange(400)[:, None] < np.full((1, 30), 200)
    wide = np.where(labels, 3.0, 1.0) * generator.normal(size=labels.shape)
    even = generator.normal(size=labels.shape)
    found = statistics.venkatraman(wide, even, labels, num_permutations=99)
    assert (found.p_value <= 0.05).mean() > 0.9
    assert (statistics.delong(wide, even, labels).p_value <= 0.05).mean() < 0.3


def test_venkatraman_is_not_misled_by_the_order_of_tied_rows():
    generator = np.random.default_rng(0)
    labels = np.sort(generator.random((120, 200)) < 0.4, axis=0)  # inactive rows first
    constant, random = np.zeros(labels.shape), generator.integers(0, 2, labels.shape).astype(float)
    second = np.where(np.arange(200) < 150, random, constant)  # the last 50 models are identical
    found = statistics.venkatraman(constant, second, labels, num_permutations=99)
    assert (found.p_value[:150] <= 0.05).mean() < 0.12
    assert (found.p_value[150:] == 1).all()
    assert (found.area[150:] == 0).all()


def test_venkatraman_does_not_depend_on_the_scale_and_is_seeded():
    first, second, labels, mask = pairs_of_models(5)
    found = statistics.venkatraman(first, second, labels, mask, num_permutations=100, seed=3)
    again = statistics.venkatraman(np.exp(first), 7 * second, labels, mask, num_permutations=100, seed=3)
    np.testing.assert_array_equal(found.p_value, again.p_value)
    other = statistics.venkatraman(first, second, labels, mask, num_permutations=100, seed=4)
    assert (other.p_value != found.p_value).any()
    np.testing.assert_array_equal(found.area, other.area)
    counts = found.p_value * 101
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)


def test_permutations_in_blocks_are_as_many_as_asked_for(monkeypatch):
    first, second, labels, mask = pairs_of_models(4)
    labels[:, 0] = True
    monkeypatch.setattr(importlib.import_module("coos.metrics.statistics.venkatraman"), "BLOCK", 600 * 64)
    p = statistics.venkatraman(first, first, labels, mask, num_permutations=150).p_value
    np.testing.assert_array_equal(p, [np.nan, 1, 1, 1])
    far = statistics.venkatraman(
        labels + 0.01 * first, 0.01 * second - labels, labels, mask, num_permutations=150
    )
    np.testing.assert_allclose(far.p_value[1:], 1 / 151)
    np.testing.assert_allclose(far.area[1:], 1)


# DeLong


def slow_delong(first, second, active):
    """AUROC difference and its standard error by all pairs of entries and the full covariance matrices."""
    shares = []
    for scores in (first, second):
        wins = [[(a > b) + 0.5 * (a == b) for b in scores[~active]] for a in scores[active]]
        shares.append(np.array(wins))
    over_inactive = np.cov(np.stack([wins.mean(1) for wins in shares]))
    over_active = np.cov(np.stack([wins.mean(0) for wins in shares]))
    covariance = over_inactive / active.sum() + over_active / (~active).sum()
    return shares[0].mean() - shares[1].mean(), np.sqrt([1, -1] @ covariance @ [1, -1])


def test_delong_equals_the_covariance_over_all_pairs():
    first, second, labels, mask = pairs_of_models(6, size=(20, 60), signal=(1.0, 2.0))
    first = first.round(0)  # ties
    found = statistics.delong(first, second, labels, mask)
    for task, kept in enumerate(mask.T):
        scores = (x[kept, task].astype(np.float32) for x in (first, second))
        difference, error = slow_delong(*scores, labels[kept, task])
        assert found.difference[task] == pytest.approx(difference, rel=1e-9)
        assert found.standard_error[task] == pytest.approx(error, rel=1e-9)
        assert found.p_value[task] == pytest.approx(
            2 * scipy.stats.norm.sf(abs(difference / error)), rel=1e-9
        )


def test_delong_holds_its_level_and_mirrors():
    null = pairs_of_models(1000, seed=2)
    found, mirrored = statistics.delong(*null), statistics.delong(null[1], null[0], *null[2:])
    assert 0.035 <= (found.p_value <= 0.05).mean() <= 0.065
    np.testing.assert_array_equal(found.z, -mirrored.z)
    better = pairs_of_models(1000, signal=(1.0, 2.5), seed=2)
    assert (statistics.delong(*better).p_value <= 0.05).mean() > 0.9


def test_delong_without_variance_and_without_a_class():
    labels = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 1, 0]])
    scores = np.arange(12.0).reshape(4, 3)
    same, opposed = statistics.delong(scores, 2 * scores, labels), statistics.delong(scores, -scores, labels)
    np.testing.assert_array_equal(same.p_value, [1, np.nan, np.nan])
    np.testing.assert_array_equal(same.z, [0, np.nan, np.nan])
    assert (opposed.difference[0], opposed.z[0], opposed.p_value[0]) == (-1, -np.inf, 0)


# Corrections and comparisons


def test_there_is_one_benjamini_hochberg():
    assert retrieval.benjamini_hochberg is statistics.benjamini_hochberg
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.2])
    adjusted = statistics.benjamini_hochberg(p)
    assert np.isnan(adjusted[1])
    np.testing.assert_allclose(adjusted[[0, 2, 3, 4]], scipy.stats.false_discovery_control(p[[0, 2, 3, 4]]))


@pytest.mark.parametrize("test", ["venkatraman", "delong"])
def test_compare_says_who_is_better(test):
    first, second, labels, mask = pairs_of_models(12, signal=(0.0, 0.0), seed=5)
    first[:, :4] += 3 * labels[:, :4]
    second[:, 4:8] += 3 * labels[:, 4:8]
    labels[:, 8] = False
    found = statistics.compare(first, second, labels, mask, test=test, level=0.01, num_permutations=999)
    assert found.outcome.tolist() == [1] * 4 + [-1] * 4 + [0] * 4
    assert np.isnan([found.p_value[8], found.corrected_p_value[8], found.difference[8]]).all()
    kept = np.arange(12) != 8
    expected = scipy.stats.false_discovery_control(found.p_value[kept])
    np.testing.assert_allclose(found.corrected_p_value[kept], expected)
    auroc = [np.asarray(multitask.auroc(x, labels, mask), np.float64) for x in (first, second)]
    np.testing.assert_array_equal(found.difference, auroc[0] - auroc[1])


def test_no_rows_and_no_tasks_are_nothing_to_test():
    for shape in ((0, 3), (4, 0)):
        nothing = np.zeros(shape)
        for test in (statistics.venkatraman, statistics.delong, statistics.compare):
            p = test(nothing, nothing, nothing).p_value
            assert p.shape == shape[1:]
            assert np.isnan(p).all()


def test_statistics_refuse_what_they_cannot_use():
    first, second, labels, mask = pairs_of_models(3)
    with pytest.raises(ValueError, match="test='t'"):
        statistics.compare(first, second, labels, mask, test="t")
    with pytest.raises(ValueError, match="num_permutations=0"):
        statistics.venkatraman(first, second, labels, mask, num_permutations=0)
    row = np.flatnonzero(mask[:, 1])[0]
    second[row, 1] = np.nan
    for test in (statistics.venkatraman, statistics.delong):
        with pytest.raises(ValueError, match=f"row {row}, task 1"):
            test(first, second, labels, mask)
        with pytest.raises(ValueError, match="labels have shape"):
            test(first, first, labels[:, :2], mask)
