"""Preprocessing against NumPy, and augmentation against its own definition."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coos.data import augment, preprocess


def image(seed=0, size=64, channels=2, high=4000):
    return np.random.default_rng(seed).integers(100, high, (size, size, channels)).astype(np.uint16)


@pytest.mark.parametrize("q", [0, 0.1, 1, 25, 50, 75, 99.9, 100])
@pytest.mark.parametrize("kind", ["random", "ties", "constant"])
def test_percentile_is_numpys(q, kind):
    generator = np.random.default_rng(1)
    values = {
        "random": generator.normal(size=4096) * 500 + 3000,
        "ties": generator.integers(0, 6, 4096),
        "constant": np.full(4096, 7),
    }[kind].astype(np.float32)
    found = preprocess.percentile(jnp.asarray(values), q)
    np.testing.assert_allclose(found, np.percentile(values.astype(np.float64), q), rtol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 17])
def test_percentile_of_short_vectors(length):
    values = np.random.default_rng(length).normal(size=length).astype(np.float32)
    for q in (0, 10, 50, 90, 100):
        np.testing.assert_allclose(
            preprocess.percentile(jnp.asarray(values), q), np.percentile(values, q), rtol=1e-5
        )


def slow_stretch(pixels, min_span):
    """DeepLoc's preprocessing, one channel after the other, in float64."""
    result = np.zeros(pixels.shape)
    for c in range(pixels.shape[-1]):
        channel = pixels[..., c].astype(np.float64)
        low, high = np.percentile(channel, 0.1), np.percentile(channel, 99.9)
        channel = np.minimum(channel, high) - low
        result[..., c] = channel / (high - low) if high - low > min_span else channel
    return result


