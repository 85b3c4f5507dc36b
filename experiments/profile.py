"""From features to consensus profiles: the steps of a config, in one command.

    python experiments/profile.py --config=configs/bbbc021/profiles.py --config.data=FOLDER --workdir=runs/bbbc021
    python experiments/profile.py --config=configs/lincs/profiles.py:trained/spherize --config.data=FEATURES \
        --config.metadata=METADATA --config.spherize.epsilon=1e-3 --workdir=runs/trained

Writes profiles.parquet, the tables that the config saves on the way (level3.parquet, level4.parquet), and
config.json to the work directory. Then experiments/retrieve.py --profiles=WORKDIR scores them.
"""

import json
import pathlib
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


def check_place(workdir: pathlib.Path, config: dict) -> None:
    """ValueError if the work directory holds something that another config made."""
    path = workdir / "config.json"
    if path.exists() and not _OVERWRITE.value:
        before = work.read_json(path).get("config")
        if before != config:
            raise ValueError(f"{workdir} was made by another config; take another --workdir or --overwrite")


def make_profiles(config: dict, workdir: pathlib.Path) -> Table:
    """Run the pipeline and write its tables; the config is written last, when all is there."""
    steps = pipeline.build(config)
    check_place(workdir, json.loads(json.dumps(work.plain(config))))

    def save(name: str, table: Table) -> None:
        files.write_parquet(table, workdir / f"{name}.parquet")

    table = pipeline.run(pipeline.read_source(config), steps, save=save)
    if _ANNDATA.value:
        files.write_anndata(table, workdir / "profiles.h5ad")
    work.write_json(workdir / "config.json", {"config": config, "versions": work.versions()})
    return table


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
    app.run(main)
