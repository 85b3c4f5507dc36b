"""A narrow GapNet on simulated plates: `make lincs` trains it and profiles with it.

GapNet instead of EfficientNet-B0, since it learns in two minutes on two cores what that one does not in ten. Simulated
cells have half the size of real ones, so that a crop of 64 pixels holds what 128 do there. Simulated compounds prove
that everything works, and nothing about cells.
"""

from ml_collections import ConfigDict

from configs.lincs import base


def get_config() -> ConfigDict:
    """The thesis' training in small, with Adam so that few epochs suffice."""
    config = base.augmented(base.get_config())
    config.run = "quickstart"
    config.data.directory = "data/lincs_quickstart/lincs/crops/1.0.0"
    config.data.shared = ""
    config.num_epochs = 20
    config.batch_size = 64
    config.log_every = 20
    config.preprocess.crop = 64
    config.preprocess.intensity = "zscore"
    config.augment.zoom_probability = 0.0  # it blurs, and some simulated effects are grains of few pixels
    config.model = ConfigDict({"name": "gapnet", "width": 12, "fc_units": 48, "dtype": "float32"})
    config.model.cross_device_norm = True
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_epochs = 1
    config.optimizer.weight_decay = 1e-2
    config.optimizer.clip_norm = 1.0
    return config
