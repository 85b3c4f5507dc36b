"""Weak labels: cells of plates train a network, from crops or fields, on the device or streamed, all alike."""

import contextlib
import json
import pathlib
import re

import jax
import numpy as np
import polars as pl
import pytest
import tiny_cells
from run_scripts import REPOSITORY, call_script, run_script

from coos import workdir as work
from coos.data import cells, crops, plate_files, simulate
from coos.evaluators import single_cells as judging
from coos.train import run, single_cells
from tfds_builders.lincs import Builder

SIZE = 24
CONFIG = tiny_cells.__file__


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """Three plates of four compounds and controls, of small fields."""
    folder = tmp_path_factory.mktemp("plates") / "release"
    simulate.write_plates(
        folder,
        mechanisms=2,
        compounds_per_mechanism=2,
        doses=(10.0,),
        replicates=3,
        batches=2,
        dmso=2,
        height=96,
        width=96,
    )
    return folder


@pytest.fixture(scope="module")
def built(plates, tmp_path_factory):
    """The folders of both forms."""
    folder = tmp_path_factory.mktemp("built")
    found = {}
    for form in ("crops", "fields"):
        builder = Builder(source=plates, config=form, data_dir=folder, crop_size=SIZE, problems="list")
        builder.download_and_prepare()
        found[form] = str(builder.data_path)
    return found


def settings(changes):
    return {name.replace("__", "."): value for name, value in changes.items()}


def make_config(directory, **changes):
    config = tiny_cells.get_config()
    config.update_from_flattened_dict({"data.directory": directory, **settings(changes)})
    return config


def arguments(directory, workdir, **changes):
    given = {"data.directory": directory, **settings(changes)}
    return [f"--config={CONFIG}", f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in given.items())]


def test_both_forms_give_the_same_cells_which_are_cuts_of_the_files(plates, built):
    sites = plate_files.find(plates)
    of_crops, of_fields = cells.load(built["crops"]), cells.load(built["fields"])
    np.testing.assert_array_equal(of_crops.ids, of_fields.ids)
    assert len(set(of_crops.ids.tolist())) == len(of_crops)
    rows = np.random.default_rng(0).permutation(len(of_crops))[:40]
    images = of_crops.gather(rows)
    np.testing.assert_array_equal(of_fields.gather(rows), images)
    for row, image in zip(rows[:12].tolist(), images, strict=False):
        plate, well, site, number = str(of_crops.ids[row]).split("-")
        place = next(i for i in range(len(sites)) if sites.name(i) == f"{plate}-{well}-{site}")
        padded = np.pad(plate_files.read_field(sites, place), ((SIZE, SIZE), (SIZE, SIZE), (0, 0)))
        y, x = (
            np.floor(plate_files.read_centers(sites.locations[place])[int(number)] + 0.5).astype(int)
            + SIZE // 2
        )
        np.testing.assert_array_equal(image, padded[y : y + SIZE, x : x + SIZE])


def test_fields_on_the_device_give_what_the_host_cuts(built):
    source = cells.load(built["fields"])
    part = source.subset(np.random.default_rng(1).permutation(len(source))[:50])
    resident = part.resident()
    assert len(resident["fields"]) == len(np.unique(source.images.field[part.rows]))
    examples = np.array([3, 3, 49, 0, 17])
    taken = jax.jit(part.take)(resident, examples)["image"]
    np.testing.assert_array_equal(np.asarray(taken), part.gather(examples))
    assert part.num_bytes == resident["fields"].nbytes


def test_deepprofilers_window_from_fields(plates, tmp_path):
    options = {"config": "fields", "crop_size": SIZE, "window": "deepprofiler", "problems": "list"}
    builder = Builder(source=plates, data_dir=tmp_path, **options)
    builder.download_and_prepare()
    source = cells.load(builder.data_path)
    assert source.images.dtype == np.float32
    assert source.dataset["image_dtype"] == "float32"
    rows = np.array([0, 5, len(source) - 1])
    cut = source.gather(rows)
    field = np.asarray(source.images.fields[source.images.field[5]])
    np.testing.assert_array_equal(cut[1], crops.resample(field, source.images.center[5:6], SIZE)[0])
    taken = jax.jit(source.take)(source.resident(), rows)["image"]
    np.testing.assert_allclose(np.asarray(taken), cut, atol=1e-2)


