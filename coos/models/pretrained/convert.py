"""From the tensors of a checkpoint to the variables of one of our networks, with every tensor accounted for.

A network says in `layout(module)` where each of its layers stands in other libraries' files. Everything else is
here: the order of axes, the flattened layers, and the complaints about what is missing, surplus or misshapen.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from coos.models.layers import WeightSource
from coos.models.pretrained.keras_files import KerasWeights

ROLES = {
    "conv": ("kernel", "bias"),
    "depthwise": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "norm": ("scale", "bias", "mean", "var"),
}
KERAS_CLASSES = {
    "conv": "conv2d",
    "depthwise": "depthwise_conv2d",
    "dense": "dense",
    "norm": "batch_normalization",
}
TORCH_ROLES = {"weight": "kernel", "bias": "bias", "running_mean": "mean", "running_var": "var"}
STATISTICS = ("mean", "var")
SHOWN = 5


class Tensor(NamedTuple):
    """A tensor with the name it has in its file."""

    name: str
    value: np.ndarray


# {path of our layer: {role: tensor}}
Found = dict[tuple[str, ...], dict[str, Tensor]]


def from_torch(
    tensors: dict[str, np.ndarray], sources: Sequence[WeightSource], *, ignored: Sequence[str] = ()
) -> tuple[Found, list[str]]:
    """Tensors of a state dict by our layers, axes in our order; and the names that no layer asks for.

    `ignored` are prefixes of tensors that a network knowingly leaves out. Counters of batches are left out too, and
    the names of DenseNet's oldest checkpoints ("denselayer1.norm.1.weight") are read as today's ("norm1").
    """
    named = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key): key for key in tensors}
    found: Found = {}
    for source in sources:
        found[source.path] = {}
        for suffix, role in TORCH_ROLES.items():
            key = named.pop(f"{source.torch}.{suffix}", None)
            if key is not None:
                role = "scale" if role == "kernel" and source.kind == "norm" else role
                found[source.path][role] = Tensor(key, _from_torch_axes(tensors[key], source, role))
    rest = [key for name, key in named.items() if not name.endswith("num_batches_tracked")]
    return found, [key for key in rest if not key.startswith(tuple(ignored))]


def _from_torch_axes(value: np.ndarray, source: WeightSource, role: str) -> np.ndarray:
    """Convolutions (O, I, H, W) -> (H, W, I, O); linear (O, I) -> (I, O), channels last where it follows a flatten."""
    if role != "kernel":
        return value
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2 and source.flattened and value.shape[1] == np.prod(source.flattened):
        unflattened = value.reshape(len(value), *source.flattened)
        return unflattened.transpose(2, 3, 1, 0).reshape(-1, len(value))
    return value.T


def from_keras(weights: KerasWeights, sources: Sequence[WeightSource]) -> tuple[Found, list[str]]:
    """Arrays of a Keras file by our layers, axes in our order; and the layers that nothing here asks for.

    Layers are found by name. Where names differ (hosted files are older than some of today's names, and Keras itself
    reads them by order) they are read by their order: within a class for Keras 3's `.weights.h5` (the third Conv2D
    is the third convolution), over all layers for older files. Shapes are checked by the caller.
    """
    rest = {name: arrays for name, arrays in (weights.layers or {}).items() if not _is_input(name)}
    names = [str(source.keras) for source in sources]
    if not _has_all(rest, sources) and weights.classes is not None:
        rest, names = _numbered_layers(weights.classes, sources)
    elif not _has_all(rest, sources):
        names = _names_in_order(list(rest), sources)
    found = {
        source.path: _keras_roles(source, name, rest.pop(name, []))
        for source, name in zip(sources, names, strict=True)
    }
    return found, list(rest)


def _is_input(name: str) -> bool:
    """Whether this is Keras' input normalization: our networks take scaled input."""
    return name.startswith("normalization")


def _has_all(names: Collection[str], sources: Sequence[WeightSource]) -> bool:
    """Whether every layer is there by its own name; a file without a classifier lacks the dense ones."""
    wanted = [source.keras for source in sources if source.kind != "dense" or len(names) >= len(sources)]
    return set(wanted) <= set(names)


def _names_in_order(names: list[str], sources: Sequence[WeightSource]) -> list[str]:
    """The name in the file of every source by its place; their own names where the numbers of layers differ."""
    own = [str(source.keras) for source in sources]
    without_classifier = len(names) == sum(source.kind != "dense" for source in sources)
    if not without_classifier and len(names) != len(own):
        return own
    places = iter(names)
    return [
        name if without_classifier and source.kind == "dense" else next(places)
        for name, source in zip(own, sources, strict=True)
    ]


