"""Texture features beside mahotas, NumPy and a loop over the definitions."""

import functools

import jax
import jax.numpy as jnp
import mahotas
import numpy as np
import pytest
import tifffile

from coos import texture
from coos.data import simulate

SIDE = 40


@pytest.fixture(scope="module")
def cells():
    """(7, 64, 64, 2) uint16: a simulated cell of each class."""
    data = simulate.simulate_split("training", cells_per_class=1)["data"]
    return np.moveaxis(data, 1, -1)


def difficult(levels=256):
    """Images of 40 x 30 that each have something about them."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :30]
    spot, corner, blocks = np.zeros((3, SIDE, 30), int)
    spot[20, 15], corner[0, 0] = levels - 1, 1
    blocks[:, :15] = levels - 1
    return {
        "random": generator.integers(0, levels, (SIDE, 30)),
        "zero": np.zeros((SIDE, 30), int),
        "constant": np.full((SIDE, 30), levels - 1),
        "two levels": generator.integers(0, 2, (SIDE, 30)),
        "two far levels": (levels - 1) * generator.integers(0, 2, (SIDE, 30)),
        "checkerboard": (levels - 1) * ((x + y) % 2),
        "checkerboard of neighbours": levels - 1 - (x + y) % 2,
        "independent pairs": (x // 2 + y) % 2,
        "stripes": (levels - 1) * (x % 2),
        "ramp": x * (levels - 1) // 29,
        "halves": blocks,
        "one bright pixel": spot,
        "one pixel in the corner": corner,
        "few bright levels": generator.integers(levels - 4, levels - 1, (SIDE, 30)),
        "mostly background": generator.integers(0, levels, (SIDE, 30))
        * (generator.random((SIDE, 30)) < 0.05),
        "smooth": ((np.sin(x / 5) + np.cos(y / 7) + 2) / 4 * (levels - 1)).astype(int),
    }


def peer(grey, distances):
    return np.array([[mahotas.features.haralick(image, distance=d) for d in distances] for image in grey])


def assert_agrees(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    assert found.dtype == jnp.float32
    worst = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    assert worst.max() < tolerance, dict(zip(texture.FEATURES, worst.max((0, 1, 2)), strict=True))


@pytest.mark.parametrize("name", difficult())
def test_difficult_images_are_as_in_mahotas(name):
    grey = difficult()[name][None]
    assert_agrees(
        texture.haralick(grey, distances=(1, 2, 4, 8, 16, 29)), peer(grey, (1, 2, 4, 8, 16, 29)), 2e-5
    )


@pytest.mark.parametrize("levels", [2, 3, 16, 100])
def test_any_number_of_levels_is_as_in_mahotas(levels):
    grey = np.stack([np.asarray(image) for image in difficult(max(levels, 5)).values()]) % levels
    assert_agrees(texture.haralick(grey, levels=levels, distances=(3,)), peer(grey, (3,)), 2e-5)
    assert_agrees(texture.haralick(grey, levels=256, distances=(3,)), peer(grey, (3,)), 2e-5)


def test_simulated_cells_are_as_in_mahotas(cells):
    grey = texture.quantize(cells[..., 0])
    assert_agrees(texture.haralick(grey, distances=texture.SCALES), peer(np.asarray(grey), texture.SCALES))


def test_real_cells_are_as_in_mahotas(real_data):
    paths = sorted((real_data / "yeast_cells" / "test1").glob("*/*_protein.tif"))[::25]
    images = np.stack([tifffile.imread(path) for path in paths])
    assert len(images) == 11
    grey = texture.quantize(images)
    assert_agrees(texture.haralick(grey, distances=texture.SCALES), peer(np.asarray(grey), texture.SCALES))


def test_largest_image_fits_in_32_bits():
    y, x = np.mgrid[:256, :256]
    generator = np.random.default_rng(0)
    grey = np.stack([255 * ((x + y) % 2), 255 * (x // 128), 0 * x, generator.integers(0, 256, x.shape)])
    assert_agrees(texture.haralick(grey, distances=(1, 7)), peer(grey, (1, 7)))


def entropy(shares):
    return -sum(p * np.log2(p) for p in shares if p > 0)


def by_definition(counts):
    """Haralick's features of a symmetric matrix of counts, entry by entry."""
    levels, p = len(counts), counts / counts.sum()
    entries = [(i, j, p[i, j]) for i in range(levels) for j in range(levels)]
    one = p.sum(0)
    mean = sum(i * q for i, _, q in entries)
    variance = sum((i - mean) ** 2 * q for i, _, q in entries)
    sums, differences = np.zeros(2 * levels - 1), np.zeros(levels)
    for i, j, q in entries:
        sums[i + j] += q
        differences[abs(i - j)] += q
    middle = sum(k * q for k, q in enumerate(sums))
    cross = -sum(q * np.log2(one[i] * one[j]) for i, j, q in entries if q)
    product = -sum(one[i] * one[j] * np.log2(one[i] * one[j]) for i, j, _ in entries if one[i] * one[j])
    joint = entropy(p.ravel())
    return {
        "angular_second_moment": sum(q**2 for *_, q in entries),
        "contrast": sum((i - j) ** 2 * q for i, j, q in entries),
        "correlation": sum((i - mean) * (j - mean) * q for i, j, q in entries) / variance,
        "variance": variance,
        "inverse_difference_moment": sum(q / (1 + (i - j) ** 2) for i, j, q in entries),
        "sum_average": middle,
        "sum_variance": sum((k - middle) ** 2 * q for k, q in enumerate(sums)),
        "sum_entropy": entropy(sums),
        "entropy": joint,
        "difference_variance": sum((q - 1 / levels) ** 2 for q in differences) / levels,
        "difference_entropy": entropy(differences),
        "information_1": (joint - cross) / entropy(one),
        "information_2": np.sqrt(1 - np.exp(-2 * (product - joint))),
    }


