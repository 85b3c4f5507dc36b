"""Single cells as DeepProfiler exports them: a PNG file per cell, its channels side by side, and a table of all.

    deepprofiler_crops.write("crops", sites, label_column="Metadata_moa")      # sites of coos.data.plate_files
    images, table = deepprofiler_crops.read("crops")                           # (N, S, S, C) uint8, a row per cell

    <folder>/sc-metadata.csv      columns of the location files, Key (plate/well/site), Target, the label, the split if
                                  there is one, Image_Name (Key and name of the file)
    <folder>/<plate>/<well>/<site>/<target>@<X>x<Y>.png
                                  (S, S * C) uint8; X and Y are the centre as text, target is the position of the label
                                  among all labels, sorted
    <folder>/export.json          how it was made, and of every plate a digest of its files, for another call that goes
                                  on; ours alone

Windows are resampled as DeepProfiler does, and scaled to bytes by the joint minimum and maximum of their channels. It
scales these one by one before, in a way that depends on its version: `SCALINGS`. Windows that this makes NaN, such as
those of one value throughout, have no file. It lists them in the table nevertheless; we do not.
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
import PIL.Image
import polars as pl
from absl import logging
from tqdm import tqdm

from coos import workdir
from coos.data import crops, identity, plate_files, plate_problems
from coos.data.plate_files import FieldError, Problem, Sites
from coos.data.plate_locations import CENTER, READERS
from coos.profiles import delimited
from coos.profiles.table import listing

TABLE, NOTE = "sc-metadata.csv", "export.json"
Y, X = CENTER
COLUMNS = ("Key", "Target", "Image_Name")
# Of one channel x of a window: as it is; DeepProfiler since August 2024; from September 2021; from May 2020.
SCALINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda x: x,
    "minmax": lambda x: (x - x.min()) / (x.max() - x.min() + 1e-7),
    "max": lambda x: (x - x.min()) / x.max(),
    "zscore": lambda x: (x - x.mean()) / x.std(),
}


class Job(NamedTuple):
    """What all fields of an export have in common."""

    folder: pathlib.Path
    sites: Sites
    shape: tuple[int, ...]
    dtype: np.dtype
    size: int
    scaling: str
    targets: tuple[int, ...]  # by site


def write(
    folder: str | os.PathLike,
    sites: Sites,
    *,
    label_column: str,
    split_column: str = "",
    size: int = 128,
    scaling: str = "none",
    problems: str = "stop",
    threads: int = 4,
) -> list[Problem]:
    """Export the cells of fields of view.

    A field's crops appear together or not at all, and those of a field that has them already are not made again: an
    export that was killed goes on where it was, if images, location files and labels are those it began with. The
    table is written last.

    Args:
        folder: where to; made if need be.
        sites: the fields; their frame has the columns of label and split.
        label_column: what the cells are to be classified by, such as "Metadata_moa". Fields without are left out.
        split_column: which cells train and which validate, as DeepProfiler's configuration names it; "": none.
        size: height and width of a window in pixels.
        scaling: of single channels, one of `SCALINGS`; "none" keeps their ratios.
        problems: "stop" where files are missing or wrong, or leave out what they concern and "list" it.
        threads: that read and write fields side by side.

    Returns:
        What was left out because files are missing or wrong.

    Raises:
        ValueError: a missing column, problems that are to stop, no field with cells, or a folder that holds another
            export, or crops of a plate whose files or labels have changed.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"scaling={scaling!r}: choose one of {tuple(SCALINGS)}")
    folder = pathlib.Path(folder)
    sites = _labelled(sites, label_column, split_column)
    first = plate_problems.first_image(sites, problems=problems)
    counts, found = plate_problems.check(sites, shape=first.shape)
    if problems == "stop":
        plate_problems.refuse(found, str(folder))
    if not (counts > 0).any():
        raise ValueError(f"{folder}: no field of view has cells; {plate_problems.count(found)}")
    labels = sites.frame[label_column].cast(pl.String).to_list()
    position = {label: k for k, label in enumerate(sorted(set(labels)))}
    _note(
        folder,
        sites,
        {"label_column": label_column, "split_column": split_column, "crop_size": size, "scaling": scaling},
        position,
        _digests(sites, labels),
    )
    targets = tuple(position[label] for label in labels)
    job = Job(folder, sites, first.shape, first.dtype, size, scaling, targets)
    met = _write_sites(job, np.flatnonzero(counts > 0), problems, threads)
    lost = {problem[:3] for problem in met}
    done = [site for site in np.flatnonzero(counts > 0).tolist() if sites.place(site) not in lost]
    if not done:
        raise ValueError(
            f"{folder}: no field of view has cells and images; {plate_problems.count([*found, *met])}"
        )
    columns = {
        label_column: labels,
        split_column: sites.frame[split_column].to_list() if split_column else [],
    }
    workdir.write_atomically(
        folder / TABLE, functools.partial(_write_table, job=job, rows=done, columns=columns)
    )
    return plate_problems.ordered([*found, *met], sites)


