"""LINCS Cell Painting: from features to consensus profiles, every pipeline of Bornholdt 2021, tables 4.2 to 4.4.

    python experiments/profile.py --config=configs/lincs/profiles.py:pretrained/spherize --workdir=runs/pretrained \
        --config.data=features/pretrained --config.metadata=lincs-cell-painting/metadata
    python experiments/strong_phenotypes.py --profiles=runs/pretrained --count=450 --out=strong.txt
    python experiments/retrieve.py --profiles=runs/pretrained --out=reports/pretrained \
        --subset=top50=top:50 --subset=strong=strong.txt

`data` is a folder that experiments/extract.py wrote (wells, made by the median over cells), a folder of DeepProfiler
(single cells, `<plate>/<well>/<site>.npz`) or, for `cellprofiler/...`, a pattern of annotated well profiles (level 3 of
broadinstitute/lincs-cell-painting, `.../*_augmented.csv.gz`). `metadata` holds `barcode_platemap.csv`,
`platemap/*.txt` and `repurposing_info_external_moa_map_resolved.tsv`; that of a simulated release is its folder
`metadata`.

The name after the colon is a row of a table. Published scores are in `PIPELINES`; the features behind them are
not public, so none of them has been reproduced here. Selection: 10 µM, mechanism known and shared by two
compounds (1,143 compounds, 234 mechanisms). Wells: median over cells. Normalization: per plate on its DMSO wells;
sphering: on all DMSO wells, ZCA-cor, eigenvalues clipped at 1e-6, covariance divided by n, as the pycytominer of
2021 did it. Consensus: median per compound.
"""

from ml_collections import ConfigDict

DMSO = "Metadata_broad_sample = 'DMSO'"
LEVELS = (0.04, 0.12, 0.37, 1.11, 3.33, 10.0, 20.0)

ANNOTATE = ("barcodes", "plate_maps", "controls", "mechanisms")
CHOOSE = ("dose", "one_dose", "shared")

# name: steps between the choice of wells and the consensus, steps after it, (odds ratio at 99.5 %, precision@R)
PIPELINES = {
    "cellprofiler/spherize": (("drop_missing", "mad_robustize", "select", "spherize"), (), (11.75, 0.056)),
    "cellprofiler/spherize_outliers": (
        ("drop_missing", "mad_robustize", "select", "spherize"), ("outliers",), (11.95, 0.056)),
    "cellprofiler/mad_robustize_outliers": (
        ("drop_missing", "mad_robustize", "select"), ("outliers",), (13.48, 0.067)),
    "pretrained/none": ((), (), (1.94, 0.0412)),
    "pretrained/robustize_all": (("robustize_all",), (), (5.14, 0.0496)),
    "pretrained/robustize": (("robustize",), (), (5.77, 0.0498)),
    "pretrained/mad_robustize": (("mad_robustize",), (), (5.54, 0.0497)),
    "pretrained/mad_robustize_select": (("mad_robustize", "select"), (), (5.91, 0.0473)),
    "pretrained/standardize": (("standardize",), (), (6.32, 0.0495)),
    "pretrained/mad_robustize_spherize": (("mad_robustize", "spherize"), (), (15.45, 0.0722)),
    "pretrained/standardize_spherize": (("standardize", "spherize"), (), (15.45, 0.0722)),
    "pretrained/spherize": (("spherize",), (), (15.45, 0.0722)),
    "pretrained/mad_robustize_select_spherize": (("mad_robustize", "select", "spherize"), (), (16.18, 0.0736)),
    "trained/none": ((), (), (3.73, 0.0416)),
    "trained/mad_robustize_select": (("mad_robustize", "select"), (), (3.99, 0.0413)),
    "trained/robustize_all": (("robustize_all",), (), (5.14, 0.0440)),
    "trained/robustize": (("robustize",), (), (5.64, 0.0444)),
    "trained/mad_robustize": (("mad_robustize",), (), (5.36, 0.0441)),
    "trained/standardize": (("standardize",), (), (7.11, 0.0464)),
    "trained/mad_robustize_select_spherize": (("mad_robustize", "select", "spherize"), (), (12.1, 0.0413)),
    "trained/mad_robustize_spherize": (("mad_robustize", "spherize"), (), (13.37, 0.0525)),
    "trained/standardize_spherize": (("standardize", "spherize"), (), (13.37, 0.0525)),
    "trained/spherize": (("spherize",), (), (13.37, 0.0525)),
}  # fmt: skip

