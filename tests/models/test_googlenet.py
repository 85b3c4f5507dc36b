"""GoogLeNet: published counts and sizes, equality with PyTorch code, auxiliary classifiers."""

import functools

import import_helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coos import models
from coos.models import googlenet

ROWS = [  # of width 8: an eighth of Table 1 in Szegedy et al.
    ("3a", 24, (8, 12, 16, 2, 4, 4)),
    ("3b", 32, (16, 16, 24, 4, 12, 8)),
    ("4a", 60, (24, 12, 26, 2, 6, 8)),
    ("4b", 64, (20, 14, 28, 3, 8, 8)),
    ("4c", 64, (16, 16, 32, 3, 8, 8)),
    ("4d", 64, (14, 18, 36, 4, 8, 8)),
    ("4e", 66, (32, 20, 40, 4, 16, 16)),
    ("5a", 104, (32, 20, 40, 4, 16, 16)),
    ("5b", 104, (48, 24, 48, 6, 16, 16)),
]


def shapes(model, *, size=(64, 64), channels=3, train=False):
    """Shapes of (output, variables)."""
    images = jnp.ones((1, *size, channels))
    keys = {"params": jax.random.PRNGKey(0), "dropout": jax.random.PRNGKey(1)}
    return jax.eval_shape(lambda: model.init_with_output(keys, images, train=train))


def count(tree):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def assert_close(ours, theirs, what):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max(), err_msg=what)


@pytest.mark.parametrize(
    ("variant", "main", "heads"),
    [("torchvision", 6_624_904, 13_004_888), ("caffe", 6_998_552, 13_378_280)],
)
def test_published_counts_and_sizes(variant, main, heads):
    model = models.create("googlenet", num_outputs=1000, variant=variant, auxiliary=True)
    output, tree = shapes(model, size=(224, 224))
    assert count(tree["params"]) == heads
    assert count({k: v for k, v in tree["params"].items() if not k.startswith("aux")}) == main
    if variant == "torchvision":
        stats = {k: v for k, v in tree["batch_stats"].items() if not k.startswith("aux")}
        assert count(stats) == 14_560
    sizes = {name: array.shape[1:] for name, array in output["features"].items()}
    assert sizes["conv1"] == (112, 112, 64)
    assert sizes["pool1"] == sizes["conv2_reduce"] == (56, 56, 64)
    assert sizes["conv2"] == (56, 56, 192)
    assert sizes["pool2"] == (28, 28, 192)
    assert sizes["inception_3b"] == (28, 28, 480)
    assert sizes["pool3"] == (14, 14, 480)
    assert sizes["inception_4a"] == sizes["inception_4c"] == (14, 14, 512)
    assert sizes["inception_4d"] == (14, 14, 528)
    assert sizes["pool4"] == (7, 7, 832)
    assert sizes["inception_5b"] == (7, 7, 1024)
    assert sizes["pool5"] == (1024,)
    assert sizes["aux1"] == sizes["aux2"] == (1000,)


@pytest.mark.parametrize(
    ("options", "smallest"),
    [
        ({}, 15),
        ({"auxiliary": True}, 15),
        ({"variant": "caffe"}, 31),
        ({"variant": "caffe", "auxiliary": True}, 79),
    ],
)
def test_smallest_size(options, smallest):
    model = models.create("googlenet", num_outputs=3, width=8, dtype=jnp.bfloat16, **options)
    output, tree = shapes(model, size=(smallest, smallest))
    assert any(name.startswith("aux") for name in tree["params"]) == ("auxiliary" in options)
    last = output["features"]["inception_5b"]
    assert last.shape == (1, *2 * (1 + (smallest == 79),), 128)
    assert last.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves((tree, output["logits"]))} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match=f"at least {smallest} x {smallest} pixels; got {smallest - 1}"):
        shapes(model, size=(smallest - 1, smallest))


def torch_network(num_outputs, *, normed, kernel):
    """Width 8 from PyTorch modules whose tensors are named as in torchvision; with response norm if not `normed`."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Unit(nn.Module):
        def __init__(self, inputs, outputs, size, stride=1):
            super().__init__()
            self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=not normed)
            if normed:
                self.bn = nn.BatchNorm2d(outputs, eps=0.001)

        def forward(self, x):
            return torch.relu(self.bn(self.conv(x)) if normed else self.conv(x))

    class Inception(nn.Module):
        def __init__(self, inputs, one, three_in, three, five_in, five, projected):
            super().__init__()
            self.branch1 = Unit(inputs, one, 1)
            self.branch2 = nn.Sequential(Unit(inputs, three_in, 1), Unit(three_in, three, 3))
            self.branch3 = nn.Sequential(Unit(inputs, five_in, 1), Unit(five_in, five, kernel))
            self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), Unit(inputs, projected, 1))

        def forward(self, x):
            return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)

    parts = {"conv1": Unit(3, 8, 7, 2), "conv2": Unit(8, 8, 1), "conv3": Unit(8, 24, 3)}
    parts |= {f"inception{name}": Inception(inputs, *widths) for name, inputs, widths in ROWS}
    return nn.ModuleDict({**parts, "fc": nn.Linear(128, num_outputs)}).eval()


def torch_forward(torch, network, x, *, normed):
    """Features and logits."""
    functional, found = torch.nn.functional, {}
    norm = (lambda x: x) if normed else functools.partial(functional.local_response_norm, size=5, k=1.0)

    def pool(x, window=3):
        return functional.max_pool2d(x, window, 2, ceil_mode=True)

    found["conv1"] = network["conv1"](x)
    found["pool1"] = pool(found["conv1"])
    found["conv2"] = network["conv3"](network["conv2"](norm(found["pool1"])))
    found["pool2"] = x = pool(norm(found["conv2"]))
    for name, *_ in ROWS:
        found[f"inception_{name}"] = x = network[f"inception{name}"](x)
        if name in ("3b", "4e"):
            x = pool(x, 2 if normed and name == "4e" else 3)
            found["pool3" if name == "3b" else "pool4"] = x
    found["pool5"] = x.mean((2, 3))
    return found, network["fc"](found["pool5"])


CASES = {
    "torchvision": ({}, True, 3, (75, 61)),
    "caffe": ({"variant": "caffe"}, False, 5, (75, 64)),
}


def torch_named(module):
    """Layout with torchvision's names for the caffe variant too, which has the same layers without batch norm."""
    twin = googlenet.create(module.num_outputs, width=module.width)
    return [source for source in googlenet.layout(twin) if source.kind != "norm"]


