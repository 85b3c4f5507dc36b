"""Build a dataset as ArrayRecord from its raw files.

    python experiments/build.py coos7 --source=DIR --data_dir=data
    python experiments/build.py coos7 --data_dir=data                    # downloads the release (2 GB)
    python experiments/build.py cell_folder --source=DIR --name=mine --data_dir=data
    python experiments/build.py cell_painting --source=DIR --data_dir=data --processes=8
    python experiments/build.py cell_painting --source=DIR --data_dir=data --worker=3 --num_workers=16   # one of 16
    python experiments/build.py lincs --source=DIR --metadata=DIR --data_dir=data --processes=8          # crops
    python experiments/build.py lincs --source=DIR --data_dir=data --builder_config=fields --plates=A,B --problems=list
    python experiments/build.py bbbc --source=DIR --data_dir=data --builder_config=bbbc021 --processes=8

Prints the folder of the built dataset, which `--config.data.directory` of train.py takes.
"""

import pathlib
import shutil
import sys

import numpy as np
import polars as pl
from absl import app, flags, logging

from coos import console, registry

_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder that holds the built datasets.")
_SOURCE = flags.DEFINE_string("source", None, "Folder with the raw files; coos7 downloads them if absent.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a dataset that is already built.")

flags.DEFINE_string("name", None, "cell_folder: name of the dataset (default: the folder's name).")
flags.DEFINE_list(
    "channels",
    None,
    "Channel order (coos7, .npz views: of the files; TIFF files: to store; lincs: names of ch1, ch2, ..., or columns "
    "of the index; bbbc, class folders: ends of file names).",
)
flags.DEFINE_string(
    "builder_config",
    None,
    "coos7: 'uint16' (raw, default) or 'float32'; cell_painting: 'views' (default), 'cells' or 'profiles'; lincs: "
    "'crops' (default) or 'fields'; bbbc: 'bbbc013' (default), 'bbbc014', 'bbbc015', 'bbbc016', 'bbbc021', 'hela', "
    "'cho' or 'hpa'.",
)
flags.DEFINE_string("mirror", None, "coos7: base address to download from instead of Zenodo.")
flags.DEFINE_string("labels", None, "cell_painting: label matrix folder (default: SOURCE/labels).")
flags.DEFINE_string(
    "index",
    None,
    "cell_painting: sample index (default: SOURCE/sample-index.csv); lincs: index.csv (default: "
    "SOURCE/inputs/metadata/index.csv if it is there, else names of files).",
)
flags.DEFINE_string(
    "split", None, "cell_painting: 'random' (default), 'scaffold', or a folder with train.csv, ..."
)
flags.DEFINE_list("split_fractions", None, "cell_painting: of compounds (default: 0.7,0.1,0.2).")
flags.DEFINE_integer("split_seed", None, "cell_painting: seed of the split (default: 0).")
flags.DEFINE_string(
    "profiles", None, "cell_painting: table of profiles (default: SOURCE/profiles.parquet or .csv)."
)
flags.DEFINE_string("cells", None, "cell_painting: table of cells (default: SOURCE/cells.parquet or .csv).")
flags.DEFINE_integer(
    "crop_size",
    None,
    "cell_painting, config cells: pixels of the crops (default: 96); lincs: likewise (default: 128).",
)
flags.DEFINE_bool(
    "drop_nonfinite_features", None, "cell_painting: leave out features with NaN or infinite values."
)
flags.DEFINE_integer(
    "num_shards",
    None,
    "cell_painting, lincs, bbbc: about how many files in all (default: as make 512 MB each).",
)
flags.DEFINE_integer(
    "worker", None, "cell_painting, lincs, bbbc: the number of this machine, from 0, of --num_workers."
)
flags.DEFINE_integer(
    "num_workers", None, "cell_painting, lincs, bbbc: machines that build side by side (default: 1)."
)
flags.DEFINE_integer("processes", None, "cell_painting, lincs, bbbc: processes on this machine (default: 1).")
flags.DEFINE_string(
    "metadata", None, "lincs: folder of barcodes, plate maps and mechanisms (default: SOURCE/metadata)."
)
flags.DEFINE_list("plates", None, "lincs, bbbc021: only these plates.")
flags.DEFINE_string("window", None, "lincs: 'exact' (default) or 'deepprofiler', which resamples.")
flags.DEFINE_string(
    "problems", None, "lincs: 'stop' (default) at missing or wrong files, or leave out and 'list' them."
)
flags.DEFINE_string(
    "concentrations",
    None,
    "bbbc013: concentrations of the dose steps, CSV with compound, dose_step, concentration, unit.",
)

