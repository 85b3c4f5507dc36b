"""Weights of Keras Applications and torchvision in our networks.

    from coos.models import pretrained

    found = pretrained.load("efficientnet_b0", "efn", channels=5, num_outputs=1144)      # downloads
    found = pretrained.load("resnet50", "mine.pth", num_outputs=7)                       # or a file
    pixels = pretrained.to_bytes(images)                                                 # 0..255
    output = found.module.apply(found.variables, pretrained.apply(pixels, found.scaling), train=False)

No pickle is ever executed: .pth files are read by an interpreter of our own that knows tensors and nothing else.
"""

from coos.data.preprocess import to_bytes
from coos.models.pretrained.known import KNOWN, Known
from coos.models.pretrained.load import Imported, importable, load
from coos.models.pretrained.scaling import (
    SCALINGS,
    Scaling,
    adapt_stem,
    apply,
    channels_as_images,
    for_channels,
    join_channels,
)

__all__ = [
    "KNOWN",
    "SCALINGS",
    "Imported",
    "Known",
    "Scaling",
    "adapt_stem",
    "apply",
    "channels_as_images",
    "for_channels",
    "importable",
    "join_channels",
    "load",
    "to_bytes",
]
