"""SC-CNN, the single-cell network of Hofmarcher et al. 2019: GapNet without dilation, for crops around cells.

    96x96  conv1              32, stride 2    48x48    pool1 -> 24x24    mean: gap1    32
    24x24  conv2              64, stride 2    12x12
    12x12  conv3, conv4       64              12x12    pool2 ->  6x6     mean: gap2    64
     6x6   conv5 ... conv7   128               6x6     pool3 ->  3x3     mean: gap3   128
     3x3   conv8 ... conv10  256               3x3                       mean: gap4   256
    gap (480), fc1 1024, fc2 1024, logits

pool2 has no padding; all else is as in `coos.models.gapnet`, the parameters too: 3,694,545 for five channels and 209
outputs. Any image size from 27x27 on.
"""

from typing import Any

import jax.numpy as jnp

from coos.models import layers
from coos.models.gapnet import GapNet

PUBLISHED = layers.Published("Hofmarcher 2019 (counts as GapNet)", (96, 96, 5), 209, 3_694_545)


def create(
    num_outputs: int,
    *,
    width: int = 32,
    fc_units: int = 1024,
    dropout: float = 0.0,
    linear_init: str = "lecun_normal",
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> GapNet:
    """SC-CNN with the options of `coos.models.gapnet.GapNet`."""
    return GapNet(
        num_outputs,
        width=width,
        fc_units=fc_units,
        dropout=dropout,
        dilations=(1, 1, 1),
        pool2_padding=0,
        linear_init=linear_init,
        dtype=dtype,
        axis_name=axis_name,
    )
