"""A training run from a config: data, network, loss and loop put together, whatever the task.

A task is a module of this package (`coos.train.classification`, `multitask`, `single_cells`, `inpainting`) with

    complete(config)                            the config with what the data set decides, checked
    describe(config, directory)                 a data set as `coos.data.source.describe` does, seen with this config
    load_set(config, directory, name)           the examples to judge of one of its sets
    parts(config, workdir, resuming=...)        training and validation examples, as `Source`s
    write_parts(workdir, training, validation)  note of them in the work directory, where the data set has none
    constants(config, training)                 intensity constants, measured on the training examples
    make(config, dataset, constants)            a `Learner`: network and preprocessing, with loss and predictions
    validation_scores(predictions)              {metric: value} on the validation examples
    MAXIMIZED                                   those of them that are better when higher

`config.task` names it; `coos.train.loop` runs it without knowing it.
"""

import functools
import pathlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from absl import logging

from coos import optim
from coos import workdir as work
from coos.data import pipeline
from coos.data.source import Source
from coos.models import summary
from coos.train import classification, inpainting, loop, multitask, record, single_cells, steps, weights
from coos.train import state as states
from coos.train.checkpoint import Checkpoints
from coos.train.learner import Learner
from coos.train.predict import predict
from coos.train.state import TrainState

MOST_STEPS = 50  # of one dispatch
STREAMED_BYTES = 2**29  # of one dispatch

TASKS: dict[str, ModuleType] = {
    "classification": classification,
    "multitask": multitask,
    "single_cells": single_cells,
    "inpainting": inpainting,
}


def task_of(config: ml_collections.ConfigDict) -> ModuleType:
    """The task that `config.task` names; ValueError for any other."""
    if config.get("task") not in TASKS:
        raise ValueError(f"task={config.get('task')!r}: choose one of {tuple(TASKS)}")
    return TASKS[config.task]


def make_learner(
    config: ml_collections.ConfigDict, dataset: dict[str, Any], constants: dict[str, Any]
) -> Learner:
    """The learner of a config with known constants, for examples as `dataset` describes them."""
    return task_of(config).make(config, dataset, constants)


def plan(config: ml_collections.ConfigDict, *, streamed_bytes: int = 0) -> loop.Plan:
    """When the loop does what.

    steps_per_dispatch 0 chooses 1 on a CPU; on accelerators 50, or as many as stay below 512 MB where batches of
    `streamed_bytes` travel to the device.
    """
    automatic = 1 if jax.default_backend() == "cpu" else MOST_STEPS
    if streamed_bytes:
        automatic = max(1, min(automatic, STREAMED_BYTES // streamed_bytes))
    return loop.Plan(
        num_steps=config.num_steps,
        per_dispatch=config.steps_per_dispatch or automatic,
        log_every=config.log_every,
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
        keep_checkpoints=config.keep_checkpoints,
        select=config.select,
        maximize=config.select in task_of(config).MAXIMIZED,
    )


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    """Run (or resume) the training of a config; True when its end was reached, False after a stop signal.

    Raises:
        ValueError: a setting that cannot be right, or a work directory that belongs to another run; nothing
            is written then.
    """
    config = task_of(config).complete(config)
    if jax.process_index() > 0:
        return _train(config, workdir)
    with work.locked(workdir):
        return _train(config, workdir)


def _train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    task = task_of(config)
    resuming = any(path.name.isdecimal() for path in (workdir / "checkpoints").glob("*"))
    training, validation = task.parts(config, workdir, resuming=resuming)
    learner = build(config, training, workdir, resuming=resuming)
    optimizer = optim.create(config.optimizer, num_steps=config.num_steps)
    iterator = make_iterator(config, training)
    fresh = states.create(learner.init, optimizer, seed=config.seed)
    if config.start_from and not resuming:
        fresh = weights.begin(fresh, learner.model, config.start_from)
    record.write(
        workdir,
        config,
        training.dataset,
        learner.constants,
        parameters=summary.count(fresh.params),
        resuming=resuming,
    )
    if not resuming and jax.process_index() == 0:
        task.write_parts(workdir, training, validation)
    host, best = _restore(workdir, fresh, iterator, keep=config.keep_checkpoints)
    _announce(config, host, training, validation)
    resident = pipeline.fits_on_device(training, mode=config.data.mode)
    batch_bytes = training.num_bytes * config.batch_size // len(training)
    when, start = plan(config, streamed_bytes=0 if resident else batch_bytes), int(host.step)
    chunks = pipeline.chunks(iterator, training, lengths=when.lengths(start), resident=resident)
    labels = row_labels(config, training.dataset)
    _, finished = loop.fit(
        pipeline.replicate(host),
        step=make_step(learner, optimizer, training if resident else None),
        chunks=pipeline.prefetch(chunks),
        plan=when,
        evaluate=_validator(learner, validation),
        recorder=loop.Recorder(workdir, when, start=start, batch_size=config.batch_size, labels=labels),
        ids=training.ids,
        best=best,
    )
    return finished


def build(
    config: ml_collections.ConfigDict, training: Source, workdir: pathlib.Path, *, resuming: bool = False
) -> Learner:
    """The learner of a config: constants measured on the training examples, or as the run recorded them.

    With `start_from` and intensity "pretrained" they are those of the imported weights. Raises ValueError where the
    network takes neither the examples nor the weights.
    """
    task = task_of(config)
    if resuming:
        constants = work.read_json(workdir / "config.json")["constants"]
    elif config.preprocess.intensity == "pretrained":
        constants = weights.input_scaling(pathlib.Path(config.start_from))
    else:
        constants = task.constants(config, training)
    learner = task.make(config, training.dataset, constants)
    if config.start_from and not resuming:
        weights.check_fit(learner.model, learner.input_shape[-1], config.start_from)
    check_network(learner)
    return learner


def check_network(learner: Learner) -> None:
    """Raise ValueError where the network does not take its input, before anything is drawn or written."""
    try:
        jax.eval_shape(learner.init, jax.random.PRNGKey(0))
    except ValueError as error:
        shape = " x ".join(map(str, learner.prepared_shape()))
        raise ValueError(f"model.name={learner.config.model.name!r}, input {shape}: {error}") from None


def make_iterator(config: ml_collections.ConfigDict, training: Source) -> Any:
    """The iterator over shuffled batches of training examples; with `data.balance` every class counts alike.

    Where the examples have a column "partners", the number of their group, it is one over pairs.
    """
    return pipeline.index_iterator(
        len(training),
        batch_size=config.batch_size,
        seed=config.seed,
        epoch_share=config.data.get("epoch_share", 1.0),
        balance=training.labels if config.data.get("balance", False) else None,
        partners=training.columns.get("partners"),
    )


def make_step(
    learner: Learner, optimizer: optax.GradientTransformation, resident: Source | None
) -> Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Any]]]:
    """The compiled training step (state, batches) -> (state, metrics); images of `resident` stay on the device."""
    pieces = learner.config.accumulation_steps
    taking = {} if resident is None else {"take": resident.take}
    train_chunk = steps.make_train_chunk(learner.loss, optimizer, accumulation_steps=pieces, **taking)
    on_device = pipeline.replicate({} if resident is None else resident.resident())
    return lambda state, batches: train_chunk(state, on_device, batches)


