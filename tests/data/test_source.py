"""The memory-mapped cache: the same examples as the store, rebuilt when the store changes."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from coos.data import source


def test_cache_holds_the_store(dataset):
    cached = source.load(dataset, "test3")
    store = tfds.builder_from_directory(str(dataset)).as_data_source("test3")
    assert len(cached) == len(store)
    assert cached.images.dtype == np.uint16
    for i in range(0, len(store), 7):
        np.testing.assert_array_equal(cached.images[i], store[i]["image"])
        assert cached.labels[i] == store[i]["label"]
        assert cached.ids[i] == store[i]["id"].decode()
    assert len(set(cached.ids.tolist())) == len(cached)


def test_cache_is_used_again_and_rebuilt_when_stale(dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns("cache"))
    source.load(copy, "test1")
    (folder,) = (copy / "cache").iterdir()
    stamp = (folder / "images.npy").stat().st_mtime_ns
    source.load(copy, "test1")
    assert (folder / "images.npy").stat().st_mtime_ns == stamp
    for shard in copy.glob("*test1*"):
        shard.touch()
    source.load(copy, "test1")
    (rebuilt,) = (copy / "cache").iterdir()
    assert rebuilt != folder


def test_killed_while_caching_leaves_no_cache(dataset, tmp_path, monkeypatch):
    def killed(directory, split, folder, *others, **options):
        (folder / "images.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(source, "_decode", killed)
    with pytest.raises(KeyboardInterrupt):
        source.load(dataset, "test2", cache_dir=tmp_path / "cache")
    monkeypatch.undo()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(source.load(dataset, "test2", cache_dir=tmp_path / "cache")) > 0


def test_errors_say_what_to_do(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"no built dataset .*; run experiments/build.py"):
        source.load(tmp_path, "training")
    with pytest.raises(ValueError, match="no split 'test5'; it has"):
        source.load(dataset, "test5")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"cannot write the cache .*; set config.data.cache_dir"):
        source.load(dataset, "test1", cache_dir=tmp_path / "file" / "cache")


def test_datasets_that_share_a_cache_folder_leave_each_other_alone(dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns("cache"))
    for _ in range(2):
        for directory in (dataset, copy):
            source.load(directory, "test1", cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*/test1-*"))) == 2


def test_digests_tell_cells_apart_and_not_their_order(dataset):
    from coos.data.identity import identified

    cells = [
        (str(i), {"id": str(i), "label": i % 2, "image": np.full((2, 2), i, np.uint16)}) for i in range(5)
    ]

    def digest(examples):
        metadata = {}
        assert len(list(identified("train", examples, metadata, num_classes=2))) == len(examples)
        return metadata["digests"]["train"], metadata["class_counts"]["train"]

    assert digest(cells) == digest(cells[::-1])
    assert digest(cells)[1] == [3, 2]
    changed = [*cells[:4], ("4", {**cells[4][1], "label": 1})]
    assert digest(cells)[0] != digest(changed)[0]
    assert digest(cells)[0] != digest(cells[:4])[0]
    assert len(set(source.describe(dataset)["digests"].values())) == 5


def test_images_from_the_records_are_those_of_the_cache(dataset, tmp_path, monkeypatch):
    cached = source.load(dataset, "test1", cache_dir=tmp_path, store="cache")
    read = source.load(dataset, "test1", cache_dir=tmp_path, store="records")
    assert (read.images.shape, read.images.dtype) == (cached.images.shape, cached.images.dtype)
    assert not list(tmp_path.glob("*/*columns*/images.npy"))
    rows = np.array([[5, 0], [3, 5]])
    np.testing.assert_array_equal(read.gather(rows), cached.gather(rows))
    np.testing.assert_array_equal(read.ids, cached.ids)
    np.testing.assert_array_equal(read.labels, cached.labels)
    assert len(list(tmp_path.glob("*/test1-*"))) == 2  # neither takes the other for stale
    monkeypatch.setattr(
        source, "LARGE_SPLIT", len(cached) * 64 * 64 * 2 * 2
    )  # bytes: just too large for a copy
    large = source.load(dataset, "test1", cache_dir=tmp_path / "auto")
    assert not list((tmp_path / "auto").glob("*/*/images.npy"))
    np.testing.assert_array_equal(large.gather(rows), cached.gather(rows))
    with pytest.raises(ValueError, match="store='disk': choose one of"):
        source.load(dataset, "test1", store="disk")
