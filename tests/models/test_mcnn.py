"""M-CNN: published counts and sizes, a slow NumPy forward pass, the smallest image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from import_helpers import initial_layers, normal, output_and_variables, single

from coos import models
from coos.models import layers

NARROW = {"num_outputs": 3, "widths": (1, 2, 1, 2, 1, 2, 3), "mix_units": 4, "fc_units": 5}


@pytest.mark.parametrize(
    ("shape", "num_outputs", "expected"),
    [
        ((1, 520, 692, 5), 209, 11_230_929),
        ((1, 696, 520, 5), 209, 11_230_929),
        ((1, 520, 696, 4), 209, 11_225_729),
        ((1, 1024, 1280, 3), 12, 42_576_748),
        ((1, 1024, 1280, 3), 13, 42_577_261),
    ],
)
def test_published_parameter_counts(shape, num_outputs, expected):
    _, variables = output_and_variables(models.create("mcnn", num_outputs=num_outputs), shape)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == expected


def test_published_sizes_of_the_layers():
    output, variables = output_and_variables(
        models.create("mcnn", num_outputs=209, dtype=jnp.bfloat16), (2, 520, 692, 5)
    )
    widths = {
        "scale1": 16,
        "scale2": 16,
        "scale4": 16,
        "scale8": 32,
        "scale16": 32,
        "scale32": 32,
        "scale64": 64,
    }
    assert {name: x.shape[1:] for name, x in output["features"].items()} == {
        **{name: (8, 10, width) for name, width in widths.items()},
        "concat": (8, 10, 208),
        "conv_mix": (8, 10, 1024),
        "pool": (4, 5, 1024),
        "fc1": (512,),
    }
    assert variables["params"]["fc1"]["kernel"].shape == (20_480, 512)
    kernel_maps = [
        x["bias"].size for name, x in variables["params"].items() if "_conv" in name and name != "conv_mix"
    ]
    assert (len(kernel_maps), sum(kernel_maps)) == (21, 624)  # Godinez et al., section 3.1
    assert (output["logits"].shape, output["logits"].dtype) == ((2, 209), jnp.float32)
    assert output["features"]["fc1"].dtype == jnp.bfloat16


@pytest.mark.parametrize(("options", "size"), [({}, 128), ({"widths": (1, 1, 1)}, 8)])
def test_smallest_image(options, size, monkeypatch):
    model = models.create("mcnn", **{**NARROW, **options})
    output, _ = output_and_variables(model, (1, size, size, 1))
    assert min(x.size for x in output["features"].values()) > 0
    for height, width in ((size - 1, size), (size, size - 1)):
        message = f"MCNN takes images of at least {size} x {size} pixels; got {height} x {width}"
        with pytest.raises(ValueError, match=message):
            output_and_variables(model, (1, height, width, 1))
    monkeypatch.setattr(layers, "check_images", lambda *args, **kwargs: None)
    with pytest.raises(ZeroDivisionError):  # without the check: the initial kernel of fc1 would have no rows
        output_and_variables(model, (1, size - 1, size, 1))


def slow_convolution(x, layer):
    """SAME, stride 1, as a sum over the taps, then ReLU."""
    reach = len(layer["kernel"]) // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    height, width = x.shape[1:3]
    taps = [(i, j) for i in range(2 * reach + 1) for j in range(2 * reach + 1)]
    total = sum(padded[:, i : i + height, j : j + width] @ layer["kernel"][i, j] for i, j in taps)
    return np.maximum(total + layer["bias"], 0)


def slow_pool(x, size):
    """Maxima of whole blocks of size x size pixels."""
    rows, columns = x.shape[1] // size, x.shape[2] // size
    blocks = x[:, : rows * size, : columns * size].reshape(len(x), rows, size, columns, size, -1)
    return blocks.max((2, 4))


def slow_mcnn(params, images):
    features = {}
    for scale in (1, 2, 4, 8, 16, 32, 64):
        x = slow_pool(images, scale)
        for i in (1, 2, 3):
            x = slow_convolution(x, params[f"scale{scale}_conv{i}"])
        features[f"scale{scale}"] = slow_pool(x, 64 // scale)
    x = slow_convolution(np.concatenate(list(features.values()), -1), params["conv_mix"])
    features["pool"] = x = slow_pool(x, 2)
    # Flattened by hand: rows, then columns, then channels.
    x = np.stack([np.concatenate([pixel for row in image for pixel in row]) for image in x])
    features["fc1"] = x = np.maximum(x @ params["fc1"]["kernel"] + params["fc1"]["bias"], 0)
    return features, x @ params["logits"]["kernel"] + params["logits"]["bias"]


def test_forward_pass_equals_a_slow_one():
    model = models.create("mcnn", **NARROW)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, 150, 270, 2)).astype(
        np.float32
    )  # 2 x 4 at the coarsest scale, with remainders
    params = normal(model, images.shape, 0.3, mean=0.1)  # more positive than not: few units are dead
    output = jax.jit(lambda v, x: model.apply(v, x, train=True))(single(params), images)
    features, logits = slow_mcnn(params, images.astype(float))
    assert features["pool"].shape == (2, 1, 2, 4)
    for layer, expected in features.items():
        assert expected.any(), layer
        np.testing.assert_allclose(
            output["features"][layer], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=layer
        )
    np.testing.assert_allclose(output["logits"], logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())


def test_initial_values():
    model = models.create("mcnn", num_outputs=40, widths=(8, 16), mix_units=64, fc_units=60)
    sums = {"scale2_conv2": 25 * 32, "fc1": 16 * 64 + 60, "logits": 100}
    params = initial_layers(model, (1, 16, 16, 2), list(sums))
    for layer, fans in sums.items():
        kernel = params[layer]["kernel"]
        bound = np.sqrt(6 / fans)  # Xavier uniform
        np.testing.assert_allclose((kernel.min(), kernel.max()), (-bound, bound), rtol=0.02, err_msg=layer)
        np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.05, err_msg=layer)
        assert not params[layer]["bias"].any()
