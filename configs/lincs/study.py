"""From plates and networks to the page of scores: what experiments/lincs.py does, in Bornholdt 2021's order.

    python experiments/lincs.py --config=configs/lincs/study.py --workdir=studies/first \
        --config.source=lincs --config.metadata=lincs-cell-painting/metadata \
        --config.networks.trained.workdir=runs/1008 --config.networks.untrained.workdir=runs/1008

Every entry of `networks` is profiled; `tables` says which ones, in which order. The options of an entry are flags of
experiments/extract.py. For each, the profiles go through every row of `pipelines` (configs/lincs/profiles.py).
"""

from ml_collections import ConfigDict


def get_config(size: str = "") -> ConfigDict:
    """The trained network beside the same one untrained and intensity statistics; "quickstart": `make lincs`."""
    if size not in ("", "quickstart"):
        raise ValueError(f"study.py:{size}: there is only study.py:quickstart")
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
    return quickstart(config) if size else config


def quickstart(config: ConfigDict) -> ConfigDict:
    """The study of the simulated plates of `make lincs`."""
    config.title = "Simulated plates: do compounds of one mechanism find each other?"
    config.source = "data/lincs_quickstart/release"
    for name in ("trained", "untrained"):
        config.networks[name].workdir = "runs/lincs_quickstart/run"
        config.networks[name].layer = "gap4"  # 96 features: sphering wants more control wells than features
    config.networks.statistics.crop_size = 64
    config.extract.problems = "list"  # a simulated field may have no cell
    config.subsets = ("top3=top:3",)
    return config
