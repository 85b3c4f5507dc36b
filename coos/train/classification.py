"""Train a classifier of single-label images as a config says: data, network and loss put together.

This module is the task; `coos.train.loop` runs it without knowing it.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import logging

from coos import losses, models, optim, splits
from coos import workdir as work
from coos.data import pipeline, preprocess
from coos.data import source as sources
from coos.data.source import Source
from coos.metrics import covariate_shift
from coos.models import summary
from coos.train import checks, loop, record, steps, weights
from coos.train import state as states
from coos.train.checkpoint import Checkpoints
from coos.train.predict import predict
from coos.train.state import TrainState

OWN_MODEL_FIELDS = ("name", "dtype", "cross_device_norm")


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network with its preprocessing: everything that turns raw images into logits, but the parameters."""

    config: ml_collections.ConfigDict
    model: Any
    constants: dict[str, Any]
    image_shape: tuple[int, int, int]

    def init(self, key: jax.Array) -> Any:
        """Fresh variables of the model."""
        size = self.config.preprocess.crop
        shape = (1, size, size, self.image_shape[-1])
        # An array that XLA cannot know: from constant images it would compute the whole network at compile time.
        return self.model.init(key, jax.random.uniform(key, shape), train=False)

    def loss(self, params: Any, batch_stats: Any, batch: dict[str, jax.Array], key: jax.Array):
        """Per-example cross-entropy of augmented images, as `coos.train.steps` wants it.

        Each example has its own key, made of the step's and its number in the training set, so that its
        augmentation does not depend on the device it lands on.
        """
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["example"])
        intensity = preprocess.intensity_function(self.config.preprocess.intensity, **self.constants)
        options = augment_options(self.config)
        images = jax.vmap(lambda k, image: preprocess.augment(k, intensity(image), **options))(
            keys, batch["image"]
        )
        variables = {"params": params, "batch_stats": batch_stats}
        # One key per piece of a batch on a device: unlike augmentation, dropout depends on the number of devices.
        dropout = jax.random.fold_in(keys[0], 0)
        output, updates = self.model.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": dropout}
        )
        smoothing = self.config.label_smoothing
        loss = losses.softmax_cross_entropy(output["logits"], batch["label"], label_smoothing=smoothing)
        correct = (output["logits"].argmax(-1) == batch["label"]).astype(jnp.float32)
        return loss, (updates.get("batch_stats", {}), {"accuracy": correct})

    def predict(self, variables: Any, batch: dict[str, jax.Array], *, num_crops: int) -> jax.Array:
        """Mean softmax over crops (DeepLoc's evaluation): (B, K) float32."""
        intensity = preprocess.intensity_function(self.config.preprocess.intensity, **self.constants)
        size = self.config.preprocess.crop
        views = jax.vmap(lambda x: preprocess.crops(intensity(x), size=size, number=num_crops))(
            batch["image"]
        )
        output = self.model.apply(variables, views.reshape(-1, *views.shape[2:]), train=False)
        probabilities = jax.nn.softmax(output["logits"])
        return probabilities.reshape(*views.shape[:2], -1).mean(1)


