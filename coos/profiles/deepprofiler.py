"""Features of single cells as DeepProfiler leaves them: one `.npz` file per site, read without unpickling.

for site in deepprofiler.sites("outputs/run/features"):    # <plate>/<well>/<site>.npz
    ...
wells = aggregate.aggregate_stream(deepprofiler.sites(folder), method="median")
"""

import glob
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from absl import logging
from tqdm import tqdm

from coos.profiles.table import Table, concatenate, listing

SITE_FILES = "<plate>/<well>/<site>.npz or <plate>/<well>_<site>.npz"


class _Site(NamedTuple):
    plate: str
    well: str
    site: str
    path: pathlib.Path


def sites(folder: str | os.PathLike, *, feature_names: Sequence[str] | None = None) -> Iterator[Table]:
    """One table of single cells per DeepProfiler file, sorted by plate, well and site (numbers as numbers).

    Files are `<plate>/<well>/<site>.npz`, `<plate>/<well>_<site>.npz` or `<plate>/<well>-<site>.npz` below
    `folder`. Metadata_Plate, _Well and _Site are text from the path; Metadata_Location_Center_X and _Y come
    from the array `locations` (n, 2 or more), if there is one. Nothing is ever unpickled.

    A site without cells, whose `features` may have shape (0,), gives a table without rows, or none as long as the
    number of features is unknown. A warning at the end names such sites, and the wells that have no cells at all.

    Args:
        folder: the folder that holds the plate folders.
        feature_names: D names of the features; None: DP_0, DP_1, ...

    Raises:
        ValueError: no files, or two of one site; and while iterating: a damaged file, no array `features`
            (n, D) of numbers, a D unlike that of the first file or the number of names, or no cells at all.
    """
    found = _find_sites(pathlib.Path(folder))
    return _iterate(found, None if feature_names is None else tuple(feature_names))


def read(folder: str | os.PathLike, *, feature_names: Sequence[str] | None = None) -> Table:
    """All cells of `sites` in one table; for more than memory holds, aggregate the iterator."""
    return concatenate(sites(folder, feature_names=feature_names))


def _find_sites(root: pathlib.Path) -> list[_Site]:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected {SITE_FILES} below it")
    paths = glob.glob("**/*.npz", root_dir=root, recursive=True)  # through links, without hidden files
    if not paths:
        raise ValueError(f"{root}: no .npz files; expected {SITE_FILES} below it")
    found: dict[tuple[str, ...], _Site] = {}
    for path in sorted(root / name for name in paths):
        site = _parse(path, root)
        other = found.setdefault(site[:3], site)
        if other is not site:
            raise ValueError(f"{path}: the same plate, well and site as {other.path}; keep one of the two")
    return sorted(
        found.values(), key=lambda s: (s.plate, s.well, s.site.zfill(20) if s.site.isdigit() else s.site)
    )


def _parse(path: pathlib.Path, root: pathlib.Path) -> _Site:
    """A third part with `_` or `-` would be `<well>_<site>` below two folders, not a site."""
    found = re.fullmatch(r"([^/]+)/([^/_-]+)[/_-]([^/_-]+)\.npz", path.relative_to(root).as_posix())
    if not found:
        raise ValueError(
            f"{path}: is not {SITE_FILES} below {root}; give the folder that holds the plate folders"
        )
    return _Site(found[1], found[2], found[3], path)


def _iterate(found: Sequence[_Site], names: tuple[str, ...] | None) -> Iterator[Table]:
    empty: list[_Site] = []
    occupied: list[_Site] = []
    for site in tqdm(found, desc="single cells", unit="site", disable=None if len(found) > 100 else True):
        features, centres = _read_site(site.path)
        (occupied if len(features) else empty).append(site)
        if features.ndim == 1:
            if names is None:
                continue
            features = features.reshape(0, len(names))
        if names is None:
            names = tuple(f"DP_{i}" for i in range(features.shape[1]))
        if features.shape[1] != len(names):
            raise ValueError(
                f"{site.path}: has {features.shape[1]} features; expected {len(names)}, the number of names or of "
                f"features in {found[0].path}"
            )
        keys = {"Metadata_Plate": site.plate, "Metadata_Well": site.well, "Metadata_Site": site.site}
        columns = [pl.Series(name, [value] * len(features), pl.String) for name, value in keys.items()]
        yield Table(pl.DataFrame([*columns, *centres]), features, names)
    if names is None:
        raise ValueError(
            f"{found[0].path} and all other sites have no cells: {len(found)} files; profile them again"
        )
    if empty:
        _report(empty, occupied)


def _report(empty: Sequence[_Site], occupied: Sequence[_Site]) -> None:
    """Log which sites have no cells, and which wells have none at all."""
    sites_without = ["/".join(site[:3]) for site in empty]
    living = {site[:2] for site in occupied}
    wells_without = ["/".join(well) for well in dict.fromkeys(s[:2] for s in empty) if well not in living]
    logging.warning(
        f"{len(empty)} of {len(empty) + len(occupied)} sites have no cells: {listing(sites_without)}; "
        f"{len(wells_without)} wells have none at all and get no profile: {listing(wells_without) or 'none'}"
    )


def _read_site(path: pathlib.Path) -> tuple[np.ndarray, list[pl.Series]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name.removesuffix(".npy") for name in archive.namelist()]
            if "features" not in members:
                raise ValueError(f"no array 'features'; found {members}")
            features = _array(archive, "features")
            if features.shape == (0,):
                return features, []
            if features.ndim != 2 or features.dtype.kind not in "fiub":
                raise ValueError(
                    f"features are {features.dtype} {features.shape}; expected numbers (cells, features)"
                )
            return features, _centres(archive, len(features)) if "locations" in members else []
    except Exception as error:  # damaged files raise many types; all mean the same to the user
        raise ValueError(f"{path}: {error}; profile this site again, or remove the file") from error


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _centres(archive: zipfile.ZipFile, rows: int) -> list[pl.Series]:
    """Columns of cell centres; none if `locations` is something else."""
    try:
        found = _array(archive, "locations")
    except ValueError:  # pickled objects, which are left alone
        return []
    if found.ndim != 2 or found.shape[1] < 2 or found.dtype.kind not in "fiu":
        return []
    if len(found) != rows:
        raise ValueError(f"{len(found)} locations for {rows} rows of features")
    return [
        pl.Series(f"Metadata_Location_Center_{axis}", found[:, i].astype(np.float64))
        for i, axis in enumerate("XY")
    ]
