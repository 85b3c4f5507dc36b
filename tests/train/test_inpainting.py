"""Paired cell inpainting as a task: loss, pairs, resumption, devices, features, figure."""

import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from run_scripts import REPOSITORY, call_script, run_script

from coos import workdir as work
from coos.data import source as sources
from coos.report import inpainting as pictures
from coos.train import inpainting, loop, run

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


def test_training_lowers_the_error_and_sets_are_judged(trained, dataset):
    found = losses(trained)
    assert np.mean(found[-3:]) < 0.8 * np.mean(found[:2])
    rows = work.read_rows(trained / "results.jsonl")
    judged = {
        r["split"]: r for r in rows if r["metric"] == "mean_squared_error" and r["split"] != "validation"
    }
    assert set(judged) == {"test1", "test4"}
    learner = run.load_best(trained)[0]
    for name, row in judged.items():
        pairs = run.task_of(learner.config).load_set(learner.config, str(dataset), name)
        assert row["n"] == len(pairs) == len(sources.load(dataset, name))  # every plate has several cells
        cells = [[scaled(x) for x in pair] for pair in pairs.gather(np.arange(len(pairs)))]
        pasted = np.mean([np.square(a - b)[..., 0].mean() for a, b in cells])
        (own,) = (r for r in rows if (r["split"], r["metric"]) == (name, "pasted_source_squared_error"))
        assert own["value"] == pytest.approx(pasted, rel=1e-4)
        assert 0 < row["value"] < 1


def scaled(image):
    """A raw cell (H, W, C), each channel from its minimum 0 to its maximum 1."""
    x = image.astype(np.float32)
    return (x - x.min((0, 1))) / (x.max((0, 1)) - x.min((0, 1)) + 1e-7)


def test_errors_are_those_of_the_painted_and_of_the_pasted_protein(trained, dataset):
    learner, variables, _ = run.load_best(trained)
    pairs = run.task_of(learner.config).load_set(learner.config, str(dataset), "test1")
    images = pairs.gather(np.arange(6))
    assert images.shape == (6, 2, 64, 64, 2)
    found = np.asarray(learner.predict(variables, {"image": images}, validating=True))
    assert found.shape == (6, 2)
    for k in range(6):
        source, target = map(scaled, images[k])
        given = np.concatenate([source, target[..., 1:]], -1)[None]
        painted = learner.model.apply(variables, given, train=False)["logits"][0, ..., 0]
        expected = [np.square(x - target[..., 0]).mean() for x in (painted, source[..., 0])]
        np.testing.assert_allclose(found[k], expected, rtol=1e-4)


def test_the_best_step_is_the_one_that_paints_best():
    errors = np.array([[0.1, 7.0], [0.3, 9.0]], np.float32)
    found = inpainting.validation_scores(
        work.Predictions(np.array(["a", "b"]), np.zeros(2, np.int32), errors)
    )
    assert found == {"mean_squared_error": pytest.approx(0.2)}


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


def test_a_run_that_goes_on_from_a_checkpoint_ends_bit_for_bit_alike(trained, dataset, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    shutil.rmtree(again / "checkpoints" / "12")  # as if killed after step 8
    done = call_script("train.py", *arguments(dataset, again))
    assert done.returncode == 0, done.stderr
    assert losses(again) == losses(trained)
    ends = [run.load_best(folder, step=12)[1] for folder in (trained, again)]
    before = run.load_best(trained, step=8)[1]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before["params"], ends[1]["params"])
    assert all(jax.tree.leaves(changed))


def test_one_and_eight_devices_train_alike(trained, dataset, tmp_path):
    done = run_script("train.py", *arguments(dataset, tmp_path / "one", num_steps=3), devices=1)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses(tmp_path / "one"), losses(trained)[:3], rtol=1e-3)


