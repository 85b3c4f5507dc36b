"""From fields to profiles: against a slow loop over cells, whatever is interrupted, shared out or missing."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import polars as pl
import pytest
from absl import logging
from run_scripts import call_script, command, environment

from configs.coos7 import quickstart
from coos import models
from coos import workdir as work
from coos.data import plate_files
from coos.extract import fields, intensities, representations, run, windows
from coos.extract.representations import Representation
from coos.extract.windows import Window
from coos.models.pretrained import Imported
from coos.models.pretrained.scaling import Scaling
from coos.profiles import deepprofiler, files, pipeline
from coos.train import run as training
from coos.train import weights

CHANNELS = ("DNA", "ER")
SHAPE, SIZE = (40, 44), 16
HEADER = "Nuclei_Location_Center_X,Nuclei_Location_Center_Y\n"
# plate: {well: cells of each site}; P1-B02 has none at all, P1-A02 none in one site, P2 some more than a batch
PLATES = {"P1": {"A01": (5, 3), "A02": (0, 4), "B02": (0, 0)}, "P2": {"A01": (11, 2), "C03": (1, 6)}}
OPTIONS = {"batch_size": 4, "readers": 3, "problems": "list"}


def centers_of(generator, number):
    """(n, 2) x and y, the first ones at corners and edges of the field."""
    edges = np.array([[0, 0], [43.4, 39.4], [0.5, 20.5], [30.49, 0]])[:number]
    inside = generator.random((max(0, number - 4), 2)) * (SHAPE[1] - 1, SHAPE[0] - 1)
    return np.concatenate([edges, inside])


def write_release(folder, plates=PLATES, *, dtype=np.uint8):
    """A release in DeepProfiler's layout."""
    for p, (plate, wells) in enumerate(plates.items()):
        for well, sites in wells.items():
            for site, number in enumerate(sites, 1):
                row, column = "ABCDEFGH".index(well[0]) + 1, int(well[1:])
                generator = np.random.default_rng((p, row, column, site))
                for channel in range(1, len(CHANNELS) + 1):
                    name = f"r{row:02}c{column:02}f{site:02}p01-ch{channel}sk1fk1fl1.png"
                    path = folder / "inputs" / "images" / plate / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    PIL.Image.fromarray(generator.integers(0, 200 * channel % 256, SHAPE, dtype)).save(path)
                path = folder / "inputs" / "locations" / plate / f"{well}-{site}-Nuclei.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = "".join(f"{x!r},{y!r}\n" for x, y in centers_of(generator, number).tolist())
                path.write_text(HEADER + lines)
    return folder


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("plates"))


def find(folder, **options):
    return plate_files.find(folder, channels=CHANNELS, **options)


@pytest.fixture(scope="module")
def network():
    model = models.create("gapnet", num_outputs=3, width=1, fc_units=4)
    images = jnp.zeros((1, SIZE, SIZE, len(CHANNELS)))
    return model, jax.device_get(jax.jit(model.init)(jax.random.PRNGKey(0), images))


@pytest.fixture(scope="module")
def through(network):
    """A representation by the pooled features of a narrow network."""
    model, variables = network

    def features(variables, images):
        return model.apply(variables, images.astype(jnp.float32) / 255, train=False)["features"]["gap"]

    identity = {"kind": "test", "network": "gapnet", "variables": representations.digest(variables)}
    return Representation(
        window=Window(size=SIZE), features=features, variables=variables, prefix="gap", identity=identity
    )


def by_hand(through, sites, site):
    """Features of the cells of a field, one after the other, and their centers."""
    compute = jax.jit(through.features)
    image = np.stack([np.asarray(PIL.Image.open(path)) for path in sites.images[site]], axis=-1)
    frame = pl.read_csv(sites.locations[site])
    centers = frame.select("Nuclei_Location_Center_Y", "Nuclei_Location_Center_X").to_numpy()
    rows = []
    for y, x in centers:
        window = np.zeros((SIZE, SIZE, image.shape[2]), image.dtype)
        top, left = int(np.floor(y + 0.5)) - SIZE // 2, int(np.floor(x + 0.5)) - SIZE // 2
        for i in range(SIZE):
            for j in range(SIZE):
                if 0 <= top + i < image.shape[0] and 0 <= left + j < image.shape[1]:
                    window[i, j] = image[top + i, left + j]
        rows.append(np.asarray(compute(through.variables, window[None]))[0])
    return np.array(rows).reshape(len(centers), 15), centers


