"""Scores on subsets: against a slow loop over rows and pairs, and against the whole that the parts make up."""

import collections
import importlib

import numpy as np
import polars as pl
import pytest

from coos.evaluators import before_after
from coos.evaluators import retrieval as evaluator
from coos.evaluators import retrieval_subsets as subsets
from coos.metrics import retrieval
from coos.profiles import files, pipeline
from coos.profiles.table import Table

COMPOUND = "Metadata_broad_sample"
PROTOCOL = evaluator.Protocol(ks=(1, 5, 10), percentiles=(0.8, 0.95), null_size=200, unlabelled="enrichment")


def make_table(count=50, *, labels=None, seed=0, width=15, **columns):
    generator = np.random.default_rng(seed)
    codes = np.minimum(generator.geometric(0.2, count) - 1, 9)
    names = [None if i == 7 else f"moa {code}" for i, code in enumerate(codes)] if labels is None else labels
    features = generator.normal(size=(count, width)) + 1.5 * generator.normal(size=(10, width))[codes]
    metadata = {"Metadata_moa": names, COMPOUND: [f"BRD-{i:03}" for i in range(count)], **columns}
    return Table(pl.DataFrame(metadata), features, [f"f{i}" for i in range(width)])


def slow_parts(table, rows, *, exclude=None):
    """(pairs table at each percentile, {metric: mean over chosen rows of scores among all}) by loops in float64."""
    labels = table.metadata["Metadata_moa"].to_list()
    similarity = np.corrcoef(table.features.astype(np.float64))
    apart = np.ones_like(similarity, bool) if exclude is None else exclude[:, None] != exclude
    found = [(i, j) for i in range(len(rows)) for j in range(i) if rows[i] and rows[j] and apart[i, j]]
    values = np.array([similarity[pair] for pair in found])
    match = np.array([labels[i] is not None and labels[i] == labels[j] for i, j in found])
    tables = []
    for fraction in PROTOCOL.percentiles:
        above = values > np.quantile(values, fraction)
        tables.append([[(above & match).sum(), (above & ~match).sum()],
                       [(~above & match).sum(), (~above & ~match).sum()]])  # fmt: skip
    scores = {"precision_at_r": [], "average_precision": [], "precision_at_5": [], "recall_at_10": []}
    for i in np.flatnonzero(rows):
        others = [j for j in range(len(rows)) if j != i and labels[j] is not None and apart[i, j]]
        others.sort(key=lambda j: -similarity[i, j])
        hit = np.array([labels[j] == labels[i] for j in others])
        if labels[i] is None or not hit.any():
            continue
        scores["precision_at_r"].append(hit[: hit.sum()].mean())
        places = np.flatnonzero(hit)
        scores["average_precision"].append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
        scores["precision_at_5"].append(hit[:5].mean())
        scores["recall_at_10"].append(hit[:10].sum() / hit.sum())
    return tables, {name: (np.mean(found), len(found)) for name, found in scores.items()}


@pytest.mark.parametrize("exclude", [False, True])
def test_parts_are_those_of_a_slow_loop(exclude):
    plate = np.arange(50) % 6
    table = make_table(Metadata_plate=plate.astype(str))
    protocol = evaluator.Protocol(**{**vars(PROTOCOL), "exclude": ("Metadata_plate",) * exclude})
    judgement = evaluator.judge(table, protocol, name="trial")
    rows = np.random.default_rng(3).random(50) < 0.5
    rows[7] = True  # the row without a label counts in pairs alone
    inside, outside = subsets.split(table, judgement, rows, subset="some")
    for part, chosen in ((inside, rows), (outside, ~rows)):
        tables, scores = slow_parts(table, chosen, exclude=plate if exclude else None)
        np.testing.assert_array_equal(part.enrichment.table, tables)
        found = subsets.values(part)
        for metric, (value, n) in scores.items():
            assert found[metric] == (pytest.approx(value, abs=1e-6), n), metric
        assert part.num_rows == chosen.sum() - chosen[7]
        alone = chosen & (np.arange(50) != 7)
        codes = retrieval.encode(table.metadata["Metadata_moa"].to_list())[alone]
        hits = retrieval.hit_at_k(table.features[alone], codes, exclude=plate[alone] if exclude else None)
        assert found["hit_score"] == (pytest.approx(hits.score, abs=1e-6), len(hits.ranks))
    assert (inside.label, outside.label) == ("some, in", "some, out")


