"""Builder of a dataset from a tree of TIFF files; splits, classes, channels, size and dtype are discovered."""

import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from coos.data import identity, image_tree


class Builder(tfds.core.GeneratorBasedBuilder):
    """`<split>/<class>/<stem>_<channel>.tif` as ArrayRecord: image (H, W, C) in the raw dtype, label, id.

    Args (beyond those of every TFDS builder):
        source: the folder that holds the split folders.
        name: name of this dataset, the config name of the builder; None takes the folder's name.
        channels: channel names in the wanted order; None takes all that occur, sorted by name.
        splits: split folders to read; None takes all.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def __init__(
        self,
        *,
        source: str | pathlib.Path | None = None,
        name: str | None = None,
        channels: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        if source is None:
            raise ValueError("cell_folder needs source=FOLDER, a tree <split>/<class>/<stem>_<channel>.tif")
        name = name or pathlib.Path(source).resolve().name
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"name={name!r}: use letters, digits, '_', '-' and '.'")
        self._tree = image_tree.scan(source, channels=channels, splits=splits)
        image_tree.check_unique_ids([(e.stem, str(e.files[0])) for e in self._tree.entries])
        first = image_tree.read_plane(self._tree.entries[0].files[0])
        self._shape, self._dtype = first.shape, first.dtype
        config = tfds.core.BuilderConfig(
            name=name,
            version=self.VERSION,
            description="A folder of cells.",
        )
        kwargs.setdefault("file_format", "array_record")
        super().__init__(config=config, **kwargs)

    @property
    def recipe(self) -> dict[str, Any]:
        """What the dataset is built from; a dataset with another recipe is not this one."""
        return {
            "source": str(self._tree.root.resolve()),
            "files": identity.files_digest(path for entry in self._tree.entries for path in entry.files),
            "channels": list(self._tree.channels),
        }

    def _info(self) -> tfds.core.DatasetInfo:
        tree = self._tree
        shape = (*self._shape, len(tree.channels))
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=shape, dtype=self._dtype, encoding="bytes"),
                    "label": tfds.features.ClassLabel(names=list(tree.class_names)),
                    "id": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(
                channels=list(tree.channels),
                class_names=list(tree.class_names),
                simulated=False,
                source=str(tree.root.resolve()),
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        metadata, number = self.info.metadata, len(self._tree.class_names)
        metadata.update(recipe=self.recipe)
        return {
            split: identity.identified(split, self._generate_examples(split), metadata, num_classes=number)
            for split in self._tree.splits
        }

    def _generate_examples(self, split: str) -> Iterator[Any]:
        """Yield (id, example) of one split; the id is the stem of the files."""
        dtype = np.dtype(self._dtype)
        for entry in self._tree.entries:
            if entry.split == split:
                image = image_tree.read_entry(entry, shape=self._shape, dtype=dtype)
                label = self._tree.class_names.index(entry.class_name)
                yield entry.stem, {"image": image, "label": label, "id": entry.stem}
