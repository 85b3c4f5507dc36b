"""Divisions of fields: stratified repeats, left-out groups, classes by queries, wells drawn; BBBC021's real folds."""

import numpy as np
import polars as pl
import pytest

from configs.mcnn import bbbc021 as study
from coos import splits
from coos.data import preprocess, whole_fields
from coos.train import phenotypes
from tfds_builders.bbbc import bbbc021

LABELS = np.repeat([0, 1], [24, 16])
GROUPS = np.array([f"w{k:02}" for k in range(40)])


def hold_out(labels=LABELS, groups=GROUPS, *, repeats=50, seed=0):
    return splits.repeated_hold_out(labels, groups, fraction=0.9, repeats=repeats, seed=seed)


def test_repeats_are_stratified_and_complete():
    folds = hold_out()
    assert len({fold.name for fold in folds}) == 50
    for fold in folds:
        assert np.bincount(LABELS[fold.training]).tolist() == [22, 14]
        assert np.bincount(LABELS[fold.test]).tolist() == [2, 2]  # so one class for all is 50 %
        assert sorted([*fold.training, *fold.test]) == list(range(40))
    assert len({tuple(fold.test) for fold in folds}) > 45


def test_first_repeats_stay_when_more_are_asked_for_and_other_seeds_give_others():
    few, many, other = hold_out(repeats=3), hold_out(), hold_out(seed=1)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(few, many, strict=False))
    assert any(not np.array_equal(a.test, b.test) for a, b in zip(many, other, strict=True))


def test_whole_groups_are_held_out_whatever_the_order():
    groups, labels = np.repeat(GROUPS, 3), np.repeat(LABELS, 3)
    order = np.random.default_rng(0).permutation(120)
    plain, mixed = hold_out(labels, groups, repeats=4), hold_out(labels[order], groups[order], repeats=4)
    for a, b in zip(plain, mixed, strict=True):
        assert not set(groups[a.training]) & set(groups[a.test])
        assert len(a.test) == 12
        assert set(groups[a.test]) == set(groups[order][b.test])


@pytest.mark.parametrize(
    ("labels", "groups", "repeats", "message"),
    [
        ([0, 1, 0, 1], ["a", "a", "b", "c"], 1, "group a has examples of two classes"),
        ([0, 0, 1], ["a", "b", "c"], 1, "class 1 has one example"),
        ([0, 0, 1, 1], ["a", "b", "c", "d"], 0, "repeats=0"),
    ],
)
def test_divisions_that_cannot_be_are_refused(labels, groups, repeats, message):
    with pytest.raises(ValueError, match=message):
        hold_out(np.array(labels), np.array(groups), repeats=repeats)


def test_leaving_one_out():
    groups = np.array(["b", "a", "b", "c"])
    found = {fold.name: (fold.training.tolist(), fold.test.tolist()) for fold in splits.leave_one_out(groups)}
    assert found == {"a": ([0, 2, 3], [1]), "b": ([1, 3], [0, 2]), "c": ([0, 1, 2], [3])}
    with pytest.raises(ValueError, match="at least two groups"):
        splits.leave_one_out(np.array(["a", "a"]))


def table(**columns):
    number = len(next(iter(columns.values())))
    ids = pl.Series("Metadata_id", [f"f{k}" for k in range(number)])
    return pl.DataFrame(columns).with_columns(ids)


def test_classes_by_queries_and_by_column():
    fields = table(
        Metadata_control=["negative", None, "positive", None], Metadata_dose_step=[0, 9, None, 5],
        Metadata_class=["x", "y", None, "x"],
    )  # fmt: skip
    rules = (
        ("neutral", "Metadata_control = 'negative'"),
        ("hit", "Metadata_control = 'positive' OR Metadata_dose_step = 9"),
    )
    labels, names = whole_fields.classes(fields, rules)
    assert (labels.tolist(), names) == ([0, 1, 1, -1], ("neutral", "hit"))
    labels, names = whole_fields.classes(fields, "Metadata_class")
    assert (labels.tolist(), names) == ([0, 1, -1, 0], ("x", "y"))
    labels, _ = whole_fields.classes(
        fields, rules, where="Metadata_dose_step IS NULL OR Metadata_dose_step < 9"
    )
    assert labels.tolist() == [0, -1, 1, -1]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("a", "Metadata_dose_step < 9"), ("b", "Metadata_dose_step = 0")), "f0 is both 'a' and 'b'"),
        ((("a", "Metadata_dose_step = 0"), ("b", "Metadata_dose_step = 77")), "data.classes: b"),
        ((("a", "Metadata_dose_step = 0"),), "at least two classes"),
        ("Metadata_mao", "data.target='Metadata_mao': no such column; there are"),
    ],
)
def test_wrong_classes_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        whole_fields.classes(table(Metadata_dose_step=[0, 5, 9]), rules)


def test_so_many_wells_are_drawn_whatever_the_order():
    wells = [f"W{k // 2}" for k in range(20)]
    fields = table(Metadata_Well=wells, Metadata_compound=["a"] * 12 + ["b"] * 8)
    options = {"of": ("Metadata_compound",), "unit": ("Metadata_Well",), "number": 3, "seed": 0}
    rows = np.arange(20)
    found = whole_fields.drawn(fields, rows, **options)
    drawn = fields[found.tolist()]
    assert drawn.group_by("Metadata_compound").agg(pl.col("Metadata_Well").n_unique())[
        "Metadata_Well"
    ].to_list() == [3, 3]
    assert len(found) == 12  # both fields of every well
    order = np.random.default_rng(1).permutation(20)
    again = whole_fields.drawn(fields[order.tolist()], rows, **options)
    assert set(fields[order.tolist()][again.tolist()]["Metadata_id"]) == set(drawn["Metadata_id"])
    assert np.array_equal(whole_fields.drawn(fields, rows, **{**options, "number": 0}), rows)


def test_binning_is_the_mean_of_blocks_without_the_edge():
    images = np.random.default_rng(0).integers(0, 65535, (2, 7, 9, 3)).astype(np.uint16)
    found = np.asarray(preprocess.binned(images, factor=2))
    assert found.shape == (2, 3, 4, 3)
    for b, y, x in np.ndindex(2, 3, 4):
        block = images[b, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(float)
        np.testing.assert_allclose(found[b, y, x], block.mean((0, 1)), rtol=1e-6)
    with pytest.raises(ValueError, match="binning 8: images are 7 x 9"):
        preprocess.binned(images, factor=8)


def test_left_out_compounds_of_the_real_bbbc021_are_disjoint(real_data):
    fields = bbbc021.index(real_data / "bbbc021")
    assert len(fields) == 13_200
    config = study.get_config()
    labels, names = whole_fields.classes(fields, config.data.target)
    assert names == study.MECHANISMS
    rows = phenotypes.thinned(config, fields, np.flatnonzero(labels >= 0))
    folds = phenotypes.protocol(config.protocol, labels, fields, rows, seed=0)
    assert len(folds) == 38
    compound = fields["Metadata_compound"].to_numpy()
    treatments = fields.select("Metadata_compound", "Metadata_concentration").rows()
    tested = [treatment for fold in folds for treatment in {treatments[row] for row in fold.test}]
    assert len(tested) == len(set(tested)) == 103
    for fold in folds:
        assert set(compound[fold.test]) == {fold.name}
        assert fold.name not in set(compound[fold.training])
        assert sorted([*fold.training, *fold.test]) == rows.tolist()
