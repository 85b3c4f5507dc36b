"""Classifiers on features: scaling, exact nearest neighbours, and the one call that does everything."""

import json
import warnings

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from coos import classifiers
from coos.classifiers import neighbors, scaling


def clouds(rows, width=6, classes=4, seed=0, shift=0.0, spread=1.0):
    """Features of Gaussian clouds that overlap, and their classes."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, rows - classes)])
    centers = np.random.default_rng(99).normal(size=(classes, width))
    features = shift + spread * (centers[labels] + generator.normal(size=(rows, width)))
    return features.astype(np.float32), labels


def nearest_by_loop(train, queries, k):
    """By distance, then by row; each distance a sum over its own features in float64."""
    found = []
    for query in queries.astype(np.float64):
        distances = [np.sum((query - row) ** 2) for row in train.astype(np.float64)]
        found.append(sorted(range(len(train)), key=lambda row, d=distances: (d[row], row))[:k])
    return np.array(found)


# scaling


def test_scaling_agrees_with_scikit_learn():
    features, _ = clouds(500, shift=1000.0, spread=0.01)
    features[:, 2] = 0.1  # constant, and not a sum of powers of two
    peer = StandardScaler().fit(features.astype(np.float64))
    found = scaling.fit(features)
    np.testing.assert_allclose(found.mean, peer.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.std, peer.scale_, rtol=1e-9)
    scaled = scaling.apply(found, features)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, peer.transform(features.astype(np.float64)), atol=1e-6)
    assert (scaled[:, 2] == 0).all()


def test_scaling_in_blocks_is_scaling_at_once(monkeypatch):
    features, _ = clouds(500)
    whole = scaling.apply(scaling.fit(features), features)
    monkeypatch.setattr(scaling, "BLOCK", 7)
    np.testing.assert_allclose(scaling.apply(scaling.fit(features), features), whole, atol=1e-6)


def test_what_is_not_finite_is_named():
    features, _ = clouds(20)
    features[[3, 7], 4] = np.nan
    with pytest.raises(
        ValueError, match=r"feature 4 \(area\) is NaN or infinite in 2 of 20 rows, first in row 3"
    ):
        scaling.fit(features, names=["a", "b", "c", "d", "area", "f"])
    with pytest.raises(ValueError, match="test1: feature 4 is NaN"):
        scaling.apply(scaling.Scaling(np.zeros(6), np.ones(6)), features, what="test1")
    with pytest.raises(ValueError, match="no rows"):
        scaling.fit(features[:0])
    with pytest.raises(ValueError, match="2 names for 6 features"):
        scaling.fit(features, names=["a", "b"])


# nearest neighbours


@pytest.mark.parametrize("width", [3, 40])
@pytest.mark.parametrize("train_block", [64, 4096])
def test_neighbors_agree_with_scikit_learn(width, train_block):
    train, labels = clouds(500, width)
    queries, _ = clouds(301, width, seed=1)
    found = neighbors.predict(train, labels, queries, num_classes=5, block=128, train_block=train_block)
    peer = KNeighborsClassifier(11).fit(train, labels)
    np.testing.assert_array_equal(found[:, :4], peer.predict_proba(queries).astype(np.float32))
    assert (found[:, 4] == 0).all()  # a class that is absent
    np.testing.assert_array_equal(found.argmax(1), peer.predict(queries))
    theirs = neighbors.predict(train, labels, queries, num_classes=5, backend="sklearn")
    np.testing.assert_array_equal(found, theirs)


def test_far_from_zero_the_product_alone_would_be_wrong(monkeypatch):
    train, _ = clouds(400, shift=3e4)
    queries, _ = clouds(100, seed=1, shift=3e4)
    squares = (train**2).sum(1)
    naive = np.argsort(squares - 2 * queries @ train.T, 1)[:, :11]
    expected = nearest_by_loop(train, queries, 11)
    assert (np.sort(naive) != np.sort(expected)).any()
    slow = []
    monkeypatch.setattr(neighbors, "_nearest_of", lambda *a: slow.append(a))
    np.testing.assert_array_equal(neighbors.nearest(train, queries, k=11), expected)
    assert not slow  # centred, the product is good enough to propose


def test_bounds_are_bounds_and_close():
    train, _ = clouds(300, 64, spread=30.0, shift=5.0)
    queries, _ = clouds(200, 64, seed=1, spread=3e4, shift=5.0)  # far out: rounding of the product rules
    frame = neighbors._frame(train, queries)
    rows = neighbors._blocks(train, frame, 300)
    bounds = neighbors._similarity(
        *neighbors._padded(queries, frame, 200), neighbors._Rows(*(array[0] for array in rows))
    )
    x, q = ((some.astype(np.float64) - frame.center) * frame.factor for some in (train, queries))
    exact = q @ x.T - (x**2).sum(1) / 2
    assert (np.asarray(bounds, np.float64) >= exact).all()
    assert (np.asarray(bounds) - exact).max() < 3e-5 * np.linalg.norm(x, axis=1).max()


@pytest.mark.parametrize("name", classifiers.CLASSIFIERS)
def test_classes_keep_their_numbers_when_one_is_absent(name):
    train, labels = clouds(120, classes=3)
    options = {"draws": 1, "folds": 2, "progress": False} if name == "random_forest" else {}

    def run(own, number):
        found, _ = classifiers.fit_and_predict(
            name, train, own, {"training": train}, num_classes=number, options=options
        )
        return found["training"]

    apart = run(np.array([0, 2, 5])[labels], 6)
    np.testing.assert_allclose(apart[:, [0, 2, 5]], run(labels, 3), atol=1e-6)
    assert (apart[:, [1, 3, 4]] == 0).all()


HARD = {
    "duplicates": lambda: (np.repeat(clouds(12, 5)[0], 25, 0), clouds(40, 5, seed=1)[0]),
    "all the same": lambda: (np.ones((60, 3), np.float32), np.zeros((5, 3), np.float32)),
    "lattice": lambda: tuple(
        np.random.default_rng(s).integers(0, 3, (n, 4)).astype(np.float32) for s, n in ((0, 200), (1, 50))
    ),
    "an outlier": lambda: (
        np.concatenate([clouds(150)[0], np.full((1, 6), 1e30, np.float32)]),
        clouds(30, seed=1)[0],
    ),
    "tiny": lambda: (clouds(90, spread=1e-30)[0], clouds(30, seed=1, spread=1e-30)[0]),
    "queries far away": lambda: (clouds(90)[0], clouds(30, seed=1, shift=1e5)[0]),
    "itself": lambda: (clouds(90)[0], clouds(90)[0]),
}


@pytest.mark.parametrize("name", HARD)
def test_neighbors_are_those_of_a_loop(name):
    train, queries = HARD[name]()
    expected = nearest_by_loop(train, queries, 11)
    for sizes in ({}, {"block": 16, "train_block": 32}):
        np.testing.assert_array_equal(neighbors.nearest(train, queries, k=11, **sizes), expected)


def test_exclusion_alone_finds_the_same(monkeypatch):
    train, _ = clouds(300)
    queries, _ = clouds(60, seed=1)
    expected = neighbors.nearest(train, queries, k=11)
    monkeypatch.setattr(neighbors, "SPARE", 0)  # every proposal is then too short to be sure
    calls = []
    one = neighbors._nearest_of
    monkeypatch.setattr(neighbors, "_nearest_of", lambda *a: calls.append(len(a[2])) or one(*a))
    np.testing.assert_array_equal(neighbors.nearest(train, queries, k=11, train_block=64), expected)
    assert len(calls) == 60
    assert max(calls) <= 12  # and it excludes nearly all of the 300 rows


def test_equal_votes_go_to_the_smallest_label():
    train = np.array([[1.0], [-1.0], [2.0], [-2.0]], np.float32)
    found = neighbors.predict(train, np.array([3, 1, 1, 3]), np.zeros((1, 1)), num_classes=4, k=4)
    np.testing.assert_array_equal(found, [[0, 0.5, 0, 0.5]])
    assert found.argmax() == 1
    one = neighbors.predict(train, np.array([3, 1, 1, 3]), np.zeros((1, 1)), num_classes=4, k=1)
    assert one.argmax() == 3  # of equal distances the first row


def test_order_of_training_rows_does_not_matter_without_ties():
    train, labels = clouds(300)
    queries, _ = clouds(50, seed=1)
    order = np.random.default_rng(0).permutation(300)
    expected = neighbors.predict(train, labels, queries, num_classes=4)
    found = neighbors.predict(train[order], labels[order], queries, num_classes=4)
    np.testing.assert_array_equal(found, expected)


def test_all_rows_can_be_neighbors_and_no_query_is_fine():
    train, labels = clouds(13)
    found = neighbors.predict(train, labels, train, num_classes=4, k=13)
    np.testing.assert_allclose(found, np.tile(np.bincount(labels) / 13, (13, 1)), rtol=1e-6)
    assert neighbors.predict(train, labels, train[:0], num_classes=4).shape == (0, 4)
    assert neighbors.predict(train, labels, train[:0], num_classes=4, backend="sklearn").shape == (0, 4)


def test_neighbors_refuse_what_cannot_be():
    train, labels = clouds(20)
    for k in (0, 21):
        with pytest.raises(ValueError, match=f"k={k} neighbours of 20 training rows"):
            neighbors.predict(train, labels, train, num_classes=4, k=k)
    with pytest.raises(ValueError, match=r"queries: shape \(20, 5\), but training rows have 6"):
        neighbors.predict(train, labels, train[:, :5], num_classes=4)
    with pytest.raises(ValueError, match="queries: feature 0 is NaN"):
        neighbors.predict(train, labels, np.full((2, 6), np.nan), num_classes=4)
    with pytest.raises(ValueError, match="no backend 'torch'"):
        neighbors.predict(train, labels, train, num_classes=4, backend="torch")


# everything in one call


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("knn", {"k": 5}),
        ("l1_logistic_regression", {"C": 0.5}),
        ("random_forest", {"draws": 2, "folds": 2, "progress": False}),
    ],
)
def test_fit_and_predict(name, options, tmp_path):
    train, labels = clouds(200, shift=50.0)
    train[:, 1] = 7  # constant
    test, truth = clouds(150, seed=1, shift=50.0)
    sets = {"training": train, "test1": test, "nothing": test[:0]}

    def run(features, given):
        return classifiers.fit_and_predict(
            name, features, labels, given, num_classes=6, folder=tmp_path, seed=3, options=options
        )

    found, note = run(train, sets)
    assert {key: value.shape for key, value in found.items()} == {
        "training": (200, 6),
        "test1": (150, 6),
        "nothing": (0, 6),
    }
    for value in found.values():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value.sum(1), 1, atol=1e-6)
        assert (value[:, 4:] == 0).all()
    assert (found["test1"].argmax(1) == truth).mean() > 0.5
    assert json.loads(json.dumps(note)) == note
    assert note["classifier"] == name
    assert note["seconds"] >= note["fit_seconds"] > 0
    assert all(note.get(key, value) == value for key, value in options.items())
    again, _ = run(train, sets)
    np.testing.assert_array_equal(again["test1"], found["test1"])
    factor = np.float32(4)  # of two: it changes no scaled feature
    (tmp_path / classifiers.SEARCH_FILE).unlink(missing_ok=True)
    scaled, _ = run(train * factor, {"test1": test * factor})
    np.testing.assert_allclose(scaled["test1"], found["test1"], atol=1e-5)


def test_a_training_row_is_its_own_neighbor():
    train, labels = clouds(100)
    found, _ = classifiers.fit_and_predict(
        "knn", train, labels, {"training": train}, num_classes=4, options={"k": 1}
    )
    np.testing.assert_array_equal(found["training"].argmax(1), labels)


def wrong(**changes):
    train, labels = clouds(60)
    given = {"name": "knn", "train": train, "labels": labels, "sets": {"test1": train}, "num_classes": 4}
    given |= changes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifiers.fit_and_predict(**given)


@pytest.mark.parametrize("name", classifiers.CLASSIFIERS)
def test_errors_say_what_is_wrong(name):
    train, labels = clouds(60)
    with pytest.raises(ValueError, match="all 60 training rows are of class 2"):
        wrong(name=name, labels=np.full(60, 2))
    with pytest.raises(ValueError, match=r"labels: 1 outside 0 to 3; the first is 9, row 5"):
        wrong(name=name, labels=np.where(np.arange(60) == 5, 9, labels))
    with pytest.raises(ValueError, match=r"set 'test1': shape \(60, 4\), but the scaling is of 6 features"):
        wrong(name=name, sets={"test1": train[:, :4]})
    with pytest.raises(ValueError, match="set 'test1': feature 0 is NaN or infinite in 60 of 60"):
        wrong(name=name, sets={"test1": train * np.float32(np.nan)})
    with pytest.raises(ValueError, match=r"labels: shape \(59,\) for 60 training rows"):
        wrong(name=name, labels=labels[1:])
    with pytest.raises(ValueError, match="labels: want integers, have float64"):
        wrong(name=name, labels=labels * 1.0)
    with pytest.raises(ValueError, match=f"{name}: no option depth; it has "):
        wrong(name=name, options={"depth": 3})
    with pytest.raises(ValueError, match="no classifier 'svm'; choose from knn"):
        wrong(name="svm")
