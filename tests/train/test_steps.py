"""The compiled step: the same whatever the devices, the dispatches, the pieces, and where the images are."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.coos7 import quickstart
from coos import optim
from coos.data import pipeline, source
from coos.train import classification, steps
from coos.train import state as states


@pytest.fixture(scope="module")
def training(dataset):
    return source.load(dataset, "training")


class SmallNetwork(nn.Module):
    """Batch norm over all devices, dropout and convolutions, and little to compile."""

    axis_name: str | None
    dropout: float = 0.5

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(4, (3, 3), strides=2, name="convolution")(images)
        x = nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name if train else None, name="norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x).reshape(len(x), -1))
        return {"logits": nn.Dense(7, name="head")(x), "features": {}}


def make(dataset, **overrides):
    """The shipped DeepLoc, two channels wide, if `model.width` asks for it; else a network that compiles fast."""
    config = quickstart.get_config()
    config.update_from_flattened_dict(overrides)
    classifier = classification.make(config, source.describe(dataset), {"min_span": 1.0})
    if "model.width" not in overrides:
        classifier = dataclasses.replace(classifier, model=SmallNetwork(steps.AXIS))
    optimizer = optim.create(config.optimizer, num_steps=300)
    key = jax.random.key(0, impl="rbg")  # the default key's init takes four times as long to compile
    return classifier, optimizer, states.create(lambda _: classifier.init(key), optimizer, seed=0)


def batch_of(training, step, size=16):
    examples = np.random.default_rng(step).choice(len(training), size, replace=False).astype(np.int32)
    return {"example": examples, "label": training.labels[examples], "image": training.gather(examples)}


def to_float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else x, tree)


def run(training, host, classifier, optimizer, *, devices, num_steps, **options):
    """Parameters and statistics after some steps on the first `devices` devices."""

    def step(state, batch):
        return steps.train_step(state, batch, loss=classifier.loss, optimizer=optimizer, **options)

    compiled = jax.pmap(step, axis_name=steps.AXIS, devices=jax.devices()[:devices])
    state = jax.tree.map(lambda x: np.broadcast_to(x, (devices, *np.shape(x))), host)
    for number in range(num_steps):
        batch = batch_of(training, number)
        state, metrics = compiled(state, {k: v.reshape(devices, -1, *v.shape[1:]) for k, v in batch.items()})
        jax.block_until_ready(metrics)
    return states.to_host((state.params, state.batch_stats)), metrics


def largest_difference(one, other):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), one, other)))


def test_one_and_eight_devices_agree_after_20_steps_of_the_shipped_optimizer(dataset, training):
    """In float64, since in float32 rounding grows about eightfold a step at this learning rate."""
    with jax.enable_x64(True):
        wanted = {"model.width": 2, "model.dtype": "float64", "preprocess.crop": 32}
        classifier, optimizer, host = make(dataset, **wanted)
        host = to_float64(host)
        one, _ = run(training, host, classifier, optimizer, devices=1, num_steps=20)
        eight, _ = run(training, host, classifier, optimizer, devices=8, num_steps=20)
    assert largest_difference(one, to_float64((host.params, host.batch_stats))) > 0.01
    assert largest_difference(one, eight) < 1e-5


def test_accumulated_gradients_are_those_of_the_whole_batch(dataset, training):
    """Without batch norm's batch statistics (frozen here) pieces and whole are the same sum."""
    classifier, optimizer, host = make(dataset)

    def loss(params, batch_stats, batch, key):
        variables = {"params": params, "batch_stats": batch_stats}
        images = jnp.log1p(batch["image"][:, :60, :60].astype(jnp.float32))
        logits = classifier.model.apply(variables, images, train=False)["logits"]
        chosen = jax.nn.log_softmax(logits)[jnp.arange(len(logits)), batch["label"]]
        return -chosen, (batch_stats, {})

    frozen = type("Frozen", (), {"loss": staticmethod(loss)})
    whole, _ = run(training, host, frozen, optimizer, devices=1, num_steps=1)
    pieces, _ = run(training, host, frozen, optimizer, devices=1, num_steps=1, accumulation_steps=4)
    both, _ = run(training, host, frozen, optimizer, devices=2, num_steps=1, accumulation_steps=2)
    assert largest_difference(whole, pieces) < 1e-5
    assert largest_difference(whole, both) < 1e-5


def chunk_inputs(training, host, *, lengths, resident):
    iterator = pipeline.index_iterator(len(training), batch_size=16, seed=3)
    images = pipeline.replicate({"image": training.gather(np.arange(len(training)))}) if resident else {}
    chunks = list(pipeline.chunks(iterator, training, lengths=iter(lengths), resident=resident))
    return pipeline.replicate(host), images, chunks


