"""MIL-Net on whole views, its logits and its pooled probabilities trained together.

    python experiments/train.py --config=configs/cell_painting/milnet.py --workdir=runs/milnet \
        --config.data.directory=data/cell_painting/views/1.0.0

Published (Hofmarcher et al. 2019, Tables 1 and 2): mean AUC 0.726, 1,344 s per epoch on a GTX 1080 Ti. Not yet run
on the real views. The published code sends the pooled probabilities through a second sigmoid:
`--config.model.second_sigmoid=True`; config.pooled_head=False trains the logits alone.
"""

from ml_collections import ConfigDict

from configs.cell_painting import base


def get_config() -> ConfigDict:
    """MIL-Net with its batch size."""
    config = base.get_config()
    config.run = config.model.name = "milnet"
    config.model.second_sigmoid = False
    config.batch_size = 64
    return config
