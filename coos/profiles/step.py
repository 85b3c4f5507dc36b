"""What all steps share: fit on reference rows, per group, and transform; on tables and on bare arrays.

    step = normalize.Standardize(reference="Metadata_broad_sample = 'DMSO'", by="Metadata_Plate")
    normalized = step.fit(table).transform(table)
    z = normalize.Standardize().fit(x).transform(x)          # bare arrays: all rows are the reference

A step is a dataclass of its options. `fit` learns from the reference rows and returns the step itself; what was
learned is in attributes that end with an underscore.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import numpy as np
from absl import logging

from coos.profiles.table import Table, describe, listing

Data = TypeVar("Data", Table, np.ndarray)
EVERYTHING: tuple = ()


@dataclasses.dataclass(kw_only=True)
class Step:
    """A step without options of its own, in which `fit` learns nothing.

    Subclasses override `transform`, and `fit` where there is something to learn.
    """

    def fit(self, data: Data) -> Self:
        """Learn from `data`; returns the step."""
        return self

    def transform(self, data: Data) -> Data:
        """`data` with the step applied."""
        raise NotImplementedError

    def fit_transform(self, data: Data) -> Data:
        """Fit on `data`, then transform it."""
        return self.fit(data).transform(data)


@dataclasses.dataclass(kw_only=True)
class GroupedStep(Step):
    """A step that learns from the reference rows of each group and changes the features of its rows.

    Args:
        reference: a metadata query that names the rows to learn from; None: all rows.
        by: metadata columns whose values form the groups (such as "Metadata_Plate"); None: one group.

    Subclasses implement `learn(x) -> state` and `apply(state, x) -> x`, on (n, D) arrays of one group.
    After fitting, `states_` maps the group's key (a tuple, empty for one group) to its state.
    """

    reference: str | None = None
    by: str | Sequence[str] | None = None

    def learn(self, x: np.ndarray, names: Sequence[str]) -> Any:
        """What this step needs to know about reference rows `x` (n, D) with features called `names`."""
        raise NotImplementedError

    def apply(self, state: Any, x: np.ndarray) -> np.ndarray:
        """Rows `x` (n, D), transformed with what was learned."""
        raise NotImplementedError

    def fit(self, data: Data) -> Self:
        """Learn from the reference rows of each group of `data`, a Table or an (N, D) array.

        Raises:
            ValueError: no rows, a group without reference rows, or what they hold cannot be learned from.
        """
        self.states_: dict[tuple, Any] = {}
        self.names_: Sequence[str]
        if not isinstance(data, Table):
            self._refuse_options()
            x = as_matrix(data)
            self.names_ = numbered(x)
            self.states_[EVERYTHING] = self.learn(x, self.names_)
            return self
        if not len(data):
            raise ValueError(f"no rows to fit {type(self).__name__} on; check what the steps before it keep")
        self.names_ = data.feature_names
        is_reference = np.ones(len(data), bool) if self.reference is None else data.where(self.reference)
        for key, label, rows in self._groups(data):
            group, is_chosen = data.features[rows], is_reference[rows]
            if not is_chosen.any():
                raise ValueError(f"{label}: none of its {len(group)} rows matches {self.reference!r}")
            try:
                self.states_[key] = self.learn(group[is_chosen], data.feature_names)
            except ValueError as error:
                raise ValueError(f"{label}: {error}") from error
        return self

    def transform(self, data: Data) -> Data:
        """Rows of `data` transformed by what was learned for their group; tables give float32.

        Raises:
            ValueError: not fitted, fitted on other features, or a group that was not there when fitting.
        """
        if not hasattr(self, "states_"):
            raise ValueError(f"{type(self).__name__} is not fitted yet; call fit first")
        require_same_features(self.names_, data)
        if isinstance(data, Table):
            return self._transform_table(data)  # type: ignore[return-value]
        self._refuse_options()
        return self.apply(self.states_[EVERYTHING], as_matrix(data))

    def _transform_table(self, data: Table) -> Table:
        parts, order = [], []
        for key, label, rows in self._groups(data):
            if key not in self.states_:
                raise ValueError(f"{label} was not there when {type(self).__name__} was fitted")
            parts.append(self.apply(self.states_[key], data.features[rows]).astype(np.float32, copy=False))
            order.append(rows)
        return data.with_features(*self._assemble(data, parts, order))

    def output_names(self, names: Sequence[str]) -> Sequence[str]:
        """The names of the transformed features; unchanged unless a subclass makes new ones."""
        return names

    def _assemble(self, data: Table, parts: list, order: list) -> tuple[np.ndarray, Sequence[str]]:
        names = self.output_names(data.feature_names)
        if len(parts) == 1:  # one group holds all rows, in their order
            return parts[0], names
        features = np.empty((len(data), len(names)), np.float32)
        for part, rows in zip(parts, order, strict=True):
            features[rows] = part
        return features, names

    def _groups(self, data: Table) -> list[tuple[tuple, str, Any]]:
        """(key, how an error names it, its rows: positions, or a slice of all of them) of every group."""
        if self.by is None:
            return [(EVERYTHING, "all rows", slice(None))]
        codes, keys = data.groups(self.by)
        for row in keys.iter_rows(named=True):
            if None in row.values():
                raise ValueError(
                    f"{describe(row)}: rows of an unknown group; name it, or keep other rows only"
                )
        order = np.argsort(codes, kind="stable")
        rows = np.split(order, np.cumsum(np.bincount(codes, minlength=keys.height))[:-1])
        return [
            (tuple(key.values()), describe(key), part)
            for key, part in zip(keys.iter_rows(named=True), rows, strict=True)
        ]

    def _refuse_options(self) -> None:
        if self.reference is not None or self.by is not None:
            raise ValueError("bare arrays have no metadata: `reference` and `by` need a Table")


@dataclasses.dataclass(kw_only=True)
class Selector(Step):
    """A step that drops features; subclasses say which stay: `_keep(x, names, table) -> (D,) bool`.

    Args:
        reference: a metadata query that names the rows to look at; None: all rows. Needs a Table.

    Raises:
        ValueError: no reference rows, no feature left, not fitted, or other features than when fitted.
    """

    reference: str | None = None

    def _keep(self, x: np.ndarray, names: Sequence[str], table: Table | None) -> np.ndarray:
        raise NotImplementedError

    def fit(self, data: Data) -> Self:
        """Learn which features stay, from the reference rows of `data`, a Table or an (N, D) array."""
        if isinstance(data, Table):
            found = data if self.reference is None else data.filter(data.where(self.reference))
            return self._fit(found.features, found.feature_names, found)
        if self.reference is not None:
            raise ValueError("bare arrays have no metadata: `reference` needs a Table")
        x = as_matrix(data)
        return self._fit(x, numbered(x), None)

    def _fit(self, x: np.ndarray, names: Sequence[str], table: Table | None) -> Self:
        if not len(x):
            raise ValueError(f"no rows to learn from; reference is {self.reference!r}")
        keep = self._keep(x, names, table)
        if not keep.any():
            raise ValueError(f"{type(self).__name__}: none of {len(keep)} features is left; relax {self}")
        self.keep_, self.names_ = keep, tuple(names)
        logging.info("%s keeps %d of %d features", type(self).__name__, keep.sum(), len(keep))
        return self

    def transform(self, data: Data) -> Data:
        """`data` without the features that do not stay."""
        if not hasattr(self, "keep_"):
            raise ValueError(f"{type(self).__name__} is not fitted yet; call fit first")
        require_same_features(self.names_, data)
        if isinstance(data, Table):
            return data.keep_features(self.keep_)  # type: ignore[return-value]
        return as_matrix(data)[:, self.keep_]


def numbered(x: np.ndarray) -> tuple[str, ...]:
    """Names "0", "1", ... for the features of a bare array."""
    return tuple(map(str, range(x.shape[1])))


def require_same_features(names: Sequence[str], data: Data) -> None:
    """Raise ValueError unless a table has the features `names`, or an array as many."""
    if not isinstance(data, Table):
        count = as_matrix(data).shape[1]
        if count != len(names):
            raise ValueError(f"fitted on {len(names)} features, these are {count}")
    elif data.feature_names != tuple(names):
        differing = sorted(set(names) ^ set(data.feature_names)) or ["their order"]
        raise ValueError(f"fitted on other features; they differ in {listing(differing)}")


def as_matrix(x: np.ndarray) -> np.ndarray:
    """`x` as (N, D) float32 or float64; ValueError if it has other dimensions, TypeError if no numbers."""
    x = np.asarray(x)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"features must be numbers, they have dtype {x.dtype}")
    if x.ndim != 2:
        raise ValueError(f"features must be (rows, features), they have shape {x.shape}")
    return (
        x
        if x.dtype in (np.float32, np.float64)
        else x.astype(np.float32 if x.dtype.itemsize < 4 else np.float64)
    )
