"""The builder of anybody's cells: discovery, round trip, and trees that cannot be read."""

import numpy as np
import PIL.Image
import pytest
import tifffile

from coos.data import source
from tfds_builders import cell_folder


def write_tree(root, *, dtype=np.uint8, channels=("dna", "actin"), splits=("train", "test"), size=(20, 24)):
    generator = np.random.default_rng(0)
    images = {}
    for split in splits:
        for label in ("round", "flat", "long"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(3):
                stem = f"{split}_{label}_{i}"
                image = (generator.random((*size, len(channels))) * 200).astype(dtype)
                images[stem] = (split, label, image)
                for c, channel in enumerate(channels):
                    tifffile.imwrite(folder / f"{stem}_{channel}.tif", image[..., c])
    return images


def build(root, tmp_path, **options):
    builder = cell_folder.Builder(source=root, data_dir=tmp_path / "data", **options)
    builder.download_and_prepare()
    return builder


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_round_trip_with_everything_discovered(dtype, tmp_path):
    images = write_tree(tmp_path / "cells", dtype=dtype)
    builder = build(tmp_path / "cells", tmp_path)
    assert builder.info.metadata["channels"] == ["actin", "dna"]
    assert builder.info.metadata["class_names"] == ["flat", "long", "round"]
    for split in ("train", "test"):
        examples = builder.as_data_source(split)
        assert len(examples) == 9
        for i in range(9):
            example = examples[i]
            wanted_split, label, image = images[example["id"].decode()]
            assert wanted_split == split
            assert builder.info.features["label"].int2str(example["label"]) == label
            assert example["image"].dtype == dtype
            np.testing.assert_array_equal(example["image"], image[..., ::-1])


@pytest.mark.parametrize("channels", [("dna",), ("dna", "actin", "tubulin", "er", "mito")])
def test_any_number_of_channels_in_the_order_asked_for(channels, tmp_path):
    images = write_tree(tmp_path / "cells", channels=channels)
    builder = build(tmp_path / "cells", tmp_path, channels=channels, name="mine")
    example = builder.as_data_source("test")[0]
    np.testing.assert_array_equal(example["image"], images[example["id"].decode()][2])
    assert "cell_folder/mine/1.0.0" in str(builder.data_path)


def remove(path):
    path.unlink()


def rename(new):
    return lambda path: path.rename(path.with_name(new))


def overwrite(array):
    return lambda path: tifffile.imwrite(path, array)


def with_nan():
    image = np.zeros((20, 24), np.float32)
    image[3, 4] = np.nan
    return image


def palette(path):
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, np.zeros((20, 24), np.uint8), photometric="palette", colormap=colours)


def two_images(path):
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((20, 24), np.float32))
        file.write(np.zeros((10, 24), np.float32))


def in_a_subfolder(path):
    (path.parent / "plate1").mkdir()
    path.rename(path.parent / "plate1" / path.name)


