"""Decoded examples of one split, in a memory-mapped cache.

ArrayRecord is the store that lasts; training wants rows at memory speed. `load` decodes a split once into
`images.npy` and `columns.npz` beside the dataset, under a name that changes whenever the dataset does.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import tempfile
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

BLOCK = 256


@dataclasses.dataclass(frozen=True)
class Source:
    """Examples of one split: `images` (N, H, W, C) in the raw dtype, `labels` (N,) int32, `ids` (N,) str.

    `rows` picks a subset without copying the images: example i is `images[rows[i]]`.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    rows: np.ndarray
    dataset: dict[str, Any]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return tuple(self.dataset["class_names"])

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image channels, in their order."""
        return tuple(self.dataset["channels"])

    @property
    def num_bytes(self) -> int:
        """Bytes of the images of all examples."""
        return len(self) * int(np.prod(self.images.shape[1:])) * self.images.dtype.itemsize

    def gather(self, examples: np.ndarray) -> np.ndarray:
        """Images of the given examples, copied out of the cache: one gather for the whole batch."""
        return self.images[self.rows[examples]]

    def subset(self, examples: np.ndarray) -> "Source":
        """The given examples as a source of their own."""
        picked = {"labels": self.labels[examples], "ids": self.ids[examples], "rows": self.rows[examples]}
        return dataclasses.replace(self, **picked)


def describe(directory: str | os.PathLike) -> dict[str, Any]:
    """Name, version, classes, channels, splits and origin of a built dataset.

    Raises ValueError when the folder holds no dataset built by experiments/build.py.
    """
    directory = pathlib.Path(directory).resolve()
    if not (directory / "dataset_info.json").exists():
        raise ValueError(
            f"{directory}: no built dataset (dataset_info.json missing); run experiments/build.py"
        )
    info = tfds.builder_from_directory(str(directory)).info
    name = "/".join(part for part in (info.name, info.config_name) if part)
    metadata = dict(info.metadata or {})
    missing = [key for key in ("channels", "class_names", "simulated", "digests") if key not in metadata]
    if missing:
        raise ValueError(
            f"{directory}: metadata.json does not state {missing}; rebuild with experiments/build.py"
        )
    return {
        "name": name,
        "version": str(info.version),
        "directory": str(directory),
        "splits": {split: found.num_examples for split, found in info.splits.items()},
        "image_shape": list(info.features["image"].shape),
        "image_dtype": np.dtype(info.features["image"].np_dtype).name,
        **metadata,
    }


def load(directory: str | os.PathLike, split: str, *, cache_dir: str | os.PathLike | None = None) -> Source:
    """Open a split of a built dataset, decoding it into the cache the first time.

    The cache lies in a folder of the dataset's own in `cache_dir`, by default in `cache` inside the dataset.
    Two processes may build it at once: each writes its own and the first to finish wins.
    """
    dataset = describe(directory)
    if split not in dataset["splits"]:
        raise ValueError(f"{directory}: no split {split!r}; it has {list(dataset['splits'])}")
    directory = pathlib.Path(dataset["directory"])
    folder = _cache_place(dataset, cache_dir) / f"{split}-{_fingerprint(directory, split)}"
    if not folder.exists():
        _build_cache(directory, split, folder)
    with np.load(folder / "columns.npz", allow_pickle=False) as columns:
        labels, ids = columns["labels"], columns["ids"]
    images = np.load(folder / "images.npy", mmap_mode="r")
    return Source(images, labels, ids, np.arange(len(labels)), dataset)


def _cache_place(dataset: dict[str, Any], cache_dir: str | os.PathLike | None) -> pathlib.Path:
    """Where a dataset's caches lie; no two datasets share a folder, since each removes what it finds stale."""
    if not cache_dir:
        return pathlib.Path(dataset["directory"], "cache")
    name = dataset["name"].replace("/", "_")
    return pathlib.Path(cache_dir, f"{name}-{hashlib.sha256(dataset['directory'].encode()).hexdigest()[:8]}")


def _fingerprint(directory: pathlib.Path, split: str) -> str:
    """Hash of everything the cache depends on: descriptions, and name, size and time of the split's shards."""
    digest = hashlib.sha256(split.encode())
    for name in ("dataset_info.json", "features.json", "metadata.json"):
        digest.update((directory / name).read_bytes())
    for shard in sorted(directory.glob(f"*-{split}.array_record-*")):
        stat = shard.stat()
        digest.update(f"{shard.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _build_cache(directory: pathlib.Path, split: str, folder: pathlib.Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ValueError(
            f"{folder.parent}: cannot write the cache ({error}); set config.data.cache_dir"
        ) from error
    try:
        _decode(directory, split, temporary)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for stale in folder.parent.glob(f"{split}-*"):
        if stale != folder and re.fullmatch(re.escape(split) + "-[0-9a-f]{16}", stale.name):
            logging.info("removing stale cache %s", stale)
            shutil.rmtree(stale, ignore_errors=True)


def _decode(directory: pathlib.Path, split: str, folder: pathlib.Path) -> None:
    """Write every example of the split to `folder`, in blocks."""
    builder = tfds.builder_from_directory(str(directory))
    examples, feature = builder.as_data_source(split), builder.info.features["image"]
    shape = (len(examples), *feature.shape)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", dtype=feature.np_dtype, shape=shape)
    labels, ids = np.zeros(len(examples), np.int32), []
    with tqdm(total=len(examples), desc=f"caching {split}", unit="image", disable=None) as bar:
        for start in range(0, len(examples), BLOCK):
            rows = range(start, min(start + BLOCK, len(examples)))
            for row, example in zip(rows, examples.__getitems__(rows), strict=True):
                images[row], labels[row] = example["image"], example["label"]
                ids.append(example["id"].decode())
            bar.update(len(rows))
    images.flush()
    np.savez(folder / "columns.npz", labels=labels, ids=np.array(ids, dtype=np.str_))


def _put_in_place(temporary: pathlib.Path, folder: pathlib.Path) -> None:
    try:
        os.rename(temporary, folder)
    except OSError:
        if not folder.exists():  # otherwise another process was faster, and its cache is the same
            raise
