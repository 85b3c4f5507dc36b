"""Builder of COOS-7 from its five HDF5 files or from the unpacked tree of TIFF files."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from coos.data import hdf5_cells, identity, image_tree

SPLITS = ("training", "test1", "test2", "test3", "test4")
CLASS_NAMES = (
    "Endoplasmic Reticulum",
    "Inner Mitochondrial Membrane",
    "Golgi",
    "Peroxisomes",
    "Early Endosome",
    "Cytosol",
    "Nuclear Envelope",
)
CHANNELS = ("protein", "nucleus")
IMAGE_SHAPE = (64, 64, 2)
PUBLISHED_COUNTS = {"training": 41456, "test1": 10364, "test2": 17021, "test3": 32596, "test4": 30772}
ZENODO = "https://zenodo.org/record/3386336/files"
FILE_NAME = re.compile(r"COOS7_v(?P<version>\d+\.\d+)_(?P<split>training|test[1-4])\.(hdf5|h5)")


class Builder(tfds.core.GeneratorBasedBuilder):
    """COOS-7 as ArrayRecord: image (64, 64, 2), label, id, plate, well, and other provenance as JSON.

    Args (beyond those of every TFDS builder):
        source: folder with the five files, or with the unpacked tree. None: TFDS's manual_dir if it holds
            files, else download.
        file_channels: order of the channels in the files. Stored is always protein, nucleus.
        mirror: base address to download from instead of Zenodo.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.1.0": "Reads the v1.x files of Zenodo record 3386336."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="uint16", description="Raw 16-bit intensities, as released."),
        tfds.core.BuilderConfig(name="float32", description="For copies of the release that were rescaled."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Optional: put COOS7_v1.x_training.hdf5 and COOS7_v1.x_test1.hdf5 to _test4.hdf5 "
        "(https://zenodo.org/record/3386336) here; without them the builder downloads them."
    )

    def __init__(self, *, source=None, file_channels=CHANNELS, mirror=ZENODO, **kwargs):
        if sorted(file_channels) != sorted(CHANNELS):
            raise ValueError(f"file_channels={tuple(file_channels)}: must be {CHANNELS} in some order")
        names = [known.name for known in self.BUILDER_CONFIGS]
        if kwargs.get("config", names[0]) not in names:
            raise ValueError(f"config={kwargs['config']!r}: choose one of {names}")
        self._source = None if source is None else pathlib.Path(source).resolve()
        self._file_channels = tuple(file_channels)
        self._channel_order = tuple(tuple(file_channels).index(name) for name in CHANNELS)
        self._mirror = mirror.rstrip("/")
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    @property
    def recipe(self) -> dict[str, Any]:
        """What the dataset is built from; a dataset with another recipe is not this one."""
        if self._source is None:
            return {"source": self._mirror, "file_channels": list(self._file_channels)}
        paths = [path for path in self._source.rglob("*") if path.is_file()] if self._source.is_dir() else []
        return {
            "source": str(self._source),
            "files": identity.files_digest(paths),
            "file_channels": list(self._file_channels),
        }

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype(self.builder_config.name)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=IMAGE_SHAPE, dtype=self._dtype, encoding="bytes"),
                    "label": tfds.features.ClassLabel(names=list(CLASS_NAMES)),
                    "id": tfds.features.Text(),
                    "plate": tfds.features.Text(),
                    "well": tfds.features.Text(),
                    "provenance": tfds.features.Text(),
                }
            ),
            homepage="https://zenodo.org/record/3386336",
            metadata=tfds.core.MetadataDict(channels=list(CHANNELS), class_names=list(CLASS_NAMES)),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        source = self._find_source(dl_manager)
        if source is None:
            files = dl_manager.download({s: f"{self._mirror}/COOS7_v1.1_{s}.hdf5" for s in SPLITS})
            return self._hdf5_splits(
                {split: pathlib.Path(path) for split, path in files.items()}, self._mirror
            )
        files = find_files(source)
        if files:
            return self._hdf5_splits(files, source)
        return self._tree_splits(source)

    def _find_source(self, dl_manager: tfds.download.DownloadManager) -> pathlib.Path | None:
        """The folder that was named, or TFDS's manual_dir where it holds something, or None."""
        if self._source is not None:
            return self._source
        try:
            return pathlib.Path(dl_manager.manual_dir)
        except AssertionError:  # how TFDS says that manual_dir is absent or empty
            return None

    def _hdf5_splits(self, files: dict[str, pathlib.Path], source: Any) -> dict[str, Any]:
        channels_first = (IMAGE_SHAPE[2], *IMAGE_SHAPE[:2])
        cells = {
            split: hdf5_cells.inspect(path, image_shape=channels_first, num_classes=len(CLASS_NAMES))
            for split, path in files.items()
        }
        ids = {split: _row_ids(split, file) for split, file in cells.items()}
        image_tree.check_unique_ids(
            [(i, f"{cells[s].path}, row {row}") for s in SPLITS for row, i in enumerate(ids[s])]
        )
        simulated = any(file.simulated for file in cells.values())
        self._describe({s: file.num_images for s, file in cells.items()}, source=source, simulated=simulated)
        return {
            split: self._identified(split, self._generate_examples(cells[split], ids[split]))
            for split in SPLITS
        }

    def _generate_examples(self, cells: hdf5_cells.CellFile, ids: list[str]) -> Iterator[Any]:
        """Yield (id, example) of one HDF5 file."""
        others = sorted(set(cells.columns) - {"id", "plate", "well"})
        images = hdf5_cells.read_images(cells, dtype=self._dtype, channel_order=self._channel_order)
        for row, image in enumerate(images):
            yield (
                ids[row],
                {
                    "image": image,
                    "label": int(cells.labels[row]),
                    "id": ids[row],
                    "plate": _column(cells, "plate", row),
                    "well": _column(cells, "well", row),
                    "provenance": json.dumps({name: _column(cells, name, row) for name in others}),
                },
            )

    def _tree_splits(self, source: pathlib.Path) -> dict[str, Any]:
        tree = image_tree.scan(source, channels=CHANNELS)
        entries: dict[str, list] = {split: [] for split in SPLITS}
        for entry in tree.entries:
            entries[_split_of_folder(source, entry.split)].append(entry)
        empty = [split for split in SPLITS if not entries[split]]
        if empty:
            raise ValueError(
                f"{source}: set {empty[0]!r} missing; found {list(tree.splits)}, need {list(SPLITS)}"
            )
        image_tree.check_unique_ids(
            [(_tree_id(s, entry), str(entry.files[0])) for s in SPLITS for entry in entries[s]]
        )
        self._describe({s: len(rows) for s, rows in entries.items()}, source=source, simulated=False)
        return {
            split: self._identified(split, self._generate_from_tree(split, entries[split]))
            for split in SPLITS
        }

    def _generate_from_tree(self, split: str, entries: list) -> Iterator[Any]:
        for entry in entries:
            image = image_tree.read_planes(entry)
            if image.shape != IMAGE_SHAPE:
                raise ValueError(f"{entry.files[0]}: image is {image.shape}; COOS-7 crops are {IMAGE_SHAPE}")
            identifier = _tree_id(split, entry)
            yield (
                identifier,
                {
                    "image": hdf5_cells.exact_cast(image[None], self._dtype, lambda _, e=entry: e.files[0])[
                        0
                    ],
                    "label": class_of_folder(entry.class_name, entry.files[0]),
                    "id": identifier,
                    "plate": "",
                    "well": "",
                    "provenance": json.dumps({"file": str(entry.files[0].name)}),
                },
            )

    def _identified(self, split: str, examples: Iterator[Any]) -> Iterator[Any]:
        return identity.identified(split, examples, self.info.metadata, num_classes=len(CLASS_NAMES))

    def _describe(self, counts: dict[str, int], *, source: Any, simulated: bool) -> None:
        """Record where the data came from, and say when a real release has other counts than the paper."""
        differences = {
            s: [counts[s], n] for s, n in PUBLISHED_COUNTS.items() if counts[s] != n and not simulated
        }
        for split, (found, published) in differences.items():
            logging.warning("COOS-7 %s: %d images; Lu et al. 2019, Table 2 has %d", split, found, published)
        self.info.metadata.update(
            simulated=simulated,
            source=str(source),
            recipe=self.recipe,
            counts=counts,
            differences_from_published=differences,
        )


