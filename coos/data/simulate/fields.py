"""Fields of view of stained cells in five channels, whose look is set by a few named effects between 0 and 1.

Cells are drawn with the outlines of `coos.data.simulate.organelles`, at about half the size they have in the
fields of Cell Painting (Bray et al. 2017), so that a small picture holds a dozen. Spots are put on the pixels
they fall on and blurred together; textures are filtered noise. What each effect does from 0 to 1:

    toxicity                 the number of cells falls to a third
    mitochondrial_clumping   the same mitochondria gather in a few clumps of each cell         (Mito)
    golgi_dispersion         the same Golgi light spreads from one side of the nucleus         (Ph_golgi)
    reticulum_grain          the texture of the endoplasmic reticulum coarsens                 (ERSyto)
    nucleolar_fragmentation  one nucleolus falls apart into many, of the same light together   (ERSytoBleed)
    nuclear_size             nuclei grow                                                       (Hoechst)
    rna_level                the cytoplasm brightens                                           (ERSytoBleed)

All but the first and the last two rearrange light and keep its amount: mean intensities cannot tell them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from coos.data.simulate import organelles
from coos.data.simulate.organelles import SIZE, Array, Cells, normal

CHANNELS = ("Mito", "ERSyto", "ERSytoBleed", "Ph_golgi", "Hoechst")
HIDDEN = ("mitochondrial_clumping", "golgi_dispersion", "reticulum_grain", "nucleolar_fragmentation")
MEASURABLE = ("nuclear_size", "rna_level")
MORPHOLOGY = HIDDEN + MEASURABLE
EFFECTS = ("toxicity", *MORPHOLOGY)

PIXELS_PER_CELL = 1000.0  # an untreated field is nearly confluent
SPACING = 26.0  # px that nuclei keep from each other
MARGIN = 14  # px beyond the picture from which cells still reach in
SURVIVAL = 0.35  # of the cells, at toxicity 1
NUCLEUS_RADIUS, CELL_RADIUS = 7.2, 18.5
# Camera counts like those of the real fields: of no light at all, and of light 1.
BACKGROUND = np.array([300, 260, 220, 300, 140], np.float32)
SIGNAL = np.array([420, 620, 700, 900, 750], np.float32)
SHOT_NOISE, READ_NOISE = 2.0, 6.0
FEATURE_NOISE = 0.03  # sd of the logarithm, by which a feature of a well is measured wrongly
UNRELATED = ("Contrast", "Correlation", "Entropy", "Variance", "InfoMeas1", "SumAverage")
_PIXELS = np.arange(SIZE) - (SIZE - 1) / 2
# The longest cells would reach beyond their stamp: they thin out before its border.
_TAPER = np.clip((SIZE / 2 - 1 - np.hypot(_PIXELS[:, None], _PIXELS)) / 5, 0, 1).astype(np.float32)


class Scene(NamedTuple):
    """A field of view before the camera: `light` float32 (5, height, width), near 1 where bright; else as View."""

    light: Array
    centres: Array
    nuclei: Array
    cells: Array


class View(NamedTuple):
    """One field of view.

    `pixels` uint16 (height, width, 5); `centres` float64 (cells, 2), y and x of the nuclei that lie in the picture,
    in px from the middle of its first pixel; `nuclei` and `cells` bool (height, width), the pixels of nuclei and of
    cells with their nuclei.
    """

    pixels: Array
    centres: Array
    nuclei: Array
    cells: Array


class Sums(NamedTuple):
    """What is summed over the views of a well: pixels and light (3 regions, ...) and the number of nuclei."""

    pixels: Array
    light: Array
    nuclei: int


def scatter(
    rng: np.random.Generator, count: int, *, height: float, width: float, spacing: float = SPACING
) -> Array:
    """Return y, x of `count` places in a rectangle, float64 (count, 2), pushed apart where they were too near."""
    size = np.array([height, width])
    places = rng.random((count, 2)) * size
    for _ in range(8):
        apart = places[:, None] - places[None]
        distance = np.hypot(apart[..., 0], apart[..., 1]) + 1e-6
        push = np.maximum(spacing - distance, 0) / (2 * distance)
        places += (apart * push[..., None]).sum(axis=1)
        places = np.clip(places, 0, size - 1e-6)
    return places


def draw_scene(
    rng: np.random.Generator,
    effects: Mapping[str, float],
    *,
    height: int,
    width: int,
    pixels_per_cell: float = PIXELS_PER_CELL,
    spacing: float = SPACING,
) -> Scene:
    """Draw what a field of view holds, before any camera sees it.

    Args:
        rng: the only source of chance: the same state gives the same scene.
        effects: every name in EFFECTS, from 0 to 1.
        height, width: of the picture, in px.
        pixels_per_cell: of an untreated field.
        spacing: px that nuclei keep from each other; the less, the more do cells overlap.
    """
    area = (height + 2 * MARGIN) * (width + 2 * MARGIN)
    survival = 1 - (1 - SURVIVAL) * effects["toxicity"]
    count = max(int(rng.poisson(survival * area / pixels_per_cell)), 1)  # it may lie beyond the picture
    places = scatter(rng, count, height=height + 2 * MARGIN, width=width + 2 * MARGIN, spacing=spacing)
    centres = np.floor(places) - MARGIN + 0.5  # stamps have an even number of pixels
    cells = _draw_cells(rng, count, effects["nuclear_size"])
    maps = _paste(_stamps(rng, cells), centres, height, width)
    light = _light(rng, cells, maps, centres, effects)
    inside = ((centres >= 0) & (centres < [height, width])).all(axis=1)
    return Scene(light, centres[inside], maps[0] > 0.5, maps[2] > 0.15)


def draw_view(
    rng: np.random.Generator,
    effects: Mapping[str, float],
    *,
    height: int,
    width: int,
    gain: Array | float = 1.0,
) -> View:
    """Draw one field of view: a scene (`draw_scene`) and the camera's picture of it.

    `gain` multiplies the light of each channel (5,) or of all, before the background is added.
    """
    scene = draw_scene(rng, effects, height=height, width=width)
    return View(_expose(rng, scene.light, gain), *scene[1:])


def _draw_cells(rng: np.random.Generator, count: int, nuclear_size: float) -> Cells:
    radius = NUCLEUS_RADIUS * np.exp(0.4 * (nuclear_size - 0.5) + 0.08 * normal(rng, count))
    factors = {
        "magnification": np.ones(count, np.float32),
        "nucleus_radius": radius.astype(np.float32),
        "cell_radius": (CELL_RADIUS * np.exp(0.1 * normal(rng, count))).astype(np.float32),
    }
    return organelles.draw_cells(rng, factors)


def _stamps(rng: np.random.Generator, cells: Cells) -> Array:
    """Each cell's mask of the nucleus, its stained nucleus, its body, and its surroundings of the nucleus."""
    count = len(cells.magnification)
    stain, thickness = np.exp(0.15 * normal(rng, 2, count, 1, 1))
    nucleus = organelles.inside(cells.nucleus_depth, softness=0.6)
    body = _TAPER * thickness * (1 - np.exp(-np.maximum(cells.cell_depth, 0) / 5))
    near = np.exp(np.minimum(cells.nucleus_depth, 0) / 5)
    return np.stack([nucleus, stain * nucleus, body, near], axis=1)


