"""The page of phenotypes from predictions made by hand: every number recomputed, nothing trained."""

import csv
import html as escaping
import re

import numpy as np
import polars as pl
import pytest
from ml_collections import ConfigDict

from configs.mcnn import base
from coos import workdir as work
from coos.data.source import Source
from coos.evaluators.phenotypes import Trained
from coos.report import phenotypes as report
from coos.splits import Fold
from coos.train.phenotypes import Study
from coos.workdir import Predictions

NAMES = ("neutral", "<b>positive</b>")
GENERATOR = np.random.default_rng(0)


def study_of(*, simulated=True, folds=3):
    """Two drugs at eight steps, four wells each, of one field; the extremes are labelled, and so are controls."""
    wells = [("D", "negative", 0)] * 8 + [(drug, None, step) for drug in "ab" for step in range(1, 9)] * 4
    compound, control, step = zip(*wells, strict=True)
    number = len(wells)
    table = pl.DataFrame(
        {
            "Metadata_id": [f"f{k:02}" for k in range(number)],
            "Metadata_Plate": ["P"] * number,
            "Metadata_Well": [f"W{k:02}" for k in range(number)],
            "Metadata_compound": compound,
            "Metadata_cell_line": pl.Series([None] * number, dtype=pl.String),
            "Metadata_control": control,
            "Metadata_concentration_molar": [1e-9 * 4.0**s if s else None for s in step],
            "Metadata_dose_step": step,
        }
    )
    labels = np.array([0 if s in (0, 1) else 1 if s == 8 else -1 for s in step], np.int32)
    dataset = {
        "class_names": list(NAMES), "channels": ["GFP", "DNA"], "simulated": simulated,
        "name": "wells", "version": "1.0.0", "directory": "nowhere",
    }  # fmt: skip
    images = GENERATOR.integers(0, 255, (number, 16, 16, 2)).astype(np.uint8)
    ids = np.array(table["Metadata_id"].to_list(), np.str_)
    rows = np.flatnonzero(labels >= 0)
    made = []
    for k in range(folds):
        test = np.sort(GENERATOR.permutation(rows)[:6])
        made.append(Fold(f"repeat-{k:03d}", np.setdiff1d(rows, test), test))
    return Study(Source(images, labels, ids, np.arange(number), dataset), table, rows, made)


def config_of(**changes):
    config = base.get_config()
    config.networks, config.run = ("mcnn",), "by hand"
    config.report.layers = ConfigDict()
    config.response.phenotype = NAMES[1]
    config.report.published = ConfigDict({"mcnn": (98.0, 3.0)})
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def predicted(study, folder, *, middle=4.5):
    """Random predictions of every fold, and everything by a logistic in the dose step; written as training does."""
    source = study.source
    for fold in study.folds:
        p = GENERATOR.random((len(fold.test), 2)).astype(np.float32)
        found = Predictions(source.ids[fold.test], source.labels[fold.test], p, {})
        work.save_predictions(folder, fold.name, found, folder="folds")
    step = study.table["Metadata_dose_step"].to_numpy().astype(float)
    p = np.where(step == 0, 0.0, 1 / (1 + 10.0 ** (middle - step)))
    found = Predictions(source.ids, source.labels, np.stack([1 - p, p], 1), {})
    work.save_predictions(folder, "everything", found, folder="everything")
    losses = [
        {
            "dataset": "wells",
            "split": fold.name,
            "metric": "training_loss",
            "value": 0.25 * (k + 1),
            "step": 9,
        }
        for k, fold in enumerate(study.folds)
    ]
    work.replace_rows(folder / "training.jsonl", losses)


def written(tmp_path, config, **options):
    study = study_of(**options)
    predicted(study, tmp_path / "mcnn")
    trained = {"mcnn": Trained(config, study, tmp_path / "mcnn", 1234, [])}
    page = report.write(tmp_path, config, trained)
    assert page == tmp_path / "index.html"
    return page.read_text(), study


