"""VGG16 and AlexNet: published counts and sizes, equality with Keras and with PyTorch code."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import import_helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coos import models
from coos.models import alexnet, layers, vgg16


def shapes(model, *, size=(224, 224), channels=3):
    """Shapes of (output, variables)."""
    images = jnp.ones((1, *size, channels))
    return jax.eval_shape(lambda: model.init_with_output(jax.random.PRNGKey(0), images))


def count(tree):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def assert_close(ours, theirs, what):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max(), err_msg=what)


def images_of(size, channels=3):
    return np.random.default_rng(0).normal(size=(2, *size, channels)).astype(np.float32)


def test_published_counts_and_sizes_of_vgg16():
    output, tree = shapes(models.create("vgg16", num_outputs=1000))
    assert count(tree) == 138_357_544
    sizes = {name: array.shape[1:] for name, array in output["features"].items()}
    assert sizes["conv1_2"] == (224, 224, 64)
    assert sizes["pool1"] == (112, 112, 64)
    assert sizes["conv3_3"] == (56, 56, 256)
    assert sizes["conv4_2"] == (28, 28, 512)
    assert sizes["pool5"] == (7, 7, 512)
    assert sizes["fc6"] == sizes["fc7"] == (4096,)
    assert count(shapes(models.create("vgg16", num_outputs=209), size=(64, 64), channels=5)[1]) == 135_117_969


ALEXNETS = {"torchvision": (224, 61_100_840, 64, 192), "caffe": (227, 60_965_224, 96, 256)}


@pytest.mark.parametrize("variant", ALEXNETS)
def test_published_counts_and_sizes_of_alexnet(variant):
    size, parameters, first, second = ALEXNETS[variant]
    output, tree = shapes(models.create("alexnet", num_outputs=1000, variant=variant), size=(size, size))
    assert count(tree) == parameters
    sizes = {name: array.shape[1:] for name, array in output["features"].items()}
    assert sizes["conv1"] == (55, 55, first)
    assert sizes["pool1"] == (27, 27, first)
    assert sizes["conv2"] == (27, 27, second)
    assert sizes["pool2"] == (13, 13, second)
    assert sizes["conv5"] == (13, 13, 256)
    assert sizes["pool5"] == (6, 6, 256)
    assert sizes["fc7"] == (4096,)


@pytest.mark.parametrize(
    ("name", "options", "smallest"),
    [("vgg16", {}, 32), ("alexnet", {}, 63), ("alexnet", {"variant": "caffe"}, 39)],
)
def test_smallest_size(name, options, smallest):
    model = models.create(name, num_outputs=3, width=6, fc_units=4, dtype=jnp.bfloat16, **options)
    output, tree = shapes(model, size=(smallest, smallest))
    assert output["features"]["pool5"].shape[1:3] == (1, 1)
    assert output["features"]["pool5"].dtype == jnp.bfloat16
    assert output["logits"].dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(tree)} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match=f"at least {smallest} x {smallest} pixels; got {smallest - 1}"):
        shapes(model, size=(smallest - 1, smallest))


def narrow_keras_vgg():
    """VGG16 of width 2 with Keras' layer names; its weights are zero."""
    import keras
    from keras import layers as k

    stack = [keras.Input((224, 224, 3))]
    options = {"activation": "relu", "kernel_initializer": "zeros"}
    for block, (convolutions, channels) in enumerate([(2, 2), (2, 4), (3, 8), (3, 16), (3, 16)], 1):
        names = [f"block{block}_conv{i + 1}" for i in range(convolutions)]
        stack += [k.Conv2D(channels, 3, padding="same", name=name, **options) for name in names]
        stack.append(k.MaxPooling2D(2, name=f"block{block}_pool"))
    stack += [k.Flatten(), k.Dense(5, name="fc1", **options), k.Dense(5, name="fc2", **options)]
    return keras.Sequential([*stack, k.Dense(4, kernel_initializer="zeros", name="predictions")])


def test_vgg16_equals_keras():
    import keras

    theirs = narrow_keras_vgg()
    import_helpers.randomize_keras(theirs)
    model = models.create("vgg16", num_outputs=4, width=2, fc_units=5)
    sources = vgg16.layout(model)
    assert [source.keras for source in sources] == [layer.name for layer in theirs.layers if layer.weights]
    tree = import_helpers.from_keras(theirs, model, shapes(model)[1])
    names = {"conv3_3": "block3_conv3", "conv4_1": "block4_conv1", "pool5": "block5_pool", "fc7": "fc2"}
    features = [theirs.get_layer(name).output for name in names.values()]
    images = images_of((224, 224))
    logits, *features = jax.jit(keras.Model(theirs.inputs, [theirs.outputs[0], *features]))(images)
    output = jax.jit(model.apply)(tree, images)
    assert_close(output["logits"], logits, "logits")
    for name, feature in zip(names, features, strict=True):
        assert_close(output["features"][name], feature, name)


