"""Which compound, of which mechanism and at which dose, is in which well of which plate of a simulated release.

A mechanism is a direction in the space of `coos.data.simulate.fields.EFFECTS`, mostly along those that mean
intensities cannot tell; a compound goes that way and a little its own, the further the higher its dose. Replicate
plates share a plate map and so the position of every treatment. As in LINCS Cell Painting (Bornholdt 2021, chapter
3), the first replicates of all maps make one batch, and the others of each map lie in a later one.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from coos import workdir
from coos.data.simulate.cell_features import MARK
from coos.data.simulate.fields import EFFECTS, HIDDEN, MEASURABLE, Array
from coos.data.simulate.single_cells import COLUMNS, ROWS, well_names

POSITIONS = ROWS * COLUMNS  # of a plate with 384 wells
UNKNOWN, ALONE = 2, 2  # compounds without a known mechanism, and with one that no other shares
# Of an untreated cell; what a mechanism and a compound add to that, when no dose could add more.
UNTREATED = {"toxicity": 0.05, **dict.fromkeys(HIDDEN, 0.45), **dict.fromkeys(MEASURABLE, 0.5)}
# Of mechanisms along the hidden effects; less where the brightest pixels of a cell could tell the effect after all.
STRENGTH = np.array([0.5, 1.0, 1.1, 0.45])
# Standard deviations: of a mechanism along each measurable effect, of a compound along each effect.
MEASURABLE_SD, OWN_SD = 0.08, 0.05
TOXIC_EVERY, TOXICITY = 4, (0.3, 0.7)  # every fourth mechanism kills cells
# The dose with half the effect: median in µM, and sd of the logarithm.
HALF_DOSE, HALF_DOSE_SPREAD = 1.5, 0.5
CANDIDATES = 64  # directions of which the one least like the mechanisms before is taken
MOLAR_MASS = 400.0  # g/mol, of every compound
BARCODES = "barcode_platemap.csv"
MOAS = "repurposing_info_external_moa_map_resolved.tsv"


class Compound(NamedTuple):
    """A compound: `moa` None where it is not known; `change` (7,) of the effects at most; `half_dose` in µM."""

    name: str
    moa: str | None
    change: Array
    half_dose: float


class Well(NamedTuple):
    """A well of a plate map: its `number` counts row by row from 0 to 383; a control has neither compound nor dose."""

    number: int
    compound: Compound | None
    dose: float | None

    @property
    def name(self) -> str:
        """Such as "A01"."""
        return well_names(np.array([self.number]))[0].decode()


class Plate(NamedTuple):
    """A plate: `number` counts them from 0, `batch` from 1."""

    number: int
    name: str
    map_name: str
    batch: int
    wells: tuple[Well, ...]


class Layout(NamedTuple):
    """All compounds and plates, and the change (7,) that each mechanism stands for."""

    mechanisms: dict[str, Array]
    compounds: tuple[Compound, ...]
    plates: tuple[Plate, ...]


def effects(compound: Compound | None, dose: float | None) -> Array:
    """Effects float64 (7,) in the order of EFFECTS: untreated without a compound, saturating with dose in µM."""
    untreated = np.array([UNTREATED[name] for name in EFFECTS])
    if compound is None or dose is None:
        return untreated
    return np.clip(untreated + dose / (dose + compound.half_dose) * compound.change, 0, 1)


def lay_out(
    *,
    mechanisms: int,
    compounds_per_mechanism: int,
    doses: tuple[float, ...],
    replicates: int,
    maps: int,
    batches: int,
    even_batches: bool,
    dmso: int,
    wells: int | None,
    seed: int,
) -> Layout:
    """Draw mechanisms, compounds and plates; for the arguments see `coos.data.simulate.plates.write_plates`.

    Raises:
        ValueError: a number that is not possible, such as more wells than a plate has.
    """
    least = {"mechanisms": mechanisms, "compounds_per_mechanism": compounds_per_mechanism}
    least |= {"replicates": replicates, "maps": maps, "batches": batches, "dmso": dmso}
    for name, value in least.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be 1 or more")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    if not doses or min(doses) <= 0 or list(doses) != sorted(set(doses)):
        raise ValueError(f"doses are {doses}; they must be above 0 and rise (in µM)")
    _check_batches(batches, replicates=replicates, maps=maps, even=even_batches)
    directions = draw_mechanisms(mechanisms, seed=seed)
    compounds = _draw_compounds(directions, compounds_per_mechanism, seed=seed)
    names = [f"{MARK}-MAP-{number + 1}" for number in range(maps)]
    treatments: list[list[tuple[Compound, float]]] = [[] for _ in range(maps)]
    for number, compound in enumerate(compounds):  # compounds of one mechanism lie on different maps
        treatments[(number + number // mechanisms) % maps] += [(compound, dose) for dose in doses]
    wells = max(map(len, treatments)) + dmso if wells is None else wells
    contents = [_plate_map(number, treatments[number], dmso, wells, seed) for number in range(maps)]
    plates = [
        Plate(
            number := map_number * replicates + replicate,
            f"{MARK}{number + 1:04}",
            names[map_number],
            _batch(map_number, replicate, maps=maps, batches=batches, even=even_batches),
            contents[map_number],
        )
        for map_number in range(maps)
        for replicate in range(replicates)
    ]
    return Layout(directions, compounds, tuple(plates))


def _check_batches(batches: int, *, replicates: int, maps: int, even: bool) -> None:
    most = replicates if even else 1 + maps * (replicates > 1)
    if batches > most or (batches == 1 and most > 1 and not even):
        ways = (
            "the replicates of a map"
            if even
            else "a batch of first replicates and one of the others of each map"
        )
        raise ValueError(
            f"{batches} batches with {replicates} replicates of {maps} plate maps; there can be "
            f"{1 if even or most == 1 else 2} to {most}: {ways}"
        )


def _batch(map_number: int, replicate: int, *, maps: int, batches: int, even: bool) -> int:
    """The batch of a replicate, from 1."""
    if even:
        return 1 + replicate % batches
    return 1 if replicate == 0 else 2 + map_number * (batches - 1) // maps


def draw_mechanisms(count: int, *, seed: int) -> dict[str, Array]:
    """What each of `count` mechanisms changes, float64 (7,): hidden effects in directions far from each other."""
    rng = np.random.default_rng([seed, 30])
    found: dict[str, Array] = {}
    for number in range(count):
        taken = np.array([change[1 : 1 + len(HIDDEN)] / STRENGTH for change in found.values()])
        candidates = rng.standard_normal((CANDIDATES, len(HIDDEN)))
        candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
        nearest = (candidates @ taken.T).max(axis=1) if found else np.zeros(CANDIDATES)
        measurable = MEASURABLE_SD * rng.standard_normal(len(MEASURABLE))
        toxic = rng.uniform(*TOXICITY) if number % TOXIC_EVERY == TOXIC_EVERY - 1 else 0.0
        change = np.concatenate([[toxic], STRENGTH * candidates[nearest.argmin()], measurable])
        found[f"simulated mechanism {number + 1}"] = change
    return found


def _draw_compounds(mechanisms: dict[str, Array], per_mechanism: int, *, seed: int) -> tuple[Compound, ...]:
    """Compounds of shared mechanisms in turn, then those alone with theirs, then those of unknown ones."""
    rng = np.random.default_rng([seed, 31])
    others = list(draw_mechanisms(len(mechanisms) + ALONE + UNKNOWN, seed=seed).values())[len(mechanisms) :]
    alone: list[tuple[str | None, Array]] = [
        (f"simulated lonely mechanism {number + 1}", change) for number, change in enumerate(others[:ALONE])
    ]
    planned = [
        *list(mechanisms.items()) * per_mechanism,
        *alone,
        *((None, change) for change in others[ALONE:]),
    ]
    compounds = []
    for number, (moa, change) in enumerate(planned):
        own = OWN_SD * rng.standard_normal(len(EFFECTS))
        half_dose = HALF_DOSE * float(np.exp(HALF_DOSE_SPREAD * rng.standard_normal()))
        compounds.append(Compound(f"{MARK}-{number + 1:04}", moa, change + own, half_dose))
    return tuple(compounds)


def _plate_map(
    number: int, treatments: list[tuple[Compound, float]], dmso: int, wells: int, seed: int
) -> tuple[Well, ...]:
    """Controls all over the plate, treatments at random; if there are more wells than both, treatments repeat."""
    needed = len(treatments) + dmso
    if not needed <= wells <= POSITIONS:
        raise ValueError(
            f"plate map {number + 1} has {len(treatments)} treatments and {dmso} DMSO wells; "
            f"wells is {wells}, and must be {needed} to {POSITIONS}: take fewer treatments or more maps"
        )
    rng = np.random.default_rng([seed, 32, number])
    # One control in every stretch of the plate, in reading order.
    stretches = np.array_split(np.arange(POSITIONS), dmso)
    controls = [int(rng.choice(stretch)) for stretch in stretches]
    free = rng.permutation(np.setdiff1d(np.arange(POSITIONS), controls))[: wells - dmso]
    treated = [Well(int(well), *treatments[turn % len(treatments)]) for turn, well in enumerate(free)]
    return tuple(
        sorted([*treated, *(Well(well, None, None) for well in controls)], key=lambda well: well.number)
    )


def write_descriptions(folder: pathlib.Path, layout: Layout) -> None:
    """Write the plate maps and the table of mechanisms, with the columns of LINCS' own."""
    for map_name, wells in {plate.map_name: plate.wells for plate in layout.plates}.items():
        _write_text(_map_table(map_name, wells), folder / "platemap" / f"{map_name}.txt", "\t")
    _write_text(_mechanism_table(layout.compounds), folder / MOAS, "\t")


