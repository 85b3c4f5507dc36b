"""Sharded writing: any number of workers and processes give one dataset, a kill loses a shard, plans do not mix."""

import functools
import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from coos.data import identity, shard_plan, sharded_builder, shards

SIZES = {"train": np.array([1, 3, 2, 1, 4, 1, 2]), "test": np.ones(4, int)}
RECIPE = {"source": "nowhere", "options": {"crop": 5}}


def example(split, unit, cell):
    image = np.random.default_rng([unit, cell, len(split)]).integers(0, 65536, (3, 4, 2)).astype(np.uint16)
    positions = np.arange(unit % 3, dtype=np.int32)
    values = np.where(positions % 2, 1, -1).astype(np.int8)
    return {
        "id": f"{split}-{unit}-{cell}",
        "image": image,
        "label_positions": positions,
        "label_values": values,
    }


def read(split, unit, *, log=None, sizes=SIZES):
    """Runs in other processes too, which must not load JAX: it starts threads and takes devices."""
    assert "jax" not in sys.modules or os.getpid() == MAIN
    if log is not None:
        log.append((split, unit))
    for cell in range(sizes[split][unit]):
        yield example(split, unit, cell)


MAIN = os.getpid()


def make_info(data_dir):
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Tensor(shape=(3, 4, 2), dtype=np.uint16, encoding="bytes"),
            "label_positions": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "label_values": tfds.features.Tensor(shape=(None,), dtype=np.int8),
        }
    )
    made = Made(features, data_dir=data_dir)
    return made.info


class Made(sharded_builder.ShardedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, features, **kwargs):
        self.features = features
        super().__init__(**kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=self.features, metadata=tfds.core.MetadataDict(tasks=["a", "b"])
        )

    def shard_plan(self):
        return make_plan(), read


def make_plan(**changes):
    options = {"example_bytes": 100, "recipe": RECIPE, "num_shards": 5, "seed": 3} | changes
    return shard_plan.make_plan("made", options.pop("sizes", SIZES), **options)


def build(data_dir, plan=None, **options):
    info = make_info(data_dir)
    return shards.build(plan or make_plan(), info, options.pop("read", read), **options), info


