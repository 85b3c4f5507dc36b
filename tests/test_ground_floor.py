"""Losses, optimizers, splits, work directories and the registry."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs.coos7 import deeploc as deeploc_config
from configs.coos7 import modern
from coos import losses, optim, registry, splits
from coos import workdir as work


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_optax(smoothing):
    generator = np.random.default_rng(0)
    logits, labels = jnp.asarray(generator.normal(size=(9, 5)) * 4), jnp.asarray(generator.integers(0, 5, 9))
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 5), smoothing)
    expected = optax.softmax_cross_entropy(logits, targets)
    found = losses.softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="do not belong together"):
        losses.softmax_cross_entropy(logits, labels[:3])


def test_deeploc_schedule_is_the_published_one():
    rate = optim.schedule(deeploc_config.get_config().optimizer, num_steps=10_000)
    for step in (0, 24, 25, 1000, 5000, 9999):
        np.testing.assert_allclose(rate(step), 0.1 * 0.96 ** (step // 25), rtol=1e-4)
    np.testing.assert_allclose(rate(1000), 0.0195, rtol=3e-3)
    np.testing.assert_allclose(rate(5000), 2.8e-5, rtol=2e-2)


def test_cosine_schedule_warms_up_and_ends_at_zero():
    rate = optim.schedule(modern.get_config().optimizer, num_steps=10_000)
    np.testing.assert_allclose([rate(0), rate(250), rate(500), rate(10_000)], [0, 5e-4, 1e-3, 0], atol=1e-9)
    np.testing.assert_allclose(rate(500 + 4750), 0.5e-3, rtol=1e-5)


def test_weight_decay_spares_vectors():
    config = modern.get_config().optimizer
    config.update(schedule="flat", learning_rate=0.1, weight_decay=0.5, clip_norm=0.0)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    rule = optim.create(config, num_steps=10)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05)
    np.testing.assert_array_equal(updates["bias"], 0)


def epochs(schedule, **fields):
    """The learning rate of every step of ten epochs of four steps, and the epoch each belongs to."""
    config = ConfigDict({"schedule": schedule, "learning_rate": 0.02, "steps_per_epoch": 4, **fields})
    rate = optim.schedule(config, num_steps=40)
    return [(step // 4, float(jax.jit(rate)(step))) for step in range(40)]


def test_cosine_harmonic_is_deepprofilers():
    """Its five first epochs have a fifth, a quarter, ... of the rate, and the cosine counts from the first."""
    for t, rate in epochs("cosine_harmonic"):
        expected = 0.02 / (5 - t) if t < 5 else 0.5 * (1 + math.cos(math.pi * t / 10)) * 0.02
        assert rate == pytest.approx(expected, rel=1e-5)
    config = ConfigDict({"schedule": "cosine_harmonic", "learning_rate": 1.0, "steps_per_epoch": 4})
    begun = float(optim.schedule(config, num_steps=29)(28))  # the first step of an eighth epoch
    assert begun == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)), rel=1e-5)


def test_step_changes_at_its_epochs():
    """Those of the thesis' run 1103, and what they begin with."""
    found = epochs("step", boundaries=(2, 5, 9), rates=(0.01, 0.005, 0.002))
    expected = [0.02] * 2 + [0.01] * 3 + [0.005] * 4 + [0.002]
    assert [rate for _, rate in found] == pytest.approx([expected[t] for t, _ in found], rel=1e-6)


def test_flat_is_flat_and_was_once_called_constant():
    for name in ("flat", "constant"):
        assert [rate for _, rate in epochs(name)] == pytest.approx([0.02] * 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "step"}, "optimizer.steps_per_epoch=0: schedule 'step' counts epochs"),
        ({"schedule": "cosine_harmonic", "steps_per_epoch": 0}, "optimizer.steps_per_epoch=0: schedule 'cos"),
        ({"schedule": "step", "steps_per_epoch": 3}, r"optimizer.boundaries=\(\), optimizer.rates=\(\)"),
        (
            {"schedule": "step", "steps_per_epoch": 3, "boundaries": (1,), "rates": (1.0, 2.0)},
            "as many rates",
        ),
        ({"schedule": "step", "steps_per_epoch": 3, "boundaries": (3, 2), "rates": (1.0, 2.0)}, "ascending"),
        ({"schedule": "step", "steps_per_epoch": 3, "boundaries": (0,), "rates": (1.0,)}, "from 1 on"),
        ({"name": "sgd", "decay_on": "biases"}, "optimizer.decay_on='biases': choose one of"),
    ],
)
def test_errors_of_fields_that_a_config_may_leave_out(change, message):
    config = modern.get_config().optimizer
    for name, value in change.items():
        config[name] = value
    with pytest.raises(ValueError, match=message):
        optim.create(config, num_steps=10)


