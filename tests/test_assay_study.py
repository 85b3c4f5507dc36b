"""The study of assays from images, from a simulated screen to scores: labels, two networks, the cell count."""

import json

import numpy as np
import pytest
from run_scripts import run_script
from sklearn import metrics as sk

from configs.cell_painting import quickstart
from coos import workdir as work
from coos.data import label_matrix, simulate
from coos.data import source as sources
from coos.evaluators import trained
from coos.train import run
from coos.train.multitask import pooled
from tfds_builders.cell_painting import Builder

SMALL = {"gapnet": {"model.width": 2, "model.fc_units": 8}, "fnn": {"model.units": 8}}


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """A simulated release with labels, and the datasets of its views and profiles."""
    folder = tmp_path_factory.mktemp("screen")
    simulate.write_screen(
        folder / "release", compounds=60, height=64, width=72, views_per_well=2, write_labels=True
    )
    for config in ("views", "profiles"):
        builder = Builder(source=folder / "release", config=config, data_dir=folder)
        builder.download_and_prepare()
    return folder


def settings(screen, network, **overrides):
    config = quickstart.get_config(network)
    kind = quickstart.KINDS[network]
    config.update_from_flattened_dict(
        {
            **SMALL[network],
            "data.directory": str(screen / "cell_painting" / kind / "1.0.0"),
            "num_epochs": 2,
            "batch_size": 16,
            "evaluation.batch_size": 32,
            **overrides,
        }
    )
    return config


@pytest.fixture(scope="module")
def runs(screen, tmp_path_factory):
    """Work directories of a trained and evaluated network on views and of one on profiles."""
    folder = tmp_path_factory.mktemp("runs")
    for network in SMALL:
        assert run.train(settings(screen, network), folder / network)
        trained.evaluate(folder / network)
    return folder


def test_labels_of_the_dataset_are_those_of_the_matrix(screen):
    matrix = label_matrix.read(screen / "release" / "labels")
    compounds = []
    for split in ("train", "validation", "test"):
        source = sources.load(screen / "cell_painting" / "views" / "1.0.0", split)
        rows = [matrix.compounds.index(compound) for compound in source.columns["compound"]]
        np.testing.assert_array_equal(source.labels, matrix.dense(rows))
        assert source.dataset["tasks"] == list(matrix.task_names)
        compounds.append(set(source.columns["compound"]))
    assert not set.intersection(*compounds)


def test_views_and_profiles_have_the_same_split_of_wells(screen):
    for split in ("train", "validation", "test"):
        views, profiles = (
            sources.load(screen / "cell_painting" / kind / "1.0.0", split) for kind in ("views", "profiles")
        )
        assert set(views.columns["well"]) == set(profiles.columns["well"]) == set(profiles.ids)
        for well, number in zip(profiles.columns["well"], profiles.columns["cell_count"], strict=True):
            assert views.columns["cell_count"][views.columns["well"] == well].sum() == number


