"""The task of telling phenotypes or mechanisms apart from whole fields of view (Godinez et al. 2017).

Which fields are which class, and which train and which test, is said by the config (`coos.data.whole_fields`,
`coos.splits`); `coos.train.folds` trains one network for every division. Fields are seen whole, so that flips and turns
are what augmentation can do: eight views of a square field, four of another.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import polars as pl

from coos import losses, splits
from coos.data import preprocess, whole_fields
from coos.data.source import Source
from coos.train import checks
from coos.train.learner import Learner, create_model

INTENSITIES = ("standardize", "controls", "unit")
PROTOCOLS = ("hold_out", "leave_one_out", "none")
EVERYTHING = "everything"  # the fold that trains on all fields of a class and looks at all there are
AT_LEAST_ONE = ("num_epochs", "batch_size", "accumulation_steps", "augment.copies", "preprocess.binning")

THINNING = ("data.fields_per_well", "data.wells_per_treatment", "data.control_wells")
NOT_NEGATIVE = ("seed", "checkpoint_every", "steps_per_dispatch", *THINNING)
COLUMNS = {
    "plate": "Metadata_Plate",
    "compound": "Metadata_compound",
    "concentration": "Metadata_concentration",
}


class FieldClassifier(Learner):
    """A network that calls raw fields (B, H, W, C), given means and deviations (B, C) of their channels."""

    def prepared_shape(self) -> tuple[int, ...]:
        """Shape of a binned field."""
        height, width, channels = self.input_shape
        factor = self.config.preprocess.binning
        return (height // factor, width // factor, channels)

    def prepare(self, batch: dict[str, jax.Array]) -> jax.Array:
        """(B, h, w, C) float32: means of blocks of pixels, (x - mean) / std channel by channel."""
        pixels = preprocess.binned(batch["image"], factor=self.config.preprocess.binning)
        return (pixels - batch["mean"][:, None, None]) / batch["std"][:, None, None]

    def loss(self, params: Any, batch_stats: Any, batch: dict[str, jax.Array], key: jax.Array):
        """Per-example cross-entropy of fields that are mirrored and turned at random."""
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["example"])
        images = self.prepare(batch)
        if self.config.augment.flips:
            images = jax.vmap(random_view)(keys, images)
        variables = {"params": params, "batch_stats": batch_stats}
        output, updates = self.model.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(key, 0)},
        )
        loss = losses.softmax_cross_entropy(output["logits"], batch["label"])
        correct = (output["logits"].argmax(-1) == batch["label"]).astype(jnp.float32)
        return loss, (updates.get("batch_stats", {}), {"accuracy": correct})

    def predict(self, variables: Any, batch: dict[str, jax.Array], *, validating: bool = False) -> jax.Array:
        """Softmax of the logits (B, K) float32: equation 1 of the paper."""
        del validating
        output = self.model.apply(variables, self.prepare(batch), train=False)
        return jax.nn.softmax(output["logits"].astype(jnp.float32))


def random_view(key: jax.Array, image: jax.Array) -> jax.Array:
    """One of the eight views of a square image, or of the four of another, each equally likely."""
    first, second = jax.random.split(key)
    image = preprocess.random_flips(first, image)
    square = image.shape[0] == image.shape[1]
    return preprocess.random_rotation(second, image, num_rotations=4) if square else image


class Study(NamedTuple):
    """The fields of a data set as a config sees them: `source` with labels (-1 of no class), table, folds.

    `rows` are the fields that take part; a field's place among them is its number, whichever folds there are.
    """

    source: Source
    table: pl.DataFrame
    rows: np.ndarray
    folds: list[splits.Fold]


def check(config: ml_collections.ConfigDict) -> None:
    """Refuse values that no data set could make right. Raises ValueError naming the field."""
    for name in AT_LEAST_ONE:
        if checks.value(config, name) < 1:
            raise ValueError(f"{name}={checks.value(config, name)}: must be at least 1")
    checks.check_choices(
        config, {"preprocess.intensity": INTENSITIES, "protocol.name": PROTOCOLS, "data.mode": checks.MODES}
    )
    for name in NOT_NEGATIVE:
        if checks.value(config, name) < 0:
            raise ValueError(f"{name}={checks.value(config, name)}: must not be negative")
    if config.batch_size % config.accumulation_steps:
        raise ValueError(
            f"batch_size={config.batch_size} cannot be divided by accumulation_steps={config.accumulation_steps}"
        )


def study(config: ml_collections.ConfigDict) -> Study:
    """The labelled fields, and the folds of `config.protocol` with, if `soft`, the one on everything."""
    check(config)
    source, table = whole_fields.load(
        config.data.directory, cache_dir=config.data.cache_dir or None, store=config.data.store
    )
    labels, names = whole_fields.classes(table, rules(config), where=config.data.where)
    source = label(source, labels, names, table)
    rows = thinned(config, table, np.flatnonzero(labels >= 0))
    folds = (
        []
        if config.protocol.name == "none"
        else protocol(config.protocol, labels, table, rows, seed=config.seed)
    )
    if config.soft:
        folds.append(splits.Fold(EVERYTHING, rows, np.arange(len(table))))
    if not folds:
        raise ValueError("protocol.name='none' and soft=False: nothing to train")
    return Study(source, table, rows, folds)


def thinned(config: ml_collections.ConfigDict, table: pl.DataFrame, rows: np.ndarray) -> np.ndarray:
    """The labelled fields that take part, of those in `rows`: so many wells of every treatment, fields of every well.

    `data.control_wells` are those of the negative controls altogether; all numbers are 0 for all.
    """
    data, well = config.data, (whole_fields.PLATE, whole_fields.WELL)
    control = (table[whole_fields.CONTROL] == "negative").fill_null(False).to_numpy()
    parts = [
        whole_fields.drawn(table, chosen, of=of, unit=well, number=number, seed=config.seed)
        for chosen, of, number in (
            (rows[~control[rows]], whole_fields.TREATMENT, data.wells_per_treatment),
            (rows[control[rows]], (whole_fields.CONTROL,), data.control_wells),
        )
    ]
    kept, field = np.sort(np.concatenate(parts)), (whole_fields.ID,)
    if (
        any(data[name.removeprefix("data.")] for name in THINNING)
        and table[whole_fields.WELL][kept].null_count()
    ):
        raise ValueError(f"{', '.join(THINNING)}: these fields are of no wells; leave all three at 0")
    return whole_fields.drawn(table, kept, of=well, unit=field, number=data.fields_per_well, seed=config.seed)


def rules(config: ml_collections.ConfigDict) -> Any:
    """What `whole_fields.classes` goes by: `data.target`, or `data.classes`; one of them must be given."""
    target, pairs = config.data.target, config.data.classes
    if bool(target) == bool(pairs):
        raise ValueError(
            f"data.target={target!r}, data.classes={tuple(pairs)!r}: give either a column or pairs of class and query"
        )
    return target or pairs


def label(source: Source, labels: np.ndarray, names: tuple[str, ...], table: pl.DataFrame) -> Source:
    """The source with labels, class names and the columns that predictions carry along."""
    dataset = {**source.dataset, "class_names": list(names)}
    columns = {"well": whole_fields.wells(table), "field": np.arange(len(table), dtype=np.int32)}
    for name, column in COLUMNS.items():
        known = table[column]
        columns[name] = (
            known.to_numpy() if known.dtype.is_numeric() else known.fill_null("").to_numpy().astype(np.str_)
        )
    return Source(source.images, labels, source.ids, source.rows, dataset, columns)


def protocol(
    how: ml_collections.ConfigDict, labels: np.ndarray, table: pl.DataFrame, rows: np.ndarray, *, seed: int
) -> list[splits.Fold]:
    """The divisions of the labelled fields `rows`; positions in folds are rows of the table.

    "hold_out": `repeats` times, `fraction` of the wells (or of what `group` names) of every class train and the others
    test. "leave_one_out": every value of the column `group` tests once. Groups never stand on both sides.
    """
    if how.group not in table.columns:
        raise ValueError(
            f"protocol.group={how.group!r}: no such column; there are {', '.join(table.columns)}"
        )
    plates = table[whole_fields.PLATE].to_list()
    values = table[how.group].to_list()
    unknown = [int(row) for row in rows if values[row] is None]
    if unknown:
        raise ValueError(
            f"protocol.group={how.group!r}: unknown for {table[whole_fields.ID][unknown[0]]} and {len(unknown) - 1} "
            "more of the labelled fields; leave them out with data.where"
        )
    of_well = how.group == whole_fields.WELL
    groups = np.array(
        [f"{plates[row]}-{values[row]}" if of_well else str(values[row]) for row in rows], np.str_
    )
    if how.name == "hold_out":
        found = splits.repeated_hold_out(
            labels[rows], groups, fraction=how.fraction, repeats=how.repeats, seed=seed
        )
    else:
        found = splits.leave_one_out(groups)
    for fold in found:
        parts = {"training": groups[fold.training], "test": groups[fold.test]}
        splits.check_disjoint(parts, what=how.group.removeprefix("Metadata_"))
    return [splits.Fold(fold.name, rows[fold.training], rows[fold.test]) for fold in found]


def scaling(
    config: ml_collections.ConfigDict, source: Source, table: pl.DataFrame, training: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean and standard deviation (F, C) float32 that the channels of every field are scaled by.

    "standardize": of all pixels of the fold's training fields. "controls": of the negative controls of the field's own
    plate, as the paper has it for BBBC021. "unit": 0 and the largest value of the dtype.
    """
    number, channels = len(source), len(source.channels)
    if config.preprocess.intensity == "controls":
        return dict(whole_fields.control_statistics(table, source.channels))
    if config.preprocess.intensity == "standardize":
        mean, std = preprocess.channel_statistics(source.images, source.rows[training])
    else:
        mean, std = np.zeros(channels, np.float32), np.full(channels, _largest(source), np.float32)
    return {
        "mean": np.broadcast_to(mean, (number, channels)),
        "std": np.broadcast_to(std, (number, channels)),
    }


def _largest(source: Source) -> float:
    dtype = np.dtype(source.images.dtype)
    if dtype.kind not in "iu":
        raise ValueError(f"preprocess.intensity='unit': images are {dtype}, of no largest value")
    return float(np.iinfo(dtype).max)


def make(config: ml_collections.ConfigDict, dataset: dict[str, Any]) -> FieldClassifier:
    """The classifier of a config, for fields as `dataset` describes them."""
    model = create_model(config, num_outputs=len(dataset["class_names"]))
    return FieldClassifier(config, model, {}, tuple(dataset["image_shape"]))


def num_steps(config: ml_collections.ConfigDict, training: int) -> int:
    """Steps in which `num_epochs` epochs show every one of so many fields `augment.copies` times each."""
    return math.ceil(config.num_epochs * config.augment.copies * training / config.batch_size)
