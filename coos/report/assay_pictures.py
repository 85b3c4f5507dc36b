"""Views in colour: fields of many channels in one picture, and those that a model is surest of (Figure 5)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from coos.report import assay_plots, html, montage
from coos.report.assay_comparison import Comparison, Model
from coos.report.assay_scores import Scores
from coos.report.folder import Folder
from coos.workdir import Predictions

Colour = tuple[float, float, float]
NUCLEAR: tuple[str, Colour] = ("blue", (0.2, 0.4, 1.0))
# Hues far from each other and from the blue of the nuclei; every other channel takes the first that is left.
HUES: tuple[tuple[str, Colour], ...] = (
    ("orange", (1.0, 0.45, 0.0)),
    ("green", (0.0, 0.8, 0.3)),
    ("yellow", (0.8, 0.8, 0.0)),
    ("magenta", (0.9, 0.1, 0.8)),
    ("cyan", (0.0, 0.75, 0.85)),
    ("grey", (0.75, 0.75, 0.75)),
)
PERCENTILES = (1.0, 99.5)
NOT_GIVEN = "The page was made without pictures."
PROFILES = "The runs were trained on tables of features: there is nothing to show."
THRESHOLD = 0.5


class Source(Protocol):
    """Images of one set, as `coos.data.source.load` returns them."""

    @property
    def ids(self) -> np.ndarray:
        """(N,) str."""

    @property
    def channels(self) -> Sequence[str]:
        """Names of the channels."""

    def gather(self, examples: np.ndarray) -> np.ndarray:
        """Images (n, H, W, C) of the given examples."""


Images = Callable[[str], Source]


def hues(channels: Sequence[str]) -> dict[str, tuple[str, Colour]]:
    """{channel: name and red, green, blue of its colour}: nuclear stains blue; channels beyond the hues have none."""
    left = iter(HUES)
    found = {}
    for channel in channels:
        hue = NUCLEAR if channel.lower() in montage.NUCLEAR_STAINS else next(left, None)
        if hue:
            found[channel] = hue
    return found


def composite(image: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """An (H, W, C) image of any dtype as (H, W, 3) uint8.

    Each channel is stretched between its 1 and 99.5 percentiles (a constant one is black), takes its colour of
    `hues`, and every pixel shows the largest red, green and blue of all channels.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != len(channels):
        raise ValueError(
            f"image is {image.shape}, expected (height, width, {len(channels)}) for {list(channels)}"
        )
    merged = np.zeros((*image.shape[:2], 3), np.float32)
    for position, channel in enumerate(channels):
        if channel in (known := hues(channels)):
            layer = image[..., position].astype(np.float32)
            low, high = np.percentile(layer, PERCENTILES)
            shown = np.clip((layer - low) / (high - low), 0, 1) if high > low else np.zeros_like(layer)
            merged = np.maximum(merged, shown[..., None] * np.array(known[channel][1], np.float32))
    return (255 * merged).round().astype(np.uint8)


def describe(channels: Sequence[str]) -> str:
    """What the colours of `composite` mean, e.g. "Mito in orange, Hoechst in blue"."""
    known = hues(channels)
    hidden = [channel for channel in channels if channel not in known]
    text = ", ".join(f"{channel} in {name}" for channel, (name, _) in known.items())
    return text + (f"; not shown: {', '.join(hidden)}" if hidden else "")


class Chosen(NamedTuple):
    """Views of one assay, positions in the predictions: surest `active` ones, surest `inactive` ones, of how many."""

    active: list[int]
    inactive: list[int]
    num_active: int
    num_found: int


def choose(predictions: Predictions, task: int, *, count: int) -> Chosen:
    """`count` views labelled active with the highest probability, and labelled inactive with the lowest.

    At most one view of each compound. `num_found` of the `num_active` views labelled active are predicted so.
    """
    probability, labels = predictions.probabilities[:, task], predictions.labels[:, task]
    active = np.flatnonzero(labels > 0)
    inactive = np.flatnonzero(labels < 0)
    compounds = predictions.columns["compound"]

    def first_of_each(rows: np.ndarray) -> list[int]:
        firsts = np.sort(np.unique(compounds[rows], return_index=True)[1])
        return rows[firsts][:count].tolist()

    return Chosen(
        first_of_each(active[np.argsort(-probability[active], kind="stable")]),
        first_of_each(inactive[np.argsort(probability[inactive], kind="stable")]),
        len(active),
        int((probability[active] >= THRESHOLD).sum()),
    )


