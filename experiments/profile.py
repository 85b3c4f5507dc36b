"""From features to consensus profiles: the steps of a config, in one command.

    python experiments/profile.py --config=configs/bbbc021/profiles.py --config.data=FOLDER --workdir=runs/bbbc021
    python experiments/profile.py --config=configs/lincs/profiles.py:trained/spherize --config.data=FEATURES \
        --config.metadata=METADATA --config.spherize.epsilon=1e-3 --workdir=runs/trained

Writes profiles.parquet, the tables that the config saves on the way (level3.parquet, level4.parquet), and
config.json to the work directory. Then experiments/retrieve.py --profiles=WORKDIR scores them.
"""

import pathlib
import shutil
import sys

from absl import app, flags
from ml_collections import config_flags

from coos import console
from coos import workdir as work
from coos.profiles import files, pipeline
from coos.profiles.table import Table

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/bbbc021/profiles.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the profiles.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace profiles that another config made there.")
_ANNDATA = flags.DEFINE_bool("anndata", False, "Write profiles.h5ad as well (pip install 'coos[anndata]').")
flags.mark_flag_as_required("config")

UNFINISHED = ".unfinished"


def check_place(workdir: pathlib.Path, config: dict) -> None:
    """ValueError if the work directory holds something that another config made."""
    path = workdir / "config.json"
    if path.exists() and not _OVERWRITE.value:
        before = work.read_json(path).get("config")
        if before != config:
            raise ValueError(f"{workdir} was made by another config; take another --workdir or --overwrite")


def make_profiles(config: dict, workdir: pathlib.Path) -> Table:
    """Run the pipeline; its tables replace what is in the work directory when all of them are there."""
    steps = pipeline.build(config)
    check_place(workdir, work.plain(config))
    aside = workdir / UNFINISHED
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        table = pipeline.run(
            pipeline.read_source(config),
            steps,
            save=lambda name, table: files.write_parquet(table, aside / f"{name}.parquet"),
        )
        if _ANNDATA.value:
            files.write_anndata(table, aside / "profiles.h5ad")
        swap(aside, workdir)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    work.write_json(workdir / "config.json", {"config": config, "versions": work.versions()})
    return table


def tables_of(path: pathlib.Path) -> list[str]:
    """Names of the tables that the run of a config.json wrote, which is removed; none if there is no such file."""
    if not path.exists():
        return []
    config = work.read_json(path)["config"]
    path.unlink()
    return [pipeline.FINAL, *filter(None, (config.get(step, {}).get("save") for step in config["steps"]))]


def swap(aside: pathlib.Path, workdir: pathlib.Path) -> None:
    """Move finished tables into place. Without config.json, a directory does not pass for finished meanwhile."""
    for name in tables_of(workdir / "config.json"):
        for suffix in (".parquet", ".h5ad"):
            (workdir / f"{name}{suffix}").unlink(missing_ok=True)
    for new in aside.iterdir():
        new.rename(workdir / new.name)


def main(argv: list[str]) -> None:
    """Make the profiles and say where they are."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    workdir = pathlib.Path(_WORKDIR.value).resolve()
    config = _CONFIG.value.to_dict()
    if "steps" not in config:
        sys.exit("profile.py: the config has no `steps`; this is a config for another script")
    try:
        table = make_profiles(config, workdir)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"profile.py: {error}")
    print(f"{len(table)} profiles of {table.num_features} features: {workdir / 'profiles.parquet'}")


if __name__ == "__main__":
    app.run(main, flags_parser=console.parse_flags)
