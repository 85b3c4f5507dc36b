"""Simulated plates: fields of view of treated cells in five channels, where their cells are, and what they got.

    <out>/simulated.json                                            says that all is simulated; the hidden truth
    <out>/inputs/images/<plate>/r02c05f01p01-ch1sk1fk1fl1.png       DNA; ch2 ER, ch3 RNA, ch4 AGP, ch5 Mito
    <out>/inputs/locations/<plate>/B05-1-Nuclei.csv                 Nuclei_Location_Center_X, Nuclei_Location_Center_Y
    <out>/metadata/barcode_platemap.csv, platemap/*.txt, repurposing_info_external_moa_map_resolved.tsv

Layout and columns are those of DeepProfiler projects and of LINCS Cell Painting; pixels have their range (8 bits,
mean intensities of 10 to 50). Cells have half their size there: one fits into 64 pixels as it does there into 128.
What treatments do is in `coos.data.simulate.plate_layout`. Batches, plates, positions, wells and sites change gain,
background, focus, contrast and lamp of every channel by itself, and a little of the morphology; so unsphered
profiles tell batches first, and intensities hardly tell mechanisms. What is found in such plates shows that the
machinery works, and nothing about cells, compounds or networks.
"""

import concurrent.futures
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import threadpoolctl
import tifffile
from scipy import ndimage
from tqdm import tqdm

from coos import workdir
from coos.data.simulate import fields, plate_layout
from coos.data.simulate.cell_features import MARK
from coos.data.simulate.fields import EFFECTS, Array, Scene
from coos.data.simulate.organelles import normal
from coos.data.simulate.plate_layout import Layout, Plate, Well
from coos.data.simulate.single_cells import COLUMNS, ROWS

IMAGE_FORMATS = ("png", "tiff")
DTYPES = ("uint8", "uint16")
SMALLEST = 64
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
ORDER = [fields.CHANNELS.index(name) for name in ("Hoechst", "ERSyto", "ERSytoBleed", "Ph_golgi", "Mito")]
PIXELS_PER_CELL, SPACING = 1800.0, 17.0  # sparser than `fields`, as LINCS is, but patchy: cells overlap
STAIN_GAIN, STAIN_CONTRAST, STAIN_PATCH = 0.3, 0.4, 24  # sd of logarithms between patches of so many px
JITTER = 0.7  # px, sd of the error of a centre

# Light 1, and no light, of the channels in 8-bit counts; the focus is the sd of a Gaussian in px.
SIGNAL = np.array([130, 180, 105, 95, 115], np.float32)
BACKGROUND = np.array([2, 2, 2.5, 3, 2], np.float32)
FOCUS = 0.7
SHOT_NOISE, READ_NOISE = 0.25, 0.6  # variance per count of signal; counts
LAMP = 0.15  # by which corners are darker


class Spread(NamedTuple):
    """Standard deviations between units: of the logarithms of gain, background, focus and contrast and of the lamp, of
    each channel by itself; and of the effects that are no toxicity.
    """

    gain: float
    background: float
    focus: float
    contrast: float
    lamp: float
    effects: float


SPREADS = {
    "batch": Spread(gain=0.35, background=0.5, focus=0.25, contrast=0.15, lamp=0.1, effects=0.05),
    "plate": Spread(gain=0.08, background=0.1, focus=0.1, contrast=0.05, lamp=0.02, effects=0.02),
    "position": Spread(gain=0.05, background=0.1, focus=0.03, contrast=0.0, lamp=0.0, effects=0.0),
    "well": Spread(gain=0.1, background=0.03, focus=0.05, contrast=0.2, lamp=0.0, effects=0.03),
    "site": Spread(gain=0.03, background=0.02, focus=0.03, contrast=0.02, lamp=0.03, effects=0.0),
}


class Nuisance(NamedTuple):
    """What is no treatment: factors of gain and background, focus in px, the exponent of light (contrast) and the
    lamp, each (5,); and a shift (7,) of effects.
    """

    gain: Array
    background: Array
    focus: Array
    contrast: Array
    lamp: Array
    effects: Array


