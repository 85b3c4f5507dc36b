"""What is known of the examples of a split beside their images, collected while all of them are read once."""

from typing import Any

import numpy as np

TEXT_COLUMNS = ("plate", "well", "site", "compound")


def start(number: int, dataset: dict[str, Any]) -> "TargetColumns | PlaceColumns | FieldColumns":
    """An empty collection for `number` examples of a dataset, as `coos.data.source.describe` has it."""
    if "fields" in dataset:
        return FieldColumns(number)
    return PlaceColumns() if "places" in dataset else TargetColumns(number, dataset)


class TargetColumns:
    """Labels, ids and provenance, collected example by example."""

    def __init__(self, number: int, dataset: dict[str, Any]):
        tasks = dataset.get("tasks")
        self._labels = (
            np.zeros(number, np.int32) if tasks is None else np.zeros((number, len(tasks)), np.int8)
        )
        self._texts: dict[str, list[str]] = {"ids": []}
        self._counts = np.full(number, -1, np.int32)
        self._of_tasks = tasks is not None

    def take(self, row: int, example: dict[str, Any]) -> None:
        """Note one example."""
        self._texts["ids"].append(example["id"].decode())
        if not self._of_tasks:
            self._labels[row] = example["label"]
            self._take_texts(example)
            return
        self._labels[row, example["label_positions"]] = example["label_values"]
        self._counts[row] = example["cell_count"]
        self._take_texts(example)

    def _take_texts(self, example: dict[str, Any]) -> None:
        for name in TEXT_COLUMNS:
            if name in example:
                self._texts.setdefault(name, []).append(example[name].decode())

    def arrays(self) -> dict[str, Any]:
        """All of them by name; the name of a well is made unique by that of its plate.

        Of cells with a class, what is empty for all of them is not known, and left out; a well of a known name on a
        plate of unknown name, or the reverse, stays unknown too: empty.
        """
        texts = {name: np.array(values, dtype=np.str_) for name, values in self._texts.items()}
        if not self._of_tasks:
            texts = {name: values for name, values in texts.items() if name == "ids" or (values != "").any()}
        if "plate" in texts and "well" in texts:
            plates, wells = texts["plate"].tolist(), texts["well"].tolist()
            names = [
                f"{p}-{w}" if self._of_tasks or (p and w) else "" for p, w in zip(plates, wells, strict=True)
            ]
            texts["well"] = np.array(names, dtype=np.str_)
        counts = {"cell_count": self._counts} if self._of_tasks else {}
        return {"labels": self._labels, **counts, **texts}


class PlaceColumns:
    """Where the cells are, collected example by example: one cell each, or a field with all of its cells."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Any]] = {name: [] for name in ("field", "place", "cell", "center")}

    def take(self, row: int, example: dict[str, Any]) -> None:
        """Note one example."""
        cells = np.atleast_1d(example["cells"] if "cells" in example else example["cell"])
        centers = example["centers"] if "centers" in example else example["center"]
        self._parts["field"].append(np.full(len(cells), row, np.int32))
        self._parts["place"].append(np.full(len(cells), example["place"], np.int32))
        self._parts["cell"].append(cells.astype(np.int32))
        self._parts["center"].append(np.reshape(centers, (-1, 2)).astype(np.float64))

    def arrays(self) -> dict[str, Any]:
        """Of every cell: the row of its image, the row of its place, its row in the location file, its centre."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}


class FieldColumns:
    """Which row of the table of fields every example is, collected example by example."""

    def __init__(self, number: int) -> None:
        self._field = np.zeros(number, np.int32)

    def take(self, row: int, example: dict[str, Any]) -> None:
        """Note one example."""
        self._field[row] = example["field"]

    def arrays(self) -> dict[str, Any]:
        """The row of each example's field."""
        return {"field": self._field}
