"""The work directory of a run: what is in it, and how it is written so that a kill loses nothing.

config.json            config, versions, dataset (name, classes, channels, simulated or not)
splits.csv             which example was in training, which in validation, by id
results.jsonl          one result row a line: study, run, dataset, split, metric, value, n, seed, fold, step
predictions/<set>.npz  ids, labels, probabilities and provenance of one evaluated set
baseline/<set>.npz     the same of a baseline, where the data set knows enough for one
checkpoints/ best/     see coos.train.checkpoint
"""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
import types
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

PACKAGES = (
    "coos",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "grain",
    "array_record",
    "numpy",
    "ml-collections",
)


class Predictions(NamedTuple):
    """One evaluated set: `ids` (N,) str, `labels` and `probabilities` (N, K) float32.

    `labels` are classes (N,) int32, or of K tasks (N, K) int8: +1 active, -1 inactive, 0 not measured. `columns` are
    what else is known of the examples, (N,) each, such as "well" and "compound".
    """

    ids: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    columns: Mapping[str, np.ndarray] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run read back from its work directory."""

    path: pathlib.Path
    config: dict[str, Any]
    dataset: dict[str, Any]
    versions: dict[str, str]
    rows: list[dict[str, Any]]
    predictions: dict[str, Predictions]
    prediction_steps: dict[str, int]
    parameters: int | None = None  # trainable ones of the network, if recorded
    baseline: dict[str, Predictions] = dataclasses.field(default_factory=dict)
    best_step: int | None = None  # whose parameters are in `best/`, if there are any

    @property
    def name(self) -> str:
        """Name of the configuration; runs that share it are its seeds."""
        return self.config["run"]

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config["seed"]


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Hold a folder for one process; ValueError if another one has it."""
    path = pathlib.Path(workdir, ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{workdir}: another process is at work in this folder") from None
        yield


def write_atomically(path: str | os.PathLike, write: Callable[[Any], None], *, mode: str = "w") -> None:
    """Call `write(file)` on a temporary neighbour of `path`, flush it to disk, then rename it to `path`."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomically(path, lambda file: json.dump(value, file, indent=2, sort_keys=False, default=str))


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file; a missing or broken one raises ValueError with its path."""
    try:
        return json.loads(pathlib.Path(path).read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: missing") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error


def versions() -> dict[str, str]:
    """Versions of Python, of the packages a run depends on, of the platform and of this checkout."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["commit"] = _commit()
    return found


def _commit() -> str:
    here = pathlib.Path(__file__).parent
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout)"


def _json_value(value: float) -> float | None:
    """NaN and infinity become null: they are not JSON."""
    value = float(value)
    return value if math.isfinite(value) else None


def append_rows(path: str | os.PathLike, rows: Iterable[dict[str, Any]]) -> None:
    """Append result rows to a JSON-lines file; `value` NaN is stored as null.

    A last line that a kill cut short is dropped first, so that nothing is glued to it.
    """
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(_lines(rows).encode())


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps({**row, "value": _json_value(row["value"])}) + "\n" for row in rows)


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read result rows; null becomes NaN. A last line that a kill cut short is left out."""
    rows: list[dict[str, Any]] = []
    text = pathlib.Path(path).read_text() if pathlib.Path(path).exists() else ""
    complete = text[: text.rfind("\n") + 1]
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from error
        rows.append({**row, "value": math.nan if row["value"] is None else row["value"]})
    return rows


def truncate_rows(path: str | os.PathLike, *, step: int) -> None:
    """Forget rows beyond `step`: a run resumed there will write them again."""
    rows = [row for row in read_rows(path) if row["step"] <= step]
    write_atomically(path, lambda file: file.write(_lines(rows)))


def replace_rows(path: str | os.PathLike, rows: list[dict[str, Any]]) -> None:
    """Add rows; earlier ones of the same dataset, split, metric and step give way, so that redoing adds nothing."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in ("dataset", "split", "metric", "step"))

    new = {key(row) for row in rows}
    kept = [row for row in read_rows(path) if key(row) not in new]
    write_atomically(path, lambda file: file.write(_lines([*kept, *rows])))


COLUMN = "column_"  # before the names of columns in a prediction file


def save_predictions(
    workdir: str | os.PathLike,
    name: str,
    predictions: Predictions,
    *,
    step: int = 0,
    folder: str = "predictions",
) -> pathlib.Path:
    """Write `<folder>/<name>.npz`, made by the parameters of `step`; it is readable without pickle."""
    path = pathlib.Path(workdir, folder, f"{name}.npz")
    labels = np.asarray(predictions.labels)
    arrays: dict[str, Any] = {
        "ids": np.asarray(predictions.ids, dtype=np.str_),
        "labels": labels.astype(np.int8 if labels.ndim > 1 else np.int32),
        "probabilities": np.asarray(predictions.probabilities, np.float32),
        **{f"{COLUMN}{key}": np.asarray(column) for key, column in predictions.columns.items()},
    }

    def write(file: Any) -> None:
        np.savez_compressed(file, step=np.array(step), **arrays)

    write_atomically(path, write, mode="wb")
    return path


def load_predictions(path: str | os.PathLike) -> Predictions:
    """Read one prediction file; a missing array or unequal lengths raise ValueError naming the file."""
    arrays = _read_arrays(path)
    needed = ("ids", "labels", "probabilities")
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise ValueError(f"{path}: arrays {missing} missing; found {sorted(arrays)}")
    columns = {key.removeprefix(COLUMN): array for key, array in arrays.items() if key.startswith(COLUMN)}
    predictions = Predictions(arrays["ids"], arrays["labels"], arrays["probabilities"], columns)
    lengths = {name: len(arrays[name]) for name in needed} | {key: len(x) for key, x in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path}: arrays differ in length: {lengths}")
    return predictions


def _read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); run experiments/evaluate.py again") from error


def _read_step(path: pathlib.Path) -> int:
    """The step of a prediction file that was read before; nothing else of it is read again."""
    with np.load(path, allow_pickle=False) as file:
        return int(file["step"]) if "step" in file else 0


def load_run(workdir: str | os.PathLike) -> Run:
    """Read a run's config, rows and predictions back from its work directory."""
    path = pathlib.Path(workdir)
    if not (path / "config.json").exists():
        raise ValueError(
            f"{path}: no config.json; is it the work directory of a run of experiments/train.py?"
        )
    record = read_json(path / "config.json")
    missing = [key for key in ("config", "dataset", "versions") if key not in record]
    if missing:
        raise ValueError(
            f"{path / 'config.json'}: {missing[0]!r} missing; it was not written by experiments/train.py"
        )
    files = sorted((path / "predictions").glob("*.npz"))
    baselines = sorted((path / "baseline").glob("*.npz"))
    return Run(
        path=path,
        config=record["config"],
        dataset=record["dataset"],
        versions=record["versions"],
        rows=read_rows(path / "results.jsonl"),
        predictions={file.stem: load_predictions(file) for file in files},
        prediction_steps={file.stem: _read_step(file) for file in files},
        parameters=record.get("parameters"),
        baseline={file.stem: load_predictions(file) for file in baselines},
        best_step=max((int(p.name) for p in (path / "best").glob("*") if p.name.isdecimal()), default=None),
    )


def plain(value: Any) -> Any:
    """`value` as it comes back from a JSON file: tuples become lists, other objects their text."""
    return json.loads(json.dumps(value, default=str))