def _paste(stamps: Array, centres: Array, height: int, width: int) -> Array:
    """Put stamps (cells, maps, 64, 64) onto one picture (maps, height, width); the brighter one covers the other."""
    half = SIZE // 2
    reach = half + MARGIN
    canvas = np.zeros((stamps.shape[1], height + 2 * reach, width + 2 * reach), np.float32)
    corners = np.floor(centres).astype(int) + reach - half + 1
    for stamp, (y, x) in zip(stamps, corners, strict=True):
        window = canvas[:, y : y + SIZE, x : x + SIZE]
        np.maximum(window, stamp, out=window)
    return canvas[:, reach : reach + height, reach : reach + width]


def _light(
    rng: np.random.Generator, cells: Cells, maps: Array, centres: Array, effects: Mapping[str, float]
) -> Array:
    """The light of the five channels, float32 (5, height, width), near 1 where it is bright."""
    nucleus, stained, body, near = maps
    shape = nucleus.shape
    chromatin = 1 + 0.12 * _texture(rng, shape, 1.2)
    grain = np.clip(_texture(rng, shape, 1.0 + 2.2 * effects["reticulum_grain"]), -2, 2)
    reticulum = body * (0.25 + 0.75 * near) * (1 - 0.6 * nucleus) * (0.8 + 0.35 * grain)
    cytoplasm = body * (0.35 + 0.65 * effects["rna_level"])
    spots = {
        "mitochondria": _mitochondria(rng, cells, effects["mitochondrial_clumping"]),
        "golgi": _golgi(rng, cells, effects["golgi_dispersion"]),
        "nucleoli": _nucleoli(rng, cells, effects["nucleolar_fragmentation"]),
        "fibres": _fibres(rng, cells),
    }
    sizes = {"mitochondria": 1.0, "golgi": 1.0, "nucleoli": 1.1, "fibres": 0.8}
    drawn = {name: _spread(*spots[name], centres, shape, sigma=sizes[name]) for name in spots}
    return np.stack(
        [
            0.25 * body + 0.25 * near * body + 0.55 * drawn["mitochondria"],
            reticulum,
            0.7 * cytoplasm + 0.1 * reticulum + 0.12 * nucleus + 0.45 * drawn["nucleoli"],
            0.3 * body + 0.22 * drawn["fibres"] * body + 0.8 * drawn["golgi"],
            stained * chromatin,
        ]
    )