def contents(folder):
    """All files below a folder but notes of when and where."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "extract.json"}


@pytest.fixture(scope="module")
def finished(plates, through, tmp_path_factory):
    """The whole release with single cells, and what was noted."""
    out = tmp_path_factory.mktemp("finished")
    notes = run.extract(find(plates), through, run.Options(out=out, cells="npz", **OPTIONS))
    return out, notes


# --- what is computed


@pytest.mark.parametrize("method", ["median", "mean"])
def test_wells_equal_a_slow_loop_over_cells(method, plates, through, tmp_path):
    notes = run.extract(find(plates), through, run.Options(out=tmp_path, aggregate=method, **OPTIONS))
    wanted, counts = {}, {}
    for plate in PLATES:
        sites = find(plates, plates=[plate])
        for site in range(len(sites)):
            place = sites.place(site)[:2]
            wanted.setdefault(place, []).extend(by_hand(through, sites, site)[0])
        table = files.read(tmp_path / "wells" / f"{plate}.parquet")
        names = tuple(f"gap_{i}" for i in range(15))
        assert table.feature_names == names
        assert table.metadata.columns == ["Metadata_Plate", "Metadata_Well", "Metadata_cell_count"]
        for row, features in zip(table.metadata.iter_rows(), table.features, strict=True):
            rows = np.array(wanted[row[:2]])
            np.testing.assert_allclose(features, getattr(np, method)(rows, axis=0), rtol=1e-5, atol=1e-6)
            counts[row[:2]] = row[2]
    expected = {(p, w): sum(sites) for p, wells in PLATES.items() for w, sites in wells.items() if sum(sites)}
    assert counts == expected
    assert {name: (note["wells"], note["fields"], note["cells"]) for name, note in notes.items()} == {
        "P1": (2, 3, 12),
        "P2": (2, 4, 20),
    }
    assert notes["P1"]["wells_without_cells"] == ["B02"]
    assert notes["P1"]["problems"] == {"empty locations": 3}


def test_single_cells_as_deepprofiler_writes_them(plates, through, finished):
    out, _ = finished
    sites = find(plates)
    for site in range(len(sites)):
        plate, well, name = sites.place(site)
        path = out / "cells" / plate / well / f"{name}.npz"
        features, centers = by_hand(through, sites, site)
        assert path.exists() == bool(len(centers))
        if len(centers):
            found = deepprofiler.read_site(path)
            np.testing.assert_allclose(found.features, features, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(found.locations, centers[:, ::-1])
    table = deepprofiler.read(out / "cells")
    assert len(table) == 32
    again = pipeline.read_source({"source": {"path": str(out / "cells"), "aggregate": {"method": "median"}}})
    wells = files.read_all(sorted((out / "wells").glob("*.parquet")))
    assert again.features.tobytes() == wells.features.tobytes()
    assert again.metadata.equals(wells.metadata.select(again.metadata.columns))


def test_single_cells_as_tables(plates, through, finished, tmp_path):
    run.extract(find(plates), through, run.Options(out=tmp_path, cells="parquet", **OPTIONS))
    paths = sorted((tmp_path / "cells").glob("*/*.parquet"))
    assert [path.parent.name + path.stem for path in paths] == ["P1A01", "P1A02", "P2A01", "P2C03"]
    cells, others = files.read_all(paths), deepprofiler.read(finished[0] / "cells")
    assert cells.features.tobytes() == others.features.tobytes()
    same = list(others.metadata.columns)
    assert cells.metadata.select(same).equals(others.metadata)
    assert cells.metadata["Metadata_Cell"].to_list()[:8] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert contents(tmp_path / "wells") == contents(finished[0] / "wells")


def test_profiles_read_the_tables_as_they_read_deepprofilers_folders(finished):
    """configs/lincs/profiles.py aggregates its source, which leaves a table of wells as it is."""
    source = {"path": "{data}", "aggregate": {"method": "median"}}
    table = pipeline.read_source({"source": source, "data": str(finished[0] / "wells" / "*.parquet")})
    wells = files.read_all(sorted((finished[0] / "wells").glob("*.parquet")))
    assert table.features.tobytes() == wells.features.tobytes()
    assert table.metadata["Metadata_cell_count"].to_list() == [8, 4, 13, 7]


def test_deepprofilers_window(plates, through, tmp_path):
    """The network sees what `resample` gives, which other tests compare with DeepProfiler's own."""
    from coos.data import crops

    chosen = dataclasses.replace(through, window=Window(size=SIZE, kind="deepprofiler"))
    sites = find(plates, plates=["P2"])
    run.extract(sites, chosen, run.Options(out=tmp_path, cells="npz", **OPTIONS))
    for site in range(len(sites)):
        _, centers = by_hand(through, sites, site)
        images = crops.resample(plate_files.read_field(sites, site), centers, SIZE)
        wanted = np.asarray(through.features(through.variables, images))
        plate, well, name = sites.place(site)
        found = deepprofiler.read_site(tmp_path / "cells" / plate / well / f"{name}.npz").features
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["exact", "deepprofiler", "bytes"])
def test_windows_on_the_device_are_those_on_the_host(kind, plates):
    window = Window(size=SIZE, kind=kind.replace("bytes", "deepprofiler"), as_bytes=kind == "bytes")
    sites = find(plates, plates=["P2"])
    image = plate_files.read_field(sites, 0)
    centers = plate_files.read_centers(sites.locations[0])
    host = window.cut(image, centers)
    device = np.asarray(window.cut_from(jnp.asarray(image), jnp.asarray(window.places(centers))))
    assert host.dtype == device.dtype == window.dtype(image.dtype)
    tolerance = {"exact": 0, "deepprofiler": 0.02, "bytes": 1}[kind]
    assert np.abs(host.astype(float) - device).max() <= tolerance
    assert (host.astype(np.uint8) == device.astype(np.uint8)).mean() > 0.98


