"""DeepLoc on COOS-7 with AdamW, a cosine schedule and slower running statistics.

    python experiments/train.py --config=configs/coos7/modern.py --config.data.directory=data/coos7/uint16/1.1.0 \
        --workdir=runs/coos7_modern

Needs an accelerator: on two CPU cores the 10,000 steps take about a day; see quickstart.py for a narrow one.
Not yet run on the real COOS-7.
"""

from ml_collections import ConfigDict

from configs.coos7 import base


def get_config() -> ConfigDict:
    """The base config under its own name."""
    config = base.get_config()
    config.run = "deeploc_modern"
    return config
