"""Simulated plates: the layout of a real release, the planted mechanisms, and what hides them."""

import hashlib
import json
import pathlib
import re

import numpy as np
import PIL.Image
import polars as pl
import pytest
import tifffile
from run_scripts import call_script

from coos.data.simulate import fields, plate_layout, plates, write_plates

SMALL = {"mechanisms": 2, "compounds_per_mechanism": 1, "doses": (1.111111, 10.0), "replicates": 3, "dmso": 2}
SMALL |= {"height": 72, "width": 80, "sites_per_well": 2, "seed": 3}
WELLS = 6 * 2 + 2  # 2 compounds of known mechanisms, 2 alone, 2 unknown, at two doses; DMSO
NAME = re.compile(r"r(\d\d)c(\d\d)f(\d\d)p01-ch([1-5])sk1fk1fl1\.png")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A small release, and the number of cells that it was said to have."""
    folder = tmp_path_factory.mktemp("plates") / "release"
    return folder, write_plates(folder, **SMALL)


def digests(folder):
    """Digest of every file by its path."""
    paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def tables(folder):
    """Barcodes, all plate maps, and mechanisms, as polars reads them without any help."""
    metadata = folder / "metadata"
    maps = pl.concat(pl.read_csv(p, separator="\t") for p in sorted((metadata / "platemap").glob("*.txt")))
    barcodes = pl.read_csv(metadata / "barcode_platemap.csv")
    return barcodes, maps, pl.read_csv(metadata / plate_layout.MOAS, separator="\t")


def draw(compound=None, dose=None, *, number=100, plate=0, batch=1, site=1, size=192, seed=0, **options):
    """One field of one well."""
    place = plate_layout.Plate(plate, f"SIMULATED{plate + 1:04}", "SIMULATED-MAP-1", batch, ())
    well = plate_layout.Well(number, compound, dose)
    return plates.draw_field(place, well, site, height=size, width=size, seed=seed, **options)


def test_files_are_named_and_counted_as_in_a_real_release(release):
    folder, count = release
    barcodes, maps, _ = tables(folder)
    names = ["SIMULATED0001", "SIMULATED0002", "SIMULATED0003"]
    assert barcodes["Assay_Plate_Barcode"].to_list() == names
    assert sorted(path.name for path in (folder / "inputs" / "images").iterdir()) == names
    wells = set(maps["well_position"])
    assert len(maps) == len(wells) == WELLS
    cells = 0
    for plate in names:
        found = set()
        for path in (folder / "inputs" / "images" / plate).iterdir():
            row, column, site, channel = map(int, NAME.fullmatch(path.name).groups())
            assert 1 <= row <= 16
            assert 1 <= column <= 24
            found.add((f"{chr(64 + row)}{column:02}", site, channel))
            with PIL.Image.open(path) as image:
                assert (image.mode, image.size) == ("L", (80, 72))
        assert found == {
            (well, site, channel) for well in wells for site in (1, 2) for channel in range(1, 6)
        }
        locations = sorted(path.name for path in (folder / "inputs" / "locations" / plate).iterdir())
        assert locations == sorted(f"{well}-{site}-Nuclei.csv" for well in wells for site in (1, 2))
        for name in locations:
            frame = pl.read_csv(folder / "inputs" / "locations" / plate / name)
            assert frame.columns == ["Nuclei_Location_Center_X", "Nuclei_Location_Center_Y"]
            x, y = (frame[column].cast(pl.Float64).to_numpy() for column in frame.columns)
            assert ((x >= 0) & (x < 80) & (y >= 0) & (y < 72)).all()
            cells += len(frame)
    assert cells == count


def test_wells_can_be_joined_with_their_treatments(release):
    folder, _ = release
    barcodes, maps, moas = tables(folder)
    about = json.loads((folder / "simulated.json").read_text())
    assert about["simulated"] is True
    assert about["channels"] == ["DNA", "ER", "RNA", "AGP", "Mito"]
    joined = barcodes.join(maps, left_on="Plate_Map_Name", right_on="plate_map_name").join(
        moas, on="broad_sample", how="left"
    )
    assert len(joined) == 3 * WELLS
    controls = joined.filter(pl.col("broad_sample").is_null())
    assert len(controls) == 3 * 2
    assert controls["mmoles_per_liter"].is_null().all()
    assert set(joined["solvent"]) == {"DMSO"}
    assert controls["moa"].is_null().all()
    treated = joined.filter(pl.col("broad_sample").is_not_null())
    assert sorted(set(treated["mmoles_per_liter"])) == [1.111111, 10.0]
    for compound, moa in treated.select("broad_sample", "moa").unique().iter_rows():
        assert about["compounds"][compound]["moa"] == moa
    assert len(moas.filter(pl.col("moa").is_null())) == plate_layout.UNKNOWN
    assert len(moas["moa"].drop_nulls().unique()) == 2 + plate_layout.ALONE
    assert joined.filter(pl.col("Batch_Number") == 1)["Assay_Plate_Barcode"].unique().to_list() == [
        "SIMULATED0001"
    ]


def test_tables_have_the_columns_of_the_real_ones(release, real_data):
    folder, _ = release
    real = real_data / "lincs_metadata"
    for ours, separator in (("barcode_platemap.csv", ","), (plate_layout.MOAS, "\t")):
        there = pl.read_csv(real / ours, separator=separator, infer_schema=False).columns
        assert pl.read_csv(folder / "metadata" / ours, separator=separator).columns == there
    there = pl.read_csv(next((real / "platemap").glob("*.txt")), separator="\t", infer_schema=False).columns
    assert tables(folder)[1].columns == there
    location = next((real_data / "lincs_example" / "inputs" / "locations").rglob("*.csv"))
    ours = next((folder / "inputs" / "locations").rglob("*.csv"))
    assert ours.read_text().splitlines()[0] == location.read_text().splitlines()[0]


def test_pixels_have_the_range_of_real_ones(real_data):
    paths = sorted((real_data / "lincs_example" / "inputs" / "images").rglob("r10c18f01*.png"))
    real = np.array([np.asarray(PIL.Image.open(path)).mean() for path in paths]).reshape(-1, 5)
    ours = np.array([draw(plate=plate, batch=plate)[0].mean(axis=(0, 1)) for plate in range(6)])
    ratio = ours.mean(axis=0) / real.mean(axis=0)
    assert (ratio > 0.5).all()
    assert (ratio < 2).all()


def test_cells_lie_on_bright_dna(release):
    """As the files say it: a slow walk over all location files and their DNA images."""
    folder, _ = release
    inside, whole = [], []
    for path in sorted((folder / "inputs" / "locations" / "SIMULATED0002").iterdir()):
        well, site = path.name.split("-")[:2]
        name = f"r{ord(well[0]) - 64:02}c{well[1:]}f{int(site):02}p01-ch1sk1fk1fl1.png"
        image = np.asarray(PIL.Image.open(folder / "inputs" / "images" / "SIMULATED0002" / name)).astype(
            float
        )
        places = [tuple(map(float, line.split(","))) for line in path.read_text().splitlines()[1:]]
        for x, y in places:
            inside.append(image[min(int(y + 0.5), 71), min(int(x + 0.5), 79)])
        assert [y for _, y in places] == sorted(y for _, y in places)
        whole.append(image.mean())
    assert len(inside) > 60
    assert np.median(inside) > 4 * np.mean(whole)
    assert np.quantile(inside, 0.05) > 2 * np.mean(whole)


def test_centers_are_off_the_grid():
    centers = draw()[1]
    assert np.abs(centers % 1 - 0.5).max() > 0.4
    assert len(np.unique(np.round(centers % 1, 3))) > len(centers)


def test_cells_reach_to_the_border_and_overlap():
    centers = [draw(site=site)[1] for site in range(1, 9)]
    gaps = [np.sort(np.hypot(*(c[:, None] - c[None]).transpose(2, 0, 1)), axis=1)[:, 1] for c in centers]
    assert np.mean(np.concatenate(gaps) < fields.CELL_RADIUS * 2) > 0.4  # of the cells touch another one
    every = np.concatenate(centers)
    assert (np.minimum(every, 191 - every).min(axis=1) < 10).mean() > 0.1


def test_same_seed_same_bytes_and_another_seed_others(release, tmp_path):
    folder, count = release
    assert write_plates(tmp_path / "again", **SMALL) == count
    assert digests(tmp_path / "again") == digests(folder)
    write_plates(tmp_path / "other", **SMALL | {"seed": 4})
    images = [{d for p, d in digests(f).items() if p.endswith(".png")} for f in (folder, tmp_path / "other")]
    assert not images[0] & images[1]


def test_a_field_depends_on_seed_plate_well_and_site_only(release):
    folder, _ = release
    layout = plate_layout.lay_out(
        mechanisms=2,
        compounds_per_mechanism=1,
        doses=(1.111111, 10.0),
        replicates=3,
        maps=1,
        batches=2,
        even_batches=False,
        dmso=2,
        wells=None,
        seed=3,
    )
    plate = layout.plates[2]
    well = plate.wells[5]
    pixels, _ = plates.draw_field(plate, well, 2, height=72, width=80, seed=3)
    for channel in range(5):
        name = f"r{well.number // 24 + 1:02}c{well.number % 24 + 1:02}f02p01-ch{channel + 1}sk1fk1fl1.png"
        written = np.asarray(PIL.Image.open(folder / "inputs" / "images" / plate.name / name))
        np.testing.assert_array_equal(written, pixels[..., channel])
    seen = [draw(size=64, **place)[0].tobytes() for place in ({}, {"plate": 1}, {"number": 101}, {"site": 2})]
    assert len(set(seen)) == 4


def test_sixteen_bits_and_tiff(tmp_path):
    few = {
        "mechanisms": 1,
        "compounds_per_mechanism": 1,
        "doses": (10.0,),
        "replicates": 1,
        "batches": 1,
        "dmso": 1,
    }
    few |= {"height": 64, "width": 64}
    write_plates(tmp_path / "8", **few)
    write_plates(tmp_path / "16", **few, image_format="tiff", dtype="uint16")
    pngs = sorted((tmp_path / "8" / "inputs" / "images" / "SIMULATED0001").iterdir())
    tiffs = sorted((tmp_path / "16" / "inputs" / "images" / "SIMULATED0001").iterdir())
    assert [path.stem for path in tiffs] == [path.stem for path in pngs]
    assert len(tiffs) == 6 * 5
    for png, tiff in zip(pngs, tiffs, strict=True):
        deep, flat = tifffile.imread(tiff), np.asarray(PIL.Image.open(png))
        assert (deep.dtype, tiff.suffix) == (np.uint16, ".tif")
        np.testing.assert_allclose(deep / 257, flat, atol=0.5 + 1e-9)


def test_effects_grow_with_dose_and_saturate():
    layout = plate_layout.draw_mechanisms(8, seed=0)
    compound = plate_layout.Compound("SIMULATED-0001", "m", 0.5 * layout["simulated mechanism 4"], 1.0)
    untreated = plate_layout.effects(None, None)
    doses = (0.041152, 0.123457, 0.37037, 1.111111, 3.333333, 10.0)
    moved = [np.linalg.norm(plate_layout.effects(compound, dose) - untreated) for dose in doses]
    assert (np.diff(moved) > 0).all()
    most = np.linalg.norm(compound.change)
    assert moved[0] < 0.05 * most
    assert 0.9 * most < moved[-1] < most
    np.testing.assert_allclose(plate_layout.effects(compound, 1.0) - untreated, compound.change / 2)


def test_pictures_change_with_dose():
    """Reticulum: the coarser, the less do neighbouring pixels of its channel differ."""
    change = np.array([0, 0, 0, 0.5, 0, 0, 0])
    compound = plate_layout.Compound("SIMULATED-0001", "m", change, 1.0)
    assert fields.EFFECTS[3] == "reticulum_grain"

    def roughness(dose):
        found = []
        for site in range(1, 5):
            image = draw(compound, dose, site=site)[0][..., 1].astype(float)
            found.append(np.abs(np.diff(image, axis=0)).mean() / image.mean())
        return np.mean(found)

    values = [roughness(dose) for dose in (0.041152, 0.37037, 10.0)]
    assert values[0] > values[1] > values[2]
    assert values[0] > 1.05 * values[2]


def test_toxic_compounds_leave_fewer_cells():
    compound = plate_layout.Compound("SIMULATED-0001", "m", np.array([0.9, 0, 0, 0, 0, 0, 0]), 0.1)
    cells = [
        sum(len(draw(*what, site=site)[1]) for site in range(1, 9))
        for what in ((None, None), (compound, 10.0))
    ]
    assert cells[1] < 0.7 * cells[0]


def test_mechanisms_are_hidden_from_intensities_and_unlike_each_other():
    layout = plate_layout.lay_out(
        mechanisms=8,
        compounds_per_mechanism=3,
        doses=(10.0,),
        replicates=5,
        maps=2,
        batches=3,
        even_batches=False,
        dmso=4,
        wells=None,
        seed=0,
    )
    hidden = np.array(list(layout.mechanisms.values()))[:, 1:5]
    hidden /= np.linalg.norm(hidden, axis=1, keepdims=True)
    assert (hidden @ hidden.T - np.eye(8)).max() < 0.8
    shared = [c for c in layout.compounds if c.moa in layout.mechanisms]
    assert len(shared) == 24
    assert len(layout.compounds) == 28
    for compound in shared:  # nearest to its own mechanism
        away = [np.linalg.norm(compound.change - change) for change in layout.mechanisms.values()]
        assert list(layout.mechanisms)[int(np.argmin(away))] == compound.moa
    toxic = [name for name, change in layout.mechanisms.items() if change[0] > 0]
    assert toxic == ["simulated mechanism 4", "simulated mechanism 8"]
    where = {
        c.name: plate.map_name for plate in layout.plates for c in (w.compound for w in plate.wells) if c
    }
    for name in layout.mechanisms:  # compounds of a mechanism lie on both maps
        assert len({where[c.name] for c in shared if c.moa == name}) == 2


@pytest.mark.parametrize(
    ("maps", "batches", "even", "expected"),
    [
        (1, 2, False, [1, 2, 2, 2]),
        (2, 3, False, [1, 2, 2, 2, 1, 3, 3, 3]),
        (2, 2, False, [1, 2, 2, 2, 1, 2, 2, 2]),
        (1, 2, True, [1, 2, 1, 2]),
        (2, 4, True, [1, 2, 3, 4, 1, 2, 3, 4]),
    ],
)
def test_replicates_lie_in_batches(maps, batches, even, expected):
    options = {
        "mechanisms": 2,
        "compounds_per_mechanism": 2,
        "doses": (10.0,),
        "dmso": 2,
        "wells": None,
        "seed": 0,
    }
    layout = plate_layout.lay_out(maps=maps, batches=batches, even_batches=even, replicates=4, **options)
    assert [plate.batch for plate in layout.plates] == expected
    for plate in layout.plates:  # replicates share positions
        assert plate.wells == layout.plates[plate.number // 4 * 4].wells


def test_a_full_plate_has_controls_all_over_it_and_repeats_treatments():
    options = {
        "mechanisms": 8,
        "compounds_per_mechanism": 3,
        "doses": (3.333333, 10.0),
        "replicates": 1,
        "maps": 1,
    }
    layout = plate_layout.lay_out(batches=1, even_batches=False, dmso=24, wells=384, seed=0, **options)
    wells = layout.plates[0].wells
    assert [well.number for well in wells] == list(range(384))
    assert (wells[0].name, wells[-1].name) == ("A01", "P24")
    controls = np.array([well.number for well in wells if well.compound is None])
    np.testing.assert_array_equal(controls // 16, np.arange(24))
    copies = [
        sum(w.compound is c and w.dose == d for w in wells)
        for c in layout.compounds
        for d in (3.333333, 10.0)
    ]
    assert set(copies) == {6, 7}
    assert sum(copies) == 360


def test_batches_shift_gain_and_pictures():
    def log_gain(batch, plate):
        place = plate_layout.Plate(plate, "", "", batch, ())
        return np.log(plates.nuisance(place, plate_layout.Well(100, None, None), 1, seed=0).gain)

    gains = np.array([[log_gain(batch, plate) for plate in range(3)] for batch in range(1, 60)])
    between = gains.mean(axis=1).std()
    within = gains.std(axis=1).mean()
    assert between == pytest.approx(plates.SPREADS["batch"].gain, rel=0.2)
    assert between > 2 * within
    # The same in pictures of untreated cells: batches differ by more than plates of one batch do.
    pictures = [
        [
            np.log(draw(batch=b, plate=p, number=n)[0].mean((0, 1)))
            for p in (2 * b, 2 * b + 1)
            for n in (90, 91)
        ]
        for b in range(1, 7)
    ]
    means = np.array(pictures)
    assert means.mean(axis=1).std(axis=0).mean() > means.std(axis=1).mean()


def test_positions_matter_alike_on_all_plates():
    """What a position does is not drawn again for a plate: edge and slopes alone."""
    corner, middle, opposite = (
        plates._position(plate_layout.Well(n, None, None), seed=0) for n in (0, 204, 383)
    )
    assert np.abs(corner.gain).max() > 2 * np.abs(middle.gain).max()
    # Slopes cancel between opposite corners, and twice the edge stays.
    edge = plates._position(plate_layout.Well(11, None, None), seed=0).gain
    far_edge = plates._position(plate_layout.Well(383 - 11, None, None), seed=0).gain
    np.testing.assert_allclose(edge + far_edge, corner.gain + opposite.gain)


def test_stain_differs_between_patches_without_steps():
    field = np.log(plates._patches(np.random.default_rng(0), 240, 481, 0.4))
    step = plates.STAIN_PATCH
    nodes = field[::step, ::step]
    assert nodes.std() == pytest.approx(0.4, rel=0.15)
    assert abs(nodes.mean()) < 0.06
    for row in (0, 24, 48):  # linear along a row of nodes
        expected = np.interp(np.arange(481), np.arange(0, 481, step), field[row, ::step])
        np.testing.assert_allclose(field[row], expected, atol=1e-5)


def test_only_simulated_plates_are_replaced(release, tmp_path):
    folder = tmp_path / "release"
    few = {
        "mechanisms": 1,
        "compounds_per_mechanism": 1,
        "doses": (10.0,),
        "replicates": 1,
        "batches": 1,
        "dmso": 1,
    }
    few |= {"height": 64, "width": 64}
    write_plates(folder, **few)
    before = digests(folder)
    with pytest.raises(FileExistsError, match="already holds inputs, metadata, simulated"):
        write_plates(folder, **few)
    (folder / "inputs" / "images" / "SIMULATED0009").mkdir()
    write_plates(folder, **few, overwrite=True)
    assert digests(folder) == before
    assert not (folder / "inputs" / "images" / "SIMULATED0009").exists()
    foreign = folder / "inputs" / "images" / "SQ00015198"
    foreign.mkdir()
    with pytest.raises(FileExistsError, match="SQ00015198 is not simulated"):
        write_plates(folder, **few, overwrite=True)
    foreign.rmdir()
    (folder / "simulated.json").write_text('{"simulated": true}')
    with pytest.raises(FileExistsError, match="not of simulated plates"):
        write_plates(folder, **few, overwrite=True)
    (folder / "simulated.json").unlink()
    with pytest.raises(FileExistsError, match="not of simulated plates"):
        write_plates(folder, **few, overwrite=True)
    assert len(digests(folder)) == len(before) - 1
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        write_plates(tmp_path / "file", **few)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 63}, "63 x 80"),
        ({"sites_per_well": 0}, "sites_per_well is 0"),
        ({"image_format": "jpeg"}, "image_format 'jpeg'"),
        ({"dtype": "float32"}, "dtype 'float32'"),
        ({"mechanisms": 0}, "mechanisms is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"doses": ()}, "doses are"),
        ({"doses": (10.0, 1.0)}, "must be above 0 and rise"),
        ({"doses": (0.0, 1.0)}, "must be above 0 and rise"),
        ({"wells": 385}, "wells is 385"),
        ({"wells": 13}, "must be 14 to 384"),
        ({"mechanisms": 200}, "fewer treatments or more maps"),
        ({"batches": 3}, "there can be 2 to 2"),
        ({"batches": 1}, "there can be 2 to 2"),
        ({"batches": 4, "even_batches": True}, "there can be 1 to 3"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_written(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_plates(tmp_path / "out", **SMALL | options)
    assert not (tmp_path / "out").exists()


def test_from_the_command_line(release, tmp_path):
    folder, count = release
    arguments = [
        "--mechanisms=2",
        "--compounds_per_mechanism=1",
        "--doses=1.111111,10",
        "--replicates=3",
        "--dmso=2",
    ]
    arguments += ["--height=72", "--width=80", "--sites_per_well=2", "--seed=3"]
    result = call_script("simulate.py", "lincs", f"--out={tmp_path / 'out'}", *arguments)
    assert f"{count:,} cells" in result.stdout
    assert digests(tmp_path / "out") == digests(folder)
    refused = call_script("simulate.py", "lincs", f"--out={tmp_path / 'bad'}", "--doses=ten")
    assert refused.returncode == 1
    assert "--doses has 'ten'" in refused.stderr
    assert not (tmp_path / "bad").exists()