# --- the same, whatever happens


@pytest.fixture
def one_device(monkeypatch):
    device = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    monkeypatch.setattr(jax, "local_devices", lambda: device)


def test_one_device_computes_what_eight_do(one_device, plates, through, finished, tmp_path):
    run.extract(find(plates), through, run.Options(out=tmp_path, cells="npz", **OPTIONS))
    one, eight = (deepprofiler.read(folder / "cells") for folder in (tmp_path, finished[0]))
    np.testing.assert_allclose(one.features, eight.features, rtol=1e-5, atol=1e-6)
    assert one.metadata.equals(eight.metadata)


def test_features_do_not_depend_on_the_size_of_batches(plates, through, finished, tmp_path):
    run.extract(find(plates), through, run.Options(out=tmp_path, cells="npz", batch_size=9, problems="list"))
    one, other = (deepprofiler.read(folder / "cells") for folder in (tmp_path, finished[0]))
    np.testing.assert_allclose(one.features, other.features, rtol=1e-5, atol=1e-6)


def test_features_do_not_depend_on_other_fields(plates, through, finished, tmp_path):
    sites = find(plates, plates=["P2"])
    kept = sites.subset([0, 3])
    run.extract(kept, through, run.Options(out=tmp_path, cells="npz", **OPTIONS))
    found = contents(tmp_path / "cells")
    assert list(found) == ["P2/A01/1.npz", "P2/C03/2.npz"]
    assert found.items() <= contents(finished[0] / "cells").items()


def test_workers_share_out_plates(plates, through, finished, tmp_path):
    for worker in (2, 0, 1):  # the third has nothing to do
        options = run.Options(out=tmp_path, cells="npz", worker=worker, num_workers=3, **OPTIONS)
        notes = run.extract(find(plates), through, options)
        assert list(notes) == list(PLATES)[worker : worker + 1]
    assert contents(tmp_path) == contents(finished[0])


@pytest.mark.parametrize(
    ("cells", "after"), [("none", 1), ("none", 6), ("npz", 2), ("npz", 9), ("parquet", 3)]
)
def test_an_interrupted_extraction_goes_on(after, cells, plates, through, tmp_path, monkeypatch):
    whole, broken = (run.Options(out=tmp_path / n, cells=cells, **OPTIONS) for n in ("whole", "broken"))
    run.extract(find(plates), through, whole)
    write, number = work.write_atomically, iter(range(1000))

    def failing(*arguments, **options):
        if next(number) >= after + 2:  # extract.json and the note about the plate's files come first
            raise KeyboardInterrupt
        write(*arguments, **options)

    monkeypatch.setattr(work, "write_atomically", failing)
    with pytest.raises(KeyboardInterrupt):
        run.extract(find(plates), through, broken)
    monkeypatch.undo()
    computed = []
    features = dataclasses.replace(
        through, features=lambda v, x: computed.append(1) or through.features(v, x)
    )
    run.extract(find(plates), features, broken)
    assert contents(broken.out) == contents(whole.out)
    assert not (broken.out / "unfinished").exists()


