"""Indices, chunks and evaluation batches: every example, in shuffled order, resumable, never padded silently."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

from coos.data import pipeline
from coos.data.source import Source


@pytest.fixture
def source():
    images = np.arange(50 * 2 * 2 * 1, dtype=np.uint16).reshape(50, 2, 2, 1)
    labels, ids = np.arange(50, dtype=np.int32) % 3, np.array([f"cell{i}" for i in range(50)])
    dataset = {"class_names": ["a", "b", "c"], "channels": ["dna"]}
    return Source(images, labels, ids, np.arange(50), dataset)


def take(iterator, number):
    return np.concatenate([next(iterator) for _ in range(number)])


def test_every_epoch_is_another_permutation_of_all_examples():
    sequence = take(pipeline.index_iterator(48, batch_size=16, seed=1), 9)
    epochs = sequence.reshape(3, 48)
    for epoch in epochs:
        assert sorted(epoch) == list(range(48))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])
    assert not np.array_equal(epochs[0], np.arange(48))


def test_seed_decides_and_epochs_need_not_fill_batches():
    same = [take(pipeline.index_iterator(50, batch_size=16, seed=s), 25) for s in (1, 1, 2)]
    np.testing.assert_array_equal(same[0], same[1])
    assert not np.array_equal(same[0], same[2])
    assert (np.bincount(same[0], minlength=50) == 8).all()


def test_balanced_epochs_have_the_median_count_of_every_class():
    labels = np.repeat([0, 1, 3], [4, 10, 30])  # class 2 has no example
    iterator = pipeline.index_iterator(44, batch_size=10, seed=1, balance=labels)
    epochs = take(iterator, 6).reshape(2, 30)
    for epoch in epochs:
        assert np.bincount(labels[epoch]).tolist() == [10, 10, 0, 10]
        assert sorted(epoch[labels[epoch] == 1]) == list(range(4, 14))  # the median class: each example once
        assert len(set(epoch[labels[epoch] == 3].tolist())) == 10  # a larger one: without replacement
        assert set(epoch[labels[epoch] == 0].tolist()) <= set(range(4))
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())
    assert not np.array_equal(np.sort(labels[epochs[0]]), labels[epochs[0]])
    assert pipeline.examples_per_epoch(44, 1.0, balance=labels) == 30
    with pytest.raises(ValueError, match="a balanced epoch has a size of its own"):
        pipeline.examples_per_epoch(44, 0.5, balance=labels)


def test_iterator_resumes_where_its_state_says():
    iterator = pipeline.index_iterator(50, batch_size=8, seed=0)
    take(iterator, 7)
    state = iterator.get_state()
    expected = take(iterator, 20)
    resumed = pipeline.index_iterator(50, batch_size=8, seed=0)
    resumed.set_state(state)
    np.testing.assert_array_equal(take(resumed, 20), expected)


def test_processes_share_each_batch(monkeypatch):
    whole = take(pipeline.index_iterator(48, batch_size=16, seed=5), 6).reshape(6, 16)
    parts = []
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    for process in range(4):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        parts.append(take(pipeline.index_iterator(48, batch_size=16, seed=5), 6).reshape(6, 4))
    together = np.concatenate(parts, axis=1)
    np.testing.assert_array_equal(np.sort(together, axis=1), np.sort(whole, axis=1))
    with pytest.raises(ValueError, match="batch_size=18 cannot be divided among 4 processes"):
        pipeline.index_iterator(48, batch_size=18, seed=0)


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="10 training examples do not fill one batch of 16"):
        pipeline.index_iterator(10, batch_size=16, seed=0)


def test_chunks_carry_images_labels_and_the_state_after_them(source):
    iterator = pipeline.index_iterator(50, batch_size=16, seed=0)
    first, second = pipeline.chunks(iterator, source, lengths=iter((3, 1)), resident=False)
    assert first.batch["image"].shape == (8, 3, 2, 2, 2, 1)
    assert first.batch["image"].dtype == np.uint16
    numbers = np.moveaxis(np.asarray(first.batch["example"]), 0, 1).reshape(3, 16)
    np.testing.assert_array_equal(numbers, first.examples)
    images = np.moveaxis(np.asarray(first.batch["image"]), 0, 1).reshape(3, 16, 2, 2, 1)
    np.testing.assert_array_equal(images, source.images[first.examples])
    labels = np.moveaxis(np.asarray(second.batch["label"]), 0, 1).reshape(1, 16)
    np.testing.assert_array_equal(labels, source.labels[second.examples])
    resumed = pipeline.index_iterator(50, batch_size=16, seed=0)
    resumed.set_state(first.iterator_state)
    np.testing.assert_array_equal(next(resumed), second.examples[0])


def test_subset_keeps_ids_labels_and_images_together(source):
    source = dataclasses.replace(source, columns={"well": source.ids})
    part = source.subset(np.array([7, 3, 40])).subset(np.array([2, 0]))
    assert part.columns["well"].tolist() == part.ids.tolist()
    assert part.ids.tolist() == ["cell40", "cell7"]
    np.testing.assert_array_equal(part.labels, [40 % 3, 7 % 3])
    np.testing.assert_array_equal(part.gather(np.array([1, 0])), source.images[[7, 40]])
    assert part.num_bytes == 2 * 8


def test_batch_that_devices_cannot_share_is_refused(source):
    iterator = pipeline.index_iterator(50, batch_size=12, seed=0)
    with pytest.raises(ValueError, match="a batch of 12 cannot be divided among 8 local devices"):
        next(pipeline.chunks(iterator, source, lengths=iter((1,)), resident=True))


@pytest.mark.parametrize("processes", [1, 3])
def test_evaluation_sees_every_example_once_and_pads_under_the_mask(processes, source, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    found, batches = [], set()
    for process in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        here = list(pipeline.evaluation_batches(source, batch_size=16))
        batches.add(len(here))
        for numbers, batch in here:
            mask = np.asarray(batch["mask"]).reshape(-1)
            assert mask.sum() == len(numbers)
            images = np.asarray(batch["image"]).reshape(16, 2, 2, 1)
            np.testing.assert_array_equal(images[mask], source.images[numbers])
            found.extend(numbers.tolist())
    assert sorted(found) == list(range(50))
    assert len(batches) == 1


def test_where_images_live(source):
    assert pipeline.fits_on_device(source, mode="auto")
    assert not pipeline.fits_on_device(source, mode="stream")
    assert pipeline.fits_on_device(source, mode="resident")
    with pytest.raises(ValueError, match="data mode 'disk': choose"):
        pipeline.fits_on_device(source, mode="disk")


def test_too_much_for_the_device_streams(source, monkeypatch):
    monkeypatch.setattr(pipeline, "RESIDENT_BYTES_ON_CPU", source.num_bytes * 8 - 1)
    assert not pipeline.fits_on_device(source, mode="auto")


def test_prefetch_keeps_order_and_raises_what_the_producer_raised():
    def broken():
        yield from range(5)
        raise OSError("disk gone")

    assert list(pipeline.prefetch(iter(range(100)))) == list(range(100))
    received = []
    with pytest.raises(OSError, match="disk gone"):
        received.extend(pipeline.prefetch(broken()))
    items = pipeline.prefetch(broken())
    assert [next(items) for _ in range(5)] == list(range(5))


def test_prefetch_thread_ends_when_nobody_reads_on():
    before = threading.active_count()
    items = pipeline.prefetch(iter(range(10**9)))
    assert next(items) == 0
    items.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before
