"""One page about mechanisms of left-out compounds: how often calls are right, what made them, how it was chosen."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from coos.evaluators import mechanism_choice, mechanisms
from coos.evaluators.mechanism_choice import Choice
from coos.report import html, plots
from coos.report import mechanism_tables as tables
from coos.report.folder import Folder
from coos.report.mechanism_tables import CHOSEN, NONE, Method, Published, count

COLOURS = dict(zip(CHOSEN, plots.COLOURS, strict=False))


def write(
    path: pathlib.Path,
    methods: Sequence[Method],
    *,
    title: str,
    protocols: Mapping[str, str],
    reference: str = "",
    published: Published | None = None,
    choices: Mapping[str, Choice] | None = None,
    settings: Sequence[Mapping[str, Any]] = (),
    simulated: bool = False,
    details: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Write the page, figures and tables below `path`; returns where the page is.

    Args:
        protocols: {name: what it leaves out, in words}.
        reference: the method that others are compared with, "" for none.
        choices: what was chosen in nested fashion, {how: choice}. settings: a row per setting of the grid, with its
            "setting" and numbers that are all shown.
    """
    if not methods:
        raise ValueError("no methods to report")
    folder, published = Folder(path), published or Published()
    scores = _accuracies(folder, methods, protocols, reference, published, simulated)
    sections = [
        ("Accuracy", scores),
        ("Mechanisms", tables.mechanism_section(methods, published)),
        ("Confusions", _confusions(folder, methods, simulated)),
        ("Mistakes", tables.mistake_section(methods)),
    ]
    if choices or settings:
        sections.append(
            (
                "How it was chosen",
                tables.choice_section(choices or {}) + tables.setting_section(folder, settings),
            )
        )
    if details:
        text = "\n".join(f"{name}: {value}" for name, value in details.items())
        sections.append(("How", html.preformatted(text)))
    lead = f'<p class="summary">{html.escape(summary(methods, reference))}</p>'
    banner = plots.SIMULATED_LABEL if simulated else ""
    return folder.page(html.page(title, lead=lead, sections=sections, banner=banner))


