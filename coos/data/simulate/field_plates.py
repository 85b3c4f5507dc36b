"""Write simulated releases of whole fields of view: plates of wells, or class folders, in the official layouts.

    write_fields("release", "bbbc013", height=96, width=96, seed=0)

    <out>/simulated.json          says that all is simulated, what is planted, and which files are ours
    <out>/...                     see `coos.data.simulate.field_layouts`

What is found in them shows that the machinery works, and nothing about cells, compounds or networks.
"""

import concurrent.futures
import os
import pathlib
from typing import Any

import numpy as np
import PIL.Image
import threadpoolctl
import tifffile
from tqdm import tqdm

from coos import workdir
from coos.data.simulate import treated_fields
from coos.data.simulate.field_layouts import RELEASES, Picture, Release, Sizes
from coos.data.simulate.organelles import Array

KIND, MARK = "whole fields", "simulated.json"
SMALLEST = 32
GAIN = 0.15  # sd of the logarithm of the brightness of plates
GREYS = [value for grey in range(256) for value in (grey, grey, grey)]


def write_fields(
    out: str | os.PathLike[str],
    name: str,
    *,
    height: int = 96,
    width: int = 96,
    seed: int = 0,
    progress: bool = False,
    overwrite: bool = False,
    **sizes: int,
) -> int:
    """Write a release into the folder `out` and return its number of fields; the same arguments give the same pixels.

    Args:
        out: folder, made if it is not there.
        name: one of `RELEASES`.
        height, width: of a field in px. Cells keep their size.
        overwrite: replace an earlier simulated release; files that are not of it stay.
        sizes: see `field_layouts.Sizes`.

    Raises:
        ValueError: a name or number that is not possible.
        FileExistsError: files are there, and no `overwrite`, or they are not simulated.
    """
    if name not in RELEASES:
        raise ValueError(f"set {name!r}: choose one of {', '.join(RELEASES)}")
    if min(height, width) < SMALLEST:
        raise ValueError(f"fields of {height} x {width} px; they must be {SMALLEST} or larger each way")
    release = RELEASES[name](_checked(Sizes(**sizes)))
    folder = pathlib.Path(out)
    _clear(folder, overwrite=overwrite)
    files = [*release.tables, *(path for picture in release.pictures for path in picture.paths)]
    size = {"set": name, "seed": seed, "height": height, "width": width}
    about = {"simulated": True, "kind": KIND, **size, **release.truth, "files": files}
    workdir.write_json(folder / MARK, about)
    _write_pictures(folder, release, size, progress=progress)
    for table, text in release.tables.items():
        (folder / table).write_text(text)
    return len(release.pictures)


def _checked(sizes: Sizes) -> Sizes:
    for name, value in sizes._asdict().items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be 1 or more")
    if sizes.mechanisms > treated_fields.MOST_MECHANISMS:
        raise ValueError(f"mechanisms is {sizes.mechanisms}; there are {treated_fields.MOST_MECHANISMS}")
    wells = 90  # 96 without six of DMSO
    treatments = sizes.mechanisms * sizes.compounds_per_mechanism * sizes.doses
    if treatments > wells:
        raise ValueError(f"{treatments} treatments (mechanisms x compounds x doses) do not fit {wells} wells")
    return sizes


def _clear(folder: pathlib.Path, *, overwrite: bool) -> None:
    """Make the folder, and remove the files of an earlier release, which it says are simulated."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    present = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if not present:
        return
    about: dict[str, Any] = workdir.read_json(folder / MARK) if MARK in present else {}
    if about.get("kind") != KIND or not overwrite:
        reason = "choose another, or overwrite" if about.get("kind") == KIND else "which are not simulated"
        raise FileExistsError(f"{folder} already holds {', '.join(present[:5])}; {reason}")
    for name in about["files"]:
        (folder / name).unlink(missing_ok=True)


def _write_pictures(folder: pathlib.Path, release: Release, size: dict[str, Any], *, progress: bool) -> None:
    for parent in sorted({str(pathlib.Path(path).parent) for p in release.pictures for path in p.paths}):
        (folder / parent).mkdir(parents=True, exist_ok=True)

    def write(job: tuple[int, Picture]) -> None:
        number, picture = job
        planes = draw(picture, number, seed=size["seed"], height=size["height"], width=size["width"])
        for channel, path in enumerate(picture.paths):
            save(folder / path, planes[..., channel])

    jobs = list(enumerate(release.pictures))
    bar = tqdm(total=len(jobs), desc="fields", unit="field", disable=None if progress else True)
    one = threadpoolctl.threadpool_limits(1, user_api="blas")
    with one, bar, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(write, jobs):
            bar.update()


def draw(picture: Picture, number: int, *, seed: int, height: int, width: int) -> Array:
    """Pixels (height, width, channels) of the field of that number."""
    rng = np.random.default_rng([seed, 51, number])
    gain = float(np.exp(GAIN * np.random.default_rng([seed, 52, picture.plate]).standard_normal()))
    light = picture.draw(rng, height=height, width=width)
    return treated_fields.photograph(rng, light, picture.dtype, gain=gain)


def save(path: pathlib.Path, plane: Array) -> None:
    """Write one plane (height, width): .BMP with a palette of greys, .Bmp and .dib plain, JPEG as RGB, TIFF, PNG."""
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, plane)
        return
    image = PIL.Image.fromarray(plane)
    if suffix in (".jpg", ".jpeg"):
        image.convert("RGB").save(path, quality=95)
    elif path.suffix == ".BMP":
        image.putpalette(GREYS)
        image.save(path)
    else:
        image.save(path, format="DIB" if suffix == ".dib" else None)
