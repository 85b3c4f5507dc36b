"""Tensors of torch's files and of safetensors, without torch and without running a pickle.

torch.save has written two formats. Since version 1.6, an uncompressed zip: <name>/data.pkl describes the tensors,
<name>/data/<key> holds the numbers of each storage, <name>/byteorder their byte order. Before, one file of
consecutive pickles: a magic number, a protocol version, facts about the system, the description, the keys of the
storages; then for every key the number of elements (int64) and the elements, little-endian.

Files are mapped into memory, and the arrays are read-only views of them: nothing is copied that need not be
converted.
"""

import mmap
import pathlib
import struct
import zipfile
import zlib
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from coos.models.pretrained import torch_pickle
from coos.models.pretrained.torch_pickle import Storage, Tensor

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
LOCAL_HEADER = struct.Struct(
    "<4s22xHH"
)  # of a zip entry: signature, lengths of its name and of its extra field
NESTED_UNDER = ("state_dict", "model")
PARALLEL_PREFIX = "module."
MOST_DIMENSIONS = 64
SHOWN = 100  # characters of a name in a message
LARGEST_REPEATED = 2**24  # elements of a tensor that shows elements of its storage more than once
SAFETENSORS_DTYPES = {
    "F64",
    "F32",
    "F16",
    "BF16",
    "I64",
    "I32",
    "I16",
    "I8",
    "U64",
    "U32",
    "U16",
    "U8",
    "BOOL",
}


class _Contents(NamedTuple):
    """A file's description of its tensors, the bytes of its storages, and their byte order ("<" or ">")."""

    value: Any
    storages: dict[str, np.ndarray]
    order: Literal["<", ">"] = "<"


def read_torch(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a .pth or .pt file by name; read-only, bfloat16 as float32.

    A checkpoint that has its state dict under "state_dict" or "model" gives that one. Names lose the "module." of
    DataParallel.

    Raises:
        ValueError: naming the file, and the tensor, storage or name in its pickle that is at fault.
    """
    path = pathlib.Path(path)
    data = _mapped(path)
    contents = _read_zip(path, data) if data[:2] == b"PK" else _read_legacy(path, data)
    try:
        tensors = _state_dict(contents.value)
        return _arrays(tensors, contents)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_safetensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file by name; bfloat16 as float32. Errors are ValueError naming the file."""
    name = None
    try:
        with safe_open(path, "np") as file:
            tensors = {}
            for name in file.keys():  # noqa: SIM118 (no mapping)
                dtype = file.get_slice(name).get_dtype()
                if dtype not in SAFETENSORS_DTYPES:
                    raise ValueError(f"type {dtype} is not one of {', '.join(sorted(SAFETENSORS_DTYPES))}")
                value = file.get_tensor(name)
                tensors[name] = value.astype(np.float32) if dtype == "BF16" else value
    except (SafetensorError, OSError, ValueError) as error:
        tensor = f", tensor {name!r}" if name is not None else ""
        raise ValueError(
            f"{path}{tensor}: cannot be read as safetensors ({error}): download it again"
        ) from error
    if not tensors:
        raise ValueError(f"{path}: holds no tensors")
    return tensors


def _mapped(path: pathlib.Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # of mmap, for no bytes
        raise ValueError(f"{path}: is empty: download it again") from error


def _read_zip(path: pathlib.Path, data: mmap.mmap) -> _Contents:
    entries = _zip_entries(path)
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        hint = "; a .keras archive: use model.save_weights" if "model.weights.h5" in entries else ""
        raise ValueError(
            f"{path}: a zip file with {len(roots)} entries data.pkl, not one of torch.save{hint}"
        )
    file = np.frombuffer(data, np.uint8)
    pickled = _zip_bytes(path, file, entries[f"{roots[0]}data.pkl"]).tobytes()
    value, mentioned = torch_pickle.interpret(pickled, where=f"{path}, {roots[0]}data.pkl")
    stored = {key: f"{roots[0]}data/{key}" for key in mentioned}
    storages = {key: _zip_bytes(path, file, entries[name]) for key, name in stored.items() if name in entries}
    byteorder = entries.get(f"{roots[0]}byteorder")
    big = byteorder is not None and _zip_bytes(path, file, byteorder).tobytes() == b"big"
    return _Contents(value, storages, ">" if big else "<")


def _zip_entries(path: pathlib.Path) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename: info for info in archive.infolist()}
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        OSError,
        OverflowError,
        ValueError,
        struct.error,
    ) as error:
        raise ValueError(f"{path}: a zip file cut short or damaged ({error}): download it again") from error


