"""MIL-Net: published count and sizes, the noisy-AND's formula, a slow NumPy forward pass, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from import_helpers import KEY, initial_layers, normal, output_and_variables, single

from coos import models
from coos.models import layers, milnet

NARROW = {"num_outputs": 3, "width": 2, "instance_units": 6}


@pytest.mark.parametrize(("channels", "expected"), [(5, 726_180), (4, 725_892)])
def test_published_parameter_counts(channels, expected):
    _, variables = output_and_variables(models.create("milnet", num_outputs=209), (1, 520, 692, channels))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == expected


def test_published_sizes_of_the_layers():
    model = models.create("milnet", num_outputs=209, dtype=jnp.bfloat16)
    output, _ = output_and_variables(model, (2, 520, 692, 5))
    assert {name: x.shape[1:] for name, x in output["features"].items()} == {
        "input_pool": (259, 345, 5),
        "conv1": (257, 343, 32),
        "conv2": (255, 341, 64),
        "pool1": (127, 170, 64),
        "conv3": (123, 166, 64),
        "pool2": (61, 82, 64),
        "conv4": (59, 80, 128),
        "pool3": (29, 39, 128),
        "conv5": (27, 37, 128),
        "pool4": (13, 18, 128),
        "conv6": (13, 18, 1000),
        "instances": (13, 18, 209),
        "noisy_and": (209,),
        "pooled": (209,),
    }
    assert output["logits"].shape == (2, 209)
    assert output["features"]["conv6"].dtype == jnp.bfloat16
    assert {output["logits"].dtype, output["features"]["noisy_and"].dtype} == {jnp.dtype("float32")}


def test_smallest_image(monkeypatch):
    model = models.create("milnet", **NARROW)
    output, _ = output_and_variables(model, (1, 135, 135, 1))
    assert min(x.size for x in output["features"].values()) > 0
    for height, width in ((134, 135), (135, 134)):
        message = f"MilNet takes images of at least 135 x 135 pixels; got {height} x {width}"
        with pytest.raises(ValueError, match=message):
            output_and_variables(model, (1, height, width, 1))
    monkeypatch.setattr(layers, "check_images", lambda *args, **kwargs: None)
    output, _ = output_and_variables(model, (1, 134, 135, 1))  # without the check: no instance left
    assert output["features"]["instances"].size == 0


def logistic(x):
    return 1 / (1 + np.exp(-x))


def slow_noisy_and(mean, threshold, slope):
    low = logistic(-slope * threshold)
    return (logistic(slope * (mean - threshold)) - low) / (logistic(slope * (1 - threshold)) - low)


@pytest.mark.parametrize("slope", [5.0, 10.0])
def test_noisy_and(slope):
    threshold = np.array([0.0, 0.1, 0.35, 0.9])
    mean = np.linspace(0, 1, 41)[:, None] * np.ones(4)
    result = np.asarray(milnet.noisy_and(jnp.float32(mean), jnp.float32(threshold), slope))
    np.testing.assert_allclose(result, slow_noisy_and(mean, threshold, slope), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(result[0], 0)
    np.testing.assert_allclose(result[-1], 1, rtol=0, atol=1e-6)
    assert (np.diff(result, axis=0) > 0).all()
    # By hand: threshold 1/2 is symmetric, so half the instances give one half.
    np.testing.assert_allclose(milnet.noisy_and(jnp.array([0.5]), jnp.array([0.5]), slope), 0.5, atol=1e-6)


def slow_convolution(x, layer):
    """No padding, stride 1, as a sum over the taps; then ReLU is the caller's."""
    size = len(layer["kernel"])
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    taps = [(i, j) for i in range(size) for j in range(size)]
    return layer["bias"] + sum(x[:, i : i + height, j : j + width] @ layer["kernel"][i, j] for i, j in taps)


def slow_pool(x, reduce):
    """3x3, stride 2, no padding, floor, one window at a time."""
    rows, columns = (x.shape[1] - 1) // 2, (x.shape[2] - 1) // 2
    windows = [
        reduce(x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], (1, 2))
        for i in range(rows)
        for j in range(columns)
    ]
    return np.stack(windows, 1).reshape(len(x), rows, columns, -1)


