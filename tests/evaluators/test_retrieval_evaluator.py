"""Judging tables: the same scores as the metrics one by one, the thesis' treatment of controls, the baseline."""

import numpy as np
import polars as pl
import pytest

from coos.evaluators import retrieval as evaluator
from coos.evaluators import wells
from coos.metrics import retrieval
from coos.profiles.table import Table


def make_table(count=60, width=20, *, labels=None, seed=0, **columns):
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 12, count)
    names = [f"mechanism {code}" if code > 1 else None for code in codes] if labels is None else labels
    features = generator.normal(size=(count, width)) + generator.normal(size=(12, width))[codes] + 5
    metadata = pl.DataFrame({"Metadata_moa": names, **columns}, schema_overrides={"Metadata_moa": pl.String})
    return Table(metadata, features, [f"f{i}" for i in range(width)])


def labelled(table):
    keep = table.where("Metadata_moa IS NOT NULL")
    return table.features[keep], retrieval.encode(table.metadata["Metadata_moa"].to_list())[keep]


def test_values_are_those_of_the_metrics():
    table = make_table()
    features, labels = labelled(table)
    judgement = evaluator.judge(table, evaluator.Protocol(ks=(1, 5), percentiles=(0.9, 0.99)), name="trial")
    values = evaluator.values(judgement)
    assert judgement.num_rows == len(labels) < len(table)
    at_k = retrieval.precision_at_k(features, labels, (1, 5)).mean(0)
    assert values["precision_at_1"][0] == pytest.approx(at_k[0], abs=1e-6)
    assert values["precision_at_1"][0] == pytest.approx(
        retrieval.nearest_neighbor_accuracy(features, labels), abs=1e-6
    )
    assert values["precision_at_5"][0] == pytest.approx(at_k[1], abs=1e-6)
    assert values["recall_at_5"][0] == pytest.approx(
        retrieval.recall_at_k(features, labels, 5).mean(), abs=1e-6
    )
    assert values["precision_at_r"][0] == pytest.approx(
        retrieval.precision_at_r(features, labels).mean(), abs=1e-6
    )
    average = retrieval.average_precision(features, labels)
    assert values["average_precision"] == (pytest.approx(average.mean(), abs=1e-6), len(labels))
    enriched = retrieval.enrichment(features, labels, percentile=(0.9, 0.99))
    np.testing.assert_array_equal(judgement.enrichment.table, enriched.table)
    assert values["odds_ratio_at_0.99"][0] == enriched.odds_ratio[1]
    hits = retrieval.hit_at_k(features, labels)
    assert values["hit_score"] == (pytest.approx(hits.score, abs=1e-6), len(hits.ranks))
    groups = retrieval.mean_average_precision(features, labels)
    np.testing.assert_allclose(judgement.mean_average_precision.p_value, groups.p_value)
    assert judgement.group_names == sorted({f"mechanism {code}" for code in range(2, 12)})


def test_unlabelled_rows_are_dropped_kept_or_kept_in_pairs():
    table = make_table()
    count, known = len(table), int(table.where("Metadata_moa IS NOT NULL").sum())
    found = {
        kind: evaluator.judge(table, evaluator.Protocol(unlabelled=kind), name=kind)
        for kind in evaluator.UNLABELLED
    }
    pairs = {kind: int(judgement.enrichment.table[0].sum()) for kind, judgement in found.items()}
    assert pairs == {
        "drop": known * (known - 1) // 2,
        "enrichment": count * (count - 1) // 2,
        "keep": count * (count - 1) // 2,
    }
    neighbors = {kind: np.nanmax(judgement.scores.num_neighbors) for kind, judgement in found.items()}
    assert neighbors == {"drop": known - 1, "enrichment": known - 1, "keep": count - 1}


def test_an_unlabelled_row_without_similarity_is_no_pair_but_a_labelled_one_is_an_error():
    table = make_table()
    features = table.features.copy()
    unlabelled = np.flatnonzero(~table.where("Metadata_moa IS NOT NULL"))
    features[unlabelled[0]] = 0  # what robust normalization makes of the consensus of all controls
    protocol = evaluator.Protocol(unlabelled="enrichment")
    judgement = evaluator.judge(table.with_features(features), protocol, name="zero")
    assert judgement.enrichment.table[0].sum() == 59 * 58 // 2
    features[np.flatnonzero(table.where("Metadata_moa IS NOT NULL"))[0]] = 0
    with pytest.raises(ValueError, match="zero: 1 rows have features that are all equal"):
        evaluator.judge(table.with_features(features), protocol, name="zero")


