"""GapNet on whole views.

    python experiments/train.py --config=configs/cell_painting/gapnet.py --workdir=runs/gapnet \
        --config.data.directory=data/cell_painting/views/1.0.0

Published (Hofmarcher et al. 2019, Tables 1 and 2): mean AUC 0.721, 662 s per epoch of 198,609 views on a GTX 1080 Ti.
Not yet run on the real views.
"""

from ml_collections import ConfigDict

from configs.cell_painting import base


def get_config() -> ConfigDict:
    """The base config: GapNet is its network."""
    config = base.get_config()
    config.run = "gapnet"
    return config
