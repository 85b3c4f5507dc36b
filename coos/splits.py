"""Splits of a data set that can be written down: which example belongs where, by id."""

import csv
import os
import pathlib

import numpy as np

from coos import workdir


def stratified(
    labels: np.ndarray, ids: np.ndarray, *, fraction: float, seed: int
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
