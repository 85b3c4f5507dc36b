"""Pictures of cells: nuclei and seven organelle patterns, drawn for many cells at once.

Every function takes a NumPy generator and a batch of `Cells`, and returns float32 images (cells, 64, 64)
with peaks near 1, before optics and camera. Lengths are in pixels of the reference microscope; a cell's
`magnification` converts them into pixels of its image. Puncta and tubules are sums of separable Gaussians,
which makes a batch of them one matrix product, and textures are smooth random fields.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import expit

Array = np.ndarray
SIZE = 64
CLASSES = (
    "Endoplasmic Reticulum",
    "Inner Mitochondrial Membrane",
    "Golgi",
    "Peroxisomes",
    "Early Endosome",
    "Cytosol",
    "Nuclear Envelope",
)
_ORDERS = np.arange(1, 6, dtype=np.float32)
_PIXELS = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
_Y, _X = np.meshgrid(_PIXELS, _PIXELS, indexing="ij")


class Outline(NamedTuple):
    """A closed curve around the image centre: log radius (cells,) and Fourier coefficients (cells, 10)."""

    log_radius: Array
    coefficients: Array


class Cells(NamedTuple):
    """The geometry of a batch of cells.

    `nucleus` and `cell` are outlines; `nucleus_depth` and `cell_depth` (cells, 64, 64) say how many
    reference pixels each pixel lies inside the outline (negative outside); `magnification` is (cells,).
    """

    nucleus: Outline
    cell: Outline
    nucleus_depth: Array
    cell_depth: Array
    magnification: Array


def normal(rng: np.random.Generator, *shape: int) -> Array:
    """Return standard normal float32 numbers of the given shape."""
    return rng.standard_normal(shape, dtype=np.float32)


def _harmonics(angles: Array) -> Array:
    """Return cosines and sines of the first five multiples of angles (...): float32 (..., 10)."""
    multiples = angles[..., None] * _ORDERS
    return np.concatenate([np.cos(multiples), np.sin(multiples)], axis=-1).astype(np.float32)


_GRID_HARMONICS = _harmonics(np.arctan2(_Y, _X)).reshape(-1, 2 * len(_ORDERS)).T


def draw_outline(
    rng: np.random.Generator, radius: Array, axis: Array, *, elongation: float, wobble: float
) -> Outline:
    """Draw ellipses of mean `radius` (cells,) px along `axis` (cells,) rad, with irregular margins."""
    coefficients = normal(rng, len(radius), 2, len(_ORDERS)) * (wobble / _ORDERS)
    stretch = elongation * np.abs(1 + 0.5 * normal(rng, len(radius)))
    coefficients[:, 0, 1] += stretch * np.cos(2 * axis)
    coefficients[:, 1, 1] += stretch * np.sin(2 * axis)
    return Outline(np.log(radius), coefficients.reshape(len(radius), -1))


def radius_at(outline: Outline, angles: Array) -> Array:
    """Return the outline's radius in px at angles (cells, spots) in rad: float32 (cells, spots)."""
    wave = np.matmul(_harmonics(angles), outline.coefficients[..., None])[..., 0]
    return np.exp(outline.log_radius[:, None] + wave)


def _depth(outline: Outline, magnification: Array) -> Array:
    """Return how far inside the outline each pixel lies, in reference px: float32 (cells, 64, 64)."""
    wave = (outline.coefficients @ _GRID_HARMONICS).reshape(-1, SIZE, SIZE)
    radius = np.exp(outline.log_radius[:, None, None] + wave)
    return radius - np.hypot(_Y, _X) / magnification[:, None, None]


def draw_cells(rng: np.random.Generator, factors: Mapping[str, Array]) -> Cells:
    """Draw nuclei and the cells around them, from `nucleus_radius`, `cell_radius` and `magnification`."""
    magnification = factors["magnification"]
    axis = rng.uniform(0, 2 * np.pi, len(magnification)).astype(np.float32)
    nucleus = draw_outline(rng, factors["nucleus_radius"], axis, elongation=0.1, wobble=0.04)
    cell = draw_outline(
        rng, factors["cell_radius"], axis + 0.3 * normal(rng, len(axis)), elongation=0.16, wobble=0.14
    )
    # A cell reaches beyond its nucleus on every side, however irregular its margin.
    room = np.maximum(_depth(nucleus, magnification) + 3, _depth(cell, magnification))
    return Cells(nucleus, cell, _depth(nucleus, magnification), room, magnification)


