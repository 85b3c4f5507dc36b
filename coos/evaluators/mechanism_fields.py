"""From what a network says about fields of view to what it calls a treatment (Godinez et al. 2017, section 2.4).

    predictions, names = read_folds("runs/left-out")            # one prediction file per left-out compound
    called = treatment_probabilities(predictions, field_metadata(predictions), mechanisms=names)

Scores of the result are in `coos.evaluators.mechanisms`.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from polars import exceptions

from coos import workdir
from coos.evaluators import held_out
from coos.evaluators.mechanisms import TREATMENT, Called, as_called, require_known
from coos.profiles.table import describe, listing
from coos.workdir import Predictions

REPLICATE = ("plate", "well")
PROBABILITY = "probability: "  # before the mechanism, in names of columns
FOLD = "fold"


def read_folds(folder: pathlib.Path, *, name: str = "held_out") -> tuple[Predictions, tuple[str, ...] | None]:
    """All folds as one set, and the names of the classes if the folds' config.json say them.

    A fold is a file `<fold>.npz` in the folder, or else `<fold>/predictions/<name>.npz`, as experiments/hold_out.py
    leaves it. The column "fold" is added.

    Raises:
        ValueError: no such files, files that cannot be read, folds with other classes or numbers of them, or a field
            that two folds predict.
    """
    flat = {path.stem: path for path in sorted(folder.glob("*.npz"))}
    nested = {path.parts[-3]: path for path in sorted(folder.glob(f"*/predictions/{name}.npz"))}
    paths = flat or nested
    if not paths:
        raise ValueError(f"{folder}: no predictions of folds, neither *.npz nor */predictions/{name}.npz")
    folds = {fold: workdir.load_predictions(path) for fold, path in paths.items()}
    widths = {fold: predictions.probabilities.shape[1:] for fold, predictions in folds.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"{folder}: folds have different numbers of classes: {describe(widths)}")
    _refuse_repeated(folds)
    marked = [p._replace(columns={**p.columns, FOLD: np.full(len(p.ids), fold)}) for fold, p in folds.items()]
    return held_out.together(marked), _class_names(
        {f: path.parents[1] for f, path in nested.items()} if not flat else {}
    )


def _refuse_repeated(folds: Mapping[str, Predictions]) -> None:
    seen: dict[str, str] = {}
    for fold, predictions in folds.items():
        for field in map(str, predictions.ids):
            if field in seen:
                raise ValueError(
                    f"field {field} is predicted twice, in the folds {seen[field]} and {fold}; each compound is left "
                    "out once"
                )
            seen[field] = fold


def _class_names(folders: Mapping[str, pathlib.Path]) -> tuple[str, ...] | None:
    """The class names that the folds' records agree on; None if no fold has a record."""
    records = {
        fold: path / "config.json" for fold, path in folders.items() if (path / "config.json").exists()
    }
    names = {
        fold: tuple(workdir.read_json(path).get("dataset", {}).get("class_names", ()))
        for fold, path in records.items()
    }
    if len(set(names.values())) > 1:
        raise ValueError(f"folds were trained with other classes: {describe(names)}")
    return next(iter(names.values()), ()) or None


def check_mechanisms(called: Called, truth: Mapping[tuple[str, float], str]) -> None:
    """ValueError unless the labels that the network was judged by are those of `truth` {(compound, dose): name}."""
    for compound, dose, name in called.table.select(*TREATMENT, "mechanism").iter_rows():
        known = truth.get((compound, dose))
        if known != name:
            raise ValueError(
                f"{compound} {dose:g} is labelled {name!r} in the predictions, but {known!r} in the annotation; are "
                "the names of the classes in the order of the labels?"
            )


def treatment_probabilities(
    predictions: Predictions,
    metadata: pl.DataFrame,
    *,
    mechanisms: Sequence[str],
    treatment: Sequence[str] = TREATMENT,
    replicate: Sequence[str] = REPLICATE,
) -> Called:
    """The element-wise median over the fields of a replicate, then over replicates, then the largest.

    Args:
        predictions: of N fields, labels (N,) and probabilities (N, K).
        metadata: N rows in the same order, see `field_metadata`.
        mechanisms: the K names, in the order of the probabilities.
        treatment: the columns of compound and concentration. replicate: columns that tell a treatment's replicates
            apart; by default every well is one.

    Raises:
        ValueError: sizes that do not fit, probabilities that are not finite, unknown metadata, or fields of one
            treatment with different labels.
    """
    fields = _fields(predictions, metadata, mechanisms, treatment, replicate)
    names = [f"{PROBABILITY}{name}" for name in mechanisms]
    per_replicate = fields.group_by([*TREATMENT, *replicate]).agg(
        pl.len().alias("fields"), pl.col(names).median()
    )
    rows = per_replicate.group_by(TREATMENT).agg(
        pl.col("fields").sum(), pl.len().alias("replicates"), pl.col(names).median()
    )
    rows = rows.sort(TREATMENT)
    labels, medians = _labels(fields, mechanisms), rows.select(names).to_numpy()
    largest = medians == medians.max(1, keepdims=True)
    own = np.take_along_axis(medians, labels[:, None], 1)
    extra = rows.select("fields", "replicates", pl.Series("rank", (medians >= own).sum(1)), *names)
    calls = largest / largest.sum(1, keepdims=True)
    return as_called(rows.select(TREATMENT), labels, calls, mechanisms, extra)


