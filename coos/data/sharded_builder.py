"""A TFDS builder that writes shards in parallel, on many machines, and resumes: the base of builders of large sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from coos.data import shard_plan, shards


class ShardedBuilder(tfds.core.dataset_builder.FileReaderBuilder):
    """A TFDS builder whose `download_and_prepare` goes through `shards.build`.

    Subclasses have `_info`, and `shard_plan`, which gives the plan and the `read` of `shards.build`, and `finish`, if
    something is to be done or written at the end.

    Args (beyond those of every TFDS builder):
        num_shards: see `shard_plan.make_plan`.
        worker, num_workers, processes: see `shards.build`.
    """

    def __init__(
        self,
        *,
        num_shards: int | None = None,
        worker: int = 0,
        num_workers: int = 1,
        processes: int = 1,
        **kwargs: Any,
    ):
        self.num_shards = num_shards
        self._work = {"worker": worker, "num_workers": num_workers, "processes": processes}
        self.missing_shards: list[str] = []
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def shard_plan(self) -> tuple[shard_plan.Plan, shards.Read]:
        """The plan of this dataset, and the function that reads the examples of a unit."""
        raise NotImplementedError

    def finish(self, left_out: Sequence[Any]) -> Mapping[str, bytes]:
        """The `finish` of `shards.build`: further files of the dataset, by name. Here there are none."""
        del left_out
        return {}

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Write this worker's shards; `missing_shards` are then those that others have yet to write."""
        if kwargs:
            raise ValueError(
                f"download_and_prepare: {sorted(kwargs)} do not apply; nothing is downloaded here"
            )
        if not self.data_path.exists():
            plan, read = self.shard_plan()
            self.missing_shards = shards.build(plan, self.info, read, finish=self.finish, **self._work)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        raise NotImplementedError("download_and_prepare does not come here")
