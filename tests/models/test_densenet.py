"""DenseNet-121: the published counts and sizes; Keras' and PyTorch's own layers with the same weights."""

import functools
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from import_helpers import (
    KEY,
    assert_close,
    count,
    from_keras,
    from_torch,
    images_of,
    initial_parameters,
    keras_outputs,
    random_keras,
    random_torch_state,
    uniform_within,
)
from import_helpers import shapes as shapes_of

from coos import models
from coos.models import densenet121

SIZE = (64, 77)  # every stride meets an even and an odd number of pixels


@functools.cache
def shapes(outputs, channels, size=224, **options):
    """Variables and output of a network, without computing them."""
    model = models.create("densenet121", num_outputs=outputs, **options)
    return shapes_of(model, ((size, size) if isinstance(size, int) else size) + (channels,))


@pytest.mark.parametrize(
    ("channels", "outputs", "parameters"),
    [
        (3, 1000, 7_978_856),
        (5, 209, 7_174_353),  # Hofmarcher et al. 2019, Table 2
        (2, 7, 6_957_895),
    ],
)
def test_published_parameter_counts(channels, outputs, parameters):
    tree, _ = shapes(outputs, channels)
    assert count(tree["params"]) == parameters
    assert count(tree["batch_stats"]) == 83_648


def test_published_sizes_of_the_layers():
    tree, output = shapes(1000, 3)
    sizes = {name: array.shape[1:] for name, array in output["features"].items()}
    assert sizes["conv1"] == (112, 112, 64)
    assert sizes["pool1"] == (56, 56, 64)
    assert sizes["dense1_1"] == sizes["dense1_6"] == (56, 56, 32)
    assert sizes["dense1"] == (56, 56, 256)
    assert sizes["transition1"] == (28, 28, 128)
    assert sizes["dense2"] == (28, 28, 512)
    assert sizes["transition2"] == (14, 14, 256)
    assert sizes["dense3"] == (14, 14, 1024)
    assert sizes["transition3"] == (7, 7, 512)
    assert sizes["dense4"] == sizes["norm5"] == (7, 7, 1024)
    assert sizes["pool5"] == (1024,)
    assert output["logits"].shape == (1, 1000)
    assert tree["params"]["dense4_16"]["conv1"]["kernel"].shape == (1, 1, 512 + 15 * 32, 128)


@pytest.mark.parametrize("variant", densenet121.VARIANTS)
def test_layout_has_every_layer_once(variant):
    layout = densenet121.layout(models.create("densenet121", num_outputs=1000, variant=variant))
    tree, _ = shapes(1000, 3)
    assert sorted(source.path for source in layout) == sorted(
        {path[:-1] for path in flatten_dict(tree["params"])}
    )
    assert layout[-1].path == ("logits",)
    for source in layout:
        assert (source.torch is None) == (variant == "keras")
        assert (source.keras is None) == (variant == "torchvision")
    assert len({source.torch or source.keras for source in layout}) == len(layout)


def test_keras_variant_equals_keras():
    pytest.importorskip("keras")
    from keras.src.applications import densenet

    options = {"weights": None, "input_shape": (*SIZE, 3), "classes": 5, "classifier_activation": None}
    network = random_keras(lambda: densenet.DenseNet([2, 1, 1, 1], **options))
    model = models.create("densenet121", num_outputs=5, blocks=(2, 1, 1, 1), variant="keras")
    theirs = [layer.name for layer in network.layers if layer.weights]
    assert [source.keras for source in densenet121.layout(model)] == theirs
    names = {"conv1": "conv1_relu", "pool1": "pool1", "dense1_2": "conv2_block2_2_conv", "pool5": "avg_pool"}
    names |= {"dense1": "conv2_block2_concat", "dense4": "conv5_block1_concat", "norm5": "relu"}
    names |= {f"transition{i}": f"pool{i + 1}_pool" for i in (1, 2, 3)}

    images = images_of(*SIZE, 3)
    expected = keras_outputs(network, images, [*names.values(), "predictions"])
    weights = from_keras(network, model, shapes_of(model, (*SIZE, 3))[0])
    output = jax.jit(model.apply)(weights, images)
    for ours, layer in names.items():
        assert_close(output["features"][ours], expected[layer], ours)
    assert_close(output["logits"], expected["predictions"], "logits")