@pytest.mark.parametrize("case", CASES)
def test_equals_pytorch(case, monkeypatch):
    torch = pytest.importorskip("torch")
    options, normed, kernel, size = CASES[case]
    network = torch_network(6, normed=normed, kernel=kernel)
    import_helpers.randomize_torch(network)
    model = models.create("googlenet", num_outputs=6, width=8, **options)
    if not normed:
        assert {source.torch for source in googlenet.layout(model)} == {None}
        named = torch_named(model)
        assert [s.path for s in named] == [s.path for s in googlenet.layout(model)]
        monkeypatch.setattr(googlenet, "layout", lambda module: named)
    tree = import_helpers.from_torch(network.state_dict(), model, shapes(model)[1])
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    images *= 1 if normed else 20  # large, so that response norm matters
    output = jax.jit(model.apply)(tree, images)
    with torch.no_grad():
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        found, logits = torch_forward(torch, network, x, normed=normed)
    for name, feature in found.items():
        feature = feature.permute(0, 2, 3, 1) if feature.ndim == 4 else feature
        assert_close(output["features"][name], feature, name)
    assert_close(output["logits"], logits, "logits")


def test_the_printed_kernel_is_an_option_with_batch_norm():
    params = shapes(models.create("googlenet", num_outputs=6, width=8, kernel_5x5=5))[1]["params"]
    assert params["inception_4b"]["5x5"]["conv"]["kernel"].shape == (5, 5, 3, 8)
    assert "bn" in params["inception_4b"]["5x5"]


@pytest.mark.parametrize("variant", ["torchvision", "caffe"])
def test_auxiliary_classifier_equals_pytorch_functions(variant):
    torch = pytest.importorskip("torch")
    unit = models.create("googlenet", num_outputs=5, variant="caffe")._unit(train=False)  # without batch norm
    head = googlenet.Auxiliary(5, 8, variant, unit, jnp.float32)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, 14, 14, 6)).astype(np.float32)
    tree = jax.eval_shape(lambda: head.init(jax.random.PRNGKey(0), images, train=False))
    tree = jax.tree.map(lambda x: generator.normal(0, 0.3, x.shape).astype(np.float32), tree)
    weights = jax.tree.map(torch.from_numpy, tree["params"])
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    functional = torch.nn.functional
    x = functional.avg_pool2d(x, 5, 3) if variant == "caffe" else functional.adaptive_avg_pool2d(x, 4)
    conv = weights["conv"]["conv"]
    x = torch.relu(x.permute(0, 2, 3, 1) @ conv["kernel"][0, 0] + conv["bias"]).flatten(1)
    x = torch.relu(x @ weights["fc"]["kernel"] + weights["fc"]["bias"])
    expected = x @ weights["logits"]["kernel"] + weights["logits"]["bias"]
    assert_close(jax.jit(functools.partial(head.apply, train=False))(tree, images), expected, "head")


def test_auxiliary_logits_only_in_training():
    model = models.create("googlenet", num_outputs=5, width=8, auxiliary=True)
    tree = shapes(model)[1]
    key, images = jax.random.PRNGKey(0), jnp.ones((2, 64, 64, 3))
    apply = functools.partial(model.apply, images=images)
    evaluated = jax.eval_shape(lambda tree: apply(tree), tree)
    assert "aux1" not in evaluated["features"]
    trained, updates = jax.eval_shape(
        lambda tree: apply(tree, train=True, rngs={"dropout": key}, mutable=["batch_stats"]), tree
    )
    assert trained["features"]["aux1"].shape == trained["features"]["aux2"].shape == (2, 5)
    assert jax.tree.structure(updates["batch_stats"]) == jax.tree.structure(tree["batch_stats"])


def test_layout_names_every_layer_and_torchvisions_auxiliary_ones():
    model = models.create("googlenet", num_outputs=5, width=8, auxiliary=True)
    sources = {source.path: source for source in googlenet.layout(model)}
    params = jax.tree_util.tree_flatten_with_path(shapes(model)[1]["params"])[0]
    assert set(sources) == {tuple(key.key for key in path[:-1]) for path, _ in params}
    assert sources["inception_4a", "5x5", "bn"].torch == "inception4a.branch3.1.bn"
    assert sources["aux2", "conv", "conv"].torch == "aux2.conv.conv"
    assert sources["aux1", "fc"].torch == "aux1.fc1"
    assert sources["aux1", "fc"].flattened == (16, 4, 4)
    assert sources["aux1", "logits"].torch == "aux1.fc2"
    assert next(reversed(sources)) == ("logits",)


def test_errors():
    with pytest.raises(ValueError, match=r"GoogLeNet variant 'v1': choose one of \('torchvision', 'caffe'\)"):
        models.create("googlenet", num_outputs=3, variant="v1")
    with pytest.raises(ValueError, match="GoogLeNet takes a width that 8 divides; got 12"):
        models.create("googlenet", num_outputs=3, width=12)
