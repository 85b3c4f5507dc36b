"""Tests of the simulated screen: its files, what its pictures show and its features hide, and who drives its assays."""

import csv
import json
import pathlib
import sqlite3

import numpy as np
import pytest
import threadpoolctl
import tifffile
from scipy import ndimage

from coos.data import chembl, chemistry, label_matrix
from coos.data.simulate import assays as simulated
from coos.data.simulate import fields, screen

COMPOUNDS, HEIGHT, WIDTH, SITES = 60, 64, 72, 2
SETTINGS = {"compounds": COMPOUNDS, "height": HEIGHT, "width": WIDTH, "views_per_well": SITES, "seed": 3}


@pytest.fixture(scope="module", autouse=True)
def _needs_rdkit_and_one_thread():
    pytest.importorskip("rdkit")
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """A small release with labels."""
    folder = tmp_path_factory.mktemp("npz")
    assert screen.write_screen(folder, **SETTINGS, write_labels=True) == (COMPOUNDS + 6) * SITES
    return folder


@pytest.fixture(scope="module")
def tiff(tmp_path_factory):
    """The same release, as TIFFs and without labels."""
    folder = tmp_path_factory.mktemp("tiff")
    screen.write_screen(folder, **SETTINGS, view_format="tiff")
    return folder


def read_table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def view_of(folder, key):
    with np.load(folder / "views" / f"{key}.npz") as file:
        return file["sample"]


def draw(seed=0, *, height=96, width=128, **effects):
    values = dict.fromkeys(fields.EFFECTS, 0.5) | {"toxicity": 0.0} | effects
    return fields.draw_view(np.random.default_rng(seed), values, height=height, width=width)


def test_index_has_a_row_and_a_picture_of_every_view(npz):
    index = read_table(npz / "sample-index.csv")
    assert list(index[0]) == [
        *("SAMPLE_KEY", "PLATE_ID", "WELL_POSITION", "SITE", "ROW_NR_LABEL_MAT", "SMILES", "INCHIKEY")
    ]
    keys = [row["SAMPLE_KEY"] for row in index]
    assert len(set(keys)) == len(keys) == (COMPOUNDS + 6) * SITES
    assert keys == [f"{row['PLATE_ID']}-{row['WELL_POSITION']}-{row['SITE']}" for row in index]
    assert {path.stem for path in (npz / "views").iterdir()} == set(keys)
    for key in keys:
        view = view_of(npz, key)
        assert view.dtype == np.uint16
        assert view.shape == (HEIGHT, WIDTH, 5)
        assert view.std(axis=(0, 1)).min() > 0
    assert sorted(path.name for path in npz.iterdir()) == [
        *(
            "assay-groups.csv",
            "cells.csv",
            "chembl.db",
            "compounds.csv",
            "labels",
            "profiles.csv",
            "sample-index.csv",
        ),
        *("simulated.json", "views"),
    ]


def test_wells_hold_one_compound_and_a_second_well_is_on_another_plate(npz):
    compound, plates = {}, {}
    for row in read_table(npz / "sample-index.csv"):
        well = (row["PLATE_ID"], row["WELL_POSITION"])
        assert compound.setdefault(well, row["INCHIKEY"]) == row["INCHIKEY"]
        assert row["WELL_POSITION"][0] in "ABCDEFGHIJKLMNOP"
        assert 1 <= int(row["WELL_POSITION"][1:]) <= 24
        plates.setdefault(row["INCHIKEY"], []).append(row["PLATE_ID"])
    assert len({plate for plate, _ in compound}) == screen.MIN_PLATES
    seen = [len(set(of)) for of in plates.values()]
    assert sorted(seen) == [1] * (COMPOUNDS - 6) + [2] * 6
    assert all(len(of) == SITES * len(set(of)) for of in plates.values())


@pytest.mark.parametrize("compounds", [60, 61, 62, 400, 1500])
def test_lay_out_puts_second_wells_on_other_plates_and_each_well_once(compounds):
    wells = screen.lay_out(compounds, seed=5)
    assert len({(well.plate, well.position) for well in wells}) == len(wells)
    pairs = {(well.compound, well.plate) for well in wells}
    assert len(pairs) == len(wells) == compounds + round(0.1 * compounds)


