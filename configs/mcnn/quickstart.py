"""A narrow M-CNN on simulated plates in BBBC013's layout: `make mcnn`, two minutes on two cores.

Ten divisions, and EC50 of both simulated drugs beside the planted ones. Simulated: this shows that the machinery works.
"""

from ml_collections import ConfigDict

from configs.mcnn import bbbc013


def get_config() -> ConfigDict:
    """BBBC013's study in small: fields of 64 x 64 pixels after binning, ten divisions, one network."""
    config = bbbc013.get_config()
    config.run = "quickstart"
    config.networks = ("mcnn",)
    config.protocol.repeats = 10
    config.preprocess.binning = 2
    config.augment.copies = 2
    config.options.mcnn = ConfigDict({"widths": (8, 8, 8, 16, 16), "mix_units": 64, "fc_units": 64})
    config.optimizer.learning_rate = 1e-2
    config.report.published = ConfigDict()
    config.report.title = "Quick start: translocation on a simulated plate"
    return config
