"""Everything that can be wrong with a config, said before anything is computed or written."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

AT_LEAST_ONE = (
    "num_steps",
    "batch_size",
    "accumulation_steps",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluation.batch_size",
)
MODES = ("auto", "resident", "stream")  # of data.mode
CLASSIFICATION_CHOICES = {
    "select": ("balanced_error", "cross_entropy"),  # lower is better
    "evaluation.crops": (1, 5),
    "evaluation.validation_crops": (1, 5),
}


def value(config: ml_collections.ConfigDict, name: str) -> Any:
    """The field of a config that a dotted name names."""
    node = config
    for part in name.split("."):
        node = node[part]
    return node


def check_choices(config: ml_collections.ConfigDict, choices: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse a field {name: allowed values} that has none of them. Raises ValueError naming the field."""
    for name, allowed in choices.items():
        if value(config, name) not in allowed:
            raise ValueError(f"{name}={value(config, name)!r}: choose one of {allowed}")


def check_settings(config: ml_collections.ConfigDict) -> None:
    """Refuse values that no data set and no task could make right. Raises ValueError naming the field."""
    for name in AT_LEAST_ONE:
        if value(config, name) < 1:
            raise ValueError(f"{name}={value(config, name)}: must be at least 1")
    check_choices(config, {"data.mode": MODES})
    if config.steps_per_dispatch < 0 or config.seed < 0:
        raise ValueError(
            f"seed={config.seed}, steps_per_dispatch={config.steps_per_dispatch}: must not be negative"
        )
    if config.preprocess.intensity == "pretrained" and not config.start_from:
        raise ValueError(
            "preprocess.intensity='pretrained' is the scaling of imported weights: set start_from"
        )
    _check_dtype(config.model.dtype)
    share = jax.device_count() * config.accumulation_steps
    if config.batch_size % share:
        raise ValueError(
            f"batch_size={config.batch_size} cannot be divided among {jax.device_count()} devices times "
            f"accumulation_steps={config.accumulation_steps}"
        )


def check_classification(config: ml_collections.ConfigDict) -> None:
    """Refuse values that no data set could make right in a classification. Raises ValueError naming the field."""
    check_choices(config, CLASSIFICATION_CHOICES)
    if not 0 < config.data.validation_fraction < 1:
        raise ValueError(
            f"data.validation_fraction={config.data.validation_fraction}: must lie between 0 and 1"
        )


def _check_dtype(name: str) -> None:
    try:
        floating = jnp.issubdtype(jnp.dtype(name), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise ValueError(f"model.dtype={name!r}: choose a floating type such as 'float32' or 'bfloat16'")


TARGETS = {
    "classification": "class_names",
    "multitask": "tasks",
    "single_cells": "places",
    "inpainting": "class_names",
    "phenotypes": "fields",  # of experiments/phenotypes.py
}


def check_targets(config: ml_collections.ConfigDict, dataset: dict[str, Any]) -> None:
    """Refuse a data set whose examples have no targets of the task."""
    if TARGETS[config.task] not in dataset:
        kinds = [task for task, name in TARGETS.items() if name in dataset]
        raise ValueError(
            f"task={config.task!r}: {dataset['directory']} has no {TARGETS[config.task]}; its task is {kinds[0]!r}"
        )


def check_against(config: ml_collections.ConfigDict, dataset: dict[str, Any]) -> None:
    """Refuse settings that do not fit the images and sets of `dataset`, as `coos.data.source.describe` has it."""
    height, width, _ = dataset["image_shape"]
    room = min(height, width) - config.preprocess.crop
    if room < 0:
        raise ValueError(
            f"preprocess.crop={config.preprocess.crop} is larger than the images, {height} x {width}"
        )
    if config.augment.max_offset > room:
        raise ValueError(f"augment.max_offset={config.augment.max_offset}: the images leave room for {room}")
    check_sets(config, dataset)


def check_sets(config: ml_collections.ConfigDict, dataset: dict[str, Any]) -> None:
    """Refuse evaluation sets that the data set does not have."""
    missing = [name for name in config.evaluation.sets if name not in dataset["splits"]]
    if missing:
        raise ValueError(
            f"evaluation.sets: no {missing[0]!r} in {dataset['directory']}; it has {list(dataset['splits'])} "
            "(on the command line: --config.evaluation.sets=\"('train','test')\")"
        )
