"""A narrow EfficientNet on simulated plates: `make lincs` runs it and profiles with it.

Simulated cells have half the size of real ones, so that a crop of 64 pixels holds what 128 do there. Simulated
compounds prove that everything works, and nothing about cells.
"""

from ml_collections import ConfigDict

from configs.lincs import base


def get_config() -> ConfigDict:
    """The thesis' training in small, with Adam so that few epochs suffice."""
    config = base.augmented(base.get_config())
    config.run = "quickstart"
    config.data.directory = "data/lincs_quickstart/lincs/crops/1.0.0"
    config.data.shared = ""
    config.num_epochs = 12
    config.batch_size = 64
    config.log_every = 20
    config.preprocess.crop = 64
    config.preprocess.intensity = "zscore"
    config.model.width_coefficient = 0.25
    config.model.depth_coefficient = 0.34
    config.model.momentum = 0.9
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_epochs = 1
    config.optimizer.weight_decay = 1e-2
    config.optimizer.clip_norm = 1.0
    return config