@pytest.mark.parametrize(
    ("lengths", "resident"),
    [((4,), False), ((1, 1, 1, 1), True), ((3, 1), True)],
)
def test_dispatches_and_residence_change_nothing(lengths, resident, dataset, training):
    classifier, optimizer, host = make(dataset, **{"optimizer.learning_rate": 1e-4})
    train_chunk = steps.make_train_chunk(classifier.loss, optimizer)

    def after(lengths, resident):
        state, images, chunks = chunk_inputs(training, host, lengths=lengths, resident=resident)
        for chunk in chunks:
            state, metrics = train_chunk(state, images, chunk.batch)
        return states.to_host((state.params, state.batch_stats)), metrics

    expected, _ = after((1, 1, 1, 1), False)
    found, metrics = after(lengths, resident)
    assert metrics["example_loss"].shape == (8, lengths[-1], 2)
    assert largest_difference(expected, found) < 1e-5


def test_the_loop_of_accelerators_equals_the_written_out_one_of_cpus(dataset, training, monkeypatch):
    classifier, optimizer, host = make(dataset, **{"optimizer.learning_rate": 1e-4})

    def after(backend):
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        train_chunk = steps.make_train_chunk(classifier.loss, optimizer, accumulation_steps=2)
        state, images, (chunk,) = chunk_inputs(training, host, lengths=(3,), resident=True)
        state, metrics = train_chunk(state, images, chunk.batch)
        return states.to_host((state.params, state.batch_stats)), np.asarray(metrics["loss"])

    written_out, losses = after("cpu")
    looped, looped_losses = after("gpu")
    assert largest_difference(written_out, looped) < 1e-5
    np.testing.assert_allclose(losses, looped_losses, atol=1e-5)


def test_every_step_draws_anew_and_every_device_alike():
    """Augmentation is made of the step's key and the example's number: the key must not stay the same."""

    def loss(params, batch_stats, batch, key):
        drawn = jax.random.uniform(key) + 0 * params["weight"]
        return jnp.full(len(batch["label"]), drawn), (batch_stats, {})

    optimizer = optim.create(quickstart.get_config().optimizer, num_steps=300)
    host = states.create(lambda _: {"params": {"weight": jnp.zeros(())}}, optimizer, seed=0)
    state = jax.tree.map(lambda x: np.broadcast_to(x, (2, *np.shape(x))), host)
    train_chunk = steps.make_train_chunk(loss, optimizer, accumulation_steps=2)
    _, metrics = train_chunk(state, {}, {"label": np.zeros((2, 3, 4), np.int32)})
    drawn = np.asarray(metrics["example_loss"])
    assert drawn.shape == (2, 3, 4)
    assert (drawn == drawn[:1, :, :1]).all()
    assert len(set(drawn[0, :, 0].tolist())) == 3


def test_augmentation_belongs_to_the_example_and_not_to_its_place(dataset, training):
    classifier, _, host = make(dataset)
    classifier = dataclasses.replace(classifier, model=SmallNetwork(None, dropout=0.0))
    batch, key = batch_of(training, 0), jax.random.PRNGKey(0)
    loss = jax.jit(lambda batch: classifier.loss(host.params, host.batch_stats, batch, key)[0])
    order = np.random.default_rng(1).permutation(16)
    straight = np.asarray(loss(batch))
    shuffled = np.asarray(loss({name: array[order] for name, array in batch.items()}))
    np.testing.assert_allclose(shuffled, straight[order], atol=1e-4)
    others = np.asarray(loss({**batch, "example": batch["example"] + 1000}))
    assert np.abs(others - straight).max() > 1e-2
    same_number = np.asarray(loss({**batch, "example": np.zeros(16, np.int32)}))
    assert np.abs(same_number - straight).max() > 1e-2


def test_bfloat16_is_finite_and_keeps_float32_parameters(dataset, training):
    classifier, optimizer, host = make(dataset, **{"model.width": 2, "model.dtype": "bfloat16"})
    (params, _), metrics = run(training, host, classifier, optimizer, devices=1, num_steps=2)
    assert np.isfinite(metrics["loss"]).all()
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(params))


def test_only_steps_calls_pmap():
    import pathlib

    import coos

    users = [p for p in pathlib.Path(coos.__file__).parent.rglob("*.py") if "jax.pmap(" in p.read_text()]
    assert [path.name for path in users] == ["steps.py"]
