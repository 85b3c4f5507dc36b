"""Logistic regression with an L1 penalty at its optimum, and the random search of forests, beside scikit-learn."""

import json
import warnings

import numpy as np
import pytest
import scipy.optimize
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold
from test_classifiers import clouds

from coos.classifiers import forest, logistic, scaling

SMALL = {
    "n_estimators": [3, 5],
    "max_features": ["sqrt"],
    "max_depth": [1, 4, None],
    "min_samples_leaf": [1, 8],
}


# logistic regression


def scaled(rows=300, width=8, classes=5, seed=0):
    features, labels = clouds(rows, width, classes, seed)
    features[:, 1:3] += 2 * features[:, :1]  # correlated
    return scaling.apply(scaling.fit(features), features), labels


def by_saga(features, labels, C):
    """scikit-learn's solver, run until nothing moves: weights (D, K), bias (K,)."""
    solver = LogisticRegression(l1_ratio=1.0, C=C, solver="saga", tol=1e-10, max_iter=100_000, random_state=0)
    solver.fit(features.astype(np.float64), labels)
    return solver


def objective(weights, bias, features, labels, C):
    logits = features.astype(np.float64) @ weights + bias
    loss = scipy.special.logsumexp(logits, 1) - logits[np.arange(len(labels)), labels]
    return C * loss.sum() + np.abs(weights).sum()


@pytest.mark.parametrize("C", [0.02, 1.0])
def test_the_optimum_is_that_of_scikit_learn(C):
    features, labels = scaled()
    found = logistic.fit(features, labels, num_classes=5, C=C, tolerance=1e-5)
    peer = by_saga(features, labels, C)
    assert found.converged
    assert found.residual <= 1e-5
    theirs = objective(peer.coef_.T, peer.intercept_, features, labels, C)
    assert found.objective == pytest.approx(theirs, rel=1e-8)
    assert found.objective == pytest.approx(
        objective(found.weights, found.bias, features, labels, C), rel=1e-12
    )
    np.testing.assert_allclose(logistic.predict(found, features), peer.predict_proba(features), atol=1e-4)
    np.testing.assert_allclose(found.weights, peer.coef_.T, atol=1e-4)
    np.testing.assert_array_equal(found.weights == 0, np.abs(peer.coef_.T) < 1e-7)
    assert 0 < (found.weights == 0).sum() < found.weights.size


def test_the_optimum_is_that_of_a_bounded_minimisation():
    features, labels = scaled(80, 3, 3)
    own = np.eye(3)[labels]
    wide = np.hstack([features.astype(np.float64), np.ones((80, 1))])

    def value(x):  # weights as differences of what is not negative: smooth
        plus, minus, bias = x[:9], x[9:18], x[18:]
        w = np.vstack([(plus - minus).reshape(3, 3), bias])
        logs = scipy.special.log_softmax(wide @ w, 1)
        slope = wide.T @ (np.exp(logs) - own)
        return x[:18].sum() - (own * logs).sum(), np.concatenate(
            [1 + slope[:3].ravel(), 1 - slope[:3].ravel(), slope[3]]
        )

    bounds = [(0, None)] * 18 + [(None, None)] * 3
    peer = scipy.optimize.minimize(value, np.zeros(21), jac=True, bounds=bounds, tol=1e-14)
    found = logistic.fit(features, labels, num_classes=3, tolerance=1e-4)
    assert found.objective == pytest.approx(peer.fun, rel=1e-7)
    np.testing.assert_allclose(found.weights.ravel(), peer.x[:9] - peer.x[9:18], atol=2e-3)


def test_two_classes_and_absent_ones():
    features, labels = scaled(200, 5, 2)
    labels = np.array([1, 3])[labels]
    found = logistic.fit(features, labels, num_classes=5, tolerance=1e-5)
    peer = by_saga(features, labels, 1.0)
    probabilities = logistic.predict(found, features)
    np.testing.assert_allclose(probabilities[:, [1, 3]], peer.predict_proba(features), atol=1e-4)
    assert (probabilities[:, [0, 2, 4]] == 0).all()
    assert (found.weights[:, [0, 2, 4]] == 0).all()
    theirs = logistic.fit(features, labels, num_classes=5, backend="sklearn", tolerance=1e-4)
    assert theirs.objective == pytest.approx(found.objective, rel=1e-7)
    np.testing.assert_allclose(logistic.predict(theirs, features), probabilities, atol=1e-4)