def inside(depth: Array, *, softness: float = 0.7) -> Array:
    """Return a soft mask, 1 inside an outline and 0 outside, with an edge `softness` px wide."""
    return expit(depth / softness)


def cytoplasm(cells: Cells, *, nuclear: float = 0.0) -> Array:
    """Return a mask of the cell, thinner towards its margin, where the nucleus keeps the share `nuclear`."""
    thickness = 1 - np.exp(-np.maximum(cells.cell_depth, 0) / 6)
    return thickness * (1 - (1 - nuclear) * inside(cells.nucleus_depth))


def smooth_field(rng: np.random.Generator, spacing: Array) -> Array:
    """Return Gaussian random fields of unit variance whose grain is `spacing` (cells,) px."""
    nodes = int(np.ceil(SIZE / spacing.min())) + 4
    start = rng.random((2, len(spacing), 1, 1), dtype=np.float32) + 1
    places = np.arange(SIZE, dtype=np.float32)[:, None] / spacing[:, None, None] + start
    weights = np.exp(-((places - np.arange(nodes, dtype=np.float32)) ** 2) / (2 * 0.6**2))
    weights /= np.sqrt((weights**2).sum(axis=-1, keepdims=True))
    return weights[0] @ normal(rng, len(spacing), nodes, nodes) @ weights[1].swapaxes(1, 2)


def draw_spots(cells: Cells, y: Array, x: Array, *, sigma: Array | np.float32, amplitude: Array) -> Array:
    """Sum Gaussian spots at y, x (cells, spots) px from the centre; sigma, amplitude broadcast to them."""
    zoom = cells.magnification[:, None]
    width = (zoom * np.broadcast_to(sigma, y.shape))[..., None]
    rows = np.exp(-0.5 * ((_PIXELS - (zoom * y)[..., None]) / width) ** 2)
    columns = np.exp(-0.5 * ((_PIXELS - (zoom * x)[..., None]) / width) ** 2)
    rows *= np.broadcast_to(amplitude, y.shape)[..., None]
    return np.matmul(rows.swapaxes(1, 2), columns)


def place_spots(rng: np.random.Generator, cells: Cells, angles: Array, outward: Array) -> tuple[Array, Array]:
    """Return y, x of spots in the cytoplasm: `outward` 0 is at the nucleus and 1 at the margin, by area."""
    inner = radius_at(cells.nucleus, angles) + 1
    outer = np.maximum(radius_at(cells.cell, angles) - 2, inner + 1)
    # The jitter keeps spots in a narrow strip of cytoplasm from lining up.
    radius = np.sqrt(inner**2 + outward * (outer**2 - inner**2)) + 0.8 * normal(rng, *angles.shape)
    return radius * np.sin(angles), radius * np.cos(angles)


def _angles(rng: np.random.Generator, cells: Cells, count: int) -> Array:
    return rng.uniform(0, 2 * np.pi, (len(cells.magnification), count)).astype(np.float32)


def _keep(count: Array, most: int) -> Array:
    """Return 0/1 weights (cells, most) which keep the first `count` (cells,) spots of each cell."""
    return (np.arange(most) < count[:, None]).astype(np.float32)


def _tubules(
    rng: np.random.Generator, y: Array, x: Array, heading: Array, *, steps: int, curl: float
) -> tuple[Array, Array]:
    """Walk `steps` px from starts (cells, tubules) along wavy paths: y, x (cells, tubules, steps)."""
    turns = np.cumsum(curl * normal(rng, *heading.shape, steps), axis=-1)
    course = heading[..., None] + turns
    return y[..., None] + np.cumsum(np.sin(course), -1), x[..., None] + np.cumsum(np.cos(course), -1)


