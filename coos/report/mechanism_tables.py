"""Tables of the page about mechanisms: accuracy of each, confusions, mistakes, and how settings were chosen."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from coos.evaluators import mechanisms
from coos.evaluators.mechanism_choice import Choice
from coos.evaluators.mechanisms import Called
from coos.report import html
from coos.report.folder import Folder

CHOSEN = {
    "fixed": "beforehand",
    "judged": "ON THE JUDGED LABELS: optimistic, shows what is possible",
    "nested": "by the labels of the other compounds",
    "label-free": "by replicates, without labels of mechanisms",
    "trained": "trained without the compound",
}
NONE = "no treatment has an eligible neighbour"
MISTAKES = ("neighbour", "similarity", "setting", "rank")


class Method(NamedTuple):
    """What one method calls treatments under a protocol; `chosen` is a key of CHOSEN."""

    name: str
    protocol: str
    chosen: str
    called: Called


class Published(NamedTuple):
    """Numbers to stand beside ours: (name, accuracy, source) and, of mechanisms, (name, median, SD)."""

    accuracies: Sequence[tuple[str, float, str]] = ()
    spreads: Sequence[tuple[str, float, float]] = ()
    source: str = "Godinez et al. 2017, table 1"


def count(value: float) -> str:
    """A count, with one decimal if ties made it a fraction."""
    return f"{value:.0f}" if abs(value - round(value)) < 1e-6 else f"{value:.1f}"


def mechanism_section(methods: Sequence[Method], published: Published) -> str:
    """The spread over mechanisms as published, and each mechanism's accuracy."""
    columns = ["method", "protocol", "chosen", "median (SD)", "mean", "MAD", "mechanisms"]
    rows = []
    for method in methods:
        s = mechanisms.spread(method.called)
        values = [_hundred(s.mean), _hundred(s.mad), f"{s.counted}"]
        middle = f"{_hundred(s.median)} ({_hundred(s.sd)})"
        texts = [method.name, method.protocol, CHOSEN[method.chosen], middle, *values]
        rows.append(("", [html.escape(text) for text in texts]))
    for name, median, deviation in published.spreads:
        cells = [html.escape(name), "published", html.escape(published.source)]
        rows.append(("published", [*cells, f"{100 * median:.0f} ({100 * deviation:.0f})", "", "", ""]))
    caption = (
        "Accuracy of each mechanism as one number, in percent: median and SD (divided by one less than the number of "
        "mechanisms) are how published accuracies were summed up; a mechanism of five treatments weighs as much as one "
        "of fourteen."
    )
    summed = html.table(html.head(columns, text_columns=3), rows, caption=caption, text_columns=3)
    return summed + _per_mechanism(methods)


def _hundred(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{100 * value:.0f}"


def _per_mechanism(methods: Sequence[Method]) -> str:
    """Mechanisms down, methods across."""
    found = [mechanisms.per_mechanism(method.called) for method in methods]
    names = list(dict.fromkeys(name for frame in found for name in frame["mechanism"]))
    rows = []
    for name in names:
        cells = [html.escape(name)]
        for frame in found:
            row = next(iter(frame.filter(pl.col("mechanism") == name).iter_rows(named=True)), None)
            if row is None or row["accuracy"] is None:
                cells.append(html.undefined("no treatment counted"))
            else:
                small = f"{count(row['right'])} of {row['counted']}"
                cells.append(html.cell(_hundred(row["accuracy"]), small=small))
        rows.append(("", cells))
    marks = [f"{m.name}, {m.protocol}{' (judged labels)' * (m.chosen == 'judged')}" for m in methods]
    return html.table(
        html.head(["mechanism", *marks]), rows, caption="Accuracy of each mechanism in percent."
    )


def count_table(counts: np.ndarray, names: Sequence[str], title: str) -> str:
    """A confusion matrix (K, K) in counts."""
    rows = [
        ("", [html.escape(name), *(count(value) if value else "" for value in counts[k])])
        for k, name in enumerate(names)
    ]
    caption = f"{title}: true mechanism by row, called by column; empty: none."
    return html.table(html.head(["true", *names]), rows, caption=caption)


def mistake_section(methods: Sequence[Method]) -> str:
    """The mistakes of every method, collapsed."""
    return "".join(
        html.details(
            f"{m.name}, {m.protocol}: {mechanisms.mistakes(m.called).height} mistakes", _mistake_table(m)
        )
        for m in methods
    )


def _mistake_table(method: Method) -> str:
    """One wrongly called treatment a row, with what led there."""
    frame = mechanisms.mistakes(method.called)
    shown = ["mechanism", "predicted", *(name for name in MISTAKES if name in frame.columns)]
    rows = [
        (
            "",
            [
                html.escape(f"{row['compound']} {row['concentration']:g}"),
                *(_text(row[name]) for name in shown),
            ],
        )
        for row in frame.iter_rows(named=True)
    ]
    note = " rank: place of the true mechanism among the probabilities." if "rank" in shown else ""
    caption = f"Treatments called wrongly, or by a tie that includes a wrong call.{note}"
    head = html.head(["treatment", *shown], text_columns=len(shown) + 1)
    return html.table(head, rows, caption=caption, text_columns=len(shown) + 1)


def _text(value: Any) -> str:
    return html.escape(f"{value:.3f}" if isinstance(value, float) else value)


def choice_section(choices: Mapping[str, Choice]) -> str:
    """How often each setting was chosen, for how many compounds there was a tie."""
    parts = []
    for how, choice in choices.items():
        found = sorted(choice.frequencies().items(), key=lambda item: (-item[1], item[0]))
        rows = [("", [html.escape(name), f"{number:.1f}"]) for name, number in found]
        caption = (
            f"Nested choice {how}: for how many of {len(choice.compounds)} compounds each of "
            f"{len(choice.settings)} settings was chosen, shared where several were best, which they were for "
            f"{choice.tied} compounds."
        )
        parts.append(html.table(html.head(["setting", "compounds"]), rows, caption=caption))
    if choices:
        parts.append(
            html.paragraph(
                "Among settings that are nearly as good, choosing without a compound leans to those that call that "
                "very compound wrongly: leaving it out costs them least. The nested accuracy is therefore rather too "
                "low than too high; it does not see the judged labels."
            )
        )
    return "".join(parts)


def setting_section(folder: Folder, settings: Sequence[Mapping[str, Any]]) -> str:
    """All settings of the grid with their numbers."""
    if not settings:
        return ""
    columns = list(settings[0])
    folder.csv("settings", [dict(row) for row in settings], columns)
    rows = [("", [_text(row[name]) for name in columns]) for row in settings]
    caption = (
        "Every setting of the grid, which was drawn up by people who know such data. Accuracies are on the judged "
        "labels: the best of them is optimistic. replicates "
        "and average_precision know no mechanisms: how alike wells of one treatment are, of one week as they mostly "
        "are, so that batch effects help there."
    )
    return html.details(
        f"All {len(settings)} settings", html.table(html.head(columns), rows, caption=caption)
    )
