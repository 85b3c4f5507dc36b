"""The training loop. It knows steps, evaluations, checkpoints and signals, and no task.

What a chunk of steps does is `step(state, batches)`; what is measured is `evaluate(state) -> {metric: value}`. The loop
dispatches the next chunk before it reads the last one's losses, so the device never waits for the host.
"""

import collections
import contextlib
import dataclasses
import math
import pathlib
import signal
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from tensorboardX import SummaryWriter
from tqdm import tqdm

from coos import workdir as work
from coos.data import pipeline
from coos.train.checkpoint import Checkpoints
from coos.train.state import TrainState, to_host

NEWEST = "newest"


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; the message names the step and the examples."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """When things happen, in steps, and which validation value selects the best of them.

    `per_dispatch` steps run in one dispatch; the others say how often to log, evaluate and save. The lowest value of
    `select` is the best, as of an error or a loss; with `maximize` the highest, as of a score. With `NEWEST`
    there is no choice: the last step counts.
    """

    num_steps: int
    per_dispatch: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep_checkpoints: int
    select: str
    maximize: bool = False

    def lengths(self, start: int) -> Iterator[int]:
        """Steps of each dispatch from `start` on: none crosses an evaluation, a checkpoint or the end."""
        while start < self.num_steps:
            stops = (self._next(start, self.evaluate_every), self._next(start, self.checkpoint_every))
            stop = min(start + self.per_dispatch, self.num_steps, *stops)
            yield stop - start
            start = stop

    def due(self, step: int, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is due after `step` steps."""
        return step % every == 0 or step == self.num_steps

    @staticmethod
    def _next(step: int, every: int) -> int:
        return (step // every + 1) * every


class Recorder:
    """Result rows, TensorBoard scalars and the progress bar; only the first process writes.

    `labels` are the fields that every result row carries (study, run, dataset, seed).
    """

    def __init__(
        self, workdir: pathlib.Path, plan: Plan, *, start: int, batch_size: int, labels: dict[str, Any]
    ):
        self.workdir = workdir
        self._rows, self._labels, self._batch_size = workdir / "results.jsonl", labels, batch_size
        self._first = jax.process_index() == 0
        if self._first:
            work.truncate_rows(self._rows, step=start)
            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(
            total=plan.num_steps,
            initial=start,
            unit="step",
            disable=None if self._first else True,
            desc="training",
        )
        self._since = (start, time.perf_counter())

    def advance(self, steps: int) -> None:
        """Move the progress bar."""
        self._bar.update(steps)

    def rate(self, step: int) -> dict[str, float]:
        """Steps and images per second since the last call."""
        (before, then), now = self._since, time.perf_counter()
        self._since = (step, now)
        steps_per_second = (step - before) / max(now - then, 1e-9)
        return {
            "steps_per_second": steps_per_second,
            "images_per_second": steps_per_second * self._batch_size,
        }

    def write(self, step: int, split: str, values: dict[str, float], *, n: int | None = None) -> None:
        """Write {metric: value} of one split at one step."""
        if not self._first:
            return
        rows = [
            {
                **self._labels,
                "split": split,
                "metric": name,
                "value": value,
                "n": n,
                "fold": None,
                "step": step,
            }
            for name, value in values.items()
        ]
        work.append_rows(self._rows, rows)
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)

    def show(self, **values: float) -> None:
        """Show values on the progress bar."""
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *error: Any) -> None:
        """Close the bar and flush the scalars."""
        self._bar.close()
        if self._first:
            self._board.close()


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """While inside, SIGTERM and Ctrl-C only raise a flag; the yielded function tells whether one came.

    With several processes they agree on it, so that all stop after the same step.
    """
    received: list[int] = []
    before = {
        s: signal.signal(s, lambda number, _: received.append(number))
        for s in (signal.SIGTERM, signal.SIGINT)
    }

    def requested() -> bool:
        if jax.process_count() > 1:
            return bool(multihost_utils.process_allgather(np.array(len(received))).sum())
        return bool(received)

    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_finite(
    means: np.ndarray,
    losses: np.ndarray,
    examples: np.ndarray,
    *,
    last_step: int,
    ids: np.ndarray,
    workdir: Any,
) -> None:
    """Raise NonFiniteLoss if the mean loss (steps,) of a step is NaN or infinite.

    The means are those of all processes, so that all stop together; `losses` and `examples` (steps, examples)
    are this process's, the latter numbers into `ids`. The ids go to nonfinite_step_<n>.json.
    """
    if np.isfinite(means).all():
        return
    row = int(np.flatnonzero(~np.isfinite(means))[0])
    step = last_step - len(means) + 1 + row
    guilty = ids[examples[row][~np.isfinite(losses[row])]].tolist()
    name = f"nonfinite_step_{step}" + (f"_process_{jax.process_index()}" if jax.process_count() > 1 else "")
    path = pathlib.Path(workdir, f"{name}.json")
    work.write_json(path, {"step": step, "non_finite": guilty, "batch": ids[examples[row]].tolist()})
    raise NonFiniteLoss(
        f"step {step}: the loss of {len(guilty)} of {losses.shape[1]} examples is not finite: {guilty[:8]}"
        f"{' ...' if len(guilty) > 8 else ''} (all in {path}). Look at these images; if they are fine, lower "
        "optimizer.learning_rate or set optimizer.clip_norm. Earlier checkpoints are kept."
    )


