"""From raw files to the report, through the scripts, as a user would; and what evaluate.py refuses."""

import csv
import shutil

import numpy as np
import pytest
import tifffile
from run_scripts import call_script, run_script, train_arguments
from sklearn import metrics as sk

from coos import workdir as work
from coos.data import source


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    """A tiny trained and evaluated run."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    done = run_script("train.py", *train_arguments(dataset, workdir))
    assert done.returncode == 0, done.stderr
    done = run_script("evaluate.py", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def test_evaluation_writes_what_scikit_learn_computes(run, dataset):
    loaded = work.load_run(run)
    assert list(loaded.predictions) == ["test1", "test2", "test3", "test4", "training"]
    for name, predictions in loaded.predictions.items():
        stored = source.load(dataset, name)
        assert sorted(predictions.ids) == sorted(stored.ids)
        np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)
        values = {r["metric"]: r["value"] for r in loaded.rows if r["split"] == name}
        expected = 1 - sk.balanced_accuracy_score(predictions.labels, predictions.probabilities.argmax(1))
        assert values["balanced_error"] == pytest.approx(expected, abs=1e-6)


def test_evaluation_on_eight_devices_is_the_same(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    done = run_script("evaluate.py", f"--workdir={copy}", "--sets=test2", devices=8)
    assert done.returncode == 0, done.stderr
    one, eight = (work.load_run(w).predictions["test2"] for w in (run, copy))
    np.testing.assert_array_equal(one.ids, eight.ids)
    np.testing.assert_allclose(one.probabilities, eight.probabilities, atol=1e-5)


def test_evaluating_twice_adds_no_rows(run):
    before = work.read_rows(run / "results.jsonl")
    assert call_script("evaluate.py", f"--workdir={run}").returncode == 0
    after = work.read_rows(run / "results.jsonl")
    assert len(after) == len(before)


def test_report_of_the_run(run, tmp_path):
    done = call_script("report.py", f"--workdirs={run}", f"--out={tmp_path}", "--num_resamples=50")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "index.html").read_text()
    assert "SIMULATED DATA" in page
    with open(tmp_path / "tables" / "errors.csv", newline="") as file:
        table = {row["set"]: row for row in csv.DictReader(file) if row["configuration"] == "quickstart"}
    assert set(table) == {"training", "test1", "test2", "test3", "test4"}


def test_other_channels_are_refused(run, tmp_path):
    for stem in ("a", "b"):
        for channel in ("nucleus", "protein"):
            folder = tmp_path / "cells" / "test" / "Golgi"
            folder.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / f"{stem}_{channel}.tif", np.zeros((64, 64), np.uint16))
    built = call_script("build.py", "cell_folder", f"--source={tmp_path / 'cells'}", f"--data_dir={tmp_path}")
    assert built.returncode == 0, built.stderr
    directory = built.stdout.splitlines()[-1]
    done = call_script("evaluate.py", f"--workdir={run}", f"--directory={directory}", "--sets=test")
    assert done.returncode == 1
    assert "trained with channels ['protein', 'nucleus']" in done.stderr
    assert "has ['nucleus', 'protein']" in done.stderr


def test_untrained_and_unknown_are_refused(dataset, run, tmp_path):
    done = call_script("evaluate.py", f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert "no config.json; is it the work directory" in done.stderr
    done = call_script("evaluate.py", f"--workdir={run}", "--sets=test9")
    assert done.returncode == 1
    assert "no split 'test9'; it has" in done.stderr


def test_build_refuses_another_source_and_rebuilds_when_told(release, tmp_path):
    arguments = ["coos7", f"--data_dir={tmp_path / 'data'}"]
    assert call_script("build.py", *arguments, f"--source={release}").returncode == 0
    again = call_script("build.py", *arguments, f"--source={release}")
    assert again.returncode == 0
    done = call_script("build.py", *arguments, f"--source={release}", "--channels=nucleus,protein")
    assert done.returncode == 1
    assert "file_channels: ['protein', 'nucleus'] there, ['nucleus', 'protein'] now" in done.stderr
    done = call_script("build.py", *arguments)
    assert done.returncode == 1, "the simulated release must not pass for the one to be downloaded"
    assert "zenodo.org" in done.stderr
    other = tmp_path / "other"
    shutil.copytree(release, other)
    done = call_script("build.py", *arguments, f"--source={other}")
    assert done.returncode == 1
    assert "already built, but from something else" in done.stderr
    assert call_script("build.py", *arguments, f"--source={other}", "--overwrite").returncode == 0
    (other / "COOS7_v1.1_test3.hdf5").write_bytes(b"damaged")
    done = call_script("build.py", *arguments, f"--source={other}", "--overwrite")
    assert done.returncode == 1
    assert "cannot be read as HDF5" in done.stderr
    kept = source.describe(tmp_path / "data" / "coos7" / "uint16" / "1.1.0")
    assert kept["source"] == str(other)


def test_build_goes_on_after_a_kill(release, tmp_path):
    arguments = ["coos7", f"--data_dir={tmp_path}", f"--source={release}"]
    assert call_script("build.py", *arguments).returncode == 0
    path = tmp_path / "coos7" / "uint16" / "1.1.0"
    path.rename(path.with_name("1.1.0.replaced"))  # as kill -9 in the middle of --overwrite leaves it
    (path.parent / "incomplete.ABC_1.1.0").mkdir()
    done = call_script("build.py", *arguments, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in path.parent.iterdir()) == ["1.1.0"]
    assert "Golgi" in done.stdout


def test_other_cells_of_the_same_name_keep_their_predictions_apart(run, tmp_path):
    from coos.data import simulate

    simulate.write_release(tmp_path / "release", cells_per_class=8, seed=5)
    arguments = [f"--source={tmp_path / 'release'}", f"--data_dir={tmp_path / 'data'}"]
    assert call_script("build.py", "coos7", *arguments).returncode == 0
    directory = tmp_path / "data" / "coos7" / "uint16" / "1.1.0"
    before = work.load_run(run)
    done = call_script("evaluate.py", f"--workdir={run}", f"--directory={directory}", "--sets=test1")
    assert done.returncode == 0, done.stderr
    after = work.load_run(run)
    np.testing.assert_array_equal(
        before.predictions["test1"].probabilities, after.predictions["test1"].probabilities
    )
    own = [row for row in after.rows if row["dataset"] == "coos7/uint16"]
    assert own == before.rows
    assert len(list(run.glob("other_datasets/coos7_uint16-1.1.0-*/predictions/test1.npz"))) == 1
    moved = call_script("train.py", *train_arguments(directory, run))
    assert moved.returncode == 1
    assert "was trained on other cells than" in moved.stderr


def test_predictions_of_different_steps_are_not_reported_together(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    step = work.load_run(copy).prediction_steps["test2"]
    work.save_predictions(copy, "test2", work.load_run(copy).predictions["test2"], step=step + 5)
    done = call_script("report.py", f"--workdirs={copy}", f"--out={tmp_path / 'report'}", "--num_resamples=5")
    assert done.returncode == 1
    assert "predictions are of different steps" in done.stderr


def test_build_says_which_datasets_there_are(tmp_path):
    done = call_script("build.py", "coos8", f"--data_dir={tmp_path}")
    assert done.returncode == 1
    assert "no 'coos8'; available: bbbc, cell_folder, cell_painting, coos7" in done.stderr
    done = call_script("build.py", "cell_folder", f"--data_dir={tmp_path}", "--mirror=http://127.0.0.1")
    assert "--mirror: cell_folder does not have this option" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "name", "limit"), [("raw", "test1", 0.134), ("stretched", "test2", 0.410)]
)
def test_real_cells_beat_the_random_forest(config, name, limit, real_data, tmp_path):
    """Real yeast cells: raw intensities learn the field (test1), stretched ones the protein (test2)."""
    cells = f"--source={real_data / 'yeast_cells'}"
    built = run_script("build.py", "cell_folder", cells, "--name=yeast", f"--data_dir={tmp_path}")
    directory = built.stdout.splitlines()[-1]
    arguments = [f"--config=configs/cell_folder/{config}.py", f"--workdir={tmp_path / 'run'}"]
    arguments.append(f"--config.data.directory={directory}")
    # Compiled as for users: what the tests' settings save in compiling, they would lose many times in computing.
    done = run_script("train.py", *arguments, timeout=3000, XLA_FLAGS="")
    assert done.returncode == 0, done.stderr
    assert run_script("evaluate.py", f"--workdir={tmp_path / 'run'}").returncode == 0
    rows = work.load_run(tmp_path / "run").rows
    (error,) = [r["value"] for r in rows if r["split"] == name and r["metric"] == "balanced_error"]
    assert error < limit
