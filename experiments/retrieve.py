"""Do profiles with one label lie close together? Score any tables of profiles, and write a page about it.

    python experiments/retrieve.py --profiles=runs/pretrained,runs/trained --out=report      # of profile.py
    python experiments/retrieve.py --profiles=mine.parquet,theirs.csv.gz --label=Metadata_moa \
        --exclude=Metadata_compound --similarity=cosine --out=report
    python experiments/retrieve.py --profiles=plate.csv.gz --rows="Metadata_broad_sample <> 'DMSO'" --out=report
    python experiments/retrieve.py --profiles=runs/pretrained --subset=top50=top:50 --subset=strong=strong.txt \
        --subset="low=Metadata_dose < 3" --out=report

--profiles takes files of any tool (Parquet; CSV in the cytomining convention: metadata columns start with
`Metadata_`, all others are features) and work directories of experiments/profile.py. The protocol is that of the
work directories' configs, if there are any; flags come before it. Where a table has a cell count, a profile
of nothing but the cell count is scored beside it: what does not beat it has learned cell death.

--subset scores the rows in it, and those out of it, beside all: the rows of the N labels with most rows (top:N), those
that a text file lists (.txt, a value of --subset_column on each line; see strong_phenotypes.py), or those of a query.

Writes index.html, figures/, tables/, results.jsonl and protocol.json to --out.
"""

import dataclasses
import pathlib
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
from absl import app, flags, logging

from coos import console
from coos import workdir as work
from coos.data import simulate
from coos.evaluators import before_after, retrieval_subsets
from coos.evaluators import retrieval as evaluator
from coos.evaluators import wells as evaluated_wells
from coos.profiles import files
from coos.profiles.table import Table
from coos.report import retrieval as report

DEFAULT = evaluator.Protocol()
_PROFILES = flags.DEFINE_list("profiles", None, "Tables, or work directories of profile.py.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for the report.", required=True)
_NAMES = flags.DEFINE_list("names", None, "What to call the tables (default: their paths' last parts).")
_LABEL = flags.DEFINE_string("label", None, f"Column that makes rows match (default {DEFAULT.label}).")
_SEPARATOR = flags.DEFINE_string(
    "separator", None, "'|': rows match that share a part (default: whole text)."
)
_EXCLUDE = flags.DEFINE_list("exclude", None, "Columns; rows equal in one of them are no neighbours.")
_SIMILARITY = flags.DEFINE_enum("similarity", None, ["pearson", "cosine", "spearman"], "Default: pearson.")
_UNLABELLED = flags.DEFINE_enum(
    "unlabelled", None, evaluator.UNLABELLED, "Rows without label: dropped, kept in pairs alone, or kept."
)
_METADATA = flags.DEFINE_list(
    "metadata_columns", [], "Columns of files that are metadata without the prefix."
)
_DROP = flags.DEFINE_list("drop", [], "Columns of files to leave out, such as an index.")
_ROWS = flags.DEFINE_string("rows", None, "Query: score these rows alone.")
_SUBSET = flags.DEFINE_multi_string("subset", [], "name=top:N, name=list.txt or name=query; can be repeated.")
_SUBSET_COLUMN = flags.DEFINE_string("subset_column", "Metadata_broad_sample", "Column that a file lists.")
_CELL_COUNT = flags.DEFINE_string("cell_count", None, "Column of cell counts (default Metadata_cell_count).")
_WELLS = flags.DEFINE_list("wells", None, "Tables of wells, for principal components and batch effects.")
_CONTROLS = flags.DEFINE_string("controls", None, "Query: the control wells.")
_BATCH = flags.DEFINE_string("batch", None, "Column of the wells' batch, plate or other nuisance.")
_TITLE = flags.DEFINE_string("title", "Retrieval of profiles", "Title of the page.")


class Source(NamedTuple):
    """A table to score, and what its work directory says about it."""

    name: str
    table: Table
    config: dict[str, Any]
    folder: pathlib.Path | None


def load(path: str, name: str) -> Source:
    """A file, or profiles.parquet of a work directory with its config."""
    place = pathlib.Path(path)
    if not place.exists():
        raise ValueError(f"{place}: no such file or work directory")
    if place.is_dir():
        if not (place / "config.json").exists():
            raise ValueError(f"{place}: has no config.json; is it a work directory that profile.py finished?")
        config = work.read_json(place / "config.json")["config"]
        return Source(name or place.name, files.read(place / "profiles.parquet"), config, place)
    stem = re.sub(r"\.(parquet|csv|tsv|txt)(\.gz)?$", "", place.name, flags=re.IGNORECASE)
    table = files.read(place, metadata_columns=tuple(_METADATA.value), drop=tuple(_DROP.value))
    return Source(name or stem, table, {}, None)


def chosen_rows(source: Source, query: str) -> Source:
    """The source with the rows that match the query; ValueError if none does."""
    rows = source.table.where(query)
    if not rows.any():
        raise ValueError(f"{source.name}: no row matches --rows={query!r}")
    return source._replace(table=source.table.filter(rows))