@pytest.mark.parametrize("min_span", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_stretch_equals_a_slow_loop(min_span, scale):
    pixels = (image().astype(np.float32) * np.float32(scale)).astype(np.float32)
    found = preprocess.percentile_stretch(jnp.asarray(pixels), min_span=min_span)
    np.testing.assert_allclose(found, slow_stretch(pixels, min_span), atol=2e-6)


def test_stretch_of_raw_integers_reaches_one_and_goes_below_zero():
    stretched = np.asarray(preprocess.percentile_stretch(jnp.asarray(image())))
    np.testing.assert_allclose(stretched.max((0, 1)), 1, atol=1e-6)
    assert (stretched.min((0, 1)) < 0).all()


def test_stretch_of_an_empty_channel_is_zero_and_not_nan():
    flat = np.zeros((64, 64, 1), np.uint16) + 200
    np.testing.assert_array_equal(preprocess.percentile_stretch(jnp.asarray(flat)), np.zeros((64, 64, 1)))
    np.testing.assert_array_equal(preprocess.percentile_stretch(jnp.asarray(flat), min_span=0.0), 0 * flat)


def test_stretch_takes_gain_and_offset_out():
    pixels = image().astype(np.float32)
    one = preprocess.percentile_stretch(jnp.asarray(pixels))
    other = preprocess.percentile_stretch(jnp.asarray(2 * pixels + 300))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_channel_statistics_in_blocks_equal_numpys_on_large_means():
    images = np.random.default_rng(0).integers(50000, 50010, (37, 8, 8, 2)).astype(np.uint16)
    rows = np.arange(1, 37, 2)
    mean, std = preprocess.channel_statistics(images, rows, block_bytes=5 * 8 * 128)
    chosen = images[rows].astype(np.float64)
    np.testing.assert_allclose(mean, chosen.mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(std, chosen.std((0, 1, 2)), rtol=1e-5)
    standardized = preprocess.standardize(jnp.asarray(images[rows]), mean=mean, std=std)
    np.testing.assert_allclose(standardized.mean((0, 1, 2)), 0, atol=2e-3)
    np.testing.assert_allclose(standardized.std((0, 1, 2)), 1, rtol=1e-3)


def offsets(max_offset):
    """Where 300 random crops came from."""
    ramp = np.arange(64 * 64).reshape(64, 64, 1)
    keys = jax.random.split(jax.random.PRNGKey(0), 300)
    crops = jax.vmap(lambda k: preprocess.random_crop(k, jnp.asarray(ramp), size=60, max_offset=max_offset))(
        keys
    )
    return np.stack(np.divmod(np.asarray(crops)[:, 0, 0, 0], 64), 1), crops


@pytest.mark.parametrize(("max_offset", "largest"), [(None, 4), (3, 3)])
def test_random_crops_cover_all_offsets_and_are_windows(max_offset, largest):
    found, crops = offsets(max_offset)
    assert {tuple(pair) for pair in found} == {(y, x) for y in range(largest + 1) for x in range(largest + 1)}
    ramp = np.arange(64 * 64).reshape(64, 64)
    y, x = found[17]
    np.testing.assert_array_equal(crops[17, ..., 0], ramp[y : y + 60, x : x + 60])


def seen(function, expected, *, number=64):
    """That `function(key, image)` gives exactly the expected images."""
    small = jnp.asarray(image(size=5))
    keys = jax.random.split(jax.random.PRNGKey(2), number)
    found = {np.asarray(x).tobytes() for x in jax.vmap(lambda k: function(k, small))(keys)}
    return found == {np.ascontiguousarray(e).tobytes() for e in expected(np.asarray(small))}


def test_flips_and_rotations_are_numpys():
    assert seen(preprocess.random_flips, lambda x: [x, x[::-1], x[:, ::-1], x[::-1, ::-1]])
    assert seen(preprocess.random_rotation, lambda x: [np.rot90(x, k) for k in range(4)])
    assert seen(
        lambda k, x: preprocess.random_rotation(k, x, num_rotations=3),
        lambda x: [np.rot90(x, k) for k in range(3)],
    )


def test_gain_is_per_channel_and_within_its_spread():
    ones = jnp.ones((4, 4, 3))
    gained = np.asarray(preprocess.random_gain(jax.random.PRNGKey(0), ones, spread=0.5))
    assert len(np.unique(gained)) == 3
    assert (np.abs(np.log(gained)) <= 0.5).all()


def test_five_crops_are_centre_and_corners():
    ramp = np.arange(64 * 64).reshape(64, 64, 1)
    found = np.asarray(preprocess.crops(jnp.asarray(ramp), size=60, number=5))[:, 0, 0, 0]
    assert [divmod(int(value), 64) for value in found] == [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]
    assert preprocess.crops(jnp.asarray(ramp), size=60, number=1).shape == (1, 60, 60, 1)
    with pytest.raises(ValueError, match="number=3: evaluation uses 1 crop"):
        preprocess.crops(jnp.asarray(ramp), size=60, number=3)


def test_augmentation_depends_on_the_key_alone():
    pixels = jnp.asarray(image()).astype(jnp.float32)
    options = {"gain_spread": 0.1, "zoom_probability": 0.5, "brightness": 0.1, "contrast": 0.2}
    draw = jax.jit(lambda k: preprocess.augment(k, pixels, size=60, **options))
    one, two = jax.random.split(jax.random.PRNGKey(0))
    np.testing.assert_array_equal(draw(one), draw(one))
    assert np.abs(draw(one) - draw(two)).max() > 0
    assert draw(one).shape == (60, 60, 2)


def slow_scaled(name, pixels):
    """DeepProfiler's scalings, one channel after the other, in float64."""
    result = np.zeros(pixels.shape)
    for c in range(pixels.shape[-1]):
        x = pixels[..., c].astype(np.float64)
        if x.min() < x.max():
            result[..., c] = {
                "minmax": lambda x: (x - x.min()) / (x.max() - x.min() + 1e-7),
                "max": lambda x: (x - x.min()) / x.max(),
                "zscore": lambda x: (x - x.mean()) / x.std(),
            }[name](x)
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("name", ["minmax", "max", "zscore"])
def test_scaling_of_single_images_equals_a_slow_loop(name, dtype):
    largest = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    pixels = (np.random.default_rng(3).random((32, 32, 5)) ** 4 * largest).astype(dtype)
    pixels[..., 2], pixels[..., 3] = 7, 0  # constant channels become 0
    pixels[..., 4] = 250  # bright, with one other pixel
    pixels[3, 4, 4] = 251
    scale = preprocess.intensity_function(name)
    found = np.asarray(jax.jit(scale)(jnp.asarray(pixels)))
    np.testing.assert_allclose(found, slow_scaled(name, pixels), rtol=2e-5, atol=5e-6)
    np.testing.assert_array_equal(found[..., 2:4], 0)


@pytest.mark.parametrize("value", [65_431, 0.1, 1e-3 / 3])
def test_zscore_of_a_constant_channel_is_zero_where_its_float32_mean_is_not_its_value(value):
    """Their difference, a rounding error, must not be divided by another."""
    pixels = jnp.full((61, 59, 3), value, jnp.float32)
    np.testing.assert_array_equal(preprocess.zscore(pixels), 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unit_is_by_the_dtype_and_not_by_the_image(dtype):
    largest = np.iinfo(dtype).max
    pixels = np.array([0, 7, largest // 5, largest], dtype).reshape(2, 2, 1)
    expected = np.array([0, 7 / largest, 0.2, 1]).reshape(2, 2, 1)
    np.testing.assert_allclose(
        preprocess.intensity_function("unit")(jnp.asarray(pixels)), expected, rtol=1e-6
    )


def test_intensity_errors():
    with pytest.raises(ValueError, match="intensity 'unit': images are float32"):
        preprocess.unit(jnp.ones((2, 2, 1)))
    with pytest.raises(ValueError, match=r"intensity 'log': choose one of .*zscore"):
        preprocess.intensity_function("log")


def test_every_intensity_has_a_function():
    constants = {"mean": [0.0, 0.0], "std": [1.0, 1.0]}
    for name in preprocess.INTENSITIES:
        needed = constants if name in ("standardize", "pretrained") else {}
        scaled = preprocess.intensity_function(name, **needed)(jnp.asarray(image()))
        assert scaled.shape == (64, 64, 2)
        assert scaled.dtype == jnp.float32


def slow_resize(crop, size):
    """Bilinear, pixels as squares: sample i lies at (i + 0.5) side / size - 0.5, at most at the outer pixels."""
    side = len(crop)
    result = np.zeros((size, size, crop.shape[-1]))
    positions = [min(max((i + 0.5) * side / size - 0.5, 0), side - 1) for i in range(size)]
    for i, y in enumerate(positions):
        for j, x in enumerate(positions):
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
            above = crop[top, left] * (1 - x + left) + crop[top, right] * (x - left)
            below = crop[bottom, left] * (1 - x + left) + crop[bottom, right] * (x - left)
            result[i, j] = above * (1 - y + top) + below * (y - top)
    return result


def zoomed(pixels, *, number, **options):
    def one(key):
        positions = augment.zoom_positions(key, len(pixels), **options)
        return augment.sample(jnp.asarray(pixels), positions)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.PRNGKey(5), number)))


def test_zoom_is_a_crop_of_every_side_and_place_resized():
    """Every image it gives is one of all possible ones, and it gives each of them: sides 4 and 5 of 6 pixels."""
    pixels = np.random.default_rng(0).random((6, 6, 2)).astype(np.float32)
    possible = np.stack(
        [
            slow_resize(pixels[y : y + side, x : x + side].astype(np.float64), 6)
            for side in (4, 5)
            for y in range(6 - side + 1)
            for x in range(6 - side + 1)
        ]
    )
    found = zoomed(pixels, number=600, probability=1.0, low=0.8)  # int(4.8) = 4
    distance = np.abs(found[:, None] - possible).max((2, 3, 4))
    assert distance.min(1).max() < 1e-5
    seen = np.bincount(distance.argmin(1), minlength=len(possible))
    sides = seen[:9].sum(), seen[9:].sum()
    assert min(sides) > 250  # each side half the time: 300 +- 12
    assert (np.abs(seen[:9] - 300 / 9) < 25).all()
    assert (np.abs(seen[9:] - 300 / 4) < 35).all()


def test_zoom_is_jaxs_resize():
    """`jax.image.resize` of a crop of known place, found by its ramps."""
    y, x = np.mgrid[:128, :128]
    ramps = np.stack([y, x, np.random.default_rng(0).random((128, 128))], -1).astype(np.float32)
    for found in zoomed(ramps, number=4, probability=1.0, low=0.8):
        start, end = np.round(found[0, 0, :2]).astype(int), np.round(found[-1, -1, :2]).astype(int) + 1
        crop = ramps[start[0] : end[0], start[1] : end[1]]
        assert crop.shape[0] == crop.shape[1]
        assert int(0.8 * 128) <= len(crop) < 128
        np.testing.assert_allclose(found, jax.image.resize(crop, (128, 128, 3), "linear"), atol=1e-4)


def test_zoom_happens_with_its_probability_and_else_changes_nothing():
    pixels = image(size=16).astype(np.float32)
    unchanged = (zoomed(pixels, number=400, probability=0.3, low=0.5) == pixels).all((1, 2, 3))
    assert 240 < unchanged.sum() < 320  # 280 +- 9
    assert (zoomed(pixels, number=5, probability=0.0, low=0.5) == pixels).all()
    for low in (1.0, 0.01):
        with pytest.raises(ValueError, match=f"zoom_low={low}: crops of"):
            augment.zoom_positions(jax.random.PRNGKey(0), 16, probability=1.0, low=low)


def many(function, pixels, number=2000):
    keys = jax.random.split(jax.random.PRNGKey(7), number)
    return np.asarray(jax.vmap(lambda k: function(k, jnp.asarray(pixels)))(keys)).astype(np.float64)


def test_brightness_adds_to_each_channel_a_uniform_value():
    pixels = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32)
    added = many(lambda k, x: augment.random_brightness(k, x, spread=0.1), pixels) - pixels
    np.testing.assert_allclose(added - added[:, :1, :1], 0, atol=1e-6)
    value = added[:, 0, 0]
    assert np.abs(value).max() <= 0.1 + 1e-6
    np.testing.assert_allclose(
        np.quantile(value, [0, 0.25, 0.5, 0.75, 1]), [-0.1, -0.05, 0, 0.05, 0.1], atol=5e-3
    )
    assert np.abs(np.corrcoef(value.T) - np.eye(3)).max() < 0.1  # channels apart


def test_contrast_is_about_the_mean_of_the_channel():
    pixels = np.random.default_rng(0).random((6, 6, 3)).astype(np.float32) * [1, 2, 30] + [0, 5, -9]
    pixels = pixels.astype(np.float32)
    found = many(lambda k, x: augment.random_contrast(k, x, spread=0.2), pixels)
    mean = pixels.astype(np.float64).mean((0, 1))
    np.testing.assert_allclose(found.mean((1, 2)), np.broadcast_to(mean, (2000, 3)), rtol=1e-5, atol=1e-5)
    factor = (found - mean)[:, 0, 0] / (pixels - mean)[0, 0]
    np.testing.assert_allclose(found, (pixels - mean) * factor[:, None, None] + mean, atol=1e-3)
    np.testing.assert_allclose(
        np.quantile(factor, [0, 0.25, 0.5, 0.75, 1]), [0.8, 0.9, 1, 1.1, 1.2], atol=1e-2
    )


def test_augmentation_without_the_new_options_is_what_it_was():
    """Bit for bit: the keys of what there was before do not depend on what came after."""
    pixels, key = jnp.asarray(image()).astype(jnp.float32), jax.random.PRNGKey(4)
    crop_key, flip_key, turn_key, gain_key = jax.random.split(key, 4)
    expected = preprocess.random_crop(crop_key, pixels, size=60)
    expected = preprocess.random_rotation(turn_key, preprocess.random_flips(flip_key, expected))
    expected = preprocess.random_gain(gain_key, expected, spread=0.1)
    found = preprocess.augment(key, pixels, size=60, gain_spread=0.1)
    np.testing.assert_array_equal(found, expected)
    ready = preprocess.augment(key, pixels, size=60, gain_spread=0.1, zoom_probability=1e-9, zoom_low=0.5)
    np.testing.assert_array_equal(ready, expected)  # the others are drawn as without zoom


def test_zoom_comes_before_flips_and_turns():
    """They are those of an image without zoom, and the crop is of the image before them."""
    pixels = jnp.asarray(image(size=12)).astype(jnp.float32)
    options = {"probability": 1.0, "low": 0.5}
    for key in jax.random.split(jax.random.PRNGKey(3), 12):
        zoom_key = jax.random.split(jax.random.fold_in(key, 4), 3)[0]
        expected = augment.sample(pixels, augment.zoom_positions(zoom_key, 12, **options))
        _, flip_key, turn_key, _ = jax.random.split(key, 4)
        expected = preprocess.random_rotation(turn_key, preprocess.random_flips(flip_key, expected))
        found = preprocess.augment(key, pixels, size=12, zoom_probability=1.0, zoom_low=0.5)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_brightness_comes_before_contrast_and_both_after_the_rest():
    """Contrast keeps the mean, which brightness moved: a factor applied to the sum about the new mean."""
    pixels, key = jnp.asarray(image(size=8)).astype(jnp.float32) / 4000, jax.random.PRNGKey(1)
    plain = np.asarray(preprocess.augment(key, pixels, size=8), np.float64)
    bright = np.asarray(preprocess.augment(key, pixels, size=8, brightness=0.1), np.float64)
    both = np.asarray(preprocess.augment(key, pixels, size=8, brightness=0.1, contrast=0.2), np.float64)
    added = (bright - plain)[0, 0]
    assert (np.abs(added) > 1e-4).all()
    assert len(np.unique(added)) == 2
    np.testing.assert_allclose(both.mean((0, 1)), plain.mean((0, 1)) + added, atol=1e-6)
    factor = both.std((0, 1)) / plain.std((0, 1))
    assert (np.abs(factor - 1) > 1e-4).all()
    assert (np.abs(factor - 1) <= 0.2).all()
    np.testing.assert_allclose(both, (bright - bright.mean((0, 1))) * factor + bright.mean((0, 1)), atol=1e-5)


def test_flips_and_turns_together_are_the_eight_symmetries_alike():
    found = many(lambda k, x: preprocess.augment(k, x, size=5), image(size=5))
    small = image(size=5).astype(np.float64)
    turned = [np.rot90(mirrored, k) for mirrored in (small, small[:, ::-1]) for k in range(4)]
    number = [(found == one).all((1, 2, 3)).sum() for one in turned]
    assert sum(number) == 2000
    assert min(number) > 190  # 250 +- 15