RATES = [0.5, 0.5, 0.1, 0.1, 0.02, 0.02]


def sgd(change, gradients, start):
    """Parameters after every step of the SGD of a config whose rate falls in steps."""
    config = ConfigDict(
        {
            "name": "sgd",
            "schedule": "step",
            "learning_rate": RATES[0],
            "steps_per_epoch": 2,
            "boundaries": (1, 2),
            "rates": (RATES[2], RATES[4]),
            "momentum": 0.9,
            "weight_decay": 0.2,
            "clip_norm": 0.0,
            **change,
        }
    )
    rule = optim.create(config, num_steps=len(gradients))
    parameters = jax.tree.map(jnp.asarray, start)
    state, found = rule.init(parameters), []
    for gradient in gradients:
        updates, state = rule.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        found.append(parameters)
    return found


def keras_form(w, v, gradient, rate):
    """Of Keras' SGD(momentum=0.9, nesterov=True): the velocity is a step, with the rate of its time."""
    v = 0.9 * v - rate * gradient
    return w + 0.9 * v - rate * gradient, v


def pytorch_form(w, v, gradient, rate):
    """Of torch.optim.SGD(momentum=0.9): the velocity is a gradient."""
    v = 0.9 * v + gradient
    return w - rate * v, v


@pytest.mark.parametrize("decay_on", [None, "all", "kernels"])
@pytest.mark.parametrize(
    ("nesterov", "form"), [(None, pytorch_form), (False, pytorch_form), (True, keras_form)]
)
def test_sgd_equals_a_slow_loop(nesterov, form, decay_on):
    """With a rate that changes, where the two forms part; fields that are None are not in the config."""
    change = {"nesterov": nesterov, "decay_on": decay_on}
    change = {name: value for name, value in change.items() if value is not None}
    generator = np.random.default_rng(0)
    start = {"bias": generator.normal(size=3), "kernel": generator.normal(size=(2, 3))}
    start = {name: value.astype(np.float32) for name, value in start.items()}
    gradients = [
        {name: generator.normal(size=value.shape).astype(np.float32) for name, value in start.items()}
        for _ in RATES
    ]
    found = sgd(change, gradients, start)
    for name, w in start.items():
        decay = 0.0 if decay_on == "kernels" and name == "bias" else 0.2
        w, v = w.astype(np.float64), np.zeros(w.shape)
        for step, rate in enumerate(RATES):
            w, v = form(w, v, gradients[step][name] + decay * w, rate)
            np.testing.assert_allclose(found[step][name], w, rtol=2e-5, atol=1e-6)


def test_weight_decay_is_twice_the_factor_of_an_l2_penalty():
    """The penalty 1e-4 * sum(w ** 2) of the thesis, in the loss, against weight_decay 2e-4."""
    start = {"kernel": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)}
    penalty = jax.grad(lambda p: 1e-4 * sum(jnp.sum(w**2) for w in jax.tree.leaves(p)))
    options = {"nesterov": True, "decay_on": "kernels"}
    zeros = jax.tree.map(np.zeros_like, start)
    (decayed,) = sgd({**options, "weight_decay": 2e-4}, [zeros], start)
    (penalized,) = sgd({**options, "weight_decay": 0.0}, [penalty(start)], start)
    np.testing.assert_allclose(decayed["kernel"], penalized["kernel"], rtol=1e-7)
    assert np.abs(decayed["kernel"] - start["kernel"]).min() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "lion"}, "optimizer.name='lion': choose one of"),
        ({"schedule": "linear"}, "optimizer.schedule='linear': choose one of"),
        ({"name": "adam"}, "optimizer.weight_decay=0.01 works with 'adamw' or 'sgd', not 'adam'"),
    ],
)
def test_optimizer_errors(change, message):
    config = modern.get_config().optimizer
    config.update(change)
    with pytest.raises(ValueError, match=message):
        optim.create(config, num_steps=10)


def make_labels():
    labels = np.repeat([0, 1, 2], [50, 11, 2])
    return labels, np.array([f"cell{i:03d}" for i in range(63)])


def test_split_is_stratified_disjoint_and_complete():
    labels, ids = make_labels()
    first, second = splits.stratified(labels, ids, fraction=0.8, seed=0)
    assert sorted([*first, *second]) == list(range(63))
    assert np.bincount(labels[first]).tolist() == [40, 9, 1]
    assert np.bincount(labels[second]).tolist() == [10, 2, 1]


