"""A config of task "single_cells" whose network compiles in seconds: DeepLoc, narrow, without augmentation."""

from ml_collections import ConfigDict

from configs.lincs import base


def get_config() -> ConfigDict:
    """Two epochs on all compounds."""
    config = base.get_config()
    config.run = "tiny"
    config.num_epochs, config.batch_size, config.log_every = 2, 16, 1
    config.data.where = config.data.shared = ""
    config.preprocess.crop = 24
    config.preprocess.intensity = "zscore"
    config.evaluation.batch_size = 64
    config.model = ConfigDict({"name": "deeploc", "width": 2, "dtype": "float32", "cross_device_norm": True})
    config.optimizer.clip_norm = 1.0
    return config
