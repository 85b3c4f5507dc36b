"""The COOS-7 builder on the official layout, in all its variants, and on damaged releases."""

import functools
import http.server
import json
import threading

import h5py
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tifffile

from coos.data import source
from tfds_builders import coos7
from tfds_builders.coos7.coos7_dataset_builder import CLASS_NAMES, PUBLISHED_COUNTS, SPLITS


def raw_images(split, n=7):
    generator = np.random.default_rng(SPLITS.index(split))
    return generator.integers(0, 65536, (n, 2, 64, 64)).astype(np.uint16)


def write_release(folder, *, version="1.1", data=lambda x: x, labels=lambda x: x, skip=(), **columns):
    """Five small files; `data` and `labels` change what is stored."""
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        if split in skip:
            continue
        with h5py.File(folder / f"COOS7_v{version}_{split}.hdf5", "w") as file:
            file["data"] = data(raw_images(split))
            file["labels"] = labels(np.arange(7))
            for name, make in columns.items():
                file[name] = make(split)
    return folder


def build(folder, data_dir, **options):
    builder = coos7.Builder(source=folder, data_dir=data_dir, **options)
    builder.download_and_prepare()
    return builder


def read(builder, split):
    """Examples of a split by id."""
    examples = builder.as_data_source(split)
    return {examples[i]["id"].decode(): examples[i] for i in range(len(examples))}


def assert_nothing_left(data_dir):
    left = [path for path in data_dir.rglob("*") if path.is_file() and ".config" not in path.parts]
    assert not left  # .config is the list of configs that TFDS keeps


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


