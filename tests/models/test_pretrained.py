"""Weight files into networks: every layer at its place, other channels, new heads, and every complaint."""

import json
import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_scripts import call_script
from safetensors.numpy import save_file

from coos import models, registry
from coos.models import pretrained
from coos.models.pretrained import convert, known
from coos.train import weights

NARROW = {
    "alexnet": {"width": 4, "fc_units": 8},
    "densenet121": {"growth": 4, "blocks": (2, 1, 1, 1)},
    "efficientnet_b0": {"width_coefficient": 0.25, "depth_coefficient": 0.2},
    "googlenet": {"width": 8},
    "resnet50": {"width": 4, "stage_sizes": (2, 1, 1, 1)},
    "resnet101": {"width": 4, "stage_sizes": (1, 1, 2, 1)},
    "vgg16": {"width": 4, "fc_units": 8},
}
KEY = jax.random.key(0, impl="unsafe_rbg")


def drawn(name, channels=3, outputs=6, **options):
    """A narrow network of torchvision's variant with random variables, statistics included."""
    architecture = registry.lookup("coos.models", name)
    options = {**NARROW[name], **options}
    if name == "efficientnet_b0":
        options["variant"] = "torchvision"
    module = models.create(name, num_outputs=outputs, **options)
    shapes = jax.eval_shape(lambda x: module.init(KEY, x), jnp.ones((1, 64, 64, channels)))
    generator = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: generator.uniform(0.1, 1, x.shape).astype(np.float32), shapes)
    return architecture, module, variables


def as_torch(architecture, module, variables):
    """A state dict with these variables: our axes turned into PyTorch's, one by one."""
    layers, tensors = convert.by_layer(variables), {}
    names = {
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    }
    for source in architecture.layout(module):
        for role, value in layers[source.path].items():
            if value.ndim == 4:
                value = np.moveaxis(value, (0, 1, 2, 3), (2, 3, 1, 0))
            elif value.ndim == 2 and source.flattened:
                channels, height, width = source.flattened
                value = np.stack(
                    [
                        value[(y * width + x) * channels + c]
                        for c in range(channels)
                        for y in range(height)
                        for x in range(width)
                    ],
                    1,
                )
            elif value.ndim == 2:
                value = value.T
            tensors[f"{source.torch}.{names[role]}"] = np.ascontiguousarray(value)
        if "mean" in layers[source.path]:
            tensors[f"{source.torch}.num_batches_tracked"] = np.array(7)
    return tensors


def written(path, name, **options):
    """A .safetensors file in torchvision's layout; returns what it must be read as, and the tensors."""
    architecture, module, variables = drawn(name, **options)
    tensors = as_torch(architecture, module, variables)
    save_file(tensors, path)
    return variables, tensors


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", NARROW)
def test_every_tensor_of_torchvision_finds_its_place(tmp_path, name):
    expected, _ = written(tmp_path / "weights", name)
    found = pretrained.load(name, tmp_path / "weights", input_scaling="torch", **NARROW[name])
    assert_same(found.variables, expected)
    assert found.fresh == []
    np.testing.assert_allclose(found.scaling.offset, 255 * np.array([0.485, 0.456, 0.406]))


def test_new_head_and_five_channels(tmp_path):
    expected, _ = written(tmp_path / "weights", "resnet50")
    options = {"num_outputs": 9, "channels": 5, "input_scaling": "tf", **NARROW["resnet50"]}
    found = pretrained.load("resnet50", tmp_path / "weights", **options)
    kernel = expected["params"]["conv1"]["kernel"]
    stem = found.variables["params"]["conv1"]["kernel"]
    for channel, given in enumerate([0, 1, 2, 0, 1]):
        np.testing.assert_array_equal(stem[:, :, channel], kernel[:, :, given])
    assert found.fresh == ["logits"]
    assert found.variables["params"]["logits"]["kernel"].shape == (128, 9)
    assert found.scaling.offset == found.scaling.scale == (127.5,) * 5
    assert_same(found.variables["params"]["conv5_1"], expected["params"]["conv5_1"])
    other = pretrained.load("resnet50", tmp_path / "weights", **{**options, "seed": 1})
    assert (
        other.variables["params"]["logits"]["kernel"] != found.variables["params"]["logits"]["kernel"]
    ).any()
    assert_same(other.variables["params"]["conv1"], found.variables["params"]["conv1"])


