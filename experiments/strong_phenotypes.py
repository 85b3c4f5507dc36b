"""Which compounds look least like the controls? Write a list of them, for experiments/retrieve.py --subset.

    python experiments/strong_phenotypes.py --profiles=runs/pretrained --count=450 --out=strong.txt
    python experiments/strong_phenotypes.py --profiles=mine.parquet --controls="Metadata_type = 'control'" \
        --label_column=Metadata_compound --count=100 --out=strong.txt
    python experiments/retrieve.py --profiles=runs/pretrained --subset=strong=strong.txt --out=reports/strong

Section 4.6.1 of Bornholdt 2021: the Pearson correlation, over features, of each consensus profile with that of the
controls (with their mean, if there are several); the --count profiles that correlate least have strong phenotypes. The
thesis took about 450 of 1,143 compounds, by sphered profiles of an ImageNet network.

Writes to --out the value of --label_column of each, one per line, least correlated first; of equal ones the first by
name comes first.
"""

import pathlib
import sys

import numpy as np
import polars as pl
from absl import app, flags

from coos import console
from coos import workdir as work
from coos.profiles import files
from coos.profiles.table import Table

_PROFILES = flags.DEFINE_string("profiles", None, "Work directory of profile.py, or a table.", required=True)
_OUT = flags.DEFINE_string("out", None, "Text file to write.", required=True)
_COUNT = flags.DEFINE_integer("count", 450, "How many compounds to list.", lower_bound=1)
_CONTROLS = flags.DEFINE_string("controls", "Metadata_broad_sample = 'DMSO'", "Query: the control profiles.")
_LABEL_COLUMN = flags.DEFINE_string("label_column", "Metadata_broad_sample", "Column with what to list.")


def load(path: str) -> Table:
    """A table from a file, or profiles.parquet of a work directory."""
    place = pathlib.Path(path)
    if not place.exists():
        raise ValueError(f"{place}: no such file or work directory")
    if place.is_dir() and not (place / "config.json").exists():
        raise ValueError(f"{place}: has no config.json; is it a work directory that profile.py finished?")
    return files.read(place / "profiles.parquet" if place.is_dir() else place)


def correlations(table: Table, *, controls: str, label_column: str) -> list[tuple[float, str]]:
    """(Pearson correlation with the mean of the control profiles, label) of all other rows, in this order.

    Args:
        table: consensus profiles, a row per compound, the controls among them.
        controls: query; the rows that match are the controls.
        label_column: metadata column that tells the other rows apart.

    Raises:
        ValueError: no controls or nothing else, labels that are missing or stand on several rows, missing features,
            or a profile of equal features, whose correlation is undefined.
    """
    are_controls = table.where(controls)
    if not are_controls.any():
        raise ValueError(f"no row matches --controls={controls!r}")
    if are_controls.all():
        raise ValueError(f"all {len(table)} rows match --controls={controls!r}; there is nothing to compare")
    others = table.filter(~are_controls)
    labels = others.column(label_column).cast(pl.String)
    if labels.null_count():
        raise ValueError(f"{labels.null_count()} of {len(others)} profiles have no {label_column}")
    if labels.n_unique() < len(labels):
        twice = labels.filter(labels.is_duplicated())[0]
        raise ValueError(
            f"{label_column} {twice!r} stands on more than one row; give consensus profiles, one per compound"
        )
    control = table.features[are_controls].mean(0, keepdims=True, dtype=np.float64)
    names = labels.to_list()
    r = _centered(others.features, names) @ _centered(control, ["mean of the controls"]).T
    return sorted(zip(np.round(r[:, 0], 12).tolist(), names, strict=True))  # but for rounding, equal is equal


def _centered(features: np.ndarray, names: list[str]) -> np.ndarray:
    """Rows less their mean, of length 1, float64; ValueError naming a row where that is impossible."""
    x = np.asarray(features, np.float64)
    broken = ~np.isfinite(x).all(1)
    if broken.any():
        raise ValueError(
            f"{int(broken.sum())} profiles have missing or infinite features, first {names[int(broken.argmax())]}; "
            "drop such features with the step drop_missing"
        )
    x = x - x.mean(1, keepdims=True)
    lengths = np.sqrt((x * x).sum(1, keepdims=True))
    flat = lengths[:, 0] <= np.finfo(np.float32).eps * np.abs(features).max(1) * np.sqrt(x.shape[1])
    if flat.any():
        raise ValueError(
            f"{names[int(flat.argmax())]}: all features are equal, so its correlation is undefined (a robust "
            "normalization on the controls leaves 0 of them); take profiles of another normalization, such as spherize"
        )
    return x / lengths


def main(argv: list[str]) -> None:
    """Correlate, write the list, say where its border is."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    count = _COUNT.value
    try:
        table = load(_PROFILES.value)
        found = correlations(table, controls=_CONTROLS.value, label_column=_LABEL_COLUMN.value)
        if count > len(found):
            raise ValueError(
                f"--count={count}, but there are only {len(found)} profiles besides the controls"
            )
        text = "".join(f"{label}\n" for _, label in found[:count])
        work.write_atomically(_OUT.value, lambda file: file.write(text))
    except (ValueError, OSError) as error:
        sys.exit(f"strong_phenotypes.py: {error}")
    after = f"; the next has {found[count][0]:.4f}" if count < len(found) else ""
    border = f"correlation with the controls from {found[0][0]:.4f} to {found[count - 1][0]:.4f}{after}"
    print(f"{count} of {len(found)} profiles, {border}: {_OUT.value}")


if __name__ == "__main__":
    app.run(main)
