"""Splits of a data set that can be written down: which example belongs where, by id."""

import csv
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from coos import workdir


class Fold(NamedTuple):
    """One division for training and testing: sorted positions, and a name of its own."""

    name: str
    training: np.ndarray
    test: np.ndarray


def repeated_hold_out(
    labels: np.ndarray, groups: np.ndarray, *, fraction: float, repeats: int, seed: int
) -> list[Fold]:
    """`repeats` random divisions, each stratified by class, that hold out whole groups (Godinez et al. 2017, 2.4).

    In each, `fraction` of the groups of every class train (rounded, at least one on either side) and the others test.
    A group is a well, whose fields belong together, or a single field. Repeat r depends on groups, labels, seed and r
    alone: asking for more repeats does not change the first ones.

    Args:
        labels: (N,) int class of each example.
        groups: (N,) str name of each example's group.

    Raises:
        ValueError: a group with two classes, a class with a single group, or numbers out of range.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: must be at least 1")
    names, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    mixed = np.flatnonzero(labels != labels[first][group_of])
    if len(mixed):
        raise ValueError(
            f"group {groups[mixed[0]]} has examples of two classes; what is held out together needs one"
        )
    folds = []
    for repeat in range(repeats):
        known, _ = stratified(labels[first], names, fraction=fraction, seed=(seed, repeat))
        training = np.isin(group_of, known)
        folds.append(Fold(f"repeat-{repeat:03d}", np.flatnonzero(training), np.flatnonzero(~training)))
    return folds


def leave_one_out(groups: np.ndarray) -> list[Fold]:
    """A fold for every group, sorted by name: it tests, all others train (leave-one-compound-out: Ljosa et al. 2013).

    ValueError for fewer than two groups.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(f"leaving one out needs at least two groups; there is {names.tolist()}")
    return [Fold(str(name), np.flatnonzero(groups != name), np.flatnonzero(groups == name)) for name in names]


