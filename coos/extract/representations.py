"""What is computed of every cell: features of a trained network, of an untrained or an imported one, or statistics."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from coos.data.plate_files import Sites
from coos.extract import intensities
from coos.extract.windows import SIZE, WINDOWS, Window
from coos.models import layers
from coos.models.pretrained import scaling as scalings
from coos.train import run, weights
from coos.train.learner import Learner

SCALINGS = ("tf", "own")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Representation:
    """D features of a window.

    Attributes:
        window: what of the field is looked at.
        features: (variables, windows (n, size, size, C)) -> (n, D) float32; with `on_device` compiled for all devices,
            else on the host and called by several threads.
        variables: host tree of what the network knows, {} without one.
        prefix, names: D names; without `names` they are <prefix>_0, <prefix>_1, ...
        identity: what tells it from others, as JSON: of a network its name and the digest of its variables.
        about: where it comes from, which does not tell it from others.
        channels: those that it wants, in its order; None: any.
        dtype: that of windows that it wants; None: any.
        on_device: whether JAX computes it.
    """

    window: Window
    features: Callable[[Any, Any], Any]
    variables: Any
    prefix: str
    identity: dict[str, Any]
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = ()
    channels: tuple[str, ...] | None = None
    dtype: str | None = None
    on_device: bool = True

    def feature_names(self, image: tuple[int, ...], dtype: np.dtype) -> tuple[str, ...]:
        """Names of the features of cells in images (H, W, C) of a dtype.

        Raises ValueError where the network takes no such windows, or lacks the layer.
        """
        found = self.window.dtype(dtype)
        if self.dtype is not None and found != self.dtype:
            raise ValueError(
                f"windows would be {found}, but the network was trained on {self.dtype}: other images"
            )
        if self.names:
            return self.names
        windows = jax.ShapeDtypeStruct((1, self.window.size, self.window.size, image[2]), found)
        width = jax.eval_shape(self.features, self.variables, windows).shape[1]
        return tuple(f"{self.prefix}_{i}" for i in range(width))


def of_run(
    workdir: pathlib.Path,
    *,
    layer: str,
    crop_size: int | None = None,
    window: str | None = None,
    untrained: bool = False,
    seed: int | None = None,
    precision: str | None = None,
) -> Representation:
    """Features of `layer` of the network of a run, after its best step, or `untrained`: drawn with a seed.

    Args:
        workdir: of the run.
        layer: one of the network's features, maps averaged over space, or "logits".
        crop_size, window: None: those of the run's training.
        untrained: fresh variables instead of trained ones.
        seed: of fresh variables; None: the run's own, so that they are those it began with if it began at random.
        precision: dtype to compute in; None: that of the training.

    Raises:
        ValueError: no run, no evaluated step yet, a network of vectors, or a window smaller than its input.
    """
    learner, variables, record = _untrained(workdir, seed) if untrained else run.load_best(workdir)
    dataset = record["dataset"]
    if len(learner.input_shape) != 3:
        raise ValueError(f"{workdir}: its network takes vectors {learner.input_shape}, not images of cells")
    size = crop_size or dataset.get("crop_size") or learner.input_shape[0]
    if size < learner.prepared_shape()[0]:
        raise ValueError(
            f"crop_size={size}: the network of {workdir} was trained on {learner.prepared_shape()[0]} pixels"
        )
    learner = dataclasses.replace(learner, model=_in_precision(learner.model, precision))
    chosen = _run_window(dataset, size, window)
    settings = {name: learner.config[name].to_dict() for name in ("model", "preprocess")}
    return Representation(
        window=chosen,
        features=functools.partial(_represent, learner, layer),
        variables=variables,
        prefix=layer,
        identity={
            "kind": "untrained" if untrained else "trained",
            "network": learner.config.model.name,
            "settings": _digest_of(json.dumps([settings, learner.constants], sort_keys=True, default=str)),
            "variables": digest(variables),
            "layer": layer,
            "precision": str(jnp.dtype(learner.model.dtype)),
        },
        about={"workdir": str(workdir), "best": record.get("best"), "config": record["config"]},
        channels=tuple(dataset["channels"]) if dataset.get("channels") else None,
        dtype=dataset.get("image_dtype") if window in (None, dataset.get("window", "exact")) else None,
    )


def _represent(learner: Learner, layer: str, variables: Any, images: Array) -> Array:
    return learner.represent(variables, images, layer=layer)


def _untrained(workdir: pathlib.Path, seed: int | None) -> tuple[Learner, Any, dict[str, Any]]:
    learner, record = run.read_learner(workdir)
    key, _ = jax.random.split(jax.random.PRNGKey(learner.config.seed if seed is None else seed))
    return learner, jax.device_get(jax.jit(learner.init)(key)), record


def _run_window(dataset: dict[str, Any], size: int, window: str | None) -> Window:
    """The window that a run was trained with, or another kind; stored crops of DeepProfiler's window are bytes."""
    kind = window or dataset.get("window", "exact")
    return Window(size=size, kind=kind, as_bytes=kind == "deepprofiler" and dataset.get("form") == "crops")


