"""The trainings of Bornholdt 2021, appendix B, by their ID: `--config=configs/lincs/experiments.py:1008`.

Published results; odds ratio of same-mechanism pairs above the 99.5th percentile and precision@R of sphered profiles,
accuracy of single cells in training and in validation (`-`: not printed; out-SP: compounds without strong phenotype):

    ID       odds ratio  precision@R  training  validation   table
    813      -           -            0.991     0.189        4.20 (data-split one)
    827      13.26       0.0490       0.983     0.327        4.10, 4.20 (8 epochs 10.21, 0.0473; 16 12.42, 0.0474)
    910      10.62       0.045        0.967     0.170        4.6 (cosine)
    913      8.68        0.046        0.981     0.152        4.6 (flat)
    917      9.71        0.045        0.922     0.313        4.7, 4.8
    918      11.48       0.052        0.985     0.342        4.8, 4.9
    921      13.269      0.0596       -         -            4.16 (out-SP, table 4.15: 4.644, 0.0269)
    925      14.67       0.060        0.986     0.296        4.8
    926      12.213      0.0535       -         -            4.16 (out-SP, table 4.15: 3.996, 0.0233)
    927      12.58       0.053        0.995     0.331        4.7, 4.9
    929      8.88        0.043        0.783     0.297        4.7
    930      11.17       0.0573       0.989     0.275        4.11
    931      13.48       0.0590       0.995     0.269        4.11
    1008     9.76        0.0525       0.936     0.665        4.12, 4.13, 4.18, 4.19 (13.37, 0.0525 in 4.4)
    1009     10.01       0.0510       0.871     0.646        4.12
    1010     12.89       0.0557       0.788     0.637        4.13, 4.19
    1012     11.90       0.0550       0.755     0.640        4.12
    1016     9.42        0.0493       0.919     0.649        4.12
    1019     10.77       0.0517       0.952     0.782        4.18
    1020     11.79       0.0559       0.979     0.904        4.18
    1021     15.117      0.0602       0.9777    0.7237       4.17, 4.20
    1024     15.785      0.0615       0.9614    0.6549       4.17
    1028     16.180      0.0701       0.8768    0.6372       4.14 (4.19: 16.17)
    1101     15.11       -            -         -            4.19
    1103     16.350      0.0694       0.9365    0.6511       4.14
    1105     15.339      0.0582       0.8947    0.6316       4.14
    random   10.117      0.0481       -         -            A.2 (the same from ImageNet weights: 15.118, 0.0615)

None of it has been reproduced here: neither the images of the 136 plates nor the features are at hand.

Where appendix B contradicts the tables that show its results, the tables are followed: 910 and 913 were trained at
0.005 (appendix: 0.02); 927 at 0.02 and 929 at 0.002 (appendix: the other way round); 918 and 925 at 0.005 (appendix:
0.02, but table 4.9 says 0.005 for 918, and table 4.8 varies the batch size of 917 alone). 1016 is one of a row of
label smoothings that otherwise share 30 epochs and 0.02 (appendix: 12-20 epochs, 0.002). Table 4.19 calls 1028
"augmentation off" and 1101 "on"; appendix B and table 4.14 say the contrary, and are followed. TD6 and TD7 of 1019
and 1020 are the TD4.1 and TD4.2 of the list of training data. "random" has no entry in the appendix; its settings
are those of 1021, whose result it quotes. 813 is data-split one (table 4.20) on the compounds of TD1.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.lincs import base

# "Train: cells from three batches. Test: cells from 2 sites from one batch": replicates 3 to 5, and 1 (section 4.8.3).
REPLICATES = {"split": "replicates", "validation_sites": 2}
TRAINING_DATA: dict[str, dict[str, Any]] = {
    "TD1": {**REPLICATES, "classes": "top:50"},
    "TD2": REPLICATES,
    "TD3": {**REPLICATES, "classes": "strong_phenotypes.txt"},  # of experiments/strong_phenotypes.py
    "TD4": {"classes": "random:450", "training_cells": 456_533},
    "TD4.1": {"classes": "random:450", "training_cells": 911_042},
    "TD4.2": {"classes": "random:450", "training_cells": 2_267_640},
    "TD5": {"training_cells": 534_166},
}

FLAT = {"optimizer.schedule": "flat"}
AUGMENTED = {"augmented": True}
STEPS = {
    "optimizer.schedule": "step",
    "optimizer.boundaries": (10, 20, 25),
    "optimizer.rates": (0.01, 0.005, 0.002),
}

# ID: training data, epochs, batch size, learning rate, everything else that is not as in base.py
EXPERIMENTS: dict[str, tuple[str, int, int, float, dict[str, Any]]] = {
    "813": ("TD1", 24, 64, 0.02, {"data.split": "wells"}),
    "827": ("TD1", 25, 256, 0.02, {"keep_checkpoints": 25}),
    "910": ("TD1", 30, 256, 0.005, {}),
    "913": ("TD1", 30, 256, 0.005, FLAT),
    "917": ("TD1", 30, 256, 0.005, {}),
    "918": ("TD1", 20, 64, 0.005, {}),
    "921": ("TD2", 25, 64, 0.02, {}),
    "925": ("TD1", 20, 32, 0.005, {}),
    "926": ("TD3", 20, 64, 0.02, {}),
    "927": ("TD1", 30, 256, 0.02, {}),
    "929": ("TD1", 30, 256, 0.002, {}),
    "930": ("TD1", 12, 256, 0.01, FLAT),
    "931": ("TD1", 8, 256, 0.002, {**FLAT, "start_from": "runs/930"}),  # epochs 13 to 20 of what 930 began
    "1008": ("TD4", 30, 256, 0.02, {}),
    "1009": ("TD4", 30, 256, 0.02, {"label_smoothing": 0.2}),
    "1010": ("TD4", 30, 256, 0.02, AUGMENTED),
    "1012": ("TD4", 30, 256, 0.02, {"label_smoothing": 0.1}),
    "1016": ("TD4", 30, 256, 0.02, {"label_smoothing": 0.05}),
    "1019": ("TD4.1", 30, 256, 0.02, {}),
    "1020": ("TD4.2", 30, 256, 0.02, {}),
    "1021": ("TD4", 30, 64, 0.02, {}),
    "1024": ("TD5", 30, 64, 0.02, {}),
    "1028": ("TD5", 30, 64, 0.04, {**AUGMENTED, "label_smoothing": 0.1}),
    "1101": ("TD5", 30, 32, 0.02, {}),
    "1103": ("TD5", 30, 32, 0.02, STEPS),
    "1105": ("TD5", 30, 64, 0.04, AUGMENTED),
    "random": ("TD4", 30, 64, 0.02, {"start_from": ""}),
}

# ID: odds ratio, precision@R, of sphered consensus profiles
PUBLISHED = {
    "827": (13.26, 0.0490), "910": (10.62, 0.045), "913": (8.68, 0.046), "917": (9.71, 0.045), "918": (11.48, 0.052),
    "921": (13.269, 0.0596), "925": (14.67, 0.060), "926": (12.213, 0.0535), "927": (12.58, 0.053),
    "929": (8.88, 0.043), "930": (11.17, 0.0573), "931": (13.48, 0.0590), "1008": (9.76, 0.0525),
    "1009": (10.01, 0.0510), "1010": (12.89, 0.0557), "1012": (11.90, 0.0550), "1016": (9.42, 0.0493),
    "1019": (10.77, 0.0517), "1020": (11.79, 0.0559), "1021": (15.117, 0.0602), "1024": (15.785, 0.0615),
    "1028": (16.180, 0.0701), "1103": (16.350, 0.0694), "1105": (15.339, 0.0582), "random": (10.117, 0.0481),
}  # fmt: skip


def get_config(experiment: str = "1008") -> ConfigDict:
    """The training with this ID."""
    if experiment not in EXPERIMENTS:
        raise ValueError(f"no experiment {experiment!r}; available: {', '.join(EXPERIMENTS)}")
    data, epochs, batch_size, rate, changes = EXPERIMENTS[experiment]
    config = base.get_config()
    config.run = experiment
    config.start_from = "weights/efficientnet_b0"  # of experiments/import_weights.py; see base.py
    config.num_epochs, config.batch_size = epochs, batch_size
    config.optimizer.learning_rate = rate
    config.data.update(TRAINING_DATA[data])
    if "augmented" in changes:
        config = base.augmented(config)
    if experiment in PUBLISHED:  # of the profiles that the network makes; kept with the run
        odds_ratio, precision_at_r = PUBLISHED[experiment]
        config.published = ConfigDict({"odds_ratio": odds_ratio, "precision_at_r": precision_at_r})
    config.update_from_flattened_dict({name: value for name, value in changes.items() if name != "augmented"})
    return config
