"""The study of representations, from a simulated release to its page: everything in small, stops, bad input."""

import csv
import dataclasses
import shutil

import jax
import numpy as np
import pytest
from run_scripts import REPOSITORY, call_script

from coos import workdir as work
from coos.data import source as sources
from coos.evaluators import features
from coos.extract import cells
from coos.profiles import files

CONFIG = REPOSITORY / "configs" / "coos7" / "table3.py"
SETS = ("training", "test1", "test3")
TINY = {
    "networks.pci.config.pairs.by": "class",  # eight cells of a class: none shares its well
    "networks.pci.config.data.validation_fraction": 0.4,
    "data.sets": SETS,
    "seeds": (0,),
    "features.vgg16.options.width": 2,
    "classifiers.random_forest.draws": 2,
    "classifiers.random_forest.folds": 2,
    "classifiers.knn.k": 3,
}


def arguments(dataset, workdir, **settings):
    networks = {}
    for name in ("deeploc", "plain", "illumination", "mixup", "label_smoothing", "coral", "pci"):
        short = {"num_steps": 4, "evaluate_every": 4, "checkpoint_every": 4, "batch_size": 16, "log_every": 2}
        networks |= {f"networks.{name}.config.{field}": value for field, value in short.items()}
        networks[f"networks.{name}.config.evaluation.batch_size"] = 32
        if name != "pci":
            networks[f"networks.{name}.config.model.width"] = 2
    known = {**TINY, **networks, "data.directory": str(dataset), **settings}
    flags = [f"--config.{name}={value}" for name, value in known.items()]
    return [f"--config={CONFIG}:small", f"--workdir={workdir}", *flags]


@pytest.fixture(scope="module")
def study(dataset, tmp_path_factory):
    """A finished study of the simulated release, and what the command printed."""
    workdir = tmp_path_factory.mktemp("study")
    done = call_script("table3.py", *arguments(dataset, workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout.strip().splitlines()[-1]


def table(workdir, name):
    """The rows of one of the page's tables."""
    with open(workdir / "report" / "tables" / f"{name}.csv") as file:
        return list(csv.DictReader(file))


def test_every_row_of_the_table_is_there_with_its_interval(study):
    workdir, page = study
    assert page == str(workdir / "report" / "index.html")
    rows = table(workdir, "table3")
    assert len(rows) == 25 * len(SETS)  # as many rows as in the paper
    for row in rows:
        low, value, high = (
            float(row[k]) for k in ("balanced_error_low", "balanced_error", "balanced_error_high")
        )
        assert 0 <= low <= value + 1e-6
        assert value - 1e-6 <= high <= 1
        assert float(row["published"]) >= 0
    bold = [row for row in rows if row["best_of_method"] == "True"]
    assert {(row["method"], row["set"]) for row in bold} == {
        (m, s) for m in ("DeepLoc", "Texture", "PCI", "VGG16") for s in SETS
    }
    text = (workdir / "report" / "index.html").read_text()
    assert "VGG16 conv3_3 (untrained)" in text
    assert "NOT COMPARABLE" in text
    assert "SIMULATED" in text


def test_methods_are_held_against_the_plain_network(study):
    workdir, _ = study
    rows = table(workdir, "shift_methods")
    assert len(rows) == 6 * len(SETS)
    errors = {(row["configuration"], row["set"]): float(row["balanced_error"]) for row in rows}
    for row in rows:
        wanted = errors[row["configuration"], row["set"]] - errors["plain network", row["set"]]
        assert float(row["difference"]) == pytest.approx(wanted, abs=1e-7)


def test_a_score_of_the_table_is_that_of_its_predictions(study):
    workdir, _ = study
    found = work.load_predictions(workdir / "classifiers/texture/knn/seed_0/predictions/test3.npz")
    predicted = found.probabilities.argmax(-1)
    error = 1 - np.mean([(predicted[found.labels == k] == k).mean() for k in np.unique(found.labels)])
    rows = table(workdir, "table3")
    mine = [r for r in rows if (r["configuration"], r["set"]) == ("Texture, kNN", "test3")]
    assert float(mine[0]["balanced_error"]) == pytest.approx(error, abs=1e-6)


def test_the_same_command_does_what_is_missing_alone(study, dataset, tmp_path):
    first, _ = study
    workdir = tmp_path / "study"
    shutil.copytree(first, workdir)
    lost = workdir / "classifiers" / "texture" / "random_forest" / "seed_0"
    before = np.load(lost / "predictions" / "test3.npz")["probabilities"]
    shutil.rmtree(lost)
    kept = {path: path.stat().st_mtime_ns for path in workdir.glob("[cfn]*/**/*.npz")}
    tables = {path: path.stat().st_mtime_ns for path in workdir.glob("features/**/*.parquet")}
    done = call_script("table3.py", *arguments(dataset, workdir))
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert {path: path.stat().st_mtime_ns for path in tables} == tables
    assert np.array_equal(np.load(lost / "predictions" / "test3.npz")["probabilities"], before)


def test_other_settings_in_the_same_folder_are_refused(study, dataset):
    workdir, _ = study
    before = (workdir / "report" / "index.html").read_text()
    other = arguments(dataset, workdir, **{"classifiers.knn.k": 5})
    done = call_script("table3.py", *other)
    assert done.returncode == 1
    assert "was fitted with other options" in done.stderr
    done = call_script("table3.py", *arguments(dataset, workdir, **{"networks.pci.config.num_steps": 8}))
    assert done.returncode == 1
    assert "num_steps: 4 there, 8 now" in done.stderr
    assert (workdir / "report" / "index.html").read_text() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features.vgg16.untrained": False}, "import_weights.py --network=vgg16"),
        ({"data.sets": ("training", "test9")}, "no 'test9'"),
        ({"data.sets": ("training", "test3")}, "config.report.reference='test1' is not in"),
        ({"data.directory": ""}, "config.data.directory: say which"),
        ({"end_to_end": ("alexnet",)}, "no network 'alexnet'; config.networks has coral, deeploc"),
        ({"seeds": ()}, "config.seeds"),
    ],
)
def test_what_cannot_be_right_is_said_before_anything_is_made(dataset, tmp_path, settings, message):
    done = call_script("table3.py", *arguments(dataset, tmp_path / "x", **settings))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "x").exists()


