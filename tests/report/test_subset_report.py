"""The sections on subsets and on normalization: numbers as judged, a reason where there is none."""

import html
import math
import re

import numpy as np
import polars as pl
import pytest
from report_runs import has_label, read, visible

from coos.evaluators import retrieval as judging
from coos.evaluators import retrieval_subsets as subsets
from coos.evaluators.before_after import BeforeAfter
from coos.metrics.retrieval import contingency
from coos.profiles.table import Table
from coos.report import retrieval, retrieval_subsets

PROTOCOL = judging.Protocol(ks=(1, 10), percentiles=(0.9, 0.95), null_size=50)
ODD = "<odd> & $x$"
CONDITIONS = {"half": "Metadata_row < 20", "one": "Metadata_row < 1 AND 'a' <> '<b>'"}
PUBLISHED = {
    "<published> one": {"odds_ratio_before": 1.94, "odds_ratio_after": 15.45, "batch_before": 1056.0}
}


def make_table(seed):
    generator = np.random.default_rng(seed)
    codes = np.arange(40) % 10
    features = generator.normal(size=(10, 8))[codes] + generator.normal(size=(40, 8))
    metadata = {"Metadata_moa": [f"moa {code}" for code in codes], "Metadata_row": np.arange(40)}
    return Table(pl.DataFrame(metadata), features, [f"f{i}" for i in range(8)])


def all_parts(judged):
    parts = []
    for table, judgement in judged:
        parts.append(subsets.whole(judgement))
        for name, condition in CONDITIONS.items():
            parts += subsets.split(table, judgement, table.where(condition), subset=name)
    return parts


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("subsets")
    tables = [make_table(0), make_table(1)]
    judgements = [judging.judge(t, PROTOCOL, name=n) for t, n in zip(tables, ("plain", ODD), strict=True)]
    parts = all_parts(list(zip(tables, judgements, strict=True)))
    one = contingency.from_tables(np.array([[[6, 2], [10, 40]]]))
    first = type(one)(*(np.asarray(value)[0] for value in one))
    path = retrieval.write(
        out,
        judgements,
        title="Subsets",
        parts=parts,
        subsets=CONDITIONS,
        before_after=[BeforeAfter(ODD, 40, 0.9, "no <reason>", first, first, "one batch")],
        published_before_after=PUBLISHED,
        published_source="A paper",
        simulated=True,
    )
    return out, path.read_text(), parts


def lines(text, caption):
    """Cells, as text, of the rows of the table whose caption starts so."""
    table = re.search(rf"<table><caption><span>{caption}.*?</table>", text, re.S)[0]
    return [
        [visible(cell).split() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)]
        for row in re.findall(r"<tr[^>]*>(<th scope=\"row\".*?)</tr>", table, re.S)
    ]


def test_the_table_shows_every_part_with_its_scores(page):
    _, text, parts = page
    found = lines(text, "Odds ratio and hit score are")
    assert [" ".join(line[1]) for line in found] == 2 * [
        "all",
        "half, in",
        "half, out",
        "one, in",
        "one, out",
    ]
    for line, part in zip(found, parts, strict=True):
        values = subsets.values(part)
        assert int(line[2][0]) == part.num_rows
        shown = (
            "odds_ratio_at_0.9",
            "precision_at_r",
            "average_precision",
            "precision_at_10",
            "recall_at_10",
            "hit_score",
        )
        for cell, metric in zip(line[3:], shown, strict=True):
            value = values[metric][0]
            if math.isnan(value):
                assert cell[0].startswith("undefined")
            elif math.isinf(value):
                assert cell[0].startswith("infinite")
            else:
                assert float(re.match(r"[\d.]+", cell[0])[0]) == pytest.approx(value, abs=0.0051)
    assert html.escape(CONDITIONS["one"]) in text
    assert "<b>" not in text


def test_the_file_has_all_metrics_and_a_reason_for_each_that_is_undefined(page):
    out, _, parts = page
    rows = read(out, "subsets")
    assert len(rows) == sum(len(subsets.values(part)) for part in parts)
    for row in rows:
        assert (row["value"] == "nan") == bool(row["reason"]), row
    one = {row["metric"]: row["reason"] for row in rows if (row["subset"], row["part"]) == ("one", "in")}
    assert one["odds_ratio_at_0.9"] == one["hit_score"] == "no two of its rows match"
    assert one["average_precision"] == ""
    found = next(r for r in rows if (r["part"], r["metric"]) == ("all", "precision_at_r"))
    assert float(found["value"]) == subsets.values(parts[0])["precision_at_r"][0]


def test_each_table_and_subset_has_a_figure(page):
    out, text, _ = page
    figures = sorted(path.name for path in (out / "figures").glob("subset_*.png"))
    assert len(figures) == 4
    assert all(has_label(out / "figures" / name) for name in figures)
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings.index("Subsets") == headings.index("Labels") + 1


def test_an_empty_part_says_so():
    table = make_table(0)
    judgement = judging.judge(table, PROTOCOL, name="t")
    inside, outside = subsets.split(table, judgement, np.ones(40, bool), subset="s")
    reasons = {row["reason"] for row in retrieval_subsets.rows([outside])}
    assert reasons == {"no rows"}
    assert {row["reason"] for row in retrieval_subsets.rows([inside])} == {""}


def test_normalization_is_shown_beside_published_values(page):
    out, text, _ = page
    ours, published = lines(text, "Before and after normalization")
    assert ours[1][0].startswith("undefined")
    assert ours[4][0].startswith("undefined")
    assert ours[2] == ours[3] == ["12.00"]
    assert [cell[0] for cell in published[1:4]] == ["1.94", "15.45", "1,056"]
    assert published[4] == ["not", "published"]
    rows = read(out, "before_after")
    assert rows[0]["reason"] == "odds_ratio_before: no <reason>; batch_after: one batch"
    assert (float(rows[0]["odds_ratio_after"]), rows[0]["odds_ratio_before"]) == (12.0, "nan")
    assert (rows[1]["published"], rows[1]["batch_before"], rows[1]["batch_after"]) == (
        "True",
        "1056.0",
        "nan",
    )
    assert "no <reason>" not in text
    assert html.escape("<published> one") in text
