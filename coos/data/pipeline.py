"""Batches for training and evaluation: shuffled, sharded by process, resumable, gathered at memory speed.

Grain iterates over batch numbers; its state is one small dictionary and goes into the checkpoint. A training
batch is a dict of arrays with leading axes (devices, steps, examples): several steps travel together so that
one dispatch can run them.
"""

import functools
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, TypeVar

import grain
import jax
import numpy as np

from coos.data.source import Source

Item = TypeVar("Item")

RESIDENT_SHARE = 0.25  # of a device's memory; the rest is for parameters and activations
RESIDENT_BYTES_ON_CPU = 2**30
ENDLESS = 2**40  # batches


class Chunk(NamedTuple):
    """Batches of several consecutive steps, and where the index iterator stands after them."""

    batch: dict[str, Any]
    examples: np.ndarray
    iterator_state: dict[str, Any]


def index_iterator(
    num_examples: int,
    *,
    batch_size: int,
    seed: int,
    epoch_share: float = 1.0,
    balance: np.ndarray | None = None,
    partners: np.ndarray | None = None,
) -> grain.DatasetIterator:
    """Endless iterator over this process's share of shuffled batches of example numbers.

    Every epoch is a new permutation of all examples, with `epoch_share` a new random subset of that share, or with
    `balance`, their classes (N,), what `balanced_order` draws; batch k holds elements k*batch_size and following of the
    endless sequence, whatever the number of processes: process p of P takes every P-th of them from p on.
    With `partners`, the numbers of their groups (N,), every example becomes a pair (B, 2): itself, and another of its
    group, drawn anew in every batch. Grain iterates over batch numbers and keeps the state; a batch is looked up in its
    epoch's permutation in one go, since Grain's own shuffle costs about 15 us an element, which a GPU would wait for.

    Raises:
        ValueError: fewer examples than one batch, or a batch size that the processes cannot share equally.
    """
    processes = jax.process_count()
    if batch_size % processes:
        raise ValueError(f"batch_size={batch_size} cannot be divided among {processes} processes")
    if num_examples < batch_size:
        raise ValueError(
            f"{num_examples} training examples do not fill one batch of {batch_size}: choose a smaller batch_size"
        )
    mine = np.arange(jax.process_index(), batch_size, processes)
    epoch_size = examples_per_epoch(num_examples, epoch_share, balance=balance)

    @functools.lru_cache(maxsize=2)  # a batch may lie across two epochs
    def order(epoch: int) -> np.ndarray:
        generator = np.random.default_rng((seed, epoch))
        if balance is not None:
            return balanced_order(balance, generator)
        return generator.permutation(num_examples)[:epoch_size]

    def examples(batch: int) -> np.ndarray:
        epochs, places = np.divmod(batch * batch_size + mine, epoch_size)
        return np.concatenate([order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])

    draw = None if partners is None else partner_drawer(partners)

    def pairs(batch: int) -> np.ndarray:
        """The examples of a batch with their partners, drawn for the whole batch, whatever part of it is ours."""
        ours = examples(batch)
        if draw is None:
            return ours
        generators = np.random.default_rng((seed, batch, 1)).random(batch_size)[mine]
        return np.stack([ours, draw(ours, generators)], axis=1)

    batches = grain.MapDataset.range(ENDLESS).map(pairs)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))


def partner_drawer(groups: np.ndarray) -> Callable[[np.ndarray, Any], np.ndarray]:
    """A function of examples (B,) and a generator, or uniform numbers (B,) in [0, 1), that draws a partner for each.

    A partner is another example of the same group, each as likely as any. `groups` (N,) are the numbers of the groups;
    each of them has at least two members.
    """
    order = np.argsort(groups, kind="stable")
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(len(groups))
    ordered = groups[order]
    first = np.searchsorted(ordered, groups, side="left")
    size = np.searchsorted(ordered, groups, side="right") - first
    if len(groups) and size.min() < 2:
        raise ValueError(f"example {int(size.argmin())} is alone in its group and has no partner")

    def draw(examples: np.ndarray, chance: Any) -> np.ndarray:
        uniform = chance.random(len(examples)) if isinstance(chance, np.random.Generator) else chance
        steps = 1 + (uniform * (size[examples] - 1)).astype(np.int64)
        return order[first[examples] + (place[examples] - first[examples] + steps) % size[examples]]

    return draw