def setting(flag: Any, sources: Sequence[Source], field: str, default: Any) -> Any:
    """The flag if it is given, else what the configs' `retrieval.<field>` say, else the default.

    Raises:
        ValueError: the configs do not agree, so that a flag must say which it is.
    """
    if flag is not None:
        return flag
    found = [source for source in sources if "retrieval" in source.config]
    values = [source.config["retrieval"].get(field, default) for source in found] or [default]
    for source, value in zip(found, values, strict=False):
        if work.plain(value) != work.plain(values[0]):
            raise ValueError(
                f"the configs disagree: {field} is {values[0]!r} for {found[0].name} and {value!r} for {source.name}; "
                f"say which with --{field}"
            )
    return values[0]


def comparable(sources: Sequence[Source], protocol: evaluator.Protocol) -> list[Source]:
    """Sources whose published scores may stand beside ours: real data, all rows, the protocol of their config."""
    return [
        source
        for source in sources
        if not _ROWS.value
        and not is_simulated(source.table)
        and evaluator.follows(protocol, source.config.get("retrieval", {}))
    ]


def make_protocol(sources: Sequence[Source]) -> evaluator.Protocol:
    """What counts as a match, from flags and configs."""
    given = {
        "label": _LABEL.value,
        "separator": _SEPARATOR.value,
        "exclude": _EXCLUDE.value,
        "similarity": _SIMILARITY.value,
        "unlabelled": _UNLABELLED.value,
    }
    chosen = {name: setting(flag, sources, name, getattr(DEFAULT, name)) for name, flag in given.items()}
    return evaluator.Protocol(**{**chosen, "exclude": tuple(chosen["exclude"])})


def judge_all(sources: Sequence[Source], protocol: evaluator.Protocol) -> tuple[list, list[Table], list[str]]:
    """A judgement of every table and one of the cell counts, the tables judged, and notes for the page."""
    judgements = [evaluator.judge(s.table, protocol, name=s.name) for s in sources]
    tables, notes = [source.table for source in sources], []
    column = setting(_CELL_COUNT.value, sources, "cell_count", "Metadata_cell_count")
    counted = [source for source in sources if column in source.table.metadata.columns]
    if not counted and _CELL_COUNT.value:
        raise ValueError(f"no table has the column {column}")
    if counted:
        try:
            judgements.append(evaluator.judge_cell_counts(counted[0].table, protocol, column))
            tables.append(evaluator.cell_count_table(counted[0].table, column))
            notes.append(f"The baseline knows only the cell count, {column} of {counted[0].name}.")
        except ValueError as error:  # no reason to withhold the rest of the report, unless it was asked for
            if _CELL_COUNT.value:
                raise
            notes.append(f"There is no baseline: {error}.")
    return judgements, tables, notes


def judge_subsets(
    judgements: Sequence[evaluator.Judgement], tables: Sequence[Table], conditions: Mapping[str, str]
) -> tuple[list[retrieval_subsets.Part], list[str]]:
    """All rows, and in and out of each subset, of every table; and notes for the page."""
    parts, notes = [], []
    for judgement, table in zip(judgements, tables, strict=True):
        parts.append(retrieval_subsets.whole(judgement))
        for name, condition in conditions.items():
            rows, note = retrieval_subsets.choose(condition, table, judgement, column=_SUBSET_COLUMN.value)
            if not rows.any() and judgement.name != evaluator.BASELINE:
                raise ValueError(f"{judgement.name}: no row is in --subset={name}={condition}")
            parts += retrieval_subsets.split(table, judgement, rows, subset=name)
            if note and judgement.name != evaluator.BASELINE:
                logging.warning(note)
                notes.append(note)
    return parts, notes


def compare_normalization(
    sources: Sequence[Source], judgements: Sequence[evaluator.Judgement]
) -> list[before_after.BeforeAfter]:
    """Before and after normalization, of the work directories that saved the wells of both."""
    controls = setting(_CONTROLS.value, sources, "controls", None)
    batch = setting(_BATCH.value, sources, "batch", None)
    found = [
        before_after.of_workdir(s.folder, s.config, s.table, judgement, controls=controls, batch=batch)
        for s, judgement in zip(sources, judgements, strict=False)  # the baseline comes last
        if s.folder
    ]
    return [one for one in found if one]


def wells(sources: Sequence[Source]) -> list[tuple[str, Table]]:
    """(name, table) of wells: --wells, or what the work directories saved before and after normalization."""
    if _WELLS.value is not None:
        return [(path, files.read(path)) for path in _WELLS.value]
    found = [
        (f"{source.name}, {level}", source.folder / f"{level}.parquet")
        for source in sources
        if source.folder
        for level in ("level3", "level4")
    ]
    tables = [(name, files.read(path)) for name, path in found if path.exists()]
    # Runs that differ in later steps only start from the same wells: those are shown once.
    return list(
        {zlib.crc32(table.features.data): (name, table) for name, table in reversed(tables)}.values()
    )[::-1]


