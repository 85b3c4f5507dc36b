"""Which cells of plates train a network, which validate it, and what they are called: rules on their wells.

    rules = Rules(target="Metadata_broad_sample", where="Metadata_dose_level = 6", split="replicates")
    found = parts(places, place_of_cell, rules)
    found.cells["training"], found.class_names, found.labels

The splits are those of Bornholdt 2021, section 4.8.3:

    "wells"       data-split one: of every class some wells train and others validate, drawn at random
    "replicates"  data-split two: replicates 3 to 5 of a well train and replicate 1 validates
    "cells"       data-split three: cells are drawn at random, so that both parts come from the same wells

Whatever the split, wells that match `held_out` are in neither part: another plate, another dose, another batch.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from absl import logging

from coos.profiles import choose
from coos.profiles.table import Table, listing

PLATE, WELL, SITE = "Metadata_Plate", "Metadata_Well", "Metadata_Site"
MAP, BATCH, MOA = "Metadata_Plate_Map_Name", "Metadata_Batch_Number", "Metadata_moa"
SPLITS = ("wells", "replicates", "cells")
PARTS = ("training", "validation", "held_out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """Which cells to learn from, and what to call them.

    Args:
        target: the column of the places that is learned: the compound, the mechanism, or `Metadata_Well`.
        where: a query; only wells that match it train or validate ("" all of them).
        held_out: a query; wells that match it do neither ("" none of them).
        shared: keep compounds whose value of this column, such as the mechanism, another compound shares ("" all).
        classes: "" all, "top:50" those of the 50 mechanisms with most of them, "random:450" as many at random, or a
        text
            file with one on each line.
        split: see above.
        training_wells, validation_wells: of each class, for split "wells".
        training_replicates, validation_replicates: numbers from 1, for split "replicates".
        validation_sites: validate on so many sites of every well, drawn at random (0: all).
        validation_fraction: of the cells, for split "cells".
        training_cells: at most so many, drawn at random (0: all).
        seed: of all that is drawn.
    """

    target: str
    where: str = ""
    held_out: str = ""
    shared: str = ""
    classes: str = ""
    split: str = "cells"
    training_wells: int = 2
    validation_wells: int = 1
    training_replicates: tuple[int, ...] = (3, 4, 5)
    validation_replicates: tuple[int, ...] = (1,)
    validation_sites: int = 0
    validation_fraction: float = 0.1
    training_cells: int = 0
    seed: int = 0

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(f"data.split={self.split!r}: choose one of {SPLITS}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"data.validation_fraction={self.validation_fraction}: must lie between 0 and 1")
        if min(self.training_wells, self.validation_wells) < 1:
            raise ValueError("data.training_wells and data.validation_wells: at least 1 each")
        if min(self.validation_sites, self.training_cells, self.seed) < 0:
            raise ValueError("data.validation_sites, data.training_cells and seed: must not be negative")
        if set(self.training_replicates) & set(self.validation_replicates):
            raise ValueError("data.training_replicates and data.validation_replicates share a replicate")


class Parts(NamedTuple):
    """`cells`: sorted rows of the cells of each part; `labels` (N,) int32 of all cells, -1 where they have none."""

    class_names: tuple[str, ...]
    labels: np.ndarray
    cells: Mapping[str, np.ndarray]


def parts(places: pl.DataFrame, place: np.ndarray, rules: Rules) -> Parts:
    """Divide cells by what is known of their places.

    Args:
        places: one row per field of view, with plate, well, site and the columns that the rules name.
        place: (N,) the row of each cell's place.
        rules: see `Rules`.

    Raises:
        ValueError: an unknown column or class, no place left, or a part without cells.
    """
    _require(places, rules.target)
    generator = np.random.default_rng([rules.seed, 31])
    names = np.array([value if value is None else str(value) for value in places[rules.target]], dtype=object)
    known = np.array([name is not None for name in names], bool)
    held = matching(places, rules.held_out, "data.held_out") & known
    eligible = matching(places, rules.where, "data.where", default=True) & known & ~held
    if rules.shared:
        eligible &= _shared(places, rules, eligible)
    eligible &= _of_classes(places, names, eligible, rules, generator)
    if not eligible.any():
        raise ValueError(
            "no well is left by data.where, data.classes, data.shared and data.held_out together"
        )
    class_names = tuple(sorted(set(names[eligible].tolist())))
    number = {name: k for k, name in enumerate(class_names)}
    label = np.array([number.get(name, -1) for name in names], np.int32)
    unknown = sorted(set(names[held & (label < 0)].tolist()))
    if unknown:
        logging.warning("held out, but not trained on and so not judged: %s", listing(unknown))
    roles = _roles(places, np.where(eligible, label, -1), rules, generator)
    cells = _cells(roles, held & (label >= 0), place, rules, generator)
    _refuse_empty(cells, held.any())
    return Parts(class_names, label[place], cells)


def _require(places: pl.DataFrame, *names: str) -> None:
    missing = [name for name in names if name not in places.columns]
    if missing:
        raise ValueError(
            f"column {listing(missing)} missing among what is known of the wells; found {listing(places.columns, 30)}"
        )


def matching(places: pl.DataFrame, query: str, field: str, *, default: bool = False) -> np.ndarray:
    """(S,) bool: the places that match a query; for "" the default. ValueError naming the field if none does."""
    if not query:
        return np.full(len(places), default)
    found = _as_table(places).where(query)
    if not found.any():
        raise ValueError(f"{field}={query!r}: no well matches")
    return found


def _as_table(places: pl.DataFrame) -> Table:
    return Table(places, np.empty((len(places), 0)), ())


def _shared(places: pl.DataFrame, rules: Rules, eligible: np.ndarray) -> np.ndarray:
    """The places whose value of `rules.shared` two or more eligible classes have."""
    _require(places, rules.shared)
    numbered = _as_table(places.with_row_index("Metadata_row"))
    step = choose.KeepShared(label=rules.shared, unit=rules.target)
    kept = np.zeros(len(places), bool)
    kept[step.fit_transform(numbered.filter(eligible)).column("Metadata_row").to_numpy()] = True
    return kept


def _of_classes(
    places: pl.DataFrame,
    names: np.ndarray,
    eligible: np.ndarray,
    rules: Rules,
    generator: np.random.Generator,
) -> np.ndarray:
    """(S,) the places of the classes that `rules.classes` chooses among the eligible ones."""
    available = sorted(set(names[eligible].tolist()))
    kind, _, count = rules.classes.partition(":")
    if not rules.classes:
        chosen = set(available)
    elif kind == "top" and count.isdecimal():
        chosen = _of_top_mechanisms(places, names, eligible, int(count))
    elif kind == "random" and count.isdecimal():
        if int(count) > len(available):
            raise ValueError(f"data.classes={rules.classes!r}: there are {len(available)} classes")
        chosen = set(generator.permutation(available)[: int(count)].tolist())
    else:
        chosen = _listed(rules.classes, available)
    return np.array([name in chosen for name in names], bool)


def _of_top_mechanisms(places: pl.DataFrame, names: np.ndarray, eligible: np.ndarray, count: int) -> set[str]:
    """The classes of the `count` mechanisms that most classes have; the first by name where several have as many."""
    _require(places, MOA)
    members: dict[str, set[str]] = {}
    for name, mechanism in zip(names[eligible], places[MOA].filter(pl.Series(eligible)), strict=True):
        if mechanism is not None:
            members.setdefault(mechanism, set()).add(name)
    largest = sorted(members, key=lambda mechanism: (-len(members[mechanism]), mechanism))[:count]
    return set().union(*(members[mechanism] for mechanism in largest))


def _listed(path: str, available: list[str]) -> set[str]:
    if not pathlib.Path(path).is_file():
        raise ValueError(
            f"data.classes={path!r}: neither 'top:N', 'random:N' nor a file with one class on each line"
        )
    listed = {line.strip() for line in pathlib.Path(path).read_text().splitlines() if line.strip()}
    unknown = sorted(listed - set(available))
    if unknown:
        raise ValueError(
            f"{path}: {len(unknown)} of {len(listed)} classes have no well here: {listing(unknown)}"
        )
    return listed


def _roles(
    places: pl.DataFrame, label: np.ndarray, rules: Rules, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """(S,) which places may train, and which validate; with split "cells" the same ones."""
    eligible = label >= 0
    if rules.split == "cells":
        return {"training": eligible, "validation": eligible}
    if rules.split == "replicates":
        replicate = replicates(places)
        training = eligible & np.isin(replicate, rules.training_replicates)
        validation = eligible & np.isin(replicate, rules.validation_replicates)
    else:
        training, validation = _drawn_wells(places, label, rules, generator)
    return {"training": training, "validation": _some_sites(places, validation, rules, generator)}


def replicates(places: pl.DataFrame) -> np.ndarray:
    """(S,) the number of a well among those in the same position of the same plate map, from 1.

    Plates of the batch with most of them come first, then by name: where four of five replicates were made in one batch
    they are 1 to 4, so that replicates 3 to 5 hold both batches and replicate 1 the larger (Bornholdt 2021, 4.8.3).

    Raises:
        ValueError: a column is missing, or the plate map or batch of a plate is not known; the plates are named.
    """
    _require(places, MAP, BATCH)
    plates = places.select(MAP, BATCH, PLATE).unique()
    unknown = plates.filter(pl.col(MAP).is_null() | pl.col(BATCH).is_null())[PLATE].unique().sort().to_list()
    if unknown:
        raise ValueError(
            f"{MAP} or {BATCH} is unknown for {len(unknown)} plates: {listing(unknown)}; replicates need both: "
            "complete the metadata and build the dataset again, or choose another data.split"
        )
    sizes = plates.group_by(MAP, BATCH).len("size")
    ordered = plates.join(sizes, on=[MAP, BATCH]).sort(
        MAP, "size", BATCH, PLATE, descending=[False, True, False, False]
    )
    numbered = ordered.with_columns(pl.int_range(1, pl.len() + 1).over(MAP).alias("replicate"))
    number = dict(zip(numbered[PLATE], numbered["replicate"], strict=True))
    return np.array([number[plate] for plate in places[PLATE]], np.int64)


def _drawn_wells(
    places: pl.DataFrame, label: np.ndarray, rules: Rules, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(S,) the places of wells drawn for training and for validation, from every class as many."""
    _, well = np.unique(
        [f"{plate} {name}" for plate, name in places.select(PLATE, WELL).iter_rows()], return_inverse=True
    )
    training, validation = np.zeros(len(label), bool), np.zeros(len(label), bool)
    for k in range(label.max() + 1):
        wells = generator.permutation(np.unique(well[label == k]))
        first, last = rules.training_wells, rules.training_wells + rules.validation_wells
        training |= (label == k) & np.isin(well, wells[:first])
        validation |= (label == k) & np.isin(well, wells[first:last])
    return training, validation


