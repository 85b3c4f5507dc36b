"""Enrichment, exact quantiles and replicate reproducibility, against NumPy and SciPy over all pairs."""

import fractions
import math

import jax
import numpy as np
import pytest
import scipy.stats
import slow_retrieval as slow
from test_ranking_metrics import GROUPS, PLATES, continuous, tied

from coos.metrics import retrieval
from coos.metrics.retrieval import contingency, inputs, pairs, ranking

PERCENTILES = (0.5, 0.9, 0.965, 0.995)

# Bornholdt 2021, tables 4.2 to 4.5: matching pairs above and all pairs above the 99.5th percentile, N profiles
PUBLISHED = {
    "CellProfiler, spherized": (259, 3263, 1143, 11.748352),
    "CellProfiler, mad_robustize + outlier removal": (292, 3263, 1143, 13.487128),
    "EfficientNet-B0 pretrained, spherized": (328, 3269, 1144, 15.450705),
    "ResNet50V2 pretrained, spherized": (340, 3269, 1144, 16.123392),
    "EfficientNet-B0, no normalization": (48, 3269, 1144, 1.94671),
    "EfficientNet-B0, robustize on DMSO": (136, 3263, 1143, 5.775086),
    "EfficientNet-B0, standardize on DMSO": (148, 3269, 1144, 6.323592),
    "EfficientNet-B0, mad_robustize on DMSO": (131, 3263, 1143, 5.548128),
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_tables_give_their_odds_ratio(name):
    matching_above, above, count, published = PUBLISHED[name]
    total, matching = count * (count - 1) // 2, 4990
    table = [
        [matching_above, above - matching_above],
        [matching - matching_above, total - above - (matching - matching_above)],
    ]
    digits = len(str(published).split(".")[1])
    assert round(contingency.odds_ratio(table), digits) == published
    log10_p = scipy.stats.hypergeom.logsf(matching_above - 1, total, matching, above) / np.log(10)
    assert contingency.from_tables([table]).log10_p_value[0] == pytest.approx(log10_p, abs=1e-6)


@pytest.mark.parametrize("similarity", ["pearson", "spearman"])
@pytest.mark.parametrize("excluded", [(), (GROUPS, PLATES)], ids=["none", "two"])
def test_tables_and_thresholds_equal_a_loop_over_all_pairs(similarity, excluded):
    features, labels = continuous(width=30)
    exclude = tuple(group[: len(labels)] for group in excluded)
    found = retrieval.enrichment(
        features, labels, percentile=PERCENTILES, similarity=similarity, exclude=exclude or None
    )
    values, match = slow.pairs(features, labels, similarity=similarity, exclude=exclude)
    for position, percentile in enumerate(PERCENTILES):
        threshold = np.quantile(values, percentile)
        above = values > threshold + (1e-9 if similarity == "spearman" else 0)
        expected = [
            [(above & match).sum(), (above & ~match).sum()],
            [(~above & match).sum(), (~above & ~match).sum()],
        ]
        np.testing.assert_array_equal(found.table[position], expected)
        assert found.threshold[position] == pytest.approx(threshold, abs=1e-6)
        odds, p = scipy.stats.fisher_exact(expected, alternative="greater")
        assert found.odds_ratio[position] == pytest.approx(odds, rel=1e-6, nan_ok=True)
        assert found.p_value[position] == pytest.approx(p, rel=1e-6)
        corrected = np.array(expected) + 0.5
        ratio = corrected[0, 0] * corrected[1, 1] / (corrected[0, 1] * corrected[1, 0])
        assert found.corrected_odds_ratio[position] == pytest.approx(ratio, rel=1e-6)


def test_ties_at_the_threshold_are_not_above():
    features, labels = tied()
    values, match = slow.pairs(features, labels)
    values = np.round(values, 12)
    found = retrieval.enrichment(features, labels, percentile=PERCENTILES)
    for position, percentile in enumerate(PERCENTILES):
        threshold = np.quantile(values, percentile)
        assert (values == threshold).sum() > 20
        assert found.threshold[position] == threshold
        assert found.table[position, 0].sum() == (values > threshold).sum()
        assert found.table[position, 0, 0] == (match & (values > threshold)).sum()


def test_one_percentile_gives_scalars_and_several_give_arrays():
    features, labels = continuous()
    one, several = (
        retrieval.enrichment(features, labels),
        retrieval.enrichment(features, labels, percentile=[0.995]),
    )
    assert np.ndim(one.odds_ratio) == np.ndim(one.threshold) == 0
    assert one.table.shape == (2, 2)
    assert several.odds_ratio.shape == (1,)
    np.testing.assert_array_equal(one.table, several.table[0])


def test_quantiles_of_values_that_lie_anywhere():
    generator = np.random.default_rng(0)
    # nearly parallel, nearly opposite and unrelated rows: similarities pile up at 1, at -1 and around 0
    base = generator.normal(size=(1, 64))
    features = np.concatenate(
        [base + 1e-3 * generator.normal(size=(40, 64)), -base + 1e-3 * generator.normal(size=(40, 64))]
        + [generator.normal(size=(60, 64)), 1e-20 * generator.normal(size=(20, 64))]
    )
    compared = inputs.comparable_rows(features, similarity="cosine")
    everything = np.asarray(inputs.similarities(compared, np.arange(160)), np.float64)
    values = everything[np.triu_indices(160, 1)]  # what float32 makes of them: quantiles of these are exact
    exact, _ = slow.pairs(features, np.zeros(160, int), similarity="cosine")
    np.testing.assert_allclose(values, exact, atol=1e-6)
    for percentile in (1e-6, 0.001, 0.2, 0.4, 0.5, 0.77, 0.999, 1 - 1e-6):
        found = retrieval.enrichment(features, np.arange(160) % 3, percentile=percentile, similarity="cosine")
        assert found.threshold == np.quantile(values, percentile)
        assert found.table[0].sum() == (values > np.quantile(values, percentile)).sum()


def test_tiles_and_devices_do_not_change_a_count(monkeypatch):
    features, labels = continuous()
    whole = retrieval.enrichment(features, labels, percentile=PERCENTILES)
    monkeypatch.setitem(pairs.TILE, "cpu", 16)
    monkeypatch.setitem(inputs.ELEMENTS, "cpu", 90 * 8)
    side, places = pairs._tiles(len(labels))
    assert (side, len(places)) == (16, 21)
    for devices in (jax.local_devices(), jax.local_devices()[:1]):
        monkeypatch.setattr(jax, "local_devices", lambda devices=devices: devices)
        np.testing.assert_array_equal(
            retrieval.enrichment(features, labels, percentile=PERCENTILES).table, whole.table
        )


def test_memory_does_not_grow_with_the_square():
    compiled = pairs._tile.lower(
        jax.ShapeDtypeStruct((2 * pairs.BINS,), np.int32),
        pairs.Rows(
            jax.ShapeDtypeStruct((50_000, 64), np.float32),
            jax.ShapeDtypeStruct((50_000,), np.float32),
            jax.ShapeDtypeStruct((0, 0), np.float32),
        ),
        jax.ShapeDtypeStruct((50_000,), np.int32),
        jax.ShapeDtypeStruct((0, 50_000), np.int32),
        jax.ShapeDtypeStruct((1,), np.int32),
        jax.ShapeDtypeStruct((2,), np.int32),
        add=pairs._coarse,
        size=pairs.BINS,
        side=1024,
    ).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100e6  # 50,000² similarities are 10 GB
    assert ranking.block_size(50_000) * 50_000 <= inputs.ELEMENTS["cpu"]


def test_multi_hot_and_unlabelled_rows():
    features, labels = continuous()
    hot = np.random.default_rng(3).random((len(labels), 6)) < 0.15
    found = retrieval.enrichment(features, hot, percentile=0.9)
    np.testing.assert_array_equal(found.table, slow.table(features, hot, 0.9))
    one_hot = labels[:, None] == np.arange(20)
    np.testing.assert_array_equal(
        retrieval.enrichment(features, one_hot, percentile=0.9).table, slow.table(features, labels, 0.9)
    )


def exact_p(table):
    """One-sided Fisher p as a fraction of whole numbers."""
    (a, b), (c, d) = table
    n, k, total = a + b, a + c, a + b + c + d
    upper = sum(math.comb(k, x) * math.comb(total - k, n - x) for x in range(a, min(n, k) + 1))
    return fractions.Fraction(upper, math.comb(total, n))


@pytest.mark.parametrize(
    "table",
    [((3, 1), (1, 3)), ((0, 5), (4, 1)), ((5, 0), (0, 5)), ((1, 0), (0, 0)), ((40, 3), (7, 950)), ((2, 90), (60, 9)),
     ((300, 700), (50, 9000)), ((0, 0), (3, 4))],
)  # fmt: skip
def test_log_fisher_equals_whole_number_arithmetic(table):
    p = exact_p(table)
    expected = math.log(p.numerator) - math.log(p.denominator)
    assert contingency.log_fisher(table) == pytest.approx(expected, abs=1e-9)


def test_log_fisher_where_the_sum_rises_first_and_in_chunks(monkeypatch):
    for a in (1150, 1180, 1210, 1300):  # the mode is at 1188
        table = ((a, 30_900 - a), (2000 - a, 19_100 + a))
        expected = scipy.stats.hypergeom.logsf(a - 1, 52_000, 2000, 30_900)
        for chunk in (1 << 20, 7):
            monkeypatch.setattr(contingency, "CHUNK", chunk)
            assert contingency.log_fisher(table) == pytest.approx(expected, rel=1e-6)


def test_odds_ratio_of_empty_cells_and_margins():
    assert contingency.odds_ratio([[3, 0], [2, 4]]) == np.inf
    assert contingency.odds_ratio([[0, 3], [2, 4]]) == 0
    assert np.isnan(contingency.odds_ratio([[0, 0], [2, 4]]))
    assert np.isfinite(contingency.from_tables([[[3, 0], [2, 4]]]).corrected_odds_ratio).all()


def test_batch_enrichment_sees_a_batch_effect_among_controls_alone():
    generator = np.random.default_rng(0)
    batches, controls = np.repeat(np.arange(4), 30), np.arange(120) % 3 == 0
    features = generator.normal(size=(120, 40))
    none = retrieval.batch_enrichment(features, batches, controls=controls, percentile=0.9)
    shifted = features + controls[:, None] * generator.normal(size=(4, 40))[batches]
    strong = retrieval.batch_enrichment(shifted, batches, controls=controls, percentile=0.9)
    assert none.odds_ratio < 2
    assert strong.odds_ratio > 10
    np.testing.assert_array_equal(strong.table, slow.table(shifted[controls], batches[controls], 0.9))
    with pytest.raises(ValueError, match="no row is a control"):
        retrieval.batch_enrichment(features, batches, controls=np.zeros(120, bool))
    with pytest.raises(ValueError, match="bool mask"):
        retrieval.batch_enrichment(features, batches, controls=np.ones(120))


@pytest.mark.parametrize("make", [continuous, tied])
def test_replicate_reproducibility_equals_a_loop(make):
    features, labels = make()
    values, match = slow.pairs(features, labels)
    values = np.round(values, 12)
    for quantile in (0.5, 0.95):
        expected = (values[match] > np.quantile(values[~match], quantile)).mean()
        found = retrieval.replicate_reproducibility(features, labels, quantile=quantile)
        assert found == pytest.approx(expected, abs=1e-6)
    assert np.isnan(retrieval.replicate_reproducibility(features, np.arange(len(labels))))


@pytest.mark.parametrize("percentile", [0, 1, 99.5, [0.5, 2]])
def test_percentiles_are_fractions(percentile):
    with pytest.raises(ValueError, match=r"0\.995, not 99\.5"):
        retrieval.enrichment(np.eye(3) + np.arange(3), [0, 0, 1], percentile=percentile)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="no pairs"):
        retrieval.enrichment(np.array([[1.0, 2.0, 0.0]]), [0])
    with pytest.raises(ValueError, match="no pairs that do not match"):
        retrieval.replicate_reproducibility(np.eye(3) + np.arange(3), [0, 0, 0])
