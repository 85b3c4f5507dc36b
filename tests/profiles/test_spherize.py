"""Sphering against its defining identities, the formula of 2021, slow loops and pycytominer."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from absl import logging
from pycytominer.operations import Spherize as Pycytominer

from coos.profiles import normalize, spherize
from coos.profiles.spherize import METHODS, Spherize
from coos.profiles.table import Table

KINDS = {"plain": (1.0, 0.0), "far from zero": (1.0, 1e3), "badly scaled": (10.0, 10.0)}


def draw(n, d, kind="plain", dtype=np.float64, seed=0):
    """Correlated rows; a spread and a mean that differ from zero and between features as `kind` says."""
    generator = np.random.default_rng(seed)
    spread, mean = KINDS[kind]
    mixing = np.eye(d) + generator.normal(size=(d, d)) / np.sqrt(d)
    spreads = spread ** generator.uniform(-2, 3, d)
    return ((generator.normal(size=(n, d)) @ mixing + mean) * spreads).astype(dtype)


def cov(x, ddof=1):
    return np.cov(x.astype(np.float64), rowvar=False, ddof=ddof)


def off_identity(covariance):
    return np.abs(covariance - np.eye(len(covariance))).max()


def era(x, reference, method, epsilon=1e-6):
    """The published figures' formula (facts sheet of pycytominer 0.1-1.0), with D x D matrices."""
    centered = reference - reference.mean(0)
    covariance = centered.T @ centered / len(reference)
    matrix = np.corrcoef(reference, rowvar=False) if method.endswith("cor") else covariance
    values, vectors = np.linalg.eigh(matrix)
    w = np.diag(np.clip(values, epsilon, None) ** -0.5) @ vectors.T
    if method.endswith("cor"):
        w = w @ np.diag(np.clip(np.diag(covariance), epsilon, None) ** -0.5)
    if method.startswith("ZCA"):
        w = vectors @ w
    return (x - reference.mean(0)) @ w.T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_reference_rows_become_white(method, kind, dtype):
    x = draw(400, 30, kind, dtype)
    step = Spherize(method=method, epsilon=1e-9).fit(x)
    z = step.transform(x)
    assert z.dtype == dtype
    assert z.shape == x.shape
    assert off_identity(cov(z)) < 1e-5
    np.testing.assert_allclose(z.mean(0, dtype=np.float64), 0, atol=1e-4)
    assert step.whiteness_error_ < 1e-5
    assert step.states_[()].rank == 30
    assert step.states_[()].num_below_epsilon == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_fewer_rows_than_features_become_white_where_they_vary(method, kind, dtype):
    x = draw(40, 90, kind, dtype)
    step = Spherize(method=method, epsilon=1e-9).fit(x)
    z = step.transform(x.astype(np.float64))
    values, vectors = np.linalg.eigh(cov(z))
    assert (values > 0.5).sum() == 39
    inside = z if method.startswith("PCA") else z @ vectors[:, -39:]
    assert off_identity(cov(inside)) < 1e-5
    np.testing.assert_allclose(values[: len(values) - 39], 0, atol=1e-5)
    assert step.whiteness_error_ < 1e-5
    assert step.states_[()].rank == 39
    assert step.states_[()].num_below_epsilon == 51


