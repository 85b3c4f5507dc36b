"""BBBC013: does FKHR-GFP stand in the cytoplasm or in the nucleus? Wortmannin and LY294002, one plate.

    python experiments/phenotypes.py --config=configs/mcnn/bbbc013.py --config.data.directory=DIR --workdir=runs/bbbc013
    python experiments/phenotypes.py --config=configs/mcnn/bbbc013.py:small --config.data.directory=DIR --workdir=...

Controls and the lowest and highest doses: 24 neutral and 16 positive wells, of which two each are held out, 50 times.
Published: M-CNN 100 (0), AlexNet 50 (0), GoogLeNet 50 (7) %. Where all predictions of a balanced test set are one class
the accuracy is 50: that is what the two figures of 50 say.

":small" bins 5 x 5 pixels (fields of 128 x 128) and halves the widths of AlexNet and GoogLeNet; M-CNN keeps its
own. Two CPU cores need 17 to 26 minutes for each network.

The rate is chosen on training fields alone: of 0.001, 0.003 and 0.01 it is the one with which M-CNN's mean training
loss in the last epoch of the first two repeats is lowest (small: 0.050, 0.003, 0.081). The same serves all networks,
as in the paper. The command prints those losses as well:

    for rate in 0.001 0.003 0.01; do
      python experiments/phenotypes.py --config=configs/mcnn/bbbc013.py:small --config.data.directory=DIR \
          --workdir=runs/rate_$rate --config.networks="('mcnn',)" --config.protocol.repeats=2 --config.soft=False \
          --config.response.phenotype= --config.optimizer.learning_rate=$rate
    done
"""

from ml_collections import ConfigDict

from configs.mcnn import base

LOWEST, HIGHEST = 1, 9


def get_config(size: str = "full") -> ConfigDict:
    """`size` is "full" (640 x 640 pixels, wants a GPU) or "small" (128 x 128)."""
    if size not in ("full", "small"):
        raise ValueError(f"size {size!r}: choose 'full' or 'small'")
    config = base.get_config()
    config.run = f"bbbc013-{size}"
    config.data.classes = (
        ("neutral", f"Metadata_control = 'negative' OR Metadata_dose_step = {LOWEST}"),
        ("positive", f"Metadata_control = 'positive' OR Metadata_dose_step = {HIGHEST}"),
    )
    config.response.phenotype = "positive"
    config.report.title = "BBBC013: cytoplasm or nucleus"
    config.report.published = ConfigDict(
        {"mcnn": (100.0, 0.0), "alexnet": (50.0, 0.0), "googlenet": (50.0, 7.0)}
    )
    config.optimizer.learning_rate = 3e-3
    if size == "small":
        config.preprocess.binning = 5
        config.report.layers.mcnn = ("scale1_conv1", "scale2_conv1")
        config.options.alexnet.width = 32
        config.options.googlenet.width = 32
    return config
