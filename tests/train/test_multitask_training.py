"""Training on labels that are mostly missing: only what was measured counts, however it lies on the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.cell_painting import base, fnn
from coos import losses, optim
from coos.data import pipeline
from coos.models import _resnet, densenet121
from coos.train import loop, multitask, run, steps
from coos.train import state as states
from coos.workdir import Predictions

TASKS, FEATURES = 7, 6


def sparse_labels(number, *, seed=0, share=0.3):
    """Labels of which most are missing; some rows have none and one has all."""
    generator = np.random.default_rng(seed)
    labels = generator.choice([-1, 1], (number, TASKS)).astype(np.int8)
    labels[generator.random((number, TASKS)) > share] = 0
    labels[: number // 8] = 0
    labels[-1] = 1
    return labels


def dense_loop(logits, labels):
    """Loss and gradient of the mean over labelled entries, one entry at a time, in float64."""
    total, gradient, count = 0.0, np.zeros_like(logits), 0
    for i, t in zip(*np.nonzero(labels), strict=True):
        probability, target = 1 / (1 + np.exp(-logits[i, t])), labels[i, t] > 0
        total -= np.log(probability if target else 1 - probability)
        gradient[i, t] = probability - target
        count += 1
    return total / count, gradient / count


def test_masked_loss_and_gradient_are_those_of_a_loop_over_labelled_entries():
    labels = sparse_labels(40)
    logits = np.random.default_rng(1).normal(0, 3, labels.shape)

    def mean_loss(logits):
        total, count = losses.masked_binary_cross_entropy(logits, labels)
        return total.sum() / count.sum()

    value, gradient = jax.value_and_grad(mean_loss)(jnp.asarray(logits, jnp.float32))
    expected, expected_gradient = dense_loop(logits, labels)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-7)
    probabilities = jax.nn.sigmoid(jnp.asarray(logits, jnp.float32))
    total, count = losses.masked_probability_cross_entropy(probabilities, labels)
    np.testing.assert_allclose(total.sum() / count.sum(), expected, rtol=1e-5)


def test_what_was_not_measured_contributes_nothing_whatever_its_value():
    labels = sparse_labels(16)
    logits = np.random.default_rng(1).normal(size=labels.shape).astype(np.float32)
    wild = np.where(labels == 0, np.resize([np.nan, np.inf, -np.inf, 1e30], labels.shape), logits)

    def total(logits, rule):
        return rule(logits, labels)[0].sum()

    for rule in (losses.masked_binary_cross_entropy, losses.masked_probability_cross_entropy):
        expected, gradient = jax.value_and_grad(total)(jnp.asarray(logits), rule)
        found, wild_gradient = jax.value_and_grad(total)(jnp.asarray(wild, jnp.float32), rule)
        assert found == expected
        np.testing.assert_array_equal(gradient, wild_gradient)
        np.testing.assert_array_equal(np.asarray(gradient)[labels == 0], 0)
    with pytest.raises(ValueError, match=r"logits \(2, 3\) and labels \(2, 4\)"):
        losses.masked_binary_cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 4)))


def test_certain_and_wrong_stays_finite():
    labels = jnp.array([[1, -1]])
    value, gradient = jax.value_and_grad(lambda x: losses.masked_binary_cross_entropy(x, labels)[0].sum())(
        jnp.array([[-200.0, 300.0]])
    )
    assert value == 500
    np.testing.assert_array_equal(gradient, [[-1, 1]])
    assert np.isfinite(losses.masked_probability_cross_entropy(jnp.array([[0.0, 1.0]]), labels)[0]).all()


def small_predictor(**overrides):
    config = fnn.get_config()
    config.model.update(units=8, dropout=0.0, input_dropout=0.0)
    config.update_from_flattened_dict(overrides)
    dataset = {"tasks": [str(t) for t in range(TASKS)], "image_shape": [FEATURES]}
    constants = {"mean": [0.5] * FEATURES, "std": [2.0] * FEATURES}
    learner = multitask.make(config, dataset, constants)
    optimizer = optim.create(config.optimizer, num_steps=10)
    return learner, optimizer, states.create(learner.init, optimizer, seed=0)


def batch_of(number, labels):
    inputs = np.random.default_rng(3).normal(0, 2, (number, FEATURES)).astype(np.float32)
    return {"example": np.arange(number, dtype=np.int32), "label": labels, "image": inputs}


def steps_on(devices, batch, *, num_steps=3, **options):
    learner, optimizer, host = small_predictor()

    def step(state, batch):
        return steps.train_step(state, batch, loss=learner.loss, optimizer=optimizer, **options)

    compiled = jax.pmap(step, axis_name=steps.AXIS, devices=jax.devices()[:devices])
    state = jax.tree.map(lambda x: np.broadcast_to(x, (devices, *np.shape(x))), host)
    for _ in range(num_steps):
        state, metrics = compiled(state, {k: v.reshape(devices, -1, *v.shape[1:]) for k, v in batch.items()})
    return host.params, states.to_host(state.params), metrics


def largest_difference(one, other):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), one, other)))


def test_eight_devices_with_uneven_masks_equal_one():
    labels = sparse_labels(32)
    counts = (labels != 0).reshape(8, -1).sum(1)
    assert counts[0] == 0
    assert len(set(counts.tolist())) > 3
    batch = batch_of(32, labels)
    start, one, metrics = steps_on(1, batch)
    _, eight, sharded = steps_on(8, batch)
    _, pieces, _ = steps_on(2, batch, accumulation_steps=4)
    assert largest_difference(start, one) > 1e-3
    assert largest_difference(one, eight) < 1e-5
    assert largest_difference(one, pieces) < 1e-5
    np.testing.assert_allclose(metrics["loss"][0], sharded["loss"][0], rtol=1e-5)


def test_the_step_is_that_of_a_loop_over_labelled_entries():
    """One step of SGD without decay: parameters move by the gradient of the dense loop's loss."""
    labels = sparse_labels(24)
    batch = batch_of(24, labels)
    learner, _, host = small_predictor()
    logits = learner.model.apply({"params": host.params}, learner.prepare(batch["image"]))["logits"]
    expected, by_logits = dense_loop(np.asarray(logits, np.float64), labels)
    start, end, metrics = steps_on(1, batch, num_steps=1)
    np.testing.assert_allclose(metrics["loss"][0], expected, rtol=1e-5)
    bias, decay = np.asarray(start["logits"]["bias"]), 1e-4
    np.testing.assert_allclose(
        end["logits"]["bias"], bias - 0.01 * (by_logits.sum(0) + decay * bias), atol=1e-6
    )


