"""M-CNN on whole views.

    python experiments/train.py --config=configs/cell_painting/mcnn.py --workdir=runs/mcnn \
        --config.data.directory=data/cell_painting/views/1.0.0

Published (Hofmarcher et al. 2019, Tables 1 and 2): mean AUC 0.709, 4,252 s per epoch on a GTX 1080 Ti. Not yet run
on the real views.
"""

from ml_collections import ConfigDict

from configs.cell_painting import base


def get_config() -> ConfigDict:
    """M-CNN with its rate, weight decay and batch size."""
    config = base.get_config()
    config.run = config.model.name = "mcnn"
    config.batch_size = 100
    config.optimizer.learning_rate = 0.001
    config.optimizer.weight_decay = 5e-4
    return config
