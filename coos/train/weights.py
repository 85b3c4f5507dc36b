"""Folders of weights that a training starts from: imported ones, and work directories of other runs.

A folder of imported weights holds `weights.json` (network, options, input scaling, where they come from) and, like a
run, the Orbax checkpoint `best`.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
from absl import logging

from coos import models
from coos import workdir as work
from coos.models import summary
from coos.models.pretrained import Imported
from coos.models.pretrained.load import IMAGE_SIZE
from coos.train.checkpoint import Checkpoints
from coos.train.learner import OWN_MODEL_FIELDS
from coos.train.state import TrainState

RECORD = "weights.json"
HEAD = "logits"  # and what is named after it, as DeepLoc's batch norm


def check_empty(directory: pathlib.Path) -> None:
    """Raise ValueError if something is at `directory` already."""
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
        raise ValueError(f"{directory} is not an empty folder; name a new one")


def save(directory: pathlib.Path, network: str, imported: Imported) -> None:
    """Write imported weights to a new folder; ValueError if it holds something already."""
    check_empty(directory)
    params = imported.variables["params"]
    tree = {"params": params, "batch_stats": imported.variables.get("batch_stats", {})}
    record = {
        "network": network,
        "num_outputs": imported.module.num_outputs,
        "channels": len(imported.scaling.offset),
        "options": imported.options,
        "scaling": {"mean": imported.scaling.offset, "std": imported.scaling.scale},
        "drawn_at_random": imported.fresh,
        "source": imported.source.name,
        "versions": work.versions(),
    }
    with Checkpoints(directory / "best", keep=1) as checkpoints:
        checkpoints.save(0, tree, {"source": imported.source.name})
    work.write_json(directory / RECORD, record)


def read_record(directory: pathlib.Path) -> dict[str, Any]:
    """What `save` wrote about the weights, or the like of the network of a run; ValueError if there is neither."""
    if (directory / RECORD).exists():
        return work.read_json(directory / RECORD)
    if not (directory / "config.json").exists():
        raise ValueError(
            f"{directory}: no {RECORD}, which experiments/import_weights.py writes, nor config.json of a run"
        )
    run = work.read_json(directory / "config.json")
    model, dataset = run["config"]["model"], run["dataset"]
    return {
        "network": model["name"],
        "num_outputs": len(dataset["tasks" if "tasks" in dataset else "class_names"]),
        "channels": dataset["image_shape"][-1],
        "options": {name: value for name, value in model.items() if name not in OWN_MODEL_FIELDS},
        "image_size": run["config"]["preprocess"].get("crop", dataset["image_shape"][0]),
        "drawn_at_random": [],
        "source": str(directory),
    }


def input_scaling(directory: pathlib.Path) -> dict[str, Any]:
    """The scaling that imported weights were trained with; ValueError for those of a run, which have none."""
    record = read_record(directory)
    if "scaling" not in record:
        raise ValueError(
            f"preprocess.intensity='pretrained': {directory} is a run, not imported weights; give the run's intensity"
        )
    return record["scaling"]


def load(directory: str | pathlib.Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Module, variables and record of a folder that `save` wrote, or of a run."""
    directory = pathlib.Path(directory).resolve()
    record = read_record(directory)
    module = models.create(record["network"], num_outputs=record["num_outputs"], **_options(record))
    size = record.get("image_size", IMAGE_SIZE)
    shapes = summary.shapes(module, (size, size, record["channels"]))
    host = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    wanted = {"params": host["params"], "batch_stats": host.get("batch_stats", {})}
    with Checkpoints(directory / "best", keep=1) as checkpoints:
        try:
            restored = checkpoints.restore(wanted, set_aside=False)
        except ValueError as error:
            raise ValueError(
                f"{directory}: its checkpoint is damaged, or not {RECORD}'s; import again"
            ) from error
    if restored is None:
        raise ValueError(f"{directory}: {RECORD} without its checkpoint; import the weights again")
    return module, restored.tree, record


def _options(record: dict[str, Any]) -> dict[str, Any]:
    """Options as they were: JSON knows no tuples."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in record["options"].items()}


def check_fit(module: Any, channels: int, directory: str | pathlib.Path) -> None:
    """Raise ValueError where the weights are of another network, other options or other input channels."""
    record = read_record(pathlib.Path(directory))
    options = _options(record)
    given = models.create(record["network"], num_outputs=record["num_outputs"], **options)
    if type(given) is not type(module):
        raise ValueError(f"{directory} holds weights of {record['network']}, not of {type(module).__name__}")
    for name, value in options.items():
        if getattr(module, name) != value:
            raise ValueError(
                f"{directory}: these weights need model.{name}={value!r}, not {getattr(module, name)!r}"
            )
    if channels != record["channels"]:
        raise ValueError(
            f"{directory} holds weights for {record['channels']} channels, the images have {channels}; "
            f"import them with --channels={channels}"
        )


def begin(state: TrainState, module: Any, directory: str | pathlib.Path) -> TrainState:
    """`state` with the imported weights in place of the drawn ones; a head of another size stays as drawn.

    Raises ValueError where a layer has another shape.
    """
    given, variables, _ = load(directory)
    params = _take(state.params, variables["params"], directory)
    stats = _take(state.batch_stats, variables["batch_stats"], directory)
    logging.info("starting from the weights in %s", directory)
    if module.num_outputs != given.num_outputs:
        logging.info("a new head of %d outputs", module.num_outputs)
    return dataclasses.replace(state, params=params, batch_stats=stats)


def _take(fresh: Any, given: Any, directory: str | pathlib.Path) -> Any:
    """The given arrays in the structure of the fresh ones; a head of another size stays fresh, its norm too."""
    head = {name: layer for name, layer in fresh.items() if name.startswith(HEAD)}
    if jax.tree.map(np.shape, head) != jax.tree.map(np.shape, {name: given.get(name) for name in head}):
        given = {**given, **head}
    ours = dict(jax.tree_util.tree_leaves_with_path(fresh))
    theirs = dict(jax.tree_util.tree_leaves_with_path(given))
    for path, array in ours.items():
        name = "/".join(entry.key for entry in path)
        if path not in theirs:
            raise ValueError(f"{directory}: {name} is missing")
        if np.shape(theirs[path]) != np.shape(array):
            raise ValueError(
                f"{directory}: {name} has shape {np.shape(theirs[path])}, the network needs {np.shape(array)}"
                " (other input channels? import the weights with --channels)"
            )
    return jax.tree.map(lambda a, b: np.asarray(b, a.dtype), fresh, given)
