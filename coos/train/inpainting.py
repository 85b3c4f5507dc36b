"""The task of paired cell inpainting (Lu et al. 2019, self-supervised): paint a cell's protein from another cell.

A training example is a pair of cells of one group, such as a well: the source, seen whole, and the target, of which the
network sees the markers alone and predicts the protein, the first channel. The loss is the mean squared error. Where
the protein lies in a cell must come from the source, so that the source encoder learns to tell proteins apart; its
features are the profile. No label is used.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax import Array

from coos import splits
from coos.data import groups, pipeline, preprocess
from coos.data import source as sources
from coos.data.source import Source
from coos.models import layers
from coos.train import checks
from coos.train.learner import Learner, create_model
from coos.workdir import Predictions

MAXIMIZED = ()
SELECTED = ("mean_squared_error", "newest")
MULTIPLE = 4  # of which height and width must be: the network halves them twice


class Inpainter(Learner):
    """A network that paints the first channel of a target cell from its others and from a source cell."""

    def prepared_shape(self) -> tuple[int, ...]:
        """Source channels, then those of the target but the first."""
        height, width, channels = self.input_shape
        return (height, width, 2 * channels - 1)

    def loss(self, params: Any, batch_stats: Any, batch: dict[str, Array], key: Array):
        """Per-pair mean squared error over the pixels of the target's protein, of cells mirrored at random.

        Images are (B, 2, H, W, C), source and target. Each pair has its own key, made of the step's and the number of
        its source, so that its flips do not depend on the device it lands on.
        """
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["example"][:, 0])
        cells = jax.vmap(self._flipped)(keys, self.scaled(batch["image"]))
        variables = {"params": params, "batch_stats": batch_stats}
        output, updates = self.model.apply(variables, self._input(cells), train=True, mutable=["batch_stats"])
        errors = jnp.square(output["logits"][..., 0] - cells[:, 1, ..., 0]).mean((1, 2))
        return errors, (updates.get("batch_stats", {}), {})

    def scaled(self, images: Array) -> Array:
        """Every cell (..., H, W, C) as the config's intensity has it: by default each channel to [0, 1]."""
        intensity = preprocess.intensity_function(self.config.preprocess.intensity, **self.constants)
        flat = images.reshape(-1, *images.shape[-3:])
        return jax.vmap(intensity)(flat).reshape(images.shape)

    def _flipped(self, key: Array, pair: Array) -> Array:
        """Source and target mirrored apart, vertically and horizontally with probability 1/2 each."""
        return jax.vmap(preprocess.random_flips)(jax.random.split(key, 2), pair)

    def _input(self, pairs: Array) -> Array:
        return jnp.concatenate([pairs[:, 0], pairs[:, 1, ..., 1:]], axis=-1)

    def paint(self, variables: Any, images: Array) -> tuple[Array, Array]:
        """Scaled pairs (B, 2, H, W, C) of raw ones, and the predicted protein of their targets (B, H, W)."""
        cells = self.scaled(images)
        return cells, self.model.apply(variables, self._input(cells), train=False)["logits"][..., 0]

    def predict(self, variables: Any, batch: dict[str, Array], *, validating: bool) -> Array:
        """Mean squared error of every pair, of the painted protein and of the source's own pasted: (B, 2) float32.

        Nothing is mirrored.
        """
        del validating
        cells, painted = self.paint(variables, batch["image"])
        guesses = jnp.stack([painted, cells[:, 0, ..., 0]], axis=1)
        return jnp.square(guesses - cells[:, 1:, ..., 0]).mean((2, 3))

    def represent(self, variables: Any, images: Array, *, layer: str, pooling: str = "max") -> Array:
        """Features of the source encoder in one of its layers: (B, H, W, C) raw -> (B, D) float32.

        What leaves the ReLU, before the batch norm, and its maximum over space (as published) or mean.
        """
        found = self.model.apply(variables, self.scaled(images), method="encode")
        if layer not in found:
            raise ValueError(f"layer {layer!r}: the source encoder has {', '.join(found)}")
        return layers.pool_features({layer: found[layer]}, pooling=pooling)[layer].astype(jnp.float32)


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with the number of source channels; ValueError where it cannot be right."""
    dataset = sources.describe(config.data.directory)
    checks.check_targets(config, dataset)
    checks.check_settings(config)
    checks.check_choices(config, {"select": SELECTED})
    checks.check_sets(config, dataset)
    if not 0 < config.data.validation_fraction < 1:
        raise ValueError(
            f"data.validation_fraction={config.data.validation_fraction}: must lie between 0 and 1"
        )
    if config.pairs.smallest_group < 2:
        raise ValueError(f"pairs.smallest_group={config.pairs.smallest_group}: a pair needs two cells")
    height, width, channels = dataset["image_shape"]
    if channels < 2:
        raise ValueError(
            f"{config.data.directory}: cells have {channels} channel; paired cell inpainting needs a marker too"
        )
    if height % MULTIPLE or width % MULTIPLE:
        raise ValueError(
            f"{config.data.directory}: cells are {height} x {width}; must be multiples of {MULTIPLE}"
        )
    for name in config.evaluation.sets:  # a set without pairs is refused now, not when training is over
        _cells(config, config.data.directory, name)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.source_channels = channels
    return config


def describe(config: ml_collections.ConfigDict, directory: str) -> dict[str, Any]:
    """The data set, whatever the config."""
    del config
    return sources.describe(directory)


def load_set(config: ml_collections.ConfigDict, directory: str, name: str) -> Source:
    """The pairs of a set that are judged: every cell with a fixed partner."""
    return paired(_cells(config, directory, name), seed=config.seed)


def _cells(config: ml_collections.ConfigDict, directory: str, name: str) -> Source:
    """Cells of a set that have a partner, with the number of their group in the columns."""
    source = sources.load(directory, name, cache_dir=config.data.cache_dir or None)
    return with_partners(source, config.pairs.by, smallest=config.pairs.smallest_group, where=name)


def with_partners(source: Source, by: str, *, smallest: int, where: str) -> Source:
    """The cells in groups of at least `smallest`, with the column "partners": the number of each cell's group.

    Raises ValueError where no group is that large.
    """
    numbers = groups.groups(source, by)
    large = np.bincount(numbers)[numbers] >= smallest
    if not large.any():
        raise ValueError(
            f"set {where}: no group by '{by}' has {smallest} cells; group them otherwise (config.pairs.by)"
        )
    if not large.all():
        logging.warning(
            "set %s: %d of %d cells are in groups of fewer than %d and have no partner",
            where,
            (~large).sum(),
            len(large),
            smallest,
        )
    kept = source.subset(np.flatnonzero(large))
    return dataclasses.replace(kept, columns={**kept.columns, "partners": numbers[large]})


def paired(cells: Source, *, seed: int) -> Source:
    """Every cell with a partner drawn with a seed: a source whose images are pairs (N, 2, H, W, C)."""
    draw = pipeline.partner_drawer(cells.columns["partners"])
    targets = draw(np.arange(len(cells)), np.random.default_rng((seed, 1)))
    return dataclasses.replace(cells, rows=np.stack([cells.rows, cells.rows[targets]], axis=1))


def parts(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, *, resuming: bool
) -> tuple[Source, Source]:
    """Training cells, and validation pairs of other cells, drawn within classes by the seed.

    Raises ValueError where a run goes on and the data set has changed.
    """
    source = sources.load(
        config.data.directory, config.data.train_split, cache_dir=config.data.cache_dir or None
    )
    fraction = 1 - config.data.validation_fraction
    chosen = splits.stratified(source.labels, source.ids, fraction=fraction, seed=config.seed)
    training, validation = (
        with_partners(source.subset(x), config.pairs.by, smallest=config.pairs.smallest_group, where=name)
        for x, name in zip(chosen, ("training", "validation"), strict=True)
    )
    if resuming:  # drawn alike; the note tells whether the cells are still the same
        splits.load(workdir / "splits.csv", np.concatenate([training.ids, validation.ids]))
    return training, paired(validation, seed=config.seed)


def write_parts(workdir: pathlib.Path, training: Source, validation: Source) -> None:
    """Write down which cell is in which part."""
    splits.save(workdir / "splits.csv", {"training": training.ids, "validation": validation.ids})


def constants(config: ml_collections.ConfigDict, training: Source) -> dict[str, Any]:
    """None: cells are scaled one by one. ValueError for an intensity that needs statistics of all."""
    if config.preprocess.intensity not in preprocess.PLAIN:
        raise ValueError(
            f"preprocess.intensity={config.preprocess.intensity!r}: choose one of {tuple(preprocess.PLAIN)}"
        )
    return {}


def make(config: ml_collections.ConfigDict, dataset: dict[str, Any], constants: dict[str, Any]) -> Inpainter:
    """The inpainter of a config, for images as `dataset` describes them."""
    return Inpainter(config, create_model(config, num_outputs=1), constants, tuple(dataset["image_shape"]))


def validation_scores(predictions: Predictions) -> dict[str, float]:
    """The mean squared error of the validation pairs."""
    return {"mean_squared_error": float(predictions.probabilities[:, 0].mean())}
