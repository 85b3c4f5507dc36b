"""Read one grey plane from a TIFF, BMP, DIB, PNG or JPEG file, whatever way its greys are stored.

Files of old screens hold greys as indices into a palette, or three times over as red, green and blue. A palette is
looked up and turned into luminance, Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), rounded to 8 bits; a palette that
is the grey ramp thus leaves every value as it is. Red, green and blue must be equal.
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import PIL.Image
import tifffile

from coos.data import image_tree

SUFFIXES = (".tif", ".tiff", ".bmp", ".dib", ".png", ".jpg", ".jpeg")
TIFF_SUFFIXES = (".tif", ".tiff")
LUMINANCE = np.array([0.299, 0.587, 0.114])
GREY_MODES = ("L", "I;16", "I;16B", "I;16L", "I", "F")


def read_plane(path: str | os.PathLike) -> np.ndarray:
    """The plane (H, W) of a file in the dtype in which it is stored; palettes and 8-bit colours give uint8.

    Raises:
        ValueError: the file cannot be read, holds several images, or colours that are no greys.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() in TIFF_SUFFIXES:
        return _read_tiff(path)
    try:
        with PIL.Image.open(path) as image:
            count = getattr(image, "n_frames", 1)
            image.load()
    except Exception as error:  # damaged files raise many types; all mean the same to the user
        raise ValueError(f"{path}: cannot be read as an image ({type(error).__name__}: {error})") from error
    if count != 1:
        raise ValueError(f"{path}: holds {count} images; expected one two-dimensional plane")
    if image.mode == "P":
        colours = np.asarray(image.getpalette("RGB"), np.float64).reshape(-1, 3)
        return look_up(np.asarray(image), colours, str(path))
    if image.mode == "RGB":
        return one_of_equal(np.asarray(image), str(path))
    if image.mode not in GREY_MODES:
        raise ValueError(
            f"{path}: pixels are {image.mode}; expected grey, a palette or equal red, green, blue"
        )
    return np.asarray(image)


def _read_tiff(path: pathlib.Path) -> np.ndarray:
    """A TIFF: palette and RGB here, all other kinds as `image_tree` reads them, with its messages."""
    try:
        with tifffile.TiffFile(path) as file:
            page, count = file.pages.first, len(file.pages)
            kind, palette = page.photometric, page.colormap
    except Exception:  # `image_tree` says what is wrong
        return image_tree.read_plane(path)
    if count != 1 or kind not in (tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.RGB):
        return image_tree.read_plane(path)
    try:
        pixels = tifffile.imread(path)
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as TIFF ({type(error).__name__}: {error})") from error
    if kind == tifffile.PHOTOMETRIC.RGB:
        return one_of_equal(pixels, str(path))
    if palette is None:
        raise ValueError(f"{path}: pixels are indices into a palette that the file does not have")
    # Writers make 16 bits of 8 by multiplying with 256 or 257; the upper byte is the value in both.
    return look_up(pixels, palette.T >> 8, str(path))


def look_up(indices: np.ndarray, colours: np.ndarray, where: str) -> np.ndarray:
    """Luminance uint8 (H, W) of `indices` (H, W) into `colours` (N, 3), red, green and blue from 0 to 255.

    Raises:
        ValueError: an index beyond the palette.
    """
    if indices.size and indices.max() >= len(colours):
        raise ValueError(f"{where}: a pixel has index {indices.max()} of a palette of {len(colours)} colours")
    return np.rint(colours @ LUMINANCE).astype(np.uint8)[indices]


def one_of_equal(pixels: np.ndarray, where: str) -> np.ndarray:
    """The plane (H, W) that is there three times in `pixels` (H, W, 3).

    Raises:
        ValueError: red, green and blue differ, or there are not three.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"{where}: colours have shape {pixels.shape}; expected (height, width, 3)")
    different = (pixels != pixels[..., :1]).any(-1)
    if different.any():
        row, column = np.argwhere(different)[0]
        values = pixels[row, column].tolist()
        raise ValueError(
            f"{where}: pixel ({row}, {column}) has red, green, blue {values}; expected a grey picture whose three "
            "planes are equal: save the channel that is meant as grey"
        )
    return np.ascontiguousarray(pixels[..., 0])


def read_planes(paths: Sequence[str | os.PathLike]) -> np.ndarray:
    """The image (H, W, C) of one file per channel, which must have one size and dtype.

    Raises:
        ValueError: a file cannot be read, or differs from the first in size or dtype.
    """
    planes = [read_plane(path) for path in paths]
    for path, plane in zip(paths, planes, strict=True):
        if plane.shape != planes[0].shape or plane.dtype != planes[0].dtype:
            raise ValueError(
                f"{path}: is {plane.dtype} {plane.shape}; its partner {pathlib.Path(paths[0]).name} is "
                f"{planes[0].dtype} {planes[0].shape}"
            )
    return np.stack(planes, axis=-1)