LAYOUTS = {
    "official": {},
    "float64": {"data": lambda x: x.astype(np.float64)},
    "int32 big-endian": {"data": lambda x: x.astype(">i4")},
    "channels last": {"data": lambda x: x.transpose(0, 2, 3, 1)},
    "label column": {"labels": lambda x: x[:, None].astype(np.uint8)},
    "float labels": {"labels": lambda x: x.astype(np.float32)},
    "version 1.0": {"version": "1.0"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_raw_intensities(layout, tmp_path):
    builder = build(write_release(tmp_path / "release", **LAYOUTS[layout]), tmp_path / "data")
    for split in SPLITS:
        examples = read(builder, split)
        assert sorted(examples) == [f"{split}_{row:06d}" for row in range(7)]
        for row, image in enumerate(raw_images(split)):
            example = examples[f"{split}_{row:06d}"]
            assert example["image"].dtype == np.uint16
            np.testing.assert_array_equal(example["image"], image.transpose(1, 2, 0))
            assert example["label"] == row


def test_provenance_is_kept(tmp_path):
    columns = {
        "plate": lambda split: np.array([f"{split}-plate".encode()] * 7),
        "well": lambda split: np.array([f"A{i + 1:02d}" for i in range(7)], dtype="S3"),
        "field": lambda split: np.arange(7)[:, None],
    }
    builder = build(write_release(tmp_path / "release", **columns), tmp_path / "data")
    example = read(builder, "test3")["test3_000004"]
    assert example["plate"] == b"test3-plate"
    assert example["well"] == b"A05"
    assert json.loads(example["provenance"]) == {"field": "4"}


def test_channel_order_of_the_files_is_an_option(tmp_path):
    folder = write_release(tmp_path / "release", data=lambda x: x[:, ::-1])
    builder = build(folder, tmp_path / "data", file_channels=("nucleus", "protein"))
    image = read(builder, "test1")["test1_000002"]["image"]
    np.testing.assert_array_equal(image, raw_images("test1")[2].transpose(1, 2, 0))
    assert builder.info.metadata["channels"] == ["protein", "nucleus"]


def test_rescaled_release_needs_the_float_config(tmp_path):
    folder = write_release(tmp_path / "release", data=lambda x: x / 65535)
    with pytest.raises(ValueError, match=r"_training.hdf5, row 0: pixel value 0\.\d+ is not a raw uint16"):
        build(folder, tmp_path / "data")
    assert_nothing_left(tmp_path / "data")
    image = read(build(folder, tmp_path / "data", config="float32"), "test2")["test2_000000"]["image"]
    np.testing.assert_array_equal(
        image, (raw_images("test2")[0] / 65535).astype(np.float32).transpose(1, 2, 0)
    )


@pytest.mark.parametrize("by_number", [True, False])
def test_unpacked_tree(by_number, tmp_path):
    for split in SPLITS:
        for row, image in enumerate(raw_images(split)):
            folder = (
                tmp_path / "tree" / split / (str(row) if by_number else CLASS_NAMES[row].replace(" ", "_"))
            )
            folder.mkdir(parents=True)
            stem = "0001" if by_number else f"{split}_cell{row}"
            tifffile.imwrite(folder / f"{stem}_protein.tif", image[0])
            tifffile.imwrite(folder / f"{stem}_nucleus.tif", image[1])
    builder = build(tmp_path / "tree", tmp_path / "data")
    for split in SPLITS:
        by_label = {example["label"]: example["image"] for example in read(builder, split).values()}
        for row, image in enumerate(raw_images(split)):
            np.testing.assert_array_equal(by_label[row], image.transpose(1, 2, 0))


def cut_in_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def put(dataset, place, value):
    def change(file):
        file[dataset][place] = value

    return lambda path: edit(path, change)


def without(dataset):
    return lambda path: edit(path, lambda file: file.__delitem__(dataset))


def reshaped(dataset, value):
    def change(file):
        if dataset in file:
            del file[dataset]
        file[dataset] = value

    return lambda path: edit(path, change)


DAMAGE = {
    "truncated": (cut_in_half, r"_test2\.hdf5: cannot be read as HDF5 .*truncated"),
    "no HDF5": (lambda path: path.write_text("hello"), r"_test2\.hdf5: cannot be read as HDF5"),
    "missing": (
        lambda path: path.unlink(),
        r"file COOS7_v1\.x_test2\.hdf5 missing; found \['COOS7_v1\.1_test1",
    ),
    "no labels": (without("labels"), r"_test2\.hdf5: dataset 'labels' missing; found \['data'\]"),
    "label too large": (put("labels", 3, 7), r"_test2\.hdf5, row 3: label 7 is not one of 0\.\.6"),
    "negative label": (put("labels", 5, -1), r"_test2\.hdf5, row 5: label -1"),
    "wrong shape": (
        reshaped("data", np.zeros((7, 3, 64, 64))),
        r"'data' has shape \(7, 3, 64, 64\); expected",
    ),
    "too few labels": (reshaped("labels", np.zeros(6)), r"'labels' has shape \(6,\) for 7 images"),
    "text as data": (reshaped("data", np.array([b"x"] * 7)), r"'data' has dtype \|S1"),
    "extra of wrong length": (
        reshaped("plate", np.zeros(3)),
        r"'plate' has shape \(3,\); expected one value",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_nothing_half_built_remains(kind, tmp_path):
    damage, message = DAMAGE[kind]
    folder = write_release(tmp_path / "release")
    damage(folder / "COOS7_v1.1_test2.hdf5")
    with pytest.raises(ValueError, match=message):
        build(folder, tmp_path / "data")
    assert_nothing_left(tmp_path / "data")


def test_nan_is_named_by_file_and_row(tmp_path):
    folder = write_release(tmp_path / "release", data=lambda x: x.astype(np.float32))
    put("data", (6, 1, 10, 11), np.nan)(folder / "COOS7_v1.1_test4.hdf5")
    for config in ("uint16", "float32"):
        with pytest.raises(ValueError, match=r"_test4\.hdf5, row 6: pixel value nan is NaN or infinite"):
            build(folder, tmp_path / "data", config=config)
        assert_nothing_left(tmp_path / "data")


def test_same_id_in_two_sets_is_refused(tmp_path):
    ids = {split: np.array([f"{split}-{i}" for i in range(7)], dtype="S20") for split in SPLITS}
    ids["test3"][2] = b"training-5"
    folder = write_release(tmp_path / "release", id=lambda split: ids[split])
    with pytest.raises(ValueError, match=r"'training-5' occurs twice: .*row [25] and .*row [25]"):
        build(folder, tmp_path / "data")


def test_two_versions_of_a_file_are_refused(tmp_path):
    folder = write_release(tmp_path / "release", version="1.0")
    write_release(folder, skip=SPLITS[1:])
    with pytest.raises(ValueError, match=r"both COOS7_v1\.0_training\.hdf5 and COOS7_v1\.1_training\.hdf5"):
        build(folder, tmp_path / "data")


def test_unknown_class_folder_is_refused(tmp_path):
    for split in SPLITS:
        folder = tmp_path / "tree" / split / ("7" if split == "test4" else "0")
        folder.mkdir(parents=True)
        for channel in ("protein", "nucleus"):
            tifffile.imwrite(folder / f"1_{channel}.tif", np.zeros((64, 64), np.uint16))
    with pytest.raises(
        ValueError, match=r"test4/7/1_protein\.tif: class folder '7' is neither 0 to 6 nor one of"
    ):
        build(tmp_path / "tree", tmp_path / "data")
    assert_nothing_left(tmp_path / "data")


def test_other_counts_than_published_are_reported(tmp_path, release):
    real = build(write_release(tmp_path / "release"), tmp_path / "data")
    reported = real.info.metadata["differences_from_published"]
    assert reported["test4"] == [7, PUBLISHED_COUNTS["test4"]] == [7, 30772]
    assert sum(PUBLISHED_COUNTS.values()) == 132209
    simulated = build(release, tmp_path / "simulated")
    assert simulated.info.metadata["simulated"] is True
    assert simulated.info.metadata["differences_from_published"] == {}


def test_download_from_a_mirror(tmp_path):
    folder = write_release(tmp_path / "release")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}"
        builder = coos7.Builder(mirror=mirror, data_dir=tmp_path / "data")
        builder.download_and_prepare()
        server.shutdown()
    image = read(builder, "test1")["test1_000003"]["image"]
    np.testing.assert_array_equal(image, raw_images("test1")[3].transpose(1, 2, 0))
    assert builder.info.metadata["source"] == mirror


def test_manual_dir_of_tfds_is_read(tmp_path):
    folder = write_release(tmp_path / "release")
    builder = coos7.Builder(data_dir=tmp_path / "data")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
    assert len(builder.as_data_source("test4")) == 7


def test_dataset_is_self_describing(dataset):
    described = source.describe(dataset)
    assert described["class_names"] == list(CLASS_NAMES)
    assert described["channels"] == ["protein", "nucleus"]
    assert described["simulated"] is True
    assert described["image_shape"] == [64, 64, 2]
    assert set(described["splits"]) == set(SPLITS)


def test_package_carries_datasheet_and_citation():
    info = coos7.Builder.get_metadata()
    assert "132,209" in info.description
    assert "Cells Out of Sample" in info.citation