def test_finished_wells_and_fields_are_not_computed_again(plates, through, tmp_path, monkeypatch):
    options = run.Options(out=tmp_path, cells="npz", **OPTIONS)
    finish = run.Output.finish
    monkeypatch.setattr(run.Output, "finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.extract(find(plates), through, options)
    monkeypatch.setattr(run.Output, "finish", finish)
    (tmp_path / "unfinished" / "P1" / "wells" / "A01.npz").unlink()  # its cells are there
    read = []
    monkeypatch.setattr(
        fields.Reader, "_image", lambda self, site: read.append(self.sites.name(site)) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        run.extract(find(plates), through, options)
    assert (tmp_path / "wells" / "P1.parquet").exists()
    assert {name[:2] for name in read} == {"P2"}


def test_a_finished_extraction_is_left_alone(plates, through, finished, monkeypatch):
    out, notes = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    monkeypatch.setattr(work, "write_atomically", lambda *_, **__: 1 / 0)
    again = run.extract(find(plates), through, run.Options(out=out, cells="npz", **OPTIONS))
    assert again == notes
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_killed_extraction_goes_on(tmp_path):
    """kill -9, in a process of its own, in the middle of writing."""
    wells = {f"{row}{column:02}": (6, 6) for row in "ABCDEFGH" for column in range(1, 7)}
    source = write_release(tmp_path / "plates", {"P1": wells, "P2": wells})
    arguments = [f"--source={source}", "--statistics", "--crop_size=16", "--channels=DNA,ER", "--cells=npz"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = subprocess.Popen(
        command("extract.py", *arguments, f"--out={broken}"), env=environment(), stderr=subprocess.DEVNULL
    )
    wells = broken / "unfinished" / "P1" / "wells"
    while process.poll() is None and not (wells.exists() and len(list(wells.iterdir())) > 3):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (broken / "wells" / "P2.parquet").exists()
    for out in (whole, broken):
        done = call_script("extract.py", *arguments, f"--out={out}")
        assert done.returncode == 0, done.stderr
    left = {name for name in contents(broken) if name.endswith(".tmp")}  # what a kill leaves of a file
    assert {name: x for name, x in contents(broken).items() if name not in left} == contents(whole)
    assert "2 plates: 96 wells, 192 fields, 1,152 cells" in done.stdout


# --- what is refused


def copied(plates, tmp_path):
    return shutil.copytree(plates, tmp_path / "copy")


def test_another_extraction_in_the_same_folder_is_refused(plates, through, finished):
    out, _ = finished
    other = dataclasses.replace(through, identity={**through.identity, "variables": "0"})
    for representation, changes, message in [
        (other, {}, r"weights: \{.*\} there, \{.*'0'.*\} now"),
        (through, {"aggregate": "mean"}, "aggregate: 'median' there, 'mean' now"),
        (through, {"cells": "none"}, "cells: 'npz' there"),
        (dataclasses.replace(through, window=Window(size=18)), {}, r"window: .*'size': 16.* there"),
    ]:
        options = run.Options(**{"out": out, "cells": "npz", **OPTIONS, **changes})
        with pytest.raises(ValueError, match=rf"extracted otherwise \({message}.*take another --out"):
            run.extract(find(plates), representation, options)


def test_changed_files_are_noticed(plates, through, tmp_path, monkeypatch):
    folder, options = copied(plates, tmp_path), run.Options(out=tmp_path / "out", cells="npz", **OPTIONS)
    finish = run.Output.finish
    monkeypatch.setattr(run.Output, "finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.extract(find(folder), through, options)
    monkeypatch.setattr(run.Output, "finish", finish)
    path = folder / "inputs" / "locations" / "P1" / "A01-1-Nuclei.csv"
    path.write_text(HEADER + "20,20\n")
    notes = run.extract(find(folder), through, options)  # nothing of before is used
    assert notes["P1"]["cells"] == 8
    assert len(deepprofiler.read_site(options.out / "cells" / "P1" / "A01" / "1.npz").features) == 1
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"P1\.parquet: the images or locations .* changed since; remove"):
        run.extract(find(folder), through, options)


def test_channels_that_mean_other_files_are_refused(plates, through, tmp_path):
    """The network's order hides that of --channels; the files behind the names tell."""
    trained, options = dataclasses.replace(through, channels=CHANNELS), run.Options(out=tmp_path, **OPTIONS)
    run.extract(find(plates), trained, options)
    run.extract(plate_files.find(plates, channels={"ch2": "ER", "ch1": "DNA"}), trained, options)  # the same
    with pytest.raises(ValueError, match=r"P1\.parquet: .*which channel is which, have changed .*--out"):
        run.extract(plate_files.find(plates, channels=("ER", "DNA")), trained, options)


def write_index(folder, sites, *, swapped=()):
    """An index of the files of some sites, their channels swapped in those of these numbers."""
    rows = [f"Metadata_Plate,Metadata_Well,Metadata_Site,{','.join(CHANNELS)}"]
    for site, paths in enumerate(sites.images):
        rows.append(",".join([*sites.place(site), *(paths[::-1] if site in swapped else paths)]))
    path = folder / "index.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_corrected_index_is_noticed(plates, through, tmp_path):
    options = run.Options(out=tmp_path / "out", **OPTIONS)
    index = write_index(tmp_path, find(plates), swapped=[6])
    run.extract(find(plates, index=index), through, options)
    before = contents(options.out)
    write_index(tmp_path, find(plates))
    with pytest.raises(ValueError, match=r"P2\.parquet: .*have changed since; remove"):
        run.extract(find(plates, index=index), through, options)
    (options.out / "wells" / "P2.parquet").unlink()
    run.extract(find(plates, index=index), through, options)
    after = contents(options.out)
    changed = {name for name in before if before[name] != after[name]}
    assert changed >= {"wells/P2.parquet", "wells/P2.json"}
    assert not any("P1" in name for name in changed)


def test_a_file_that_an_index_names_in_vain_is_a_problem(plates, through, tmp_path):
    sites = find(plates)
    gone = (f"{sites.images[9][0]}.gone.png", sites.images[9][1])
    absent = dataclasses.replace(sites, images=(*sites.images[:9], gone))
    index, options = write_index(tmp_path, absent), run.Options(out=tmp_path / "out", **OPTIONS)
    with pytest.raises(ValueError, match=r"1 missing channel: P2-C03-2"):
        run.extract(find(plates, index=index), through, dataclasses.replace(options, problems="stop"))
    notes = run.extract(find(plates, index=index), through, options)
    assert notes["P2"]["problems"] == {"missing channel": 1}
    assert notes["P2"]["cells"] == 14
    assert f"DNA ({gone[0]})" in (options.out / "problems" / "P2.csv").read_text()


def test_two_processes_at_one_plate_are_refused(plates, through, tmp_path):
    with (
        work.locked(tmp_path / "unfinished" / "P2"),
        pytest.raises(ValueError, match=r"unfinished/P2: another"),
    ):
        run.extract(find(plates), through, run.Options(out=tmp_path, **OPTIONS))


def damage(folder):
    """Every kind of problem; the wells A01 of P2 and A02 of P1 keep a field each."""
    images, locations = folder / "inputs" / "images", folder / "inputs" / "locations"
    (images / "P1" / "r01c01f01p01-ch2sk1fk1fl1.png").unlink()
    (images / "P1" / "r01c01f02p01-ch1sk1fk1fl1.png").write_bytes(b"broken")
    (locations / "P1" / "B02-1-Nuclei.csv").unlink()
    (locations / "P2" / "C03-1-Nuclei.csv").write_text("X,Y\n1,2\n")
    (locations / "P2" / "C03-2-Nuclei.csv").write_text(HEADER + "20,20\n44,20\n3,4\n-0.1,0\n")
    for channel in (1, 2):
        path = images / "P2" / f"r01c01f02p01-ch{channel}sk1fk1fl1.png"
        PIL.Image.fromarray(np.zeros((40, 45), np.uint8)).save(path)
    return folder


def test_problems_are_listed(plates, through, finished, tmp_path):
    folder = damage(copied(plates, tmp_path))
    options = run.Options(out=tmp_path / "out", cells="npz", **OPTIONS)
    notes = run.extract(find(folder), through, options)
    lists = [pl.read_csv(options.out / "problems" / f"{plate}.csv") for plate in PLATES]
    found = [tuple(row)[:4] for frame in lists for row in frame.iter_rows()]
    assert found == [
        ("P1", "A01", 1, "missing channel"),
        ("P1", "A01", 2, "unreadable image"),
        ("P1", "A02", 1, "empty locations"),
        ("P1", "B02", 1, "no locations"),
        ("P1", "B02", 2, "empty locations"),
        ("P2", "A01", 2, "image size"),
        ("P2", "C03", 1, "damaged locations"),
        ("P2", "C03", 2, "cell outside"),
    ]
    assert notes["P1"]["wells_without_cells"] == ["A01", "B02"]
    assert (notes["P1"]["cells"], notes["P2"]["cells"]) == (4, 13)
    same = ("P1/A02/2.npz", "P2/A01/1.npz")
    kept = contents(options.out / "cells")
    assert sorted(kept) == [*same, "P2/C03/2.npz"]
    assert {name: kept[name] for name in same}.items() <= contents(finished[0] / "cells").items()
    assert deepprofiler.read_site(options.out / "cells/P2/C03/2.npz").locations.tolist() == [[20, 20], [3, 4]]


def test_a_mended_plate_has_no_list_of_problems(plates, through, tmp_path):
    folder, options = copied(plates, tmp_path), run.Options(out=tmp_path / "out", **OPTIONS)
    path = folder / "inputs" / "images" / "P2" / "r03c03f02p01-ch2sk1fk1fl1.png"
    good = path.read_bytes()
    path.write_bytes(b"broken")
    run.extract(find(folder, plates=["P2"]), through, options)
    listed = options.out / "problems" / "P2.csv"
    assert "P2,C03,2,unreadable image" in listed.read_text()
    path.write_bytes(good)
    (options.out / "wells" / "P2.parquet").unlink()
    notes = run.extract(find(folder, plates=["P2"]), through, options)
    assert notes["P2"]["problems"] == {}
    assert not listed.exists()


def test_a_first_image_that_cannot_be_read_is_told_with_advice(plates, through, tmp_path):
    folder, options = copied(plates, tmp_path), run.Options(out=tmp_path / "out", **OPTIONS)
    images = folder / "inputs" / "images"
    (images / "P1" / "r01c01f01p01-ch1sk1fk1fl1.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"P1-A01-1: unreadable image: .*; mend it, .*--problems=list"):
        run.extract(find(folder), through, dataclasses.replace(options, problems="stop"))
    assert run.extract(find(folder), through, options)["P1"]["problems"]["unreadable image"] == 1
    for path in images.rglob("*ch1*"):
        path.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"P2-C03-2: .*; no field of view can be read; mend them$"):
        run.extract(find(folder), through, options)


def test_problems_stop(plates, through, tmp_path):
    folder = copied(plates, tmp_path)
    options = run.Options(out=tmp_path / "out", batch_size=4)
    with pytest.raises(ValueError, match=r"3 problems \(3 empty locations: P1-A02-1, .*--problems=list"):
        run.extract(find(folder), through, options)
    for name in ("A02-1", "B02-1", "B02-2"):
        (folder / "inputs" / "locations" / "P1" / f"{name}-Nuclei.csv").write_text(HEADER + "20,20\n")
    path = folder / "inputs" / "images" / "P2" / "r03c03f02p01-ch2sk1fk1fl1.png"
    path.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"P2-C03-2: unreadable image: ER: .*mend it, .*--problems=list"):
        run.extract(find(folder), through, options)
    assert (tmp_path / "out" / "wells" / "P1.parquet").exists()
    notes = run.extract(find(folder), through, dataclasses.replace(options, problems="list"))
    assert notes["P2"]["problems"] == {"unreadable image": 1}


def test_a_plate_without_cells_has_an_empty_table(through, tmp_path):
    folder = write_release(tmp_path / "plates", {"P1": {"A01": (0,)}, "P2": {"A01": (2,)}})
    run.extract(find(folder), through, run.Options(out=tmp_path / "out", **OPTIONS))
    table = files.read(tmp_path / "out" / "wells" / "P1.parquet")
    assert (len(table), table.num_features) == (0, 15)
    assert len(files.read_all(sorted((tmp_path / "out" / "wells").glob("*.parquet")))) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"aggregate": "sum"},
        {"cells": "csv"},
        {"problems": "hide"},
        {"batch_size": 0},
        {"worker": 2, "num_workers": 2},
        {"worker": -1},
    ],
)
def test_impossible_options_are_refused(options, tmp_path):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        run.Options(out=tmp_path, **options)