DAMAGE = {
    "palette": (palette, r"train_flat_1_dna\.tif: pixels are PALETTE, not intensities"),
    "two images": (two_images, r"train_flat_1_dna\.tif: holds 2 images"),
    "subfolder": (in_a_subfolder, r"train/flat/plate1: a folder inside a class folder"),
    "no class": (
        lambda path: path.rename(path.parent.parent / path.name),
        r"train_flat_1_dna\.tif: belongs to no class",
    ),
    "inverted": (
        lambda path: tifffile.imwrite(path, np.zeros((20, 24), np.uint8), photometric="miniswhite"),
        r"train_flat_1_dna\.tif: pixels are MINISWHITE",
    ),
    "no partner": (remove, r"train_flat_1_actin\.tif: its partner 'train_flat_1_dna\.tif' is missing"),
    "other channel": (
        rename("train_flat_1_rna.tif"),
        r"train_flat_1_rna\.tif: channel 'rna' occurs in 1 of about 18 cells",
    ),
    "no channel": (rename("cell.tif"), r"train/flat/cell\.tif: file name is not <stem>_<channel>\.tif"),
    "other size": (
        overwrite(np.zeros((20, 25), np.float32)),
        r"train_flat_1_dna\.tif: is \(20, 25\) pixels; .* \(20, 24\)",
    ),
    "three dimensions": (
        overwrite(np.zeros((2, 20, 24), np.float32)),
        r"has shape \(2, 20, 24\); expected one two-dim",
    ),
    "wider dtype": (overwrite(np.zeros((20, 24), np.float64)), r"dtype float64 does not fit the float32"),
    "NaN": (overwrite(with_nan()), r"train_flat_1_dna\.tif: pixel \(3, 4\) is nan"),
    "no TIFF": (
        lambda path: path.write_bytes(b"II*\0broken"),
        r"train_flat_1_dna\.tif: (cannot be read|has shape \(0,\))",
    ),
    "empty file": (lambda path: path.write_bytes(b""), r"train_flat_1_dna\.tif: cannot be read as TIFF"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_nothing_half_built_remains(kind, tmp_path):
    damage, message = DAMAGE[kind]
    write_tree(tmp_path / "cells", dtype=np.float32)
    damage(tmp_path / "cells" / "train" / "flat" / "train_flat_1_dna.tif")
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "cells", tmp_path)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_same_cell_in_train_and_test_is_refused(tmp_path):
    write_tree(tmp_path / "cells")
    for channel in ("dna", "actin"):
        image = np.zeros((20, 24), np.uint8)
        tifffile.imwrite(tmp_path / "cells" / "test" / "flat" / f"train_long_2_{channel}.tif", image)
    with pytest.raises(
        ValueError, match=r"id 'train_long_2' occurs twice: .*train_long_2_.*\.tif and .*\.tif"
    ):
        build(tmp_path / "cells", tmp_path)


def test_two_files_for_one_plane_are_refused(tmp_path):
    write_tree(tmp_path / "cells")
    folder = tmp_path / "cells" / "train" / "flat"
    (folder / "train_flat_1_dna.tiff").write_bytes((folder / "train_flat_1_dna.tif").read_bytes())
    with pytest.raises(ValueError, match=r"same cell and channel as train_flat_1_dna\.tif"):
        build(tmp_path / "cells", tmp_path)


def test_empty_and_absent_folders(tmp_path):
    with pytest.raises(ValueError, match="no such folder; expected <split>/<class>/<stem>_<channel>"):
        cell_folder.Builder(source=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no TIFF files"):
        cell_folder.Builder(source=tmp_path / "empty")
    write_tree(tmp_path / "cells")
    with pytest.raises(ValueError, match=r"split folder 'test9' missing; found \['test', 'train'\]"):
        cell_folder.Builder(source=tmp_path / "cells", splits=("train", "test9"))


def test_lzw_compressed_files_are_read(tmp_path):
    images = write_tree(tmp_path / "cells", dtype=np.uint16)
    for path in (tmp_path / "cells").rglob("*.tif"):
        PIL.Image.fromarray(tifffile.imread(path)).save(path, compression="tiff_lzw")
    example = build(tmp_path / "cells", tmp_path).as_data_source("test")[4]
    np.testing.assert_array_equal(example["image"], images[example["id"].decode()][2][..., ::-1])


def test_folder_without_tiffs_and_odd_names_are_refused(tmp_path):
    write_tree(tmp_path / "cells")
    (tmp_path / "cells" / "test" / "thin").mkdir()
    (tmp_path / "cells" / "test" / "thin" / "cell_dna.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"test/thin: no TIFF files; remove the folder, or convert"):
        cell_folder.Builder(source=tmp_path / "cells")
    write_tree(tmp_path / "other", splits=("train", "test.v2"))
    with pytest.raises(ValueError, match=r"test\.v2: a split needs a name of letters"):
        cell_folder.Builder(source=tmp_path / "other")
    with pytest.raises(ValueError, match=r"name='\.\./evil': use letters"):
        cell_folder.Builder(source=tmp_path / "cells", name="../evil")


def test_real_yeast_cells(real_data, tmp_path):
    builder = build(real_data / "yeast_cells", tmp_path, name="yeast")
    described = source.describe(builder.data_path)
    assert described["splits"] == {"test1": 267, "test2": 422, "train": 953}
    assert described["class_names"] == ["AAC1", "AAC3", "AAH1", "AAP1", "AAR2"]
    assert described["channels"] == ["nucleus", "protein"]
    example = builder.as_data_source("test2")[5]
    stem, label = example["id"].decode(), described["class_names"][example["label"]]
    for c, channel in enumerate(described["channels"]):
        path = real_data / "yeast_cells" / "test2" / label / f"{stem}_{channel}.tif"
        np.testing.assert_array_equal(example["image"][..., c], tifffile.imread(path))
