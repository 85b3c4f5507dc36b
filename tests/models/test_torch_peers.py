"""The benchmark's PyTorch networks: published counts, the same logits as ours with the same weights; its table."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_scripts import REPOSITORY

torch = pytest.importorskip("torch")
sys.path.append(str(REPOSITORY / "experiments"))  # last: its profile.py must not hide the standard library's

from benchmarks import models as benchmark  # noqa: E402
from benchmarks import torch_networks, torch_runs  # noqa: E402

from coos import models  # noqa: E402

COUNTS = {  # channels, outputs, trainable parameters
    "gapnet": (5, 209, 3_694_545),
    "sc_cnn": (5, 209, 3_694_545),
    "milnet": (5, 209, 726_180),
    "mcnn": (5, 209, 11_230_929),
    "fnn": (1783, 209, 12_474_577),
    "deeploc": (2, 7, 10_985_237),
    "pci": (3, 1, 7_320_609),
    "resnet50": (3, 1000, 25_557_032),
    "resnet101": (5, 209, 42_934_673),
    "resnet50v2": (3, 1000, 25_568_360),
    "densenet121": (5, 209, 7_174_353),
    "efficientnet_b0": (5, 1144, 5_473_588),
    "vgg16": (3, 1000, 138_357_544),
    "alexnet": (3, 1000, 61_100_840),
    "googlenet": (3, 1000, 6_624_904),
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_counts(name):
    channels, outputs, parameters = COUNTS[name]
    with torch.device("meta"):
        network = torch_networks.create(name, outputs, channels=channels)
    assert torch_networks.count(network) == parameters
    assert benchmark.NETWORKS[name].shape[-1] == channels
    assert benchmark.NETWORKS[name].outputs == outputs


def test_every_network_has_a_peer():
    peers = {*torch_networks.NETWORKS, *torch_networks.torch_standard.NETWORKS}
    assert peers == set(benchmark.NETWORKS) == set(models.available())


UNOPTIMIZED = {"xla_backend_optimization_level": 0}


def with_norms(names, norm):
    """Each layer's name followed by its batch norm's."""
    return [path for name in names for path in (name, norm.format(name))]


CONVOLUTIONS = [f"conv{i}" for i in range(1, 11)]
GAPNET = [*CONVOLUTIONS, "fc1", "fc2", "logits"]
MCNN = [f"scale{2**n}_conv{i}" for n in range(7) for i in (1, 2, 3)]
DEEPLOC = with_norms([*CONVOLUTIONS[:8], "fc1", "fc2", "logits"], "{}_norm/norm")
SOURCE = [f"source_encoder/conv{i}_1" for i in range(1, 6)]
TARGET = [f"target_encoder/target{i}" for i in range(1, 4)]
DECODER = [f"decoder/conv{i}_1" for i in range(6, 11)]

GAPNET_OPTIONS = {"width": 4, "fc_units": 24}
MCNN_OPTIONS = {"widths": (2, 2, 2, 4, 4, 4, 8), "mix_units": 128, "fc_units": 16}
CASES = {  # our options, PyTorch's options, our layers in the order of the forward pass, shapes of an input
    "gapnet": (GAPNET_OPTIONS, GAPNET_OPTIONS, GAPNET, [(40, 52, 3), (45, 37, 3)]),
    "sc_cnn": (GAPNET_OPTIONS, GAPNET_OPTIONS, GAPNET, [(48, 64, 3), (59, 45, 3)]),
    "milnet": (
        {"width": 4, "instance_units": 24},
        {"width": 4, "instances": 24},
        [*CONVOLUTIONS[:6], "instances", "logits"],
        [(136, 170, 3), (151, 137, 3)],
    ),
    "mcnn": (
        MCNN_OPTIONS,
        {"width": 2, "fc_units": 16},
        [*MCNN, "conv_mix", "fc1", "logits"],
        [(256, 256, 2), (259, 129, 2)],
    ),
    "fnn": ({"units": 24}, {"fc_units": 24}, ["fc1", "fc2", "fc3", "logits"], [(20,), (37,)]),
    "deeploc": ({"width": 4}, {"width": 4}, DEEPLOC, [(24, 16, 2), (33, 21, 2)]),
    "pci": (
        {"width": 12},
        {"width": 12},
        [*with_norms([*SOURCE, *TARGET], "{}_norm"), *DECODER, "logits"],
        [(16, 24, 3), (20, 12, 3)],
    ),
}


def randomized(network):
    """The network in evaluation mode, with norms and thresholds that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2, generator=generator)
    if hasattr(network, "threshold"):
        network.threshold.data.uniform_(0.05, 0.95, generator=generator)
    return network.eval()