def test_a_batch_without_labels_moves_nothing_but_the_decay():
    start, end, metrics = steps_on(8, batch_of(32, np.zeros((32, TASKS), np.int8)), num_steps=1)
    assert metrics["loss"][0] == 0
    decayed = jax.tree.map(lambda x: x * (1 - 0.01 * 1e-4), start)
    assert largest_difference(end, decayed) < 1e-7  # of float32 weights near 1


def test_unlabelled_examples_change_nothing():
    labels = sparse_labels(16)[2:]
    short = batch_of(14, labels)
    longer = batch_of(16, np.concatenate([labels, np.zeros((2, TASKS), np.int8)]))
    longer["image"][:14] = short["image"]
    assert largest_difference(steps_on(1, short)[1], steps_on(1, longer)[1]) < 1e-6


def test_sgd_decays_everything_and_keeps_a_momentum():
    """v = momentum v + (clipped gradient + decay w), w -= rate v, written out."""
    config = base.get_config().optimizer
    config.update(weight_decay=0.1, clip_norm=1.0)
    weights, velocity = {"kernel": np.ones((2, 2)), "bias": np.full(2, -3.0)}, {}
    rule = optim.create(config, num_steps=5)
    params = jax.tree.map(jnp.asarray, weights)
    state = rule.init(params)
    for turn in range(1, 4):
        gradients = {"kernel": np.full((2, 2), 2.0 * turn), "bias": np.array([0.3, -turn])}
        updates, state = rule.update(jax.tree.map(jnp.asarray, gradients), state, params)
        params = jax.tree.map(jnp.add, params, updates)
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        for name, gradient in gradients.items():
            step = gradient / max(norm, 1.0) + 0.1 * weights[name]
            velocity[name] = 0.9 * velocity.get(name, 0) + step
            weights[name] = weights[name] - 0.01 * velocity[name]
    for name, expected in weights.items():
        np.testing.assert_allclose(params[name], expected, rtol=1e-5)


def test_an_epoch_may_be_a_new_random_share():
    assert pipeline.examples_per_epoch(99, 0.5) == 50
    iterator = pipeline.index_iterator(100, batch_size=10, seed=5, epoch_share=0.2)
    epochs = [np.concatenate([next(iterator) for _ in range(2)]) for _ in range(40)]
    assert all(len(set(epoch.tolist())) == 20 for epoch in epochs)
    assert len({tuple(sorted(epoch.tolist())) for epoch in epochs}) == 40
    assert len(set(np.concatenate(epochs).tolist())) == 100  # not always the same fifth
    with pytest.raises(ValueError, match="epoch_share=0: must lie above 0"):
        pipeline.index_iterator(100, batch_size=10, seed=5, epoch_share=0)


def test_the_best_step_is_the_highest_score_or_the_lowest_error():
    def kept(values, *, maximize):
        best = loop.Best()
        for step, value in enumerate(values):
            if best.is_beaten_by(value, maximize=maximize):
                best.value, best.step = value, step
        return best.step

    values = [np.nan, 0.6, 0.7, np.nan, 0.7, 0.5, 0.65]
    assert kept(values, maximize=True) == 2
    assert kept(values, maximize=False) == 5
    assert not loop.Best().is_beaten_by(np.nan, maximize=True)