def narrow_torch_vgg(torch):
    """VGG16 of width 2 with torchvision's tensor names; and the index of each feature."""
    nn, stack, inputs = torch.nn, [], 3
    for convolutions, channels in [(2, 2), (2, 4), (3, 8), (3, 16), (3, 16)]:
        for _ in range(convolutions):
            stack += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
            inputs = channels
        stack.append(nn.MaxPool2d(2))
    dense = [nn.Linear(16 * 49, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 5), nn.ReLU(), nn.Dropout()]
    parts = {"features": nn.Sequential(*stack), "classifier": nn.Sequential(*dense, nn.Linear(5, 4))}
    indices = {"conv1_1": 1, "pool1": 4, "conv3_3": 15, "conv4_1": 18, "conv4_2": 20, "pool5": 30}
    return nn.ModuleDict(parts).eval(), indices, {"fc6": 1, "fc7": 4}


def narrow_torch_alexnet(torch):
    """The same of torchvision's AlexNet of width 4."""
    nn = torch.nn
    stack = [nn.Conv2d(3, 4, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    stack += [nn.Conv2d(4, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for inputs, outputs in [(12, 24), (24, 16), (16, 16)]:
        stack += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    dense = [nn.Dropout(), nn.Linear(16 * 36, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 5), nn.ReLU()]
    parts = {
        "features": nn.Sequential(*stack, nn.MaxPool2d(3, 2)),
        "classifier": nn.Sequential(*dense, nn.Linear(5, 4)),
    }
    indices = {
        "conv1": 1,
        "pool1": 2,
        "conv2": 4,
        "pool2": 5,
        "conv3": 7,
        "conv4": 9,
        "conv5": 11,
        "pool5": 12,
    }
    return nn.ModuleDict(parts).eval(), indices, {"fc6": 2, "fc7": 5}


TORCH = {"vgg16": (narrow_torch_vgg, 7, {"width": 2}), "alexnet": (narrow_torch_alexnet, 6, {"width": 4})}


@pytest.mark.parametrize("name", TORCH)
def test_equals_pytorch_in_other_sizes(name):
    torch = pytest.importorskip("torch")
    make, pooled, options = TORCH[name]
    network, indices, dense = make(torch)
    import_helpers.randomize_torch(network)
    model = models.create(name, num_outputs=4, fc_units=5, **options)
    tree = import_helpers.from_torch(network.state_dict(), model, shapes(model)[1])
    for size in [(64, 64), (75, 91)][name == "vgg16" :]:  # Keras has an even size of VGG16
        output = jax.jit(model.apply)(tree, images_of(size))
        with torch.no_grad():
            found = [torch.from_numpy(images_of(size)).permute(0, 3, 1, 2)]
            for part in network["features"]:
                found.append(part(found[-1]))
            for feature, index in indices.items():
                assert_close(output["features"][feature], found[index + 1].permute(0, 2, 3, 1), feature)
            found = [torch.nn.AdaptiveAvgPool2d(pooled)(found[-1]).flatten(1)]
            for part in network["classifier"]:
                found.append(part(found[-1]))
        for feature, index in dense.items():
            assert_close(output["features"][feature], found[index + 1], feature)
        assert_close(output["logits"], found[-1], f"logits {size}")


def slow_caffe_alexnet(torch, params, x):
    """Krizhevsky's network by PyTorch functions, on our parameters: features and logits."""
    functional, found = torch.nn.functional, {}

    def tensor(name, leaf):
        return torch.from_numpy(params[name][leaf])

    x = torch.from_numpy(x).permute(0, 3, 1, 2)
    settings = [("conv1", 4, 0, 1), ("conv2", 1, 2, 2), ("conv3", 1, 1, 1), ("conv4", 1, 1, 2)]
    for name, stride, padding, groups in [*settings, ("conv5", 1, 1, 2)]:
        kernel = tensor(name, "kernel").permute(3, 2, 0, 1)
        x = functional.conv2d(x, kernel, tensor(name, "bias"), stride, padding, groups=groups)
        found[name] = x = functional.relu(x)
        if name in ("conv1", "conv2"):
            x = functional.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
        if name in ("conv1", "conv2", "conv5"):
            found["pool" + name[-1]] = x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
    x = functional.adaptive_avg_pool2d(x, 6).permute(0, 2, 3, 1).flatten(1)
    for name in ("fc6", "fc7"):
        found[name] = x = functional.relu(x @ tensor(name, "kernel") + tensor(name, "bias"))
    return found, x @ tensor("logits", "kernel") + tensor("logits", "bias")


@pytest.mark.parametrize("size", [(64, 64), (75, 93)])
def test_caffe_alexnet_equals_pytorch_functions(size):
    torch = pytest.importorskip("torch")
    model = models.create("alexnet", num_outputs=4, variant="caffe", width=6, fc_units=5)
    generator = np.random.default_rng(1)
    draw = lambda x: generator.normal(0, 1.5 / x.shape[-1] ** 0.5, x.shape).astype(np.float32)  # noqa: E731
    tree = jax.tree.map(draw, shapes(model)[1])
    images = 20 * images_of(size)  # large, so that response norm matters
    output = jax.jit(model.apply)(tree, images)
    found, logits = slow_caffe_alexnet(torch, tree["params"], images)
    for name, feature in found.items():
        feature = feature.permute(0, 2, 3, 1) if feature.ndim == 4 else feature
        assert_close(output["features"][name], feature, name)
    assert_close(output["logits"], logits, "logits")
    assert tree["params"]["conv2"]["kernel"].shape == (5, 5, 3, 16)
    assert {source.torch for source in alexnet.layout(model)} == {None}
    paths = [source.path for source in alexnet.layout(model)]
    assert sorted(paths) == sorted((name,) for name in tree["params"])


def test_response_norm_by_hand():
    x = np.array([1.0, 2.0, 3.0, 4.0], np.float32).reshape(1, 1, 1, 4) * 100
    sums = 1e4 * np.array([1 + 4 + 9, 1 + 4 + 9 + 16, 1 + 4 + 9 + 16, 4 + 9 + 16])  # five neighbours, cut off
    expected = x[0, 0, 0] / (1 + 1e-4 / 5 * sums) ** 0.75
    np.testing.assert_allclose(layers.local_response_norm(x)[0, 0, 0], expected, rtol=1e-5)


def test_ceil_mode_pool_by_hand():
    x = jnp.arange(6.0).reshape(1, 1, 6, 1).repeat(3, 1)
    np.testing.assert_array_equal(layers.ceil_max_pool(x, 3, 2)[0, :, :, 0], [[2, 4, 5]])
    np.testing.assert_array_equal(layers.max_pool(x, 3, 2)[0, :, :, 0], [[2, 4]])


@pytest.mark.parametrize(("variant", "before"), [("torchvision", True), ("caffe", False)])
def test_place_of_dropout_in_alexnet(variant, before):
    check_dropout(models.create("alexnet", num_outputs=3, variant=variant, width=6, fc_units=64), before)


def test_place_of_dropout_in_vgg16():
    check_dropout(models.create("vgg16", num_outputs=3, width=2, fc_units=64), before=False)


def check_dropout(model, before):
    """fc6 feels a dropout only if that comes before it; fc7 feels one, in training only."""
    generator = np.random.default_rng(0)
    tree = jax.tree.map(lambda x: generator.normal(0, 0.1, x.shape).astype(np.float32), shapes(model)[1])
    images = images_of((64, 64))

    @jax.jit
    def both(images):
        trained = model.apply(tree, images, train=True, rngs={"dropout": jax.random.PRNGKey(0)})
        return trained["features"], model.apply(tree, images)["features"]

    trained, evaluated = both(images)
    np.testing.assert_allclose(trained["pool5"], evaluated["pool5"], rtol=1e-5)
    assert np.allclose(trained["fc6"], evaluated["fc6"], rtol=1e-4) != before
    assert not np.allclose(trained["fc7"], evaluated["fc7"], rtol=1e-2)


def test_initial_values():
    torch = alexnet._initial("torchvision", "fc6", 400)
    caffe = alexnet._initial("caffe", "fc6", 400)

    @jax.jit
    def draws(key):
        drawn = torch["kernel_init"](key, (400, 50)), torch["bias_init"](key, (2000,))
        return *drawn, caffe["kernel_init"](key, (400, 50)), caffe["bias_init"](key, (3,))

    *uniform, normal, constant = draws(jax.random.PRNGKey(0))
    for values in uniform:
        assert np.abs(values).max() <= 1 / 20
        np.testing.assert_allclose(np.std(values), 1 / 20 / np.sqrt(3), rtol=0.05)
    np.testing.assert_allclose(np.std(normal), 0.005, rtol=0.05)
    np.testing.assert_allclose(constant, 0.1)


def test_errors():
    with pytest.raises(
        ValueError, match=r"AlexNet variant 'keras': choose one of \('torchvision', 'caffe'\)"
    ):
        models.create("alexnet", num_outputs=3, variant="keras")
    with pytest.raises(ValueError, match=r"AlexNet \(caffe\) takes a width that 6 divides; got 8"):
        models.create("alexnet", num_outputs=3, variant="caffe", width=8)
    with pytest.raises(ValueError, match="model 'vgg16' has no option 'variant'"):
        models.create("vgg16", num_outputs=3, variant="keras")
