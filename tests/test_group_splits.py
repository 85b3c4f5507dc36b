"""Splits by group: disjoint, of the wanted sizes, the same in any order; and splits given as files."""

import numpy as np
import pytest

from coos import splits

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def members(split, groups):
    return {part: sorted(np.asarray(groups)[rows]) for part, rows in split.items()}


def test_groups_of_one_are_split_at_random_with_exact_fractions():
    groups = [f"compound{i}" for i in range(10574)]
    split = splits.by_group(groups, fractions=FRACTIONS, seed=0)
    assert {part: len(rows) for part, rows in split.items()} == {
        "train": 7402,
        "validation": 1057,
        "test": 2115,
    }
    assert sorted(np.concatenate(list(split.values()))) == list(range(10574))
    shares = [np.isin(split["test"], np.arange(k * 2115, (k + 1) * 2115)).mean() for k in range(5)]
    assert max(shares) < 0.24  # a fifth each, four standard deviations
    assert min(shares) > 0.16
    other = splits.by_group(groups, fractions=FRACTIONS, seed=1)
    assert 0.1 < np.isin(other["test"], split["test"]).mean() < 0.3


def test_no_group_is_divided_and_sizes_come_close():
    generator = np.random.default_rng(0)
    groups = np.repeat([f"scaffold{i}" for i in range(400)], generator.geometric(0.2, 400))
    split = splits.by_group(groups, fractions=FRACTIONS, seed=0)
    names = {part: set(groups[rows]) for part, rows in split.items()}
    splits.check_disjoint(names, what="scaffold")
    assert sum(len(part) for part in names.values()) == 400
    for part, fraction in FRACTIONS.items():
        assert abs(len(split[part]) / len(groups) - fraction) < 0.002


def test_the_order_of_the_members_does_not_matter():
    generator = np.random.default_rng(0)
    groups = np.array([f"g{i % 37}" for i in range(300)])
    order = generator.permutation(300)
    one = splits.by_group(groups, fractions=FRACTIONS, seed=5)
    other = splits.by_group(groups[order], fractions=FRACTIONS, seed=5)
    assert members(one, groups) == members(other, groups[order])
    assert members(one, groups) != members(splits.by_group(groups, fractions=FRACTIONS, seed=6), groups)


def test_a_group_too_large_for_the_small_parts_goes_to_the_large_one():
    groups = ["large"] * 50 + [f"g{i}" for i in range(50)]
    split = splits.by_group(groups, fractions=FRACTIONS, seed=0)
    assert set(range(50)) <= set(split["train"])
    assert {part: len(rows) for part, rows in split.items()} == {"train": 70, "validation": 10, "test": 20}


def test_what_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match=r"part 'validation' of the split would be empty; .*'train': 2"):
        splits.by_group(["a", "b", "c"], fractions=FRACTIONS, seed=0)
    with pytest.raises(ValueError, match="would be empty"):
        splits.by_group([], fractions=FRACTIONS, seed=0)
    for fractions in ({"a": 0.5, "b": 0.6}, {"a": 1.2, "b": -0.2}):
        with pytest.raises(ValueError, match="must be positive and add up to 1"):
            splits.by_group(["a", "b"], fractions=fractions, seed=0)
    with pytest.raises(
        ValueError, match="1 donors stand in 'test' and in another part, such as d2 in 'train'"
    ):
        splits.check_disjoint({"train": ["d1", "d2", "d2"], "test": ["d3", "d2"]}, what="donor")


def write(folder, **files):
    for part, text in files.items():
        (folder / f"{part}.csv").write_text(text)


def test_splits_given_as_files(tmp_path):
    write(tmp_path, train="a,key\n1,x\n2,y\n", test="key\nz\n")
    assert splits.load_lists(tmp_path, ("train", "test"), columns=("a", "key")) == (
        "key",
        {"train": ["x", "y"], "test": ["z"]},
    )
    with pytest.raises(ValueError, match=r"none of the columns \['a', 'b'\] is in all files"):
        splits.load_lists(tmp_path, ("train", "test"), columns=("a", "b"))
    with pytest.raises(ValueError, match=r"validation\.csv: missing"):
        splits.load_lists(tmp_path, ("train", "validation", "test"), columns=("key",))
    write(tmp_path, test="key\nz\nw\nz\n")
    with pytest.raises(ValueError, match=r"test\.csv, line 4: z is on line 2 already"):
        splits.load_lists(tmp_path, ("train", "test"), columns=("key",))
    write(tmp_path, train="a,key\n1,x\n2\n", test="key\nz\n")
    with pytest.raises(ValueError, match=r"train\.csv, line 3: empty"):
        splits.load_lists(tmp_path, ("train", "test"), columns=("key",))