def _texture(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Array:
    """Noise blurred with a Gaussian of `sigma` px, of mean 0 and variance 1 whatever its grain."""
    return ndimage.gaussian_filter(normal(rng, *shape), sigma, mode="wrap") * (2 * np.sqrt(np.pi) * sigma)


def _spread(y: Array, x: Array, centres: Array, shape: tuple[int, ...], *, sigma: float) -> Array:
    """Sum Gaussian spots of peak 1 at y, x (cells, spots) from the centres of their cells."""
    rows = np.rint(y + centres[:, :1]).astype(int)
    columns = np.rint(x + centres[:, 1:]).astype(int)
    seen = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    pixels = rows[seen] * shape[1] + columns[seen]
    counts = np.bincount(pixels, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float32)
    return ndimage.gaussian_filter(counts, sigma, mode="constant") * (2 * np.pi * sigma**2)


def _angles(rng: np.random.Generator, cells: Cells, spots: int) -> Array:
    return rng.uniform(0, 2 * np.pi, (len(cells.magnification), spots)).astype(np.float32)


def _gather(values: Array, share: float, *, groups: int) -> Array:
    """Move each value (cells, spots) by `share` of its way to one of the first `groups` of its cell."""
    return values + share * (values[:, np.arange(values.shape[1]) % groups] - values)


def _mitochondria(rng: np.random.Generator, cells: Cells, clumping: float) -> tuple[Array, Array]:
    """Places of 40 mitochondria in each cell, from scattered to gathered in four clumps."""
    angles = _angles(rng, cells, 40)
    y, x = organelles.place_spots(rng, cells, angles, rng.random(angles.shape, dtype=np.float32))
    return _gather(y, 0.85 * clumping, groups=4), _gather(x, 0.85 * clumping, groups=4)


def _golgi(rng: np.random.Generator, cells: Cells, dispersion: float) -> tuple[Array, Array]:
    """Places of 24 stacks, from one side of the nucleus to all over the cell."""
    angles = _angles(rng, cells, 1) + (0.3 + 2.5 * dispersion) * normal(rng, len(cells.magnification), 24)
    outward = 0.02 + (0.13 + 0.7 * dispersion) * rng.random(angles.shape, dtype=np.float32)
    return organelles.place_spots(rng, cells, angles, outward)


def _nucleoli(rng: np.random.Generator, cells: Cells, fragmentation: float) -> tuple[Array, Array]:
    """Places of nine small nucleoli in each nucleus, from all in one to all apart."""
    angles = _angles(rng, cells, 9)
    radius = 0.75 * organelles.radius_at(cells.nucleus, angles) * np.sqrt(rng.random(angles.shape))
    y, x = radius * np.sin(angles), radius * np.cos(angles)
    return _gather(y, 0.9 * (1 - fragmentation), groups=1), _gather(x, 0.9 * (1 - fragmentation), groups=1)


def _fibres(rng: np.random.Generator, cells: Cells) -> tuple[Array, Array]:
    """Points along six nearly parallel stress fibres of each cell, denser in the middle of each."""
    fibres, points = 6, 45
    count = len(cells.magnification)
    heading = (_angles(rng, cells, 1) + 0.2 * normal(rng, count, fibres))[..., None]
    aside = 0.45 * CELL_RADIUS * normal(rng, count, fibres, 1)
    along = 0.5 * CELL_RADIUS * (normal(rng, count, fibres, points) + 0.5 * normal(rng, count, fibres, 1))
    y, x = (
        aside * np.cos(heading) + along * np.sin(heading),
        along * np.cos(heading) - aside * np.sin(heading),
    )
    return y.reshape(count, fibres * points), x.reshape(count, fibres * points)


def _expose(rng: np.random.Generator, light: Array, gain: Array | float) -> Array:
    """Camera counts of light (5, height, width), uint16 (height, width, 5): uneven light, shot and read noise."""
    channels, height, width = light.shape
    tilt = rng.uniform(-0.06, 0.06, 2).astype(np.float32)
    rows, columns = (np.linspace(-1, 1, length, dtype=np.float32) for length in (height, width))
    lamp = 1 + tilt[0] * rows[:, None] + tilt[1] * columns
    strength = (SIGNAL * np.broadcast_to(gain, channels)).astype(np.float32)
    signal = np.maximum(light, 0) * lamp * strength[:, None, None]
    counts = BACKGROUND[:, None, None] + signal
    counts += np.sqrt(SHOT_NOISE * signal + READ_NOISE**2) * normal(rng, *signal.shape)
    return np.ascontiguousarray(np.clip(np.rint(counts), 0, 65535).astype(np.uint16).transpose(1, 2, 0))


def sum_up(view: View) -> Sums:
    """Sum a view over the whole picture, its cells and its nuclei."""
    regions = [np.ones_like(view.cells), view.cells, view.nuclei]
    light = [view.pixels[region].sum(axis=0, dtype=np.float64) for region in regions]
    return Sums(np.array([region.sum() for region in regions]), np.array(light), len(view.centres))


def measure(views: Sequence[Sums], rng: np.random.Generator) -> dict[str, float]:
    """Features of a well from the sums over its views: measured ones with a little error, and unrelated ones.

    A well without any nucleus has means and areas of 0.
    """
    pixels = np.sum([view.pixels for view in views], axis=0)
    light = np.sum([view.light for view in views], axis=0)
    nuclei = sum(view.nuclei for view in views)
    measured = {
        "Image_Count_Nuclei": nuclei,
        "Cells_AreaShape_Area": pixels[1] / max(nuclei, 1),
        "Nuclei_AreaShape_Area": pixels[2] / max(nuclei, 1),
    }
    means = light / np.maximum(pixels, 1)[:, None] / 65535  # CellProfiler's scale
    for region, values in zip(("Image", "Cells"), means, strict=False):
        for channel, value in zip(CHANNELS, values, strict=True):
            measured[f"{region}_Intensity_MeanIntensity_{channel}"] = value
    # In the other channels the light over nuclei would tell how organelles lie around them.
    measured["Nuclei_Intensity_MeanIntensity_Hoechst"] = means[2, CHANNELS.index("Hoechst")]
    features = {
        name: float(value * np.exp(FEATURE_NOISE * rng.standard_normal())) for name, value in measured.items()
    }
    features["Image_Count_Nuclei"] = nuclei  # counts are exact
    for region in ("Cells", "Cytoplasm", "Nuclei"):
        for channel in CHANNELS:
            for name in UNRELATED:
                features[f"{region}_Texture_{name}_{channel}_3_0"] = float(rng.standard_normal())
    return features
