"""Decoded examples of one split: small ones in a memory-mapped cache, large ones straight from their records.

ArrayRecord is the store that lasts; training wants rows at memory speed. `load` decodes a split once into
`images.npy` and `columns.npz` beside the dataset, under a name that changes whenever the dataset does. Images of
megabytes are read from the records instead: there a copy would cost terabytes and save nothing, and only
`columns.npz` is made.
"""

import concurrent.futures
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

from coos.data import collected_columns, records

BLOCK_BYTES = 2**25  # decoded at once
READERS = 8  # threads that read records
COLUMNS_VERSION = 3  # of what the columns of a cache hold
STORES = ("auto", "cache", "records")
LARGE_IMAGE, LARGE_SPLIT = 2**18, 2**36  # bytes, from which on "auto" reads records: 256 KiB, 64 GiB
TARGETS = {
    "label_positions": "tasks",
    "place": "places",
    "field": "fields",
}  # what describes the targets of examples with such a feature


@dataclasses.dataclass(frozen=True)
class Source:
    """Examples of one split: `images` (N, H, W, C) in the raw dtype, `labels`, `ids` (N,) str.

    `images` may be vectors (N, F), and anything that has a shape and a dtype and is indexed by row numbers. `labels`
    are classes (N,) int32, or of T tasks (N, T) int8: +1 active, -1 inactive, 0 not measured. `columns` (N,) say
    where such examples come from: "plate", "well" ("<plate>-<well>"), "site", "compound", "cell_count" (-1 unknown).
    `rows` picks a subset without copying the images: example i is `images[rows[i]]`.
    """

    images: Any
    labels: np.ndarray
    ids: np.ndarray
    rows: np.ndarray
    dataset: dict[str, Any]
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

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
        """Bytes of the images of all examples, or of the fields that they are cut from."""
        if hasattr(self.images, "resident"):
            return self.images.resident_bytes(self.rows)
        return len(self) * int(np.prod(self.images.shape[1:])) * self.images.dtype.itemsize

    def resident(self) -> dict[str, np.ndarray]:
        """Arrays for the device, of which `take` makes the images of examples there."""
        if hasattr(self.images, "resident"):
            return self.images.resident(self.rows)
        return {"image": self.gather(np.arange(len(self)))}

    @property
    def take(self) -> Any:
        """`take(resident, examples) -> {"image": ...}`, in JAX: images of the examples, on the device."""
        return self.images.take if hasattr(self.images, "resident") else take_rows

    def gather(self, examples: np.ndarray) -> np.ndarray:
        """Images of the given examples, copied out of the cache: one gather for the whole batch."""
        return self.images[self.rows[examples]]

    def subset(self, examples: np.ndarray) -> "Source":
        """The given examples as a source of their own."""
        return dataclasses.replace(
            self,
            labels=self.labels[examples],
            ids=self.ids[examples],
            rows=self.rows[examples],
            columns={name: column[examples] for name, column in self.columns.items()},
        )


def take_rows(resident: dict[str, Any], examples: Any) -> dict[str, Any]:
    """Rows `examples` of every array: what a batch of whole images is on the device."""
    return {name: array[examples] for name, array in resident.items()}


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
    targets = next((name for feature, name in TARGETS.items() if feature in info.features), "class_names")
    missing = [key for key in ("channels", targets, "simulated", "digests") if key not in metadata]
    if missing:
        raise ValueError(
            f"{directory}: metadata.json does not state {missing}; rebuild with experiments/build.py"
        )
    return {
        "name": name,
        "version": str(info.version),
        "directory": str(directory),
        "splits": {split: found.num_examples for split, found in info.splits.items()},
        "image_shape": list(info.features[_input_name(info.features)].shape),
        "image_dtype": np.dtype(info.features[_input_name(info.features)].np_dtype).name,
        **metadata,
    }


def _bytes_of(dataset: dict[str, Any]) -> int:
    """Bytes of one image, or vector of features."""
    return int(np.prod(dataset["image_shape"])) * np.dtype(dataset["image_dtype"]).itemsize


def _is_small(dataset: dict[str, Any], split: str) -> bool:
    """Whether a decoded copy of a split is worth its place on the disk: fields are, which cells are cut from."""
    size = _bytes_of(dataset)
    if dataset.get("form") == "fields":
        return size * dataset["splits"][split] < LARGE_SPLIT
    return size < LARGE_IMAGE and size * dataset["splits"][split] < LARGE_SPLIT


def _input_name(features: Any) -> str:
    """The feature that a network takes: "image", or "profile" in datasets of feature vectors."""
    return "image" if "image" in features else "profile"


def load(
    directory: str | os.PathLike,
    split: str,
    *,
    cache_dir: str | os.PathLike | None = None,
    store: str = "auto",
) -> Source:
    """Open a split of a built dataset, decoding it into the cache the first time.

    `store` says where images are read from later: "cache", "records", or "auto": the records if an image takes
    256 KiB or more, or all of them 64 GiB. The cache lies in a folder of the dataset's own in `cache_dir`, by default
    in `cache` inside the dataset. Two processes may build it at once: each writes its own and the first to finish wins.
    """
    dataset, images, columns = open_split(directory, split, cache_dir=cache_dir, store=store)
    if "labels" not in columns:
        raise ValueError(
            f"{directory}: its examples have no labels of their own; a config chooses them (tasks 'single_cells' and "
            "'phenotypes')"
        )
    labels, ids = columns.pop("labels"), columns.pop("ids")
    return Source(images, labels, ids, np.arange(len(labels)), dataset, columns)


