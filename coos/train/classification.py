"""The task of classifying single-label images: cross-entropy, and errors that shift between sets."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from coos import losses, splits
from coos.data import groups, preprocess
from coos.data import source as sources
from coos.data.source import Source
from coos.metrics import covariate_shift
from coos.models import layers
from coos.train import alignment, checks, mixing, steps
from coos.train.learner import Learner, create_model
from coos.workdir import Predictions

MAXIMIZED = ()  # validation values are errors and losses
VALIDATION_SCORES = ("balanced_error", "accuracy", "cross_entropy")

_scores = jax.jit(covariate_shift.scores)


@dataclasses.dataclass(frozen=True)
class Classifier(Learner):
    """A network that turns raw images into class probabilities."""

    num_groups: int = 0  # of training cells, where their features are aligned

    def prepared_shape(self) -> tuple[int, ...]:
        """Shape of one crop."""
        size = self.config.preprocess.crop
        return (size, size, self.input_shape[-1])

    def loss(self, params: Any, batch_stats: Any, batch: dict[str, jax.Array], key: jax.Array):
        """Per-example cross-entropy of augmented images.

        Each example has its own key, made of the step's and its number in the training set, so that its
        augmentation does not depend on the device it lands on.
        """
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["example"])
        intensity = preprocess.intensity_function(self.config.preprocess.intensity, **self.constants)
        options = augment_options(self.config)
        images = jax.vmap(lambda k, image: preprocess.augment(k, intensity(image), **options))(
            keys, batch["image"]
        )
        images, share = self._mixed(keys, images)
        variables = {"params": params, "batch_stats": batch_stats}
        # One key per piece of a batch on a device: unlike augmentation, dropout depends on the number of devices.
        dropout = jax.random.fold_in(keys[0], 0)
        output, updates = self.model.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": dropout}
        )
        loss = self._cross_entropy(output["logits"], batch["label"], share)
        correct = (output["logits"].argmax(-1) == batch["label"]).astype(jnp.float32)
        values = {"accuracy": correct}
        if weight := weight_of(self.config, "alignment"):
            values["alignment"] = jnp.broadcast_to(self._alignment(output, batch["group"]), loss.shape)
            loss = loss + weight * values["alignment"]
        return loss, (updates.get("batch_stats", {}), values)

    def _mixed(self, keys: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Blends of images and the share of each in its own, or the images and None."""
        alpha = self.config.get("mixup", 0.0)
        if not alpha:
            return images, None
        # Of a further key, so that images without mixup are augmented as before.
        return mixing.mixup(jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 5), images, alpha=alpha)

    def _cross_entropy(self, logits: jax.Array, labels: jax.Array, share: jax.Array | None) -> jax.Array:
        """Of each example, for its own label or, where images are blended, for both in their shares."""
        smoothing = self.config.label_smoothing
        own = losses.softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
        if share is None:
            return own
        others = mixing.partners(labels)
        return share * own + (1 - share) * losses.softmax_cross_entropy(
            logits, others, label_smoothing=smoothing
        )

    def _alignment(self, output: dict[str, Any], groups: jax.Array) -> jax.Array:
        """How differently the groups of training cells look in the layer of `config.alignment`.

        Over the batch of all devices: the gradient flows back to each, and the sum over devices is that of the whole.
        """
        features = layers.layer_of(output, self.config.alignment.layer)
        features, groups = jax.lax.all_gather((features, groups), steps.AXIS, tiled=True)
        return alignment.penalty(features, groups, num_groups=self.num_groups)

    def represent(self, variables: Any, images: jax.Array, *, layer: str) -> jax.Array:
        """Features of the centre crop, those of maps averaged over space: (B, H, W, C) raw -> (B, D) float32."""
        output = self.model.apply(variables, self.views(images, number=1)[:, 0], train=False)
        return layers.layer_of(output, layer)

    def views(self, images: jax.Array, *, number: int) -> jax.Array:
        """What the network is given of raw images (B, H, W, C): (B, number, size, size, C) crops, scaled."""
        intensity = preprocess.intensity_function(self.config.preprocess.intensity, **self.constants)
        size = self.config.preprocess.crop
        return jax.vmap(lambda x: preprocess.crops(intensity(x), size=size, number=number))(images)

    def predict(self, variables: Any, batch: dict[str, jax.Array], *, validating: bool) -> jax.Array:
        """Mean softmax over crops (DeepLoc's evaluation): (B, K) float32."""
        evaluation = self.config.evaluation
        number = evaluation.validation_crops if validating else evaluation.crops
        views = self.views(batch["image"], number=number)
        output = self.model.apply(variables, views.reshape(-1, *views.shape[2:]), train=False)
        probabilities = jax.nn.softmax(output["logits"])
        return probabilities.reshape(*views.shape[:2], -1).mean(1)


