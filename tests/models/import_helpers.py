"""Weights of a Keras or PyTorch network as our variables, by the network's own `layout`; and random weights.

    variables = import_helpers.from_keras(keras_model, module, variables)

`variables` gives the tree and the shapes (of jax.eval_shape, say). Every weight must find its place, on both sides.
"""

import sys
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from coos.models.pretrained import convert, keras_files

KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles faster than the default


def shapes(model, image_shape):
    """Shapes of the variables and of the output, without computing them."""
    output, tree = jax.eval_shape(lambda x: model.init_with_output(KEY, x), jnp.ones((1, *image_shape)))
    return tree, output


def drawn(tree):
    """First values, He-normal kernels: a network's own take XLA longer to compile than a training step."""
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        if leaf.ndim > 1:
            return generator.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)
        ones = path[-1].key in ("scale", "var")
        return np.full(leaf.shape, 1.0 if ones else 0.1 * (path[-1].key == "threshold"), np.float32)

    return jax.tree_util.tree_map_with_path(draw, tree)


def output_and_variables(model, shape, **options):
    """Shapes of (output, variables) for a batch of `shape`, without computing anything."""
    return jax.eval_shape(lambda: model.init_with_output(KEY, jnp.ones(shape), **options))


def initial_layers(model, shape, names):
    """First parameters of some layers; XLA leaves out the others."""
    compiled = jax.jit(lambda key, x: [model.init(key, x)["params"][name] for name in names])
    return dict(zip(names, jax.device_get(compiled(KEY, jnp.ones(shape))), strict=True))


def normal(model, shape, scale, mean=0.0):
    """Normal parameters drawn by NumPy, in float64."""
    generator = np.random.default_rng(0)
    params = output_and_variables(model, shape)[1]["params"]
    return jax.tree.map(lambda x: generator.normal(mean, scale, x.shape), params)


def single(tree):
    """Parameters as variables for a network, in float32."""
    return {"params": jax.tree.map(np.float32, tree)}


def initial_parameters(model, image_shape):
    """First values of the parameters."""
    return jax.jit(lambda key, x: model.init(key, x)["params"])(KEY, jnp.ones((1, *image_shape)))


def count(tree):
    """Number of values in all leaves."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def images_of(*shape):
    """Two random images."""
    return np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)


def assert_close(ours, theirs, name):
    """Equal to 1e-4 of the largest value."""
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


def uniform_within(values, bound):
    """Whether the values look uniform in +-bound: by the largest and the standard deviation."""
    values = np.asarray(values)
    return 0.9 * bound < np.abs(values).max() <= bound and abs(values.std() * 3**0.5 / bound - 1) < 0.1


def random_keras(build, seed=0):
    """The Keras network of `build()` with random weights, without the time that Keras' own first values take."""
    from keras.src.initializers.random_initializers import VarianceScaling

    def zeros(self, shape, dtype=None):
        return np.zeros(shape, np.float32)

    with mock.patch.object(VarianceScaling, "__call__", zeros):
        keras_model = build()
    randomize_keras(keras_model, seed)
    return keras_model


def keras_outputs(keras_model, images, names):
    """Outputs of the layers `names` in evaluation mode, {name: array}."""
    import keras

    part = keras.Model(keras_model.inputs, [keras_model.get_layer(name).output for name in names])
    weights = [[v.value for v in vs] for vs in (part.trainable_variables, part.non_trainable_variables)]
    outputs, _ = jax.jit(lambda t, n, x: part.stateless_call(t, n, x, training=False))(*weights, images)
    return dict(zip(names, outputs, strict=True))


def randomize_keras(keras_model, seed=0):
    """Random values for all weights, the moving statistics included; activations keep their order of size."""
    generator = np.random.default_rng(seed)
    for layer in keras_model.layers:
        layer.set_weights([_random(generator, w.path.split("/")[-1], w.shape) for w in layer.weights])


def randomize_torch(torch_module, seed=0):
    """The same for the parameters and buffers of a torch module."""
    import torch

    generator = np.random.default_rng(seed)
    for name, tensor in torch_module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            shape = (*tensor.shape[2:], *tensor.shape[1::-1]) if tensor.ndim > 1 else tensor.shape
            values = _random(generator, name.split(".")[-1], shape).reshape(tensor.shape)
            tensor.copy_(torch.from_numpy(values.astype(np.float32)))


def random_torch_state(module, variables, seed=0):
    """A random state dict of arrays, under the names and in the order of axes that PyTorch would have."""
    generator, ours, state = np.random.default_rng(seed), _ours(variables), {}
    for source in _layout(module):
        names = {
            "scale": "weight",
            "kernel": "weight",
            "bias": "bias",
            "mean": "running_mean",
            "var": "running_var",
        }
        for leaf, name in names.items():
            shape = ours.get(_place(source.path, leaf))
            if shape is not None:
                values = _random(generator, "scale" if leaf == "scale" else name, shape).astype(np.float32)
                order = (3, 2, 0, 1) if values.ndim == 4 else tuple(reversed(range(values.ndim)))
                state[f"{source.torch}.{name}"] = values.transpose(order).copy()
    return state


