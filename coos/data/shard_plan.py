"""Which examples of a dataset stand in which shard: a plan that every machine makes for itself, and all make alike.

A *unit* is what is read at once, such as a raw file; it gives one example or several (the cells of a field). The plan
is a function of its arguments alone, so machines that see the same files need not talk to each other.

Units may belong to *groups*, such as plates: then no shard holds units of two groups, and workers share out whole
groups, so that a machine reads the raw files of its own alone.
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
    """One file: the positions of its `units` among those of its split, in the order in which they are read.

    `sizes` are the examples of each unit, `num_examples` their sum; `group` is that of all units, "" without groups.
    """

    split: str
    number: int
    units: np.ndarray
    sizes: np.ndarray
    num_examples: int
    filename: str
    group: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Which units make up which shard; make one with `make_plan`.

    `sizes` are the examples of every unit (U,) by split, `num_shards` the shards by split, and `recipe` says what the
    examples are made of, as JSON can hold it: another recipe is another plan. `groups` are the names of the units'
    groups (U,) by split, if they have any, and `group_shards` how many shards each group has.
    """

    name: str
    sizes: Mapping[str, np.ndarray]
    num_shards: Mapping[str, int]
    recipe: Mapping[str, Any]
    seed: int
    groups: Mapping[str, np.ndarray] | None = None
    group_shards: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)

    def shards(self) -> list[Shard]:
        """All shards: the units of a split in an order drawn with the seed, cut in pieces of as many units."""
        return [shard for split in self.sizes for shard in self._shards_of(split)]

    def shards_of(self, worker: int, num_workers: int) -> list[Shard]:
        """Those that one of N workers writes: every N-th, or those of every N-th group in the order of the units."""
        everything = self.shards()
        if self.groups is None:
            return everything[worker::num_workers]
        own = set(list(dict.fromkeys(shard.group for shard in everything))[worker::num_workers])
        return [shard for shard in everything if shard.group in own]

    def _shards_of(self, split: str) -> Iterator[Shard]:
        sizes, total = self.sizes[split], self.num_shards[split]
        for number, (group, units) in enumerate(self._pieces(split)):
            filename = f"{self.name}-{split}.array_record-{number:05d}-of-{total:05d}"
            yield Shard(split, number, units, sizes[units], int(sizes[units].sum()), filename, group)

    def _pieces(self, split: str) -> Iterator[tuple[str, np.ndarray]]:
        """The group and the units of every shard of a split; groups come in the order of their first units."""
        seed = [self.seed, zlib.crc32(split.encode())]
        if self.groups is None:
            order = np.random.default_rng(seed).permutation(len(self.sizes[split]))
            yield from (("", units) for units in np.array_split(order, self.num_shards[split]))
            return
        for group, members in _members(self.groups[split]).items():
            order = np.random.default_rng([*seed, zlib.crc32(group.encode())]).permutation(members)
            yield from ((group, units) for units in np.array_split(order, self.group_shards[split][group]))

    def describe(self) -> dict[str, Any]:
        """The plan as JSON; two plans with equal descriptions write the same files."""
        grouped = (
            {} if self.groups is None else {"groups": {s: _names_digest(g) for s, g in self.groups.items()}}
        )
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
                **grouped,
            }
        )

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the description."""
        return _digest(json.dumps(self.describe(), sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _names_digest(names: np.ndarray) -> str:
    return _digest("\n".join(names.tolist()).encode())


def _members(groups: np.ndarray) -> dict[str, np.ndarray]:
    """The units of every group, in one pass; groups come in the order of their first units."""
    names, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    by_group = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
    return {str(names[k]): by_group[k] for k in np.argsort(first)}


def make_plan(
    name: str,
    sizes: Mapping[str, np.ndarray],
    *,
    example_bytes: int,
    recipe: Mapping[str, Any],
    num_shards: int | None = None,
    seed: int = 0,
    groups: Mapping[str, np.ndarray] | None = None,
) -> Plan:
    """Plan the shards of a dataset.

    Args:
        name: of the dataset; file names start with it.
        sizes: (U,) examples of every unit, at least one each, by split.
        example_bytes: about how many bytes an example takes.
        recipe: what the examples are made of.
        num_shards: about how many shards in all, shared out by examples; None: as many as make 512 MB each.
            Every split and every group has at least one, and every shard at least one unit.
        seed: of the order of the units.
        groups: (U,) the name of every unit's group, by split; shards never cross groups.

    Raises:
        ValueError: a split without units, a unit without examples or group, or less than one shard.
    """
    sizes = {split: np.asarray(counts, np.int64) for split, counts in sizes.items()}
    for split, counts in sizes.items():
        if not len(counts) or counts.min() < 1:
            raise ValueError(f"split {split!r}: needs units, all with examples; has {len(counts)} units")
        if groups is not None and len(groups[split]) != len(counts):
            raise ValueError(
                f"split {split!r}: {len(counts)} units, but {len(groups[split])} names of groups"
            )
    if num_shards is not None and num_shards < 1:
        raise ValueError(f"num_shards={num_shards}: must be positive")
    total = sum(int(counts.sum()) for counts in sizes.values())
    wanted = num_shards or total * example_bytes / SHARD_BYTES

    def shards_for(counts: np.ndarray) -> int:
        return min(math.ceil(wanted * int(counts.sum()) / total), len(counts))

    if groups is None:
        return Plan(name, sizes, {split: shards_for(counts) for split, counts in sizes.items()}, recipe, seed)
    groups = {split: np.asarray(groups[split], np.str_) for split in sizes}
    by_group = {
        split: {group: shards_for(counts[units]) for group, units in _members(groups[split]).items()}
        for split, counts in sizes.items()
    }
    totals = {split: sum(counts.values()) for split, counts in by_group.items()}
    return Plan(name, sizes, totals, recipe, seed, groups, by_group)
