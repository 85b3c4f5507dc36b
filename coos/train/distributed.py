"""Several processes, one training: from flags, or from the environment that a launcher sets."""

import os

import jax
from absl import logging

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialize(
    coordinator: str | None, num_processes: int | None, process_id: int | None, *, auto: bool
) -> None:
    """Join the other processes, if there are any.

    Arguments win over the environment (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID). With
    `auto`, JAX asks the cluster (Slurm, Open MPI, Kubernetes, Cloud TPU). With none of all that, one process.

    Raises:
        ValueError: some of address, number and id are given and others are not.
    """
    address = coordinator or os.environ.get(VARIABLES[0])
    number = num_processes if num_processes is not None else _integer(VARIABLES[1])
    identity = process_id if process_id is not None else _integer(VARIABLES[2])
    given = {"address": address, "number of processes": number, "process id": identity}
    missing = [name for name, value in given.items() if value is None]
    if auto:
        jax.distributed.initialize()
    elif not missing:
        jax.distributed.initialize(address, num_processes=number, process_id=identity)
    elif len(missing) < len(given):
        raise ValueError(
            f"several processes: {', '.join(missing)} missing; give --coordinator, --num_processes and "
            f"--process_id, or set {', '.join(VARIABLES)}"
        )
    logging.info(
        "process %d of %d, %d local devices",
        jax.process_index(),
        jax.process_count(),
        jax.local_device_count(),
    )


def _integer(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not text.isdecimal():
        raise ValueError(f"environment variable {variable}={text!r}: must be a whole number")
    return int(text)