def test_a_subset_of_all_rows_is_the_whole_and_two_parts_average_to_it():
    table = make_table()
    judgement = evaluator.judge(table, PROTOCOL, name="trial")
    whole = subsets.values(subsets.whole(judgement))
    every, nothing = subsets.split(table, judgement, np.ones(50, bool), subset="all of them")
    assert subsets.values(every) == whole
    assert whole == {name: evaluator.values(judgement)[name] for name in whole}
    found = subsets.values(nothing)
    assert all(np.isnan(value) and n == 0 for value, n in found.values())
    parts = subsets.split(table, judgement, np.arange(50) < 20, subset="first")
    for metric in ("precision_at_r", "average_precision", "recall_at_10", "precision_at_1"):
        total = sum(subsets.values(part)[metric][0] * subsets.values(part)[metric][1] for part in parts)
        assert total / whole[metric][1] == pytest.approx(whole[metric][0])


def test_a_part_whose_rows_do_not_match_each_other_keeps_its_precision():
    table = make_table(8, labels=list("aabbccdd"))
    judgement = evaluator.judge(table, PROTOCOL, name="trial")
    inside, _ = subsets.split(table, judgement, np.arange(8) % 2 == 0, subset="one of each")
    found = subsets.values(inside)
    assert np.isnan(found["hit_score"][0])
    assert np.isnan(found["odds_ratio_at_0.95"][0])
    assert found["odds_ratio_at_0.95"][1] == 6  # pairs there are, but none that matches
    assert found["average_precision"][1] == 4
    one, rest = subsets.split(table, judgement, np.arange(8) == 0, subset="one")
    assert subsets.values(one)["precision_at_r"][1] == 1
    assert subsets.values(one)["odds_ratio_at_0.95"][1] == 0
    assert rest.num_rows == 7


def test_exclusions_can_leave_a_part_without_pairs():
    table = make_table(6, labels=list("aabbab"), Metadata_plate=list("pppqqq"))
    protocol = evaluator.Protocol(ks=(1,), percentiles=(0.5,), null_size=10, exclude=("Metadata_plate",))
    judgement = evaluator.judge(table, protocol, name="trial")
    inside, outside = subsets.split(table, judgement, np.arange(6) < 3, subset="plate p")
    for part in (inside, outside):
        assert subsets.values(part)["odds_ratio_at_0.5"][1] == 0
        assert np.isnan(subsets.values(part)["odds_ratio_at_0.5"][0])
        assert subsets.values(part)["average_precision"][1] > 0


def test_top_labels_are_the_largest_and_ties_go_by_name():
    labels = ["c", "b", "a", "c", None, "b", "a", "d", "c"]
    table = make_table(9, labels=labels)
    judgement = evaluator.judge(table, PROTOCOL, name="trial")
    for count, expected in ((1, "c"), (2, "ca"), (3, "cab"), (4, "cabd"), (99, "cabd")):
        rows, note = subsets.choose(f"top:{count}", table, judgement, column=COMPOUND)
        assert rows.tolist() == [label is not None and label in expected for label in labels]
        assert not note
    table = make_table(5, labels=["x|a", "a|b", "b", "x", "c"])
    several = evaluator.judge(table, evaluator.Protocol(separator="|", ks=(1,), null_size=10), name="parts")
    rows, _ = subsets.choose("top:2", table, several, column=COMPOUND)
    assert rows.tolist() == [True, True, True, False, False]


