"""ResNet50V2 instead of EfficientNet-B0, the other network of Bornholdt 2021 (section 4.1.2), from ImageNet weights.

    python experiments/import_weights.py --network=resnet50v2 --weights=keras --channels=5 --out=weights/resnet50v2

The thesis trains none of its listed experiments with it; it profiles with the ImageNet weights alone (ID 201: odds
ratio 16.12 at the 99.5th percentile, precision@R 0.0695 when sphered).
"""

from ml_collections import ConfigDict

from configs.lincs import base


def get_config() -> ConfigDict:
    """The base parameters with another network."""
    config = base.get_config()
    config.run = "resnet50v2"
    config.start_from = "weights/resnet50v2"
    config.model = ConfigDict({"name": "resnet50v2", "dtype": "float32", "cross_device_norm": True})
    return config