def write_plates(
    out: str | os.PathLike[str],
    *,
    mechanisms: int = 8,
    compounds_per_mechanism: int = 3,
    doses: Sequence[float] = (3.333333, 10.0),
    replicates: int = 5,
    maps: int = 1,
    batches: int = 2,
    even_batches: bool = False,
    dmso: int = 24,
    wells: int | None = None,
    sites_per_well: int = 1,
    height: int = 256,
    width: int = 256,
    seed: int = 0,
    image_format: str = "png",
    dtype: str = "uint8",
    progress: bool = False,
    overwrite: bool = False,
) -> int:
    """Write the release into the folder `out` and return its number of cells.

    The same arguments give the same bytes. The pixels of a field depend on the seed, on its plate, well and site, and
    on the treatment of the well. barcode_platemap.csv is written last: without it a release is not complete.

    Args:
        out: folder, made if it is not there.
        mechanisms, compounds_per_mechanism: four compounds more are alone with their mechanism or have no known one.
        doses: of every compound, in µM, rising; LINCS has 0.041152, 0.123457, 0.37037, 1.111111, 3.333333, 10.
        replicates: plates of each of the `maps` plate maps, over which the compounds of a mechanism are spread.
        batches: the first replicates of all maps are batch 1, the others go map by map to the batches that are left
            (as in LINCS: one replicate here, four there); `even_batches`: the replicates of a map take turns.
        dmso: control wells of a plate, all over it.
        wells: of a plate, up to 384; None: as many as treatments and controls. Treatments fill what is too many.
        height, width: of a field in px. Cells keep their size: a larger field has more of them.
        image_format: "png" or "tiff" (.tif).
        dtype: "uint8", or "uint16" with 257 times the counts.
        overwrite: replace an earlier simulated release; never anything that is not simulated.

    Raises:
        ValueError: a number, format or dtype that is not possible.
        FileExistsError: files of a release are there, and no `overwrite`, or they are not simulated.
    """
    _check(height, width, sites_per_well, image_format, dtype)
    layout = plate_layout.lay_out(
        mechanisms=mechanisms,
        compounds_per_mechanism=compounds_per_mechanism,
        doses=tuple(float(dose) for dose in doses),
        replicates=replicates,
        maps=maps,
        batches=batches,
        even_batches=even_batches,
        dmso=dmso,
        wells=wells,
        seed=seed,
    )
    folder = pathlib.Path(out)
    _prepare(folder, overwrite=overwrite)
    size = {"seed": seed, "height": height, "width": width, "sites_per_well": sites_per_well}
    workdir.write_json(folder / "simulated.json", _describe(size, layout))
    plate_layout.write_descriptions(folder / "metadata", layout)
    cells = _write_fields(folder / "inputs", layout, size, image_format, dtype, progress)
    plate_layout.write_barcodes(folder / "metadata", layout)
    return cells


def _write_fields(
    inputs: pathlib.Path, layout: Layout, size: dict[str, int], image_format: str, dtype: str, progress: bool
) -> int:
    """Draw and write the images and locations of all fields, and return the number of cells."""
    for kind in ("images", "locations"):
        for plate in layout.plates:
            (inputs / kind / plate.name).mkdir(parents=True)
    height, width, seed = size["height"], size["width"], size["seed"]
    sites = range(1, size["sites_per_well"] + 1)
    jobs = [(plate, well, site) for plate in layout.plates for well in plate.wells for site in sites]

    def write_field(job: tuple[Plate, Well, int]) -> int:
        pixels, centers = draw_field(*job, height=height, width=width, seed=seed, dtype=dtype)
        _save(inputs, *job, pixels, centers, image_format)
        return len(centers)

    cells = 0
    bar = tqdm(total=len(jobs), desc="fields", unit="field", disable=None if progress else True)
    # NumPy works outside the interpreter lock. BLAS would wait for its own threads on such small matrices.
    one = threadpoolctl.threadpool_limits(1, user_api="blas")
    with one, bar, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for count in pool.map(write_field, jobs):
            cells += count
            bar.update()
    return cells


def _check(height: int, width: int, sites_per_well: int, image_format: str, dtype: str) -> None:
    if min(height, width) < SMALLEST:
        raise ValueError(f"fields of {height} x {width} px; they must be {SMALLEST} or larger each way")
    if not 1 <= sites_per_well <= 99:
        raise ValueError(f"sites_per_well is {sites_per_well}; it must be 1 to 99")
    if image_format not in IMAGE_FORMATS:
        raise ValueError(f"image_format {image_format!r}; take one of {', '.join(IMAGE_FORMATS)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}; take one of {', '.join(DTYPES)}")