def augment_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The keyword arguments of `preprocess.augment`; max_offset -1 means all that fit."""
    options = dict(config.augment)
    options["max_offset"] = None if options["max_offset"] < 0 else options["max_offset"]
    return {"size": config.preprocess.crop, **options}


def split_training(
    config: ml_collections.ConfigDict, source: Source, workdir: pathlib.Path, *, resuming: bool
) -> tuple[Source, Source]:
    """Training and validation part of the training set: drawn (stratified, by the config's seed), or as recorded."""
    if resuming:
        parts = splits.load(workdir / "splits.csv", source.ids)
        return source.subset(parts["training"]), source.subset(parts["validation"])
    fraction = 1 - config.data.validation_fraction
    first, second = splits.stratified(source.labels, source.ids, fraction=fraction, seed=config.seed)
    return source.subset(first), source.subset(second)


def build(
    config: ml_collections.ConfigDict, training: Source, *, recorded: dict[str, Any] | None = None
) -> Classifier:
    """The classifier of a config; intensity constants come from the training images or the imported weights.

    A run that resumes keeps the `recorded` ones.
    """
    if recorded is not None:
        return make_classifier(config, training.dataset, recorded)
    constants: dict[str, Any] = {"min_span": config.preprocess.min_span}
    if config.preprocess.intensity == "standardize":
        mean, std = preprocess.channel_statistics(training.images, training.rows)
        constants = {"mean": mean.tolist(), "std": std.tolist()}
    if config.preprocess.intensity == "pretrained":
        constants = weights.read_record(pathlib.Path(config.start_from))["scaling"]
    return make_classifier(config, training.dataset, constants)


def make_classifier(
    config: ml_collections.ConfigDict, dataset: dict[str, Any], constants: dict[str, Any]
) -> Classifier:
    """The classifier of a config with known constants, for images as `dataset` describes them."""
    options = {name: value for name, value in config.model.items() if name not in OWN_MODEL_FIELDS}
    model = models.create(
        config.model.name,
        num_outputs=len(dataset["class_names"]),
        dtype=jnp.dtype(config.model.dtype),
        axis_name=steps.AXIS if config.model.cross_device_norm else None,
        **options,
    )
    preprocess.intensity_function(config.preprocess.intensity, **constants)
    return Classifier(config, model, constants, tuple(dataset["image_shape"]))


def check_network(classifier: Classifier) -> None:
    """Raise ValueError where the network does not take the images, before anything is drawn or written."""
    try:
        jax.eval_shape(classifier.init, jax.random.PRNGKey(0))
    except ValueError as error:
        config = classifier.config
        said = f"model.name={config.model.name!r}, preprocess.crop={config.preprocess.crop}"
        raise ValueError(f"{said}: {error}") from None


def plan(config: ml_collections.ConfigDict) -> loop.Plan:
    """When the loop does what; steps_per_dispatch 0 chooses 1 on a CPU and 50 on accelerators."""
    automatic = 1 if jax.default_backend() == "cpu" else 50
    return loop.Plan(
        num_steps=config.num_steps,
        per_dispatch=config.steps_per_dispatch or automatic,
        log_every=config.log_every,
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
        keep_checkpoints=config.keep_checkpoints,
        select=config.select,
    )


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    """Run (or resume) the training of a config; True when its end was reached, False after a stop signal.

    Raises:
        ValueError: a setting that cannot be right, or a work directory that belongs to another run; nothing
            is written then.
    """
    checks.check_settings(config)
    if jax.process_index() > 0:
        return _train(config, workdir)
    with work.locked(workdir):
        return _train(config, workdir)


def _train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    resuming = any(path.name.isdecimal() for path in (workdir / "checkpoints").glob("*"))
    checks.check_against(config, sources.describe(config.data.directory))
    source = sources.load(
        config.data.directory, config.data.train_split, cache_dir=config.data.cache_dir or None
    )
    training, validation = split_training(config, source, workdir, resuming=resuming)
    recorded = work.read_json(workdir / "config.json")["constants"] if resuming else None
    classifier = build(config, training, recorded=recorded)
    if config.start_from and not resuming:
        weights.check_fit(classifier.model, classifier.image_shape[-1], config.start_from)
    check_network(classifier)
    optimizer = optim.create(config.optimizer, num_steps=config.num_steps)
    iterator = pipeline.index_iterator(len(training), batch_size=config.batch_size, seed=config.seed)
    fresh = states.create(classifier.init, optimizer, seed=config.seed)
    if config.start_from and not resuming:
        fresh = weights.begin(fresh, classifier.model, config.start_from)
    record.write(workdir, config, training.dataset, classifier.constants, resuming=resuming)
    if not resuming and jax.process_index() == 0:
        splits.save(workdir / "splits.csv", {"training": training.ids, "validation": validation.ids})
    host, best = _restore(workdir, fresh, iterator, keep=config.keep_checkpoints)
    logging.info(
        "%s: %d parameters, %d training and %d validation images, from step %d",
        config.model.name,
        summary.count(host.params),
        len(training),
        len(validation),
        int(host.step),
    )
    when, start = plan(config), int(host.step)
    resident = pipeline.fits_on_device(training, mode=config.data.mode)
    chunks = pipeline.chunks(iterator, training, lengths=when.lengths(start), resident=resident)
    labels = row_labels(config, training.dataset)
    _, finished = loop.fit(
        pipeline.replicate(host),
        step=make_step(classifier, optimizer, training if resident else None),
        chunks=pipeline.prefetch(chunks),
        plan=when,
        evaluate=_validator(classifier, validation),
        recorder=loop.Recorder(workdir, when, start=start, batch_size=config.batch_size, labels=labels),
        ids=training.ids,
        best=best,
    )
    return finished


def make_step(
    classifier: Classifier, optimizer: optax.GradientTransformation, resident: Source | None
) -> Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Any]]]:
    """The compiled training step (state, batches) -> (state, metrics); images of `resident` stay on the device."""
    pieces = classifier.config.accumulation_steps
    train_chunk = steps.make_train_chunk(classifier.loss, optimizer, accumulation_steps=pieces)
    images = {} if resident is None else {"image": resident.gather(np.arange(len(resident)))}
    on_device = pipeline.replicate(images)
    return lambda state, batches: train_chunk(state, on_device, batches)


