"""Build a dataset as ArrayRecord from its raw files.

    python experiments/build.py coos7 --source=DIR --data_dir=data
    python experiments/build.py coos7 --data_dir=data                    # downloads the release (2 GB)
    python experiments/build.py cell_folder --source=DIR --name=mine --data_dir=data

Prints the folder of the built dataset, which `--config.data.directory` of train.py takes.
"""

import pathlib
import shutil
import sys

from absl import app, flags, logging

from coos import console, registry

_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder that holds the built datasets.")
_SOURCE = flags.DEFINE_string("source", None, "Folder with the raw files; coos7 downloads them if absent.")
_NAME = flags.DEFINE_string("name", None, "cell_folder: name of the dataset (default: the folder's name).")
_CHANNELS = flags.DEFINE_list("channels", None, "Channel order (coos7: of the files; cell_folder: to store).")
_CONFIG = flags.DEFINE_string("builder_config", None, "coos7: 'uint16' (raw, default) or 'float32'.")
_MIRROR = flags.DEFINE_string("mirror", None, "coos7: base address to download from instead of Zenodo.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a dataset that is already built.")

OPTION_NAMES = {
    "coos7": {"channels": "file_channels", "builder_config": "config", "mirror": "mirror"},
    "cell_folder": {"channels": "channels", "name": "name"},
}


def make_builder(dataset: str):
    """The builder of `dataset` with the options given as flags; an option it does not have is an error."""
    module = registry.lookup("tfds_builders", dataset)
    values = {"channels": _CHANNELS, "builder_config": _CONFIG, "mirror": _MIRROR, "name": _NAME}
    given = {flag: holder.value for flag, holder in values.items() if holder.value is not None}
    names = OPTION_NAMES.get(dataset, {})
    unknown = [flag for flag in given if flag not in names]
    if unknown:
        raise ValueError(f"--{unknown[0]}: {dataset} does not have this option")
    options = {names[flag]: value for flag, value in given.items()}
    return module.Builder(source=_SOURCE.value, data_dir=_DATA_DIR.value, **options)


def build(builder, *, overwrite: bool) -> str:
    """Build unless it is built already; a dataset of another source is never taken for this one."""
    path = pathlib.Path(builder.data_path)
    if path.exists() and overwrite:
        return rebuild(builder, path)
    if path.exists():
        built_from = builder.info.metadata.get("source")
        if _SOURCE.value is not None and built_from != _SOURCE.value:
            raise ValueError(
                f"{path}: already built from {built_from}; choose another --data_dir or --overwrite it"
            )
        logging.info("%s: already built from %s", path, built_from)
    builder.download_and_prepare()
    return str(path)


def rebuild(builder, path: pathlib.Path) -> str:
    """Build again; the old dataset is deleted only after the new one is complete."""
    aside = path.with_name(f"{path.name}.replaced")
    path.rename(aside)
    try:
        builder.download_and_prepare()
    except BaseException:
        aside.rename(path)
        raise
    shutil.rmtree(aside)
    return str(path)


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise app.UsageError(f"name one dataset: {', '.join(registry.available('tfds_builders'))}")
    console.setup()
    try:
        builder = make_builder(argv[1])
        path = build(builder, overwrite=_OVERWRITE.value)
    except ValueError as error:
        sys.exit(f"build.py: {error}")
    for name, split in builder.info.splits.items():
        print(f"{name}: {split.num_examples} images")
    for name, (found, published) in builder.info.metadata.get("differences_from_published", {}).items():
        print(f"NOTE {name}: {found} images found, {published} published")
    print(path)


if __name__ == "__main__":
    app.run(main)
