"""M-CNN, the multi-scale network of Godinez et al. 2017 (A multi-scale convolutional neural network for phenotyping).

Seven pathways see the image at scales s = 1, 2, 4, ..., 64 and meet at the coarsest, 1/64 of the image:

    520x692  max pool s x s, stride s
             scale{s}_conv1 ... conv3    5x5, ReLU    16, 16, 16, 32, 32, 32, 64 channels for s = 1, ..., 64
             max pool 64/s, stride 64/s  -> scale{s}, 8x10
       8x10  concat     208
       8x10  conv_mix  1024    1x1, ReLU    max pool 2x2, stride 2 -> pool, 4x5
    flatten (height, width, channel order: 20,480), fc1 512 with ReLU, logits

Convolutions keep the size (two pixels of zeros on each side) and have a bias; pools floor. No batch norm, no dropout.
Any image size from 128x128 on, but the size fixes the number of parameters. The flattening order is ours: PyTorch
flattens in (channel, height, width) order, so fc1 weights from there need reordering.

11,230,929 trainable parameters for five channels and 209 outputs at 520x692 or 520x696 (Table 2 of Hofmarcher et al.
2019, whose code, ml-jku/hti-cnn, gives the widths); 42,576,748 for the 3x1024x1280 images and 12 classes of BBBC021.
The 3 x 208 = 624 kernel maps of the pathways are those that Godinez et al. print; the width of conv_mix and the last
pool are known from the former only.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from coos.models import layers

PUBLISHED = layers.Published("Godinez 2017; Hofmarcher 2019, Table 2", (520, 696, 5), 209, 11_230_929)

WIDTHS = (16, 16, 16, 32, 32, 32, 64)


def _reduced(x: Array, factor: int) -> Array:
    """x at 1/factor of its size: the maxima of blocks."""
    return x if factor == 1 else layers.max_pool(x, factor, factor)


class MCNN(nn.Module):
    """M-CNN as a Linen module.

    Attributes:
        num_outputs: number of logits.
        widths: channels of the three convolutions of each pathway, from scale 1 on; n of them make 2^(n-1) the
            coarsest scale and 2^n the smallest image.
        mix_units: channels of the 1x1 convolution over all pathways.
        fc_units: units of the hidden fully connected layer.
        dtype: compute dtype; parameters are float32.
        axis_name: unused, there is no batch norm; accepted like everywhere.
    """

    num_outputs: int
    widths: tuple[int, ...] = WIDTHS
    mix_units: int = 1024
    fc_units: int = 512
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}.

        `train` changes nothing.
        """
        smallest = 2 ** len(self.widths)
        layers.check_images("MCNN", images, smallest=(smallest, smallest))
        weights = {"kernel_init": nn.initializers.xavier_uniform(), "dtype": self.dtype}
        features: dict[str, Array] = {}
        images = images.astype(self.dtype)
        for n, width in enumerate(self.widths):
            scale, rest = 2**n, 2 ** (len(self.widths) - 1 - n)
            x = _reduced(images, scale)
            for i in (1, 2, 3):
                x = nn.relu(nn.Conv(width, (5, 5), name=f"scale{scale}_conv{i}", **weights)(x))
            features[f"scale{scale}"] = _reduced(x, rest)
        features["concat"] = x = jnp.concatenate(list(features.values()), -1)
        features["conv_mix"] = x = nn.relu(nn.Conv(self.mix_units, (1, 1), name="conv_mix", **weights)(x))
        features["pool"] = x = layers.max_pool(x, 2, 2)
        x = layers.flatten(x)
        features["fc1"] = x = nn.relu(nn.Dense(self.fc_units, name="fc1", **weights)(x))
        x = nn.Dense(self.num_outputs, name="logits", **weights)(x)
        return {"logits": layers.as_logits(x), "features": features}


def create(
    num_outputs: int,
    *,
    widths: Sequence[int] = WIDTHS,
    mix_units: int = 1024,
    fc_units: int = 512,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> MCNN:
    """M-CNN with the options of `MCNN`."""
    return MCNN(
        num_outputs,
        widths=tuple(widths),
        mix_units=mix_units,
        fc_units=fc_units,
        dtype=dtype,
        axis_name=axis_name,
    )
