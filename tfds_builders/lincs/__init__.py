"""Plates in DeepProfiler's layout, such as LINCS Cell Painting: single cells, or fields of view."""

from tfds_builders.lincs.lincs_dataset_builder import Builder

__all__ = ["Builder"]