def find_files(source: pathlib.Path) -> dict[str, pathlib.Path]:
    """The five HDF5 files of a release in `source` by set, or {} if it holds none of them.

    Some but not all files, or two versions of one file, raise ValueError.
    """
    if not source.is_dir():
        raise ValueError(f"{source}: no such folder")
    files: dict[str, pathlib.Path] = {}
    for path in sorted(source.iterdir()):
        match = FILE_NAME.fullmatch(path.name)
        if not match:
            continue
        if match["split"] in files:
            raise ValueError(
                f"{source}: both {files[match['split']].name} and {path.name}; keep one of the two"
            )
        files[match["split"]] = path
    missing = [split for split in SPLITS if split not in files]
    if files and missing:
        raise ValueError(
            f"{source}: file COOS7_v1.x_{missing[0]}.hdf5 missing; found {[p.name for p in files.values()]}"
        )
    return files


def class_of_folder(name: str, where: Any) -> int:
    """Class number of a folder of the unpacked tree: '0' to '6' or a class name."""
    names = [class_name.lower() for class_name in CLASS_NAMES]
    plain = name.replace("_", " ").lower()
    if plain in names:
        return names.index(plain)
    if name.isdecimal() and int(name) < len(CLASS_NAMES):
        return int(name)
    raise ValueError(f"{where}: class folder {name!r} is neither 0 to 6 nor one of {list(CLASS_NAMES)}")


def _split_of_folder(source: pathlib.Path, name: str) -> str:
    split = "training" if name.lower() == "train" else name.lower()
    if split not in SPLITS:
        raise ValueError(f"{source / name}: not a set of COOS-7; expected {list(SPLITS)}")
    return split


def _tree_id(split: str, entry: image_tree.CellEntry) -> str:
    """The stem; a stem that is only a number counts rows of its class folder, so it needs the folder's name."""
    return f"{split}_{entry.class_name}_{entry.stem}" if entry.stem.isdecimal() else entry.stem


def _row_ids(split: str, cells: hdf5_cells.CellFile) -> list[str]:
    if "id" in cells.columns:
        return [str(i) for i in cells.columns["id"]]
    return [f"{split}_{row:06d}" for row in range(cells.num_images)]


def _column(cells: hdf5_cells.CellFile, name: str, row: int) -> str:
    return str(cells.columns[name][row]) if name in cells.columns else ""