def _prepare(folder: pathlib.Path, *, overwrite: bool) -> None:
    """Make the folder and empty it of an earlier simulated release, or say why this is not done."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    present = [name for name in ("inputs", "metadata", "simulated.json") if (folder / name).exists()]
    if present and not overwrite:
        raise FileExistsError(f"{folder} already holds {', '.join(present)}; choose another, or overwrite")
    if present:
        _require_simulated(folder)
    # The file that says what the others are goes last, so that a kill halfway leaves what can be overwritten.
    for name in ("inputs", "metadata"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    (folder / "simulated.json").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _require_simulated(folder: pathlib.Path) -> None:
    """FileExistsError if anything that would be removed is not ours."""
    about = folder / "simulated.json"
    if not about.exists() or workdir.read_json(about).get("kind") != "plates":
        raise FileExistsError(
            f"{folder} holds files that are not of simulated plates and will not be replaced; choose another"
        )
    ours = [folder / "metadata" / plate_layout.BARCODES, folder / "metadata" / plate_layout.MOAS]
    candidates = [*(folder / "inputs").glob("*/*"), *(folder / "metadata").glob("platemap/*")]
    candidates += [path for path in (folder / "metadata").glob("*") if path.is_file() and path not in ours]
    foreign = [path for path in candidates if not path.name.startswith((MARK, "."))]
    if foreign:
        raise FileExistsError(
            f"{foreign[0]} is not simulated and will not be replaced; choose another folder"
        )


def _describe(size: dict[str, int], layout: Layout) -> dict[str, Any]:
    return {
        "simulated": True,
        "kind": "plates",
        "note": "Pictures, compounds and mechanisms are invented. What is found in them shows that the machinery "
        "works, and nothing about cells, compounds or networks.",
        **size,
        "channels": list(CHANNELS),
        **plate_layout.describe(layout),
    }


def nuisance(plate: Plate, well: Well, site: int, *, seed: int) -> Nuisance:
    """What batch, plate, position, well and site do to one field."""
    units = {
        "batch": (33, plate.batch),
        "plate": (34, plate.number),
        "well": (35, plate.number, well.number),
        "site": (36, plate.number, well.number, site),
    }
    parts = [_shift(SPREADS[name], np.random.default_rng([seed, *unit])) for name, unit in units.items()]
    total = [np.sum(values, axis=0) for values in zip(*parts, _position(well, seed=seed), strict=True)]
    gain, background, focus, contrast = np.exp(total[:4])
    return Nuisance(gain, background, FOCUS * focus, contrast, LAMP + total[4], total[5])


def _shift(spread: Spread, rng: np.random.Generator) -> Nuisance:
    """Logarithms and sums that one unit adds."""
    parts = [sd * rng.standard_normal(len(CHANNELS)) for sd in spread[:-1]]
    toxicity = EFFECTS.index("toxicity")
    parts.append(spread.effects * rng.standard_normal(len(EFFECTS)) * (np.arange(len(EFFECTS)) != toxicity))
    return Nuisance(*parts)


def _position(well: Well, *, seed: int) -> Nuisance:
    """What row, column and the edge of the plate add, the same on all plates."""
    row, column = divmod(well.number, COLUMNS)
    edge = float(row in (0, ROWS - 1) or column in (0, COLUMNS - 1))
    place = (2 * row / (ROWS - 1) - 1, 2 * column / (COLUMNS - 1) - 1, 2 * edge)
    parts = [_shift(SPREADS["position"], np.random.default_rng([seed, 37, number])) for number in range(3)]
    return Nuisance(*(np.tensordot(place, np.array(values), 1) for values in zip(*parts, strict=True)))


def draw_field(
    plate: Plate, well: Well, site: int, *, height: int, width: int, seed: int, dtype: str = "uint8"
) -> tuple[Array, Array]:
    """Pixels (height, width, 5) of a field, and the centers float64 (cells, 2), y and x, as a segmentation has them."""
    around = nuisance(plate, well, site, seed=seed)
    values = np.clip(plate_layout.effects(well.compound, well.dose) + around.effects, 0, 1)
    rng = np.random.default_rng([seed, 38, plate.number, well.number, site])
    scene = fields.draw_scene(
        rng,
        dict(zip(EFFECTS, values.tolist(), strict=True)),
        height=height,
        width=width,
        pixels_per_cell=PIXELS_PER_CELL,
        spacing=SPACING,
    )
    pixels = _photograph(rng, scene, around, dtype)
    return pixels, _locate(rng, scene.centres, height, width)


def _locate(rng: np.random.Generator, centres: Array, height: int, width: int) -> Array:
    """Centers with an error, inside the field, from top to bottom."""
    centers = centres + JITTER * rng.standard_normal(centres.shape)
    centers = np.clip(centers, 0, [height - 1, width - 1])
    return centers[np.argsort(centers[:, 0], kind="stable")]


def _photograph(rng: np.random.Generator, scene: Scene, around: Nuisance, dtype: str) -> Array:
    """The camera's picture of a scene, (height, width, 5): lamp, focus, background, shot and read noise."""
    height, width = scene.light.shape[1:]
    rows, columns = (np.linspace(-1, 1, length, dtype=np.float32) for length in (height, width))
    corner = 0.5 * (rows[:, None] ** 2 + columns**2)
    pixels = np.empty((height, width, len(CHANNELS)), dtype)
    for channel, source in enumerate(ORDER):
        stained = _patches(rng, height, width, STAIN_GAIN)
        contrast = np.float32(around.contrast[channel]) * _patches(rng, height, width, STAIN_CONTRAST)
        sharp = stained * np.maximum(scene.light[source], 0) ** contrast
        signal = ndimage.gaussian_filter(sharp, around.focus[channel])
        signal *= np.float32(SIGNAL[channel] * around.gain[channel]) * (
            1 - np.float32(around.lamp[channel]) * corner
        )
        noise = np.sqrt(SHOT_NOISE * signal + READ_NOISE**2) * normal(rng, height, width)
        counts = signal + noise + np.float32(BACKGROUND[channel] * around.background[channel])
        scale = 1 if dtype == "uint8" else 257
        pixels[..., channel] = np.clip(np.rint(scale * counts), 0, np.iinfo(dtype).max)
    return pixels


