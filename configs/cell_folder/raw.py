"""Raw intensities, scaled by constants of the training set: brightness stays a cue, and so does the field.

    python experiments/train.py --config=configs/cell_folder/raw.py --workdir=runs/raw \\
        --config.data.directory=data/cell_folder/yeast/1.0.0

Three to five minutes on two CPU cores. On the yeast cells of the README, three seeds: balanced error 6.7 to 10.8 % on
test1 (same fields), 49.1 to 51.4 % on test2 (unseen field).
"""

from ml_collections import ConfigDict

from configs.cell_folder import base


def get_config() -> ConfigDict:
    """Own cells from raw intensities."""
    config = base.get_config()
    config.run = "raw"
    config.preprocess.intensity = "standardize"
    return config
