"""The retrieval report: numbers as judged, words where there is none, and a page that needs nothing else."""

import html
import re

import numpy as np
import polars as pl
import pytest
from report_runs import has_label, read, visible

from coos.evaluators import retrieval as judging
from coos.evaluators import wells
from coos.evaluators.retrieval import Protocol
from coos.profiles.table import Table
from coos.report import (
    plots,
    retrieval,
    retrieval_plots,
    retrieval_scatter,
    retrieval_summary,
    retrieval_tables,
)

PROTOCOL = Protocol(label="Metadata_moa", null_size=200, unlabelled="enrichment", ks=(1, 5, 10))
ODD = '<b>bold</b> & "quoted" $x$'


def make_table(*, noise=1.0, seed=0, labels=None, rows=40):
    """Ten labels of four rows; features are those of the label and noise."""
    generator = np.random.default_rng(seed)
    labels = [f"moa {i % 10}" for i in range(rows)] if labels is None else labels
    codes = np.unique([str(label) for label in labels], return_inverse=True)[1]
    centres = np.random.default_rng(99).normal(size=(codes.max() + 1, 12))
    features = centres[codes] + noise * generator.normal(size=(rows, 12))
    metadata = {
        "Metadata_moa": labels,
        "Metadata_cells": generator.integers(10, 500, rows),
        "Metadata_batch": [f"batch {i % 3}" for i in range(rows)],
        "Metadata_kind": ["control" if i < 12 else "treated" for i in range(rows)],
    }
    return Table(pl.DataFrame(metadata), features, tuple(f"f{i}" for i in range(12)))


def judged(name, protocol=PROTOCOL, **options):
    return judging.judge(make_table(**options), protocol, name=name)


def score_cells(text):
    """{table: {column: first word of its cell}} of the table of scores."""
    table = re.search(r"<table><caption><span>All scores.*?</table>", text, re.S)[0]
    heads = [visible(head).strip() for head in re.findall(r"<th scope=\"col\".*?</th>", table)]
    rows = {}
    for row in re.findall(r"<tr[^>]*>(<th scope=\"row\".*?)</tr>", table, re.S):
        cells = re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        name = visible(cells[0].split("<small>")[0]).strip()
        rows[name] = dict(zip(heads, (visible(cell).split()[0] for cell in cells), strict=True))
    return rows


@pytest.fixture(scope="module")
def judgements():
    """Three tables, from good to noise, and the baseline."""
    tables = [judged("good", noise=0.7), judged(ODD, noise=2.0, seed=1), judged("noise", noise=50.0, seed=2)]
    return [*tables, judging.judge_cell_counts(make_table(), PROTOCOL, "Metadata_cells")]


@pytest.fixture(scope="module")
def page(judgements, tmp_path_factory):
    out = tmp_path_factory.mktemp("retrieval")
    controls, batch = "Metadata_kind = 'control'", "Metadata_batch"
    path = retrieval.write(
        out,
        judgements,
        title="Title <1>",
        published={ODD: {"odds_ratio": 11.75, "precision_at_r": 0.067}, "other": {"precision_at_1": 0.25}},
        published_source="A <paper>, table 1",
        spaces=[(ODD, wells.feature_space(make_table(), controls=controls, batch=batch))],
        batch_effects={
            "good": wells.batch_effect(make_table(), controls=controls, batch=batch, percentile=0.9),
            ODD: "only one <batch>",
        },
        notes=["A note <here>."],
    )
    assert path == out / "index.html"
    return out, path.read_text()


def test_page_is_self_contained(page):
    out, text = page
    resources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(r.startswith(("data:", "#section-")) for r in resources)
    assert "<script" not in text
    assert "url(" not in text
    figures = sorted((out / "figures").glob("*.png"))
    tags = re.findall("<img [^>]*>", text)
    assert len(figures) == len(tags) == 3 + 4 + 4 + 1
    assert all(re.search(r'alt="[^"]{20,}"', tag) for tag in tags)
    assert not any(has_label(path) for path in figures)
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "Scores", "Enrichment", "Precision and recall", "Hits", "Labels", "Feature space", "Batch effect", "Protocol",
    ]  # fmt: skip