def endoplasmic_reticulum(rng: np.random.Generator, cells: Cells, factors: Mapping[str, Array]) -> Array:
    """Draw a net of tubules, denser around the nucleus, with sheets and a faint nuclear rim."""
    field = smooth_field(rng, factors["reticulum_mesh"] * cells.magnification)
    net = np.exp(-((field / 0.45) ** 2))
    near = np.exp(np.minimum(cells.nucleus_depth, 0) / 9)
    rim = np.exp(-0.5 * (cells.nucleus_depth / 1.2) ** 2)
    return cytoplasm(cells, nuclear=0.1) * (0.2 + 0.8 * near) * (0.3 + 0.8 * net) + 0.25 * rim


def mitochondria(rng: np.random.Generator, cells: Cells, factors: Mapping[str, Array]) -> Array:
    """Draw wavy tubules through the cytoplasm, mostly pointing away from the nucleus."""
    most, steps = 44, 10
    angles = _angles(rng, cells, most)
    y, x = place_spots(rng, cells, angles, rng.random(angles.shape, dtype=np.float32) ** 1.3)
    heading = angles + 0.9 * normal(rng, *angles.shape)
    y, x = _tubules(rng, y, x, heading, steps=steps, curl=0.35)
    length = np.clip(factors["tubule_length"][:, None] * np.exp(0.3 * normal(rng, *angles.shape)), 2, steps)
    weight = _keep(30 * factors["puncta_count"], most) * np.exp(0.3 * normal(rng, *angles.shape))
    weight = weight[..., None] * (np.arange(steps) < length[..., None])
    flat = (len(angles), -1)
    net = draw_spots(
        cells, y.reshape(flat), x.reshape(flat), sigma=np.float32(0.9), amplitude=0.5 * weight.reshape(flat)
    )
    return net * cytoplasm(cells, nuclear=0.1)


def golgi(rng: np.random.Generator, cells: Cells, factors: Mapping[str, Array]) -> Array:
    """Draw ribbons on one side of the nucleus; `golgi_fragmentation` (0 to 1) scatters and shortens them."""
    most, steps = 22, 8
    broken = np.clip(factors["golgi_fragmentation"], 0, 1)[:, None]
    side = _angles(rng, cells, 1)
    angles = side + (0.35 + 1.3 * broken) * normal(rng, len(side), most)
    outward = (0.02 + 0.3 * broken) + (0.1 + 0.3 * broken) * rng.random(angles.shape, dtype=np.float32)
    y, x = place_spots(rng, cells, angles, outward)
    heading = angles + np.pi / 2 + (0.3 + 0.8 * broken) * normal(rng, *angles.shape)
    y, x = _tubules(rng, y, x, heading, steps=steps, curl=0.3)
    length = steps * (1 - 0.8 * broken) * np.exp(0.3 * normal(rng, *angles.shape))
    weight = _keep(8 + 10 * broken[:, 0] * factors["puncta_count"], most)
    weight *= np.exp(0.4 * normal(rng, *angles.shape))
    weight = weight[..., None] * (np.arange(steps) < np.maximum(length, 1)[..., None])
    flat = (len(angles), -1)
    stacks = draw_spots(
        cells,
        y.reshape(flat),
        x.reshape(flat),
        sigma=np.float32(1.1),
        amplitude=(0.3 + 0.3 * broken) * weight.reshape(flat),
    )
    return stacks * inside(cells.cell_depth) * (1 - 0.6 * inside(cells.nucleus_depth))


def peroxisomes(rng: np.random.Generator, cells: Cells, factors: Mapping[str, Array]) -> Array:
    """Draw many small puncta of like brightness, scattered evenly over the cytoplasm."""
    most = 110
    angles = _angles(rng, cells, most)
    y, x = place_spots(rng, cells, angles, rng.random(angles.shape, dtype=np.float32))
    sigma = 0.8 * factors["puncta_size"][:, None] * np.exp(0.1 * normal(rng, *angles.shape))
    amplitude = _keep(60 * factors["puncta_count"], most) * np.exp(0.25 * normal(rng, *angles.shape))
    return draw_spots(cells, y, x, sigma=sigma, amplitude=amplitude)


