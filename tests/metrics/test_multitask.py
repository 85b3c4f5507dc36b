"""Multi-task metrics against scikit-learn and slow loops: real label matrix, ties, masks, undefined tasks."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import sklearn.metrics

from coos.metrics import multitask
from coos.metrics.multitask.bootstrap import draw, pack, weighted_auroc

METRICS = {
    "auroc": (multitask.auroc, sklearn.metrics.roc_auc_score),
    "average_precision": (multitask.average_precision, sklearn.metrics.average_precision_score),
    "f1": (multitask.f1, lambda active, scores: sklearn.metrics.f1_score(active, scores >= 0.5)),
}


@pytest.fixture(scope="module")
def label_matrix(real_data):
    """The real labels (10574, 209): 1 active, -1 inactive, 0 unlabelled."""
    return scipy.io.mmread(real_data / "chembl_labels" / "label-matrix.mtx").toarray().astype(np.int8)


def sparse_data(seed=0, rows=97, tasks=7, levels=None):
    """Scores (rows, tasks), with few `levels` tied; labels 0/1; a mask that leaves about half."""
    generator = np.random.default_rng(seed)
    scores = generator.random((rows, tasks), np.float32)
    if levels:
        scores = np.floor(scores * levels).astype(np.float32) / levels
    return scores, generator.random((rows, tasks)) < 0.4, generator.random((rows, tasks)) < 0.5


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        *((metric, kind) for metric in ("auroc", "average_precision") for kind in ("random", "tied")),
        ("f1", "tied"),
    ],
)
def test_scores_equal_scikit_learn_on_the_real_label_matrix(label_matrix, metric, kind):
    generator = np.random.default_rng(0)
    ties = generator.integers(0, 7, label_matrix.shape).astype(np.float32) / 8
    scores = ties if kind == "tied" else generator.random(label_matrix.shape, np.float32)
    ours, theirs = METRICS[metric]
    known = label_matrix != 0
    expected = [
        theirs(column[rows] > 0, score[rows])
        for column, score, rows in zip(label_matrix.T, scores.T, known.T, strict=True)
    ]
    assert known.sum() == 55_542
    np.testing.assert_allclose(ours(scores, label_matrix, known), expected, rtol=0, atol=1e-6)


def test_counts_are_those_of_the_real_label_matrix(label_matrix):
    active, inactive = multitask.counts(label_matrix, label_matrix != 0)
    assert active.dtype == jnp.int32
    np.testing.assert_array_equal(active, (label_matrix == 1).sum(0))
    np.testing.assert_array_equal(inactive, (label_matrix == -1).sum(0))


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    scores, labels, mask = sparse_data(levels=5)
    for task, value in enumerate(np.asarray(multitask.auroc(scores, labels, mask))):
        kept = mask[:, task]
        active, inactive = (scores[kept & (labels[:, task] == wanted), task] for wanted in (True, False))
        pairs = [(a > i) + 0.5 * (a == i) for a in active for i in inactive]
        assert value == pytest.approx(np.mean(pairs), abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_masked_entries_do_not_count_and_rows_have_no_order(metric):
    ours = METRICS[metric][0]
    scores, labels, mask = sparse_data(levels=9)
    value = ours(scores, labels, mask)
    hidden = np.where(mask, scores, np.resize([np.nan, np.inf, -7], mask.shape)).astype(np.float32)
    np.testing.assert_array_equal(ours(hidden, np.where(mask, labels, 3), mask), value)
    order = np.random.default_rng(1).permutation(len(scores))
    np.testing.assert_allclose(ours(scores[order], labels[order], mask[order]), value, atol=1e-7)
    alone = [METRICS[metric][1](labels[m, t], scores[m, t]) for t, m in enumerate(mask.T)]
    np.testing.assert_allclose(value, alone, atol=1e-6)


@pytest.mark.parametrize("metric", ["auroc", "average_precision"])
def test_ranks_alone_matter_and_labels_may_be_signs(metric):
    ours = METRICS[metric][0]
    scores, labels, mask = sparse_data(levels=9)
    value = ours(scores, labels, mask)
    np.testing.assert_array_equal(ours(np.exp(3 * scores) - 40, labels, mask), value)
    np.testing.assert_array_equal(ours(scores, np.where(labels, 1, -1), mask), value)


def test_auroc_of_reversed_scores_is_its_complement():
    scores, labels, mask = sparse_data(levels=6)
    forward, backward = multitask.auroc(scores, labels, mask), multitask.auroc(-scores, labels, mask)
    np.testing.assert_allclose(forward + backward, 1, atol=1e-6)


def test_the_smallest_and_greatest_numbers_keep_their_order_and_zeros_tie():
    scores = np.array([-np.inf, -1e-40, -0.0, 0.0, 1e-45, 1e-40, 1e-38, np.inf], np.float32)[:, None]
    for labels in np.random.default_rng(0).permuted(np.arange(8)[None] % 2 > 0, axis=1):
        found = multitask.auroc(scores, labels[:, None])
        pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels, 0] for b in scores[~labels, 0]]
        assert found[0] == pytest.approx(np.mean(pairs))
    tied = multitask.auroc(np.array([[0.0], [-0.0]], np.float32), np.array([[1], [0]]))
    denormal = multitask.auroc(np.array([[1e-42], [1e-43]], np.float32), np.array([[1], [0]]))
    assert (tied[0], denormal[0]) == (0.5, 1)


def test_close_float64_scores_are_told_apart_in_64_bit_mode():
    scores, labels = np.array([[0.5], [0.5 + 1e-12]]), np.array([[0], [1]])
    assert multitask.auroc(scores, labels)[0] == 0.5
    with jax.enable_x64(True):
        assert multitask.auroc(scores, labels)[0] == 1


def test_undefined_tasks_are_nan_or_half_and_nan_scores_always_nan():
    scores = np.array([[0.1, 0.1, 0.1, np.nan, 0.9, np.nan], [0.2, 0.2, 0.2, 0.2, 0.1, 0.1]], np.float32)
    labels = np.array([[0, 1, 0, 1, 1, 1], [0, 1, 1, 0, 0, 1]])
    mask = np.array([[1, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 1]], bool)
    nan = np.nan
    np.testing.assert_array_equal(multitask.auroc(scores, labels, mask), [nan, nan, nan, nan, 1, nan])
    half = multitask.auroc(scores, labels, mask, undefined="half")
    np.testing.assert_array_equal(half, [0.5, 0.5, 0.5, nan, 1, nan])
    np.testing.assert_array_equal(
        multitask.average_precision(scores, labels, mask), [nan, 1, nan, nan, 1, nan]
    )
    np.testing.assert_array_equal(multitask.f1(scores, labels, mask), [nan, 0, nan, nan, 1, nan])
    np.testing.assert_array_equal(multitask.f1(scores, labels, mask, threshold=0.05)[:3], [0, 1, nan])


def test_no_rows_are_undefined_tasks_and_no_tasks_give_nothing():
    for shape in ((0, 3), (4, 0)):
        nothing = np.zeros(shape)
        for ours, _ in METRICS.values():
            assert ours(nothing, nothing).shape == shape[1:]
            assert np.isnan(ours(nothing, nothing)).all()
        found = multitask.bootstrap(nothing, nothing, num_replicates=2)
        assert np.isnan([*found.low, found.mean, found.mean_high]).all()
        means = multitask.summary(nothing, nothing)
        assert np.isnan(means["mean_auroc"])
        assert means["num_tasks"] == means["undefined_f1"] == shape[1]


@pytest.mark.parametrize("metric", METRICS)
def test_scores_can_be_compiled(metric):
    ours = METRICS[metric][0]
    data = sparse_data(levels=9)
    np.testing.assert_allclose(jax.jit(lambda *x: ours(*x) * 1)(*data), ours(*data), atol=1e-7)


def test_billions_of_pairs_are_counted_exactly():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 1 << 20, (150_000, 1)).astype(np.float32)
    labels = generator.random(scores.shape) < 0.9
    expected = sklearn.metrics.roc_auc_score(labels[:, 0], scores[:, 0])
    assert multitask.auroc(scores, labels)[0] == pytest.approx(expected, abs=3e-7)
    assert multitask.auroc(np.where(labels, 2.0, 1.0), labels)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3), np.zeros(3)), "scores must be"),
        ((np.zeros((3, 2)), np.zeros((3, 1))), "labels have shape"),
        ((np.zeros((3, 2)), np.zeros((3, 2)), np.ones((2, 3))), "mask has shape"),
    ],
)
def test_wrong_shapes_are_refused(arguments, message):
    for function in (multitask.auroc, multitask.average_precision, multitask.f1, multitask.bootstrap):
        with pytest.raises(ValueError, match=message):
            function(*arguments)


def test_unknown_convention_is_refused():
    with pytest.raises(ValueError, match=r"undefined='zero'.*nan, half"):
        multitask.auroc(np.zeros((2, 1)), np.zeros((2, 1)), undefined="zero")


def test_placements_of_either_class_add_up_to_the_same_auroc():
    scores, labels, mask = sparse_data(levels=4)
    twice = np.asarray(multitask.placements(scores, labels, mask))
    pairs = (mask & labels).sum(0) * (mask & ~labels).sum(0)
    for entries in (labels, ~labels):
        np.testing.assert_allclose(
            (twice * entries).sum(0) / 2 / pairs, multitask.auroc(scores, labels, mask), atol=1e-6
        )
    assert not twice[~mask].any()


def test_summary_is_made_of_the_scores_per_task():
    scores, labels, mask = sparse_data(levels=9)
    labels[:, 0], labels[:, 1], mask[:, 2] = False, True, False
    scores[:, 3] = labels[:, 3]
    scores[:, 0] = 0
    found = multitask.summary(scores, labels, mask)
    auroc = np.asarray(multitask.auroc(scores, labels, mask), np.float64)
    assert found["mean_auroc"] == pytest.approx(auroc[3:].mean())
    assert found["std_auroc"] == pytest.approx(auroc[3:].std())
    assert found["mean_auroc_half"] == pytest.approx((auroc[3:].sum() + 1.5) / 7)
    precision = np.asarray(multitask.average_precision(scores, labels, mask))
    assert found["mean_average_precision"] == pytest.approx((1 + precision[3:].sum()) / 5)
    assert found["mean_f1"] == pytest.approx(np.nanmean(multitask.f1(scores, labels, mask)))
    assert (found["auroc_above_0.9"], found["num_tasks"]) == (1, 7)
    assert found["auroc_above_0.7"] == (auroc > 0.7).sum()
    undefined = [found[f"undefined_{name}"] for name in ("auroc", "average_precision", "f1")]
    assert undefined == [3, 2, 2]
    assert all(isinstance(value, float) for value in found.values())


def test_summary_hides_no_nan_scores():
    scores, labels, mask = sparse_data()
    scores[np.flatnonzero(mask[:, 4])[0], 4] = np.nan
    found = multitask.summary(scores, labels, mask)
    means = ("mean_auroc", "mean_auroc_half", "mean_average_precision", "mean_f1")
    assert np.isnan([found[name] for name in means]).all()
    assert (found["undefined_auroc"], found["undefined_f1"]) == (0, 0)
    scores, labels, mask = sparse_data()
    labels[:, 4], scores[np.flatnonzero(mask[:, 4])[0], 4] = True, np.nan
    found = multitask.summary(scores, labels, mask)
    assert np.isnan([found["mean_auroc_half"], found["mean_average_precision"]]).all()
    assert found["undefined_auroc"] == 1


def test_views_are_averaged_by_name():
    values = np.random.default_rng(0).random((50, 3))
    groups = np.random.default_rng(1).choice(["p2-A01", "p1-B02", "p1-A10"], 50)
    names, means = multitask.average(values, groups)
    assert list(names) == ["p1-A10", "p1-B02", "p2-A01"]
    assert means.dtype == np.float32
    for name, mean in zip(names, means, strict=True):
        np.testing.assert_allclose(mean, values[groups == name].mean(0), rtol=1e-6)
    empty, none = multitask.average(np.zeros((0, 3)), np.zeros(0, str))
    assert (empty.shape, none.shape) == ((0,), (0, 3))


def test_labels_of_a_group_must_agree():
    groups = np.array(["b", "a", "b", "a"])
    labels = np.array([[1, 0], [-1, 0], [1, 0], [-1, 0]], np.int8)
    names, found = multitask.group_labels(labels, groups)
    assert (list(names), found.tolist(), found.dtype) == (["a", "b"], [[-1, 0], [1, 0]], np.int8)
    labels[2, 1] = 1
    with pytest.raises(ValueError, match="group 'b' has different labels in rows 0 and 2, task 1: 0 and 1"):
        multitask.group_labels(labels, groups)
    with pytest.raises(ValueError, match="groups must be"):
        multitask.average(labels, groups[:3])


def test_bootstrap_equals_resampling_rows_replicate_by_replicate():
    scores, labels, mask = sparse_data(rows=60, tasks=4, levels=11)
    mask[:, 3] &= labels[:, 3] | (np.arange(60) == np.flatnonzero(mask[:, 3] & ~labels[:, 3])[0])
    compounds = np.random.default_rng(2).permutation(np.repeat([f"c{i}" for i in range(25)], 3)[:60])
    found = multitask.bootstrap(scores, labels, mask, groups=compounds, num_replicates=40, seed=3)
    names = np.unique(compounds)
    for replicate, times in zip(found.replicates, draw(len(names), num_replicates=40, seed=3), strict=True):
        rows = np.concatenate([np.flatnonzero(compounds == n) for n in np.repeat(names, times)])
        assert times.sum() == len(names)
        for task, value in enumerate(replicate):
            kept = rows[mask[rows, task]]
            active = labels[kept, task]
            if len(np.unique(active)) < 2:
                assert np.isnan(value)
                continue
            expected = sklearn.metrics.roc_auc_score(active, scores[kept, task])
            assert value == pytest.approx(expected, abs=1e-6)
    assert 0 < found.num_defined[3] < 40
    assert (found.num_defined[:3] == 40).all()


def test_bootstrap_sums_up_its_replicates():
    scores, labels, mask = sparse_data()
    mask[:, 4:] = False
    found = multitask.bootstrap(scores, labels, mask, num_replicates=300, seed=1, level=0.9)
    known = found.replicates[:, :4].astype(np.float64)
    np.testing.assert_allclose(found.low[:4], np.quantile(known, 0.05, axis=0))
    np.testing.assert_allclose(found.high[:4], np.quantile(known, 0.95, axis=0))
    np.testing.assert_allclose(found.standard_error[:4], known.std(0, ddof=1))
    assert np.isnan([found.auroc[4], found.low[4], found.standard_error[4]]).all()
    means = known.mean(1)
    ends = [found.mean_low, found.mean_high, found.mean_standard_error]
    np.testing.assert_allclose(ends, [*np.quantile(means, [0.05, 0.95]), means.std(ddof=1)])
    assert found.mean == pytest.approx(np.nanmean(found.auroc))
    again = multitask.bootstrap(scores, labels, mask, num_replicates=300, seed=1)
    np.testing.assert_array_equal(again.replicates, found.replicates)
    assert (again.low[:4] <= found.low[:4]).all()


def test_bootstrap_error_is_that_of_new_samples():
    generator = np.random.default_rng(0)
    labels = generator.random((200, 400)) < 0.4
    scores = generator.normal(size=labels.shape) + labels
    spread = np.asarray(multitask.auroc(scores, labels)).std()
    found = multitask.bootstrap(scores[:, :20], labels[:, :20], num_replicates=200)
    assert found.standard_error.mean() == pytest.approx(spread, rel=0.1)


def test_replicates_in_blocks_equal_those_in_one(monkeypatch):
    scores, labels, mask = sparse_data(levels=9)
    packed, group = pack(scores, labels, mask), np.arange(len(scores))
    weights = draw(len(scores), num_replicates=23, seed=0)
    whole = weighted_auroc(packed, group, weights)
    monkeypatch.setattr(importlib.import_module("coos.metrics.multitask.bootstrap"), "BLOCK", 7 * 5)
    np.testing.assert_array_equal(weighted_auroc(packed, group, weights), whole)
    ones = weighted_auroc(packed, group, np.ones((1, len(scores)), int))
    np.testing.assert_allclose(ones[0], multitask.auroc(scores, labels, mask), atol=1e-7)


def test_bootstrap_refuses_what_it_cannot_use():
    scores, labels, mask = sparse_data()
    with pytest.raises(ValueError, match="groups must be"):
        multitask.bootstrap(scores, labels, mask, groups=np.arange(3))
    with pytest.raises(ValueError, match="num_replicates=1"):
        multitask.bootstrap(scores, labels, mask, num_replicates=1)
    row = np.flatnonzero(mask[:, 2])[0]
    scores[row, 2] = np.nan
    with pytest.raises(ValueError, match=rf"1 scores .* row {row}, task 2"):
        multitask.bootstrap(scores, labels, mask)
