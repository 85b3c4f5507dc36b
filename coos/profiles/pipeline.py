"""A row of steps, described by data: from features on disk to consensus profiles in one command.

    config.source = {"path": "{data}/features"}
    config.steps = ("aggregate", "annotate", "spherize", "consensus")
    config.aggregate = {"method": "median", "save": "level3"}
    config.annotate = {"path": "{data}/platemap/*.txt", "on": {...}}
    config.spherize = {"reference": "Metadata_broad_sample = 'DMSO'"}
    config.consensus = {"by": "Metadata_broad_sample", "method": "median"}

A step is found by its name in `STEPS`; where the same kind is needed twice, `kind` says what it is
(`config.plates = {"kind": "annotate", ...}`). Its other entries are the options of its class. `save` keeps the
table after the step as `<save>.parquet`. `{data}` in a path stands for the field `config.data`.
"""

import dataclasses
import glob
import pathlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from coos import workdir
from coos.profiles import aggregate, annotate, choose, consensus, deepprofiler, files, normalize, select
from coos.profiles.step import Step
from coos.profiles.table import Table, column_names, concatenate, listing

STEPS: dict[str, type[Step]] = {
    "aggregate": aggregate.Aggregate,
    "annotate": annotate.Annotate,
    "extract": choose.Extract,
    "fill": choose.Fill,
    "keep_rows": choose.KeepRows,
    "require_unique": choose.RequireUnique,
    "nearest_dose": choose.NearestDose,
    "keep_shared": choose.KeepShared,
    "standardize": normalize.Standardize,
    "robustize": normalize.Robustize,
    "mad_robustize": normalize.MadRobustize,
    "spherize": normalize.Spherize,
    "select": select.Select,
    "variance_threshold": select.VarianceThreshold,
    "minimum_variance": select.MinimumVariance,
    "correlation_threshold": select.CorrelationThreshold,
    "drop_missing": select.DropMissing,
    "drop_outliers": select.DropOutliers,
    "blocklist": select.Blocklist,
    "noise_removal": select.NoiseRemoval,
    "consensus": consensus.Consensus,
}
FINAL = "profiles"
WELLS, EXTRACTED, UNFINISHED = (
    "wells",
    "extract.json",
    "unfinished",
)  # in a folder that experiments/extract.py wrote
SOURCE = ("path", "metadata_columns", "drop", "feature_names", "aggregate")


@dataclasses.dataclass
class NamedStep:
    """A step of a pipeline with its name, and the name under which its table is saved ("" = not)."""

    name: str
    step: Step
    save: str = ""


def build(config: Mapping[str, Any]) -> list[NamedStep]:
    """The steps of a config, as a nested dict (`ConfigDict.to_dict()`).

    Raises:
        ValueError: an unknown kind or option, or a step without its options; the known ones are listed.
    """
    names = list(config.get("steps") or ())
    if not names:
        raise ValueError("the config names no steps")
    if len(set(names)) != len(names):
        raise ValueError(f"steps {names}: every step needs a name of its own; `kind` says what it is")
    steps = [build_step(name, config) for name in names]
    saved = [named.save for named in steps if named.save]
    for name in saved:
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError(
                f"save={name!r}: give a plain name; it becomes <name>.parquet in the work directory"
            )
    if len(set(saved)) != len(saved) or FINAL in saved:
        raise ValueError(f"two tables would be saved under one name: {[*saved, FINAL]}")
    return steps


def build_step(name: str, config: Mapping[str, Any]) -> NamedStep:
    """The step of this name in a config; errors as of `build`."""
    options = dict(config.get(name) or {})
    kind, save = options.pop("kind", name), options.pop("save", "")
    if kind not in STEPS:
        raise ValueError(f"step {name!r}: no kind {kind!r}; available: {', '.join(sorted(STEPS))}")
    _checked_options(f"step {name!r}", STEPS[kind], options)
    if isinstance(options.get("path"), str):
        options["path"] = located(options["path"], config)
    try:
        return NamedStep(name, STEPS[kind](**options), save)
    except (TypeError, ValueError) as error:
        raise ValueError(f"step {name!r}: {error}") from error


