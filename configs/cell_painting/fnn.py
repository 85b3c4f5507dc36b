"""FNN on well profiles of CellProfiler features, standardized over the training wells.

    python experiments/train.py --config=configs/cell_painting/fnn.py --workdir=runs/fnn \
        --config.data.directory=data/cell_painting/profiles/1.0.0

Published (Hofmarcher et al. 2019, Table 1): mean AUC 0.677. Not yet run on the real profiles. The published code
standardizes every well over its own features instead: `--config.model.normalize_samples=True` does so too. Rate,
momentum, weight decay and batch size are those of the code.
"""

from ml_collections import ConfigDict

from configs.cell_painting import base


def get_config() -> ConfigDict:
    """FNN with its batch size."""
    config = base.get_config()
    config.run = config.model.name = "fnn"
    config.model.normalize_samples = False
    config.preprocess.intensity = "standardize"
    config.batch_size = 256
    config.evaluation.batch_size = 256
    return config
