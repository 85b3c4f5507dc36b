"""Pipelines as data, and the simulated screen from cells to consensus and to the report."""

import csv
import importlib
import json

import anndata
import numpy as np
import polars as pl
import pytest
import scipy.linalg
from run_scripts import REPOSITORY, call_script

from coos.data import simulate
from coos.evaluators import retrieval as evaluator
from coos.profiles import files, pipeline
from coos.profiles.table import Table

LINCS = REPOSITORY / "configs" / "lincs" / "profiles.py"


def small(**columns):
    metadata = pl.DataFrame({"Metadata_Plate": ["p", "p", "q", "q"], **columns})
    return Table(metadata, np.arange(12.0).reshape(4, 3) ** 2, ("a", "b", "c"))


def test_steps_run_in_the_order_of_the_config_and_save_what_they_are_told():
    config = {
        "steps": ("first", "standardize", "consensus"),
        "first": {"kind": "keep_rows", "query": "Metadata_row < 3"},
        "standardize": {"by": "Metadata_Plate", "save": "level4"},
        "consensus": {"by": "Metadata_Plate", "method": "mean"},
    }
    saved = {}
    table = small(Metadata_row=[0, 1, 2, 3])
    found = pipeline.run(table, pipeline.build(config), save=lambda name, t: saved.update({name: t}))
    assert list(saved) == ["level4", "profiles"]
    np.testing.assert_allclose(saved["level4"].features, [[-1] * 3, [1] * 3, [0] * 3])
    np.testing.assert_allclose(found.features, np.zeros((2, 3)), atol=1e-7)
    assert saved["profiles"] is found


