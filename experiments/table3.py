"""Representations x classifiers x sets (Lu et al. 2019, Table 3) and methods against covariate shift, in one command.

    python experiments/table3.py --config=configs/coos7/table3.py --workdir=runs/table3 \
        --config.data.directory=data/coos7/uint16/1.1.0 --config.features.vgg16.weights=weights/vgg16

Trains the networks, computes the features, fits the classifiers, judges everything on every set and writes a page. What
is finished is not done again: after a stop, or with more seeds, the same command does what is missing. Below the work
directory:

    networks/<network>/seed_<k>/                as train.py and evaluate.py write them
    adapted/<name>/seed_<k>/                    the same networks with batch-norm statistics of the judged images
    features/<source>/seed_<k>/<set>.parquet    a table for each set
    classifiers/<block>/<classifier>/seed_<k>/  predictions and the random search
    report/index.html                           the table beside the published one, and the rest
"""

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from coos import classifiers, console
from coos import workdir as work
from coos.data import source as sources
from coos.evaluators import adapted, trained
from coos.evaluators import features as judging
from coos.extract import cells
from coos.extract.cells import CellFeatures
from coos.report import inpainting
from coos.report import representations as report
from coos.train import loop, run

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/coos7/table3.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for everything that is made.", required=True)
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Do nothing but write the page of what there is.")
flags.mark_flag_as_required("config")

IMPORT = (
    "import them with\n  python experiments/import_weights.py --network={network} --weights=keras "
    "--out=weights/{network}\nand give --config.features.{name}.weights=weights/{network}; or let it run with random "
    "weights, labelled so, with --config.features.{name}.untrained=True; or leave its blocks out of --config.table"
)


def network_config(config: ml_collections.ConfigDict, name: str, seed: int) -> ml_collections.ConfigDict:
    """The training config of a network of the study, on its data, with a seed."""
    own = config.networks[name].config.copy_and_resolve_references()
    with own.unlocked():
        own.seed, own.run = seed, config.networks[name].title
        own.data.directory, own.data.cache_dir = config.data.directory, config.data.cache_dir
        own.data.train_split, own.evaluation.sets = config.data.train_split, tuple(config.data.sets)
        own.report = config.report
    return own