def test_names_are_escaped(page):
    text = page[1]
    assert "<b>" not in text
    for raw in ("Title <1>", "A <paper>", "only one <batch>", "A note <here>."):
        assert raw not in text
        assert html.escape(raw) in text
    assert html.escape(ODD) in text


def test_scores_in_the_page_are_those_of_the_judgement(page, judgements):
    rows = score_cells(page[1])
    assert list(rows) == [judgement.name for judgement in judgements]
    columns = {
        "Odds ratio at 99.5 %": "odds_ratio_at_0.995",
        "log10 p": "log10_p_value_at_0.995",
        "Precision@R": "precision_at_r",
        "mAP": "average_precision",
        "Normalised AP": "normalized_average_precision",
        "Hit score": "hit_score",
        "Nearest-neighbour accuracy": "precision_at_1",
    }
    digits = {"Odds ratio at 99.5 %": 0.005, "log10 p": 0.05}
    for judgement in judgements:
        found = judging.values(judgement)
        cells = rows[judgement.name]
        for column, metric in columns.items():
            value = float(cells[column].replace("infinite", "inf").replace(",", ""))
            assert value == pytest.approx(found[metric][0], abs=digits.get(column, 5e-5) + 1e-9), metric
        share = 100 * found["significant_labels"][0]
        assert float(cells["Significant labels (%)"]) == pytest.approx(share, abs=0.0501)
        assert (int(cells["Rows"]), int(cells["Labels"])) == (40, 10)
        assert int(cells["Features"]) == judgement.num_features


