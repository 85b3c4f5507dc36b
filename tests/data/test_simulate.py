"""Tests of the simulated release: its layout, its provenance and the biology of its patterns."""

import h5py
import numpy as np
import pytest
from run_scripts import call_script

from coos.data.simulate import CLASSES, organelles, simulate_split, single_cells, write_release

TESTS = ("test1", "test2", "test3", "test4")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A small release: split -> dict of its arrays, and its paths under "paths"."""
    paths = write_release(tmp_path_factory.mktemp("release"), cells_per_class=48, seed=3)
    arrays = {"paths": paths}
    for split, path in paths.items():
        with h5py.File(path) as file:
            arrays[split] = {name: file[name][:] for name in file}
    return arrays


def _wells(split):
    return {(plate, well) for plate, well in zip(split["plate"], split["well"], strict=True)}


def _draw(label, *, count=64, seed=0, **changes):
    """Draw one class without optics; return cells and pattern (count, 64, 64)."""
    rng = np.random.default_rng(seed)
    factors = single_cells.draw_factors(rng, single_cells.well_effects(0)[0, :count])
    factors |= {name: np.full(count, value, np.float32) for name, value in changes.items()}
    cells = organelles.draw_cells(rng, factors)
    return cells, organelles.PATTERNS[label](rng, cells, factors)


def _mean(images, mask):
    return (images * mask).sum(axis=(1, 2)) / mask.sum(axis=(1, 2))


def test_layout_is_the_official_one(release):
    assert [path.name for path in release["paths"].values()] == [
        "COOS7_v1.1_training.hdf5",
        *(f"COOS7_v1.1_{name}.hdf5" for name in TESTS),
    ]
    for split, path in release["paths"].items():
        with h5py.File(path) as file:
            total = len(file["labels"])
            assert file["data"].shape == (total, 2, 64, 64)
            assert file["data"].dtype == np.uint16
            assert np.issubdtype(file["labels"].dtype, np.integer)
            assert file["plate"].shape == file["well"].shape == (total,)
            assert file["plate"].dtype.kind == file["well"].dtype.kind == "S"
            assert file.attrs["simulated"]
            assert file.attrs["seed"] == 3
        assert not list(path.parent.glob(".*")), f"{split} left a temporary file"


def test_every_class_is_everywhere_in_official_proportions(release):
    assert list(np.bincount(release["training"]["labels"])) == [48] * 7
    for split, official in zip(TESTS, (10364, 17021, 32596, 30772), strict=True):
        counts = np.bincount(release[split]["labels"], minlength=7)
        assert counts.min() >= 1
        assert counts.mean() == pytest.approx(48 * official / 41456, rel=0.1)
    tiny = simulate_split("test1", cells_per_class=1)
    assert set(tiny["labels"]) == set(range(7))


def test_cells_are_shuffled(release):
    labels = release["training"]["labels"].astype(int)
    assert np.count_nonzero(np.diff(labels)) > len(labels) / 2


def test_intensities_are_those_of_a_camera(release):
    for split in ("training", *TESTS):
        for images in release[split]["data"].swapaxes(0, 1):
            assert 100 < np.median(images[:, 0, 0]) < 800
            assert 500 < np.median(images.max(axis=(1, 2))) < 12000
            assert np.mean(images == 65535) == 0


def test_plates_and_wells_of_the_splits(release):
    plates = {split: set(release[split]["plate"]) for split in ("training", *TESTS)}
    wells = {split: _wells(release[split]) for split in ("training", *TESTS)}
    assert plates["training"] == plates["test1"] == plates["test2"]
    assert [len(plates[split]) for split in ("training", "test3", "test4")] == [4, 2, 1]
    groups = plates["training"], plates["test3"], plates["test4"]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert wells["test1"] <= wells["training"]
    assert not wells["test2"] & wells["training"]


def test_each_class_has_its_own_wells_on_all_plates(release):
    for split in ("training", "test2"):
        owner = {}
        for label, *well in zip(*(release[split][name] for name in ("labels", "plate", "well")), strict=True):
            assert owner.setdefault(tuple(well), label) == label
        assert {(plate, label) for (plate, _), label in owner.items()} == {
            (plate, label) for plate in set(release[split]["plate"]) for label in range(7)
        }


def test_border_and_interior_wells_of_a_384_well_plate(release):
    def on_border(well):
        assert b"A" <= well[:1] <= b"P"
        assert 1 <= int(well[1:]) <= 24
        return well[:1] in b"AP" or int(well[1:]) in (1, 24)

    assert all(map(on_border, release["test2"]["well"]))
    assert not any(map(on_border, (*release["training"]["well"], *release["test1"]["well"])))


def test_the_seed_decides_every_pixel(release):
    same = simulate_split("test2", cells_per_class=48, seed=3)
    other = simulate_split("test2", cells_per_class=48, seed=4)
    for name, values in same.items():
        assert values.tobytes() == release["test2"][name].tobytes(), name
    assert same["data"][:10].tobytes() != other["data"][:10].tobytes()


def test_endoplasmic_reticulum_is_densest_around_the_nucleus():
    cells, image = _draw(0)
    near = organelles.inside(cells.nucleus_depth + 4) - organelles.inside(cells.nucleus_depth + 1)
    far = organelles.inside(cells.cell_depth - 1) - organelles.inside(cells.nucleus_depth + 9)
    assert np.mean(_mean(image, near) > _mean(image, np.maximum(far, 0))) > 0.9


def test_mitochondria_are_in_the_cytoplasm():
    cells, image = _draw(1)
    body = organelles.inside(cells.cell_depth) * (1 - organelles.inside(cells.nucleus_depth))
    assert np.mean(_mean(image, body) > 2 * _mean(image, organelles.inside(cells.nucleus_depth - 2))) > 0.9


def _lopsidedness(image):
    """Return how far (px) the centre of mass lies from the middle of the crop."""
    grid = np.arange(64) - 31.5
    total = image.sum(axis=(1, 2))
    y, x = (image.sum(axis=2) @ grid) / total, (image.sum(axis=1) @ grid) / total
    return np.hypot(y, x)


def test_golgi_is_on_one_side_and_peroxisomes_are_all_around():
    assert np.median(_lopsidedness(_draw(2)[1])) > 2 * np.median(_lopsidedness(_draw(3)[1]))
    whole, broken = (np.median(_lopsidedness(_draw(2, golgi_fragmentation=share)[1])) for share in (0.1, 0.9))
    assert broken < whole


def test_endosomes_are_fewer_and_more_variable_than_peroxisomes():
    covered = [np.mean(_draw(label, endosome_diffuseness=0.0)[1] > 0.3, axis=(1, 2)) for label in (3, 4)]
    assert np.median(covered[1]) < np.median(covered[0])
    gathered, loose = (
        np.median(_lopsidedness(_draw(4, endosome_gathering=share, endosome_diffuseness=0.1)[1]))
        for share in (1.0, 0.0)
    )
    assert gathered > 2 * loose


def test_cytosol_is_darker_in_the_nucleus():
    cells, image = _draw(5)
    outside = organelles.inside(cells.cell_depth - 6) * (1 - organelles.inside(cells.nucleus_depth + 2))
    assert np.all(_mean(image, organelles.inside(cells.nucleus_depth - 3)) < 0.8 * _mean(image, outside))


def test_nuclear_envelope_peaks_at_the_nuclear_boundary():
    cells, image = _draw(6)
    rim = np.exp(-(cells.nucleus_depth**2))
    centre, away = organelles.inside(cells.nucleus_depth - 6), organelles.inside(-cells.nucleus_depth - 6)
    assert np.all(_mean(image, rim) > 1.5 * _mean(image, centre))
    assert np.all(_mean(image, centre) > _mean(image, away))


def test_intensity_and_nucleus_do_not_tell_the_class(release):
    images, labels = release["training"]["data"].astype(np.float64), release["training"]["labels"]
    nucleus = images[:, 1]
    measures = nucleus.mean(axis=(1, 2)), nucleus.std(axis=(1, 2)), (nucleus[:, 32]).std(axis=1)
    for values in map(np.log, measures):
        means = [values[labels == label].mean() for label in range(len(CLASSES))]
        assert np.std(means) < 0.5 * values.std()
    brightest = np.log(images[:, 0].max(axis=(1, 2)))
    spread = [np.ptp(np.percentile(brightest[labels == label], (10, 90))) for label in range(len(CLASSES))]
    assert min(spread) > 0.4


def test_the_other_microscope_has_larger_pixels():
    factors = {name: np.full(4, 1.0, np.float32) for name in single_cells.FACTORS}
    factors |= {
        name: np.full(4, value, np.float32)
        for name, value in {"nucleus_radius": 12, "cell_radius": 26, "magnification": 1}.items()
    }
    areas = []
    for magnification in (1.0, 0.85):
        factors["magnification"] = np.full(4, magnification, np.float32)
        cells = organelles.draw_cells(np.random.default_rng(0), factors)
        areas.append((cells.nucleus_depth > 0).sum())
    assert areas[1] / areas[0] == pytest.approx(0.85**2, rel=0.05)


def test_blur_keeps_light_and_removes_detail():
    images = np.zeros((2, 64, 64), np.float32)
    images[:, 32, 32] = 1
    blurred = single_cells.blur(images, np.array([0.8, 2.0], np.float32))
    assert blurred.sum(axis=(1, 2)) == pytest.approx(1, abs=1e-3)
    assert blurred[1].max() < blurred[0].max() < 1


def test_bad_arguments_raise(tmp_path):
    with pytest.raises(ValueError, match="cells_per_class >= 1"):
        write_release(tmp_path, cells_per_class=0)
    with pytest.raises(ValueError, match="seed >= 0"):
        write_release(tmp_path, cells_per_class=1, seed=-1)
    with pytest.raises(ValueError, match="known splits: training, test1"):
        simulate_split("test5", cells_per_class=1)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_or_existing_out_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(NotADirectoryError, match="not a folder"):
        write_release(file, cells_per_class=1)
    there = tmp_path / "COOS7_v1.1_test2.hdf5"
    there.write_text("precious")
    with pytest.raises(FileExistsError, match=r"COOS7_v1\.1_test2\.hdf5"):
        write_release(tmp_path, cells_per_class=1)
    assert there.read_text() == "precious"
    assert len(write_release(tmp_path, cells_per_class=1, overwrite=True)) == 5
    with h5py.File(there) as written:
        assert written.attrs["simulated"]


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(single_cells.os, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_release(tmp_path, cells_per_class=1)
    assert not list(tmp_path.iterdir())


def test_the_script_writes_a_release_and_lists_the_known_studies(tmp_path):
    done = call_script("simulate.py", "coos7", f"--out={tmp_path}", "--cells_per_class=2", "--seed=5")
    assert done.returncode == 0, done.stderr
    assert "cells/s" in done.stdout
    assert len(list(tmp_path.glob("*.hdf5"))) == 5
    again = call_script("simulate.py", "coos7", f"--out={tmp_path}", "--cells_per_class=2")
    assert again.returncode != 0
    assert "already holds" in again.stderr
    unknown = call_script("simulate.py", "coos8", f"--out={tmp_path}")
    assert unknown.returncode != 0
    assert "coos7" in unknown.stdout + unknown.stderr
