"""k nearest neighbours by Euclidean distance, uniform votes, exact: the same neighbours as a loop in float64.

The fast form of a squared distance, |x|^2 - 2 x.q + |q|^2, is a matrix product, but in float32 it cancels. So it
only proposes: similarities x.q - |x|^2 / 2, raised by a bound of their own rounding error, give a few candidates more
than k. Their distances are computed again in float64 from differences. If the k-th of them is nearer than the bound of
everything not proposed, no other row can be among the k nearest; the few queries for which this fails (duplicates of
training rows, near ties) get every row as candidate that the bound cannot exclude. Nothing is approximate.

Rule of ties: of equal distances the lowest training row first; of equal votes the smallest label.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from coos.classifiers import checks

BACKENDS = ("jax", "sklearn")
SPARE = 9  # candidates beyond k
CHUNK = 64  # queries whose differences from their candidates are held at a time
EPSILON = float(np.finfo(np.float32).eps)  # twice the unit roundoff


class _Rows(NamedTuple):
    """Training rows in blocks (T, b): centred and shrunk, |x|^2 / 2 and what rounding can do per unit of |q|."""

    values: jax.Array  # (T, b, D) float32
    half: jax.Array  # (T, b) float32; infinite for rows of padding
    slack: jax.Array  # (T, b) float32
    first: jax.Array  # (T,) int32, number of the first row


class _Frame(NamedTuple):
    """Center (D,) and factor, a power of two, that bring training rows and queries into the unit ball."""

    center: np.ndarray
    factor: float


def predict(
    train: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    *,
    num_classes: int,
    k: int = 11,
    backend: str = "jax",
    block: int = 1024,
    train_block: int = 4096,
) -> np.ndarray:
    """Share of the k nearest training rows that are of each class, (M, num_classes) float32.

    Args:
        train: (N, D) float32.
        labels: (N,) int.
        queries: (M, D) float32. A training row among them counts as its own neighbour, at distance 0.
        num_classes: number of columns of the result.
        k: number of neighbours (11 in Lu et al. 2019).
        backend: "jax", or "sklearn", whose choice among equal distances is arbitrary.
        block: queries at a time.
        train_block: training rows at a time; `block` x `train_block` similarities are held.

    Raises:
        ValueError: fewer rows than k, one class, labels out of range, NaN, or another number of features.
    """
    train, queries = np.asarray(train, np.float32), np.asarray(queries, np.float32)
    _check(train, queries, k)
    checks.classes(labels, num_classes=num_classes, rows=len(train))
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}; choose from {', '.join(BACKENDS)}")
    if backend == "sklearn":
        peer = KNeighborsClassifier(n_neighbors=k).fit(train, labels)
        shares = peer.predict_proba(queries) if len(queries) else np.zeros((0, len(peer.classes_)))
        return checks.spread(shares, peer.classes_, num_classes=num_classes)
    rows = nearest(train, queries, k=k, block=block, train_block=train_block)
    votes = np.zeros((len(queries), num_classes), np.int32)
    np.add.at(votes, (np.arange(len(queries))[:, None], np.asarray(labels)[rows]), 1)
    return (votes / k).astype(np.float32)


def nearest(
    train: np.ndarray, queries: np.ndarray, *, k: int, block: int = 1024, train_block: int = 4096
) -> np.ndarray:
    """Numbers (M, k) int64 of the k training rows nearest to each query, by distance, then by number.

    Distances are sums of squared differences in float64. ValueError as for `predict`.
    """
    train, queries = np.asarray(train, np.float32), np.asarray(queries, np.float32)
    _check(train, queries, k)
    found = np.empty((len(queries), k), np.int64)
    if not len(queries):
        return found
    frame = _frame(train, queries)
    rows = _blocks(train, frame, max(min(train_block, len(train)), k + SPARE))
    unsure: list[tuple[int, float]] = []
    for start, (bound, proposed) in _proposals(queries, rows, frame, number=k + SPARE, block=block):
        stop = start + len(proposed)
        found[start:stop], reach, sure = _refine(train, queries[start:stop], proposed, bound, k, frame)
        unsure += [(start + int(i), float(reach[i])) for i in np.flatnonzero(~sure)]
    for query, row in _by_exclusion(train, queries, unsure, rows, frame, k=k, block=min(block, 256)):
        found[query] = row
    return found


def _check(train: np.ndarray, queries: np.ndarray, k: int) -> None:
    checks.finite(train, what="training features")
    checks.same_width(train, queries, what="queries")
    checks.finite(queries, what="queries")
    if not 1 <= k <= len(train):
        raise ValueError(f"k={k} neighbours of {len(train)} training rows; want 1 to {len(train)}")


def _frame(train: np.ndarray, queries: np.ndarray) -> _Frame:
    center = train.mean(0, dtype=np.float64)
    largest = max(np.abs(some - center).max() for some in _chunks(train, queries))
    # a power of two changes no digit; the norm is at most sqrt(D) times the largest coordinate
    exponent = np.frexp(largest * np.sqrt(train.shape[1]) or 1.0)[1]
    return _Frame(center, float(np.ldexp(1.0, -int(exponent))))


def _chunks(*arrays: np.ndarray) -> Iterator[np.ndarray]:
    for array in arrays:
        for start in range(0, len(array), 4096):
            yield array[start : start + 4096]


def _framed(values: np.ndarray, frame: _Frame) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, D) in the frame, float32, and their squared norms (n,) before rounding, float64."""
    rounded, squares = np.empty(values.shape, np.float32), np.empty(len(values))
    start = 0
    for some in _chunks(values):
        exact = (some - frame.center) * frame.factor
        rounded[start : start + len(some)] = exact
        squares[start : start + len(some)] = np.einsum("nd,nd->n", exact, exact)
        start += len(some)
    return rounded, squares


