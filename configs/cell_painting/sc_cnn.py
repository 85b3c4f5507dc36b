"""SC-CNN on crops of 96x96 pixels around single cells, another random fifth of them every epoch.

    python experiments/train.py --config=configs/cell_painting/sc_cnn.py --workdir=runs/sc_cnn \
        --config.data.directory=data/cell_painting/cells/1.0.0

Published (Hofmarcher et al. 2019, Table 1): mean AUC 0.695. Not yet run on the real crops. The paper prints momentum
0.2, its code has 0.9 (`--config.optimizer.momentum=0.9`); its code also takes always the first fifth.
"""

from ml_collections import ConfigDict

from configs.cell_painting import base


def get_config() -> ConfigDict:
    """SC-CNN with its batch size and momentum."""
    config = base.get_config()
    config.run = config.model.name = "sc_cnn"
    config.batch_size = 2048
    config.data.epoch_share = 0.2
    config.optimizer.momentum = 0.2
    config.evaluation.batch_size = 2048
    return config
