"""A narrow EfficientNet for experiments/hold_out.py on few plates, such as the public example of DeepProfiler's layout.

Sized for two CPU cores: full crops of 128 pixels, a quarter of the width and a third of the depth of
EfficientNet-B0, eight balanced epochs from scratch with DeepProfiler's augmentation. Every crop is standardized by
itself, channel by channel ("zscore"): absolute intensities differ between batches more than between compounds.
"""

from ml_collections import ConfigDict

from configs.lincs import base


def get_config() -> ConfigDict:
    """Everything that is not as in the thesis is said here."""
    config = base.augmented(base.get_config())
    config.run = "held_out_plates"
    config.num_epochs = 8
    config.batch_size = 32
    config.select = (
        "newest"  # cells of the training plates that validate would favour what does not carry over
    )
    config.label_smoothing = 0.1
    config.data.where = ""
    config.data.shared = ""
    config.preprocess.intensity = "zscore"
    config.model.width_coefficient = 0.25
    config.model.depth_coefficient = 0.34
    config.model.momentum = 0.9
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_epochs = 1
    config.optimizer.weight_decay = 1e-2
    config.optimizer.clip_norm = 1.0
    config.report.title = "Naming the compound of single cells on a plate never seen"
    return config
