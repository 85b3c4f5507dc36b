"""Preprocessing and augmentation of raw intensities, in pure JAX inside the compiled step.

Functions take one image (H, W, C); `jax.vmap` them over a batch. Random ones take a key first.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from coos.data.augment import random_brightness, random_contrast, sample, zoom_positions

INTENSITIES = ("stretch", "standardize", "standardize_each", "pretrained", "minmax", "max", "zscore", "unit")
FEW_EXTREMES = 16


def _largest(values: Array, count: int) -> Array:
    """The `count` largest values, descending; for few of them by taking the maximum off again and again.

    XLA sorts slowly on CPUs, and `lax.top_k` is a sort there: 4,096 pixels take 20 times as long.
    """
    if count > FEW_EXTREMES:
        return jax.lax.top_k(values, count)[0]
    found = []
    for _ in range(count):
        place = jnp.argmax(values)
        found.append(values[place])
        values = jnp.where(jnp.arange(values.shape[0]) == place, -jnp.inf, values)
    return jnp.stack(found)


def percentile(values: Array, q: float) -> Array:
    """Percentile of a float vector (N,), linearly interpolated: equal to `numpy.percentile(values, q)`.

    Near either end only the few extreme values are looked for: for the 99.9th percentile of 4,096 pixels
    that is six values.
    """
    last = values.shape[0] - 1
    position = q / 100 * last
    lower = math.floor(position)
    if position <= last / 2:
        ascending = -_largest(-values, min(lower + 2, last + 1))
        low, high = ascending[lower], ascending[-1]
    else:
        descending = _largest(values, last + 1 - lower)
        low, high = descending[-1], descending[max(last - lower - 1, 0)]
    return low + (high - low) * (position - lower)


def percentile_stretch(image: Array, *, low: float = 0.1, high: float = 99.9, min_span: float = 1.0) -> Array:
    """DeepLoc's stretch, channel by channel (Kraus et al. 2017, preprocessing code).

    With lo and hi the two percentiles: (min(x, hi) - lo), divided by hi - lo where that is above `min_span`.
    Only the bright end is clipped, so values below lo come out negative. The published guard, 1, is one camera
    count: images that were scaled to small floats need 0, or they are shifted and never stretched. Returns
    float32 (H, W, C).
    """
    pixels = image.astype(jnp.float32)

    def stretch(channel: Array) -> Array:
        bottom, top = percentile(channel.ravel(), low), percentile(channel.ravel(), high)
        span = top - bottom
        return (jnp.minimum(channel, top) - bottom) / jnp.where(span > min_span, span, 1.0)

    return jax.vmap(stretch, in_axes=-1, out_axes=-1)(pixels)


def standardize(image: Array, *, mean: Array, std: Array) -> Array:
    """(x - mean) / std with constants (C,) of the whole training set: raw intensities stay comparable."""
    return (image.astype(jnp.float32) - mean) / std


def standardize_each(image: Array) -> Array:
    """(x - mean) / (std + 1e-7) of this image alone, channel by channel, with the unbiased (n - 1) std.

    The input of all networks of Hofmarcher et al. 2019 (code); absolute intensities are lost, and with them what
    exposure and staining did to them. image (H, W, C) -> float32 (H, W, C).
    """
    pixels = image.astype(jnp.float32)
    return (pixels - pixels.mean((0, 1))) / (pixels.std((0, 1), ddof=1) + 1e-7)


def _range(image: Array) -> tuple[Array, Array, Array]:
    """An image in float32, and minimum and maximum of its channels (C,)."""
    pixels = image.astype(jnp.float32)
    return pixels, pixels.min((0, 1)), pixels.max((0, 1))


def minmax(image: Array) -> Array:
    """(x - min) / (max - min + 1e-7) of this image alone, channel by channel: DeepProfiler's since August 2024.

    image (H, W, C) -> float32 (H, W, C) in [0, 1]. A constant channel becomes 0.
    """
    pixels, low, high = _range(image)
    return (pixels - low) / (high - low + 1e-7)


def by_maximum(image: Array) -> Array:
    """(x - min) / max of this image alone, channel by channel: DeepProfiler's from September 2021 to August 2024.

    The brightest pixel becomes 1 - min / max, so something of the background's level stays. image (H, W, C) ->
    float32 (H, W, C). A constant channel, one of zeros as well, becomes 0.
    """
    pixels, low, high = _range(image)
    return (pixels - low) / jnp.where(high == 0, 1.0, high)


def zscore(image: Array) -> Array:
    """(x - mean) / std of this image alone, channel by channel: DeepProfiler's from May 2020 to September 2021.

    With the population's (n) std; `standardize_each` is another study's, with the sample's. image (H, W, C) ->
    float32 (H, W, C). A constant channel becomes 0, where DeepProfiler's became NaN.
    """
    pixels, low, high = _range(image)
    varies = high > low
    return jnp.where(varies, pixels - pixels.mean((0, 1)), 0) / jnp.where(varies, pixels.std((0, 1)), 1)


def unit(image: Array) -> Array:
    """x / the largest value of the integer dtype, 255 or 65535: crops that DeepProfiler exported, as it reads them.

    Intensities stay comparable. image (H, W, C) -> float32 (H, W, C). ValueError for images that are no integers.
    """
    if not jnp.issubdtype(image.dtype, jnp.integer):
        raise ValueError(f"intensity 'unit': images are {image.dtype}, of no largest value; choose 'minmax'")
    return image.astype(jnp.float32) / jnp.iinfo(image.dtype).max


def binned(images: Array, *, factor: int) -> Array:
    """Means of blocks of factor x factor pixels: (..., H, W, C) -> float32 (..., H // factor, W // factor, C).

    Rows and columns that do not fill a block at the lower and right edge are left out.
    """
    height, width = images.shape[-3] // factor, images.shape[-2] // factor
    if not height or not width:
        raise ValueError(f"binning {factor}: images are {images.shape[-3]} x {images.shape[-2]} pixels")
    inside = images[..., : height * factor, : width * factor, :].astype(jnp.float32)
    blocks = inside.reshape(*images.shape[:-3], height, factor, width, factor, images.shape[-1])
    return blocks.mean((-4, -2))


def to_bytes(images: Array) -> Array:
    """Every channel of every image (..., H, W, C) from its minimum to 0 and its maximum to 255, in float32.

    A constant channel becomes 0.
    """
    x = images.astype(jnp.float32)
    low, high = x.min((-3, -2), keepdims=True), x.max((-3, -2), keepdims=True)
    return (x - low) * (255.0 / jnp.where(high > low, high - low, 1.0))


def pretrained(image: Array, *, mean: Array, std: Array) -> Array:
    """(x - mean) / std of pixels brought to 0..255: the input that imported weights were trained with."""
    return standardize(to_bytes(image), mean=mean, std=std)


def channel_statistics(
    images: np.ndarray, rows: np.ndarray, *, block_bytes: int = 2**26
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) float32 over all pixels of the given images, in blocks, in float64.

    `images` may be vectors (N, C) as well. `block_bytes` are those of a block in float64.
    """
    block = max(1, block_bytes // (8 * int(np.prod(images.shape[1:]))))
    total = np.zeros(images.shape[-1])
    squares, count = np.zeros(images.shape[-1]), 0
    for start in range(0, len(rows), block):
        pixels = np.asarray(images[rows[start : start + block]], np.float64).reshape(-1, images.shape[-1])
        total += pixels.sum(0)
        squares += np.square(pixels).sum(0)
        count += len(pixels)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)


def random_crop(key: Array, image: Array, *, size: int, max_offset: int | None = None) -> Array:
    """A (size, size, C) crop; each offset is uniform in 0..max_offset (default: all that fit)."""
    height, width, channels = image.shape
    limits = [extent - size if max_offset is None else max_offset for extent in (height, width)]
    row = jax.random.randint(key, (2,), 0, jnp.array(limits) + 1)
    return jax.lax.dynamic_slice(image, (row[0], row[1], 0), (size, size, channels))


def random_flips(key: Array, image: Array) -> Array:
    """Mirror vertically and, independently, horizontally, each with probability 1/2."""
    vertical, horizontal = jax.random.bernoulli(key, 0.5, (2,))
    image = jnp.where(vertical, image[::-1], image)
    return jnp.where(horizontal, image[:, ::-1], image)


def random_rotation(key: Array, image: Array, *, num_rotations: int = 4) -> Array:
    """Rotate a square image by k quarter turns, k uniform in 0..num_rotations-1."""
    turns = jax.random.randint(key, (), 0, num_rotations)
    choices = [jnp.rot90(image, k) for k in range(num_rotations)]
    return jax.lax.select_n(turns, *choices)


def random_gain(key: Array, image: Array, *, spread: float) -> Array:
    """Multiply each channel by exp(u), u uniform in [-spread, spread]: another exposure or stain."""
    return image * jnp.exp(jax.random.uniform(key, image.shape[-1:], minval=-spread, maxval=spread))


def crops(image: Array, *, size: int, number: int) -> Array:
    """The centre crop (number 1), or centre and four corners (number 5): (number, size, size, C)."""
    if number not in (1, 5):
        raise ValueError(f"number={number}: evaluation uses 1 crop (centre) or 5 (centre and corners)")
    down, right = image.shape[0] - size, image.shape[1] - size
    corners = [(down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right)]
    return jnp.stack([image[y : y + size, x : x + size] for y, x in corners[:number]])


PLAIN: dict[str, Callable[[Array], Array]] = {
    "standardize_each": standardize_each,
    "minmax": minmax,
    "max": by_maximum,
    "zscore": zscore,
    "unit": unit,
}


def intensity_function(name: str, **constants: Any) -> Callable[[Array], Array]:
    """The intensity transform called `name`: "stretch" (min_span), "standardize" or "pretrained" (mean, std).

    The others need no constants: "standardize_each", DeepProfiler's "minmax", "max" and "zscore", and "unit".
    """
    if name == "stretch":
        return functools.partial(percentile_stretch, **constants)
    if name in PLAIN:
        return PLAIN[name]
    if name in ("standardize", "pretrained"):
        rule = standardize if name == "standardize" else pretrained
        return functools.partial(rule, **{k: jnp.asarray(v) for k, v in constants.items()})
    raise ValueError(f"intensity {name!r}: choose one of {INTENSITIES}")


def augment(
    key: Array,
    image: Array,
    *,
    size: int,
    max_offset: int | None = None,
    flips: bool = True,
    num_rotations: int = 4,
    gain_spread: float = 0.0,
    zoom_probability: float = 0.0,
    zoom_low: float = 0.8,
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> Array:
    """Random crop, then zoom, flips, quarter turns, exposure, brightness and contrast, each as its option says.

    DeepProfiler's augmentation (Bornholdt 2021, section 3.2.2, and its code) is zoom_probability 0.5, flips,
    brightness 0.1 and contrast 0.2 of images scaled to [0, 1]. It mirrors in one direction only; with four quarter
    turns either way makes the eight symmetries of the square equally likely.
    """
    crop_key, flip_key, turn_key, gain_key = jax.random.split(key, 4)
    # Of a further key, so that images without these three are drawn as before.
    zoom_key, brightness_key, contrast_key = jax.random.split(jax.random.fold_in(key, 4), 3)

    def turned(grid: Array) -> Array:
        grid = random_flips(flip_key, grid) if flips else grid
        return random_rotation(turn_key, grid, num_rotations=num_rotations) if num_rotations > 1 else grid

    image = random_crop(crop_key, image, size=size, max_offset=max_offset)
    if zoom_probability:
        # Positions are turned, which is the same: XLA would interpolate anew for every turn that could be.
        positions = zoom_positions(zoom_key, size, probability=zoom_probability, low=zoom_low)
        image = sample(image, turned(positions))
    else:
        image = turned(image)
    if gain_spread:
        image = random_gain(gain_key, image, spread=gain_spread)
    if brightness:
        image = random_brightness(brightness_key, image, spread=brightness)
    return random_contrast(contrast_key, image, spread=contrast) if contrast else image
