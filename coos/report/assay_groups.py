"""Mean AUC of groups of assays, such as their kinds or targets, from a table ASSAY_ID, GROUP."""

import csv
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from coos.report import html
from coos.report.assay_comparison import Comparison
from coos.report.assay_scores import Row, Scores
from coos.report.folder import Folder

COLUMNS = ("ASSAY_ID", "GROUP")
OTHERS = "not in the table of groups"
GROUP_COLUMNS = ("group", "assays", "model", "mean_auroc", "std_auroc", "defined")


def read(path: str | pathlib.Path) -> dict[str, str]:
    """{assay ID: group} of a CSV with these two columns; ValueError if a column lacks or an assay has two groups."""
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: column {missing[0]!r} missing; found {reader.fieldnames}")
        groups: dict[str, str] = {}
        for line, row in enumerate(reader, start=2):
            if groups.setdefault(row["ASSAY_ID"], row["GROUP"]) != row["GROUP"]:
                raise ValueError(f"{path}, line {line}: assay {row['ASSAY_ID']} has two groups")
    return groups


def assay_ids(comparison: Comparison) -> list[str]:
    """The ID of every assay, by position."""
    return [str(i) for i in comparison.runs[0].dataset["assay_ids"]]


def rows(comparison: Comparison, scores: Sequence[Scores], groups: Mapping[str, str]) -> list[Row]:
    """A row per group and model: mean and standard deviation of the AUC over its assays, and how many have one."""
    ids = assay_ids(comparison)
    unknown = sorted(set(groups) - set(ids))
    if len(unknown) == len(groups):
        raise ValueError(
            f"none of the {len(groups)} assays with a group is predicted here, such as {unknown[:1]}"
        )
    named = np.array([groups.get(assay, OTHERS) for assay in ids])
    found = []
    for group in sorted(set(named.tolist()), key=lambda name: (name == OTHERS, name)):
        for model in scores:
            values = model.auroc[named == group]
            defined = values[~np.isnan(values)]
            empty = not len(defined)
            found.append(
                {
                    "group": group,
                    "assays": len(values),
                    "model": model.name,
                    "mean_auroc": np.nan if empty else float(defined.mean()),
                    "std_auroc": np.nan if empty else float(defined.std()),
                    "defined": len(defined),
                }
            )
    return found


def section(
    folder: Folder, comparison: Comparison, scores: Sequence[Scores], groups: Mapping[str, str]
) -> str:
    """The table as HTML and CSV."""
    found = rows(comparison, scores, groups)
    folder.csv("groups", found, GROUP_COLUMNS)
    lines = []
    for start in range(0, len(found), len(scores)):
        own = found[start : start + len(scores)]
        cells = [html.escape(own[0]["group"]), f"{own[0]['assays']:,}"]
        lines.append(("", cells + [_cell(row) for row in own]))
    heads = ["Group", "Assays", *(model.name for model in scores)]
    caption = "Mean and standard deviation of the AUC over the assays of each group."
    if unknown := set(groups) - set(assay_ids(comparison)):
        caption += f" Of the assays in the table of groups {len(unknown):,} are not predicted here."
    return html.table(html.head(heads), lines, caption=caption)


def _cell(row: Row) -> str:
    if not row["defined"]:
        return html.undefined("no assay of the group is defined")
    fewer = row["defined"] < row["assays"]
    text = f"{row['mean_auroc']:.3f} ± {row['std_auroc']:.2f}"
    return html.cell(text, small=f"{row['defined']:,} defined" if fewer else "")
