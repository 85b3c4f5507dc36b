"""Whole runs of experiments/train.py: devices, interruptions, damage, and what is refused."""

import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from run_scripts import (
    REPOSITORY,
    call_script,
    command,
    environment,
    run_script,
    small_settings,
    train_arguments,
)

from configs.coos7 import quickstart
from coos import workdir as work
from coos.train import run

SGD = {
    "optimizer__name": "sgd",
    "optimizer__learning_rate": 2e-4,
    "optimizer__weight_decay": 0.0,
    "optimizer__schedule": "flat",
    "optimizer__momentum": 0.0,
    "model__width": 4,
}


def train(dataset, workdir, *, devices=1, extra=(), **overrides):
    done = run_script("train.py", *train_arguments(dataset, workdir, **overrides), *extra, devices=devices)
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir


def arrays(workdir, step=20, kind="checkpoints"):
    """Every array of a checkpoint by its path."""
    folder = pathlib.Path(workdir, kind, str(step), "arrays").resolve()
    tree = ocp.StandardCheckpointer().restore(folder)
    return {
        jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def assert_bitwise_equal(one, other):
    assert sorted(one) == sorted(other)
    for name, array in one.items():
        assert array.tobytes() == other[name].tobytes(), name


def rows(workdir):
    """Result rows without the measured speeds."""
    return [row for row in work.read_rows(workdir / "results.jsonl") if row["split"] != "speed"]


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):
    return train(dataset, tmp_path_factory.mktemp("runs") / "uninterrupted")


@pytest.mark.slow
def test_one_and_eight_devices_give_the_same_parameters(dataset, tmp_path):
    """In float32 and with small steps; test_steps.py has the shipped optimizer in float64."""
    one = arrays(train(dataset, tmp_path / "one", devices=1, keep_checkpoints=4, **SGD))
    eight = arrays(train(dataset, tmp_path / "eight", devices=8, **SGD))
    start = arrays(tmp_path / "one", step=5)
    parameters = [name for name in one if "params" in name]
    assert len(parameters) > 40
    assert max(np.abs(one[name] - start[name]).max() for name in parameters) > 5e-5
    for name in parameters:
        np.testing.assert_allclose(one[name], eight[name], atol=1e-5, rtol=0, err_msg=name)


def wait_for_checkpoint(workdir, process, step):
    """Until the checkpoint of `step` is complete; the process must still be running then."""
    deadline = time.monotonic() + 120
    while not (workdir / "checkpoints" / str(step)).exists():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interrupt(dataset, workdir, number, *, step):
    arguments = train_arguments(dataset, workdir)
    process = subprocess.Popen(
        command("train.py", *arguments),
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_checkpoint(workdir, process, step)
    process.send_signal(number)
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


def test_killed_and_resumed_run_is_bit_identical(dataset, uninterrupted, tmp_path):
    workdir = tmp_path / "killed"
    code, _ = interrupt(dataset, workdir, signal.SIGKILL, step=5)
    assert code == -signal.SIGKILL
    assert not (workdir / "checkpoints" / "20").exists(), "killed too late to prove anything"
    train(dataset, workdir)
    assert_bitwise_equal(arrays(workdir), arrays(uninterrupted))
    assert rows(workdir) == rows(uninterrupted)
    best = [path.name for path in (uninterrupted / "best").iterdir()]
    assert best == [path.name for path in (workdir / "best").iterdir()]
    assert_bitwise_equal(arrays(workdir, best[0], "best"), arrays(uninterrupted, best[0], "best"))


def test_sigterm_saves_and_exits_cleanly(dataset, uninterrupted, tmp_path):
    workdir = tmp_path / "terminated"
    code, output = interrupt(dataset, workdir, signal.SIGTERM, step=5)
    assert code == 0, output
    assert "run the same command to resume" in output
    last = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert f"stopped by a signal after step {last}" in output
    train(dataset, workdir)
    assert_bitwise_equal(arrays(workdir), arrays(uninterrupted))


def flip_bytes(folder):
    """Invert a stretch in the middle of the largest file, as a failing disk would."""
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(255 - b for b in content[middle : middle + 64])
    path.write_bytes(content)


def truncate(folder):
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[:100])


