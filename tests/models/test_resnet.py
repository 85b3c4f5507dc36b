"""ResNets: the published counts and sizes; Keras' and PyTorch's own layers with the same weights."""

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
from coos.models import resnet50, resnet50v2, resnet101

SIZE = (64, 75)  # every stride meets an even and an odd number of pixels


@functools.cache
def shapes(name, outputs, channels, size=224, **options):
    """Variables and output of a network, without computing them."""
    model = models.create(name, num_outputs=outputs, **options)
    return shapes_of(model, ((size, size) if isinstance(size, int) else size) + (channels,))


@pytest.mark.parametrize(
    ("name", "channels", "outputs", "parameters"),
    [
        ("resnet50", 3, 1000, 25_557_032),
        ("resnet50", 5, 1000, 25_563_304),
        ("resnet50", 5, 209, 23_942_545),
        ("resnet50", 2, 7, 23_519_239),
        ("resnet101", 3, 1000, 44_549_160),
        ("resnet101", 5, 209, 42_934_673),  # Hofmarcher et al. 2019, Table 2
    ],
)
def test_published_parameter_counts(name, channels, outputs, parameters):
    tree, _ = shapes(name, outputs, channels)
    assert count(tree["params"]) == parameters
    assert count(tree["batch_stats"]) == {"resnet50": 53_120, "resnet101": 105_344}[name]


@pytest.mark.parametrize(
    ("name", "options", "trainable", "total"),
    [
        ("resnet50", {"variant": "keras"}, 25_583_592, 25_636_712),
        ("resnet101", {"variant": "keras"}, 44_601_832, 44_707_176),
        ("resnet50v2", {}, 25_568_360, 25_613_800),
    ],
)
def test_parameter_counts_of_keras(name, options, trainable, total):
    tree, _ = shapes(name, 1000, 3, **options)
    assert count(tree["params"]) == trainable
    assert count(tree) == total


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        (resnet50, "resnet50", {}),
        (resnet50, "resnet50", {"variant": "keras"}),
        (resnet101, "resnet101", {"variant": "keras"}),
        (resnet50v2, "resnet50v2", {}),
    ],
)
def test_layout_has_every_layer_once(module, name, options):
    layout = module.layout(models.create(name, num_outputs=1000, **options))
    tree, _ = shapes(name, 1000, 3, **options)
    assert sorted(source.path for source in layout) == sorted(
        {path[:-1] for path in flatten_dict(tree["params"])}
    )
    assert layout[-1].path == ("logits",)
    for source in layout:
        assert (source.torch is None) == (name == "resnet50v2" or "variant" in options)
        assert (source.keras is None) == (source.torch is not None)
    assert len({source.torch or source.keras for source in layout}) == len(layout)


def test_published_sizes_of_the_layers():
    _, output = shapes("resnet50", 1000, 3)
    sizes = {name: array.shape[1:] for name, array in output["features"].items()}
    assert len(sizes) == 2 + 16 + 1
    assert sizes["conv1"] == (112, 112, 64)
    assert sizes["pool1"] == (56, 56, 64)
    assert sizes["conv2_1"] == sizes["conv2_3"] == (56, 56, 256)
    assert sizes["conv3_1"] == sizes["conv3_4"] == (28, 28, 512)
    assert sizes["conv4_1"] == sizes["conv4_6"] == (14, 14, 1024)
    assert sizes["conv5_1"] == sizes["conv5_3"] == (7, 7, 2048)
    assert sizes["pool5"] == (2048,)
    _, output = shapes("resnet101", 209, 5, (520, 692), head="pool7")
    assert output["features"]["conv4_23"].shape == (1, 33, 44, 1024)
    assert output["features"]["conv5_3"].shape == (1, 17, 22, 2048)
    assert output["features"]["pool5"].shape == (1, 2048)


def test_sizes_of_version_2():
    _, output = shapes("resnet50v2", 1000, 3)
    sizes = {name: array.shape[1:] for name, array in output["features"].items()}
    assert sizes["pool1"] == (56, 56, 64)
    assert sizes["conv2_2"] == (56, 56, 256)
    assert sizes["conv2_3"] == (28, 28, 256)  # the stride is in the last block of a stage
    assert sizes["conv3_4"] == (14, 14, 512)
    assert sizes["conv4_6"] == (7, 7, 1024)
    assert sizes["conv5_3"] == sizes["post"] == (7, 7, 2048)
    assert sizes["pool5"] == (2048,)


def keras_network(stack, preact):
    """Keras' stem, two stages of two blocks and Keras' head, with random weights."""
    pytest.importorskip("keras")
    from keras.src.applications import resnet

    def stages(x):
        first, second = (2, 1) if preact else (1, 2)
        x = getattr(resnet, stack)(x, 64, 2, stride1=first, name="conv2")
        return getattr(resnet, stack)(x, 128, 2, stride1=second, name="conv3")

    options = {"weights": None, "input_shape": (*SIZE, 3), "classes": 5, "classifier_activation": None}
    options |= {"preact": preact, "use_bias": True, "weights_name": "resnet50"}
    return random_keras(lambda: resnet.ResNet(stages, **options))


