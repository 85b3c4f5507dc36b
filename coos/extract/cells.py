"""Features of the cells of a built data set, as tables: texture, layers of trained networks, layers of RGB networks.

    found = cells.of_run("runs/pci", layers=("conv3_1", "conv4_1"), pooling="max")
    cells.write(found, "data/coos7/uint16/1.1.0", ("training", "test1"), "features/pci")

Writes <out>/<set>.parquet: a row for each cell with `Metadata_Id`, `Metadata_Label`, `Metadata_Class` and what else is
known of it, and features called <layer>_<number>. What is there is not computed again.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jax import Array

from coos import texture as textures
from coos import workdir as work
from coos.data import pipeline, preprocess
from coos.data import source as sources
from coos.data.source import Source
from coos.extract.representations import digest
from coos.models import create, layers
from coos.models.pretrained import scaling as scalings
from coos.profiles import files
from coos.profiles.table import Table
from coos.train import run, steps, weights
from coos.train.predict import rows_of

RECIPE = "recipe.json"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CellFeatures:
    """What is computed of a cell.

    Attributes:
        compute: (variables, images (B, H, W, C) raw) -> {part: (B, D) float32}, in JAX.
        variables: host tree that `compute` needs.
        identity: what tells these features from others, as JSON.
        names: of the features of a part, where they have names; else they are <part>_<number>.
        batch_size: cells that a device computes at once.
    """

    compute: Callable[[Any, Array], dict[str, Array]]
    variables: Any
    identity: dict[str, Any]
    names: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    batch_size: int = 64

    def feature_names(self, source: Source) -> tuple[str, ...]:
        """Names of all features of cells like those of `source`; ValueError where they cannot be computed."""
        images = jax.ShapeDtypeStruct((1, *source.images.shape[1:]), source.images.dtype)
        shapes = jax.eval_shape(self.compute, self.variables, images)
        return tuple(
            name
            for part, found in shapes.items()
            for name in self.names.get(part) or (f"{part}_{i}" for i in range(found.shape[1]))
        )


def of_texture(*, undefined: float | None = None, **options: Any) -> CellFeatures:
    """Haralick's texture of the first channel and statistics of its intensities, with options of `coos.texture`.

    A channel without contrast has no correlation with another, which is NaN and refused when it is written; a number in
    `undefined` stands in its place.
    """

    def compute(_: Any, images: Array) -> dict[str, Array]:
        found = textures.texture(images, **options)
        return {"texture": found if undefined is None else jnp.where(jnp.isnan(found), undefined, found)}

    return CellFeatures(
        compute=compute,
        variables={},
        identity={"kind": "texture", "undefined": undefined, **options},
        names={"texture": tuple(textures.names(*[options["scales"]] if "scales" in options else []))},
    )


def of_run(workdir: pathlib.Path, *, parts: Sequence[str], **options: Any) -> CellFeatures:
    """Layers of the network of a run after its best step, as the run's task represents images.

    `options` are those of the task's `represent`. Raises ValueError for a folder that is no run, or an unknown layer.
    """
    learner, variables, record = run.load_best(workdir)

    def compute(variables: Any, images: Array) -> dict[str, Array]:
        return {part: learner.represent(variables, images, layer=part, **options) for part in parts}

    return CellFeatures(
        compute=compute,
        variables=variables,
        identity={
            "kind": "trained",
            "network": learner.config.model.name,
            "parts": list(parts),
            "best": record["best"]["step"],
            "variables": digest(variables),
            **options,
        },
    )


def of_rgb(directory: pathlib.Path, *, parts: Sequence[str], channel: int = 0) -> CellFeatures:
    """Layers of an imported RGB network, such as VGG16, of one channel as a grey 8-bit image; spatial maxima.

    Lu et al. 2019, section 3.1: the channel from its extremes to 0..255, rounded, the same for red, green and blue,
    scaled as the weights were trained, in its own size.

    Raises:
        ValueError: no folder of imported weights, or weights for other than three channels.
    """
    module, variables, record = weights.load(directory)
    if record["channels"] != 3 or "scaling" not in record:
        raise ValueError(
            f"{directory}: holds weights for {record['channels']} channels; import them with "
            "experiments/import_weights.py, without --channels"
        )
    own = scalings.Scaling(tuple(record["scaling"]["mean"]), tuple(record["scaling"]["std"]))
    return _of_rgb(module, variables, own, parts, channel, {"kind": "imported", "network": record["network"]})


def of_untrained_rgb(network: str, *, parts: Sequence[str], channel: int = 0, seed: int = 0, **options: Any):
    """The same of a network with random weights, drawn with a seed: what its architecture alone sees."""
    module = create(network, num_outputs=1, **options)
    size = (1, 64, 64, 3)
    variables = jax.device_get(
        jax.jit(lambda key: module.init(key, jnp.zeros(size)))(jax.random.PRNGKey(seed))
    )
    identity = {"kind": "untrained", "network": network, "seed": seed, **options}
    return _of_rgb(module, variables, scalings.named("caffe"), parts, channel, identity)


def _of_rgb(
    module: Any,
    variables: Any,
    scaling: scalings.Scaling,
    parts: Sequence[str],
    channel: int,
    identity: dict[str, Any],
) -> CellFeatures:
    def compute(variables: Any, images: Array) -> dict[str, Array]:
        grey = jnp.round(preprocess.to_bytes(images[..., channel : channel + 1]))
        output = module.apply(variables, scalings.apply(jnp.repeat(grey, 3, axis=-1), scaling), train=False)
        pooled = layers.pool_features(
            {part: _layer(output["features"], part) for part in parts}, pooling="max"
        )
        return {part: x.astype(jnp.float32) for part, x in pooled.items()}

    known = {"parts": list(parts), "channel": channel, "variables": digest(variables)}
    return CellFeatures(compute=compute, variables=variables, identity={**identity, **known})


def _layer(features: dict[str, Array], part: str) -> Array:
    if part not in features:
        raise ValueError(f"layer {part!r}: the network has {', '.join(features)}")
    return features[part]


def write(
    found: CellFeatures,
    directory: str,
    sets: Sequence[str],
    out: pathlib.Path,
    *,
    cache_dir: str | None = None,
) -> None:
    """Compute the features of every set of a built data set that has no table in `out` yet.

    Raises:
        ValueError: `out` holds other features, or those of other cells; features that are not finite.
    """
    dataset = sources.describe(directory)
    missing = [name for name in sets if name not in dataset["splits"]]
    if missing:
        raise ValueError(f"{directory}: no split {missing[0]!r}; it has {list(dataset['splits'])}")
    recipe = work.plain({**found.identity, "cells": {name: dataset["digests"].get(name) for name in sets}})
    _agree(out, recipe)
    computing = None
    for name in sets:
        path = out / f"{name}.parquet"
        if path.exists():
            continue
        computing = computing or _compiled(found)
        source = sources.load(directory, name, cache_dir=cache_dir or None)
        features = computing(source, f"{out.name}: {name}")
        files.write_parquet(_table(source, features, found.feature_names(source)), path)


def _agree(out: pathlib.Path, recipe: dict[str, Any]) -> None:
    """Note the recipe; ValueError if the folder was made by another one."""
    path = out / RECIPE
    if not path.exists():
        work.write_json(path, recipe)
        return
    before = work.read_json(path)
    different = [k for k in {**before, **recipe} if before.get(k) != recipe.get(k)]
    if different:
        raise ValueError(
            f"{out}: holds features made otherwise ({', '.join(sorted(different))}); remove the folder, or take "
            "another work directory"
        )


def _compiled(found: CellFeatures) -> Callable[[Source, str], np.ndarray]:
    """A function of a source and the name of a progress bar that computes its features (N, D)."""

    def features(variables: Any, batch: dict[str, Array]) -> Array:
        return jnp.concatenate(list(found.compute(variables, batch["image"]).values()), axis=1)

    step, variables = steps.make_predict(features), pipeline.replicate(found.variables)
    size = found.batch_size * jax.local_device_count()
    return functools.partial(_features, step, variables, size)


def _features(step: Any, variables: Any, batch_size: int, source: Source, progress: str) -> np.ndarray:
    found = rows_of(step, variables, source, batch_size=batch_size, progress=progress)
    wrong = ~np.isfinite(found).all(1)
    if wrong.any():
        raise ValueError(
            f"{progress}: features of {wrong.sum()} cells are not finite, such as of {str(source.ids[wrong][0])!r}; "
            "look at these images (is a channel empty? texture takes a value for that: options.undefined), or did "
            "training diverge?"
        )
    return found


def _table(source: Source, features: np.ndarray, names: tuple[str, ...]) -> Table:
    known = {
        "Metadata_Id": source.ids,
        "Metadata_Label": source.labels,
        "Metadata_Class": np.array(source.class_names)[source.labels],
        **{f"Metadata_{name.capitalize()}": column for name, column in source.columns.items()},
    }
    return Table(pl.DataFrame(known), features, names)
