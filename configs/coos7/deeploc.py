"""DeepLoc on COOS-7 as its authors train it (Kraus et al. 2017, code; Lu et al. 2019, section 3.1).

    python experiments/train.py --config=configs/coos7/deeploc.py --config.data.directory=data/coos7/uint16/1.1.0 \
        --workdir=runs/coos7_deeploc

Adam with learning rate 0.1 * 0.96 ** floor(step / 25), running statistics that forget half at every step, and
the code's augmentation: crop offsets 0 to 3 (of 4 possible) and 0 to 2 quarter turns (of 3). Published
class-balanced error: 1.2 / 1.2 / 1.5 / 7.4 / 5.4 % on training and test1 to test4 (Lu et al. 2019, Table 3).
Not yet run on the real COOS-7.
"""

from ml_collections import ConfigDict

from configs.coos7 import base


def get_config() -> ConfigDict:
    """The base config with DeepLoc's own schedule, momentum and augmentation."""
    config = base.get_config()
    config.run = "deeploc_original"
    config.model.momentum = 0.5
    config.augment.max_offset = 3
    config.augment.num_rotations = 3
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "staircase"
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 0.0
    return config
