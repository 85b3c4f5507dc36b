"""Which rows match which: lists of matches per row, never an (N, N) matrix."""

import dataclasses

import numpy as np
import scipy.sparse

CHUNK = 1024  # rows whose matches are listed at a time


@dataclasses.dataclass(frozen=True)
class Matches:
    """Labels and exclusions of N rows, as `inputs.check_labels` and `inputs.check_exclude` give them.

    Two different rows match if they have the same label (or share a label of multi-hot ones) and no exclusion
    group in common. `hot` is (N, M) sparse with a 1 for each label of each row.
    """

    labels: np.ndarray
    exclude: np.ndarray
    hot: scipy.sparse.csr_array

    @classmethod
    def create(cls, labels: np.ndarray, exclude: np.ndarray) -> "Matches":
        """Matches for checked labels and exclusions."""
        if labels.ndim == 2:
            return cls(labels, exclude, scipy.sparse.csr_array(labels.astype(np.int32)))
        rows = np.flatnonzero(labels >= 0)
        width = int(labels.max(initial=-1)) + 1
        entries = (np.ones(len(rows), np.int32), (rows, labels[rows]))
        return cls(labels, exclude, scipy.sparse.csr_array(entries, shape=(len(labels), max(width, 1))))

    def pairs(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(position in `rows`, matching row) of every match of these rows, ordered by position."""
        shared = (self.hot[rows] @ self.hot.T).tocoo()
        first, second = shared.coords
        keep = rows[first] != second
        for group in self.exclude:
            keep &= (group[rows[first]] != group[second]) | (group[second] < 0)
        first, second = first[keep], second[keep]
        order = np.argsort(first, kind="stable")
        return first[order], second[order].astype(np.int32)

    def counts(self) -> np.ndarray:
        """(N,) int64: how many matches each row has."""
        every = np.arange(len(self.labels))
        parts = [every[start : start + CHUNK] for start in range(0, len(every), CHUNK)]
        found = [np.bincount(self.pairs(rows)[0], minlength=len(rows)) for rows in parts]
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def listed(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matches of `rows` as (B, R) int32 and how many of each row are real, (B,) int32.

        R is the next power of two, so that few different shapes are compiled; the rest is filled with 0.
        """
        first, second = self.pairs(rows)
        counts = np.bincount(first, minlength=len(rows))
        width = 1 << max(int(counts.max(initial=1)) - 1, 0).bit_length()
        lists = np.zeros((len(rows), width), np.int32)
        starts = np.cumsum(counts) - counts
        lists[first, np.arange(len(first)) - starts[first]] = second
        return lists, counts.astype(np.int32)