def test_example_of_haralick_by_definition():
    # Haralick et al. 1973, figure 3: an image of 4 x 4 with its matrices at 0, 45, 90 and 135 degrees (here clockwise).
    grey = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2], [2, 2, 3, 3]])
    counts = {
        0: [[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]],
        45: [[2, 1, 3, 0], [1, 2, 1, 0], [3, 1, 0, 2], [0, 0, 2, 0]],
        90: [[6, 0, 2, 0], [0, 4, 2, 0], [2, 2, 2, 2], [0, 0, 2, 0]],
        135: [[4, 1, 0, 0], [1, 2, 2, 0], [0, 2, 4, 1], [0, 0, 1, 0]],
    }
    found = np.asarray(texture.haralick(grey[None], levels=4))[0, 0]
    for row, angle in zip(found, texture.DIRECTIONS, strict=True):
        expected = by_definition(np.array(counts[angle]))
        np.testing.assert_allclose(
            row, [expected[name] for name in texture.FEATURES], rtol=2e-6, err_msg=str(angle)
        )


def test_directions_turn_with_the_image(cells):
    grey = np.asarray(texture.quantize(cells[..., 0]))
    found, turned = (
        np.asarray(texture.haralick(g, distances=(1, 8))) for g in (grey, np.rot90(grey, axes=(1, 2)))
    )
    np.testing.assert_array_equal(turned, found[:, :, [2, 3, 0, 1]])
    mirrored = np.asarray(texture.haralick(grey[:, :, ::-1], distances=(1, 8)))
    np.testing.assert_array_equal(mirrored, found[:, :, [0, 3, 2, 1]])


def bits(array):
    return np.asarray(array).view(np.uint32)


def test_an_image_has_the_same_bits_in_any_batch_and_block(cells):
    whole = bits(texture.texture(cells))
    order = np.random.default_rng(0).permutation(len(cells))
    np.testing.assert_array_equal(bits(texture.texture(cells[order])), whole[order])
    np.testing.assert_array_equal(bits(texture.texture(cells[2:3])), whole[2:3])
    np.testing.assert_array_equal(bits(texture.texture(cells[3:], block=3)), whole[3:])
    strange = np.full_like(cells, 65535)
    np.testing.assert_array_equal(bits(texture.texture(np.concatenate([strange, cells])))[7:], whole)


