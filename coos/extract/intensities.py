"""Statistics of the intensities of a cell: profiles without a network, which others have to surpass."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

PERCENTILES = (50, 5, 25, 75, 95)
NAMES = ("mean", "std", "min", "max", "median", *(f"percentile_{q}" for q in PERCENTILES[1:]))
BLOCK = 32  # windows at once


def names(channels: Sequence[str], *, correlations: bool = False) -> tuple[str, ...]:
    """Names of what `statistics` computes, such as DNA_mean and DNA_ER_correlation."""
    found = [f"{channel}_{name}" for channel in channels for name in NAMES]
    pairs = itertools.combinations(channels, 2) if correlations else ()
    return (*found, *(f"{one}_{other}_correlation" for one, other in pairs))


def statistics(images: np.ndarray, *, correlations: bool = False) -> np.ndarray:
    """Of windows (n, H, W, C), channel after channel, what `NAMES` lists: float32 (n, D).

    All pixels count, also those that are zero because they lie outside the field. Percentiles are interpolated
    linearly. With `correlations`, Pearson's of every two channels follow; NaN where a channel is constant.
    """
    width = len(NAMES) * images.shape[-1] + correlations * math.comb(images.shape[-1], 2)
    found = np.empty((len(images), width), np.float32)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        planes = np.moveaxis(block, -1, 1).reshape(len(block), block.shape[-1], -1)
        simple = _of_bytes(planes) if planes.dtype == np.uint8 else _of_pixels(planes)
        features = [np.stack(simple, axis=-1).reshape(len(block), -1)]
        if correlations:
            features.append(_correlations(planes))
        found[start : start + BLOCK] = np.concatenate(features, axis=1)
    return found


def _of_bytes(planes: np.ndarray) -> list[np.ndarray]:
    """Each of `NAMES` of planes (n, C, N) uint8, (n, C) float64, from their histograms: ten times as fast."""
    rows = [np.bincount(plane, minlength=256) for plane in planes.reshape(-1, planes.shape[-1])]
    counts = np.stack(rows).reshape(*planes.shape[:2], 256)
    values = np.arange(256)
    mean, squares = (counts @ x / planes.shape[-1] for x in (values, values**2))
    low, high = (counts > 0).argmax(-1), 255 - (counts[..., ::-1] > 0).argmax(-1)
    below = counts.cumsum(-1)
    percentiles = _interpolated(lambda rank: (below <= rank).sum(-1), planes.shape[-1])
    return [mean, np.sqrt(squares - mean**2), low, high, *percentiles]


def _of_pixels(planes: np.ndarray) -> list[np.ndarray]:
    """The same of planes of any dtype."""
    pixels = planes.astype(np.float64)
    ordered = np.partition(
        planes, sorted({rank for q in PERCENTILES for rank in _ranks(q, planes.shape[-1])})
    )
    percentiles = _interpolated(lambda rank: ordered[..., rank].astype(np.float64), planes.shape[-1])
    return [pixels.mean(-1), pixels.std(-1), planes.min(-1), planes.max(-1), *percentiles]


def _ranks(percentile: float, number: int) -> tuple[int, int]:
    position = percentile / 100 * (number - 1)
    return math.floor(position), math.ceil(position)


def _interpolated(ordered: Callable[[int], np.ndarray], number: int) -> list[np.ndarray]:
    """Each of `PERCENTILES` of values of which `ordered(rank)` gives the one of a rank."""
    found = []
    for percentile in PERCENTILES:
        low, high = map(ordered, _ranks(percentile, number))
        found.append(low + (high - low) * (percentile / 100 * (number - 1) % 1))
    return found


def _correlations(planes: np.ndarray) -> np.ndarray:
    """Pearson's of every two channels (n, pairs) of planes (n, C, N)."""
    centred = planes.astype(np.float32)
    centred -= centred.mean(-1, keepdims=True)
    covariance = centred @ centred.swapaxes(1, 2)
    one, other = np.triu_indices(planes.shape[1], 1)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant channel correlates with nothing
        return covariance[:, one, other] / np.sqrt(variance[:, one] * variance[:, other])
