"""MIL-Net, the multiple instance network of Kraus et al. 2016 as Hofmarcher et al. 2019 compared it.

    520x692  input_pool    mean 3x3, stride 2    259x345
    259x345  conv1   32    conv2   64            255x341    pool1 -> 127x170
    127x170  conv3   64    5x5                   123x166    pool2 ->  61x82
     61x82   conv4  128                           59x80     pool3 ->  29x39
     29x39   conv5  128                           27x37     pool4 ->  13x18
     13x18   conv6 1000    1x1
     13x18   instances     1x1, one sigmoid map per output: an instance's probability of the class
    noisy_and              one probability per output and image
    logits                 fully connected, on these probabilities

Convolutions are 3x3 unless said otherwise, without padding, with bias and ReLU; pools are max 3x3, stride 2, without
padding, floor. Dropout (elementwise) after every max pool and after conv6. Any image size from 135x135 on.

726,180 trainable parameters for five channels and 209 outputs (Table 2 of Hofmarcher et al.). Sizes, dropout and slope
are those of their code (ml-jku/hti-cnn).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from coos.models import layers

PUBLISHED = layers.Published("Kraus 2016; Hofmarcher 2019, Table 2", (520, 696, 5), 209, 726_180)

CONVOLUTIONS = (  # name, channels in units of the first layer's, kernel size
    ("conv1", 1, 3),
    ("conv2", 2, 3),
    ("conv3", 2, 5),
    ("conv4", 4, 3),
    ("conv5", 4, 3),
)
POOL_AFTER = {"conv2": "pool1", "conv3": "pool2", "conv4": "pool3", "conv5": "pool4"}
SMALLEST_SIZE = 135


def noisy_and(mean: Array, threshold: Array, slope: float) -> Array:
    """A soft threshold on the share of positive instances (Kraus et al. 2016): 0 at mean 0, 1 at mean 1.

    [s(a (m - b)) - s(-a b)] / [s(a (1 - b)) - s(-a b)] with logistic function s, mean m (..., K), threshold b (K,)
    and slope a.
    """
    low = jax.nn.sigmoid(-slope * threshold)
    high = jax.nn.sigmoid(slope * (1 - threshold))
    return (jax.nn.sigmoid(slope * (mean - threshold)) - low) / (high - low)


class MilNet(nn.Module):
    """MIL-Net as a Linen module.

    Its loss is the sum of two cross-entropies: on the logits, and on the probabilities `features["pooled"]`.

    Attributes:
        num_outputs: number of logits, and of instance maps.
        width: channels of the first convolution; conv2 to conv5 follow in proportion (32 is the original).
        instance_units: channels of conv6.
        slope: a of the noisy-AND, fixed.
        threshold_init: initial value of its thresholds b, which are learned, one per output.
        dropout: rate after each max pool.
        instance_dropout: rate after conv6.
        second_sigmoid: whether "pooled" is sigmoid(P) instead of P, the output of the noisy-AND. The published code
            (ml-jku/hti-cnn) gives P to a cross-entropy that takes logits, which puts a second sigmoid on it.
        dtype: compute dtype; parameters are float32, and so are the instance maps and what is pooled from them.
        axis_name: unused, there is no batch norm; accepted like everywhere.
    """

    num_outputs: int
    width: int = 32
    instance_units: int = 1000
    slope: float = 10.0
    threshold_init: float = 0.1
    dropout: float = 0.2
    instance_dropout: float = 0.5
    second_sigmoid: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}.

        "noisy_and" and "pooled" are (B, num_outputs) float32. Features are before dropout.
        """
        layers.check_images("MilNet", images, smallest=(SMALLEST_SIZE, SMALLEST_SIZE))
        weights = {
            "kernel_init": nn.initializers.variance_scaling(1.0, "fan_avg", "normal"),
            "dtype": self.dtype,
        }
        features: dict[str, Array] = {}
        features["input_pool"] = x = nn.avg_pool(images.astype(self.dtype), (3, 3), (2, 2))
        for name, factor, kernel in CONVOLUTIONS:
            conv = nn.Conv(factor * self.width, (kernel, kernel), padding="VALID", name=name, **weights)
            features[name] = x = nn.relu(conv(x))
            if name in POOL_AFTER:
                features[POOL_AFTER[name]] = x = layers.max_pool(x, 3, 2)
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        features["conv6"] = x = nn.relu(nn.Conv(self.instance_units, (1, 1), name="conv6", **weights)(x))
        x = nn.Dropout(self.instance_dropout, deterministic=not train)(x)
        x = layers.as_logits(nn.Conv(self.num_outputs, (1, 1), name="instances", **weights)(x))
        features["instances"] = x = nn.sigmoid(x)
        threshold = self.param(
            "threshold", nn.initializers.constant(self.threshold_init), (self.num_outputs,)
        )
        features["noisy_and"] = x = noisy_and(layers.global_mean(x), threshold, self.slope)
        features["pooled"] = nn.sigmoid(x) if self.second_sigmoid else x
        x = nn.Dense(self.num_outputs, name="logits", **weights)(x)
        return {"logits": layers.as_logits(x), "features": features}


def create(
    num_outputs: int,
    *,
    width: int = 32,
    instance_units: int = 1000,
    slope: float = 10.0,
    threshold_init: float = 0.1,
    dropout: float = 0.2,
    instance_dropout: float = 0.5,
    second_sigmoid: bool = False,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> MilNet:
    """MIL-Net with the options of `MilNet`."""
    return MilNet(
        num_outputs,
        width=width,
        instance_units=instance_units,
        slope=slope,
        threshold_init=threshold_init,
        dropout=dropout,
        instance_dropout=instance_dropout,
        second_sigmoid=second_sigmoid,
        dtype=dtype,
        axis_name=axis_name,
    )
