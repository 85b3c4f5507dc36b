"""Figures of the page of phenotypes: accuracies over divisions, example fields, and what kernels see in them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from coos.data.source import Source
from coos.evaluators.kernel_maps import Maps
from coos.evaluators.phenotypes import Scores
from coos.report import montage, plots

WIDEST = 640  # pixels that a picture of a field is thinned out to


def accuracy_plot(
    found: Mapping[str, Scores], published: Mapping[str, Sequence[float]], *, simulated: bool
) -> Figure:
    """The accuracy of every division as a dot, equal ones side by side; median as a bar, published median beside."""
    figure = plots.new_figure(1.6 + 1.5 * len(found), 3.8, simulated=simulated)
    axes = figure.subplots()
    for k, (network, scores) in enumerate(found.items()):
        values = 100 * np.array(list(scores.values["accuracy"].values()))
        colour = plots.COLOURS[k % len(plots.COLOURS)]
        axes.plot(k + beside(values), values, "o", color=colour, markersize=3.5, alpha=0.7)
        axes.plot([k - 0.36, k + 0.36], [np.median(values)] * 2, color=colour, linewidth=2.5, zorder=3)
        if network in published:
            axes.plot(
                k + 0.43, published[network][0], "D", color="#555555", markerfacecolor="none", clip_on=False
            )
    axes.plot([], [], color="#555555", linewidth=2.5, label="median")
    if published:
        label = "published median" + (" (not comparable)" if simulated else "")
        axes.plot([], [], "D", color="#555555", markerfacecolor="none", label=label)
    axes.set(
        xticks=range(len(found)), xticklabels=list(found), ylabel="accuracy of a division (%)", ylim=(-3, 103)
    )
    axes.set_xlim(-0.6, len(found) - 0.4)
    plots.tidy(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def beside(values: np.ndarray) -> np.ndarray:
    """Offsets within [-0.33, 0.33] that spread equal values evenly."""
    offsets = np.zeros(len(values))
    for value in np.unique(values):
        members = np.flatnonzero(values == value)
        width = min(0.33, 0.02 * len(members))
        offsets[members] = np.linspace(-width, width, len(members)) if len(members) > 1 else 0
    return offsets


def fields_plot(source: Source, *, number: int, simulated: bool) -> Figure:
    """`number` fields of every class, one row a class, in colour."""
    names = source.class_names
    chosen = {k: np.flatnonzero(source.labels == k)[:number] for k in range(len(names))}
    height, width = source.images.shape[1:3]
    figure = plots.new_figure(
        1.1 + 1.9 * number, 1.9 * height / width * len(names) + 0.2, simulated=simulated
    )
    grid = figure.subplots(len(names), number, squeeze=False)
    for k, row in enumerate(grid):
        row[0].set_ylabel(names[k], fontsize=8)
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, field in zip(row, chosen[k], strict=False):
            axes.imshow(thinned(montage.picture(source, int(field))))
            axes.set_title(str(source.ids[field]), fontsize=6)
    return figure


def thinned(image: np.ndarray) -> np.ndarray:
    """Every n-th pixel of an image that is larger than a page shows."""
    step = max(1, -(-max(image.shape[:2]) // WIDEST))
    return image[::step, ::step]


def maps_plot(source: Source, maps: Maps, *, crop: int, simulated: bool) -> Figure:
    """A corner of every field in colour, and beside it the same corner of each kernel's map (Godinez, Fig. 3a).

    One grey scale for all fields of a kernel. `crop` is in pixels of the field; maps may be coarser.
    """
    rows, columns = len(maps.fields), 1 + len(maps.kernels)
    figure = plots.new_figure(0.6 + 1.5 * columns, 1.55 * rows + 0.2, simulated=simulated)
    grid = figure.subplots(rows, columns, squeeze=False)
    share = crop / source.images.shape[1], crop / source.images.shape[2]
    for row, field in zip(range(rows), maps.fields, strict=True):
        picture = montage.picture(source, int(field))[:crop, :crop]
        grid[row, 0].imshow(picture)
        grid[row, 0].set_ylabel(source.class_names[source.labels[field]], fontsize=8)
        for column in range(1, columns):
            plane = maps.maps[row, column - 1]
            part = plane[: round(share[0] * plane.shape[0]), : round(share[1] * plane.shape[1])]
            brightest = np.percentile(maps.maps[:, column - 1], 99.8) or 1
            grid[row, column].imshow(part, cmap="gray", vmin=0, vmax=brightest, interpolation="nearest")
    grid[0, 0].set_title("field", fontsize=8)
    for column, kernel in enumerate(maps.kernels, start=1):
        grid[0, column].set_title(f"kernel {kernel}", fontsize=8)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure
