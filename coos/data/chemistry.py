"""InChIKeys and Bemis-Murcko scaffolds of SMILES, by RDKit; tables of compounds by InChIKey.

RDKit is imported when a function is called: `pip install "coos[chemistry]"`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl
from tqdm import tqdm

from coos.data.label_matrix import INCHIKEY

MANY = 2000  # molecules from which on a progress bar is worth it: about a second


class Compounds(NamedTuple):
    """A table of compounds by structure: `inchikeys` are distinct and in order of their first row.

    `table` has a row per given row: ROW (from 0), SMILES, INCHIKEY, compound (i32, position in `inchikeys`; null
    where INCHIKEY is empty) and NOTE, which says why it is or what is odd.
    """

    inchikeys: tuple[str, ...]
    table: pl.DataFrame


def available() -> bool:
    """Whether RDKit can be imported."""
    try:
        _rdkit()
    except ValueError:
        return False
    return True


def inchikeys(smiles: Sequence[str], *, progress: bool = False) -> list[str | None]:
    """Standard InChIKey of each SMILES; None where there is none, and `problem` says why.

    Nothing is standardised first: salts, charges and stereochemistry stay as they are written.
    """
    Chem, rdBase = _rdkit()
    with rdBase.BlockLogs():
        return [_inchikey(Chem, text) for text in _bar(smiles, "InChIKeys", progress)]


def problem(smiles: str) -> str:
    """Why `inchikeys` has None for this SMILES; "" where it has a key."""
    Chem, rdBase = _rdkit()
    with rdBase.BlockLogs():
        if not smiles.strip():
            return "no SMILES"
        if _inchikey(Chem, smiles) is not None:
            return ""
        raw = Chem.MolFromSmiles(smiles, sanitize=False)
        if raw is None:
            return "not valid SMILES syntax"
        found = [problem.Message() for problem in Chem.DetectChemistryProblems(raw)]
        return "; ".join(found) or "no InChI exists for it"


def scaffolds(smiles: Sequence[str], *, progress: bool = False) -> list[str]:
    """Bemis-Murcko scaffold of each molecule as canonical SMILES: its rings and what links them; "" without rings.

    Raises:
        ValueError: a SMILES that RDKit cannot parse, with its position and the reason.
    """
    Chem, rdBase = _rdkit()
    from rdkit.Chem.Scaffolds import MurckoScaffold

    result = []
    with rdBase.BlockLogs():
        for row, text in enumerate(_bar(smiles, "scaffolds", progress)):
            molecule = Chem.MolFromSmiles(text)
            if molecule is None or not text.strip():
                raise ValueError(f"molecule {row}, {text!r}: {problem(text)}")
            result.append(Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(molecule)))
    return result


def identify(
    smiles: Sequence[str | None], given: Sequence[str | None] | None = None, *, progress: bool = False
) -> Compounds:
    """InChIKeys of compounds: `given` ones as they are, missing ones from the SMILES.

    Where a row has both and RDKit is installed, a NOTE says if the SMILES has another InChIKey; the given one stays.
    RDKit is needed only if a row has SMILES and no InChIKey.

    Raises:
        ValueError: there are no compounds, the lengths differ, or RDKit is needed and missing.
    """
    texts = [(text or "").strip() for text in smiles]
    keys = [(key or "").strip() for key in (given if given is not None else [""] * len(texts))]
    if not texts or len(texts) != len(keys):
        raise ValueError(
            f"{len(texts)} SMILES and {len(keys)} InChIKeys; there must be one of each per compound"
        )
    computed: list[str | None] = [None] * len(texts)
    if any(text and not key for text, key in zip(texts, keys, strict=True)) or available():
        computed = inchikeys(texts, progress=progress)
    rows = [_identity(*row) for row in zip(texts, keys, computed, strict=True)]
    position: dict[str, int] = {}
    found = [position.setdefault(key, len(position)) if key else None for key, _ in rows]
    table = pl.DataFrame(
        {
            "ROW": range(len(texts)),
            "SMILES": texts,
            "INCHIKEY": [key for key, _ in rows],
            "compound": pl.Series(found, dtype=pl.Int32),
            "NOTE": [note for _, note in rows],
        }
    )
    return Compounds(tuple(position), table)


def _identity(smiles: str, given: str, computed: str | None) -> tuple[str, str]:
    """(InChIKey or "", note) of one row."""
    if given and not INCHIKEY.fullmatch(given):
        return "", f"no InChIKey: {given!r} is none"
    if given:
        return given, f"its SMILES has the InChIKey {computed}" if computed and computed != given else ""
    if computed:
        return computed, ""
    return "", f"no InChIKey: {problem(smiles) if smiles else 'no SMILES'}"


def _inchikey(Chem: Any, smiles: str) -> str | None:
    molecule = Chem.MolFromSmiles(smiles) if smiles.strip() else None
    return (Chem.MolToInchiKey(molecule) or None) if molecule is not None else None


def _bar(smiles: Sequence[str], what: str, progress: bool) -> tqdm:
    shown = progress and len(smiles) >= MANY
    return tqdm(smiles, desc=what, unit=" molecules", disable=None if shown else True)


def _rdkit() -> tuple[Any, Any]:
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise ValueError(
            f'SMILES need RDKit, which cannot be imported ({error}): pip install "coos[chemistry]"'
        ) from error
    return Chem, rdBase
