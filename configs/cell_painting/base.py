"""What all runs on Cell Painting/ChEMBL share: the protocol of Hofmarcher et al. 2019, section 3, and of their code.

SGD with momentum and a flat rate, every view standardized by itself, channel by channel, no augmentation, 100
epochs, gradients clipped to a norm of 5, the epoch of the best mean validation AUC kept; views of a well are
averaged. The paper says neither how many epochs nor that it clips: both are from the code (ml-jku/hti-cnn).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Every field of a run, with its default."""
    config = ConfigDict()
    config.study = "cell_painting"
    config.task = "multitask"
    config.run = "base"
    config.seed = 0
    config.start_from = ""  # folder of experiments/import_weights.py to start from
    config.num_epochs = 100
    config.num_steps = 0  # 0: num_epochs epochs
    config.batch_size = 128  # over all devices
    config.accumulation_steps = 1  # pieces of a batch, one after another: less memory, the same step
    config.steps_per_dispatch = 0  # 0: 1 on a CPU, 50 on accelerators
    config.log_every = 50
    config.evaluate_every = 0  # 0: every epoch
    config.checkpoint_every = 0
    config.keep_checkpoints = 2
    config.select = "mean_auroc"  # the validation score that picks the best step
    config.pooled_head = True  # train MIL-Net's pooled probabilities beside its logits

    config.data = ConfigDict()
    config.data.directory = ""  # as printed by experiments/build.py
    config.data.cache_dir = ""  # "": inside the directory
    config.data.train_split = "train"
    config.data.validation_split = "validation"
    config.data.epoch_share = 1.0  # share of the training examples, drawn anew, that an epoch sees
    config.data.mode = "auto"  # "resident", "stream" or "auto"
    config.data.store = "auto"  # images from a decoded "cache", from the "records", or by their size

    config.preprocess = ConfigDict()
    config.preprocess.intensity = "standardize_each"

    config.augment = ConfigDict()
    config.augment.flips = False

    config.model = ConfigDict()
    config.model.name = "gapnet"
    config.model.dtype = "float32"
    config.model.cross_device_norm = True

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = "flat"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.optimizer.clip_norm = 5.0
    config.optimizer.warmup_steps = 0  # "cosine" only
    config.optimizer.decay = 0.1  # "staircase" only
    config.optimizer.decay_every = 1

    config.evaluation = ConfigDict()
    config.evaluation.batch_size = 128
    config.evaluation.level = "well"  # views averaged per "well", per "compound", or "none"
    config.evaluation.sets = ("validation", "test")

    config.report = ConfigDict()
    config.report.title = "Cell Painting: assays predicted from images"
    return config
