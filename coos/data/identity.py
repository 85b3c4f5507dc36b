"""Which data is this? Digests of what was built, and of the raw files it was built from."""

import hashlib
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np


def identified(
    split: str, examples: Iterable[tuple[str, Any]], metadata: Any, *, num_classes: int
) -> Iterator[Any]:
    """Pass (key, example) on; at the end note the split's digest and its examples per class in `metadata`.

    The digest is the sum of `checksum` over examples, modulo 2**64: the same for the same examples in any order.
    Two data sets with equal digests hold the same cells.
    """
    total, counts = 0, [0] * num_classes
    for key, example in examples:
        total += checksum(example)
        counts[example["label"]] += 1
        yield key, example
    metadata.setdefault("digests", {})[split] = as_digest(total)
    metadata.setdefault("class_counts", {})[split] = counts


def checksum(example: Mapping[str, Any]) -> int:
    """CRC-32 of id, label and values of one example.

    The label is `label`, or the sparse `label_positions` (n,) and `label_values` (n,) of several tasks, or of cells on
    plates the `compound` with `cell` and `center` (2,), or `cells` (n,) and `centers` (n, 2), or of whole fields the
    `compound`, `concentration`, `control` and `class_name`; the values are those of `image` or `profile`, as bytes.
    """
    if "label" in example:
        head = zlib.crc32(f"{example['id']} {example['label']}".encode())
    elif "label_positions" in example:
        positions = np.asarray(example["label_positions"], "<i4").tobytes()
        values = np.asarray(example["label_values"], "<i1").tobytes()
        head = zlib.crc32(values, zlib.crc32(positions, zlib.crc32(f"{example['id']} ".encode())))
    elif "field" in example:
        known = ("id", "compound", "concentration", "control", "class_name")
        head = zlib.crc32(" ".join(str(example[name]) for name in known).encode())
    else:
        several = "cells" in example
        rows = np.asarray(example["cells" if several else "cell"], "<i4").tobytes()
        centers = np.asarray(example["centers" if several else "center"], "<f8").tobytes()
        text = f"{example['id']} {example['compound']}".encode()
        head = zlib.crc32(centers, zlib.crc32(rows, zlib.crc32(text)))
    array = np.ascontiguousarray(example["image" if "image" in example else "profile"])
    return zlib.crc32(array.reshape(-1).view(np.uint8).data, head)


def as_digest(total: int) -> str:
    """A sum of checksums, modulo 2**64, as 16 hexadecimal digits."""
    return f"{total % 2**64:016x}"


def stamp(path: str | os.PathLike) -> tuple[str | int, ...]:
    """Path, size and modification time of a file, or that it is missing."""
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return str(path), "missing"
    return str(path), stat.st_size, stat.st_mtime_ns


def files_digest(paths: Iterable[pathlib.Path]) -> str:
    """Hash of the names, sizes and modification times of files, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
