"""Paired cell inpainting as a task: loss, pairs, resumption, devices, features, figure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_scripts import REPOSITORY, call_script, run_script

from coos import workdir as work
from coos.data import source as sources
from coos.report import inpainting as pictures
from coos.train import inpainting, run

CONFIG = REPOSITORY / "configs" / "coos7" / "pci.py"


def arguments(dataset, workdir, **overrides):
    settings = {
        "data.directory": dataset,
        "data.validation_fraction": 0.2,
        "num_steps": 12,
        "batch_size": 16,
        "log_every": 1,
        "evaluate_every": 6,
        "checkpoint_every": 4,
        "model.width": 6,
        "optimizer.learning_rate": 1e-3,
        "evaluation.batch_size": 32,
        "evaluation.sets": ("test1", "test4"),
        "pairs.by": "plate",
        **{name.replace("__", "."): value for name, value in overrides.items()},
    }
    return [f"--config={CONFIG}", f"--workdir={workdir}"] + [f"--config.{k}={v}" for k, v in settings.items()]


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """A run of 12 steps, judged."""
    workdir = tmp_path_factory.mktemp("pci")
    done = call_script("train.py", *arguments(dataset, workdir))
    assert done.returncode == 0, done.stderr
    done = call_script("evaluate.py", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def losses(workdir):
    rows = work.read_rows(workdir / "results.jsonl")
    return [r["value"] for r in rows if (r["split"], r["metric"]) == ("train", "loss")]


def test_training_lowers_the_error_and_sets_are_judged(trained):
    found = losses(trained)
    assert np.mean(found[-3:]) < 0.8 * np.mean(found[:2])
    rows = work.read_rows(trained / "results.jsonl")
    judged = {
        r["split"]: r for r in rows if r["metric"] == "mean_squared_error" and r["split"] != "validation"
    }
    assert set(judged) == {"test1", "test4"}
    assert all(0 < row["value"] < 1 and row["n"] > 1 for row in judged.values())


def test_loss_is_the_squared_error_of_the_target_protein(trained, dataset):
    learner, variables, _ = run.load_best(trained)
    pairs = run.task_of(learner.config).load_set(learner.config, str(dataset), "test1")
    images = pairs.gather(np.arange(6))
    assert images.shape == (6, 2, 64, 64, 2)
    found = np.asarray(learner.predict(variables, {"image": images}, validating=True))
    for k in range(6):
        source, target = (
            (x - x.min((0, 1))) / (x.max((0, 1)) - x.min((0, 1)) + 1e-7) for x in images[k].astype(np.float32)
        )
        given = np.concatenate([source, target[..., 1:]], -1)[None]
        painted = learner.model.apply(variables, given, train=False)["logits"][0, ..., 0]
        assert found[k, 0] == pytest.approx(np.square(painted - target[..., 0]).mean(), rel=1e-4)


def test_the_protein_of_the_target_is_not_seen(trained, dataset):
    learner, variables, _ = run.load_best(trained)
    pairs = run.task_of(learner.config).load_set(learner.config, str(dataset), "test1").gather(np.arange(4))
    other = pairs.copy()
    other[:, 1, ..., 0] = other[::-1, 0, ..., 0]
    one, two = (learner.paint(variables, x)[1] for x in (pairs, other))
    np.testing.assert_array_equal(one, two)
    other = pairs.copy()
    other[:, 0] = other[::-1, 0]
    assert not np.allclose(learner.paint(variables, other)[1], one)


def test_source_and_target_are_mirrored_apart_and_channels_together():
    learner = inpainting.Inpainter(None, None, {}, (4, 4, 2))
    cell = jnp.stack([jnp.arange(16.0).reshape(4, 4), 100 + jnp.arange(16.0).reshape(4, 4)], -1)
    pair = jnp.stack([cell, cell])
    seen = set()
    for k in range(60):
        source, target = np.asarray(learner._flipped(jax.random.PRNGKey(k), pair))
        for image in (source, target):
            assert np.array_equal(image[..., 0] + 100, image[..., 1])
        seen.add((source[0, 0, 0], target[0, 0, 0]))
    corners = {0.0, 3.0, 12.0, 15.0}
    assert seen == {(a, b) for a in corners for b in corners}


def test_a_stopped_run_goes_on_to_the_same_end(trained, dataset, tmp_path):
    short = arguments(dataset, tmp_path / "x", num_steps=12)
    env = {"COOS_TEST": "1"}
    done = run_script("train.py", *short, devices=8, **env)
    assert done.returncode == 0, done.stderr
    whole = losses(tmp_path / "x")
    # Take the newest checkpoint away: training goes on from step 8.
    import shutil

    shutil.rmtree(tmp_path / "x" / "checkpoints" / "12")
    done = run_script("train.py", *short, devices=8, **env)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "x") == whole


def test_one_and_eight_devices_train_alike(dataset, tmp_path):
    found = {}
    for devices in (1, 8):
        done = run_script(
            "train.py", *arguments(dataset, tmp_path / str(devices), num_steps=3), devices=devices
        )
        assert done.returncode == 0, done.stderr
        found[devices] = losses(tmp_path / str(devices))
    np.testing.assert_allclose(found[1], found[8], rtol=1e-3)


def test_features_are_the_maxima_of_the_source_encoder(trained, dataset):
    learner, variables, _ = run.load_best(trained)
    images = sources.load(dataset, "test1").gather(np.arange(5))
    found = learner.represent(variables, images, layer="conv3_1")
    maps = learner.model.apply(variables, learner.scaled(images), method="encode")["conv3_1"]
    np.testing.assert_array_equal(found, np.asarray(maps).max((1, 2)))
    assert found.shape == (5, 24)
    with pytest.raises(ValueError, match="layer 'fc2': the source encoder has conv1_1"):
        learner.represent(variables, images, layer="fc2")


def test_pictures_show_every_class(trained, dataset):
    figure = pictures.of_run(trained, set_name="test1", number=1)
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert texts == set(sources.load(dataset, "test1").class_names)
    assert "of pasting the source" in str([text.get_text() for text in figure.texts])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs__by": "site"}, "groups by 'site': not known of the cells"),
        ({"pairs__by": "id:(.*)"}, "no group by 'id:(.*)' has 2 cells"),
        ({"pairs__smallest_group": 1}, "pairs.smallest_group=1: a pair needs two cells"),
        ({"select": "balanced_error"}, "select='balanced_error': choose one of"),
        ({"preprocess__intensity": "stretch"}, "preprocess.intensity='stretch': choose one of"),
        ({"evaluation__sets": ("test9",)}, "evaluation.sets: no 'test9'"),
    ],
)
def test_what_cannot_be_right_is_refused(dataset, tmp_path, settings, message):
    done = call_script("train.py", *arguments(dataset, tmp_path / "x", **settings))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "x" / "config.json").exists()
