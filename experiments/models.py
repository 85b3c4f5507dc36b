"""The networks: paper, published input, parameters, operations, layers whose features can be taken.

    python experiments/models.py                              # the list
    python experiments/models.py gapnet efficientnet_b0       # these, with the size of every feature layer
    python experiments/models.py deeploc --input=64,64,5 --num_outputs=12      # at another input

GFLOPs are those of the logits of one example; a multiplication and its addition count as two (papers often print
multiply-adds: half of it).
"""

import inspect
import sys

from absl import app, flags

from coos import console, models, registry
from coos.models.layers import Published
from coos.models.summary import Summary, summarize

_INPUT = flags.DEFINE_list("input", None, "Shape of one example, e.g. 64,64,5 (default: as published).")
_OUTPUTS = flags.DEFINE_integer("num_outputs", None, "Number of logits (default: published).", lower_bound=1)

WIDTHS = {"name": 17, "paper": 52, "input": 12, "outputs": 8, "parameters": 12, "GFLOPs": 9}


def line(*cells: str) -> str:
    """Cells under the columns of the list; numbers to the right."""
    widths = list(WIDTHS.values())
    left = [f"{cell:<{width}}" for cell, width in zip(cells[:3], widths[:3], strict=False)]
    right = [f"{cell:>{width}}" for cell, width in zip(cells[3:6], widths[3:], strict=False)]
    return "".join(left + right) + "  " + "".join(cells[6:])


def some(names: list[str]) -> str:
    """The first and last few of many names."""
    return ", ".join(names if len(names) <= 8 else [*names[:3], "…", *names[-4:]])


def setting(name: str) -> Published:
    """The published setting of a network, or what the flags say in its place."""
    published = getattr(registry.lookup("coos.models", name), "PUBLISHED", None)
    if published is None and not (_INPUT.value and _OUTPUTS.value):
        raise ValueError(f"{name} says nothing of a published setting; give --input and --num_outputs")
    published = published or Published("", (), 0, 0)
    if _INPUT.value:
        published = published._replace(input_shape=input_shape(_INPUT.value))
    return published._replace(num_outputs=_OUTPUTS.value or published.num_outputs)


def input_shape(extents: list[str]) -> tuple[int, ...]:
    """The shape of one example from the flag."""
    if len(extents) not in (1, 3) or not all(extent.isdecimal() and int(extent) > 0 for extent in extents):
        raise ValueError(
            f"--input={','.join(extents)}: give height,width,channels, or the number of features"
        )
    return tuple(int(extent) for extent in extents)


def look(name: str) -> tuple[str, Summary]:
    """The line of one network in the list, and its summary."""
    paper, shape, outputs, _ = setting(name)
    found = summarize(models.create(name, num_outputs=outputs), shape)
    size = "×".join(map(str, shape))
    cells = (name, paper, size, str(outputs), f"{found.parameters:,}", f"{found.flops / 1e9:.2f}")
    return line(*cells, some(list(found.features))), found


def details(name: str, found: Summary) -> str:
    """Options and every feature layer with its size."""
    options = inspect.signature(registry.lookup("coos.models", name).create).parameters
    shown = ", ".join(
        f"{key}={p.default!r}" for key, p in options.items() if key not in ("num_outputs", "dtype")
    )
    sizes = [f"  {layer:<28}{'×'.join(map(str, shape))}" for layer, shape in found.features.items()]
    return f"  options: {shown}\n  running statistics: {found.statistics:,}\n" + "\n".join(sizes)


def main(argv: list[str]) -> None:
    """Print the list, or the named networks in detail."""
    console.setup()
    print(line(*WIDTHS, "feature layers"))
    for name in argv[1:] or models.available():
        try:
            text, found = look(name)
        except ValueError as error:
            if argv[1:]:
                sys.exit(f"models.py: {error}")
            text, found = f"{name:<17}{error}", None
        print(text, flush=True)
        if argv[1:] and found:
            print(details(name, found))


if __name__ == "__main__":
    app.run(main)
