"""Views of treated cells with sparse labels of many assays: Cell Painting and ChEMBL (Hofmarcher et al. 2019)."""

from tfds_builders.cell_painting.cell_painting_dataset_builder import Builder

__all__ = ["Builder"]
