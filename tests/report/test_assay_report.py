"""The page of assay predictions: numbers as scikit-learn and SciPy give them, words where there is none, errors."""

import dataclasses
import html
import math
import re

import assay_runs
import numpy as np
import pytest
import scipy.stats
from absl.testing import flagsaver
from assay_runs import CHANNELS, make_labels, make_run, task_names
from report_runs import has_label, read, visible
from run_scripts import loaded
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from coos.report import assay_comparison, assay_groups, assay_pictures, assay_published, assay_scores, assays
from coos.report.assay_comparison import BASELINE

NUM_COMPOUNDS, NUM_TASKS = 60, 12
LABELS = make_labels(NUM_COMPOUNDS, NUM_TASKS)
TASKS = task_names(NUM_TASKS)
LEFT_OUT = 4
FEW = np.arange(NUM_COMPOUNDS - LEFT_OUT)  # one number of wells in most tests: less to compile


def table_cells(text, caption):
    """{first word of a row: [HTML of its other cells]} of the first table whose caption has these words."""
    tables = re.findall(r"<table>.*?</table>", text, re.S)
    table = next(t for t in tables if caption in t)
    found = {}
    for row in re.findall(r"<tr[^>]*>(<th scope=\"row\".*?)</tr>", table, re.S):
        first, *cells = re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        found[visible(first.split("<small>")[0]).strip()] = cells
    return found