def _labelled(sites: Sites, label_column: str, split_column: str) -> Sites:
    """The fields that have a label; it is logged how many have none."""
    missing = [name for name in (label_column, split_column) if name and name not in sites.frame.columns]
    if missing:
        raise ValueError(f"no column {listing(missing)}; fields have {listing(sites.frame.columns, 30)}")
    known = sites.frame[label_column].is_not_null().to_numpy()
    if not known.any():
        raise ValueError(f"{label_column} is unknown for all {len(sites)} fields; choose another column")
    if not known.all():
        logging.warning(
            "%d of %d fields have no %s; they are left out", (~known).sum(), len(sites), label_column
        )
    return sites.subset(known)


def _digests(sites: Sites, labels: Sequence[str]) -> dict[str, str]:
    """Of every plate a hash of its fields in order: place, label, and path, size and time of each of their files."""
    hashes = {plate: hashlib.sha256() for plate in sites.plates}
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        stamps = pool.map(
            lambda site: list(map(identity.stamp, (*sites.images[site], sites.locations[site]))),
            range(len(sites)),
        )
        for site, files in enumerate(tqdm(stamps, "files", len(sites), unit="field", disable=None)):
            place = sites.place(site)
            hashes[place[0]].update(json.dumps([place, labels[site], files]).encode())
    return {plate: found.hexdigest()[:16] for plate, found in hashes.items()}


def _note(
    folder: pathlib.Path,
    sites: Sites,
    options: dict[str, Any],
    position: dict[str, int],
    files: dict[str, str],
) -> None:
    """Say how the export is made and what of, or see that it was begun alike and of the same files."""
    path = folder / NOTE
    now = {**options, "channels": list(sites.channels), "classes": list(position)}
    if not path.exists() and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder}: holds files, but no {NOTE}; choose a new folder")
    there = workdir.read_json(path) if path.exists() else now
    different = [
        f"{name}: {there.get(name)!r} there, {now[name]!r} now"
        for name in now
        if there.get(name) != now[name]
    ]
    if different:
        raise ValueError(
            f"{folder}: holds an export of something else ({'; '.join(different)}); choose another folder"
        )
    known = there.get("files", {})
    _refuse_changed(folder, [plate for plate in files if files[plate] != known.get(plate)])
    together = {**known, **files}
    if not known.items() <= together.items():
        (folder / TABLE).unlink(missing_ok=True)  # it lists crops of a plate that was removed
    if not path.exists() or together != known:
        workdir.write_json(path, {**now, "files": together})


def _refuse_changed(folder: pathlib.Path, plates: Sequence[str]) -> None:
    """ValueError if there are crops of one of these plates, whose files are others than those noted."""
    there = [str(folder / plate) for plate in plates if (folder / plate).exists()]
    if there:
        raise ValueError(
            f"{folder}: the images, location files or labels of {len(there)} plates have changed since their crops "
            f"were made; remove {listing(there)} and run again, or choose another folder"
        )