def look_at_wells(sources: Sequence[Source]) -> tuple[list, dict[str, Any], list[str]]:
    """Principal components, batch effects or why there are none, and notes, of all tables of wells."""
    controls = setting(_CONTROLS.value, sources, "controls", None)
    batch = setting(_BATCH.value, sources, "batch", None)
    spaces: list[tuple[str, evaluated_wells.FeatureSpace]] = []
    effects: dict[str, Any] = {}
    notes: list[str] = []
    for name, whole in wells(sources):
        table = evaluated_wells.complete_features(whole)
        if table.num_features < whole.num_features:
            notes.append(
                f"{name}: {whole.num_features - table.num_features} of {whole.num_features} features are missing in "
                "some wells and no part of its principal components and batch effect."
            )
        try:
            spaces.append((name, evaluated_wells.feature_space(table, controls=controls, batch=batch)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if controls and batch:
            try:
                effects[name] = evaluated_wells.batch_effect(table, controls=controls, batch=batch)
            except ValueError as error:  # a screen of one batch has none: the page says so
                effects[name] = str(error)
    return spaces, effects, notes


def is_simulated(table: Table) -> bool:
    """Whether a plate or compound bears the mark of `coos.data.simulate`."""
    text = [column for column in table.metadata.get_columns() if column.dtype == pl.String]
    return any(column.str.starts_with(simulate.MARK).any() for column in text)


def write(sources: Sequence[Source], out: pathlib.Path) -> pathlib.Path:
    """Score the tables, write rows and page, print the main scores; returns the page's path."""
    conditions = retrieval_subsets.parse(_SUBSET.value)
    protocol = make_protocol(sources)
    judgements, tables, notes = judge_all(sources, protocol)
    parts, about_subsets = judge_subsets(judgements, tables, conditions) if conditions else ([], [])
    spaces, effects, about_wells = look_at_wells(sources)
    by_name = {source.name: source.config for source in sources}
    rows = []
    for judgement in judgements:
        about = {"study": by_name.get(judgement.name, {}).get("study", ""), "dataset": judgement.name}
        rows += evaluator.result_rows(judgement, **about)
        rows += retrieval_subsets.result_rows([p for p in parts if p.table == judgement.name], **about)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.jsonl").unlink(missing_ok=True)
    work.append_rows(out / "results.jsonl", rows)
    given = {"profiles": _PROFILES.value, "rows": _ROWS.value, "subsets": conditions}
    written = {"protocol": dataclasses.asdict(protocol), **given, "versions": work.versions()}
    work.write_json(out / "protocol.json", written)
    compared = comparable(sources, protocol)
    page = report.write(
        out,
        judgements,
        title=_TITLE.value,
        published={s.name: s.config["published"] for s in compared if s.config.get("published")},
        published_source="; ".join(
            dict.fromkeys(s.config["published_source"] for s in sources if s.config.get("published_source"))
        ),
        spaces=spaces,
        batch_effects=effects,
        before_after=compare_normalization(sources, judgements),
        published_before_after={
            name: row for s in compared for name, row in s.config.get("published_before_after", {}).items()
        },
        parts=parts,
        subsets=conditions,
        notes=[*notes, *about_subsets, *about_wells],
        simulated=any(is_simulated(source.table) for source in sources),
    )
    print(summary(judgements))
    return page


def summary(judgements: Sequence[evaluator.Judgement]) -> str:
    """The main scores, one line per table."""
    shown = ("odds_ratio_at_0.995", "precision_at_1", "precision_at_r", "average_precision", "hit_score")
    width = max(len(judgement.name) for judgement in judgements) + 2
    lines = [f"{'':<{width}}{'rows':>8}" + "".join(f"{name:>22}" for name in shown)]
    for judgement in judgements:
        found = evaluator.values(judgement)
        cells = "".join(f"{found[name][0]:>22.6g}" for name in shown)
        lines.append(f"{judgement.name:<{width}}{judgement.num_rows:>8}{cells}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Load the tables, score them, write the report."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    if not _PROFILES.value:
        sys.exit("retrieve.py: --profiles names no table")
    names = _NAMES.value or [""] * len(_PROFILES.value)
    try:
        if len(names) != len(_PROFILES.value):
            raise ValueError(f"{len(names)} --names for {len(_PROFILES.value)} --profiles")
        sources = [load(path, name) for path, name in zip(_PROFILES.value, names, strict=True)]
        if evaluator.BASELINE in {source.name for source in sources}:
            raise ValueError(f"{evaluator.BASELINE!r} is what the baseline is called; use --names")
        if len({source.name for source in sources}) != len(sources):
            raise ValueError(
                f"two tables are called {[s.name for s in sources]}; tell them apart with --names"
            )
        if _ROWS.value:
            sources = [chosen_rows(source, _ROWS.value) for source in sources]
        page = write(sources, pathlib.Path(_OUT.value).resolve())
    except (ValueError, OSError) as error:
        sys.exit(f"retrieve.py: {error}")
    print(f"report: {page}")


if __name__ == "__main__":
    app.run(main)
