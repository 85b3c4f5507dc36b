"""The parts of a report that show cells: some of every class and set, and the worst mistakes."""

from collections.abc import Callable, Mapping
from typing import Any

from coos.report import html, montage, tables
from coos.report.comparison import FROM_TRAINING, Comparison
from coos.report.folder import Folder

Images = Callable[[str], montage.Source]
Sources = Mapping[str, montage.Source]
NO_PICTURES = "No pictures were given for these sets."


def load(comparison: Comparison, images: Images | None) -> dict[str, montage.Source]:
    """Pictures of the evaluated sets; validation is a part of the training set, no set of its own."""
    if images is None:
        return {}
    sources = {name: images(name) for name in comparison.sets if name != "validation"}
    for name, source in sources.items():
        for key in ("class_names", "channels"):
            ours, theirs = getattr(comparison, key), list(getattr(source, key))
            if ours != theirs:
                raise ValueError(
                    f"images of {name}: {key} are {theirs}, the runs have {ours}; wrong directory?"
                )
    return sources


def cells_section(folder: Folder, comparison: Comparison, sources: Sources, *, count: int, seed: int) -> str:
    """`count` random cells of each class and set, as HTML."""
    if not sources:
        return html.paragraph(NO_PICTURES)
    plot = montage.class_montage(
        sources, comparison.class_names, cells=count, seed=seed, simulated=comparison.simulated
    )
    caption = (
        f"Random cells (seed {seed}), {montage.describe_channels(comparison.channels)}. Each channel of each "
        "cell is stretched to its 0.1 to 99.9 percentiles: brightness cannot be compared between cells."
    )
    alt = f"Example cells: {', '.join(comparison.class_names)} (rows) in {', '.join(sources)} (columns)"
    return folder.figure("cells", plot, alt=alt, caption=caption)


def mistakes_section(folder: Folder, comparison: Comparison, sources: Sources, *, count: int) -> str:
    """The surest mistakes of each configuration and set, as HTML; without pictures only their table."""
    parts, listed = [], []
    sets = [name for name in comparison.sets if name not in FROM_TRAINING]
    for name, positions, set_name in comparison.pairs(sets):
        predictions = [comparison.evaluated[set_name].predictions[i] for i in positions]
        found = montage.mistakes(predictions, count=count)
        listed += [_row(comparison, name, set_name, mistake) for mistake in found]
        title = f"{name}, {set_name}"
        end = f", averaged over {len(positions)} seeds" if len(positions) > 1 else ""
        if not found:
            parts.append(html.paragraph(f"{title}: no mistakes by the largest probability{end}."))
        elif set_name in sources:
            parts.append(_figure(folder, comparison, sources[set_name], found, title, end))
    folder.csv("mistakes", listed, tables.MISTAKE_COLUMNS)
    missing = "" if sources else html.paragraph(NO_PICTURES)
    table = html.details("These cells with their full ids", tables.mistakes(listed))
    return missing + html.grid(parts) + (table if listed else "")


def _row(comparison: Comparison, name: str, set_name: str, mistake: dict[str, Any]) -> dict[str, Any]:
    """A mistake with names in the place of labels."""
    classes = {key: comparison.class_names[mistake[key]] for key in ("true", "predicted")}
    return {**mistake, **classes, "configuration": name, "set": set_name}


def _figure(
    folder: Folder,
    comparison: Comparison,
    source: montage.Source,
    found: list[dict[str, Any]],
    title: str,
    end: str,
) -> str:
    plot = montage.mistakes_montage(
        source, found, comparison.class_names, title=title, simulated=comparison.simulated
    )
    alt = f"The {len(found)} surest mistakes of {title}; they are listed below"
    caption = f"{title}: true class → predicted class, probability of the wrong class{end}."
    return folder.figure(f"mistakes_{title}", plot, alt=alt, caption=caption)
