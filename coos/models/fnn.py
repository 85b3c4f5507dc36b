"""FNN, the fully connected network on CellProfiler features of Hofmarcher et al. 2019 (after Simm et al. 2018).

    features    dropout 0.1
    fc1 2048, fc2 2048, fc3 2048, each with bias, ReLU and dropout 0.5
    logits

It takes one vector per example instead of an image. 12,474,577 trainable parameters for 1,783 features and 209 outputs.
Each feature should come standardized over the training set.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from coos.models import layers

PUBLISHED = layers.Published("Simm 2018; Hofmarcher 2019", (1783,), 209, 12_474_577)


def check_vectors(network: str, vectors: Array) -> None:
    """Raise ValueError unless vectors are (B, features) floats with at least one feature."""
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(f"{network} takes feature vectors (batch, features); got shape {vectors.shape}")
    if not jnp.issubdtype(vectors.dtype, jnp.floating):
        raise ValueError(f"{network} takes floating-point features; got {vectors.dtype}: convert them first")


def standardized_samples(vectors: Array) -> Array:
    """Each row minus its mean, divided by its population standard deviation; a constant row becomes zeros."""
    vectors = layers.as_logits(vectors)  # features differ by orders of magnitude: not in half precision
    centred = vectors - vectors.mean(-1, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True))
    return centred / jnp.where(deviation > 0, deviation, 1)


class FNN(nn.Module):
    """FNN as a Linen module.

    Attributes:
        num_outputs: number of logits.
        units: of each of the three hidden layers.
        input_dropout: rate of the dropout on the features.
        dropout: rate after each hidden layer.
        normalize_samples: standardize every sample over its own features first, as the published code
            (ml-jku/hti-cnn) does; the paper does not say so.
        dtype: compute dtype; parameters are float32.
        axis_name: unused, there is no batch norm; accepted like everywhere.
    """

    num_outputs: int
    units: int = 2048
    input_dropout: float = 0.1
    dropout: float = 0.5
    normalize_samples: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> dict[str, Any]:
        """Vectors (B, features) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}.

        Hidden layers among the features are before dropout.
        """
        check_vectors("FNN", images)
        x = standardized_samples(images) if self.normalize_samples else images
        x = nn.Dropout(self.input_dropout, deterministic=not train)(x.astype(self.dtype))
        weights = {
            "kernel_init": nn.initializers.variance_scaling(1.0, "fan_avg", "normal"),
            "dtype": self.dtype,
        }
        features: dict[str, Array] = {}
        for name in ("fc1", "fc2", "fc3"):
            features[name] = x = nn.relu(nn.Dense(self.units, name=name, **weights)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(self.num_outputs, name="logits", **weights)(x)
        return {"logits": layers.as_logits(x), "features": features}


def create(
    num_outputs: int,
    *,
    units: int = 2048,
    input_dropout: float = 0.1,
    dropout: float = 0.5,
    normalize_samples: bool = False,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> FNN:
    """FNN with the options of `FNN`."""
    return FNN(
        num_outputs,
        units=units,
        input_dropout=input_dropout,
        dropout=dropout,
        normalize_samples=normalize_samples,
        dtype=dtype,
        axis_name=axis_name,
    )
