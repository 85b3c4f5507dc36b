"""Precision, recall, average precision, nearest neighbours and hit@k, against slow loops and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_retrieval as slow
from sklearn.metrics import average_precision_score

from coos.metrics import retrieval
from coos.metrics.retrieval import inputs, precision, ranking


def continuous(seed=0, count=90, width=12):
    """Rows with a mean far from zero, classes of 1 to many, some rows unlabelled."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, width)) * generator.uniform(0.1, 3, width) + 40
    labels = np.minimum(generator.geometric(0.12, count), 20) - 1
    labels[generator.random(count) < 0.15] = -1
    return features, labels


def tied(seed=0, count=70):
    """Signs with as many + as -, and a large mean: similarities are exact multiples of 1/8, mostly tied."""
    generator = np.random.default_rng(seed)
    signs = generator.permuted(np.tile([1.0, -1.0], (count, 8)), axis=1)
    return signs + 64.0, generator.integers(-1, 9, count)


CASES = {"continuous": continuous, "tied": tied}
GROUPS = np.random.default_rng(5).integers(-1, 12, 200)
PLATES = np.random.default_rng(6).integers(0, 4, 200)


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]()


@pytest.mark.parametrize("similarity", ["pearson", "cosine", "spearman"])
@pytest.mark.parametrize("excluded", [(), (GROUPS,), (GROUPS, PLATES)], ids=["none", "one", "two"])
def test_all_scores_equal_a_slow_loop(case, similarity, excluded):
    features, labels = case
    if similarity == "cosine":
        features = features - (64 if features.max() == 65 else 39)  # a common mean makes all cosines alike
    exclude = tuple(group[: len(labels)] for group in excluded)
    neighbors = slow.rows(features, labels, similarity=similarity, exclude=exclude)
    options = {"similarity": similarity, "exclude": exclude or None}
    ks = (1, 3, 10)
    found = retrieval.precision_at_k(features, labels, ks, **options)
    recall = retrieval.recall_at_k(features, labels, ks, **options)
    at_r = retrieval.precision_at_r(features, labels, **options)
    at_size = retrieval.precision_at_r(features, labels, r="class_size", **options)
    average = retrieval.average_precision(features, labels, **options)
    for row, (values, match) in enumerate(neighbors):
        if not match.any():
            assert np.isnan(found[row]).all()
            assert np.isnan(recall[row]).all()
            assert np.isnan([at_r[row], at_size[row], average[row]]).all()
            continue
        values = np.round(values, 12)  # the loop's own rounding must not break ties
        size = int(match.sum())
        for column, k in enumerate(ks):
            hits = slow.hits_within(values, match, k)
            assert found[row, column] == pytest.approx(hits / k, abs=1e-6)
            assert recall[row, column] == pytest.approx(hits / size, abs=1e-6)
        assert at_r[row] == pytest.approx(slow.hits_within(values, match, size) / size, abs=1e-6)
        assert at_size[row] == pytest.approx(slow.hits_within(values, match, size + 1) / (size + 1), abs=1e-6)
        assert average[row] == pytest.approx(average_precision_score(match, values), abs=1e-6)
    assert np.isnan(average).any()
    assert np.isfinite(average).sum() > 30


def test_nearest_neighbor_accuracy_is_the_mean_of_precision_at_1(case):
    features, labels = case
    group = GROUPS[: len(labels)]
    neighbors = slow.rows(features, labels, exclude=(group,))
    first = [slow.hits_within(np.round(v, 12), m, 1) for v, m in neighbors if m.any()]
    found = retrieval.nearest_neighbor_accuracy(features, labels, exclude=group)
    assert found == pytest.approx(np.mean(first), abs=1e-6)
    assert np.isnan(retrieval.nearest_neighbor_accuracy(features, np.arange(len(labels))))


def test_multi_hot_labels_match_when_they_share_any():
    features, labels = continuous()
    generator = np.random.default_rng(3)
    hot = generator.random((len(labels), 6)) < 0.15
    average = retrieval.average_precision(features, hot)
    for row, (values, match) in enumerate(slow.rows(features, hot)):
        expected = average_precision_score(match, values) if match.any() else np.nan
        assert average[row] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    one_hot = labels[:, None] == np.arange(20)
    for metric in (retrieval.average_precision, retrieval.precision_at_r, retrieval.recall_at_k):
        np.testing.assert_array_equal(metric(features, one_hot), metric(features, labels))