def test_fields_are_read_ahead_in_order_but_not_too_far():
    begun = []
    found = fields.read_ahead(lambda site: begun.append(site) or site, range(100), readers=2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.05)
    assert sorted(begun) == list(range(len(begun)))
    assert len(begun) <= 3 + 4
    assert list(found) == list(range(3, 100))


# --- what is computed of a cell


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_statistics_equal_numpys(dtype):
    generator = np.random.default_rng(0)
    images = (generator.random((35, 9, 8, 3)) * 250).astype(dtype)
    images[0, ..., 1] = 7  # constant
    found = intensities.statistics(images, correlations=True)
    names = intensities.names("abc", correlations=True)
    assert found.shape == (35, len(names))
    columns = dict(zip(names, found.T, strict=True))
    for image, row in zip(images, range(35), strict=True):
        for channel, plane in zip("abc", np.moveaxis(image, -1, 0).astype(np.float64), strict=True):
            wanted = [plane.mean(), plane.std(), plane.min(), plane.max(), np.median(plane)]
            wanted += [np.percentile(plane, q) for q in (5, 25, 75, 95)]
            values = [columns[f"{channel}_{name}"][row] for name in intensities.NAMES]
            np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-5)
        wanted = np.corrcoef(image[..., 0].ravel().astype(float), image[..., 2].ravel().astype(float))[0, 1]
        np.testing.assert_allclose(columns["a_c_correlation"][row], wanted, atol=1e-4)
    assert np.isnan(columns["a_b_correlation"]).tolist() == [True] + [False] * 34


