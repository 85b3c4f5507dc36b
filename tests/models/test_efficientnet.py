"""EfficientNet-B0: published counts and sizes, equality with Keras and with PyTorch code, drop connect."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import functools

import import_helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coos import models
from coos.models import efficientnet_b0, layers

SIZE = (64, 75)  # halved, the first stays even, the second does not
NARROW = {"width_coefficient": 0.25, "depth_coefficient": 0.35}


def shapes(model, *, size=(64, 64), channels=5, train=False):
    """Shapes of (output, variables)."""
    images = jnp.ones((1, *size, channels))
    return jax.eval_shape(lambda: model.init_with_output(jax.random.PRNGKey(0), images, train=train))


def counts(tree):
    return [sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree[c])) for c in ("params", "batch_stats")]


def assert_close(ours, theirs, what):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max(), err_msg=what)


def test_published_coefficients_give_the_published_widths_and_depths():
    b7 = efficientnet_b0.blocks(2.0, 3.1)
    assert len(efficientnet_b0.blocks(1.0, 1.0)) == 16
    assert len(b7) == 55
    assert sorted({block.channels for block in b7}) == [32, 48, 80, 160, 224, 384, 640]
    assert efficientnet_b0.scaled_channels(1280, 1.4) == 1792
    assert efficientnet_b0.scaled_channels(16, 0.25) == 8  # at least 8
    assert efficientnet_b0.scaled_channels(24, 0.8) == 24  # 16 would lose more than a tenth of 19.2


def test_counts_and_sizes_in_deepprofiler():
    output, tree = shapes(models.create("efficientnet_b0", num_outputs=1144), size=(128, 128), channels=5)
    assert counts(tree) == [5_473_588, 42_016]
    assert 5_473_588 - 1281 * 1144 == 4_008_124  # the backbone
    sizes = {name: array.shape[1:] for name, array in output["features"].items()}
    assert sizes["stem_activation"] == (64, 64, 32)
    assert sizes["block1a"] == (64, 64, 16)
    assert sizes["block3b_activation"] == (16, 16, 240)
    assert sizes["block6a_activation"] == (4, 4, 672)
    assert sizes["block6a"] == (4, 4, 192)
    assert sizes["top_activation"] == (4, 4, 1280)
    assert sizes["pool5"] == (1280,)
    assert len(sizes) == 3 + 2 * 16


def test_counts_and_sizes_on_imagenet():
    model = models.create("efficientnet_b0", num_outputs=1000, variant="torchvision")
    output, tree = shapes(model, size=(224, 224), channels=3)
    assert counts(tree) == [5_288_548, 42_016]
    assert output["features"]["block7a"].shape == (1, 7, 7, 320)


@pytest.mark.parametrize("variant", ["keras", "torchvision"])
def test_one_pixel_is_enough_and_parameters_stay_float32(variant):
    model = models.create("efficientnet_b0", num_outputs=3, variant=variant, dtype=jnp.bfloat16, **NARROW)
    output, tree = shapes(model, size=(1, 1), channels=2)
    assert output["features"]["top_activation"].shape == (1, 1, 1, 320)
    assert output["features"]["pool5"].dtype == jnp.bfloat16
    assert output["logits"].dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(tree)} == {np.dtype(np.float32)}


@pytest.fixture(scope="module")
def keras_model():
    """The narrow network with random weights. Keras compiles an initial draw per shape, which takes most of a minute;
    zeros come first instead."""
    import keras
    from keras.src.applications.efficientnet import EfficientNet  # the narrow one has no public name

    options = {"default_size": 64, "weights": None, "input_shape": (*SIZE, 3), "classes": 6}
    with pytest.MonkeyPatch.context() as patch:
        zeros = lambda self, shape, dtype=None: np.zeros(shape, dtype)  # noqa: E731
        patch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)
        narrow = EfficientNet(**NARROW, **options, classifier_activation=None)
    import_helpers.randomize_keras(narrow)
    return narrow


def test_forward_pass_equals_keras(keras_model):
    import keras

    model = models.create("efficientnet_b0", num_outputs=6, **NARROW)
    tree = import_helpers.from_keras(keras_model, model, shapes(model, channels=3)[1])
    images = np.random.default_rng(0).normal(size=(2, *SIZE, 3)).astype(np.float32)
    names = {name: name for name in ("stem_activation", "block6a_activation", "top_activation")}
    names |= {"block4b": "block4b_add", "block6a": "block6a_project_bn", "pool5": "avg_pool"}
    outputs = [keras_model.output, *(keras_model.get_layer(name).output for name in names.values())]
    # Keras divides by 255 itself.
    logits, *features = jax.jit(keras.Model(keras_model.input, outputs))(255 * images)
    output = jax.jit(model.apply)(tree, images)
    assert_close(output["logits"], logits, "logits")
    for name, feature in zip(names, features, strict=True):
        assert_close(output["features"][name], feature, name)


def test_layout_is_in_the_order_of_keras(keras_model):
    model = models.create("efficientnet_b0", num_outputs=6, **NARROW)
    names = [layer.name for layer in keras_model.layers if layer.weights]
    assert [source.keras for source in efficientnet_b0.layout(model)] == names[1:]  # after its normalization
    assert {source.torch for source in efficientnet_b0.layout(model)} == {None}


def torch_network(num_outputs):
    """The narrow network from PyTorch modules whose tensors are named as in torchvision."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def unit(inputs, outputs, kernel, stride=1, groups=1, activation=True):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([nn.SiLU()] if activation else []))

    class Gate(nn.Module):
        def __init__(self, channels, squeezed):
            super().__init__()
            self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

        def forward(self, x):
            means = x.mean((2, 3), keepdim=True)
            return x * torch.sigmoid(self.fc2(nn.functional.silu(self.fc1(means))))

    class Block(nn.Module):
        def __init__(self, inputs, outputs, expansion, kernel, stride):
            super().__init__()
            wide = inputs * expansion
            parts = [unit(inputs, wide, 1)] if expansion > 1 else []
            parts += [unit(wide, wide, kernel, stride, wide), Gate(wide, inputs // 4)]
            self.block = nn.Sequential(*parts, unit(wide, outputs, 1, activation=False))
            self.added = stride == 1 and inputs == outputs

        def forward(self, x):
            return x + self.block(x) if self.added else self.block(x)

    stages, inputs = [], 8
    rows = [(8, 1, 1, 3, 1), (8, 1, 6, 3, 2), (16, 1, 6, 5, 2), (24, 2, 6, 3, 2), (32, 2, 6, 5, 1)]
    for outputs, repeats, expansion, kernel, stride in [*rows, (48, 2, 6, 5, 2), (80, 1, 6, 3, 1)]:
        later = [Block(outputs, outputs, expansion, kernel, 1) for _ in range(repeats - 1)]
        stages.append(nn.Sequential(Block(inputs, outputs, expansion, kernel, stride), *later))
        inputs = outputs
    features = nn.Sequential(unit(3, 8, 3, 2), *stages, unit(80, 320, 1))
    classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(320, num_outputs))
    return nn.ModuleDict({"features": features, "classifier": classifier}).eval()


def test_torchvision_variant_equals_pytorch():
    torch = pytest.importorskip("torch")
    network = torch_network(6)
    import_helpers.randomize_torch(network)
    model = models.create("efficientnet_b0", num_outputs=6, variant="torchvision", **NARROW)
    tree = import_helpers.from_torch(network.state_dict(), model, shapes(model, channels=3)[1])
    images = np.random.default_rng(0).normal(size=(2, *SIZE, 3)).astype(np.float32)
    output = jax.jit(model.apply)(tree, images)
    names = ["stem_activation", "block1a", "block2a", "block3a", "block4b", "block5b", "block6b", "block7a"]
    with torch.no_grad():
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        for part, name in zip(network["features"], [*names, "top_activation"], strict=True):
            x = part(x)
            assert_close(output["features"][name], x.permute(0, 2, 3, 1), name)
        logits = network["classifier"](x.mean((2, 3)))
    assert_close(output["logits"], logits, "logits")


def test_drop_connect_drops_whole_branches_and_keeps_the_expectation():
    spec = efficientnet_b0.Block("block", "", 3, 1, inputs=4, channels=4, expansion=6, depth=0.5)
    conv = functools.partial(efficientnet_b0.convolution, variant="keras")

    def block(rate):
        return efficientnet_b0.InvertedResidual(spec, rate, conv, lambda name: lambda x: x)

    generator = np.random.default_rng(0)
    image = generator.normal(size=(1, 3, 3, 4)).astype(np.float32)
    tree = jax.eval_shape(lambda: block(0.0).init(jax.random.PRNGKey(0), image, train=False))
    tree = jax.tree.map(lambda x: generator.normal(size=x.shape).astype(np.float32), tree)

    @jax.jit
    def outputs(images):
        kept = block(0.0).apply(tree, image, train=True)[1]  # rate 0 needs no random numbers
        evaluated = block(0.4).apply(tree, image, train=False)[1]
        dropped = block(0.4).apply(tree, images, train=True, rngs={"dropout": jax.random.PRNGKey(2)})[1]
        return kept, evaluated, (dropped - image) / (kept - image)

    kept, evaluated, scale = outputs(np.tile(image, (600, 1, 1, 1)))
    assert_close(evaluated, kept, "evaluation drops nothing")
    gone = np.asarray(scale)[:, 0, 0, 0] == 0
    np.testing.assert_array_equal(scale[gone], 0)
    np.testing.assert_allclose(scale[~gone], 1 / 0.6, rtol=1e-2)
    np.testing.assert_allclose(gone.mean(), 0.4, atol=0.05)


@pytest.mark.parametrize(
    ("padding", "stride"), [("SAME", 1), ("SAME", 2), ([(1, 1), (1, 1)], 2), ([(2, 2), (2, 2)], 1)]
)
@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
def test_depthwise_convolution_is_xlas_own(padding, stride, size):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, *size, 6)).astype(np.float32)
    kernel = generator.normal(size=(5 if padding != [(1, 1), (1, 1)] else 3,) * 2 + (1, 6)).astype(np.float32)
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 6}
    expected = jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, **options)
    found = layers.depthwise_convolution(x, kernel, (stride, stride), padding, **options)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    half = layers.depthwise_convolution(x.astype(jnp.bfloat16), kernel, (stride, stride), padding, **options)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        half.astype(np.float32), expected, rtol=0.02, atol=0.05
    )  # one rounding, not 25