def by_hand(predictions, rows):
    """Per assay AUROC, AP and F1 of the wells of these compounds, one by one with scikit-learn; NaN where undefined."""
    wells = [f"p1-w{row:03d}" for row in rows]
    mean = np.array(
        [predictions.probabilities[predictions.columns["well"] == well].mean(0) for well in wells]
    )
    found = np.full((3, NUM_TASKS), np.nan)
    for task in range(NUM_TASKS):
        labelled = LABELS[rows, task] != 0
        y, p = LABELS[rows][labelled, task] > 0, mean[labelled, task]
        if len(set(y.tolist())) == 2:
            found[0, task] = roc_auc_score(y, p)
        if y.any():
            found[1, task] = average_precision_score(y, p)
        if (y | (p >= 0.5)).any():
            found[2, task] = f1_score(y, p >= 0.5)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of gapnet, and fnn on profiles, which lack a few wells."""
    folder = tmp_path_factory.mktemp("assay_runs")
    return [
        make_run(folder / "gapnet_0", labels=LABELS, seed=0),
        make_run(folder / "gapnet_1", labels=LABELS, seed=1),
        make_run(
            folder / "fnn", run="fnn", labels=LABELS, seed=2, strength=0.3, views=1, wells=FEW, shape=(9,)
        ),
    ]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("assay_report")
    images = assay_runs.images(runs[0].predictions["test"])
    return out, assay_runs.write(out, runs, images=images, assays=2)


@pytest.fixture(scope="module")
def expected(runs):
    """{model: (3, T)} AUROC, AP and F1 on the wells that all runs have, averaged over seeds."""
    each = [by_hand(run.predictions["test"], FEW) for run in runs]
    return {
        "gapnet": np.mean(each[:2], axis=0),
        "fnn": each[2],
        BASELINE: by_hand(runs[0].baseline["test"], FEW),
    }


def test_every_score_is_that_of_scikit_learn(page, expected):
    out, text = page
    rows = {(row["assay"], row["model"]): row for row in read(out, "assays")}
    assert len(rows) == 3 * NUM_TASKS
    for model, values in expected.items():
        for name, scores in zip(("auroc", "average_precision", "f1"), values, strict=True):
            found = [float(rows[task, model][name]) for task in TASKS]
            np.testing.assert_allclose(found, scores, atol=1e-6)
    lines = table_cells(text, "Means and standard deviations over assays")
    for row in read(out, "scores"):
        auroc, precision, f1 = expected[row["model"]]
        half = np.where(np.isnan(auroc), 0.5, auroc)
        shown = [visible(cell).split()[:3] for cell in lines[row["model"]]]
        for cell, values, name in (
            (0, auroc, "auroc"),
            (1, half, "auroc_half"),
            (2, f1, "f1"),
            (3, precision, "average_precision"),
        ):
            mean, std = np.nanmean(values), np.nanstd(values)
            assert float(row[f"mean_{name}"]) == pytest.approx(mean, abs=1e-6)
            assert float(row[f"std_{name}"]) == pytest.approx(std, abs=1e-6)
            assert shown[cell] == [f"{mean:.3f}", "±", f"{std:.2f}"]
        above = [int((auroc > level).sum()) for level in (0.9, 0.8, 0.7)]
        assert [int(words[0]) for words in shown[4:]] == above
        low, high = float(row["mean_auroc_low"]), float(row["mean_auroc_high"])
        assert low < np.nanmean(auroc) < high


def test_published_values_stand_beside_ours(page):
    _, text = page
    lines = table_cells(text, "Means and standard deviations over assays")
    for name, values in {
        "MIL-Net": "0.726 ± 0.20 0.485 ± 0.36 66 86 109",
        "DenseNet": "0.718 ± 0.22 0.536 ± 0.33 60 100 119",
        "FNN": "0.677 ± 0.22 0.372 ± 0.33 57 72 90",
    }.items():
        words = " ".join(visible(" ".join(lines[name])).split()).replace("not published ", "")
        assert words == values
    assert visible(lines["GapNet"][0]).strip() == "not published"
    costs = table_cells(text, "Seconds per epoch: training examples")
    assert [visible(cell).strip() for cell in costs["GapNet"][:2]] == ["3,694,545", "662"]
    tests = table_cells(text, "The published p-values")
    assert len(tests) == 6
    assert visible(tests["FNN"][0]).strip() == "7.67e-12"  # MIL-Net over FNN
    assert visible(tests["SC-CNN"][2]).strip() == "4.98e-06"  # GapNet over SC-CNN
    assert [visible(cell).strip() for cell in tests["ResNet"]] == ["3.50e-01", "", "", "", "", ""]
    assert assay_published.SOURCE in html.unescape(text)


def test_costs_are_measured(page):
    out, text = page
    rows = {row["model"]: row for row in read(out, "costs")}
    assert list(rows) == ["gapnet", "fnn"]
    # Half of 1,000 examples an epoch; speeds of 25, 30 and 40.
    assert float(rows["gapnet"]["seconds_per_epoch"]) == pytest.approx(500 / 30)
    cells = table_cells(text, "Seconds per epoch: training examples")
    shown = [visible(cell).strip() for cell in cells["gapnet"]]
    assert shown == ["1,234", "16.7", "30.0", "500", "24×32×5", "TFRT_CPU_0"]
    assert visible(cells["fnn"][4]).strip() == "9"


def test_undefined_assays_are_words_with_a_reason(page):
    out, text = page
    table = table_cells(text, "AUC with its 95 % bootstrap interval")
    assert len(table) == NUM_TASKS
    for task, reason in ((1, "no active wells"), (2, "no inactive wells"), (3, "no labelled wells")):
        cells = table[TASKS[task].strip()][2:]
        assert [" ".join(visible(cell).split()) for cell in cells] == [f"undefined {reason}"] * 3
        assert {row["undefined"] for row in read(out, "assays") if row["assay"] == TASKS[task]} == {reason}
    assert "3 assays have no active or no inactive wells" in visible(text)
    assert "3 assays are undefined and not shown" in text
    assert not re.search(r"\bnan\b|\binf\b", visible(text), re.I)
    scores = table_cells(text, "Means and standard deviations over assays")
    assert f"{NUM_TASKS - 3} of {NUM_TASKS} assays" in scores["gapnet"][0]


def test_wilcoxon_is_that_of_scipy_with_the_published_layout(page, expected):
    out, text = page
    table = table_cells(text, "p-values of the paired Wilcoxon test")
    names = sorted(expected, key=lambda name: -np.nanmean(expected[name][0]))
    assert list(table) == names
    found = {(r["outperforms"], r["outperformed"]): float(r["p_value"]) for r in read(out, "wilcoxon")}
    defined = ~np.isnan(expected["fnn"][0])
    for r, row in enumerate(names):
        for c, column in enumerate(names):
            if r == c:
                assert visible(table[row][c]).strip() == "–"
                continue
            values = [expected[name][0][defined].astype(np.float32) for name in (column, row)]
            p = scipy.stats.wilcoxon(*values, alternative="greater").pvalue
            assert found[column, row] == pytest.approx(p)
            assert visible(table[row][c]).strip() == f"{p:.2e}"
            assert ("<strong>" in table[row][c]) == (p < 0.01)
    assert found["gapnet", BASELINE] < 0.01


def test_summary_says_who_wins_and_what_the_cell_count_does(page, expected):
    _, text = page
    summary = visible(re.search(r'<p class="summary">.*?</p>', text, re.S)[0])
    mean = {name: np.nanmean(values[0]) for name, values in expected.items()}
    assert f"gapnet has the highest mean AUC, {mean['gapnet']:.3f}" in summary
    assert f"That is {mean['gapnet'] - mean['fnn']:.3f} more than fnn" in summary
    assert f"The cell count alone reaches {mean[BASELINE]:.3f}" in summary
    above = int((expected["gapnet"][0] > 0.9).sum())
    assert f"{above} assays are predicted with an AUC above 0.9" in summary
    not_above = int((expected["gapnet"][0] <= expected[BASELINE][0]).sum())
    assert re.search(rf"In {not_above} assays? its AUC is not above that of the cell count", summary)


def test_scatter_counts_are_those_of_the_tests(page, expected):
    out, text = page
    rows = read(out, "pairs")
    assert {(row["first"], row["second"]) for row in rows} == {
        ("gapnet", "fnn"),
        ("gapnet", BASELINE),
        ("fnn", BASELINE),
    }
    for first, second in (("gapnet", "fnn"), ("gapnet", BASELINE)):
        own = [row for row in rows if (row["first"], row["second"]) == (first, second)]
        assert [row["assay"] for row in own] == TASKS
        x, y, p = (
            np.array([float(r[k]) for r in own]) for k in ("auroc_first", "auroc_second", "corrected_p_value")
        )
        np.testing.assert_array_equal(np.isnan(p), np.isnan(expected["fnn"][0]))
        r = scipy.stats.pearsonr(*(expected[n][0][~np.isnan(x)] for n in (first, second))).statistic
        assert (
            f"{first} is significantly better in {((p <= 0.05) & (x > y)).sum()} and {second} in "
            f"{((p <= 0.05) & (y > x)).sum()}"
        ) in text
        assert f"Pearson correlation: {r:.2f}." in text
    assert ((p <= 0.05) & (x > y)).sum() > 0


def test_wells_left_out_are_counted(page):
    out, text = page
    assert f"left out: {LEFT_OUT} wells of gapnet and {BASELINE}." in text
    assert "(real), 3 runs, coos" in visible(text)
    found = {row["model"]: (int(row["common"]), int(row["left_out"])) for row in read(out, "left_out")}
    common = NUM_COMPOUNDS - LEFT_OUT
    assert found == {"gapnet": (common, LEFT_OUT), "fnn": (common, 0), BASELINE: (common, LEFT_OUT)}


def test_page_is_one_file_and_escapes_names(page):
    out, text = page
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "<b>bold</b>" not in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    names = {path.name for path in (out / "figures").iterdir()}
    assert {"auc.png", "pair_gapnet_fnn.png", "training_validation_auc.png", "training_loss.png"} <= names
    assert sum(name.startswith("views_") for name in names) == 2
    assert "A star marks the step that was kept." in text
    assert not has_label(out / "figures" / "auc.png")


def test_a_single_simulated_run_without_baseline_and_pictures(tmp_path):
    run = make_run(
        tmp_path / "run", labels=LABELS, wells=FEW, simulated=True, baseline=False, shape=(9,), views=1
    )
    text = assay_runs.write(tmp_path / "out", [dataclasses.replace(run, rows=[], parameters=None)])
    shown = visible(text)
    assert "SIMULATED DATA" in shown
    assert "(simulated), 1 run, coos" in shown
    assert has_label(tmp_path / "out" / "figures" / "auc.png")
    assert "not comparable with these simulated ones" in shown
    assert "there is no baseline" in shown
    assert "There is only one model, nothing to compare it with." in shown
    assert assay_pictures.PROFILES in shown
    assert "The runs recorded no training curves." in shown
    costs = table_cells(text, "Seconds per epoch: training examples")
    assert "no speed was recorded" in costs["gapnet"][1]
    assert not re.search(r"\bnan\b", shown)


def test_a_page_on_which_no_assay_is_defined(tmp_path):
    run = make_run(
        tmp_path / "run", labels=np.minimum(LABELS, 0), wells=FEW, baseline=False, sets=("validation",)
    )
    other = dataclasses.replace(run, config={**run.config, "run": "other"})
    shown = visible(assay_runs.write(tmp_path / "out", [run, other]))
    assert "So nothing can be said about the models." in shown
    assert "(set validation)" in shown
    assert "Pearson correlation: undefined" in shown
    assert not re.search(r"\bnan\b", shown)


def test_equal_models_and_equal_seeds(runs):
    """A copy of a model is no better anywhere; two equal seeds are as certain as one."""
    first = dataclasses.replace(runs[0], config={**runs[0].config, "seed": 5})
    copy = dataclasses.replace(runs[0], config={**runs[0].config, "run": "copy"})
    comparison = assay_comparison.compare([runs[0], first, copy, runs[2]])
    scores = assay_scores.score(comparison, num_resamples=20)
    np.testing.assert_allclose(scores[0].low, scores[1].low)
    np.testing.assert_allclose(scores[0].high, scores[1].high)
    assert len(comparison.models[0].scores) == 2
    pair = assay_scores.compare_pair(comparison, "gapnet", "copy", num_permutations=99, seed=0)
    assert not (pair.first_better | pair.second_better).any()
    np.testing.assert_array_equal(assay_scores.wilcoxon(scores)[:2, :2], [[np.nan, 1], [1, np.nan]])
    assert assay_scores.pearson(scores[0], scores[1]) == pytest.approx(1)


def test_order_of_views_and_wells_does_not_matter(runs):
    order = np.random.default_rng(0).permutation(len(runs[0].predictions["test"].ids))
    found = runs[0].predictions["test"]
    columns = {name: column[order] for name, column in found.columns.items()}
    shuffled = type(found)(found.ids[order], found.labels[order], found.probabilities[order], columns)
    one, other = (
        assay_comparison.compare([run, runs[2]])
        for run in (runs[0], dataclasses.replace(runs[0], predictions={"test": shuffled}))
    )
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.models[0].scores, other.models[0].scores, atol=1e-6)


def test_level_compound_averages_wells_of_a_compound(tmp_path):
    run = make_run(tmp_path / "run", labels=LABELS[[0, 0, 1, 1, 2, 2]], baseline=False)
    found = run.predictions["test"]
    pairs = np.array([f"KEY{int(name[3:]) // 2:03d}" for name in found.columns["compound"]])
    run.predictions["test"] = found._replace(columns={**found.columns, "compound": pairs})
    comparison = assay_comparison.compare([run], level="compound")
    assert comparison.ids.tolist() == ["KEY000", "KEY001", "KEY002"]
    np.testing.assert_array_equal(comparison.labels, LABELS[:3])
    np.testing.assert_allclose(
        comparison.models[0].scores[0, 1], found.probabilities[6:12].mean(0), atol=1e-6
    )
    assert comparison.units(1) == "1 compound"
    assert len(assay_comparison.compare([run]).ids) == 6


def broken(run, **changes):
    """The run with other arrays in its set "test"."""
    return dataclasses.replace(run, predictions={"test": run.predictions["test"]._replace(**changes)})


def flipped(run):
    """The run with one labelled well called the opposite."""
    labels = run.predictions["test"].labels.copy()
    labels[run.predictions["test"].columns["well"] == "p1-w000", 0] = 1 - 2 * (LABELS[0, 0] > 0)
    return broken(run, labels=labels)


def renamed(run, **columns):
    """The run with other columns in its set "test"."""
    return broken(run, columns={**run.predictions["test"].columns, **columns})


def with_nan(run):
    probabilities = run.predictions["test"].probabilities.copy()
    probabilities[3, 4] = np.nan
    return broken(run, probabilities=probabilities)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: [], "no runs given"),
        (lambda runs: [runs[0], runs[0]], "both run 'gapnet' with seed 0"),
        (lambda runs: [runs[0], flipped(runs[2])], "disagree in the label of 'p1-w000', assay '688422'"),
        (lambda runs: [runs[0], with_nan(runs[2])], "NaN or infinity"),
        (
            lambda runs: [runs[0], broken(runs[2], columns={})],
            r"columns \['well', 'compound', 'cell_count'\]",
        ),
        (lambda runs: [dataclasses.replace(runs[0], predictions={})], "no predictions"),
        (
            lambda runs: [
                runs[0],
                dataclasses.replace(runs[2], predictions={"other": runs[2].predictions["test"]}),
            ],
            "set 'test': not evaluated",
        ),
        (
            lambda runs: [
                runs[0],
                dataclasses.replace(runs[2], dataset={**runs[2].dataset, "tasks": TASKS[::-1]}),
            ],
            "disagree in the assays or their order: number 1",
        ),
        (
            lambda runs: [
                runs[0],
                dataclasses.replace(runs[2], dataset={**runs[2].dataset, "tasks": TASKS[:5]}),
            ],
            "predict 12 and 5 assays",
        ),
        (
            lambda runs: [
                runs[0],
                dataclasses.replace(runs[2], dataset={**runs[2].dataset, "simulated": True}),
            ],
            "one is of simulated data",
        ),
        (
            lambda runs: [
                runs[0],
                renamed(runs[2], well=np.array([f"q{i}" for i in range(NUM_COMPOUNDS - LEFT_OUT)])),
            ],
            "no well is common to all",
        ),
        (
            lambda runs: [
                runs[0],
                renamed(runs[2], compound=np.array(["OTHER"] * (NUM_COMPOUNDS - LEFT_OUT))),
            ],
            "disagree in the compound of 'p1-w000'",
        ),
        (
            lambda runs: [dataclasses.replace(runs[0], config={**runs[0].config, "run": BASELINE})],
            "the name of the baseline",
        ),
        (
            lambda runs: [dataclasses.replace(runs[0], config={"run": "a"})],
            "config in config.json lacks seed",
        ),
    ],
)
def test_runs_that_do_not_belong_together(runs, change, message):
    assert LABELS[0, 0]
    with pytest.raises(ValueError, match=message):
        assay_comparison.compare(change(runs))


def test_unknown_level_and_pairs(runs, tmp_path):
    with pytest.raises(ValueError, match="choose one of well, compound"):
        assay_comparison.compare(runs, level="view")
    with pytest.raises(ValueError, match="no model 'vgg'; there are gapnet, fnn"):
        assay_runs.write(tmp_path, runs, pair=("gapnet", "vgg"))
    with pytest.raises(ValueError, match="name two different models"):
        assay_runs.write(tmp_path, runs, pair=("gapnet", "gapnet"))


def test_composite_gives_each_channel_its_hue():
    generator = np.random.default_rng(0)
    hues = assay_pictures.hues(CHANNELS)
    assert len(set(hues.values())) == 5
    assert hues["Hoechst"][0] == "blue"
    for position, channel in enumerate(CHANNELS):
        image = np.full((20, 30, 5), 7, np.uint16)  # constant channels are black
        image[..., position] = generator.permutation(600).reshape(20, 30)
        shown = assay_pictures.composite(image, CHANNELS)
        assert shown.shape == (20, 30, 3)
        assert shown.dtype == np.uint8
        brightest = shown[np.unravel_index(image[..., position].argmax(), (20, 30))]
        np.testing.assert_allclose(brightest, 255 * np.array(hues[channel][1]), atol=0.51)
        assert shown[np.unravel_index(image[..., position].argmin(), (20, 30))].max() == 0
        np.testing.assert_array_equal(assay_pictures.composite(3.0 * image + 11, CHANNELS), shown)
    assert assay_pictures.describe(CHANNELS[:1] + CHANNELS[-1:]) == "Mito in orange, Hoechst in blue"
    assert "not shown: c6" in assay_pictures.describe([f"c{i}" for i in range(7)])
    with pytest.raises(ValueError, match=r"expected \(height, width, 2\)"):
        assay_pictures.composite(image, ("a", "b"))


def test_chosen_views_are_the_surest_of_different_compounds(runs):
    found, task = runs[0].predictions["test"], 5
    chosen = assay_pictures.choose(found, task, count=4)
    for rows, sign in ((chosen.active, 1), (chosen.inactive, -1)):
        compounds = found.columns["compound"]
        best = {}
        for row in np.flatnonzero(found.labels[:, task] == sign):
            value = sign * found.probabilities[row, task]
            best[compounds[row]] = max(best.get(compounds[row], -math.inf), value)
        wanted = sorted(best.values(), reverse=True)[:4]
        np.testing.assert_array_equal(sign * found.probabilities[rows, task], wanted)
        assert len(set(compounds[rows].tolist())) == 4
    active = found.probabilities[found.labels[:, task] > 0, task]
    assert (chosen.num_active, chosen.num_found) == (len(active), (active >= 0.5).sum())


def test_pictures_of_another_data_set_are_refused(runs, tmp_path):
    other = runs[0].predictions["test"]._replace(ids=np.array([f"x{i}" for i in range(3 * NUM_COMPOUNDS)]))
    with pytest.raises(ValueError, match="is this the evaluated data set"):
        assay_runs.write(tmp_path, runs[:1], images=assay_runs.images(other))


@pytest.fixture(scope="module")
def script():
    """experiments/report.py as a module."""
    with loaded("report.py") as module:
        yield module


def test_script_writes_this_page_for_runs_of_this_task(script, tmp_path, capsys):
    for name in ("gapnet", "fnn"):
        make_run(tmp_path / "runs" / name, run=name, labels=LABELS, wells=FEW, baseline=False)
    options = {"workdirs": [f"{tmp_path}/runs/*"], "out": str(tmp_path / "out"), "images": False}
    with flagsaver.flagsaver(**options, num_resamples=20, set="validation", pair=["fnn", "gapnet"]):
        script.main(["report"])
    assert str(tmp_path / "out" / "index.html") in capsys.readouterr().out
    text = visible((tmp_path / "out" / "index.html").read_text())
    assert "(set validation)" in text
    assert "fnn against gapnet, a dot per assay" in text
    assert assay_pictures.NOT_GIVEN in text


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (("multitask", "classification"), "different tasks do not fit on one page"),
        (("segmentation", "segmentation"), "no page for the task 'segmentation'"),
    ],
)
def test_script_refuses_other_tasks(script, tmp_path, tasks, message):
    make_run(tmp_path / "a", labels=LABELS, task=tasks[0])
    make_run(tmp_path / "b", labels=LABELS, task=tasks[1])
    options = {"workdirs": [f"{tmp_path}/a", f"{tmp_path}/b"], "out": str(tmp_path / "out"), "images": False}
    with flagsaver.flagsaver(**options), pytest.raises(SystemExit, match=message):
        script.main(["report"])


def test_groups_of_assays_have_the_means_of_their_assays(runs, tmp_path):
    found = assay_comparison.compare(runs)
    scores = assay_scores.score(found, num_resamples=2)
    ids = [str(i) for i in found.runs[0].dataset["assay_ids"]]
    table = tmp_path / "groups.csv"
    table.write_text("ASSAY_ID,GROUP\n" + "".join(f"{i},{'ab'[n % 2]}\n" for n, i in enumerate(ids[:-1])))
    groups = assay_groups.read(table)
    rows = assay_groups.rows(found, scores, groups)
    assert {row["group"] for row in rows} == {"a", "b", assay_groups.OTHERS}
    assert sum(row["assays"] for row in rows) == len(ids) * len(scores)
    for row in rows:
        auroc = next(s.auroc for s in scores if s.name == row["model"])
        members = [n for n, i in enumerate(ids) if groups.get(i, assay_groups.OTHERS) == row["group"]]
        np.testing.assert_allclose(row["mean_auroc"], np.nanmean(auroc[members]))
    groups["unheard of"] = "a"
    page = assays.write(tmp_path / "page", runs, groups=groups, num_resamples=2, num_permutations=9)
    assert "Of the assays in the table of groups 1 are not predicted here." in visible(page.read_text())
    with pytest.raises(ValueError, match="none of the 1 assays with a group is predicted here"):
        assay_groups.rows(found, scores, {"nothing": "a"})
    table.write_text("ASSAY_ID,GROUP\n1,a\n1,b\n")
    with pytest.raises(ValueError, match="line 3: assay 1 has two groups"):
        assay_groups.read(table)


def test_predictions_from_before_the_best_step_are_refused(tmp_path):
    run = make_run(tmp_path / "run", labels=LABELS, seed=0)
    assert assay_comparison.compare([dataclasses.replace(run, best_step=0)]).set_name == "test"
    with pytest.raises(ValueError, match=r"are of step 0, the best one is 416; run experiments/evaluate.py"):
        assay_comparison.compare([dataclasses.replace(run, best_step=416)])
