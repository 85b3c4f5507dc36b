"""BBBC014, BBBC015 and BBBC016: a reporter that moves into the nucleus, or receptors that gather in spots.

    python experiments/phenotypes.py --config=configs/mcnn/plates.py:bbbc016 --config.data.directory=DIR --workdir=...

The two lowest concentrations are neutral and the two highest positive; of BBBC015 and BBBC016 one field of every
well is used (Godinez et al. 2017, section 2.4). "SET,BINNING" bins pixels: "bbbc016,4" sees fields of 128 x 128.
The images were not at hand: these configs were run on simulated releases alone.
"""

from ml_collections import ConfigDict

from configs.mcnn import base

STEPS = {"bbbc014": ((1, 2), (11, 12)), "bbbc015": ((1, 2), (11, 12)), "bbbc016": ((0, 1), (10, 11))}
PUBLISHED = {  # median, standard deviation: M-CNN, AlexNet, GoogLeNet
    "bbbc014": ((100.0, 14.0), (50.0, 4.0), (50.0, 4.0)),
    "bbbc015": ((100.0, 0.0), (50.0, 0.0), (50.0, 7.0)),
    "bbbc016": ((100.0, 0.0), (50.0, 0.0), (50.0, 24.0)),
}


def get_config(arguments: str = "bbbc014") -> ConfigDict:
    """`arguments` is a set, and perhaps how many pixels are binned."""
    name, _, binning = arguments.partition(",")
    if name not in STEPS:
        raise ValueError(f"set {name!r}: choose one of {tuple(STEPS)}")
    config = base.get_config()
    config.run = arguments
    config.data.classes = tuple(
        (phenotype, " OR ".join(f"Metadata_dose_step = {step}" for step in steps))
        for phenotype, steps in zip(("neutral", "positive"), STEPS[name], strict=True)
    )
    config.data.fields_per_well = 0 if name == "bbbc014" else 1
    config.preprocess.binning = int(binning or 1)
    config.optimizer.learning_rate = 3e-3
    config.response.phenotype = "positive"
    config.report.title = f"{name.upper()}: neutral or positive"
    config.report.published = ConfigDict(dict(zip(base.NETWORKS, PUBLISHED[name], strict=True)))
    return config
