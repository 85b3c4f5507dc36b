"""The records of one shard: examples read from raw files, serialized, mixed, and written as ArrayRecord."""

import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from coos.data import identity
from coos.data.shard_plan import WRITER_OPTIONS, Shard

Read = Callable[[str, int], Iterable[Mapping[str, Any]]]


class LeftOut(Exception):
    """Raised by `read` before its first example: the unit is left out of the dataset, for these reasons.

    `records` are what JSON can hold; they reach the `finish` of `build`, in the order of the shards and their units.
    """

    def __init__(self, records: Sequence[Any]):
        super().__init__(records)
        self.records = list(records)


def records(
    shard: Shard, features: Any, read: Read, left_out: dict[int, list[Any]]
) -> Iterator[tuple[bytes, int]]:
    """(serialized example, its checksum); those of units with several are mixed within the shard.

    Units that are left out are noted in `left_out`, by their place in the shard.
    """
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())

    def serialize(example: Mapping[str, Any]) -> bytes:
        # As TFDS does, but with the features in order, so that all processes write the same bytes.
        return serializer.get_tf_example(features.encode_example(example)).SerializeToString(
            deterministic=True
        )

    made = ((serialize(example), identity.checksum(example)) for example in _examples(shard, read, left_out))
    if shard.num_examples == len(shard.units):
        yield from made
        return
    held = list(made)
    for position in np.random.default_rng(shard.number).permutation(len(held)):
        yield held[position]


def _examples(shard: Shard, read: Read, left_out: dict[int, list[Any]]) -> Iterator[Mapping[str, Any]]:
    """The examples of all units of a shard but those that are left out: as many as planned."""
    count, planned = 0, shard.num_examples
    for place, unit in enumerate(shard.units.tolist()):
        before = count
        try:
            for example in read(shard.split, unit):
                count += 1
                yield example
        except LeftOut as reason:
            if count > before:
                raise RuntimeError(
                    f"unit {unit} was left out after {count - before} examples of it"
                ) from reason
            left_out[place] = reason.records
            planned -= int(shard.sizes[place])
    if count != planned:
        raise ValueError(f"{shard.filename}: {count} examples instead of {planned}; did files change?")


def write(path: pathlib.Path, records: Iterable[tuple[bytes, int]]) -> tuple[int, int]:
    """Write the records, see that they are all on disk; returns their number and the sum of their checksums."""
    writer, checksum, count = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS), 0, 0
    try:
        for record, one in records:
            writer.write(record)
            checksum, count = checksum + one, count + 1
    finally:
        writer.close()
    reader = array_record_module.ArrayRecordReader(str(path))
    written = reader.num_records()
    reader.close()
    if written != count:
        raise OSError(f"{path}: {written} of {count} records on disk; is the disk full?")
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return count, checksum