def files(data_dir):
    """Every record file of the finished dataset, by name."""
    folder = data_dir / "made" / "1.0.0"
    return {path.name: path.read_bytes() for path in folder.glob("*.array_record-*")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The dataset as one process writes it."""
    data_dir = tmp_path_factory.mktemp("whole")
    missing, _ = build(data_dir)
    assert missing == []
    return data_dir


def test_every_example_stands_in_the_dataset_once_and_as_it_was(whole):
    builder = tfds.builder_from_directory(str(whole / "made" / "1.0.0"))
    assert builder.info.metadata["tasks"] == ["a", "b"]
    for split, sizes in SIZES.items():
        source = builder.as_data_source(split)
        found = {source[i]["id"].decode(): source[i] for i in range(len(source))}
        wanted = {e["id"]: e for unit in range(len(sizes)) for e in read(split, unit)}
        assert len(source) == sizes.sum()
        assert found.keys() == wanted.keys()
        for name, one in wanted.items():
            for key in ("image", "label_positions", "label_values"):
                np.testing.assert_array_equal(found[name][key], one[key])
                assert found[name][key].dtype == one[key].dtype
        total = sum(identity.checksum(one) for one in wanted.values())
        assert builder.info.metadata["digests"][split] == f"{total % 2**64:016x}"
        assert builder.info.splits[split].num_shards == {"train": 4, "test": 2}[split]
    assert "tensorflow" not in sys.modules
    left = {path.name for path in (whole / "made" / "1.0.0").iterdir() if "array_record" not in path.name}
    assert left == {"dataset_info.json", "features.json", "metadata.json"}
    assert os.listdir(whole / "made") == ["1.0.0"]


def test_cells_of_one_file_are_mixed_within_their_shard(whole):
    source = tfds.builder_from_directory(str(whole / "made" / "1.0.0")).as_data_source("train")
    order = [source[i]["id"].decode() for i in range(len(source))]
    plan = [shard for shard in make_plan().shards() if shard.split == "train"]
    by_unit = [e["id"] for shard in plan for unit in shard.units for e in read("train", unit)]
    assert order != by_unit
    assert sorted(order) == sorted(by_unit)
    start = 0
    for shard in plan:  # but never beyond it
        stop = start + shard.num_examples
        assert sorted(order[start:stop]) == sorted(by_unit[start:stop])
        start = stop


def test_three_workers_and_two_processes_write_the_same_bytes(whole, tmp_path):
    for worker in (2, 0):
        missing, info = build(tmp_path / "workers", worker=worker, num_workers=3)
        assert missing
        assert not info.splits
    done, info = build(tmp_path / "workers", worker=1, num_workers=3)
    assert done == []
    assert info.splits["train"].num_examples == 14
    assert files(tmp_path / "workers") == files(whole)
    build(tmp_path / "processes", processes=2)
    assert files(tmp_path / "processes") == files(whole)
    late, info = build(tmp_path / "workers", worker=0, num_workers=3, read=None)  # finds it finished
    assert late == []
    assert info.splits["test"].num_examples == 4


def test_missing_shards_are_those_of_the_other_workers(tmp_path):
    names = [shard.filename for shard in make_plan().shards()]
    missing, _ = build(tmp_path, worker=1, num_workers=3)
    assert missing == [name for k, name in enumerate(names) if k % 3 != 1]


def test_a_killed_build_resumes_and_writes_only_what_is_missing(whole, tmp_path):
    class Killed(BaseException):
        pass

    def dies(split, unit):
        if (split, unit) == ("train", last.units[-1]):
            raise Killed
        yield from read(split, unit)

    last = [shard for shard in make_plan().shards() if shard.split == "train"][-1]
    with pytest.raises(Killed):
        build(tmp_path, read=dies)
    folder = tmp_path / "made" / "1.0.0.building"
    done = make_plan().shards()[0]
    assert shards.is_complete(folder, done, make_plan().digest, read)
    assert not (folder / last.filename).exists()
    (folder / f".{last.filename}.elsewhere.77.tmp").write_bytes(b"half a shard")
    log = []
    build(tmp_path, read=functools.partial(read, log=log))
    assert ("train", last.units[0]) in log
    assert not {("train", unit) for unit in done.units} & set(log)
    assert files(tmp_path) == files(whole)
    assert not list((tmp_path / "made" / "1.0.0").glob(".*"))


@pytest.mark.parametrize("harm", ["no note", "shorter", "gone", "cut note", "other plan"])
def test_half_written_shards_never_count(harm, whole, tmp_path):
    build(tmp_path, worker=0, num_workers=2)
    folder, shard = tmp_path / "made" / "1.0.0.building", make_plan().shards()[0]
    path, note = folder / shard.filename, folder / "progress" / f"{shard.filename}.json"
    {
        "no note": note.unlink,
        "shorter": lambda: path.write_bytes(path.read_bytes()[:-1]),
        "gone": path.unlink,
        "cut note": lambda: note.write_text(note.read_text()[:20]),
        "other plan": lambda: note.write_text(note.read_text().replace(make_plan().digest, "0" * 16)),
    }[harm]()
    assert not shards.is_complete(folder, shard, make_plan().digest, read)
    missing, _ = build(tmp_path, worker=1, num_workers=2)
    assert missing == [shard.filename]
    missing, _ = build(tmp_path, worker=0, num_workers=2)
    assert missing == []
    assert files(tmp_path) == files(whole)


class Seen:
    """A reader that says what its raw files look like."""

    def __init__(self, look, *, changing=False):
        self.look, self.changing = look, changing

    def __call__(self, split, unit):
        self.look += "!" * self.changing
        yield from read(split, unit)

    def digest(self, split, units):
        return self.look


def test_workers_that_see_other_raw_files_are_told(tmp_path):
    missing, _ = build(tmp_path, worker=0, num_workers=2, read=Seen("originals"))
    assert missing
    with pytest.raises(
        ValueError, match=r"3 shards, such as made-\S+, were written from raw files of other sizes"
    ):
        build(tmp_path, worker=1, num_workers=2, read=Seen("copies"))
    assert build(tmp_path, worker=1, num_workers=2, read=Seen("originals"))[0] == []


def test_a_file_that_changed_while_it_was_read_is_read_again(tmp_path):
    with pytest.raises(ValueError, match="written from raw files of other sizes or times"):
        build(tmp_path, read=Seen("old", changing=True))
    assert not (tmp_path / "made" / "1.0.0").exists()
    assert build(tmp_path, read=Seen("new"))[0] == []


def test_a_worker_that_is_late_by_a_moment_sees_it_is_done(whole, tmp_path):
    """Its folder is renamed away while it writes; ArrayRecord then raises RuntimeError."""

    def overtaken(split, unit):
        (tmp_path / "made" / "1.0.0.building").rename(tmp_path / "made" / "gone")
        shutil.copytree(whole / "made" / "1.0.0", tmp_path / "made" / "1.0.0")
        raise RuntimeError("Failed to open the file")

    missing, info = build(tmp_path, read=overtaken)
    assert missing == []
    assert info.splits["train"].num_examples == 14


def test_the_plan_is_the_same_on_every_machine():
    """Not drawn from Python's hashes, which are others in every process."""
    first = make_plan().shards()[0]
    assert (first.split, first.units.tolist()) == ("train", [0, 3])


def test_another_plan_is_refused_with_what_differs(tmp_path):
    build(tmp_path, worker=0, num_workers=2)
    other = {"source": "nowhere", "options": {"crop": 6}}
    with pytest.raises(ValueError, match=r"1\.0\.0\.building: .* \(recipe\.options\.crop: 5 there, 6 now\)"):
        build(tmp_path, make_plan(recipe=other))
    with pytest.raises(ValueError, match=r"seed: 3 there, 4 now"):
        build(tmp_path, make_plan(seed=4))
    with pytest.raises(ValueError, match=r"shards\.train: 4 there, 2 now"):
        build(tmp_path, make_plan(num_shards=2))
    moved = {**SIZES, "train": SIZES["train"][::-1]}
    with pytest.raises(ValueError, match=r"\(sizes\.train: '[0-9a-f]{16}' there"):
        build(tmp_path, make_plan(sizes=moved))


def test_units_that_changed_are_an_error_and_leave_no_shard(tmp_path):
    fewer = {**SIZES, "test": np.array([1, 1, 0, 1])}
    with pytest.raises(ValueError, match=r"test\.array_record-.*: 1 examples instead of 2; did files change"):
        build(tmp_path, read=functools.partial(read, sizes=fewer))
    assert not (tmp_path / "made" / "1.0.0").exists()
    assert not list((tmp_path / "made" / "1.0.0.building").glob(".*.tmp"))


def test_an_error_in_a_process_is_raised(tmp_path):
    fewer = {**SIZES, "train": np.zeros(7, int)}
    with pytest.raises(ValueError, match="0 examples instead of"):
        build(tmp_path, read=functools.partial(read, sizes=fewer), processes=2)


def test_two_that_finish_at_once(whole, tmp_path, monkeypatch):
    """The other worker renames the folder just when this one has written its description."""
    rename = os.rename

    def rename_twice(old, new):
        rename(old, new)
        rename(old, new)

    monkeypatch.setattr(os, "rename", rename_twice)
    missing, info = build(tmp_path)
    assert missing == []
    assert info.splits["train"].num_examples == 14
    assert files(tmp_path) == files(whole)


def test_plans_depend_on_nothing_but_their_arguments():
    one, same, other = make_plan(), make_plan(), make_plan(seed=4)
    for a, b in zip(one.shards(), same.shards(), strict=True):
        assert (a.split, a.number, a.filename, a.num_examples) == (
            b.split,
            b.number,
            b.filename,
            b.num_examples,
        )
        np.testing.assert_array_equal(a.units, b.units)
    assert one.digest == same.digest != other.digest
    for split, sizes in SIZES.items():
        units = np.concatenate([shard.units for shard in one.shards() if shard.split == split])
        assert sorted(units) == list(range(len(sizes)))
        assert list(units) != list(range(len(sizes)))


def test_number_of_shards_follows_the_size():
    sizes = {"train": np.ones(700, int), "test": np.ones(200, int), "small": np.ones(1, int)}
    plan = shard_plan.make_plan("made", sizes, example_bytes=5 * 2**20, recipe={})
    assert plan.num_shards == {"train": 7, "test": 2, "small": 1}
    plan = shard_plan.make_plan("made", sizes, example_bytes=1, recipe={}, num_shards=9010)
    assert plan.num_shards == {"train": 700, "test": 200, "small": 1}
    with pytest.raises(ValueError, match="split 'test': needs units"):
        shard_plan.make_plan("made", {"test": np.array([], int)}, example_bytes=1, recipe={})
    with pytest.raises(ValueError, match="num_shards=0"):
        make_plan(num_shards=0)
    with pytest.raises(ValueError, match="worker=3 of 3"):
        shards.build(plan, None, read, worker=3, num_workers=3)


def test_builder_goes_through_shards(whole, tmp_path):
    builder = Made(make_info(tmp_path).features, data_dir=tmp_path, worker=0, num_workers=2)
    builder.download_and_prepare()
    assert len(builder.missing_shards) == 3
    other = Made(builder.info.features, data_dir=tmp_path, worker=1, num_workers=2)
    other.download_and_prepare()
    assert other.missing_shards == []
    assert len(other.as_data_source("train")) == 14
    assert files(tmp_path) == files(whole)
    with pytest.raises(ValueError, match="download_dir"):
        other.download_and_prepare(download_dir="here")


def test_checksums_tell_labels_ids_and_pixels_apart():
    one = example("train", 2, 0)
    changed = [
        one | {"id": "other"},
        one | {"label_values": -one["label_values"]},
        one | {"label_positions": one["label_positions"] + 1},
        one | {"image": one["image"] ^ 1},
        one | {"label_positions": one["label_positions"][:1], "label_values": one["label_values"][:1]},
    ]
    assert len({identity.checksum(e) for e in [one, *changed]}) == 6
    profile = {k: v for k, v in one.items() if k != "image"} | {"profile": one["image"].astype(np.float32)}
    assert identity.checksum(profile) not in {identity.checksum(e) for e in [one, *changed]}


GROUPS = {
    "train": np.array(["b", "b", "a", "b", "a", "a", "b"]),
    "test": np.array(["a", "c", "c", "a"]),
}


def test_no_shard_crosses_groups_and_every_unit_stands_in_one():
    plan = make_plan(groups=GROUPS, num_shards=7)
    for split, groups in GROUPS.items():
        members = [shard for shard in plan.shards() if shard.split == split]
        assert [shard.number for shard in members] == list(range(plan.num_shards[split]))
        assert all(f"-of-{len(members):05d}" in shard.filename for shard in members)
        for shard in members:
            assert set(groups[shard.units]) == {shard.group}
            assert shard.sizes.tolist() == SIZES[split][shard.units].tolist()
            assert shard.num_examples == sum(shard.sizes)
        units = np.concatenate([shard.units for shard in members])
        assert sorted(units) == list(range(len(groups)))
        assert list(dict.fromkeys(shard.group for shard in members)) == list(dict.fromkeys(groups))
    assert plan.num_shards == {"train": 3 + 3, "test": 1 + 1}  # 7 * 7 / 18 of each group, and 7 * 2 / 18


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
def test_workers_share_out_whole_groups(num_workers):
    plan = make_plan(groups=GROUPS, num_shards=7)
    parts = [plan.shards_of(worker, num_workers) for worker in range(num_workers)]
    names = [shard.filename for part in parts for shard in part]
    assert sorted(names) == sorted(shard.filename for shard in plan.shards())
    groups = [{shard.group for shard in part} for part in parts]
    for k, one in enumerate(groups):
        assert not any(one & other for other in groups[:k])
    assert [len(groups[k]) for k in range(min(num_workers, 3))] == {
        1: [3],
        2: [2, 1],
        3: [1] * 3,
        5: [1] * 3,
    }[num_workers]


def test_groups_change_the_plan_and_are_the_same_everywhere():
    plain, grouped = make_plan(), make_plan(groups=GROUPS)
    assert "groups" not in plain.describe()
    assert plain.digest != grouped.digest == make_plan(groups=GROUPS).digest
    other = {**GROUPS, "test": np.array(["a", "c", "a", "c"])}
    assert make_plan(groups=other).digest != grouped.digest
    first = grouped.shards()[0]
    assert (first.group, first.units.tolist()) == ("b", FIRST_OF_B)
    with pytest.raises(ValueError, match="split 'test': 4 units, but 3 names of groups"):
        make_plan(groups={**GROUPS, "test": GROUPS["test"][:3]})


FIRST_OF_B = [0, 1]  # as drawn when this was written: machines with other versions of NumPy must agree


def test_a_worker_of_groups_writes_no_other_and_all_write_what_one_does(tmp_path):
    plan = make_plan(groups=GROUPS, num_shards=7)
    build(tmp_path / "one", plan)
    for worker in (2, 0, 1):
        log = []
        missing, _ = build(
            tmp_path / "three", plan, worker=worker, num_workers=3, read=functools.partial(read, log=log)
        )
        assert {str(GROUPS[split][unit]) for split, unit in log} == {"bac"[worker]}
    assert missing == []
    assert files(tmp_path / "three") == files(tmp_path / "one")


class Choosy:
    """Leaves some units of `train` out."""

    def __init__(self, *units, late=False):
        self.units, self.late = units, late

    def __call__(self, split, unit):
        examples = list(read(split, unit))
        if self.late:
            yield examples[0]
        if split == "train" and unit in self.units:
            raise shards.LeftOut([["unit", unit], ["why", "it is bad"]])
        yield from examples[self.late :]


@pytest.mark.parametrize("processes", [1, 2])
def test_units_that_are_left_out_are_missing_and_noted(processes, whole, tmp_path):
    told = []

    def finish(left_out):
        told.append(left_out)
        info.metadata["left_out"] = len(left_out)
        return {"list.csv": b"a,b\n", "table.bin": bytes(3)}

    info = make_info(tmp_path)
    missing = shards.build(make_plan(), info, Choosy(1, 4), processes=processes, finish=finish)
    assert missing == []
    order = [
        unit for shard in make_plan().shards() if shard.split == "train" for unit in shard.units.tolist()
    ]
    wanted = [["unit", unit] for unit in order if unit in (1, 4)]
    assert told == [[record for one in wanted for record in (one, ["why", "it is bad"])]]
    folder = tmp_path / "made" / "1.0.0"
    assert (folder / "list.csv").read_bytes() == b"a,b\n"
    assert (folder / "table.bin").read_bytes() == bytes(3)
    builder = tfds.builder_from_directory(str(folder))
    assert builder.info.metadata["left_out"] == 4
    source = builder.as_data_source("train")
    found = {source[i]["id"].decode() for i in range(len(source))}
    kept = [unit for unit in range(7) if unit not in (1, 4)]
    wanted_examples = [e for unit in kept for e in read("train", unit)]
    assert found == {e["id"] for e in wanted_examples}
    assert len(source) == len(wanted_examples)
    total = sum(identity.checksum(e) for e in wanted_examples)
    assert builder.info.metadata["digests"]["train"] == f"{total % 2**64:016x}"
    shorter = files(tmp_path)
    assert {k: v for k, v in shorter.items() if "-test" in k} == {
        k: v for k, v in files(whole).items() if "-test" in k
    }


def test_a_shard_may_be_left_without_examples_but_not_a_split(tmp_path):
    first = make_plan().shards()[0].units.tolist()
    _, info = build(tmp_path / "some", read=Choosy(*first))
    assert info.splits["train"].shard_lengths[0] == 0
    builder = tfds.builder_from_directory(str(tmp_path / "some" / "made" / "1.0.0"))
    source = builder.as_data_source("train")
    assert len(source) == 14 - sum(SIZES["train"][first])
    assert all(source[i]["image"].shape == (3, 4, 2) for i in range(len(source)))
    with pytest.raises(
        ValueError, match=r"split 'train': all of its units were left out, such as \['unit', "
    ):
        build(tmp_path / "none", read=Choosy(*range(7)))
    assert not (tmp_path / "none" / "made" / "1.0.0").exists()


def test_a_unit_is_left_out_before_its_first_example_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError, match="unit 2 was left out after 1 examples of it"):
        build(tmp_path, read=Choosy(2, late=True))


