"""Paired cell inpainting on COOS-7: self-supervised features (Lu et al. 2019, section 3.1), no label used.

    python experiments/train.py --config=configs/coos7/pci.py --workdir=runs/pci \
        --config.data.directory=data/coos7/uint16/1.1.0

As its authors train it (their code): Adam with learning rate 1e-4 and beta1 0.5, no schedule, batches of 64, 30 epochs,
every channel of every cell scaled to [0, 1], random mirrors of source and target. Pairs are of one well: the paper says
"cells of the same image" where the method was made, and nothing for COOS-7, whose cells know their well. With
`pairs.by="class"` they would be of one protein, as in folders with one protein each, and the labels would leak in. Not
as its authors do, five percent of the cells are held out to watch the error, and the best epoch by it counts, not the
last: an epoch is 615 steps, where all cells would make 647. Shorter trainings want `model.momentum=0.9`: with the
published 0.99 the running statistics lag behind, on which all features after conv1_1 rest; 300 steps on simulated cells
(width 12) left judged pairs with twice the error. Needs a GPU. Not yet run on the real COOS-7.
"""

from ml_collections import ConfigDict

from configs.coos7 import base

TRAINING_CELLS = 41_456


def get_config() -> ConfigDict:
    """The published training, in steps."""
    config = base.get_config()
    config.task = "inpainting"
    config.run = "paired_cell_inpainting"
    config.batch_size = 64
    epoch = int(0.95 * TRAINING_CELLS) // config.batch_size  # whole batches
    config.num_steps, config.evaluate_every, config.checkpoint_every = 30 * epoch, epoch, epoch
    config.select = "mean_squared_error"
    config.data.validation_fraction = 0.05

    config.pairs = ConfigDict()
    config.pairs.by = "well"  # "plate", "class" or "id:PATTERN", see coos.data.groups
    config.pairs.smallest_group = 2  # cells of smaller groups are left out

    config.preprocess = ConfigDict({"intensity": "minmax"})
    config.model = ConfigDict(
        {"name": "pci", "width": 96, "momentum": 0.99, "dtype": "float32", "cross_device_norm": True}
    )
    config.optimizer = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 1e-4,
            "beta1": 0.5,
            "schedule": "flat",
            "weight_decay": 0.0,
            "clip_norm": 0.0,
        }
    )
    for name in ("label_smoothing", "mixup", "alignment", "augment"):
        del config[name]
    config.report.published = ConfigDict()
    return config
