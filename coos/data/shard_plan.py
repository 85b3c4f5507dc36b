"""Which examples of a dataset stand in which shard: a plan that every machine makes for itself, and all make alike.

A *unit* is what is read at once, such as a raw file; it gives one example or several (the cells of a field). The plan
is a function of its arguments alone, so machines that see the same files need not talk to each other.
"""

import dataclasses
import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from coos import workdir

SHARD_BYTES = 512 * 2**20
# Raw 16-bit microscopy shrinks by a quarter at best, and then is written 4 to 20 and read 2 to 3 times as slowly.
WRITER_OPTIONS = "group_size:1,uncompressed"


class Shard(NamedTuple):
    """One file: the positions of its `units` among those of its split, in the order in which they are read."""

    split: str
    number: int
    units: np.ndarray
    num_examples: int
    filename: str


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Which units make up which shard; make one with `make_plan`.

    `sizes` are the examples of every unit (U,) by split, `num_shards` the shards by split, and `recipe` says what the
    examples are made of, as JSON can hold it: another recipe is another plan.
    """

    name: str
    sizes: Mapping[str, np.ndarray]
    num_shards: Mapping[str, int]
    recipe: Mapping[str, Any]
    seed: int

    def shards(self) -> list[Shard]:
        """All shards: the units of a split in an order drawn with the seed, cut in pieces of as many units."""
        return [shard for split in self.sizes for shard in self._shards_of(split)]

    def _shards_of(self, split: str) -> Iterator[Shard]:
        sizes, total = self.sizes[split], self.num_shards[split]
        order = np.random.default_rng([self.seed, zlib.crc32(split.encode())]).permutation(len(sizes))
        for number, units in enumerate(np.array_split(order, total)):
            filename = f"{self.name}-{split}.array_record-{number:05d}-of-{total:05d}"
            yield Shard(split, number, units, int(sizes[units].sum()), filename)

    def describe(self) -> dict[str, Any]:
        """The plan as JSON; two plans with equal descriptions write the same files."""
        return workdir.plain(
            {
                "name": self.name,
                "seed": self.seed,
                "units": {split: len(sizes) for split, sizes in self.sizes.items()},
                "examples": {split: int(sizes.sum()) for split, sizes in self.sizes.items()},
                "sizes": {
                    split: _digest(np.asarray(sizes, "<i8").tobytes()) for split, sizes in self.sizes.items()
                },
                "shards": self.num_shards,
                "writer": WRITER_OPTIONS,
                "recipe": self.recipe,
            }
        )

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the description."""
        return _digest(json.dumps(self.describe(), sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def make_plan(
    name: str,
    sizes: Mapping[str, np.ndarray],
    *,
    example_bytes: int,
    recipe: Mapping[str, Any],
    num_shards: int | None = None,
    seed: int = 0,
) -> Plan:
    """Plan the shards of a dataset.

    Args:
        name: of the dataset; file names start with it.
        sizes: (U,) examples of every unit, at least one each, by split.
        example_bytes: about how many bytes an example takes.
        recipe: what the examples are made of.
        num_shards: about how many shards in all, shared out by examples; None: as many as make 512 MB each.
            Every split has at least one, and every shard at least one unit.
        seed: of the order of the units.

    Raises:
        ValueError: a split without units, a unit without examples, or less than one shard.
    """
    sizes = {split: np.asarray(counts, np.int64) for split, counts in sizes.items()}
    for split, counts in sizes.items():
        if not len(counts) or counts.min() < 1:
            raise ValueError(f"split {split!r}: needs units, all with examples; has {len(counts)} units")
    if num_shards is not None and num_shards < 1:
        raise ValueError(f"num_shards={num_shards}: must be positive")
    total = sum(int(counts.sum()) for counts in sizes.values())
    wanted = num_shards or total * example_bytes / SHARD_BYTES
    shards = {s: math.ceil(wanted * int(counts.sum()) / total) for s, counts in sizes.items()}
    limited = {split: min(count, len(sizes[split])) for split, count in shards.items()}
    return Plan(name, sizes, limited, recipe, seed)