def used_blocks(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
    """The blocks of the table by name, in its order; ValueError for one that the config does not describe."""
    unknown = [name for name in config.table if name not in config.blocks]
    if unknown or not config.table:
        raise ValueError(f"config.table={tuple(config.table)}: choose from {', '.join(config.blocks)}")
    return {name: config.blocks[name] for name in config.table}


def needed_networks(config: ml_collections.ConfigDict) -> list[str]:
    """Networks that blocks, shift methods and rows of the table need, in the order of the config."""
    of_features = {
        config.features[block.features].get("network_run") for block in used_blocks(config).values()
    }
    of_shift = {
        config.shift.plain,
        *config.shift.methods,
        *(a.network for a in config.shift.adapted.values()),
    }
    wanted = of_features | of_shift | set(config.end_to_end)
    return [name for name in config.networks if name in wanted]


def check(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The data set; ValueError for whatever cannot be right, before anything is computed."""
    if not config.data.directory:
        raise ValueError(
            "config.data.directory: say which built data set, as printed by experiments/build.py"
        )
    dataset = sources.describe(config.data.directory)
    if "class_names" not in dataset:
        raise ValueError(f"{config.data.directory}: has no classes; this study compares classifiers")
    for name in (config.data.train_split, *config.data.sets):
        if name not in dataset["splits"]:
            raise ValueError(f"config.data.sets: no {name!r}; the data set has {list(dataset['splits'])}")
    if config.report.reference not in config.data.sets:
        raise ValueError(f"config.report.reference={config.report.reference!r} is not in config.data.sets")
    unknown = [name for name in config.classifiers if name not in classifiers.CLASSIFIERS]
    if unknown:
        raise ValueError(
            f"config.classifiers: no {unknown[0]!r}; there are {', '.join(classifiers.CLASSIFIERS)}"
        )
    if not config.seeds:
        raise ValueError("config.seeds: give at least one")
    networks = [
        *config.shift.methods,
        *config.end_to_end,
        *([config.shift.plain] if config.shift.plain else []),
    ]
    for name in networks:
        if name not in config.networks:
            raise ValueError(f"no network {name!r}; config.networks has {', '.join(config.networks)}")
    for name, block in used_blocks(config).items():
        _check_weights(config, name, block.features)
    return dataset


def _check_weights(config: ml_collections.ConfigDict, block: str, name: str) -> None:
    features = config.features[name]
    if features.kind == "rgb" and not features.weights and not features.untrained:
        text = IMPORT.format(network=features.network, name=name)
        raise ValueError(f"block {block!r} needs weights of {features.network}: {text}")


def train(config: ml_collections.ConfigDict, name: str, seed: int, workdir: pathlib.Path) -> None:
    """Train and judge a network of the study, if that is not done."""
    own, folder = network_config(config, name, seed), network_folder(workdir, name, seed)
    done = folder / "finished.json"
    if not done.exists() or work.read_json(done) != work.plain(own.to_dict()):
        logging.info("network %s, seed %d", name, seed)
        if not run.train(own, folder):
            raise SystemExit("table3.py: stopped; the same command goes on")
        trained.evaluate(folder)
        work.write_json(done, work.plain(own.to_dict()))


def network_folder(workdir: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Where a network of the study lies."""
    return workdir / "networks" / name / f"seed_{seed}"


def adapted_folder(workdir: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Where a network judged with other batch-norm statistics lies."""
    return workdir / "adapted" / name / f"seed_{seed}"


def cell_features(
    config: ml_collections.ConfigDict, name: str, seed: int, workdir: pathlib.Path
) -> CellFeatures:
    """What is computed of a cell for a source of features."""
    settings = config.features[name]
    options = dict(settings.get("options", {}))
    if settings.kind == "texture":
        return cells.of_texture(**options)
    if settings.kind == "network":
        folder = network_folder(workdir, settings.network_run, seed)
        return cells.of_run(folder, parts=settings.parts, **options)
    if settings.weights:
        return cells.of_rgb(pathlib.Path(settings.weights).resolve(), parts=settings.parts)
    return cells.of_untrained_rgb(settings.network, parts=settings.parts, seed=seed, **options)


def features_folder(workdir: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Where the tables of a source of features lie."""
    return workdir / "features" / name / f"seed_{seed}"


def seeds_of(config: ml_collections.ConfigDict, name: str) -> tuple[int, ...]:
    """Seeds of a source of features: those of the study for networks, the first one for what has no seed."""
    settings = config.features[name]
    drawn = settings.kind == "network" or (settings.kind == "rgb" and not settings.weights)
    return tuple(config.seeds) if drawn else tuple(config.seeds)[:1]


def title_of(config: ml_collections.ConfigDict, block: ml_collections.ConfigDict) -> str:
    """The name of a block of the table; with random weights it says so."""
    settings = config.features[block.features]
    random = settings.kind == "rgb" and not settings.weights
    return f"{block.title} (untrained)" if random else block.title


def fits(config: ml_collections.ConfigDict) -> Iterator[tuple[str, str, int]]:
    """Every block, classifier and seed of the table."""
    for block, settings in used_blocks(config).items():
        for classifier in config.classifiers:
            for seed in seeds_of(config, settings.features):
                yield block, classifier, seed


def fit(
    config: ml_collections.ConfigDict,
    place: tuple[str, str, int],
    dataset: dict[str, Any],
    workdir: pathlib.Path,
) -> None:
    """Fit and judge one classifier on one block of features, if that is not done."""
    name, classifier, seed = place
    block = config.blocks[name]
    label = f"{title_of(config, block)}, {classifiers.CLASSIFIERS[classifier]}"
    judging.judge(
        features_folder(workdir, block.features, seed),
        fit_folder(workdir, place),
        parts=tuple(block.parts),
        classifier=classifier,
        train_split=config.data.train_split,
        sets=tuple(config.data.sets),
        dataset=dataset,
        record={"study": config.study, "run": label, "seed": seed, "report": config.report.to_dict()},
        options=config.classifiers[classifier].to_dict(),
    )


def fit_folder(workdir: pathlib.Path, place: tuple[str, str, int]) -> pathlib.Path:
    """Where a fitted classifier lies."""
    name, classifier, seed = place
    return workdir / "classifiers" / name / classifier / f"seed_{seed}"


def adapt(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Judge networks with batch-norm statistics of the judged images, where that is not done."""
    for name, settings in config.shift.adapted.items():
        for seed in config.seeds:
            folder, out = network_folder(workdir, settings.network, seed), adapted_folder(workdir, name, seed)
            adapted.evaluate(folder, out, by=settings.by, name=settings.title)


def make(config: ml_collections.ConfigDict, dataset: dict[str, Any], workdir: pathlib.Path) -> None:
    """Do everything that is missing but the page."""
    for name in needed_networks(config):
        for seed in config.seeds:
            train(config, name, seed, workdir)
    adapt(config, workdir)
    for name in dict.fromkeys(block.features for block in used_blocks(config).values()):
        for seed in seeds_of(config, name):
            folder = features_folder(workdir, name, seed)
            sets = tuple(dict.fromkeys((config.data.train_split, *config.data.sets)))
            found = cell_features(config, name, seed, workdir)
            cells.write(found, config.data.directory, sets, folder, cache_dir=config.data.cache_dir)
    for place in fits(config):
        logging.info("block %s, %s, seed %d", *place)
        fit(config, place, dataset, workdir)


def entries(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Iterator[report.Entry]:
    """The rows of the table."""
    for name in config.end_to_end:
        title = config.networks[name].title
        folders = tuple(network_folder(workdir, name, seed) for seed in config.seeds)
        yield report.Entry(title, "end to end", title, folders, f"{title}, end to end")
    for name, block in used_blocks(config).items():
        for classifier in config.classifiers:
            seeds = seeds_of(config, block.features)
            folders = tuple(fit_folder(workdir, (name, classifier, seed)) for seed in seeds)
            label = classifiers.CLASSIFIERS[classifier]
            known = f"{block.title}, {label}"
            yield report.Entry(title_of(config, block), label, block.method, folders, known)


def contents(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> report.Contents:
    """What the page shows, read back from the work directory."""
    shift = {}
    if config.shift.plain:
        for name in (config.shift.plain, *config.shift.methods):
            shift[config.networks[name].title] = [
                network_folder(workdir, name, seed) for seed in config.seeds
            ]
        for name, settings in config.shift.adapted.items():
            shift[settings.title] = [adapted_folder(workdir, name, seed) for seed in config.seeds]
    return report.Contents(config, tuple(entries(config, workdir)), shift, painted(config, workdir))


def painted(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Any:
    """A figure of what the first network that paints makes of cells of the reference set; None if there is none."""
    painting = [name for name in needed_networks(config) if config.networks[name].config.task == "inpainting"]
    if not painting:
        return None
    folder = network_folder(workdir, painting[0], config.seeds[0])
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder}: not made yet; run the study without --report_only")
    return inpainting.of_run(folder, set_name=config.report.reference)


def main(argv: list[str]) -> None:
    """Do what is missing, write the page and say where it is."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    config, workdir = _CONFIG.value, pathlib.Path(_WORKDIR.value).resolve()
    try:
        dataset = check(config)
        with work.locked(workdir):
            if not _REPORT_ONLY.value:
                make(config, dataset, workdir)
            page = report.write(workdir / "report", contents(config, workdir))
    except (ValueError, OSError, loop.NonFiniteLoss) as error:
        sys.exit(f"table3.py: {error}")
    print(page)


if __name__ == "__main__":
    app.run(main, flags_parser=console.parse_flags)
