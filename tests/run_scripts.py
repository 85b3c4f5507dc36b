"""Run the scripts of experiments/ as a user does, in a process of their own or, which is faster, in this one."""

import contextlib
import importlib.util
import io
import os
import pathlib
import subprocess
import sys

from absl import app, flags

from coos import console

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
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    try:
        yield module
    finally:
        del sys.modules[spec.name]
        for name in set(flags.FLAGS) - known:  # but those of libraries that were imported meanwhile
            if flags.FLAGS.find_module_defining_flag(name) == spec.name or name.startswith("config"):
                delattr(flags.FLAGS, name)


def call_script(script, *arguments):
    """As `run_script`, but in this process and on its eight devices: nothing to start, nothing to compile twice."""
    out, err, code, given = io.StringIO(), io.StringIO(), 0, sys.argv
    with loaded(script) as module, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            sys.argv = [script, *map(str, arguments)]  # where ml_collections looks for settings
            module.main(console.parse_flags(sys.argv))
        except SystemExit as stop:
            code = stop.code
        except app.UsageError as error:
            code = str(error)
        finally:
            sys.argv = given
    if isinstance(code, str):
        return subprocess.CompletedProcess(script, 1, out.getvalue(), f"{err.getvalue()}{code}\n")
    return subprocess.CompletedProcess(script, code or 0, out.getvalue(), err.getvalue())


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
