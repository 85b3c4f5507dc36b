"""BBBC021: mechanisms of left-out compounds, with a normalization that did not see their labels.

    python experiments/mechanisms.py --config=configs/bbbc021/mechanisms.py --config.data=FOLDER \
        --workdir=runs/bbbc021-mechanisms
    python experiments/mechanisms.py --config=configs/bbbc021/mechanisms.py --config.data=FOLDER \
        --predictions=FOLDS --workdir=runs/bbbc021-network

`data` is that of `profiles.py`. The first command takes the published CellProfiler profiles and needs 35 to 50
seconds on two cores; the second takes what networks, trained without one compound after the other, predict for its
fields. Expected of the first, right calls of 103 treatments (NSC) and of the 92 with a match in another week (NSCB):
standardized 85 and 67; chosen by replicates 90 and 66 (share of pairs) or 93 and 70 (average precision); nested 89.8
and 66.5, and 53.2 if chosen by NSCB; the best of the grid, picked on the judged labels, 94 and 70.

The grid: per-plate scaling, and sphering on DMSO wells with every power of ten from 1e-6 to 1 as epsilon, of raw
features or of scaled ones, of all or of those that `select` keeps. Everything is learned from DMSO wells.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.bbbc021 import profiles

BY_PLATE = {"reference": profiles.DMSO, "by": "Metadata_Plate"}
SELECT = {
    "reference": profiles.DMSO,
    "operations": ("drop_na_columns", "minimum_variance", "correlation_threshold"),
}
EXPONENTS = range(-6, 1)


def sphering(method: str, exponent: int) -> dict[str, Any]:
    """Options of a step that spheres on all DMSO wells."""
    return {"kind": "spherize", "reference": profiles.DMSO, "method": method, "epsilon": 10.0**exponent}


def grid() -> dict[str, dict[str, Any]]:
    """Settings by name, simplest first: each has `steps` and their options."""
    scaled = {"standardize": BY_PLATE}
    found: dict[str, dict[str, Any]] = {
        "standardize": {"steps": ("standardize",), **scaled},
        "mad_robustize": {"steps": ("mad_robustize",), "mad_robustize": BY_PLATE},
        "standardize, select": {"steps": ("standardize", "select"), **scaled, "select": SELECT},
    }
    for k in reversed(EXPONENTS):
        sphered = {"ZCA": sphering("ZCA", k), "PCA": sphering("PCA", k), "ZCA-cor": sphering("ZCA-cor", k)}
        found[f"sphere 1e{k}"] = {"steps": ("sphere",), "sphere": sphered["ZCA-cor"]}
        for method in ("ZCA", "PCA"):
            name = f"standardize, {method} 1e{k}"
            found[name] = {"steps": ("standardize", "sphere"), **scaled, "sphere": sphered[method]}
        found[f"standardize, select, ZCA 1e{k}"] = {
            "steps": ("standardize", "select", "sphere"),
            **scaled,
            "select": SELECT,
            "sphere": sphered["ZCA"],
        }
    return found


def get_config() -> ConfigDict:
    """Where profiles come from, the grid of normalizations, and what stands beside the numbers."""
    config = profiles.get_config()
    config.task = "mechanisms"
    config.run = "mechanisms"
    config.before = ("require_unique", "treatments", "weeks")
    config.after = ("consensus", "mechanisms")
    config.settings = grid()
    config.fixed = {"standardize": "fixed", "sphere 1e-2": "judged"}
    config.reference = "standardize"
    config.protocols = {
        "NSC": ("Metadata_compound",),
        "NSCB": ("Metadata_compound", "Metadata_week"),
    }
    config.controls = profiles.DMSO
    config.treatment = ("Metadata_compound", "Metadata_concentration")
    config.published_accuracies = (
        ("standardized CellProfiler means, NSC", 0.82, "Ljosa et al. 2013, 103 treatments"),
        (
            "M-CNN, compound left out",
            96 / 103,
            "Godinez et al. 2017, section 3.3: seven treatments are wrong",
        ),
        ("deep auto-encoder on features", 0.77, "Kandaswamy et al. 2016, as cited by Godinez et al. 2017"),
    )
    config.published_spreads = (
        ("M-CNN", 1.00, 0.13),
        ("GoogLeNet", 0.86, 0.30),
        ("AlexNet", 0.65, 0.31),
        ("benchmark (Ljosa et al. 2013)", 0.97, 0.09),
    )
    return config
