"""A small ChEMBL release as SQLite file, in the official schema, and simple drug-like SMILES to fill it with.

    compounds = [(smiles, inchikey), ...]
    measurements = [
        {"compound": 0, "assay": 600885, "standard_type": "IC50", "pchembl_value": 6.2},
        {"compound": 1, "assay": 600885, "activity_comment": "Not Active", "standard_type": "Potency"},
    ]
    write_chembl("chembl_simulated.db", compounds=compounds, measurements=measurements)

Five tables with the names, columns and types of ChEMBL 36: molecule_dictionary, compound_structures,
compound_records, assays and activities. A measurement needs `compound` (position in `compounds`) and `assay` (any
integer); any other column of activities may be given, see `write_chembl` for what it is otherwise.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coos import workdir

TABLES = {
    "molecule_dictionary": (
        "molregno BIGINT NOT NULL PRIMARY KEY, pref_name VARCHAR(255), chembl_id VARCHAR(20) NOT NULL, "
        "max_phase NUMERIC(2, 1), therapeutic_flag SMALLINT NOT NULL DEFAULT 0, "
        "dosed_ingredient SMALLINT NOT NULL DEFAULT 0, structure_type VARCHAR(10) NOT NULL DEFAULT 'MOL', "
        "molecule_type VARCHAR(30) DEFAULT 'Small molecule', first_approval INTEGER, "
        "oral SMALLINT NOT NULL DEFAULT 0, parenteral SMALLINT NOT NULL DEFAULT 0, "
        "topical SMALLINT NOT NULL DEFAULT 0, black_box_warning SMALLINT NOT NULL DEFAULT 0, "
        "natural_product SMALLINT NOT NULL DEFAULT 0, first_in_class SMALLINT NOT NULL DEFAULT 0, "
        "chirality SMALLINT NOT NULL DEFAULT -1, prodrug SMALLINT NOT NULL DEFAULT 0, "
        "inorganic_flag SMALLINT NOT NULL DEFAULT 0, usan_year INTEGER, availability_type SMALLINT, "
        "usan_stem VARCHAR(50), polymer_flag SMALLINT, usan_substem VARCHAR(50), "
        "usan_stem_definition VARCHAR(1000), withdrawn_flag SMALLINT NOT NULL DEFAULT 0, "
        "chemical_probe SMALLINT NOT NULL DEFAULT 0, orphan SMALLINT NOT NULL DEFAULT 0, veterinary SMALLINT"
    ),
    "compound_structures": (
        "molregno BIGINT NOT NULL PRIMARY KEY REFERENCES molecule_dictionary (molregno), molfile TEXT, "
        "standard_inchi VARCHAR(4000), standard_inchi_key VARCHAR(27) NOT NULL, canonical_smiles VARCHAR(4000)"
    ),
    "compound_records": (
        "record_id BIGINT NOT NULL PRIMARY KEY, molregno BIGINT REFERENCES molecule_dictionary (molregno), "
        "doc_id BIGINT NOT NULL DEFAULT 1, compound_key VARCHAR(250), compound_name VARCHAR(4000), "
        "src_id INTEGER NOT NULL DEFAULT 1, src_compound_id VARCHAR(150), cidx VARCHAR(200) NOT NULL DEFAULT 'CLD0'"
    ),
    "assays": (
        "assay_id BIGINT NOT NULL PRIMARY KEY, doc_id BIGINT NOT NULL DEFAULT 1, description VARCHAR(4000), "
        "assay_type VARCHAR(1) DEFAULT 'F', assay_test_type VARCHAR(20), assay_category VARCHAR(50), "
        "assay_organism VARCHAR(250), assay_tax_id BIGINT, assay_strain VARCHAR(200), assay_tissue VARCHAR(100), "
        "assay_cell_type VARCHAR(100), assay_subcellular_fraction VARCHAR(100), tid BIGINT, "
        "relationship_type VARCHAR(1), confidence_score SMALLINT, curated_by VARCHAR(32), "
        "src_id INTEGER NOT NULL DEFAULT 1, src_assay_id VARCHAR(50), chembl_id VARCHAR(20) NOT NULL, "
        "cell_id BIGINT, bao_format VARCHAR(11), tissue_id BIGINT, variant_id BIGINT, "
        "aidx VARCHAR(200) NOT NULL DEFAULT 'CLD0', assay_group VARCHAR(200)"
    ),
    "activities": (
        "activity_id BIGINT NOT NULL PRIMARY KEY, assay_id BIGINT NOT NULL REFERENCES assays (assay_id), "
        "doc_id BIGINT DEFAULT 1, record_id BIGINT NOT NULL REFERENCES compound_records (record_id), "
        "molregno BIGINT REFERENCES molecule_dictionary (molregno), standard_relation VARCHAR(50), "
        "standard_value NUMERIC, standard_units VARCHAR(100), standard_flag SMALLINT, standard_type VARCHAR(250), "
        "activity_comment VARCHAR(4000), data_validity_comment VARCHAR(30), potential_duplicate SMALLINT, "
        "pchembl_value NUMERIC(4, 2), bao_endpoint VARCHAR(11), uo_units VARCHAR(10), qudt_units VARCHAR(70), "
        "toid INTEGER, upper_value NUMERIC, standard_upper_value NUMERIC, src_id INTEGER DEFAULT 1, "
        "type VARCHAR(250) NOT NULL, relation VARCHAR(50), value NUMERIC, units VARCHAR(100), "
        "text_value VARCHAR(1000), standard_text_value VARCHAR(1000), action_type VARCHAR(50)"
    ),
}
INDEXES = {"compound_structures": "standard_inchi_key", "activities": "molregno"}
ACTIVITY = [
    "standard_type",
    "standard_relation",
    "standard_value",
    "standard_units",
    "pchembl_value",
    "activity_comment",
    "data_validity_comment",
    "potential_duplicate",
    "type",
    "relation",
    "value",
    "units",
    "standard_flag",
    "upper_value",
    "text_value",
]

# {} takes a substituent; a scaffold has two places that no symmetry of it exchanges.
SCAFFOLDS = (
    "c1({})ccc({})nc1",
    "c1({})cnc({})nc1",
    "c1({})ccc2c(c1)cc({})cn2",
    "c1({})ccc2c(c1)ncnc2({})",
    "c1({})ccc2c(c1)nc({})s2",
    "c1({})ccc2c(c1)oc({})c2",
    "c1({})ccc2c(c1)sc({})c2",
    "c1({})sc({})nc1",
    "o1c({})cc2c1nccc2({})",
    "c1({})ccc(cc1)-c1ccnc({})c1",
    "c1({})ccc(cc1)-c1csc({})n1",
    "c1({})ccc(cc1)Oc1ccc({})nc1",
    "c1({})ccc(cc1)C(=O)N1CCN(CC1)C(=O)({})",
    "c1({})ccc(cc1)S(=O)(=O)N1CCC({})CC1",
    "c1({})ccc(cc1)C(=O)Nc1cccc({})c1",
    "c1({})ccc(cc1)CNc1ncc({})cn1",
    "c1({})ccc(cc1)-n1cc({})cn1",
    "C1CN(C(=O)({}))CCC1c1ccc({})cc1",
)
SUBSTITUENTS = [
    "C",
    "CC",
    "CCC",
    "C(C)C",
    "C(C)(C)C",
    "CO",
    "CCO",
    "COC",
    "CC#N",
    "C(F)(F)F",
    "CC(F)(F)F",
    "CN(C)C",
    "CCN(C)C",
    "CC(=O)OC",
    "CC(=O)N",
    "CCOC",
    "CCCC",
    "CCF",
    "CC(C)C",
    "C=C",
]


def random_smiles(number: int, *, seed: int = 0) -> list[str]:
    """Distinct drug-like molecules: one of 18 ring systems, two of 20 substituents; 7,200 in all.

    Every ring system is a Bemis-Murcko scaffold of its own. The same seed gives the same molecules in the same
    order, and a smaller number the first of them.
    """
    pairs = len(SUBSTITUENTS) ** 2
    capacity = len(SCAFFOLDS) * pairs
    if not 0 <= number <= capacity:
        raise ValueError(f"{number} molecules wanted; there are 0 to {capacity:,}")
    chosen = np.random.default_rng(seed).permutation(capacity)[:number].tolist()
    return [
        SCAFFOLDS[i // pairs].format(
            SUBSTITUENTS[i % pairs // len(SUBSTITUENTS)], SUBSTITUENTS[i % len(SUBSTITUENTS)]
        )
        for i in chosen
    ]


def write_chembl(
    path: str | os.PathLike,
    *,
    compounds: Sequence[tuple[str, str]],
    measurements: Iterable[Mapping[str, Any]],
    assays: Mapping[int, str] | None = None,
    indexes: bool = True,
) -> int:
    """Write the release and return its number of activities; an earlier file gives way when it is complete.

    Args:
        path: the SQLite file.
        compounds: (SMILES, InChIKey); one InChIKey may occur twice and is then two molecules of the release.
        measurements: mappings with `compound`, `assay` and columns of activities (`ACTIVITY`). Without them,
            standard_type is IC50, standard_relation "=", standard_units nM; standard_value is 10^(9 - pchembl_value)
            nM; type, relation, value and units are as the standard ones; potential_duplicate is 0; all others NULL.
            May be a generator of millions.
        assays: {assay: description}; assays that are only measured are described as simulated.
        indexes: whether to index the columns by which compounds and activities are found.

    Raises:
        ValueError: a measurement without compound or assay, of a compound that is not there, or with other keys.
    """
    written = 0

    def fill(file: Any) -> None:
        nonlocal written
        connection = sqlite3.connect(file.name)
        # Nobody reads the file before it is renamed: no journal is needed.
        connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
        for table, columns in TABLES.items():
            connection.execute(f"CREATE TABLE {table} ({columns})")
        _insert(connection, "molecule_dictionary", _molecules(len(compounds)))
        _insert(connection, "compound_structures", _structures(compounds))
        _insert(connection, "compound_records", _records(len(compounds)))
        written = _insert(connection, "activities", _activities(measurements, len(compounds)))
        measured = {assay for (assay,) in connection.execute("SELECT DISTINCT assay_id FROM activities")}
        _insert(connection, "assays", _assays(measured, assays or {}))
        for table, column in INDEXES.items() if indexes else ():
            connection.execute(f"CREATE INDEX idx_{table}_{column} ON {table} ({column})")
        connection.commit()
        connection.close()

    workdir.write_atomically(path, fill, mode="wb")
    return written


def _insert(connection: sqlite3.Connection, table: str, rows: Iterable[dict[str, Any]]) -> int:
    """Insert rows of equal keys and return their number."""
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        return 0
    command = f"INSERT INTO {table} ({', '.join(first)}) VALUES ({', '.join('?' * len(first))})"
    connection.execute(command, tuple(first.values()))
    return 1 + connection.executemany(command, (tuple(row.values()) for row in iterator)).rowcount


def _molecules(number: int) -> Iterator[dict[str, Any]]:
    for molregno in range(1, number + 1):
        yield {"molregno": molregno, "chembl_id": f"CHEMBL{molregno}"}


def _structures(compounds: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for molregno, (smiles, key) in enumerate(compounds, start=1):
        yield {"molregno": molregno, "standard_inchi_key": key, "canonical_smiles": smiles}


def _records(number: int) -> Iterator[dict[str, Any]]:
    for molregno in range(1, number + 1):
        yield {"record_id": molregno, "molregno": molregno, "compound_name": f"SIMULATED-{molregno}"}


def _assays(measured: set[int], described: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    for assay in sorted(measured | set(described)):
        description = described.get(assay, f"Simulated assay {assay}")
        # Assays and molecules share the counting of ChEMBL IDs in real releases, too.
        yield {"assay_id": assay, "description": description, "chembl_id": f"CHEMBL{10_000_000 + assay}"}


def _activities(measurements: Iterable[Mapping[str, Any]], num_compounds: int) -> Iterator[dict[str, Any]]:
    defaults = {
        **dict.fromkeys(ACTIVITY),
        "standard_type": "IC50",
        "standard_relation": "=",
        "standard_units": "nM",
        "potential_duplicate": 0,
    }
    for number, measurement in enumerate(measurements, start=1):
        given = dict(measurement)
        compound, assay = given.pop("compound", None), given.pop("assay", None)
        unknown = sorted(set(given) - set(ACTIVITY))
        if compound is None or assay is None or unknown:
            raise ValueError(
                f"measurement {number}: needs compound and assay, may have {ACTIVITY}; found {sorted(measurement)}"
            )
        if not 0 <= compound < num_compounds:
            raise ValueError(f"measurement {number}: compound {compound} of {num_compounds}")
        row = {**defaults, **given}
        if row["standard_value"] is None and row["pchembl_value"] is not None:
            row["standard_value"] = round(10 ** (9 - float(row["pchembl_value"])), 4)
        for name in ("type", "relation", "value", "units"):
            row[name] = row[name] if name in given else row[f"standard_{name}"]
        molregno = int(compound) + 1
        yield {
            "activity_id": number,
            "assay_id": int(assay),
            "record_id": molregno,
            "molregno": molregno,
            **row,
        }
