"""What runs on own cells share; narrow enough for two CPU cores."""

from ml_collections import ConfigDict

from configs.coos7 import base


def get_config() -> ConfigDict:
    """The COOS-7 protocol on a small data set with splits train, test1 and test2."""
    config = base.get_config()
    config.study = "cell_folder"
    config.num_steps = 1200
    config.batch_size = 64
    config.evaluate_every = 100
    config.checkpoint_every = 100
    config.data.train_split = "train"
    config.preprocess.min_span = 0.0  # own images may be floats of any scale
    config.model.width = 8
    config.optimizer.warmup_steps = 100
    config.evaluation.sets = ("train", "test1", "test2")
    config.report.title = "Own cells: what a classifier loses in an unseen field"
    config.report.published = ConfigDict()
    config.report.published_source = ""
    return config