@pytest.mark.parametrize(("n", "d"), [(300, 20), (20, 45), (20, 20), (21, 20)])
@pytest.mark.parametrize("method", METHODS)
def test_clip_without_ddof_is_the_formula_of_2021(method, n, d):
    x = draw(n + 10, d, "far from zero")
    reference = x[:n]
    z = Spherize(method=method, ddof=0).fit(reference).transform(x)
    expected = era(x, reference, method)
    if method.startswith(
        "PCA"
    ):  # eigenvectors come in another order and sign; the formula also has null ones
        assert z.shape[1] == min(n - 1, d)
        z, expected = z @ z[:n].T, expected @ expected[:n].T
    np.testing.assert_allclose(z, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    if d > n and method.startswith("ZCA"):
        assert np.abs(z[n:]).max() > 50 * np.abs(z[:n]).max()  # the gain of 1,000 in null directions


def test_add_regularization_is_a_slow_formula():
    x = draw(50, 8)
    centered = x - x.mean(0)
    values, vectors = np.linalg.eigh(centered.T @ centered / len(x))
    expected = centered @ vectors @ np.diag((values + 0.3) ** -0.5) @ vectors.T
    step = Spherize(method="ZCA", regularization="add", epsilon=0.3, ddof=0).fit(x)
    np.testing.assert_allclose(step.transform(x), expected, atol=1e-9)
    np.testing.assert_allclose(step.whiteness_error_, 0.3 / (values.min() + 0.3), atol=1e-9)
    wide = draw(10, 25)
    centered = wide - wide.mean(0)
    values, vectors = np.linalg.eigh(centered.T @ centered / len(wide))
    expected = centered @ vectors @ np.diag((np.clip(values, 0, None) + 0.3) ** -0.5) @ vectors.T
    step = Spherize(method="ZCA", regularization="add", epsilon=0.3, ddof=0).fit(wide)
    np.testing.assert_allclose(step.transform(wide), expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["plain", "far from zero"])
@pytest.mark.parametrize("method", METHODS)
def test_equal_to_pycytominer(method, kind):
    x = draw(200, 12, kind)
    theirs = Pycytominer(method=method, return_numpy=True).fit(pd.DataFrame(x[:150]))
    expected = theirs.transform(pd.DataFrame(x))
    z = Spherize(method=method).fit(x[:150]).transform(x)
    if method.startswith("PCA"):
        expected = expected * np.sign((z * expected).sum(0))
    np.testing.assert_allclose(z, expected, atol=1e-5)


@pytest.mark.parametrize("method", ["ZCA", "ZCA-cor"])
def test_equal_to_pycytominer_on_few_reference_rows(method):
    x = draw(25, 40)
    theirs = Pycytominer(method=method, return_numpy=True).fit(pd.DataFrame(x))
    z = Spherize(method=method).fit(x).transform(x)
    np.testing.assert_allclose(z, theirs.transform(pd.DataFrame(x)), atol=1e-5)


@pytest.mark.parametrize("n", [200, 15])
def test_zca_and_pca_differ_by_a_rotation(n):
    x = draw(n, 20)
    for ending in ("", "-cor"):
        zca = Spherize(method="ZCA" + ending, null_directions="drop").fit(x).transform(x)
        pca = Spherize(method="PCA" + ending).fit(x).transform(x)
        rotation = np.linalg.lstsq(pca, zca, rcond=None)[0]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(len(rotation)), atol=1e-8)
        np.testing.assert_allclose(pca @ rotation, zca, atol=1e-8)
        np.testing.assert_allclose(np.diag(cov(pca)), 1, atol=1e-8)


def matrix_of(step, d):
    """What a fitted step multiplies rows by, from its effect on unit vectors."""
    return step.transform(np.eye(d)) - step.transform(np.zeros((1, d)))


@pytest.mark.parametrize("n", [200, 15])
def test_zca_is_symmetric_and_correlates_each_feature_with_itself(n):
    x = draw(n, 20)
    w = matrix_of(Spherize(method="ZCA").fit(x), 20)
    np.testing.assert_allclose(w, w.T, atol=1e-7)
    assert (np.linalg.eigvalsh((w + w.T) / 2) > 0).all()
    z = Spherize(method="ZCA-cor").fit(x).transform(x)
    correlations = np.corrcoef(np.hstack([x, z]), rowvar=False)[:20, 20:]
    assert (np.diag(correlations) > 0).all()
    w = matrix_of(Spherize(method="ZCA-cor").fit(x), 20) * x.std(0)[:, None]
    np.testing.assert_allclose(w, w.T, atol=1e-6 * np.abs(w).max())


@pytest.mark.parametrize(("n", "d"), [(60, 20), (20, 20), (15, 20)])
def test_gram_path_is_the_direct_path(n, d):
    y = draw(n, d)
    y -= y.mean(0)
    rank = min(n - 1, d)
    values, vectors = spherize.from_covariance(y, n - 1)
    gram_values, gram_vectors = spherize.from_gram(y, n - 1)
    np.testing.assert_allclose(gram_values[:rank], values[:rank], rtol=1e-8)
    projector = vectors[:, :rank] / np.sqrt(values[:rank]) @ vectors[:, :rank].T
    gram = gram_vectors[:, :rank] / np.sqrt(gram_values[:rank]) @ gram_vectors[:, :rank].T
    np.testing.assert_allclose(gram, projector, atol=1e-8 * np.abs(projector).max())


