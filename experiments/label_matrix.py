"""Which of these compounds are active in which assay? A label matrix from a ChEMBL release.

    python experiments/label_matrix.py --chembl=chembl_24.db --compounds=compounds.csv --out=labels

--chembl is the SQLite file of a release, unpacked. --compounds is a CSV or Parquet table with a column of SMILES
(--smiles_column), of InChIKeys (INCHIKEY), or both: given InChIKeys are used as they are, and compared with those
of the SMILES if RDKit is installed; missing ones are computed from the SMILES. Rows may repeat compounds.

Active means a pChEMBL value (IC50 or EC50, 4 to 10) of at least 5.5, 6.5 or 7.5, or the comment "active";
coos/data/chembl.py has every rule. Writes to --out

    label-matrix.mtx, row-compound-index.csv, column-assay-index.csv    the matrix, as it was published in 2019
    columns.csv      for each column: assay, ChEMBL ID, description, source, active and inactive compounds
    compounds.csv    for each row of --compounds: its InChIKey and its row of the matrix, or why it has none
    notes.csv        what was used, left out or merged, with units and comments, and how many rows each
    summary.json     shape, density, counts and the rules
"""

import pathlib
import sys

import polars as pl
from absl import app, flags

from coos import console
from coos import workdir as work
from coos.data import chembl, chembl_query, chemistry, label_matrix
from coos.profiles import delimited

_CHEMBL = flags.DEFINE_string("chembl", None, "SQLite file of a ChEMBL release.", required=True)
_COMPOUNDS = flags.DEFINE_string("compounds", None, "Table of compounds: CSV, TSV or Parquet.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for the label matrix.", required=True)
_SMILES = flags.DEFINE_string("smiles_column", "SMILES", "Column of SMILES.")
_INCHIKEY = flags.DEFINE_string("inchikey_column", "INCHIKEY", "Column of InChIKeys, if there is one.")
_MINIMUM = flags.DEFINE_integer("minimum", chembl.MINIMUM, "Actives, and inactives, that a column needs.")
_DROP = flags.DEFINE_boolean(
    "drop_flagged", False, "Leave out duplicates and doubtful values, as ChEMBL marks them."
)
_ACTIVE = flags.DEFINE_multi_string(
    "active_comment", [], "A further comment that means active; may be repeated."
)
_INACTIVE = flags.DEFINE_multi_string("inactive_comment", [], "The same for inactive.")
_OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Replace an earlier label matrix in --out.")


def read_compounds(path: pathlib.Path) -> chemistry.Compounds:
    """The compounds of a table; ValueError if it has neither SMILES nor InChIKeys."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else delimited.read_text_frame(path)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path}: cannot be read as a table ({error})") from error
    smiles, keys = (
        table[name].cast(pl.String).to_list() if name in table.columns else None
        for name in (_SMILES.value, _INCHIKEY.value)
    )
    if smiles is None and (keys is None or flags.FLAGS["smiles_column"].present):
        raise ValueError(
            f"{path}: no column {_SMILES.value}; it has {', '.join(table.columns)}; see --smiles_column"
        )
    if keys is None and flags.FLAGS["inchikey_column"].present:
        raise ValueError(
            f"{path}: no column {_INCHIKEY.value}; it has {', '.join(table.columns)}; see --inchikey_column"
        )
    return chemistry.identify(smiles if smiles is not None else [None] * len(table), keys, progress=True)


def readings() -> dict[str, int]:
    """What comments say: the usual ones, and those of the flags; ValueError if one would say both."""
    active, inactive = ({text.strip().lower() for text in flag.value} for flag in (_ACTIVE, _INACTIVE))
    usual = chembl_query.COMMENTS
    both = sorted(active & inactive) + [t for t in usual if t in (inactive if usual[t] > 0 else active)]
    if both:
        raise ValueError(f"the comment {both[0]!r} cannot mean both active and inactive")
    return {**usual, **dict.fromkeys(active, 1), **dict.fromkeys(inactive, -1)}


def describe(labels: chembl.Labels) -> str:
    """The summary, for people."""
    matrix = labels.matrix
    active, inactive = (int(counts.sum()) for counts in matrix.counts())
    lines = [
        f"{matrix.shape[0]:,} compounds x {matrix.shape[1]:,} columns of {len(set(matrix.assays)):,} assays",
        f"{len(matrix.values):,} labels ({matrix.density:.3%}): {active:,} active, {inactive:,} inactive",
        "",
    ]
    parts = {"compounds": labels.summary["input"], "measurements": labels.summary["notes"]}
    for title, counts in parts.items():
        lines += [f"{title}:", *(f"{count:>12,}  {name.replace('_', ' ')}" for name, count in counts.items())]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Read the table and the release, write the matrix, print what is in it."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    out = pathlib.Path(_OUT.value).resolve()
    try:
        if (out / label_matrix.MATRIX).exists() and not _OVERWRITE.value:
            raise ValueError(f"{out}: has a label matrix already; --overwrite replaces it")
        labels = chembl.extract(
            _CHEMBL.value,
            read_compounds(pathlib.Path(_COMPOUNDS.value)),
            minimum=_MINIMUM.value,
            comments=readings(),
            drop_flagged=_DROP.value,
            progress=True,
        )
        chembl.write(out, labels._replace(summary={**labels.summary, "versions": work.versions()}))
    except (ValueError, OSError) as error:
        sys.exit(f"label_matrix.py: {error}")
    print(f"{describe(labels)}\nlabel matrix: {out}")


if __name__ == "__main__":
    app.run(main)