def test_a_file_lists_rows_and_what_it_lists_in_vain_is_told(tmp_path):
    table = make_table(12)
    judgement = evaluator.judge(table, PROTOCOL, name="trial")
    path = tmp_path / "list.txt"
    path.write_text("BRD-003\n\n  BRD-001 \nBRD-003\nnobody\n")
    rows, note = subsets.choose(str(path), table, judgement, column=COMPOUND)
    assert np.flatnonzero(rows).tolist() == [1, 3]
    assert note == f"1 of 3 values of {path} are not in {COMPOUND} of trial: nobody."
    path.write_text("BRD-000\n")
    rows, note = subsets.choose(str(path), table, judgement, column=COMPOUND)
    assert (rows.sum(), note) == (1, "")
    rows, _ = subsets.choose(f"{COMPOUND} IN ('BRD-002', 'BRD-004')", table, judgement, column=COMPOUND)
    assert np.flatnonzero(rows).tolist() == [2, 4]


BAD = {
    "no number": ("top:many", "write top: and a number of labels"),
    "nothing": ("top:0", "write top: and a number of labels"),
    "no file": ("absent.txt", "absent.txt: cannot be read as a list"),
    "no column": ("Metadata_nope = 1", "query 'Metadata_nope = 1'"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_condition_that_cannot_be_read_says_why(name, tmp_path):
    condition, message = BAD[name]
    table = make_table(12)
    judgement = evaluator.judge(table, PROTOCOL, name="trial")
    with pytest.raises(ValueError, match=message):
        subsets.choose(condition, table, judgement, column=COMPOUND)
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="lists nothing; write one value per line"):
        subsets.read_list(tmp_path / "empty.txt")


def test_flags_are_names_and_conditions():
    found = subsets.parse(["top50=top:50", "low = Metadata_dose = 3 AND Metadata_x IN ('a', 'b')"])
    assert found == {"top50": "top:50", "low": "Metadata_dose = 3 AND Metadata_x IN ('a', 'b')"}
    for texts, message in (
        (["top:50"], "subset 'top:50': write name=top:50"),
        (["a/b=top:5"], "write name=top:50"),
        (["a="], "write name=top:50"),
        (["a=top:5", "a=top:6"], "two subsets are called 'a'"),
    ):
        with pytest.raises(ValueError, match=message):
            subsets.parse(texts)


def test_result_rows_say_which_part_they_are_about():
    table = make_table()
    judgement = evaluator.judge(table, PROTOCOL, name="trial")
    parts = [subsets.whole(judgement), *subsets.split(table, judgement, np.arange(50) < 30, subset="s")]
    rows = subsets.result_rows(parts, study="lincs", dataset="d")
    assert {row["split"] for row in rows} == {"Metadata_moa/s/in", "Metadata_moa/s/out"}
    assert len(rows) == 2 * len(subsets.values(parts[1]))
    assert set(rows[0]) == set(evaluator.result_rows(judgement, study="", dataset="")[0])


CONFIG = {
    "steps": ("standardize", "merge"),
    "standardize": {},
    "merge": {"kind": "consensus", "by": COMPOUND},
}


def make_levels(folder):
    """Two wells of each of 30 compounds, and six controls of three batches; level 4 has no batch effect."""
    generator = np.random.default_rng(5)
    names = [f"BRD-{i // 2:03}" for i in range(60)] + ["DMSO"] * 6
    labels = [f"moa {i // 2 % 5}" for i in range(60)] + [None] * 6
    batch = [f"{i % 3}" for i in range(66)]
    level4 = generator.normal(size=(66, 9)) + np.repeat(generator.normal(size=(33, 9)), 2, axis=0)
    level3 = level4 + 9 * generator.normal(size=(3, 9))[np.arange(66) % 3]
    metadata = pl.DataFrame({COMPOUND: names, "Metadata_moa": labels, "Metadata_batch": batch})
    tables = [Table(metadata, values, [f"f{i}" for i in range(9)]) for values in (level3, level4)]
    for name, table in zip(before_after.LEVELS, tables, strict=True):
        files.write_parquet(table, folder / f"{name}.parquet")
    return tables


def merged(table, names):
    """Medians per compound of the named ones, and their labels (-1: none)."""
    of = np.array(table.metadata[COMPOUND].to_list())
    labels = dict(table.metadata.select(COMPOUND, "Metadata_moa").iter_rows())
    features = np.array([np.median(table.features[of == name], axis=0) for name in names])
    return features, retrieval.encode([labels[name] for name in names])


def test_before_and_after_normalization(tmp_path):
    level3, level4 = make_levels(tmp_path)
    profiles = before_after.consensus_step(CONFIG).transform(level4)
    profiles = profiles.filter(profiles.where(f"{COMPOUND} <> 'BRD-004'"))  # as --rows might
    judgement = evaluator.judge(profiles, PROTOCOL, name="run")
    found = before_after.of_workdir(
        tmp_path, CONFIG, profiles, judgement, controls=f"{COMPOUND} = 'DMSO'", batch="Metadata_batch"
    )
    names = [f"BRD-{i:03}" for i in range(30) if i != 4] + ["DMSO"]
    for value, level in ((found.before, level3), (found.after, level4)):
        expected = retrieval.enrichment(*merged(level, names), percentile=0.8)
        np.testing.assert_array_equal(value.table, expected.table)
    control = level3.where(f"{COMPOUND} = 'DMSO'")
    expected = retrieval.enrichment(level3.features[control], np.arange(6) % 3, percentile=0.995)
    np.testing.assert_array_equal(found.batch_before.table, expected.table)
    assert found.batch_after.odds_ratio != found.batch_before.odds_ratio
    assert (found.num_rows, found.percentile, found.name) == (30, 0.8, "run")


def test_before_and_after_say_what_is_missing(tmp_path):
    _, level4 = make_levels(tmp_path)
    profiles = before_after.consensus_step(CONFIG).transform(level4)
    judgement = evaluator.judge(profiles, PROTOCOL, name="run")
    options = {"controls": None, "batch": None}
    found = before_after.of_workdir(tmp_path, {"steps": ("standardize",)}, profiles, judgement, **options)
    assert found.before == "the pipeline has no consensus step"
    assert found.batch_after == "no controls and batch were named"
    stranger = profiles.metadata.with_columns(pl.lit("X").alias(COMPOUND))
    with pytest.raises(ValueError, match=r"run: 1 of 1 profiles have no wells in level3\.parquet"):
        before_after.of_workdir(tmp_path, CONFIG, profiles.with_metadata(stranger), judgement, **options)
    (tmp_path / "level3.parquet").unlink()
    assert before_after.of_workdir(tmp_path, CONFIG, profiles, judgement, **options) is None


def test_the_fifty_largest_mechanisms_split_the_real_screen_in_half(real_data):
    """Section 4.6.1 of Bornholdt 2021: two subsets of about 550 compounds, of 50 and about 180 mechanisms."""
    config = importlib.import_module("configs.lincs.profiles").get_config("trained/none").to_dict()
    config |= {"metadata": str(real_data / "lincs_metadata"), "data": "wells"}
    counts = sorted((real_data / "lincs_metadata" / "cell_count").glob("*/*"))
    wells = pl.concat([pl.read_csv(path) for path in counts]).select(
        Metadata_Plate="Image_Metadata_Plate", Metadata_Well="Image_Metadata_Well"
    )
    features = np.random.default_rng(0).normal(size=(len(wells), 2))
    table = pipeline.run(Table(wells, features, ("a", "b")), pipeline.build(config))
    moa = [name for name in table.metadata["Metadata_moa"] if name]
    sizes = sorted(collections.Counter(moa).items(), key=lambda item: (-item[1], item[0]))
    assert (len(moa), len(sizes)) == (1143, 234)
    rows = subsets.top_rows(retrieval.encode(table.metadata["Metadata_moa"].to_list()), 50)
    assert set(table.metadata["Metadata_moa"].filter(rows)) == {name for name, _ in sizes[:50]}
    assert (rows.sum(), len(moa) - rows.sum()) == (575, 568)
