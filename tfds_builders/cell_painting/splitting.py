"""Which compound belongs in which split, and so which view: at random, by scaffold, or from given files."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from coos import splits
from coos.data import chemistry, identity
from coos.data.sample_index import SampleIndex

PARTS = ("train", "validation", "test")
RULES = {
    "random": "compounds in random order",
    "scaffold": "whole Bemis-Murcko scaffolds, the largest first (compounds without rings are one of them)",
}


def describe(how: str, fractions: Sequence[float], seed: int) -> dict[str, Any]:
    """How a split is made, as JSON; ValueError if `how` is neither a rule nor a folder."""
    if how in RULES:
        if len(fractions) != len(PARTS):
            raise ValueError(f"split_fractions={tuple(fractions)}: needs one for each of {', '.join(PARTS)}")
        return {"by": how, "rule": RULES[how], "fractions": [float(f) for f in fractions], "seed": int(seed)}
    folder = pathlib.Path(how)
    if not folder.is_dir():
        raise ValueError(
            f"split={str(how)!r}: neither {' nor '.join(RULES)}, nor a folder with train.csv, ..."
        )
    files = [folder / f"{part}.csv" for part in PARTS]
    found = identity.files_digest(path for path in files if path.exists())
    return {"by": "files", "folder": str(folder.resolve()), "files": found}


def assign(index: SampleIndex, how: dict[str, Any]) -> np.ndarray:
    """(N,) the part of every view, "" for views in none; no part is empty and no compound in two.

    Raises:
        ValueError: the parts share a compound or one is empty, or scaffolds are asked for without SMILES.
    """
    part_of = _given(index, how["folder"]) if how["by"] == "files" else _drawn(index, how)
    views = {part: np.flatnonzero(part_of == part) for part in PARTS}
    splits.refuse_empty(views)
    splits.check_disjoint({part: index.compounds[i].tolist() for part, i in views.items()}, what="compound")
    return part_of


def _drawn(index: SampleIndex, how: dict[str, Any]) -> np.ndarray:
    """The parts of a split by compound or by scaffold."""
    compounds, first, compound_of = np.unique(index.compounds, return_index=True, return_inverse=True)
    groups = compounds if how["by"] == "random" else _scaffolds(index, first)
    fractions = dict(zip(PARTS, how["fractions"], strict=True))
    part_of_compound = np.full(len(compounds), "", "U10")
    for part, members in splits.by_group(groups.tolist(), fractions=fractions, seed=how["seed"]).items():
        part_of_compound[members] = part
    return part_of_compound[compound_of]


def _scaffolds(index: SampleIndex, views: np.ndarray) -> np.ndarray:
    """The scaffold of the compound of each of `views`."""
    without = index.compounds[views[index.smiles[views] == ""]]
    if len(without):
        raise ValueError(
            f"a split by scaffold needs SMILES; {len(without)} compounds have none, such as {without[0]}"
        )
    return np.array(chemistry.scaffolds(index.smiles[views].tolist(), progress=True))


def _given(index: SampleIndex, folder: str) -> np.ndarray:
    """The parts of views whose key or compound stands in the file of a part."""
    column, lists = splits.load_lists(folder, PARTS, columns=("SAMPLE_KEY", "INCHIKEY"))
    splits.check_disjoint(lists, what=column)
    names = index.keys if column == "SAMPLE_KEY" else index.compounds
    part_of = np.full(len(index), "", "U10")
    for part, listed in lists.items():
        part_of[np.isin(names, listed)] = part
    return part_of
