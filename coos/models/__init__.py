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

from coos import registry

HELPERS = ("layers", "pretrained", "summary")  # modules of this package that are no networks


def available() -> tuple[str, ...]:
    """Names that `create` knows."""
    return registry.available("coos.models")


def create(name: str, *, num_outputs: int, **options: Any) -> nn.Module:
    """The network called `name` with `num_outputs` logits.

    Raises ValueError for an unknown name (listing the known ones) or option (listing the network's).
    """
    factory = registry.lookup("coos.models", name).create
    known = [option for option in inspect.signature(factory).parameters if option != "num_outputs"]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"model {name!r} has no option {unknown[0]!r}; it has {known}")
    return factory(num_outputs=num_outputs, **options)
