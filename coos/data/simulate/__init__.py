"""Simulated releases: small data sets in exactly the official on-disk layouts, for quick starts and tests."""

from coos.data.simulate.cell_features import MARK, write_cell_features
from coos.data.simulate.chembl import random_smiles, write_chembl
from coos.data.simulate.field_layouts import RELEASES
from coos.data.simulate.field_plates import write_fields
from coos.data.simulate.organelles import CLASSES
from coos.data.simulate.plates import DTYPES, IMAGE_FORMATS, write_plates
from coos.data.simulate.screen import FORMATS, write_screen
from coos.data.simulate.single_cells import simulate_split, write_release

__all__ = [
    "CLASSES",
    "DTYPES",
    "FORMATS",
    "IMAGE_FORMATS",
    "MARK",
    "RELEASES",
    "random_smiles",
    "simulate_split",
    "write_cell_features",
    "write_chembl",
    "write_fields",
    "write_plates",
    "write_release",
    "write_screen",
]