def _patches(rng: np.random.Generator, height: int, width: int, sd: float) -> Array:
    """A smooth lognormal field float32 (height, width) around 1: cells take up stain unequally.

    It also keeps a network from knowing a well by its gain and contrast alone, cell by cell.
    """
    nodes = [length // STAIN_PATCH + 2 for length in (height, width)]
    rows, columns = (np.arange(length, dtype=np.float32) / STAIN_PATCH for length in (height, width))
    across = _interpolate(normal(rng, *nodes), rows)
    return np.exp(np.float32(sd) * _interpolate(across.T, columns).T)


def _interpolate(values: Array, places: Array) -> Array:
    """Rows of `values` at `places` between them, linearly."""
    first = places.astype(int)
    share = (places - first)[:, None]
    return (1 - share) * values[first] + share * values[first + 1]


def _save(
    inputs: pathlib.Path,
    plate: Plate,
    well: Well,
    site: int,
    pixels: Array,
    centers: Array,
    image_format: str,
) -> None:
    row, column = divmod(well.number, COLUMNS)
    suffix = {"png": ".png", "tiff": ".tif"}[image_format]
    for channel in range(len(CHANNELS)):
        name = f"r{row + 1:02}c{column + 1:02}f{site:02}p01-ch{channel + 1}sk1fk1fl1{suffix}"
        _save_plane(inputs / "images" / plate.name / name, np.ascontiguousarray(pixels[..., channel]))
    lines = [
        "Nuclei_Location_Center_X,Nuclei_Location_Center_Y",
        *(f"{x!r},{y!r}" for y, x in centers.tolist()),
    ]
    path = inputs / "locations" / plate.name / f"{well.name}-{site}-Nuclei.csv"
    path.write_text("\n".join(lines) + "\n")


def _save_plane(path: pathlib.Path, plane: Array) -> None:
    if path.suffix == ".tif":
        tifffile.imwrite(path, plane)
    else:  # noise hardly compresses: fast is better than small
        PIL.Image.fromarray(plane).save(path, compress_level=1, compress_type=PIL.Image.RLE)
