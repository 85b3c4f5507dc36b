"""Batch-norm statistics of the images that are judged, in the place of those that training left (AdaBN).

A network with batch norm expects activations with the mean and variance of its training images. Images of another
microscope have others; measured on them, without a label, the statistics bring its layers back to the range in which
they were trained (Li et al. 2017; Schneider et al. 2020). Classes count as they come: where they are mixed otherwise
than in training, the statistics move with them too.
"""

from typing import Any

import jax
import numpy as np

from coos.data import pipeline
from coos.data.source import Source
from coos.train import steps
from coos.train.classification import Classifier


def adapted(
    learner: Classifier, variables: Any, source: Source, *, batch_size: int, seed: int = 0
) -> dict[str, Any]:
    """`variables` with batch-norm statistics measured on all images of `source`, in batches of random composition.

    Every layer sees activations that the batch's own statistics normalized before it. Of B batches with means m_b and
    variances v_b the statistics are mean_b m_b and mean_b (v_b + m_b^2) - (mean_b m_b)^2. The last batch is filled up
    with images of the first.

    Raises:
        ValueError: the network has no batch norm whose momentum can be set, or there are no images.
    """
    if not len(source):
        raise ValueError("no images to measure batch-norm statistics on")
    if not variables.get("batch_stats") or not hasattr(learner.model, "momentum"):
        raise ValueError(
            f"model {learner.config.model.name!r} has no running batch-norm statistics to replace"
        )
    # With momentum 0 what is kept after a batch is the batch's own.
    module = learner.model.clone(momentum=0.0)

    def statistics(variables: Any, batch: dict[str, jax.Array]) -> Any:
        views = learner.views(batch["image"], number=1)[:, 0]
        dropout = {"dropout": jax.random.PRNGKey(seed)}
        return module.apply(variables, views, train=True, mutable=["batch_stats"], rngs=dropout)[1][
            "batch_stats"
        ]

    measure, replicated = steps.make_predict(statistics), pipeline.replicate(variables)
    order = np.random.default_rng(seed).permutation(len(source))
    size = batch_size + -batch_size % jax.local_device_count()
    size = min(size, len(source) + -len(source) % jax.local_device_count())
    found = []
    for start in range(0, len(order), size):
        rows = np.resize(np.roll(order, -start), size)
        found.append(
            jax.device_get(measure(replicated, pipeline.shard({"image": source.gather(rows)}, axis=0)))
        )
    whole = jax.tree.map(lambda *parts: np.concatenate(parts).astype(np.float64), *found)
    return {**variables, "batch_stats": _pooled(whole)}


def _pooled(tree: Any) -> Any:
    """Mean and variance of all batches from those of each, along the leading axis of every array."""
    if set(tree) != {"mean", "var"}:
        return {name: _pooled(part) for name, part in tree.items()}
    mean = tree["mean"].mean(0)
    variance = (tree["var"] + tree["mean"] ** 2).mean(0) - mean**2
    return {"mean": mean.astype(np.float32), "var": np.maximum(variance, 0).astype(np.float32)}
