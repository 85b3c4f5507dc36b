"""Small finished runs of assay predictions, and their images, that the tests of that page share."""

import types

import numpy as np

from coos import workdir
from coos.report import assays
from coos.workdir import Predictions

CHANNELS = ("Mito", "ERSyto", "ERSytoBleed", "Ph_golgi", "Hoechst")


def task_names(number):
    """IDs of assays: one repeated, one long, one that HTML would read as a tag, one that Matplotlib would as math."""
    odd = ["688422", "688422 (2)", "a very long name of an assay " * 4, '<b>bold</b> & "quoted"', "$x$_1"]
    return [*odd, *(f"{700000 + i}" for i in range(number))][:number]


def make_labels(num_compounds, num_tasks, *, share=0.4, seed=0):
    """(compounds, T) int8; assay 1 has no actives, assay 2 no inactives, assay 3 no labels."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(np.array([-1, 1], np.int8), (num_compounds, num_tasks), p=(0.6, 0.4))
    labels[generator.random(labels.shape) > share] = 0
    labels[:, 1] = -np.abs(labels[:, 1])
    labels[:, 2] = np.abs(labels[:, 2])
    labels[:, 3] = 0
    return labels


def make_predictions(labels, *, strength, views=3, seed=0, wells=None):
    """Probabilities of `views` views of one well per compound; their logits are `strength` times the label, plus noise.

    A strength of 1 is about an AUROC of 0.76 per view. With `wells` only those compounds have a well.
    """
    generator = np.random.default_rng(seed)
    rows = np.repeat(np.arange(len(labels)) if wells is None else wells, views)
    task_strength = strength * np.linspace(0.3, 1.7, labels.shape[1])
    logits = task_strength * labels[rows] + generator.normal(0, 1, (len(rows), labels.shape[1]))
    names = np.array([f"p1-w{row:03d}" for row in rows])
    site = np.tile(np.arange(views), len(rows) // views)
    ids = np.array([f"{name}-{s}" for name, s in zip(names, site, strict=True)]) if views > 1 else names
    columns = {
        "well": names,
        "compound": np.array([f"KEY{row:03d}" for row in rows]),
        "cell_count": 100 + rows.astype(np.int32),
    }
    return Predictions(ids, labels[rows], (1 / (1 + np.exp(-logits))).astype(np.float32), columns)


def make_run(
    path,
    *,
    run="gapnet",
    seed=0,
    labels,
    strength=1.0,
    views=3,
    simulated=False,
    baseline=True,
    sets=("validation", "test"),
    wells=None,
    tasks=None,
    task="multitask",
    shape=(24, 32, 5),
    parameters=1234,
):
    """A finished run with curves, speeds and predictions, written by coos.workdir."""
    config = {"study": "s", "task": task, "run": run, "seed": seed, "report": {"title": "Title"}}
    config["data"] = {"train_split": "train", "epoch_share": 0.5}
    facts = {
        "name": "cell_painting/views" if views > 1 else "cell_painting/profiles",
        "version": "1.0.0",
        "tasks": tasks or task_names(labels.shape[1]),
        "assay_ids": tasks or task_names(labels.shape[1]),
        "channels": list(CHANNELS),
        "simulated": simulated,
        "splits": {"train": 1000, "validation": 10, "test": 10},
        "image_shape": list(shape),
        "directory": str(path),
    }
    record = {"config": config, "dataset": facts, "versions": workdir.versions(), "parameters": parameters}
    workdir.write_json(path / "config.json", {**record, "devices": ["TFRT_CPU_0"]})
    row = {"study": "s", "run": run, "dataset": facts["name"], "n": 1, "seed": seed, "fold": None}
    curves = [
        row | {"split": split, "metric": metric, "value": value, "step": step}
        for step in (5, 10, 20)
        for split, metric, value in (
            ("train", "loss", 0.7 - step / 100),
            ("validation", "cross_entropy", 0.72 - step / 200),
            ("validation", "mean_auroc", 0.5 + step / 100),
            ("speed", "images_per_second", 20.0 + step),
        )
    ]
    best = row | {"split": "validation", "metric": "best_step", "value": 10, "step": 20}
    workdir.append_rows(path / "results.jsonl", [*curves, best])
    for number, name in enumerate(sets):
        found = make_predictions(
            labels, strength=strength, views=views, seed=100 * seed + number, wells=wells
        )
        workdir.save_predictions(path, name, found)
        if baseline:
            single = make_predictions(labels, strength=0.15, views=1, seed=7 + number, wells=wells)
            workdir.save_predictions(path, name, single, folder="baseline")
    return workdir.load_run(path)


def images(predictions, *, shape=(24, 32, 5)):
    """A function from a set's name to a source of noise with the ids of the predictions, in another order."""
    order = np.random.default_rng(0).permutation(len(predictions.ids))
    pixels = np.random.default_rng(1).integers(0, 4000, (len(order), *shape)).astype(np.uint16)

    def load(name):
        assert name == "test"
        return types.SimpleNamespace(
            ids=predictions.ids[order], channels=CHANNELS, gather=lambda examples: pixels[examples]
        )

    return load


def write(out, runs, **options):
    """A quick report and its text."""
    path = assays.write(out, runs, **{"num_resamples": 20, "num_permutations": 99, **options})
    return path.read_text()
