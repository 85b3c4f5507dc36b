"""Networks by name: one architecture per file, each returning logits and named features.

    model = coos.models.create("deeploc", num_outputs=7)
    variables = model.init(key, images)
    output = model.apply(variables, images, train=False)     # {"logits": (B, 7), "features": {layer: array}}

To add an architecture, write `coos/models/<name>.py` with a `create(num_outputs, **options)` that returns a
Linen module; it is found by its file name.
"""

import inspect
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from coos import registry

COUNTS = (
    "num_outputs",
    "width",
    "units",
    "fc_units",
    "mix_units",
    "instance_units",
    "growth",
    "source_channels",
)
RATES = ("dropout", "input_dropout", "instance_dropout", "drop_connect", "momentum")
HELPERS = ("layers", "pretrained", "summary")  # modules of this package that are no networks


def available() -> tuple[str, ...]:
    """Names that `create` knows."""
    return registry.available("coos.models")


def create(name: str, *, num_outputs: int, **options: Any) -> nn.Module:
    """The network called `name` with `num_outputs` logits.

    Raises ValueError for an unknown name (listing the known ones) or option (listing the network's), and for values
    that no network can have.
    """
    factory = registry.lookup("coos.models", name).create
    known = [option for option in inspect.signature(factory).parameters if option != "num_outputs"]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"model {name!r} has no option {unknown[0]!r}; it has {known}")
    _check_values(name, {"num_outputs": num_outputs, **options})
    return factory(num_outputs=num_outputs, **options)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_values(name: str, options: dict[str, Any]) -> None:
    """Counts are whole numbers from 1 on, rates lie in [0, 1), dtypes are floating."""
    for option, value in options.items():
        if option in COUNTS and value is not None and (not _is_whole(value) or value < 1):
            raise ValueError(f"model {name!r}: {option}={value!r}: give a whole number from 1 on")
        if option in RATES and value is not None and not 0 <= value < 1:
            raise ValueError(f"model {name!r}: {option}={value!r}: give a rate of at least 0 and below 1")
        if option == "dtype" and not jnp.issubdtype(jnp.dtype(value), jnp.floating):
            raise ValueError(f"model {name!r}: dtype={value!r}: give a floating type such as jnp.bfloat16")
