"""What holds for every network: published counts, training, half precision, independence of images, many devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from import_helpers import KEY, drawn, shapes

from coos import models, registry
from coos.data import simulate
from coos.models import layers
from coos.models.summary import count, summarize

# Published trainable parameters: input, outputs, count.
PUBLISHED = {
    "gapnet": ((520, 696, 5), 209, 3_694_545),  # Hofmarcher 2019, Table 2
    "sc_cnn": ((96, 96, 5), 209, 3_694_545),
    "milnet": ((520, 696, 5), 209, 726_180),
    "mcnn": ((520, 696, 5), 209, 11_230_929),
    "resnet101": ((520, 696, 5), 209, 42_934_673),
    "densenet121": ((520, 696, 5), 209, 7_174_353),
    "fnn": ((1783,), 209, 12_474_577),
    "deeploc": ((60, 60, 2), 7, 10_985_237),
    "pci": ((64, 64, 3), 1, 7_320_609),
    "efficientnet_b0": ((128, 128, 5), 1144, 5_473_588),
    "resnet50": ((224, 224, 3), 1000, 25_557_032),
    "resnet50v2": ((224, 224, 3), 1000, 25_568_360),
    "vgg16": ((224, 224, 3), 1000, 138_357_544),
    "alexnet": ((224, 224, 3), 1000, 61_100_840),
    "googlenet": ((224, 224, 3), 1000, 6_624_904),
}
# Count = base + p * channels + (f + 1) * outputs.
FORMULA = {
    "alexnet": (56_980_608, 7_744, 4096),
    "vgg16": (134_258_816, 576, 4096),
    "resnet50": (23_498_624, 3_136, 2048),
    "resnet101": (42_490_752, 3_136, 2048),
    "densenet121": (6_944_448, 3_136, 1024),
    "efficientnet_b0": (4_006_684, 288, 1280),
    "googlenet": (5_590_496, 3_136, 1024),
}
# Small versions: input, options, learning rate of Adam.
NARROW = {
    "gapnet": ((24, 24, 2), {"width": 4, "fc_units": 16}, 3e-3),
    "sc_cnn": ((32, 32, 2), {"width": 4, "fc_units": 16}, 3e-3),
    "milnet": (
        (135, 135, 2),
        {"width": 4, "instance_units": 64, "dropout": 0.0, "instance_dropout": 0.0},
        1e-2,
    ),
    "mcnn": ((16, 16, 2), {"widths": (4, 4, 4), "mix_units": 16, "fc_units": 16}, 1e-2),
    "resnet50": ((32, 32, 2), {"width": 4, "stage_sizes": (1, 1, 1, 1)}, 1e-2),
    "resnet101": ((32, 32, 2), {"width": 4, "stage_sizes": (1, 1, 2, 1)}, 1e-2),
    "resnet50v2": ((32, 32, 2), {"width": 4, "stage_sizes": (1, 1, 1, 1)}, 1e-2),
    "densenet121": ((32, 32, 2), {"growth": 4, "blocks": (1, 1, 1, 1)}, 1e-2),
    "fnn": ((96,), {"units": 64}, 1e-2),
    "deeploc": ((16, 16, 2), {"width": 4}, 1e-2),
    "pci": ((16, 16, 3), {"width": 6}, 1e-2),
    "efficientnet_b0": ((16, 16, 2), {"width_coefficient": 0.25, "depth_coefficient": 0.2}, 1e-2),
    "vgg16": ((32, 32, 2), {"width": 8, "fc_units": 64, "dropout": 0.0}, 1e-3),
    "alexnet": ((64, 64, 2), {"width": 8, "fc_units": 128}, 3e-3),
    "googlenet": ((32, 32, 2), {"width": 8}, 1e-2),
}
SLOW = [name for name in NARROW if name not in ("fnn", "mcnn", "deeploc", "alexnet", "pci")]
DISTINCT = [name for name in NARROW if name not in ("sc_cnn", "resnet101")]  # those are gapnet and resnet50
NORMALIZED = ("deeploc", "pci", "resnet50", "resnet50v2", "densenet121", "efficientnet_b0", "googlenet")
UNDROPPED = {"efficientnet_b0": {"drop_connect": 0.0}, "googlenet": {"dropout": 0.0}}


def test_every_network_is_covered():
    assert set(models.available()) == set(PUBLISHED) == set(NARROW)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters(name):
    shape, num_outputs, expected = PUBLISHED[name]
    found = registry.lookup("coos.models", name).PUBLISHED
    assert (found.input_shape, found.num_outputs, found.parameters) == (shape, num_outputs, expected)
    variables, _ = shapes(models.create(name, num_outputs=num_outputs), shape)
    assert count(variables["params"]) == expected


@pytest.mark.parametrize("name", FORMULA)
def test_parameters_by_channels_and_outputs(name):
    base, per_channel, features = FORMULA[name]
    variables, _ = shapes(models.create(name, num_outputs=7), (64, 64, 2))
    assert count(variables["params"]) == base + 2 * per_channel + (features + 1) * 7


@functools.cache
def cells():
    """32 simulated cells of four classes, 64 x 64 x 2, each channel between 0 and 1."""
    arrays = simulate.simulate_split("training", cells_per_class=8)
    chosen = np.concatenate([np.flatnonzero(arrays["labels"] == k)[:8] for k in range(4)])
    images = np.moveaxis(arrays["data"][chosen], 1, -1).astype(np.float32)
    images -= images.min((1, 2), keepdims=True)
    return images / images.max((1, 2), keepdims=True), np.repeat(np.arange(4), 8)


def examples(shape):
    """The simulated cells as a network of this input takes them."""
    images, labels = cells()
    if len(shape) == 1:
        rows = images[:, ::8, ::8].reshape(32, -1)[:, : shape[0]]
        return np.pad(rows, ((0, 0), (0, shape[0] - rows.shape[1]))), labels
    factor = -(-shape[0] // 64)
    images = images.repeat(factor, 1).repeat(factor, 2)
    low = (images.shape[1] - shape[0]) // 2
    images = images[:, low : low + shape[0], low : low + shape[1]]
    return np.concatenate([images, images[..., :1]], -1)[..., : shape[2]], labels


@functools.cache
def narrow(name):
    """A small network, its first variables, and 32 images with labels."""
    shape, options, _ = NARROW[name]
    module = models.create(name, num_outputs=1 if name == "pci" else 4, **options)
    images, labels = examples(shape)
    return module, drawn(shapes(module, shape)[0]), images, labels


def mean_loss(module, variables, images, labels, key):
    rngs = {"dropout": key}
    output, updates = module.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
    if output["logits"].ndim == 4:
        return jnp.square(output["logits"] - images[..., :1]).mean(), updates
    losses = optax.softmax_cross_entropy_with_integer_labels(output["logits"], labels)
    if "pooled" in output["features"]:  # MIL-Net's loss is the sum over its two heads
        found, wanted = output["features"]["pooled"].clip(1e-6, 1 - 1e-6), jax.nn.one_hot(labels, 4)
        losses -= (wanted * jnp.log(found) + (1 - wanted) * jnp.log(1 - found)).mean(-1)
    return losses.mean(), updates


def make_step(module, optimizer):
    """One compiled update of (params, batch_stats, moments): XLA must not see the images as constants."""

    @jax.jit
    def step(params, stats, moments, key, images, labels):
        def loss(params):
            return mean_loss(module, {"params": params, "batch_stats": stats}, images, labels, key)

        (value, updates), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        changes, moments = optimizer.update(gradient, moments, params)
        return optax.apply_updates(params, changes), updates.get("batch_stats", {}), moments, value

    return step


def train(name, *, steps, dtype):
    """Losses of the first steps of a small network on the 32 images, and its parameters after them."""
    module, variables, images, labels = narrow(name)
    optimizer = optax.adam(NARROW[name][2])
    step = make_step(module.clone(dtype=dtype), optimizer)
    params, stats, values = variables["params"], variables.get("batch_stats", {}), []
    moments = optimizer.init(params)
    for i in range(steps):
        key = jax.random.fold_in(KEY, i)
        params, stats, moments, value = step(params, stats, moments, key, images, labels)
        values.append(float(value))
    return values, params


def slow_ones_marked(names):
    """The networks whose training step takes long to compile run with the slow tests."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in names]


