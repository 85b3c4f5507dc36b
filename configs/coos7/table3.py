"""Lu et al. 2019, Table 3, in full, and methods against the shift below it.

    python experiments/import_weights.py --network=vgg16 --weights=keras --out=weights/vgg16
    python experiments/table3.py --config=configs/coos7/table3.py --workdir=runs/table3 \
        --config.data.directory=data/coos7/uint16/1.1.0 --config.features.vgg16.weights=weights/vgg16

Eight networks with three seeds each, which needs a GPU. `configs/coos7/table3.py:small` is narrow, short and without
weights, for a simulated release and two cores. No setting is chosen by a test set: networks keep the step that is best
on the validation part of the training cells, forests are chosen by cross-validation on the training cells. Not yet run
on the real COOS-7.
"""

from ml_collections import ConfigDict

from configs.coos7 import deeploc, pci, shift

SETS = ("training", "test1", "test2", "test3", "test4")
BLOCKS = (
    "deeploc_fc2",
    "texture",
    "pci_conv3",
    "pci_conv4",
    "pci_conv5",
    "vgg16_conv3_3",
    "vgg16_conv4_1",
    "vgg16_conv4_2",
)
PUBLISHED = {
    "DeepLoc, end to end": (1.2, 1.2, 1.5, 7.4, 5.4),
    "DeepLoc (FC2), kNN": (1.1, 1.3, 1.5, 6.9, 4.7),
    "DeepLoc (FC2), L1 logistic regression": (1.1, 1.1, 1.4, 7.7, 4.1),
    "DeepLoc (FC2), random forest": (0.0, 1.1, 1.4, 6.8, 5.0),
    "Texture, kNN": (10.4, 11.8, 11.2, 17.6, 25.6),
    "Texture, L1 logistic regression": (6.4, 6.8, 6.5, 12.0, 12.1),
    "Texture, random forest": (0.0, 7.3, 7.1, 16.4, 17.1),
    "PCI conv3, kNN": (2.2, 2.4, 2.7, 8.9, 8.0),
    "PCI conv3, L1 logistic regression": (1.0, 1.4, 1.7, 9.2, 7.4),
    "PCI conv3, random forest": (0.1, 2.1, 2.2, 11.0, 8.6),
    "PCI conv4, kNN": (2.1, 2.4, 2.5, 10.1, 7.8),
    "PCI conv4, L1 logistic regression": (1.6, 1.5, 1.9, 8.7, 6.0),
    "PCI conv4, random forest": (0.1, 2.5, 2.7, 10.7, 7.5),
    "PCI conv5, kNN": (2.6, 2.7, 2.9, 12.1, 8.9),
    "PCI conv5, L1 logistic regression": (2.5, 2.5, 2.6, 11.4, 5.7),
    "PCI conv5, random forest": (0.0, 2.5, 2.7, 10.8, 7.4),
    "VGG16 conv3_3, kNN": (6.8, 7.9, 8.2, 12.4, 10.0),
    "VGG16 conv3_3, L1 logistic regression": (5.7, 6.6, 6.9, 11.3, 9.3),
    "VGG16 conv3_3, random forest": (0.2, 9.5, 9.2, 15.9, 10.9),
    "VGG16 conv4_1, kNN": (6.5, 7.3, 7.6, 9.3, 8.4),
    "VGG16 conv4_1, L1 logistic regression": (3.1, 4.2, 4.1, 8.2, 6.7),
    "VGG16 conv4_1, random forest": (0.1, 7.5, 7.3, 11.3, 7.8),
    "VGG16 conv4_2, kNN": (6.6, 7.8, 7.8, 9.1, 8.4),
    "VGG16 conv4_2, L1 logistic regression": (2.8, 3.9, 3.9, 8.0, 6.8),
    "VGG16 conv4_2, random forest": (0.2, 7.4, 7.5, 10.2, 8.4),
}


def get_config(size: str = "published") -> ConfigDict:
    """The study as published, or "small"."""
    if size not in ("published", "small"):
        raise ValueError(f"no size {size!r}; choose 'published' or 'small'")
    config = ConfigDict()
    config.study = "coos7"
    config.task = "table3"  # of experiments/table3.py
    config.seeds = (0, 1, 2)
    config.data = ConfigDict({"directory": "", "cache_dir": "", "train_split": "training", "sets": SETS})
    config.networks = networks()
    config.features = features()
    config.blocks = blocks()
    config.table = BLOCKS  # which of them, in which order
    config.end_to_end = ("deeploc",)
    config.classifiers = classifiers()
    config.shift = ConfigDict()
    config.shift.plain = "plain"
    config.shift.methods = ("illumination", "mixup", "label_smoothing", "coral")
    config.shift.adapted = ConfigDict(
        {"set_statistics": {"network": "plain", "by": "set", "title": "batch statistics of the set"}}
    )
    config.shift.about = (
        "The same network, seeds and data; settings as their authors recommend, fixed beforehand. No test image was "
        "looked at, but for its batch statistics, without a label, where the name says so."
    )
    config.report = report()
    return small(config) if size == "small" else config


