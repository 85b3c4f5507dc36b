"""Write a dataset as ArrayRecord shards: by many processes and machines at once, and none the worse for a kill.

    plan = shard_plan.make_plan("mine", {"train": np.ones(1000, int)}, example_bytes=7_000, recipe={"source": "..."})
    missing = shards.build(plan, info, read, worker=3, num_workers=8, processes=2)

The plan (see `shard_plan`) says which raw files make up which shard; each worker writes every N-th shard. On disk:

    <version>.building/                    renamed to <version>/ when the last shard is there
        <name>-<split>.array_record-00000-of-00042
        progress/plan.json                 what is being built; another plan is refused
        progress/<name of a shard>.json    written after its shard: examples, bytes, checksum

A shard is written under a temporary name and counts when its note does, so a build that was killed goes on where it
was. The result is read with `tfds.builder_from_directory(folder).as_data_source(split)`, without TensorFlow.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tqdm import tqdm

from coos import workdir
from coos.data import identity
from coos.data.shard_plan import WRITER_OPTIONS, Plan, Shard

Read = Callable[[str, int], Iterable[Mapping[str, Any]]]


def build(
    plan: Plan,
    info: tfds.core.DatasetInfo,
    read: Read,
    *,
    worker: int = 0,
    num_workers: int = 1,
    processes: int = 1,
) -> list[str]:
    """Write what is missing of this worker's shards, and finish the dataset if all shards are there.

    Args:
        plan: the same for all workers.
        info: description of the dataset; its `data_dir` is the folder to make, its `features` encode the examples,
            and its metadata get the digest of every split.
        read: gives the examples of a unit, `read(split, unit)`. With more than one process it must be picklable. If it
            has a method `digest(split, units)`, which tells raw files from others, a shard is written again when that
            of its units has changed.
        worker, num_workers: this worker writes the shards `worker`, `worker + num_workers`, ...
        processes: how many processes of this machine write. Each holds one shard in memory if units have several
            examples, which are then mixed.

    Returns:
        The names of the shards that other workers have yet to write; empty when the dataset is complete.

    Raises:
        ValueError: another plan is unfinished in this place, a unit has other examples than planned, or other workers
            wrote shards from raw files that look different here.
    """
    if not 0 <= worker < num_workers or processes < 1:
        raise ValueError(
            f"worker={worker} of {num_workers}, processes={processes}: counted from 0, at least 1"
        )
    final = pathlib.Path(info.data_dir)
    folder = building_folder(final)
    try:
        missing = _build(plan, info, read, folder, slice(worker, None, num_workers), processes)
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
    plan: Plan, info: tfds.core.DatasetInfo, read: Read, folder: pathlib.Path, mine: slice, processes: int
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
    own = shards[mine]
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
        _finish(plan, info, shards, folder)
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
    try:
        checksum = _write_records(temporary, shard, _records(shard, features, read))
        size = temporary.stat().st_size
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    note = {"plan": plan, "files": files, "examples": shard.num_examples, "bytes": size, "checksum": checksum}
    _put(_note_path(folder, shard), note)
    return shard


def _records(shard: Shard, features: Any, read: Read) -> Iterator[tuple[bytes, int]]:
    """(serialized example, its checksum); those of units with several are mixed within the shard."""
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())

    def serialize(example: Mapping[str, Any]) -> bytes:
        # As TFDS does, but with the features in order, so that all processes write the same bytes.
        return serializer.get_tf_example(features.encode_example(example)).SerializeToString(
            deterministic=True
        )

    made = (
        (serialize(example), identity.checksum(example))
        for unit in shard.units
        for example in read(shard.split, int(unit))
    )
    if shard.num_examples == len(shard.units):
        yield from made
        return
    held = list(made)
    for position in np.random.default_rng(shard.number).permutation(len(held)):
        yield held[position]


def _write_records(path: pathlib.Path, shard: Shard, records: Iterable[tuple[bytes, int]]) -> int:
    """Write the records, see that they are all there and on disk; returns the sum of their checksums."""
    writer, checksum, count = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS), 0, 0
    try:
        for record, one in records:
            writer.write(record)
            checksum, count = checksum + one, count + 1
    finally:
        writer.close()
    if count != shard.num_examples:
        raise ValueError(
            f"{shard.filename}: {count} examples instead of {shard.num_examples}; did files change?"
        )
    reader = array_record_module.ArrayRecordReader(str(path))
    written = reader.num_records()
    reader.close()
    if written != count:
        raise OSError(f"{path}: {written} of {count} records on disk; is the disk full?")
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return checksum


def _finish(plan: Plan, info: tfds.core.DatasetInfo, shards: Sequence[Shard], folder: pathlib.Path) -> None:
    """Describe the dataset and rename its folder; of several workers that do so at once, one succeeds."""
    _begin(folder, plan)
    notes = {shard.filename: workdir.read_json(_note_path(folder, shard)) for shard in shards}
    splits, digests = [], {}
    for split in plan.sizes:
        members = [shard for shard in shards if shard.split == split]
        lengths = [shard.num_examples for shard in members]
        size = sum(notes[shard.filename]["bytes"] for shard in members)
        splits.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size))
        digests[split] = identity.as_digest(sum(notes[shard.filename]["checksum"] for shard in members))
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.metadata.update(digests=digests)
    description = _temporary(folder / "description")
    description.mkdir()
    info.write_to_directory(description)
    for path in description.iterdir():
        os.replace(path, folder / path.name)
    description.rmdir()
    final = pathlib.Path(info.data_dir)
    os.rename(folder, final)
    shutil.rmtree(final / "progress")
    for left in final.glob(".*.tmp"):  # of workers that were killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