@pytest.fixture
def trained(network, monkeypatch, tmp_path):
    """A run as `coos.train.run` would read it, trained on the channels in another order."""
    _, variables = network
    config = quickstart.get_config()
    config.model = {
        "name": "gapnet",
        "width": 1,
        "fc_units": 4,
        "dtype": "float32",
        "cross_device_norm": True,
    }
    config.preprocess.update({"intensity": "standardize", "crop": SIZE})
    dataset = {
        "class_names": list("abc"),
        "image_shape": [SIZE + 2, SIZE + 2, 2],
        "image_dtype": "uint8",
        "channels": ["ER", "DNA"],
        "crop_size": SIZE + 2,
        "window": "exact",
    }
    constants = {"mean": [10.0, 20.0], "std": [30.0, 50.0]}
    learner = training.make_learner(config, dataset, constants)
    record = {"dataset": dataset, "config": config.to_dict(), "best": {"step": 7}}
    monkeypatch.setattr(training, "load_best", lambda workdir: (learner, variables, record))
    monkeypatch.setattr(training, "read_learner", lambda workdir: (learner, record))
    return dataset


def test_a_run_sees_its_channels_as_it_was_trained(trained, network, plates, tmp_path):
    found = representations.of_run(tmp_path, layer="pool2")
    sites = find(plates, plates=["P2"])
    run.extract(sites, found, run.Options(out=tmp_path / "out", cells="npz", **OPTIONS))
    record = json.loads((tmp_path / "out" / "extract.json").read_text())
    assert record["config"]["channels"] == ["ER", "DNA"]
    assert record["about"]["best"] == {"step": 7}
    model, variables = network
    image = plate_files.read_field(sites, 1)[..., ::-1]
    x, y = deepprofiler.read_site(tmp_path / "out" / "cells" / "P2" / "A01" / "2.npz").locations[1]
    padded = np.pad(image, ((20, 20), (20, 20), (0, 0)))
    top, left = int(np.floor(y + 0.5)) + 20 - 9 + 1, int(np.floor(x + 0.5)) + 20 - 9 + 1  # the inner 16 of 18
    view = (padded[top : top + SIZE, left : left + SIZE] - np.array([10.0, 20.0])) / np.array([30.0, 50.0])
    wanted = model.apply(variables, jnp.asarray(view[None], jnp.float32), train=False)["features"]["pool2"]
    features = deepprofiler.read_site(tmp_path / "out" / "cells" / "P2" / "A01" / "2.npz").features
    np.testing.assert_allclose(features[1], np.asarray(wanted).mean((0, 1, 2)), rtol=1e-4, atol=1e-5)


