"""Weight files of other libraries: every format, written by hand and by its library, honest, damaged and hostile."""

import copyreg
import json
import os
import pathlib
import pickle
import struct
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors

from coos.models.pretrained import files, keras_files, torch_files

FORMATS = ("zip", "legacy")
CLASSES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


# A small assembler of pickles, as torch writes them.


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    return b"J" + struct.pack("<i", value)


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def name(dotted):
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def ordered(entries, metadata=b""):
    items = b"".join(text(key) + value for key, value in entries.items())
    return name("collections.OrderedDict") + b")R(" + items + b"u" + metadata


def storage(kind, key, numel, *rest):
    return (
        tuple_of(text("storage"), name(f"torch.{kind}"), text(key), text("cpu"), integer(numel), *rest) + b"Q"
    )


def place(stored, offset, size, stride):
    return stored, integer(offset), tuple_of(*map(integer, size)), tuple_of(*map(integer, stride))


def tensor(*where):
    hooks = name("collections.OrderedDict") + b")R"
    return name("torch._utils._rebuild_tensor_v2") + tuple_of(*place(*where), b"\x89", hooks) + b"R"


def program(body):
    return b"\x80\x02" + body + b"."


def write(path, kind, body, storages, byteorder="little"):
    """The file in either of torch's formats; `body` may be a whole pickle. `storages`: {key: array}."""
    pickled = body if body.startswith(b"\x80") or body.endswith(b".") else program(body)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/data.pkl", pickled)
            archive.writestr("net/byteorder", byteorder)
            for key, value in storages.items():
                archive.writestr(f"net/data/{key}", value.tobytes())
        return path
    head = [torch_files.MAGIC_NUMBER, 1001, {"protocol_version": 1001, "little_endian": True}]
    parts = [pickle.dumps(value, 2) for value in head] + [pickled, pickle.dumps(list(storages), 2)]
    parts += [struct.pack("<q", value.size) + value.tobytes() for value in storages.values()]
    path.write_bytes(b"".join(parts))
    return path


def simple(value=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)):
    """One 2 x 3 tensor "a", and its storage."""
    stored = np.array(value, np.float32)
    return ordered({"a": tensor(storage("FloatStorage", "0", 6), 0, (2, 3), (3, 1))}), {"0": stored}


@pytest.mark.parametrize("kind", FORMATS)
def test_tensors_of_every_type(tmp_path, kind):
    entries, storages = {}, {}
    for number, (dtype, cls) in enumerate(CLASSES.items()):
        values = np.array([0, 1, 3, 0.5, -2, 100]).astype(
            ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        )
        storages[str(number)] = values
        entries[dtype] = tensor(storage(cls, str(number), 6), 0, (2, 3), (3, 1))
    found = torch_files.read_torch(write(tmp_path / "a.pth", kind, ordered(entries), storages))
    assert list(found) == list(CLASSES)
    for (dtype, array), stored in zip(found.items(), storages.values(), strict=True):
        expected = stored.astype(np.float32) if dtype == "bfloat16" else stored
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected.reshape(2, 3))


@pytest.mark.parametrize("kind", FORMATS)
def test_views_of_one_storage(tmp_path, kind):
    base = np.arange(24, dtype=np.float32)
    on = storage("FloatStorage", "7", 24)
    entries = {
        "all": tensor(on, 0, (4, 6), (6, 1)),
        "transposed": tensor(on, 0, (6, 4), (1, 6)),
        "inner": tensor(on, 7, (3, 5), (6, 1)),
        "channels_last": tensor(on, 0, (1, 3, 4, 2), (24, 1, 6, 3)),
        "repeated": tensor(on, 5, (3,), (0,)),
        "number": tensor(on, 23, (), ()),
        "empty": tensor(on, 0, (0, 3), (3, 1)),
    }
    found = torch_files.read_torch(write(tmp_path / "a.pth", kind, ordered(entries), {"7": base}))
    grid = base.reshape(4, 6)
    expected = [grid, grid.T, grid[1:, 1:], base.reshape(1, 4, 2, 3).transpose(0, 3, 1, 2), [5] * 3, 23]
    for array, values in zip(found.values(), [*expected, np.zeros((0, 3))], strict=True):
        np.testing.assert_array_equal(array, values)
    assert np.shares_memory(found["all"], found["inner"])


