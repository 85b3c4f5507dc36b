"""A file of weights, by what is in it: Keras' HDF5, torch's zip or older format, or safetensors."""

import pathlib
from typing import NamedTuple

import numpy as np

from coos.models.pretrained.keras_files import KerasWeights, read_keras
from coos.models.pretrained.torch_files import read_safetensors, read_torch

MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
KNOWN_FORMATS = "HDF5 of Keras, a .pth of torch, .safetensors"


class TorchWeights(NamedTuple):
    """Tensors by the names that torch gives them."""

    tensors: dict[str, np.ndarray]


def read(path: str | pathlib.Path) -> KerasWeights | TorchWeights:
    """The weights in a file of any known format; its name does not matter.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    start = _start(pathlib.Path(path))
    if start[8:9] == b"{" and start[4:8] == bytes(
        4
    ):  # the length of a header in JSON, and its first character
        return TorchWeights(read_safetensors(path))
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return read_keras(path)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return TorchWeights(read_torch(path))
    raise ValueError(f"{path}: {_description(start)}; known are {KNOWN_FORMATS}")


def _start(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error


def _description(start: bytes) -> str:
    """What a file that is no weight file seems to be."""
    if not start:
        return "is empty: download it again"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(MARKUP):
        return "is a web page, not the file it should have led to: download it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS: fetch the file itself (git lfs pull)"
    return f"is no weight file known here: it begins with {start[:8]!r}"