def test_an_image_has_the_same_bits_on_any_device(cells):
    devices = jax.devices()
    assert len(devices) == 8
    whole = bits(texture.texture(cells, scales=(1, 16)))
    for device in devices[1:]:
        found = texture.texture(jax.device_put(cells, device), scales=(1, 16))
        assert found.devices() == {device}
        np.testing.assert_array_equal(bits(found), whole)
    eight = np.concatenate([cells, cells[:1]])
    mesh, part = jax.make_mesh((8,), ("device",)), jax.sharding.PartitionSpec("device")
    each = jax.shard_map(functools.partial(texture.texture, scales=(1, 16)), mesh=mesh, out_specs=part)
    shared = jax.jit(each)(jax.device_put(eight, jax.sharding.NamedSharding(mesh, part)))
    np.testing.assert_array_equal(bits(shared), np.concatenate([whole, whole[:1]]))


def test_texture_inside_other_transformations(cells):
    function = functools.partial(texture.texture, scales=(1, 2), levels=32)
    plain = function(cells)
    np.testing.assert_array_equal(jax.jit(function)(cells), plain)
    np.testing.assert_array_equal(jax.vmap(lambda image: function(image[None])[0])(cells), plain)


def test_columns_have_names(cells):
    names = texture.names()
    assert len(names) == len(set(names)) == 264
    assert names[0] == "haralick_d1_a0_angular_second_moment"
    found = np.asarray(texture.texture(cells))
    assert found.shape == (7, 264)
    grey = np.asarray(texture.quantize(cells[..., 0]))
    expected = peer(grey, (8,))[:, 0, 3, texture.FEATURES.index("entropy")]
    np.testing.assert_allclose(found[:, names.index("haralick_d8_a135_entropy")], expected, rtol=1e-5)
    assert names[-4:] == ["mean", "sum", "std", "correlation"]
    some = texture.names((4, 1))
    assert (len(some), some[52]) == (108, "haralick_d1_a0_angular_second_moment")
    np.testing.assert_array_equal(
        texture.texture(cells, scales=(4, 1)), found[:, [names.index(name) for name in some]]
    )


@pytest.mark.parametrize("intensity", ["raw", "rescaled"])
def test_statistics_are_those_of_numpy(cells, intensity):
    found = np.asarray(texture.texture(cells, scales=(1,), intensity=intensity))[:, -4:]
    for row, image in zip(found, cells.astype(float), strict=True):
        first, second = image[..., 0], image[..., 1]
        if intensity == "rescaled":
            first = (first - first.min()) / np.ptp(first)
        correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        np.testing.assert_allclose(row, [first.mean(), first.sum(), first.std(), correlation], rtol=1e-5)


def test_statistics_of_a_bright_image_that_hardly_varies():
    images = 60000 + np.random.default_rng(0).integers(0, 3, (2, 20, 20, 2))
    found = np.asarray(texture.texture(images.astype(np.uint16), scales=(1,)))
    for row, image in zip(found, images, strict=True):
        np.testing.assert_allclose(row[-2], image[..., 0].std(), rtol=1e-3)
        np.testing.assert_allclose(row[-1], np.corrcoef(image.reshape(-1, 2).T)[0, 1], atol=2e-3)


def test_what_is_undefined_is_nan(cells):
    images = cells[:4].astype(np.float32)
    images[0, ..., 1] = 5
    images[1, ..., 0] = 5
    images[2, 3, 3, 1] = np.inf
    images[3, 3, 3, 0] = np.nan
    for intensity in texture.INTENSITIES:
        found = np.asarray(texture.texture(images, scales=(1,), intensity=intensity))
        assert np.isnan(found[:2, -1]).all()
        assert np.isfinite(found[:2, :-1]).all()
        assert np.isnan(found[2:]).all()
    np.testing.assert_array_equal(found[1, -4:-1], 0)  # a constant image, rescaled
    grey = np.zeros((3, 8, 8), int)
    grey[0, 2, 2], grey[1, 2, 2] = 16, -1
    found = np.asarray(texture.haralick(grey, levels=16))
    assert np.isnan(found[:2]).all()
    np.testing.assert_array_equal(found[2], peer(grey[2:], (1,))[0, 0][None])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"])
