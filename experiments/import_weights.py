"""Bring weights of Keras or torchvision into one of our networks, for training and for features.

    python experiments/import_weights.py --list
    python experiments/import_weights.py --network=efficientnet_b0 --weights=efn --channels=5 --out=weights/efficientnet
    python experiments/import_weights.py --network=resnet50 --weights=mine.pth --scaling=torch --num_outputs=7 \
        --out=weights/resnet50
    python experiments/train.py --config=… --config.model.name=resnet50 --config.start_from=weights/resnet50 \
        --config.preprocess.intensity=pretrained

Public weights are downloaded to $COOS_CACHE (default ~/.cache/coos/weights) and checked. A file is read whatever its
name: Keras .h5 and .weights.h5, torch .pth, .safetensors. No pickle is ever executed.
"""

import pathlib
import sys

from absl import app, flags

from coos import console
from coos.models import pretrained
from coos.models.summary import count
from coos.train import weights

_LIST = flags.DEFINE_bool("list", False, "List the networks and their public weights.")
_NETWORK = flags.DEFINE_string("network", None, "Network, as in --list.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Name of public weights, as in --list, or a file.")
_OUT = flags.DEFINE_string("out", None, "New folder for the imported weights.")
_CHANNELS = flags.DEFINE_integer("channels", None, "Input channels (default: the file's, 3).", lower_bound=1)
_STEM = flags.DEFINE_string("stem", "cyclic", "How three channels become more: cyclic or rescaled.")
_SCALING = flags.DEFINE_string("scaling", None, f"Input scaling of a file: {', '.join(pretrained.SCALINGS)}.")
_NUM_OUTPUTS = flags.DEFINE_integer(
    "num_outputs", None, "A new head of so many outputs (default: the file's).", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Of a new head.")
_CACHE = flags.DEFINE_string("cache_dir", None, "Folder for downloads.")


def listing() -> str:
    """Every importable network with its public weights."""
    lines = [f"{'network':<18}{'weights':<16}{'input':<8}{'classifier':<12}address"]
    for network in pretrained.importable():
        for name, known in pretrained.KNOWN.get(network, {}).items():
            top = "yes" if known.top else "no"
            lines.append(f"{network:<18}{name:<16}{known.scaling:<8}{top:<12}{known.url}")
    return "\n".join(lines)


def summary(network: str, found: pretrained.Imported) -> str:
    """What was imported, in a few lines."""
    drawn = f"; drawn at random: {', '.join(found.fresh)}" if found.fresh else ""
    channels = len(found.scaling.offset)
    options = ", ".join(f"{name}={value}" for name, value in found.options.items()) or "none"
    return (
        f"{network}: {count(found.variables['params']):,} parameters from {found.source.name}{drawn}\n"
        f"options: {options}; {channels} input channels; "
        f"input: (x - {found.scaling.offset}) / {found.scaling.scale} of pixels from 0 to 255"
    )


def main(argv: list[str]) -> None:
    """Import, save, and say what was done."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    if _LIST.value:
        print(listing())
        return
    network, given, out = _NETWORK.value, _WEIGHTS.value, _OUT.value
    if network is None or given is None or out is None:
        raise app.UsageError("--network, --weights and --out are needed (or --list)")
    folder = pathlib.Path(out).resolve()
    try:
        weights.check_empty(folder)
        found = pretrained.load(
            network,
            given,
            num_outputs=_NUM_OUTPUTS.value,
            channels=_CHANNELS.value,
            stem=_STEM.value,
            input_scaling=_SCALING.value,
            seed=_SEED.value,
            cache_dir=_CACHE.value,
        )
        weights.save(folder, network, found)
    except (ValueError, OSError) as error:
        sys.exit(f"import_weights.py: {error}")
    print(summary(network, found))
    print(f"saved: {folder}")


if __name__ == "__main__":
    app.run(main)