@pytest.mark.parametrize("network", ["gapnet", "fnn"])
def test_scores_are_those_of_scikit_learn_on_wells(runs, network):
    loaded = work.load_run(runs / network)
    wells = pooled(loaded.predictions["test"], level="well")
    expected = []
    for t in range(wells.labels.shape[1]):
        known = wells.labels[:, t] != 0
        if len(set(wells.labels[known, t])) == 2:
            expected.append(sk.roc_auc_score(wells.labels[known, t] > 0, wells.probabilities[known, t]))
    values = {r["metric"]: r["value"] for r in loaded.rows if r["split"] == "test"}
    assert values["mean_auroc"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert values["undefined_auroc"] == wells.labels.shape[1] - len(expected)
    assert sum(name.startswith("auroc/") for name in values) == 24


def test_the_best_epoch_is_that_of_the_highest_validation_score(runs):
    loaded = work.load_run(runs / "fnn")
    scores = {
        r["step"]: r["value"]
        for r in loaded.rows
        if (r["split"], r["metric"]) == ("validation", "mean_auroc")
    }
    (best,) = {r["value"] for r in loaded.rows if r["metric"] == "best_step"}
    assert len(scores) == 2
    assert scores[best] == max(scores.values())
    assert loaded.parameters == 104 * 8 + 8 + 2 * (8 * 8 + 8) + 8 * 24 + 24


def test_the_baseline_follows_the_cell_count_alone(runs):
    loaded = work.load_run(runs / "gapnet")
    baseline = loaded.baseline["test"]
    assert baseline.ids.tolist() == pooled(loaded.predictions["test"], level="well").ids.tolist()
    order = np.argsort(baseline.columns["cell_count"], kind="stable")
    steps = np.diff(baseline.probabilities[order], axis=0)
    assert ((steps >= -1e-6).all(0) | (steps <= 1e-6).all(0)).all()
    assert len(np.unique(baseline.probabilities[:, 0])) > 2


def test_a_finished_run_does_nothing_more_and_other_data_is_refused(screen, runs):
    before = (runs / "fnn" / "results.jsonl").read_text()
    assert run.train(settings(screen, "fnn"), runs / "fnn")
    assert (runs / "fnn" / "results.jsonl").read_text() == before
    with pytest.raises(ValueError, match=r"batch_size: 16 there, 8 now"):
        run.train(settings(screen, "fnn", batch_size=8), runs / "fnn")


def test_compounds_that_were_trained_on_are_said(screen, runs, tmp_path, monkeypatch):
    other = Builder(source=screen / "release", config="profiles", data_dir=tmp_path, split_seed=7)
    other.download_and_prepare()
    said = []
    monkeypatch.setattr(trained.logging, "warning", lambda text, *values: said.append(text % values))
    rows = trained.evaluate(runs / "fnn", directory=str(other.data_path), sets=("test",))
    training = sources.load(screen / "cell_painting" / "profiles" / "1.0.0", "train")
    judged = sources.load(other.data_path, "test")
    compounds = set(judged.columns["compound"])
    known = len(compounds & set(training.columns["compound"]))
    assert said == [f"set test: {known} of its {len(compounds)} compounds were trained on"]
    assert {row["n"] for row in rows} == {len(set(judged.columns["well"]))}


@pytest.mark.parametrize(
    ("network", "change", "message"),
    [
        ("gapnet", {"task": "segmentation"}, "task='segmentation': choose one of"),
        ("gapnet", {"task": "classification"}, "has no class_names; its task is 'multitask'"),
        ("gapnet", {"model.name": "fnn"}, r"model.name='fnn' takes vectors of features"),
        ("fnn", {"augment.flips": True}, "vectors of features cannot be mirrored"),
        ("fnn", {"preprocess.intensity": "stretch"}, r"preprocess.intensity='stretch': choose one of"),
        ("gapnet", {"select": "balanced_error"}, "select='balanced_error': choose one of"),
        ("gapnet", {"data.train_split": "training"}, "data.train_split='training': .* has"),
        ("gapnet", {"data.validation_split": "train"}, "compounds stand in 'train' and in 'train'"),
        ("gapnet", {"data.epoch_share": 1.5}, "epoch_share=1.5: must lie above 0"),
        ("gapnet", {"evaluation.level": "plate"}, "evaluation.level='plate': choose one of"),
        ("gapnet", {"evaluation.sets": ("tests",)}, "evaluation.sets: no 'tests' in"),
        ("gapnet", {"num_epochs": 0}, "num_steps=0: must be at least 1"),
    ],
)
def test_settings_that_cannot_be_right(screen, tmp_path, network, change, message):
    with pytest.raises(ValueError, match=message):
        run.train(settings(screen, network, **change), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_the_planted_signal_is_found(tmp_path):
    """The study as `make cell_painting` runs it, on a smaller screen."""
    release = tmp_path / "release"
    steps = [
        ("simulate.py", "cell_painting", f"--out={release}", "--compounds=300"),
        (
            "label_matrix.py",
            f"--chembl={release}/chembl.db",
            f"--compounds={release}/compounds.csv",
            f"--out={release}/labels",
        ),
        ("build.py", "cell_painting", f"--source={release}", f"--data_dir={tmp_path}"),
    ]
    for script, *arguments in steps:
        done = run_script(script, *arguments, timeout=600)
        assert done.returncode == 0, done.stderr
    config = quickstart.get_config("gapnet")
    config.data.directory = str(tmp_path / "cell_painting" / "views" / "1.0.0")
    assert run.train(config, tmp_path / "run")
    trained.evaluate(tmp_path / "run")
    loaded = work.load_run(tmp_path / "run")
    drivers = {
        a["assay_id"]: a["driver"] for a in json.loads((release / "simulated.json").read_text())["assays"]
    }

    def mean_auroc(predictions, wanted):
        found = [
            sk.roc_auc_score(labels[labels != 0] > 0, scores[labels != 0])
            for task, labels, scores in zip(
                loaded.dataset["assay_ids"], predictions.labels.T, predictions.probabilities.T, strict=True
            )
            if wanted(drivers[task])
        ]
        return np.mean(found)

    wells, cells = pooled(loaded.predictions["test"], level="well"), loaded.baseline["test"]
    morphology = lambda driver: driver not in ("noise", "toxicity")  # noqa: E731
    assert mean_auroc(wells, morphology) > 0.75 > mean_auroc(cells, morphology) + 0.1
    assert mean_auroc(cells, lambda driver: driver == "toxicity") > 0.85
    assert abs(mean_auroc(wells, lambda driver: driver == "noise") - 0.5) < 0.1