def our_kernel(weight, flattened):
    """OIHW -> HWIO; linear layers transposed, their inputs reordered from (C, H, W) to (H, W, C)."""
    if weight.ndim == 4:
        return weight.transpose(2, 3, 1, 0)
    if flattened:
        weight = weight.reshape(len(weight), *flattened).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return weight.T


def our_leaves(network, paths, flattened):
    """Variables of ours by "collection/path/name", from a PyTorch network with the same layers in the same order."""
    layers = [m for m in network.modules() if not list(m.children()) and list(m.parameters())]
    found = {"params/threshold": network.threshold} if hasattr(network, "threshold") else {}
    for path, layer in zip(paths, layers, strict=True):
        if hasattr(layer, "running_mean"):
            found |= {f"params/{path}/scale": layer.weight, f"params/{path}/bias": layer.bias}
            found[f"batch_stats/{path}/mean"] = layer.running_mean
            found[f"batch_stats/{path}/var"] = layer.running_var
            continue
        first_linear = layer.weight.ndim == 2 and path == "fc1"
        kernel = our_kernel(layer.weight.detach().numpy(), flattened if first_linear else None)
        bias = f"{path}_norm" if f"{path}_norm/norm" in paths else path  # DeepLoc's norms add the bias
        found |= {f"params/{path}/kernel": kernel, f"params/{bias}/bias": layer.bias}
    return {name: np.asarray(x.detach() if torch.is_tensor(x) else x) for name, x in found.items()}