def test_what_a_run_does_not_take_is_refused(trained, plates, tmp_path):
    sites, options = find(plates), run.Options(out=tmp_path / "out", **OPTIONS)
    with pytest.raises(ValueError, match=r"crop_size=12: .* trained on 16 pixels"):
        representations.of_run(tmp_path, layer="gap", crop_size=12)
    with pytest.raises(ValueError, match=r"layer 'pool9': the network has conv1, .*logits"):
        run.extract(sites, representations.of_run(tmp_path, layer="pool9"), options)
    trained["image_dtype"] = "uint16"
    with pytest.raises(ValueError, match="windows would be uint8, but the network was trained on uint16"):
        run.extract(sites, representations.of_run(tmp_path, layer="gap"), options)
    trained["channels"] = ["DNA", "Mito"]
    with pytest.raises(ValueError, match="trained on the channels DNA, Mito, the images have DNA, ER"):
        run.extract(sites, representations.of_run(tmp_path, layer="gap"), options)
    assert not options.out.exists()


def test_windows_and_weights_of_a_run(trained, network, tmp_path):
    found = representations.of_run(tmp_path, layer="gap")
    assert (found.window, found.prefix) == (Window(size=SIZE + 2), "gap")
    fresh, other = (representations.of_run(tmp_path, layer="gap", untrained=True, seed=s) for s in (0, 1))
    drawn = {r.identity["variables"] for r in (found, fresh, other)}
    assert len(drawn) == 3
    assert representations.of_run(tmp_path, layer="gap", untrained=True).identity == fresh.identity
    start = jax.random.split(jax.random.PRNGKey(0))[0]
    learner, _ = training.read_learner(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, fresh.variables, jax.device_get(jax.jit(learner.init)(start)))
    trained.update({"window": "deepprofiler", "form": "crops"})
    assert representations.of_run(tmp_path, layer="gap").window.as_bytes
    trained.update({"form": "fields", "image_dtype": "float32"})
    assert not representations.of_run(tmp_path, layer="gap").window.as_bytes
    half = representations.of_run(tmp_path, layer="gap", precision="bfloat16")
    assert half.identity["precision"] == "bfloat16"
    images = np.full((2, SIZE + 2, SIZE + 2, 2), 99.0, np.float32)
    one, other = (r.features(r.variables, images) for r in (found, half))
    assert other.dtype == jnp.float32
    assert 0 < np.abs(one - other).max() < 0.1


