"""Many small trainings, one for every division of a data set: a network per device, all in one compiled step.

A fold depends on the config, its own name and its own fields alone: it comes out the same in any order, beside any
others, on any number of devices. What is finished has a file of predictions and is not done again; a fold that was
stopped goes on from its last checkpoint, to the same result.

Networks of so few images are too small to be worth dividing one's batch among devices, so that each device gets a
network of its own. On two CPU cores that is as fast as one after another, which uses both cores (28.4 and 28.1
images/s); vectorised on one device it takes four times as long, because convolutions become grouped ones (7.3), so that
this is not offered: `experiments/benchmark.py folds`.
"""

import functools
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from coos import optim
from coos import workdir as work
from coos.data import pipeline
from coos.splits import Fold
from coos.train import loop, phenotypes, run, state, steps
from coos.train.checkpoint import Checkpoints
from coos.train.phenotypes import Study
from coos.train.state import TrainState
from coos.workdir import Predictions

KEPT = 2  # checkpoints of a fold in training
EVERYTHING = phenotypes.EVERYTHING


def safe_name(name: str) -> str:
    """The name of a fold as a file may be called."""
    return re.sub(r"[^\w.+-]", "_", name)


def prediction_path(folder: pathlib.Path, fold: Fold) -> pathlib.Path:
    """Where the predictions of a fold lie; those of the one on everything apart from those of what was held out."""
    return folder / folder_of(fold) / f"{safe_name(fold.name)}.npz"


def folder_of(fold: Fold) -> str:
    """The folder of a fold's predictions below the work directory."""
    return EVERYTHING if fold.name == EVERYTHING else "folds"


def loss_path(folder: pathlib.Path, fold: Fold) -> pathlib.Path:
    """Where the mean loss of a fold's last epoch of training lies."""
    return folder / "training" / f"{safe_name(fold.name)}.json"


def parameters_of(folder: pathlib.Path) -> pathlib.Path:
    """Where the network that was trained on everything lies."""
    return folder / EVERYTHING / "parameters"


def remaining(folder: pathlib.Path, folds: Sequence[Fold]) -> list[Fold]:
    """The folds that are not finished. ValueError where two names would be one file."""
    first: dict[str, str] = {}
    for fold in folds:
        other = first.setdefault(safe_name(fold.name), fold.name)
        if other != fold.name:
            raise ValueError(f"folds {other!r} and {fold.name!r} would share a file; rename one")
    return [fold for fold in folds if not prediction_path(folder, fold).exists()]


def train(
    config: ml_collections.ConfigDict,
    study: Study,
    folder: pathlib.Path,
    *,
    worker: int = 0,
    num_workers: int = 1,
) -> list[Fold]:
    """Train and test the folds that are not finished, of which worker k of n takes every n-th; returns the missing.

    Raises:
        NonFiniteLoss: with the fold and the step; finished folds stay.
    """
    waiting = remaining(folder, study.folds[worker::num_workers])
    if waiting:
        trainer = Trainer(config, study, folder)
        with tqdm(total=len(waiting), desc=f"{config.run}: folds", unit="fold", disable=None) as bar:
            for group in in_groups(waiting, trainer.num_steps, size=jax.local_device_count()):
                trainer.fit(group)
                bar.update(len(group))
    return remaining(folder, study.folds)


def in_groups(folds: Sequence[Fold], length: Callable[[Fold], int], *, size: int) -> Iterator[list[Fold]]:
    """The folds in groups of at most `size`, all folds of a group of one length."""
    alike: dict[int, list[Fold]] = {}
    for fold in folds:
        alike.setdefault(length(fold), []).append(fold)
    for members in alike.values():
        yield from (members[start : start + size] for start in range(0, len(members), size))


