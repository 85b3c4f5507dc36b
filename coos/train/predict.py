"""Probabilities of every example of a source, over all devices and processes."""

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
    """Probabilities of every example of `source`, in its order.

    `predict_batch(variables, batch)` is a compiled step over all local devices. With `progress`, a bar of that
    name is shown. Every process returns the predictions of all.
    """
    batch_size += -batch_size % jax.local_device_count()
    probabilities, examples = [], []
    batches = pipeline.prefetch(pipeline.evaluation_batches(source, batch_size=batch_size))
    total = -(-len(source) // (batch_size * jax.process_count()))
    for numbers, batch in tqdm(batches, total=total, desc=progress, disable=None if progress else True):
        output = predict_batch(variables, batch)
        rows = np.concatenate([np.asarray(shard.data) for shard in output.addressable_shards])
        probabilities.append(rows.reshape(-1, rows.shape[-1])[: len(numbers)])
        examples.append(numbers)
    ordered = _collect(np.concatenate(examples), np.concatenate(probabilities), len(source))
    return Predictions(source.ids, source.labels, ordered, source.columns)


def _collect(examples: np.ndarray, rows: np.ndarray, total: int) -> np.ndarray:
    """Rows of all processes, in the order of the examples."""
    everything = np.full((total, rows.shape[1]), np.nan, np.float32)
    everything[examples] = rows
    if jax.process_count() > 1:
        everything = np.nanmin(multihost_utils.process_allgather(everything), axis=0)
    return everything