def empty(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.mark.parametrize("damage", [flip_bytes, truncate, empty])
def test_damaged_newest_checkpoint_falls_back_to_the_one_before(damage, dataset, uninterrupted, tmp_path):
    workdir = tmp_path / "damaged"
    shutil.copytree(uninterrupted, workdir)
    damage(workdir / "checkpoints" / "20")
    done = run_script("train.py", *train_arguments(dataset, workdir))
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    assert "checkpoints/20 is damaged" in output
    assert "the one before is used" in output
    assert "from step 15" in output
    assert (workdir / "damaged" / "checkpoints_20").exists()
    assert_bitwise_equal(arrays(workdir), arrays(uninterrupted))
    record = json.loads((uninterrupted / "checkpoints" / "15" / "record" / "metadata").read_text())
    assert record["best"]["step"] == 10, "the best so far must be part of the checkpoint"
    kept = [[path.name for path in (run / "best").iterdir()] for run in (workdir, uninterrupted)]
    assert kept[0] == kept[1]


def test_all_checkpoints_damaged_is_an_error(dataset, uninterrupted, tmp_path):
    workdir = tmp_path / "damaged"
    shutil.copytree(uninterrupted, workdir)
    for folder in (workdir / "checkpoints").iterdir():
        truncate(folder)
    for _ in range(2):  # the second time must not start afresh over what is left
        done = call_script("train.py", *train_arguments(dataset, workdir))
        assert done.returncode == 1
        assert "none of the checkpoints [10, 15, 20] can be read" in done.stderr


def test_finished_run_is_left_alone(dataset, uninterrupted):
    before = rows(uninterrupted)
    train(dataset, uninterrupted)
    assert rows(uninterrupted) == before


def test_other_config_in_the_same_workdir_is_refused(dataset, uninterrupted):
    arguments = train_arguments(dataset, uninterrupted, model__width=3)
    done = call_script("train.py", *arguments)
    assert done.returncode == 1
    assert "model.width: 2 there, 3 now" in done.stderr
    assert "Use a new --workdir" in done.stderr


def test_report_settings_and_a_moved_dataset_are_taken_over(dataset, uninterrupted, tmp_path):
    workdir, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(uninterrupted, workdir)
    shutil.copytree(dataset, moved)
    train(moved, workdir, report__title="Another")
    record = json.loads((workdir / "config.json").read_text())
    assert record["config"]["report"]["title"] == "Another"
    assert record["dataset"]["directory"] == str(moved)


def test_two_trainings_in_one_workdir_are_refused(dataset, tmp_path):
    with work.locked(tmp_path / "run"):
        done = call_script("train.py", *train_arguments(dataset, tmp_path / "run"))
    assert done.returncode == 1
    assert "another process is at work in this folder" in done.stderr


def test_non_finite_loss_names_step_and_examples(dataset, tmp_path):
    arguments = train_arguments(
        dataset, tmp_path / "run", **{**SGD, "optimizer__learning_rate": 1e38, "optimizer__clip_norm": 0.0}
    )
    done = call_script("train.py", *arguments)
    assert done.returncode == 1
    assert "step 2: the loss of 16 of 16 examples is not finite: ['training_" in done.stderr
    recorded = json.loads((tmp_path / "run" / "nonfinite_step_2.json").read_text())
    assert len(recorded["batch"]) == 16
    assert all(identifier.startswith("training_") for identifier in recorded["batch"])
    assert not (tmp_path / "run" / "checkpoints" / "5").exists()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_equal_one_with_two_devices(dataset, tmp_path):
    arguments = train_arguments(dataset, tmp_path / "two_processes", **SGD)
    address = f"127.0.0.1:{free_port()}"
    flags = [f"--coordinator={address}", "--num_processes=2", "--process_id=0"]
    variables = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    processes = [
        subprocess.Popen(
            command("train.py", *arguments, *by_flags),
            cwd=REPOSITORY,
            env=environment(**by_environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for by_flags, by_environment in ((flags, {}), ((), variables))
    ]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    two = arrays(tmp_path / "two_processes")
    one = arrays(train(dataset, tmp_path / "one_process", devices=2, **SGD))
    for name in (name for name in one if "params" in name):
        np.testing.assert_allclose(one[name], two[name], atol=1e-5, rtol=0, err_msg=name)
    found, expected = (
        [(r["split"], r["metric"], r["step"]) for r in rows(tmp_path / w)]
        for w in ("two_processes", "one_process")
    )
    assert found == expected
    values = [np.array([r["value"] for r in rows(tmp_path / w)]) for w in ("two_processes", "one_process")]
    np.testing.assert_allclose(*values, atol=1e-4)


def test_incomplete_process_flags_are_refused(dataset, tmp_path):
    done = call_script("train.py", *train_arguments(dataset, tmp_path / "run"), "--num_processes=2")
    assert done.returncode == 1
    assert "several processes: address, process id missing" in done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch_size": 20}, "batch_size=20 cannot be divided among 8 devices"),
        ({"batch_size": 64}, "42 training examples do not fill one batch of 64"),
        ({"model.name": "deepblock"}, "no 'deepblock'; available: alexnet, deeploc,"),
        ({"optimizer.name": "lion"}, "optimizer.name='lion': choose one of"),
        ({"augment.max_offset": 20}, "augment.max_offset=20: the images leave room for 4"),
        ({"keep_checkpoints": 0}, "keep_checkpoints=0: must be at least 1"),
        ({"accumulation_steps": 0}, "accumulation_steps=0: must be at least 1"),
        ({"evaluation.crops": 3}, "evaluation.crops=3: choose one of (1, 5)"),
        ({"evaluation.sets": ("test1", "test9")}, "evaluation.sets: no 'test9' in"),
        ({"model.dtype": "int8"}, "model.dtype='int8': choose a floating type"),
        ({"data.validation_fraction": 0.0}, "data.validation_fraction=0.0: must lie between 0 and 1"),
        ({"preprocess.crop": 65}, "preprocess.crop=65 is larger than the images, 64 x 64"),
        ({"preprocess.intensity": "log"}, "intensity 'log': choose one of"),
        ({"data.train_split": "train"}, "no split 'train'; it has"),
        ({"data.directory": "nowhere"}, "nowhere: no built dataset"),
        ({"select": "f1"}, "select='f1': choose one of ('balanced_error', 'cross_entropy')"),
        ({"evaluate_every": 0}, "evaluate_every=0: must be at least 1"),
    ],
)
def test_wrong_settings_say_what_to_change(overrides, message, dataset, tmp_path):
    config = quickstart.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({**small_settings(dataset), **overrides})
    with pytest.raises(ValueError, match=re.escape(message)):
        run.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists(), (
        "a run that never started locks its work directory"
    )
    assert not (tmp_path / "run" / "splits.csv").exists()


def test_the_script_ends_with_the_message_alone(dataset, tmp_path):
    done = run_script("train.py", *train_arguments(dataset, tmp_path / "run", batch_size=20), devices=8)
    assert done.returncode == 1
    assert "batch_size=20 cannot be divided among 8 devices" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_that_the_config_does_not_have_is_named(dataset, tmp_path):
    done = call_script("train.py", *train_arguments(dataset, tmp_path / "run", num_stepz=3))
    assert done.returncode == 1
    assert "the file of --config has no setting 'num_stepz'. Did you mean" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_killed_at_any_moment_loses_nothing_but_unsaved_steps(dataset, uninterrupted, tmp_path):
    """Kill -9 again and again, a little later each time, saving at every step; then finish."""
    workdir = tmp_path / "killed"
    arguments = train_arguments(dataset, workdir)
    reached = []
    for tenths in range(20, 120, 7):
        process = subprocess.Popen(
            command("train.py", *arguments, "--config.checkpoint_every=1"),
            cwd=REPOSITORY,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(tenths / 10)
        process.kill()
        process.wait()
        names = [path.name for path in (workdir / "checkpoints").glob("*")]
        reached.append(max((int(name) for name in names if name.isdigit()), default=0))
    assert reached == sorted(reached), "a kill lost saved steps"
    assert len(set(reached)) > 2, "no kill hit the run while it was training"
    train(dataset, workdir)
    assert_bitwise_equal(arrays(workdir), arrays(uninterrupted))
    assert rows(workdir) == rows(uninterrupted)
