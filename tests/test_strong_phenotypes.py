"""Strong phenotypes: correlations against SciPy, the list and its order, and from there to scores on the subset."""

import json

import numpy as np
import polars as pl
import pytest
from run_scripts import call_script, loaded
from scipy import stats

from coos.profiles import files
from coos.profiles.table import Table

COMPOUND = "Metadata_broad_sample"
CONTROLS = f"{COMPOUND} = 'DMSO'"


@pytest.fixture
def script():
    with loaded("strong_phenotypes.py") as module:
        yield module


def make_table(names, *, seed=0, width=12, **columns):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(len(names), width)) + generator.normal(size=width)
    moa = [None if name == "DMSO" else f"moa {i % 4}" for i, name in enumerate(names)]
    metadata = pl.DataFrame(
        {COMPOUND: names, "Metadata_moa": moa, **columns}, schema_overrides={COMPOUND: pl.String}
    )
    return Table(metadata, features, [f"f{i}" for i in range(width)])


def test_correlations_are_pearson_s_with_the_mean_of_the_controls(script):
    table = make_table(["b", "DMSO", "a", "c", "DMSO", "d"])
    found = script.correlations(table, controls=CONTROLS, label_column=COMPOUND)
    control = (table.features[1].astype(float) + table.features[4]) / 2
    expected = {
        name: stats.pearsonr(row.astype(float), control)[0]
        for name, row in zip(table.metadata[COMPOUND], table.features, strict=True)
        if name != "DMSO"
    }
    assert {label for _, label in found} == set("abcd")
    for value, label in found:
        assert value == pytest.approx(expected[label], abs=1e-9)
    assert [label for _, label in found] == sorted(expected, key=expected.get)


def test_scale_and_offset_of_a_profile_do_not_matter(script):
    table = make_table(["a", "b", "DMSO"])
    moved = table.with_features(table.features * [[3], [0.5], [7]] + [[5], [-2], [100]])
    one, other = (script.correlations(t, controls=CONTROLS, label_column=COMPOUND) for t in (table, moved))
    assert [label for _, label in one] == [label for _, label in other]
    np.testing.assert_allclose([r for r, _ in one], [r for r, _ in other], atol=1e-5)


def test_equal_correlations_are_ordered_by_name(script):
    table = make_table([f"{name}" for name in "hgfedcba"] + ["DMSO"])
    features = table.features.copy()
    features[:8] = features[0]
    found = script.correlations(table.with_features(features), controls=CONTROLS, label_column=COMPOUND)
    assert [label for _, label in found] == list("abcdefgh")


def test_the_list_goes_from_profiles_to_scores_on_the_subset(tmp_path):
    names = ["DMSO", *(f"BRD-{i:02}" for i in range(24))]
    table = make_table(names, Metadata_cell_count=np.arange(25) + 10)
    files.write_parquet(table, tmp_path / "run" / "profiles.parquet")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"config": {"study": "trial"}}))
    run, out = f"--profiles={tmp_path / 'run'}", tmp_path / "strong.txt"
    done = call_script("strong_phenotypes.py", run, f"--out={out}", "--count=10")
    assert done.returncode == 0, done.stderr
    listed = out.read_text().splitlines()
    r = [np.corrcoef(row, table.features[0])[0, 1] for row in table.features[1:]]
    order = np.argsort(r)
    assert listed == [names[1 + i] for i in order[:10]]
    expected = f"10 of 24 profiles, correlation with the controls from {r[order[0]]:.4f} to {r[order[9]]:.4f}"
    assert f"{expected}; the next has {r[order[10]]:.4f}: {out}" in done.stdout

    out.write_text(out.read_text() + "BRD-99\n")
    report = tmp_path / "report"
    flags = [f"--subset=strong={out}", f"--subset=early={COMPOUND} < 'BRD-12'"]
    done = call_script("retrieve.py", run, f"--out={report}", *flags)
    assert done.returncode == 0, done.stderr
    assert f"1 of 11 values of {out} are not in {COMPOUND} of run: BRD-99" in done.stdout
    rows = [json.loads(line) for line in (report / "results.jsonl").read_text().splitlines()]
    number = {(r["run"], r["split"]): r["n"] for r in rows if r["metric"] == "odds_ratio_at_0.995"}
    assert number["run", "Metadata_moa/strong/in"] == 10 * 9 // 2
    assert (
        number["run", "Metadata_moa/strong/out"] == 14 * 13 // 2
    )  # without the controls, which have no label
    assert number["cell count only", "Metadata_moa/early/in"] == 12 * 11 // 2
    assert {split for _, split in number} == {"Metadata_moa"} | {
        f"Metadata_moa/{subset}/{part}" for subset in ("strong", "early") for part in ("in", "out")
    }
    page = (report / "index.html").read_text()
    assert "<h2>Subsets</h2>" in page
    assert page.count("BRD-99") == 1
    assert json.loads((report / "protocol.json").read_text())["subsets"]["strong"] == str(out)
    done = call_script("retrieve.py", run, f"--out={report}", f"--subset=none={COMPOUND} = 'x'")
    assert f"run: no row is in --subset=none={COMPOUND} = 'x'" in done.stderr


def bad_tables():
    good = make_table(["a", "b", "DMSO"])
    missing, flat = good.features.copy(), good.features.copy()
    missing[1, 2], flat[2] = np.nan, 0
    return {
        "no controls": (make_table(["a", "b"]), "no row matches --controls"),
        "controls alone": (make_table(["DMSO", "DMSO"]), "there is nothing to compare"),
        "wells": (make_table(["a", "a", "DMSO"]), "'a' stands on more than one row; give consensus profiles"),
        "no name": (make_table(["a", None, "DMSO"]), "1 of 2 profiles have no Metadata_broad_sample"),
        "missing": (good.with_features(missing), "1 profiles have missing or infinite features, first b"),
        "flat": (good.with_features(flat), "mean of the controls: all features are equal"),
    }


@pytest.mark.parametrize("name", list(bad_tables()))
def test_what_has_no_correlation_says_why(script, name):
    table, message = bad_tables()[name]
    with pytest.raises(ValueError, match=message):
        script.correlations(table, controls=CONTROLS, label_column=COMPOUND)


def test_the_script_says_what_is_wrong(tmp_path):
    files.write_parquet(make_table(["a", "b", "DMSO"]), tmp_path / "table.parquet")
    out = tmp_path / "list.txt"
    done = call_script("strong_phenotypes.py", f"--profiles={tmp_path / 'table.parquet'}", f"--out={out}")
    assert (done.returncode, done.stderr) == (
        1,
        "strong_phenotypes.py: --count=450, but there are only 2 profiles besides the controls\n",
    )
    done = call_script("strong_phenotypes.py", f"--profiles={tmp_path}", f"--out={out}")
    assert f"{tmp_path}: has no config.json" in done.stderr
    done = call_script("strong_phenotypes.py", f"--profiles={tmp_path / 'x'}", f"--out={out}")
    assert "x: no such file or work directory" in done.stderr
    assert not out.exists()
