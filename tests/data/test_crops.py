"""Windows around cells against slow loops: whole pixels, DeepProfiler's resampled ones, on the host and the device."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from coos.data import crops, device_crops

SIZES = [
    (6, 20, 20),
    (7, 20, 31),
    (8, 5, 6),
    (2, 9, 1),
]  # of the window, height and width; the third is larger
CENTERS = np.array(
    [
        [10, 10],
        [3, 3.5],
        [0, 0],
        [19, 0.25],
        [16.3, 17.7],
        [19.49, 19.51],
        [-2.6, 8],
        [-40, 5],
        [9, 400],
        [4.5, 1.5],
    ]
)


def field(height, width, channels=3, dtype=np.uint8, seed=0):
    largest = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(1, largest, (height, width, channels), dtype, endpoint=True)


def slow_cut(image, center, size):
    window = np.zeros((size, size, image.shape[2]), image.dtype)
    y, x = (math.floor(value + 0.5) - size // 2 for value in center)
    for i in range(size):
        for j in range(size):
            if 0 <= y + i < image.shape[0] and 0 <= x + j < image.shape[1]:
                window[i, j] = image[y + i, x + j]
    return window


def slow_positions(center, extent, size):
    """Of one axis, as TensorFlow's kernel has them, in float64; a tiny rounding keeps edges on the edge."""
    first, last = (center - size / 2) / extent, (center + size / 2) / extent
    spacing = (last - first) * (extent - 1) / (size - 1)
    return [round(first * (extent - 1) + i * spacing, 9) for i in range(size)]


def slow_resample(image, center, size):
    height, width, channels = image.shape
    pixels, window = image.astype(np.float64), np.zeros((size, size, channels))
    for i, y in enumerate(slow_positions(center[0], height, size)):
        for j, x in enumerate(slow_positions(center[1], width, size)):
            if not (0 <= y <= height - 1 and 0 <= x <= width - 1):
                continue
            top, bottom, left, right = math.floor(y), math.ceil(y), math.floor(x), math.ceil(x)
            above = pixels[top, left] + (pixels[top, right] - pixels[top, left]) * (x - left)
            below = pixels[bottom, left] + (pixels[bottom, right] - pixels[bottom, left]) * (x - left)
            window[i, j] = above + (below - above) * (y - top)
    return window


@pytest.mark.parametrize(("size", "height", "width"), SIZES)
def test_cut_equals_a_slow_loop(size, height, width):
    for dtype in (np.uint8, np.uint16):
        image = field(height, width, dtype=dtype)
        found = crops.cut(image, crops.corners(CENTERS, size), size)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, [slow_cut(image, center, size) for center in CENTERS])


def test_the_window_is_centred_on_the_nearest_pixel():
    image = np.arange(400).reshape(20, 20, 1)
    found = crops.cut(image, crops.corners(np.array([[7.4, 8.5], [7.5, 9.49]]), 6), 6)
    assert found[:, 3, 3, 0].tolist() == [7 * 20 + 9, 8 * 20 + 9]
    assert crops.corners(np.array([[500.0, 63.5]])).tolist() == [[436, 0]]


def test_cut_of_no_cells_and_of_cells_far_outside():
    image = field(20, 20)
    assert crops.cut(image, np.empty((0, 2), np.int64), 6).shape == (0, 6, 6, 3)
    outside = np.array([[-6, 3], [20, 3], [3, -6], [3, 20], [-(10**9), 10**9]])
    assert not crops.cut(image, outside, 6).any()
    beside = np.array([[-5, 3], [19, 3], [3, -5], [3, 19]])
    assert crops.cut(image, beside, 6).any((1, 2, 3)).all()


def on_device(function, images, field_of, places, size):
    return np.asarray(
        jax.jit(function, static_argnums=3)(*map(jnp.asarray, (images, field_of, places)), size)
    )


@pytest.mark.parametrize(("size", "height", "width"), SIZES)
def test_cut_from_equals_cut(size, height, width):
    images = np.stack([field(height, width, dtype=np.uint16, seed=seed) for seed in range(3)])
    field_of, places = np.arange(len(CENTERS)) % 3, crops.corners(CENTERS, size).astype(np.int32)
    found = on_device(device_crops.cut_from, images, field_of, places, size)
    assert found.dtype == np.uint16
    expected = [crops.cut(images[f], place[None], size)[0] for f, place in zip(field_of, places, strict=True)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("size", "height", "width"), SIZES)