def row_labels(config: ml_collections.ConfigDict, dataset: dict[str, Any]) -> dict[str, Any]:
    """The fields that every result row of a run carries."""
    return {"study": config.study, "run": config.run, "dataset": dataset["name"], "seed": config.seed}


def _restore(
    workdir: pathlib.Path, fresh: TrainState, iterator: Any, *, keep: int
) -> tuple[TrainState, loop.Best]:
    """The newest checkpointed state, with the iterator moved to where it was; or the fresh one."""
    with Checkpoints(workdir / "checkpoints", keep=keep) as checkpoints:
        restored = checkpoints.restore(fresh)
    if restored is None:
        return fresh, loop.Best()
    iterator.set_state(restored.record["iterator"])
    return restored.tree, loop.Best(**restored.record["best"])


def make_predict(classifier: Classifier, *, num_crops: int) -> Callable[..., jax.Array]:
    """The compiled prediction step of a classifier."""
    return steps.make_predict(
        lambda variables, batch: classifier.predict(variables, batch, num_crops=num_crops)
    )


def _validator(classifier: Classifier, validation: Source) -> Callable[[TrainState], dict[str, float]]:
    """A function that scores a state on the validation part."""
    config = classifier.config
    compiled = make_predict(classifier, num_crops=config.evaluation.validation_crops)
    scores = jax.jit(covariate_shift.scores)
    names = ("balanced_error", "accuracy", "cross_entropy")

    def evaluate(state: TrainState) -> dict[str, float]:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        found = predict(compiled, variables, validation, batch_size=config.evaluation.batch_size)
        values = scores(found.labels, found.probabilities)
        return {"n": len(validation), **{name: float(values[name]) for name in names}}

    return evaluate


def load_best(workdir: pathlib.Path) -> tuple[Classifier, Any, dict[str, Any]]:
    """Classifier, variables and record of a run's best step.

    Raises ValueError when the work directory holds no trained run.
    """
    found = work.read_json(workdir / "config.json")
    config = ml_collections.ConfigDict(found["config"])
    classifier = make_classifier(config, found["dataset"], found["constants"])
    like = jax.eval_shape(classifier.init, jax.random.PRNGKey(0))
    host = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    with Checkpoints(workdir / "best", keep=1) as checkpoints:
        wanted = {"params": host["params"], "batch_stats": host.get("batch_stats", {})}
        restored = checkpoints.restore(wanted, set_aside=False)
    if restored is None:
        raise ValueError(
            f"{workdir}: no evaluated step yet; run experiments/train.py with this --workdir first"
        )
    return classifier, restored.tree, {**found, "best": restored.record}
