"""Labels from a ChEMBL release, against a literal reading of the protocol in plain Python, and its hard cases."""

import collections
import decimal
import gzip
import random
import sqlite3
import statistics

import polars as pl
import pytest
from run_scripts import call_script

from coos import workdir
from coos.data import chembl, chembl_query, chemistry, label_matrix
from coos.data.simulate import chembl as simulate


def key(number):
    """A well-formed InChIKey of no compound."""
    letters = "".join(chr(65 + number // 26**place % 26) for place in range(14))
    return f"{letters}-UHFFFAOYSA-N"


def compounds(number):
    return chemistry.identify([None] * number, [key(i) for i in range(number)])


def release(path, measurements, *, number, **options):
    """A release of compounds key(0), key(1), ... and its path."""
    structures = [("C" * (i + 1), key(i)) for i in range(number)]
    simulate.write_chembl(path, compounds=structures, measurements=measurements, **options)
    return path


def as_dict(labels):
    """{(source, assay, InChIKey): label}."""
    sources, matrix = labels.columns["source"].to_list(), labels.matrix
    return {
        (sources[column], int(matrix.assays[column]), matrix.compounds[row]): value
        for row, column, value in zip(
            matrix.rows.tolist(), matrix.columns.tolist(), matrix.values.tolist(), strict=True
        )
    }


def wild_measurements(seed, *, number, assays, rows):
    """Rows with everything that occurs in releases, most of it close to a border."""
    generator = random.Random(seed)
    borders = [
        "3.99",
        "4",
        "4.01",
        "5.49",
        "5.5",
        "5.51",
        "6.5",
        "6.49",
        "7.49",
        "7.5",
        "9.99",
        "10",
        "10.01",
    ]
    comments = [
        "Active",
        "Inactive",
        " active ",
        "Not Active",
        "NOT ACTIVE",
        "inactive",
        "Inconclusive",
        "",
        "12 nM",
    ]
    for _ in range(rows):
        row = {"compound": generator.randrange(number), "assay": 1000 - generator.randrange(assays)}
        if generator.random() < 0.7:
            row["standard_type"] = generator.choice(["IC50", "EC50", "Ki", "Potency", "ic50", None])
        if generator.random() < 0.6:
            near = generator.choice([*borders, f"{generator.uniform(3.5, 10.5):.2f}"])
            row["pchembl_value"] = float(near)
        else:
            row["standard_units"] = generator.choice(["nM", "ug.mL-1", "%", None])
        if generator.random() < 0.5:
            row["activity_comment"] = generator.choice(comments)
        if generator.random() < 0.1:
            row["data_validity_comment"] = generator.choice(["Outside typical range", "Manually validated"])
        row["potential_duplicate"] = generator.choice([0] * 9 + [1, None])
        yield {**{"type": "as published"}, **row}


def slow_labels(rows, keys, *, minimum, drop_flagged):
    """The protocol, line by line, in exact decimals: {(source, assay, InChIKey): label}, in order of columns."""
    values, votes = collections.defaultdict(list), collections.defaultdict(list)
    for row in rows:
        flagged = (
            row.get("potential_duplicate") == 1 or row.get("data_validity_comment") == "Outside typical range"
        )
        if flagged and drop_flagged:
            continue
        place = (row["assay"], keys[row["compound"]])
        if row.get("standard_type", "IC50") in ("IC50", "EC50") and row.get("pchembl_value") is not None:
            value = decimal.Decimal(str(row["pchembl_value"]))
            if 4 <= value <= 10:
                values[place].append(value)
        comment = (row.get("activity_comment") or "").strip().lower()
        if comment == "active":
            votes[place].append(1)
        if comment in ("inactive", "not active"):
            votes[place].append(-1)
    result = {}
    for threshold in ("5.5", "6.5", "7.5"):
        for (assay, compound), several in values.items():
            active = statistics.median(several) >= decimal.Decimal(threshold)
            result[f"pchembl >= {threshold}", assay, compound] = 1 if active else -1
    for (assay, compound), several in votes.items():
        if several.count(1) != several.count(-1):
            result["comment", assay, compound] = 1 if several.count(1) > several.count(-1) else -1
    counts = collections.Counter((source, assay, label) for (source, assay, _), label in result.items())
    return {
        place: label
        for place, label in result.items()
        if counts[(*place[:2], 1)] >= minimum and counts[(*place[:2], -1)] >= minimum
    }


@pytest.mark.parametrize("drop_flagged", [False, True])
@pytest.mark.parametrize("indexes", [False, True])
def test_every_entry_is_that_of_the_protocol_read_literally(drop_flagged, indexes, tmp_path):
    rows = list(wild_measurements(int(indexes), number=60, assays=9, rows=2500))
    path = release(tmp_path / "chembl.db", rows, number=60, indexes=indexes)
    labels = chembl.extract(path, compounds(60), drop_flagged=drop_flagged)
    expected = slow_labels(rows, [key(i) for i in range(60)], minimum=10, drop_flagged=drop_flagged)
    assert as_dict(labels) == expected
    assert len(labels.matrix.values) == len(expected) > 500

    order = {"pchembl >= 5.5": 0, "pchembl >= 6.5": 1, "pchembl >= 7.5": 2, "comment": 3}
    columns = sorted({place[:2] for place in expected}, key=lambda place: (order[place[0]], place[1]))
    assert labels.columns.select("source", "assay_id").rows() == columns
    assert labels.matrix.assays == tuple(str(assay) for _, assay in columns)
    assert {source for source, _ in columns} == set(order)
    every = slow_labels(rows, [key(i) for i in range(60)], minimum=0, drop_flagged=drop_flagged)
    assert len({place[:2] for place in every}) > len(columns)  # some columns did not reach the minimum
    labelled = {compound for _, _, compound in expected}
    assert labels.matrix.compounds == tuple(key(i) for i in range(60) if key(i) in labelled)


@pytest.mark.parametrize("drop_flagged", [False, True])
def test_notes_account_for_every_measurement(drop_flagged, tmp_path):
    rows = list(wild_measurements(5, number=60, assays=5, rows=2000))
    path = release(tmp_path / "chembl.db", rows, number=80)
    found = chembl_query.read_measurements(path, [key(i) for i in range(40)], drop_flagged=drop_flagged)
    mine = [row for row in rows if row["compound"] < 40]
    assert found.num_rows == len(mine)
    flagged = sum(note.rows for note in found.notes if note.reason == "left out: flagged")
    for source in ("pchembl", "comment"):
        about = [note.rows for note in found.notes if note.reason.startswith(source)]
        assert sum(about) == len(mine) - flagged
    assert bool(flagged) == drop_flagged

    def count(reason, detail):
        return sum(note.rows for note in found.notes if (note.reason, note.detail) == (reason, detail))

    if not drop_flagged:
        comments = collections.Counter((row.get("activity_comment") or "").strip().lower() for row in mine)
        assert count("comment: other", "12 nm") == comments["12 nm"] > 0
        assert count("comment: used as inactive", "not active") == comments["not active"] > 0
        assert count("comment: none", "") == comments[""] > 0
        unmeasured = [
            r for r in mine if r.get("pchembl_value") is None and r.get("standard_type", "IC50") == "EC50"
        ]
        unknown = [row for row in unmeasured if row["standard_units"] == "ug.mL-1"]
        assert count("pchembl: no value", "EC50 / ug.mL-1") == len(unknown) > 0
        unitless = [row for row in unmeasured if row["standard_units"] is None]
        assert count("pchembl: no value", "EC50 / no unit") == len(unitless) > 0
        duplicates = [row for row in mine if row["potential_duplicate"]]
        marked = [note for note in found.notes if note.reason == "kept although flagged"]
        assert sum(n.rows for n in marked if "potential duplicate" in n.detail) == len(duplicates) > 0
        assert not any("Manually" in note.detail for note in marked)


def one_compound(tmp_path, *rows):
    """Labels by source of a compound with these measurements in an assay, or what the summary says."""
    fillers = [{"compound": 0, "pchembl_value": 9.9, "activity_comment": "active"}] * 1
    fillers += [{"compound": 1, "pchembl_value": 4.1, "activity_comment": "inactive"}]
    rows = [*fillers, *({"compound": 2, **row} for row in rows)]
    path = release(tmp_path / "chembl.db", [{"assay": 7, **row} for row in rows], number=3)
    labels = chembl.extract(path, compounds(3), minimum=1)
    found = {source: label for (source, _, compound), label in as_dict(labels).items() if compound == key(2)}
    return [found.get(source, 0) for source in labels.columns["source"]], labels.summary["notes"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.5], [1, -1, -1, 0]),
        ([5.49], [-1, -1, -1, 0]),
        ([7.5], [1, 1, 1, 0]),
        ([4], [-1, -1, -1, 0]),
        ([10], [1, 1, 1, 0]),
        ([3.99], [0, 0, 0, 0]),
        ([10.01], [0, 0, 0, 0]),
        ([10.01, 4.2], [-1, -1, -1, 0]),  # what is out of range has no part in the median
        ([4.2, 6.6, 9.9], [1, 1, -1, 0]),
        ([5.41, 5.59], [1, -1, -1, 0]),
        ([4.9, 6.1], [1, -1, -1, 0]),
        ([4.37, 6.63], [1, -1, -1, 0]),
        ([4.36, 6.63], [-1, -1, -1, 0]),
        ([None], [0, 0, 0, 0]),
    ],
)
def test_values_on_the_border(values, expected, tmp_path):
    labels, notes = one_compound(tmp_path, *({"pchembl_value": value} for value in values))
    assert labels == expected
    assert notes["repeats: median of several pChEMBL values"] == (len(values) > 1 and 10.01 not in values)