def slow_milnet(params, x, slope):
    features = {"input_pool": slow_pool(x, np.mean)}
    x = features["input_pool"]
    for i in range(1, 7):
        features[f"conv{i}"] = x = np.maximum(slow_convolution(x, params[f"conv{i}"]), 0)
        x = slow_pool(x, np.max) if 2 <= i <= 5 else x
    features["instances"] = x = logistic(slow_convolution(x, params["instances"]))
    features["noisy_and"] = x = slow_noisy_and(x.mean((1, 2)), params["threshold"], slope)
    return features, x @ params["logits"]["kernel"] + params["logits"]["bias"]


@pytest.mark.parametrize(("size", "options"), [((150, 168), {}), ((135, 199), {"slope": 5.0})])
def test_forward_pass_equals_a_slow_one(size, options):
    model = models.create("milnet", **NARROW, second_sigmoid=bool(options), **options)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, *size, 2)).astype(np.float32)
    params = normal(model, images.shape, 0.3)
    output = jax.jit(model.apply)(single(params), images)
    features, logits = slow_milnet(params, images.astype(float), options.get("slope", 10.0))
    pooled = features["noisy_and"]
    features["pooled"] = logistic(pooled) if options else pooled
    for layer, expected in features.items():
        np.testing.assert_allclose(
            output["features"][layer], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=layer
        )
    np.testing.assert_allclose(output["logits"], logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())


def test_both_outputs_move_the_thresholds():
    model = models.create("milnet", **NARROW)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 135, 135, 1)), jnp.float32)
    params = single(normal(model, images.shape, 0.2))["params"]

    def outputs(threshold):
        output = model.apply({"params": {**params, "threshold": threshold}}, images)
        return output["logits"].sum(0), output["features"]["pooled"].sum(0)

    for jacobian in jax.jit(jax.jacrev(outputs))(jnp.full(3, 0.1)):
        assert (np.abs(np.asarray(jacobian)).max(0) > 1e-6).all()


def test_initial_values():
    model = models.create("milnet", num_outputs=20, width=8, instance_units=300)
    sums = {"conv3": 25 * (16 + 16), "conv6": 32 + 300, "logits": 40}
    params = initial_layers(model, (1, 135, 135, 2), [*sums, "threshold"])
    for layer, fans in sums.items():
        kernel = params[layer]["kernel"]
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fans), rtol=0.08, err_msg=layer)
        assert np.abs(kernel).max() > 2.4 * kernel.std()  # not cut off
        assert not params[layer]["bias"].any()
    np.testing.assert_array_equal(params["threshold"], np.full(20, 0.1, np.float32))


def test_dropout_is_elementwise_after_the_pools_and_conv6():
    """All convolutions give 1 or pass on what they get, so the dropped elements show in conv6 and in the instances."""
    model = models.create("milnet", num_outputs=4, width=1, instance_units=4)
    images = jnp.zeros((16, 199, 199, 1))
    params = jax.tree.map(
        lambda x: np.zeros(x.shape, np.float32), output_and_variables(model, images.shape)[1]["params"]
    )
    params["conv5"]["bias"][:] = 1
    params["conv6"]["kernel"][0, 0] = params["instances"]["kernel"][0, 0] = np.eye(4)
    apply = jax.jit(lambda p, x: model.apply({"params": p}, x, train=True, rngs={"dropout": KEY}))
    features = apply(params, images)["features"]
    conv6, instances = np.asarray(features["conv6"]), np.asarray(features["instances"])
    assert conv6.shape[1:3] == (3, 3)
    after_pool = conv6 == 0
    np.testing.assert_allclose(conv6[~after_pool], 1 / 0.8, rtol=1e-6)
    np.testing.assert_allclose(after_pool.mean(), 0.2, atol=0.05)
    after_conv6 = instances[~after_pool] == 0.5
    np.testing.assert_allclose(instances[~after_pool][~after_conv6], logistic(2.5), rtol=1e-5)
    np.testing.assert_allclose(after_conv6.mean(), 0.5, atol=0.08)
    assert np.ptp(conv6[:, :, :, 0], axis=(1, 2)).any()  # not whole channels
