"""What a state dict's pickle describes, without running it.

A pickle is a program for a small stack machine. Most of its opcodes push and collect plain data; a few import a name
and call it, and those make a pickle from elsewhere as dangerous as a script. This interpreter takes its opcodes from
`pickletools`, collects the data, and imports and calls nothing: names are only compared with the few that a state
dict needs, and what they would build is written down as `Storage` and `Tensor`. Anything else is an error.

Known are an OrderedDict, storages, and dense tensors and parameters in the forms of today and of early 2017, when
some of torchvision's files were made: `_rebuild_tensor_v2`, its first version, a Parameter with a state, and before
them an empty torch.FloatTensor that gets its state afterwards.
"""

import collections
import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
STORAGE_DTYPES = {f"{place}.{name}": STORAGES[name] for place in ("torch", "torch.cuda") for name in STORAGES}
EMPTY_TENSORS = frozenset(name.replace("Storage", "Tensor") for name in STORAGE_DTYPES)
PARAMETERS = frozenset({"torch.nn.parameter.Parameter", "torch._utils._rebuild_parameter"})
REBUILDERS = frozenset({"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"})
ORDERED_DICT = "collections.OrderedDict"
KNOWN = STORAGE_DTYPES.keys() | EMPTY_TENSORS | PARAMETERS | REBUILDERS | {ORDERED_DICT}

NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
SINGLETONS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
CONSTANTS = frozenset((*NUMBERS, *TEXTS, *BYTES, *SINGLETONS))
FOREIGN = "not a plain state dict"
DAMAGED = "the pickle is damaged"
SHOWN = 100  # characters of a name in a message
FIXED_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that the pickle refers to; one of KNOWN."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """`numel` numbers kept elsewhere in the file; `view`: (first, how many) of them that this storage shows."""

    dtype: str
    key: str
    numel: int
    view: tuple[int, int] | None = None


@dataclasses.dataclass
class Tensor:
    """Elements of a storage; offset and strides count elements. `storage` is None until an oldest tensor is filled."""

    storage: Storage | None = None
    offset: Any = 0
    size: Any = ()
    stride: Any = ()


def interpret(data: Any, *, where: str) -> tuple[Any, dict[str, Storage]]:
    """The value that one pickle describes, and the storages it mentions by key.

    `data` is bytes, or a file or mmap, which is left behind the pickle's end. A pickle with anything but a state
    dict's parts raises ValueError with `where`, the byte and the name.
    """
    machine = _Machine()
    position: int | None = 0
    try:
        for opcode, argument, start in pickletools.genops(data):
            position = start
            machine.step(opcode.name, argument)
        return machine.result(), machine.storages
    except ValueError as error:
        raise ValueError(f"{where}, byte {position}: {error}; nothing in it was executed") from error


class _Machine:
    """The stack (above the last mark), the stacks below the marks, and the memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in CONSTANTS:
            self.push(SINGLETONS.get(name, argument))
        elif name in FIXED_TUPLES:
            items = [self.pop() for _ in range(FIXED_TUPLES[name])]
            self.push(tuple(reversed(items)))
        elif name in OPERATIONS:
            OPERATIONS[name](self, argument)
        else:
            detail = f" ({str(argument).replace(' ', '.')[:SHOWN]})" if argument is not None else ""
            raise ValueError(f"uses the opcode {name}{detail}: {FOREIGN}")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:  # what is below a mark stays out of reach
            raise ValueError(f"takes a value from an empty stack: {DAMAGED}")
        return self.stack.pop()

    def top(self) -> Any:
        value = self.pop()
        self.push(value)
        return value

    def pop_to_mark(self) -> list[Any]:
        if not self.below:
            raise ValueError(f"looks for a mark that is not there: {DAMAGED}")
        items, self.stack = self.stack, self.below.pop()
        return items

    def result(self) -> Any:
        if len(self.stack) != 1 or self.below:
            raise ValueError(f"does not end with one value: {DAMAGED}")
        return self.pop()


def _mark(machine: _Machine, _: Any) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.top()


def _get(machine: _Machine, index: int) -> None:
    if index not in machine.memo:
        raise ValueError(f"recalls value {index}, which it never kept: {DAMAGED}")
    machine.push(machine.memo[index])


def _append(items: list[Any], target: Any) -> None:
    if not isinstance(target, list):
        raise ValueError(f"appends to {_kind(target)}: {FOREIGN}")
    target.extend(items)