def test_cells_lie_in_their_views_and_their_number_is_the_counted_one(npz):
    views = {row["SAMPLE_KEY"] for row in read_table(npz / "sample-index.csv")}
    count, edge = {}, 0
    for row in read_table(npz / "cells.csv"):
        key = (row["Metadata_Plate"], row["Metadata_Well"])
        y, x = float(row["Nuclei_Location_Center_Y"]), float(row["Nuclei_Location_Center_X"])
        assert "-".join((*key, row["Metadata_Site"])) in views
        assert 0 <= y < HEIGHT
        assert 0 <= x < WIDTH
        edge += min(y, x, HEIGHT - y, WIDTH - x) < 4
        count[key] = count.get(key, 0) + 1
    assert edge > 10
    profiles = read_table(npz / "profiles.csv")
    assert len(profiles) == COMPOUNDS + 6
    for row in profiles:
        key = (row["Metadata_Plate"], row["Metadata_Well"])
        assert float(row["Image_Count_Nuclei"]) == count.get(key, 0)


def test_profiles_measure_the_pictures(npz):
    index = read_table(npz / "sample-index.csv")
    profiles = {
        (row["Metadata_Plate"], row["Metadata_Well"]): row for row in read_table(npz / "profiles.csv")
    }
    assert {len(row) for row in profiles.values()} == {2 + 104}
    first = index[0]
    well = (first["PLATE_ID"], first["WELL_POSITION"])
    views = [
        view_of(npz, row["SAMPLE_KEY"]) for row in index if (row["PLATE_ID"], row["WELL_POSITION"]) == well
    ]
    means = np.mean(views, axis=(0, 1, 2)) / 65535
    found = [float(profiles[well][f"Image_Intensity_MeanIntensity_{name}"]) for name in fields.CHANNELS]
    np.testing.assert_allclose(found, means, rtol=6 * fields.FEATURE_NOISE)
    values = np.array([[float(v) for v in list(row.values())[2:]] for row in profiles.values()])
    assert np.isfinite(values).all()


def test_both_formats_hold_the_same_pixels_and_the_seed_decides_them(npz, tiff):
    load = read_table(tiff / "load_data.csv")
    keys = [row["SAMPLE_KEY"] for row in read_table(npz / "sample-index.csv")]
    assert len(load) == len(keys)
    for row in load:
        key = f"{row['Metadata_Plate']}-{row['Metadata_Well']}-{row['Metadata_Site']}"
        files = [(row[f"PathName_Orig{name}"], row[f"FileName_Orig{name}"]) for name in fields.CHANNELS]
        channels = [tifffile.imread(tiff.joinpath(*names)) for names in files]
        assert all(channel.dtype == np.uint16 for channel in channels)
        np.testing.assert_array_equal(np.stack(channels, axis=-1), view_of(npz, key))
        keys.remove(key)
    assert not keys
    for name in ("cells.csv", "profiles.csv", "compounds.csv", "simulated.json"):
        assert (npz / name).read_bytes() == (tiff / name).read_bytes()


def test_a_view_does_not_depend_on_the_others_but_on_the_seed(npz, tmp_path):
    screen.write_screen(tmp_path / "one", **SETTINGS | {"views_per_well": 1})
    screen.write_screen(tmp_path / "other", **SETTINGS | {"views_per_well": 1, "seed": 4})
    views = sorted((tmp_path / "one" / "views").iterdir())
    assert len(views) == COMPOUNDS + 6
    for path in views:
        np.testing.assert_array_equal(view_of(tmp_path / "one", path.stem), view_of(npz, path.stem))
    other = min((tmp_path / "other" / "views").iterdir())
    assert not np.array_equal(view_of(tmp_path / "other", other.stem), view_of(npz, views[0].stem))


def test_labels_database_and_description_agree(npz):
    about = json.loads((npz / "simulated.json").read_text())
    assert about["simulated"] is True
    matrix = label_matrix.read(npz / "labels")
    dense = matrix.dense()
    compounds = read_table(npz / "compounds.csv")
    assert [row["INCHIKEY"] for row in compounds] == list(matrix.compounds)
    for row in read_table(npz / "sample-index.csv"):
        assert matrix.compounds[int(row["ROW_NR_LABEL_MAT"])] == row["INCHIKEY"]
        assert compounds[int(row["ROW_NR_LABEL_MAT"])]["SMILES"] == row["SMILES"]
    described = {assay["assay_id"]: assay for assay in about["assays"]}
    assert sorted(described) == sorted(matrix.assays)
    with sqlite3.connect(npz / "chembl.db") as connection:
        rows = connection.execute(
            "SELECT assay_id, standard_inchi_key, pchembl_value, activity_comment FROM activities "
            "JOIN compound_structures USING (molregno)"
        ).fetchall()
    connection.close()
    assert len(rows) == len(matrix.values)
    for assay, key, value, comment in rows:
        label = dense[matrix.compounds.index(key), matrix.assays.index(str(assay))]
        threshold = described[str(assay)]["threshold"]
        assert label == (1 if (comment == "active" if threshold is None else value > threshold) else -1)