def test_ill_conditioned_features_are_white_through_singular_vectors():
    x = draw(300, 12) @ np.diag(10.0 ** np.linspace(-3.5, 3.5, 12))
    step = Spherize(method="ZCA", epsilon=1e-16).fit(x)
    assert step.states_[()].rank == 12
    assert off_identity(cov(step.transform(x))) < 1e-5
    wide = draw(10, 30) @ np.diag(10.0 ** np.linspace(-3.5, 3.5, 30))
    z = Spherize(method="PCA", epsilon=1e-16).fit(wide).transform(wide)
    assert z.shape == (10, 9)
    assert off_identity(cov(z)) < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [60, 12])
def test_order_of_reference_rows_does_not_matter(method, n):
    x = draw(n, 20)
    shuffled = np.random.default_rng(1).permutation(x)
    z = Spherize(method=method).fit(x).transform(x)
    np.testing.assert_allclose(Spherize(method=method).fit(shuffled).transform(x), z, atol=1e-6)


def make_table(x, plates=("A",), controls=None):
    n = len(x)
    metadata = {"Metadata_Plate": np.resize(plates, n), "Metadata_control": np.arange(n) < (controls or n)}
    return Table(pl.DataFrame(metadata), x, [f"Cells_{i}" for i in range(x.shape[1])])


def test_table_uses_all_plates_and_only_controls():
    x = draw(120, 10, dtype=np.float32)
    table = make_table(x, ("A", "B"), controls=70)
    step = Spherize(reference="Metadata_control").fit(table)
    z = step.transform(table)
    np.testing.assert_array_equal(z.features, Spherize().fit(x[:70]).transform(x))
    assert z.feature_names == table.feature_names
    assert off_identity(cov(z.features[:70])) < 1e-5
    assert off_identity(cov(z.features)) > 1e-3


def test_groups_are_separate_fits():
    x = draw(120, 10, dtype=np.float32)
    table = make_table(x, ("A", "B", "B"))
    z = Spherize(by="Metadata_Plate").fit_transform(table).features
    for plate in ("A", "B"):
        rows = table.where(f"Metadata_Plate = '{plate}'")
        np.testing.assert_array_equal(z[rows], Spherize().fit_transform(x[rows]))


def test_pca_names_its_components_and_refuses_groups_of_different_rank():
    table = make_table(draw(9, 12), ("A", "B", "B"))
    z = Spherize(method="PCA-cor").fit_transform(table)
    assert z.feature_names == tuple(f"PC{i}" for i in range(1, 9))
    variances = Spherize(method="PCA").fit(table).states_[()].eigenvalues
    assert (np.diff(variances) < 0).all()
    with pytest.raises(ValueError, match=r"different ranks \(2, 5\).*use a ZCA method, or by=None"):
        Spherize(method="PCA", by="Metadata_Plate").fit(table)


def test_null_directions_are_dropped_on_request():
    x = draw(30, 40)
    kept, dropped = (Spherize(method="ZCA", null_directions=how).fit(x[:10]) for how in ("keep", "drop"))
    np.testing.assert_allclose(kept.transform(x[:10]), dropped.transform(x[:10]), atol=1e-8)
    basis = np.linalg.svd(x[:10] - x[:10].mean(0))[2][:9]
    np.testing.assert_allclose(kept.transform(x) @ basis.T, dropped.transform(x) @ basis.T, atol=1e-6)
    outside = np.eye(40) - basis.T @ basis
    np.testing.assert_allclose(dropped.transform(x) @ outside, 0, atol=1e-8)
    np.testing.assert_allclose(kept.transform(x) @ outside, 1000 * (x - x[:10].mean(0)) @ outside, atol=1e-6)


