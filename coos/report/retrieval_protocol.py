"""What a retrieval report must say about itself: what matched and what was left out, and what the scores mean."""

import dataclasses
from collections.abc import Sequence

from coos import workdir
from coos.evaluators.retrieval import BASELINE, Judgement, Protocol
from coos.report import html

UNLABELLED = {
    "drop": "left out",
    "keep": "kept as neighbours that match nobody",
    "enrichment": "kept in the pairs of the odds ratio, left out of all other scores",
}
SHARED = ("label", "ks", "percentiles")
THESIS = "Bornholdt 2021"
DEFINITIONS = (
    (
        "Odds ratio (enrichment)",
        "Of all pairs of rows, those whose similarity is above the given percentile are called similar; the odds "
        "of a match among them, a / b, are divided by the odds among the others, c / d (a, c match; b, d do not).",
        f"{THESIS}, section 3.4.2",
    ),
    (
        "log10 p",
        "Logarithm of the one-sided p-value of Fisher's exact test of that table; pairs that share a row are not "
        "independent, so it overstates how sure one can be.",
        f"Fisher's exact test; {THESIS}, section 3.4.2",
    ),
    (
        "Precision@R",
        "Share of matches among the R nearest neighbours of a row, R being the number of its matches, averaged "
        "over rows that have one.",
        f"{THESIS}, section 3.4.1, with R as in its program",
    ),
    (
        "Precision@K, recall@K",
        "Share of matches among the K nearest neighbours, and share of a row's matches that are among them, "
        "averaged over rows.",
        f"{THESIS}, section 3.4.1",
    ),
    (
        "mAP",
        "Average precision of a row is the mean, over its matches, of the share of matches among all neighbours at "
        "least as near; mAP is its mean over rows, or over the rows of a label.",
        f"{THESIS}, equation 3.13",
    ),
    (
        "Normalised AP",
        "Average precision minus its expectation under a random order, divided by the most it could exceed that: "
        "0 is chance, 1 perfect.",
        "coos.metrics.retrieval.significance",
    ),
    (
        "p and corrected p of a label",
        "Probability that a random order gives a mean average precision at least as high, adjusted for the number "
        "of labels so that the false discovery rate is controlled.",
        "null distribution as in copairs; Benjamini and Hochberg 1995",
    ),
    (
        "Significant labels",
        "Share of labels whose corrected p is below 0.05.",
        "coos.evaluators.retrieval",
    ),
    (
        "Hit score",
        "Area under the curve of matches found over the first 20 % of each row's neighbours, 0 for chance and 1 if "
        "all matches come first.",
        f"coos.metrics.retrieval.hits, after {THESIS}, sections 3.4.3 and 5.12",
    ),
    (
        "Nearest-neighbour accuracy",
        "Share of rows, of those that have a match, whose nearest neighbour matches (precision@1); without "
        "neighbours of the same compound it is the NSC accuracy, also without those of its batch NSCB.",
        "Ljosa et al. 2013; Ando et al. 2017",
    ),
    (
        "Batch enrichment score",
        "The odds ratio of control rows alone, with the batch as label: about 1 without a batch effect.",
        f"{THESIS}, section 4.8.2",
    ),
)


def check(judgements: Sequence[Judgement]) -> None:
    """Raise ValueError unless there are judgements, with names of their own, of the same question."""
    if not judgements:
        raise ValueError("a report needs at least one judgement")
    names = [judgement.name for judgement in judgements]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"judgements have the same name: {twice}")
    first = judgements[0]
    for judgement in judgements[1:]:
        for field in SHARED:
            ours, theirs = _plain(first.protocol, field), _plain(judgement.protocol, field)
            if ours != theirs:
                raise ValueError(
                    f"{first.name} and {judgement.name} differ in {field}, {ours} and {theirs}: "
                    "their scores cannot stand in one table"
                )


def _plain(protocol: Protocol, field: str) -> object:
    return workdir.plain(getattr(protocol, field))


def warnings(judgements: Sequence[Judgement]) -> list[str]:
    """What keeps the tables from being strictly comparable, a sentence each."""
    first, found = judgements[0], []
    for judgement in judgements[1:]:
        fields = [field.name for field in dataclasses.fields(Protocol)]
        differing = [f for f in fields if _plain(first.protocol, f) != _plain(judgement.protocol, f)]
        if judgement.name == BASELINE:
            differing = [field for field in differing if field != "similarity"]
        if differing:
            found.append(
                f"{judgement.name} was judged under another {', '.join(differing)} than {first.name}."
            )
        sizes = [
            (len(j.scores.num_matches), int((j.scores.num_matches > 0).sum())) for j in (first, judgement)
        ]
        if sizes[0] != sizes[1]:
            (ours, ours_matched), (theirs, theirs_matched) = sizes
            found.append(
                f"{judgement.name} has {theirs:,} rows, {theirs_matched:,} with a match; {first.name} has {ours:,} "
                f"rows, {ours_matched:,} with a match. Scores of different rows are not strictly comparable."
            )
    return found


def section(judgements: Sequence[Judgement]) -> str:
    """HTML: the protocol of each table in words, and a sentence on each score."""
    heads = ("Table", "Two rows match if", "Not counted as neighbours", "Rows without a label", "Similarity",
             "Null draws", "Seed")  # fmt: skip
    caption = "What was compared with what. A pair that is no pair of neighbours is in no score at all."
    table = html.table(
        html.head(heads, text_columns=5), map(_row, judgements), caption=caption, text_columns=5
    )
    rows = [("", [html.escape(part) for part in definition]) for definition in DEFINITIONS]
    caption = "What the scores mean. Ties count as their expectation over random orders."
    return table + html.table(
        html.head(("Score", "Definition", "Source"), text_columns=3), rows, caption=caption, text_columns=3
    )


def _row(judgement: Judgement) -> tuple[str, list[str]]:
    protocol = judgement.protocol
    match = f"they have the same {protocol.label}"
    if protocol.separator:
        match = (
            f"they share any part of their {protocol.label}, parts being separated by {protocol.separator!r}"
        )
    excluded = "only the row itself"
    if protocol.exclude:
        excluded = f"the row itself and rows with the same {' or the same '.join(protocol.exclude)}"
    cells = [judgement.name, match, excluded, UNLABELLED[protocol.unlabelled], protocol.similarity,
             f"{protocol.null_size:,}", f"{protocol.seed}"]  # fmt: skip
    return "", [html.escape(cell) for cell in cells]
