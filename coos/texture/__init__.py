"""Texture of single cells: Haralick's features at several scales, and the statistics of intensity beside them.

    found = texture.texture(images)              # (B, H, W, C) measured intensities -> (B, 264) float32
    texture.names()[1]                           # "haralick_d1_a0_contrast"
    grey = texture.quantize(images[..., 0])      # (B, H, W) grey levels, each image from 0 to 255
    texture.haralick(grey, distances=(1, 2))     # (B, 2, 4, 13)

Haralick, Shanmugam & Dinstein 1973 count how often two grey levels lie side by side. With p(i, j) the share of pixel
pairs at an offset that have the levels i and j (in either order, so p is symmetric), the thirteen features are sums
over p, over its marginal p_x, and over the distributions of i + j and |i - j|. Lu et al. 2019 (section 3.1) take them
from the first channel at five scales. All is pure JAX, in blocks of images, and can be called inside `jax.jit`.
"""

from coos.texture.cooccurrence import FEATURES, haralick
from coos.texture.features import INTENSITIES, SCALES, names, texture
from coos.texture.intensity import STATISTICS, quantize
from coos.texture.pair_sums import DIRECTIONS

__all__ = [
    "DIRECTIONS",
    "FEATURES",
    "INTENSITIES",
    "SCALES",
    "STATISTICS",
    "haralick",
    "names",
    "quantize",
    "texture",
]
