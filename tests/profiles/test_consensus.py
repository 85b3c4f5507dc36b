"""Consensus profiles against pycytominer, SciPy's Spearman correlation in a slow loop, and hand-made cases."""

import numpy as np
import pandas as pd
import polars as pl
import pycytominer
import pytest
from pycytominer.cyto_utils import modz as pycytominer_modz
from scipy import stats

from coos.profiles import consensus
from coos.profiles.consensus import Consensus, modz
from coos.profiles.table import Table


def draw(n=200, d=50, groups=40, seed=0, dtype=np.float32):
    """Rows that resemble others of their group more or less; some with tied features, groups of 1...12 rows."""
    generator = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(groups), generator.integers(0, groups // 2, n - groups)])
    x = generator.normal(size=(groups, d))[codes] * generator.uniform(-0.5, 2, (n, 1))
    x = (x + generator.normal(size=(n, d))).astype(dtype)
    x[::5] = np.round(x[::5])
    return x, generator.permutation(codes)


def make_table(x, codes, **columns):
    metadata = pl.DataFrame({"Metadata_compound": [f"c{code}" for code in codes], **columns})
    return Table(metadata, x, [f"Cells_{i}" for i in range(x.shape[1])])


def slow_modz(x, min_weight, decimals):
    if len(x) == 1:
        return x[0]
    k = len(x)
    r = np.array([[stats.spearmanr(x[i], x[j])[0] for j in range(k)] for i in range(k)]).clip(0)
    weights = np.array([np.delete(r[i], i).mean() for i in range(k)]).clip(min_weight)
    return np.round(weights / weights.sum(), decimals) @ x.astype(np.float64)


@pytest.mark.parametrize(("min_weight", "decimals"), [(0.01, 4), (0.3, 4), (0.0, 2)])
def test_modz_equals_slow_loop(min_weight, decimals):
    x, codes = draw(90, groups=20, dtype=np.float64)
    found = modz(x, codes, min_weight=min_weight, decimals=decimals)
    expected = [slow_modz(x[codes == group], min_weight, decimals) for group in range(20)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found.dtype == np.float64


@pytest.mark.filterwarnings("ignore:DataFrameGroupBy.apply:FutureWarning")
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_modz_equals_pycytominer_with_constant_profiles():
    x, codes = draw()
    x[3] = x[17] = 1.5
    x[codes == 5] = 2.0
    assert (codes == 5).sum() > 1
    frame = pd.DataFrame(x.astype(np.float64), columns=[f"Cells_{i}" for i in range(x.shape[1])])
    expected = pycytominer_modz(frame.assign(Metadata_p=codes), "Metadata_p", list(frame.columns))
    expected = expected.sort_values("Metadata_p")[list(frame.columns)]
    np.testing.assert_allclose(modz(x.astype(np.float64), codes), expected, atol=1e-12)
    single = modz(x, codes)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:DataFrameGroupBy.apply:FutureWarning")
@pytest.mark.parametrize("method", consensus.METHODS)
def test_step_equals_pycytominer(method):
    x, codes = draw()
    table = make_table(x, codes)
    frame = pd.DataFrame(x.astype(np.float64), columns=table.feature_names)
    frame = frame.assign(Metadata_compound=table.metadata["Metadata_compound"].to_numpy())
    expected = pycytominer.consensus(
        frame, ["Metadata_compound"], operation=method, features=list(table.feature_names)
    ).set_index("Metadata_compound")
    found = Consensus(by="Metadata_compound", method=method).transform(table)
    order = list(dict.fromkeys(table.metadata["Metadata_compound"]))
    assert found.metadata["Metadata_compound"].to_list() == order
    counts = [(codes == int(name[1:])).sum() for name in order]
    assert found.metadata["Metadata_replicates"].to_list() == counts
    np.testing.assert_allclose(
        found.features, expected.loc[order, list(table.feature_names)], rtol=1e-5, atol=1e-5
    )
    assert found.feature_names == table.feature_names


@pytest.mark.parametrize("method", consensus.METHODS)
def test_constant_metadata_stays(method):
    x, codes = draw(30, groups=10)
    table = make_table(
        x, codes, Metadata_moa=[f"m{code // 2}" for code in codes], Metadata_Well=[str(i) for i in range(30)]
    )
    found = Consensus(by=["Metadata_compound"], method=method).fit_transform(table)
    assert set(found.metadata.columns) == {"Metadata_compound", "Metadata_moa", "Metadata_replicates"}
    for name, moa in zip(found.metadata["Metadata_compound"], found.metadata["Metadata_moa"], strict=True):
        assert moa == f"m{int(name[1:]) // 2}"


@pytest.mark.parametrize("method", consensus.METHODS)
def test_unknown_keys_are_refused_or_a_group(method):
    x, _ = draw(6, groups=3)
    keys = ["a", None, "b", None, "a", "b"]
    table = Table(pl.DataFrame({"Metadata_compound": keys}), x, [str(i) for i in range(50)])
    with pytest.raises(ValueError, match="Metadata_compound"):
        Consensus(by="Metadata_compound", method=method).transform(table)
    found = Consensus(by="Metadata_compound", method=method, null="group").transform(table)
    assert found.metadata.columns == ["Metadata_compound", "Metadata_replicates"]
    assert found.metadata["Metadata_compound"].to_list() == ["a", None, "b"]
    filled = table.with_metadata(table.metadata.fill_null("?"))
    expected = Consensus(by="Metadata_compound", method=method, null="group").transform(filled)
    np.testing.assert_array_equal(found.features, expected.features)
    known = Consensus(by="Metadata_compound", method=method).transform(filled)
    np.testing.assert_array_equal(found.features, known.features)


def test_weights_follow_agreement():
    pattern = np.sin(np.arange(40.0))
    x = np.stack([pattern, pattern, -pattern, np.cos(np.arange(40.0) * 7)])
    agreeing = modz(x[:3], np.zeros(3, int), decimals=8)[0]
    share = 0.01 / 1.01  # 1/2, 1/2 and the minimal weight
    np.testing.assert_allclose(agreeing, pattern * (1 - 2 * share), atol=1e-7)
    np.testing.assert_allclose(modz(x[[0, 2]], np.zeros(2, int))[0], 0, atol=1e-12)
    np.testing.assert_allclose(modz(x[[0, 2]], np.zeros(2, int), min_weight=0.0)[0], 0, atol=1e-12)
    three = modz(x[[0, 0, 0]], np.zeros(3, int))[0]
    np.testing.assert_allclose(three, 0.9999 * pattern, atol=1e-12)  # weights are rounded to 0.3333


def test_one_replicate_is_itself_and_order_does_not_matter():
    x, codes = draw()
    found = modz(x, codes)
    for group in np.flatnonzero(np.bincount(codes) == 1):
        np.testing.assert_array_equal(found[group], x[codes == group][0])
    order = np.random.default_rng(2).permutation(len(x))
    np.testing.assert_allclose(modz(x[order], codes[order]), found, rtol=1e-6, atol=1e-6)


def test_small_batches_change_nothing(monkeypatch):
    x, codes = draw(dtype=np.float64)
    found = modz(x, codes)
    monkeypatch.setattr(consensus, "BLOCK", 1)
    np.testing.assert_allclose(modz(x, codes), found, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ranks_are_scipys(dtype):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 101)).astype(dtype)
    x[::3] = np.round(x[::3])
    x[1, :3], x[2] = [0.0, -0.0, 0.0], 7
    ranks = consensus.centered_ranks(x)
    np.testing.assert_array_equal(ranks / 2 + 51, stats.rankdata(x, axis=1))


def test_what_cannot_be_merged_is_refused():
    x, codes = draw(10, groups=4)
    for bad in (np.nan, np.inf):
        spoiled = x.copy()
        spoiled[2, 3] = bad
        with pytest.raises(ValueError, match="1 values are missing or infinite, ranks need all; drop"):
            modz(spoiled, codes)
    with pytest.raises(ValueError, match="codes must be 10 integers"):
        modz(x, codes[:9])
    with pytest.raises(ValueError, match="codes must be 10 integers"):
        modz(x, codes - 1)
    with pytest.raises(ValueError, match="codes must be 10 integers"):
        modz(x, codes.astype(float))
    with pytest.raises(ValueError, match="1 groups have no rows"):
        modz(x, codes + 1)
    with pytest.raises(ValueError, match="method='mode': choose one of"):
        Consensus(method="mode")
    with pytest.raises(ValueError, match="null='drop': choose"):
        Consensus(null="drop")
    for method in consensus.METHODS:
        with pytest.raises(ValueError, match="no column Metadata_x"):
            Consensus(by="Metadata_x", method=method).transform(make_table(x, codes))
    assert modz(np.zeros((0, 3), np.float32), np.zeros(0, int)).shape == (0, 3)


@pytest.mark.parametrize("method", consensus.METHODS)
def test_partly_known_metadata_stays_and_averaged_columns_are_not_reported(method, caplog):
    caplog.set_level("INFO", logger="absl")
    x, codes = draw(12, groups=3)
    first = [int(i == list(codes).index(code)) for i, code in enumerate(codes)]
    table = make_table(
        x,
        codes,
        Metadata_moa=[f"m{code}" if known else None for code, known in zip(codes, first, strict=True)],
        Metadata_cell_count=np.arange(12),
        Metadata_site=np.arange(12),
    )
    found = Consensus(by="Metadata_compound", method=method).transform(table).metadata
    assert found["Metadata_moa"].to_list() == [f"m{name[1:]}" for name in found["Metadata_compound"]]
    means = [np.arange(12)[codes == int(name[1:])].mean() for name in found["Metadata_compound"]]
    assert found["Metadata_cell_count"].to_list() == means
    assert "vary within Metadata_compound: Metadata_site\n" in caplog.text