def test_rank_is_not_rounding(caplog):
    """A feature that is the sum of two others has no direction of its own, whatever float32 makes of it."""
    x = draw(200, 6, "far from zero", np.float32)
    x = np.column_stack([x, (x[:, 0] + x[:, 1])]).astype(np.float32)
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        step = Spherize().fit(x)
    assert step.states_[()].rank == 6
    assert step.states_[()].num_below_epsilon == 1
    message = caplog.text
    assert "200 rows, 7 features, rank 6; 1 directions have a variance below epsilon=1e-06" in message
    assert "multiplied by 1000" in message


def test_whiteness_that_epsilon_prevents_is_measured_and_reported(caplog):
    x = draw(200, 3) @ np.diag([1, 1, 1e-4])
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        step = Spherize(method="PCA").fit(x)
    smallest = step.states_[()].eigenvalues[-1]
    assert smallest < 1e-6
    assert step.states_[()].num_below_epsilon == 1
    np.testing.assert_allclose(step.whiteness_error_, 1 - smallest / 1e-6, rtol=1e-6)
    assert "max |cov - I| is" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        Spherize(method="PCA-cor").fit(x)
    assert not caplog.text


def test_two_reference_rows_span_one_direction():
    x = draw(2, 5)
    step = Spherize(method="PCA").fit(x)
    np.testing.assert_allclose(np.abs(step.transform(x)), [[np.sqrt(0.5)]] * 2, rtol=1e-9)
    z = Spherize(method="ZCA").fit(x).transform(x)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), np.sqrt(0.5), rtol=1e-6)


def test_what_cannot_be_sphered_is_refused():
    x = draw(20, 4)
    with pytest.raises(ValueError, match="1 reference rows have no covariance"):
        Spherize().fit(x[:1])
    with pytest.raises(ValueError, match="all alike"):
        Spherize(method="ZCA").fit(np.ones((5, 3)))
    for bad in (np.nan, np.inf):
        spoiled = x.copy()
        spoiled[3, 2] = bad
        with pytest.raises(ValueError, match="1 values are missing or infinite, in 1 features: 2; leave out"):
            Spherize().fit(spoiled)
        with pytest.raises(ValueError, match="1 values are missing or infinite, in 1 features: 2"):
            Spherize().fit(x).transform(spoiled)
    constant = x.astype(np.float32)
    constant[:, 1] = 0.1
    with pytest.raises(ValueError, match=r"1 features are constant.*: 1; drop them"):
        Spherize().fit(constant)
    assert np.isfinite(Spherize(method="ZCA").fit(constant).transform(constant)).all()
    table = make_table(x, ("A", "B"))
    spoiled_table = table.with_features(np.where(np.arange(20)[:, None] == 1, np.nan, x))
    with pytest.raises(ValueError, match=r"Metadata_Plate=B: 4 values are missing.*Cells_0, Cells_1"):
        Spherize(by="Metadata_Plate").fit(spoiled_table)
    with pytest.raises(ValueError, match="all rows: none of its 20 rows matches"):
        Spherize(reference="Metadata_Plate = 'C'").fit(table)


def test_wrong_use_is_refused():
    x = draw(20, 4)
    for options, message in (
        ({"method": "zca"}, "method='zca': choose one of"),
        ({"regularization": "no"}, "regularization='no': choose one of"),
        ({"null_directions": "no"}, "null_directions='no': choose one of"),
        ({"epsilon": 0.0}, "epsilon=0.0: must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            Spherize(**options)
    with pytest.raises(ValueError, match="not fitted yet"):
        Spherize().transform(x)
    with pytest.raises(ValueError, match="fitted on 4 features, these are 3"):
        Spherize().fit(x).transform(x[:, :3])
    with pytest.raises(ValueError, match="fitted on other features"):
        Spherize().fit(make_table(x)).transform(make_table(x[:, :3]))


def test_normalize_offers_it_and_blocks_of_rows_are_seamless(monkeypatch):
    x = draw(50, 6)
    z = normalize.Spherize(method="ZCA", epsilon=1e-6).fit(x).transform(x)
    monkeypatch.setattr(spherize, "BLOCK", 7)
    np.testing.assert_allclose(Spherize(method="ZCA").fit(x).transform(x), z, atol=1e-12)
