"""GapNet and SC-CNN: published counts and sizes, hand-computed maps, a slow NumPy forward pass, alpha dropout."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from import_helpers import KEY, initial_layers, normal, output_and_variables, single

from coos import models
from coos.models import gapnet, layers

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
NARROW = {"num_outputs": 3, "width": 2, "fc_units": 5}


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("gapnet", (1, 520, 692, 5), 3_694_545),
        ("gapnet", (1, 200, 120, 4), 3_694_257),
        ("sc_cnn", (1, 96, 96, 5), 3_694_545),
    ],
)
def test_published_parameter_counts(name, shape, expected):
    _, variables = output_and_variables(models.create(name, num_outputs=209), shape)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == expected


def test_published_sizes_of_the_layers():
    output, _ = output_and_variables(models.create("gapnet", num_outputs=209), (2, 520, 692, 5))
    sizes = {name: x.shape[1:] for name, x in output["features"].items()}
    convolutions = [f"conv{i}" for i in range(1, 11)]
    assert [sizes[name] for name in convolutions] == (
        [(260, 346, 32)] + 3 * [(65, 87, 64)] + 3 * [(33, 44, 128)] + 3 * [(16, 22, 256)]
    )
    assert [sizes[f"pool{i}"] for i in (1, 2, 3)] == [(130, 173, 32), (33, 44, 64), (16, 22, 128)]
    assert [sizes[f"gap{i}"] for i in (1, 2, 3, 4)] == [(32,), (64,), (128,), (256,)]
    assert sizes["gap"] == (480,)
    assert sizes["fc1"] == sizes["fc2"] == (1024,)
    assert (output["logits"].shape, output["logits"].dtype) == ((2, 209), jnp.float32)


def test_published_sizes_of_the_single_cell_network():
    output, _ = output_and_variables(
        models.create("sc_cnn", num_outputs=209, dtype=jnp.bfloat16), (2, 96, 96, 5)
    )
    sizes = {name: x.shape[1:3] for name, x in output["features"].items()}
    assert (sizes["pool1"], sizes["pool2"], sizes["pool3"], sizes["conv10"]) == (
        (24, 24),
        (6, 6),
        (3, 3),
        (3, 3),
    )
    assert output["features"]["fc2"].dtype == jnp.bfloat16
    assert output["logits"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [("gapnet", {}, 11), ("gapnet", {"pool2_padding": 0}, 27), ("sc_cnn", {}, 27)],
)
def test_smallest_image(name, options, size, monkeypatch):
    model = models.create(name, **NARROW, **options)
    output, _ = output_and_variables(model, (1, size, size, 1))
    assert min(x.size for x in output["features"].values()) > 0
    for height, width in ((size - 1, size), (size, size - 1)):
        message = f"GapNet takes images of at least {size} x {size} pixels; got {height} x {width}"
        with pytest.raises(ValueError, match=message):
            output_and_variables(model, (1, height, width, 1))
    monkeypatch.setattr(layers, "check_images", lambda *args, **kwargs: None)
    output, _ = output_and_variables(
        model, (1, size - 1, size, 1)
    )  # without the check: nothing left to average
    assert output["features"]["pool3"].size == 0


def selu(x):
    return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0)))


def slow_convolution(x, layer, *, stride, dilation):
    """3x3 with as much zero padding as dilation, as a sum over the nine taps."""
    padded = np.pad(x, ((0, 0), (dilation, dilation), (dilation, dilation), (0, 0)))
    height, width = x.shape[1:3]
    total = layer["bias"]
    for i in range(3):
        for j in range(3):
            top, left = i * dilation, j * dilation
            shifted = padded[:, top : top + height : stride, left : left + width : stride]
            total = total + shifted @ layer["kernel"][i, j]
    return total


def slow_pool(x, padding):
    """Max 2x2, stride 2, floor, one window at a time."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-np.inf)
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    windows = [
        x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2)) for i in range(rows) for j in range(columns)
    ]
    return np.stack(windows, 1).reshape(len(x), rows, columns, -1)