def test_big_endian_zip(tmp_path):
    body, storages = simple()
    swapped = {key: value.astype(">f4") for key, value in storages.items()}
    found = torch_files.read_torch(write(tmp_path / "a.pth", "zip", body, swapped, "big"))
    np.testing.assert_array_equal(found["a"], storages["0"].reshape(2, 3))
    assert found["a"].dtype.isnative


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_checkpoints_are_unwrapped_and_parallel_prefixes_removed(tmp_path, kind, key):
    inner = ordered({"module.a": tensor(storage("FloatStorage", "0", 6), 0, (6,), (1,))})
    body = b"}(" + text("epoch") + integer(3) + text(key) + inner + b"u"
    found = torch_files.read_torch(write(tmp_path / "a.pth", kind, body, simple()[1]))
    np.testing.assert_array_equal(found["a"], [1, 2, 3, 4, 5, 6])


def test_forms_of_2017(tmp_path):
    """Python 2's OrderedDict of pairs; parameters with a state; the first rebuild; storages that are views."""
    where = place(storage("FloatStorage", "0", 6, b"N"), 1, (2,), (2,))
    view = storage("FloatStorage", "0", 6, tuple_of(text("1"), integer(2), integer(3)))
    first = name("torch._utils._rebuild_tensor") + tuple_of(*where) + b"R"
    parameter = name("torch.nn.parameter.Parameter")
    state = tuple_of(b"\x88", b"\x89", name("collections.OrderedDict") + b")R") + b"b"
    values = {
        "rebuilt": first,
        "parameter": parameter + tuple_of(first) + b"R" + state,
        "new": parameter + tuple_of(first) + b"\x81" + state,
        "rebuilt_parameter": name("torch._utils._rebuild_parameter") + tuple_of(first, b"\x88", b"N") + b"R",
        "oldest": name("torch.FloatTensor") + b")R" + tuple_of(*where) + b"b",
        "view": name("torch._utils._rebuild_tensor") + tuple_of(*place(view, 1, (2,), (1,))) + b"R",
    }
    pairs = b"".join(b"](" + text(key) + value + b"e" for key, value in values.items())
    body = (
        name("collections.OrderedDict") + tuple_of(b"](" + pairs + b"e") + b"R}" + text("_metadata") + b"}sb"
    )
    found = torch_files.read_torch(write(tmp_path / "a.pth", "legacy", body, simple()[1]))
    assert list(found) == list(values)
    for key, array in found.items():
        np.testing.assert_array_equal(array, [4, 5] if key == "view" else [2, 4])