def stratified(
    labels: np.ndarray, ids: np.ndarray, *, fraction: float, seed: int | Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Split examples in two, keeping the share of every class (Lu et al. 2019, section 3.1: 80 / 20).

    Returns the sorted positions of the first part, which holds `fraction` of each class (rounded, at least
    one example on either side), and of the second. The result depends on ids, labels and seed, not on the
    order of the rows.

    Raises:
        ValueError: `fraction` outside (0, 1), or a class with a single example.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction={fraction}: must lie between 0 and 1")
    generator = np.random.default_rng(seed)
    first: list[int] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise ValueError(f"class {label} has one example ({ids[members[0]]}); a split needs two")
        members = members[np.argsort(ids[members], kind="stable")]
        count = int(np.clip(round(fraction * len(members)), 1, len(members) - 1))
        first.extend(generator.permutation(members)[:count])
    chosen = np.zeros(len(labels), bool)
    chosen[first] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def by_group(groups: Sequence[str], *, fractions: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Split members so that no group stands in two parts: all of a scaffold, a donor or a plate go together.

    Groups are taken from the largest to the smallest, those of one size in an order drawn with `seed`, and each goes
    to the part that lacks most of the members it should get (fraction * N). Groups of one member each are therefore
    split at random, with the fractions met within one member; large groups end up in the large part.

    Args:
        groups: (N,) name of each member's group.
        fractions: the share of members of every part, by its name; they add up to 1.
        seed: of the order of groups of one size.

    Returns:
        The sorted positions of every part's members. Which members a part gets depends on the groups and the seed,
        not on the order of the members.

    Raises:
        ValueError: fractions that are not positive or do not add up to 1, or a part that would get no member.
    """
    _check_fractions(fractions)
    names, group_of, sizes = np.unique(np.asarray(groups, np.str_), return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    parts = list(fractions)
    lacking = np.array([fractions[part] for part in parts]) * len(groups)
    part_of_group = np.zeros(len(names), np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        part_of_group[group] = np.argmax(lacking)
        lacking[part_of_group[group]] -= sizes[group]
    split = {part: np.flatnonzero(part_of_group[group_of] == k) for k, part in enumerate(parts)}
    refuse_empty(split)
    return split


def _check_fractions(fractions: Mapping[str, float]) -> None:
    if (
        not all(0 < fraction <= 1 for fraction in fractions.values())
        or abs(sum(fractions.values()) - 1) > 1e-6
    ):
        raise ValueError(f"fractions {dict(fractions)}: must be positive and add up to 1")


def refuse_empty(parts: Mapping[str, Sequence | np.ndarray]) -> None:
    """Raise ValueError if a part of a split has no member."""
    sizes = {name: len(members) for name, members in parts.items()}
    for name, size in sizes.items():
        if not size:
            raise ValueError(f"part {name!r} of the split would be empty; members by part: {sizes}")


def check_disjoint(parts: Mapping[str, Iterable[str]], *, what: str) -> None:
    """Raise ValueError unless no name stands in two parts; `what` says what the names are."""
    first: dict[str, str] = {}
    for part, names in parts.items():
        shared = sorted(name for name in set(names) if first.setdefault(name, part) != part)
        if shared:
            raise ValueError(
                f"split: {len(shared)} {what}s stand in {part!r} and in another part, such as {shared[0]} in "
                f"{first[shared[0]]!r}; every {what} must stand in one part"
            )


def load_lists(
    folder: str | os.PathLike, parts: Sequence[str], *, columns: Sequence[str]
) -> tuple[str, dict[str, list[str]]]:
    """Read a split given as one file per part: `<folder>/<part>.csv` with one of `columns`.

    Returns the first of `columns` that all files have, and its values by part.

    Raises:
        ValueError: a file is missing, the files have none of the columns in common, a value is empty, or one
            stands there twice.
    """
    tables = {part: _read_columns(pathlib.Path(folder, f"{part}.csv")) for part in parts}
    common = [column for column in columns if all(column in table for table in tables.values())]
    if not common:
        found = {part: list(table) for part, table in tables.items()}
        raise ValueError(f"{folder}: none of the columns {list(columns)} is in all files; found {found}")
    for part, table in tables.items():
        _refuse_repeated(pathlib.Path(folder, f"{part}.csv"), table[common[0]])
    return common[0], {part: table[common[0]] for part, table in tables.items()}


def _read_columns(path: pathlib.Path) -> dict[str, list[str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            table: dict[str, list[str]] = {name: [] for name in rows.fieldnames or ()}
            for row in rows:
                for name in table:
                    table[name].append((row[name] or "").strip())
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; a given split has one file for every part") from None
    return table


def _refuse_repeated(path: pathlib.Path, values: Sequence[str]) -> None:
    lines: dict[str, int] = {}
    for line, value in enumerate(values, start=2):
        if not value:
            raise ValueError(f"{path}, line {line}: empty")
        if lines.setdefault(value, line) != line:
            raise ValueError(f"{path}, line {line}: {value} is on line {lines[value]} already")


def save(path: str | os.PathLike, parts: dict[str, np.ndarray]) -> None:
    """Write a split as CSV with columns id, part; `parts` maps the name of a part to its ids."""
    rows = [(identifier, name) for name, ids in parts.items() for identifier in ids]

    def write(file) -> None:
        csv.writer(file).writerows([("id", "part"), *rows])

    workdir.write_atomically(path, write)


def load(path: str | os.PathLike, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Read a split back as positions in `ids`; every id must stand in the file, and no other.

    Raises:
        ValueError: the file and `ids` do not hold the same examples, i.e. the data set has changed.
    """
    with open(pathlib.Path(path), newline="") as file:
        recorded = {row["id"]: row["part"] for row in csv.DictReader(file)}
    different = set(recorded).symmetric_difference(ids.tolist())
    if different:
        raise ValueError(
            f"{path}: was recorded for other examples: {len(different)} ids differ, such as "
            f"{sorted(different)[0]!r}; the data set has changed, use a new work directory"
        )
    parts = np.array([recorded[identifier] for identifier in ids.tolist()])
    return {str(name): np.flatnonzero(parts == name) for name in np.unique(parts)}
