"""Paired cell inpainting: published counts and sizes, a slow NumPy forward pass, the source encoder alone, training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from import_helpers import KEY, output_and_variables

from coos import models
from coos.models import layers

NARROW = {"num_outputs": 1, "width": 6}
SOURCE = [f"conv{i}_1" for i in range(1, 6)]
TARGET = ["target1", "target2", "target3"]
DECODER = [f"conv{i}_1" for i in range(6, 11)]


def size(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def test_published_parameter_counts():
    _, variables = output_and_variables(models.create("pci", num_outputs=1), (1, 64, 64, 3))
    assert size(variables["params"]) == 7_320_609
    assert size(variables["params"]["source_encoder"]) == 3_323_616
    assert size(variables["batch_stats"]) == 2_912
    _, variables = output_and_variables(
        models.create("pci", num_outputs=1, source_channels=3), (1, 64, 64, 5)
    )
    assert size(variables["params"]) == 7_321_617


def test_published_sizes_of_the_layers():
    output, _ = output_and_variables(models.create("pci", num_outputs=2, dtype=jnp.bfloat16), (2, 64, 64, 3))
    sizes = {name: x.shape[1:] for name, x in output["features"].items()}
    widths = [96, 256, 384, 384, 256, 16, 32, 32, 256, 384, 384, 256, 96]
    pixels = [64, 32, 16, 16, 16, 64, 32, 16, 16, 16, 16, 32, 64]
    expected = [(n, n, width) for n, width in zip(pixels, widths, strict=True)]
    assert sizes == dict(zip(SOURCE + TARGET + DECODER, expected, strict=True))
    assert (output["logits"].shape, output["logits"].dtype) == ((2, 64, 64, 2), jnp.float32)
    assert output["features"]["conv3_1"].dtype == jnp.bfloat16
    largest = layers.pool_features({"conv3_1": jnp.arange(8.0).reshape(1, 2, 2, 2)}, pooling="max")
    np.testing.assert_array_equal(largest["conv3_1"], [[6, 7]])


def random_variables(model, shape, seed=0):
    """Every parameter and statistic drawn, so that none is at a value that hides a mistake."""
    generator = np.random.default_rng(seed)
    tree = output_and_variables(model, shape)[1]
    params = jax.tree.map(lambda x: generator.normal(0, 0.3, x.shape), tree["params"])
    return {
        "params": params,
        "batch_stats": jax.tree.map(lambda x: generator.uniform(0.3, 2, x.shape), tree["batch_stats"]),
    }


def slow_convolution(x, layer):
    """SAME, stride 1, as a sum over the taps."""
    reach = len(layer["kernel"]) // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    height, width = x.shape[1:3]
    taps = [(i, j) for i in range(2 * reach + 1) for j in range(2 * reach + 1)]
    total = sum(padded[:, i : i + height, j : j + width] @ layer["kernel"][i, j] for i, j in taps)
    return total + layer["bias"]


def slow_pool(x):
    blocks = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1)
    return blocks.max((2, 4))


def slow_doubled(x):
    result = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2], x.shape[3]))
    for i in range(2):
        for j in range(2):
            result[:, i::2, j::2] = x
    return result


def slow_encoder(tree, statistics, x, names):
    features = {}
    for i, name in enumerate(names):
        features[name] = x = np.maximum(slow_convolution(x, tree[name]), 0)
        norm, running = tree[f"{name}_norm"], statistics[f"{name}_norm"]
        x = (x - running["mean"]) / np.sqrt(running["var"] + 1e-3) * norm["scale"] + norm["bias"]
        x = slow_pool(x) if i < 2 else x
    return x, features


def slow_network(tree, images, source_channels):
    params, statistics = tree["params"], tree["batch_stats"]
    encoders = (("source_encoder", SOURCE), ("target_encoder", TARGET))
    parts = (images[..., :source_channels], images[..., source_channels:])
    ends, features = [], {}
    for (encoder, names), part in zip(encoders, parts, strict=True):
        end, own = slow_encoder(params[encoder], statistics[encoder], part, names)
        ends.append(end)
        features |= own
    x = np.concatenate(ends, -1)
    for name in DECODER:
        x = slow_doubled(x) if name in ("conv9_1", "conv10_1") else x
        features[name] = x = np.maximum(slow_convolution(x, params["decoder"][name]), 0)
    return features, slow_convolution(x, params["logits"])


@pytest.mark.parametrize(("source_channels", "channels"), [(2, 3), (1, 3)])
def test_forward_pass_equals_a_slow_one(source_channels, channels):
    model = models.create("pci", **NARROW, source_channels=source_channels)
    images = np.random.default_rng(1).normal(size=(2, 8, 12, channels)).astype(np.float32)
    tree = random_variables(model, images.shape)
    output = jax.jit(model.apply)(jax.tree.map(np.float32, tree), images)
    features, logits = slow_network(tree, images.astype(float), source_channels)
    assert set(output["features"]) == set(features)
    for name, expected in features.items():
        np.testing.assert_allclose(
            output["features"][name], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=name
        )
    assert logits.shape == (2, 8, 12, 1)
    assert logits.min() < 0 < logits.max()  # linear
    np.testing.assert_allclose(output["logits"], logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())


def test_the_source_encoder_alone():
    model = models.create("pci", **NARROW)
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    tree = jax.tree.map(np.float32, random_variables(model, images.shape))
    whole = jax.jit(model.apply)(tree, images)["features"]
    only_source = {name: {"source_encoder": part["source_encoder"]} for name, part in tree.items()}
    alone = jax.jit(lambda v, x: model.apply(v, x, method="encode"))(only_source, images[..., :2])
    assert list(alone) == SOURCE
    for name in SOURCE:
        np.testing.assert_allclose(alone[name], whole[name], rtol=1e-6, atol=1e-6)


def test_training_moves_every_layer_and_the_statistics_of_the_rectified_maps():
    model = models.create("pci", **NARROW)
    images = np.random.default_rng(1).random((4, 8, 8, 3)).astype(np.float32)
    tree = jax.tree.map(np.float32, random_variables(model, images.shape))

    def loss(params):
        variables = {"params": params, "batch_stats": tree["batch_stats"]}
        output, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.square(output["logits"] - 1).mean(), (updates["batch_stats"], output["features"])

    gradient, (statistics, features) = jax.jit(jax.grad(loss, has_aux=True))(tree["params"])
    for path, part in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.abs(np.asarray(part)).max() > 0, jax.tree_util.keystr(path)
    for encoder, name in (
        ("source_encoder", "conv1_1"),
        ("source_encoder", "conv5_1"),
        ("target_encoder", "target2"),
    ):
        rectified = np.asarray(features[name], float)
        running = statistics[encoder][f"{name}_norm"]
        before = tree["batch_stats"][encoder][f"{name}_norm"]
        for statistic, of_batch in (("mean", np.mean), ("var", np.var)):
            expected = 0.99 * before[statistic] + 0.01 * of_batch(rectified, (0, 1, 2))
            np.testing.assert_allclose(running[statistic], expected, rtol=1e-5, atol=1e-6)


def test_initial_values():
    model = models.create("pci", num_outputs=1, width=24)
    sums = {("source_encoder", "conv2_1"): 9 * (24 + 64), ("decoder", "conv6_1"): 9 * (72 + 64)}

    def initial(key, images):
        params = model.init(key, images)["params"]
        return [params[part][name] for part, name in sums]

    values = jax.device_get(jax.jit(initial)(KEY, jnp.ones((1, 4, 4, 3))))
    for (name, fans), layer in zip(sums.items(), values, strict=True):
        bound = np.sqrt(6 / fans)  # Glorot uniform
        np.testing.assert_allclose(np.abs(layer["kernel"]).max(), bound, rtol=0.01, err_msg=str(name))
        np.testing.assert_allclose(layer["kernel"].std(), bound / np.sqrt(3), rtol=0.02)
        assert not layer["bias"].any()


def test_sizes_that_fit_and_errors():
    model = models.create("pci", **NARROW)
    assert output_and_variables(model, (1, 4, 8, 3))[0]["logits"].shape == (1, 4, 8, 1)
    for shape, message in (
        ((1, 3, 4, 3), "PairedCellInpainting takes images of at least 4 x 4 pixels; got 3 x 4"),
        ((1, 64, 62, 3), "height and width must be multiples of 4; got 64 x 62: crop or pad them"),
        ((1, 8, 8, 2), "2 source channels and at least one target marker; got 2 channels in all"),
    ):
        with pytest.raises(ValueError, match=message):
            output_and_variables(model, shape)
    with pytest.raises(
        ValueError, match="takes the 2 channels of source cells; got 3: leave out the target's"
    ):
        output_and_variables(model, (1, 8, 8, 3), method="encode")
    with pytest.raises(ValueError, match="width 32: choose a multiple of 6"):
        output_and_variables(models.create("pci", num_outputs=1, width=32), (1, 8, 8, 3))
    assert output_and_variables(model, (1, 7, 9, 2), method="encode")[0]["conv5_1"].shape == (1, 1, 2, 16)
