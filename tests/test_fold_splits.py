"""Divisions beside a slow count: any numbers of groups and members, any order, wells of one name on two plates."""

import numpy as np
import polars as pl
import pytest
from ml_collections import ConfigDict

from coos import splits
from coos.train import phenotypes


def random_groups(seed):
    """Two to four classes of two to eight groups of one to four members, the rows shuffled."""
    generator = np.random.default_rng(seed)
    labels, groups = [], []
    for label in range(generator.integers(2, 5)):
        for number in range(generator.integers(2, 9)):
            members = generator.integers(1, 5)
            labels += [label] * members
            groups += [f"class {label}, group {number}"] * members
    order = generator.permutation(len(labels))
    return np.array(labels)[order], np.array(groups)[order]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.9])
def test_so_many_groups_of_every_class_train_and_every_row_stands_on_one_side(seed, fraction):
    labels, groups = random_groups(seed)
    for fold in splits.repeated_hold_out(labels, groups, fraction=fraction, repeats=3, seed=seed):
        assert sorted([*fold.training, *fold.test]) == list(range(len(labels)))
        assert np.all(np.diff(fold.training) > 0)
        assert np.all(np.diff(fold.test) > 0)
        trained, tested = set(groups[fold.training]), set(groups[fold.test])
        assert not trained & tested
        for label in set(labels):
            there = len(set(groups[labels == label]))
            expected = min(max(round(fraction * there), 1), there - 1)
            assert sum(group.startswith(f"class {label},") for group in trained) == expected


def test_every_group_is_held_out_about_as_often():
    """Two of 24 neutral and of 16 positive wells are held out: 1 in 12 and 1 in 8 repeats, within four deviations."""
    labels, groups = np.repeat([0, 1], [24, 16]), np.array([f"w{k:02}" for k in range(40)])
    times = np.zeros(40)
    for fold in splits.repeated_hold_out(labels, groups, fraction=0.9, repeats=600, seed=3):
        times[fold.test] += 1
    share = np.where(labels == 0, 2 / 24, 2 / 16)
    assert np.all(np.abs(times - 600 * share) < 4 * np.sqrt(600 * share * (1 - share)))


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5])
def test_fractions_out_of_range_are_refused(fraction):
    with pytest.raises(ValueError, match=f"fraction={fraction}: must lie between 0 and 1"):
        splits.repeated_hold_out(
            np.array([0, 0, 1, 1]), np.array(list("abcd")), fraction=fraction, repeats=1, seed=0
        )


def test_leaving_one_out_tests_every_row_once_in_any_order():
    _, groups = random_groups(5)
    order = np.random.default_rng(0).permutation(len(groups))
    folds, mixed = splits.leave_one_out(groups), splits.leave_one_out(groups[order])
    assert [fold.name for fold in folds] == sorted(set(groups)) == [fold.name for fold in mixed]
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(len(groups)))
    for fold, other in zip(folds, mixed, strict=True):
        assert set(groups[fold.test]) == {fold.name}
        assert fold.name not in groups[fold.training]
        assert len(fold.training) + len(fold.test) == len(groups)
        assert sorted(order[other.test]) == fold.test.tolist()


def plates():
    """Two plates that both have wells W0 to W7, two fields each, and fields of no class between them."""
    rows = [
        {"Metadata_id": f"{plate}-W{well}-{site}", "Metadata_Plate": plate, "Metadata_Well": f"W{well}",
         "Metadata_compound": None if well == 7 else f"c{well}"}
        for well in range(8) for plate in "PQ" for site in range(2)
    ]  # fmt: skip
    table = pl.DataFrame(rows)
    labels = np.array(
        [-1 if row["Metadata_Well"] == "W7" else int(row["Metadata_Plate"] == "Q") for row in rows]
    )
    return table, labels, np.flatnonzero(labels >= 0)


def protocol(**changes):
    return ConfigDict(
        {"name": "hold_out", "group": "Metadata_Well", "fraction": 0.7, "repeats": 4, **changes}
    )


def test_wells_of_one_name_on_two_plates_are_two_groups():
    table, labels, rows = plates()
    well = np.array([identifier.rsplit("-", 1)[0] for identifier in table["Metadata_id"]])
    folds = phenotypes.protocol(protocol(), labels, table, rows, seed=0)
    for fold in folds:
        assert sorted([*fold.training, *fold.test]) == rows.tolist()  # rows of the table, not of the labelled
        assert not set(well[fold.training]) & set(well[fold.test])
        assert np.bincount(labels[fold.test]).tolist() == [4, 4]  # round(0.7 * 7) = 5 wells train
    named = [{name.split("-")[1] for name in well[fold.test]} for fold in folds]
    assert any(len(names) > 2 for names in named)  # W3 of P may be held out without W3 of Q


def test_left_out_compounds_are_rows_of_the_table_and_unknown_ones_are_named():
    table, labels, rows = plates()
    how = protocol(name="leave_one_out", group="Metadata_compound")
    folds = phenotypes.protocol(how, labels, table, rows, seed=0)
    assert [fold.name for fold in folds] == [f"c{k}" for k in range(7)]
    for fold in folds:
        assert fold.test.tolist() == [k for k in rows if table["Metadata_compound"][int(k)] == fold.name]
        assert sorted([*fold.training, *fold.test]) == rows.tolist()
    labels[-1] = 1
    rows = np.flatnonzero(labels >= 0)
    with pytest.raises(ValueError, match="'Metadata_compound': unknown for Q-W7-1 and 0 more"):
        phenotypes.protocol(how, labels, table, rows, seed=0)
