"""What a network says of every example of a source, over all devices and processes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from coos.data import pipeline
from coos.data.source import Source
from coos.workdir import Predictions


def predict(
    predict_batch: Callable[[Any, dict[str, Any]], jax.Array],
    variables: Any,
    source: Source,
    *,
    batch_size: int,
    progress: str | None = None,
) -> Predictions:
    """Probabilities of every example of `source`, in its order, see `rows_of`."""
    found = rows_of(predict_batch, variables, source, batch_size=batch_size, progress=progress)
    return Predictions(source.ids, source.labels, found, source.columns)


def rows_of(
    compute_batch: Callable[[Any, dict[str, Any]], jax.Array],
    variables: Any,
    source: Source,
    *,
    batch_size: int,
    progress: str | None = None,
) -> np.ndarray:
    """What is computed of every example of `source`, (N, D) float32, in its order.

    `compute_batch(variables, batch)` is a compiled step over all local devices. With `progress`, a bar of that
    name is shown. Every process returns the rows of all.
    """
    batch_size += -batch_size % jax.local_device_count()
    parts, examples = [], []
    batches = pipeline.prefetch(pipeline.evaluation_batches(source, batch_size=batch_size))
    total = -(-len(source) // (batch_size * jax.process_count()))
    for numbers, batch in tqdm(batches, total=total, desc=progress, disable=None if progress else True):
        output = compute_batch(variables, batch)
        rows = np.concatenate([np.asarray(shard.data) for shard in output.addressable_shards])
        parts.append(rows.reshape(-1, rows.shape[-1])[: len(numbers)])
        examples.append(numbers)
    return _collect(np.concatenate(examples), np.concatenate(parts), len(source))


def _collect(examples: np.ndarray, rows: np.ndarray, total: int) -> np.ndarray:
    """Rows of all processes, in the order of the examples."""
    everything = np.full((total, rows.shape[1]), np.nan, np.float32)
    everything[examples] = rows
    if jax.process_count() > 1:
        everything = np.nanmin(multihost_utils.process_allgather(everything), axis=0)
    return everything