def our_variables(model, images, leaves):
    """The variables of ours, each of `leaves` used exactly once."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.PRNGKey(0), images))

    def take(path, leaf):
        value = leaves.pop("/".join(part.key for part in path))
        assert value.shape == leaf.shape, path
        return value

    tree = jax.tree_util.tree_map_with_path(take, shapes)
    assert not leaves
    return tree


@pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])
@pytest.mark.parametrize("name", CASES)
def test_same_weights_give_the_same_logits(name, odd):
    ours, theirs, paths, shapes = CASES[name]
    shape = shapes[odd]
    outputs, height, width = (1 if name == "pci" else 6), shape[0], shape[-2 % len(shape)]
    flattened = {
        "mcnn": (128, height // 128, width // 128),
        "deeploc": (16, -(-height // 8), -(-width // 8)),
    }.get(name)
    sized = {"size": shape[:2]} if flattened else {}
    torch.manual_seed(1)
    network = randomized(torch_networks.create(name, outputs, channels=shape[-1], **theirs, **sized))
    images = np.random.default_rng(0).normal(1, 2, (2, *shape)).astype(np.float32)
    channels_first = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
    with torch.no_grad():
        expected = np.moveaxis(network(channels_first).numpy(), 1, -1)
    model = models.create(name, num_outputs=outputs, **ours)
    variables = our_variables(model, jnp.asarray(images), our_leaves(network, paths, flattened))
    # One call each: quick to compile matters more than quick to run.
    forward = jax.jit(lambda v, x: model.apply(v, x)["logits"], compiler_options=UNOPTIMIZED)
    logits = forward(variables, images)
    assert expected.std(0).max() > 0  # the two images differ: the weights matter
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_efficientnet_variants_differ_in_padding_and_norm():
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    stages = ((3, 1, 16, 1, 1), (5, 2, 24, 6, 2))
    stems = {}
    for variant, epsilon in (("keras", 1e-3), ("torchvision", 1e-5)):
        network = torch_networks.create("efficientnet_b0", 4, width=8, stages=stages, variant=variant)
        stems[variant], norm, _ = network.features[0]
        assert norm.eps == epsilon
    weight = stems["keras"].weight
    stems["torchvision"].load_state_dict(stems["keras"].state_dict())
    # Of an even size SAME pads the end alone, symmetric padding both sides, of which the last pixel is not reached.
    for variant, pads in (("keras", (0, 1, 0, 1)), ("torchvision", (1, 0, 1, 0))):
        padded = torch.nn.functional.pad(images, pads)
        expected = torch.nn.functional.conv2d(padded, weight, stride=2)
        torch.testing.assert_close(stems[variant](images), expected)


NARROW = benchmark.Network((20,), 3, 4, 4, ours={"units": 8}, theirs={"fc_units": 8})


def test_measuring_runs_both_sides():
    row = benchmark.measure("fnn", NARROW, benchmark.Settings(rounds=1, seconds=0))
    assert set(row["images_per_second"]) == {
        f"{mode}, {side}" for mode in ("forward", "training") for side in ("coos", "pytorch")
    }
    assert all(value > 0 for value in row["images_per_second"].values())
    network = torch_networks.create("fnn", 3, channels=20, **NARROW.theirs)
    assert row["parameters"] == torch_networks.count(network)
    assert (row["batch"], row["dtype"]) == (4, "float32")
    assert f"{row['parameters']:,}" in benchmark.format_row(row)


@pytest.mark.parametrize(
    ("name", "outputs", "options"), [("gapnet", 3, GAPNET_OPTIONS), ("pci", 1, {"width": 6})]
)
def test_images_of_the_benchmark_reach_pytorch_channels_first(name, outputs, options):
    network = benchmark.Network((24, 32, 3), outputs, 2, 2)
    data = benchmark.random_data(name, network, 2)
    assert data[1].shape == ((2, 24, 32, 1) if name == "pci" else (2,))
    runs = torch_runs.torch_runs(name, outputs, options, data, "float32", False)
    for run in runs.values():
        run(1)  # an image in another order would not fit three channels


def test_operations_are_two_per_multiply_add():
    dense = benchmark.Network((100,), 3, 4, 4, ours={"units": 50})
    _, facts = benchmark.our_runs("fnn", dense, 4, "float32")
    products = 2 * (100 * 50 + 50 * 50 + 50 * 50 + 50 * 3)
    assert facts["flops"] == products


def test_without_torch_it_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    for name in [name for name in sys.modules if name.startswith("benchmarks.torch_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delattr(benchmark.sys.modules["benchmarks"], "torch_runs")
    monkeypatch.setitem(benchmark.NETWORKS, "fnn", NARROW)
    monkeypatch.setattr(benchmark, "measure_apart", benchmark.measure)
    benchmark.main(benchmark.Settings(rounds=1, seconds=0), only="fnn", json_path=tmp_path / "rows.json")
    printed = capsys.readouterr().out
    assert 'pip install -e ".[bench]"' in printed
    assert "no PyTorch" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("fnn")]
    assert " x" not in line  # no ratio
    assert '"forward, coos"' in (tmp_path / "rows.json").read_text()


def test_a_failure_of_one_network_is_a_line_of_the_table():
    assert "out of memory" in benchmark.format_row(
        {"network": "mcnn", "error": "RuntimeError: out of memory"}
    )
    with pytest.raises(ValueError, match=r"--only: no network 'gapnot'; there are gapnet, sc_cnn"):
        benchmark.chosen("gapnet, gapnot")


def test_scripts_do_not_hide_the_standard_librarys_profile(monkeypatch):
    for name in ("profile", "cProfile"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(REPOSITORY / "experiments"))
    torch_runs.import_profile()
    assert "experiments" not in sys.modules["profile"].__file__