def test_medians_lie_exactly_on_thresholds(tmp_path):
    """All pairs of two decimals whose mean is a threshold: binary fractions would put some below it."""
    pairs = [(t - d, t + d) for t in (550, 650, 750) for d in range(1, min(t - 400, 1000 - t) + 1)]
    rows = [
        {"compound": i, "assay": 1, "pchembl_value": value / 100}
        for i, pair in enumerate(pairs)
        for value in pair
    ]
    number = len(pairs) + 10
    rows += [{"compound": i, "assay": 1, "pchembl_value": 4.5} for i in range(len(pairs), number)]
    path = release(tmp_path / "chembl.db", rows, number=number)
    found = as_dict(chembl.extract(path, compounds(number)))
    for i, pair in enumerate(pairs):
        for threshold in (550, 650, 750):
            label = found[f"pchembl >= {threshold / 100:g}", 1, key(i)]
            assert label == (1 if sum(pair) >= 2 * threshold else -1)


@pytest.mark.parametrize(
    ("comments", "expected", "tied"),
    [
        (["Active"], 1, 0),
        ([" INACTIVE "], -1, 0),
        (["Not Active"], -1, 0),
        (["Active", "inactive"], 0, 1),
        (["Active", "inactive", "active"], 1, 0),
        (["Active", "inactive", "Not active", "Inconclusive"], -1, 0),
        (["active!"], 0, 0),
        ([None, ""], 0, 0),
    ],
)
def test_comments_vote(comments, expected, tied, tmp_path):
    rows = [{"activity_comment": comment, "standard_type": "Potency"} for comment in comments]
    labels, notes = one_compound(tmp_path, *rows)
    assert labels == [0, 0, 0, expected]
    assert notes["left out: as many active as inactive comments"] == tied


