"""Writing DeepProfiler's files: what others read of them, and exact copies of real ones."""

import io
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
from pycytominer.cyto_utils import load

from coos.profiles import aggregate, deepprofiler

KNOWN = {"Metadata_Plate": "P1", "Metadata_Well": "B02", "Metadata_Site": "3", "Metadata_Model": "net"}


def some_cells(number=3, width=4):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(number, width)).astype(np.float32)
    return features, generator.random((number, 2)) * 1080


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_written_sites_are_read_back_bit_for_bit(tmp_path):
    features, locations = some_cells()
    features[0, 0], features[1, 1] = np.nan, -np.inf
    path = tmp_path / "P1" / "B02" / "3.npz"
    deepprofiler.write_site(path, features, locations, KNOWN)
    (table,) = deepprofiler.sites(tmp_path)
    assert table.features.tobytes() == features.tobytes()
    x, y = (table.metadata[f"Metadata_Location_Center_{axis}"].to_numpy() for axis in "XY")
    np.testing.assert_array_equal(np.stack([x, y], axis=1), locations)
    back = deepprofiler.read_site(path)
    assert back.features.tobytes() == features.tobytes()
    assert back.locations.tobytes() == locations.tobytes()
    assert [file.name for file in path.parent.iterdir()] == ["3.npz"]


def test_pycytominer_reads_what_is_written(tmp_path):
    features, locations = some_cells()
    deepprofiler.write_site(tmp_path / "3.npz", features, locations, KNOWN)
    frame = load.load_npz_features(str(tmp_path / "3.npz"))
    assert list(frame.columns) == [*KNOWN, "net_0", "net_1", "net_2", "net_3"]
    np.testing.assert_array_equal(frame[["net_0", "net_1", "net_2", "net_3"]].to_numpy(), features)
    assert frame.loc[2, list(KNOWN)].to_dict() == KNOWN
    found = load.load_npz_locations(str(tmp_path / "3.npz"))
    np.testing.assert_array_equal(found[["Location_Center_X", "Location_Center_Y"]].to_numpy(), locations)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    features, locations = some_cells()
    for name in ("a", "b"):
        deepprofiler.write_site(tmp_path / f"{name}.npz", features, locations, KNOWN)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("name", ["A01_5.npz", "A01_8.npz"])
def test_real_files_are_copied_exactly(name, real_data, tmp_path):
    given = real_data / "deepprofiler_features" / name
    site = deepprofiler.read_site(given)
    deepprofiler.write_site(tmp_path / "copy" / "P" / name, *site)
    before, after = members(given), members(tmp_path / "copy" / "P" / name)
    assert list(after) == list(before) == ["features.npy", "metadata.npy", "locations.npy"]
    assert after == before
    assert site.features.shape[1] == 6400
    (tmp_path / "real" / "P").mkdir(parents=True)
    (tmp_path / "real" / "P" / name).symlink_to(given)
    for method in ("mean", "median"):
        one, other = (
            aggregate.aggregate_stream(deepprofiler.sites(folder), method=method)
            for folder in (tmp_path / "real", tmp_path / "copy")
        )
        assert one.features.tobytes() == other.features.tobytes()
        assert one.metadata.equals(other.metadata)


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_a_copy_does_not_unpickle(tmp_path):
    features, locations = some_cells()
    trap = np.empty((), object)
    trap[()] = Hostile(tmp_path / "executed")
    np.savez(tmp_path / "a.npz", features=features, locations=locations, metadata=trap)
    deepprofiler.write_site(tmp_path / "b.npz", *deepprofiler.read_site(tmp_path / "a.npz"))
    assert not (tmp_path / "executed").exists()
    assert members(tmp_path / "a.npz") == members(tmp_path / "b.npz")
    pickle.loads(members(tmp_path / "b.npz")["metadata.npy"][128:])
    assert (tmp_path / "executed").exists()  # the trap works


def test_members_that_a_file_lacks_stay_absent(tmp_path):
    features, _ = some_cells()
    np.savez(tmp_path / "a.npz", features=np.asfortranarray(features.astype(np.float64)))
    site = deepprofiler.read_site(tmp_path / "a.npz")
    assert (site.locations, site.metadata) == (None, None)
    deepprofiler.write_site(tmp_path / "b.npz", *site)
    assert members(tmp_path / "a.npz") == members(tmp_path / "b.npz")  # order and dtype too


def test_no_cells(tmp_path):
    nothing = np.zeros((0, 4), np.float32), np.zeros((0, 2))
    deepprofiler.write_site(tmp_path / "P1" / "B02" / "3.npz", *nothing, KNOWN)
    (table,) = deepprofiler.sites(tmp_path, feature_names="abcd")
    assert table.features.shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros(4)}, r"a\.npz: features are float64 \(4,\); expected numbers"),
        ({"features": np.array([["x"]])}, r"a\.npz: features are <U1 \(1, 1\)"),
        ({"locations": np.zeros((2, 2))}, r"a\.npz: locations \(2, 2\) for 3 rows"),
        ({"locations": np.zeros(3)}, r"a\.npz: locations \(3,\) for 3 rows"),
        ({"locations": np.zeros((3, 2), object)}, "array of object: only numbers"),
        ({"metadata": {"Metadata_Site": 3}}, "metadata 'Metadata_Site' is int; only text"),
    ],
)
def test_wrong_content_is_refused_and_nothing_written(change, message, tmp_path):
    features, locations = some_cells()
    given = {"features": features, "locations": locations, "metadata": KNOWN} | change
    with pytest.raises(ValueError, match=message):
        deepprofiler.write_site(tmp_path / "a.npz", **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_damaged_files_are_named(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: File is not a zip file; profile this site again"):
        deepprofiler.read_site(tmp_path / "a.npz")
    file = io.BytesIO()
    np.savez(file, locations=np.zeros((3, 2)))
    (tmp_path / "a.npz").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"a\.npz: .*features"):
        deepprofiler.read_site(tmp_path / "a.npz")
