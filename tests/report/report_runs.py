"""Small finished runs and images that the tests of the report share."""

import csv
import html
import re
import types

import numpy as np
from matplotlib import image as image_file

from coos import workdir
from coos.report import covariate_shift, plots
from coos.workdir import Predictions

CLASSES = ["ER", "Golgi", "Early Endosome"]
SETS = {"test1": 60, "test4": 60}
PUBLISHED = {"DeepLoc": {"test1": 1.2, "test4": 5.4}}


def predictions(name, size, *, seed, lost=0.0, absent=None):
    """Labels that depend on the set alone; a share `lost` of Early Endosome becomes Golgi."""
    generator = np.random.default_rng(len(name) + size)
    labels = generator.integers(0, 3, size)
    labels = np.where(labels == absent, 0, labels)
    noise = np.random.default_rng(seed)
    predicted = np.where(noise.random(size) < 0.05, noise.integers(0, 3, size), labels)
    predicted = np.where((labels == 2) & (noise.random(size) < lost), 1, predicted)
    logits = noise.normal(size=(size, 3)) + 4 * np.eye(3)[predicted]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    ids = np.array([f"{name}/<b>{i}</b>&\"'" for i in range(size)])
    return Predictions(ids, labels.astype(np.int32), probabilities.astype(np.float32))


def make_run(path, *, run="raw", seed=0, sets=SETS, simulated=False, dataset=None, absent=None, report=None):
    """A finished run with curves and predictions, written by coos.workdir."""
    settings = {
        "reference": "test1",
        "sets": ["validation", "test1", "test4"],
        "published": PUBLISHED,
        "published_source": "Lu et al. 2019, Table 3",
        "title": "Title",
    }
    config = {"study": "s", "run": run, "seed": seed, "steps": 20, "report": settings | (report or {})}
    facts = {
        "name": "cells",
        "version": "1.0.0",
        "class_names": CLASSES,
        "channels": ["protein", "nucleus"],
        "simulated": simulated,
        "directory": str(path),
    }
    record = {"config": config, "dataset": facts | (dataset or {}), "versions": workdir.versions()}
    workdir.write_json(path / "config.json", record)
    row = {"study": "s", "run": run, "dataset": "cells", "n": 1, "seed": seed, "fold": None}
    curves = [
        row | {"split": split, "metric": metric, "value": 1 / step, "step": step}
        for step in (5, 10, 20)
        for split, metric in (("train", "loss"), ("validation", "balanced_error"))
    ]
    best = row | {"split": "validation", "metric": "best_step", "value": 10, "step": 20}
    workdir.append_rows(path / "results.jsonl", [*curves, best])
    for name, size in sets.items():
        lost = 0.4 if name == "test4" else 0.0
        found = predictions(name, size, seed=seed + 7, lost=lost, absent=absent if name == "test4" else None)
        if name == "validation":
            found = found._replace(ids=np.array([f"train/{seed}/{i}" for i in range(size)]))
        workdir.save_predictions(path, name, found)
    return workdir.load_run(path)


def images(name):
    """A source in memory whose labels are those of `predictions`."""
    found = predictions(name, SETS[name], seed=0, lost=0)
    pixels = np.random.default_rng(0).integers(0, 60000, (SETS[name], 16, 16, 2)).astype(np.uint16)
    return types.SimpleNamespace(
        images=pixels,
        labels=found.labels,
        ids=found.ids,
        class_names=tuple(CLASSES),
        channels=("protein", "nucleus"),
    )


def write(out, runs, **options):
    """A quick report and its text."""
    path = covariate_shift.write(out, runs, num_resamples=20, **options)
    return path.read_text()


def has_label(path):
    """Whether the picture carries the red box of the label."""
    red = np.array([int(plots.SIMULATED_COLOUR[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return (np.abs(image_file.imread(path)[..., :3] - red) < 0.01).all(-1).sum() > 500


def visible(text):
    """The text of a page or a cell, without tags, style and pictures."""
    text = re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    return html.unescape(re.sub(r"<[^>]*>", " ", text))


def read(out, name):
    """The rows of a table that a report wrote as CSV."""
    with open(out / "tables" / f"{name}.csv") as file:
        return list(csv.DictReader(file))
