"""HeLa, CHO and HPA: which organelle is stained? Folders of images, one for every class.

    python experiments/phenotypes.py --config=configs/mcnn/organelles.py:hela --config.data.directory=DIR --workdir=...

All fields are used and held out one by one (Godinez et al. 2017, section 2.4). For HPA the paper's 80 % come of an
M-CNN of three times the kernels: --config.options.mcnn.widths="(48,48,48,96,96,96,192)". "SET,BINNING" bins
pixels. The images were not at hand: these configs were run on simulated releases alone.
"""

from ml_collections import ConfigDict

from configs.mcnn import base

PUBLISHED = {  # as printed in Table 1: mean for HeLa and HPA, median for CHO, with the standard deviation
    "hela": ((91.0, 3.0), (11.0, 0.0), (92.0, 3.0)),
    "cho": ((94.0, 4.0), (29.0, 0.0), (91.0, 5.0)),
    "hpa": ((77.0, 3.0), (63.0, 5.0), (79.0, 3.0)),
}
STATISTIC = {"hela": "mean", "cho": "median", "hpa": "mean"}


def get_config(arguments: str = "hela") -> ConfigDict:
    """`arguments` is a set, and perhaps how many pixels are binned."""
    name, _, binning = arguments.partition(",")
    if name not in PUBLISHED:
        raise ValueError(f"set {name!r}: choose one of {tuple(PUBLISHED)}")
    config = base.get_config()
    config.run = arguments
    config.soft = False
    config.data.target = "Metadata_class"
    config.protocol.group = "Metadata_id"
    config.preprocess.binning = int(binning or 1)
    config.optimizer.learning_rate = 3e-3
    config.report.title = f"{name.upper()}: organelles"
    config.report.published_source = (
        f"Godinez et al. 2017, Table 1: {STATISTIC[name]} (SD) of the accuracy in %"
    )
    config.report.published = ConfigDict(dict(zip(base.NETWORKS, PUBLISHED[name], strict=True)))
    return config
