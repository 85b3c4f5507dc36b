"""FNN: published count, a slow NumPy forward pass, normalization of samples, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from import_helpers import KEY, initial_layers, normal, output_and_variables, single

from coos import models


def test_published_parameter_count_and_sizes():
    output, variables = output_and_variables(
        models.create("fnn", num_outputs=209, dtype=jnp.bfloat16), (3, 1783)
    )
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 12_474_577
    assert {name: x.shape for name, x in output["features"].items()} == dict.fromkeys(
        ("fc1", "fc2", "fc3"), (3, 2048)
    )
    assert (output["logits"].shape, output["logits"].dtype) == ((3, 209), jnp.float32)
    assert output["features"]["fc3"].dtype == jnp.bfloat16


@pytest.mark.parametrize("normalize_samples", [False, True])
def test_forward_pass_equals_a_slow_one(normalize_samples):
    model = models.create("fnn", num_outputs=3, units=8, normalize_samples=normalize_samples)
    generator = np.random.default_rng(0)
    vectors = generator.normal(2, 3, size=(5, 7)).astype(np.float32)
    params = normal(model, vectors.shape, 1.0)
    output = jax.jit(model.apply)(single(params), vectors)
    x = vectors.astype(float)
    if normalize_samples:
        x = np.stack([(row - row.mean()) / row.std() for row in x])
    for name in ("fc1", "fc2", "fc3"):
        x = np.maximum(x @ params[name]["kernel"] + params[name]["bias"], 0)
        np.testing.assert_allclose(output["features"][name], x, rtol=1e-5, atol=1e-5 * x.max())
    logits = x @ params["logits"]["kernel"] + params["logits"]["bias"]
    np.testing.assert_allclose(output["logits"], logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())


def test_a_constant_sample_is_normalized_to_zeros():
    model = models.create("fnn", num_outputs=3, units=4, normalize_samples=True)
    params = normal(model, (1, 6), 1.0)
    constant, zeros = (model.apply(single(params), jnp.full((1, 6), value))["logits"] for value in (7.0, 0.0))
    np.testing.assert_array_equal(constant, zeros)
    plain = models.create("fnn", num_outputs=3, units=4)
    np.testing.assert_array_equal(plain.apply(single(params), jnp.zeros((1, 6)))["logits"], zeros)


def test_initial_values():
    sums = {"fc1": 240, "fc3": 300, "logits": 250}
    params = initial_layers(models.create("fnn", num_outputs=100, units=150), (1, 90), list(sums))
    for layer, fans in sums.items():
        kernel = params[layer]["kernel"]
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fans), rtol=0.03, err_msg=layer)
        assert np.abs(kernel).max() > 3 * kernel.std()  # not cut off
        assert not params[layer]["bias"].any()


def test_dropout_rates():
    """With unit matrices as kernels, what is dropped stays dropped: 10 % of the ones, then half of the rest, twice."""
    model = models.create("fnn", num_outputs=100, units=100)
    unit = {"kernel": jnp.eye(100), "bias": jnp.zeros(100)}
    variables = {"params": dict.fromkeys(("fc1", "fc2", "fc3", "logits"), unit)}
    ones = jnp.ones((200, 100))
    output = model.apply(variables, ones, train=True, rngs={"dropout": KEY})
    kept = 0.9
    for x in (*output["features"].values(), output["logits"]):
        values = np.asarray(x)
        np.testing.assert_allclose((values > 0).mean(), kept, atol=0.02)
        np.testing.assert_allclose(values[values > 0], 1 / kept, rtol=1e-5)
        kept /= 2
    np.testing.assert_array_equal(model.apply(variables, ones)["logits"], ones)


def test_errors():
    model = models.create("fnn", num_outputs=3, units=4)
    for shape in ((1, 8, 8, 2), (5,), (5, 0)):
        with pytest.raises(ValueError, match=r"FNN takes feature vectors \(batch, features\); got shape \("):
            output_and_variables(model, shape)
    with pytest.raises(ValueError, match="FNN takes floating-point features; got int32: convert them first"):
        model.init(KEY, jnp.ones((2, 3), jnp.int32))
