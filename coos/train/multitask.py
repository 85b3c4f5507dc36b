"""The task of predicting many binary assays at once from labels that are mostly missing (Hofmarcher et al. 2019).

Images may be fields, crops around cells or, for the fully connected network, vectors of features. Views of one well
are trained on by themselves, and their predictions averaged (section 2).
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from coos import losses
from coos.data import pipeline, preprocess
from coos.data import source as sources
from coos.data.source import Source
from coos.metrics import multitask
from coos.models import layers
from coos.train import checks, epochs
from coos.train.learner import Learner, create_model
from coos.workdir import Predictions

MAXIMIZED = ("mean_auroc", "mean_average_precision")
CHOICES = {"select": (*MAXIMIZED, "cross_entropy"), "evaluation.level": ("well", "compound", "none")}


class AssayPredictor(Learner):
    """A network that turns raw images into the probability of activity in each assay."""

    def loss(self, params: Any, batch_stats: Any, batch: dict[str, jax.Array], key: jax.Array):
        """Per-example sums of the cross-entropy over measured assays, weighted by how many these are.

        A network with a pooled head of probabilities beside its logits (MIL-Net) is trained on the sum of both
        losses, as its authors do, unless `config.pooled_head` says no.
        """
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["example"])
        images = self.prepare(batch["image"])
        if self.config.augment.flips:
            images = jax.vmap(preprocess.random_flips)(keys, images)
        # One key per piece of a batch on a device: dropout depends on the number of devices.
        rngs = {"dropout": jax.random.fold_in(keys[0], 0)}
        variables = {"params": params, "batch_stats": batch_stats}
        output, updates = self.model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
        logits, labels = output["logits"], batch["label"]
        loss, measured = losses.masked_binary_cross_entropy(logits, labels)
        if self.config.pooled_head and "pooled" in output["features"]:
            loss += losses.masked_probability_cross_entropy(output["features"]["pooled"], labels)[0]
        correct = ((logits > 0) == (labels > 0)) & (labels != 0)
        values = {"weight": measured, "accuracy": correct.sum(-1).astype(jnp.float32)}
        return loss, (updates.get("batch_stats", {}), values)

    def prepare(self, raw: jax.Array) -> jax.Array:
        """Raw examples (B, ...) as the network takes them, float32."""
        intensity = preprocess.intensity_function(self.config.preprocess.intensity, **self.constants)
        return jax.vmap(intensity)(raw)

    def represent(self, variables: Any, images: jax.Array, *, layer: str) -> jax.Array:
        """Features of whole examples, those of maps averaged over space: (B, D) float32."""
        return layers.layer_of(self.model.apply(variables, self.prepare(images), train=False), layer)

    def predict(self, variables: Any, batch: dict[str, jax.Array], *, validating: bool = False) -> jax.Array:
        """Probability of activity in every assay, sigmoid of the logits: (B, tasks) float32."""
        del validating  # the networks see whole images, then as later
        output = self.model.apply(variables, self.prepare(batch["image"]), train=False)
        return jax.nn.sigmoid(output["logits"])


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with its epochs in steps; ValueError where it cannot be right, by itself or for the data set."""
    dataset = sources.describe(config.data.directory)
    checks.check_targets(config, dataset)
    _check_splits(config, dataset)
    total = dataset["splits"][config.data.train_split]
    config = epochs.in_steps(config, examples=pipeline.examples_per_epoch(total, config.data.epoch_share))
    checks.check_settings(config)
    checks.check_choices(config, CHOICES)
    checks.check_sets(config, dataset)
    _check_input(config, dataset)
    return config


def _check_splits(config: ml_collections.ConfigDict, dataset: dict[str, Any]) -> None:
    for field in ("train_split", "validation_split"):
        if config.data[field] not in dataset["splits"]:
            raise ValueError(
                f"data.{field}={config.data[field]!r}: {dataset['directory']} has {list(dataset['splits'])}"
            )


def _check_input(config: ml_collections.ConfigDict, dataset: dict[str, Any]) -> None:
    vectors = len(dataset["image_shape"]) == 1
    if vectors != (config.model.name == "fnn"):
        wanted = "vectors of features (config 'profiles')" if config.model.name == "fnn" else "images"
        raise ValueError(
            f"model.name={config.model.name!r} takes {wanted}; {dataset['directory']} has examples of shape "
            f"{dataset['image_shape']}"
        )
    allowed = ("standardize",) if vectors else preprocess.INTENSITIES
    checks.check_choices(config, {"preprocess.intensity": allowed})
    if vectors and config.augment.flips:
        raise ValueError("augment.flips=True: vectors of features cannot be mirrored")