CELL_PAINTING = (
    *(
        "labels",
        "index",
        "split",
        "split_fractions",
        "split_seed",
        "channels",
        "profiles",
        "cells",
        "crop_size",
    ),
    *("drop_nonfinite_features", "num_shards", "worker", "num_workers", "processes"),
)
LINCS = (
    *("metadata", "index", "channels", "plates", "crop_size", "window", "problems"),
    *("num_shards", "worker", "num_workers", "processes"),
)
BBBC = ("channels", "concentrations", "plates", "num_shards", "worker", "num_workers", "processes")
SHOWN, WIDTH = 10, 40  # compounds of a summary, and characters before its numbers
OPTION_NAMES = {  # what each builder calls the flags that it takes
    "coos7": {"channels": "file_channels", "builder_config": "config", "mirror": "mirror"},
    "cell_folder": {"channels": "channels", "name": "name"},
    "cell_painting": {**{name: name for name in CELL_PAINTING}, "builder_config": "config"},
    "lincs": {**{name: name for name in LINCS}, "builder_config": "config"},
    "bbbc": {**{name: name for name in BBBC}, "builder_config": "config"},
}


def make_builder(dataset: str):
    """The builder of `dataset` with the options given as flags; an option it does not have is an error."""
    module = registry.lookup("tfds_builders", dataset)
    known = dict.fromkeys(flag for names in OPTION_NAMES.values() for flag in names)
    given = {flag: flags.FLAGS[flag].value for flag in known if flags.FLAGS[flag].value is not None}
    names = OPTION_NAMES.get(dataset, {})
    unknown = [flag for flag in given if flag not in names]
    if unknown:
        raise ValueError(f"--{unknown[0]}: {dataset} does not have this option")
    if (given.get("num_workers") or 1) > 1 and _OVERWRITE.value:
        raise ValueError("--overwrite is for one worker; remove the old dataset, then start the workers")
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
    """What was stored, and what each split holds: images of each class, labels of many tasks, or what is on plates."""
    metadata = builder.info.metadata
    if metadata.get("form") == "whole_fields":
        return fields_summary(builder.info, pathlib.Path(builder.data_path))
    if "places" in metadata:
        return plates_summary(builder.info, pathlib.Path(builder.data_path))
    return tasks_summary(builder.info) if "tasks" in metadata else classes_summary(builder.info)


def stored(info) -> str:
    """Channels, shape and dtype of the images, or the number of features."""
    if "profile" in info.features:
        return f"profiles of {info.features['profile'].shape[0]:,} features"
    feature = info.features["image"]
    names = ", ".join(info.metadata["channels"])
    return f"channels {names}; images {feature.shape} {np.dtype(feature.np_dtype).name}"


def classes_summary(info) -> str:
    """The number of images of each class in each split."""
    names, counts = info.metadata["class_names"], info.metadata["class_counts"]
    width = max(len(name) for name in (*names, "class"))
    lines = [stored(info), f"{'class':<{width}}" + "".join(f"{split:>12}" for split in counts)]
    for k, name in enumerate(names):
        lines.append(f"{name:<{width}}" + "".join(f"{counts[split][k]:>12,}" for split in counts))
    for split, number in counts.items():
        lines += [f"NOTE {split}: no images of {name}" for k, name in enumerate(names) if not number[k]]
    return "\n".join(lines)