def _write_sites(job: Job, rows: np.ndarray, policy: str, threads: int) -> list[Problem]:
    """Write what is missing of these fields; with policy "list" the problems that were met."""
    met = []
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        work = {pool.submit(_write_site, job, site): site for site in rows.tolist()}
        try:
            for future in tqdm(
                concurrent.futures.as_completed(work), "export", len(work), unit="field", disable=None
            ):
                error = future.exception()
                if isinstance(error, FieldError) and policy == "list":
                    met.append(error.problem)
                elif error is not None:
                    raise error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return met


def _write_site(job: Job, site: int) -> None:
    """The crops of one field, unless they are there: under a temporary name, then renamed."""
    target = _site_folder(job, site)
    if target.exists():
        return
    image = plate_problems.read_like(job.sites, site, shape=job.shape, dtype=job.dtype)
    windows = _scaled(crops.resample(image, _cells(job, site)[1], job.size), SCALINGS[job.scaling])
    for left in target.parent.glob(f".{target.name}.*.tmp"):  # of an export that was killed
        shutil.rmtree(left)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    scalable = windows.max(axis=(1, 2, 3)) > windows.min(axis=(1, 2, 3))  # not where a value is NaN
    names = _names(job, site)
    for row, crop in zip(
        np.flatnonzero(scalable), crops.to_deepprofiler_bytes(windows[scalable]), strict=True
    ):
        PIL.Image.fromarray(unfold(crop)).save(temporary / names[row], compress_level=1)
    os.rename(temporary, target)