def test_comments_can_be_given_other_readings(tmp_path):
    rows = [
        {
            "compound": i,
            "assay": 1,
            "standard_type": "Potency",
            "activity_comment": ["Toxic", "Not active"][i % 2],
        }
        for i in range(20)
    ]
    path = release(tmp_path / "chembl.db", rows, number=20)
    with pytest.raises(ValueError, match=r"the best is assay 1 \(comment\) with 0 and 10"):
        chembl.extract(path, compounds(20))
    labels = chembl.extract(path, compounds(20), comments={"toxic": 1, "not active": -1})
    assert labels.matrix.dense()[:, 0].tolist() == [1, -1] * 10
    assert labels.columns["source"].to_list() == ["comment"]


def test_a_column_needs_ten_of_each(tmp_path):
    rows = [
        {"compound": i, "assay": assay, "pchembl_value": 9.0 if i < active else 4.5}
        for assay, active, total in ((1, 10, 20), (2, 9, 30), (3, 20, 29), (4, 10, 20))
        for i in range(total)
    ]
    path = release(tmp_path / "chembl.db", rows, number=30, assays={4: "Fourth"})
    labels = chembl.extract(path, compounds(30))
    assert labels.columns["assay_id"].to_list() == [1, 4] * 3
    assert labels.columns["active"].to_list() == labels.columns["inactive"].to_list() == [10] * 6
    assert labels.columns["description"][1] == "Fourth"
    assert labels.columns["chembl_id"][1] == "CHEMBL10000004"
    assert labels.matrix.compounds == tuple(key(i) for i in range(20))
    assert labels.summary["input"]["compounds_without_label"] == 10
    assert set(labels.compounds["NOTE"][20:]) == {"no label in the kept assays"}
    assert labels.summary["notes"]["before the filter: pchembl, labels"] == len(rows)


