"""ResNet-101 on whole views.

    python experiments/train.py --config=configs/cell_painting/resnet101.py --workdir=runs/resnet101 \
        --config.data.directory=data/cell_painting/views/1.0.0

Published (Hofmarcher et al. 2019, Tables 1 and 2): mean AUC 0.722, 13,209 s per epoch, on a card of 32 GB. Not yet run
on the real views. Activations are computed again backward (remat): 8.4 GiB of them are kept instead of 43, so that it
fits a card of 32 GB; `--config.model.dtype=bfloat16` keeps 4.9, and `--config.accumulation_steps=3` takes 8 views at a
time, which the batch norms notice. The published head is the mean of 7x7 windows.
"""

from ml_collections import ConfigDict

from configs.cell_painting import base


def get_config() -> ConfigDict:
    """ResNet-101 with its rate, batch size and head."""
    config = base.get_config()
    config.run = config.model.name = "resnet101"
    config.model.head = "pool7"
    config.model.remat = True
    config.batch_size = 24
    config.optimizer.learning_rate = 0.001
    return config
