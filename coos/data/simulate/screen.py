"""A small simulated screen: fields of treated cells, features and nuclei of them, and a ChEMBL of what they do.

    <out>/simulated.json       says that all is simulated, what drives each assay, and each compound's effects
    <out>/chembl.db            the assays, as a ChEMBL release in SQLite
    <out>/compounds.csv        SMILES, INCHIKEY
    <out>/assay-groups.csv     ASSAY_ID, GROUP: what drives each assay, for the report
    <out>/views/<key>.npz      array `sample`, uint16 (height, width, 5); or, as TIFFs, one file per channel:
    <out>/images/<plate>/<key>-<channel>.tif   and where they are:   <out>/load_data.csv
    <out>/profiles.csv         104 features of each well, named as CellProfiler names its own
    <out>/cells.csv            the centres of the nuclei of each view
    <out>/sample-index.csv     one row per view

Compounds have independent effects on the pictures (`coos.data.simulate.fields`) and assays follow one effect or
nothing (`coos.data.simulate.assays`). By design an image network can find what drives every assay but the noise;
the features, which are mean intensities and areas, can find toxicity and two effects on morphology of six; the
number of cells can find toxicity alone. A network that finds this shows that the machinery works, and nothing about
cells, compounds or networks.
"""

import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import threadpoolctl
import tifffile
from tqdm import tqdm

from coos import workdir
from coos.data import chemistry, label_matrix
from coos.data.simulate import assays as simulated_assays
from coos.data.simulate import chembl, fields
from coos.data.simulate.assays import Assay
from coos.data.simulate.fields import CHANNELS, EFFECTS, View
from coos.data.simulate.single_cells import well_names

FORMATS = ("npz", "tiff")
FOLDERS = ("views", "images", "labels")
FILES = (
    *("chembl.db", "compounds.csv", "load_data.csv", "profiles.csv", "cells.csv", "sample-index.csv"),
    *("assay-groups.csv", "simulated.json"),
)
FIRST_PLATE = 90001
MIN_PLATES, WELLS_PER_PLATE = 4, 384
REPLICATED = 0.1  # of the compounds, which have a second well on another plate
# Standard deviation of the logarithm of a channel's gain, between plates, wells and views.
PLATE_GAIN, WELL_GAIN, VIEW_GAIN = 0.1, 0.06, 0.03
SMALLEST = 64
Array = np.ndarray


class Well(NamedTuple):
    """One well: `number` counts all wells of the screen, `compound` is a position."""

    number: int
    plate: str
    position: str
    compound: int


