"""DenseNet-121 on whole views.

    python experiments/train.py --config=configs/cell_painting/densenet121.py --workdir=runs/densenet121 \
        --config.data.directory=data/cell_painting/views/1.0.0

Published (Hofmarcher et al. 2019, Tables 1 and 2): mean AUC 0.718, 8,520 s per epoch on a GTX 1080 Ti. Not yet run
on the real views. Activations are computed again backward (remat): 6.1 GiB of them are kept instead of 21.
"""

from ml_collections import ConfigDict

from configs.cell_painting import base


def get_config() -> ConfigDict:
    """DenseNet-121 with its batch size."""
    config = base.get_config()
    config.run = config.model.name = "densenet121"
    config.model.remat = True
    config.batch_size = 12
    return config
