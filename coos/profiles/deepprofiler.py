"""Features of single cells as DeepProfiler leaves them: one `.npz` file per site, read without unpickling.

for site in deepprofiler.sites("outputs/run/features"):    # <plate>/<well>/<site>.npz
    ...
wells = aggregate.aggregate_stream(deepprofiler.sites(folder), method="median")

deepprofiler.write_site(path, features, locations, {"Metadata_Plate": "P1", "Metadata_Model": "efficientnet"})
deepprofiler.write_site(copy, *deepprofiler.read_site(path))

A file holds `features` (n, D), `locations` (n, 2 or more; x, y in pixels), and `metadata`: a pickled dictionary of the
site, which pycytominer unpickles and takes the prefix of feature names from ("Metadata_Model"). Files written here have
it too, so that pycytominer reads them; it is never read back, but passed on as the bytes that it is.
"""

import glob
import io
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from absl import logging
from tqdm import tqdm

from coos import workdir
from coos.profiles.table import Table, concatenate, listing

SITE_FILES = "<plate>/<well>/<site>.npz or <plate>/<well>_<site>.npz"


MEMBERS = ("features", "metadata", "locations")  # in DeepProfiler's order
LEVEL = 1  # of compression: higher ones gain 1 % on features and take three times as long


class SiteFile(NamedTuple):
    """What a file holds: `features` (n, D), `locations` (n, 2 or more), and the bytes of its member `metadata`.

    Locations or metadata are None where the file has none.
    """

    features: np.ndarray
    locations: np.ndarray | None
    metadata: bytes | None


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


def read_site(path: str | os.PathLike) -> SiteFile:
    """One file as it is, for `write_site`; ValueError naming it if it is damaged or has no features.

    Nothing is unpickled: `locations` must be an array of numbers, `metadata` stays bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            locations = _array(archive, "locations") if "locations.npy" in members else None
            metadata = archive.read("metadata.npy") if "metadata.npy" in members else None
            return SiteFile(_array(archive, "features"), locations, metadata)
    except Exception as error:  # damaged files raise many types; all mean the same to the user
        raise ValueError(f"{path}: {error}; profile this site again, or remove the file") from error


def write_site(
    path: str | os.PathLike,
    features: np.ndarray,
    locations: np.ndarray | None,
    metadata: Mapping[str, str] | bytes | None,
) -> None:
    """Write the file of a site, atomically: the same content gives the same bytes.

    Args:
        path: <plate>/<well>/<site>.npz below the folder of features.
        features: (n, D) numbers.
        locations: (n, 2 or more), x and y in pixels; None leaves them out.
        metadata: what is known of the site, text by names such as Metadata_Plate, pickled as DeepProfiler does; or the
            bytes of the member of another file, as `read_site` gives them; None leaves it out.

    Raises:
        ValueError: features or locations are no numbers, of another shape or of different lengths.
    """
    if features.ndim != 2 or features.dtype.kind not in "fiub":
        raise ValueError(
            f"{path}: features are {features.dtype} {features.shape}; expected numbers (cells, features)"
        )
    if locations is not None and (locations.ndim != 2 or len(locations) != len(features)):
        raise ValueError(f"{path}: locations {locations.shape} for {len(features)} rows of features")
    content = {"features": _npy(features)}
    if metadata is not None:
        content["metadata"] = metadata if isinstance(metadata, bytes) else _pickled(dict(metadata))
    if locations is not None:
        content["locations"] = _npy(locations)

    def write(file) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
            for name in MEMBERS:
                if name in content:
                    _write_member(archive, f"{name}.npy", content[name])

    workdir.write_atomically(path, write, mode="wb")


def _npy(array: np.ndarray) -> bytes:
    if array.dtype.hasobject:
        raise ValueError(f"an array of {array.dtype}: only numbers are written")
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _pickled(content: dict[str, str]) -> bytes:
    """A member with a dictionary of plain text; pickling is safe, only unpickling what others wrote is not."""
    wrong = [name for name, value in content.items() if not isinstance(value, str)]
    if wrong:
        raise ValueError(f"metadata {wrong[0]!r} is {type(content[wrong[0]]).__name__}; only text is written")
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array(content, object), allow_pickle=True)
    return file.getvalue()


def _write_member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name)  # of 1980, as NumPy's, so that equal content gives equal bytes
    member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
    archive.writestr(member, content, compresslevel=LEVEL)


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
