"""Runs on Cell Painting/ChEMBL (Hofmarcher et al. 2019)."""
