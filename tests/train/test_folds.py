"""Folds killed at the worst moments, more of them than devices, mirrored images beside a plain loop; what is kept."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.mcnn import base
from coos import workdir as work
from coos.data import pipeline, simulate
from coos.evaluators import kernel_maps
from coos.evaluators import phenotypes as evaluator
from coos.splits import Fold
from coos.train import folds, phenotypes
from coos.train.checkpoint import Checkpoints
from tfds_builders import bbbc

NARROW = {"widths": (4, 4, 4), "mix_units": 8, "fc_units": 8}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("fields")
    simulate.write_fields(root / "release", "bbbc013", height=32, width=32, seed=1)
    builder = bbbc.Builder(source=root / "release", config="bbbc013", data_dir=root)
    builder.download_and_prepare()
    return str(builder.data_path)


@pytest.fixture(scope="module")
def config(directory):
    """Nine steps of 36 fields, checkpoints after 3 and 6; ten repeats, which are more than there are devices."""
    config = base.get_config()
    config.data.directory, config.soft, config.num_epochs, config.checkpoint_every = directory, False, 1, 3
    config.protocol.repeats, config.optimizer.learning_rate, config.preprocess.binning = 10, 1e-2, 2
    config.data.classes = (
        ("neutral", "Metadata_control = 'negative' OR Metadata_dose_step = 1"),
        ("positive", "Metadata_control = 'positive' OR Metadata_dose_step = 9"),
    )
    with config.unlocked():
        config.model.update(NARROW)
    return config


@pytest.fixture(scope="module")
def study(config):
    return phenotypes.study(config)


def probabilities(folder, chosen):
    return [work.load_predictions(folds.prediction_path(folder, fold)).probabilities for fold in chosen]


def of(study, *numbers):
    return study._replace(folds=[study.folds[k] for k in numbers])


@pytest.fixture(scope="module")
def finished(config, study, tmp_path_factory):
    """All ten folds, trained without a stop: eight side by side, then two."""
    folder = tmp_path_factory.mktemp("finished")
    assert jax.local_device_count() == 8
    assert not folds.train(config, study, folder)
    return folder


def assert_same(folder, finished, chosen):
    for found, expected in zip(probabilities(folder, chosen), probabilities(finished, chosen), strict=True):
        np.testing.assert_array_equal(found, expected)
    rows, all_rows = (work.read_rows(place / "training.jsonl") for place in (folder, finished))
    names = {fold.name for fold in chosen}
    by_name = {row["split"]: row for row in all_rows if row["split"] in names}
    assert {row["split"]: row for row in rows} == by_name


def test_what_a_fold_holds_out_is_what_its_file_has(study, finished):
    assert len({p.tobytes() for p in probabilities(finished, study.folds)}) == 10
    for fold in study.folds:
        found = work.load_predictions(folds.prediction_path(finished, fold))
        assert found.ids.tolist() == [study.table["Metadata_id"][int(row)] for row in fold.test]
        assert found.labels.tolist() == study.source.labels[fold.test].tolist()
        assert found.columns["field"].tolist() == fold.test.tolist()
        np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-6)
    assert list((finished / "unfinished").iterdir()) == []


@pytest.mark.parametrize("chosen", [(8,), (9, 3, 8)])
def test_company_order_and_place_do_not_matter(config, study, finished, tmp_path, chosen):
    """The ninth fold stood on the first device in a group of two; here it is alone, and on the third."""
    some = of(study, *chosen)
    assert not folds.train(config, some, tmp_path)
    assert_same(tmp_path, finished, some.folds)


class Killed(Exception):
    """What a kill is here."""


def kill_after(monkeypatch, owner, name, *, calls):
    """Let the method work `calls` times and stop the program at the next."""
    plain, count = getattr(owner, name), [0]

    def method(*arguments, **options):
        count[0] += 1
        if count[0] > calls:
            raise Killed
        return plain(*arguments, **options)

    monkeypatch.setattr(owner, name, method)


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (folds, "note_losses", 4),  # between two checkpoints: steps 4 are done again
        (Checkpoints, "save", 1),  # one of three folds has the first checkpoint: all begin again
        (Checkpoints, "save", 4),  # one of three has the second: all go on from the first
        (folds.Trainer, "_test", 0),  # trained, not tested
        (work, "save_predictions", 1),  # the first fold is finished, the others are not
        (shutil, "rmtree", 1),  # the second is, and its checkpoints are still there
    ],
    ids=["step", "first_save", "second_save", "test", "predictions", "cleaning"],
)
def test_a_kill_at_any_moment_changes_nothing(
    config, study, finished, tmp_path, monkeypatch, owner, name, calls
):
    some = of(study, 0, 1, 2)
    with monkeypatch.context() as patch:
        kill_after(patch, owner, name, calls=calls)
        with pytest.raises(Killed):
            folds.train(config, some, tmp_path)
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("folds/*.npz")}
    assert len(done) == {"save_predictions": 1, "rmtree": 2}.get(name, 0)
    assert not folds.train(config, some, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert_same(tmp_path, finished, some.folds)


def test_a_fold_that_was_killed_goes_on_in_other_company(config, study, finished, tmp_path, monkeypatch):
    """Two folds stopped after step 6 go on beside one that never began: all three begin again, to the same end."""
    with monkeypatch.context() as patch:
        kill_after(patch, folds, "note_losses", calls=7)
        with pytest.raises(Killed):
            folds.train(config, of(study, 4, 5), tmp_path)
    begun = sorted(path.name for path in (tmp_path / "unfinished").iterdir())
    assert begun == ["repeat-004", "repeat-005"]
    some = of(study, 6, 5, 4)
    assert not folds.train(config, some, tmp_path)
    assert_same(tmp_path, finished, some.folds)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_mirrored_fields_train_as_in_a_plain_loop(config, study, tmp_path, accumulation_steps):
    """Same batches, same random views, gradients of the mean loss; optax on a single device."""
    config = config.copy_and_resolve_references()
    config.accumulation_steps = accumulation_steps
    fold = study.folds[7]
    trainer = folds.Trainer(config, study, tmp_path)
    fitting, learner = folds.Fitting(trainer, fold), trainer.learner
    init, rng = jax.random.split(jax.random.PRNGKey(fitting.seed))
    params = learner.init(init)["params"]
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(1e-2, momentum=0.9))
    trace, images = optimizer.init(params), study.source.gather(study.rows)

    @jax.jit
    def mean_loss(params, batch, key):
        return learner.loss(params, {}, batch, key)[0].mean()

    expected = []
    for step in range(9):
        batch = {name: jnp.asarray(values[0]) for name, values in fitting.take(1).items()}
        batch["image"] = jnp.asarray(images[np.asarray(batch["example"])])
        key = jax.random.fold_in(rng, step)
        value, gradients = jax.value_and_grad(mean_loss)(params, batch, key)
        updates, trace = optimizer.update(gradients, trace, params)
        params = optax.apply_updates(params, updates)
        expected.append(float(value))
    found = study._replace(folds=[fold])
    assert not folds.train(config, found, tmp_path)
    (row,) = work.read_rows(tmp_path / "training.jsonl")
    assert row["value"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert (row["split"], row["step"]) == (fold.name, 9)
    rest = {name: jnp.asarray(np.asarray(x)[fold.test]) for name, x in fitting.scaling.items()}
    batch = {"image": jnp.asarray(study.source.gather(fold.test)), **rest}
    answer = learner.predict({"params": params, "batch_stats": {}}, batch)
    np.testing.assert_allclose(probabilities(tmp_path, [fold])[0], answer, rtol=1e-4)


def test_an_epoch_shows_every_training_field_and_no_other(config, study, tmp_path):
    trainer = folds.Trainer(config, study, tmp_path)
    for fold in study.folds[:2]:
        batches = folds.Fitting(trainer, fold).take(18)
        assert batches["example"].shape == (18, 4)
        for epoch in (batches["example"][:9], batches["example"][9:]):
            assert sorted(study.rows[epoch.ravel()]) == fold.training.tolist()
        np.testing.assert_array_equal(batches["label"], study.source.labels[study.rows[batches["example"]]])


def test_scaling_is_that_of_the_training_fields_alone(config, study, tmp_path):
    trainer, fold = folds.Trainer(config, study, tmp_path), study.folds[0]
    pixels = study.source.gather(fold.training).astype(np.float64)
    found = folds.Fitting(trainer, fold).scaling
    assert found["mean"].shape == (len(study.source), 2)
    np.testing.assert_allclose(found["mean"][fold.test[0]], pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found["std"][fold.test[0]], pixels.std((0, 1, 2)), rtol=1e-6)


def test_the_network_on_everything_is_kept_and_says_what_its_file_says(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.soft, config.protocol.repeats = True, 2
    study = phenotypes.study(config)
    assert not folds.train(config, study, tmp_path)
    trained = evaluator.Trained(config, study, tmp_path, 0, [])
    assert sorted(trained.folds) == ["repeat-000", "repeat-001"]
    assert sorted(trained.training_loss) == ["everything", "repeat-000", "repeat-001"]
    assert sorted(path.name for path in (tmp_path / "folds").iterdir()) == [
        "repeat-000.npz",
        "repeat-001.npz",
    ]
    found = trained.everything
    assert found.ids.tolist() == study.table["Metadata_id"].to_list()
    learner, variables, scaling = kernel_maps.load(trained)
    pixels = study.source.gather(study.rows).astype(np.float64)
    np.testing.assert_allclose(scaling["mean"], pixels.mean((0, 1, 2)), rtol=1e-6)
    batch = {"image": jnp.asarray(study.source.gather(np.arange(96)))}
    for name in ("mean", "std"):
        batch[name] = jnp.broadcast_to(jnp.asarray(scaling[name], jnp.float32), (96, 2))
    np.testing.assert_allclose(found.probabilities, learner.predict(variables, batch), rtol=1e-4, atol=1e-7)


def test_devices_without_a_fold_repeat_the_last():
    trees = [{"x": np.full(3, k)} for k in range(3)]
    together = folds.to_devices(trees)
    assert np.asarray(together["x"])[:, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    for k in range(8):
        assert folds.of_device(together, k)["x"].tolist() == [min(k, 2)] * 3
    assert len(together["x"].sharding.device_set) == len(pipeline.to_devices(np.arange(8)).devices()) == 8


def test_groups_hold_folds_of_one_length():
    rows = np.arange(9)
    lengths = [3, 5, 3, 3, 5, 4, 3]
    made = [Fold(f"f{k}", rows[:length], rows[length:]) for k, length in enumerate(lengths)]
    groups = list(folds.in_groups(made, lambda fold: len(fold.training), size=3))
    named = [[fold.name for fold in group] for group in groups]
    assert named == [["f0", "f2", "f3"], ["f6"], ["f1", "f4"], ["f5"]]


@pytest.mark.parametrize("num_workers", [1, 2, 3, 12])
def test_workers_share_all_folds_out(config, study, tmp_path, monkeypatch, num_workers):
    """Without training: every fold is done by one worker, and the last finds nothing missing."""
    made = []

    class Marks:
        def __init__(self, *_):
            pass

        num_steps = staticmethod(lambda fold: len(fold.training))

        def fit(self, group):
            for fold in group:
                made.append(fold.name)
                path = folds.prediction_path(tmp_path, fold)
                path.parent.mkdir(exist_ok=True)
                path.touch()

    monkeypatch.setattr(folds, "Trainer", Marks)
    missing = [
        len(folds.train(config, study, tmp_path, worker=worker, num_workers=num_workers))
        for worker in range(num_workers)
    ]
    assert sorted(made) == sorted(fold.name for fold in study.folds)
    assert missing[-1] == 0
    assert missing == sorted(missing, reverse=True)
