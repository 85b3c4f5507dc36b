"""Export single cells as DeepProfiler does: a PNG file per cell, its channels side by side, and sc-metadata.csv.

    python experiments/export_crops.py --source=DIR --metadata=DIR --out=crops --label_column=Metadata_pert_iname

An export that was killed goes on where it was; a plate whose files have changed meanwhile stops it. What files are
missing or wrong stops it as well, or with --problems=list is left out and listed in OUT/problems.csv.
"""

import dataclasses
import pathlib
import sys

import polars as pl
from absl import app, flags

from coos import console, workdir
from coos.data import deepprofiler_crops, plate_annotation, plate_files, plate_problems

_SOURCE = flags.DEFINE_string("source", None, "Folder with images and locations.", required=True)
_METADATA = flags.DEFINE_string(
    "metadata", None, "Folder of barcodes, plate maps, mechanisms (default: SOURCE/metadata)."
)
_OUT = flags.DEFINE_string("out", None, "Folder for the crops.", required=True)
_LABEL = flags.DEFINE_string("label_column", "Metadata_broad_sample", "What cells are to be classified by.")
_SPLIT = flags.DEFINE_string("split_column", "", "Column of the index that divides training from validation.")
_INDEX = flags.DEFINE_string("index", None, "index.csv (default: that of the source, else names of files).")
_CHANNELS = flags.DEFINE_list("channels", None, "Names of ch1, ch2, ..., or columns of the index.")
_PLATES = flags.DEFINE_list("plates", None, "Only these plates.")
_SIZE = flags.DEFINE_integer("crop_size", 128, "Pixels of a window.", lower_bound=2)
_SCALING = flags.DEFINE_enum(
    "scaling", "none", list(deepprofiler_crops.SCALINGS), "Of single channels, before bytes."
)
_PROBLEMS = flags.DEFINE_enum(
    "problems", "stop", plate_problems.POLICIES, "Stop at wrong files, or list them."
)
_THREADS = flags.DEFINE_integer("threads", 4, "Fields that are exported side by side.", lower_bound=1)


def find_sites() -> plate_files.Sites:
    """The fields of view, and what is known of their wells."""
    sites = plate_files.find(
        _SOURCE.value, index=_INDEX.value, channels=_CHANNELS.value, plates=_PLATES.value
    )
    metadata = pathlib.Path(_METADATA.value or pathlib.Path(_SOURCE.value, "metadata"))
    if not metadata.is_dir():
        if _METADATA.value:
            raise ValueError(f"--metadata={metadata}: no such folder")
        return sites
    return dataclasses.replace(sites, frame=plate_annotation.annotate(sites.frame, metadata))


def main(argv: list[str]) -> None:
    """Export, and print what there is."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    try:
        problems = deepprofiler_crops.write(
            _OUT.value,
            find_sites(),
            label_column=_LABEL.value,
            split_column=_SPLIT.value,
            size=_SIZE.value,
            scaling=_SCALING.value,
            problems=_PROBLEMS.value,
            threads=_THREADS.value,
        )
        workdir.write_atomically(
            pathlib.Path(_OUT.value, "problems.csv"),
            lambda file: file.write(plate_problems.as_csv(problems)),
            mode="wb",
        )
        table = deepprofiler_crops.read_table(_OUT.value)
    except (ValueError, OSError) as error:
        sys.exit(f"export_crops.py: {error}")
    counted = table.group_by(_LABEL.value).agg(pl.len().alias("cells")).sort(_LABEL.value)
    for name, number in counted.iter_rows():
        print(f"{name:<40}{number:>12,}")
    for problem, number in plate_problems.count(problems).items():
        print(f"NOTE problems: {number:,} {problem}; see {pathlib.Path(_OUT.value, 'problems.csv')}")
    print(pathlib.Path(_OUT.value, deepprofiler_crops.TABLE))


if __name__ == "__main__":
    app.run(main)