def write_barcodes(folder: pathlib.Path, layout: Layout) -> None:
    """Write which plate has which plate map and batch."""
    rows = [(plate.name, plate.map_name, plate.batch, None) for plate in layout.plates]
    columns = ["Assay_Plate_Barcode", "Plate_Map_Name", "Batch_Number", "Batch_Date"]
    _write_text(pl.DataFrame(rows, schema=columns, orient="row"), folder / BARCODES, ",")


def _map_table(name: str, wells: tuple[Well, ...]) -> pl.DataFrame:
    doses = [well.dose for well in wells]
    return pl.DataFrame(
        {
            "plate_map_name": [name] * len(wells),
            "well_position": [well.name for well in wells],
            "broad_sample": [well.compound.name if well.compound else None for well in wells],
            "mg_per_ml": [None if dose is None else round(dose * MOLAR_MASS / 1000, 6) for dose in doses],
            "mmoles_per_liter": doses,
            "solvent": ["DMSO"] * len(wells),
        }
    )


def _mechanism_table(compounds: tuple[Compound, ...]) -> pl.DataFrame:
    names = [compound.name for compound in compounds]
    filled = {
        "broad_sample": names,
        "broad_id": names,
        "pert_iname": [name.lower() for name in names],
        "InChIKey14": None,
        "moa": [compound.moa for compound in compounds],
    }
    empty = ("target", "broad_date", "clinical_phase", "alternative_moa", "alternative_target")
    return pl.DataFrame(filled | dict.fromkeys(empty), schema_overrides=dict.fromkeys(empty, pl.String))


def describe(layout: Layout) -> dict[str, Any]:
    """The hidden truth, as JSON can hold it: what mechanisms and compounds change, and where batches lie."""
    return {
        "effects": list(EFFECTS),
        "untreated": UNTREATED,
        "mechanisms": {name: change.round(4).tolist() for name, change in layout.mechanisms.items()},
        "compounds": {
            compound.name: {
                "moa": compound.moa,
                "change": compound.change.round(4).tolist(),
                "half_dose": round(compound.half_dose, 4),
            }
            for compound in layout.compounds
        },
        "plates": {plate.name: {"map": plate.map_name, "batch": plate.batch} for plate in layout.plates},
    }


def _write_text(frame: pl.DataFrame, path: pathlib.Path, separator: str) -> None:
    text = frame.write_csv(separator=separator)
    workdir.write_atomically(path, lambda file: file.write(text))