def table_of(folder, name):
    with open(folder / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def loop_over(study, folder):
    """Accuracy, balanced accuracy, confusions and (wrong, tested) of every field, one field after another."""
    accuracies, balanced, confusion, fields = [], [], np.zeros((2, 2), int), {}
    for fold in study.folds:
        found = work.load_predictions(folder / "mcnn" / "folds" / f"{fold.name}.npz")
        right = []
        for identifier, label, p in zip(*found[:3], strict=True):
            called = 0 if p[0] >= p[1] else 1
            right.append((label, called == label))
            confusion[label, called] += 1
            wrong, tested = fields.get(identifier, (0, 0))
            fields[identifier] = (wrong + (called != label), tested + 1)
        accuracies.append(np.mean([r for _, r in right]))
        shares = [[r for label, r in right if label == k] for k in range(2)]
        balanced.append(np.mean([np.mean(share) for share in shares if share]))
    return np.array(accuracies), np.array(balanced), confusion, fields


def cells(text, caption):
    """Rows of the table with a caption, as texts."""
    (table,) = (t for t in re.findall(r"<table.*?</table>", text, re.S) if caption in t)
    rows = [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in re.findall(r"<tr.*?</tr>", table, re.S)
    ]
    return [[escaping.unescape(re.sub("<[^>]*>", "", cell)) for cell in row] for row in rows]


def test_every_number_is_that_of_a_loop(tmp_path):
    text, study = written(tmp_path, config_of(), folds=7)
    accuracies, balanced, confusion, fields = loop_over(study, tmp_path)
    mean, deviation, median = accuracies.mean(), accuracies.std(ddof=1), np.median(accuracies)
    absolute = np.median(np.abs(accuracies - median))
    (row,) = table_of(tmp_path, "accuracies")
    found = [float(row[name]) for name in ("mean", "deviation", "median", "absolute_deviation", "number")]
    assert found == pytest.approx([mean, deviation, median, absolute, 7])
    shown = cells(text, "Accuracy in %")[1]
    percents = [f"{100 * x:.1f}" for x in (mean, deviation, median, absolute, balanced.mean())]
    assert shown == ["mcnn", "1,234", "7", *percents, "1.000", "98 (3)"]  # losses 0.25 to 1.75
    assert f"mcnn {100 * median:.0f} ({100 * deviation:.0f}) (published 98 (3))" in text
    counts = {
        (line["true"], line["called"]): int(line["count"]) for line in table_of(tmp_path, "confusion_mcnn")
    }
    assert counts == {(NAMES[t], NAMES[p]): confusion[t, p] for t in range(2) for p in range(2)}
    wrong = {name: value for name, value in fields.items() if value[0]}
    lines = {
        line["field"]: (int(line["wrong"]), int(line["tested"]))
        for line in table_of(tmp_path, "mistakes_mcnn")
    }
    assert lines == wrong
    shares = [int(line["wrong"]) / int(line["tested"]) for line in table_of(tmp_path, "mistakes_mcnn")]
    assert shares == sorted(shares, reverse=True)


def test_rows_of_results_are_every_fold_and_their_statistics(tmp_path):
    _, study = written(tmp_path, config_of())
    accuracies, balanced, *_ = loop_over(study, tmp_path)
    rows = work.read_rows(tmp_path / "results.jsonl")
    found = {(row["fold"], row["metric"]): row["value"] for row in rows}
    assert len(found) == len(rows) == 2 * (3 + 5)
    for fold, one, other in zip(study.folds, accuracies, balanced, strict=True):
        assert found[fold.name, "accuracy"] == pytest.approx(one)
        assert found[fold.name, "balanced_accuracy"] == pytest.approx(other)
    assert found[None, "accuracy/median"] == pytest.approx(np.median(accuracies))
    assert found[None, "balanced_accuracy/mean"] == pytest.approx(balanced.mean())
    assert {row["split"] for row in rows} == {"mcnn"}
    assert {row["dataset"] for row in rows} == {"wells"}


def test_potencies_of_the_page_are_those_that_were_planted(tmp_path):
    text, _ = written(tmp_path, config_of())
    lines = table_of(tmp_path, "ec50")
    assert [(line["network"], line["treatment"], line["unit"]) for line in lines] == [
        ("mcnn", "a", "M"),
        ("mcnn", "b", "M"),
    ]
    for line in lines:
        assert line["verdict"] == "active"
        assert float(line["ec50"]) == pytest.approx(1e-9 * 4.0**4.5, rel=0.02)
        assert int(line["wells"]) == 8 + 32
    shown = cells(text, "Potency")
    assert [row[:3] for row in shown[1:]] == [["mcnn", "a", "active"], ["mcnn", "b", "active"]]
    assert all("512" in row[3] or "51" in row[3] for row in shown[1:])  # 1e-9 * 4 ** 4.5 = 512 nM
    wells = table_of(tmp_path, "responses_mcnn")
    assert len(wells) == 72
    for line in wells:
        step = int(line["Metadata_Well"][1:])
        assert (float(line["concentration"]) == 0) == (step < 8)


def test_banner_and_names_of_classes_as_text(tmp_path):
    text, _ = written(tmp_path / "simulated", config_of())
    assert "SIMULATED DATA" in text
    assert NAMES[1] not in text
    assert escaping.escape(NAMES[1]) in text
    real, _ = written(tmp_path / "real", config_of(), simulated=False)
    assert "SIMULATED DATA" not in real


def test_a_page_without_curves_and_one_without_folds(tmp_path):
    text, _ = written(tmp_path / "plain", config_of(response__phenotype=""))
    assert "Concentration and response" not in text
    assert not (tmp_path / "plain" / "tables" / "ec50.csv").exists()
    text, _ = written(tmp_path / "none", config_of(), folds=0)
    assert report.NO_FOLDS in text
    assert "Accuracy in %" not in text
    assert not (tmp_path / "none" / "tables" / "accuracies.csv").exists()
    assert len(table_of(tmp_path / "none", "ec50")) == 2


def test_a_page_made_again_is_the_same_and_old_tables_go(tmp_path):
    study, config = study_of(), config_of()
    predicted(study, tmp_path / "mcnn")
    trained = {"mcnn": Trained(config, study, tmp_path / "mcnn", 1234, [])}
    texts = [report.write(tmp_path, config, trained).read_text() for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(work.read_rows(tmp_path / "results.jsonl")) == 16
    assert (tmp_path / "tables" / "ec50.csv").exists()
    report.write(tmp_path, config_of(response__phenotype=""), trained)
    assert not (tmp_path / "tables" / "ec50.csv").exists()


def test_drugs_without_effect_are_said_to_have_no_potency(tmp_path):
    study, config = study_of(folds=0), config_of()
    predicted(study, tmp_path / "mcnn", middle=99)
    text = report.write(tmp_path, config, {"mcnn": Trained(config, study, tmp_path / "mcnn", 1234, [])})
    shown = cells(text.read_text(), "Potency")
    assert [row[1] for row in shown[1:]] == ["a", "b"]
    assert not any("nan" in cell.lower() or cell == "active" for row in shown[1:] for cell in row), shown
    assert all(line["verdict"] != "active" for line in table_of(tmp_path, "ec50"))
