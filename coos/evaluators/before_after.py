"""What normalization does to profiles and to their batch effect (Bornholdt 2021, section 4.8.2 and table 4.19)."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from coos.evaluators import retrieval as judging
from coos.evaluators import wells
from coos.evaluators.retrieval import Judgement, Protocol
from coos.metrics.retrieval import Enrichment
from coos.profiles import files, pipeline
from coos.profiles.consensus import Consensus
from coos.profiles.table import Table

LEVELS = ("level3", "level4")  # wells before and after normalization, as a pipeline may save them


class BeforeAfter(NamedTuple):
    """Enrichments at one percentile, before and after normalization; a text says why there is none.

    before, after: of consensus profiles, with the protocol's labels. batch_before, batch_after: of control wells,
    with their batch as label. num_rows: consensus profiles. percentile: of the first two; that of the batches is
    `coos.evaluators.wells.HEADLINE`.
    """

    name: str
    num_rows: int
    percentile: float
    before: Enrichment | str
    after: Enrichment
    batch_before: Enrichment | str
    batch_after: Enrichment | str


def of_workdir(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    table: Table,
    judgement: Judgement,
    *,
    controls: str | None,
    batch: str | None,
) -> BeforeAfter | None:
    """`BeforeAfter` of a work directory of experiments/profile.py; None unless it has the wells of both levels.

    Before: level 3, merged by the config's own consensus step without any normalization, of the profiles that
    `table` has. After: what `judgement` found for `table`. Features that are missing in some well of a level are
    left out of it.

    Args:
        folder, config: the work directory, and the config of its pipeline.
        table, judgement: the profiles in it (or some of their rows), and how they were judged.
        controls, batch: a query and a column of wells, for the batch enrichment; None where that is not known.

    Raises:
        ValueError: wells and profiles do not belong together.
    """
    if not all((folder / f"{level}.parquet").exists() for level in LEVELS):
        return None
    levels = [wells.complete_features(files.read(folder / f"{level}.parquet")) for level in LEVELS]
    step = consensus_step(config)
    before: Enrichment | str = "the pipeline has no consensus step"
    if step is not None:
        merged = matching_rows(step.transform(levels[0]), table, step.by, name=judgement.name)
        first = dataclasses.replace(judgement.protocol, percentiles=judgement.protocol.percentiles[:1])
        before = _enrichment(merged, first)
    batches = [_batch_effect(level, controls, batch) for level in levels]
    percentile = judgement.protocol.percentiles[0]
    after = _first(judgement.enrichment)
    return BeforeAfter(judgement.name, len(table), percentile, before, after, *batches)


def consensus_step(config: Mapping[str, Any]) -> Consensus | None:
    """The last step of a pipeline's config that makes a consensus, None if there is none."""
    for name in reversed(config.get("steps") or ()):
        if dict(config.get(name) or {}).get("kind", name) == "consensus":
            step = pipeline.build_step(name, config).step
            assert isinstance(step, Consensus)
            return step
    return None


def matching_rows(merged: Table, profiles: Table, by: Any, *, name: str) -> Table:
    """The rows of `merged` whose keys `by` a row of `profiles` has; ValueError unless each of them finds one."""
    columns = [by] if isinstance(by, str) else list(by)
    profiles.require(*columns)
    keys = profiles.metadata.select(columns).unique()
    found = merged.metadata.with_row_index().join(
        keys, on=columns, how="semi", nulls_equal=True, maintain_order="left"
    )
    if len(found) != len(keys):
        raise ValueError(
            f"{name}: {len(keys) - len(found)} of {len(keys)} profiles have no wells in {LEVELS[0]}.parquet; the two "
            "are of different runs: make the profiles again"
        )
    return merged.filter(found["index"].cast(pl.Int64).to_numpy())


def _enrichment(table: Table, protocol: Protocol) -> Enrichment | str:
    try:
        return _first(judging.enrichment(table, protocol))
    except ValueError as error:  # raw profiles may be worse than those that were judged: the report says so
        return str(error)


def _first(enriched: Enrichment) -> Enrichment:
    return Enrichment(*(np.asarray(value)[0] for value in enriched))


def _batch_effect(level: Table, controls: str | None, batch: str | None) -> Enrichment | str:
    if not controls or not batch:
        return "no controls and batch were named"
    try:
        return wells.batch_effect(level, controls=controls, batch=batch)
    except ValueError as error:  # a screen of one batch has none
        return str(error)
