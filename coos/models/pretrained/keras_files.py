"""Weights in Keras' HDF5 files, read with h5py alone.

Three layouts:
- Keras 2's weights, as keras.applications hosts them: the root's attribute layer_names gives the order of the layers,
  each layer's group has an attribute weight_names with the paths of its arrays in Keras' order. Long lists are cut
  into layer_names0, layer_names1, ...
- a model saved as .h5, by Keras 2 or 3: the same inside the group model_weights.
- Keras 3's .weights.h5: layers/conv2d_3/vars/0, numbered by class; the attribute "name" of vars has the layer's name
  in files of newer versions.

A file cut short is an error. The HDF5 library itself can crash on one that was damaged elsewhere: read files whose
checksum is known, or one's own.
"""

import itertools
import pathlib
import re
from typing import Any, NamedTuple

import h5py
import ml_dtypes
import numpy as np

NUMBERED = re.compile(r"(.+?)(?:_(\d+))?")
VARIABLE = re.compile(r"(?:(.*)/)?vars/(\d+)")
NO_LAYER = re.compile(r"optimizer(/.*)?|(.*/)?seed_generator(_\d+)?")
MOST_COMPRESSION = 1100  # more than deflate can do
SHOWN = 8


class KerasWeights(NamedTuple):
    """Arrays of every layer that has any, in Keras' order (kernel, bias; gamma, beta, mean, variance).

    Attributes:
        layers: by the layer's name; None where the file has no names, or not one for each. In the model's order, except
            from .weights.h5, which keeps the order only within each class.
        classes: by class in snake case ("conv2d") the layers of that class in the model's order; None unless the file
            is a .weights.h5.
    """

    layers: dict[str, list[np.ndarray]] | None = None
    classes: dict[str, list[list[np.ndarray]]] | None = None


def read_keras(path: str | pathlib.Path) -> KerasWeights:
    """The weights of a Keras HDF5 file of any of the three layouts; bfloat16 as float32.

    Raises:
        ValueError: naming the file, and the layer or dataset that is at fault.
    """
    try:
        with h5py.File(path, "r") as file:
            return _read(file)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read as HDF5 ({error}); it is missing, cut short or no HDF5 file: download it again"
        ) from error
    except (ValueError, RuntimeError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read(file: h5py.File) -> KerasWeights:
    group = _member(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in group.attrs or "layer_names0" in group.attrs:
        weights = _read_named(group)
    else:
        weights = _read_numbered(file)
    if not (weights.layers or weights.classes):
        found = ", ".join(sorted(file)[:SHOWN]) or "nothing"
        raise ValueError(f"holds no weights of Keras (found at the top: {found})")
    return weights


def _read_named(group: h5py.Group) -> KerasWeights:
    """Keras 2's layout."""
    layers: dict[str, list[np.ndarray]] = {}
    for name in _names(group, "layer_names"):
        if name in layers:
            raise ValueError(f"has two layers named {name!r}")
        layer = _member(group, name)
        layers[name] = [_array(layer, path) for path in _names(layer, "weight_names")]
    return KerasWeights({name: arrays for name, arrays in layers.items() if arrays})


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names in one attribute, or in several that are numbered."""
    parts = [group.attrs[attribute]] if attribute in group.attrs else _numbered_attributes(group, attribute)
    if not parts:
        raise ValueError(f"{group.name} lacks the attribute {attribute}")
    return [_text(item, f"{group.name}, {attribute}") for part in parts for item in np.asarray(part).ravel()]


def _numbered_attributes(group: h5py.Group, attribute: str) -> list[Any]:
    names = itertools.takewhile(group.attrs.__contains__, (f"{attribute}{i}" for i in itertools.count()))
    return [group.attrs[name] for name in names]


def _text(value: Any, where: str) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return str(value)
    raise ValueError(f"{where} holds {type(value).__name__} instead of names")


def _read_numbered(file: h5py.File) -> KerasWeights:
    """Keras 3's layout; optimizers and the states of random generators are left out."""
    variables: dict[str, dict[int, np.ndarray]] = {}
    for path in _paths(file):
        match = VARIABLE.fullmatch(path)
        if match and not NO_LAYER.fullmatch(match[1] or ""):
            variables.setdefault(match[1] or "", {})[int(match[2])] = _array(file, path)
    layers: dict[str, list[np.ndarray]] = {}
    classes: dict[str, list[list[np.ndarray]]] = {}
    for owner in sorted(variables, key=_natural_order):
        arrays = _in_order(owner, variables[owner])
        classes.setdefault(_natural_order(owner)[-1][0], []).append(arrays)
        layers[_layer_name(file, owner)] = arrays
    complete = "" not in layers and len(layers) == len(variables)
    return KerasWeights(layers if complete else None, classes)


def _paths(file: h5py.File) -> list[str]:
    """Of everything in the file once, however its links go round."""
    paths: list[str] = []
    file.visit(paths.append)
    return paths


def _natural_order(path: str) -> list[tuple[str, int]]:
    """Parts of a path as class and number: conv2d, conv2d_1, ..., conv2d_10."""
    matches = (NUMBERED.fullmatch(part) for part in path.split("/"))
    return [(match[1], int(match[2] or 0)) if match else ("", 0) for match in matches]


def _in_order(owner: str, arrays: dict[int, np.ndarray]) -> list[np.ndarray]:
    if set(arrays) != set(range(len(arrays))):
        raise ValueError(f"{owner}/vars has arrays {sorted(arrays)}: some are missing")
    return [arrays[i] for i in range(len(arrays))]


def _layer_name(file: h5py.File, owner: str) -> str:
    """The name that newer versions write down; empty where it is not there."""
    attributes = _member(file, f"{owner}/vars").attrs
    return _text(attributes["name"], f"{owner}/vars") if "name" in attributes else ""


def _member(group: h5py.Group, path: str) -> Any:
    """The group or dataset at a path below `group`; links out of the file or to elsewhere in it are refused."""
    member = group
    for part in filter(None, path.split("/")):
        if not isinstance(member, h5py.Group) or part not in member:
            raise ValueError(f"{group.name} lacks {path!r}, which it names")
        if not isinstance(member.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{part!r} in {member.name} is a link to another place, which is not followed")
        member = member[part]
    return member


def _array(group: h5py.Group, path: str) -> np.ndarray:
    """A dataset of numbers that really are in this file."""
    data = _member(group, path)
    if not isinstance(data, h5py.Dataset):
        raise ValueError(f"{path!r} in {group.name} is no array")
    if data.is_virtual or data.external or data.shape is None:
        raise ValueError(f"{data.name} has its numbers in another file or none")
    bfloat16 = data.dtype.kind == "V" and data.dtype.itemsize == 2 and data.dtype.names is None
    if data.dtype.kind not in "biuf" and not bfloat16:
        raise ValueError(f"{data.name} holds {data.dtype}, not numbers")
    factor = MOST_COMPRESSION if data.chunks and data.compression else 1
    if data.nbytes > factor * data.id.get_storage_size():
        raise ValueError(f"{data.name} should have {data.nbytes} bytes, which the file does not hold")
    value = np.asarray(data[()])
    return value.view(ml_dtypes.bfloat16).astype(np.float32) if bfloat16 else value