def test_every_channel_through_imported_weights(plates, tmp_path):
    options = {"width": 1, "fc_units": 4}
    model = models.create("gapnet", num_outputs=3, **options)
    variables = jax.device_get(jax.jit(model.init)(jax.random.PRNGKey(1), jnp.zeros((1, 20, 20, 3))))
    own = Scaling((1.0, 2.0, 3.0), (100.0, 110.0, 120.0))
    folder = tmp_path / "weights"
    weights.save(folder, "gapnet", Imported(model, variables, own, options, [], tmp_path / "file"))
    arguments = [
        f"--source={plates}",
        f"--weights={folder}",
        "--plates=P2",
        "--channels=DNA,ER",
        "--cells=npz",
    ]
    arguments += ["--layer=gap", "--size=20", "--crop_size=16", "--batch_size=4"]
    for scaling, offset, scale in (("tf", 127.5, 127.5), ("own", *map(np.array, own[:2]))):
        out = tmp_path / scaling
        done = call_script("extract.py", *arguments, f"--scaling={scaling}", f"--out={out}")
        assert done.returncode == 0, done.stderr
        sites = find(plates, plates=["P2"])
        site = deepprofiler.read_site(out / "cells" / "P2" / "C03" / "2.npz")
        crops = Window(size=16).cut(plate_files.read_field(sites, 3), site.locations[:, ::-1])
        for crop, features in zip(crops, site.features, strict=True):
            wanted = []
            for channel in range(2):
                grey = jax.image.resize(
                    crop[..., channel].astype(np.float32), (20, 20), "bilinear", antialias=False
                )
                grey = (grey - grey.min()) / (grey.max() - grey.min()) * 255
                colour = (np.repeat(np.asarray(grey)[..., None], 3, axis=-1) - offset) / scale
                output = model.apply(variables, jnp.asarray(colour[None], jnp.float32), train=False)
                wanted.append(np.asarray(output["features"]["gap"])[0])
            np.testing.assert_allclose(features, np.concatenate(wanted), rtol=1e-4, atol=1e-5)
    assert "1 plates: 2 wells, 4 fields, 20 cells" in done.stdout


def test_flags_that_do_not_go_together(plates, tmp_path):
    for given, message in [
        ([], "give one of --workdir, --weights and --statistics; found none"),
        (["--statistics", "--weights=x"], "found --weights and --statistics"),
        (["--statistics", "--untrained"], "--untrained: goes with --workdir"),
        (["--workdir=x", "--seed=1"], "--seed: goes with --untrained"),
        (["--workdir=x", "--scaling=own"], "--scaling: goes with --weights"),
        ([f"--workdir={tmp_path / 'none'}"], "no config.json"),
    ]:
        done = call_script(
            "extract.py", f"--source={plates}", f"--out={tmp_path / 'out'}", "--channels=DNA,ER", *given
        )
        assert done.returncode == 1
        assert f"extract.py: {message}" in done.stderr or message in done.stderr
    assert not (tmp_path / "out").exists()


def test_features_that_are_no_numbers_are_told(plates, through, tmp_path, caplog):
    def odd(variables, images):
        return through.features(variables, images).at[:, 0].set(jnp.nan)

    logging.get_absl_logger().propagate = True
    run.extract(
        find(plates, plates=["P2"]),
        dataclasses.replace(through, features=odd),
        run.Options(out=tmp_path, **OPTIONS),
    )
    assert "P2-A01: 13 of 13 cells have features that are no finite numbers" in caplog.text
    table = files.read(tmp_path / "wells" / "P2.parquet")
    assert np.isnan(table.features[:, 0]).all()
    assert np.isfinite(table.features[:, 1:]).all()


def test_impossible_windows_are_refused():
    with pytest.raises(ValueError, match="window='round': choose one of"):
        Window(kind="round")
    with pytest.raises(ValueError, match="crop_size=0"):
        Window(size=0)
    assert windows.SIZE == 128