def tasks_summary(info) -> str:
    """Examples, wells, compounds and labels of each split, and what was left out."""
    metadata = info.metadata
    counts, tasks = metadata["counts"], len(metadata["tasks"])
    lines = [f"{stored(info)}; {tasks} tasks", f"{'':<10}" + "".join(f"{split:>12}" for split in counts)]
    for row in ("examples", "wells", "compounds", "active", "inactive"):
        lines.append(f"{row:<10}" + "".join(f"{count[row]:>12,}" for count in counts.values()))
    density = [(c["active"] + c["inactive"]) / (c["compounds"] * tasks) for c in counts.values()]
    lines.append(f"{'density':<10}" + "".join(f"{value:>12.3%}" for value in density))
    for reason, note in metadata["left_out"].items():
        lines.append(f"NOTE left out: {note['number']:,} {reason}, such as {', '.join(note['such as'])}")
    return "\n".join(lines)


def plates_summary(info, path: pathlib.Path) -> str:
    """How many fields, cells, wells and plates there are, the compounds with most cells, and what was wrong."""
    metadata = info.metadata
    window = f"{metadata['window']} windows of {metadata['crop_size']} pixels"
    lines = [f"{stored(info)}; {window}"]
    lines += [f"{name:<{WIDTH}}{number:>12,}" for name, number in metadata["counts"].items()]
    compounds = cells_of_compounds(pl.read_parquet(path / metadata["places"]))
    lines += [f"cells of {name:<{WIDTH - 9}}{number:>12,}" for name, number in compounds[:SHOWN]]
    others = compounds[SHOWN:]
    if others:
        name, cells = f"{len(others):,} others", sum(number for _, number in others)
        lines.append(f"cells of {name:<{WIDTH - 9}}{cells:>12,}")
    for problem, number in metadata["problems"].items():
        lines.append(f"NOTE problems: {number:,} {problem}; see {path / 'problems.csv'}")
    return "\n".join(lines)


def fields_summary(info, path: pathlib.Path) -> str:
    """How many fields, wells and plates there are, and the fields of each kind of control, class and compound."""
    metadata = info.metadata
    lines = [stored(info), *(f"{name:<{WIDTH}}{n:>12,}" for name, n in metadata["counts"].items() if n)]
    fields = pl.read_parquet(path / metadata["fields"])
    for kind in ("control", "class", "compound"):
        rows = fields if kind != "compound" else fields.filter(pl.col("Metadata_control").is_null())
        found = rows[f"Metadata_{kind}"].drop_nulls().value_counts(name="fields", sort=True).rows()
        found.sort(key=lambda pair: (-pair[1], pair[0]))
        lines += [f"{kind + ' ' + name:<{WIDTH}}{number:>12,}" for name, number in found[:SHOWN]]
        if found[SHOWN:]:
            name, number = f"{kind}: {len(found) - SHOWN:,} others", sum(n for _, n in found[SHOWN:])
            lines.append(f"{name:<{WIDTH}}{number:>12,}")
    return "\n".join(lines)


def cells_of_compounds(places: pl.DataFrame) -> list[tuple[str, int]]:
    """Every compound, by its common name if that is known, and its cells; the most first."""
    known = [name for name in ("Metadata_pert_iname", "Metadata_broad_sample") if name in places.columns]
    if not known:
        return []
    name = pl.coalesce(*known, pl.lit("unknown")).alias("name")
    counted = places.group_by(name).agg(pl.col("Metadata_cell_count").sum().alias("cells"))
    return list(counted.sort(-pl.col("cells"), "name").iter_rows())


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
    missing = getattr(builder, "missing_shards", [])
    if missing:
        print(
            f"{len(missing)} shards are still missing, such as {missing[0]}; the worker that writes the last finishes"
        )
        return
    print(summary(builder))
    for name, (found, published) in builder.info.metadata.get("differences_from_published", {}).items():
        print(f"NOTE {name}: {found} images found, {published} published")
    print(path)


if __name__ == "__main__":
    app.run(main)
