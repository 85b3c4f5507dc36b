"""Write a dataset as ArrayRecord shards: by many processes and machines at once, and none the worse for a kill.

    plan = shard_plan.make_plan("mine", {"train": np.ones(1000, int)}, example_bytes=7_000, recipe={"source": "..."})
    missing = shards.build(plan, info, read, worker=3, num_workers=8, processes=2)

The plan (see `shard_plan`) says which raw files make up which shard; each worker writes every N-th shard, or those of
every N-th group of units. On disk:

    <version>.building/                    renamed to <version>/ when the last shard is there
        <name>-<split>.array_record-00000-of-00042
        progress/plan.json                 what is being built; another plan is refused
        progress/<name of a shard>.json    written after its shard: examples, bytes, checksum, what was left out

A shard is written under a temporary name and counts when its note does, so a build that was killed goes on where it
was: at most the shards that were being written are lost, one per process. A unit that cannot be read stops the build,
unless `read` raises `LeftOut` for it: then the dataset lacks it, and the notes say why. The result is read with
`tfds.builder_from_directory(folder).as_data_source(split)`, without TensorFlow.
"""

import concurrent.futures
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tqdm import tqdm

from coos import workdir
from coos.data import identity, shard_records
from coos.data.shard_plan import Plan, Shard
from coos.data.shard_records import LeftOut, Read

__all__ = ["LeftOut", "Read", "build", "building_folder", "is_complete", "write_shard"]

Finish = Callable[[Sequence[Any]], Mapping[str, bytes]]


def build(
    plan: Plan,
    info: tfds.core.DatasetInfo,
    read: Read,
    *,
    worker: int = 0,
    num_workers: int = 1,
    processes: int = 1,
    finish: Finish | None = None,
) -> list[str]:
    """Write what is missing of this worker's shards, and finish the dataset if all shards are there.

    Args:
        plan: the same for all workers.
        info: description of the dataset; its `data_dir` is the folder to make, its `features` encode the examples,
            and its metadata get the digest of every split.
        read: gives the examples of a unit, `read(split, unit)`. With more than one process it must be picklable. If it
            has a method `digest(split, units)`, which tells raw files from others, a shard is written again when that
            of its units has changed.
        worker, num_workers: this worker writes the shards `worker`, `worker + num_workers`, ..., or those of such
            groups; with more workers than groups some have nothing to do.
        processes: how many processes of this machine write. Each holds one shard in memory if units have several
            examples, which are then mixed.
        finish: called with the records of all units that were left out, when all shards are there. It gives further
            files of the dataset by name, may change `info.metadata`, and may raise to refuse.

    Returns:
        The names of the shards that other workers have yet to write; empty when the dataset is complete.

    Raises:
        ValueError: another plan is unfinished in this place, a unit has other examples than planned, other workers
            wrote shards from raw files that look different here, or all units of a split were left out.
    """
    if not 0 <= worker < num_workers or processes < 1:
        raise ValueError(
            f"worker={worker} of {num_workers}, processes={processes}: counted from 0, at least 1"
        )
    final = pathlib.Path(info.data_dir)
    folder = building_folder(final)
    try:
        missing = _build(plan, info, read, folder, plan.shards_of(worker, num_workers), processes, finish)
    except (OSError, RuntimeError):  # the latter is how ArrayRecord says that a file is not there
        if not final.exists():
            raise
        missing = []  # another worker was faster: it found all shards written, and renamed the folder
    if final.exists():
        info.read_from_directory(final)
    return missing


def building_folder(final: str | os.PathLike) -> pathlib.Path:
    """Where a dataset grows before it is renamed to `final`."""
    final = pathlib.Path(final)
    return final.with_name(f"{final.name}.building")


def _build(
    plan: Plan,
    info: tfds.core.DatasetInfo,
    read: Read,
    folder: pathlib.Path,
    own: Sequence[Shard],
    processes: int,
    finish: Finish | None,
) -> list[str]:
    final = pathlib.Path(info.data_dir)
    if final.exists():
        return []
    _begin(folder, plan)
    if final.exists():  # finished by others since the look above
        shutil.rmtree(folder)
        return []
    job = functools.partial(write_shard, folder=folder, plan=plan.digest, features=info.features, read=read)
    shards = plan.shards()
    names = {shard.filename for shard in own}
    _refuse_other_files(folder, [s for s in shards if s.filename not in names], plan.digest, read)
    unwritten = [shard for shard in own if not is_complete(folder, shard, plan.digest, read)]
    done = sum(shard.num_examples for shard in own) - sum(shard.num_examples for shard in unwritten)
    with tqdm(total=sum(s.num_examples for s in own), initial=done, unit="example", disable=None) as bar:
        for shard in _run(job, unwritten, processes):
            bar.update(shard.num_examples)
    missing = [shard.filename for shard in shards if _note(folder, shard, plan.digest) is None]
    if not missing:
        _refuse_other_files(folder, shards, plan.digest, read)
        _finish(plan, info, shards, folder, finish)
    return missing


def _begin(folder: pathlib.Path, plan: Plan) -> None:
    """Note the plan, or check that what is unfinished here has the same."""
    (folder / "progress").mkdir(parents=True, exist_ok=True)
    path = folder / "progress" / "plan.json"
    if not path.exists():
        _put(path, plan.describe())
    there, now = workdir.read_json(path), plan.describe()
    different = list(_differences(there, now))
    if different:
        raise ValueError(
            f"{folder}: an unfinished build of something else ({'; '.join(different)}); finish it with the options "
            "it was begun with, or remove the folder"
        )