def torch_forward(state, x, blocks):
    """DenseNet by torch's functions: (B, C, H, W) -> last map, logits."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    state = {name.removeprefix("features."): torch.from_numpy(value) for name, value in state.items()}

    def norm_relu(x, name):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return functional.relu(
            functional.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])
        )

    x = functional.conv2d(torch.from_numpy(x), state["conv0.weight"], stride=2, padding=3)
    x = functional.max_pool2d(norm_relu(x, "norm0"), 3, 2, 1)
    for b, size in enumerate(blocks, 1):
        for i in range(1, size + 1):
            name = f"denseblock{b}.denselayer{i}"
            y = functional.conv2d(norm_relu(x, f"{name}.norm1"), state[f"{name}.conv1.weight"])
            y = functional.conv2d(norm_relu(y, f"{name}.norm2"), state[f"{name}.conv2.weight"], padding=1)
            x = torch.cat([x, y], 1)
        if b < len(blocks):
            x = functional.conv2d(norm_relu(x, f"transition{b}.norm"), state[f"transition{b}.conv.weight"])
            x = functional.avg_pool2d(x, 2)
    x = norm_relu(x, "norm5")
    logits = x.mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]
    return x.permute(0, 2, 3, 1).numpy(), logits.numpy()


def test_torchvision_variant_equals_torch():
    blocks = (2, 1, 1)
    model = models.create("densenet121", num_outputs=5, growth=4, blocks=blocks)
    images = images_of(*SIZE, 3)
    tree, _ = shapes_of(model, (*SIZE, 3))
    state = random_torch_state(model, tree)
    last, logits = torch_forward(state, images.transpose(0, 3, 1, 2).copy(), blocks)
    output = jax.jit(model.apply)(from_torch(state, model, tree), images)
    assert_close(output["features"]["norm5"], last, "norm5")
    assert_close(output["logits"], logits, "logits")


def test_smallest_images():
    options = {"growth": 2, "blocks": (1, 1, 1, 1)}
    _, output = shapes(7, 1, 29, **options)
    assert output["features"]["norm5"].shape[1:3] == (1, 1)
    with pytest.raises(ValueError, match="DenseNet takes images of at least 29 x 29 pixels; got 28 x 29"):
        shapes(7, 1, (28, 29), **options)
    _, output = shapes(7, 1, 13, growth=2, blocks=(1, 1, 1))
    assert output["features"]["norm5"].shape[1:3] == (1, 1)


def checked_initial_parameters(variant):
    model = models.create("densenet121", num_outputs=50, growth=16, blocks=(1,), variant=variant)
    params = initial_parameters(model, (8, 8, 3))
    assert set(params["conv1"]) == set(params["dense1_1"]["conv2"]) == {"kernel"}
    assert (np.asarray(params["logits"]["bias"]) == 0).all()
    assert (np.asarray(params["norm5"]["scale"]) == 1).all()
    assert params["logits"]["kernel"].shape == (48, 50)
    return params


def test_initial_values_of_the_torchvision_variant():
    params = checked_initial_parameters("torchvision")
    for kernel, fan_in in (
        (params["conv1"]["kernel"], 147),
        (params["dense1_1"]["conv1"]["kernel"], 32),
        (params["dense1_1"]["conv2"]["kernel"], 9 * 64),
    ):
        kernel = np.asarray(kernel)
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_in), rtol=0.1)
        assert np.abs(kernel).max() > 3 * kernel.std()  # a normal that is not cut off
    assert uniform_within(params["logits"]["kernel"], 48**-0.5)


def test_initial_values_of_the_keras_variant():
    params = checked_initial_parameters("keras")
    assert uniform_within(params["conv1"]["kernel"], np.sqrt(6 / (49 * 35)))
    assert uniform_within(params["dense1_1"]["conv2"]["kernel"], np.sqrt(6 / (9 * 80)))
    assert uniform_within(params["logits"]["kernel"], np.sqrt(6 / 98))


@pytest.mark.parametrize(
    ("options", "momentum", "epsilon"),
    [
        ({}, 0.9, 1e-5),
        ({"variant": "keras"}, 0.99, 1.001e-5),
        ({"variant": "keras", "momentum": 0.75, "epsilon": 0.5}, 0.75, 0.5),
    ],
)
def test_batch_norm_settings(options, momentum, epsilon):
    """Of the last one: running statistics that start at 0 show the momentum in training, epsilon in evaluation."""
    model = models.create("densenet121", num_outputs=3, growth=2, blocks=(1,), **options)
    images = jnp.asarray(images_of(12, 12, 3))
    generator = np.random.default_rng(0)
    tree = jax.tree.map(
        lambda x: jnp.asarray(generator.uniform(0.5, 1.5, x.shape), x.dtype),
        jax.eval_shape(model.init, KEY, images),
    )
    tree["params"]["norm5"] = {"scale": jnp.ones(6), "bias": jnp.zeros(6)}
    tree["batch_stats"]["norm5"] = {"mean": jnp.zeros(6), "var": jnp.zeros(6)}

    @jax.jit
    def both(tree):
        trained, updates = model.apply(tree, images, train=True, mutable=["batch_stats"])
        return model.apply(tree, images)["features"], trained["features"], updates["batch_stats"]["norm5"]

    evaluated, trained, updated = both(tree)
    x = np.asarray(trained["dense1"], np.float64)
    np.testing.assert_allclose(updated["mean"], (1 - momentum) * x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(updated["var"], (1 - momentum) * x.var((0, 1, 2)), rtol=1e-3)
    expected = np.maximum(np.asarray(evaluated["dense1"], np.float64), 0) / np.sqrt(epsilon)
    np.testing.assert_allclose(evaluated["norm5"], expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_half_precision_computes_in_half_and_keeps_the_rest_in_full():
    tree, output = shapes(3, 2, 16, growth=2, blocks=(1, 1), dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype(jnp.float32)}
    assert {x.dtype for x in output["features"].values()} == {jnp.dtype(jnp.bfloat16)}
    assert output["logits"].dtype == jnp.float32


def test_initial_channels():
    tree, output = shapes(3, 2, 16, growth=2, blocks=(1, 1), initial=6)
    assert tree["params"]["conv1"]["kernel"].shape == (7, 7, 2, 6)
    assert output["features"]["dense1"].shape[-1] == 8


def test_unknown_variant():
    with pytest.raises(ValueError, match=r"DenseNet variant 'v2': choose one of \('torchvision', 'keras'\)"):
        models.create("densenet121", num_outputs=7, variant="v2")