def test_labels_are_compounds_and_parts_do_not_overlap(built):
    config = make_config(built["crops"], data__held_out="Metadata_Plate = 'SIMULATED0002'")
    parts = {
        name: single_cells.load_set(config, built["crops"], name)
        for name in ("training", "validation", "held_out")
    }
    ids = [set(part.ids.tolist()) for part in parts.values()]
    assert len(set.union(*ids)) == sum(map(len, ids))
    places = cells.read_places(built["crops"])
    for part in parts.values():
        assert part.dataset["class_names"] == parts["training"].dataset["class_names"]
        for i in (0, len(part) // 2, len(part) - 1):
            row = places.row(int(part.columns["place"][i]), named=True)
            assert part.class_names[part.labels[i]] == row["Metadata_broad_sample"]
            assert part.columns["well"][i] == f"{row['Metadata_Plate']}-{row['Metadata_Well']}"
            assert part.ids[i].startswith(f"{part.columns['well'][i]}-{row['Metadata_Site']}-")
    assert set(parts["held_out"].columns["plate"]) == {"SIMULATED0002"}


def test_a_query_is_a_set_of_its_own_and_training_cells_in_it_are_told(built, caplog):
    config = make_config(built["crops"])
    config.evaluation.queries = {"second": "Metadata_Plate = 'SIMULATED0002'"}
    config.evaluation.sets = ("second",)
    found = single_cells.load_set(config, built["crops"], "second")
    assert set(found.columns["plate"]) == {"SIMULATED0002"}
    assert "are training cells" in caplog.text
    assert set(single_cells.describe(config, built["crops"])["splits"]) >= {"training", "second"}
    single_cells.complete(config)


def losses(workdir):
    return [
        r["value"]
        for r in work.read_rows(workdir / "results.jsonl")
        if (r["split"], r["metric"]) == ("train", "loss")
    ]


def test_streamed_and_resident_training_are_the_same(built, tmp_path):
    found = {}
    for mode in ("stream", "resident"):
        config = make_config(built["fields"], data__mode=mode, num_epochs=1, log_every=1)
        run.train(config, tmp_path / mode)
        found[mode] = losses(tmp_path / mode)
    np.testing.assert_allclose(found["stream"], found["resident"], rtol=2e-4)
    assert len(found["stream"]) > 2


def test_epochs_are_balanced_and_counted_in_steps(built):
    config = single_cells.complete(make_config(built["crops"], num_epochs=3, optimizer__warmup_epochs=2))
    training = single_cells.load_set(config, built["crops"], "training")
    counts = np.bincount(training.labels)
    epoch = -(-len(counts) * int(np.median(counts)) // 16)
    assert config.num_steps == 3 * epoch
    assert config.evaluate_every == config.optimizer.steps_per_epoch == epoch
    assert config.optimizer.warmup_steps == 2 * epoch
    iterator = run.make_iterator(config, training)
    drawn = np.concatenate([next(iterator) for _ in range(epoch)])[: len(counts) * int(np.median(counts))]
    assert len(set(np.bincount(training.labels[drawn]).tolist())) == 1


def test_a_run_is_judged_per_cell_and_per_well_and_says_which_cells_it_saw(built, tmp_path):
    held_out = "Metadata_Plate = 'SIMULATED0001'"
    sets = "('held_out','validation')"
    done = call_script(
        "train.py", *arguments(built["crops"], tmp_path, data__held_out=held_out, evaluation__sets=sets)
    )
    assert done.returncode == 0, done.stderr
    judged = call_script("evaluate.py", f"--workdir={tmp_path}")
    assert judged.returncode == 0, judged.stderr
    found = work.load_predictions(tmp_path / "predictions" / "held_out.npz")
    per_well = judging.wells(found)
    for name, row in zip(per_well.ids, per_well.probabilities, strict=True):
        np.testing.assert_allclose(row, found.probabilities[found.columns["well"] == name].mean(0), rtol=1e-5)
    rows = {
        r["metric"]: r["value"]
        for r in work.read_rows(tmp_path / "results.jsonl")
        if r["split"] == "held_out"
    }
    assert rows["wells"] == len(per_well.ids)
    assert rows["well/accuracy"] == pytest.approx(
        (per_well.probabilities.argmax(1) == per_well.labels).mean()
    )
    assert rows["accuracy"] == pytest.approx((found.probabilities.argmax(1) == found.labels).mean())
    table = pl.read_csv(tmp_path / "parts.csv")
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    assert "SIMULATED0001" not in table["Metadata_Plate"].to_list()
    assert table["training"].sum() > 5 * table["validation"].sum() > 0
    assert config["num_steps"] > 0
    checkpoints = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    _, variables, record = run.load_best(tmp_path, step=checkpoints[0])
    assert record["best"]["step"] == checkpoints[0]
    best = run.load_best(tmp_path)[1]
    same = jax.tree.map(np.array_equal, variables["params"], best["params"])
    assert not all(jax.tree.leaves(same))  # the last step is kept as the best, "newest"
    with pytest.raises(ValueError, match="no checkpoint of step 1; there are"):
        run.load_best(tmp_path, step=1)


def test_a_killed_run_ends_as_one_that_was_not(built, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run.train(make_config(built["fields"], num_epochs=2, log_every=1), whole)
    half = make_config(built["fields"], num_epochs=2, log_every=1)
    steps = single_cells.complete(half).num_steps
    stopped = make_config(built["fields"], num_epochs=2, log_every=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coos.train.loop.stop_requests", stop_after(3))
        assert not run.train(stopped, broken)
    assert run.train(half, broken)
    assert losses(whole) == losses(broken)
    assert len(losses(whole)) == steps
    for name in ("params", "batch_stats"):
        first, second = run.load_best(whole)[1][name], run.load_best(broken)[1][name]
        jax.tree.map(np.testing.assert_array_equal, first, second)


def stop_after(calls):
    """Stands for `stop_requests`: a signal comes after so many chunks."""

    @contextlib.contextmanager
    def requests():
        left = [calls]

        def requested():
            left[0] -= 1
            return left[0] == 0

        yield requested

    return requests


def test_a_run_starts_from_another_run(built, tmp_path):
    first = make_config(built["crops"], num_epochs=1)
    run.train(first, tmp_path / "first")
    second = make_config(
        built["crops"], num_epochs=1, start_from=str(tmp_path / "first"), data__target="Metadata_moa"
    )
    run.train(second, tmp_path / "second")
    assert losses(tmp_path / "second")
    third = make_config(built["crops"], num_epochs=1, start_from=str(tmp_path / "first"), model__width=4)
    with pytest.raises(ValueError, match=r"need model.width=2, not 4"):
        run.train(third, tmp_path / "third")
    fourth = make_config(
        built["crops"], start_from=str(tmp_path / "first"), preprocess__intensity="pretrained"
    )
    with pytest.raises(ValueError, match="is a run, not imported weights"):
        run.train(fourth, tmp_path / "fourth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__target": "Metadata_gene"}, "Metadata_gene missing"),
        ({"preprocess__crop": SIZE + 1}, "larger than the images"),
        ({"evaluation__crops": 5}, r"evaluation.crops=5: choose one of \(1,\)"),
        ({"select": "accuracy"}, "select='accuracy'"),
        ({"data__split": "four"}, "data.split='four'"),
        ({"evaluation__sets": "('test',)"}, "evaluation.sets: no 'test'"),
        ({"batch_size": 100_000}, "do not fill one batch"),
        ({"data__directory": "/nowhere"}, "/nowhere: no built dataset"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(built, tmp_path, changes, message):
    changes = dict(changes)
    found = call_script(
        "train.py", *arguments(changes.pop("data__directory", built["crops"]), tmp_path / "w", **changes)
    )
    assert found.returncode == 1
    assert pathlib.Path(tmp_path / "w", "config.json").exists() is False
    assert re.search(message, found.stderr), found.stderr[-500:]


def test_other_datasets_are_told_apart(dataset, built, tmp_path):
    with pytest.raises(ValueError, match="its examples have classes, not places on plates"):
        cells.load(dataset)
    found = run_script("train.py", f"--config={REPOSITORY / 'configs/coos7/quickstart.py'}", f"--workdir={tmp_path}",
                       f"--config.data.directory={built['crops']}")  # fmt: skip
    assert "its task is 'single_cells'" in found.stderr