# Table 4.19: odds ratio at 99.5 % before and after sphering, and batch enrichment of the controls before and after
BEFORE_AFTER = {
    "low-performing model, augmentation off": (3.64, 9.76, 23097, 72),
    "low-performing model, augmentation on": (3.60, 12.89, 3277, 63),
    "high-performing model, augmentation off": (2.61, 15.11, 11493, 61),
    "high-performing model, augmentation on": (4.0, 16.17, 4588, 55),
    "pretrained baseline": (1.94, 15.45, 1056, 0.9),
}


def get_config(pipeline: str = "pretrained/spherize") -> ConfigDict:
    """The pipeline of one row of tables 4.2 (cellprofiler/...), 4.3 (pretrained/...) or 4.4 (trained/...)."""
    if pipeline not in PIPELINES:
        raise ValueError(f"no pipeline {pipeline!r}; available: {', '.join(PIPELINES)}")
    normalization, afterwards, (odds_ratio, precision_at_r) = PIPELINES[pipeline]
    from_cells = not pipeline.startswith("cellprofiler")
    config = ConfigDict()
    config.study = "lincs"
    config.run = pipeline
    config.data = ""
    config.metadata = ""
    config.source = {"path": "{data}"}
    if from_cells:
        config.source.aggregate = {"method": "median"}
    config.steps = (
        "require_unique",
        *(ANNOTATE if from_cells else ()),
        *CHOOSE,
        *(step for name in normalization for step in (("varying", name) if name == "spherize" else (name,))),
        "consensus",
        *afterwards,
    )

    config.require_unique = {"by": ("Metadata_Plate", "Metadata_Well")}
    on_plate = {"reference": DMSO, "by": "Metadata_Plate"}
    config.barcodes = {
        "kind": "annotate",
        "path": "{metadata}/barcode_platemap.csv",
        "on": {"Metadata_Plate": "Assay_Plate_Barcode"},
    }
    config.plate_maps = {
        "kind": "annotate",
        "path": "{metadata}/platemap/*.txt",
        "on": {"Metadata_Plate_Map_Name": "plate_map_name", "Metadata_Well": "well_position"},
    }
    config.controls = {"kind": "fill", "column": "Metadata_broad_sample", "value": "DMSO"}
    config.mechanisms = {
        "kind": "annotate",
        "path": "{metadata}/repurposing_info_external_moa_map_resolved.tsv",
        "on": {"Metadata_broad_sample": "broad_sample"},
        "columns": ("pert_iname", "moa", "target"),
        "unmatched": "keep",
    }
    config.dose = {"kind": "nearest_dose", "column": "Metadata_mmoles_per_liter", "levels": LEVELS}
    config.one_dose = {"kind": "keep_rows", "query": f"Metadata_dose_level = 6 OR {DMSO}"}
    config.shared = {
        "kind": "keep_shared",
        "label": "Metadata_moa",
        "unit": "Metadata_broad_sample",
        "keep": DMSO,
        "save": "level3",
    }
    config.drop_missing = {"cutoff": 0.0}
    config.mad_robustize = dict(on_plate)
    config.robustize = dict(on_plate)
    config.robustize_all = {"kind": "robustize", "by": "Metadata_Plate"}
    config.standardize = dict(on_plate)
    config.select = {"operations": ("variance_threshold", "correlation_threshold", "drop_na_columns")}
    # A feature that is the same in all controls, such as a saturated maximum, has no correlation with any other.
    config.varying = {"kind": "minimum_variance", "min_variance": 0.0, "reference": DMSO}
    config.spherize = {"reference": DMSO, "method": "ZCA-cor", "epsilon": 1e-6, "ddof": 0}
    if normalization:
        config[normalization[-1]].save = "level4"
    config.consensus = {"by": "Metadata_broad_sample", "method": "median"}
    config.outliers = {"kind": "drop_outliers", "cutoff": 40.0}

    config.retrieval = {
        "label": "Metadata_moa",
        "similarity": "pearson",
        "unlabelled": "enrichment",  # the DMSO row is left out of rankings, not out of pairs, as in the thesis
        "controls": DMSO,
        "batch": "Metadata_Batch_Number",
    }
    config.published = {"odds_ratio": odds_ratio, "precision_at_r": precision_at_r}
    config.published_before_after = {
        name: dict(
            zip(("odds_ratio_before", "odds_ratio_after", "batch_before", "batch_after"), row, strict=True)
        )
        for name, row in BEFORE_AFTER.items()
    }
    config.published_source = "Bornholdt 2021, tables 4.2 to 4.4 and 4.19"
    return config