@dataclasses.dataclass
class Best:
    """The best validation value so far and its step; None before there is one."""

    value: float | None = None
    step: int = 0

    def is_beaten_by(self, value: float, *, maximize: bool) -> bool:
        """Whether `value` is better; NaN never is."""
        if self.value is None:
            return not math.isnan(value)
        return value > self.value if maximize else value < self.value


def fit(
    state: TrainState,
    *,
    step: Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Any]]],
    chunks: Generator[pipeline.Chunk, None, None],
    plan: Plan,
    evaluate: Callable[[TrainState], dict[str, float]],
    recorder: Recorder,
    ids: np.ndarray,
    best: Best,
) -> tuple[TrainState, bool]:
    """Train a replicated state to the end of the plan, or until a signal asks to stop.

    `step(state, batches)` runs the steps of one chunk. Returns the state and whether the end was reached. On
    a signal the state is saved first. `ids` are those of the training examples, for error messages.
    """
    done = int(to_host(state.step))
    losses = _Losses(recorder, plan, ids)
    folder = recorder.workdir / "checkpoints"
    with (
        Checkpoints(folder, keep=plan.keep_checkpoints) as checkpoints,
        stop_requests() as stop,
        recorder,
        contextlib.closing(chunks),
    ):
        for chunk in chunks:
            state, metrics = step(state, chunk.batch)
            done += len(chunk.examples)
            losses.add(done, chunk, metrics)
            stopping = stop()
            if plan.due(done, plan.evaluate_every):
                losses.settle()
                _evaluate(state, done, evaluate=evaluate, plan=plan, best=best, recorder=recorder)
            if stopping or plan.due(done, plan.checkpoint_every):
                losses.settle()
                record = {"iterator": chunk.iterator_state, "best": dataclasses.asdict(best)}
                checkpoints.save(done, to_host(state), record)
            if stopping and done < plan.num_steps:
                logging.warning("stopped by a signal after step %d; the same command resumes there", done)
                return state, False
    return state, True


class _Losses:
    """Metrics of dispatched chunks: read one chunk late, so that reading never makes the device wait."""

    def __init__(self, recorder: Recorder, plan: Plan, ids: np.ndarray):
        self._recorder, self._plan, self._ids = recorder, plan, ids
        self._waiting: collections.deque[tuple[int, pipeline.Chunk, dict[str, Any]]] = collections.deque()

    def add(self, last_step: int, chunk: pipeline.Chunk, metrics: dict[str, Any]) -> None:
        """Take the metrics of a chunk that was just dispatched, and read those of the one before."""
        self._waiting.append((last_step, chunk, metrics))
        self.settle(keep=1)

    def settle(self, *, keep: int = 0) -> None:
        """Read, check and record what is waiting, all but the newest `keep` chunks."""
        while len(self._waiting) > keep:
            last, chunk, metrics = self._waiting.popleft()
            losses = _local_losses(metrics.pop("example_loss"))
            values = to_host(metrics)
            workdir = self._recorder.workdir
            means = values["loss"]
            check_finite(means, losses, chunk.examples, last_step=last, ids=self._ids, workdir=workdir)
            self._recorder.advance(len(losses))
            _log(self._recorder, values, last=last, every=self._plan.log_every)


def _local_losses(losses: jax.Array) -> np.ndarray:
    """(devices, steps, examples) of this process -> (steps, all examples in batch order)."""
    local = np.concatenate([np.asarray(shard.data) for shard in losses.addressable_shards])
    return np.moveaxis(local, 0, 1).reshape(local.shape[1], -1)


def _log(recorder: Recorder, values: dict[str, np.ndarray], *, last: int, every: int) -> None:
    """Write the values of the steps of one chunk that are due; the rate only of the newest."""
    first = last - len(next(iter(values.values()))) + 1
    for step in range(first, last + 1):
        if step % every == 0:
            recorder.write(step, "train", {name: float(x[step - first]) for name, x in values.items()})
    if last // every > (first - 1) // every:
        rate = recorder.rate(last)
        recorder.show(loss=float(values["loss"][-1]), **{"images/s": rate["images_per_second"]})
        recorder.write(last, "speed", rate)


def _evaluate(
    state: TrainState,
    step: int,
    *,
    evaluate: Callable[[TrainState], dict[str, float]],
    plan: Plan,
    best: Best,
    recorder: Recorder,
) -> None:
    """Evaluate, write the rows, and save the variables if this is the best step so far."""
    values = evaluate(state)
    if plan.select != NEWEST and plan.select not in values:
        raise ValueError(f"select={plan.select!r} is not among the validation metrics {sorted(values)}")
    count = values.pop("n", None)
    recorder.write(step, "validation", values, n=None if count is None else int(count))
    logging.info("step %d: validation %s", step, {name: round(value, 4) for name, value in values.items()})
    newest = plan.select == NEWEST
    if newest or best.is_beaten_by(values[plan.select], maximize=plan.maximize):
        best.value, best.step = None if newest else values[plan.select], step
        with Checkpoints(recorder.workdir / "best", keep=1) as checkpoints:
            host = {"params": to_host(state.params), "batch_stats": to_host(state.batch_stats)}
            checkpoints.save(step, host, dataclasses.asdict(best))
