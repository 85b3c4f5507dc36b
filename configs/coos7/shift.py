"""DeepLoc on COOS-7 with one of the methods that are known to help under covariate shift.

    python experiments/train.py --config=configs/coos7/shift.py:mixup --workdir=runs/mixup \
        --config.data.directory=data/coos7/uint16/1.1.0

illumination      exposure, brightness and contrast of each channel vary at random in training
mixup             blends of two images and of their labels (Zhang et al. 2018), shares of Beta(0.2, 0.2)
label_smoothing   a tenth of every label is spread over all classes (Szegedy et al. 2016)
coral             features with the same mean and covariance on every plate (Sun & Saenko 2016)

Batch-norm statistics of the judged images need no training: `evaluate.py --statistics=set`. Settings are the ones that
their authors use or recommend, chosen before any test set was looked at. Not yet run on the real COOS-7.
"""

from ml_collections import ConfigDict

from configs.coos7 import modern

METHODS = ("plain", "illumination", "mixup", "label_smoothing", "coral")
TITLES = {
    "plain": "plain network",
    "illumination": "illumination augmentation",
    "mixup": "mixup",
    "label_smoothing": "label smoothing",
    "coral": "CORAL",
}


def apply(config: ConfigDict, method: str) -> ConfigDict:
    """The config with one of the methods, and its name."""
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; choose one of {METHODS}")
    if method == "illumination":
        config.augment.gain_spread = 0.3
        config.augment.brightness = 0.1
        config.augment.contrast = 0.3
    if method == "mixup":
        config.mixup = 0.2
    if method == "label_smoothing":
        config.label_smoothing = 0.1
    if method == "coral":
        config.alignment.weight = 1.0
    config.run = TITLES[method]
    return config


def get_config(method: str = "illumination") -> ConfigDict:
    """The modern config with one of the methods."""
    return apply(modern.get_config(), method)
