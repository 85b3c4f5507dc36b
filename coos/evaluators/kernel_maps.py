"""What kernels emphasize in a field: maps of a convolution that differ most between classes (Godinez, Fig. 3a)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coos.evaluators.phenotypes import Trained
from coos.train import folds, phenotypes
from coos.train.checkpoint import Checkpoints


class Maps(NamedTuple):
    """Of E fields their rows in the table, of M kernels their numbers, and their maps (E, M, h, w) float32."""

    layer: str
    fields: np.ndarray
    kernels: np.ndarray
    maps: np.ndarray


def load(trained: Trained) -> tuple[phenotypes.FieldClassifier, Any, dict[str, Any]]:
    """Learner, variables and scaling of the network that was trained on everything; ValueError if there is none."""
    learner = phenotypes.make(trained.config, trained.study.source.dataset)
    shapes = jax.eval_shape(learner.init, jax.random.PRNGKey(0))
    like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    wanted = {"params": like["params"], "batch_stats": like.get("batch_stats", {})}
    folder = folds.parameters_of(trained.workdir)
    with Checkpoints(folder, keep=1) as checkpoints:
        restored = checkpoints.restore(wanted, set_aside=False)
    if restored is None:
        raise ValueError(f"{folder}: no network trained on everything; set config.soft")
    return learner, restored.tree, restored.record


def of_layer(trained: Trained, layer: str, *, fields: np.ndarray, number: int) -> Maps:
    """ReLU of the convolution called `layer` for some fields: `number` kernels whose mean map differs most by class.

    The difference of a kernel is the spread between the class means of its mean activation over the spread within
    classes, among `fields`. ValueError lists the convolutions there are.
    """
    learner, variables, scaling = load(trained)
    source = trained.study.source

    @jax.jit
    def activations(images: jax.Array) -> jax.Array:
        batch = {
            "image": images,
            "mean": jnp.asarray([scaling["mean"]], jnp.float32),
            "std": jnp.asarray([scaling["std"]], jnp.float32),
        }
        _, found = learner.model.apply(
            variables,
            learner.prepare(batch),
            train=False,
            capture_intermediates=lambda module, _: module.name == layer,
            mutable=["intermediates"],
        )
        captured = jax.tree.leaves(found)
        if not captured:
            raise ValueError(f"layer {layer!r}: the network has {', '.join(sorted(variables['params']))}")
        return jax.nn.relu(captured[0].astype(jnp.float32))

    found = np.concatenate([activations(source.gather(np.array([row]))) for row in fields])
    kernels = most_different(found.mean((1, 2)), source.labels[fields])[:number]
    return Maps(layer, fields, kernels, np.moveaxis(found[..., kernels], -1, 1))


def most_different(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Columns of (E, K) by how far class means lie apart, in deviations within classes; the farthest first."""
    means = np.stack([values[labels == k].mean(0) for k in np.unique(labels)])
    within = np.sqrt(np.mean([values[labels == k].var(0) for k in np.unique(labels)], axis=0))
    apart = np.ptp(means, axis=0) / np.where(within > 0, within, np.inf)
    return np.argsort(-apart, kind="stable")