@pytest.mark.parametrize("zipped", [True, False])
def test_agrees_with_torch(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    state = layers.to(memory_format=torch.channels_last).state_dict()
    state["view"], state["part"] = base.view(4, 6).t()[1:, 1:], base[3:9]
    state["bfloat16"], state["half"] = base.bfloat16(), base.half()
    state["bool"], state["parameter"] = base > 3, torch.nn.Parameter(base)
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = files.read(tmp_path / "a.pth").tensors
    assert list(found) == list(state)
    for key, value in state.items():
        value = value.detach()
        np.testing.assert_array_equal(found[key], (value.float() if key == "bfloat16" else value).numpy())
    torch.save(layers, tmp_path / "b.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"b\.pth.*torch\.nn\.modules\.container\.Sequential: not a plain state"
    ):
        files.read(tmp_path / "b.pth")


def hostile(command):
    """{name: (opcodes that run os.system or try to, what the refusal names)}."""
    system, arguments = name("os.system"), tuple_of(text(command))
    return {
        "reduce": (system + arguments + b"R", r"os\.system"),
        "stack_global": (b"\x8c\x02os\x8c\x06system\x93" + arguments + b"R", r"os\.system"),
        "inst": (b"(" + text(command) + b"ios\nsystem\n", r"INST \(os\.system\)"),
        "obj": (b"(" + system + text(command) + b"o", r"os\.system"),
        "newobj": (system + arguments + b"\x81", r"os\.system"),
        "newobj_ex": (system + arguments + b"}\x92", r"os\.system"),
        "extension": (b"\x82\xf0" + arguments + b"R", r"EXT1 \(240\)"),
        "long_extension": (b"\x84\xf0\0\0\0" + arguments + b"R", r"EXT4 \(240\)"),
        "setstate": (system + b"}" + text("__setstate__") + system + b"sb", r"os\.system"),
        "build_class": (
            name("collections.OrderedDict") + b"}b",
            r"sets the state of collections\.OrderedDict",
        ),
        "build_dict": (b"}}" + text("a") + b"Nsb", "sets the state of a value of type dict"),
        "obj_known": (b"(" + name("collections.OrderedDict") + b"o", "OBJ"),
        "newobj_known": (name("collections.OrderedDict") + b")\x81", r"makes a new collections\.OrderedDict"),
        "text_id": (b"Pos.system\n", r"PERSID \(os\.system\)"),
        "eval": (name("builtins.eval") + arguments + b"R", r"builtins\.eval"),
        "load": (name("torch.storage._load_from_bytes") + b"C\x01aR", r"torch\.storage\._load_from_bytes"),
        "call_of_text": (text("os.system") + arguments + b"R", "calls a value of type str"),
    }


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("attack", hostile(""))
def test_hostile_pickles_are_refused_by_name(tmp_path, kind, attack):
    marker = tmp_path / "executed"
    payload, named = hostile(f"touch {marker}")[attack]
    body = ordered({"a": payload})
    message = rf"a\.pth.*byte \d+: .*{named}.*nothing in it was executed"
    copyreg.add_extension("os", "system", 240)
    try:
        with pytest.raises(ValueError, match=message):
            files.read(write(tmp_path / "a.pth", kind, body, {}))
        assert not marker.exists()
        if attack in ("reduce", "stack_global", "inst", "obj", "extension"):  # the attack is a real one
            pickle.loads(program(payload))
            assert marker.exists()
    finally:
        copyreg.remove_extension("os", "system", 240)


@pytest.mark.parametrize("protocol", range(6))
def test_hostile_objects_of_the_pickle_module(tmp_path, protocol):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    for kind in FORMATS:
        with pytest.raises(ValueError, match=rf"refers to {os.system.__module__}\.system"):
            torch_files.read_torch(write(tmp_path / "a.pth", kind, pickle.dumps(Attack(), protocol), {}))
    assert not (tmp_path / "executed").exists()


def test_the_other_pickles_of_the_older_format_are_no_way_in(tmp_path):
    payload = program(hostile(f"touch {tmp_path / 'executed'}")["reduce"][0])
    head = [pickle.dumps(value, 2) for value in (torch_files.MAGIC_NUMBER, 1001, {}, {})]
    for place_of_attack in range(5):
        (tmp_path / "a.pth").write_bytes(b"".join(head[:place_of_attack]) + payload)
        with pytest.raises(ValueError, match=r"refers to os\.system"):
            files.read(tmp_path / "a.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_and_misplaced_tensors_are_named(tmp_path, kind):
    on = storage("FloatStorage", "0", 6)
    fine, storages = tensor(on, 0, (2, 3), (3, 1)), simple()[1]
    for bad in [
        (0, (2, 3), (4, 1)),
        (1, (6,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (1, 1)),
        (0, (2**30,), (0,)),
    ]:
        body = ordered({"fine": fine, "layer.bad": tensor(on, *bad)})
        with pytest.raises(ValueError, match=r"a\.pth: tensor 'layer\.bad': "):
            torch_files.read_torch(write(tmp_path / "a.pth", kind, body, storages))
    missing = ordered({"fine": fine, "layer.bad": tensor(storage("FloatStorage", "1", 2), 0, (2,), (1,))})
    with pytest.raises(ValueError, match=r"'layer\.bad': its storage '1' is not in the file"):
        torch_files.read_torch(write(tmp_path / "a.pth", kind, missing, storages))
    path = write(tmp_path / "a.pth", kind, ordered({"layer.a": fine}), storages)
    if kind == "legacy":
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(ValueError, match=r"'layer\.a': its storage '0' needs 24 bytes, the file has 21"):
            torch_files.read_torch(path)
    else:
        write(path, kind, ordered({"layer.a": fine}), {"0": storages["0"][:5]})
        with pytest.raises(ValueError, match=r"'layer\.a': its storage '0' needs 24 bytes, the file has 20"):
            torch_files.read_torch(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_no_state_dict_is_an_error(tmp_path, kind):
    nested = b"N0" + b"(t" + b"".join(b"2\x86" for _ in range(60))  # t = (t, t), 60 times: 2^60 to hash
    cases = {
        "holds no tensors": ordered({}),
        "of type int instead of a state dict": integer(3),
        "'epoch' of type int instead of named tensors": b"}" + text("epoch") + integer(3) + b"s",
        "has a value of type tuple as a key": b"}" + nested + b"Ns",
        "of type dict instead": b"}q\x00"
        + text("state_dict")
        + b"h\x00s",  # a dict that is its own state dict
        "a key without a value": b"}(" + text("a") + b"u",
        "recalls value 9": b"h\x09",
        "empty stack": b"N(\x85",  # what is below the mark is out of reach
        "does not end with one value": b"NN",
        "holds a whole pickled model": tuple_of(text("module"), b"N", b"N", b"N") + b"Q",
        "never given its numbers": ordered({"a": name("torch.FloatTensor") + b")R"}),
    }
    for message, body in cases.items():
        with pytest.raises(ValueError, match=message):
            torch_files.read_torch(write(tmp_path / "a.pth", kind, body, {}))


def test_other_zip_files_are_errors(tmp_path):
    path = tmp_path / "a.pth"
    body, storages = simple()
    for entries, message in [
        ({"x.txt": b"a"}, "0 entries data.pkl"),
        ({"model.weights.h5": b"a"}, "a .keras archive"),
        ({"a/data.pkl": b"N.", "b/data.pkl": b"N."}, "2 entries data.pkl"),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            for key, value in entries.items():
                archive.writestr(key, value)
        with pytest.raises(ValueError, match=message):
            files.read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", program(body) + bytes(1000))
    with pytest.raises(ValueError, match="compressed or encrypted"):
        files.read(path)
    content = write(path, "zip", body, storages).read_bytes()
    path.write_bytes(content.replace(storages["0"].tobytes(), storages["0"][::-1].tobytes()))
    with pytest.raises(ValueError, match=r"net/data/0: its checksum is wrong"):
        files.read(path)


def damaged(content, generator):
    """One to four bytes changed, or the end cut off."""
    content = bytearray(content)
    if generator.random() < 0.3:
        return bytes(content[: generator.integers(len(content))])
    for _ in range(generator.integers(1, 5)):
        content[generator.integers(len(content))] = generator.integers(256)
    return bytes(content)


def read_or_refuse(path):
    """Every array is really read; a ValueError names the file."""
    try:
        for array in files.read(path).tensors.values():
            array.astype(np.float64).sum()
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", [*FORMATS, "pickle in a zip", "safetensors"])
@pytest.mark.filterwarnings("ignore")
def test_200_damaged_files_give_values_or_value_errors(tmp_path, kind):
    generator = np.random.default_rng(0)
    body, storages = simple()
    path = tmp_path / "a.pth"
    if kind == "safetensors":
        safetensors.save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(2, np.int8)}, path)
    elif kind in FORMATS:
        write(path, kind, body, storages)
    content = path.read_bytes() if path.exists() else program(body)
    for _ in range(200):
        if kind == "pickle in a zip":  # with the right checksum
            changed = damaged(content, generator)
            write(path, "zip", changed if changed.endswith(b".") else changed + b".", storages)
        else:
            path.write_bytes(damaged(content, generator))
        read_or_refuse(path)


def test_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.full((), 3, np.int64)}
    safetensors.save_file({**values, "c": np.array([1, 0.1], ml_dtypes.bfloat16)}, path)
    found = files.read(path).tensors
    np.testing.assert_array_equal(found["a"], values["a"])
    assert found["b"] == 3
    assert found["b"].dtype == np.int64
    np.testing.assert_array_equal(found["c"], np.array([1, 0.1], ml_dtypes.bfloat16).astype(np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"a\.safetensors: cannot be read as safetensors"):
        files.read(path)
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"a")
    with pytest.raises(ValueError, match=r"tensor 'w'.*type F8_E4M3"):
        files.read(path)


def test_a_safetensors_header_may_begin_like_a_pickle(tmp_path):
    path = tmp_path / "a.bin"
    safetensors.save_file({"a": np.ones(1, np.float32)}, path)
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    rest = path.read_bytes()[8:]
    path.write_bytes(struct.pack("<Q", 0x80) + rest[:length].ljust(0x80) + rest[length:])
    assert path.read_bytes()[0] == 0x80
    assert files.read(path).tensors["a"] == 1


# Keras.

GENERATOR = np.random.default_rng(1)
CONV = [GENERATOR.normal(size=(3, 3, 2, 4)).astype(np.float32), np.arange(4, dtype=np.float32)]
NORM = [np.full(4, i, np.float32) for i in range(4)]


def keras2(group, layers, *, names_in=None):
    """Keras 2's layout: {layer: {path of the weight: array}}; `names_in`: how many attributes share the names."""
    for layer, weights in layers.items():
        inner = group.create_group(layer)
        inner.attrs["weight_names"] = [path.encode() for path in weights]
        for path, value in weights.items():
            inner[path] = value
    parts = np.array_split(np.array([layer.encode() for layer in layers]), names_in or 1)
    for number, part in enumerate(parts):
        group.attrs[f"layer_names{number}" if names_in else "layer_names"] = part


def same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("names_in", [None, 1, 2, 3])
@pytest.mark.parametrize("inside", ["", "model_weights"])
def test_keras_2_layout(tmp_path, inside, names_in):
    layers = {
        "input_1": {},
        "normalization": {"normalization/mean:0": np.ones(3), "count:0": np.int64(0)},
        "block1_conv1": {"block1_conv1_W_1:0": CONV[0], "block1_conv1_b_1:0": CONV[1]},
        "bn": {
            f"bn/bn/{key}:0": v for key, v in zip(("gamma", "beta", "mean", "variance"), NORM, strict=True)
        },
        "a_conv": {"a_conv/kernel:0": CONV[0]},
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        keras2(file.create_group(inside) if inside else file, layers, names_in=names_in)
    found = files.read(tmp_path / "a.h5")
    assert found.classes is None
    assert list(found.layers) == ["normalization", "block1_conv1", "bn", "a_conv"]
    same(found.layers["block1_conv1"], CONV)
    same(found.layers["bn"], NORM)
    same(found.layers["normalization"], [np.ones(3), 0])


@pytest.fixture(scope="module")
def keras_network():
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras")
    x = images = keras.Input((9, 9, 3))
    for layer in ("z_conv", "m_conv", "a_conv"):
        x = keras.layers.Conv2D(2, 1, name=layer)(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, name="separable")(x)
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.Dropout(0.5)(x))
    x = keras.layers.Dense(3, name="predictions")(keras.layers.GlobalAveragePooling2D()(x))
    network = keras.Model(images, x)
    for seed, weight in enumerate(network.weights):
        weight.assign(np.random.default_rng(seed).random(weight.shape))
    network.compile("sgd", "mse")
    return network


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_name", ["a.h5", "a.weights.h5"])
def test_files_of_keras_3(tmp_path, keras_network, file_name):
    path = tmp_path / file_name
    (keras_network.save_weights if ".weights" in file_name else keras_network.save)(path)
    found = files.read(path)
    expected = {layer.name: layer.get_weights() for layer in keras_network.layers if layer.get_weights()}
    assert set(found.layers) == set(expected)
    for layer, arrays in expected.items():
        same(found.layers[layer], arrays)
    convolutions = [layer for layer in expected if layer.endswith("_conv")]
    assert [layer for layer in found.layers if layer in convolutions] == convolutions
    if found.classes is not None:
        assert {key: len(layers) for key, layers in found.classes.items()} == {
            "conv2d": 3,
            "depthwise_conv2d": 1,
            "batch_normalization": 1,
            "dense": 1,
        }
        for layer, arrays in zip(convolutions, found.classes["conv2d"], strict=True):
            same(arrays, expected[layer])


def test_numbered_layers_without_names(tmp_path):
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for i in (10, 2, 0, 1):
            file[f"layers/conv2d{f'_{i}' if i else ''}/vars/0"] = np.full(2, i)
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
        file["optimizer/vars/0"] = np.zeros(2)
    found = keras_files.read_keras(tmp_path / "a.weights.h5")
    assert found.layers is None
    assert list(found.classes) == ["conv2d"]
    assert [arrays[0][0] for arrays in found.classes["conv2d"]] == [0, 1, 2, 10]


@pytest.mark.parametrize("numbered", [False, True])
def test_bfloat16_of_keras(tmp_path, numbered):
    """Keras writes it as two bytes without a type."""
    value = np.array([1, 0.1, -3], ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if numbered:
            file["layers/dense/vars/0"] = value
        else:
            keras2(file, {"dense": {"dense/kernel": value}})
    found = keras_files.read_keras(tmp_path / "a.h5")
    (array,) = found.classes["dense"][0] if numbered else found.layers["dense"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, value.astype(np.float32))


def broken_keras_files():
    """{message: function that writes such a file}."""

    def with_link(link):
        def make(file):
            keras2(file, {"conv": {}})
            file["conv"].attrs["weight_names"] = [b"kernel:0"]
            file["conv"]["kernel:0"] = link

        return make

    def lacks_number(file):
        file["layers/dense/vars/1"] = CONV[1]

    def lacks_names(file):
        keras2(file, {"conv": {}})
        del file["conv"].attrs["weight_names"]

    def empty_promise(file):
        keras2(file, {"conv": {}})
        file["conv"].attrs["weight_names"] = [b"kernel:0"]
        file["conv"].create_dataset("kernel:0", (1 << 40,), np.float32)

    def virtual(file):
        layout = h5py.VirtualLayout((2,), np.float32)
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (2,))
        keras2(file, {"conv": {}})
        file["conv"].attrs["weight_names"] = [b"kernel:0"]
        file["conv"].create_virtual_dataset("kernel:0", layout)

    return {
        "holds no weights of Keras.*images, labels": lambda file: file.update(labels=1, images=2),
        "holds no weights of Keras.*nothing": lambda file: None,
        "lacks 'kernel:0'": lambda file: (
            keras2(file, {"conv": {}}),
            file["conv"].attrs.update(weight_names=[b"kernel:0"]),
        ),
        "lacks 'conv'": lambda file: file.attrs.update(layer_names=[b"conv"]),
        "lacks the attribute weight_names": lacks_names,
        "layer_names holds": lambda file: file.attrs.update(layer_names=[1, 2]),
        "two layers named 'conv'": lambda file: (
            keras2(file, {"conv": {}}),
            file.attrs.update(layer_names=[b"conv", b"conv"]),
        ),
        "a link to another place": with_link(h5py.ExternalLink("/etc/passwd", "/x")),
        "'kernel:0' in /conv is a link": with_link(h5py.SoftLink("/conv")),
        "not numbers": lambda file: keras2(file, {"conv": {"kernel:0": b"text"}}),
        "numbers in another file": virtual,
        "which the file does not hold": empty_promise,
        r"layers/dense/vars has arrays \[1\]": lacks_number,
    }


@pytest.mark.parametrize("message", broken_keras_files())
def test_broken_keras_files(tmp_path, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        broken_keras_files()[message](file)
    with pytest.raises(ValueError, match=rf"(?s)a\.h5: .*{message}"):
        files.read(tmp_path / "a.h5")


def test_truncated_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        keras2(file, {"conv": {"kernel:0": CONV[0]}})
    content = (tmp_path / "a.h5").read_bytes()
    for length in range(8, len(content), 101):
        (tmp_path / "a.h5").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a\.h5: cannot be read as HDF5"):
            files.read(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match=r"a\.h5: cannot be read as HDF5"):
        keras_files.read_keras(tmp_path / "a.h5")


# The dispatcher.


def test_the_content_counts_and_not_the_name(tmp_path):
    with h5py.File(tmp_path / "a.pth", "w") as file:
        keras2(file, {"conv": {"kernel:0": CONV[0]}})
    assert isinstance(files.read(str(tmp_path / "a.pth")), files.KerasWeights)
    body, storages = simple()
    for kind in FORMATS:
        found = files.read(write(tmp_path / "a.h5", kind, body, storages))
        assert isinstance(found, files.TorchWeights)
        assert found.tensors["a"].shape == (2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n  <!DOCTYPE html><html>not found</html>", "is a web page"),
        (b"\xef\xbb\xbf<HTML>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"PK", "no weight file known here"),
        (b"hello", "no weight file known here: it begins with b'hello'"),
        (b"\x80", "byte 0: "),
        (pickle.dumps({"a": 1}, 2), "a pickle, but not one of torch.save"),
    ],
)
def test_other_files_are_errors(tmp_path, content, message):
    path = pathlib.Path(tmp_path / "weights")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"weights.*{message}"):
        files.read(path)


def test_missing_files_are_errors(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        for read in (
            files.read,
            torch_files.read_torch,
            torch_files.read_safetensors,
            keras_files.read_keras,
        ):
            with pytest.raises(ValueError, match=str(path)):
                read(path)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        torch_files.read_torch(tmp_path / "empty")