def test_report_only_needs_what_it_shows(dataset, tmp_path):
    done = call_script("table3.py", *arguments(dataset, tmp_path), "--report_only")
    assert done.returncode == 1
    assert "not made yet" in done.stderr


def test_every_layer_of_vgg16_can_be_had(dataset):
    source = sources.load(dataset, "test1")
    found = cells.of_untrained_rgb("vgg16", parts=("conv1_1", "pool5", "conv5_3"), width=2, fc_units=1)
    assert len(found.feature_names(source)) == 2 + 16 + 16
    with pytest.raises(ValueError, match="layer 'conv9': the network has conv1_1"):
        cells.of_untrained_rgb("vgg16", parts=("conv9",), width=2, fc_units=1).feature_names(source)


def test_rgb_features_see_the_protein_alone_in_8_bits(dataset):
    """Another nucleus, or protein intensities that round to the same bytes, change nothing."""
    source = sources.load(dataset, "test1")
    images = source.gather(np.arange(4))
    found = cells.of_untrained_rgb("vgg16", parts=("conv2_1",), width=2, fc_units=1)
    compute = jax.jit(found.compute)
    wanted = compute(found.variables, images)["conv2_1"]
    other = images.copy()
    other[..., 1] = other[..., 1][:, ::-1]
    assert np.array_equal(compute(found.variables, other)["conv2_1"], wanted)
    doubled = images.astype(np.float32) * 2 + 100
    np.testing.assert_array_equal(compute(found.variables, doubled)["conv2_1"], wanted)


@pytest.mark.parametrize("kind", ["texture", "rgb", "deeploc", "pci"])
def test_features_are_the_same_on_one_and_on_eight_devices(study, dataset, tmp_path, monkeypatch, kind):
    workdir, _ = study
    found = {
        "texture": lambda: cells.of_texture(),
        "rgb": lambda: cells.of_untrained_rgb("vgg16", parts=("conv3_3",), width=2, fc_units=1),
        "deeploc": lambda: cells.of_run(workdir / "networks" / "deeploc" / "seed_0", parts=("fc2",)),
        "pci": lambda: cells.of_run(workdir / "networks" / "pci" / "seed_0", parts=("conv3_1", "conv5_1")),
    }[kind]()
    # Four cells a device: on eight devices the set is spread over several, on one it takes several batches.
    found = dataclasses.replace(found, batch_size=4)
    cells.write(found, dataset, ["test1"], tmp_path / "eight")
    with monkeypatch.context() as patch:
        one = jax.local_devices()[:1]
        patch.setattr(jax, "local_devices", lambda *a, **k: one)
        patch.setattr(jax, "local_device_count", lambda *a, **k: 1)
        cells.write(found, dataset, ["test1"], tmp_path / "one")
    eight, one = (files.read(tmp_path / name / "test1.parquet") for name in ("eight", "one"))
    assert eight.feature_names == one.feature_names
    assert np.array_equal(eight.features, one.features)
    assert len(np.unique(eight.features, axis=0)) > 1
    source = sources.load(dataset, "test1")
    assert eight.metadata["Metadata_Id"].to_list() == source.ids.tolist()


def test_a_fit_without_its_note_is_made_again(study, dataset, tmp_path):
    """The note is written last: where a kill came before it, predictions are not taken for finished ones."""
    workdir, _ = study
    out = tmp_path / "knn"
    shutil.copytree(workdir / "classifiers/texture/knn/seed_0", out)
    wanted = (out / "predictions" / "test3.npz").read_bytes()
    (out / "predictions" / "test3.npz").write_bytes(b"half")
    record = work.read_json(out / "config.json")
    settings = {
        "parts": ("",),
        "classifier": "knn",
        "train_split": "training",
        "sets": SETS,
        "dataset": record["dataset"],
        "record": record["config"],
        "options": {"k": 3},
    }
    tables = workdir / "features" / "texture" / "seed_0"
    features.judge(tables, out, **settings)
    assert (out / "predictions" / "test3.npz").read_bytes() == b"half"  # the note says that it is finished
    (out / "fit.json").unlink()
    features.judge(tables, out, **settings)
    assert (out / "predictions" / "test3.npz").read_bytes() == wanted
    with pytest.raises(ValueError, match="no features of fc9; it has"):
        features.read(tables, "test1", ("fc9",))