def weight_of(config: ml_collections.ConfigDict, part: str) -> float:
    """The weight of an optional part of the loss; runs from before there was such a part have none."""
    return config[part].weight if part in config else 0.0


def augment_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The keyword arguments of `preprocess.augment`; max_offset -1 means all that fit."""
    options = dict(config.augment)
    options["max_offset"] = None if options["max_offset"] < 0 else options["max_offset"]
    return {"size": config.preprocess.crop, **options}


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config as it is; ValueError where it cannot be right, by itself or for the data set."""
    dataset = sources.describe(config.data.directory)
    checks.check_targets(config, dataset)
    checks.check_settings(config)
    checks.check_classification(config)
    checks.check_against(config, dataset)
    return config


def describe(config: ml_collections.ConfigDict, directory: str) -> dict[str, Any]:
    """The data set, whatever the config."""
    del config
    return sources.describe(directory)


def load_set(config: ml_collections.ConfigDict, directory: str, name: str) -> Source:
    """A split of the data set."""
    return sources.load(directory, name, cache_dir=config.data.cache_dir or None)


def parts(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, *, resuming: bool
) -> tuple[Source, Source]:
    """Training and validation part of the training set: drawn (stratified, by the config's seed), or as recorded."""
    source = load_set(config, config.data.directory, config.data.train_split)
    if weight_of(config, "alignment"):
        source = grouped(source, config.alignment.by)
    if resuming:
        recorded = splits.load(workdir / "splits.csv", source.ids)
        return source.subset(recorded["training"]), source.subset(recorded["validation"])
    fraction = 1 - config.data.validation_fraction
    first, second = splits.stratified(source.labels, source.ids, fraction=fraction, seed=config.seed)
    return source.subset(first), source.subset(second)


def grouped(source: Source, by: str) -> Source:
    """The training set with the number of each cell's group as a column, and how many groups there are.

    Raises ValueError where all cells are in one group: there is nothing to align then.
    """
    numbers = groups.groups(source, by)
    count = int(numbers.max()) + 1
    if count < 2:
        raise ValueError(f"alignment.by={by!r}: all training cells are in one group; group them otherwise")
    return dataclasses.replace(
        source,
        columns={**source.columns, "group": numbers},
        dataset={**source.dataset, "num_groups": count},
    )


def write_parts(workdir: pathlib.Path, training: Source, validation: Source) -> None:
    """Write down which example is in which part."""
    splits.save(workdir / "splits.csv", {"training": training.ids, "validation": validation.ids})


def constants(config: ml_collections.ConfigDict, training: Source) -> dict[str, Any]:
    """What the intensity transform needs: its settings, or statistics of the training images."""
    if config.preprocess.intensity == "standardize":
        mean, std = preprocess.channel_statistics(training.images, training.rows)
        return {"mean": mean.tolist(), "std": std.tolist()}
    return (
        {} if config.preprocess.intensity == "standardize_each" else {"min_span": config.preprocess.min_span}
    )


def make(config: ml_collections.ConfigDict, dataset: dict[str, Any], constants: dict[str, Any]) -> Classifier:
    """The classifier of a config with known constants, for images as `dataset` describes them."""
    preprocess.intensity_function(config.preprocess.intensity, **constants)
    model = create_model(config, num_outputs=len(dataset["class_names"]))
    return Classifier(
        config, model, constants, tuple(dataset["image_shape"]), num_groups=dataset.get("num_groups", 0)
    )


def validation_scores(predictions: Predictions) -> dict[str, float]:
    """Errors and losses on the validation part."""
    values = _scores(predictions.labels, predictions.probabilities)
    return {name: float(values[name]) for name in VALIDATION_SCORES}
