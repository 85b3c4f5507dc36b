"""What a network for paired cell inpainting paints, beside what it should have painted."""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from matplotlib.figure import Figure

from coos.data.source import Source
from coos.report import plots
from coos.train import run
from coos.train.inpainting import Inpainter

COLUMNS = ("source: protein", "source: marker", "target: marker", "prediction", "target: protein")
MOST = 7
JUDGED = 512  # pairs, at most


def of_run(workdir: pathlib.Path, *, set_name: str, number: int = 2) -> Figure:
    """Pairs of every class of a set, painted by the best step of a run; the title compares errors.

    The network's error stands beside that of pasting the source's own protein, and of painting the mean of all
    targets: what one gets without a network.
    """
    learner, variables, record = run.load_best(workdir)
    pairs = run.task_of(learner.config).load_set(learner.config, learner.config.data.directory, set_name)
    chosen = examples(pairs, number=number)
    some = np.linspace(0, len(pairs) - 1, min(JUDGED, len(pairs))).astype(int)
    if not isinstance(learner, Inpainter):
        raise ValueError(f"{workdir}: its network does not paint; its task is {learner.config.task!r}")
    paint = jax.jit(learner.paint)
    cells, painted = (np.asarray(x) for x in paint(variables, pairs.gather(some)))
    target = cells[:, 1, ..., 0]
    errors = [
        float(np.square(x - target).mean()) for x in (painted, cells[:, 0, ..., 0], target.mean(0)[None])
    ]
    title = (
        f"{set_name}: mean squared error {errors[0]:.4f}; of pasting the source {errors[1]:.4f}, of the mean target "
        f"{errors[2]:.4f} ({len(some)} pairs)"
    )
    cells, painted = (np.asarray(x) for x in paint(variables, pairs.gather(chosen)))
    labels = [pairs.class_names[k] for k in pairs.labels[chosen]]
    return figure(cells, painted, labels, title=title, simulated=bool(record["dataset"]["simulated"]))


def examples(pairs: Source, *, number: int) -> np.ndarray:
    """The first pairs of each class, so many of each, of seven classes at most."""
    found = [np.flatnonzero(pairs.labels == k)[:number] for k in np.unique(pairs.labels)[:MOST]]
    return np.concatenate(found)


def figure(
    cells: np.ndarray, painted: np.ndarray, labels: Sequence[str], *, title: str, simulated: bool
) -> Figure:
    """Scaled pairs (N, 2, H, W, C) and painted proteins (N, H, W), a row for each pair, in two blocks of columns."""
    down = -(-len(cells) // 2)
    whole = plots.new_figure(12.4, 1.18 * down + 0.3, simulated=simulated, title=title)
    grid = whole.subplots(down, 2 * len(COLUMNS), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for k, label in enumerate(labels):
        row, block = divmod(k, 2)
        source, target = cells[k]
        images = (source[..., 0], source[..., 1], target[..., 1], painted[k], target[..., 0])
        places = grid[row, len(COLUMNS) * block : len(COLUMNS) * (block + 1)]
        for axes, image, name in zip(places, images, COLUMNS, strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            if row == 0:
                axes.set_title(name, fontsize=8)
        places[0].text(
            -0.05, 0.5, label, transform=places[0].transAxes, rotation=90, ha="right", va="center", fontsize=6
        )
    return whole
