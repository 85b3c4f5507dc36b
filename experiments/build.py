"""Build a dataset as ArrayRecord from its raw files.

    python experiments/build.py coos7 --source=DIR --data_dir=data
    python experiments/build.py coos7 --data_dir=data                    # downloads the release (2 GB)
    python experiments/build.py cell_folder --source=DIR --name=mine --data_dir=data

Prints the folder of the built dataset, which `--config.data.directory` of train.py takes.
"""

import pathlib
import shutil
import sys

import numpy as np
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
    clean_up(path)
    if path.exists() and overwrite:
        return rebuild(builder, path)
    if path.exists():
        refuse_other_recipe(path, builder.info.metadata.get("recipe", {}), builder.recipe)
        logging.info("%s: already built", path)
    builder.download_and_prepare()
    return str(path)


def clean_up(path: pathlib.Path) -> None:
    """Undo what a killed build left: an unfinished dataset, or the old one set aside."""
    for unfinished in path.parent.glob(f"incomplete.*_{path.name}"):
        shutil.rmtree(unfinished)
    aside = path.with_name(f"{path.name}.replaced")
    if aside.exists() and path.exists():
        shutil.rmtree(aside)
    elif aside.exists():
        aside.rename(path)


def refuse_other_recipe(path: pathlib.Path, built: dict, wanted: dict) -> None:
    """Raise ValueError if the dataset that is there was made from other files, or with other options."""
    different = [
        f"{k}: {built.get(k)!r} there, {wanted[k]!r} now" for k in wanted if built.get(k) != wanted[k]
    ]
    if different:
        raise ValueError(
            f"{path}: already built, but from something else ({'; '.join(different)}); choose another "
            "--data_dir, or --overwrite it"
        )


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


def summary(builder) -> str:
    """Channels, image shape and dtype, and the number of images of each class in each split."""
    feature, metadata = builder.info.features["image"], builder.info.metadata
    names, counts = metadata["class_names"], metadata["class_counts"]
    width = max(len(name) for name in (*names, "class"))
    lines = [
        f"channels {', '.join(metadata['channels'])}; images {feature.shape} {np.dtype(feature.np_dtype).name}"
    ]
    lines.append(f"{'class':<{width}}" + "".join(f"{split:>12}" for split in counts))
    for k, name in enumerate(names):
        lines.append(f"{name:<{width}}" + "".join(f"{counts[split][k]:>12,}" for split in counts))
    for split, number in counts.items():
        lines += [f"NOTE {split}: no images of {name}" for k, name in enumerate(names) if not number[k]]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Build the named dataset and print what is in it."""
    if len(argv) != 2:
        raise app.UsageError(f"name one dataset: {', '.join(registry.available('tfds_builders'))}")
    console.setup()
    try:
        builder = make_builder(argv[1])
        path = build(builder, overwrite=_OVERWRITE.value)
    except (ValueError, OSError) as error:
        sys.exit(f"build.py: {error}")
    print(summary(builder))
    for name, (found, published) in builder.info.metadata.get("differences_from_published", {}).items():
        print(f"NOTE {name}: {found} images found, {published} published")
    print(path)


if __name__ == "__main__":
    app.run(main)