def assert_equals_keras(network, model, layout, names):
    """Same outputs with the same weights; `layout` keeps the order of Keras' layers."""
    assert [source.keras for source in layout] == [layer.name for layer in network.layers if layer.weights]
    names = names | {f"conv{i}_{j}": f"conv{i}_block{j}_out" for i in (2, 3) for j in (1, 2)}
    images = images_of(*SIZE, 3)
    output = jax.jit(model.apply)(from_keras(network, model, shapes_of(model, (*SIZE, 3))[0]), images)
    expected = keras_outputs(network, images, [*names.values(), "predictions"])
    for ours, theirs in names.items():
        assert_close(output["features"][ours], expected[theirs], ours)
    assert_close(output["logits"], expected["predictions"], "logits")


def test_keras_variant_equals_keras():
    network = keras_network("stack_residual_blocks_v1", preact=False)
    model = models.create("resnet50", num_outputs=5, stage_sizes=(2, 2), variant="keras")
    names = {"conv1": "conv1_relu", "pool1": "pool1_pool", "pool5": "avg_pool"}
    assert_equals_keras(network, model, resnet50.layout(model), names)


def test_version_2_equals_keras():
    network = keras_network("stack_residual_blocks_v2", preact=True)
    model = models.create("resnet50v2", num_outputs=5, stage_sizes=(2, 2))
    names = {"conv1": "conv1_conv", "pool1": "pool1_pool", "post": "post_relu", "pool5": "avg_pool"}
    assert_equals_keras(network, model, resnet50v2.layout(model), names)


