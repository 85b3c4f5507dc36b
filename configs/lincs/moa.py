"""The mechanism as the auxiliary task instead of the compound (`data.target`); the thesis trained on compounds alone.

Profiles of a network that was trained on mechanisms must not be judged by mechanisms of the same compounds: hold
compounds out with `data.held_out`.
"""

from ml_collections import ConfigDict

from configs.lincs import base


def get_config() -> ConfigDict:
    """The base parameters with another target."""
    config = base.get_config()
    config.run = "moa"
    config.data.target = "Metadata_moa"
    config.data.shared = ""
    return config
