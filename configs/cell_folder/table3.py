"""The whole study of `configs/coos7/table3.py` on own cells in folders, narrow enough for two CPU cores.

    python experiments/table3.py --config=configs/cell_folder/table3.py --workdir=runs/yeast \
        --config.data.directory=data/cell_folder/yeast/1.0.0 --config.features.vgg16.untrained=True

Sets are train, test1 and test2; pairs and groups are the class and the field in the name of a cell, such as AAC1_2_17.
The network that methods against the shift are compared with sees raw intensities, which give the field of a cell away:
there is something to mend. The other is stretched to the percentiles of every image, as published.
"""

from ml_collections import ConfigDict

from configs.cell_folder import raw, stretched
from configs.coos7 import shift, table3

SETS = ("train", "test1", "test2")
FIELD = r"id:[^/_]*_(\d+)_\d+$"  # the field alone, for CORAL
CLASS_AND_FIELD = r"id:([^/_]*_\d+)_\d+$"
STEPS = 400


def get_config() -> ConfigDict:
    """The study with narrow networks, 400 steps each, 20 draws for a forest, and no published figures."""
    config = table3.get_config()
    config.study = "cell_folder"
    config.data.train_split, config.data.sets = "train", SETS
    deeploc, pci = config.networks.deeploc, config.networks.pci
    deeploc.config = network(stretched.get_config())
    paint(pci.config)
    for method in ("plain", "illumination", "mixup", "coral"):
        config.networks[method].config = network(shift.apply(raw.get_config(), method))
    config.networks.plain.title = "DeepLoc, raw intensities"
    config.networks.coral.config.alignment.by = FIELD
    for name, value in (("gain_spread", 0.5), ("brightness", 0.5), ("contrast", 0.5)):
        config.networks.illumination.config.augment[name] = value  # of intensities in standard deviations
    del config.networks.label_smoothing
    config.end_to_end = ("deeploc", "plain")
    config.shift.methods = ("deeploc", "illumination", "mixup", "coral")
    config.classifiers.random_forest.draws = 20  # of the published 100, which take five times as long
    config.shift.about += (
        " DeepLoc is the plain network on images stretched to their percentiles, as published."
    )
    config.report.title = "Own cells: representations, classifiers and covariate shift"
    config.report.published, config.report.published_source = ConfigDict(), ""
    return config


def network(config: ConfigDict) -> ConfigDict:
    """A config of this folder in a length that leaves time for all of them."""
    config.num_steps = STEPS
    config.optimizer.warmup_steps = 50
    return config


def paint(config: ConfigDict) -> None:
    """Paired cell inpainting an eighth as wide, with pairs from one field."""
    config.num_steps, config.batch_size = 300, 32
    config.evaluate_every = config.checkpoint_every = 100
    config.model.width, config.model.momentum = 12, 0.9  # 0.99 remembers the start of so short a training
    config.optimizer.learning_rate = 1e-3
    config.pairs.by = CLASS_AND_FIELD
