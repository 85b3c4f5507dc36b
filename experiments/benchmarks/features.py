"""Haralick's features beside mahotas on one thread: images/s and agreement.

Five scales, four directions and 256 grey levels, the defaults of `coos.texture.texture`; simulated cells of 64 x 64
pixels. mahotas multiplies large matrices with BLAS, which is held to one thread; coos runs on one device, with the
threads that XLA takes.
"""

import statistics
import time
from collections.abc import Callable

import jax
import mahotas
import numpy as np
import threadpoolctl
from jax.typing import ArrayLike

from coos import texture
from coos.data import simulate

PEER_IMAGES, BATCH, LEVELS = 50, 512, 256


def simulated(count: int) -> np.ndarray:
    """(count, 64, 64, 2) uint16."""
    per_class = -(-count // len(simulate.CLASSES))
    data = simulate.simulate_split("training", cells_per_class=per_class)["data"]
    return np.ascontiguousarray(np.moveaxis(data[:count], 1, -1))


def peer(grey: np.ndarray) -> np.ndarray:
    """(B, 5, 4, 13) float64 by mahotas, on one thread."""
    with threadpoolctl.threadpool_limits(1):
        return np.array(
            [[mahotas.features.haralick(image, distance=d) for d in texture.SCALES] for image in grey]
        )


def of_pairs(grey: ArrayLike) -> jax.Array:
    """(B, 5, 4, 13) float32 by coos."""
    return jax.block_until_ready(texture.haralick(grey, levels=LEVELS, distances=texture.SCALES))


def from_intensities(images: ArrayLike) -> jax.Array:
    """(B, 264) float32 by coos, with grey levels and statistics."""
    return jax.block_until_ready(texture.texture(images, levels=LEVELS))


def rate(function: Callable, images: np.ndarray | jax.Array) -> float:
    """Images/s of one call."""
    began = time.perf_counter()
    function(images)
    return len(images) / (time.perf_counter() - began)


def measure_speed(images: np.ndarray, grey: np.ndarray, rounds: int) -> None:
    """In turns, so that all see the same machine."""
    kinds: dict[str, tuple[Callable, np.ndarray | jax.Array]] = {
        "mahotas": (peer, grey[:PEER_IMAGES]),
        "coos": (of_pairs, jax.device_put(grey)),
        "coos, from measured intensities": (from_intensities, images),
    }
    began = time.perf_counter()
    of_pairs(grey), from_intensities(images)
    print(f"  first calls of both functions {time.perf_counter() - began:.1f} s", flush=True)
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, (function, given) in kinds.items():
            found[name].append(rate(function, given))
    base = statistics.median(found["mahotas"])
    for name, rates in found.items():
        middle = statistics.median(rates)
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        print(f"  {name:<33}{middle:8,.0f} images/s ({spread})   {middle / base:6.1f} x mahotas", flush=True)


def measure_agreement(grey: np.ndarray) -> None:
    """Largest deviation of each feature, relative to the larger of 1 and the feature."""
    ours, theirs = np.asarray(of_pairs(grey[:PEER_IMAGES])), peer(grey[:PEER_IMAGES])
    worst = (np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))).max((0, 1, 2))
    text = ", ".join(f"{name} {value:.0e}" for name, value in zip(texture.FEATURES, worst, strict=True))
    print(f"  largest deviation {worst.max():.1e} in {PEER_IMAGES} images: {text}", flush=True)


def main(*, rounds: int, batch: int | None) -> None:
    """Measure and print, speeds as medians (and range) of `rounds` calls after the first (which compiles)."""
    images = simulated(batch or BATCH)
    grey = np.asarray(texture.quantize(images[..., 0], LEVELS))
    print(
        f"{len(images):,} simulated images of {images.shape[1]} x {images.shape[2]}, {len(texture.SCALES)} scales x "
        f"{len(texture.DIRECTIONS)} directions x {len(texture.FEATURES)} features, {LEVELS} levels, "
        f"one {jax.devices()[0].device_kind}",
        flush=True,
    )
    measure_speed(images, grey, rounds)
    measure_agreement(grey)
