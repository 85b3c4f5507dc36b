"""experiments/phenotypes.py on simulated wells: the page and its numbers, going on, and what it refuses."""

import csv
import json

import numpy as np
import pytest
from run_scripts import REPOSITORY, call_script, run_script

from coos import workdir as work

CONFIG = f"--config={REPOSITORY / 'configs' / 'mcnn' / 'bbbc013.py'}"
TINY = (
    "--config.networks=('mcnn',)",
    "--config.protocol.repeats=2",
    "--config.num_epochs=1",
    "--config.options.mcnn.widths=(4,4)",
    "--config.options.mcnn.mix_units=8",
    "--config.options.mcnn.fc_units=8",
    "--config.report.layers.mcnn=('scale1_conv1',)",
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    release = f"--out={root / 'release'}", "--height=40", "--width=40"
    assert call_script("simulate.py", "bbbc", "--set=bbbc013", *release).returncode == 0
    done = call_script(
        "build.py", "bbbc", "--builder_config=bbbc013", f"--source={root / 'release'}", f"--data_dir={root}"
    )
    assert done.returncode == 0, done.stderr
    return root / "bbbc" / "bbbc013" / "1.0.0"


def study(directory, folder, *more):
    arguments = (f"--config.data.directory={directory}", f"--workdir={folder}", *TINY, *more)
    return call_script("phenotypes.py", CONFIG, *arguments)


@pytest.fixture(scope="module")
def finished(directory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    done = study(directory, folder)
    assert done.returncode == 0, done.stderr
    return folder


def table_of(folder, name):
    with open(folder / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_says_what_the_folds_say(finished):
    text = (finished / "index.html").read_text()
    assert "SIMULATED DATA" in text
    accuracies = []
    for k in range(2):
        found = work.load_predictions(finished / "mcnn" / "folds" / f"repeat-00{k}.npz")
        accuracies.append((found.probabilities.argmax(1) == found.labels).mean())
    (row,) = table_of(finished, "accuracies")
    assert (float(row["mean"]), row["counted"]) == (pytest.approx(np.mean(accuracies)), "2")
    assert float(row["sd"]) == pytest.approx(np.std(accuracies, ddof=1))
    assert f"<td>{100 * np.mean(accuracies):.1f}</td>" in text
    assert "100 (0)" in text  # published
    counts = {(r["true"], r["called"]): int(r["count"]) for r in table_of(finished, "confusion_mcnn")}
    assert sum(counts.values()) == 8
    assert counts["neutral", "neutral"] + counts["neutral", "positive"] == 4
    assert {r["treatment"] for r in table_of(finished, "ec50")} == {"wortmannin", "LY294002"}
    assert len(table_of(finished, "responses_mcnn")) == 88  # without the positive controls
    rows = [json.loads(line) for line in (finished / "results.jsonl").read_text().splitlines()]
    assert {row["metric"] for row in rows if row["fold"] == "repeat-000"} == {"accuracy", "balanced_accuracy"}
    pictures = {p.stem for p in (finished / "figures").iterdir()}
    assert {"accuracies", "confusion_mcnn", "curves_mcnn", "fields", "kernels_mcnn_scale1_conv1"} <= pictures


def test_the_same_command_changes_nothing_and_more_repeats_are_added(directory, finished):
    before = {p: p.stat().st_mtime_ns for p in finished.glob("mcnn/**/*.npz")}
    assert len(before) == 3
    done = study(directory, finished, "--config.protocol.repeats=3")
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (finished / "mcnn" / "folds" / "repeat-002.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.seed=1"], "seed: 0 there, 1 now"),
        (["--config.protocol.fraction=0.8"], "protocol.fraction: 0.9 there, 0.8 now"),
        (
            ["--config.response.phenotype=shrunken"],
            "response.phenotype='shrunken': the classes are neutral, positive",
        ),
        (
            ["--config.response.treatments=('aspirin',)"],
            "response.treatments: no 'aspirin'; there are DMSO, LY294002",
        ),
        (
            ["--config.report.layers.mcnn=('conv9',)"],
            "report.layers.mcnn: no layer 'conv9'; the network has conv_mix",
        ),
        (["--config.soft=False"], "response needs soft=True"),
        (["--config.preprocess.binning=20"], "MCNN takes images of at least 4 x 4 pixels"),
        (["--config.data.directory=/nowhere"], "/nowhere: no built dataset"),
        (["--config.networks=('resnet',)"], "no 'resnet'; available: alexnet"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_lost(directory, finished, arguments, message):
    before = {p: p.read_bytes() for p in finished.glob("mcnn/**/*.npz")}
    done = study(directory, finished, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("coos7/quickstart.py", "has no class_names; its task is 'phenotypes'"),
        ("lincs/quickstart.py", "its examples are whole fields, not places on plates"),
    ],
)
def test_other_tasks_say_what_the_dataset_is_for(directory, tmp_path, config, message):
    arguments = (f"--config.data.directory={directory}", f"--workdir={tmp_path / 'run'}")
    done = call_script("train.py", f"--config={REPOSITORY / 'configs' / config}", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_all_classes_of_chosen_treatments(directory, tmp_path):
    done = study(
        directory, tmp_path, "--config.protocol.name=none", "--config.response.phenotype=",
        "--config.response.treatments=('wortmannin',)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures" / "classes_mcnn.png").exists()
    assert "nothing was held out" in (tmp_path / "index.html").read_text()


def test_workers_share_folds_in_processes_of_their_own(directory, tmp_path, finished):
    arguments = (
        CONFIG,
        f"--config.data.directory={directory}",
        f"--workdir={tmp_path}",
        *TINY,
        "--num_workers=2",
    )
    first = run_script("phenotypes.py", *arguments, "--worker=0", devices=2)
    assert "1 folds are still missing" in first.stdout, first.stderr
    last = run_script("phenotypes.py", *arguments, "--worker=1", devices=1)
    assert last.returncode == 0, last.stderr
    assert (tmp_path / "index.html").exists()
    for fold in ("repeat-000", "repeat-001"):
        found, expected = (
            work.load_predictions(folder / "mcnn" / "folds" / f"{fold}.npz")
            for folder in (tmp_path, finished)
        )
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