def test_the_order_of_rows_features_and_label_numbers_does_not_matter(case):
    features, labels = case
    generator = np.random.default_rng(1)
    rows, columns = generator.permutation(len(labels)), generator.permutation(features.shape[1])
    renamed = np.where(labels < 0, -7, 1000 - 3 * labels)
    moved = retrieval.average_precision(features[rows][:, columns], renamed[rows])
    np.testing.assert_allclose(moved, retrieval.average_precision(features, labels)[rows], atol=1e-6)


def test_scale_and_shift_of_a_row_do_not_change_pearson():
    features, labels = continuous()
    changed = features * np.linspace(0.1, 1e4, len(labels))[:, None] + 1e5
    found = retrieval.average_precision(changed, labels)
    np.testing.assert_allclose(found, retrieval.average_precision(features, labels), atol=1e-6)


@pytest.mark.parametrize("elements", [1, 90 * 16, 90 * 41])
def test_any_block_size_gives_the_same(monkeypatch, elements):
    features, labels = continuous()
    whole = retrieval.average_precision(features, labels)
    ranks = retrieval.hit_at_k(features, labels).ranks
    monkeypatch.setitem(inputs.ELEMENTS, "cpu", elements)
    assert ranking.block_size(90) in (8, 16, 40)
    np.testing.assert_allclose(retrieval.average_precision(features, labels), whole, atol=1e-6)
    np.testing.assert_array_equal(retrieval.hit_at_k(features, labels).ranks, ranks)


def test_one_device_and_eight_give_the_same(monkeypatch):
    features, labels = continuous()
    monkeypatch.setitem(inputs.ELEMENTS, "cpu", 90 * 8)
    eight = retrieval.average_precision(features, labels)
    assert len(jax.local_devices()) == 8
    one_device = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one_device)
    np.testing.assert_array_equal(retrieval.average_precision(features, labels), eight)


def test_hits_of_continuous_features_are_the_ranks_of_a_sort():
    features, labels = continuous()
    expected = []
    for values, match in slow.rows(features, labels):
        expected += list(np.flatnonzero(match[np.argsort(-values)]))
    found = retrieval.hit_at_k(features, labels, percents=(2, 10, 50, 100))
    np.testing.assert_array_equal(found.ranks, np.sort(expected))
    groups, total = len(labels), len(expected)
    assert len(found.histogram) == groups
    assert found.percent_scores == {
        p: int((np.array(expected) <= p * groups / 100).sum()) - int(p * total / 100)
        for p in (2, 10, 50, 100)
    }
    assert found.accumulated[-1] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found.normalized, found.accumulated / total)


def test_hit_score_equals_a_slow_sum_over_depths(case):
    features, labels = case
    gain = chance = perfect = 0.0
    for values, match in slow.rows(features, labels):
        if match.any():
            size, number = int(match.sum()), len(match)
            depth = int(np.ceil(np.float32(number) * np.float32(0.2)))
            values = np.round(values, 12)
            gain += sum(slow.hits_within(values, match, k) for k in range(1, depth + 1))
            chance += sum(size * k / number for k in range(1, depth + 1))
            perfect += sum(min(k, size) for k in range(1, depth + 1))
    found = retrieval.hit_at_k(features, labels).score
    assert found == pytest.approx((gain - chance) / (perfect - chance), abs=1e-6)


