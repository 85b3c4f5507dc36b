"""Which cells belong together: those of a plate, a well, a class, or whatever the names of cells say."""

import re

import numpy as np

from coos.data.source import Source

PATTERN = "id:"


def groups(source: Source, by: str) -> np.ndarray:
    """The number of each cell's group, (N,) int32 from 0 in the order of the groups' names.

    Args:
        source: of the cells.
        by: "class"; a column of the source such as "plate", "well" or "site"; or "id:PATTERN", a regular expression
            whose first group (else the whole match) in a cell's id is the name of its group.

    Raises:
        ValueError: there is no such column, an id does not match, or a cell has no name of a group.
    """
    names = _names(source, by)
    empty = names == ""
    if empty.any():
        raise ValueError(
            f"groups by '{by}': cell {str(source.ids[empty][0])!r} has none ({empty.sum()} cells)"
        )
    return np.unique(names, return_inverse=True)[1].astype(np.int32)


def _names(source: Source, by: str) -> np.ndarray:
    if by == "class":
        return np.array(source.class_names)[source.labels]
    if by.startswith(PATTERN):
        return _matches(source.ids, by.removeprefix(PATTERN))
    if by not in source.columns:
        known = ", ".join(repr(name) for name in ("class", *source.columns))
        raise ValueError(
            f"groups by {by!r}: not known of the cells of {source.dataset.get('directory')}; there is {known}, or "
            f"'{PATTERN}PATTERN' for a part of their ids, such as {str(source.ids[0])!r}"
        )
    return source.columns[by].astype(str)


def _matches(ids: np.ndarray, pattern: str) -> np.ndarray:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"groups by '{PATTERN}{pattern}': no regular expression ({error})") from error
    found = [compiled.search(name) for name in ids.tolist()]
    missing = [name for name, match in zip(ids.tolist(), found, strict=True) if match is None]
    if missing:
        raise ValueError(
            f"groups by '{PATTERN}{pattern}': {len(missing)} ids do not match, such as {missing[0]!r}"
        )
    # An optional group that took no part in the match names nothing, as an empty one.
    return np.array([(match[1] if compiled.groups else match[0]) or "" for match in found if match])
