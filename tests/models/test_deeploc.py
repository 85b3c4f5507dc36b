"""DeepLoc: the published counts and sizes, a slow NumPy forward pass, and training behaviour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from import_helpers import drawn, initial_parameters, shapes

from coos import models


def variables(model, shape=(1, 60, 60, 2)):
    return drawn(shapes(model, shape[1:])[0])


def in_training(model, tree, images):
    return jax.jit(lambda t, x: model.apply(t, x, train=True, mutable=["batch_stats"]))(tree, images)


def count(num_outputs, channels, **options):
    model = models.create("deeploc", num_outputs=num_outputs, **options)
    shapes = jax.eval_shape(lambda: model.init(jax.random.PRNGKey(0), jnp.ones((1, 60, 60, channels))))
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["params"]))


def test_published_parameter_counts():
    assert count(7, 2) == 10_985_237
    assert count(19, 2) == 10_991_417
    assert count(7, 1) == 10_984_661


def test_published_sizes_of_the_layers():
    model = models.create("deeploc", num_outputs=7)
    output = jax.eval_shape(
        lambda: model.init_with_output(jax.random.PRNGKey(0), jnp.ones((3, 60, 60, 2)))[0]
    )
    sizes = {name: array.shape[1:] for name, array in output["features"].items()}
    assert sizes["conv2"] == (60, 60, 64)
    assert sizes["pool1"] == (30, 30, 64)
    assert sizes["conv4"] == (30, 30, 128)
    assert sizes["pool2"] == (15, 15, 128)
    assert sizes["conv8"] == (15, 15, 256)
    assert sizes["pool3"] == (8, 8, 256)
    assert sizes["fc1"] == sizes["fc2"] == (512,)
    assert output["logits"].shape == (3, 7)
    assert output["logits"].dtype == jnp.float32


def test_initial_values_are_the_published_ones():
    params = initial_parameters(models.create("deeploc", num_outputs=7, width=16), (60, 60, 2))
    kernel = np.asarray(params["fc1"]["kernel"])
    # A normal cut off at two standard deviations has 0.8796 of the standard deviation.
    np.testing.assert_allclose(kernel.std(), 0.1 * 0.8796, rtol=0.01)
    assert np.abs(kernel).max() <= 0.2
    np.testing.assert_array_equal(params["fc1_norm"]["bias"], np.full(128, 0.1, np.float32))
    np.testing.assert_array_equal(params["conv1_norm"]["norm"]["scale"], np.ones(16))


def slow_convolution(x, kernel):
    """3x3, SAME, one output pixel at a time over the nine taps."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [(i, j) for i in range(3) for j in range(3)]
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i, j in taps)


def slow_pool(x):
    """Max 2x2, stride 2; an odd last row or column stands alone."""
    rows = [x[:, i : i + 2].max(1) for i in range(0, x.shape[1], 2)]
    x = np.stack(rows, 1)
    return np.stack([x[:, :, j : j + 2].max(2) for j in range(0, x.shape[2], 2)], 2)


def slow_deeploc(tree, x, epsilon):
    """The network in evaluation mode, in float64."""
    params, stats = tree["params"], tree["batch_stats"]

    def normalized(name, y):
        norm, running = params[f"{name}_norm"], stats[f"{name}_norm"]["norm"]
        y = (y + norm["bias"] - running["mean"]) / np.sqrt(running["var"] + epsilon)
        return y * norm["norm"]["scale"] + norm["norm"]["bias"]

    for i in range(1, 9):
        x = np.maximum(normalized(f"conv{i}", slow_convolution(x, params[f"conv{i}"]["kernel"])), 0)
        x = slow_pool(x) if i in (2, 4, 8) else x
    x = x.reshape(len(x), -1)
    for name in ("fc1", "fc2"):
        x = np.maximum(normalized(name, x @ params[name]["kernel"]), 0)
    return x, normalized("logits", x @ params["logits"]["kernel"])


@pytest.mark.parametrize(("size", "options"), [(60, {}), (33, {"epsilon": 0.5})])
def test_forward_pass_equals_a_slow_one(size, options):
    model = models.create("deeploc", num_outputs=5, width=4, **options)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(3, size, size, 2)).astype(np.float32)
    tree = jax.device_get(variables(model, images.shape))
    tree = jax.tree.map(lambda x: (x + 0.2 * generator.random(x.shape)).astype(np.float32), tree)
    output = jax.jit(model.apply)(tree, images)
    features, logits = slow_deeploc(
        jax.tree.map(lambda x: x.astype(np.float64), tree), images, options.get("epsilon", 1e-3)
    )
    np.testing.assert_allclose(
        output["features"]["fc2"], features, rtol=1e-4, atol=1e-4 * np.abs(features).max()
    )
    np.testing.assert_allclose(output["logits"], logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())


def test_training_uses_and_updates_batch_statistics():
    model = models.create("deeploc", num_outputs=3, width=2)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(8, 24, 24, 1)) * 3 + 5)
    tree = variables(model, images.shape)
    tree["params"]["conv1_norm"]["bias"] += 0.1
    output, updates = in_training(model, tree, images)
    logits = np.asarray(output["logits"])
    np.testing.assert_allclose(logits.mean(0), 0, atol=1e-5)  # the logits are batch-normed too
    before, after = tree["batch_stats"], updates["batch_stats"]
    batch_mean = 2 * np.asarray(after["conv1_norm"]["norm"]["mean"])  # running mean 0, momentum 0.5
    kernel = np.asarray(tree["params"]["conv1"]["kernel"])
    expected = slow_convolution(np.asarray(images), kernel).mean((0, 1, 2)) + 0.1
    np.testing.assert_allclose(batch_mean, expected, rtol=1e-4)
    assert jax.tree.structure(before) == jax.tree.structure(after)


def test_bias_before_batch_norm_has_no_gradient():
    model = models.create("deeploc", num_outputs=3, width=2)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16, 16, 1)))
    tree = variables(model, images.shape)

    def loss(params):
        variables = {"params": params, "batch_stats": tree["batch_stats"]}
        output, _ = in_training(model, variables, images)
        return (output["logits"] ** 3).sum()

    gradient = jax.jit(jax.grad(loss))(tree["params"])
    for name, part in gradient.items():
        if name.endswith("_norm"):
            assert (part["bias"] == 0).all(), name
        else:
            assert np.abs(part["kernel"]).max() > 0, name


def test_evaluation_treats_each_image_alone():
    model = models.create("deeploc", num_outputs=3, width=2)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(6, 20, 20, 2)))
    tree = variables(model, images.shape)
    order = np.array([3, 1, 5, 0, 2, 4])
    evaluate = jax.jit(model.apply)
    straight, shuffled = (evaluate(tree, x)["logits"] for x in (images, images[order]))
    np.testing.assert_allclose(shuffled, straight[order], rtol=1e-5, atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match=r"coos.models: no 'deploc'; available: .*deeploc"):
        models.create("deploc", num_outputs=7)
    with pytest.raises(ValueError, match=r"model 'deeploc' has no option 'depth'; it has \['width'"):
        models.create("deeploc", num_outputs=7, depth=3)
    with pytest.raises(
        ValueError, match=r"DeepLoc takes images \(batch, height, width, channels\); got shape \(1, 60, 2\)"
    ):
        variables(models.create("deeploc", num_outputs=7), (1, 60, 2))