def test_every_assay_passes_the_filter_at_exactly_one_threshold(npz):
    about = json.loads((npz / "simulated.json").read_text())
    matrix = label_matrix.read(npz / "labels")
    active, inactive = matrix.counts()
    assert min(active.min(), inactive.min()) >= simulated.MIN_PER_CLASS
    with sqlite3.connect(npz / "chembl.db") as connection:
        for assay in about["assays"]:
            rows = connection.execute(
                "SELECT pchembl_value FROM activities WHERE assay_id = ?", (int(assay["assay_id"]),)
            ).fetchall()
            values = np.array([np.nan if value is None else value for (value,) in rows])
            if assay["threshold"] is None:
                assert np.isnan(values).all()
                continue
            both = [t for t in simulated.THRESHOLDS if (values > t).any() and (values < t).any()]
            assert both == [assay["threshold"]]
            assert not np.isin(values, simulated.THRESHOLDS).any()
            assert ((values >= 4) & (values <= 10)).all()
    connection.close()


def test_label_matrix_from_the_database_is_the_one_that_was_meant(npz):
    table = read_table(npz / "compounds.csv")
    compounds = chemistry.identify([row["SMILES"] for row in table], [row["INCHIKEY"] for row in table])
    made, meant = chembl.extract(npz / "chembl.db", compounds).matrix, label_matrix.read(npz / "labels")
    assert made.compounds == meant.compounds
    assert made.assays == meant.assays
    np.testing.assert_array_equal(made.dense(), meant.dense())


def test_rows_stay_empty_until_a_label_matrix_is_made(tiff):
    assert not (tiff / "labels").exists()
    assert {row["ROW_NR_LABEL_MAT"] for row in read_table(tiff / "sample-index.csv")} == {""}


def test_assays_follow_their_driver_and_nothing_else():
    effects = simulated.draw_effects(2000, seed=1)
    assert np.abs(np.corrcoef(effects.T) - np.eye(len(fields.EFFECTS))).max() < 0.08
    drivers = {}
    for assay in simulated.draw_assays(effects, seed=1):
        drivers[assay.driver] = drivers.get(assay.driver, 0) + 1
        of_measured = effects[assay.measured]
        gap = of_measured[assay.active].mean(axis=0) - of_measured[~assay.active].mean(axis=0)
        for name, difference in zip(fields.EFFECTS, gap, strict=True):
            if name == assay.driver:
                assert difference * {"high": 1, "low": -1}[assay.active_when] > 0.5
            else:
                assert abs(difference) < 0.1, (assay.assay_id, name)
        assert len(assay.measured) == 1100
    assert drivers == {"toxicity": 4, simulated.NOISE: 8, **dict.fromkeys(fields.MORPHOLOGY, 2)}


def coarseness(image):
    """Share of a channel's variation that survives a blur of 2 px."""
    return ndimage.gaussian_filter(image.astype(float), 2).std() / image.std()


def glare(image):
    """How far the brightest pixels stand out."""
    return np.percentile(image, 99.8) / image.mean()


@pytest.mark.parametrize(
    ("effect", "channel", "statistic", "sign"),
    [
        ("mitochondrial_clumping", "Mito", glare, 1),
        ("golgi_dispersion", "Ph_golgi", glare, -1),
        ("reticulum_grain", "ERSyto", coarseness, 1),
        ("nucleolar_fragmentation", "ERSytoBleed", glare, -1),
    ],
)
def test_hidden_effects_change_patterns_and_not_intensities(effect, channel, statistic, sign):
    number = fields.CHANNELS.index(channel)
    low, high = (
        [draw(seed, **{effect: value}).pixels[..., number] for seed in range(8)] for value in (0.0, 1.0)
    )
    patterns = [np.array([statistic(image) for image in images]) for images in (low, high)]
    assert (sign * (patterns[1] - patterns[0]) > 0).all()
    assert np.mean(high) == pytest.approx(np.mean(low), rel=0.03)


