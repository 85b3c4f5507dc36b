"""Images straight out of ArrayRecord records, without decoding the rest of each example.

    source = builder.as_data_source("train").data_source            # serialized examples, by position
    images = records.read_images(source, rows, name="image", shape=(520, 696, 5), dtype=np.uint16)

A record is a serialized `tf.train.Example`: a map from feature names to values, in which an image is one string of
bytes. Parsing all of it with protobuf copies a 3.6 MB image two or three times; here it is copied once, to its place.
"""

import concurrent.futures
from collections.abc import Sequence
from typing import Any

import numpy as np


def read_images(
    source: Any,
    rows: Sequence[int] | np.ndarray,
    *,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype | type,
    pool: concurrent.futures.Executor | None = None,
) -> np.ndarray:
    """(len(rows), *shape) of `dtype`: the feature `name`, stored with `encoding="bytes"`, of these records.

    Args:
        source: gives the serialized example at a position, `source[row]`.
        rows: (N,) positions, in the order of the result; they may repeat.
        name: of the feature.
        shape: of one image, as in the description of the dataset.
        dtype: likewise.
        pool: threads that share the reading and copying; None: this thread does it.

    Raises:
        ValueError: a record without this feature, or one of another size.
    """
    images = np.empty((len(rows), *shape), dtype)

    def read(place: int) -> None:
        data = bytes_feature(source[int(rows[place])], name)
        if len(data) != images[place].nbytes:
            raise ValueError(
                f"record {rows[place]}: {name!r} has {len(data)} bytes, not {images[place].nbytes}"
            )
        images[place] = np.frombuffer(data, dtype).reshape(shape)

    for _ in (map if pool is None else pool.map)(read, range(len(rows))):
        pass
    return images


def bytes_feature(record: bytes, name: str) -> memoryview:
    """The bytes of a feature of a serialized `tf.train.Example`, as a view of `record`.

    Protobuf writes a message as fields: a tag byte, the length as a varint, the content. An example is field 1, the
    map; each of its entries is field 1 again, with the name as field 1 and the value as field 2; the value is field 1,
    a list of bytes, whose first element is field 1.
    """
    key = name.encode()
    start, stop = _field(record, 0)
    while start < stop:
        entry, end = _field(record, start)
        first, last = _field(record, entry)
        if record[first:last] == key:
            value, _ = _field(record, last)
            values, _ = _field(record, value)
            first, last = _field(record, values)
            return memoryview(record)[first:last]
        start = end
    raise ValueError(f"a record has no feature {name!r}")


def _field(record: bytes, position: int) -> tuple[int, int]:
    """Start and end of the content of the field at `position`: behind its tag comes the length, 7 bits per byte."""
    length = shift = 0
    while True:
        position += 1
        length |= (record[position] & 127) << shift
        if record[position] < 128:
            return position + 1, position + 1 + length
        shift += 7
