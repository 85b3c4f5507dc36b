"""From profiles or per-field predictions to rows, table and page of mechanisms, as a user runs it."""

import numpy as np
import polars as pl
import pytest
from run_scripts import REPOSITORY, call_script

from coos import workdir as work

CONFIG = f"--config={REPOSITORY / 'configs' / 'bbbc021' / 'mechanisms.py'}"


def write_study(folder, *, compounds=8, seed=0):
    """A small screen in the files of the real one: two plates of a week each, DMSO wells, two mechanisms."""
    generator = np.random.default_rng(seed)
    wells, images = [], []
    for plate in ("Week1_SIMULATED1", "Week1_SIMULATED2", "Week2_SIMULATED3", "Week2_SIMULATED4"):
        for well in range(8 + compounds):
            compound = well - 8
            name, dose = ("DMSO", 0.0) if compound < 0 else (f"c{compound}", 1.0)
            if compound >= 0 and compound // (compounds // 2) != (plate[4] == "2"):
                continue  # half of the compounds in each week
            shift = 0 if compound < 0 else 4 * np.eye(3)[compound % 2]
            where = {"Plate": plate, "Well": f"A{well:02d}"}
            values = dict(zip("xyz", generator.normal(size=3) + shift, strict=True))
            wells.append({f"Image_Metadata_{k}": v for k, v in where.items()} | values)
            treated = {"Image_Metadata_Compound": name, "Image_Metadata_Concentration": dose}
            images.append({f"Image_Metadata_{k}_DAPI": v for k, v in where.items()} | treated)
    folder.mkdir()
    pl.DataFrame(wells).write_csv(
        folder / "ljosa_jbiomolscreen_2013_per_well_mean.csv.gz", compression="gzip"
    )
    pl.DataFrame(images).write_csv(folder / "BBBC021_v1_image.csv")
    rows = [{"compound": f"c{c}", "concentration": 1.0, "moa": "AB"[c % 2]} for c in range(compounds)]
    pl.DataFrame([*rows, {"compound": "DMSO", "concentration": 0.0, "moa": "DMSO"}]).write_csv(
        folder / "moa.csv"
    )
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("screen") / "data")


def small_config(tmp_path):
    """The real config with a grid of two settings."""
    path = tmp_path / "small.py"
    path.write_text(
        "from configs.bbbc021 import mechanisms\n\n\ndef get_config():\n    config = mechanisms.get_config()\n"
        "    names = ('standardize', 'sphere 1e-2')\n"
        "    config.settings = {name: config.settings[name].to_dict() for name in names}\n    return config\n"
    )
    return f"--config={path}"


def values_of(workdir):
    return {(r["split"], r["run"], r["metric"]): r for r in work.read_rows(workdir / "results.jsonl")}


def test_profiles_give_rows_table_and_page(study, tmp_path):
    out = tmp_path / "out"
    done = call_script("mechanisms.py", small_config(tmp_path), f"--config.data={study}", f"--workdir={out}")
    assert done.returncode == 0, done.stderr
    assert "nested, chosen by NSC" in done.stdout
    rows = values_of(out)
    assert rows["NSC", "standardize", "accuracy"]["value"] == 1.0
    assert rows["NSC", "standardize", "accuracy"]["n"] == 8
    table = pl.read_csv(out / "treatments.csv")
    assert set(table["protocol"]) == {"NSC", "NSCB"}
    for (protocol, run, metric), row in rows.items():
        if metric == "accuracy":
            own = table.filter((pl.col("protocol") == protocol) & (pl.col("method") == run))
            assert own["score"].mean() == pytest.approx(row["value"])
    page = (out / "index.html").read_text()
    assert "SIMULATED DATA" in page
    assert "nested, chosen by NSCB" in page


def save_folds(folder, study, *, labels="AB"):
    """Predictions of four fields of every compound: right but for c0."""
    for c in range(8):
        label = labels.index("AB"[c % 2])
        called = 1 - label if c == 0 else label
        predictions = work.Predictions(
            np.array([f"c{c}-{i}" for i in range(4)]),
            np.full(4, label, np.int32),
            np.tile(0.8 * np.eye(2)[called] + 0.1, (4, 1)),
            {
                "compound": np.full(4, f"c{c}"),
                "concentration": np.full(4, 1.0),
                "plate": np.array(["p1", "p1", "p2", "p2"]),
                "well": np.full(4, "A01"),
            },
        )
        work.save_predictions(folder, f"c{c}", predictions, folder=".")


def test_predictions_of_folds_give_the_same_page(study, tmp_path):
    save_folds(tmp_path / "folds", study)
    arguments = [CONFIG, f"--config.data={study}", f"--predictions={tmp_path / 'folds'}", "--name=mine"]
    done = call_script("mechanisms.py", *arguments, f"--workdir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    row = values_of(tmp_path / "out")["left-out compound", "mine", "accuracy"]
    assert (row["value"], row["n"]) == (7 / 8, 8)
    table = pl.read_csv(tmp_path / "out" / "treatments.csv")
    assert table.filter(pl.col("score") < 1).select("compound", "predicted", "rank").rows() == [
        ("c0", "B", 2)
    ]
    assert (table["fields"].to_list(), table["replicates"].to_list()) == ([4] * 8, [2] * 8)
    save_folds(tmp_path / "swapped", study, labels="BA")
    arguments[2] = f"--predictions={tmp_path / 'swapped'}"
    done = call_script("mechanisms.py", *arguments, f"--workdir={tmp_path / 'no'}")
    assert "c0 1 is labelled 'B' in the predictions, but 'A' in the annotation" in done.stderr
    assert not (tmp_path / "no").exists()


def test_what_is_missing_is_said(study, tmp_path):
    done = call_script("mechanisms.py", CONFIG, f"--workdir={tmp_path / 'out'}")
    assert "say where that is, with --config.data=FOLDER" in done.stderr
    other = f"--config={REPOSITORY / 'configs' / 'bbbc021' / 'profiles.py'}"
    done = call_script("mechanisms.py", other, f"--workdir={tmp_path / 'out'}")
    assert "the config's task is not 'mechanisms'" in done.stderr


def test_real_profiles_give_the_published_accuracy(real_data, tmp_path):
    data = f"--config.data={real_data / 'bbbc021'}"
    done = call_script("mechanisms.py", small_config(tmp_path), data, f"--workdir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    rows = values_of(tmp_path / "out")
    right = {
        (protocol, run): round(
            rows[protocol, run, "accuracy"]["value"] * rows[protocol, run, "accuracy"]["n"]
        )
        for protocol in ("NSC", "NSCB")
        for run in ("standardize", "sphere 1e-2")
    }
    assert right == {
        ("NSC", "standardize"): 85,  # of 103, published as 0.82
        ("NSC", "sphere 1e-2"): 93,
        ("NSCB", "standardize"): 67,  # of 92
        ("NSCB", "sphere 1e-2"): 70,
    }
    assert rows["NSCB", "standardize", "undefined"]["value"] == 11
