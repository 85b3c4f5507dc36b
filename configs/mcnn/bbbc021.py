"""BBBC021: the mechanism of a compound that was never seen, and of all compounds at all concentrations.

    python experiments/phenotypes.py --config=configs/mcnn/bbbc021.py:left_out --config.data.directory=DIR \
        --workdir=runs/bbbc021
    python experiments/mechanisms.py --config=configs/bbbc021/mechanisms.py --config.data=METADATA \
        --config.mechanisms.path=METADATA/BBBC021_v1_moa.csv \
        --predictions=runs/bbbc021/mcnn/folds --workdir=reports/bbbc021
    python experiments/phenotypes.py --config=configs/mcnn/bbbc021.py:everything --config.data.directory=DIR ...

":left_out": leave-one-compound-out, 38 folds, 12 mechanisms; the second command takes element-wise medians over
fields, then over replicates, and the largest. Published (Table 1, median (SD) of accuracies by mechanism): M-CNN
100 (13), AlexNet 65 (31), GoogLeNet 86 (30). ":everything": one network with 13 outputs, DMSO among them, looks at
all 13,200 fields (section 3.3, Figure 5b).

Intensities are scaled by the DMSO wells of the plate. Three wells of every treatment take part (0.3 uM taxol
stands in six wells of all 55 plates), and 116 DMSO wells for about the paper's 1,684 training fields; which ones
it took is not printed. The images were not at hand: these configs were run on simulated releases alone. Fields of
1024 x 1280 pixels want a GPU; ",8" bins 8 x 8 pixels.
"""

from ml_collections import ConfigDict

from configs.mcnn import base

MECHANISMS = (
    "Actin disruptors",
    "Aurora kinase inhibitors",
    "Cholesterol-lowering",
    "DNA damage",
    "DNA replication",
    "Eg5 inhibitors",
    "Epithelial",
    "Kinase inhibitors",
    "Microtubule destabilizers",
    "Microtubule stabilizers",
    "Protein degradation",
    "Protein synthesis",
)
SHOWN = ("floxuridine", "nocodazole", "alsterpaullone", "hydroxyurea")  # Figure 5b
PROTOCOLS = ("left_out", "everything")


def get_config(arguments: str = "left_out") -> ConfigDict:
    """`arguments` is a protocol, and perhaps how many pixels are binned."""
    protocol, _, binning = arguments.partition(",")
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r}: choose one of {PROTOCOLS}")
    config = base.get_config()
    config.run = f"bbbc021-{arguments}"
    config.batch_size = 32
    config.checkpoint_every = 200
    config.data.wells_per_treatment = 3
    config.preprocess.intensity = "controls"
    config.preprocess.binning = int(binning or 1)
    config.optimizer.learning_rate = 3e-3
    config.evaluation.batch_size = 16
    if protocol == "left_out":
        config.soft = False
        config.data.target = "Metadata_moa"
        config.protocol.name = "leave_one_out"
        config.protocol.group = "Metadata_compound"
    else:
        config.networks = ("mcnn",)
        config.protocol.name = "none"
        config.data.control_wells = 116
        config.data.classes = (
            *((name, f"Metadata_moa = '{name}'") for name in MECHANISMS),
            ("DMSO", "Metadata_control = 'negative'"),
        )
        config.response.treatments = SHOWN
    config.report.title = "BBBC021: mechanisms of action"
    return config
