"""The page about mechanisms: every number on it, what was chosen on the judged labels, what is undefined."""

import math
import re

import numpy as np
import polars as pl
import pytest

from coos.evaluators import mechanism_choice, mechanisms
from coos.profiles.table import Table
from coos.report import mechanism_tables, plots
from coos.report import mechanisms as report
from coos.report.mechanisms import Method, Published

PROTOCOLS = {"NSC": "neighbours of the same compound are left out"}


def make_profiles(seed=0):
    generator = np.random.default_rng(seed)
    compound = np.arange(24) % 8
    metadata = pl.DataFrame(
        {
            "Metadata_compound": [f"<c{c}>" for c in compound],
            "Metadata_concentration": np.arange(24) / 4,
            "Metadata_moa": ["lonely" if c == 7 else f"m{c % 2}" for c in compound],
        }
    )
    features = generator.normal(size=(24, 5)) + np.eye(5)[compound % 2]
    return Table(metadata, features, [f"f{i}" for i in range(5)])


@pytest.fixture(scope="module")
def found():
    tables = {"plain": make_profiles(0), "other": make_profiles(1)}
    nested = mechanism_choice.nested(tables)
    called = {name: mechanisms.nearest_neighbour_predictions(table) for name, table in tables.items()}
    methods = [
        Method("plain", "NSC", "fixed", called["plain"]),
        Method("best", "NSC", "judged", called["other"]),
        Method("nested", "NSC", "nested", nested.called),
    ]
    return methods, {"by NSC": nested}


def text_of(path):
    """The page without style, pictures and tags; what stood in tags of cells is apart."""
    page = re.sub(r"<style>.*?</style>", "", path.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_the_page_has_every_method_and_says_what_is_optimistic(found, tmp_path):
    methods, choices = found
    page = report.write(
        tmp_path,
        methods,
        title="Trial",
        protocols=PROTOCOLS,
        reference="plain",
        published=Published([("older", 0.777, "A paper")], [("network", 0.97, 0.09)]),
        choices=choices,
        settings=[{"setting": "plain", "right": "3", "replicates": 0.51234}],
        details={"data": "somewhere"},
    )
    text = text_of(page)
    for method in methods:
        judged = mechanisms.accuracy(method.called)
        right = mechanism_tables.count(judged.right)
        assert f"{right} of 21" in text
        share = (
            f"{100 * judged.share.value:.1f} [{100 * judged.share.low:.1f}, {100 * judged.share.high:.1f}]"
        )
        assert share in text
        wrong = mechanisms.mistakes(method.called)
        assert f"{method.name}, NSC: {wrong.height} mistakes" in text
        for row in wrong.iter_rows(named=True):
            assert f"&lt;c{row['compound'][2]}&gt; {row['concentration']:g}" in text
    section = page.read_text().split('<section id="section-4">')[1].split("</section>")[0]
    total = sum(mechanisms.mistakes(method.called).height for method in methods)
    assert section.count('<th scope="row"') == total > 0
    assert "3 treatments have no match left and are not counted" in text
    assert "ON THE JUDGED LABELS: optimistic" in text
    for published in ("older published A paper 77.7", "97 (9)", "0.512", "data: somewhere"):
        assert published in text
    assert "lonely undefined no treatment counted" in text
    assert "SIMULATED" not in text
    gap = mechanism_choice.compare(methods[2].called, methods[0].called)
    assert f"{100 * gap.difference.value:+.1f} [{100 * gap.difference.low:+.1f}" in text
    for name, number in choices["by NSC"].frequencies().items():
        assert f"{name} {number:.1f}" in text
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figures == {"accuracy.png", "confusion_plain_NSC.png", "confusion_nested_NSC.png"}
    assert (tmp_path / "tables" / "settings.csv").read_text() == "setting,right,replicates\nplain,3,0.51234\n"


def test_the_summary_leaves_out_what_was_chosen_on_the_judged_labels(found):
    text = report.summary(found[0], "plain")
    assert "nested" in text
    assert "best" not in text
    assert "optimistic and not among these" in text
    assert "optimistic" not in report.summary(found[0][:1], "")


def test_better_is_said_only_if_the_interval_says_so(found):
    gap = mechanism_choice.compare(found[0][2].called, found[0][0].called)
    for low, high, word in (
        (0.1, 0.2, "better than"),
        (-0.2, -0.1, "worse than"),
        (-0.1, 0.1, "not clearly"),
    ):
        interval = gap.difference._replace(low=low, high=high)
        assert report.verdict(gap._replace(difference=interval)).startswith(word)


def test_simulated_data_are_marked_and_networks_need_no_reference(tmp_path):
    keys = pl.DataFrame({"compound": ["SIMULATED-1", "SIMULATED-2"], "concentration": [1.0, 2.0]})
    extra = pl.DataFrame({"rank": [1, 2]})
    called = mechanisms.as_called(keys, np.array([0, 1]), np.array([[1.0, 0], [1, 0]]), ("a", "b"), extra)
    methods = [Method("network", "left out", "trained", called)]
    page = report.write(tmp_path, methods, title="T", protocols={"left out": "x"}, simulated=True)
    text = text_of(page)
    assert plots.SIMULATED_LABEL in text
    assert "SIMULATED-2 2 b a 2" in text  # treatment, true, called, rank of the true one
    assert "points" not in text
    assert "How it was chosen" not in text


def test_nothing_to_count_is_undefined_and_no_methods_an_error(tmp_path):
    keys = pl.DataFrame({"compound": ["x"], "concentration": [1.0]})
    called = mechanisms.as_called(keys, np.array([0]), np.full((1, 1), np.nan), ("a",), pl.DataFrame())
    page = report.write(tmp_path, [Method("n", "p", "fixed", called)], title="T", protocols={}, reference="n")
    assert math.isnan(mechanisms.accuracy(called).share.value)
    assert "undefined no treatment has an eligible neighbour" in text_of(page)
    with pytest.raises(ValueError, match="no methods"):
        report.write(tmp_path, [], title="T", protocols={})
