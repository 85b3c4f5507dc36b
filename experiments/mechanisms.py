"""Mechanisms of left-out compounds: nearest neighbours of profiles, or what networks predict, on one page.

    python experiments/mechanisms.py --config=configs/bbbc021/mechanisms.py --config.data=FOLDER --workdir=runs/moa
    python experiments/mechanisms.py --config=configs/bbbc021/mechanisms.py --config.data=FOLDER --predictions=FOLDS \
        --workdir=runs/network

Of profiles, every normalization of the config's grid is tried: as it is, chosen for each compound by the labels of the
others (nested), and chosen by how alike replicates are (label-free). FOLDS holds per-field predictions of networks
that were trained without one compound after the other: FOLDS/<compound>.npz, or runs with predictions/held_out.npz.

Writes results.jsonl, treatments.csv (every method and treatment), index.html, figures and tables.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl
from absl import app, flags, logging
from ml_collections import config_flags

from coos import console
from coos import workdir as work
from coos.data import simulate
from coos.evaluators import mechanism_choice, mechanism_fields, mechanisms
from coos.evaluators.mechanism_choice import Choice
from coos.profiles import choose, pipeline
from coos.profiles.table import Table
from coos.report import mechanisms as report
from coos.report.mechanisms import Method

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/bbbc021/mechanisms.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for rows, tables and the page.", required=True)
_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of per-field predictions, one file per fold.")
_METADATA = flags.DEFINE_string(
    "metadata", None, "CSV or Parquet of the fields by id (default: their own columns)."
)
_NAME = flags.DEFINE_string("name", "network", "What to call the network of --predictions.")
flags.mark_flag_as_required("config")

LEFT_OUT = "left-out compound"
MARKS = ("method", "protocol", "chosen")  # before the columns of treatments.csv


class Grid(NamedTuple):
    """Treatments' profiles of every setting, and how alike replicates are in each: {setting: {measure: value}}."""

    tables: dict[str, Table]
    alike: dict[str, dict[str, float]]
    simulated: bool


def run_grid(config: dict[str, Any]) -> Grid:
    """Every setting of the config, from wells to treatments."""
    wells = pipeline.run(pipeline.read_source(config), pipeline.build({**config, "steps": config["before"]}))
    after = pipeline.build({**config, "steps": config["after"]})
    without_controls = choose.KeepRows(query=f"NOT ({config['controls']})")
    tables, alike = {}, {}
    for name, setting in config["settings"].items():
        logging.info("setting %s", name)
        try:
            treated = without_controls.transform(pipeline.run(wells, pipeline.build(setting)))
            alike[name] = mechanism_choice.reproducibility(treated, treatment=config["treatment"])
            tables[name] = pipeline.run(treated, after)
        except ValueError as error:
            raise ValueError(f"setting {name!r}: {error}") from error
    return Grid(tables, alike, any(map(is_marked, wells.metadata["Metadata_Plate"].to_list())))


def is_marked(text: Any) -> bool:
    """Whether a name bears the mark of simulated data."""
    return simulate.MARK in str(text)


def options(config: dict[str, Any]) -> dict[str, Any]:
    """What neighbours are compared by."""
    retrieval = config["retrieval"]
    return {
        "label": retrieval["label"],
        "similarity": retrieval["similarity"],
        "treatment": config["treatment"],
    }


def profile_methods(config: dict[str, Any], grid: Grid) -> tuple[list[Method], dict[str, Choice]]:
    """All methods under all protocols, and the nested choices."""
    given, found, choices = options(config), [], {}
    for protocol, exclude in config["protocols"].items():
        plain = {
            name: mechanisms.nearest_neighbour_predictions(table, exclude=exclude, **given)
            for name, table in grid.tables.items()
        }
        fixed = sorted(config["fixed"].items(), key=lambda item: item[0] != config["reference"])
        found += [Method(name, protocol, chosen, plain[name]) for name, chosen in fixed]
        best = max(plain, key=lambda name: mechanisms.accuracy(plain[name]).right)
        found.append(Method(f"best of the grid ({best})", protocol, "judged", plain[best]))
        for measure in next(iter(grid.alike.values())):
            name, equals = mechanism_choice.label_free({n: v[measure] for n, v in grid.alike.items()})
            if equals > 1:
                logging.warning("%d settings share the best %s; taken is %s", equals, measure, name)
            found.append(Method(f"most {measure} ({name})", protocol, "label-free", plain[name]))
        for by in dict.fromkeys((next(iter(config["protocols"])), protocol)):
            nested = mechanism_choice.nested(
                grid.tables, chosen_by=config["protocols"][by], exclude=exclude, **given
            )
            choices[f"by {by}"] = nested
            found.append(Method(f"nested, chosen by {by}", protocol, "nested", nested.called))
    return found, choices


