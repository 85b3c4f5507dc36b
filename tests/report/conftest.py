"""Reports that several tests read."""

import pytest
from report_runs import SETS, images, make_run, write


@pytest.fixture(scope="session")
def seeds(tmp_path_factory):
    """Two seeds of one configuration and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / f"{run}_{seed}", run=run, seed=seed, sets={"validation": 60, **SETS})
        for run, seed in (("raw", 0), ("raw", 1), ("stretched", 0))
    ]


@pytest.fixture(scope="session")
def page(seeds, tmp_path_factory):
    """A report on real data: its folder and its text."""
    out = tmp_path_factory.mktemp("report")
    return out, write(out, seeds, images=images)