def _percent(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{100 * value:.1f} %"


def summary(methods: Sequence[Method], reference: str) -> str:
    """In plain words: each protocol's honest methods, whether they beat the reference, and what is optimistic."""
    parts = []
    for protocol in dict.fromkeys(method.protocol for method in methods):
        own = [method for method in methods if method.protocol == protocol]
        base = next((method for method in own if method.name == reference), None)
        told = "; ".join(_sentence(m, base) for m in own if m.chosen != "judged")
        parts.append(f"{protocol}: {told}.")
    if any(method.chosen == "judged" for method in methods):
        parts.append(
            "Numbers of settings that were picked on the judged labels are optimistic and not among these."
        )
    return " ".join(parts)


def _sentence(method: Method, base: Method | None) -> str:
    found = mechanisms.accuracy(method.called)
    text = f"{method.name} {_percent(found.share.value)} ({count(found.right)} of {found.counted})"
    if base is None or method is base:
        return text
    return f"{text}, {verdict(mechanism_choice.compare(method.called, base.called))} {base.name}"


def verdict(found: mechanism_choice.Comparison) -> str:
    """Better or worse only if the interval of the difference says so."""
    low, high = found.difference.low, found.difference.high
    return "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"


def _accuracies(
    folder: Folder,
    methods: Sequence[Method],
    protocols: Mapping[str, str],
    reference: str,
    published: Published,
    simulated: bool,
) -> str:
    columns = ["method", "protocol", "chosen", "right", "accuracy (%)", "by drawn compounds"]
    columns += [f"minus {reference} (points)", "gained, lost", "p"] if reference else []
    rows = [("", _accuracy_cells(method, methods, reference)) for method in methods]
    for name, value, source in published.accuracies:
        cells = [html.escape(name), "published", html.escape(source), "", f"{100 * value:.1f}"]
        rows.append(("published", [*cells, *[""] * (len(columns) - len(cells))]))
    undefined = {m.protocol: mechanisms.accuracy(m.called).undefined for m in methods}
    left_out = "; ".join(
        f"{name}: {protocols.get(name, '')}, {number} treatments have no match left and are not counted"
        for name, number in undefined.items()
    )
    caption = (
        f"{left_out}. Intervals are 95 %: Wilson's, which takes treatments for independent, and of drawn compounds, "
        "which does not. p: two-sided, flipping the signs of the compounds' differences. Ties are shared among the "
        "tied, so that counts can be fractions."
    )
    shown = html.table(html.head(columns, text_columns=3), rows, caption=caption, text_columns=3)
    figure = folder.figure(
        "accuracy",
        accuracy_plot(methods, published.accuracies, simulated=simulated),
        alt="Accuracy of every method with its interval",
        caption="Accuracy with Wilson's 95 % intervals; hollow: published.",
    )
    return shown + figure


def _accuracy_cells(method: Method, methods: Sequence[Method], reference: str) -> list[str]:
    found = mechanisms.accuracy(method.called)
    low_high = html.interval(found.share.low, found.share.high)
    drawn = found.over_compounds
    cells = [
        html.escape(method.name),
        html.escape(method.protocol),
        html.escape(CHOSEN[method.chosen]),
        html.cell(
            f"{count(found.right)} of {found.counted}", small=f"{found.tied} tied" if found.tied else ""
        ),
        html.cell(html.percent(found.share.value, reason=NONE), small=low_high),
        html.interval(drawn.low, drawn.high),
    ]
    if not reference:
        return cells
    base = next((m for m in methods if m.name == reference and m.protocol == method.protocol), None)
    if base is None or base is method:
        return [*cells, "", "", ""]
    gap = mechanism_choice.compare(method.called, base.called)
    points = html.points(gap.difference.value, reason=NONE)
    return [
        *cells,
        html.cell(points, small=html.interval(gap.difference.low, gap.difference.high, sign=True)),
        f"+{count(gap.gained)}, −{count(gap.lost)}",
        html.number(gap.p_value, reason=NONE, digits=2 if gap.p_value >= 0.095 else 3),
    ]


def accuracy_plot(
    methods: Sequence[Method], published: Sequence[tuple[str, float, str]], *, simulated: bool
) -> Figure:
    """A line per method, from the top: point and interval, coloured by how it was chosen; published ones hollow."""
    total = len(methods) + len(published)
    figure = plots.new_figure(8.6, 1.3 + 0.3 * total, simulated=simulated)
    axes = figure.subplots()
    names, seen = [], set()
    for place, method in enumerate(methods):
        share = mechanisms.accuracy(method.called).share
        middle, low, high = (100 * np.array([v]) for v in share)
        axes.errorbar(
            middle,
            [place],
            xerr=np.maximum([middle - low, high - middle], 0),
            fmt=plots.MARKERS[list(CHOSEN).index(method.chosen)],
            color=COLOURS[method.chosen],
            capsize=3,
            label=None if method.chosen in seen else CHOSEN[method.chosen].split(":")[0].lower(),
        )
        seen.add(method.chosen)
        names.append(f"{method.name}, {method.protocol}")
    for place, (name, value, _) in enumerate(published, start=len(methods)):
        axes.plot(100 * value, place, "o", color="#555555", markerfacecolor="none")
        names.append(f"{name} (published)")
    axes.set(
        xlabel="accuracy (% of treatments)", xlim=(0, 102), yticks=range(total), ylim=(total - 0.5, -0.5)
    )
    axes.set_yticklabels(names, fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9, title="chosen")
    return figure


def _confusions(folder: Folder, methods: Sequence[Method], simulated: bool) -> str:
    """Figures of methods that were not chosen on the judged labels, and counts of all."""
    figures, counted = [], []
    for method in methods:
        name = f"{method.name}, {method.protocol}"
        counts = mechanisms.confusion(method.called)
        if method.chosen != "judged":
            figures.append(
                folder.figure(
                    f"confusion {name}",
                    plots.confusion_plot(counts, method.called.mechanisms, title=name, simulated=simulated),
                    alt=f"Confusion matrix of {name}",
                    caption=f"{name}: {count(counts.sum())} treatments.",
                )
            )
        counted.append(
            html.details(f"Counts: {name}", tables.count_table(counts, method.called.mechanisms, name))
        )
    return html.grid(figures) + "".join(counted)