def test_rescaled_stem_keeps_the_activation_of_equal_channels():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)
    six = pretrained.adapt_stem(kernel, 6, stem="rescaled")
    np.testing.assert_allclose(six.sum(2), kernel.sum(2), rtol=1e-5)
    even = np.repeat(kernel.mean(2, keepdims=True), 3, 2)
    for channels in (1, 2, 5):
        changed = pretrained.adapt_stem(even, channels, stem="rescaled")
        np.testing.assert_allclose(changed.sum(2), even.sum(2), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(pretrained.adapt_stem(kernel, 3, stem="rescaled"), kernel)
    with pytest.raises(ValueError, match="channels=0: at least one"):
        pretrained.adapt_stem(kernel, 0, stem="cyclic")


def test_blue_green_red_weights_are_turned_round(tmp_path):
    expected, _ = written(tmp_path / "weights", "vgg16")
    found = pretrained.load("vgg16", tmp_path / "weights", input_scaling="caffe", **NARROW["vgg16"])
    kernel = found.variables["params"]["conv1_1"]["kernel"]
    np.testing.assert_array_equal(kernel, expected["params"]["conv1_1"]["kernel"][:, :, ::-1])
    # White, as Caffe's blue, green, red minus 103.939, 116.779, 123.68.
    white = pretrained.apply(jnp.full((1, 1, 3), 255.0), found.scaling)
    np.testing.assert_allclose(white[0, 0, ::-1], 255 - np.array([103.939, 116.779, 123.68]), rtol=1e-6)


def test_densenets_oldest_names(tmp_path):
    expected, tensors = written(tmp_path / "new", "densenet121")
    old = {
        key.replace(".norm1.", ".norm.1.")
        .replace(".conv2.", ".conv.2.")
        .replace(".conv1.", ".conv.1.")
        .replace(".norm2.", ".norm.2."): value
        for key, value in tensors.items()
    }
    assert set(old) != set(tensors)
    save_file(old, tmp_path / "old")
    assert_same(
        pretrained.load(
            "densenet121", tmp_path / "old", input_scaling="torch", **NARROW["densenet121"]
        ).variables,
        expected,
    )


def test_googlenets_auxiliary_heads_are_left_out(tmp_path):
    expected, tensors = written(tmp_path / "plain", "googlenet")
    save_file({**tensors, "aux1.fc1.weight": np.ones((2, 2), np.float32)}, tmp_path / "aux")
    assert_same(
        pretrained.load("googlenet", tmp_path / "aux", input_scaling="tf", **NARROW["googlenet"]).variables,
        expected,
    )


def changed(**changes):
    """A function that removes (None) or replaces tensors."""

    def change(tensors):
        for name, value in changes.items():
            name = name.replace("__", ".")
            if value is None:
                del tensors[name]
            else:
                tensors[name] = value(tensors.get(name))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            changed(layer1__0__conv2__weight=None),
            "lacks 1 of the network's tensors: conv2_1/conv2/kernel",
        ),
        (changed(extra__weight=lambda x: np.ones(3)), "no place for 1 of the file's tensors: extra.weight"),
        (
            changed(layer2__0__bn1__running_var=lambda x: x[1:]),
            r"'layer2.0.bn1.running_var' has shape \(7,\).*needs \(8,\)",
        ),
        (
            changed(layer2__0__bn1__running_var=lambda x: -x),
            "'layer2.0.bn1.running_var', a running variance, holds negative values",
        ),
        (
            changed(conv1__weight=lambda x: x * np.float32(np.nan)),
            "'conv1.weight' holds NaN or infinite values",
        ),
        (
            changed(conv1__weight=lambda x: np.repeat(x[:, :2], 2, 1)),
            "the first layer takes 4 channels, not 5; only from three can others be made",
        ),
    ],
)
def test_complaints_name_the_tensor(tmp_path, change, message):
    _, tensors = written(tmp_path / "good", "resnet50")
    change(tensors)
    save_file(tensors, tmp_path / "bad")
    with pytest.raises(ValueError, match=f"bad, as resnet50: .*{message}"):
        pretrained.load("resnet50", tmp_path / "bad", channels=5, input_scaling="tf", **NARROW["resnet50"])