def _differences(there: Any, now: Any, where: str = "") -> Iterator[str]:
    """What differs between two descriptions, down to the single field."""
    if isinstance(there, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*now, *there]):
            yield from _differences(there.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif there != now:
        yield f"{where}: {there!r} there, {now!r} now"


def _put(path: pathlib.Path, value: Any) -> None:
    """Write JSON atomically in a folder that must exist: making it anew would undo another worker's renaming."""
    temporary = _temporary(path)
    with open(temporary, "w") as file:
        json.dump(value, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _temporary(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def _note_path(folder: pathlib.Path, shard: Shard) -> pathlib.Path:
    return folder / "progress" / f"{shard.filename}.json"


def _note(folder: pathlib.Path, shard: Shard, plan: str) -> dict[str, Any] | None:
    """The note of a shard of the plan with the digest `plan`; None if it is not written or not as long as noted."""
    try:
        note = json.loads(_note_path(folder, shard).read_text())
        size = (folder / shard.filename).stat().st_size
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return note if note["plan"] == plan and note["bytes"] == size else None


def is_complete(folder: pathlib.Path, shard: Shard, plan: str, read: Read) -> bool:
    """Whether a shard of the plan with the digest `plan` is written from these raw files, and as long as noted."""
    note = _note(folder, shard, plan)
    return note is not None and note["files"] == _files_digest(read, shard)


def _refuse_other_files(folder: pathlib.Path, shards: Sequence[Shard], plan: str, read: Read) -> None:
    """ValueError for written shards whose raw files look different here: no worker could ever finish."""
    there = [shard for shard in shards if _note(folder, shard, plan)]
    stale = [shard.filename for shard in there if not is_complete(folder, shard, plan, read)]
    if stale:
        raise ValueError(
            f"{folder}: {len(stale)} shards, such as {stale[0]}, were written from raw files of other sizes or times. "
            "If files changed, run the workers that wrote these shards again; if this machine has copies of its own, "
            "give them the times of the originals (rsync -t)"
        )


def _files_digest(read: Read, shard: Shard) -> str:
    """What the raw files of a shard are known by; "" if `read` does not tell."""
    digest = getattr(read, "digest", None)
    return digest(shard.split, shard.units) if digest else ""


def _run(job: Callable[[Shard], Shard], shards: Sequence[Shard], processes: int) -> Iterator[Shard]:
    """Do the shards one after another, or in processes of their own; yields each when it is written."""
    if processes == 1 or len(shards) < 2:
        yield from map(job, shards)
        return
    # Spawned, not forked: a fork of a process with threads (JAX's, for one) may hang.
    pool = concurrent.futures.ProcessPoolExecutor(
        min(processes, len(shards)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_set_job,
        initargs=(job,),
    )
    with pool:
        try:
            for future in concurrent.futures.as_completed([pool.submit(_do_job, shard) for shard in shards]):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_JOB: list[Callable[[Shard], Shard]] = []  # of a process: sent to it once, not with every shard


def _set_job(job: Callable[[Shard], Shard]) -> None:
    _JOB[:] = [job]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes wait for work for ever if the one that made them was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do_job(shard: Shard) -> Shard:
    return _JOB[0](shard)


def write_shard(shard: Shard, *, folder: pathlib.Path, plan: str, features: Any, read: Read) -> Shard:
    """Write one shard under a temporary name, rename it, then write its note; returns the shard."""
    target, temporary = folder / shard.filename, _temporary(folder / shard.filename)
    files = _files_digest(read, shard)
    left_out: dict[int, list[Any]] = {}
    try:
        count, checksum = shard_records.write(
            temporary, shard_records.records(shard, features, read, left_out)
        )
        size = temporary.stat().st_size
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    note = {"plan": plan, "files": files, "examples": count, "bytes": size, "checksum": checksum}
    reasons = [record for records in left_out.values() for record in records]
    _put(_note_path(folder, shard), {**note, "left_out": reasons})
    return shard


def _finish(
    plan: Plan,
    info: tfds.core.DatasetInfo,
    shards: Sequence[Shard],
    folder: pathlib.Path,
    finish: Finish | None,
) -> None:
    """Describe the dataset and rename its folder; of several workers that do so at once, one succeeds."""
    _begin(folder, plan)
    notes = {shard.filename: workdir.read_json(_note_path(folder, shard)) for shard in shards}
    splits, digests = [], {}
    for split in plan.sizes:
        members = [notes[shard.filename] for shard in shards if shard.split == split]
        lengths = [note["examples"] for note in members]
        if not sum(lengths):
            raise ValueError(
                f"split {split!r}: all of its units were left out, such as {members[0]['left_out'][0]}"
            )
        size = sum(note["bytes"] for note in members)
        splits.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size))
        digests[split] = identity.as_digest(sum(note["checksum"] for note in members))
    left_out = [record for shard in shards for record in notes[shard.filename].get("left_out", [])]
    files = finish(left_out) if finish else {}
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.metadata.update(digests=digests)
    _describe(info, folder, files)
    final = pathlib.Path(info.data_dir)
    os.rename(folder, final)
    shutil.rmtree(final / "progress")
    for left in final.glob(".*.tmp"):  # of workers that were killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _describe(info: tfds.core.DatasetInfo, folder: pathlib.Path, files: Mapping[str, bytes]) -> None:
    """Write what TFDS says of the dataset, and further files, each of which is there whole or not at all."""
    description = _temporary(folder / "description")
    description.mkdir()
    info.write_to_directory(description)
    for name, content in files.items():
        (description / name).write_bytes(content)
    for path in description.iterdir():
        os.replace(path, folder / path.name)
    description.rmdir()