def _zip_bytes(path: pathlib.Path, file: np.ndarray, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of an entry, as a view of the file; those of a damaged entry are an error."""
    where = f"{path}, {info.filename}"
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
        raise ValueError(f"{where}: compressed or encrypted; torch.save does neither")
    header = file[max(info.header_offset, 0) :][: LOCAL_HEADER.size].tobytes()
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise ValueError(f"{where}: is not where the zip file's directory says: download it again")
    _, *lengths = LOCAL_HEADER.unpack(header)
    content = file[info.header_offset + LOCAL_HEADER.size + sum(lengths) :][: info.file_size]
    if len(content) < info.file_size:
        raise ValueError(
            f"{where}: needs {info.file_size} bytes, the file has {len(content)}: it is cut short"
        )
    if info.CRC and zlib.crc32(content.data) != info.CRC:  # 0: torch was told not to compute it
        raise ValueError(f"{where}: its checksum is wrong, the file is damaged: download it again")
    return content


def _read_legacy(path: pathlib.Path, data: mmap.mmap) -> _Contents:
    where = str(path)
    if torch_pickle.interpret(data, where=where)[0] != MAGIC_NUMBER:
        raise ValueError(f"{path}: a pickle, but not one of torch.save; nothing in it was executed")
    if torch_pickle.interpret(data, where=where)[0] != PROTOCOL_VERSION:
        raise ValueError(f"{path}: a version of torch.save's format that is not {PROTOCOL_VERSION}")
    torch_pickle.interpret(data, where=where)  # facts about the system
    value, mentioned = torch_pickle.interpret(data, where=where)
    keys, _ = torch_pickle.interpret(data, where=where)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in mentioned for key in keys):
        raise ValueError(f"{path}: its list of storages is damaged")
    return _Contents(
        value, _legacy_storages(path, np.frombuffer(data, np.uint8)[data.tell() :], keys, mentioned)
    )


def _legacy_storages(
    path: pathlib.Path, file: np.ndarray, keys: list[str], mentioned: dict[str, Storage]
) -> dict[str, np.ndarray]:
    """Storages one after the other; where the file ends early, the last is short and others are left out."""
    storages = {}
    for key in keys:
        header, numel = file[:8], mentioned[key].numel
        if len(header) < 8:
            break
        count = int.from_bytes(header.tobytes(), "little")
        if count != numel:
            raise ValueError(f"{path}: storage {key!r} has {count} elements where its tensors expect {numel}")
        size = count * _item_size(mentioned[key].dtype)
        storages[key], file = file[8:][:size], file[8:][size:]
    return storages


def _state_dict(value: Any) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, without the prefix of DataParallel."""
    if not isinstance(value, dict):
        raise ValueError(f"holds a value of type {type(value).__name__} instead of a state dict")
    inner = [value[key] for key in NESTED_UNDER if isinstance(value.get(key), dict)]
    tensors = inner[0] if inner else value
    if not tensors:
        raise ValueError("holds no tensors")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            found = f"{str(name)[:SHOWN]!r} of type {type(tensor).__name__}"
            raise ValueError(f"not a plain state dict: holds {found} instead of named tensors")
    if all(name.startswith(PARALLEL_PREFIX) for name in tensors):
        return {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


def _arrays(tensors: dict[str, Tensor], contents: _Contents) -> dict[str, np.ndarray]:
    storages: dict[str, np.ndarray] = {}
    arrays = {}
    for name, tensor in tensors.items():
        try:
            if tensor.storage is None:
                raise ValueError("is never given its numbers")
            key = tensor.storage.key
            if key not in storages:
                storages[key] = _numbers(tensor.storage, contents)
            arrays[name] = _strided(tensor, storages[key])
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from error
    return arrays


def _numbers(storage: Storage, contents: _Contents) -> np.ndarray:
    """All elements of a storage in one dimension."""
    if storage.key not in contents.storages:
        raise ValueError(f"its storage {storage.key!r} is not in the file: it is cut short or damaged")
    raw, size = contents.storages[storage.key], storage.numel * _item_size(storage.dtype)
    if len(raw) < size:
        raise ValueError(
            f"its storage {storage.key!r} needs {size} bytes, the file has {len(raw)}: it is cut short or damaged"
        )
    if storage.dtype == "bool":
        return raw[:size] != 0
    stored = np.dtype("uint16" if storage.dtype == "bfloat16" else storage.dtype).newbyteorder(contents.order)
    numbers = raw[:size].view(stored).astype(stored.newbyteorder("="), copy=False)
    return numbers.view(ml_dtypes.bfloat16).astype(np.float32) if storage.dtype == "bfloat16" else numbers


def _item_size(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _strided(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    """The tensor as a view of its storage's elements; ValueError where it would leave them."""
    offset, size, stride = tensor.offset, tensor.size, tensor.stride
    first, count = (tensor.storage and tensor.storage.view) or (0, len(numbers))
    integers = [offset, *size, *stride] if isinstance(size, tuple) and isinstance(stride, tuple) else [None]
    if (
        not all(type(i) is int and 0 <= i < 2**48 for i in integers)
        or not len(size) == len(stride) <= MOST_DIMENSIONS
    ):
        raise ValueError("its offset, shape or strides are no whole numbers that fit together")
    elements = 1
    for n in size:
        elements *= n
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if (elements and last >= count) or elements > max(count, LARGEST_REPEATED):
        raise ValueError(
            f"shape {size} with strides {stride} from {offset} on: its storage has {count} elements"
        )
    if not elements:
        return np.zeros(size, numbers.dtype)
    strides = [step * numbers.itemsize if n > 1 else 0 for n, step in zip(size, stride, strict=True)]
    return np.lib.stride_tricks.as_strided(numbers[first + offset :], size, strides, writeable=False)
