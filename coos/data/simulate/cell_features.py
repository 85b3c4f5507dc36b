"""A small simulated screen as DeepProfiler leaves it: features of single cells, and the metadata around them.

    <out>/features/<plate>/<well>/<site>.npz                  features (n, 40) float32, locations (n, 2), metadata
    <out>/metadata/barcode_platemap.csv                       plate -> plate map -> batch
    <out>/metadata/platemap/<map>.txt                         well -> compound, dose in uM
    <out>/metadata/repurposing_info_external_moa_map_resolved.tsv   compound -> mechanism

Layout, column names and the empty compound of DMSO wells are those of LINCS Cell Painting. Compounds of one
mechanism move the features alike, more at higher doses; batches, plates and a few strong directions of variation
that have nothing to do with any compound hide it, as they do in real screens, until profiles are sphered. Some
mechanisms kill cells. Some compounds have no known mechanism, some are alone with theirs. All names of plates
and compounds begin with SIMULATED.
"""

import pathlib
import shutil

import numpy as np
import polars as pl
from tqdm import tqdm

from coos import workdir

MARK = "SIMULATED"
WIDTH = 40
ROWS, COLUMNS = "ABCDEF", 8
DOSES = (3.3333, 10.0)
MECHANISMS = 8
COMPOUNDS_PER_MAP = 20  # of 48 wells, 40 have a compound at one of two doses and 8 are DMSO
MAPS, REPLICATES, BATCHES = 2, 4, 2
CELLS, SITES = 30, 2