BAD = {
    "unknown kind": ({"steps": ("whiten",)}, "step 'whiten': no kind 'whiten'; available: aggregate, annotate"),
    "unknown option": (
        {"steps": ("spherize",), "spherize": {"eps": 1}}, "Spherize has no option 'eps'; it has refer"),
    "missing option": ({"steps": ("keep_rows",)}, "step 'keep_rows': .*query"),
    "bad value": ({"steps": ("consensus",), "consensus": {"method": "mode"}}, "step 'consensus': method='mode'"),
    "twice": ({"steps": ("standardize", "standardize")}, "every step needs a name of its own"),
    "saved twice": (
        {"steps": ("robustize", "standardize"), "robustize": {"save": "x"}, "standardize": {"save": "x"}},
        "saved under one name"),
    "no steps": ({"steps": ()}, "names no steps"),
    "a path as a name": (
        {"steps": ("standardize",), "standardize": {"save": "../x"}}, "give a plain name"),
    "no folder": (
        {"steps": ("annotate",), "annotate": {"path": "{maps}/a.csv", "on": "x"}}, r"--config\.maps=FOLDER"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_a_config_that_cannot_be_built_says_why(name):
    config, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        pipeline.build(config)


def test_a_source_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(ValueError, match=r"config\.source needs a path"):
        pipeline.read_source({"steps": ()})
    with pytest.raises(
        ValueError, match=r"config\.source needs a path and may have .*it has \['file', 'path'\]"
    ):
        pipeline.read_source({"source": {"path": "x", "file": "y"}})
    with pytest.raises(ValueError, match="no such file or folder"):
        pipeline.read_source({"source": {"path": str(tmp_path / "*.csv")}})
    with pytest.raises(ValueError, match="Aggregate has no option 'mean'"):
        pipeline.read_source({"source": {"path": str(tmp_path), "aggregate": {"mean": 1}}})
    (tmp_path / "empty.csv").write_text("Metadata_a,f\n")
    with pytest.raises(ValueError, match="the source has no rows"):
        pipeline.run(files.read(tmp_path / "empty.csv"), [])


def write_extracted(folder, *, aggregate="median"):
    """A folder as experiments/extract.py leaves it: two wells of each plate, with counts."""
    for number, plate in enumerate("pq"):
        metadata = {
            "Metadata_Plate": [plate] * 2,
            "Metadata_Well": ["A01", "B02"],
            "Metadata_cell_count": [7, number],
        }
        features = np.arange(4.0).reshape(2, 2) + 10 * number
        table = Table(pl.DataFrame(metadata), features, ("pool5_0", "pool5_1"))
        files.write_parquet(table, folder / "wells" / f"{plate}.parquet")
    (folder / "wells" / f"{plate}.json").write_text("{}")
    (folder / "unfinished" / "q").mkdir(parents=True)  # killed between the table and its parts' removal
    (folder / "extract.json").write_text(json.dumps({"config": {"aggregate": aggregate}}))
    return {"source": {"path": "{data}", "aggregate": {"method": "median"}}, "data": str(folder)}


def test_wells_that_were_extracted_are_read_as_they_are(tmp_path):
    config = write_extracted(tmp_path / "features [1]")  # brackets are not a pattern
    table = pipeline.read_source(config)
    assert table.metadata["Metadata_Plate"].to_list() == ["p", "p", "q", "q"]
    assert table.metadata["Metadata_cell_count"].to_list() == [7, 0, 7, 1]
    np.testing.assert_array_equal(table.features, [[0, 1], [2, 3], [10, 11], [12, 13]])
    config["source"].pop("aggregate")
    assert pipeline.read_source(config).metadata.equals(table.metadata)
    (tmp_path / "features [1]" / "extract.json").unlink()
    assert len(pipeline.read_source(config)) == 4


def test_wells_that_are_not_what_the_config_wants_are_refused(tmp_path):
    config = write_extracted(tmp_path / "one")
    (tmp_path / "one" / "wells" / "q.parquet").unlink()
    with pytest.raises(ValueError, match=r"one: 1 plates are not finished: q; 1 are; run extract\.py again"):
        pipeline.read_source(config)
    (tmp_path / "one" / "wells" / "p.parquet").unlink()
    with pytest.raises(ValueError, match="1 plates are not finished: q; 0 are"):
        pipeline.read_source(config)
    config = write_extracted(tmp_path / "two", aggregate="mean")
    with pytest.raises(ValueError, match=r"wells are the mean of their cells, .*method is 'median'; extract"):
        pipeline.read_source(config)
    config["source"]["aggregate"] = {"method": "mean", "by": "Metadata_Plate"}
    with pytest.raises(ValueError, match=r"has wells, but .*by is 'Metadata_Plate'"):
        pipeline.read_source(config)
    config["source"] = {"path": "{data}", "feature_names": ("a", "b")}
    with pytest.raises(ValueError, match="feature_names are for DeepProfiler folders"):
        pipeline.read_source(config)


def test_a_step_that_leaves_no_row_stops_the_pipeline(tmp_path):
    (tmp_path / "maps.csv").write_text("Plate,moa\nanother,x\n")
    config = {"path": str(tmp_path / "maps.csv"), "on": {"Metadata_Plate": "Plate"}, "unmatched": "drop"}
    with pytest.raises(ValueError, match="step 'annotate': no row is left"):
        pipeline.run(small(), pipeline.build({"steps": ("annotate",), "annotate": config}))


def test_an_error_names_its_step():
    steps = pipeline.build({"steps": ("rows",), "rows": {"kind": "keep_rows", "query": "Metadata_nope = 1"}})
    with pytest.raises(ValueError, match="step 'rows': query 'Metadata_nope = 1'"):
        pipeline.run(small(), steps)


def test_every_row_of_the_thesis_tables_is_a_pipeline():
    module = importlib.import_module("configs.lincs.profiles")
    assert len(module.PIPELINES) == 3 + 10 + 10  # tables 4.2, 4.3 and 4.4
    for name in module.PIPELINES:
        config = module.get_config(name)
        config.metadata = config.data = "somewhere"
        steps = pipeline.build(config.to_dict())
        assert "consensus" in [named.name for named in steps]
        assert json.dumps(config.to_dict())
        evaluator.Protocol(label=config.retrieval.label, unlabelled=config.retrieval.unlabelled)
    spherize = {named.name: named.step for named in steps}["spherize"]
    assert (spherize.method, spherize.epsilon, spherize.regularization, spherize.ddof) == (
        "ZCA-cor",
        1e-6,
        "clip",
        0,
    )
    with pytest.raises(ValueError, match="no pipeline 'nothing'; available: cellprofiler"):
        module.get_config("nothing")


def read(out, name):
    with open(out / "tables" / f"{name}.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screen")
    assert simulate.write_cell_features(folder) > 5000
    return folder


def make_profiles(screen, workdir, row, *arguments):
    done = call_script(
        "profile.py",
        f"--config={LINCS}:{row}",
        f"--config.data={screen / 'features'}",
        f"--config.metadata={screen / 'metadata'}",
        f"--workdir={workdir}",
        *arguments,
    )
    return done


def slow_profiles(screen):
    """The thesis' pipeline by hand: median per well, sphering of all wells on DMSO, median per compound."""
    metadata = screen / "metadata"
    barcodes = pl.read_csv(metadata / "barcode_platemap.csv")
    maps = pl.concat([pl.read_csv(p, separator="\t") for p in sorted((metadata / "platemap").glob("*.txt"))])
    moa = pl.read_csv(metadata / "repurposing_info_external_moa_map_resolved.tsv", separator="\t")
    moa_of = dict(zip(moa["broad_sample"], moa["moa"], strict=True))
    shared = {name for name, count in moa["moa"].value_counts().iter_rows() if name and count > 1}
    wells, names = [], []
    for plate, map_name, _ in barcodes.iter_rows():
        for row in maps.filter(pl.col("plate_map_name") == map_name).iter_rows(named=True):
            compound, dose = row["broad_sample"] or "DMSO", row["mmoles_per_liter"]
            if compound != "DMSO" and (dose < 6.665 or moa_of[compound] not in shared):
                continue
            sites = sorted((screen / "features" / plate / row["well_position"]).glob("*.npz"))
            wells.append(np.median(np.concatenate([np.load(s)["features"] for s in sites]), axis=0))
            names.append(compound)
    x, names = np.array(wells, np.float64), np.array(names)
    control = x[names == "DMSO"]
    std = control.std(0)
    correlation = np.cov(control.T, ddof=0) / np.outer(std, std)
    values, vectors = scipy.linalg.eigh(correlation)
    whitening = vectors @ np.diag(np.clip(values, 1e-6, None) ** -0.5) @ vectors.T
    z = ((x - control.mean(0)) / std) @ whitening
    return {name: np.median(z[names == name], axis=0) for name in dict.fromkeys(names)}


def test_the_simulated_screen_from_cells_to_the_report(screen, tmp_path):
    done = make_profiles(screen, tmp_path / "sphered", "trained/spherize")
    assert done.returncode == 0, done.stderr
    table = files.read(tmp_path / "sphered" / "profiles.parquet")
    expected = slow_profiles(screen)
    assert sorted(table.metadata["Metadata_broad_sample"]) == sorted(expected)
    wanted = np.array([expected[name] for name in table.metadata["Metadata_broad_sample"]])
    np.testing.assert_allclose(table.features, wanted, atol=1e-4)
    assert table.metadata["Metadata_cell_count"].min() > 0

    done = make_profiles(screen, tmp_path / "plain", "trained/none")
    assert done.returncode == 0, done.stderr
    both = f"--profiles={tmp_path / 'plain'},{tmp_path / 'sphered'}"
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "results.jsonl").write_text('{"metric": "of an earlier report"}\n')
    done = call_script("retrieve.py", both, f"--out={tmp_path / 'report'}")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "report" / "results.jsonl").read_text().splitlines()]
    value = {(row["run"], row["metric"]): row["value"] for row in rows}  # none of the earlier report
    judged = evaluator.judge(table, evaluator.Protocol(unlabelled="enrichment"), name="sphered")
    assert value["sphered", "precision_at_r"] == pytest.approx(evaluator.values(judged)["precision_at_r"][0])
    assert value["sphered", "precision_at_r"] > 2 * value["plain", "precision_at_r"]
    assert ("cell count only", "precision_at_r") in value
    page = (tmp_path / "report" / "index.html").read_text()
    assert "simulated" in page.lower()
    assert "13.37" not in page  # a published figure never stands beside simulated data
    assert "Before and after normalization" in page
    assert "23,097" not in page
    (line,) = read(tmp_path / "report", "before_after")  # the plain run has no level 4
    ratio = {
        r["table"]: r["odds_ratio"]
        for r in read(tmp_path / "report", "enrichment")
        if r["percentile"] == "0.995"
    }
    assert (line["table"], line["odds_ratio_after"]) == ("sphered", ratio["sphered"])
    # with the wells of the same compounds, that is what the run without normalization found
    assert line["odds_ratio_before"] == ratio["plain"] != ratio["sphered"]
    assert float(line["batch_after"]) < float(line["batch_before"])

    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    config["config"]["retrieval"]["similarity"] = "cosine"
    (tmp_path / "plain" / "config.json").write_text(json.dumps(config))
    done = call_script("retrieve.py", both, f"--out={tmp_path / 'report'}")
    assert done.returncode == 1
    assert (
        "similarity is 'cosine' for plain and 'pearson' for sphered; say which with --similarity"
        in done.stderr
    )