def torch_forward(state, x, stage_sizes):
    """ResNet v1.5 by torch's functions: (B, C, H, W) -> last map, logits."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    state = {name: torch.from_numpy(value) for name, value in state.items()}

    def conv_norm(x, conv, norm, stride=1):
        weight = state[f"{conv}.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return functional.batch_norm(x, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"])

    x = functional.relu(conv_norm(torch.from_numpy(x), "conv1", "bn1", 2))
    x = functional.max_pool2d(x, 3, 2, 1)
    for stage, size in enumerate(stage_sizes, 1):
        for block in range(size):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = functional.relu(conv_norm(x, f"{name}.conv1", f"{name}.bn1"))
            y = functional.relu(conv_norm(y, f"{name}.conv2", f"{name}.bn2", stride))
            y = conv_norm(y, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = functional.relu(x + y)
    logits = x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
    return x.permute(0, 2, 3, 1).numpy(), logits.numpy()


def test_torchvision_variant_equals_torch():
    model = models.create("resnet101", num_outputs=5, stage_sizes=(1, 2), width=4)
    images = images_of(*SIZE, 3)
    tree, _ = shapes_of(model, (*SIZE, 3))
    state = random_torch_state(model, tree)
    last, logits = torch_forward(state, images.transpose(0, 3, 1, 2).copy(), (1, 2))
    output = jax.jit(model.apply)(from_torch(state, model, tree), images)
    assert_close(output["features"]["conv3_2"], last, "conv3_2")
    assert_close(output["logits"], logits, "logits")


def test_head_of_hofmarcher_et_al():
    model = models.create("resnet101", num_outputs=3, stage_sizes=(), width=2, head="pool7")
    output = jax.jit(lambda x: model.init_with_output(KEY, x)[0])(images_of(36, 45, 5))
    last = np.asarray(output["features"]["pool1"], np.float64)
    assert last.shape[1:3] == (9, 12)
    # How many windows each row and column is in:
    windows = np.outer((1, 2, 3, 3, 3, 3, 3, 2, 1), (1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1))
    assert windows.sum() == 3 * 6 * 49
    expected = np.einsum("bhwc,hw->bc", last, windows / windows.sum())
    assert_close(output["features"]["pool5"], expected, "pool5")
    assert np.abs(expected - last.mean((1, 2))).max() > 1e-3 * np.abs(expected).max()


def test_smallest_images():
    for name in ("resnet50", "resnet50v2"):
        _, output = shapes(name, 7, 1, 1, stage_sizes=(1, 1, 1, 1), width=2)
        assert output["features"]["conv5_1"].shape == (1, 1, 1, 64)
    options = {"stage_sizes": (1, 1, 1, 1), "width": 2, "head": "pool7"}
    _, output = shapes("resnet101", 7, 1, 193, **options)
    assert output["features"]["conv5_1"].shape == (1, 7, 7, 64)
    with pytest.raises(ValueError, match="ResNet takes images of at least 193 x 193 pixels; got 193 x 192"):
        shapes("resnet101", 7, 1, (193, 192), **options)


def test_initial_values_of_the_torchvision_variant():
    model = models.create("resnet50", num_outputs=50, stage_sizes=(1,), width=32)
    params = initial_parameters(model, (8, 8, 3))
    for name, fan_out in (("conv1", 32), ("conv2", 9 * 32), ("shortcut_conv", 128)):
        kernel = np.asarray(params["conv2_1"][name]["kernel"])
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_out), rtol=0.1)
        assert np.abs(kernel).max() > 3 * kernel.std()  # a normal that is not cut off
        assert set(params["conv2_1"][name]) == {"kernel"}
    assert uniform_within(params["logits"]["kernel"], 128**-0.5)
    assert uniform_within(params["logits"]["bias"], 128**-0.5)
    np.testing.assert_array_equal(params["conv2_1"]["bn3"]["scale"], np.ones(128))


@pytest.mark.parametrize(("name", "options"), [("resnet50", {"variant": "keras"}), ("resnet50v2", {})])
def test_initial_values_of_keras(name, options):
    model = models.create(name, num_outputs=50, stage_sizes=(), width=32, **options)
    params = initial_parameters(model, (8, 8, 3))
    assert uniform_within(params["conv1"]["kernel"], np.sqrt(6 / (49 * 35)))
    assert uniform_within(params["logits"]["kernel"], np.sqrt(6 / 82))
    for layer in (params["conv1"], params["logits"]):
        assert (np.asarray(layer["bias"]) == 0).all()


@pytest.mark.parametrize(
    ("name", "options", "momentum", "epsilon"),
    [
        ("resnet50", {}, 0.9, 1e-5),
        ("resnet50", {"variant": "keras"}, 0.99, 1.001e-5),
        ("resnet50", {"variant": "keras", "momentum": 0.75, "epsilon": 0.5}, 0.75, 0.5),
        ("resnet50v2", {}, 0.99, 1.001e-5),
        ("resnet50v2", {"momentum": 0.75, "epsilon": 0.5}, 0.75, 0.5),
    ],
)
def test_batch_norm_settings(name, options, momentum, epsilon):
    """Of the stem: running statistics that start at 0 show the momentum in training, epsilon in evaluation."""
    model = models.create(name, num_outputs=3, stage_sizes=(), width=2, **options)
    images = jnp.asarray(images_of(12, 12, 3))
    norm, after = ("bn1", "conv1") if name == "resnet50" else ("post_bn", "post")
    generator = np.random.default_rng(0)
    tree, _ = shapes_of(model, (12, 12, 3))
    tree = jax.tree.map(lambda x: jnp.asarray(generator.normal(size=x.shape), x.dtype), tree)
    tree["params"][norm] = {"scale": jnp.ones(2), "bias": jnp.zeros(2)}
    tree["batch_stats"][norm] = {"mean": jnp.zeros(2), "var": jnp.zeros(2)}

    @jax.jit
    def both(tree):
        _, updates = model.apply(tree, images, train=True, mutable=["batch_stats"])
        output, kept = model.apply(tree, images, capture_intermediates=True)
        convolved = kept["intermediates"]["conv1"]["__call__"][0]
        return convolved, output["features"], updates["batch_stats"][norm]

    convolved, evaluated, updated = both(tree)
    x = np.asarray(convolved if name == "resnet50" else evaluated["pool1"], np.float64)
    np.testing.assert_allclose(updated["mean"], (1 - momentum) * x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(updated["var"], (1 - momentum) * x.var((0, 1, 2)), rtol=1e-4)
    expected = np.maximum(x, 0) / np.sqrt(epsilon)
    np.testing.assert_allclose(evaluated[after], expected, rtol=1e-5, atol=1e-5 * expected.max())


@pytest.mark.parametrize("name", ["resnet50", "resnet50v2"])
def test_half_precision_computes_in_half_and_keeps_the_rest_in_full(name):
    tree, output = shapes(name, 3, 2, 16, stage_sizes=(1, 1), width=2, dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype(jnp.float32)}
    assert {x.dtype for x in output["features"].values()} == {jnp.dtype(jnp.bfloat16)}
    assert output["logits"].dtype == jnp.float32


def test_errors():
    with pytest.raises(ValueError, match=r"ResNet variant 'v3': choose one of \('torchvision', 'keras'\)"):
        models.create("resnet50", num_outputs=7, variant="v3")
    with pytest.raises(ValueError, match=r"ResNet head 'max': choose one of \('global', 'pool7'\)"):
        models.create("resnet101", num_outputs=7, head="max")
    with pytest.raises(ValueError, match=r"model 'resnet50v2' has no option 'variant'"):
        models.create("resnet50v2", num_outputs=7, variant="keras")
