"""Judge features: a classifier fitted on those of the training cells, and what it says of every set, as a run.

Lu et al. 2019, section 3.1: whatever the features, the same classifiers, on features scaled by the training cells.
The folder that results reads like that of a trained network (`coos.workdir`), with `fit.json` in the place of
checkpoints, so that the same scores, intervals and pages serve both.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coos import classifiers
from coos import workdir as work
from coos.evaluators import classification
from coos.profiles import files
from coos.profiles.table import Table
from coos.workdir import Predictions

NOTE = "fit.json"
METADATA = {"Metadata_Plate": "plate", "Metadata_Well": "well"}


def judge(
    tables: pathlib.Path,
    out: pathlib.Path,
    *,
    parts: Sequence[str],
    classifier: str,
    train_split: str,
    sets: Sequence[str],
    dataset: dict[str, Any],
    record: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Fit a classifier on the features of `parts` and write its predictions and scores to `out`; nothing if done.

    Args:
        tables: folder that `coos.extract.cells.write` filled.
        out: folder of the run that results.
        parts: layers whose features count; a feature belongs to a part if it is called <part>_...; "" takes all.
        classifier: a name in `coos.classifiers.CLASSIFIERS`.
        train_split: whose cells it is fitted on.
        sets: that are judged.
        dataset: description of the data set.
        record: config of the run: study, run, seed, report.
        options: of the classifier.

    Raises:
        ValueError: `out` is of other features or options; or as of `coos.classifiers`.
    """
    recipe = work.plain(
        {
            "classifier": classifier,
            "parts": list(parts),
            "options": dict(options),
            "seed": record["seed"],
            "train_split": train_split,
            "sets": list(sets),
            "features": work.read_json(tables / "recipe.json"),
        }
    )
    if _is_done(out, recipe):
        return
    found = {name: read(tables, name, parts) for name in dict.fromkeys((train_split, *sets))}
    labels = found[train_split].column("Metadata_Label").to_numpy()
    probabilities, note = classifiers.fit_and_predict(
        classifier,
        found[train_split].features,
        labels,
        {name: found[name].features for name in sets},
        num_classes=len(dataset["class_names"]),
        folder=out,
        seed=record["seed"],
        options=dict(options),
    )
    _write(out, found, probabilities, dataset=dataset, record=record)
    work.write_json(out / NOTE, {"recipe": recipe, "note": note})  # the last: without it nothing is done


def read(tables: pathlib.Path, name: str, parts: Sequence[str]) -> Table:
    """The table of a set with the features of some parts. ValueError lists the parts there are."""
    table = files.read(tables / f"{name}.parquet")
    columns = [
        i
        for i, feature in enumerate(table.feature_names)
        if any(not part or feature.startswith(f"{part}_") for part in parts)
    ]
    if not columns:
        known = sorted({feature.rpartition("_")[0] for feature in table.feature_names})
        raise ValueError(f"{tables}: no features of {', '.join(parts)}; it has {', '.join(known)}")
    names = tuple(table.feature_names[i] for i in columns)
    return Table(table.metadata, table.features[:, columns], names)


def _is_done(out: pathlib.Path, recipe: dict[str, Any]) -> bool:
    """Whether `out` holds the result of the recipe; ValueError if it is that of another."""
    if not (out / NOTE).exists():
        return False
    before = work.read_json(out / NOTE)["recipe"]
    different = [name for name in recipe if before.get(name) != recipe[name]]
    if different:
        raise ValueError(
            f"{out}: was fitted with other {', '.join(different)}; remove the folder, or take another work directory"
        )
    return True


def _write(
    out: pathlib.Path,
    tables: Mapping[str, Table],
    probabilities: Mapping[str, np.ndarray],
    *,
    dataset: dict[str, Any],
    record: Mapping[str, Any],
) -> None:
    labels = {
        "study": record["study"],
        "run": record["run"],
        "dataset": dataset["name"],
        "seed": record["seed"],
        "fold": None,
        "step": 0,
    }
    rows = []
    for name, found in probabilities.items():
        metadata = tables[name].metadata
        columns = {
            short: metadata[k].to_numpy().astype(str)
            for k, short in METADATA.items()
            if k in metadata.columns
        }
        predictions = Predictions(
            metadata["Metadata_Id"].to_numpy().astype(str),
            metadata["Metadata_Label"].to_numpy(),
            found,
            columns,
        )
        work.save_predictions(out, name, predictions)
        scores = classification.score(predictions, class_names=dataset["class_names"])
        rows += [
            {**labels, "split": name, "metric": k, "value": v, "n": len(found)} for k, v in scores.items()
        ]
    work.write_json(
        out / "config.json",
        {"config": dict(record), "dataset": dataset, "versions": work.versions(), "constants": {}},
    )
    work.replace_rows(out / "results.jsonl", rows)
