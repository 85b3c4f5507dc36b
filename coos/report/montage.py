"""Pictures of cells: some of every class and set, and the mistakes a classifier is surest of."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coos.report import plots
from coos.workdir import Predictions

# Channel 1 in grey, channel 2 in blue, channel 3 in orange: distinct without red against green.
CHANNEL_COLOURS = ((1.0, 1.0, 1.0), (0.2, 0.45, 1.0), (1.0, 0.55, 0.0))
COLOUR_NAMES = ("grey", "blue", "orange")
NUCLEAR_STAINS = ("nucleus", "nuclei", "dna", "dapi", "hoechst")
PERCENTILES = (0.1, 99.9)


class Source(Protocol):
    """Images of one set, as `coos.data.source.load` returns them."""

    @property
    def images(self) -> Any:
        """(N, H, W, C), indexed one row at a time."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) integers."""

    @property
    def ids(self) -> np.ndarray:
        """(N,) str."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names in the order of the labels."""

    @property
    def channels(self) -> Sequence[str]:
        """Names of the channels."""


def picture(source: Source, example: int) -> np.ndarray:
    """One example in colour. A source that holds a subset says in `rows` where its images are."""
    rows = getattr(source, "rows", None)
    return colour(source.images[example if rows is None else int(rows[example])], channels=source.channels)


def stretch(image: np.ndarray) -> np.ndarray:
    """Each channel of one (H, W, C) image between its 0.1 and 99.9 percentiles, as 0..1; constant gives 0."""
    image = np.asarray(image, np.float32)
    low, high = np.percentile(image, PERCENTILES, axis=(0, 1))
    return np.clip((image - low) / np.where(high > low, high - low, 1), 0, 1)


def display_order(channels: Sequence[str]) -> list[int]:
    """Channels in the order in which they get colours: nuclear stains, which say least, after the others."""
    return sorted(range(len(channels)), key=lambda c: channels[c].lower() in NUCLEAR_STAINS)


def colour(image: np.ndarray, *, channels: Sequence[str]) -> np.ndarray:
    """An (H, W, C) image as (H, W, 3) in 0..1: channels stretched, coloured, merged by maximum."""
    shown = stretch(image)[..., display_order(channels)[: len(CHANNEL_COLOURS)]]
    layers = [shown[..., c, None] * np.array(CHANNEL_COLOURS[c], np.float32) for c in range(shown.shape[-1])]
    return np.max(layers, axis=0)


def describe_channels(channels: Sequence[str]) -> str:
    """What the colours of a montage mean, e.g. "protein in grey, nucleus in blue"."""
    ordered = [channels[c] for c in display_order(channels)]
    named = [f"{name} in {shade}" for name, shade in zip(ordered, COLOUR_NAMES, strict=False)]
    hidden = ordered[len(COLOUR_NAMES) :]
    return ", ".join(named) + (f"; not shown: {', '.join(hidden)}" if hidden else "")


def class_montage(
    sources: Mapping[str, Source], class_names: Sequence[str], *, cells: int, seed: int, simulated: bool
) -> Figure:
    """Rows are classes, columns are sets (Lu et al. 2019, Table 1), `cells` random cells in each field."""
    width, height = 1.3 + 0.72 * cells * len(sources), 0.3 + 0.78 * len(class_names)
    figure = plots.new_figure(width, height, simulated=simulated)
    grid = figure.subplots(len(class_names), len(sources), squeeze=False)
    generator = np.random.default_rng(seed)
    for column, (set_name, source) in enumerate(sources.items()):
        grid[0, column].set_title(set_name, fontsize=10)
        for label in range(len(class_names)):
            rows = np.nonzero(np.asarray(source.labels) == label)[0]
            chosen = np.sort(generator.choice(rows, min(cells, len(rows)), replace=False))
            _show_row(grid[label, column], [picture(source, int(row)) for row in chosen], cells)
    for label, name in enumerate(class_names):
        title = textwrap.fill(name, 14)
        grid[label, 0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
    return figure


def _show_row(axes: Axes, pictures: list[np.ndarray], cells: int) -> None:
    """Cells side by side with a thin white gap; too few leave room, none say so."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if not pictures:
        axes.text(0.5, 0.5, "no examples", ha="center", va="center", fontsize=8, transform=axes.transAxes)
        return
    height, width = pictures[0].shape[:2]
    gap = max(1, width // 32)
    strip = np.ones((height, cells * (width + gap) - gap, 3), np.float32)
    for i, picture in enumerate(pictures):
        strip[:, i * (width + gap) : i * (width + gap) + width] = picture
    axes.imshow(strip, interpolation="nearest")


def mistakes(predictions: Sequence[Predictions], *, count: int) -> list[dict[str, Any]]:
    """The `count` cells with the highest probability on a wrong class; probabilities are means over seeds."""
    mean = np.mean([p.probabilities for p in predictions], axis=0)
    labels, ids = predictions[0].labels, predictions[0].ids
    predicted = mean.argmax(-1)
    wrong = np.nonzero(predicted != labels)[0]
    surest = wrong[np.argsort(-mean[wrong, predicted[wrong]], kind="stable")][:count]
    return [
        {
            "id": str(ids[i]),
            "true": int(labels[i]),
            "predicted": int(predicted[i]),
            "probability": float(mean[i, predicted[i]]),
        }
        for i in surest
    ]


def mistakes_montage(
    source: Source,
    found: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    *,
    title: str,
    simulated: bool,
) -> Figure:
    """One picture a mistake: true → predicted class, probability, id."""
    rows = _rows_of(source, found, title)
    columns = min(4, len(found))
    lines = -(-len(found) // columns)
    # A narrow figure would cut the title that names configuration and set.
    # Taller than the pictures need: the layout counts an id below a picture only where there is slack.
    size = (max(1.75 * columns, 3.5), 2.5 * lines)
    figure = plots.new_figure(*size, simulated=simulated, title=title)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, row, mistake in zip(grid.flat, rows, found, strict=False):
        true, predicted = (_short(class_names[mistake[key]], 24, 0) for key in ("true", "predicted"))
        axes.imshow(picture(source, row), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        text = f"{true}\n→ {predicted}\np = {mistake['probability']:.3f}"
        axes.set_title(text, fontsize=7, loc="left")
        axes.set_xlabel(_short(mistake["id"], 28, 15), fontsize=6.5, loc="left", parse_math=False)
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
    return figure


def _short(text: str, length: int, tail: int) -> str:
    """`text` in at most `length` characters, the last `tail` of them kept."""
    if len(text) <= length:
        return text
    return f"{text[: length - tail - 1]}…{text[len(text) - tail :]}"


def _rows_of(source: Source, found: Sequence[Mapping[str, Any]], where: str) -> list[int]:
    """Where the mistakes' images are; ids or labels that do not match mean the wrong data set."""
    ids = np.asarray(source.ids).astype(str)
    order = np.argsort(ids, kind="stable")
    rows = []
    for mistake in found:
        place = np.searchsorted(ids, mistake["id"], sorter=order)
        row = int(order[min(place, len(ids) - 1)])
        if ids[row] != mistake["id"]:
            raise ValueError(f"{where}: no image with id {mistake['id']!r}; is this the evaluated data set?")
        if int(source.labels[row]) != mistake["true"]:
            raise ValueError(
                f"{where}: {mistake['id']!r} has label {int(source.labels[row])} in the images but "
                f"{mistake['true']} in the predictions; is this the evaluated data set?"
            )
        rows.append(row)
    return rows
