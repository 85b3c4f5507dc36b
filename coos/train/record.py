"""What a run writes down about itself, and whether another run may go on from it."""

import pathlib
from typing import Any

import jax
import ml_collections

from coos import workdir as work

# A run may be resumed with other values of these; everything else changes what it computes.
FREE_FIELDS = (
    "start_from",  # what was taken from there is in the checkpoints and in config.json
    "data.directory",
    "data.cache_dir",
    "data.store",
    "report",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluation.crops",
    "evaluation.level",
    "evaluation.sets",
    "evaluation.batch_size",
)


def write(
    workdir: pathlib.Path,
    config: ml_collections.ConfigDict,
    dataset: dict[str, Any],
    constants: dict[str, Any],
    *,
    parameters: int,
    resuming: bool,
) -> None:
    """Write config.json; a run that resumes must be the one recorded there, but for its free fields.

    Raises:
        ValueError: the work directory holds a run of another config or on other cells; the message lists the
            differences.
    """
    path, settings = workdir / "config.json", work.plain(config.to_dict())
    found: dict[str, Any] = {"config": settings, "dataset": dataset, "constants": constants}
    found |= {"parameters": parameters, "versions": work.versions()}
    if resuming:
        recorded = work.read_json(path)
        _refuse_differences(path, _flat(recorded["config"]), _flat(settings))
        refuse_other_images(recorded["dataset"], dataset, where=str(path))
        refuse_other_cells(
            recorded["dataset"], dataset, split=config.data.get("train_split", ""), where=str(path)
        )
        found["versions"] = recorded["versions"]
        settings["start_from"] = recorded["config"].get("start_from", "")  # where it began stays true
    if jax.process_index() == 0:
        work.write_json(path, {**found, "devices": [str(d) for d in jax.devices()]})


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _refuse_differences(path: pathlib.Path, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    names = sorted(set(recorded) | set(wanted))
    different = [
        f"{name}: {recorded.get(name)!r} there, {wanted.get(name)!r} now"
        for name in names
        if recorded.get(name) != wanted.get(name)
        and not any(name == f or name.startswith(f"{f}.") for f in FREE_FIELDS)
    ]
    if different:
        raise ValueError(
            f"{path} is of a run with another config: {'; '.join(different)}. Use a new --workdir"
        )


def refuse_other_images(recorded: dict[str, Any], found: dict[str, Any], *, where: str) -> None:
    """Raise ValueError unless both data sets have the same channels (in order), classes or tasks, and image shape."""
    for name in ("channels", "class_names", "tasks", "image_shape"):
        if list(recorded.get(name, ())) != list(found.get(name, ())):
            raise ValueError(
                f"{where}: trained with {name} {_short(recorded.get(name))}, but {found['directory']} has "
                f"{_short(found.get(name))}"
            )


def _short(names: Any, *, most: int = 12) -> str:
    names = list(names or ())
    return str(names) if len(names) <= most else f"{len(names)}, from {names[0]!r} to {names[-1]!r}"


def refuse_other_cells(recorded: dict[str, Any], found: dict[str, Any], *, split: str, where: str) -> None:
    """Raise ValueError unless both data sets hold the same cells in `split` ("": altogether), by their digests."""
    before, now = (
        digests if not split else digests.get(split) for digests in (recorded["digests"], found["digests"])
    )
    if before != now:
        within = f" in {split!r}" if split else ""
        raise ValueError(
            f"{where}: was trained on other cells than {found['directory']} has{within}; use a new --workdir"
        )
