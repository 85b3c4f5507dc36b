"""Environment of all tests: CPU, eight simulated devices, a compilation cache; and small simulated data."""

import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["PJRT_NPROC"] = "32"  # simulated devices wait for each other: fewer threads than devices deadlock
# Level 0 compiles in two thirds of the time, which is most of a test's.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest
from run_scripts import REPOSITORY, run_script


@pytest.fixture(scope="module", autouse=True)
def _compiled_functions_of_one_file():
    """Forget what a file of tests compiled: a process may hold 65,530 mappings, and the compiler dies beyond them."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """A simulated release with eight training cells per class, in the official HDF5 layout."""
    from coos.data import simulate

    folder = tmp_path_factory.mktemp("release")
    simulate.write_release(folder, cells_per_class=8, seed=0)
    return folder


@pytest.fixture(scope="session")
def dataset(release, tmp_path_factory):
    """The folder of the dataset built from `release`."""
    data_dir = tmp_path_factory.mktemp("data")
    done = run_script("build.py", "coos7", f"--source={release}", f"--data_dir={data_dir}")
    assert done.returncode == 0, done.stderr
    return data_dir / "coos7" / "uint16" / "1.1.0"


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data; tests that need it are skipped where it is absent."""
    folder = pathlib.Path(os.environ.get("COOS_REAL_DATA", REPOSITORY / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data: set COOS_REAL_DATA")
    return folder
