"""Square windows around cells, cut out of fields of view: whole pixels, or DeepProfiler's resampled ones.

Pixel i is centred at i, and a centre is (y, x) in pixels. What lies outside a field is 0. These are on NumPy arrays,
for builders, whose processes need no JAX; `coos.data.device_crops` has the same on the device.
"""

import numpy as np

GRID = 2**20  # sampled positions are multiples of 1 / GRID pixel


def corners(centers: np.ndarray, size: int = 128) -> np.ndarray:
    """(n, 2) int64 upper left corners of windows of `size` pixels around `centers` (n, 2).

    floor(c + 0.5) - size // 2: the pixel nearest to the centre is the window's pixel number size // 2.
    """
    return np.floor(np.asarray(centers, np.float64) + 0.5).astype(np.int64) - size // 2


def cut(image: np.ndarray, corners: np.ndarray, size: int = 128) -> np.ndarray:
    """Windows of whole pixels out of one field.

    Args:
        image: (H, W, C).
        corners: (n, 2) integers, upper left corners, anywhere.
        size: of the windows in pixels.

    Returns:
        (n, size, size, C) in the dtype of the image, 0 outside it.
    """
    windows = np.empty((len(corners), size, size, image.shape[2]), image.dtype)
    for window, (y, x) in zip(windows, np.asarray(corners).tolist(), strict=True):
        _fill(window, image, y, x)
    return windows


def _fill(window: np.ndarray, image: np.ndarray, y: int, x: int) -> None:
    """Fill a window (h, w, C) from the image, beginning at (y, x); 0 outside."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + window.shape[0], image.shape[0]), min(x + window.shape[1], image.shape[1])
    if (bottom - top, right - left) != window.shape[:2]:
        window[...] = 0
    if bottom > top and right > left:
        window[top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]


def resample(image: np.ndarray, centers: np.ndarray, size: int = 128) -> np.ndarray:
    """DeepProfiler's windows out of one field: TensorFlow's `crop_and_resize` of a box in shares of the image.

    The box runs from (c - size / 2) / H to (c + size / 2) / H, and TensorFlow takes a share s to the position
    s (H - 1). So sample i of `size` lies at (c - size / 2) (H - 1) / H + i (size / (size - 1)) (H - 1) / H: a little
    further apart than pixels, 1.0069 for size 128 and H 1080, and between them, where bilinear interpolation gives
    its value. Samples below 0 or above H - 1 are 0. Positions are rounded to 2^-20 pixel, finer than TensorFlow's own
    float32, so that those on an edge are on it.

    Args:
        image: (H, W, C).
        centers: (n, 2), y and x in pixels, anywhere.
        size: of the windows in samples, at least 2.

    Returns:
        float32 (n, size, size, C).
    """
    refuse_small(size)
    rows, columns = (
        _samples(np.asarray(centers, np.float64)[:, axis], image.shape[axis], size) for axis in (0, 1)
    )
    windows = np.empty((len(centers), size, size, image.shape[2]), np.float32)
    for window, *sampled in zip(windows, *rows, *columns, strict=True):
        _resample_one(window, image, sampled[:3], sampled[3:])
    return windows


def refuse_small(size: int) -> None:
    """ValueError for windows of fewer than two samples a side."""
    if size < 2:
        raise ValueError(f"size={size}: a resampled window has at least 2 samples a side")


def _samples(center: np.ndarray, extent: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, size) each: the pixel at or before every sample, how far behind it, and whether it is inside."""
    spacing = size / (size - 1) * np.arange(size)
    position = (center[:, None] - size / 2 + spacing) * (extent - 1) / extent
    position = np.round(position * GRID) / GRID
    before = np.floor(position)
    inside = (position >= 0) & (position <= extent - 1)
    return before.astype(np.int64), (position - before).astype(np.float32), inside


def _resample_one(window: np.ndarray, image: np.ndarray, rows: list, columns: list) -> None:
    """Fill a window (size, size, C) from (before, fraction, inside) of its rows and of its columns."""
    (row, down, row_inside), (column, right, column_inside) = rows, columns
    (y, x), (size, _, channels) = (row.min(), column.min()), window.shape
    pixels = np.empty((row.max() + 2 - y, column.max() + 2 - x, channels), np.float32)
    _fill(pixels, image, int(y), int(x))
    pixels = pixels.reshape(len(pixels), -1)
    between_rows = np.empty((size, pixels.shape[1]), np.float32)
    _interpolate(pixels, row - y, down, between_rows)
    _interpolate(between_rows.T, column - x, right, window.reshape(size, -1).T, step=channels)
    window[~row_inside] = 0
    window[:, ~column_inside] = 0


def _interpolate(
    pixels: np.ndarray, before: np.ndarray, fraction: np.ndarray, out: np.ndarray, *, step: int = 1
) -> None:
    """Fill `out` (n * step, k) with values between `pixels` (m * step, k), which are `step` rows apart.

    In runs of neighbours: there are two or three of them, as a sample is one pixel further than the last but for once.
    """
    ends = [*(np.flatnonzero(np.diff(before) != 1) + 1).tolist(), len(before)]
    for start, end in zip([0, *ends], ends, strict=False):
        first, last = before[start] * step, (before[end - 1] + 1) * step
        here, behind = pixels[first:last], pixels[first + step : last + step]
        share = np.repeat(fraction[start:end], step)[:, None]
        between = out[start * step : end * step]
        np.subtract(behind, here, out=between)
        between *= share
        between += here


def to_deepprofiler_bytes(crops: np.ndarray) -> np.ndarray:
    """Crops (n, size, size, C) as DeepProfiler exports them: each from its joint minimum to 0 and maximum to 255.

    Joint over all channels, so that they keep their ratios; floored, uint8. DeepProfiler scales each channel first, by
    the rules "minmax", "max" or "zscore" of `coos.data.preprocess` according to its version: for the same bytes give
    crops that are scaled so. A constant crop, which it leaves out, becomes 0.

    Raises:
        ValueError: a crop has values that are not finite.
    """
    bytes_ = np.empty(crops.shape, np.uint8)
    for crop, scaled in zip(crops, bytes_, strict=True):
        low, high = float(crop.min()), float(crop.max())
        if not np.isfinite(high - low):
            raise ValueError(f"a crop has values from {low} to {high}; expected finite numbers")
        scaled[...] = (crop - np.float64(low)) / ((high - low) or 1.0) * 255
    return bytes_
