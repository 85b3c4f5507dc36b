"""The study of plates in one command: what it runs, what it refuses, and (slow) that it finds planted mechanisms."""

import csv
import json

import pytest
from run_scripts import REPOSITORY, call_script, loaded, run_script

from configs.lincs import study
from coos.data import simulate

CONFIG = f"--config={REPOSITORY / 'configs' / 'lincs' / 'study.py'}"


def test_the_study_is_a_row_of_commands(tmp_path):
    config = study.get_config()
    config.source, config.tables = str(tmp_path), ("untrained", "statistics")
    config.networks.untrained.workdir = "runs/x"
    with loaded("lincs.py") as script:
        script.check(config)
        found = script.commands(config, tmp_path / "w")
    assert [command[0] for command in found] == [
        *("extract.py", "profile.py", "profile.py") * 2,
        "retrieve.py",
    ]
    extract, none, spherize = found[:3]
    assert {"--untrained=true", "--workdir=runs/x", f"--source={tmp_path}", "--aggregate=median"} <= set(
        extract
    )
    assert none[1].endswith("profiles.py:trained/none")
    assert f"--config.metadata={tmp_path / 'metadata'}" in spherize
    made = [
        next(a for a in c if a.startswith("--workdir=")).partition("=")[2]
        for c in found
        if c[0] == "profile.py"
    ]
    assert f"--profiles={','.join(made)}" in found[-1]
    assert "--subset=top50=top:50" in found[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "config.source='': say where the plates are"),
        (["--config.source=/nowhere"], "config.source='/nowhere': say where"),
        (["--config.source=."], "config.networks.trained.workdir: say which, or leave 'trained' out"),
        (["--config.source=.", "--config.tables=('best',)"], "choose from"),
    ],
)
def test_what_is_missing_is_said_first(tmp_path, arguments, message):
    found = call_script("lincs.py", CONFIG, f"--workdir={tmp_path}", *arguments)
    assert found.returncode == 1
    assert message in found.stderr


def test_statistics_alone_make_a_page_and_a_failing_step_stops_it(tmp_path):
    simulate.write_plates(
        tmp_path / "plates",
        mechanisms=2,
        compounds_per_mechanism=2,
        doses=(10.0,),
        replicates=2,
        height=64,
        width=64,
    )
    arguments = [
        *(CONFIG, f"--workdir={tmp_path / 'w'}", f"--config.source={tmp_path / 'plates'}"),
        *("--config.tables=('statistics',)", "--config.networks.statistics.crop_size=24"),
        *("--config.extract.problems=list", "--config.subsets=('first=top:1',)"),
    ]
    failing = run_script("lincs.py", *arguments, f"--config.metadata={tmp_path / 'none'}")
    assert failing.returncode == 1
    assert "barcode_platemap.csv" in failing.stderr
    assert "lincs.py: profile.py failed" in failing.stderr
    done = run_script("lincs.py", *arguments)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "w" / "report" / "index.html").read_text()
    for word in ("statistics_none", "statistics_spherize", "SIMULATED", "Subsets", "Batch effect"):
        assert word in text


def scores(folder):
    """{table: {metric: value}} of results.jsonl."""
    found = {}
    for line in (folder / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["split"] == "Metadata_moa":
            found.setdefault(row["run"], {})[row["metric"]] = row["value"]
    return found


@pytest.mark.slow
def test_planted_mechanisms_are_found_and_sphering_helps(tmp_path):
    """`make lincs`: the trained network above the untrained one and intensity statistics, as the plates are made."""
    run = {"XLA_FLAGS": "", "timeout": 1800}
    plates, trained = tmp_path / "plates", tmp_path / "run"
    source, crops = f"--source={plates}", tmp_path / "lincs/crops/1.0.0"
    network = f"--config={REPOSITORY / 'configs/lincs/quickstart.py'}"
    steps = [
        ("simulate.py", "lincs", f"--out={plates}", "--dmso=48"),
        ("build.py", "lincs", source, f"--data_dir={tmp_path}", "--crop_size=64", "--problems=list"),
        ("train.py", network, f"--workdir={trained}", f"--config.data.directory={crops}"),
        (
            "lincs.py",
            f"{CONFIG}:quickstart",
            f"--workdir={tmp_path / 'study'}",
            f"--config.source={plates}",
            *(f"--config.networks.{name}.workdir={trained}" for name in ("trained", "untrained")),
        ),
    ]
    for script, *arguments in steps:
        done = run_script(script, *arguments, **run)
        assert done.returncode == 0, done.stderr[-3000:]
    found = scores(tmp_path / "study" / "report")
    for metric in ("precision_at_r", "average_precision"):
        best = found["trained_spherize"][metric]
        assert best > found["untrained_spherize"][metric]
        assert best > found["statistics_spherize"][metric]
        assert best > found["trained_none"][metric]
    with open(tmp_path / "study" / "report" / "tables" / "batch_effects.csv", newline="") as file:
        effects = {row["name"]: float(row["corrected_odds_ratio"]) for row in csv.DictReader(file)}
    before = next(v for k, v in effects.items() if k.startswith("trained_") and k.endswith("level3"))
    assert effects["trained_spherize, level4"] < before