def with_images(comparison: Comparison) -> Model | None:
    """The first model whose examples are images."""
    for model in comparison.networks:
        if len(model.runs[0].dataset.get("image_shape") or ()) == 3:
            return model
    return None


def view_predictions(comparison: Comparison, model: Model) -> Predictions:
    """Predictions of the views of one model, probabilities averaged over seeds."""
    first, *others = (run.predictions[comparison.set_name] for run in model.runs)
    for run, other in zip(model.runs[1:], others, strict=True):
        if not np.array_equal(first.ids, other.ids):
            raise ValueError(
                f"{model.runs[0].path} and {run.path} disagree in the views of {comparison.set_name!r}"
            )
    mean = np.mean([first.probabilities, *(other.probabilities for other in others)], axis=0)
    return first._replace(probabilities=mean)


def section(
    folder: Folder,
    comparison: Comparison,
    scores: Sequence[Scores],
    images: Images | None,
    *,
    assays: int,
    count: int,
) -> str:
    """Views of the assays that the first model of images predicts best, as HTML."""
    model = with_images(comparison)
    if model is None or images is None:
        return html.paragraph(NOT_GIVEN if model else PROFILES)
    found = next(s for s in scores if s.name == model.name)
    defined = np.flatnonzero(~np.isnan(found.auroc))
    if not len(defined):
        return html.paragraph("No assay is defined, so that none could be chosen.")
    actives = (comparison.labels > 0).sum(0)
    # Of assays predicted equally well, the one with more actives says more.
    best = defined[np.lexsort((-actives[defined], -found.auroc[defined]))][:assays]
    source, predictions = images(comparison.set_name), view_predictions(comparison, model)
    figures = [
        _figure(folder, comparison, model, source, predictions, int(task), found, count) for task in best
    ]
    note = (
        f"The assays that {model.name} predicts best. Shown are the views labelled active with the highest "
        "probability, and for comparison those labelled inactive with the lowest, one view of a compound at most. "
        "They were picked because they fit: they show what the model looks for at its best, not how often it errs."
    )
    return html.paragraph(note) + "".join(figures)


def _figure(
    folder: Folder,
    comparison: Comparison,
    model: Model,
    source: Source,
    predictions: Predictions,
    task: int,
    found: Scores,
    count: int,
) -> str:
    chosen, name = choose(predictions, task, count=count), comparison.tasks[task]
    rows = [
        (
            f"labelled {kind}, {which} probability",
            [_picture(source, predictions, row, task) for row in picked],
        )
        for kind, which, picked in (
            ("active", "highest", chosen.active),
            ("inactive", "lowest", chosen.inactive),
        )
    ]
    known = hues(source.channels)
    legend = [(channel, hue[1]) for channel, hue in known.items()]
    title = f"Assay {name}: AUC {found.auroc[task]:.3f} ({model.name})"
    plot = assay_plots.examples_plot(rows, legend, columns=count, title=title, simulated=comparison.simulated)
    caption = (
        f"Assay {name}: {chosen.num_found} of {chosen.num_active} views labelled active are predicted active "
        f"(p ≥ {THRESHOLD:g}). {describe(source.channels)}. Each channel of each view is stretched by itself: "
        "brightness cannot be compared between views."
    )
    alt = f"Views of assay {name}: {len(chosen.active)} labelled active, {len(chosen.inactive)} labelled inactive"
    return folder.figure(f"views_{name}", plot, alt=alt, caption=caption)


def _picture(source: Source, predictions: Predictions, row: int, task: int) -> tuple[np.ndarray, str]:
    """The picture of a view, and its probability and id."""
    name = str(predictions.ids[row])
    places = np.flatnonzero(np.asarray(source.ids) == name)
    if not len(places):
        raise ValueError(f"no image with id {name!r}; is this the evaluated data set?")
    image = source.gather(places[:1])[0]
    text = f"p = {predictions.probabilities[row, task]:.3f}\n{montage._short(name, 34, 15)}"
    return composite(image, source.channels), text