def write_cell_features(
    out: pathlib.Path, *, seed: int = 0, progress: bool = False, overwrite: bool = False
) -> int:
    """Write the screen below `out` and return its number of cells; the same seed gives the same values.

    `overwrite` removes the plates and plate maps of an earlier simulated screen there, and nothing else.

    Raises:
        FileExistsError: there are features or metadata already, and no `overwrite`.
    """
    out = pathlib.Path(out)
    if overwrite:
        for plate in (out / "features").glob(f"{MARK}*"):
            shutil.rmtree(plate)
        for plate_map in (out / "metadata" / "platemap").glob(f"{MARK}*"):
            plate_map.unlink()
    for folder in (out / "features", out / "metadata" / "platemap"):
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} has files of another origin or run; take another folder")
    generator = np.random.default_rng(seed)
    compounds = _compounds()
    maps = {f"{MARK}-MAP-{number}": _plate_map(number, compounds, generator) for number in range(MAPS)}
    barcodes = [
        (f"{MARK}{1 + number * REPLICATES + replicate:04}", name, 1 + replicate * BATCHES // REPLICATES)
        for number, name in enumerate(maps)
        for replicate in range(REPLICATES)
    ]
    _write_metadata(out / "metadata", compounds, maps, barcodes)
    return _write_features(out / "features", compounds, maps, barcodes, generator, progress)


def _compounds() -> pl.DataFrame:
    """One row per compound: two without a mechanism, two alone with theirs, the others share eight."""
    count = MAPS * COMPOUNDS_PER_MAP
    moa: list[str | None] = [f"mechanism {number % MECHANISMS}" for number in range(count)]
    moa[0] = moa[1] = None
    moa[2], moa[3] = "lonely mechanism A", "lonely mechanism B"
    names = [f"{MARK}-{number:03}" for number in range(count)]
    return pl.DataFrame({"broad_sample": names, "pert_iname": [n.lower() for n in names], "moa": moa})


def _plate_map(number: int, compounds: pl.DataFrame, generator: np.random.Generator) -> pl.DataFrame:
    wells = [f"{row}{column:02}" for row in ROWS for column in range(1, COLUMNS + 1)]
    names = compounds["broad_sample"][number * COMPOUNDS_PER_MAP : (number + 1) * COMPOUNDS_PER_MAP].to_list()
    treated = [(name, dose) for name in names for dose in DOSES]
    content: list[tuple[str | None, float | None]] = [*treated, *[(None, None)] * (len(wells) - len(treated))]
    order = generator.permutation(len(wells))
    return pl.DataFrame(
        {
            "plate_map_name": [f"{MARK}-MAP-{number}"] * len(wells),
            "well_position": wells,
            "broad_sample": [content[i][0] for i in order],
            "mg_per_ml": [None if content[i][1] is None else 0.005 for i in order],
            "mmoles_per_liter": [content[i][1] for i in order],
            "solvent": ["DMSO"] * len(wells),
        }
    )


def _write_metadata(
    folder: pathlib.Path, compounds: pl.DataFrame, maps: dict[str, pl.DataFrame], barcodes: list
) -> None:
    """The three kinds of files."""
    columns = ["Assay_Plate_Barcode", "Plate_Map_Name", "Batch_Number"]
    _write_text(pl.DataFrame(barcodes, schema=columns, orient="row"), folder / "barcode_platemap.csv", ",")
    mechanisms = compounds.with_columns(target=pl.lit(None, pl.String))
    _write_text(mechanisms, folder / "repurposing_info_external_moa_map_resolved.tsv", "\t")
    for name, plate_map in maps.items():
        _write_text(plate_map, folder / "platemap" / f"{name}.txt", "\t")


def _write_text(frame: pl.DataFrame, path: pathlib.Path, separator: str) -> None:
    text = frame.write_csv(separator=separator)
    workdir.write_atomically(path, lambda file: file.write(text))


def _write_features(
    folder: pathlib.Path,
    compounds: pl.DataFrame,
    maps: dict[str, pl.DataFrame],
    barcodes: list,
    generator: np.random.Generator,
    progress: bool,
) -> int:
    """A file per site; returns how many cells there are."""
    world = _World(compounds, generator)
    total = 0
    for plate, map_name, batch in tqdm(barcodes, desc="plates", disable=None if progress else True):
        shift = world.batches[batch - 1] + 0.5 * generator.normal(size=WIDTH)
        for well in maps[map_name].iter_rows(named=True):
            effect, survival = world.effect(well["broad_sample"], well["mmoles_per_liter"])
            centre = shift + effect + world.nuisance(1)[0] * 0.6
            for site in range(1, SITES + 1):
                count = generator.poisson(CELLS * survival / SITES)
                if not count:
                    continue  # as DeepProfiler: no cells, no file
                cells = 3 + centre + world.nuisance(count) + 0.5 * generator.normal(size=(count, WIDTH))
                path = folder / plate / well["well_position"] / f"{site}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                about = np.array({"Metadata_Plate": plate, "Metadata_Model": "simulated"}, dtype=object)
                np.savez_compressed(
                    path,
                    features=cells.astype(np.float32),
                    locations=generator.uniform(0, 1080, (count, 2)),
                    metadata=about,
                )
                total += count
    return total


class _World:
    """What a mechanism, a compound and a batch do to the features, and the directions that mean nothing."""

    def __init__(self, compounds: pl.DataFrame, generator: np.random.Generator) -> None:
        self.generator = generator
        names = compounds["moa"].fill_null(compounds["broad_sample"]).to_list()
        mechanisms = {name: generator.normal(size=WIDTH) for name in dict.fromkeys(names)}
        self.effects = {
            compound: 0.22 * mechanisms[name] + 0.16 * generator.normal(size=WIDTH)
            for compound, name in zip(compounds["broad_sample"], names, strict=True)
        }
        deadly = {name: generator.uniform(0.5, 1.1) for name in mechanisms}
        self.survival = {
            compound: float(np.clip(deadly[name] + 0.2 * generator.normal(), 0.2, 1))
            for compound, name in zip(compounds["broad_sample"], names, strict=True)
        }
        self.directions = generator.normal(size=(4, WIDTH))  # strong variation among like cells
        self.batches = 1.5 * generator.normal(size=(BATCHES, 4)) @ self.directions

    def effect(self, compound: str | None, dose: float | None) -> tuple[np.ndarray, float]:
        """Shift (WIDTH,) of a well's cells, and the share of them that survive."""
        if compound is None or dose is None:
            return np.zeros(WIDTH), 1.0
        strength = dose / max(DOSES)
        return strength * self.effects[compound], 1 - strength * (1 - self.survival[compound])

    def nuisance(self, count: int) -> np.ndarray:
        """(count, WIDTH) variation along the meaningless directions."""
        return self.generator.normal(size=(count, 4)) @ self.directions