def test_a_missing_value_is_named_by_its_row_in_the_table():
    table = make_table()
    features = table.features.copy()
    row = int(np.flatnonzero(table.where("Metadata_moa IS NOT NULL"))[-1])
    features[row, 3] = np.nan
    with pytest.raises(
        ValueError, match=f"trial: 1 labelled rows have missing .* first row {row} .*, feature f3"
    ):
        evaluator.judge(table.with_features(features), evaluator.Protocol(), name="trial")


def test_numbers_can_be_labels():
    table = make_table(labels=None, Metadata_class=np.arange(60) % 7)
    whole = evaluator.judge(table, evaluator.Protocol(label="Metadata_class"), name="numbers")
    parts = evaluator.judge(table, evaluator.Protocol(label="Metadata_class", separator="|"), name="numbers")
    assert evaluator.values(whole) == evaluator.values(parts)


def test_exclusions_and_shared_parts_of_labels():
    table = make_table(Metadata_compound=(np.arange(60) % 25).astype(str))
    features, labels = labelled(table)
    compound = retrieval.encode(table.metadata["Metadata_compound"].to_list())[
        table.where("Metadata_moa IS NOT NULL")
    ]
    judgement = evaluator.judge(table, evaluator.Protocol(exclude=("Metadata_compound",)), name="nsc")
    expected = retrieval.nearest_neighbor_accuracy(features, labels, exclude=compound)
    assert evaluator.values(judgement)["precision_at_1"][0] == pytest.approx(expected, abs=1e-6)
    both = [None if name is None else f"{name}|common" for name in table.metadata["Metadata_moa"]]
    shared = make_table(labels=both)
    whole = evaluator.judge(shared, evaluator.Protocol(), name="whole")
    parts = evaluator.judge(shared, evaluator.Protocol(separator="|"), name="parts")
    np.testing.assert_allclose(
        evaluator.values(whole)["average_precision"][0],
        evaluator.values(evaluator.judge(table, evaluator.Protocol(), name="x"))["average_precision"][0],
    )
    assert parts.group_names[0] == "common"
    assert evaluator.values(parts)["average_precision"][0] == pytest.approx(1)


def test_the_cell_count_baseline_ranks_by_the_difference_of_log_counts():
    counts = np.array([5, 1000, 40, 900, 8, 41, 0, 300])
    labels = ["a", "b", "c", "b", "a", "c", None, "a"]
    table = make_table(8, labels=labels, Metadata_cell_count=counts)
    baseline = evaluator.cell_count_table(table, "Metadata_cell_count")
    unit = baseline.features / np.linalg.norm(baseline.features, axis=1, keepdims=True)
    similarity = unit @ unit.T
    x = np.log1p(counts)
    difference = np.abs(x[:, None] - x)
    order = np.argsort(difference[np.triu_indices(8, 1)])
    assert (np.diff(similarity[np.triu_indices(8, 1)][order]) <= 1e-6).all()
    judgement = evaluator.judge_cell_counts(table, evaluator.Protocol(), "Metadata_cell_count")
    # each b and c finds its partner, 5 and 8 find each other, 300 finds none of its kind
    assert evaluator.values(judgement)["precision_at_1"][0] == pytest.approx(6 / 7)
    assert judgement.name == "cell count only"
    with pytest.raises(ValueError, match="all cell counts are equal"):
        evaluator.cell_count_table(
            make_table(3, labels=["a"] * 3, Metadata_cell_count=[4, 4, 4]), "Metadata_cell_count"
        )
    with pytest.raises(ValueError, match="negative"):
        evaluator.cell_count_table(
            make_table(2, labels=["a"] * 2, Metadata_cell_count=[4, -4]), "Metadata_cell_count"
        )


