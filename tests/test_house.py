"""The architecture: imports go down, configs load and describe runnable things, no study in a module's name."""

import ast
import dataclasses
import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest
from run_scripts import loaded

from coos import models, optim, registry
from coos import workdir as work
from coos.data import preprocess
from coos.evaluators import retrieval
from coos.models import pci, summary
from coos.profiles import pipeline
from coos.train import classification, inpainting, phenotypes, run, single_cells

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
FLOORS = [
    {"registry", "losses", "optim", "splits", "workdir", "metrics", "console", "concentrations", "texture"},
    {"classifiers"},
    {"profiles"},
    {"data"},
    {"models"},
    {"train"},
    {"extract"},
    {"evaluators"},
    {"report"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
MODULES = sorted((REPOSITORY / "coos").rglob("*.py"))
CONFIGS = sorted(p for p in (REPOSITORY / "configs").rglob("*.py") if p.stem != "__init__")
PIPELINES = [path for path in CONFIGS if path.stem == "profiles"]  # for experiments/profile.py
STUDIES = [path for path in CONFIGS if path.stem == "study"]  # for experiments/lincs.py
TABLES = [path for path in CONFIGS if path.stem == "table3"]  # for experiments/table3.py
OTHERS = ("profiles", "study", "table3")
TRAININGS = [path for path in CONFIGS if path.stem not in OTHERS]  # for experiments/train.py


def imported(path):
    """Second parts of the coos modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts == ["coos"]:
                yield from (alias.name for alias in node.names)
            elif parts[0] == "coos":
                yield parts[1]
            elif parts[0] in ("configs", "experiments", "tfds_builders"):
                raise AssertionError(f"{path} imports {node.module}")
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("coos."))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_imports_go_down(path):
    own = path.relative_to(REPOSITORY / "coos").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imported(path):
        assert LEVEL[name] <= LEVEL[own], f"{path} imports coos.{name}, which is above it"


def test_no_study_in_a_module_name():
    studies = ("coos7", "mcnn", "cell_painting", "lincs")
    networks = REPOSITORY / "coos" / "models" / "mcnn.py"  # the study is called after its network
    assert not [p for p in MODULES if p != networks and any(study in p.stem for study in studies)]


def load_config(path):
    config = importlib.import_module(f"configs.{path.parent.name}.{path.stem}").get_config()
    assert work.plain(config.to_dict()) == json.loads(json.dumps(config.to_dict()))
    return config


def test_every_config_is_of_a_known_kind():
    studies = {"coos7", "cell_folder", "lincs", "bbbc021", "cell_painting", "mcnn"}
    assert {path.parent.name for path in CONFIGS} == studies
    assert len(CONFIGS) == len(TRAININGS) + len(PIPELINES) + len(STUDIES) + len(TABLES)


def of_task(task):
    return [path for path in TRAININGS if load_config(path).task == task]


@pytest.mark.parametrize("path", of_task("classification"), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config_describes_a_classifier_that_can_be_built(path):
    config = load_config(path)
    dataset = {"class_names": list("abcdefg"), "image_shape": [64, 64, 2]}
    constants = {"mean": [0.0, 0.0], "std": [1.0, 1.0]}
    if config.preprocess.intensity == "stretch":
        constants = {"min_span": config.preprocess.min_span}
    classifier = run.make_learner(config, dataset, constants)
    shapes = jax.eval_shape(classifier.init, jax.random.PRNGKey(0))
    assert shapes["params"]["logits"]["kernel"].shape[-1] == 7
    assert config.select in ("balanced_error", "cross_entropy")
    assert config.report.reference in config.evaluation.sets
    assert config.num_steps % config.evaluate_every == 0


@pytest.mark.parametrize("path", of_task("multitask"), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config_describes_an_assay_predictor_that_can_be_built(path):
    config = load_config(path)
    shapes = {"fnn": [1783], "sc_cnn": [96, 96, 5]}
    dataset = {"tasks": list("abc"), "image_shape": shapes.get(config.model.name, [520, 696, 5])}
    constants = {"mean": [0.0], "std": [1.0]} if config.preprocess.intensity == "standardize" else {}
    learner = run.make_learner(config, dataset, constants)
    parameters = jax.eval_shape(learner.init, jax.random.PRNGKey(0))["params"]
    assert parameters["logits"]["kernel"].shape[-1] == 3
    assert run.plan(config).maximize == (config.select == "mean_auroc")
    assert config.batch_size % config.accumulation_steps == 0


@pytest.mark.parametrize("path", of_task("single_cells"), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config_describes_a_network_for_single_cells_that_can_be_built(path):
    config = load_config(path)
    dataset = {"class_names": list("abc"), "image_shape": [128, 128, 5]}
    learner = run.make_learner(config, dataset, {"mean": [0.0] * 5, "std": [1.0] * 5})
    shapes = jax.eval_shape(learner.init, jax.random.PRNGKey(0))
    assert shapes["params"]["logits"]["kernel"].shape[-1] == 3
    single_cells.rules(config)  # every field is there and can be right
    augmented = preprocess.augment(
        jax.random.PRNGKey(1), jnp.zeros((128, 128, 5)), **classification.augment_options(config)
    )
    assert augmented.shape == (config.preprocess.crop, config.preprocess.crop, 5)
    config.optimizer.steps_per_epoch = 2
    rate = optim.schedule(config.optimizer, num_steps=2 * config.num_epochs)
    assert (
        0
        < max(float(rate(step)) for step in range(2 * config.num_epochs))
        <= config.optimizer.learning_rate * 1.0001
    )


@pytest.mark.parametrize("path", of_task("inpainting"), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config_describes_an_inpainter_that_can_be_built(path):
    config = load_config(path)
    config.model.source_channels = 2  # what `complete` reads off the cells
    learner = run.make_learner(config, {"class_names": list("abc"), "image_shape": [64, 64, 2]}, {})
    shapes = jax.eval_shape(learner.init, jax.random.PRNGKey(0))
    assert shapes["params"]["logits"]["kernel"].shape[-1] == 1
    assert summary.count(shapes["params"]) == pci.PUBLISHED.parameters
    optim.create(config.optimizer, num_steps=config.num_steps)
    assert config.select in inpainting.SELECTED
    assert config.pairs.smallest_group >= 2
    assert config.num_steps % config.evaluate_every == 0


@pytest.mark.parametrize("path", of_task("phenotypes"), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config_describes_networks_for_whole_fields_that_can_be_built(path):
    config = load_config(path)
    dataset = {"class_names": list("abc"), "image_shape": [1024, 1280, 3]}
    with loaded("phenotypes.py") as script:
        for network in config.networks:
            own = script.of_network(config, network)
            phenotypes.check(own)
            learner = phenotypes.make(own, dataset)
            shapes = summary.shapes(learner.model, learner.prepared_shape())["params"]
            assert shapes["logits"]["kernel"].shape[-1] == 3
            assert set(config.report.layers.get(network, ())) <= set(shapes)


def test_every_experiment_of_the_thesis_is_a_config_of_its_own():
    experiments = importlib.import_module("configs.lincs.experiments")
    found = {name: experiments.get_config(name) for name in experiments.EXPERIMENTS}
    assert set(experiments.PUBLISHED) <= set(found)
    for name, config in found.items():
        single_cells.rules(config)
        assert config.run == name
        rate, boundaries = config.optimizer.learning_rate, config.optimizer.boundaries
        assert (config.optimizer.schedule == "step") == bool(boundaries), name
        assert 0 < rate <= 0.04
    augmented = {name for name, config in found.items() if config.augment.zoom_probability}
    assert augmented == {"1010", "1028", "1105"}
    assert found["1028"].label_smoothing == 0.1
    assert found["1028"].published.odds_ratio == 16.18
    with pytest.raises(ValueError, match="no experiment '9'; available: 813"):
        experiments.get_config("9")


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config_describes_a_study_of_known_tables(path):
    config = load_config(path)
    assert set(config.tables) <= set(config.networks)
    for name in config.pipelines:
        assert importlib.import_module(f"configs.{path.parent.name}.profiles").get_config(name)


@pytest.mark.parametrize("path", TABLES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config_describes_a_table_of_networks_and_features_there_are(path):
    config = load_config(path)
    dataset = {"class_names": list("abc"), "image_shape": [64, 64, 2], "num_groups": 2}
    with loaded("table3.py") as script:
        needed = script.needed_networks(config)
        assert set(needed) == set(config.networks)
        for name in needed:
            own = script.network_config(config, name, 1)
            constants = {"mean": [0.0, 0.0], "std": [1.0, 1.0]}
            if own.preprocess.intensity != "standardize":
                constants = {"min_span": 1.0} if own.preprocess.intensity == "stretch" else {}
            learner = run.make_learner(own, dataset, constants)
            assert jax.eval_shape(learner.init, jax.random.PRNGKey(0))["params"]
            assert (own.seed, own.num_steps % own.evaluate_every) == (1, 0)
        titles = [script.title_of(config, block) for block in script.used_blocks(config).values()]
        assert len(set(titles)) == len(titles) == 8
        known = {entry.published for entry in script.entries(config, pathlib.Path("x"))}
        assert set(config.report.published) <= known


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config_describes_a_pipeline_that_can_be_built(path):
    config = load_config(path).to_dict()
    steps = pipeline.build({**config, "data": "data", "metadata": "metadata"})
    assert [named.name for named in steps] == list(config["steps"])
    known = {field.name for field in dataclasses.fields(retrieval.Protocol)}
    assert set(config["retrieval"]) <= known | {"controls", "batch", "cell_count"}
    assert config["published_source"]


def test_every_model_and_builder_is_importable():
    for package in ("coos.models", "tfds_builders"):
        for name in registry.available(package):
            assert registry.lookup(package, name).__doc__
    assert "deeploc" in models.available()