def test_both_backends_reach_the_same_certificate():
    features, labels = scaled()
    ours = logistic.fit(features, labels, num_classes=5, tolerance=1e-3)
    theirs = logistic.fit(features, labels, num_classes=5, tolerance=1e-3, backend="sklearn")
    assert ours.converged
    assert theirs.converged
    assert ours.objective == pytest.approx(theirs.objective, rel=1e-6)


def test_the_residual_bounds_the_distance_to_the_optimum():
    features, labels = scaled()
    best = logistic.fit(features, labels, num_classes=5, tolerance=1e-6)
    for tolerance in (10.0, 1.0, 0.1):
        found = logistic.fit(features, labels, num_classes=5, tolerance=tolerance)
        distance = np.abs(found.weights - best.weights).sum() + np.abs(found.bias - best.bias).sum()
        assert 0 < found.objective - best.objective <= found.residual * distance


def test_certificate_of_nothing_fitted():
    features, labels = scaled()
    value, residual = logistic.certificate(np.zeros((8, 5)), np.zeros(5), features, labels, C=2.0)
    assert value == pytest.approx(2 * 300 * np.log(5))
    slope = 2 * features.astype(np.float64).T @ (0.2 - np.eye(5)[labels])
    in_bias = 2 * np.abs(300 / 5 - np.bincount(labels)).max()
    assert residual == pytest.approx(max(np.abs(slope).max() - 1, in_bias), rel=1e-6)


def test_so_little_data_weighs_nothing_but_the_bias():
    features, labels = scaled()
    found = logistic.fit(features, labels, num_classes=5, C=1e-4)
    assert (found.weights == 0).all()
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(logistic.predict(found, features[:2]), [shares, shares], atol=0.02)


def test_columns_that_are_constant_or_far_from_zero():
    features, labels = scaled()
    far = features.copy()
    far[:, 0] = 3
    far[:, 4] += 30
    plain = features.copy()
    plain[:, 0] = 0
    found = logistic.fit(far, labels, num_classes=5, tolerance=1e-4)
    expected = logistic.fit(plain, labels, num_classes=5, tolerance=1e-4)
    assert (found.weights[0] == 0).all()
    np.testing.assert_allclose(logistic.predict(found, far), logistic.predict(expected, plain), atol=1e-4)


def test_order_of_rows_does_not_matter():
    features, labels = scaled()
    order = np.random.default_rng(0).permutation(len(labels))
    found = logistic.fit(features[order], labels[order], num_classes=5, tolerance=1e-5)
    expected = logistic.fit(features, labels, num_classes=5, tolerance=1e-5)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-5)


@pytest.mark.parametrize("backend", logistic.BACKENDS)
def test_what_does_not_converge_says_so(backend):
    features, labels = scaled()
    with pytest.warns(
        UserWarning, match=r"stopped after 3 iterations at objective .* above the tolerance 0.001"
    ):
        found = logistic.fit(features, labels, num_classes=5, max_iterations=3, backend=backend)
    assert not found.converged
    assert (found.iterations, found.residual > 1e-3) == (3, True)


def test_logistic_refuses_what_cannot_be():
    features, labels = scaled()
    for C in (0, -1.0, np.nan):
        with pytest.raises(ValueError, match="want a positive number"):
            logistic.fit(features, labels, num_classes=5, C=C)
    with pytest.raises(ValueError, match="no backend"):
        logistic.fit(features, labels, num_classes=5, backend="liblinear")
    with pytest.raises(ValueError, match="all 300 training rows are of class 0"):
        logistic.fit(features, labels * 0, num_classes=5)
    model = logistic.fit(features, labels, num_classes=5)
    with pytest.raises(ValueError, match=r"shape \(300, 7\), but the model has 8"):
        logistic.predict(model, features[:, 1:])


# random forests


def search(features, labels, **options):
    given = {"draws": 4, "folds": 3, "seed": 5, "jobs": 1, "progress": False, "grid": SMALL}
    return forest.search(features, labels, **{**given, **options})


def test_draws_are_distinct_and_within_the_published_grid():
    found = forest.draw(100, 0)
    assert len({json.dumps(settings) for settings in found}) == 100
    assert all(settings[key] in values for settings in found for key, values in forest.GRID.items())
    assert found == forest.draw(100, 0) != forest.draw(100, 1)
    assert 100 not in forest.GRID["n_estimators"]
    assert np.prod([len(values) for values in forest.GRID.values()]) == 2700
    with pytest.raises(ValueError, match="2701 draws of a grid of 2700"):
        forest.draw(2701)


