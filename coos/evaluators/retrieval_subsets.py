"""Scores on subsets of rows, and on the rest (sections 4.6 and 4.7.6 of Bornholdt 2021, figure 4.6).

    conditions = parse(["top50=top:50", "strong=strong.txt", "low=Metadata_mmoles_per_liter < 3"])
    judgement = judge(table, protocol, name="pretrained")                   # of coos.evaluators.retrieval
    rows, note = choose(conditions["top50"], table, judgement, column="Metadata_broad_sample")
    inside, outside = split(table, judgement, rows, subset="top50")

Enrichment and hits are those of the subset alone. Precision, recall and average precision of a row are those it
has among all rows, averaged over the rows of the subset: a label may have one row in it, which could find no other.
"""

import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from coos.evaluators import retrieval as judging
from coos.evaluators.retrieval import Judgement, Protocol
from coos.metrics.retrieval import Enrichment, HitAtK, contingency, hits, precision, ranking
from coos.profiles.table import Table, listing

TOP = "top:"
LISTS = (".txt",)  # what is a file by its name, so that a missing one is not taken for a query
ALL, IN, OUT = "all", "in", "out"


class Part(NamedTuple):
    """The scores of one part of a table's rows.

    table, subset: names; subset is "" for all rows. part: "in" or "out" of the subset, or "all".
    num_rows: P ranked rows. scores: of these, among all rows of the table. hits, enrichment: of the part alone.
    """

    table: str
    subset: str
    part: str
    protocol: Protocol
    num_rows: int
    scores: precision.Scores
    hits: HitAtK
    enrichment: Enrichment

    @property
    def label(self) -> str:
        """What to call it beside the other parts of its table: "all", "top50, in"."""
        return f"{self.subset}, {self.part}" if self.subset else self.part


def parse(texts: Sequence[str]) -> dict[str, str]:
    """{name: condition} of texts `name=condition`; ValueError if one has no name, or a name comes twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, condition = (part.strip() for part in text.partition("="))
        if not re.fullmatch(r"[\w-]+", name) or not condition:
            raise ValueError(f"subset {text!r}: write name=top:50, name=list.txt or name=condition")
        if name in found:
            raise ValueError(f"two subsets are called {name!r}")
        found[name] = condition
    return found


def choose(condition: str, table: Table, judgement: Judgement, *, column: str) -> tuple[np.ndarray, str]:
    """(N,) bool, the rows of the table in a subset, and a sentence on what of it was not found, or "".

    Args:
        condition: `top:N`, the N labels with most rows (ties by name); the path of a text file (.txt), with a value
            of `column` on each line; or a query on metadata columns, as of `Table.where`.
        table: what `judgement` judges.
        judgement: says what the labels are.
        column: the metadata column that a file lists.

    Raises:
        ValueError: N is no number of at least 1, the file cannot be read or lists nothing, or the query fails.
    """
    if condition.startswith(TOP):
        return _top(judgement, condition), ""
    if not condition.lower().endswith(LISTS):
        return table.where(condition), ""
    values = read_list(condition)
    known = table.column(column).cast(pl.String)
    missing = sorted(set(values) - set(known))
    note = f"{len(missing)} of {len(values)} values of {condition} are not in {column} of {judgement.name}: "
    rows = known.is_in(values).fill_null(False).to_numpy()
    return rows, f"{note}{listing(missing, 3)}." if missing else ""


def _top(judgement: Judgement, condition: str) -> np.ndarray:
    text = condition.removeprefix(TOP)
    if not re.fullmatch(r"[1-9]\d*", text):
        raise ValueError(f"subset {condition!r}: write {TOP} and a number of labels, such as {TOP}50")
    return top_rows(judgement.labels, int(text))


def top_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """(N,) bool: rows with one of the `count` most frequent labels; of equally frequent ones the first codes.

    `labels` are codes (N,) from 0, negative = none, or multi-hot (N, M), as `Judgement.labels`, whose order is that
    of the labels' names.
    """
    several = labels.ndim == 2
    sizes = labels.sum(0) if several else np.bincount(labels[labels >= 0])
    chosen = np.argsort(-sizes, kind="stable")[:count]
    return np.asarray(labels[:, chosen].any(1)) if several else np.isin(labels, chosen)


def read_list(path: str | pathlib.Path) -> list[str]:
    """The lines of a text file, each once, without blank ones; ValueError if there are none, or no file."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a list of values, one per line ({error})") from error
    values = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not values:
        raise ValueError(f"{path}: lists nothing; write one value per line")
    return values