def test_hit_score_is_1_when_perfect_0_by_chance_and_negative_when_reversed():
    labels = np.repeat(np.arange(12), 5)
    centres = np.random.default_rng(0).normal(size=(12, 30))
    noise = np.random.default_rng(1).normal(size=(60, 30))
    assert retrieval.hit_at_k(centres[labels] + 1e-3 * noise, labels).score == pytest.approx(1, abs=1e-6)
    same = np.tile(centres[0], (60, 1))
    assert retrieval.hit_at_k(same, labels).score == pytest.approx(0, abs=1e-6)
    random = [
        retrieval.hit_at_k(np.random.default_rng(i).normal(size=(60, 30)), labels).score for i in range(40)
    ]
    assert abs(np.mean(random)) < 3 * np.std(random) / np.sqrt(40) + 1e-3
    opposite = np.where(np.arange(60)[:, None] % 2, noise[:1], -noise[:1]) + 1e-3 * noise
    assert retrieval.hit_at_k(opposite, np.arange(60) // 2).score < 0


def test_features_that_tell_nothing_score_as_chance():
    labels = np.repeat(np.arange(5), 4)
    features = np.tile(np.arange(7.0), (20, 1))
    assert retrieval.precision_at_k(features, labels, 6) == pytest.approx(3 / 19, abs=1e-6)
    assert retrieval.recall_at_k(features, labels, 19) == pytest.approx(1, abs=1e-6)
    assert retrieval.average_precision(features, labels) == pytest.approx(3 / 19, abs=1e-6)
    assert retrieval.nearest_neighbor_accuracy(features, labels) == pytest.approx(3 / 19, abs=1e-6)


def test_k_beyond_the_neighbors_still_divides_by_k():
    features, labels = np.eye(4) + 1.0 * np.arange(4), np.array([0, 0, 1, 1])
    np.testing.assert_allclose(retrieval.precision_at_k(features, labels, 10), 0.1, atol=1e-6)
    np.testing.assert_allclose(retrieval.precision_at_k(features, labels, 10**12), 1e-12)
    np.testing.assert_allclose(retrieval.recall_at_k(features, labels, np.int64(10**12)), 1)


def test_no_exclusion_is_no_exclusion():
    features, labels = continuous()
    expected = retrieval.average_precision(features, labels)
    for nothing in (None, (), [], [np.full(90, -1)]):
        np.testing.assert_array_equal(
            retrieval.average_precision(features, labels, exclude=nothing), expected
        )


def test_no_matches_at_all_is_nan_and_counted():
    features = np.random.default_rng(0).normal(size=(5, 3))
    found = retrieval.precision_at_k(features, np.full(5, -1), (1, 2))
    assert found.shape == (5, 2)
    assert np.isnan(found).all()
    mean, defined = retrieval.mean_defined(found)
    assert np.isnan(mean)
    assert defined == 0
    assert np.isnan(retrieval.hit_at_k(features, np.arange(5)).score)
    assert retrieval.mean_defined([1.0, np.nan, 0.5]) == (0.75, 2)


def test_blocks_can_be_part_of_a_compiled_function():
    features, labels = continuous()
    prepared = ranking.prepare(features, labels)
    rows = np.flatnonzero(prepared.matches.counts() > 0)
    lists = prepared.matches.listed(rows)

    @jax.jit
    def mean(compared):
        ranks = ranking.rank_block(compared, jnp.asarray(prepared.matches.exclude), rows, *lists)
        return precision.average_precision_of(ranks).mean()

    expected, _ = retrieval.mean_defined(retrieval.average_precision(features, labels))
    assert float(mean(prepared.compared)) == pytest.approx(expected, abs=1e-6)


def test_real_plate_gives_the_published_hits(real_data):
    import polars as pl

    frame = pl.read_csv(real_data / "lincs_plate" / "SQ00015054_normalized_feature_select.csv.gz")
    # the upstream test counts the DMSO wells as a mechanism of their own
    control = pl.col("Metadata_broad_sample") == "DMSO"
    frame = frame.with_columns(moa=pl.when(control).then(pl.lit("DMSO")).otherwise("Metadata_moa"))
    frame = frame.filter(pl.col("moa").is_not_null())
    features = frame.select(pl.exclude("^Metadata_.*$", "moa")).to_numpy()
    found = retrieval.hit_at_k(features, retrieval.encode(frame["moa"]))
    assert features.shape == (366, 454)
    assert len(found.ranks) == 2766
    assert found.percent_scores == {2: 679, 5: 928, 10: 1061, 100: 0}
    assert found.accumulated[0] == pytest.approx(150.4, abs=0.05)


BAD = {
    "text labels": (np.eye(3), ["a", "b", "a"], {}, TypeError, "retrieval.encode"),
    "float labels": (np.eye(3), [0.0, 1.0, 0.0], {}, TypeError, "integers, got float64"),
    "too few labels": (np.eye(3), [0, 1], {}, ValueError, r"\(3,\) or multi-hot"),
    "a NaN": (np.array([[1, 2], [np.nan, 1]]), [0, 0], {}, ValueError, "1 rows have NaN.*first row 1"),
    "an infinity": (np.array([[1, np.inf], [3, 1]]), [0, 0], {}, ValueError, "NaN or infinite.*row 0"),
    "a flat row": (np.array([[1, 2, 3], [5, 5, 5.0]]), [0, 0], {}, ValueError, "all equal.*pearson"),
    "a flat row of float32": (
        np.array([[1, 2, 3], [0.1, 0.1, 0.1]], np.float32), [0, 0], {}, ValueError, "all equal"),
    "a row flat to the last digit": (
        np.array([[1, 2, 3], [0.1, np.nextafter(np.float32(0.1), np.float32(1)), 0.1]], np.float32), [0, 0], {},
        ValueError, "all equal"),
    "a zero row": (np.array([[1, 2], [0, 0]]), [0, 0], {"similarity": "cosine"}, ValueError, "all zero"),
    "an unknown similarity": (np.eye(3), [0, 0, 1], {"similarity": "euclid"}, ValueError, "choose one of"),
    "text features": (np.array([["a", "b"]]), [0], {}, TypeError, "must be numbers"),
    "no rows": (np.zeros((0, 3)), [], {}, TypeError, "integers, got float64"),
    "no rows, no labels": (np.zeros((0, 3)), np.zeros(0, int), {}, ValueError, "at least one of each"),
    "one dimension": (np.arange(3.0), [0, 1, 0], {}, ValueError, "rows, features"),
    "short exclude": (np.eye(3), [0, 0, 1], {"exclude": [0, 1]}, ValueError, r"exclude\[0\] must be \(3,\)"),
    "text exclude": (np.eye(3), [0, 0, 1], {"exclude": ["a", "b", "c"]}, TypeError, "use retrieval.encode"),
    "counts as labels": (np.eye(3), [[2, 0]] * 3, {}, ValueError, "must be 0 or 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_says_what_is_wrong(name):
    features, labels, options, error, message = BAD[name]
    with pytest.raises(error, match=message):
        retrieval.average_precision(features, labels, **options)


def test_bad_options_say_what_is_wrong():
    features, labels = np.eye(3) + np.arange(3), [0, 0, 1]
    with pytest.raises(ValueError, match="k=0: must be a whole number"):
        retrieval.precision_at_k(features, labels, 0)
    for k in (2.5, None, "3", [2, 0]):
        with pytest.raises(ValueError, match="must be a whole number"):
            retrieval.recall_at_k(features, labels, k)
    with pytest.raises(ValueError, match="percents"):
        retrieval.hit_at_k(features, labels, percents=(200,))
    with pytest.raises(ValueError, match="choose one of"):
        retrieval.precision_at_r(features, labels, r="size")
    with pytest.raises(ValueError, match="top=0"):
        retrieval.hit_at_k(features, labels, top=0)


def test_encode_numbers_values_and_leaves_unknown_ones_out():
    values = ["b", None, "a", "", float("nan"), "b"]
    np.testing.assert_array_equal(retrieval.encode(values), [1, -1, 0, -1, -1, 1])
    hot, names = retrieval.encode_sets(["x|y", None, "y", ""])
    assert names == ["x", "y"]
    np.testing.assert_array_equal(hot, [[1, 1], [0, 0], [0, 1], [0, 0]])


@pytest.mark.parametrize("similarity", ["pearson", "cosine", "spearman"])
def test_similarities_of_arrays_anywhere_equal_float64(similarity):
    features = (np.random.default_rng(0).normal(size=(30, 700)) + 1e5 * (similarity == "pearson")).astype(
        np.float32
    )
    expected = slow.similarities(features, similarity)
    for array in (
        features,
        jnp.asarray(features),
        features.astype(np.float64),
        1e-30 * features.astype(np.float64),
    ):
        found = np.asarray(
            inputs.similarities(inputs.comparable_rows(array, similarity=similarity), np.arange(30))
        )
        np.testing.assert_allclose(
            found - np.diag(np.diag(found)), expected - np.diag(np.diag(expected)), atol=1e-6
        )
        np.testing.assert_allclose(
            np.diag(found), 1, atol=1e-5
        )  # float32 sums of squares of ranks lose that much


def test_jax_arrays_and_float64_numpy_agree_on_a_large_mean():
    generator = np.random.default_rng(0)
    features = (generator.normal(size=(40, 60)) + 3000).astype(np.float32)
    labels = np.arange(40) % 7
    host = retrieval.average_precision(features, labels)
    device = retrieval.average_precision(jnp.asarray(features), labels)
    values = [average_precision_score(m, v) for v, m in slow.rows(features, labels)]
    np.testing.assert_allclose(host, values, atol=1e-6)
    np.testing.assert_allclose(device, values, atol=1e-6)
