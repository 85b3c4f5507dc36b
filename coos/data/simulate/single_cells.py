"""A small simulated release of single-cell crops: plates, wells, microscopes and their nuisance effects.

The files, names, dtypes and shapes are those of the official release of COOS-7 (Lu et al. 2019,
https://zenodo.org/record/3386336): a training set, test1 (the same wells), test2 (border wells of the same
plates), test3 (plates of other months) and test4 (a plate from another microscope). Every factor of
variation is lognormal around a typical value, with its own spread between plates, wells and cells, so that
each set drifts further from training than the one before. A simulation never stands in for a result.
"""

import concurrent.futures
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import h5py
import numpy as np
import threadpoolctl
import tqdm

from coos.data.simulate import organelles
from coos.data.simulate.organelles import CLASSES, SIZE, Array, normal

ROWS, COLUMNS = 16, 24
INTERIOR_WELLS, BORDER_WELLS = 6, 2
BATCH = 128


class Factor(NamedTuple):
    """A lognormal factor of variation: its median, and the sd of its log between plates, wells, cells."""

    median: float
    plate: float = 0.0
    well: float = 0.0
    cell: float = 0.0


# Intensities are camera counts, lengths are pixels of the reference microscope.
FACTORS = {
    "gain": Factor(1.0, plate=0.15, well=0.08),
    "offset": Factor(200.0, plate=0.08),
    "background": Factor(60.0, plate=0.2, well=0.15, cell=0.2),
    "uneven": Factor(0.1, cell=0.5),
    "expression": Factor(1500.0, well=0.1, cell=0.5),
    "dna": Factor(1800.0, plate=0.1, well=0.1, cell=0.25),
    "haze": Factor(0.10, well=0.1, cell=0.5),
    "blur": Factor(1.0, plate=0.06, well=0.06, cell=0.2),
    "shot_noise": Factor(4.0, plate=0.1),
    "read_noise": Factor(10.0, plate=0.1),
    "magnification": Factor(1.0),
    "nucleus_radius": Factor(11.5, plate=0.02, well=0.02, cell=0.1),
    "cell_radius": Factor(26.0, plate=0.02, well=0.03, cell=0.1),
    "reticulum_mesh": Factor(4.5, plate=0.04, cell=0.12),
    "tubule_length": Factor(7.0, plate=0.05, well=0.04, cell=0.25),
    "puncta_size": Factor(1.0, plate=0.04, well=0.04, cell=0.12),
    "puncta_count": Factor(1.0, plate=0.05, well=0.05, cell=0.35),
    "endosome_size": Factor(1.0, plate=0.04, well=0.04, cell=0.15),
    "golgi_fragmentation": Factor(0.2, plate=0.05, well=0.1, cell=0.5),
    "endosome_diffuseness": Factor(0.25, plate=0.05, well=0.1, cell=0.42),
    "endosome_gathering": Factor(0.2, plate=0.05, well=0.1, cell=0.5),
}
# Multiples of the median. Border wells dry out: thinner cells, dimmer signal, more background (test2).
BORDER = {
    "gain": 0.85,
    "background": 1.5,
    "expression": 0.7,
    "haze": 1.4,
    "blur": 1.15,
    "cell_radius": 0.94,
    "puncta_count": 0.88,
    "golgi_fragmentation": 1.12,
    "endosome_diffuseness": 1.2,
}
MONTHS_LATER = {
    "gain": 0.8,
    "background": 1.4,
    "haze": 1.3,
    "blur": 1.1,
    "puncta_size": 0.95,
    "expression": 0.85,
    "tubule_length": 0.85,
    "golgi_fragmentation": 2.0,
    "endosome_diffuseness": 1.75,
}
OTHER_MICROSCOPE = {
    "gain": 1.7,
    "offset": 1.5,
    "background": 2.0,
    "uneven": 3.0,
    "blur": 1.2,
    "shot_noise": 1.6,
    "read_noise": 1.6,
    "magnification": 0.85,
    "endosome_size": 1.25,
    "golgi_fragmentation": 2.0,
    "endosome_gathering": 4.2,
    "endosome_diffuseness": 0.9,
}
PLATE_SHIFTS: tuple[dict[str, float], ...] = ({},) * 4 + (MONTHS_LATER,) * 2 + (OTHER_MICROSCOPE,)


