"""Simulated releases: small data sets in exactly the official on-disk layouts, for quick starts and tests."""

from coos.data.simulate.cell_features import MARK, write_cell_features
from coos.data.simulate.organelles import CLASSES
from coos.data.simulate.single_cells import simulate_split, write_release

__all__ = ["CLASSES", "MARK", "simulate_split", "write_cell_features", "write_release"]