def _blocks(train: np.ndarray, frame: _Frame, size: int) -> _Rows:
    """The training rows on the device, padded to whole blocks.

    A product of length D is off by at most D u |x| |q| whatever the order of its sum (u: unit roundoff), rounding x and
    q adds 2 u; twice that and a margin cover the three operations after it and products emulated on accelerators.
    """
    count, width = train.shape
    values, squares = _framed(train, frame)
    number = -(-count // size)
    slack = (width + 16) * EPSILON * np.sqrt(squares)
    half = squares / 2 * (1 - 8 * EPSILON) - 4 * width * np.finfo(np.float32).tiny  # the latter for underflow

    def shaped(array: np.ndarray, fill: float) -> jax.Array:
        wide = [(0, number * size - count)] + [(0, 0)] * (array.ndim - 1)
        padded = np.pad(array, wide, constant_values=fill).astype(np.float32)
        return jnp.asarray(padded.reshape(number, size, *array.shape[1:]))

    first = jnp.arange(number, dtype=jnp.int32) * size
    return _Rows(shaped(values, 0), shaped(half, np.inf), shaped(slack, 0), first)


def _similarity(queries: jax.Array, norms: jax.Array, block: _Rows) -> jax.Array:
    """Upper bounds (B, b) of x.q - |x|^2 / 2, of queries (B, D) with norms (B,) and one block of rows."""
    product = jnp.matmul(queries, block.values.T, precision=jax.lax.Precision.HIGHEST)
    return product - block.half + block.slack * norms[:, None]


@functools.partial(jax.jit, static_argnames="number")
def propose(queries: jax.Array, norms: jax.Array, rows: _Rows, *, number: int) -> tuple[jax.Array, jax.Array]:
    """Bound (B,) of what is not proposed and the `number` proposed rows (B, number), for queries in the frame."""

    def merge(found: tuple[jax.Array, jax.Array], block: _Rows) -> tuple[tuple[jax.Array, jax.Array], None]:
        best, index = jax.lax.top_k(_similarity(queries, norms, block), number)
        values = jnp.concatenate([found[0], best], 1)
        numbers = jnp.concatenate([found[1], index + block.first], 1)
        best, chosen = jax.lax.top_k(values, number)
        return (best, jnp.take_along_axis(numbers, chosen, 1)), None

    shape = (len(queries), number)
    start = jnp.full(shape, -jnp.inf), jnp.full(shape, jnp.iinfo(jnp.int32).max, jnp.int32)
    (best, numbers), _ = jax.lax.scan(merge, start, rows)
    return best[:, -1], numbers


def _proposals(
    queries: np.ndarray, rows: _Rows, frame: _Frame, *, number: int, block: int
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """First query, bounds and proposed rows of every block; the device works on the next one meanwhile."""
    block = min(block, len(queries))
    waiting: list[tuple[int, int, tuple[jax.Array, jax.Array]]] = []
    for start in range(0, len(queries), block):
        some = queries[start : start + block]
        waiting.append((start, len(some), propose(*_padded(some, frame, block), rows, number=number)))
        if len(waiting) > 1:
            yield _fetched(*waiting.pop(0))
    yield _fetched(*waiting.pop())


def _padded(queries: np.ndarray, frame: _Frame, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries (size, D) in the frame and their norms (size,), float32, padded with zeros."""
    values, squares = _framed(queries, frame)
    padding = size - len(values)
    norms = np.pad(np.sqrt(squares), (0, padding)).astype(np.float32)
    return np.pad(values, [(0, padding), (0, 0)]), norms


def _fetched(
    start: int, count: int, found: tuple[jax.Array, jax.Array]
) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
    return start, (np.asarray(found[0])[:count], np.asarray(found[1])[:count])


def _refine(
    train: np.ndarray, queries: np.ndarray, proposed: np.ndarray, bound: np.ndarray, k: int, frame: _Frame
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k nearest of the proposed rows (B, k), the similarity (B,) of the last of them, whether that is all."""
    proposed = np.sort(proposed, 1).astype(np.int64)  # then a stable sort keeps the lowest row first
    distances = np.empty(proposed.shape)
    for start in range(0, len(queries), CHUNK):
        part = slice(start, start + CHUNK)
        which = np.minimum(proposed[part], len(train) - 1)
        distances[part] = _squared_distances(queries[part, None], train[which])
    distances[proposed >= len(train)] = np.inf  # padding
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    last = np.take_along_axis(distances, order[:, -1:], 1)[:, 0]
    squares = _framed(queries, frame)[1]
    error = train.shape[1] * 4 * np.finfo(np.float64).eps * (squares + frame.factor**2 * last)
    reach = (squares - frame.factor**2 * last) / 2 - error
    return np.take_along_axis(proposed, order, 1), reach, bound < reach


def _squared_distances(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sums of squared differences along the last axis, float64."""
    difference = np.subtract(queries, rows, dtype=np.float64)
    return np.einsum("...d,...d->...", difference, difference)


_one_block = jax.jit(_similarity)


def _by_exclusion(
    train: np.ndarray,
    queries: np.ndarray,
    unsure: list[tuple[int, float]],
    rows: _Rows,
    frame: _Frame,
    *,
    k: int,
    block: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """The k nearest rows of queries for which a proposal was too short, among all rows that reach far enough."""
    for start in range(0, len(unsure), block):
        numbers = np.array([query for query, _ in unsure[start : start + block]])
        reach = np.array([least for _, least in unsure[start : start + block]])
        near = _within(_padded(queries[numbers], frame, block), reach, rows)
        for query, candidates in zip(numbers, near, strict=True):
            yield query, _nearest_of(train, queries[query], candidates, k)


def _within(padded: tuple[np.ndarray, np.ndarray], reach: np.ndarray, rows: _Rows) -> list[np.ndarray]:
    """For each of the first queries, numbers of the rows whose bound is at least its reach, ascending."""
    found: list[list[np.ndarray]] = [[] for _ in reach]
    for index in range(len(rows.first)):
        one = jax.tree.map(lambda array, index=index: array[index], rows)
        bounds = np.asarray(_one_block(*padded, one))
        for own, bound, least in zip(found, bounds[: len(reach)], reach, strict=True):
            own.append(np.flatnonzero(bound >= least) + int(one.first))
    return [np.concatenate(own) for own in found]


def _nearest_of(train: np.ndarray, query: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """The k nearest (k,) of some rows (n,), which ascend, to one query (D,)."""
    parts = (train[rows[start : start + 1024]] for start in range(0, len(rows), 1024))
    distances = np.concatenate([_squared_distances(query, part) for part in parts])
    return rows[np.argsort(distances, kind="stable")[:k]]