def test_order_of_measurements_and_compounds(tmp_path):
    rows = list(wild_measurements(3, number=40, assays=4, rows=1200))
    first = chembl.extract(release(tmp_path / "a.db", rows, number=40), compounds(40), minimum=5)
    random.Random(0).shuffle(rows)
    second = chembl.extract(release(tmp_path / "b.db", rows, number=40), compounds(40), minimum=5)
    assert first.columns.equals(second.columns)
    assert first.matrix.dense().tolist() == second.matrix.dense().tolist()
    assert first.notes == second.notes
    backwards = chemistry.identify([None] * 40, [key(i) for i in reversed(range(40))])
    third = chembl.extract(tmp_path / "a.db", backwards, minimum=5)
    assert third.matrix.compounds == first.matrix.compounds[::-1]
    assert third.matrix.dense().tolist() == first.matrix.dense()[::-1].tolist()


def test_repeated_compounds_and_molecules_are_one(tmp_path):
    """One InChIKey with two molregnos, and twice in the table; one compound of the table is not in the release."""
    rows = [{"compound": i, "assay": 1, "pchembl_value": 9.0 if i % 2 else 4.5} for i in range(20)]
    structures = [("C", key(i)) for i in range(20)] + [("C", key(0))]
    rows += [{"compound": 20, "assay": 1, "pchembl_value": 9.5}] * 2
    simulate.write_chembl(tmp_path / "c.db", compounds=structures, measurements=rows)
    table = chemistry.identify([None] * 22, [key(i % 20) for i in range(21)] + [key(99)])
    labels = chembl.extract(tmp_path / "c.db", table, minimum=1)
    assert labels.matrix.shape == (20, 3)
    assert labels.matrix.dense([0]).tolist() == [[1, 1, 1]]  # the median of 4.5, 9.5, 9.5
    assert labels.summary["molecules_matched"] == 21
    assert labels.summary["input"]["rows_merged"] == 1
    assert labels.summary["input"]["compounds_not_in_release"] == 1
    assert labels.compounds["ROW_NR_LABEL_MAT"].to_list() == [*range(20), 0, None]
    assert labels.compounds["NOTE"][21] == "not in the release"
    with pytest.raises(ValueError, match="2 InChIKeys, 1 of them distinct"):
        chembl_query.read_measurements(tmp_path / "c.db", [key(1), key(1)])


def test_compounds_without_structure_are_listed_with_reasons():
    pytest.importorskip("rdkit")
    smiles = ["CCO", "C(", "OCC", "", None, "CF(C)C", "c1cccc1", "*", "CCO", "CCO"]
    given = [None] * 8 + ["nonsense", key(3)]
    found = chemistry.identify(smiles, given)
    assert found.inchikeys == ("LFQSCWFLJHTTHZ-UHFFFAOYSA-N", key(3))
    assert found.table["compound"].to_list() == [0, None, 0, None, None, None, None, None, None, 1]
    assert found.table["NOTE"].to_list() == [
        "",
        "no InChIKey: not valid SMILES syntax",
        "",
        "no InChIKey: no SMILES",
        "no InChIKey: no SMILES",
        "no InChIKey: Explicit valence for atom # 1 F, 3, is greater than permitted",
        "no InChIKey: Can't kekulize mol.  Unkekulized atoms: 0 1 2 3 4",
        "no InChIKey: no InChI exists for it",
        "no InChIKey: 'nonsense' is none",
        "its SMILES has the InChIKey LFQSCWFLJHTTHZ-UHFFFAOYSA-N",
    ]
    with pytest.raises(ValueError, match="1 SMILES and 2 InChIKeys"):
        chemistry.identify(["C"], [None, None])