def test_making_profiles_again_with_another_config_needs_a_word(screen, tmp_path):
    run = tmp_path / "run"
    assert make_profiles(screen, run, "trained/standardize").returncode == 0
    (run / "notes.parquet").write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert {"level3.parquet", "level4.parquet", "profiles.parquet", "config.json"} < set(before)
    done = make_profiles(screen, run, "trained/none")
    assert done.returncode == 1
    assert "made by another config" in done.stderr
    done = make_profiles(screen, run, "trained/none", "--overwrite", "--config.consensus.by=Metadata_nope")
    assert done.returncode == 1
    assert "step 'consensus': no column Metadata_nope" in done.stderr
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before, "a failed run changes nothing"
    done = make_profiles(screen, run, "trained/none", "--overwrite", "--anndata")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in run.iterdir()}
    assert names == {"level3.parquet", "profiles.parquet", "profiles.h5ad", "config.json", "notes.parquet"}
    cells = anndata.read_h5ad(run / "profiles.h5ad")
    np.testing.assert_array_equal(cells.X, files.read(run / "profiles.parquet").features)


def test_scripts_say_what_is_wrong(screen, tmp_path):
    done = call_script("profile.py", f"--config={LINCS}:trained/none", f"--workdir={tmp_path / 'x'}")
    assert done.returncode == 1
    assert "say where that is, with --config.metadata=FOLDER" in done.stderr
    coos7 = REPOSITORY / "configs" / "coos7" / "quickstart.py"
    done = call_script("profile.py", f"--config={coos7}", f"--workdir={tmp_path / 'x'}")
    assert "no `steps`" in done.stderr
    done = call_script("retrieve.py", f"--profiles={tmp_path / 'nothing.csv'}", f"--out={tmp_path / 'y'}")
    assert done.returncode == 1
    assert "nothing.csv: no such file or work directory" in done.stderr
    assert "Traceback" not in done.stderr
    text = "Metadata_moa,f,g\n" + "x,1,2\ny,2,1\nx,3,5\n"
    (tmp_path / "table.csv").write_text(text)
    arguments = [f"--profiles={tmp_path / 'table.csv'}", f"--out={tmp_path / 'y'}"]
    done = call_script("retrieve.py", *arguments, "--rows=Metadata_moa = 'z'")
    assert "table: no row matches --rows=\"Metadata_moa = 'z'\"" in done.stderr
    done = call_script("retrieve.py", *arguments, "--names=cell count only")
    assert "is what the baseline is called; use --names" in done.stderr