def describe(config: ml_collections.ConfigDict, directory: str) -> dict[str, Any]:
    """The data set, whatever the config."""
    del config
    return sources.describe(directory)


def load_set(config: ml_collections.ConfigDict, directory: str, name: str) -> Source:
    """A split of the data set, read as the config says."""
    return sources.load(directory, name, cache_dir=config.data.cache_dir or None, store=config.data.store)


def parts(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, *, resuming: bool
) -> tuple[Source, Source]:
    """Training and validation split of the data set, which the builder made by compound."""
    del workdir, resuming
    data = config.data
    training, validation = (
        load_set(config, data.directory, split) for split in (data.train_split, data.validation_split)
    )
    both = set(training.columns["compound"].tolist()) & set(validation.columns["compound"].tolist())
    if both:
        raise ValueError(
            f"{data.directory}: {len(both)} compounds stand in {data.train_split!r} and in "
            f"{data.validation_split!r}, such as {min(both)}; rebuild with a split by compound"
        )
    return training, validation


def write_parts(workdir: pathlib.Path, training: Source, validation: Source) -> None:
    """Nothing: the data set itself says which example is in which part."""


def constants(config: ml_collections.ConfigDict, training: Source) -> dict[str, Any]:
    """What the intensity transform needs: its settings, or statistics of the training examples."""
    if config.preprocess.intensity == "standardize":
        mean, std = preprocess.channel_statistics(training.images, training.rows)
        return {"mean": mean.tolist(), "std": std.tolist()}
    return {"min_span": 1.0} if config.preprocess.intensity == "stretch" else {}


def make(
    config: ml_collections.ConfigDict, dataset: dict[str, Any], constants: dict[str, Any]
) -> AssayPredictor:
    """The predictor of a config with known constants, for examples as `dataset` describes them."""
    preprocess.intensity_function(config.preprocess.intensity, **constants)
    model = create_model(config, num_outputs=len(dataset["tasks"]))
    return AssayPredictor(config, model, constants, tuple(dataset["image_shape"]))


def pooled(predictions: Predictions, *, level: str) -> Predictions:
    """Predictions averaged over the views of each well ("well"), each compound ("compound"), or as they are ("none").

    Probabilities are averaged, as in the published evaluation (per well there); labels are those of the compound.
    Ids become those of the wells or compounds; the column "cell_count" is averaged as well, -1 (unknown) if it is
    for any view.
    """
    if level == "none":
        return predictions
    groups = predictions.columns[level]
    ids, probabilities = multitask.average(predictions.probabilities, groups)
    _, labels = multitask.group_labels(predictions.labels, groups)
    firsts = np.unique(groups, return_index=True)[1]
    counts = predictions.columns["cell_count"].astype(np.float32)[:, None]
    means = multitask.average(counts, groups)[1][:, 0]
    lowest = multitask.average(-(counts < 0).astype(np.float32), groups)[1][:, 0]
    columns = {
        "compound": predictions.columns["compound"][firsts],
        "cell_count": np.where(lowest < 0, -1, means),
    }
    return Predictions(ids, labels, probabilities, columns)


def validation_scores(predictions: Predictions) -> dict[str, float]:
    """Scores on the "n" wells of the validation part; ValueError where no assay can be scored at all."""
    wells = pooled(predictions, level="well")
    labels, mask = wells.labels > 0, wells.labels != 0
    found = multitask.summary(wells.probabilities, labels, mask)
    if found["undefined_auroc"] == labels.shape[1]:
        raise ValueError(
            "validation: no assay has both active and inactive wells there; it needs more compounds"
        )
    right = np.where(labels, wells.probabilities, 1 - wells.probabilities)[mask].astype(np.float64)
    names = ("mean_auroc", "mean_average_precision", "mean_f1", "undefined_auroc")
    return {
        "n": len(wells.ids),
        "cross_entropy": float(-np.log(np.clip(right, 1e-7, None)).mean()),
        **{name: float(found[name]) for name in names},
    }