class Fitting:
    """One fold in training: which fields come in which step, and what they are scaled by."""

    def __init__(self, trainer: "Trainer", fold: Fold):
        self.fold, self.seed = fold, zlib.crc32(f"{trainer.config.seed} {fold.name}".encode()) >> 1
        self.losses: list[float] = []
        self._trainer = trainer
        self.scaling = phenotypes.scaling(
            trainer.config, trainer.study.source, trainer.study.table, fold.training
        )
        self.iterator = pipeline.index_iterator(
            len(fold.training), batch_size=trainer.config.batch_size, seed=self.seed
        )

    def take(self, length: int) -> dict[str, np.ndarray]:
        """The batches of the next steps, arrays (steps, batch, ...)."""
        rows = self.fold.training[np.stack([next(self.iterator) for _ in range(length)])]
        return self.batch(rows, resident=self._trainer.is_resident)

    def batch(self, rows: np.ndarray, *, resident: bool) -> dict[str, np.ndarray]:
        """What a step wants to know of the fields in `rows`; their images too, unless they are on the device."""
        source = self._trainer.study.source
        found = {name: np.asarray(values)[rows] for name, values in self.scaling.items()}
        found |= {"example": self._trainer.position[rows], "label": source.labels[rows]}
        return found if resident else {**found, "image": source.gather(rows)}

    def note(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the state."""
        return {"iterator": self.iterator.get_state(), "losses": self.losses}

    def go_on(self, note: dict[str, Any]) -> None:
        """Stand where the checkpoint was made."""
        self.iterator.set_state(note["iterator"])
        self.losses = list(note["losses"])


class Trainer:
    """What all folds share: the learner, compiled functions, and the images on the devices where they fit."""

    def __init__(self, config: ml_collections.ConfigDict, study: Study, folder: pathlib.Path):
        self.config, self.study, self.folder = config, study, folder
        self.learner = phenotypes.make(config, study.source.dataset)
        run.check_network(self.learner)
        # Not those of the folds at hand: augmentation goes by this number, and must not change with the company.
        self.position = np.full(len(study.source), -1, np.int32)
        self.position[study.rows] = np.arange(len(study.rows))
        training = study.source.subset(study.rows)
        self.is_resident = pipeline.fits_on_device(training, mode=config.data.mode)
        self._resident = pipeline.replicate(training.resident() if self.is_resident else {})
        self._predict = steps.make_predict(self.learner.predict)
        self._compiled = functools.lru_cache(maxsize=2)(self._compile)

    def num_steps(self, fold: Fold) -> int:
        """Steps of a fold's training."""
        return phenotypes.num_steps(self.config, len(fold.training))

    def _compile(self, num_steps: int) -> tuple[Any, Any]:
        """Functions that begin, and that continue, a training of so many steps."""
        optimizer = optim.create(self.config.optimizer, num_steps=num_steps)
        pieces = self.config.accumulation_steps
        chunk = steps.make_fold_chunk(self.learner.loss, optimizer, accumulation_steps=pieces)
        return state.creator(self.learner.init, optimizer), chunk

    def fit(self, group: Sequence[Fold]) -> None:
        """Train a group of folds side by side, write their predictions, and remove their checkpoints."""
        total = self.num_steps(group[0])
        flat = self.config.optimizer.schedule == "flat"  # then one program serves trainings of any length
        begin, chunk = self._compiled(0 if flat else total)
        fittings = [Fitting(self, fold) for fold in group]
        step, states = self._restore(fittings, begin)
        names = ", ".join(fold.name for fold in group)
        with tqdm(total=total, initial=step, desc=names, leave=False, disable=None) as bar:
            while step < total:
                length = self._next_length(step, total)
                batches = to_devices([fitting.take(length) for fitting in fittings])
                states, metrics = chunk(states, self._resident, batches)
                step += length
                note_losses(fittings, np.asarray(metrics["loss"]), step)
                bar.update(length)
                if step < total and self.config.checkpoint_every and step % self.config.checkpoint_every == 0:
                    self._save(fittings, states, step)
        self._finish(fittings, states, total)

    def _next_length(self, step: int, total: int) -> int:
        """Steps of the next dispatch, which crosses neither a checkpoint nor the end."""
        every = self.config.checkpoint_every or total
        automatic = 1 if jax.default_backend() == "cpu" else run.MOST_STEPS
        return min(self.config.steps_per_dispatch or automatic, total - step, every - step % every)

    def _checkpoints(self, fitting: Fitting) -> Checkpoints:
        return Checkpoints(self.folder / "unfinished" / safe_name(fitting.fold.name), keep=KEPT)

    def _restore(self, fittings: Sequence[Fitting], begin: Any) -> tuple[int, TrainState]:
        """The last step that all of the group were saved at, or 0, and their states on the devices."""
        fresh = [begin(fitting.seed) for fitting in fittings]
        known = []
        for fitting in fittings:
            with self._checkpoints(fitting) as checkpoints:
                known.append(set(checkpoints.steps()))
        step = max(set.intersection(*known), default=0)
        for k, fitting in enumerate(fittings if step else ()):
            with self._checkpoints(fitting) as checkpoints:
                restored = checkpoints.restore_step(step, fresh[k])
            fresh[k] = restored.tree
            fitting.go_on(restored.record)
        return step, to_devices(fresh)

    def _save(self, fittings: Sequence[Fitting], states: TrainState, step: int) -> None:
        for k, fitting in enumerate(fittings):
            with self._checkpoints(fitting) as checkpoints:
                checkpoints.save(step, of_device(states, k), fitting.note())

    def _finish(self, fittings: Sequence[Fitting], states: TrainState, step: int) -> None:
        """Write the predictions of a group; the network trained on everything stays, for those who look inside."""
        variables = {"params": states.params, "batch_stats": states.batch_stats}
        found = self._test(fittings, variables)
        for k, fitting in enumerate(fittings):
            name, first = fitting.fold.name, {key: x[0].tolist() for key, x in fitting.scaling.items()}
            if name == EVERYTHING:
                with Checkpoints(parameters_of(self.folder), keep=1) as kept:
                    kept.save(step, of_device(variables, k), first)
            epoch = -(-len(fitting.fold.training) // self.config.batch_size) * self.config.augment.copies
            value = float(np.mean(fitting.losses[-epoch:]))
            # A file of its own: several workers may finish folds at once.
            work.write_json(loss_path(self.folder, fitting.fold), {"step": step, "training_loss": value})
            place = folder_of(fitting.fold)
            work.save_predictions(self.folder, safe_name(name), found[k], step=step, folder=place)
            shutil.rmtree(self.folder / "unfinished" / safe_name(name), ignore_errors=True)

    def _test(self, fittings: Sequence[Fitting], variables: Any) -> list[Predictions]:
        """Predictions of the test fields of every fold by its own network; shorter sets are filled up."""
        size, most = self.config.evaluation.batch_size, max(len(fitting.fold.test) for fitting in fittings)
        parts = []
        for start in range(0, most, size):
            rows = [np.resize(fitting.fold.test[start : start + size], size) for fitting in fittings]
            given = [f.batch(r, resident=False) for f, r in zip(fittings, rows, strict=True)]
            parts.append(np.asarray(self._predict(variables, to_devices(given))))
        joined = np.concatenate(parts, axis=1)
        return [self._predictions(fitting.fold, joined[k]) for k, fitting in enumerate(fittings)]

    def _predictions(self, fold: Fold, probabilities: np.ndarray) -> Predictions:
        tested = self.study.source.subset(fold.test)
        return Predictions(tested.ids, tested.labels, probabilities[: len(fold.test)], tested.columns)


def to_devices(trees: Sequence[Any]) -> Any:
    """One tree for every device: those given, and the last again on devices without one."""
    filled = [*trees, *[trees[-1]] * (jax.local_device_count() - len(trees))]
    return pipeline.to_devices(jax.tree.map(lambda *x: np.stack(x), *filled))


def of_device(tree: Any, number: int) -> Any:
    """The host copy of what one device holds of a tree."""
    shards = jax.tree.map(lambda x: sorted(x.addressable_shards, key=shard_place)[number].data, tree)
    return jax.tree.map(lambda x: np.asarray(x)[0], jax.device_get(shards))


def shard_place(shard: Any) -> int:
    """Where a shard stands along the leading axis."""
    return shard.index[0].start or 0


def note_losses(fittings: Sequence[Fitting], losses: np.ndarray, step: int) -> None:
    """Keep the losses (devices, steps) of a dispatch that ended at `step`; NonFiniteLoss naming fold and step."""
    for fitting, values in zip(fittings, losses, strict=False):
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise loop.NonFiniteLoss(
                f"fold {fitting.fold.name}: the loss was {values[wrong[0]]} at step "
                f"{step - len(values) + wrong[0] + 1}; a lower optimizer.learning_rate or optimizer.clip_norm may "
                "help. Finished folds are kept"
            )
        fitting.losses.extend(values.tolist())