def networks() -> ConfigDict:
    """Configs of all networks: DeepLoc as its authors train it, PCI, and the modern DeepLoc with each method."""
    found = ConfigDict()
    found.deeploc = ConfigDict({"title": "DeepLoc", "config": deeploc.get_config()})
    found.pci = ConfigDict({"title": "PCI", "config": pci.get_config()})
    for method in shift.METHODS:
        found[method] = ConfigDict({"title": shift.TITLES[method], "config": shift.get_config(method)})
    return found


def features() -> ConfigDict:
    """Where features come from: their kind, its options, and the network and its layers."""
    found = ConfigDict()
    found.texture = ConfigDict({"kind": "texture"})
    found.deeploc = ConfigDict({"kind": "network", "network_run": "deeploc", "parts": ("fc2",)})
    found.pci = ConfigDict(
        {
            "kind": "network",
            "network_run": "pci",
            "parts": ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"),
        }
    )
    found.vgg16 = ConfigDict(
        {
            "kind": "rgb",
            "network": "vgg16",
            "weights": "",  # folder of experiments/import_weights.py
            "untrained": False,  # random weights, labelled so, where there are none
            "parts": ("conv3_3", "conv4_1", "conv4_2"),
            "options": {"fc_units": 1},  # of the untrained one: its dense layers are not used
        }
    )
    return found


def blocks() -> ConfigDict:
    """Blocks of the table: title, representation (whose best row is bold), features and the parts of them that count.

    Any other layer is one more block: give it to the features' `parts` too.
    """
    found = ConfigDict()

    def add(name: str, title: str, method: str, source: str, part: str) -> None:
        fields = {"title": title, "method": method, "features": source, "parts": (part,)}
        found[name] = ConfigDict(fields)

    add("deeploc_fc2", "DeepLoc (FC2)", "DeepLoc", "deeploc", "fc2")
    add("texture", "Texture", "Texture", "texture", "")
    for number in (3, 4, 5):
        add(f"pci_conv{number}", f"PCI conv{number}", "PCI", "pci", f"conv{number}_1")
    for layer in ("conv3_3", "conv4_1", "conv4_2"):
        add(f"vgg16_{layer}", f"VGG16 {layer}", "VGG16", "vgg16", layer)
    return found


def classifiers() -> ConfigDict:
    """Options of the three classifiers; C of the logistic regression is not published."""
    return ConfigDict(
        {
            "knn": {"k": 11},
            "l1_logistic_regression": {"C": 1.0},
            "random_forest": {"draws": 100, "folds": 5},
        }
    )


def report() -> ConfigDict:
    """Title, reference set and the published table."""
    found = ConfigDict()
    found.title = "COOS-7: representations, classifiers and covariate shift"
    found.reference = "test1"
    found.published_source = "Lu et al. 2019, Table 3"
    found.published = ConfigDict(
        {name: dict(zip(SETS, errors, strict=True)) for name, errors in PUBLISHED.items()}
    )
    return found


def small(config: ConfigDict) -> ConfigDict:
    """Narrow networks, few steps, small forests: for simulated cells and two cores."""
    for name, network in config.networks.items():
        own = network.config
        own.num_steps = 100 if name == "pci" else 150
        own.batch_size = 32 if name == "pci" else 64
        own.model.width = 6 if name == "pci" else 8
        own.model.momentum = 0.9  # running statistics must not remember the start of so short a training
        own.log_every, own.evaluate_every, own.checkpoint_every = 10, 50, 50
        own.evaluation.crops = 1
        if name != "pci":
            own.optimizer.warmup_steps = 20
    config.networks.pci.config.optimizer.learning_rate = 1e-3
    config.networks.pci.config.pairs.by = "class"  # a small release has few cells in a well
    config.seeds = (0,)
    config.features.vgg16.untrained = True
    config.features.vgg16.options.width = 16
    config.classifiers.random_forest.draws = 10
    config.classifiers.random_forest.folds = 3
    return config