def lay_out(compounds: int, *, seed: int) -> list[Well]:
    """Give each compound a well at random, and each tenth one a second well on another plate."""
    rng = np.random.default_rng([seed, 20])
    again = rng.permutation(compounds)[: round(REPLICATED * compounds)]
    order = np.concatenate([rng.permutation(compounds), again])
    plates = max(MIN_PLATES, -(-len(order) // (WELLS_PER_PLATE - 64)))  # real plates have controls, too
    # Plates take turns; a second well is moved on where its turn is on the plate of the first.
    plate = np.arange(len(order)) % plates
    first = np.empty(compounds, int)
    first[order[:compounds]] = plate[:compounds]
    plate[compounds:] += plate[compounds:] == first[again]
    plate %= plates
    positions = [iter(well_names(rng.permutation(WELLS_PER_PLATE))) for _ in range(plates)]
    return [
        Well(number, str(FIRST_PLATE + p), next(positions[p]).decode(), int(compound))
        for number, (p, compound) in enumerate(zip(plate.tolist(), order, strict=True))
    ]


def write_screen(
    out: str | os.PathLike[str],
    *,
    compounds: int = 400,
    height: int = 96,
    width: int = 128,
    views_per_well: int = 6,
    seed: int = 0,
    view_format: str = "npz",
    write_labels: bool = False,
    progress: bool = False,
    overwrite: bool = False,
) -> int:
    """Write the screen into the folder `out` and return its number of views.

    The same seed gives the same files, and a view depends on its seed, well and site only. The index is written last:
    without it a release is not complete.

    Args:
        out: folder, made if it is not there.
        compounds: each has one well, every tenth two.
        height, width: of a view in px. Cells keep their size: a larger view has more of them.
        view_format: "npz" or "tiff".
        write_labels: also write the label matrix, and its rows into the index, which has none otherwise.
        overwrite: replace an earlier simulated release, with its label matrix; never one that is not simulated.

    Raises:
        ValueError: a number or format that is not possible; too few compounds for the assays; RDKit is missing.
        FileExistsError: files of a release are there, and no `overwrite`, or they are not simulated.
    """
    _check(height=height, width=width, views_per_well=views_per_well, seed=seed, view_format=view_format)
    effects = simulated_assays.draw_effects(compounds, seed=seed)
    assays = simulated_assays.draw_assays(effects, seed=seed)
    table = _draw_compounds(compounds, seed=seed)
    wells = lay_out(compounds, seed=seed)
    folder = pathlib.Path(out)
    _prepare(folder, overwrite=overwrite)
    about = {"seed": seed, "height": height, "width": width, "views_per_well": views_per_well}
    workdir.write_json(folder / "simulated.json", _describe(about, table, effects, assays))
    _write_assays(folder, table, assays, write_labels=write_labels)
    _write_table(folder / "compounds.csv", table)
    _write_table(folder / "assay-groups.csv", _groups(assays))
    shape = (height, width, views_per_well)
    cells, profiles, files = _write_views(folder, wells, effects, shape, seed, view_format, progress)
    _write_table(folder / "cells.csv", cells)
    _write_table(folder / "profiles.csv", profiles)
    if view_format == "tiff":
        _write_table(folder / "load_data.csv", files)
    index = _index(wells, table, views_per_well, write_labels=write_labels)
    _write_table(folder / "sample-index.csv", index)
    return len(index)


def _groups(assays: list[Assay]) -> pl.DataFrame:
    """The group of each assay: toxicity, noise, or morphology that the profiles show or do not."""
    kinds = {"toxicity": "toxicity", "noise": "noise"}
    kinds |= dict.fromkeys(fields.MEASURABLE, "morphology in profiles and images")
    kinds |= dict.fromkeys(fields.HIDDEN, "morphology in images only")
    return pl.DataFrame(
        {"ASSAY_ID": [str(a.assay_id) for a in assays], "GROUP": [kinds[a.driver] for a in assays]}
    )


def _check(*, height: int, width: int, views_per_well: int, seed: int, view_format: str) -> None:
    if min(height, width) < SMALLEST:
        raise ValueError(f"views of {height} x {width} px; they must be {SMALLEST} or larger each way")
    if views_per_well < 1 or seed < 0:
        raise ValueError(f"need views_per_well >= 1 and seed >= 0; got {views_per_well} and {seed}")
    if view_format not in FORMATS:
        raise ValueError(f"view_format {view_format!r}; take one of {', '.join(FORMATS)}")


def _prepare(folder: pathlib.Path, *, overwrite: bool) -> None:
    """Make the folder and empty it of an earlier simulated release, or say why this is not done."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    present = [name for name in (*FILES, *FOLDERS) if (folder / name).exists()]
    if present and not overwrite:
        raise FileExistsError(f"{folder} already holds {', '.join(present)}; choose another, or overwrite")
    if present and "simulated.json" not in present:
        raise FileExistsError(
            f"{folder} holds {', '.join(present)}, which are not simulated and will not be replaced; choose another"
        )
    # The file that says what the others are goes last, so that a kill halfway leaves what can be overwritten.
    for name in FOLDERS:
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _draw_compounds(count: int, *, seed: int) -> pl.DataFrame:
    """SMILES and InChIKeys of distinct molecules."""
    smiles = chembl.random_smiles(count, seed=seed)
    keys = chemistry.inchikeys(smiles)
    if None in keys or len(set(keys)) != count:
        raise ValueError(f"{count} molecules have {len(set(keys) - {None})} InChIKeys")
    return pl.DataFrame({"SMILES": smiles, "INCHIKEY": keys})


def _describe(
    about: Mapping[str, int], table: pl.DataFrame, effects: Array, assays: list[Assay]
) -> dict[str, Any]:
    return {
        "simulated": True,
        "note": "Pictures, compounds' effects and assays are invented. What is found in them shows that the "
        "machinery works, and nothing about cells, compounds or networks.",
        **about,
        "channels": list(CHANNELS),
        "effects": {
            "toxicity": list(EFFECTS[:1]),
            "in_profiles": list(fields.MEASURABLE),
            "hidden_from_profiles": list(fields.HIDDEN),
        },
        "assays": [simulated_assays.describe(assay) for assay in assays],
        "compound_effects": {
            key: dict(zip(EFFECTS, values, strict=True))
            for key, values in zip(table["INCHIKEY"], effects.round(4).tolist(), strict=True)
        },
    }


def _write_assays(
    folder: pathlib.Path, table: pl.DataFrame, assays: list[Assay], *, write_labels: bool
) -> None:
    chembl.write_chembl(
        folder / "chembl.db",
        compounds=list(table.iter_rows()),
        measurements=simulated_assays.measurements(assays),
        assays={assay.assay_id: f"Simulated assay driven by {assay.driver}" for assay in assays},
    )
    if write_labels:
        label_matrix.write(
            folder / "labels",
            simulated_assays.labels(assays, table["INCHIKEY"].to_list()),
            summary={"simulated": True},
        )


def _write_views(
    folder: pathlib.Path,
    wells: list[Well],
    effects: Array,
    shape: tuple[int, int, int],
    seed: int,
    view_format: str,
    progress: bool,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Draw and write all views; return the tables of nuclei, of profiles and of image files."""
    height, width, sites = shape
    cells: list[dict[str, Any]] = []
    profiles, files = [], []
    save = {"npz": _save_npz, "tiff": _save_tiff}[view_format]
    bar = tqdm(total=len(wells) * sites, desc="views", unit="view", disable=None if progress else True)
    # BLAS would wait for its own threads on such small matrices.
    with bar, threadpoolctl.threadpool_limits(1, user_api="blas"):
        for well in wells:
            values = dict(zip(EFFECTS, effects[well.compound].tolist(), strict=True))
            sums = []
            for site in range(1, sites + 1):
                rng = np.random.default_rng([seed, 21, well.number, site])
                gain = _gain(well, seed=seed) * np.exp(VIEW_GAIN * rng.standard_normal(len(CHANNELS)))
                view = fields.draw_view(rng, values, height=height, width=width, gain=gain)
                place = _place(well) | {"Metadata_Site": site}
                files.append(place | save(folder, well, site, view.pixels))
                cells.extend(place | centre for centre in _centres(view))
                sums.append(fields.sum_up(view))
                bar.update()
            rng = np.random.default_rng([seed, 24, well.number])
            profiles.append(_place(well) | fields.measure(sums, rng))
    schema = {
        "Metadata_Plate": pl.String,
        "Metadata_Well": pl.String,
        "Metadata_Site": pl.Int64,
        "Nuclei_Location_Center_X": pl.Float64,
        "Nuclei_Location_Center_Y": pl.Float64,
    }
    return pl.DataFrame(cells, schema=schema), pl.DataFrame(profiles), pl.DataFrame(files)


def _place(well: Well) -> dict[str, Any]:
    return {"Metadata_Plate": well.plate, "Metadata_Well": well.position}


def _centres(view: View) -> Iterator[dict[str, float]]:
    for y, x in view.centres.tolist():
        yield {"Nuclei_Location_Center_X": x, "Nuclei_Location_Center_Y": y}


def _key(well: Well, site: int) -> str:
    return f"{well.plate}-{well.position}-{site}"


def _gain(well: Well, *, seed: int) -> Array:
    """Gain of the channels in a well of a plate, float64 (5,)."""
    plate = np.random.default_rng([seed, 22, int(well.plate)]).standard_normal(len(CHANNELS))
    own = np.random.default_rng([seed, 23, well.number]).standard_normal(len(CHANNELS))
    return np.exp(PLATE_GAIN * plate + WELL_GAIN * own)


def _save_npz(folder: pathlib.Path, well: Well, site: int, pixels: Array) -> dict[str, str]:
    path = folder / "views" / f"{_key(well, site)}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, sample=pixels)  # noise hardly compresses, and takes as long as drawing
    return {}


def _save_tiff(folder: pathlib.Path, well: Well, site: int, pixels: Array) -> dict[str, str]:
    """One file per channel; returns the columns of load_data.csv that say where they are."""
    where = pathlib.PurePosixPath("images", well.plate)
    (folder / where).mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    for number, channel in enumerate(CHANNELS):
        name = f"{_key(well, site)}-{channel}.tif"
        tifffile.imwrite(folder / where / name, np.ascontiguousarray(pixels[..., number]))
        found |= {f"FileName_Orig{channel}": name, f"PathName_Orig{channel}": str(where)}
    return found


def _index(wells: list[Well], table: pl.DataFrame, sites: int, *, write_labels: bool) -> pl.DataFrame:
    rows = [
        {
            "SAMPLE_KEY": _key(well, site),
            "PLATE_ID": well.plate,
            "WELL_POSITION": well.position,
            "SITE": site,
            "ROW_NR_LABEL_MAT": well.compound if write_labels else None,
            "SMILES": table["SMILES"][well.compound],
            "INCHIKEY": table["INCHIKEY"][well.compound],
        }
        for well in wells
        for site in range(1, sites + 1)
    ]
    return pl.DataFrame(rows, schema_overrides={"ROW_NR_LABEL_MAT": pl.Int64})


def _write_table(path: pathlib.Path, table: pl.DataFrame) -> None:
    text = table.write_csv()
    workdir.write_atomically(path, lambda file: file.write(text))
