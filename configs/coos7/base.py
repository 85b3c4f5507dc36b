"""What all COOS-7 runs share: the protocol of Lu et al. 2019, section 3.1, with a modern optimizer.

80 / 20 stratified split of Training, 10,000 steps of 128, validation every 500, best step kept; evaluation on
the five sets with DeepLoc's five crops.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Every field of a run, with its default."""
    config = ConfigDict()
    config.study = "coos7"
    config.task = "classification"
    config.run = "base"
    config.seed = 0
    config.start_from = ""  # folder of experiments/import_weights.py to start from
    config.num_steps = 10_000
    config.batch_size = 128
    config.accumulation_steps = 1
    config.steps_per_dispatch = 0  # 0: 1 on a CPU, 50 on accelerators
    config.log_every = 50
    config.evaluate_every = 500
    config.checkpoint_every = 500
    config.keep_checkpoints = 3
    config.select = "balanced_error"  # the validation error that picks the best step
    config.label_smoothing = 0.0
    config.mixup = (
        0.0  # alpha of Beta(alpha, alpha), the share of an image in its blend; 0: images as they are
    )

    config.data = ConfigDict()
    config.data.directory = ""  # as printed by experiments/build.py
    config.data.cache_dir = ""  # "": inside the directory
    config.data.train_split = "training"
    config.data.validation_fraction = 0.2
    config.data.mode = "auto"  # "resident", "stream" or "auto"

    config.preprocess = ConfigDict()
    config.preprocess.intensity = "stretch"  # DeepLoc's percentiles, or "standardize" for raw intensities
    config.preprocess.min_span = 1.0  # "stretch" only: channels with a smaller range are not divided by it
    config.preprocess.crop = 60

    config.augment = ConfigDict()
    config.augment.max_offset = -1  # -1: all that fit
    config.augment.flips = True
    config.augment.num_rotations = 4
    config.augment.gain_spread = 0.0  # exposure: each channel times exp(u), u in [-spread, spread]
    config.augment.brightness = 0.0  # each channel plus u, in units of the scaled image
    config.augment.contrast = 0.0  # what deviates from a channel's mean times 1 + u

    config.alignment = ConfigDict()  # CORAL: features that look alike in all groups of training cells
    config.alignment.weight = 0.0  # 0: not aligned
    config.alignment.by = "plate"  # "plate", "well", "class" or "id:PATTERN", see coos.data.groups
    config.alignment.layer = "fc2"

    config.model = ConfigDict()
    config.model.name = "deeploc"
    config.model.width = 64
    config.model.momentum = 0.9
    config.model.dtype = "float32"
    config.model.cross_device_norm = True

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 500
    config.optimizer.decay = 0.96  # "staircase" only
    config.optimizer.decay_every = 25
    config.optimizer.weight_decay = 1e-2
    config.optimizer.momentum = 0.9  # "sgd" only
    config.optimizer.clip_norm = 1.0

    config.evaluation = ConfigDict()
    config.evaluation.batch_size = 256
    config.evaluation.crops = 5
    config.evaluation.validation_crops = 1
    config.evaluation.sets = ("training", "test1", "test2", "test3", "test4")

    config.report = ConfigDict()
    config.report.title = "COOS-7: what a cell classifier loses under covariate shift"
    config.report.reference = "test1"
    config.report.published_source = "Lu et al. 2019, Table 3"
    config.report.published = ConfigDict(
        {
            "DeepLoc, end to end": {"training": 1.2, "test1": 1.2, "test2": 1.5, "test3": 7.4, "test4": 5.4},
        }
    )
    return config
