"""Mean average precision with its null distributions, grit and the mp-value, against slow versions and copairs."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import slow_retrieval as slow
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score
from test_ranking_metrics import continuous

from coos.metrics import retrieval
from coos.metrics.retrieval import controls, precision, significance


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 7), (2, 6), (3, 9), (4, 4)])
def test_a_listed_null_is_every_placement(m, n):
    values = []
    for places in itertools.combinations(range(n), m):
        match = np.isin(np.arange(n), places)
        values.append(average_precision_score(match, -np.arange(n)))
    null = retrieval.average_precision_null(m, n)
    assert null.exact
    np.testing.assert_allclose(np.sort(null.values), np.sort(values), atol=1e-12)
    assert retrieval.expected_average_precision(m, n) == pytest.approx(np.mean(values), abs=1e-12)


def test_expected_average_precision_of_the_fact_sheet():
    found = retrieval.expected_average_precision([1, 3, 5], [5, 10, 50])
    np.testing.assert_allclose(found, [0.4567, 0.4500, 0.1643], atol=5e-5)
    assert np.isnan(retrieval.expected_average_precision(0, 5))


@pytest.mark.parametrize(("m", "n"), [(8, 1142), (60, 500)])
def test_a_drawn_null_has_the_expected_mean_and_its_own_seed(m, n):
    null = retrieval.average_precision_null(m, n, size=20_000, seed=1)
    assert not null.exact
    assert len(null.values) == 20_000
    error = null.values.std() / np.sqrt(20_000)
    assert abs(null.values.mean() - retrieval.expected_average_precision(m, n)) < 4 * error
    np.testing.assert_array_equal(
        null.values, retrieval.average_precision_null(m, n, size=20_000, seed=1).values
    )
    assert (null.values != retrieval.average_precision_null(m, n, size=20_000, seed=2).values).any()


def test_a_drawn_null_has_the_distribution_of_the_listed_one(monkeypatch):
    listed = retrieval.average_precision_null(3, 12)
    monkeypatch.setattr(significance, "ENUMERATED", 0)
    drawn = retrieval.average_precision_null(3, 12, size=50_000)
    values, counts = np.unique(np.round(listed.values, 9), return_counts=True)
    cells = np.searchsorted(values, np.round(drawn.values, 9))
    observed = np.bincount(cells, minlength=len(values))
    assert scipy.stats.chisquare(observed, counts / counts.sum() * 50_000).pvalue > 1e-3


def test_normalized_average_precision_is_0_by_chance_and_1_when_perfect():
    null = retrieval.average_precision_null(2, 8)
    found = retrieval.normalized_average_precision(null.values, np.full(28, 2), np.full(28, 8))
    assert found.mean() == pytest.approx(0, abs=1e-12)
    assert found.max() == 1
    assert np.isnan(retrieval.normalized_average_precision([1.0], [4], [4]))[0]  # no order could be wrong
    assert np.isnan(retrieval.normalized_average_precision([np.nan], [0], [4]))[0]


def test_benjamini_hochberg_equals_scipy_and_skips_nan():
    p = np.random.default_rng(0).random(50) ** 3
    np.testing.assert_allclose(retrieval.benjamini_hochberg(p), scipy.stats.false_discovery_control(p))
    with_gaps = np.insert(p, [0, 10], np.nan)
    found = retrieval.benjamini_hochberg(with_gaps)
    np.testing.assert_allclose(found[~np.isnan(with_gaps)], scipy.stats.false_discovery_control(p))
    assert np.isnan(found).sum() == 2


def copairs_scores(features, labels, null_size):
    from copairs import map as copairs_map

    meta = pd.DataFrame({"label": labels.astype(str), "row": np.arange(len(labels)).astype(str)})
    scored = copairs_map.average_precision(
        meta,
        features,
        pos_sameby=["label"],
        pos_diffby=[],
        neg_sameby=[],
        neg_diffby=["label"],
        distance="cosine",
    )
    groups = copairs_map.mean_average_precision(
        scored, ["label"], null_size=null_size, threshold=0.05, seed=0, progress_bar=False
    )
    return scored, groups.set_index(groups["label"].astype(int)).sort_index()


def test_mean_average_precision_equals_copairs():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), [2, 2, 3, 3, 3, 4, 4, 5, 6, 7, 8, 9])
    features = generator.normal(size=(56, 20)) + 0.35 * generator.normal(size=(12, 20))[labels] + 1
    scored, groups = copairs_scores(features, labels, 20_000)
    average = retrieval.average_precision(features, labels, similarity="cosine")
    np.testing.assert_allclose(average, scored["average_precision"], atol=1e-6)
    found = retrieval.mean_average_precision(features, labels, similarity="cosine", null_size=20_000)
    np.testing.assert_array_equal(found.groups, groups.index)
    np.testing.assert_allclose(found.value, groups["mean_average_precision"], atol=1e-6)
    np.testing.assert_array_equal(found.num_rows, np.bincount(labels))
    # both nulls are drawn (ours is listed in full for classes of two and three): equal up to their noise
    noise = 4 * np.sqrt(found.p_value * (1 - found.p_value) / 20_000 * 2) + 4e-4
    assert (np.abs(found.p_value - groups["p_value"]) < noise).all()
    np.testing.assert_allclose(found.corrected_p_value, scipy.stats.false_discovery_control(found.p_value))
    assert found.exact[:5].all()
    assert not found.exact[-1]


def test_an_exact_p_value_is_a_share_of_all_placements():
    # two classes of two: each row has one match among three neighbours, AP is 1, 1/2 or 1/3
    features = np.array([[1, 0.1, 0], [1, 0, 0.1], [0, 1, 0.1], [0.1, 1, 0]])
    found = retrieval.mean_average_precision(features, [0, 0, 1, 1], similarity="cosine")
    np.testing.assert_allclose(found.value, 1)
    np.testing.assert_allclose(found.p_value, 1 / 3)
    assert found.exact.all()
    scored = retrieval.average_precision_p_values([1, 0.5, 1 / 3, np.nan], [1, 1, 1, 0], [3, 3, 3, 3])
    np.testing.assert_allclose(scored, [1 / 3, 2 / 3, 1, np.nan])


def test_p_values_under_the_null_are_not_too_small():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 4)
    p = [
        retrieval.mean_average_precision(generator.normal(size=(120, 30)), labels, null_size=2000).p_value
        for _ in range(12)
    ]
    share = (np.concatenate(p) <= 0.05).mean()
    assert 0 < share < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 360)


def test_p_values_of_drawn_nulls_count_the_observed_one():
    drawn = significance.Null(np.array([0.1, 0.2, 0.3]), False)
    assert significance.p_value(0.4, drawn) == 1 / 4
    assert significance.p_value(0.2, drawn) == 3 / 4
    assert significance.p_value(0.2, significance.Null(drawn.values, True)) == 2 / 3


def test_the_null_of_a_group_weighs_its_rows():
    # three rows whose AP is always 1, one whose AP is 1 or 1/2: the mean is 1 or 7/8, each half of the time
    scored = precision.Scores(
        hits=np.zeros((4, 0)),
        precision_at_r=np.ones(4),
        average_precision=np.ones(4),
        num_matches=np.array([4.0, 4, 4, 1]),
        num_neighbors=np.array([4.0, 4, 4, 2]),
    )
    found = significance.from_scores(
        scored._replace(average_precision=np.array([1, 1, 1, 0.5])), np.zeros(4, int)
    )
    assert found.value[0] == 7 / 8
    assert found.p_value[0] == 1
    found = significance.from_scores(scored, np.zeros(4, int))
    assert found.p_value[0] == pytest.approx(0.5, abs=0.03)
    assert not found.exact[0]


def test_groups_without_a_match_and_multi_hot_groups():
    features, labels = continuous()
    found = retrieval.mean_average_precision(features, labels, null_size=200)
    alone = np.bincount(labels[labels >= 0])[found.groups] == 1
    assert alone.any()
    assert np.isnan(found.value[alone]).all()
    assert np.isnan(found.corrected_p_value[alone]).all()
    assert not np.isnan(found.p_value[~alone]).any()
    one_hot = retrieval.mean_average_precision(features, labels[:, None] == np.arange(20), null_size=200)
    np.testing.assert_array_equal(one_hot.value[found.groups], found.value)
    nothing = retrieval.mean_average_precision(features, np.full(90, -1))
    assert len(nothing.groups) == len(nothing.value) == 0


def slow_grit(features, profiles, groups, is_control, summary):
    s, found = slow.similarities(features), {}
    for profile in np.unique(profiles[~is_control & (profiles >= 0)]):
        rows = np.flatnonzero((profiles == profile) & ~is_control)
        group = groups[rows[0]]
        mates = (groups == group) & (groups >= 0) & (profiles != profile) & ~is_control
        to_controls, to_mates = s[np.ix_(rows, is_control)].ravel(), s[np.ix_(rows, mates)].ravel()
        z = (to_mates - to_controls.mean()) / to_controls.std() if len(to_mates) else [np.nan]
        found[profile] = np.mean(z) if summary == "mean" else np.median(z)
    return found


@pytest.mark.parametrize("summary", ["mean", "median"])
def test_grit_equals_a_slow_loop(summary):
    features, _ = continuous()
    profiles = np.arange(90) // 2
    groups = np.where(profiles < 4, profiles, profiles // 3)
    groups[80:84] = -1
    is_control = np.arange(90) % 7 == 0
    expected = slow_grit(features, profiles, groups, is_control, summary)
    found = retrieval.grit(features, profiles, groups, controls=is_control, summary=summary)
    np.testing.assert_array_equal(found.profiles, list(expected))
    np.testing.assert_allclose(found.value, list(expected.values()), atol=1e-5)
    assert np.isnan(found.value).any()
    assert np.isfinite(found.value).sum() > 20


def test_grit_without_enough_controls_is_undefined():
    features, _ = continuous(count=12)
    one = np.arange(12) == 0
    found = retrieval.grit(features, np.arange(12), np.zeros(12, int), controls=one)
    assert np.isnan(found.value).all()
    with pytest.raises(ValueError, match="bool mask"):
        retrieval.grit(features, np.arange(12), np.zeros(12, int), controls=one.astype(int))
    with pytest.raises(ValueError, match="choose one of"):
        retrieval.grit(features, np.arange(12), np.zeros(12, int), controls=one, summary="max")


@pytest.mark.parametrize("weighted", [True, False])  # as in cytominer-eval: it makes no difference
def test_mp_value_equals_scikit_learn(weighted):
    generator = np.random.default_rng(0)
    control = generator.normal(size=(60, 15)) * np.linspace(0.2, 3, 15) + 9
    treated = control[:5] + 1.5
    together = np.concatenate([treated, control])
    pca = PCA(n_components=0.9, svd_solver="full").fit(together)
    reduced = pca.transform(together) * (pca.explained_variance_ratio_ if weighted else 1)

    def distance(is_treated):
        covariance = EmpiricalCovariance().fit(reduced[~is_treated])
        return covariance.mahalanobis(reduced[is_treated].mean(0, keepdims=True))[0]

    found = retrieval.mp_value(treated, control, num_permutations=200, seed=3)
    is_treated = np.arange(65) < 5
    assert found.components == pca.n_components_
    assert found.distance == pytest.approx(distance(is_treated), rel=1e-6)
    shuffles = np.random.default_rng(3)
    others = [distance(shuffles.permutation(is_treated)) for _ in range(200)]
    assert found.p_value == pytest.approx((np.sum(np.array(others) >= found.distance) + 1) / 201)
    plain = retrieval.mp_value(treated, control, num_permutations=200, seed=3, add_one=False)
    assert plain.p_value == pytest.approx(np.mean(np.array(others) >= found.distance))


def test_mp_value_tells_a_shift_from_none_and_refuses_bad_input():
    generator = np.random.default_rng(0)
    control = generator.normal(size=(80, 10))
    assert retrieval.mp_value(generator.normal(size=(6, 10)) + 2, control).p_value < 0.05
    assert retrieval.mp_value(generator.normal(size=(6, 10)), control).p_value > 0.05
    with pytest.raises(ValueError, match="needs 1 and 2"):
        retrieval.mp_value(control[:3], control[:1])
    with pytest.raises(ValueError, match="must be"):
        retrieval.mp_value(control[:, :3], control)
    with pytest.raises(ValueError, match="NaN"):
        retrieval.mp_value(np.full((2, 10), np.nan), control)
    assert controls.SUMMARIES == ("mean", "median")