def row_labels(config: ml_collections.ConfigDict, dataset: dict[str, Any]) -> dict[str, Any]:
    """The fields that every result row of a run carries."""
    return {"study": config.study, "run": config.run, "dataset": dataset["name"], "seed": config.seed}


def _announce(
    config: ml_collections.ConfigDict, host: TrainState, training: Source, validation: Source
) -> None:
    logging.info(
        "%s: %d parameters, %d training and %d validation examples, from step %d of %d",
        config.model.name,
        summary.count(host.params),
        len(training),
        len(validation),
        int(host.step),
        config.num_steps,
    )


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


def make_predict(learner: Learner, *, validating: bool) -> Callable[..., jax.Array]:
    """The compiled prediction step of a learner."""
    return steps.make_predict(functools.partial(learner.predict, validating=validating))


def _validator(learner: Learner, validation: Source) -> Callable[[TrainState], dict[str, float]]:
    """A function that scores a state on the "n" examples of the validation part, or what the task makes of them."""
    config = learner.config
    compiled = make_predict(learner, validating=True)

    def evaluate(state: TrainState) -> dict[str, float]:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        found = predict(compiled, variables, validation, batch_size=config.evaluation.batch_size)
        return {"n": len(validation), **task_of(config).validation_scores(found)}

    return evaluate


def load_best(workdir: pathlib.Path, *, step: int | None = None) -> tuple[Learner, Any, dict[str, Any]]:
    """Learner, variables and record of a run's best step, or of another `step` whose checkpoint was kept.

    Raises ValueError when the work directory holds no trained run, or no such checkpoint.
    """
    learner, found = read_learner(workdir)
    if step is not None:
        return (
            learner,
            _variables_of(workdir, learner, step),
            {**found, "best": {"step": step, "value": None}},
        )
    like = jax.eval_shape(learner.init, jax.random.PRNGKey(0))
    host = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    with Checkpoints(workdir / "best", keep=1) as checkpoints:
        wanted = {"params": host["params"], "batch_stats": host.get("batch_stats", {})}
        restored = checkpoints.restore(wanted, set_aside=False)
    if restored is None:
        raise ValueError(
            f"{workdir}: no evaluated step yet; run experiments/train.py with this --workdir first"
        )
    return learner, restored.tree, {**found, "best": restored.record}


def read_learner(workdir: pathlib.Path) -> tuple[Learner, dict[str, Any]]:
    """The learner of a run without its parameters, and what the run recorded about itself.

    Raises ValueError when the work directory holds no run.
    """
    if not (workdir / "config.json").exists():
        raise ValueError(
            f"{workdir}: no config.json; is it the work directory of a run of experiments/train.py?"
        )
    found = work.read_json(workdir / "config.json")
    config = ml_collections.ConfigDict(found["config"])
    return make_learner(config, found["dataset"], found["constants"]), found


def _variables_of(workdir: pathlib.Path, learner: Learner, step: int) -> dict[str, Any]:
    """Parameters and batch statistics of a step's checkpoint."""
    config = learner.config
    optimizer = optim.create(config.optimizer, num_steps=config.num_steps)
    like = states.create(learner.init, optimizer, seed=config.seed)
    with Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints) as checkpoints:
        state = checkpoints.restore_step(step, like).tree
    return {"params": state.params, "batch_stats": state.batch_stats}