@pytest.mark.parametrize("name", slow_ones_marked(NARROW))
def test_loss_halves_in_50_steps_of_half_precision(name):
    values, params = train(name, steps=50, dtype=jnp.bfloat16)
    assert np.isfinite(values).all()
    assert all(np.isfinite(x).all() and x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    assert min(values[-10:]) < values[0] / 2, values


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_loss_halves_in_50_steps_of_full_precision(name):
    values, _ = train(name, steps=50, dtype=jnp.float32)
    assert min(values[-10:]) < values[0] / 2, values


@pytest.mark.parametrize("name", DISTINCT)
def test_images_are_independent_in_evaluation(name):
    module, variables, images, _ = narrow(name)
    order = np.random.default_rng(0).permutation(8)
    evaluate = jax.jit(module.apply)
    straight, shuffled = evaluate(variables, images[:8]), evaluate(variables, images[:8][order])
    assert straight["logits"].dtype == jnp.float32
    np.testing.assert_allclose(shuffled["logits"], straight["logits"][order], rtol=1e-5, atol=1e-6)
    for layer, features in straight["features"].items():
        scale = 1e-5 * np.abs(features).max()
        np.testing.assert_allclose(
            shuffled["features"][layer], features[order], atol=scale, rtol=0, err_msg=layer
        )


@pytest.mark.parametrize("name", slow_ones_marked(NORMALIZED))
@jax.enable_x64(True)
def test_batch_norm_over_eight_devices_is_that_of_the_whole_batch(name):
    module, variables, images, _ = narrow(name)
    # In float32 GoogLeNet's 22 batch norms make 5e-5 of the rounding of the sums.
    dtype = jnp.float64 if name == "googlenet" else jnp.float32
    module = module.clone(dtype=dtype, **UNDROPPED.get(name, {}))
    variables, images = jax.tree.map(lambda x: x.astype(dtype), (variables, images))

    def forward(module, variables, images):
        output, updates = module.apply(variables, images, train=True, mutable=["batch_stats"])
        return output["logits"], updates["batch_stats"]

    logits, stats = jax.jit(functools.partial(forward, module))(variables, images)
    across = functools.partial(forward, module.clone(axis_name="device"))
    parts = images.reshape(8, 4, *images.shape[1:])
    many_logits, many_stats = jax.pmap(across, axis_name="device", in_axes=(None, 0))(variables, parts)
    np.testing.assert_allclose(np.concatenate(many_logits), logits, atol=1e-5 * np.abs(logits).max(), rtol=0)
    for one, many in zip(jax.tree.leaves(stats), jax.tree.leaves(many_stats), strict=True):
        np.testing.assert_allclose(many[0], one, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(many[0], many[7])


def test_pooled_features():
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 4)), jnp.float32)
    features = {"conv": maps, "fc": jnp.ones((2, 6))}
    mean, high = layers.pool_features(features), layers.pool_features(features, pooling="max")
    np.testing.assert_allclose(mean["conv"], np.asarray(maps).mean((1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(high["conv"], np.asarray(maps).max((1, 2)))
    assert mean["fc"].shape == high["fc"].shape == (2, 6)
    with pytest.raises(ValueError, match="pooling 'median': choose one of"):
        layers.pool_features(features, pooling="median")


def test_summary_counts_multiplications_and_additions():
    found = summarize(models.create("vgg16", num_outputs=1000), (224, 224, 3))
    assert found.parameters == 138_357_544
    assert found.features["conv5_3"] == (14, 14, 512)
    assert list(found.features)[:3] == ["conv1_1", "conv1_2", "pool1"]
    # 15.47e9 multiply-adds, by hand from the layers' sizes.
    sizes = [(224, 3, 64), (224, 64, 64), (112, 64, 128), (112, 128, 128), (56, 128, 256)]
    sizes += [(56, 256, 256)] * 2 + [(28, 256, 512)] + [(28, 512, 512)] * 2 + [(14, 512, 512)] * 3
    by_hand = sum(n * n * 9 * i * o for n, i, o in sizes) + 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    assert found.flops == 2 * by_hand
    # Multiply-adds that torchvision prints for its networks at 224 x 224.
    for name, expected in (
        ("resnet50", 4.09),
        ("efficientnet_b0", 0.39),
        ("alexnet", 0.71),
        ("densenet121", 2.83),
    ):
        found = summarize(models.create(name, num_outputs=1000), (224, 224, 3))
        assert round(found.flops / 2e9, 2) == expected, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_outputs": 0}, "num_outputs=0: give a whole number from 1 on"),
        ({"num_outputs": 7.0}, r"num_outputs=7.0: give a whole number from 1 on"),
        ({"width": -4}, "width=-4: give a whole number from 1 on"),
        ({"dropout": 1.5}, r"dropout=1.5: give a rate of at least 0 and below 1"),
        ({"dtype": jnp.int32}, "dtype=.*int32.*: give a floating type"),
    ],
)
def test_values_that_no_network_can_have(options, message):
    with pytest.raises(ValueError, match=f"model 'vgg16': {message}"):
        models.create("vgg16", **{"num_outputs": 3, **options})


def test_images_that_no_network_takes():
    module = models.create("vgg16", num_outputs=3, width=2, fc_units=4)
    for images, message in (
        (jnp.ones((2, 32, 32, 0)), r"at least one channel; got shape \(2, 32, 32, 0\)"),
        (jnp.ones((2, 32, 32, 3), jnp.uint8), "takes floating-point images; got uint8: scale them first"),
        (jnp.ones((2, 31, 40, 3)), "at least 32 x 32 pixels; got 31 x 40"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(module.init, KEY, images)
    variables = drawn(shapes(module, (32, 32, 3))[0])
    assert module.apply(variables, jnp.ones((0, 32, 32, 3)))["logits"].shape == (0, 3)