def _some_sites(
    places: pl.DataFrame, chosen: np.ndarray, rules: Rules, generator: np.random.Generator
) -> np.ndarray:
    """(S,) of the chosen places, `validation_sites` of every well."""
    if not rules.validation_sites:
        return chosen
    rows: dict[tuple, list[int]] = {}
    for row in np.flatnonzero(chosen).tolist():
        rows.setdefault((places[PLATE][row], places[WELL][row]), []).append(row)
    kept = np.zeros(len(chosen), bool)
    for members in rows.values():
        kept[generator.permutation(members)[: rules.validation_sites]] = True
    return kept


def _cells(
    roles: Mapping[str, np.ndarray],
    held: np.ndarray,
    place: np.ndarray,
    rules: Rules,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Sorted rows of the cells of every part."""
    training, validation = (np.flatnonzero(roles[part][place]) for part in ("training", "validation"))
    if rules.split == "cells":
        shuffled = generator.permutation(training)
        count = max(1, round(rules.validation_fraction * len(shuffled)))
        validation, training = np.sort(shuffled[:count]), np.sort(shuffled[count:])
    if 0 < rules.training_cells < len(training):
        training = np.sort(generator.permutation(training)[: rules.training_cells])
    return {"training": training, "validation": validation, "held_out": np.flatnonzero(held[place])}


def _refuse_empty(cells: Mapping[str, np.ndarray], held_out: bool) -> None:
    counts = {part: len(rows) for part, rows in cells.items()}
    for part in PARTS if held_out else PARTS[:2]:
        if not counts[part]:
            raise ValueError(f"part {part!r} has no cells; cells by part: {counts}")
