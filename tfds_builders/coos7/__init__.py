"""COOS-7: 132,209 crops of mouse cells, one training and four test sets (Lu et al. 2019)."""

from tfds_builders.coos7.coos7_dataset_builder import Builder

__all__ = ["Builder"]