def test_what_was_left_out_survives_a_kill_and_a_refusal_leaves_no_dataset(tmp_path):
    def refuses(left_out):
        raise ValueError(f"{len(left_out)} records: refused")

    info = make_info(tmp_path)
    with pytest.raises(ValueError, match="4 records: refused"):
        shards.build(make_plan(), info, Choosy(1, 4), finish=refuses)
    assert not (tmp_path / "made" / "1.0.0").exists()
    told = []
    shards.build(
        make_plan(), info, None, finish=lambda left_out: told.extend(left_out) or {}
    )  # reads nothing again
    assert len(told) == 4
    assert info.splits["train"].num_examples == 14 - SIZES["train"][[1, 4]].sum()


def test_checksums_tell_cells_on_plates_apart():
    one = {
        "id": "P-A01-1-0003",
        "compound": "c",
        "cell": 3,
        "center": np.array([1.5, 2.0]),
        "image": np.eye(3),
    }
    changed = [
        one | {"id": "P-A01-1-0004"},
        one | {"compound": "d"},
        one | {"cell": 4},
        one | {"center": np.array([1.5, 2.0 + 1e-12])},
        one | {"image": np.eye(3) * 2},
    ]
    field = {k: v for k, v in one.items() if k not in ("cell", "center")}
    field |= {"cells": np.array([3, 4]), "centers": np.array([[1.5, 2.0], [3.0, 4.0]])}
    changed += [field, field | {"cells": np.array([3, 5])}, field | {"centers": field["centers"] + 1}]
    assert len({identity.checksum(e) for e in [one, *changed]}) == 9