def _set_items(items: list[Any], target: Any) -> dict:
    """Only plain keys: the hash of nested tuples can take for ever."""
    if not isinstance(target, dict):
        raise ValueError(f"sets items of {_kind(target)}: {FOREIGN}")
    if len(items) % 2:
        raise ValueError(f"a key without a value: {DAMAGED}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | bytes | int | float | None):
            raise ValueError(f"has {_kind(key)} as a key: {FOREIGN}")
        target[key] = value
    return target


def _global(machine: _Machine, argument: str) -> None:
    """GLOBAL, whose argument is "module name"."""
    name = argument.replace(" ", ".")
    if name not in KNOWN:
        raise ValueError(f"refers to {name[:SHOWN]}: {FOREIGN} (save model.state_dict(), not a whole model)")
    machine.push(Global(name))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise ValueError(f"refers to a name that is no text: {DAMAGED}")
    _global(machine, f"{module} {name}")


def _reduce(machine: _Machine, _: Any) -> None:
    """A call in a pickle: written down where it makes an OrderedDict or a tensor, else refused."""
    arguments, function = machine.pop(), machine.pop()
    name = function.name if isinstance(function, Global) else _kind(function)
    if not isinstance(arguments, tuple):
        raise ValueError(f"calls {name} with {_kind(arguments)}: {FOREIGN}")
    if name == ORDERED_DICT:
        machine.push(_ordered_dict(arguments))
    elif name in REBUILDERS and 4 <= len(arguments) <= 7:
        machine.push(_tensor(Tensor(), arguments[:4]))
    elif name in PARAMETERS and 1 <= len(arguments) <= 3 and isinstance(arguments[0], Tensor):
        machine.push(arguments[0])
    elif name in EMPTY_TENSORS and not arguments:
        machine.push(Tensor())
    else:
        raise ValueError(f"calls {name} with {len(arguments)} arguments: {FOREIGN}")


def _new_object(machine: _Machine, _: Any) -> None:
    """NEWOBJ: some versions made parameters with it."""
    function = machine.stack[-2] if len(machine.stack) > 1 else None
    if not isinstance(function, Global) or function.name not in PARAMETERS:
        raise ValueError(f"makes a new {getattr(function, 'name', _kind(function))}: {FOREIGN}")
    _reduce(machine, None)


def _ordered_dict(arguments: tuple[Any, ...]) -> collections.OrderedDict:
    """Empty, or Python 2's form with a list of its pairs."""
    made: collections.OrderedDict = collections.OrderedDict()
    pairs = arguments[0] if arguments else []
    if len(arguments) > 1 or not isinstance(pairs, list):
        raise ValueError(f"calls {ORDERED_DICT} with something else than pairs: {FOREIGN}")
    for pair in pairs:
        _set_items(list(pair) if isinstance(pair, list | tuple) and len(pair) == 2 else [pair], made)
    return made


def _tensor(tensor: Tensor, state: tuple[Any, ...]) -> Tensor:
    if not isinstance(state[0], Storage):
        raise ValueError(f"a tensor on {_kind(state[0])} instead of a storage: {FOREIGN}")
    tensor.storage, tensor.offset, tensor.size, tensor.stride = state
    return tensor


def _build(machine: _Machine, _: Any) -> None:
    """An object's state, set without a call: attributes of an OrderedDict and flags of a parameter say nothing."""
    state, target = machine.pop(), machine.top()
    if isinstance(target, collections.OrderedDict):
        return
    if not isinstance(target, Tensor) or not isinstance(state, tuple):
        raise ValueError(f"sets the state of {_kind(target)}: {FOREIGN}")
    if target.storage is None and len(state) == 4:  # the oldest form
        _tensor(target, state)
    elif len(state) != 3:  # requires_grad, volatile, hooks
        raise ValueError(f"sets a tensor's state to {len(state)} values: {FOREIGN}")


def _persistent(machine: _Machine, _: Any) -> None:
    """A reference to a storage: ("storage", class, key, device, numel) and, in the older format, a view of it."""
    reference = machine.pop()
    if isinstance(reference, tuple) and reference[:1] == ("module",):
        raise ValueError(f"holds a whole pickled model: {FOREIGN} (save model.state_dict())")
    if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
        raise ValueError(f"refers to something stored that is no storage: {FOREIGN}")
    kind, key, numel = reference[1], reference[2], reference[4]
    dtype = STORAGE_DTYPES.get(kind.name) if isinstance(kind, Global) else None
    if dtype is None or not isinstance(key, str) or type(numel) is not int or numel < 0:
        raise ValueError(f"a storage without a known type, a key or a length: {DAMAGED}")
    root = Storage(dtype, key, numel)
    if machine.storages.setdefault(key, root) != root:
        raise ValueError(f"storage {key!r} has two types or lengths: {DAMAGED}")
    view = reference[5] if len(reference) == 6 else None
    machine.push(root if view is None else dataclasses.replace(root, view=_view(view, numel)))


def _view(view: Any, numel: int) -> tuple[int, int]:
    """(key, first, how many) -> (first, how many)."""
    first, count = view[1:] if isinstance(view, tuple) and len(view) == 3 else (-1, -1)
    if not all(type(i) is int and i >= 0 for i in (first, count)) or first + count > numel:
        raise ValueError(f"a view that goes beyond its storage: {DAMAGED}")
    return first, count


def _kind(value: Any) -> str:
    """What a value is, for messages; its contents may be endless."""
    return value.name if isinstance(value, Global) else f"a value of type {type(value).__name__}"


OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "MARK": _mark,
    "POP": lambda machine, _: machine.stack.pop() if machine.stack else machine.pop_to_mark(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "APPEND": lambda machine, _: _append([machine.pop()], machine.top()),
    "APPENDS": lambda machine, _: _append(machine.pop_to_mark(), machine.top()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "DICT": lambda machine, _: machine.push(_set_items(machine.pop_to_mark(), {})),
    "SETITEM": lambda machine, _: _set_items([machine.pop(), machine.pop()][::-1], machine.top()),
    "SETITEMS": lambda machine, _: _set_items(machine.pop_to_mark(), machine.top()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _new_object,
    "BUILD": _build,
    "BINPERSID": _persistent,
}
