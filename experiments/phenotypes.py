"""Phenotypes from whole fields: networks on many divisions, their accuracies, and concentration-response curves.

    python experiments/phenotypes.py --config=configs/mcnn/bbbc013.py:small --workdir=runs/bbbc013 \
        --config.data.directory=data/bbbc/bbbc013/1.0.0
    python experiments/phenotypes.py ... --config.networks="('mcnn',)" --config.protocol.repeats=5

Every network of `config.networks` is trained on every fold of `config.protocol` and tested on what the fold holds
out; the same command goes on where it was stopped, and adds networks, or repeats, to what is there. With `config.soft`
one more network sees all labelled fields and looks at all there are: the probability of `config.response.phenotype`
against the concentration gives curves and EC50. Then index.html shows all of it. Each device trains a fold of its own;
on a CPU there are as many as cores. `--worker=K --num_workers=N` shares folds out among processes or machines that see
one work directory.
"""

import os

if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):  # before JAX looks
    CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={CORES}"
    )
    os.environ.setdefault("PJRT_NPROC", str(4 * CORES))  # fewer threads than devices need may deadlock

import pathlib
import sys

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from coos import console
from coos.evaluators import phenotypes as evaluator
from coos.models import summary
from coos.report import phenotypes as report
from coos.train import folds, loop, phenotypes, record

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file of task 'phenotypes'.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the folds and the page.", required=True)
_WORKER = flags.DEFINE_integer("worker", 0, "Number of this process, from 0.", lower_bound=0)
_NUM_WORKERS = flags.DEFINE_integer("num_workers", 1, "Processes that share out the folds.", lower_bound=1)
flags.mark_flag_as_required("config")


def of_network(config: ml_collections.ConfigDict, network: str) -> ml_collections.ConfigDict:
    """The config of one of the networks: its name, and its own options beside those that all have."""
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.model.update({"name": network, **own.options.get(network, {})})
        own.run = f"{config.run}/{network}"
        for field in ("networks", "options", "response"):
            del own[field]
    return own


def train(
    config: ml_collections.ConfigDict, whole: ml_collections.ConfigDict, workdir: pathlib.Path
) -> evaluator.Trained:
    """Train what is missing of one network; returns its study and what was predicted.

    `config` is that of the network, `whole` that of the study.

    Raises:
        ValueError: a setting that cannot be right, or a work directory of another config or data set.
    """
    study = phenotypes.study(config)
    learner = phenotypes.make(config, study.source.dataset)
    shapes = summary.shapes(learner.model, learner.prepared_shape())["params"]
    report.check(whole, config.model.name, study, shapes)
    parameters = summary.count(shapes)
    own = config.copy_and_resolve_references()
    with own.unlocked():
        del own.protocol["repeats"]  # more of them may be added: the first stay as they are
    record.write(
        workdir,
        own,
        study.source.dataset,
        {},
        parameters=parameters,
        resuming=(workdir / "config.json").exists(),
    )
    missing = folds.train(config, study, workdir, worker=_WORKER.value, num_workers=_NUM_WORKERS.value)
    return evaluator.Trained(config, study, workdir, parameters, missing)


def main(argv: list[str]) -> None:
    """Train, judge, and say where the page is."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    config, workdir = _CONFIG.value, pathlib.Path(_WORKDIR.value).resolve()
    try:
        if config.get("task") != "phenotypes":
            raise ValueError("the config's task is not 'phenotypes'; see configs/mcnn/")
        trained = {}
        for network in config.networks:
            logging.info("%s", network)
            trained[network] = train(of_network(config, network), config, workdir / network)
        missing = sum(len(one.missing) for one in trained.values())
        if missing:
            print(f"{missing} folds are still missing; the worker that trains the last writes the page")
            return
        page = report.write(workdir, config, trained)
    except (ValueError, OSError, loop.NonFiniteLoss) as error:
        sys.exit(f"phenotypes.py: {error}")
    print(page)


if __name__ == "__main__":
    app.run(main, flags_parser=console.parse_flags)
