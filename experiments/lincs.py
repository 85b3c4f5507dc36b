"""The whole study in one command: profile, aggregate, annotate, sphere, consensus, retrieval scores, page.

    python experiments/lincs.py --config=configs/lincs/study.py --workdir=studies/first \
        --config.source=lincs --config.metadata=lincs-cell-painting/metadata \
        --config.networks.trained.workdir=runs/1008 --config.networks.untrained.workdir=runs/1008

It runs, and shows, one command of extract.py and one of profile.py after the other, then retrieve.py; each can be
run by itself. What is finished is not done again: after a stop the same command goes on. Below the work directory:

    features/<table>/              wells of every plate, as extract.py writes them
    profiles/<table>_<pipeline>/   consensus profiles, as profile.py writes them
    report/index.html              as retrieve.py writes it
"""

import pathlib
import shlex
import subprocess
import sys
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from coos import console

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/lincs/study.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for features, profiles and the page.", required=True)
flags.mark_flag_as_required("config")

HERE = pathlib.Path(__file__).resolve().parent
PROFILES = HERE.parent / "configs" / "lincs" / "profiles.py"


def check(config: ml_collections.ConfigDict) -> None:
    """ValueError where something must be said first."""
    if not pathlib.Path(config.source).is_dir() or not config.source:
        raise ValueError(
            f"config.source={config.source!r}: say where the plates are, with --config.source=FOLDER"
        )
    unknown = [name for name in config.tables if name not in config.networks]
    if unknown or not config.tables:
        raise ValueError(f"config.tables={config.tables}: choose from {', '.join(config.networks)}")
    endings = [pipeline.rpartition("/")[2] for pipeline in config.pipelines]
    if len(set(endings)) < len(endings):
        raise ValueError(
            f"config.pipelines={config.pipelines}: two of them end alike and would share a folder"
        )
    for name in config.tables:
        for field in ("workdir", "weights"):
            if not config.networks[name].get(field, "given"):
                raise ValueError(
                    f"config.networks.{name}.{field}: say which, or leave {name!r} out, as in "
                    f"--config.tables=\"('statistics',)\""
                )


def commands(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[list[str]]:
    """All commands of the study, in order: script and flags."""
    metadata = config.metadata or str(pathlib.Path(config.source, "metadata"))
    found, made = [], []
    for name in config.tables:
        features = workdir / "features" / name
        options = {"source": config.source, **config.extract, **config.networks[name], "out": features}
        found.append(["extract.py", *as_flags(options)])
        for pipeline in config.pipelines:
            made.append(workdir / "profiles" / f"{name}_{pipeline.rpartition('/')[2]}")
            settings = {"config.data": features, "config.metadata": metadata, "workdir": made[-1]}
            found.append(["profile.py", f"--config={PROFILES}:{pipeline}", *as_flags(settings)])
    tables = ",".join(map(str, made))
    shown = {"profiles": tables, "out": workdir / "report", "title": config.title}
    subsets = [f"--subset={subset}" for subset in config.subsets]
    return [*found, ["retrieve.py", *as_flags(shown), *subsets]]


def as_flags(options: dict[str, Any]) -> list[str]:
    """Options as flags of a script."""
    return [
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in options.items()
    ]


def run(command: list[str]) -> None:
    """Run one of the scripts, shown as one would type it; what it says goes to the terminal.

    Raises:
        SystemExit: it failed; it said why.
    """
    logging.info("%s", shlex.join(["python", f"experiments/{command[0]}", *command[1:]]))
    finished = subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=False)
    if finished.returncode:
        sys.exit(f"lincs.py: {command[0]} failed (above); the same command goes on from there")


def main(argv: list[str]) -> None:
    """Run the study and say where its page is."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    workdir = pathlib.Path(_WORKDIR.value).resolve()
    try:
        check(_CONFIG.value)
    except ValueError as error:
        sys.exit(f"lincs.py: {error}")
    for command in commands(_CONFIG.value, workdir):
        run(command)
    print(workdir / "report" / "index.html")


if __name__ == "__main__":
    app.run(main, flags_parser=console.parse_flags)
