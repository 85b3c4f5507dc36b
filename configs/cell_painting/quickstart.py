"""Narrow networks on a small simulated release: `make cell_painting` runs `quickstart.py:gapnet` and `:fnn`.

Simulated compounds prove that everything works, and nothing about assays.
"""

from ml_collections import ConfigDict

from configs.cell_painting import base

OPTIONS = {"gapnet": {"width": 16, "fc_units": 128}, "fnn": {"units": 256}}
KINDS = {"gapnet": "views", "fnn": "profiles"}


def get_config(network: str = "gapnet") -> ConfigDict:
    """The protocol in small, with Adam so that few steps suffice."""
    if network not in OPTIONS:
        raise ValueError(f"quickstart.py:{network}: choose one of {tuple(OPTIONS)}")
    config = base.get_config()
    config.run = config.model.name = network
    config.model.update(OPTIONS[network])
    config.data.directory = f"data/cell_painting_quickstart/cell_painting/{KINDS[network]}/1.0.0"
    config.num_epochs = 20 if network == "gapnet" else 60
    config.batch_size = 32
    config.evaluation.batch_size = 64
    config.log_every = 10
    config.preprocess.intensity = "standardize" if network == "fnn" else "standardize_each"
    config.augment.flips = network != "fnn"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 1e-2
    config.optimizer.warmup_steps = 50
    return config
