"""Mixup, CORAL and adapted batch-norm statistics against slow loops, and in training."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from run_scripts import call_script, run_script, train_arguments

from coos import workdir as work
from coos.data import source as sources
from coos.evaluators import adapted
from coos.train import adaptation, alignment, mixing, run


def test_mixup_blends_neighbours_in_the_shares_it_reports():
    images = np.random.default_rng(0).normal(size=(6, 4, 4, 2)).astype(np.float32)
    keys = jax.random.split(jax.random.PRNGKey(0), 6)
    blends, share = mixing.mixup(keys, images, alpha=0.4)
    share = np.asarray(share)
    for i in range(6):
        wanted = share[i] * images[i] + (1 - share[i]) * images[i - 1]
        np.testing.assert_allclose(blends[i], wanted, rtol=1e-5, atol=1e-6)
    assert mixing.partners(jnp.arange(6)).tolist() == [5, 0, 1, 2, 3, 4]


def test_shares_of_mixup_are_of_the_beta_distribution():
    keys = jax.random.split(jax.random.PRNGKey(1), 4000)
    share = np.asarray(mixing.mixup(keys, np.zeros((4000, 1)), alpha=0.2)[1])
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(0.25 / 1.4, rel=0.05)  # of Beta(a, a): 1 / (4 (2 a + 1))


def slow_penalty(features, groups, num_groups):
    """The penalty by loops over pairs of groups."""
    inside = [features[groups == g].astype(np.float64) for g in range(num_groups)]
    inside = [x for x in inside if len(x) >= 2]
    terms = []
    for g in range(len(inside)):
        for h in range(g):
            means = np.square(inside[g].mean(0) - inside[h].mean(0)).mean()
            covariances = np.square(np.cov(inside[g].T) - np.cov(inside[h].T)).mean()
            terms.append(means + covariances)
    return np.mean(terms) if terms else 0.0


@pytest.mark.parametrize("num_groups", [1, 2, 3, 6])
def test_alignment_penalty_is_the_mean_over_pairs_of_groups(num_groups):
    generator = np.random.default_rng(num_groups)
    groups = generator.integers(num_groups, size=40)
    features = generator.normal(3, 1 + groups[:, None], size=(40, 5)).astype(np.float32)
    found = jax.jit(alignment.penalty, static_argnames="num_groups")(features, groups, num_groups=num_groups)
    assert float(found) == pytest.approx(slow_penalty(features, groups, num_groups), rel=1e-4)
    order = generator.permutation(40)
    again = alignment.penalty(features[order], groups[order], num_groups=num_groups)
    assert float(again) == pytest.approx(float(found), rel=1e-4)


def test_groups_of_one_cell_do_not_count_and_gradients_stay_finite():
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    groups = np.array([0, 0, 1, 2, 0])
    assert float(alignment.penalty(features, groups, num_groups=4)) == 0
    gradient = jax.grad(lambda x: alignment.penalty(x, groups, num_groups=4))(features)
    assert np.isfinite(np.asarray(gradient)).all()


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """A tiny run on the simulated release."""
    workdir = tmp_path_factory.mktemp("plain")
    done = call_script("train.py", *train_arguments(dataset, workdir))
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.mark.parametrize("method", ["mixup", "coral"])
def test_methods_train_and_change_the_network(dataset, trained, tmp_path, method):
    settings = {"mixup": 0.3} if method == "mixup" else {"alignment__weight": 1.0, "alignment__by": "class"}
    done = call_script("train.py", *train_arguments(dataset, tmp_path, **settings))
    assert done.returncode == 0, done.stderr
    rows = work.read_rows(tmp_path / "results.jsonl")
    losses = [r["value"] for r in rows if (r["split"], r["metric"]) == ("train", "loss")]
    plain = work.read_rows(trained / "results.jsonl")
    assert losses != [r["value"] for r in plain if (r["split"], r["metric"]) == ("train", "loss")]
    assert np.isfinite(losses).all()
    penalties = [r["value"] for r in rows if r["metric"] == "alignment"]
    assert (len(penalties) > 0 and max(penalties) > 0) == (method == "coral")
    assert run.load_best(tmp_path)[2]["best"]["step"] > 0


def test_alignment_is_over_the_batch_of_all_devices(dataset, tmp_path):
    """Loss and parameters after three steps on one device and on eight."""
    found = {}
    settings = {"alignment__weight": 0.5, "alignment__by": "class", "num_steps": 3, "log_every": 1}
    for devices in (1, 8):
        out = tmp_path / str(devices)
        done = run_script("train.py", *train_arguments(dataset, out, **settings), devices=devices)
        assert done.returncode == 0, done.stderr
        rows = work.read_rows(out / "results.jsonl")
        found[devices] = [r["value"] for r in rows if r["metric"] in ("alignment", "loss")]
    np.testing.assert_allclose(found[1], found[8], rtol=2e-3)
    assert min(found[1]) > 0


def test_alignment_of_one_group_is_refused(dataset, tmp_path):
    arguments = train_arguments(dataset, tmp_path, alignment__weight=1.0, alignment__by="id:^(.)")
    done = call_script("train.py", *arguments)
    assert done.returncode == 1
    assert "all training cells are in one group" in done.stderr
    assert not (tmp_path / "config.json").exists()


def test_adapted_statistics_of_the_first_layer_are_those_of_its_activations(dataset, trained):
    learner, variables, _ = run.load_best(trained)
    source = sources.load(dataset, "test3")
    found = adaptation.adapted(learner, variables, source, batch_size=len(source))
    views = np.asarray(learner.views(source.gather(np.arange(len(source))), number=1)[:, 0], np.float64)
    # Batches are filled up to a multiple of the devices with images of the first.
    order = np.random.default_rng(0).permutation(len(source))
    size = len(source) + -len(source) % jax.local_device_count()
    kernel = variables["params"]["conv1"]["kernel"]
    bias = variables["params"]["conv1_norm"]["bias"]
    filled = views[np.resize(order, size)].astype(np.float32)
    maps = jax.lax.conv_general_dilated(
        filled, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    maps = np.asarray(maps + bias, np.float64)
    statistics = found["batch_stats"]["conv1_norm"]["norm"]
    np.testing.assert_allclose(statistics["mean"], maps.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(statistics["var"], maps.var((0, 1, 2)), rtol=1e-4)
    assert not np.allclose(statistics["mean"], variables["batch_stats"]["conv1_norm"]["norm"]["mean"])


def test_several_batches_give_the_variance_of_all_images():
    values = np.random.default_rng(0).normal(2, 3, size=(4, 10, 5))
    tree = {"layer": {"norm": {"mean": values.mean(1), "var": values.var(1)}}}
    found = adaptation._pooled(tree)["layer"]["norm"]
    np.testing.assert_allclose(found["mean"], values.reshape(-1, 5).mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["var"], values.reshape(-1, 5).var(0), rtol=1e-6)


def test_adapted_predictions_do_not_depend_on_the_gain_of_a_microscope(dataset, trained):
    """Raw intensities times a constant: running statistics are thrown off, those of the set are not."""
    learner, variables, _ = run.load_best(trained)
    constants = {"mean": [0.0, 0.0], "std": [10.0, 10.0]}
    config = learner.config.copy_and_resolve_references()
    with config.unlocked():
        config.preprocess.intensity = "standardize"
    learner = run.make_learner(config, {**learner.config, **sources.describe(dataset)}, constants)
    source = sources.load(dataset, "test1")
    brighter = source.images[source.rows] // 4 * 2  # exact in uint16, half of it
    half = type(source)(brighter // 2, source.labels, source.ids, np.arange(len(source)), source.dataset)
    whole = type(source)(brighter, source.labels, source.ids, np.arange(len(source)), source.dataset)

    def logits(part):
        own = adaptation.adapted(learner, variables, part, batch_size=64)
        return np.asarray(learner.predict(own, {"image": part.gather(np.arange(14))}, validating=True))

    np.testing.assert_allclose(logits(half), logits(whole), atol=0.02)


def test_evaluating_with_statistics_of_the_set_makes_a_run_of_its_own(trained):
    done = call_script("evaluate.py", f"--workdir={trained}", "--statistics=set", "--sets=test1,test4")
    assert done.returncode == 0, done.stderr
    found = work.load_run(trained / "statistics_set")
    assert set(found.predictions) == {"test1", "test4"}
    assert found.name == "quickstart + statistics of the set"
    again = call_script("evaluate.py", f"--workdir={trained}", "--statistics=set", "--sets=test1,test4")
    assert again.stdout == done.stdout
    more = call_script("evaluate.py", f"--workdir={trained}", "--statistics=set", "--sets=test1,test3")
    assert more.returncode == 0, more.stderr
    assert set(work.load_run(trained / "statistics_set").predictions) == {"test1", "test3", "test4"}


def test_adapted_predictions_of_another_network_are_not_taken_for_these(trained, tmp_path):
    adapted.evaluate(trained, tmp_path / "x", sets=["test1"])
    with pytest.raises(ValueError, match="was made with other by; remove the folder"):
        adapted.evaluate(trained, tmp_path / "x", by="class", sets=["test1"])
    record = work.read_json(tmp_path / "x" / "config.json")
    record["adapted"]["variables"] = "of another training"
    work.write_json(tmp_path / "x" / "config.json", record)
    with pytest.raises(ValueError, match="was made with other variables; remove the folder"):
        adapted.evaluate(trained, tmp_path / "x", sets=["test1"])


def test_groups_too_small_for_statistics_are_refused(trained, tmp_path):
    with pytest.raises(ValueError, match=r"set test1: a group by 'id:\(.\*\)' has 1 images"):
        adapted.evaluate(trained, tmp_path / "x", by="id:(.*)", sets=["test1"])
    assert not (tmp_path / "x").exists()


def test_a_network_without_batch_norm_is_refused(dataset):
    config = ml_collections.ConfigDict({"model": {"name": "vgg16"}})
    learner = type("L", (), {"config": config, "model": object()})()
    with pytest.raises(ValueError, match="'vgg16' has no running batch-norm statistics"):
        adaptation.adapted(learner, {"params": {}}, sources.load(dataset, "test1"), batch_size=8)
