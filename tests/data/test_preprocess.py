"""Preprocessing against NumPy, and augmentation against its own definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coos.data import preprocess


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
    augment = jax.jit(lambda k: preprocess.augment(k, pixels, size=60, gain_spread=0.1))
    one, two = jax.random.split(jax.random.PRNGKey(0))
    np.testing.assert_array_equal(augment(one), augment(one))
    assert np.abs(augment(one) - augment(two)).max() > 0
    assert augment(one).shape == (60, 60, 2)