def _scaled(windows: np.ndarray, scale: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Every channel of every window (n, S, S, C) scaled; NaN where it has no range."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([np.stack([scale(x) for x in np.moveaxis(w, -1, 0)], -1) for w in windows])


def _site_folder(job: Job, site: int) -> pathlib.Path:
    return job.folder.joinpath(*job.sites.place(site))


def _cells(job: Job, site: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the cells inside a field in its location file, and their centres (n, 2), (y, x)."""
    centers = plate_files.read_centers(job.sites.locations[site])
    rows = np.flatnonzero(((centers >= 0) & (centers < job.shape[:2])).all(axis=1))
    return rows, centers[rows]


def _names(job: Job, site: int) -> list[str]:
    """The file name of every cell inside a field."""
    return [f"{job.targets[site]}@{x}x{y}.png" for y, x in _cells(job, site)[1].tolist()]


def _write_table(file: IO[str], *, job: Job, rows: Sequence[int], columns: dict[str, list[Any]]) -> None:
    """A row for every crop; ValueError if there is none, or location files differ in their columns."""
    header: list[str] = []
    count = 0
    for site in rows:
        path, (inside, centers) = job.sites.locations[site], _cells(job, site)
        key, names = "/".join(job.sites.place(site)), _names(job, site)
        table = delimited.read_text_frame(path)[inside].with_columns(
            pl.Series(Y, centers[:, 0]), pl.Series(X, centers[:, 1])
        )
        further = {name: pl.lit(values[site]) for name, values in columns.items() if name}
        table = table.with_columns(
            pl.lit(key).alias("Key"), pl.lit(job.targets[site]).alias("Target"), **further
        )
        table = table.with_columns(
            pl.Series("Image_Name", [f"{key}/{name}" for name in names], dtype=pl.String)
        )
        header = header or table.columns
        if table.columns != header:
            raise ValueError(f"{path}: has other columns than the first location file; all need the same")
        there = set(os.listdir(_site_folder(job, site)))
        kept = table.filter(pl.Series([name in there for name in names], dtype=pl.Boolean))
        file.write(kept.write_csv(include_header=site == rows[0]))
        count += len(kept)
    if not count:
        raise ValueError(f"{job.folder}: no cell has a window that can be scaled; look at the images")


def unfold(crop: np.ndarray) -> np.ndarray:
    """(S, S, C) as (S, S * C): the channels side by side, the first at the left."""
    size, _, channels = crop.shape
    return np.ascontiguousarray(crop.transpose(0, 2, 1).reshape(size, channels * size))


def fold(image: np.ndarray) -> np.ndarray:
    """The inverse of `unfold`."""
    size, width = image.shape
    return np.ascontiguousarray(image.reshape(size, width // size, size).transpose(0, 2, 1))


def read_table(folder: str | os.PathLike) -> pl.DataFrame:
    """The table of an export: centres float64, Target int64, all else text.

    Rows whose crop has no file, which DeepProfiler writes for empty windows, are left out; their number is logged.

    Raises:
        ValueError: the table is missing or damaged, lacks a column, or no crop has a file.
    """
    path = pathlib.Path(folder, TABLE)
    table = delimited.read_text_frame(path)
    missing = [name for name in (Y, X, *COLUMNS) if name not in table.columns]
    if missing:
        raise ValueError(f"{path}: no column {listing(missing)}; found {listing(table.columns, 20)}")
    try:
        table = table.with_columns(pl.col(Y, X).cast(pl.Float64), pl.col("Target").cast(pl.Int64))
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path}: a coordinate or target is no number ({error})") from error
    there = _files(pathlib.Path(folder), table["Key"].unique(maintain_order=True).to_list())
    kept = table.filter(pl.col("Image_Name").is_in(there))
    if kept.is_empty():
        raise ValueError(
            f"{path}: none of its {len(table)} crops has a file, such as {table['Image_Name'][0]}"
        )
    if len(kept) < len(table):
        logging.warning(
            "%s: %d of %d crops have no file; they are left out", path, len(table) - len(kept), len(table)
        )
    return kept


def _files(folder: pathlib.Path, keys: Sequence[str]) -> list[str]:
    """`<key>/<file name>` of all crops below the folders of these keys."""
    return [f"{key}/{name}" for key in keys if (folder / key).is_dir() for name in os.listdir(folder / key)]


def read_crop(path: str | os.PathLike) -> np.ndarray:
    """(S, S, C) uint8 of one file; ValueError naming it if it is none."""
    try:
        with PIL.Image.open(path) as file:
            image = np.asarray(file)
    except Exception as error:  # damaged files raise many types; all mean the same to the user
        raise ValueError(f"{path}: cannot be read as PNG ({type(error).__name__}: {error})") from error
    if image.ndim != 2 or image.dtype != np.uint8 or image.shape[1] % image.shape[0]:
        raise ValueError(f"{path}: is {image.dtype} {image.shape}; a crop is uint8 (size, size * channels)")
    return fold(image)


def cells(
    folder: str | os.PathLike, table: pl.DataFrame | None = None
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Every crop (S, S, C) with its row of the table, one after another; `table` as of `read_table`, or part of it."""
    table = read_table(folder) if table is None else table
    for row in table.iter_rows(named=True):
        yield read_crop(pathlib.Path(folder, row["Image_Name"])), row


def read(folder: str | os.PathLike, table: pl.DataFrame | None = None) -> tuple[np.ndarray, pl.DataFrame]:
    """All crops (N, S, S, C) uint8 and the table (N rows).

    Raises:
        ValueError: as `read_table`, or a file is damaged or of another size than the first; it is named.
    """
    table = read_table(folder) if table is None else table
    images: np.ndarray | None = None
    for number, (image, row) in enumerate(cells(folder, table)):
        images = np.empty((len(table), *image.shape), np.uint8) if images is None else images
        if image.shape != images.shape[1:]:
            raise ValueError(
                f"{pathlib.Path(folder, row['Image_Name'])}: is {image.shape}; the first is {images.shape[1:]}"
            )
        images[number] = image
    assert images is not None  # a table has rows
    return images, table