def test_bbbc021_gives_the_published_accuracy(real_data, tmp_path):
    config = REPOSITORY / "configs" / "bbbc021" / "profiles.py"
    where = f"--config.data={real_data / 'bbbc021'}"
    done = call_script("profile.py", f"--config={config}", where, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    done = call_script("retrieve.py", f"--profiles={tmp_path / 'run'}", f"--out={tmp_path / 'report'}")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "report" / "results.jsonl").read_text().splitlines()]
    accuracy = next(row for row in rows if row["metric"] == "precision_at_1")
    assert accuracy["n"] == 103
    assert accuracy["value"] == pytest.approx(85 / 103)  # published as 0.82
    # without the treatments of the same week: 92 have a match left, as in Ando et al. 2017
    table = files.read(tmp_path / "run" / "profiles.parquet")
    protocol = evaluator.Protocol(exclude=("Metadata_compound", "Metadata_week"), similarity="cosine")
    value, count = evaluator.values(evaluator.judge(table, protocol, name="nscb"))["precision_at_1"]
    assert (round(value * 92), count) == (67, 92)


def test_raw_wells_with_missing_features_go_from_profiles_to_the_page(real_data, tmp_path):
    plate = files.read(real_data / "lincs_plate" / "SQ00015054_normalized_feature_select.csv.gz")
    features = plate.features.copy()
    features[:50, 3] = np.nan  # as CellProfiler leaves them at level 3
    files.write_parquet(plate.with_features(features), tmp_path / "wells.parquet")
    arguments = [
        f"--config={LINCS}:cellprofiler/mad_robustize_outliers",
        f"--config.data={tmp_path / 'wells.parquet'}",
    ]
    done = call_script("profile.py", *arguments, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    done = call_script("retrieve.py", f"--profiles={tmp_path / 'run'}", f"--out={tmp_path / 'report'}")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "index.html").read_text()
    assert "run, level3: 1 of 454 features are missing in some wells" in page
    assert "23,097" in page
    assert "13.48" in page  # real data under the config's protocol: the published figure stands beside it


def test_simulated_cells_are_the_same_for_the_same_seed_and_are_not_replaced(screen, tmp_path):
    simulate.write_cell_features(tmp_path)
    one = sorted((tmp_path / "features").rglob("*.npz"))
    assert [p.relative_to(tmp_path) for p in one] == sorted(
        p.relative_to(screen) for p in (screen / "features").rglob("*.npz")
    )
    for path in one[::97]:
        theirs = np.load(screen / path.relative_to(tmp_path))["features"]
        np.testing.assert_array_equal(np.load(path)["features"], theirs)
    with pytest.raises(FileExistsError, match="take another folder"):
        simulate.write_cell_features(tmp_path)
    simulate.write_cell_features(tmp_path, overwrite=True)
    (tmp_path / "metadata" / "platemap" / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="platemap has files of another origin"):
        simulate.write_cell_features(tmp_path, overwrite=True)
    assert (tmp_path / "metadata" / "platemap" / "mine.txt").read_text() == "precious"
    simulate.write_cell_features(tmp_path / "again")
    assert all(
        name.startswith(simulate.MARK) for name in files.read(screen / "features").metadata["Metadata_Plate"]
    )
