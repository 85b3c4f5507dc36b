"""A narrow DeepLoc on a small simulated release: two minutes on two CPU cores. `make quickstart` runs it.

Simulated cells prove that everything works, and nothing about cells.
"""

from ml_collections import ConfigDict

from configs.coos7 import base


def get_config() -> ConfigDict:
    """The COOS-7 protocol in small."""
    config = base.get_config()
    config.run = "quickstart"
    config.num_steps = 300
    config.batch_size = 64
    config.log_every = 10
    config.evaluate_every = 50
    config.checkpoint_every = 50
    config.data.directory = "data/quickstart/coos7/uint16/1.1.0"
    config.model.width = 8
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 30
    config.evaluation.crops = 1
    return config
