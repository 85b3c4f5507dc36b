"""Raw intensities, scaled by constants of the training set: brightness stays a cue, and so does the field."""

from ml_collections import ConfigDict

from configs.cell_folder import base


def get_config() -> ConfigDict:
    """Own cells from raw intensities."""
    config = base.get_config()
    config.run = "raw"
    config.preprocess.intensity = "standardize"
    return config