def _checked_options(where: str, step: type[Step], options: dict[str, Any]) -> dict[str, Any]:
    """`options`; ValueError if the step has no such option."""
    known = [field.name for field in dataclasses.fields(step)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{where}: {step.__name__} has no option {unknown[0]!r}; it has {', '.join(known)}")
    return options


def located(path: str, config: Mapping[str, Any]) -> str:
    """`path` with every `{field}` replaced by that field of the config; ValueError if it is empty or absent."""
    for field in re.findall(r"\{(\w+)\}", path):
        if not config.get(field):
            raise ValueError(f"{path}: say where that is, with --config.{field}=FOLDER")
        path = path.replace(f"{{{field}}}", str(config[field]))
    return path


def read_source(config: Mapping[str, Any]) -> Table:
    """The table that the pipeline starts from: a file, several that match a pattern, or a folder.

    A folder is DeepProfiler's or one that experiments/extract.py wrote. With `source.aggregate` (options of
    `aggregate`), the cells of a DeepProfiler folder are aggregated file by file and never held in memory as a whole.
    The other's `wells/<plate>.parquet` are read as they are: wells already, with their cell counts.
    """
    source = dict(config.get("source") or {})
    unknown = sorted(set(source) - set(SOURCE))
    if unknown or not source.get("path"):
        raise ValueError(
            f"config.source needs a path and may have {', '.join(SOURCE)}; it has {sorted(source)}"
        )
    path = located(source.pop("path"), config)
    streamed = source.pop("aggregate", None)
    if streamed is not None:
        streamed = dict(streamed)
        aggregate.Aggregate(**_checked_options("source.aggregate", aggregate.Aggregate, streamed))
    wells = sorted(pathlib.Path(path, WELLS).glob("*.parquet"))
    if wells or pathlib.Path(path, EXTRACTED).exists():
        _check_extracted(pathlib.Path(path), wells, streamed)
        path, streamed = str(pathlib.Path(glob.escape(path), WELLS, "*.parquet")), None
    if pathlib.Path(path).is_dir():
        names = source.pop("feature_names", None) or None
        sites = deepprofiler.sites(path, feature_names=names)
        return aggregate.aggregate_stream(sites, **streamed) if streamed else concatenate(sites)
    found = sorted(glob.glob(path))
    if not found:
        raise ValueError(f"{path}: no such file or folder")
    if source.pop("feature_names", None):
        raise ValueError(f"{path}: feature_names are for DeepProfiler folders; files have names of their own")
    table = files.read_all(found, **source)
    return aggregate.Aggregate(**streamed).transform(table) if streamed else table


def _check_extracted(
    folder: pathlib.Path, wells: Sequence[pathlib.Path], streamed: Mapping[str, Any] | None
) -> None:
    """ValueError if plates are being extracted still, or were aggregated otherwise than the config wants.

    A folder without extract.json, such as a copy of the wells alone, is taken as it is.
    """
    begun = {path.name for path in (folder / UNFINISHED).glob("*") if path.is_dir()}
    missing = sorted(begun - {path.stem for path in wells})
    if missing or not wells:
        raise ValueError(
            f"{folder}: {len(missing)} plates are not finished: {listing(missing)}; {len(wells)} are; run extract.py "
            "again, it goes on where it stopped"
        )
    if not (folder / EXTRACTED).exists():
        logging.warning("%s: has no %s, so nothing tells how its wells were made", folder, EXTRACTED)
        return
    logging.info("%s: wells of %d plates", folder, len(wells))
    if streamed is None:
        return
    method = workdir.read_json(folder / EXTRACTED)["config"]["aggregate"]
    wanted = aggregate.Aggregate(**streamed)
    if tuple(column_names(wanted.by)) != aggregate.WELL:
        raise ValueError(f"{folder}: has wells, but config.source.aggregate.by is {wanted.by!r}")
    if wanted.method != method:
        raise ValueError(
            f"{folder}: wells are the {method} of their cells, but config.source.aggregate.method is "
            f"{wanted.method!r}; extract again with --aggregate={wanted.method}, or change the config"
        )


def run(
    table: Table, steps: Sequence[NamedStep], *, save: Callable[[str, Table], None] | None = None
) -> Table:
    """`table` after all steps, each fitted on what comes in; `save(name, table)` gets the tables to keep.

    Raises:
        ValueError: as the steps do, with the step's name.
    """
    logging.info("source: %d rows, %d features", len(table), table.num_features)
    if not len(table):
        raise ValueError("the source has no rows")
    for named in steps:
        began = time.perf_counter()
        try:
            table = named.step.fit_transform(table)
        except (ValueError, TypeError) as error:
            raise ValueError(f"step {named.name!r}: {error}") from error
        if not len(table):
            raise ValueError(f"step {named.name!r}: no row is left")
        seconds = time.perf_counter() - began
        logging.info("%s: %d rows, %d features, %.1f s", named.name, len(table), table.num_features, seconds)
        if named.save and save:
            save(named.save, table)
    if save:
        save(FINAL, table)
    return table