class Split(NamedTuple):
    """One file: its plates, which of a class's wells on each plate, and its size relative to training."""

    plates: tuple[int, ...]
    wells: slice
    size: float


_TRAINING_IMAGES = 41456
SPLITS = {
    "training": Split((0, 1, 2, 3), slice(0, INTERIOR_WELLS), 1.0),
    "test1": Split((0, 1, 2, 3), slice(0, INTERIOR_WELLS), 10364 / _TRAINING_IMAGES),
    "test2": Split((0, 1, 2, 3), slice(INTERIOR_WELLS, None), 17021 / _TRAINING_IMAGES),
    "test3": Split((4, 5), slice(None), 32596 / _TRAINING_IMAGES),
    "test4": Split((6,), slice(None), 30772 / _TRAINING_IMAGES),
}


def _is_border(wells: Array) -> Array:
    row, column = np.divmod(wells, COLUMNS)
    return (row % (ROWS - 1) == 0) | (column % (COLUMNS - 1) == 0)


def well_names(wells: Array) -> Array:
    """Return names A01 to P24, as bytes, of wells numbered row by row from 0 to 383."""
    return np.array([f"{chr(65 + well // COLUMNS)}{well % COLUMNS + 1:02d}".encode() for well in wells])


def lay_out_plates(seed: int) -> Array:
    """Give each class six interior and two border wells of each plate: well numbers (plates, classes, 8)."""
    rng = np.random.default_rng([seed, 0])
    border = _is_border(np.arange(ROWS * COLUMNS))
    layouts = []
    for _ in PLATE_SHIFTS:
        inner, outer = (rng.permutation(np.flatnonzero(side)) for side in (~border, border))
        layouts.append(
            np.concatenate(
                [
                    inner[: len(CLASSES) * INTERIOR_WELLS].reshape(len(CLASSES), -1),
                    outer[: len(CLASSES) * BORDER_WELLS].reshape(len(CLASSES), -1),
                ],
                axis=1,
            )
        )
    return np.stack(layouts)


def well_effects(seed: int) -> Array:
    """Return the log of every factor in every well of every plate: float64 (plates, wells, factors)."""
    rng = np.random.default_rng([seed, 1])
    median, plate_sd, well_sd, _ = np.array(list(FACTORS.values())).T
    shifts = np.array([[np.log(shift.get(name, 1)) for name in FACTORS] for shift in PLATE_SHIFTS])
    edge = np.array([np.log(BORDER.get(name, 1)) for name in FACTORS])
    border = _is_border(np.arange(ROWS * COLUMNS))[:, None]
    plates = np.log(median) + shifts + plate_sd * rng.standard_normal(shifts.shape)
    wells = border * edge + well_sd * rng.standard_normal((len(plates), len(border), len(FACTORS)))
    return plates[:, None] + wells


def draw_factors(rng: np.random.Generator, effects: Array) -> dict[str, Array]:
    """Draw every factor for cells whose wells have log effects (cells, factors): float32 (cells,) each."""
    cell_sd = np.array([factor.cell for factor in FACTORS.values()])
    values = np.exp(effects + cell_sd * rng.standard_normal(effects.shape)).astype(np.float32)
    return dict(zip(FACTORS, values.T, strict=True))


def _shift(images: Array, dy: Array, dx: Array) -> Array:
    """Move images (cells, 64, 64) by whole pixels dy, dx (cells,), with nothing entering from outside."""
    y, x = np.arange(SIZE) - dy[:, None], np.arange(SIZE) - dx[:, None]
    seen = ((y >= 0) & (y < SIZE))[:, :, None] & ((x >= 0) & (x < SIZE))[:, None, :]
    rows, columns = np.clip(y, 0, SIZE - 1)[:, :, None], np.clip(x, 0, SIZE - 1)[:, None, :]
    return images[np.arange(len(images))[:, None, None], rows, columns] * seen