def open_split(
    directory: str | os.PathLike,
    split: str,
    *,
    cache_dir: str | os.PathLike | None = None,
    store: str = "auto",
) -> tuple[dict[str, Any], Any, dict[str, np.ndarray]]:
    """Description, images and columns of a split, as `load` puts them together."""
    if store not in STORES:
        raise ValueError(f"store={store!r}: choose one of {STORES}")
    dataset = describe(directory)
    if split not in dataset["splits"]:
        raise ValueError(f"{directory}: no split {split!r}; it has {list(dataset['splits'])}")
    directory = pathlib.Path(dataset["directory"])
    cached = store == "cache" or (store == "auto" and _is_small(dataset, split))
    kind = split if cached else f"{split}-columns"
    folder = _cache_place(dataset, cache_dir) / f"{kind}-{_fingerprint(directory, split)}"
    if not folder.exists():
        _build_cache(directory, split, folder, dataset, images=cached)
    with np.load(folder / "columns.npz", allow_pickle=False) as arrays:
        columns = dict(arrays)
    images: Any = np.load(folder / "images.npy", mmap_mode="r") if cached else RecordImages(directory, split)
    return dataset, images, columns


def _cache_place(dataset: dict[str, Any], cache_dir: str | os.PathLike | None) -> pathlib.Path:
    """Where a dataset's caches lie; no two datasets share a folder, since each removes what it finds stale."""
    if not cache_dir:
        return pathlib.Path(dataset["directory"], "cache")
    name = dataset["name"].replace("/", "_")
    return pathlib.Path(cache_dir, f"{name}-{hashlib.sha256(dataset['directory'].encode()).hexdigest()[:8]}")


def _fingerprint(directory: pathlib.Path, split: str) -> str:
    """Hash of all that a cache depends on: its layout, descriptions, and name, size and time of the split's shards."""
    digest = hashlib.sha256(f"{split} {COLUMNS_VERSION}".encode())
    for name in ("dataset_info.json", "features.json", "metadata.json"):
        digest.update((directory / name).read_bytes())
    for shard in sorted(directory.glob(f"*-{split}.array_record-*")):
        stat = shard.stat()
        digest.update(f"{shard.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _build_cache(
    directory: pathlib.Path, split: str, folder: pathlib.Path, dataset: dict[str, Any], *, images: bool
) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ValueError(
            f"{folder.parent}: cannot write the cache ({error}); set config.data.cache_dir"
        ) from error
    try:
        _decode(directory, split, temporary, dataset, images=images)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    kind = folder.name[: -len("-0123456789abcdef")]
    for stale in folder.parent.glob(f"{kind}-*"):
        if stale != folder and re.fullmatch(re.escape(kind) + "-[0-9a-f]{16}", stale.name):
            logging.info("removing stale cache %s", stale)
            shutil.rmtree(stale, ignore_errors=True)


def _decode(
    directory: pathlib.Path, split: str, folder: pathlib.Path, dataset: dict[str, Any], *, images: bool
) -> None:
    """Write the columns of the split, and its `images`, to `folder`, in blocks."""
    builder = tfds.builder_from_directory(str(directory))
    examples, name = builder.as_data_source(split), _input_name(builder.info.features)
    shape, dtype = (len(examples), *dataset["image_shape"]), dataset["image_dtype"]
    pixels = np.lib.format.open_memmap(folder / "images.npy", "w+", dtype, shape) if images else None
    columns = collected_columns.start(len(examples), dataset)
    block = max(1, BLOCK_BYTES // _bytes_of(dataset))
    with tqdm(total=len(examples), desc=f"caching {split}", unit="image", disable=None) as bar:
        for start in range(0, len(examples), block):
            rows = range(start, min(start + block, len(examples)))
            for row, example in zip(rows, examples.__getitems__(rows), strict=True):
                columns.take(row, example)
                if pixels is not None:
                    pixels[row] = example[name]
            bar.update(len(rows))
    if pixels is not None:
        pixels.flush()
    np.savez(folder / "columns.npz", **columns.arrays())


class RecordImages:
    """Images of a split as an array would give them, read from the records when they are asked for."""

    def __init__(self, directory: pathlib.Path, split: str):
        builder = tfds.builder_from_directory(str(directory))
        self._name = _input_name(builder.info.features)
        self._records = builder.as_data_source(split).data_source
        self._pool = concurrent.futures.ThreadPoolExecutor(READERS, thread_name_prefix="records")
        feature = builder.info.features[self._name]
        self.shape, self.dtype = (len(self._records), *feature.shape), np.dtype(feature.np_dtype)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Images of the given rows (any shape), in that order."""
        rows, shape = np.asarray(rows), self.shape[1:]
        images = records.read_images(
            self._records, rows.ravel(), name=self._name, shape=shape, dtype=self.dtype, pool=self._pool
        )
        return images.reshape(*rows.shape, *shape)


def _put_in_place(temporary: pathlib.Path, folder: pathlib.Path) -> None:
    try:
        os.rename(temporary, folder)
    except OSError:
        if not folder.exists():  # otherwise another process was faster, and its cache is the same
            raise