def test_resample_equals_a_slow_loop(size, height, width):
    image = field(height, width)
    found = crops.resample(image, CENTERS, size)
    assert found.dtype == np.float32
    expected = [slow_resample(image, center, size) for center in CENTERS]
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_resample_at_the_size_of_real_fields_on_host_and_device():
    """Channel values that are as large and as different as can be, at centres all over the field and on its edges."""
    images = np.stack([field(1080, 1080, 2, seed=seed) for seed in range(2)])
    centers = np.random.default_rng(1).uniform(0, 1080, (3, 2))
    edges = [[64, 64], [1080 - 64, 64], [64.25, 1016], [-63.9, 1100.7], [539.999, 540.001], [0, 1079]]
    centers = np.concatenate([centers, edges]).astype(np.float32)
    field_of = np.arange(len(centers)) % 2
    pairs = list(zip(field_of, centers.astype(np.float64), strict=True))
    expected = np.stack([slow_resample(images[f, :, :, :1], center, 128) for f, center in pairs])
    host = np.stack([crops.resample(images[f], center[None])[0] for f, center in pairs])
    np.testing.assert_allclose(host[..., :1], expected, atol=5e-4)
    device = on_device(device_crops.resample_from, images, field_of, centers, 128)
    np.testing.assert_allclose(device, host, atol=1e-3)


@pytest.mark.parametrize(("size", "height", "width"), SIZES)
def test_resample_from_of_small_fields(size, height, width):
    image = field(height, width)
    centers = CENTERS.astype(np.float32)
    found = on_device(device_crops.resample_from, image[None], np.zeros(len(centers), int), centers, size)
    np.testing.assert_allclose(found, crops.resample(image, centers, size), atol=1e-3)


def test_a_box_that_is_the_field_gives_the_field():
    """Its samples lie on pixels, the outer ones on the edge: with W = size they are 0 .. W - 1."""
    image = field(12, 12)
    middle = np.full((1, 2), 6.0)
    np.testing.assert_array_equal(crops.resample(image, middle, 12)[0], image)
    np.testing.assert_array_equal(
        on_device(device_crops.resample_from, image[None], [0], middle, 12)[0], image
    )


def test_samples_are_further_apart_than_pixels():
    """On a ramp the values are the positions: (c - 64) (H - 1) / H, then steps of (128 / 127) (H - 1) / H."""
    ramp = np.arange(1080, dtype=np.float32)[:, None, None] * np.ones((1, 130, 1), np.float32)
    found = crops.resample(ramp, np.array([[500.0, 65.0]]))[0, :, 64, 0]
    np.testing.assert_allclose(found[0], 436 * 1079 / 1080, rtol=1e-6)
    np.testing.assert_allclose(np.diff(found), 1.0069, atol=2e-4)


def test_resample_refuses_a_window_of_one_sample():
    for function in (
        crops.resample,
        lambda *a: device_crops.resample_from(a[0][None], jnp.zeros(1, int), *a[1:]),
    ):
        with pytest.raises(ValueError, match="size=1: a resampled window has at least 2"):
            function(field(9, 9), jnp.ones((1, 2)), 1)


def test_bytes_share_one_range_over_the_channels_and_are_floored():
    generator = np.random.default_rng(0)
    values = (generator.normal(size=(4, 5, 5, 3)) * [1, 10, 100]).astype(np.float32)
    values[3] = 7
    found = crops.to_deepprofiler_bytes(values)
    assert found.dtype == np.uint8
    for crop, scaled in zip(values[:3].tolist(), found, strict=False):
        flat = [v for row in crop for pixel in row for v in pixel]
        low, high = min(flat), max(flat)
        assert scaled.ravel().tolist() == [int((v - low) / (high - low) * 255) for v in flat]
    assert not found[3].any()
    assert (found[:3].min((1, 2, 3)) == 0).all()
    assert (found[:3].max((1, 2, 3)) == 255).all()
    values[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="a crop has values from nan to nan"):
        crops.to_deepprofiler_bytes(values)


def test_real_cells_are_cut_at_their_places(real_data):
    """Cells of a real field, some at its edge, pixel by pixel; resampled ones look the same but for half a pixel."""
    folder, site = real_data / "lincs_example" / "inputs", "r10c18f01p01"
    (plate, *_) = sorted(path.name for path in (folder / "images").iterdir())
    paths = [folder / "images" / plate / f"{site}-ch{n}sk1fk1fl1.png" for n in range(1, 6)]
    image = np.stack([np.asarray(PIL.Image.open(path)) for path in paths], -1)
    table = np.loadtxt(folder / "locations" / plate / "J18-1-Nuclei.csv", delimiter=",", skiprows=1)
    centers = table[:, ::-1]
    found = crops.cut(image, crops.corners(centers), 128)
    nearest = np.abs(centers - [540, 540]).max(1).argsort()
    for cell in (nearest[0], nearest[len(nearest) // 2], nearest[-1]):
        np.testing.assert_array_equal(found[cell], slow_cut(image, centers[cell], 128))
    assert (found == 0).all(-1)[nearest[-1]].any()
    resampled = crops.resample(image, centers[nearest[:20]])
    ours = found[nearest[:20]].astype(np.float64)
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ours, resampled, strict=True)]
    assert min(correlation) > 0.97
