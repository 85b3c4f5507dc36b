"""Checkpoints that survive a kill at any moment, and say so when one is damaged.

Orbax writes each checkpoint to a temporary folder and renames it when complete. Beside the arrays lies a
record (JSON): the step, the state of the data iterator, the best validation value so far, and a checksum of
the arrays, because a flipped byte in a file does not always fail to decode.
"""

import pathlib
import shutil
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils


class Restored(NamedTuple):
    """Host arrays in the structure that was asked for, and the record saved with them."""

    tree: Any
    record: dict[str, Any]


def checksum(tree: Any) -> str:
    """CRC-32 over the bytes of all arrays and their places in the tree, as eight hexadecimal digits."""
    value = 0
    for path, array in jax.tree_util.tree_leaves_with_path(tree):
        value = zlib.crc32(jax.tree_util.keystr(path).encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array).data.cast("B") if np.size(array) else b"", value)
    return f"{value:08x}"


def layout(tree: Any) -> str:
    """Hash of the places, shapes and dtypes of all arrays, as eight hexadecimal digits."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    text = "".join(f"{jax.tree_util.keystr(path)} {np.shape(x)} {x.dtype}\n" for path, x in leaves)
    return f"{zlib.crc32(text.encode()):08x}"


class _OtherArrays(Exception):
    """The checkpoint is whole and belongs to something else."""


class Checkpoints:
    """The numbered checkpoints of one folder; the newest `keep` stay.

    Saving runs in the background; `close` (or leaving the `with` block) waits for it.
    """

    def __init__(self, directory: str | pathlib.Path, *, keep: int):
        self.directory = pathlib.Path(directory).resolve()
        self._options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(self.directory, options=self._options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, in order."""
        self._manager.wait_until_finished()  # a reload during a save would lose count of what to delete
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: Any, record: dict[str, Any]) -> None:
        """Save host arrays and a JSON record; checkpoints of this step or later ones give way.

        Later ones are left over from a run that was stopped and went on from an earlier step.
        """
        for later in self.steps():
            if later >= step:
                self._manager.delete(later)
        described = {**record, "step": step, "checksum": checksum(tree), "layout": layout(tree)}
        items = ocp.args.Composite(arrays=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(described))
        if not self._manager.save(step, args=items):
            raise ValueError(f"{self.directory}: Orbax did not save step {step}")

    def restore(self, like: Any, *, set_aside: bool = True) -> Restored | None:
        """The newest checkpoint that is whole, or None if there is none yet.

        A damaged one is passed over with a warning, and set aside in the folder `damaged` once an older one has
        been read; without `set_aside`, or if all are damaged, they stay where they are: a run whose checkpoints
        are all damaged must not look like one that never began.

        Raises:
            ValueError: there are checkpoints and all are damaged, or one holds other arrays than `like`.
        """
        steps, damaged = self.steps(), []
        for step in reversed(steps):
            try:
                restored = self._read(step, like)
            except _OtherArrays as error:
                raise ValueError(f"{self.directory / str(step)}: {error}") from error
            except Exception as error:  # damage shows as many types; each is reported, none is hidden
                self._report(step, error)
                damaged.append(step)
            else:
                for other in damaged if set_aside else ():
                    self._set_aside(other)
                return restored
        if steps:
            raise ValueError(
                f"{self.directory}: none of the checkpoints {steps} can be read; see the warnings above. "
                "Restore them from a backup, or train again in a new --workdir"
            )
        return None

    def restore_step(self, step: int, like: Any) -> Restored:
        """The checkpoint of one step; ValueError if there is none, or if it is damaged or holds other arrays."""
        if step not in self.steps():
            raise ValueError(f"{self.directory}: no checkpoint of step {step}; there are {self.steps()}")
        try:
            return self._read(step, like)
        except Exception as error:  # damage shows as many types
            raise ValueError(f"{self.directory / str(step)}: cannot be read ({error})") from error

    def _read(self, step: int, like: Any) -> Restored:
        record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
        if record["layout"] != layout(like):
            raise _OtherArrays("holds other parameters than this network and optimizer have")
        wanted = ocp.args.Composite(arrays=ocp.args.StandardRestore(like))
        tree = jax.tree.map(np.asarray, self._manager.restore(step, args=wanted)["arrays"])
        if checksum(tree) != record["checksum"]:
            raise ValueError("checksum differs: the arrays are not the ones that were saved")
        return Restored(tree, record)

    def _report(self, step: int, error: Exception) -> None:
        reason = " ".join(str(error).split())[:300]
        logging.warning(
            "checkpoint %s is damaged (%s: %s)",
            self.directory / str(step),
            type(error).__name__,
            reason,
        )

    def _set_aside(self, step: int) -> None:
        place = self.directory.parent / "damaged" / f"{self.directory.name}_{step}"
        logging.warning("damaged checkpoint %d is moved to %s; the one before is used", step, place)
        self._manager.close()
        if jax.process_index() == 0:
            place.parent.mkdir(exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            shutil.move(self.directory / str(step), place)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {place}")
        self._manager = ocp.CheckpointManager(self.directory, options=self._options)
