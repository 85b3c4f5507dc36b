"""DeepLoc's percentile stretch, image by image: brightness is gone, the protein's pattern stays."""

from ml_collections import ConfigDict

from configs.cell_folder import base


def get_config() -> ConfigDict:
    """Own cells from stretched intensities."""
    config = base.get_config()
    config.run = "stretched"
    config.preprocess.intensity = "stretch"
    return config