def slow_gapnet(params, x, *, dilations, padding):
    features, gaps = {}, []
    for i in range(1, 11):
        dilation = dilations[i - 8] if i >= 8 else 1
        convolved = slow_convolution(x, params[f"conv{i}"], stride=2 if i <= 2 else 1, dilation=dilation)
        features[f"conv{i}"] = x = selu(convolved)
        if i in (1, 4, 7):
            x = slow_pool(x, padding if i == 4 else 0)
        if i in (1, 4, 7, 10):
            gaps.append(x.mean((1, 2)))
    features["gap"] = x = np.concatenate(gaps, -1)
    for name in ("fc1", "fc2"):
        features[name] = x = selu(x @ params[name]["kernel"] + params[name]["bias"])
    return features, x @ params["logits"]["kernel"] + params["logits"]["bias"]


@pytest.mark.parametrize(
    ("name", "dilations", "padding"), [("gapnet", (2, 2, 4), 1), ("sc_cnn", (1, 1, 1), 0)]
)
def test_forward_pass_equals_a_slow_one(name, dilations, padding):
    model = models.create(name, **NARROW)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, 75, 62, 2)).astype(np.float32)
    params = normal(model, images.shape, 0.3)
    output = jax.jit(model.apply)(single(params), images)
    features, logits = slow_gapnet(params, images.astype(float), dilations=dilations, padding=padding)
    for layer, expected in features.items():
        np.testing.assert_allclose(
            output["features"][layer], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=layer
        )
    np.testing.assert_allclose(output["logits"], logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())


def one_tap(model, shape, corner=()):
    """Parameters of one channel whose convolutions have a single 1: in the centre, or for `corner` in the top left."""
    params = jax.tree.map(
        lambda x: np.zeros(x.shape, np.float32), output_and_variables(model, shape)[1]["params"]
    )
    for i in range(1, 11):
        tap = 0 if f"conv{i}" in corner else 1
        params[f"conv{i}"]["kernel"][tap, tap, 0, 0] = 1
    return {"params": params}


def test_means_are_taken_after_the_pools():
    """conv1 takes every second pixel of 11 i + j, pool1 the larger ones of these: 44 i + 4 j + 24, mean 72.

    conv2 takes the corners 24, 32, 112, 120 of these 3 x 3; pool2's padding gives each a window of its own.
    """
    model = models.create("gapnet", **{**NARROW, "width": 1})
    images = jnp.arange(121.0).reshape(1, 11, 11, 1)
    features = jax.jit(model.apply)(one_tap(model, images.shape), images)["features"]
    first = {name: np.asarray(x[..., 0]) for name, x in features.items()}
    np.testing.assert_allclose(
        first["pool1"][0], SELU_SCALE * np.array([[24, 28, 32], [68, 72, 76], [112, 116, 120]]), rtol=1e-5
    )
    np.testing.assert_allclose(first["gap1"], 72 * SELU_SCALE, rtol=1e-5)
    np.testing.assert_allclose(first["pool2"][0], SELU_SCALE**4 * np.array([[24, 32], [112, 120]]), rtol=1e-5)
    np.testing.assert_allclose(first["gap2"], 72 * SELU_SCALE**4, rtol=1e-5)
    np.testing.assert_allclose(first["gap3"], 120 * SELU_SCALE**7, rtol=1e-5)


@pytest.mark.parametrize(("name", "places"), [("gapnet", (2, 4, 8)), ("sc_cnn", (1, 2, 3))])
def test_an_impulse_moves_by_the_dilations(name, places):
    """conv8 to conv10 with their top left tap alone move the image down and right by 2, 2 and 4 pixels (or 1 each)."""
    model = models.create(name, **{**NARROW, "width": 1})
    images = np.zeros((1, 288, 288, 1), np.float32)
    images[0, 0, 0] = 1
    variables = one_tap(model, images.shape, corner=("conv8", "conv9", "conv10"))
    features = jax.jit(model.apply)(variables, images)["features"]
    assert features["conv10"].shape[1:3] == (9, 9)
    for layer, place in zip(("conv8", "conv9", "conv10"), places, strict=True):
        assert np.argwhere(np.asarray(features[layer][0, :, :, 0])).tolist() == [[place, place]]


