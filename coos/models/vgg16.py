"""VGG16, configuration D of Simonyan and Zisserman 2015.

    224x224  conv1_1, conv1_2                64     pool1 -> 112x112
    112x112  conv2_1, conv2_2               128     pool2 ->  56x56
     56x56   conv3_1, conv3_2, conv3_3      256     pool3 ->  28x28
     28x28   conv4_1, conv4_2, conv4_3      512     pool4 ->  14x14
     14x14   conv5_1, conv5_2, conv5_3      512     pool5 ->   7x7
    adaptive average to 7x7, flatten (height, width, channel order), fc6 4096, fc7 4096, logits

Convolutions are 3x3, stride 1, SAME, with bias; every layer but the logits ends in ReLU; pools are max 2x2, stride 2,
and leave out an odd last row or column. At 224x224 the adaptive average changes nothing; it is torchvision's way to
take other sizes. 138,357,544 parameters for three channels and 1,000 outputs, in Keras and in torchvision.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from coos.models import layers

PUBLISHED = layers.Published("Simonyan 2015; Lu 2019", (224, 224, 3), 1000, 138_357_544)

BLOCKS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))  # convolutions, channels as multiples of the width
SMALLEST_SIZE = 32
POOLED_SIZE = 7


class VGG16(nn.Module):
    """VGG16 as a Linen module.

    Initial values are torchvision's: convolutions of variance 2 / fan_out, fully connected layers of deviation 0.01.

    Attributes:
        num_outputs: number of logits.
        width: channels of the first block; the others follow in proportion (64 is the original).
        fc_units: of fc6 and fc7 (4096 is the original).
        dropout: rate after fc6 and after fc7 (0.5 in the paper and torchvision; Keras has none).
        dtype: compute dtype; parameters are float32.
        axis_name: not used (there is no batch norm); taken as in the other networks.
    """

    num_outputs: int
    width: int = 64
    fc_units: int = 4096
    dropout: float = 0.5
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}."""
        layers.check_images("VGG16", images, smallest=(SMALLEST_SIZE, SMALLEST_SIZE))
        conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        dense = {"kernel_init": nn.initializers.normal(0.01), "dtype": self.dtype}
        features: dict[str, jax.Array] = {}
        x = images.astype(self.dtype)
        for block, (convolutions, factor) in enumerate(BLOCKS, 1):
            for i in range(1, convolutions + 1):
                name = f"conv{block}_{i}"
                conv = nn.Conv(
                    factor * self.width, (3, 3), kernel_init=conv_init, dtype=self.dtype, name=name
                )
                features[name] = x = nn.relu(conv(x))
            features[f"pool{block}"] = x = layers.max_pool(x, 2, 2)
        x = layers.flatten(layers.adaptive_average_pool(x, POOLED_SIZE))
        for name in ("fc6", "fc7"):
            features[name] = x = nn.relu(nn.Dense(self.fc_units, name=name, **dense)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(self.num_outputs, name="logits", **dense)(x)
        return {"logits": layers.as_logits(x), "features": features}


def layout(module: VGG16) -> list[layers.WeightSource]:
    """Where the weights of `module` stand in torchvision and in Keras."""
    sources, index = [], 0  # torchvision counts convolutions, ReLUs and pools
    for block, (convolutions, _) in enumerate(BLOCKS, 1):
        for i in range(1, convolutions + 1):
            names = f"conv{block}_{i}", f"block{block}_conv{i}"
            sources.append(layers.WeightSource((names[0],), "conv", f"features.{index}", names[1]))
            index += 2
        index += 1
    flattened = (BLOCKS[-1][1] * module.width, POOLED_SIZE, POOLED_SIZE)
    return [
        *sources,
        layers.WeightSource(("fc6",), "dense", "classifier.0", "fc1", flattened),
        layers.WeightSource(("fc7",), "dense", "classifier.3", "fc2"),
        layers.WeightSource(("logits",), "dense", "classifier.6", "predictions"),
    ]


def create(
    num_outputs: int,
    *,
    width: int = 64,
    fc_units: int = 4096,
    dropout: float = 0.5,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> VGG16:
    """VGG16 with the options of `VGG16`."""
    return VGG16(
        num_outputs, width=width, fc_units=fc_units, dropout=dropout, dtype=dtype, axis_name=axis_name
    )
