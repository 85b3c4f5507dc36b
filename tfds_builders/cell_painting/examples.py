"""What the three configs make of a view: the whole view, crops around its cells, or the profile of its well.

All three have the same members, documented in `Content`. They are sent to other processes with the arrays they hold.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from coos.data import crops
from coos.data.field_files import FieldFiles
from coos.data.label_matrix import LabelMatrix
from coos.data.sample_index import LeftOut, SampleIndex, left_out
from coos.data.well_tables import Locations, Profiles

Example = dict[str, Any]


class Content(Protocol):
    """What is stored of the N views of an index."""

    feature: str  # its name in an example
    shape: tuple[int, ...]
    dtype: np.dtype
    names: tuple[str, ...]  # of channels or features
    left_out: LeftOut

    def sizes(self) -> np.ndarray:
        """(N,) examples of every view; 0 for views that give none."""

    def recipe(self) -> dict[str, Any]:
        """What the examples depend on besides the tables, as JSON; ValueError if files are missing."""

    def examples(self, view: int) -> Iterator[Example]:
        """The examples of one view."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """`read(split, unit)` of `coos.data.shards`: the unit is a position in the `views` of the split."""

    content: Content
    views: Mapping[str, np.ndarray]

    def __call__(self, split: str, unit: int) -> Iterator[Example]:
        """The examples of a unit."""
        return self.content.examples(int(self.views[split][unit]))

    def digest(self, split: str, units: np.ndarray) -> str:
        """What the image files of some units are known by; "" for profiles, whose table the recipe has."""
        files = getattr(self.content, "files", None)
        return files.digest(self.views[split][units].tolist()) if files else ""


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What is known of every view: where it is, its compound, the labels of that compound; (N,) `cell_counts`."""

    index: SampleIndex
    matrix: LabelMatrix
    cell_counts: np.ndarray

    def example(self, view: int) -> Example:
        """An example of a view but for its values."""
        positions, values = self.matrix.entries(int(self.index.rows[view]))
        return {
            "id": str(self.index.keys[view]),
            "plate": str(self.index.plates[view]),
            "well": str(self.index.wells[view]),
            "site": str(self.index.sites[view]),
            "compound": str(self.index.compounds[view]),
            "label_positions": positions,
            "label_values": values,
            "cell_count": int(self.cell_counts[view]),
        }


class Views:
    """A view is one example."""

    feature = "image"

    def __init__(self, known: Known, files: FieldFiles):
        self.known, self.files = known, files
        self.shape: tuple[int, ...] = files.shape
        self.dtype, self.names = files.dtype, files.channels
        self.left_out: LeftOut = {}

    def sizes(self) -> np.ndarray:
        """One example of every view."""
        return np.ones(len(self.known.index), np.int64)

    def recipe(self) -> dict[str, Any]:
        """The image files and the channels."""
        return {"files": self.files.check(), "channels": list(self.files.channels)}

    def examples(self, view: int) -> Iterator[Example]:
        """The view."""
        yield {**self.known.example(view), "image": self.files.read(view)}


class Cells:
    """A view gives one example per cell: `size` x `size` pixels around its centre, moved to lie inside the view."""

    feature = "image"

    def __init__(self, known: Known, files: FieldFiles, locations: Locations, *, size: int):
        if not 0 < size <= min(files.shape[:2]):
            raise ValueError(f"crop_size={size}: views have {files.shape[0]} x {files.shape[1]} pixels")
        # A pixel beyond the edge is forgiven: tools count from 0 or from 1, from the middle or the corner of pixels.
        outside = ((locations.centers < -1) | (locations.centers > np.array(files.shape[:2]))).any(1)
        if outside.any():
            raise ValueError(
                f"{int(outside.sum())} cells lie outside their view of {files.shape[:2]} pixels, such as (row, column) "
                f"{locations.centers[outside][0].tolist()}; are the centres in pixels of these images?"
            )
        self.known, self.files, self.locations, self.size = known, files, locations, size
        self.shape: tuple[int, ...] = (size, size, files.shape[2])
        self.dtype, self.names = files.dtype, files.channels
        self.left_out = left_out("views without cells", known.index.keys[locations.counts == 0])

    def sizes(self) -> np.ndarray:
        """As many examples as cells."""
        return self.locations.counts

    def recipe(self) -> dict[str, Any]:
        """The image files, the channels and the size of the crops."""
        return {"files": self.files.check(), "channels": list(self.files.channels), "crop_size": self.size}

    def examples(self, view: int) -> Iterator[Example]:
        """All cells of the view, which is read once."""
        image, known = self.files.read(view), self.known.example(view)
        corners = crop_corners(self.locations.of(view), image.shape[:2], self.size)
        for number, (row, column) in enumerate(corners):
            crop = image[row : row + self.size, column : column + self.size]
            yield {**known, "id": f"{known['id']}-{number:04d}", "image": np.ascontiguousarray(crop)}


def crop_corners(centers: np.ndarray, shape: tuple[int, ...], size: int) -> np.ndarray:
    """(n, 2) upper left corners of windows of `size` pixels around `centers` (n, 2), moved to lie inside `shape`.

    `coos.data.crops.corners`, moved.
    """
    return np.clip(crops.corners(centers, size), 0, np.array(shape) - size)


class WellProfiles:
    """A well is one example, given by the first of its views; its cells are those of all its views."""

    feature = "profile"
    dtype = np.dtype(np.float32)

    def __init__(self, known: Known, profiles: Profiles):
        _, well_of = np.unique(known.index.well_ids, return_inverse=True)
        counts = np.bincount(well_of, weights=known.cell_counts)[well_of]
        unknown = (known.cell_counts < 0).any()
        self.known = dataclasses.replace(known, cell_counts=known.cell_counts if unknown else counts)
        self.rows = {view: row for row, view in enumerate(profiles.views.tolist())}
        self.features, self.dropped = profiles.features, profiles.dropped
        self.shape: tuple[int, ...] = (len(profiles.names),)
        self.names, self.left_out = profiles.names, profiles.left_out

    def sizes(self) -> np.ndarray:
        """One example of the first view of every well that has a profile."""
        return np.bincount(list(self.rows), minlength=len(self.known.index))

    def recipe(self) -> dict[str, Any]:
        """The features that were left out because they are not finite."""
        return {"dropped_features": list(self.dropped)}

    def examples(self, view: int) -> Iterator[Example]:
        """The well of the view."""
        known = self.known.example(view)
        known |= {"id": f"{known['plate']}-{known['well']}", "site": ""}
        yield {**known, "profile": self.features[self.rows[view]]}
