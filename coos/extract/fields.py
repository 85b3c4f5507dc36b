"""Fields of view with their cells, read ahead by threads while others are computed."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from typing import NamedTuple, TypeVar

import numpy as np

from coos.data import plate_files
from coos.data.plate_files import FieldError, Problem, Sites

Item = TypeVar("Item")


class Field(NamedTuple):
    """A field of view whose cells are to be computed.

    Attributes:
        site: its row in the sites.
        cells: (n,) int32 rows of its cells in the location file.
        centers: (n, 2) float64 of its cells, (y, x).
        image: (H, W, C) raw.
    """

    site: int
    cells: np.ndarray
    centers: np.ndarray
    image: np.ndarray


class Known(NamedTuple):
    """A field of view with the `features` (n, D) float32 of its n cells, and the `problem` why it has none, if any."""

    site: int
    cells: np.ndarray
    centers: np.ndarray
    features: np.ndarray
    problem: Problem | None = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Reader:
    """Reads a field of view by its row.

    Args:
        sites: S fields of view.
        shape, dtype: of all their images (H, W, C).
        counts: (S,) cells of each, -1 where the field is left out; images without cells are not opened.
        width: the number of features.
        stored: what is known already of a field and its number of cells, (n, width), or None.
        measure: features (n, width) of an image and centers (n, 2), where the host computes them.
        listing: whether a field that cannot be read is left out and its problem kept, or is an error.
    """

    sites: Sites
    shape: tuple[int, ...]
    dtype: np.dtype
    counts: np.ndarray
    width: int
    stored: Callable[[int, int], np.ndarray | None]
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    listing: bool = False

    def __call__(self, site: int) -> Field | Known:
        """The field; ValueError if its image cannot be read or is unlike the others, unless problems are listed."""
        if self.counts[site] < 1:
            return self._nothing(site)
        cells, centers = self._cells(site)
        known = self.stored(site, len(cells))
        if known is not None:
            return Known(site, cells, centers, known)
        try:
            image = self._image(site)
        except FieldError as error:
            if self.listing:
                return self._nothing(site, error.problem)
            message = f"{error}; mend it, or leave such fields out and list them: --problems=list"
            raise ValueError(message) from error
        if self.measure is None:
            return Field(site, cells, centers, image)
        return Known(site, cells, centers, self.measure(image, centers))

    def _nothing(self, site: int, problem: Problem | None = None) -> Known:
        no_features = np.zeros((0, self.width), np.float32)
        return Known(site, np.zeros(0, np.int32), np.zeros((0, 2)), no_features, problem)

    def _image(self, site: int) -> np.ndarray:
        image = plate_files.read_field(self.sites, site)
        if image.shape != self.shape or image.dtype != self.dtype:
            found, wanted = f"{image.dtype} {image.shape}", f"{self.dtype} {self.shape}"
            detail = f"{self.sites.images[site][0]}: the field is {found}; the first one is {wanted}"
            raise FieldError(Problem(*self.sites.place(site), "image size", detail))
        return image

    def _cells(self, site: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and centers of the cells inside; as many as there were when problems were looked for."""
        centers = plate_files.read_centers(self.sites.locations[site])
        inside = ((centers >= 0) & (centers < self.shape[:2])).all(1)
        if inside.sum() != self.counts[site]:
            raise ValueError(f"{self.sites.locations[site]}: changed while it was in use; start again")
        return np.flatnonzero(inside).astype(np.int32), centers[inside]


def read_ahead(
    read: Callable[[int], Item], sites: Iterable[int], *, readers: int
) -> Generator[Item, None, None]:
    """`read(site)` of every site, in order, by so many threads; at most twice as many results wait."""
    pool = futures.ThreadPoolExecutor(readers)
    running: collections.deque[futures.Future[Item]] = collections.deque()
    remaining = iter(sites)
    try:
        while True:
            running.extend(
                pool.submit(read, s) for s in itertools.islice(remaining, 2 * readers - len(running))
            )
            if not running:
                return
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
