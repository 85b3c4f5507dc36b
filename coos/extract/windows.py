"""What of a field is looked at around a cell, cut on the host or on the device."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array

from coos.data import crops, device_crops

WINDOWS = ("exact", "deepprofiler")
SIZE = 128  # Bornholdt 2021, section 4.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """The surroundings of a cell that are looked at.

    Args:
        size: height and width in pixels.
        kind: "exact" (whole pixels, the raw dtype) or "deepprofiler" (resampled as DeepProfiler does, float32).
        as_bytes: resampled windows by their joint extremes to 0..255, whole numbers: DeepProfiler's exported crops.
    """

    size: int = SIZE
    kind: str = "exact"
    as_bytes: bool = False

    def __post_init__(self):
        if self.kind not in WINDOWS:
            raise ValueError(f"window={self.kind!r}: choose one of {WINDOWS}")
        if self.size < 1:
            raise ValueError(f"crop_size={self.size}: must be positive")

    def dtype(self, image: np.dtype) -> np.dtype:
        """The dtype of windows of images of a dtype."""
        if self.kind == "exact":
            return np.dtype(image)
        return np.dtype(np.uint8 if self.as_bytes else np.float32)

    def places(self, centers: np.ndarray) -> np.ndarray:
        """(n, 2) what `cut_from` needs of centers (n, 2) float64: corners int32, or centers float32."""
        if self.kind == "exact":
            return crops.corners(centers, self.size).astype(np.int32)
        return centers.astype(np.float32)

    def cut(self, image: np.ndarray, centers: np.ndarray) -> np.ndarray:
        """(n, size, size, C) windows of an image (H, W, C) around centers (n, 2), on the host."""
        if self.kind == "exact":
            return crops.cut(image, crops.corners(centers, self.size), self.size)
        found = crops.resample(image, centers, self.size)
        return crops.to_deepprofiler_bytes(found) if self.as_bytes else found

    def cut_from(self, image: Array, places: Array) -> Array:
        """The same on the device, of places (n, 2); bytes are floored in float32, so that a few differ by one."""
        field = jnp.zeros(len(places), jnp.int32)
        if self.kind == "exact":
            return device_crops.cut_from(image[None], field, places, self.size)
        found = device_crops.resample_from(image[None], field, places, self.size)
        return _bytes(found) if self.as_bytes else found


def _bytes(images: Array) -> Array:
    """`crops.to_deepprofiler_bytes` in float32, of windows (n, size, size, C)."""
    low, high = (extreme(images, axis=(1, 2, 3), keepdims=True) for extreme in (jnp.min, jnp.max))
    return ((images - low) / jnp.where(high > low, high - low, 1) * 255).astype(jnp.uint8)