def test_csv_files_are_complete(page, judgements):
    out = page[0]
    expected = {(j.name, metric): v for j in judgements for metric, v in judging.values(j).items()}
    scores = {(row["table"], row["metric"]): row for row in read(out, "scores")}
    assert set(scores) == set(expected)
    for key, (value, n) in expected.items():
        assert float(scores[key]["value"]) == value
        assert int(scores[key]["n"]) == n
    assert len(read(out, "labels")) == 4 * 10
    assert len(read(out, "precision_recall")) == 4 * 3
    assert len(read(out, "hits")) == 4 * 101
    enriched = read(out, "enrichment")
    assert len(enriched) == 4 * len(PROTOCOL.percentiles)
    assert all(sum(int(row[c]) for c in "abcd") == 40 * 39 // 2 for row in enriched)
    assert [row["reason"] for row in read(out, "batch_effects")] == ["", "only one <batch>"]


def test_published_values_stand_beside_measured_ones(page, judgements):
    out, text = page
    table = re.search(r"<table><caption><span>Measured.*?</table>", text, re.S)[0]
    rows = [
        [visible(c).strip() for c in re.findall(r"<t[hd].*?</t[hd]>", r)] for r in table.split("<tr>")[2:]
    ]
    found = judging.values(judgements[1])
    assert np.diff([found["odds_ratio_at_0.995"][0], found["odds_ratio_at_0.99"][0]]) != 0
    assert rows[0][:3] == [ODD, retrieval_tables.ratio(found["odds_ratio_at_0.995"][0]), "11.75"]
    assert rows[0][3:] == [f"{found['precision_at_r'][0]:.4f}", "0.0670", "see above", "not published"]
    assert rows[1] == [
        "other",
        "not judged",
        "not published",
        "not judged",
        "not published",
        "not judged",
        "0.2500",
    ]
    assert "A <paper>, table 1" in visible(table)
    assert {row["metric"]: row["published"] for row in read(out, "published")}["odds_ratio"] == "11.75"


def test_the_baseline_is_recognisable(page, judgements):
    text = page[1]
    assert re.search(r'<tr class="baseline published"><th[^>]*>cell count only<small>baseline', text)
    assert retrieval.NO_BASELINE not in visible(text)
    styles = retrieval_plots.styles([judgement.name for judgement in judgements])
    assert styles["cell count only"]["color"] == retrieval_plots.GREY
    assert styles["cell count only"]["linestyle"] == "--"
    assert [styles[j.name]["color"] for j in judgements[:3]] == list(plots.COLOURS[:3])
    assert len({str(style) for style in retrieval_plots.styles([f"{i}" for i in range(15)]).values()}) == 15


def test_one_simulated_table_without_baseline(tmp_path):
    text = retrieval.write(tmp_path, [judged("alone")], title="t", simulated=True).read_text()
    assert retrieval.NO_BASELINE in visible(text)
    assert "Of alone, the odds ratio at 99.5 % is" in visible(text)
    assert "No principal components were given." in text
    assert "No batch effect was measured." in text
    assert "<strong>" not in text
    assert "<details>" not in text
    assert plots.SIMULATED_LABEL in text
    assert all(has_label(path) for path in (tmp_path / "figures").glob("*.png"))


def test_undefined_values_are_words(tmp_path):
    labels = [f"moa {i % 9}" if i < 38 else ["alone", None][i - 38] for i in range(40)]
    lonely = judged("lonely", labels=labels)
    same = judged("same", labels=["one"] * 40)  # every pair matches
    text = visible(retrieval.write(tmp_path, [lonely, same], title="t").read_text())
    assert not re.search(r"\bnan\b", text)
    row = next(r for r in read(tmp_path, "labels") if r["label"] == "alone")
    assert (row["num_rows"], row["mean_average_precision"], row["corrected_p_value"]) == ("0", "nan", "nan")
    assert re.search(r"alone\s+0\s+undefined\s+no two rows have this label", text)
    assert re.search(r"undefined\s+every pair matches", text)
    assert re.search(r"undefined\s+every neighbour matches", text)
    assert "10 labels" in text or "All 10" in text
    undefined = "The odds ratio at 99.5 %, normalised AP and the hit score: undefined for same."
    assert undefined in text
    assert "Scores of different rows are not strictly comparable." in text
    assert "38 matched" in text
    assert "kept in the pairs of the odds ratio" in text


def test_without_k_of_one_there_is_no_nearest_neighbour_accuracy(tmp_path):
    protocol = Protocol(label="Metadata_moa", null_size=200, ks=(5, 10))
    text = visible(retrieval.write(tmp_path, [judged("a", protocol)], title="t").read_text())
    assert re.search(r"undefined\s+K = 1 was not asked for", text)


def test_infinite_odds_ratios_are_said_and_marked(tmp_path):
    perfect = judged("perfect", noise=1e-3)
    assert np.isinf(perfect.enrichment.odds_ratio[0])
    text = visible(retrieval.write(tmp_path, [perfect, judged("other")], title="t").read_text())
    assert re.search(r"infinite\s+all pairs above match", text)
    assert read(tmp_path, "enrichment")[0]["odds_ratio"] == "inf"
    ratios = {"a": np.array([np.inf, 2.0, np.nan]), "b": np.array([100.0, 0.0, 5.0])}
    axes = retrieval_plots.enrichment_plot(ratios, (0.99, 0.98, 0.97)).axes[0]
    assert axes.get_yscale() == "log"
    assert sorted(text.get_text() for text in axes.texts) == ["0", "undefined", "∞"]
    assert sorted(text.xy[0] for text in axes.texts) == pytest.approx([97, 98, 99])
    flat = retrieval_plots.enrichment_plot({"a": np.array([2.0, 3.0])}, (0.99, 0.98)).axes[0]
    assert flat.get_yscale() == "linear"


def test_summary_names_the_best_and_the_baseline(page, judgements):
    text = visible(re.search(r'<p class="summary">.*?</p>', page[1])[0])
    scores = {j.name: retrieval_tables.headline(j) for j in judgements}
    for score in scores["good"]:
        assert retrieval_tables.best(scores, score) == ["good"]
    assert "good is best by the odds ratio at 99.5 % (" in text
    assert re.search(r"good( and [^.]*)? (is|are) above the cell count baseline by all scores", text)


def test_summary_of_ties_and_of_nothing_above_the_baseline(judgements):
    good, baseline = judgements[0], judgements[-1]
    twins = [good, good._replace(name="twin")]
    text = retrieval_summary.paragraph(twins)
    assert "Both tables are equal by the odds ratio at 99.5 %" in text
    assert "better than the others" not in text
    assert "good and twin are equal by" in retrieval_summary.paragraph([*twins, judgements[2]])
    text = retrieval_summary.paragraph([baseline._replace(name="copy"), baseline])
    assert "copy is above the cell count baseline by no score" in text
    rounded = baseline.hits._replace(score=baseline.hits.score + 1e-11)
    text = retrieval_summary.paragraph([baseline._replace(name="copy", hits=rounded), baseline])
    assert "copy is above the cell count baseline by no score" in text
    mixed = baseline._replace(name="mixed", hits=good.hits)
    text = retrieval_summary.paragraph([mixed, baseline])
    assert "mixed is above the cell count baseline by the hit score, but not by the odds ratio" in text
    blind = mixed._replace(hits=good.hits._replace(score=float("nan")))
    assert "(the hit score could not be compared)" in retrieval_summary.paragraph([blind, baseline])


def test_judgements_that_do_not_belong_together_are_refused(tmp_path, judgements):
    good = judgements[0]
    with pytest.raises(ValueError, match="at least one"):
        retrieval.write(tmp_path, [], title="t")
    with pytest.raises(ValueError, match=r"same name.*good"):
        retrieval.write(tmp_path, [good, good], title="t")
    other = judged("other", Protocol(label="Metadata_moa", null_size=200, ks=(1, 2)))
    with pytest.raises(ValueError, match="good and other differ in ks"):
        retrieval.write(tmp_path, [good, other], title="t")


def test_accumulated_hits():
    even = retrieval_plots.accumulated_hits(np.arange(200), 200)
    assert np.abs(even).max() < 1e-9
    first = retrieval_plots.accumulated_hits(np.zeros(30), 200)
    assert first[1] == pytest.approx(0.99)
    assert (first[0], first[-1]) == (0, 0)


@pytest.mark.parametrize(("count", "unknown"), [(0, 5), (1, 0), (12, 5), (13, 0), (136, 5)])
def test_any_number_of_batches(count, unknown):
    batches = [f"b{i % count}" for i in range(295)] if count else [None] * 295
    batches += [None] * unknown
    points = np.random.default_rng(0).normal(size=(len(batches), 2))
    controls = np.arange(len(batches)) < 30
    figure = retrieval_scatter.components_plot(points, np.array([0.83, 0.08]), batches, controls, title="t")
    left, right = figure.axes[:2]
    names = [text.get_text() for text in left.get_legend().get_texts()] if left.get_legend() else []
    assert names == ([f"b{i}" for i in range(count)] if count <= 12 else [])
    assert len(figure.axes) == 2 + (count > 12)
    if count == 136:
        ticks = [text.get_text() for text in figure.axes[2].get_yticklabels()]
        assert (ticks[0], ticks[-1], len(ticks)) == ("b0", "b135", 6)
    assert ("unknown batch" in left.get_title()) == bool(unknown and count)
    drawn = sum(len(shape.get_offsets()) for shape in left.collections if len(shape.get_offsets()))
    assert drawn == len(batches)
    assert left.get_xlabel() == "PC1 (83 % of the variance)"
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "control\n(30)",
        f"treated\n({len(batches) - 30})",
    ]
    assert plots.png(figure).startswith(b"\x89PNG")


def test_labels_are_named_without_overlap():
    p_values = np.r_[np.full(20, 0.001), np.full(5, 0.5), np.nan]
    values = np.r_[np.linspace(0.1, 0.9, 25), np.nan]
    names = [f"label {i} with a name that is far too long to be shown" for i in range(26)]
    axes = retrieval_scatter.labels_plot(values, p_values, names).axes[0]
    assert [text.get_text().split()[1] for text in axes.texts] == [str(i) for i in range(19, 7, -1)]
    assert all(len(text.get_text()) <= retrieval_scatter.NAME_LENGTH for text in axes.texts)
    heights = [text.xyann[1] for text in axes.texts]
    assert (-np.diff(heights) >= retrieval_scatter.NAME_HEIGHT - 1e-9).all()
    assert min(heights) >= 0
    assert "labels without a value: 1" in axes.get_xlabel()
