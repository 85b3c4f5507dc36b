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
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: Any, record: dict[str, Any]) -> None:
        """Save host arrays and a JSON record; a checkpoint of the same step is replaced."""
        if step in self.steps():
            self._manager.delete(step)
        arrays = ocp.args.StandardSave(tree)
        described = ocp.args.JsonSave({**record, "step": step, "checksum": checksum(tree)})
        self._manager.save(step, args=ocp.args.Composite(arrays=arrays, record=described))

    def restore(self, like: Any) -> Restored | None:
        """The newest checkpoint that is whole, or None if there is none yet.

        A damaged one is set aside in the folder `damaged` with a warning, and the one before is tried.

        Raises:
            ValueError: there are checkpoints and all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step, like)
            except Exception as error:  # damage shows as many types; each is reported, none is hidden
                self._set_aside(step, error)
        if steps:
            raise ValueError(
                f"{self.directory}: none of the checkpoints {steps} can be read; see the warnings above"
            )
        return None

    def _read(self, step: int, like: Any) -> Restored:
        wanted = ocp.args.Composite(arrays=ocp.args.StandardRestore(like), record=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=wanted)
        tree = jax.tree.map(np.asarray, found["arrays"])
        if checksum(tree) != found["record"]["checksum"]:
            raise ValueError("checksum differs: the arrays are not the ones that were saved")
        return Restored(tree, found["record"])

    def _set_aside(self, step: int, error: Exception) -> None:
        place = self.directory.parent / "damaged" / f"{self.directory.name}_{step}"
        reason = " ".join(str(error).split())[:300]
        logging.warning(
            "checkpoint %s is damaged (%s: %s); it is moved to %s and the one before is used",
            self.directory / str(step),
            type(error).__name__,
            reason,
            place,
        )
        self._manager.close()
        if jax.process_index() == 0:
            place.parent.mkdir(exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            shutil.move(self.directory / str(step), place)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {place}")
        self._manager = ocp.CheckpointManager(self.directory, options=self._options)