def test_known_inchikeys_and_scaffolds(capfd):
    pytest.importorskip("rdkit")
    known = {
        "CC(=O)Oc1ccccc1C(=O)O": "BSYNRYMUTXBXSQ-UHFFFAOYSA-N",  # aspirin
        "Cn1c(=O)c2c(ncn2C)n(C)c1=O": "RYYVLZVUVIJVGH-UHFFFAOYSA-N",  # caffeine
        "C[C@H](N)C(=O)O": "QNAYBMKLOCPYGJ-REOHCLBHSA-N",  # L-alanine
    }
    assert chemistry.inchikeys(list(known)) == list(known.values())
    assert chemistry.inchikeys(["C("]) == [None]
    assert chemistry.scaffolds(["CC(=O)Oc1ccccc1C(=O)O", "CCO", "Cc1ccccc1CCN1CCOCC1"]) == [
        "c1ccccc1",
        "",
        "c1ccc(CCN2CCOCC2)cc1",
    ]
    with pytest.raises(ValueError, match=r"molecule 1, 'C\(': not valid SMILES syntax"):
        chemistry.scaffolds(["C", "C("])
    assert capfd.readouterr() == ("", "")  # RDKit does not write about them itself


def test_without_rdkit_inchikeys_are_enough(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "rdkit", None)
    assert chemistry.identify(["C"], [key(1)]).inchikeys == (key(1),)
    with pytest.raises(ValueError, match=r'pip install "coos\[chemistry\]"'):
        chemistry.identify(["C", "CC"], [key(1), None])


def broken(tmp_path, *commands):
    """A release of two compounds, one active and one inactive at 5.5, in which something was changed."""
    rows = [{"compound": i, "assay": 1, "pchembl_value": value} for i, value in enumerate((6, 4.5))]
    path = release(tmp_path / "chembl.db", rows, number=2)
    with sqlite3.connect(path) as connection:
        for command in commands:
            connection.execute(command)
    connection.close()
    return path


@pytest.mark.parametrize(
    ("commands", "match"),
    [
        (
            ["DROP TABLE activities"],
            r"tables missing: activities; found assays, compound_records, .*molecule_dict",
        ),
        (
            ["ALTER TABLE activities RENAME TO a", "CREATE VIEW activities AS SELECT * FROM a"],
            r"tables missing: activities; found a, assays",
        ),
        (
            ["ALTER TABLE activities DROP COLUMN pchembl_value"],
            r"activities: columns missing: pchembl_value; found act",
        ),
        (["UPDATE activities SET pchembl_value = 'six'"], r"activity 1: pchembl_value 'six' is not a number"),
        (["DELETE FROM compound_structures"], r"has none of the 2 compounds"),
        (["DELETE FROM activities"], r"no compound has any label at all"),
        (
            ["UPDATE activities SET assay_id = 3"],
            r"activities refer to assay 3, which is not in the table assays",
        ),
    ],
)
def test_wrong_releases(commands, match, tmp_path):
    path = broken(tmp_path, *commands)
    with pytest.raises(ValueError, match=match):
        chembl.extract(path, compounds(2), minimum=1)


def test_files_that_are_no_release(tmp_path):
    path = broken(tmp_path)
    contents = {
        "not a SQLite file": b"PK, or whatever else a file may begin with",
        "empty": b"",
        r"an archive: unpack it": gzip.compress(path.read_bytes()),
        "SQLite cannot read it": path.read_bytes()[:6000],
    }
    sqlite3.connect(tmp_path / "none.db").execute("PRAGMA user_version = 1").connection.close()
    contents[r"tables missing: .*; found none"] = (tmp_path / "none.db").read_bytes()
    for match, content in contents.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"chembl.db: {match}"):
            chembl.extract(path, compounds(2))
    with pytest.raises(ValueError, match="no such file"):
        chembl.extract(tmp_path / "absent.db", compounds(1))
    assert not (tmp_path / "absent.db").exists()


def test_options_that_make_no_sense(tmp_path):
    path = broken(tmp_path)
    for options in ({"thresholds": (6.5, 5.5)}, {"thresholds": (5.5, 5.5)}, {"minimum": 0}):
        with pytest.raises(ValueError, match=r"must ascend and minimum .* at least 1"):
            chembl.extract(path, compounds(2), **options)


