"""The folder of a report: each figure and table goes to a file and, inlined, to the page."""

import csv
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from coos import workdir
from coos.report import html, plots


class Folder:
    """Writes `figures/*.png`, `tables/*.csv` and `index.html` under one path."""

    def __init__(self, path: pathlib.Path) -> None:
        """Figures and tables of an earlier report in the same place are removed; nothing is written yet."""
        self.path = path
        for old in (*path.glob("figures/*.png"), *path.glob("tables/*.csv")):
            old.unlink()
        self._names: set[str] = set()

    def _file(self, kind: str, name: str, suffix: str) -> pathlib.Path:
        """A file name that is safe everywhere and not yet taken by this report."""
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:80] or "unnamed"
        unique, count = stem, 1
        while f"{kind}/{unique}" in self._names:
            count += 1
            unique = f"{stem}-{count}"
        self._names.add(f"{kind}/{unique}")
        return self.path / kind / f"{unique}{suffix}"

    def figure(self, name: str, figure: Figure, *, alt: str, caption: str) -> str:
        """Write a figure as PNG and return it as HTML."""
        data = plots.png(figure)
        path = self._file("figures", name, ".png")
        workdir.write_atomically(path, lambda file: file.write(data), mode="wb")
        return html.figure(data, alt=alt, caption=caption)

    def csv(self, name: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
        """Write rows as CSV; undefined numbers are `nan`, lists are joined by spaces."""

        def write(file: Any) -> None:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([_plain(row[column]) for column in columns] for row in rows)

        workdir.write_atomically(self._file("tables", name, ".csv"), write)

    def page(self, text: str) -> pathlib.Path:
        """Write `index.html`."""
        path = self.path / "index.html"
        workdir.write_atomically(path, lambda file: file.write(text))
        return path


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value
