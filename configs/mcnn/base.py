"""What all studies of whole fields share; every config starts from this one and changes a few fields.

The paper prints no solver: 18 epochs of stochastic gradient descent with weight decay, the same for all networks
and sets; rate, momentum, decay, batch and augmentation are in a supplement that we do not have. Momentum 0.9 and
decay 5e-4 are Caffe's customary values, and those of the only M-CNN whose settings are printed (Hofmarcher et al.
2019). Rate, batch and the number of augmented copies are ours.
"""

from ml_collections import ConfigDict

NETWORKS = ("mcnn", "alexnet", "googlenet")
POSITIVE = "positive"


def get_config() -> ConfigDict:
    """Settings of a study; override any of them on the command line, --config.optimizer.learning_rate=0.001."""
    config = ConfigDict()
    config.study = "mcnn"
    config.task = "phenotypes"
    config.run = "mcnn"
    config.networks = NETWORKS
    config.seed = 0
    config.num_epochs = 18
    config.batch_size = 4
    config.accumulation_steps = 1
    config.steps_per_dispatch = 0  # 0: 1 on a CPU, 50 on accelerators
    config.checkpoint_every = 0  # steps; 0: a fold that was stopped begins again
    config.soft = True  # train on all labelled fields and look at all fields

    config.data = ConfigDict()
    config.data.directory = ""  # as printed by experiments/build.py
    config.data.cache_dir = ""  # "": inside the directory
    config.data.store = "auto"
    config.data.mode = "auto"  # "resident", "stream" or "auto"
    config.data.where = ""  # a query; fields that do not match have no class
    config.data.target = ""  # the column whose values are the classes
    config.data.classes = ()  # or pairs of a class and the query that its fields match
    config.data.fields_per_well = 0  # of every well only so many fields, drawn at random; 0: all
    config.data.wells_per_treatment = 0  # of every compound and concentration only so many wells; 0: all
    config.data.control_wells = 0  # of the negative controls only so many wells altogether; 0: all

    config.protocol = ConfigDict()
    config.protocol.name = "hold_out"  # "leave_one_out", or "none" for `soft` alone
    config.protocol.group = "Metadata_Well"  # what is held out together
    config.protocol.fraction = 0.9  # of the groups of every class that train
    config.protocol.repeats = 50

    config.preprocess = ConfigDict()
    config.preprocess.intensity = (
        "standardize"  # by the training fields; "controls": by those of the plate; "unit"
    )
    config.preprocess.binning = 1  # means of blocks of so many pixels

    config.augment = ConfigDict()
    config.augment.flips = True  # mirrored and turned: eight views of a square field, four of another
    config.augment.copies = 1  # times that an epoch shows every field

    config.model = ConfigDict()
    config.model.name = "mcnn"
    config.model.dtype = "float32"
    config.model.cross_device_norm = False  # every fold has a device of its own
    config.options = ConfigDict(  # of the networks, beside those that all have; these are the published ones
        {
            "mcnn": {"widths": (16, 16, 16, 32, 32, 32, 64), "mix_units": 1024, "fc_units": 512},
            "alexnet": {"width": 64},
            "googlenet": {"width": 64},
        }
    )

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "flat"
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-4
    config.optimizer.clip_norm = 0.0

    config.evaluation = ConfigDict()
    config.evaluation.batch_size = 4

    config.response = ConfigDict()
    config.response.phenotype = ""  # the class whose probability is the response; "": no EC50
    config.response.treatments = ()  # compounds whose probabilities of all classes are drawn

    config.report = ConfigDict()
    config.report.title = ""
    config.report.published_source = "Godinez et al. 2017, Table 1: median (SD) of the accuracy in %"
    config.report.published = ConfigDict()
    config.report.layers = ConfigDict(
        {"mcnn": ("scale1_conv1", "scale8_conv1")}
    )  # whose kernel maps are shown
    return config
