"""What all single-cell trainings on LINCS share: the base parameters of Bornholdt 2021, appendix B, and section 3.2.2.

EfficientNet-B0 on crops of 128x128x5 learns to name the compound of a cell: SGD with Nesterov momentum, cosine schedule
with five epochs of linear warm-up, no augmentation, no label smoothing, class-balanced epochs, L2 penalty. One dose
(10 uM, level 6) of the compounds whose mechanism another compound shares (section 4.1.1); the last epoch counts, as the
thesis picks no epoch by validation.

`start_from` is "" here, since the repository cannot ship weights; the thesis starts from ImageNet:

    python experiments/import_weights.py --network=efficientnet_b0 --weights=efn --channels=5 --out=weights/efficientnet
    python experiments/train.py --config=configs/lincs/id1008.py --config.start_from=weights/efficientnet ...

Where thesis and code (DeepProfiler, neural-profiling) differ, the default is what the thesis prints:
- L2: the thesis prints lambda = 1e-4 (equation 3.1), the code has 1e-5. The penalty lambda * sum(w^2) has the gradient
  2 lambda w, so weight_decay is 2e-4 here; 2e-5 follows the code.
- Warm-up: linear from zero in the thesis; the code's is harmonic, schedule "cosine_harmonic".
- Intensities: DeepProfiler scaled crops in three ways over time: "zscore" (to September 2021), "max" (to August 2024),
  "minmax" (since). Most runs of the thesis are of autumn 2021: "max".
- Momentum is not printed; the code has 0.9.
"""

from ml_collections import ConfigDict

SELECTED = "Metadata_dose_level = 6 AND Metadata_broad_sample <> 'DMSO'"  # 10 uM


def get_config() -> ConfigDict:
    """Every field of a run, with its default."""
    config = ConfigDict()
    config.study = "lincs"
    config.task = "single_cells"
    config.run = "base"
    config.seed = 0
    config.start_from = ""  # folder of experiments/import_weights.py to start from
    config.num_epochs = 30
    config.num_steps = 0  # 0: num_epochs epochs
    config.batch_size = 256  # over all devices
    config.accumulation_steps = 1
    config.steps_per_dispatch = 0  # 0: 1 on a CPU, 50 on accelerators
    config.log_every = 50
    config.evaluate_every = 0  # 0: every epoch
    config.checkpoint_every = 0
    config.keep_checkpoints = 2
    config.select = "newest"  # or the lowest "balanced_error" or "cross_entropy" on the validation cells
    config.label_smoothing = 0.0

    config.data = ConfigDict()
    config.data.directory = ""  # as printed by experiments/build.py
    config.data.cache_dir = ""  # "": inside the directory
    config.data.store = "auto"  # images from a decoded "cache", from the "records", or by their size
    config.data.mode = "auto"  # "resident", "stream" or "auto"
    config.data.epoch_share = 1.0
    config.data.balance = True  # every epoch as many cells of each class as the median class has
    config.data.target = (
        "Metadata_broad_sample"  # what a cell is called: compound, Metadata_moa or Metadata_Well
    )
    config.data.where = SELECTED
    config.data.held_out = ""
    config.data.shared = "Metadata_moa"
    config.data.classes = ""
    config.data.split = "cells"
    config.data.training_wells = 2
    config.data.validation_wells = 1
    config.data.training_replicates = (3, 4, 5)
    config.data.validation_replicates = (1,)
    config.data.validation_sites = 0
    config.data.validation_fraction = 0.1
    config.data.training_cells = 0

    config.preprocess = ConfigDict()
    config.preprocess.intensity = "max"
    config.preprocess.min_span = 1.0  # "stretch" only
    config.preprocess.crop = 128

    config.augment = ConfigDict()
    config.augment.max_offset = -1
    config.augment.flips = False
    config.augment.num_rotations = 1
    config.augment.gain_spread = 0.0
    config.augment.zoom_probability = 0.0
    config.augment.zoom_low = 0.8
    config.augment.brightness = 0.0
    config.augment.contrast = 0.0

    config.model = ConfigDict()
    config.model.name = "efficientnet_b0"
    config.model.dtype = "float32"
    config.model.cross_device_norm = True
    config.model.drop_connect = 0.2

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.02
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 5
    config.optimizer.warmup_steps = 0  # set from warmup_epochs
    config.optimizer.steps_per_epoch = 0  # set from the data
    config.optimizer.boundaries = ()  # "step" only: epochs at which the rate changes
    config.optimizer.rates = ()  # and the rates from then on
    config.optimizer.decay = 0.96  # "staircase" only
    config.optimizer.decay_every = 25
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 2e-4
    config.optimizer.decay_on = "kernels"
    config.optimizer.clip_norm = 0.0

    config.evaluation = ConfigDict()
    config.evaluation.batch_size = 256
    config.evaluation.crops = 1
    config.evaluation.validation_crops = 1
    config.evaluation.sets = ("validation",)
    config.evaluation.queries = ConfigDict()  # {name of a set: query on the wells}

    config.report = ConfigDict()
    config.report.title = "LINCS: naming the compound of single cells"
    config.report.reference = "validation"
    config.report.published_source = "Bornholdt 2021"
    config.report.published = ConfigDict()
    return config


def augmented(config: ConfigDict) -> ConfigDict:
    """The config with DeepProfiler's augmentation (section 3.2.2): zoom, flips, quarter turns, brightness, contrast."""
    config.augment.update({"flips": True, "num_rotations": 4, "zoom_probability": 0.5})
    config.augment.update({"brightness": 0.1, "contrast": 0.2})
    return config