@pytest.mark.parametrize("scoring", forest.SCORINGS)
def test_search_agrees_with_scikit_learn(scoring):
    features, labels = clouds(150)
    found = search(features, labels, scoring=scoring)
    peer = RandomizedSearchCV(
        RandomForestClassifier(random_state=5),
        SMALL,
        n_iter=4,
        random_state=5,
        scoring=scoring,
        cv=StratifiedKFold(3, shuffle=True, random_state=5),
    ).fit(features, labels)
    assert found.draws == peer.cv_results_["params"]
    assert found.best == peer.best_params_
    assert found.best_draw == peer.best_index_
    np.testing.assert_allclose(found.scores.mean(1), peer.cv_results_["mean_test_score"], rtol=1e-12)
    assert found.score == pytest.approx(peer.best_score_)
    model = forest.fit(features, labels, found.best, seed=5)
    np.testing.assert_allclose(
        forest.predict(model, features, num_classes=5)[:, :4], peer.predict_proba(features), atol=1e-6
    )


def test_number_of_jobs_changes_nothing():
    features, labels = clouds(150)
    one, two = search(features, labels), search(features, labels, jobs=2)
    np.testing.assert_array_equal(one.scores, two.scores)
    models = [forest.fit(features, labels, one.best, seed=1, jobs=jobs) for jobs in (1, 2)]
    first, second = (forest.predict(model, features, num_classes=4) for model in models)
    np.testing.assert_array_equal(first, second)


def test_a_search_that_was_cut_is_resumed(tmp_path, monkeypatch):
    features, labels = clouds(150)
    path = tmp_path / "folder" / "search.jsonl"
    expected = search(features, labels, path=path)
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 5
    path.write_text("".join(lines[:3]) + lines[3][:20])  # two draws, and half of one
    done = {json.loads(line)["draw"] for line in lines[1:3]}
    fitted, one = [], forest._score
    monkeypatch.setattr(forest, "_score", lambda *a: fitted.append(a[4]) or one(*a))
    found = search(features, labels, path=path)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.best == expected.best
    assert sorted(fitted) == [(i, fold) for i in range(4) if i not in done for fold in range(3)]
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(lines)
    fitted.clear()
    np.testing.assert_array_equal(search(features, labels, path=path).scores, expected.scores)
    assert not fitted


def test_a_file_of_another_search_is_refused(tmp_path):
    features, labels = clouds(60)
    path = tmp_path / "search.jsonl"
    search(features, labels, path=path, draws=1)
    for changed in ({"seed": 6}, {"draws": 2}, {"folds": 2}, {"scoring": "balanced_accuracy"}):
        with pytest.raises(ValueError, match=r"search\.jsonl: holds a search of other features"):
            search(features, labels, path=path, **{"draws": 1, **changed})
    with pytest.raises(ValueError, match="holds a search of other features"):
        search(features + 1, labels, path=path, draws=1)
    path.write_text("{}\nnonsense\n")
    with pytest.raises(ValueError, match="line 2: not valid JSON"):
        search(features, labels, path=path, draws=1)


def test_forests_refuse_what_cannot_be():
    features, labels = clouds(60)
    rare = np.where(np.arange(60) < 2, 7, labels % 3)
    with pytest.raises(ValueError, match="class 7 has 2 training rows, fewer than 3 folds"):
        search(features, rare)
    with pytest.raises(ValueError, match="1 folds; cross-validation needs 2"):
        search(features, labels, folds=1)
    with pytest.raises(ValueError, match="no scoring 'f1'"):
        search(features, labels, scoring="f1")
    with pytest.raises(ValueError, match="all 60 training rows are of class 0"):
        search(features, labels * 0)
    with pytest.raises(ValueError, match="feature 2 is NaN"):
        search(np.where(np.arange(6) == 2, np.nan, features), labels)


def test_no_warning_where_all_is_well():
    features, labels = scaled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert logistic.fit(features, labels, num_classes=5).converged


def test_biases_do_not_drift_where_classes_are_separable():
    """A shift of all biases costs nothing: rounding must not let it grow, nor keep the optimum from being reached."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(300, 200)).astype(np.float32)
    labels = generator.integers(5, size=300)
    model = logistic.fit(features, labels, num_classes=5)
    assert model.converged
    assert model.residual <= 1e-3
    assert np.abs(model.bias).max() < 10