def test_large_batches_travel_in_few_steps(monkeypatch):
    config = base.get_config()
    config.num_steps = config.evaluate_every = config.checkpoint_every = 1000
    view = 520 * 696 * 5 * 2
    assert run.plan(config, streamed_bytes=128 * view).per_dispatch == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert run.plan(config).per_dispatch == 50
    assert run.plan(config, streamed_bytes=128 * view).per_dispatch == 1
    assert run.plan(config, streamed_bytes=12 * view).per_dispatch == 12
    config.steps_per_dispatch = 3
    assert run.plan(config, streamed_bytes=128 * view).per_dispatch == 3


@pytest.mark.parametrize(
    ("select", "maximize"), [("mean_auroc", True), ("mean_average_precision", True), ("cross_entropy", False)]
)
def test_scores_are_kept_high_and_losses_low(select, maximize):
    config = base.get_config()
    config.num_steps = config.evaluate_every = config.checkpoint_every = 10
    config.select = select
    assert run.plan(config).maximize == maximize


def test_milnet_trains_its_pooled_probabilities_too():
    config = base.get_config()
    config.model.update(name="milnet")
    config.model.update(width=2, instance_units=4, dropout=0.0, instance_dropout=0.0)
    dataset = {"tasks": list("ab"), "image_shape": [136, 136, 1]}
    learner = multitask.make(config, dataset, {})
    variables = learner.init(jax.random.key(0, impl="unsafe_rbg"))
    batch = {
        "example": np.arange(2),
        "label": np.array([[1, 0], [-1, 1]], np.int8),
        "image": np.random.default_rng(0).integers(0, 999, (2, 136, 136, 1)).astype(np.uint16),
    }
    output = learner.model.apply(variables, learner.prepare(batch["image"]))
    first, count = losses.masked_binary_cross_entropy(output["logits"], batch["label"])
    second, _ = losses.masked_probability_cross_entropy(output["features"]["noisy_and"], batch["label"])
    both, (_, values) = learner.loss(variables["params"], {}, batch, jax.random.PRNGKey(0))
    np.testing.assert_allclose(both, first + second, rtol=1e-5)
    np.testing.assert_array_equal(values["weight"], count)
    config.pooled_head = False
    alone = multitask.make(config, dataset, {}).loss(variables["params"], {}, batch, jax.random.PRNGKey(0))[0]
    np.testing.assert_allclose(alone, first, rtol=1e-5)


def test_views_are_averaged_per_well_and_per_compound():
    columns = {
        "well": np.array(["p-A01", "p-A01", "q-B02", "p-C03"]),
        "compound": np.array(["X", "X", "X", "Y"]),
        "cell_count": np.array([10, 20, 5, -1]),
    }
    labels = np.array([[1, 0], [1, 0], [1, 0], [-1, 1]], np.int8)
    probabilities = np.array([[0.2, 1], [0.4, 0], [0.9, 0.5], [0.1, 0.3]], np.float32)
    given = Predictions(np.array(list("abcd")), labels, probabilities, columns)
    wells = multitask.pooled(given, level="well")
    assert wells.ids.tolist() == ["p-A01", "p-C03", "q-B02"]
    np.testing.assert_allclose(wells.probabilities, [[0.3, 0.5], [0.1, 0.3], [0.9, 0.5]])
    np.testing.assert_array_equal(wells.columns["cell_count"], [15, -1, 5])
    compounds = multitask.pooled(given, level="compound")
    np.testing.assert_allclose(compounds.probabilities, [[0.5, 0.5], [0.1, 0.3]])
    np.testing.assert_array_equal(compounds.labels, [[1, 0], [-1, 1]])
    assert multitask.pooled(given, level="none") is given
    labels[1, 0] = -1
    with pytest.raises(ValueError, match="p-A01"):
        multitask.pooled(given, level="well")


NETWORKS = {
    "resnet": lambda **options: _resnet.create(3, stage_sizes=(2,), width=4, **options),
    "densenet": lambda **options: densenet121.create(3, growth=4, blocks=(3,), **options),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_remat_computes_the_same_with_less_memory(name):
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 2)).astype(np.float32)
    variables = NETWORKS[name]().init(jax.random.key(0, impl="unsafe_rbg"), images[:1])

    def gradient_of(model):
        def loss(params):
            inputs = {**variables, "params": params}
            output, _ = model.apply(inputs, images, train=True, mutable=["batch_stats"])
            return jnp.square(output["logits"]).sum()

        kept = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(loss, x)[1], variables["params"]))
        return jax.jit(jax.grad(loss))(variables["params"]), sum(x.size * x.dtype.itemsize for x in kept)

    gradient, memory = gradient_of(NETWORKS[name]())
    again, less = gradient_of(NETWORKS[name](remat=True))
    assert jax.tree.structure(gradient) == jax.tree.structure(again)
    scale = max(float(np.abs(x).max()) for x in jax.tree.leaves(gradient))
    assert largest_difference(gradient, again) < 1e-4 * scale
    assert less < 0.7 * memory
