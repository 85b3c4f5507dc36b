"""Plates held out in turn: what is trained on and judged in a fold, and what is refused before anything is trained."""

import pathlib
import sys

import numpy as np
import polars as pl
import pytest
from run_scripts import call_script, loaded

from coos import workdir as work
from coos.data import cells, simulate
from coos.train import single_cells
from tfds_builders.lincs import Builder

sys.path.insert(0, str(pathlib.Path(__file__).parent / "train"))
import tiny_cells


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Two plates of four compounds at two doses."""
    folder = tmp_path_factory.mktemp("plates")
    simulate.write_plates(
        folder / "release",
        mechanisms=2,
        compounds_per_mechanism=2,
        doses=(3.333333, 10.0),
        replicates=2,
        dmso=3,
        height=96,
        width=96,
    )
    builder = Builder(source=folder / "release", data_dir=folder, crop_size=24, problems="list")
    builder.download_and_prepare()
    return str(builder.data_path)


def config_of(directory, **changes):
    config = tiny_cells.get_config()
    config.data.directory = directory
    config.data.where = "Metadata_broad_sample IN ('DMSO', 'SIMULATED-0001', 'SIMULATED-0002')"
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def known_compounds(directory):
    return sorted(set(cells.read_places(directory)["Metadata_broad_sample"].to_list()))


def test_a_fold_trains_on_other_plates_and_judges_the_chosen_wells_of_its_own(directory):
    with loaded("hold_out.py") as script:
        config = config_of(directory, data__where="Metadata_dose_level = 6")
        plates = script.values(config, "Metadata_Plate")
        assert plates == ["SIMULATED0001", "SIMULATED0002"]
        fold = script.fold_config(config, "Metadata_Plate", plates[0])
        parts = {
            name: single_cells.load_set(fold, directory, name)
            for name in ("training", "validation", "held_out")
        }
    places = cells.read_places(directory)
    for name, part in parts.items():
        rows = places[np.unique(part.columns["place"])]
        assert set(rows["Metadata_dose_level"]) == {6}
        assert set(rows["Metadata_Plate"]) == ({plates[0]} if name == "held_out" else {plates[1]})
    everything = places.filter((pl.col("Metadata_Plate") == plates[0]) & (pl.col("Metadata_dose_level") == 6))
    assert len(parts["held_out"]) == everything["Metadata_cell_count"].sum()


@pytest.mark.parametrize(
    ("by", "changes", "message"),
    [
        ("Metadata_gene", {}, "--by=Metadata_gene: no such column; there are Metadata_Plate"),
        ("Metadata_Plate_Map_Name", {}, "holding out needs at least two values"),
        (
            "Metadata_Plate",
            {"data__held_out": "Metadata_Well = 'A01'"},
            "data.held_out=.*leave wells out with data.where",
        ),
        ("Metadata_broad_sample", {"data__where": ""}, "the classes are others than without|has no cells"),
    ],
)
def test_what_cannot_be_held_out_is_refused_before_training(directory, tmp_path, by, changes, message):
    with loaded("hold_out.py") as script, pytest.raises(ValueError, match=message):
        script.hold_out(config_of(directory, **changes), tmp_path, by)
    assert not list(tmp_path.iterdir())


def test_all_folds_end_in_a_page_and_again_nothing_is_trained(directory, tmp_path):
    compounds = "','".join(known_compounds(directory)[:3])
    arguments = [
        *(f"--config={tiny_cells.__file__}", f"--workdir={tmp_path}", f"--config.data.directory={directory}"),
        f"--config.data.where=Metadata_broad_sample IN ('{compounds}')",
    ]
    done = call_script("hold_out.py", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    text = (tmp_path / "index.html").read_text()
    assert "SIMULATED" in text
    for word in ("network", "intensity statistics", "cell count", "all folds"):
        assert word in text
        assert word in done.stdout
    rows = work.read_rows(tmp_path / "results.jsonl")
    found = {(r["fold"], r["split"], r["metric"]): r["value"] for r in rows}
    first = found["SIMULATED0001", "network", "well_accuracy"]
    predictions = work.load_predictions(tmp_path / "SIMULATED0001" / "predictions" / "held_out.npz")
    wells = np.unique(predictions.columns["well"])
    means = np.stack([predictions.probabilities[predictions.columns["well"] == w].mean(0) for w in wells])
    labels = [predictions.labels[predictions.columns["well"] == w][0] for w in wells]
    assert first == pytest.approx((means.argmax(1) == labels).mean())
    folder = tmp_path / "SIMULATED0001" / "checkpoints"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = call_script("hold_out.py", *arguments)
    assert again.returncode == 0, again.stderr[-2000:]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert (tmp_path / "index.html").read_text() == text
