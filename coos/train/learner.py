"""What a task gives to the training loop: a network with its preprocessing, its loss and its predictions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from coos import models
from coos.train import steps

OWN_MODEL_FIELDS = ("name", "dtype", "cross_device_norm")


@dataclasses.dataclass(frozen=True)
class Learner:
    """Everything that turns raw examples into losses and predictions, but the parameters.

    `input_shape` is that of one raw example, (H, W, C) or (F,). Tasks fill in `loss` and `predict`.
    """

    config: ml_collections.ConfigDict
    model: Any
    constants: dict[str, Any]
    input_shape: tuple[int, ...]

    def prepared_shape(self) -> tuple[int, ...]:
        """Shape of one example as the network gets it."""
        return self.input_shape

    def init(self, key: jax.Array) -> Any:
        """Fresh variables of the model."""
        # An array that XLA cannot know: from a constant one it would compute the whole network at compile time.
        return self.model.init(key, jax.random.uniform(key, (1, *self.prepared_shape())), train=False)

    def loss(self, params: Any, batch_stats: Any, batch: dict[str, jax.Array], key: jax.Array) -> Any:
        """Per-example losses, as `coos.train.steps.LossFunction` says."""
        raise NotImplementedError

    def represent(self, variables: Any, images: jax.Array, *, layer: str) -> jax.Array:
        """Features of raw images (B, ...) in one layer of the network, as vectors (B, D) float32.

        Images are prepared as for validation; a map of features is averaged over space.
        """
        raise NotImplementedError

    def predict(self, variables: Any, batch: dict[str, jax.Array], *, validating: bool) -> jax.Array:
        """Probabilities (B, K) float32, those that validation looks at while training or those that are judged."""
        raise NotImplementedError


def create_model(config: ml_collections.ConfigDict, *, num_outputs: int) -> Any:
    """The network of `config.model`; its own options are the fields beside name, dtype and cross_device_norm."""
    options = {name: value for name, value in config.model.items() if name not in OWN_MODEL_FIELDS}
    return models.create(
        config.model.name,
        num_outputs=num_outputs,
        dtype=jnp.dtype(config.model.dtype),
        axis_name=steps.AXIS if config.model.cross_device_norm else None,
        **options,
    )
