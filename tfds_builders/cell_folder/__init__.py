"""Anybody's single cells: a tree `<split>/<class>/<stem>_<channel>.tif` becomes a dataset."""

from tfds_builders.cell_folder.cell_folder_dataset_builder import Builder

__all__ = ["Builder"]