def test_other_complaints(tmp_path):
    with pytest.raises(ValueError, match=r"gapnet has no public weights; alexnet, densenet121"):
        pretrained.load("gapnet", "keras")
    with pytest.raises(ValueError, match=r"resnet50: no public weights 'kera'; there are keras, keras_notop"):
        pretrained.load("resnet50", "kera")
    with pytest.raises(ValueError, match=r"nowhere.pth: no such file"):
        pretrained.load("resnet50", tmp_path / "nowhere.pth")
    written(tmp_path / "weights", "resnet50")
    with pytest.raises(
        ValueError, match=r"weights: say which input .* \(input_scaling=, --scaling=\): none, unit"
    ):
        pretrained.load("resnet50", tmp_path / "weights")
    with pytest.raises(ValueError, match="is a folder, not a file of weights"):
        pretrained.load("resnet50", tmp_path)
    with pytest.raises(ValueError, match=r"num_outputs=0: give a whole number from 1 on"):
        pretrained.load("resnet50", tmp_path / "weights", num_outputs=0, input_scaling="tf")
    with pytest.raises(ValueError, match="input scaling 'imagenet': choose one of none, unit, tf"):
        pretrained.load("resnet50", tmp_path / "weights", input_scaling="imagenet")
    with pytest.raises(ValueError, match="stem 'mean': choose one of"):
        pretrained.load(
            "resnet50", tmp_path / "weights", stem="mean", input_scaling="torch", **NARROW["resnet50"]
        )
    with pytest.raises(
        ValueError,
        match=r"as resnet50v2: this network, or .* has no counterpart in torchvision",
    ):
        pretrained.load("resnet50v2", tmp_path / "weights", input_scaling="tf")
    with pytest.raises(ValueError, match=r"as resnet101: the file lacks .* of the network's tensors"):
        pretrained.load(
            "resnet101", tmp_path / "weights", input_scaling="tf", width=4, stage_sizes=(3, 1, 1, 1)
        )


def test_public_weights_are_of_networks_that_can_take_them():
    assert set(known.KNOWN) == set(pretrained.importable())
    for network, files in known.KNOWN.items():
        architecture = registry.lookup("coos.models", network)
        sources = architecture.layout(models.create(network, num_outputs=1000))
        assert sources[-1].path == ("logits",)
        for name, public in files.items():
            kind, digest = public.checksum.split(":")
            assert len(digest) == {"md5": 32, "sha256": 64, "sha256-prefix": 8}[kind]
            assert public.url.startswith("https://")
            assert public.scaling in pretrained.SCALINGS
            assert public.top == ("notop" not in name)


def test_channels_as_images_of_their_own():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 4096, (2, 9, 9, 5)).astype(np.uint16)
    images[1, :, :, 3] = 77  # constant
    found = np.asarray(pretrained.channels_as_images(images, pretrained.SCALINGS["tf"]))
    assert found.shape == (10, 9, 9, 3)
    cell = images[0, :, :, 2].astype(float)
    expected = 2 * (cell - cell.min()) / (cell.max() - cell.min()) - 1
    np.testing.assert_allclose(found[2], np.repeat(expected[..., None], 3, -1), atol=1e-6)
    np.testing.assert_array_equal(found[8], -1)
    assert pretrained.channels_as_images(images, pretrained.SCALINGS["tf"], size=12).shape == (10, 12, 12, 3)
    rows = pretrained.join_channels(jnp.arange(20.0).reshape(10, 2), 5)
    np.testing.assert_array_equal(rows, np.arange(20.0).reshape(2, 10))
    with pytest.raises(ValueError, match=r"features of shape \(10, 7, 7, 4\): join_channels takes"):
        pretrained.join_channels(jnp.zeros((10, 7, 7, 4)), 5)
    with pytest.raises(ValueError, match="9 rows of features are no multiple of 5 channels"):
        pretrained.join_channels(jnp.zeros((9, 4)), 5)
    with pytest.raises(ValueError, match=r"channels_as_images takes \(B, H, W, C\); got shape \(9, 9, 5\)"):
        pretrained.channels_as_images(images[0], pretrained.SCALINGS["tf"])


def test_the_script_saves_what_a_training_starts_from(tmp_path):
    whole = {"width_coefficient": 1.0, "depth_coefficient": 1.0}
    expected, _ = written(tmp_path / "mine", "efficientnet_b0", **whole)
    arguments = ["--network=efficientnet_b0", f"--weights={tmp_path / 'mine'}", "--scaling=torch"]
    done = call_script("import_weights.py", *arguments, f"--out={tmp_path / 'imported'}", "--channels=2")
    assert done.returncode == 0, done.stderr
    assert "efficientnet_b0: 4,014,946 parameters from mine" in done.stdout
    module, variables, record = weights.load(tmp_path / "imported")
    assert module.variant == "torchvision"
    assert_same(variables["batch_stats"], expected["batch_stats"])
    assert json.loads((tmp_path / "imported" / "weights.json").read_text()) == record
    again = call_script("import_weights.py", *arguments, f"--out={tmp_path / 'imported'}")
    assert again.returncode == 1
    assert "is not an empty folder; name a new one" in again.stderr