@pytest.mark.parametrize("linear_init", ["lecun_normal", "fan_out"])
def test_initial_values(linear_init):
    model = models.create("gapnet", num_outputs=30, width=8, fc_units=400, linear_init=linear_init)
    fans = {"conv7": 9 * 32, "fc1": 120, "logits": 400}
    if linear_init == "fan_out":
        fans |= {"fc1": 400, "logits": 30}
    params = initial_layers(model, (1, 16, 16, 2), list(fans))
    for layer, expected in fans.items():
        kernel = params[layer]["kernel"]
        np.testing.assert_allclose(kernel.std(), expected**-0.5, rtol=0.03, err_msg=layer)
        assert np.abs(kernel).max() > 2.8 * kernel.std()  # not cut off
        assert not params[layer]["bias"].any()


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(rate):
    x = jnp.asarray(np.random.default_rng(0).normal(size=400_000), jnp.float32)
    dropped = np.asarray(gapnet.alpha_dropout(KEY, x, rate=rate))
    np.testing.assert_allclose((dropped.mean(), dropped.var()), (0, 1), atol=0.01)
    limit = -SELU_SCALE * SELU_ALPHA
    scale = 1 / np.sqrt(1 - rate + (1 - rate) * rate * limit**2)
    shift = -scale * rate * limit
    out = np.isclose(dropped, scale * limit + shift)
    np.testing.assert_allclose(out.mean(), rate, atol=0.005)
    np.testing.assert_allclose(dropped[~out], (scale * np.asarray(x) + shift)[~out], rtol=1e-4, atol=1e-5)


def test_dropout_only_in_training_and_between_the_layers():
    model, published = models.create("gapnet", **NARROW, dropout=0.4), models.create("gapnet", **NARROW)
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 1)).astype(np.float32)
    variables = single(normal(model, images.shape, 0.3))
    apply = jax.jit(lambda v, x, key: model.apply(v, x, train=True, rngs={"dropout": key}))
    moving = apply(variables, images, KEY)
    still = jax.jit(lambda v, x: published.apply(v, x, train=True))(
        variables, images
    )  # no random numbers needed
    np.testing.assert_allclose(still["features"]["fc1"], moving["features"]["fc1"], rtol=1e-5, atol=1e-6)
    for a, b in ((still["features"]["fc2"], moving["features"]["fc2"]), (still["logits"], moving["logits"])):
        assert np.abs(np.asarray(a - b)).max() > 0.01
    jax.eval_shape(model.apply, variables, images)  # evaluation needs none either
    with pytest.raises(flax.errors.InvalidRngError):
        jax.eval_shape(lambda: model.apply(variables, images, train=True))


def test_errors():
    for options, message in (
        ({"linear_init": "xavier"}, r"linear_init 'xavier': choose one of \('lecun_normal', 'fan_out'\)"),
        ({"pool2_padding": 2}, "pool2_padding 2: choose 0 or 1"),
        ({"dilations": [2, 2]}, "dilations .* give three, of conv8, conv9 and conv10"),
    ):
        with pytest.raises(ValueError, match=message):
            output_and_variables(models.create("gapnet", **NARROW, **options), (1, 16, 16, 1))
    with pytest.raises(ValueError, match=r"rate 1\.0: choose 0 <= rate < 1"):
        gapnet.alpha_dropout(KEY, jnp.ones(3), rate=1.0)
    with pytest.raises(ValueError, match="'sc_cnn' has no option 'dilations'"):
        models.create("sc_cnn", num_outputs=3, dilations=(1, 1, 1))
