"""Folds: the same alone, beside others and after a kill; equal to a plain loop; errors that keep what is finished."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.mcnn import base
from coos import losses, splits
from coos import workdir as work
from coos.data import simulate
from coos.train import folds, loop, phenotypes
from tfds_builders import bbbc

SIZE = 32
NARROW = {"widths": (4, 4), "mix_units": 8, "fc_units": 8}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("fields")
    simulate.write_fields(root / "release", "bbbc013", height=SIZE, width=SIZE, seed=0)
    builder = bbbc.Builder(source=root / "release", config="bbbc013", data_dir=root)
    builder.download_and_prepare()
    return str(builder.data_path)


def config_of(directory, **changes):
    config = base.get_config()
    config.data.directory, config.soft, config.num_epochs = directory, False, 1
    config.protocol.repeats, config.optimizer.learning_rate = 3, 1e-2
    config.data.classes = (
        ("neutral", "Metadata_control = 'negative' OR Metadata_dose_step = 1"),
        ("positive", "Metadata_control = 'positive' OR Metadata_dose_step = 9"),
    )
    with config.unlocked():
        config.model.update(NARROW)
    for name, value in changes.items():
        node = config
        *path, last = name.split("__")
        for part in path:
            node = node[part]
        node[last] = value
    return config


def trained(config, folder, *, chosen=None, **options):
    study = phenotypes.study(config)
    if chosen is not None:
        study = study._replace(folds=[study.folds[k] for k in chosen])
    missing = folds.train(config, study, folder, **options)
    paths = {fold.name: folds.prediction_path(folder, fold) for fold in study.folds}
    return {name: work.load_predictions(p).probabilities for name, p in paths.items() if p.exists()}, missing


@pytest.fixture(scope="module")
def whole(directory, tmp_path_factory):
    """The predictions of three folds, trained together."""
    found, missing = trained(config_of(directory), tmp_path_factory.mktemp("whole"))
    assert not missing
    assert all(p.shape == (4, 2) for p in found.values())
    return found


def same(found, expected):
    assert found
    for name, probabilities in found.items():
        np.testing.assert_array_equal(probabilities, expected[name])


def test_a_fold_is_the_same_alone_and_in_any_order(directory, whole, tmp_path):
    same(trained(config_of(directory), tmp_path / "alone", chosen=[1])[0], whole)
    same(trained(config_of(directory), tmp_path / "back", chosen=[2, 0, 1])[0], whole)


def test_streamed_images_give_what_resident_ones_do(directory, whole, tmp_path):
    same(trained(config_of(directory, data__mode="stream"), tmp_path, chosen=[0])[0], whole)


def test_a_fold_killed_and_resumed_is_the_same(directory, whole, tmp_path, monkeypatch):
    config, plain = config_of(directory, checkpoint_every=4), folds.note_losses

    def killed(fittings, values, step):
        plain(fittings, values, step)
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(folds, "note_losses", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(config, tmp_path)
    assert not list(tmp_path.glob("folds/*.npz"))
    steps = []
    monkeypatch.setattr(folds, "note_losses", lambda f, v, s: (steps.append(s), plain(f, v, s)))
    found, _ = trained(config, tmp_path)
    assert steps[0] == 5  # went on after step 4
    same(found, whole)
    assert not list((tmp_path / "unfinished").iterdir())
    other = trained(config_of(directory), tmp_path / "other")
    assert other[0]
    for path in (tmp_path / "other" / "training").glob("*.json"):
        assert work.read_json(path) == work.read_json(tmp_path / "training" / path.name)
    assert len(list((tmp_path / "training").glob("*.json"))) == 3


def test_a_fold_is_a_plain_loop_of_steps(directory, whole, tmp_path):
    config = config_of(directory, augment__flips=False)
    study = phenotypes.study(config)
    found, _ = trained(config, tmp_path, chosen=[0])
    trainer = folds.Trainer(config, study, tmp_path / "none")
    fitting = folds.Fitting(trainer, study.folds[0])
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(1e-2, momentum=0.9))
    key, _ = jax.random.split(jax.random.PRNGKey(fitting.seed))
    params = trainer.learner.init(key)["params"]
    trace = optimizer.init(params)
    training = study.source.images[study.source.rows[study.folds[0].training]].astype(np.float64)
    mean, std = training.mean((0, 1, 2)), training.std((0, 1, 2))

    def logits(params, images):
        return trainer.learner.model.apply({"params": params}, (images - mean) / std)["logits"]

    @jax.jit
    def step(params, trace, images, labels):
        def loss(p):
            return losses.softmax_cross_entropy(logits(p, images), labels).mean()

        update, trace = optimizer.update(jax.grad(loss)(params), trace, params)
        return optax.apply_updates(params, update), trace

    for _ in range(trainer.num_steps(study.folds[0])):
        batch = fitting.take(1)
        images = jnp.asarray(study.source.gather(study.rows[batch["example"][0]]), jnp.float32)
        params, trace = step(params, trace, images, batch["label"][0])
    test = jnp.asarray(study.source.gather(study.folds[0].test), jnp.float32)
    expected = jax.nn.softmax(logits(params, test))
    np.testing.assert_allclose(found["repeat-000"], expected, rtol=2e-4)
    assert not np.allclose(
        found["repeat-000"], whole["repeat-000"], rtol=1e-3
    )  # that one was mirrored and turned


def test_what_is_finished_is_not_done_again_and_workers_share(directory, whole, tmp_path):
    config = config_of(directory)
    first, missing = trained(config, tmp_path, worker=0, num_workers=2)
    assert (sorted(first), [fold.name for fold in missing]) == (["repeat-000", "repeat-002"], ["repeat-001"])
    times = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("folds/*.npz")}
    found, missing = trained(config, tmp_path, worker=1, num_workers=2)
    assert not missing
    same(found, whole)
    assert all((tmp_path / "folds" / name).stat().st_mtime_ns == time for name, time in times.items())


def test_a_loss_that_is_not_finite_names_fold_and_step(directory, whole, tmp_path):
    trained(config_of(directory), tmp_path, chosen=[0])
    with pytest.raises(loop.NonFiniteLoss, match=r"fold repeat-00[12]: the loss was (nan|inf) at step \d+"):
        trained(config_of(directory, optimizer__learning_rate=1e30), tmp_path)
    assert [p.name for p in tmp_path.glob("folds/*.npz")] == ["repeat-000.npz"]


def test_folds_of_several_lengths_and_a_schedule(directory, tmp_path):
    config = config_of(directory, protocol__name="leave_one_out", protocol__group="Metadata_Row", soft=True)
    config.optimizer.schedule = "cosine"
    with config.unlocked():
        config.optimizer.warmup_steps = 1
    config.data.where = "Metadata_Row IN ('A', 'B') OR (Metadata_Row = 'E' AND Metadata_Column < 4)"
    found, missing = trained(config, tmp_path)
    assert not missing
    assert {name: len(p) for name, p in found.items()} == {"A": 5, "B": 5, "E": 3, "everything": 96}
    assert all(np.isfinite(p).all() and np.allclose(p.sum(1), 1, atol=1e-5) for p in found.values())


def test_names_that_would_share_a_file_are_refused(tmp_path):
    rows = np.arange(2)
    with pytest.raises(ValueError, match="'a b' and 'a/b' would share a file"):
        folds.remaining(tmp_path, [splits.Fold("a b", rows, rows), splits.Fold("a/b", rows, rows)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_epochs": 0}, "num_epochs=0: must be at least 1"),
        ({"protocol__name": "bootstrap"}, "protocol.name='bootstrap': choose one of"),
        ({"protocol__group": "Metadata_Wel"}, "protocol.group='Metadata_Wel': no such column"),
        ({"protocol__group": "Metadata_moa"}, "protocol.group='Metadata_moa': unknown for BBBC013-A01-1"),
        ({"preprocess__intensity": "stretch"}, "preprocess.intensity='stretch': choose one of"),
        ({"data__target": "Metadata_control"}, "give either a column or pairs"),
        ({"protocol__name": "none"}, "nothing to train"),
        ({"data__fields_per_well": -1}, "data.fields_per_well=-1: must not be negative"),
    ],
)
def test_settings_that_cannot_be_are_refused(directory, changes, message):
    with pytest.raises(ValueError, match=message):
        phenotypes.study(config_of(directory, **changes))


def test_controls_of_the_plate_scale_intensities(directory):
    config = config_of(directory, preprocess__intensity="controls")
    study = phenotypes.study(config)
    found = phenotypes.scaling(config, study.source, study.table, study.folds[0].training)
    control = np.flatnonzero((study.table["Metadata_control"] == "negative").fill_null(False).to_numpy())
    pixels = study.source.images[study.source.rows[control]].astype(np.float64)
    np.testing.assert_allclose(found["mean"][5], pixels.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["std"][5], pixels.std((0, 1, 2)), rtol=1e-5)
