"""The image sets of Godinez et al. 2017 as whole fields of view: BBBC013-016, BBBC021, HeLa, CHO and HPA."""

from tfds_builders.bbbc.bbbc_dataset_builder import Builder

__all__ = ["Builder"]