def add_neighbours(rng: np.random.Generator, cells: organelles.Cells, images: Array) -> Array:
    """Show the margin of another cell of the batch at the border of each of images (2, cells, 64, 64)."""
    count = images.shape[1]
    angle, distance = rng.uniform(0, 2 * np.pi, count), rng.uniform(46, 64, count)
    dy, dx = (np.rint(distance * wave(angle)).astype(int) for wave in (np.sin, np.cos))
    free = 1 - organelles.inside(cells.cell_depth)
    return np.stack([image + free * _shift(np.roll(image, 1, axis=0), dy, dx) for image in images])


def blur(images: Array, sigma: Array) -> Array:
    """Convolve images (cells, 64, 64) with Gaussians of standard deviation `sigma` (cells,) px."""
    distance = np.subtract.outer(np.arange(SIZE), np.arange(SIZE)).astype(np.float32)
    kernel = np.exp(-0.5 * (distance / sigma[:, None, None]) ** 2)
    kernel /= kernel.sum(axis=-1, keepdims=True)
    return kernel @ images @ kernel.swapaxes(1, 2)


def expose(rng: np.random.Generator, images: Array, factors: Mapping[str, Array]) -> Array:
    """Turn light (cells, 64, 64), in counts, into camera images, uint16, with shot and read noise."""
    at = {name: value[:, None, None] for name, value in factors.items()}
    slope = np.linspace(-1, 1, SIZE, dtype=np.float32)
    tilt = rng.uniform(-1, 1, (2, len(images), 1, 1)).astype(np.float32) * at["uneven"]
    field = 1 + tilt[0] * slope + tilt[1] * slope[:, None]
    light = at["gain"] * np.maximum(field, 0.1) * (images + at["background"])
    noise = np.sqrt(at["gain"] * at["shot_noise"] * light + at["read_noise"] ** 2)
    counts = at["offset"] + light + noise * normal(rng, *light.shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def simulate_cells(rng: np.random.Generator, label: int, effects: Array) -> Array:
    """Simulate one class in wells with log effects (cells, factors): uint16 (cells, 2, 64, 64)."""
    factors = draw_factors(rng, effects)
    cells = organelles.draw_cells(rng, factors)
    nucleus = organelles.nuclei(rng, cells)
    haze = factors["haze"][:, None, None] * organelles.cytoplasm(cells, nuclear=0.5)
    protein = organelles.PATTERNS[label](rng, cells, factors) + haze
    pair = add_neighbours(rng, cells, np.stack([protein, nucleus]))
    levels = (factors[name][:, None, None] for name in ("expression", "dna"))
    light = (blur(level * image, factors["blur"]) for level, image in zip(levels, pair, strict=True))
    return np.stack([expose(rng, image, factors) for image in light], axis=1)


def split_sizes(split: str, *, cells_per_class: int, seed: int = 0) -> Array:
    """Return the number of cells of each class: equal in training, and within 10 % elsewhere."""
    if split not in SPLITS or cells_per_class < 1 or seed < 0:
        raise ValueError(
            f"need cells_per_class >= 1, seed >= 0 and one of the known splits: {', '.join(SPLITS)}; "
            f"got {cells_per_class}, {seed} and {split!r}"
        )
    if split == "training":
        return np.full(len(CLASSES), cells_per_class)
    index = list(SPLITS).index(split)
    growth = np.random.default_rng([seed, 2, index]).uniform(0.9, 1.1, len(CLASSES))
    return np.maximum(np.rint(cells_per_class * SPLITS[split].size * growth), 1).astype(int)


class _Job(NamedTuple):
    rows: Array
    label: int
    plates: Array
    wells: Array
    seed: tuple[int, ...]


def _jobs(split: str, sizes: Array, seed: int) -> Iterator[_Job]:
    """Deal the cells of each class to its wells in turn, and cut them into batches with rows in the file."""
    index, wells = list(SPLITS).index(split), lay_out_plates(seed)
    rows = np.split(np.random.default_rng([seed, 3, index]).permutation(sizes.sum()), np.cumsum(sizes)[:-1])
    for label, mine in enumerate(rows):
        # Plates change fastest, so that even a few cells cover every plate.
        plates = np.resize(SPLITS[split].plates, len(mine))
        choices = wells[plates, label, SPLITS[split].wells]
        turn = np.arange(len(mine)) // len(SPLITS[split].plates) % choices.shape[1]
        chosen = choices[np.arange(len(mine)), turn]
        for batch, start in enumerate(range(0, len(mine), BATCH)):
            part = slice(start, start + BATCH)
            yield _Job(mine[part], label, plates[part], chosen[part], (seed, 4, index, label, batch))


def simulate_split(
    split: str, *, cells_per_class: int, seed: int = 0, progress: bool = False
) -> dict[str, Array]:
    """Simulate one file: `data` uint16 (N, 2, 64, 64), `labels` uint8 (N,), `plate` and `well` bytes (N,)."""
    sizes = split_sizes(split, cells_per_class=cells_per_class, seed=seed)
    effects, total = well_effects(seed), int(sizes.sum())
    release = {
        name: np.empty(total, dtype) for name, dtype in (("labels", "u1"), ("plate", "S3"), ("well", "S3"))
    }
    release["data"] = np.empty((total, 2, SIZE, SIZE), np.uint16)

    def fill(job: _Job) -> int:
        rng = np.random.default_rng(job.seed)
        release["data"][job.rows] = simulate_cells(rng, job.label, effects[job.plates, job.wells])
        release["labels"][job.rows], release["well"][job.rows] = job.label, well_names(job.wells)
        release["plate"][job.rows] = [b"P%02d" % (plate + 1) for plate in job.plates]
        return len(job.rows)

    # NumPy works outside the interpreter lock, so two threads use two cores. BLAS gets one thread in each:
    # its own would only wait for one another on such small matrices.
    bar = tqdm.tqdm(total=total, desc=split, unit="cell", disable=None if progress else True)
    one = threadpoolctl.threadpool_limits(1, user_api="blas")
    with one, bar, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for count in pool.map(fill, _jobs(split, sizes, seed)):
            bar.update(count)
    return release


def write_release(
    out: str | os.PathLike[str],
    *,
    cells_per_class: int,
    seed: int = 0,
    progress: bool = False,
    overwrite: bool = False,
) -> dict[str, pathlib.Path]:
    """Write the five HDF5 files of a release into the folder `out` and return split -> path.

    Training has `cells_per_class` cells of each of seven classes and the test sets have the official
    proportions. Each file gets its name only once it is whole. Raises ValueError for bad numbers,
    FileExistsError if a file is there and `overwrite` is not set, NotADirectoryError or PermissionError
    if `out` cannot be written.
    """
    folder = pathlib.Path(out)
    paths = {split: folder / f"COOS7_v1.1_{split}.hdf5" for split in SPLITS}
    for split in SPLITS:
        split_sizes(split, cells_per_class=cells_per_class, seed=seed)
    _prepare(folder, () if overwrite else paths.values())
    for path in paths.values():  # a kill halfway must not leave files of two releases side by side
        path.unlink(missing_ok=True)
    for split, path in paths.items():
        arrays = simulate_split(split, cells_per_class=cells_per_class, seed=seed, progress=progress)
        _write_file(path, arrays, seed=seed)
    return paths


def _prepare(folder: pathlib.Path, unwanted: Iterable[pathlib.Path]) -> None:
    """Make the folder, or say before any work why the release cannot be written there."""
    present = [path.name for path in unwanted if path.exists()]
    if present:
        raise FileExistsError(f"{folder} already holds {', '.join(present)}; choose another, or overwrite")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write into {folder}")


def _write_file(path: pathlib.Path, arrays: Mapping[str, Array], *, seed: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            file.attrs.update(simulated=True, seed=seed)
            for name, values in arrays.items():
                file.create_dataset(name, data=values)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