def test_the_release_is_only_read(tmp_path):
    rows = list(wild_measurements(1, number=30, assays=2, rows=600))
    path = release(tmp_path / "a release #1?.db", rows, number=30)
    before = path.read_bytes()
    path.chmod(0o444)
    chembl.extract(path, compounds(30), minimum=2)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_simulated_releases_refuse_what_is_no_measurement(tmp_path):
    for row, match in (
        ({"compound": 0}, "measurement 1: needs compound and assay"),
        (
            {"compound": 0, "assay": 1, "pchembl": 5},
            r"measurement 1: needs .* found \['assay', 'compound', 'pchembl'\]",
        ),
        ({"compound": 1, "assay": 1}, "measurement 1: compound 1 of 1"),
    ):
        with pytest.raises(ValueError, match=match):
            release(tmp_path / "chembl.db", [row], number=1)
    assert not list(tmp_path.iterdir())


def test_simulated_molecules_are_valid_and_distinct():
    pytest.importorskip("rdkit")
    smiles = simulate.random_smiles(1000, seed=1)
    assert smiles[:10] == simulate.random_smiles(10, seed=1) != simulate.random_smiles(10, seed=2)
    keys = chemistry.inchikeys(smiles)
    assert None not in keys
    assert len(set(keys)) == 1000
    assert len(set(chemistry.scaffolds(smiles))) == len(simulate.SCAFFOLDS) >= 15
    with pytest.raises(ValueError, match="7201 molecules wanted; there are 0 to 7,200"):
        simulate.random_smiles(7201)


@pytest.mark.slow
def test_all_simulated_molecules_are_distinct():
    pytest.importorskip("rdkit")
    keys = chemistry.inchikeys(simulate.random_smiles(7200))
    assert len(set(keys) - {None}) == 7200


def test_script(tmp_path):
    pytest.importorskip("rdkit")
    smiles = simulate.random_smiles(60)
    structures = list(zip(smiles, chemistry.inchikeys(smiles), strict=True))
    rows = list(wild_measurements(0, number=60, assays=6, rows=2000))
    simulate.write_chembl(tmp_path / "chembl.db", compounds=structures, measurements=rows)
    pl.DataFrame({"name": range(62), "SMILES": [*smiles, "C(", smiles[0]]}).write_csv(tmp_path / "table.csv")
    arguments = [
        f"--chembl={tmp_path}/chembl.db",
        f"--compounds={tmp_path}/table.csv",
        f"--out={tmp_path}/labels",
    ]
    done = call_script("label_matrix.py", *arguments)
    assert done.returncode == 0, done.stderr
    matrix = label_matrix.read(tmp_path / "labels")
    expected = slow_labels(rows, [key for _, key in structures], minimum=10, drop_flagged=False)
    assert f"{len(expected):,} labels" in done.stdout
    columns = pl.read_csv(tmp_path / "labels" / "columns.csv")
    table = pl.read_csv(tmp_path / "labels" / "compounds.csv")
    sources = columns["source"].to_list()
    for (source, assay, compound), label in expected.items():
        (column,) = [j for j in range(len(sources)) if (sources[j], matrix.assays[j]) == (source, str(assay))]
        assert matrix.dense([matrix.compounds.index(compound)])[0, column] == label
    assert table["NOTE"].to_list()[60] == "no InChIKey: not valid SMILES syntax"
    assert table["ROW_NR_LABEL_MAT"][61] == table["ROW_NR_LABEL_MAT"][0]
    summary = workdir.read_json(tmp_path / "labels" / "summary.json")
    assert (summary["entries"], summary["input"]["rows_without_inchikey"]) == (len(expected), 1)
    notes = pl.read_csv(tmp_path / "labels" / "notes.csv")
    assert notes.filter(pl.col("reason").str.starts_with("comment"))["rows"].sum() == len(rows)

    again = call_script("label_matrix.py", *arguments)
    assert again.returncode == 1
    assert again.stderr.strip().endswith("has a label matrix already; --overwrite replaces it")
    wrong = call_script("label_matrix.py", *arguments, "--overwrite", "--smiles_column=smile", "--minimum=3")
    assert "no column smile; it has name, SMILES" in wrong.stderr
    wrong = call_script("label_matrix.py", *arguments, "--overwrite", "--inchikey_column=KEY")
    assert "no column KEY; it has name, SMILES" in wrong.stderr
