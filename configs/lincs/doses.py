"""Train on one dose, judge on the others: `--config=configs/lincs/doses.py:6` (Bornholdt 2021, sections 5.8.3, 5.12).

The thesis asks for it and reports no figure: replicates of a well stand in the same place of their plates, so that
accuracy on other cells of the same dose may be that of the position. Another dose of a compound stands elsewhere.
"""

from ml_collections import ConfigDict

from configs.lincs import base

DOSES = (0.04, 0.12, 0.37, 1.11, 3.33, 10.0)  # uM, levels 1 to 6


def get_config(level: str = "6") -> ConfigDict:
    """Level 1 (0.04 uM) to 6 (10 uM) for training; the sets "dose_1" ... "dose_6" are the others."""
    levels = [str(number) for number in range(1, len(DOSES) + 1)]
    if level not in levels:
        raise ValueError(f"no dose level {level!r}; available: {', '.join(levels)}")
    config = base.get_config()
    config.run = f"dose_{level}"
    config.data.where = f"Metadata_dose_level = {level} AND Metadata_broad_sample <> 'DMSO'"
    others = {f"dose_{other}": f"Metadata_dose_level = {other}" for other in levels if other != level}
    config.evaluation.queries = ConfigDict(others)
    config.evaluation.sets = ("validation", *others)
    return config