def test_measurable_effects_and_toxicity_can_be_measured():
    views = range(8)
    sizes = [np.mean([draw(i, nuclear_size=s).nuclei.sum() for i in views]) for s in (0.0, 1.0)]
    assert sizes[1] > 1.5 * sizes[0]
    rna = fields.CHANNELS.index("ERSytoBleed")
    levels = [np.mean([draw(i, rna_level=s).pixels[..., rna].mean() for i in views]) for s in (0.0, 1.0)]
    assert levels[1] > 1.2 * levels[0]
    counts = [np.mean([len(draw(i, toxicity=s).centres) for i in views]) for s in (0.0, 1.0)]
    assert counts[1] < 0.6 * counts[0]


def test_centres_are_those_of_the_nuclei():
    view = draw(5)
    y, x = np.floor(view.centres).astype(int).T
    assert len(y) > 5
    assert view.nuclei[y, x].all()
    assert (view.cells | ~view.nuclei).mean() > 0.98
    # On average over nuclei, which are irregular, their pixels lie around the centre.
    inner = [(y, x) for y, x in view.centres if 8 < y < 87 and 8 < x < 119]
    around = [
        np.argwhere(view.nuclei[int(y) - 7 : int(y) + 9, int(x) - 7 : int(x) + 9]) - 7.5 for y, x in inner
    ]
    assert np.abs(np.mean([offsets.mean(axis=0) for offsets in around], axis=0)).max() < 0.4
    hoechst = view.pixels[..., fields.CHANNELS.index("Hoechst")].astype(float)
    assert hoechst[view.nuclei].mean() > 3 * hoechst[~view.nuclei].mean()


def test_larger_views_have_more_cells_of_the_same_size():
    small, large = ([draw(seed, height=side, width=side) for seed in range(6)] for side in (100, 200))
    numbers = [sum(len(view.centres) for view in views) for views in (small, large)]
    assert 3 < numbers[1] / numbers[0] < 5.5
    areas = [
        sum(view.nuclei.sum() for view in views) / n for views, n in zip((small, large), numbers, strict=True)
    ]
    assert areas[1] == pytest.approx(areas[0], rel=0.15)


def test_a_view_may_be_without_cells(monkeypatch):
    monkeypatch.setattr(fields, "SURVIVAL", 0.0)
    views = [draw(seed, height=64, width=64, toxicity=1.0) for seed in range(20)]
    empty = [view for view in views if not len(view.centres)]
    assert 0 < len(empty) < 20
    for view in empty:
        assert view.centres.shape == (0, 2)
        assert np.median(view.pixels, axis=(0, 1)) == pytest.approx(fields.BACKGROUND, abs=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compounds": 40}, r"40 compounds leave .* take \d+ or more"),
        ({"compounds": 9000}, "7,200"),
        ({"height": 20}, "64 or larger"),
        ({"views_per_well": 0}, "views_per_well >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"view_format": "png"}, "npz, tiff"),
    ],
)
def test_impossible_releases_are_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        screen.write_screen(tmp_path / "out", **SETTINGS | change)
    assert not (tmp_path / "out").exists()


def test_the_least_number_of_compounds_that_is_advised_is_enough():
    with pytest.raises(ValueError, match="take") as error:
        simulated.draw_assays(simulated.draw_effects(1, seed=0), seed=0)
    least = int(str(error.value).split("take ")[1].split()[0])
    for assay in simulated.draw_assays(simulated.draw_effects(least, seed=0), seed=0):
        assert min(assay.active.sum(), (~assay.active).sum()) >= simulated.MIN_PER_CLASS


def test_files_are_replaced_only_if_asked_and_simulated(tmp_path, monkeypatch):
    view = draw(height=HEIGHT, width=WIDTH)
    monkeypatch.setattr(fields, "draw_view", lambda *_, **__: view)
    small = SETTINGS | {"views_per_well": 1}
    screen.write_screen(tmp_path, **small, write_labels=True)
    with pytest.raises(FileExistsError, match=r"sample-index\.csv.*overwrite"):
        screen.write_screen(tmp_path, **small)
    (tmp_path / "notes.txt").write_text("mine")
    screen.write_screen(tmp_path, **small, view_format="tiff", overwrite=True)
    assert not (tmp_path / "views").exists()
    assert not (tmp_path / "labels").exists(), "labels of the release that is gone"
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "simulated.json").unlink()
    with pytest.raises(FileExistsError, match="not simulated"):
        screen.write_screen(tmp_path, **small, overwrite=True)
    assert (tmp_path / "profiles.csv").exists()
    file = pathlib.Path(tmp_path, "notes.txt")
    with pytest.raises(NotADirectoryError, match=r"notes\.txt"):
        screen.write_screen(file, **small)
