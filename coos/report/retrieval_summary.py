"""One paragraph in plain language: which table is best by which score, and whether it beats the cell counts."""

import math
from collections.abc import Mapping, Sequence

from coos.evaluators.retrieval import BASELINE, Judgement
from coos.report import retrieval_tables
from coos.report.retrieval_tables import ratio

MOST_NAMED = 4
Scores = Mapping[str, Mapping[str, float]]


def paragraph(judgements: Sequence[Judgement]) -> str:
    """The paragraph on top of a report, computed from its judgements."""
    scores = {judgement.name: retrieval_tables.headline(judgement) for judgement in judgements}
    tables = [name for name in scores if name != BASELINE]
    label = judgements[0].protocol.label
    parts = [f"The question is whether rows that match in {label} lie close together."]
    if len(tables) == 1:
        parts.append(_only(tables[0], scores))
    elif tables:
        parts += _bests(scores, len(tables))
    parts.append(_baseline(scores, tables))
    parts.append(
        "Chance would give an odds ratio of about 1, and a hit score and a normalised AP of about 0. These are "
        "single values without intervals: a small difference may be chance."
    )
    return " ".join(part for part in parts if part)


def _only(name: str, scores: Scores) -> str:
    found = scores[name]
    known = [f"{_the(score)} is {_value(score, v)}" for score, v in found.items() if not math.isnan(v)]
    lost = [_the(score) for score, value in found.items() if math.isnan(value)]
    text = f"Of {name}, {join(known)}."
    return text + (f" Undefined: {join(lost)}." if lost else "")


def _bests(scores: Scores, count: int) -> list[str]:
    """Sentences: who is best by what, which scores are undefined where."""
    winners: dict[tuple[str, ...], list[str]] = {}
    for score in next(iter(scores.values())):
        winners.setdefault(tuple(retrieval_tables.best(scores, score)), []).append(score)
    parts = [_winner(names, won, scores, count) for names, won in winners.items()]
    # A table without a value took no part, which a reader must know.
    lost: dict[tuple[str, ...], list[str]] = {}
    for score in next(iter(scores.values())):
        missing = tuple(n for n in scores if n != BASELINE and math.isnan(scores[n][score]))
        if missing and len(missing) < count:
            lost.setdefault(missing, []).append(_the(score))
    parts += [f"{_start(join(found))}: undefined for {join(missing)}." for missing, found in lost.items()]
    bests = [set(names) for names in winners if names]
    if bests and not set.intersection(*bests):
        parts.append("The scores do not agree on one best table.")
    return parts


def _winner(names: Sequence[str], won: Sequence[str], scores: Scores, count: int) -> str:
    if not names:
        return f"{_start(join([_the(score) for score in won]))}: undefined for every table."
    by = join([f"{_the(score)} ({_value(score, scores[names[0]][score])})" for score in won])
    if len(names) > 1:
        others = ", and better than the others" if len(names) < count else ""
        return f"{_subject(names, count)} are equal by {by}{others}."
    return f"{names[0]} is best by {by}."


def _baseline(scores: Scores, tables: Sequence[str]) -> str:
    """What is above the baseline that knows the cell count alone, and by which scores."""
    if BASELINE not in scores:
        return "There is no cell count baseline to compare with."
    if not tables:
        return "Only the cell count baseline was judged."
    groups: dict[str, list[str]] = {}
    for name in tables:
        groups.setdefault(_against(scores[name], scores[BASELINE]), []).append(name)
    return " ".join(
        f"{_subject(names, len(tables))} {'are' if len(names) > 1 else 'is'} {text}"
        for text, names in groups.items()
    )


def _subject(names: Sequence[str], total: int) -> str:
    """Names while they can be read, else how many."""
    if len(names) == total > 1:
        return "Both tables" if total == 2 else f"All {total} tables"
    return join(names) if len(names) <= MOST_NAMED else f"{len(names)} of {total} tables"


def _against(found: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    """How one table compares with the baseline; a tie is not above it."""
    known = [s for s in found if not math.isnan(found[s]) and not math.isnan(baseline[s])]
    above = [s for s in known if found[s] > baseline[s] and not retrieval_tables.alike(found[s], baseline[s])]
    rest = [score for score in known if score not in above]
    lost = [score for score in found if score not in known]
    note = f" ({join([_the(score) for score in lost])} could not be compared)" if lost else ""
    if not known:
        return "not comparable with the cell count baseline: no score is defined for both."
    if not above:
        return (
            f"above the cell count baseline by no score{note}, so nothing here says that there is more in it "
            "than the number of cells."
        )
    if not rest:
        every = "all scores" if not lost else "every score that both have"
        return f"above the cell count baseline by {every}{note}."
    return (
        f"above the cell count baseline by {join([_the(score) for score in above])}, but not by "
        f"{join([_the(score) for score in rest])}{note}."
    )


def _the(score: str) -> str:
    return score if score in ("precision@R", "mAP", "normalised AP") else f"the {score}"


def _value(score: str, value: float) -> str:
    return ratio(value) if score.startswith("odds ratio") else f"{value:.4f}"


def _start(text: str) -> str:
    """The text with a capital, except for names such as mAP."""
    return text[0].upper() + text[1:] if text.startswith("the ") else text


def join(parts: Sequence[str]) -> str:
    """Parts as English text: "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