def test_training_loss_is_that_of_cells_mirrored_by_hand(trained, dataset):
    record = run.read_learner(trained)[1]
    config = ml_collections.ConfigDict(record["config"])
    config.model.cross_device_norm = False  # no devices to ask here
    learner = run.make_learner(config, record["dataset"], {})
    images = sources.load(dataset, "test2").gather(np.arange(10).reshape(5, 2))
    pairs, key = np.array([[7, 1], [300, 2], [5, 3], [41, 4], [6, 5]]), jax.random.PRNGKey(11)
    variables = learner.init(jax.random.PRNGKey(0))
    batch = {"image": images, "example": pairs, "label": np.zeros_like(pairs)}
    found, (stats, values) = learner.loss(variables["params"], variables["batch_stats"], batch, key)
    assert (found.shape, values) == ((5,), {})
    given, wanted, mirrored = [], [], []
    for (number, _), pair in zip(pairs, images, strict=True):
        cells = []
        for image, own in zip(pair, jax.random.split(jax.random.fold_in(key, number)), strict=True):
            down, across = np.asarray(jax.random.bernoulli(own, 0.5, (2,)))
            cell = scaled(image)[:: -1 if down else 1, :: -1 if across else 1]
            cells.append(cell)
            mirrored.append((bool(down), bool(across)))
        given.append(np.concatenate([cells[0], cells[1][..., 1:]], -1))
        wanted.append(cells[1][..., 0])
    assert len(set(mirrored)) == 4
    output, updates = learner.model.apply(variables, np.stack(given), train=True, mutable=["batch_stats"])
    painted = np.asarray(output["logits"])
    expected = [
        np.mean([(a - b) ** 2 for a, b in zip(painted[k].flat, wanted[k].flat, strict=True)])
        for k in range(5)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), stats, updates["batch_stats"]
    )


def cells_of(group):
    """Cells of one pixel, whose value is their number, of these groups."""
    number = len(group)
    images = np.arange(number, dtype=np.uint16).reshape(-1, 1, 1, 1)
    ids = np.array([f"{g}_{k}" for k, g in enumerate(group)])
    return sources.Source(images, np.arange(number) % 3, ids, np.arange(number), {"class_names": list("abc")})


def test_cells_of_small_groups_are_left_out_with_a_warning(caplog):
    group = np.array([0, 1, 0, 2, 1, 1, 3])
    with caplog.at_level("WARNING", logger="absl"):
        kept = inpainting.with_partners(cells_of(group), r"id:^\d", smallest=2, where="here")
    assert kept.rows.tolist() == [0, 1, 2, 4, 5]
    assert kept.labels.tolist() == [0, 1, 2, 1, 2]
    assert kept.columns["partners"].tolist() == [0, 1, 0, 1, 1]
    assert "set here: 2 of 7 cells are in groups of fewer than 2" in caplog.text
    few = inpainting.with_partners(cells_of(group), r"id:^\d", smallest=3, where="x")
    assert few.rows.tolist() == [1, 4, 5]
    with pytest.raises(ValueError, match=r"set x: no group by 'id:\^\\d' has 4 cells; .*config.pairs.by"):
        inpainting.with_partners(cells_of(group), r"id:^\d", smallest=4, where="x")


def test_judged_pairs_are_fixed_by_the_seed_and_of_one_group():
    group = np.repeat(np.arange(10), 4)
    cells = inpainting.with_partners(cells_of(group), r"id:^\d", smallest=2, where="here").subset(
        np.arange(2, 40)
    )
    pairs = [inpainting.paired(cells, seed=seed) for seed in (0, 0, 1)]
    images = [x.gather(np.arange(38))[..., 0, 0, 0] for x in pairs]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert images[0][:, 0].tolist() == list(range(2, 40))
    assert (group[images[0][:, 0]] == group[images[0][:, 1]]).all()
    assert (images[0][:, 0] != images[0][:, 1]).all()


def test_a_loss_that_is_not_finite_names_both_cells_of_the_pair(tmp_path):
    ids = np.array(["a", "b", "c", "d"])
    examples = np.array([[[0, 1], [2, 3]], [[3, 2], [1, 0]]])
    values = np.array([[0.1, 0.2], [0.3, np.nan]])
    with pytest.raises(loop.NonFiniteLoss, match=r"step 6: the loss of 1 of 2 examples .*\['b', 'a'\]"):
        loop.check_finite(values.mean(1), values, examples, last_step=6, ids=ids, workdir=tmp_path)


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
        ({"pairs__by": r"id:^(training|test\d_\d+)"}, "set test1: no group by"),
        ({"evaluation__sets": ("test9",)}, "evaluation.sets: no 'test9'"),
    ],
)
def test_what_cannot_be_right_is_refused(dataset, tmp_path, settings, message):
    done = call_script("train.py", *arguments(dataset, tmp_path / "x", **settings))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "x" / "config.json").exists()