@pytest.mark.parametrize(("platform", "own"), [("cpu", 0), ("cuda", 1), ("tpu", 1)])
def test_only_cpus_write_depthwise_convolutions_out(platform, own):
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 6}
    traced = jax.jit(lambda x, k: layers.depthwise_convolution(x, k, (1, 1), "SAME", **options)).trace(
        jnp.ones((2, 8, 8, 6)), jnp.ones((3, 3, 1, 6))
    )
    assert traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.convolution") == own


def test_drop_rates_grow_by_sixteenths():
    depths = [block.depth for block in efficientnet_b0.blocks(1.0, 1.0)]
    np.testing.assert_allclose(depths, np.arange(16) / 16)


def test_initial_values_are_the_published_ones():
    shapes = {False: (3, 3, 5, 100), True: (3, 3, 1, 500)}

    @jax.jit
    def deviations(key):
        return {
            (variant, depthwise): efficientnet_b0.kernel_init(variant, depthwise=depthwise)(key, shape).std()
            for variant in ("keras", "torchvision")
            for depthwise, shape in shapes.items()
        }

    found = deviations(jax.random.PRNGKey(0))
    for variant in ("keras", "torchvision"):
        np.testing.assert_allclose(found[variant, False], np.sqrt(2 / 900), rtol=0.05)
    np.testing.assert_allclose(found["keras", True], np.sqrt(2 / 9), rtol=0.05)
    np.testing.assert_allclose(found["torchvision", True], np.sqrt(2 / 4500), rtol=0.05)


def test_batch_norm_has_the_variants_constants_unless_told():
    def constants(**options):
        norm = models.create("efficientnet_b0", num_outputs=3, **options)._norm(train=True)(name="norm")
        return norm.momentum, norm.epsilon

    assert constants() == (0.99, 1e-3)
    assert constants(variant="torchvision") == (0.9, 1e-5)
    assert constants(variant="torchvision", momentum=0.0, epsilon=1e-3) == (0.0, 1e-3)


def test_errors():
    with pytest.raises(
        ValueError, match=r"EfficientNet-B0 variant 'tf': choose one of \('keras', 'torchvision'\)"
    ):
        models.create("efficientnet_b0", num_outputs=3, variant="tf")
    model = models.create("efficientnet_b0", num_outputs=3)
    with pytest.raises(ValueError, match="EfficientNet-B0 takes floating-point images; got uint8"):
        jax.eval_shape(model.init, jax.random.PRNGKey(0), np.zeros((1, 8, 8, 3), np.uint8))