def early_endosomes(rng: np.random.Generator, cells: Cells, factors: Mapping[str, Array]) -> Array:
    """Draw fewer, larger puncta of variable brightness, nearer the nucleus, over a reticular haze.

    `endosome_gathering` (0 to 1) draws them to one side of the nucleus and `endosome_diffuseness` (0 to 1)
    moves their light into the haze.
    """
    most = 60
    gathering = np.clip(factors["endosome_gathering"], 0, 1)[:, None]
    diffuse = np.clip(factors["endosome_diffuseness"], 0, 1)[:, None, None]
    spread = (1 - gathering) * np.pi + 0.35
    angles = _angles(rng, cells, 1) + spread * rng.uniform(-1, 1, (len(spread), most)).astype(np.float32)
    outward = rng.random(angles.shape, dtype=np.float32) ** 2 * (1 - 0.75 * gathering)
    y, x = place_spots(rng, cells, angles, outward)
    sigma = 1.3 * factors["endosome_size"][:, None] * np.exp(0.25 * normal(rng, *angles.shape))
    amplitude = _keep(24 * factors["puncta_count"], most) * np.exp(0.6 * normal(rng, *angles.shape))
    puncta = draw_spots(cells, y, x, sigma=sigma, amplitude=0.7 * amplitude)
    return (1 - diffuse) * puncta + diffuse * endoplasmic_reticulum(rng, cells, factors)


def cytosol(rng: np.random.Generator, cells: Cells, factors: Mapping[str, Array]) -> Array:
    """Draw a diffuse protein which fills the cell and is kept out of the nucleus."""
    texture = np.maximum(1 + 0.12 * smooth_field(rng, 5 * cells.magnification), 0)
    nuclear = rng.uniform(0.25, 0.5, (len(texture), 1, 1)).astype(np.float32)
    return texture * cytoplasm(cells) + nuclear * inside(cells.nucleus_depth)


def nuclear_envelope(rng: np.random.Generator, cells: Cells, factors: Mapping[str, Array]) -> Array:
    """Draw the rim of the nucleus, its out-of-focus top and bottom, and a trace of ER."""
    uneven = np.maximum(1 + 0.25 * smooth_field(rng, 8 * cells.magnification), 0)
    rim = np.exp(-0.5 * ((cells.nucleus_depth - 0.5) / 1.1) ** 2) * uneven
    lid = rng.uniform(0.15, 0.4, (len(rim), 1, 1)).astype(np.float32) * inside(cells.nucleus_depth)
    return rim + lid + 0.25 * endoplasmic_reticulum(rng, cells, factors)


PATTERNS: tuple[Callable[[np.random.Generator, Cells, Mapping[str, Array]], Array], ...] = (
    endoplasmic_reticulum,
    mitochondria,
    golgi,
    peroxisomes,
    early_endosomes,
    cytosol,
    nuclear_envelope,
)


def nuclei(rng: np.random.Generator, cells: Cells) -> Array:
    """Draw nuclei with chromatin texture, bright chromocentres (as mouse cells have) and dark nucleoli."""
    count = 9
    angles = _angles(rng, cells, count)
    radius = 0.8 * radius_at(cells.nucleus, angles) * np.sqrt(rng.random(angles.shape, dtype=np.float32))
    amplitude = np.where(np.arange(count) < 3, -0.5, 0.35) * rng.random(angles.shape, dtype=np.float32)
    spots = draw_spots(
        cells,
        radius * np.sin(angles),
        radius * np.cos(angles),
        sigma=np.where(np.arange(count) < 3, 2.2, 1.3).astype(np.float32),
        amplitude=amplitude.astype(np.float32),
    )
    texture = 0.75 + 0.1 * smooth_field(rng, 3 * cells.magnification) + spots
    return np.maximum(texture, 0.1) * inside(cells.nucleus_depth, softness=0.9)
