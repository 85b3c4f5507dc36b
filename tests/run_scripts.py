"""Run the scripts of experiments/ as a user does, in a process of their own."""

import contextlib
import importlib.util
import os
import pathlib
import subprocess
import sys

from absl import flags

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def command(script, *arguments):
    return [sys.executable, str(REPOSITORY / "experiments" / script), *map(str, arguments)]


def environment(*, devices=1, **variables):
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return {**os.environ, "XLA_FLAGS": flags, **variables}


def run_script(script, *arguments, devices=1, timeout=240, **variables):
    """The finished process, with its output as text."""
    return subprocess.run(
        command(script, *arguments),
        cwd=REPOSITORY,
        env=environment(devices=devices, **variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextlib.contextmanager
def loaded(script):
    """A script of experiments/ as a module, in this process; its flags are taken back for the next one."""
    path = REPOSITORY / "experiments" / script
    spec = importlib.util.spec_from_file_location(f"experiments_{path.stem}", path)
    module, known = importlib.util.module_from_spec(spec), set(flags.FLAGS)
    spec.loader.exec_module(module)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    yield module
    for name in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, name)


def small_settings(dataset):
    """Config fields of a tiny training run on the simulated release."""
    return {
        "data.directory": str(dataset),
        "num_steps": 20,
        "batch_size": 16,
        "log_every": 1,
        "evaluate_every": 10,
        "checkpoint_every": 5,
        "model.width": 2,
        "evaluation.batch_size": 32,
    }


def train_arguments(dataset, workdir, **overrides):
    """Arguments of that run; overrides are config fields with __ for dots."""
    settings = {
        **small_settings(dataset),
        **{name.replace("__", "."): value for name, value in overrides.items()},
    }
    config = REPOSITORY / "configs" / "coos7" / "quickstart.py"
    return [f"--config={config}", f"--workdir={workdir}"] + [f"--config.{k}={v}" for k, v in settings.items()]