def setting_rows(config: dict[str, Any], grid: Grid) -> list[dict[str, Any]]:
    """A row per setting: right calls under each protocol, and how alike replicates are."""
    rows = []
    for name, table in grid.tables.items():
        row: dict[str, Any] = {"setting": name}
        for protocol, exclude in config["protocols"].items():
            called = mechanisms.nearest_neighbour_predictions(table, exclude=exclude, **options(config))
            found = mechanisms.accuracy(called)
            row[f"{protocol} right of {found.counted}"] = report.count(found.right)
        rows.append({**row, **grid.alike[name]})
    return rows


def annotation(config: dict[str, Any]) -> dict[tuple[str, float], str]:
    """{(compound, concentration): mechanism} of the file that the config's step `mechanisms` reads."""
    path = pipeline.located(config["mechanisms"]["path"], config)
    frame = pl.read_csv(path)
    return {(row["compound"], float(row["concentration"])): row["moa"] for row in frame.iter_rows(named=True)}


def network_methods(config: dict[str, Any], folder: pathlib.Path) -> tuple[list[Method], bool]:
    """The network's calls, checked against the annotation, and whether the data are simulated."""
    predictions, names = mechanism_fields.read_folds(folder)
    truth = annotation(config)
    if names is None:
        names = tuple(sorted(set(truth.values()) - {"DMSO"}))
        logging.warning("the folds do not name their classes; taken are the mechanisms in sorted order")
    known = None
    if _METADATA.value:
        read = pl.read_parquet if _METADATA.value.endswith(".parquet") else pl.read_csv
        known = read(_METADATA.value)
    metadata = mechanism_fields.field_metadata(predictions, known)
    called = mechanism_fields.treatment_probabilities(predictions, metadata, mechanisms=names)
    mechanism_fields.check_mechanisms(called, truth)
    simulated = any(map(is_marked, [*predictions.ids, *called.table["compound"]]))
    return [Method(_NAME.value, LEFT_OUT, "trained", called)], simulated


def write_rows(methods: Sequence[Method], config: dict[str, Any], workdir: pathlib.Path) -> None:
    """results.jsonl and treatments.csv."""
    rows, frames = [], []
    for method in methods:
        about = {
            "study": config["study"],
            "run": method.name,
            "dataset": config["run"],
            "split": method.protocol,
        }
        rows += mechanisms.result_rows(method.called, {**about, "seed": None, "fold": None, "step": None})
        marks = [pl.lit(value).alias(name) for name, value in zip(MARKS, method, strict=False)]
        frames.append(method.called.table.select(*marks, pl.all()))
    (workdir / "results.jsonl").unlink(missing_ok=True)
    work.append_rows(workdir / "results.jsonl", rows)
    table = pl.concat(frames, how="diagonal")
    work.write_atomically(workdir / "treatments.csv", lambda file: file.write(table.write_csv()))


def judge(config: dict[str, Any], workdir: pathlib.Path) -> tuple[pathlib.Path, list[Method]]:
    """Everything; returns where the page is, and the methods."""
    protocols = {
        name: f"neighbours that share {' or '.join(columns)} are left out"
        for name, columns in config["protocols"].items()
    }
    choices: dict[str, Choice] = {}
    settings, simulated, reference = [], False, ""
    if _PREDICTIONS.value:
        methods, simulated = network_methods(config, pathlib.Path(_PREDICTIONS.value))
        protocols = {LEFT_OUT: "the network never saw the compound"}
    else:
        grid = run_grid(config)
        methods, choices = profile_methods(config, grid)
        settings, simulated, reference = setting_rows(config, grid), grid.simulated, config["reference"]
    workdir.mkdir(parents=True, exist_ok=True)
    write_rows(methods, config, workdir)
    page = report.write(
        workdir,
        methods,
        title="Mechanisms of left-out compounds",
        protocols=protocols,
        reference=reference,
        published=report.Published(config["published_accuracies"], config["published_spreads"]),
        choices=choices,
        settings=settings,
        simulated=simulated,
        details={"data": config["data"], "predictions": _PREDICTIONS.value, **work.versions()},
    )
    return page, methods


def show(methods: Sequence[Method]) -> str:
    """The main numbers, one line per method."""
    lines = []
    for method in methods:
        found, s = mechanisms.accuracy(method.called), mechanisms.spread(method.called)
        share = f"{100 * found.share.value:.1f} % [{100 * found.share.low:.1f}, {100 * found.share.high:.1f}]"
        right = f"{report.count(found.right)}/{found.counted}"
        lines.append(
            f"{method.protocol:<20}{method.name:<52}{method.chosen:<12}{right:>10}  {share}  "
            f"median (SD) of mechanisms {100 * s.median:.0f} ({100 * s.sd:.0f})"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Judge, write, print the main numbers."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    config = _CONFIG.value.to_dict()
    if config.get("task") != "mechanisms":
        sys.exit("mechanisms.py: the config's task is not 'mechanisms'; see configs/bbbc021/mechanisms.py")
    try:
        page, methods = judge(config, pathlib.Path(_WORKDIR.value).resolve())
    except (ValueError, OSError) as error:
        sys.exit(f"mechanisms.py: {error}")
    print(show(methods))
    print(f"report: {page}")


if __name__ == "__main__":
    app.run(main, flags_parser=console.parse_flags)