def _labels(fields: pl.DataFrame, mechanisms: Sequence[str]) -> np.ndarray:
    """(T,) the label of each treatment, sorted; ValueError if its fields have several."""
    rows = fields.group_by(TREATMENT).agg(pl.col("label").unique().sort()).sort(TREATMENT)
    mixed = rows.filter(pl.col("label").list.len() > 1)
    if mixed.height:
        named = [mechanisms[k] for k in mixed["label"][0]]
        raise ValueError(
            f"{describe(mixed.select(TREATMENT).row(0, named=True))}: its fields are labelled {listing(named)}; "
            "a treatment has one mechanism"
        )
    return rows["label"].list.first().to_numpy()


def field_metadata(
    predictions: Predictions, known: pl.DataFrame | None = None, *, key: str = "id"
) -> pl.DataFrame:
    """A row for each prediction: of its own columns, or of the table `known`, found by id in the column `key`.

    Raises:
        ValueError: an id that `known` lacks or has twice.
    """
    if known is None:
        return pl.DataFrame({name: np.asarray(column) for name, column in predictions.columns.items()})
    if key not in known.columns:
        raise ValueError(
            f"the metadata have no column {key!r} to find fields by; they have {listing(known.columns)}"
        )
    known = known.with_columns(pl.col(key).cast(pl.String))
    repeated = known.filter(pl.col(key).is_duplicated())[key].unique().sort().to_list()
    if repeated:
        raise ValueError(f"{len(repeated)} fields stand in the metadata twice: {listing(repeated)}")
    ids = pl.DataFrame({key: np.asarray(predictions.ids, np.str_)})
    absent = ids.join(known, on=key, how="anti")[key].to_list()
    if absent:
        raise ValueError(f"{len(absent)} predicted fields are not in the metadata: {listing(absent)}")
    return ids.join(known, on=key, how="left", maintain_order="left")


def _fields(predictions, metadata, mechanisms, treatment, replicate) -> pl.DataFrame:
    """Keys, label and probabilities of every field, checked; the treatment's columns get the names of TREATMENT."""
    probabilities, labels = np.asarray(predictions.probabilities), np.asarray(predictions.labels)
    count, width = len(probabilities), len(mechanisms)
    if (
        probabilities.shape != (count, width)
        or labels.shape != (count,)
        or metadata.height != count
        or not count
    ):
        raise ValueError(
            f"probabilities {probabilities.shape}, labels {labels.shape}, {metadata.height} rows of metadata and "
            f"{width} mechanisms do not fit; there must be at least one field, and a row of each for every field"
        )
    broken = np.flatnonzero(~np.isfinite(probabilities).all(1) | (labels < 0) | (labels >= width))
    if len(broken):
        raise ValueError(
            f"{len(broken)} fields have probabilities that are not finite, or labels outside 0 to {width - 1}; the "
            f"first is {predictions.ids[broken[0]]}"
        )
    missing = [name for name in (*treatment, *replicate) if name not in metadata.columns]
    if missing:
        raise ValueError(
            f"no column {listing(missing)} in the metadata; there are {listing(metadata.columns, 40)}"
        )
    try:
        keys = metadata.select(
            pl.col(treatment[0]).alias(TREATMENT[0]),
            pl.col(treatment[1]).cast(pl.Float64).alias(TREATMENT[1]),
            *replicate,
        )
    except exceptions.InvalidOperationError as error:
        raise ValueError(f"{treatment[1]} has values that are not numbers: {error}") from error
    require_known(keys)
    columns = {f"{PROBABILITY}{name}": probabilities[:, k] for k, name in enumerate(mechanisms)}
    values = pl.DataFrame(columns).cast(pl.Float64)
    return keys.with_columns(pl.Series("label", labels.astype(np.int64)), *values.get_columns())