def _random(generator, name, shape):
    """Fan-in is the product of all but the last axis; a depthwise kernel's (k, k, C, 1) is one C-th of it."""
    if name in ("moving_variance", "running_var", "gamma", "scale"):
        return generator.uniform(0.5, 1.5, shape)
    if len(shape) < 2:
        return generator.normal(0, 0.3, shape) + (1.0 if name == "weight" else 0.0)
    fan_in = np.prod(shape[:-1]) / (shape[-2] if shape[-1] == 1 and len(shape) == 4 else 1)
    return generator.normal(0, np.sqrt(2 / fan_in), shape)


def from_keras(keras_model, module, variables):
    """`variables` of `module` with the weights of `keras_model`; its files must be read as the same."""
    ours, used = _ours(variables), set()
    for source in _layout(module):
        layer = keras_model.get_layer(source.keras)
        used.add(layer.name)
        kernel = "depthwise_kernel" if hasattr(layer, "depthwise_kernel") else "kernel"
        if source.kind == "norm":
            attributes = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
        else:
            attributes = {"kernel": kernel, "bias": "bias"}
        for leaf, attribute in attributes.items():
            weight = getattr(layer, attribute, None)
            if weight is not None:
                value = np.asarray(weight)
                value = np.swapaxes(value, 2, 3) if source.kind == "depthwise" and leaf == "kernel" else value
                _put(ours, source.path, leaf, value)
    weighted = {
        layer.name
        for layer in keras_model.layers
        if layer.weights and type(layer).__name__ != "Normalization"
    }
    assert used == weighted, used ^ weighted
    expected = _filled(ours)
    for weights in _through_files(keras_model):
        _assert_read_as(convert.from_keras(weights, _layout(module)), variables, expected)
    return expected


def _through_files(keras_model):
    """What the two files that Keras writes are read as, and the same without the names of the layers."""
    with tempfile.TemporaryDirectory() as folder:
        keras_model.save(f"{folder}/a.h5")
        keras_model.save_weights(f"{folder}/a.weights.h5")
        whole, numbered = (keras_files.read_keras(f"{folder}/{name}") for name in ("a.h5", "a.weights.h5"))
        renamed = {
            name if name.startswith("normalization") else f"old_{name}": arrays
            for name, arrays in whole.layers.items()
        }
        yield from (whole, numbered, whole._replace(layers=renamed), numbered._replace(layers=None))


def _assert_read_as(read, variables, expected):
    """The package's own way from tensors to variables gives the same."""
    found, surplus = read
    filled = convert.to_variables(convert.fill(found, surplus, variables))
    assert jax.tree.structure(filled) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, filled, expected)


def from_torch(state_dict, module, variables):
    """`variables` of `module` with the tensors of `state_dict`."""
    ours, used = _ours(variables), set()
    for source in _layout(module):
        names = {"weight": "scale" if source.kind == "norm" else "kernel", "bias": "bias"}
        for name, leaf in {**names, "running_mean": "mean", "running_var": "var"}.items():
            tensor = state_dict.get(f"{source.torch}.{name}")
            if tensor is not None:
                used.add(f"{source.torch}.{name}")
                _put(ours, source.path, leaf, _torch_value(source, np.asarray(tensor)))
    expected = {name for name in state_dict if not name.endswith("num_batches_tracked")}
    assert used == expected, used ^ expected
    filled = _filled(ours)
    tensors = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    _assert_read_as(convert.from_torch(tensors, _layout(module)), variables, filled)
    return filled


def _torch_value(source, value):
    """(out, in, h, w) -> (h, w, in, out); (out, in) -> (in, out), from (C, H, W) to (H, W, C) where flattened."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2 and source.flattened:
        return value.reshape(-1, *source.flattened).transpose(2, 3, 1, 0).reshape(-1, value.shape[0])
    return value.T


def _layout(module):
    return sys.modules[type(module).__module__].layout(module)


def _ours(variables):
    """Flat tree with the shapes of the leaves still to fill."""
    return {path: tuple(leaf.shape) for path, leaf in flatten_dict(variables).items()}


def _place(path, leaf):
    return ("batch_stats" if leaf in ("mean", "var") else "params", *path, leaf)


def _put(ours, path, leaf, value):
    """Replace the leaf's shape by its value."""
    place = _place(path, leaf)
    assert ours[place] == value.shape, (place, ours[place], value.shape)
    ours[place] = value.astype(np.float32)


def _filled(ours):
    missing = [path for path, value in ours.items() if isinstance(value, tuple)]
    assert not missing, missing
    return unflatten_dict(ours)
