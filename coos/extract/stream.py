"""Cells of a stream of fields through a network, on all local devices.

The unit of work is a piece: one field and at most `batch_size` of its cells, padded to that number. A device computes
one piece at a time, always by the same program, so that the features of a field do not depend on what else there is.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from coos.data import pipeline
from coos.extract.fields import Field, Known
from coos.extract.representations import Representation
from coos.extract.windows import Window
from coos.train import steps

AHEAD = 2  # dispatches that wait for the devices

Compute = Callable[[Sequence[np.ndarray], np.ndarray], jax.Array]


@dataclasses.dataclass(eq=False)
class _Entry:
    """A field on its way: as it is read, and blocks of features of `batch_size` rows until none is missing."""

    field: Field | Known
    missing: int = 0
    blocks: list[np.ndarray] = dataclasses.field(default_factory=list)

    def known(self) -> Known:
        if isinstance(self.field, Known):
            return self.field
        return Known(self.field.site, self.field.cells, self.field.centers, np.concatenate(self.blocks))


@dataclasses.dataclass(frozen=True, eq=False)
class _Piece:
    """Some cells of a field: its image, and their places (n, 2) there, n at most `batch_size`."""

    entry: _Entry
    image: np.ndarray
    places: np.ndarray


def compiled(representation: Representation) -> Compute:
    """A function of one image (H, W, C) per device and places (devices, B, 2) that gives features (devices, B, D)."""

    def features(variables: Any, batch: dict[str, jax.Array]) -> jax.Array:
        windows = representation.window.cut_from(batch["image"], batch["place"])
        return representation.features(variables, windows)

    step, variables = steps.make_predict(features), pipeline.replicate(representation.variables)
    there: list[np.ndarray] = []  # images that the devices have
    sent: dict[str, jax.Array] = {}

    def compute(images: Sequence[np.ndarray], places: np.ndarray) -> jax.Array:
        if [id(image) for image in images] != [id(image) for image in there]:
            there[:] = images
            sent.update(pipeline.to_devices({"image": np.stack(images)}))
        return step(variables, {**sent, **pipeline.to_devices({"place": places})})

    return compute


def represent(
    fields: Iterable[Field | Known], compute: Compute, window: Window, *, batch_size: int
) -> Iterator[Known]:
    """Every field with its features, in order; what is known passes through.

    Args:
        fields: as they are read.
        compute: of `compiled`.
        window: that of its representation.
        batch_size: the number of cells that a device computes at once.
    """
    lanes = jax.local_device_count()
    waiting: collections.deque[_Entry] = collections.deque()
    running: collections.deque[tuple[list[_Piece], jax.Array]] = collections.deque()
    pieces: list[_Piece] = []
    for field in fields:
        waiting.append(_Entry(field))
        pieces += _pieces(waiting[-1], window, batch_size)
        while len(pieces) >= lanes:
            running.append((pieces[:lanes], _dispatch(pieces[:lanes], compute, batch_size)))
            del pieces[:lanes]
            if len(running) > AHEAD:
                _collect(*running.popleft())
        yield from _finished(waiting)
    if pieces:
        padded = pieces + [pieces[-1]] * (lanes - len(pieces))
        running.append((pieces, _dispatch(padded, compute, batch_size)))
    while running:
        _collect(*running.popleft())
        yield from _finished(waiting)


def _pieces(entry: _Entry, window: Window, batch_size: int) -> list[_Piece]:
    """The pieces of a field, none of one that is known."""
    if isinstance(entry.field, Known):
        return []
    places = window.places(entry.field.centers)
    starts = range(0, len(places), batch_size)
    entry.missing = len(starts)
    return [_Piece(entry, entry.field.image, places[start : start + batch_size]) for start in starts]


def _dispatch(pieces: Sequence[_Piece], compute: Compute, batch_size: int) -> jax.Array:
    places = np.zeros((len(pieces), batch_size, 2), pieces[0].places.dtype)
    for row, piece in zip(places, pieces, strict=True):
        row[: len(piece.places)] = piece.places
    return compute([piece.image for piece in pieces], places)


def _collect(pieces: Sequence[_Piece], output: jax.Array) -> None:
    """Wait for the output (devices, B, D) and hand out its rows."""
    rows = np.concatenate([np.asarray(shard.data) for shard in output.addressable_shards])
    for piece, block in zip(pieces, rows, strict=False):  # the last devices may have repeated a piece
        piece.entry.blocks.append(block[: len(piece.places)])
        piece.entry.missing -= 1


def _finished(waiting: collections.deque[_Entry]) -> Iterator[Known]:
    """Fields at the head of the queue with all their features."""
    while waiting and not waiting[0].missing:
        yield waiting.popleft().known()