def test_split_depends_on_ids_and_seed_not_on_order():
    labels, ids = make_labels()
    order = np.random.default_rng(0).permutation(63)
    first, _ = splits.stratified(labels, ids, fraction=0.8, seed=3)
    shuffled, _ = splits.stratified(labels[order], ids[order], fraction=0.8, seed=3)
    other, _ = splits.stratified(labels, ids, fraction=0.8, seed=4)
    assert set(ids[first]) == set(ids[order][shuffled])
    assert set(ids[first]) != set(ids[other])


def test_split_is_recorded_by_id(tmp_path):
    labels, ids = make_labels()
    first, second = splits.stratified(labels, ids, fraction=0.8, seed=0)
    splits.save(tmp_path / "splits.csv", {"training": ids[first], "validation": ids[second]})
    order = np.random.default_rng(0).permutation(63)
    parts = splits.load(tmp_path / "splits.csv", ids[order])
    assert set(ids[order][parts["training"]]) == set(ids[first])
    with pytest.raises(ValueError, match=r"recorded for other examples: 2 ids differ, such as 'cell062'"):
        splits.load(tmp_path / "splits.csv", np.array([*ids[:-1], "new"]))


def test_split_errors():
    labels, ids = make_labels()
    with pytest.raises(ValueError, match=r"fraction=1.0: must lie between 0 and 1"):
        splits.stratified(labels, ids, fraction=1.0, seed=0)
    with pytest.raises(ValueError, match=r"class 2 has one example \(cell061\)"):
        splits.stratified(labels[:-1], ids[:-1], fraction=0.8, seed=0)


def row(step, value=1.0, metric="loss"):
    return {"dataset": "d", "split": "train", "metric": metric, "value": value, "step": step}


def test_rows_survive_nan_a_cut_line_and_resuming(tmp_path):
    path = tmp_path / "results.jsonl"
    work.append_rows(path, [row(1), row(2, math.nan)])
    with open(path, "a") as file:
        file.write('{"step": 3, "val')
    assert [r["step"] for r in work.read_rows(path)] == [1, 2]
    assert math.isnan(work.read_rows(path)[1]["value"])
    assert json.loads(path.read_text().splitlines()[1])["value"] is None
    work.append_rows(path, [row(3), row(4)])
    assert [r["step"] for r in work.read_rows(path)] == [1, 2, 3, 4]
    work.truncate_rows(path, step=2)
    assert [r["step"] for r in work.read_rows(path)] == [1, 2]


def test_redoing_an_evaluation_replaces_its_rows(tmp_path):
    path = tmp_path / "results.jsonl"
    work.append_rows(path, [row(1), row(1, metric="accuracy")])
    work.replace_rows(path, [row(1, 5.0)])
    work.replace_rows(path, [row(1, 6.0)])
    assert {r["metric"]: r["value"] for r in work.read_rows(path)} == {"accuracy": 1.0, "loss": 6.0}


def test_broken_row_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"value": 1, "step": 0}\nnonsense\n')
    with pytest.raises(ValueError, match=r"results.jsonl, line 2: not valid JSON"):
        work.read_rows(path)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "config.json"
    work.write_json(path, {"a": 1})

    def fail(file):
        file.write("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        work.write_atomically(path, fail)
    assert work.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_predictions_round_trip_and_refuse_pickles(tmp_path):
    made = work.Predictions(
        np.array(["a", "bé"]), np.array([0, 1]), np.array([[0.2, 0.8], [1, 0]], np.float32)
    )
    path = work.save_predictions(tmp_path, "test1", made)
    found = work.load_predictions(path)
    assert found.ids.tolist() == ["a", "bé"]
    np.testing.assert_array_equal(found.probabilities, made.probabilities)
    np.savez(path, ids=np.array([{}], dtype=object), labels=[0], probabilities=[[1.0]])
    with pytest.raises(ValueError, match="allow_pickle"):
        work.load_predictions(path)
    np.savez(path, ids=made.ids, labels=made.labels)
    with pytest.raises(ValueError, match=r"arrays \['probabilities'\] missing; found"):
        work.load_predictions(path)
    np.savez(path, ids=made.ids, labels=[0], probabilities=made.probabilities)
    with pytest.raises(ValueError, match="arrays differ in length"):
        work.load_predictions(path)


def test_not_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"no config.json; is it the work directory of a run"):
        work.load_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        work.load_run(tmp_path)


def test_versions_name_the_packages():
    found = work.versions()
    assert found["jax"] == jax.__version__
    assert found["commit"]


def test_registry_lists_what_there_is():
    assert "coos7" in registry.available("tfds_builders")
    assert registry.lookup("tfds_builders", "coos7").Builder
    with pytest.raises(ValueError, match=r"tfds_builders: no 'coos8'; available: .*coos7"):
        registry.lookup("tfds_builders", "coos8")