def test_grey_levels_are_rounded_half_up(dtype):
    generator = np.random.default_rng(0)
    low, high = (-100, 100) if dtype.startswith("int") else (0, 250)
    images = generator.integers(low, high, (5, 9, 7)).astype(dtype)
    images[0] = 7
    wide = images.astype(np.int64)
    for levels in (2, 8, 101, 256):
        found = texture.quantize(images, levels)
        assert found.dtype == jnp.int32
        for level, image in zip(found, wide, strict=True):
            span = max(np.ptp(image), 1)
            np.testing.assert_array_equal(
                level, (2 * (levels - 1) * (image - image.min()) + span) // (2 * span)
            )


def test_grey_levels_of_16_bits_are_exact():
    spans = [510, 5610, 64770, 65535]  # all but the last have intensities right between two levels
    images = np.stack([np.resize(np.arange(span + 1), (256, 256)) for span in spans])
    spans = np.array(spans)[:, None, None]
    expected = (2 * 255 * images + spans) // (2 * spans)
    np.testing.assert_array_equal(texture.quantize(images.astype(np.uint16)), expected)
    assert (np.asarray(texture.quantize(images.astype(np.float32))) != expected).any()  # so it takes integers


def test_grey_levels_that_are_small_integers_are_those_of_any():
    grey = np.random.default_rng(0).integers(0, 256, (2, 9, 9))
    np.testing.assert_array_equal(texture.haralick(grey.astype(np.uint8)), texture.haralick(grey))


def test_no_images():
    assert texture.texture(np.zeros((0, 20, 20, 2))).shape == (0, 264)
    assert texture.haralick(np.zeros((0, 20, 20), int)).shape == (0, 1, 4, 13)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((20, 20, 2), {}, r"images of shape \(20, 20, 2\); expected \(B, H, W, C\)"),
        ((1, 0, 20, 2), {}, "none of a cell's 0"),
        ((1, 20, 20, 1), {}, "one channel have no correlation"),
        (
            (1, 20, 16, 2),
            {},
            r"distances \(1, 2, 4, 8, 16\) in images of 20 x 16 pixels; choose one or more from 1 to 15",
        ),
        ((1, 20, 20, 2), {"scales": ()}, r"distances \(\) in images"),
        ((1, 20, 20, 2), {"scales": (0, 1)}, r"distances \(0, 1\) in images"),
        ((1, 20, 20, 2), {"levels": 1}, "1 grey levels; choose 2 to 256"),
        ((1, 20, 20, 2), {"levels": 257}, "257 grey levels"),
        ((1, 20, 20, 2), {"intensity": "log"}, "no intensity 'log'; available: raw, rescaled"),
        ((1, 20, 20, 2), {"block": 0}, "blocks of 0 images"),
        ((1, 300, 300, 2), {}, "images of 300 x 300 pixels; at most 65536"),
    ],
)
def test_what_is_not_possible_is_said(shape, options, message):
    with pytest.raises(ValueError, match=message):
        texture.texture(np.zeros(shape), **options)


def test_grey_levels_are_integers_without_channels():
    with pytest.raises(ValueError, match="grey levels are integers, not float32; quantize"):
        texture.haralick(np.zeros((1, 20, 20)))
    with pytest.raises(ValueError, match=r"expected \(B, H, W\)"):
        texture.haralick(np.zeros((1, 20, 20, 2), int))
    with pytest.raises(ValueError, match=r"expected \(B, H, W\)"):
        texture.quantize(np.zeros((20, 20)))
