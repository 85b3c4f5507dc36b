"""Train a network as a config says; the same command again resumes, and does nothing when it is finished.

    python experiments/train.py --config=configs/coos7/modern.py --workdir=runs/modern \
        --config.data.directory=data/coos7/uint16/1.1.0 --config.seed=1

SIGTERM or Ctrl-C saves a checkpoint first. Then experiments/evaluate.py judges the run.
Several hosts: the same command on each, with --coordinator=HOST:PORT --num_processes=N --process_id=I.
"""

import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from coos import console
from coos.train import distributed, loop, run

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/coos7/modern.py.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for checkpoints, results and predictions.", required=True
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if there are several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes, if there are several.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, if there are several.")
_CLUSTER = flags.DEFINE_bool("cluster", False, "Let JAX find the other processes (Slurm, TPU pod, ...).")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Join the other processes if there are any, train, and say where the run is."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    console.setup()
    workdir = pathlib.Path(_WORKDIR.value).resolve()
    try:
        distributed.initialize(
            _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, auto=_CLUSTER.value
        )
        finished = run.train(_CONFIG.value, workdir)
    except (ValueError, OSError, loop.NonFiniteLoss) as error:
        sys.exit(f"train.py: {error}")
    print(f"{'finished' if finished else 'stopped, run the same command to resume'}: {workdir}")


if __name__ == "__main__":
    app.run(main, flags_parser=console.parse_flags)
