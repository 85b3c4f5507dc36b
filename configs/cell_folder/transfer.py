"""Any network of the zoo on your own cells, from imported weights or from scratch.

    python experiments/import_weights.py --network=efficientnet_b0 --weights=efn --channels=2 --num_outputs=5 \
        --out=weights/efficientnet_b0
    python experiments/train.py --config=configs/cell_folder/transfer.py:efficientnet_b0 --workdir=runs/transfer \
        --config.data.directory=data/cell_folder/mine/1.0.0 --config.start_from=weights/efficientnet_b0 \
        --config.preprocess.intensity=pretrained --config.evaluation.sets="('train','test')" \
        --config.report.reference=test

Without the last two fields the network starts at random and sees every image stretched to its percentiles. Options of
a network are fields of config.model: give them here. Needs a GPU for the wide ones. No score is published for it.
"""

from ml_collections import ConfigDict

from configs.cell_folder import base


def get_config(network: str = "efficientnet_b0") -> ConfigDict:
    """The protocol of `base` with the network called `network` as published."""
    config = base.get_config()
    config.run = f"transfer_{network}"
    config.model = ConfigDict({"name": network, "dtype": "float32", "cross_device_norm": True})
    config.optimizer.learning_rate = 3e-4
    return config