def _in_precision(module: Any, precision: str | None) -> Any:
    return module if precision is None else module.clone(dtype=jnp.dtype(precision))


def of_weights(
    directory: pathlib.Path,
    *,
    layer: str,
    num_channels: int,
    size: int = 224,
    scaling: str = "tf",
    crop_size: int | None = None,
    window: str | None = None,
    precision: str | None = None,
) -> Representation:
    """Imported weights of an RGB network: each channel through it as a grey image, features one after the other.

    Bornholdt 2021, section 3.2.1: windows resized to `size` pixels, every channel from its extremes to [-1, 1], average
    pool: 5 x 1,280 features of EfficientNet-B0 are 6,400.

    Args:
        directory: of experiments/import_weights.py, for three channels.
        layer, crop_size, precision: as in `of_run`; windows of 128 pixels, float32.
        num_channels: of the images.
        size: height and width of the network's input; 0: that of the window.
        scaling: "tf" ([-1, 1], as the thesis) or "own" (that of the weights).
        window: None: "exact".

    Raises:
        ValueError: no such folder, weights for another number of channels, an unknown scaling.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"scaling={scaling!r}: choose one of {SCALINGS}")
    module, variables, record = weights.load(directory)
    if record["channels"] != 3 or "scaling" not in record:
        raise ValueError(
            f"{directory}: holds weights for {record['channels']} channels; each channel goes through a network for "
            "three: import the weights with experiments/import_weights.py, without --channels"
        )
    own = record["scaling"]
    chosen = (
        scalings.named("tf") if scaling == "tf" else scalings.Scaling(tuple(own["mean"]), tuple(own["std"]))
    )
    module = _in_precision(module, precision)

    def features(variables: Any, images: Array) -> Array:
        colours = scalings.channels_as_images(images, chosen, size=size or None)
        found = layers.layer_of(module.apply(variables, colours, train=False), layer)
        return scalings.join_channels(found, num_channels)

    return Representation(
        window=Window(size=crop_size or SIZE, kind=window or WINDOWS[0]),
        features=features,
        variables=variables,
        prefix=layer,
        identity={
            "kind": "imported",
            "network": record["network"],
            "options": record["options"],
            "variables": digest(variables),
            "layer": layer,
            "size": size,
            "scaling": chosen[:2],
            "precision": str(jnp.dtype(module.dtype)),
        },
        about={"weights": str(directory), "source": record["source"]},
    )


def of_statistics(
    channels: Sequence[str],
    *,
    crop_size: int | None = None,
    window: str | None = None,
    correlations: bool = False,
) -> Representation:
    """Statistics of the intensities of every channel of a window, see `coos.extract.intensities`."""
    return Representation(
        window=Window(size=crop_size or SIZE, kind=window or WINDOWS[0]),
        features=lambda _, images: intensities.statistics(images, correlations=correlations),
        variables={},
        prefix="",
        identity={"kind": "statistics", "correlations": correlations},
        names=intensities.names(channels, correlations=correlations),
        on_device=False,
    )


def in_order(sites: Sites, channels: tuple[str, ...] | None) -> tuple[Sites, bool]:
    """The sites with their channels in this order (None: any), and whether the order is another one now.

    Raises ValueError where these are not the channels of the sites.
    """
    if channels is None or channels == sites.channels:
        return sites, False
    if sorted(channels) != sorted(sites.channels):
        raise ValueError(
            f"the network was trained on the channels {', '.join(channels)}, the images have "
            f"{', '.join(sites.channels)}; name those of the images with --channels"
        )
    order = [sites.channels.index(name) for name in channels]
    images = tuple(tuple(paths[i] for i in order) for paths in sites.images)
    return dataclasses.replace(sites, channels=channels, images=images), True


def digest(variables: Any) -> str:
    """Hash of the names and values of a tree of arrays, 16 hexadecimal digits."""
    found = hashlib.sha256()
    for path, array in jax.tree_util.tree_leaves_with_path(variables):
        array = np.ascontiguousarray(array)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
