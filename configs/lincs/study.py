"""From plates and networks to the page of scores: what experiments/lincs.py does, in Bornholdt 2021's order.

    python experiments/lincs.py --config=configs/lincs/study.py --workdir=studies/first \
        --config.source=lincs --config.metadata=lincs-cell-painting/metadata \
        --config.networks.trained.workdir=runs/1008 --config.networks.untrained.workdir=runs/1008

Every entry of `networks` is profiled; `tables` says which ones, in which order. The options of an entry are flags of
experiments/extract.py. For each, the profiles go through every row of `pipelines` (configs/lincs/profiles.py).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The trained network beside the same one untrained and beside intensity statistics."""
    config = ConfigDict()
    config.study = "lincs"
    config.title = "LINCS: do compounds of one mechanism find each other?"
    config.source = ""  # folder with inputs/images and inputs/locations
    config.metadata = (
        ""  # folder with barcode_platemap.csv, platemap/ and the table of mechanisms; "": in the source
    )
    config.tables = ("trained", "untrained", "statistics")
    config.networks = ConfigDict()
    config.networks.trained = ConfigDict({"workdir": "", "layer": "pool5"})
    config.networks.untrained = ConfigDict({"workdir": "", "layer": "pool5", "untrained": True})
    config.networks.pretrained = ConfigDict({"weights": "", "layer": "pool5", "size": 224})
    config.networks.statistics = ConfigDict({"statistics": True, "crop_size": 128})
    config.extract = ConfigDict({"aggregate": "median", "problems": "stop"})  # flags for all of them
    config.pipelines = ("trained/none", "trained/spherize")
    config.subsets = ("top50=top:50",)
    return config
