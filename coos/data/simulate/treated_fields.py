"""Fields of view of treated cells: proteins that go into the nucleus or gather in spots, mechanisms, organelles.

Cells are those of `coos.data.simulate.fields`. How strong a treatment is follows from its concentration c:

    response = bottom + (top - bottom) / (1 + (EC50 / c)^hill)          bottom where c = 0

All functions take a NumPy generator and give light, float32 (height, width, channels), near 1 where it is bright.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from coos.data.simulate import fields
from coos.data.simulate.organelles import Array, normal

UNTREATED = dict.fromkeys(fields.EFFECTS, 0.3) | {"toxicity": 0.0}
# Two ways in which each channel of a field can look: (channel, effect, its value).
LOOKS = tuple(
    (fields.CHANNELS.index(channel), effect, value)
    for value in (0.0, 1.0)
    for channel, effect in (
        ("Mito", "mitochondrial_clumping"),
        ("ERSyto", "reticulum_grain"),
        ("Ph_golgi", "golgi_dispersion"),
        ("ERSytoBleed", "nucleolar_fragmentation"),
        ("Hoechst", "nuclear_size"),
    )
)
SEEN = ("mitochondrial_clumping", "golgi_dispersion", "reticulum_grain", "nuclear_size")  # in three channels
MOST_MECHANISMS = 2 ** len(SEEN) - 1
BACKGROUND, SIGNAL = 0.05, 0.45  # shares of the range of the camera, of no light and of light 1
SHOT_NOISE, READ_NOISE = 2e-4, 0.006  # variance per signal; both of the range
SPOTS_PER_CELL, SPOT = 14, 0.9  # and their sd in px


class Response(NamedTuple):
    """A four-parameter logistic of the concentration; `ec50` is in mol/L."""

    ec50: float
    hill: float = 1.2
    bottom: float = 0.05
    top: float = 0.95

    def __call__(self, molar: float) -> float:
        """The response to a concentration in mol/L."""
        share = 1 / (1 + (self.ec50 / molar) ** self.hill) if molar > 0 else 0.0
        return self.bottom + (self.top - self.bottom) * share


def translocated(rng: np.random.Generator, share: float, *, height: int, width: int) -> Array:
    """Two channels: a protein of which `share` is in the nuclei and the rest around them, and DNA."""
    scene = fields.draw_scene(rng, UNTREATED, height=height, width=width)
    nuclei, around = (_soft(mask) for mask in (scene.nuclei, scene.cells & ~scene.nuclei))
    stained = np.exp(0.1 * normal(rng, height, width))
    protein = stained * (share * nuclei + (1 - share) * 0.7 * around)
    return np.stack([protein, _dna(scene)], axis=-1)


def gathered(rng: np.random.Generator, share: float, *, height: int, width: int) -> Array:
    """Two channels: a protein of which `share` is in spots all over the cells and the rest spread, and DNA."""
    scene = fields.draw_scene(rng, UNTREATED, height=height, width=width)
    return np.stack([_spotted(rng, scene, share), _dna(scene)], axis=-1)


def receptors(rng: np.random.Generator, share: float, *, height: int, width: int) -> Array:
    """Two channels: a membrane texture that the treatment leaves alone, and a protein of which `share` is in spots."""
    scene = fields.draw_scene(rng, UNTREATED, height=height, width=width)
    texture = 4 * ndimage.gaussian_filter(normal(rng, height, width), 1.5)
    membrane = _soft(scene.cells) * np.clip(0.4 + 0.2 * texture, 0, None)
    return np.stack([membrane, _spotted(rng, scene, share)], axis=-1)


def _spotted(rng: np.random.Generator, scene: fields.Scene, share: float) -> Array:
    """A protein (height, width) that is spread over the cells but for its `share` in spots."""
    places, spots = np.flatnonzero(scene.cells & ~scene.nuclei), np.zeros(scene.cells.shape, np.float32)
    if len(places):
        number = rng.poisson(SPOTS_PER_CELL * max(len(scene.centres), 1) * share)
        np.add.at(spots.reshape(-1), rng.choice(places, number), 1)
    sharp = ndimage.gaussian_filter(spots, SPOT) * (2 * np.pi * SPOT**2)
    return 0.4 * (1 - share) * _soft(scene.cells) + 0.8 * sharp


def of_mechanism(
    rng: np.random.Generator, mechanism: int | None, share: float, *, height: int, width: int
) -> Array:
    """Three channels (DNA, tubulin, actin) of cells in which a mechanism is at work, with the strength `share`.

    Mechanism m moves the effects `SEEN` towards 1 or 0, as the binary digits of m + 1 say; None moves none.
    """
    effects = dict(UNTREATED)
    if mechanism is not None:
        for bit, name in enumerate(SEEN):
            effects[name] += share * (float((mechanism + 1) >> bit & 1) - effects[name])
    scene = fields.draw_scene(rng, effects, height=height, width=width)
    light = dict(zip(fields.CHANNELS, scene.light, strict=True))
    return np.stack([light["Hoechst"], 0.6 * (light["Mito"] + light["ERSyto"]), light["Ph_golgi"]], axis=-1)


def of_look(rng: np.random.Generator, number: int, *, height: int, width: int) -> Array:
    """One channel (height, width, 1) of untreated cells with one of `LOOKS`."""
    channel, effect, value = LOOKS[number]
    scene = fields.draw_scene(rng, {**UNTREATED, effect: value}, height=height, width=width)
    return scene.light[channel][..., None]


def photograph(rng: np.random.Generator, light: Array, dtype: str, *, gain: float = 1.0) -> Array:
    """The camera's picture of light (height, width, channels) as `dtype`, uint8 or uint16, with shot and read noise."""
    signal = SIGNAL * gain * np.maximum(light, 0)
    noise = np.sqrt(SHOT_NOISE * signal + READ_NOISE**2) * normal(rng, *light.shape)
    full = np.iinfo(dtype).max
    return np.clip(np.rint(full * (BACKGROUND + signal + noise)), 0, full).astype(dtype)


def _soft(mask: Array) -> Array:
    return ndimage.gaussian_filter(mask.astype(np.float32), 0.8)


def _dna(scene: fields.Scene) -> Array:
    return scene.light[fields.CHANNELS.index("Hoechst")]