def _numbered_layers(
    classes: dict[str, list[list[np.ndarray]]], sources: Sequence[WeightSource]
) -> tuple[dict[str, list[np.ndarray]], list[str]]:
    """Layers as {"conv2d number 3": arrays}, and the name of every source in these terms."""
    rest = {
        f"{name} number {i + 1}": arrays
        for name, layers in classes.items()
        for i, arrays in enumerate(layers)
        if not _is_input(name)
    }
    counts = dict.fromkeys(KERAS_CLASSES.values(), 0)
    names = []
    for source in sources:
        kind = KERAS_CLASSES[source.kind]
        counts[kind] += 1
        names.append(f"{kind} number {counts[kind]}")
    return rest, names


def _keras_roles(source: WeightSource, name: str, arrays: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """The arrays of one layer, named by their order: Keras saves them as it made them."""
    roles = ROLES[source.kind]
    if len(arrays) > len(roles):
        raise ValueError(f"layer {name!r} holds {len(arrays)} arrays; a {source.kind} layer has {len(roles)}")
    tensors = {}
    for role, value in zip(roles, arrays, strict=False):
        if source.kind == "depthwise" and role == "kernel" and value.ndim == 4:
            value = value.transpose(0, 1, 3, 2)
        tensors[role] = Tensor(f"{name}/{role}", value)
    return tensors


def fill(
    found: Found, surplus: list[str], shapes: Any, *, fresh: Collection[tuple[str, ...]] = ()
) -> dict[tuple[str, ...], dict[str, np.ndarray]]:
    """{path of a layer: {role: float32 array}} for all layers of `shapes` (variables) but those in `fresh`.

    Raises ValueError naming what is missing, surplus, misshapen or not finite.
    """
    wanted = {path: roles for path, roles in by_layer(shapes).items() if path not in fresh}
    _complain_about_names(found, wanted, surplus)
    return {
        path: {role: _checked(found[path][role], role, leaf.shape) for role, leaf in roles.items()}
        for path, roles in wanted.items()
    }


def _complain_about_names(
    found: Found, wanted: dict[tuple[str, ...], dict[str, Any]], surplus: list[str]
) -> None:
    """Raise ValueError for tensors that are missing or that no layer takes."""
    missing, extra = [], list(surplus)
    for path, roles in wanted.items():
        here = found.get(path, {})
        missing += [f"{'/'.join(path)}/{role}" for role in roles if role not in here]
        extra += [tensor.name for role, tensor in here.items() if role not in roles]
    if missing:
        raise ValueError(
            f"the file lacks {len(missing)} of the network's tensors: {_some(missing)}"
            + (f"; and has {len(extra)} that it does not know: {_some(extra)}" if extra else "")
        )
    if extra:
        raise ValueError(f"the network has no place for {len(extra)} of the file's tensors: {_some(extra)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def by_layer(variables: Any) -> dict[tuple[str, ...], dict[str, Any]]:
    """{"params": …, "batch_stats": …} -> {path of a layer: {role: array or shape}}."""
    layers: dict[tuple[str, ...], dict[str, Any]] = {}
    for collection in ("params", "batch_stats"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables.get(collection, {})):
            names = tuple(entry.key for entry in path)
            layers.setdefault(names[:-1], {})[names[-1]] = leaf
    return layers


def to_variables(layers: dict[tuple[str, ...], dict[str, Any]]) -> dict[str, Any]:
    """The inverse of `by_layer`."""
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for path, roles in layers.items():
        for role, value in roles.items():
            node = variables["batch_stats" if role in STATISTICS else "params"]
            for name in path:
                node = node.setdefault(name, {})
            node[role] = value
    return {name: tree for name, tree in variables.items() if tree}


def _checked(tensor: Tensor, role: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor as float32; ValueError where its shape (in our order of axes) is another, or it is not finite."""
    if tensor.value.shape != tuple(shape):
        raise ValueError(
            f"tensor {tensor.name!r} has shape {tensor.value.shape} in our order of axes; "
            f"the network needs {tuple(shape)}"
        )
    value = np.ascontiguousarray(tensor.value, dtype=np.float32)
    if not np.isfinite(value).all():
        raise ValueError(f"tensor {tensor.name!r} holds NaN or infinite values")
    if role == "var" and (value < 0).any():
        raise ValueError(f"tensor {tensor.name!r}, a running variance, holds negative values")
    return value
