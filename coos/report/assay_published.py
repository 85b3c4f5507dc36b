"""What Hofmarcher et al. 2019 print about their networks: Tables 1 to 3."""

from typing import NamedTuple

SOURCE = "Hofmarcher et al. 2019, End-to-end learning of pharmacological assays from high-resolution microscopy images"
NUM_ASSAYS = 209
DEVICE = "Nvidia GTX 1080 Ti"
TRAINING_VIEWS = 198_609
VIEW = "520×696×5"  # what their code reads; the paper says 692×520 and four channels


class Scores(NamedTuple):
    """A row of Table 1; the mean and standard deviation over 209 assays of AUC and F1, assays above each AUC."""

    kind: str
    auc: float
    auc_std: float
    f1: float
    f1_std: float
    above: tuple[int, int, int]  # 0.9, 0.8, 0.7


SCORES = {
    "MIL-Net": Scores("end-to-end", 0.726, 0.20, 0.485, 0.36, (66, 86, 109)),
    "ResNet": Scores("end-to-end", 0.722, 0.21, 0.516, 0.32, (69, 88, 119)),
    "GapNet": Scores("end-to-end", 0.721, 0.22, 0.532, 0.32, (61, 95, 116)),
    "DenseNet": Scores("end-to-end", 0.718, 0.22, 0.536, 0.33, (60, 100, 119)),
    "M-CNN": Scores("end-to-end", 0.709, 0.21, 0.482, 0.32, (57, 80, 108)),
    "SC-CNN": Scores("cell-centric", 0.695, 0.22, 0.371, 0.30, (57, 82, 109)),
    "FNN": Scores("cell-centric", 0.677, 0.22, 0.372, 0.33, (57, 72, 90)),
}

# Table 2: trainable parameters and seconds per epoch on a GTX 1080 Ti.
COSTS = {
    "GapNet": (3_694_545, 662.04),
    "MIL-Net": (726_180, 1344.18),
    "M-CNN": (11_230_929, 4252.47),
    "DenseNet": (7_174_353, 8519.91),
    "ResNet": (42_934_673, 13208.64),
}

# Table 3: one-sided p-values of the paired Wilcoxon test that the column outperforms the row, {column: by row}.
WILCOXON = {
    "MIL-Net": (3.50e-01, 2.49e-01, 1.61e-01, 3.75e-04, 2.02e-07, 7.67e-12),
    "ResNet": (5.34e-01, 1.52e-01, 7.18e-03, 5.32e-06, 7.11e-07),
    "GapNet": (2.09e-01, 4.07e-02, 4.98e-06, 2.40e-05),
    "DenseNet": (1.54e-01, 6.98e-04, 6.29e-04),
    "M-CNN": (1.65e-02, 1.08e-06),
    "SC-CNN": (1.61e-02,),
}
WILCOXON_ROWS = ("ResNet", "GapNet", "DenseNet", "M-CNN", "SC-CNN", "FNN")