def whole(judgement: Judgement) -> Part:
    """All rows, as a part of themselves."""
    scores, found, enriched = judgement.scores, judgement.hits, judgement.enrichment
    return Part(judgement.name, "", ALL, judgement.protocol, judgement.num_rows, scores, found, enriched)


def split(table: Table, judgement: Judgement, rows: np.ndarray, *, subset: str) -> list[Part]:
    """The parts "in" and "out" of a subset, `rows` (N,) bool of the judged table.

    Every row is in one of them: a row without a label, whose pairs alone may be counted, is where the condition
    puts it. What a part does not define (no rows, or no two that match) is NaN.
    """
    return [_part(table, judgement, chosen, subset, part) for part, chosen in ((IN, rows), (OUT, ~rows))]


def _part(table: Table, judgement: Judgement, rows: np.ndarray, subset: str, part: str) -> Part:
    protocol, ranked = judgement.protocol, judgement.ranked & rows
    of_all = precision.Scores(*(np.asarray(value)[rows[judgement.ranked]] for value in judgement.scores))
    paired = judgement.paired & rows
    found = _prepared(table, judgement, ranked)
    pairs = found if (paired == ranked).all() else _prepared(table, judgement, paired)
    total = int(ranked.sum())
    return Part(
        judgement.name,
        subset,
        part,
        protocol,
        total,
        of_all,
        _hits(found, total),
        _enrichment(pairs, protocol),
    )


def _prepared(table: Table, judgement: Judgement, rows: np.ndarray) -> ranking.Prepared | None:
    """The rows as the metrics take them; None if they make no pair."""
    if rows.sum() < 2:
        return None
    prepared = judging.prepare(table, judgement.labels, judgement.protocol, rows)
    # With exclusions there may be no pair at all; where nothing matches nothing is lost.
    if judgement.protocol.exclude and not prepared.matches.counts().any():
        return None
    return prepared


def _hits(prepared: ranking.Prepared | None, total: int) -> HitAtK:
    score = functools.partial(hits.block_hits, top=hits.TOP)
    blocks = [] if prepared is None else [block for _, block in ranking.ranked_blocks(prepared, score)]
    return hits.gather(blocks, num_rows=max(total, 1), percents=())


def _enrichment(prepared: ranking.Prepared | None, protocol: Protocol) -> Enrichment:
    if prepared is not None:
        return contingency.from_pairs(prepared, np.asarray(protocol.percentiles))
    nothing = np.full(len(protocol.percentiles), np.nan)
    no_pairs = np.zeros((len(nothing), 2, 2), np.int64)
    return Enrichment(nothing, nothing, nothing, no_pairs, nothing, nothing)


def values(part: Part) -> dict[str, tuple[float, int]]:
    """{metric: (value, how many rows or pairs it is about)}, called as in `coos.evaluators.retrieval.values`."""
    return {
        **judging.score_values(part.scores, part.protocol.ks),
        "hit_score": (part.hits.score, len(part.hits.ranks)),
        **judging.pair_values(part.enrichment, part.protocol.percentiles),
    }


def result_rows(parts: Sequence[Part], *, study: str, dataset: str) -> list[dict[str, Any]]:
    """Result rows of the parts of subsets; `split` is `<label column>/<subset>/in` or `.../out`.

    Of all rows there are none here: those are the rows of the judgement itself.
    """
    return [
        {
            "study": study,
            "run": part.table,
            "dataset": dataset,
            "split": f"{part.protocol.label}/{part.subset}/{part.part}",
            "metric": metric,
            "value": value,
            "n": n,
            "seed": part.protocol.seed,
            "fold": None,
            "step": None,
        }
        for part in parts
        if part.subset
        for metric, (value, n) in values(part).items()
    ]