def test_close_cell_counts_are_told_apart():
    counts = np.random.default_rng(0).permutation(np.arange(1000, 2000))
    table = make_table(1000, 5, labels=(counts // 2).astype(str), Metadata_cell_count=counts)
    judgement = evaluator.judge_cell_counts(
        table, evaluator.Protocol(percentiles=(0.999,)), "Metadata_cell_count"
    )
    difference = np.abs(np.log1p(counts)[:, None] - np.log1p(counts))[np.triu_indices(1000, 1)]
    match = (counts[:, None] // 2 == counts // 2)[np.triu_indices(1000, 1)]
    above = -difference > np.quantile(-difference, 0.999)
    expected = [
        [(above & match).sum(), (above & ~match).sum()],
        [(~above & match).sum(), (~above & ~match).sum()],
    ]
    assert np.abs(judgement.enrichment.table[0] - expected).max() <= 1
    # the next larger count is a little nearer than the next smaller: even ones find their partner, odd ones do not
    assert evaluator.values(judgement)["precision_at_1"][0] == pytest.approx(0.5, abs=0.03)


def test_rows_without_a_cell_count_are_no_part_of_the_baseline():
    table = make_table(6, labels=list("aabbcc"), Metadata_cell_count=[1, 2, None, 50, 70, 80])
    assert len(evaluator.cell_count_table(table, "Metadata_cell_count")) == 5


def test_batch_effect_is_about_controls_alone():
    control = np.arange(60) % 2 == 0
    batch = (np.arange(60) // 20).astype(str)
    table = make_table(
        labels=["x"] * 60, Metadata_batch=batch, Metadata_type=np.where(control, "DMSO", "trt")
    )
    shift = 9 * np.random.default_rng(1).normal(size=(3, 20))
    features = table.features + shift[np.arange(60) // 20] * control[:, None]
    shifted = table.with_features(features)
    found = wells.batch_effect(
        shifted, controls="Metadata_type = 'DMSO'", batch="Metadata_batch", percentile=0.9
    )
    expected = retrieval.enrichment(
        shifted.features[control], retrieval.encode(batch[control]), percentile=0.9
    )
    np.testing.assert_array_equal(found.table, expected.table)
    with pytest.raises(ValueError, match="no row matches"):
        wells.batch_effect(table, controls="Metadata_type = 'nothing'", batch="Metadata_batch")
    with pytest.raises(ValueError, match="all of one Metadata_type"):
        wells.batch_effect(table, controls="Metadata_type = 'DMSO'", batch="Metadata_type")


def test_feature_space_is_that_of_scikit_learn():
    from sklearn.decomposition import PCA

    table = make_table(Metadata_batch=(np.arange(60) // 20).astype(str))
    found = wells.feature_space(table, batch="Metadata_batch", controls="Metadata_batch = '1'")
    pca = PCA(2).fit(table.features.astype(float))
    np.testing.assert_allclose(found.explained, pca.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(
        np.abs(found.points), np.abs(pca.transform(table.features.astype(float))), atol=1e-5
    )
    assert found.is_control.sum() == 20
    assert found.batches[0] == "0"
    broken = table.features.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="1 missing values"):
        wells.feature_space(table.with_features(broken))


BAD = {
    "no such column": ({"label": "Metadata_nope"}, "trial: no column Metadata_nope; metadata columns are"),
    "no labels": ({"label": "Metadata_empty"}, "no row has a Metadata_empty"),
    "all different": ({"label": "Metadata_row"}, "no two rows share a Metadata_row"),
    "all excluded": (
        {"exclude": ("Metadata_moa",)},
        "no two rows share a Metadata_moa outside of exclusions",
    ),
    "a similarity": ({"similarity": "euclidean"}, "choose one of"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_cannot_be_judged_says_why(name):
    options, message = BAD[name]
    table = make_table(Metadata_row=np.arange(60).astype(str), Metadata_empty=[None] * 60)
    with pytest.raises(ValueError, match=message):
        evaluator.judge(table, evaluator.Protocol(**options), name="trial")


def test_an_unknown_treatment_of_unlabelled_rows_is_refused():
    with pytest.raises(ValueError, match="unlabelled='some'"):
        evaluator.Protocol(unlabelled="some")


def test_a_protocol_follows_a_config_only_if_every_field_does():
    settings = {"similarity": "cosine", "exclude": ["Metadata_compound"], "controls": "Metadata_x = 1"}
    protocol = evaluator.Protocol(similarity="cosine", exclude=("Metadata_compound",))
    assert evaluator.follows(protocol, settings)
    assert not evaluator.follows(evaluator.Protocol(similarity="cosine"), settings)
    assert not evaluator.follows(protocol, {"similarity": "cosine"}), "an exclusion that the config has not"
    assert evaluator.follows(evaluator.Protocol(), {})


def test_raw_wells_keep_their_complete_features():
    table = make_table()
    features = table.features.copy()
    features[5, 2], features[7, 4] = np.nan, np.inf
    found = wells.complete_features(table.with_features(features))
    assert found.feature_names == tuple(f"f{i}" for i in range(20) if i not in (2, 4))
    assert wells.feature_space(found).points.shape == (60, 2)


def test_result_rows_have_the_contract_s_fields():
    judgement = evaluator.judge(make_table(), evaluator.Protocol(), name="trial")
    rows = evaluator.result_rows(judgement, study="lincs", dataset="d")
    assert set(rows[0]) == {
        "study",
        "run",
        "dataset",
        "split",
        "metric",
        "value",
        "n",
        "seed",
        "fold",
        "step",
    }
    assert {row["metric"] for row in rows} == set(evaluator.values(judgement))