def balanced_order(classes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Shuffled example numbers, of each class as many as the median class has (DeepProfiler; Bornholdt 2021).

    Of larger classes a random subset, of smaller ones draws with replacement. Classes without examples do not count.
    """
    members = np.argsort(classes, kind="stable")
    counts = np.unique(classes, return_counts=True)[1]
    size = int(np.median(counts))
    drawn = [
        start
        + (generator.permutation(count)[:size] if count >= size else generator.integers(count, size=size))
        for start, count in zip(np.cumsum(counts) - counts, counts, strict=True)
    ]
    return generator.permutation(members[np.concatenate(drawn)])


def examples_per_epoch(num_examples: int, epoch_share: float, *, balance: np.ndarray | None = None) -> int:
    """Examples that an epoch sees: `epoch_share` in (0, 1] of all, rounded, at least one.

    With `balance`, the classes of all, it is the number of classes times the median number of examples of a class.
    """
    if not 0 < epoch_share <= 1:
        raise ValueError(f"epoch_share={epoch_share}: must lie above 0 and not above 1")
    if balance is not None:
        if epoch_share != 1:
            raise ValueError(
                f"epoch_share={epoch_share}: a balanced epoch has a size of its own; leave it at 1"
            )
        counts = np.unique(balance, return_counts=True)[1]
        return len(counts) * int(np.median(counts))
    return max(1, round(epoch_share * num_examples))


def chunks(
    iterator: grain.DatasetIterator, source: Source, *, lengths: Iterator[int], resident: bool
) -> Iterator[Chunk]:
    """Group batches into chunks of the given lengths, shaped (local devices, steps, examples per device).

    With `resident` images stay away (the device has them); otherwise they are gathered from the source.
    """
    for length in lengths:
        examples = np.stack([next(iterator) for _ in range(length)]).astype(np.int32)
        batch = {"example": examples, "label": source.labels[examples]}
        if "group" in source.columns:  # of training cells whose groups the loss compares
            batch["group"] = source.columns["group"][examples]
        if not resident:
            batch["image"] = source.gather(examples)
        yield Chunk(shard(batch, axis=1), examples, iterator.get_state())


def shard(batch: dict[str, np.ndarray], *, axis: int) -> dict[str, jax.Array]:
    """Split `axis` of every array over the local devices, which become the leading axis, and send it there."""
    devices = jax.local_device_count()

    def split(array: np.ndarray) -> np.ndarray:
        if array.shape[axis] % devices:
            raise ValueError(
                f"a batch of {array.shape[axis]} cannot be divided among {devices} local devices"
            )
        shape = (*array.shape[:axis], devices, array.shape[axis] // devices, *array.shape[axis + 1 :])
        return np.moveaxis(array.reshape(shape), axis, 0)

    return to_devices({name: split(array) for name, array in batch.items()})


def to_devices(tree: Any) -> Any:
    """Put arrays with a leading local-device axis where pmap expects them."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("device",))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("device")))


def replicate(tree: Any) -> Any:
    """Copy a host tree to every local device, along a new leading axis."""
    devices = jax.local_device_count()
    return to_devices(jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (devices, *np.shape(x))), tree))


def fits_on_device(source: Source, *, mode: str) -> bool:
    """Whether images are kept on the device ("resident") or streamed ("stream"); "auto" goes by their size."""
    if mode in ("resident", "stream"):
        return mode == "resident"
    if mode != "auto":
        raise ValueError(f"data mode {mode!r}: choose 'auto', 'resident' or 'stream'")
    if jax.default_backend() == "cpu":
        return source.num_bytes * jax.local_device_count() <= RESIDENT_BYTES_ON_CPU
    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    return source.num_bytes <= RESIDENT_SHARE * memory


def evaluation_batches(source: Source, *, batch_size: int) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Each of this process's examples once, in order: (example numbers, sharded batch with `mask`).

    Every process yields the same number of batches of the same size; the last are padded with example 0 under
    mask False.
    """
    mine = np.arange(jax.process_index(), len(source), jax.process_count())
    most = -(-len(source) // jax.process_count())
    for start in range(0, most, batch_size):
        examples = mine[start : start + batch_size]
        padded = np.zeros(batch_size, mine.dtype)
        padded[: len(examples)] = examples
        batch = {
            "image": source.gather(padded),
            "label": source.labels[padded],
            "mask": np.arange(batch_size) < len(examples),
        }
        yield examples, shard(batch, axis=0)


def prefetch(items: Iterator[Item], *, size: int = 2) -> Generator[Item, None, None]:
    """Run an iterator in a thread, `size` items ahead; its exceptions are raised here."""
    waiting: queue.Queue = queue.Queue(maxsize=size)
    stopped = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, waiting, stopped), daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        stopped.set()
        thread.join()  # a thread that still talks to the device when Python exits aborts the process


def _produce(items: Iterator[Any], waiting: queue.Queue, stopped: threading.Event) -> None:
    put: Callable[[Any], bool] = lambda entry: _put(waiting, entry, stopped)  # noqa: E731
    try:
        for item in items:
            if not put(("item", item)):
                return
        put(("end", None))
    except Exception as error:  # handed to the consumer, who raises it
        put(("error", error))


def _put(waiting: queue.Queue, entry: Any, stopped: threading.Event) -> bool:
    """Put with regular looks at `stopped`, so that the thread ends when nobody reads any more."""
    while not stopped.is_set():
        try:
            waiting.put(entry, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
