"""Weights of Keras and torchvision into our networks."""

import inspect
import pathlib
from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from coos import models, registry
from coos.models import summary
from coos.models.layers import WeightSource
from coos.models.pretrained import convert, download, files, known, scaling
from coos.models.pretrained.scaling import Scaling

IMAGE_SIZE = 224


class Imported(NamedTuple):
    """A network with the weights of a file.

    Attributes:
        module: the Linen module; its options are those that the weights need.
        variables: {"params", "batch_stats"}, NumPy float32.
        scaling: of its input, one offset and scale per channel.
        options: those that `coos.models.create` made the module with, besides `num_outputs`.
        fresh: layers that the file does not have and that were drawn at random (a new head).
        source: the file.
    """

    module: nn.Module
    variables: dict[str, Any]
    scaling: Scaling
    options: dict[str, Any]
    fresh: list[str]
    source: pathlib.Path


def importable() -> tuple[str, ...]:
    """Networks that say where their layers stand in other libraries' files."""
    return tuple(
        name for name in models.available() if hasattr(registry.lookup("coos.models", name), "layout")
    )


def load(
    network: str,
    weights: str | pathlib.Path,
    *,
    num_outputs: int | None = None,
    channels: int | None = None,
    stem: str = "cyclic",
    input_scaling: str | None = None,
    seed: int = 0,
    cache_dir: str | pathlib.Path | None = None,
    **options: Any,
) -> Imported:
    """The network called `network` with the weights called `weights` ("keras", "torchvision", …) or of that file.

    Args:
        network: one of `importable()`.
        weights: a name in `known.KNOWN[network]`, downloaded on demand; or the path of a Keras .h5 or .weights.h5,
            a torch .pth, or a .safetensors file.
        num_outputs: of a new head, drawn at random; None keeps the file's own.
        channels: input channels; the first kernel's three are spread over them as `stem` says. None: the file's.
        stem: "cyclic" or "rescaled" (`scaling.adapt_stem`).
        input_scaling: name in `scaling.SCALINGS`. Public weights have theirs; for a file it must be said. (A Keras
            EfficientNet scales its input itself: "torch" with ImageNet weights, "unit" when trained from scratch.)
        seed: of what is drawn at random.
        cache_dir: where downloads are kept (default: $COOS_CACHE or ~/.cache/coos/weights).
        options: of the network. `variant` follows the file unless given.

    Raises:
        ValueError: naming the file and the tensor that is missing, surplus, misshapen or not finite; nothing else
            happens to a file that is no checkpoint.
    """
    architecture = registry.lookup("coos.models", network)
    if not hasattr(architecture, "layout"):
        raise ValueError(f"{network} has no public weights; {', '.join(importable())} have")
    path, own_scaling = _locate(network, weights, cache_dir)
    if input_scaling is None and own_scaling is None:
        raise ValueError(
            f"{path}: say which input these weights were trained with (input_scaling=, --scaling=): "
            f"{', '.join(scaling.SCALINGS)}"
        )
    rule = scaling.named(input_scaling or str(own_scaling))
    read = files.read(path)
    try:
        options = {**_variant(architecture, read), **options}
        new_head = num_outputs is not None
        module = models.create(network, num_outputs=1 if num_outputs is None else num_outputs, **options)
        sources = architecture.layout(module)
        found, surplus = _find(architecture, read, sources)
        if not new_head:
            module = module.clone(num_outputs=_outputs(found[sources[-1].path]))
        given = _stem_channels(found[sources[0].path])
        channels = given if channels is None else channels
        fresh = _fresh_layers(found, sources, new_head=new_head)
        shapes = summary.shapes(module, (IMAGE_SIZE, IMAGE_SIZE, given))
        layers = convert.fill(found, surplus, shapes, fresh=fresh)
        _change_stem(layers[sources[0].path], channels, stem=stem, reverse=rule.reversed_stem)
        drawn = convert.by_layer(_draw(module, channels, seed)) if fresh else {}
        layers |= {layer: drawn[layer] for layer in fresh}
        variables = convert.to_variables({layer: layers[layer] for layer in convert.by_layer(shapes)})
    except ValueError as error:
        raise ValueError(f"{path}, as {network}: {error}") from error
    names = sorted("/".join(layer) for layer in fresh)
    return Imported(module, variables, scaling.for_channels(rule, channels), options, names, path)


def _locate(
    network: str, weights: str | pathlib.Path, cache_dir: str | pathlib.Path | None
) -> tuple[pathlib.Path, str | None]:
    """The file, and the name of its input scaling if it is known."""
    path = pathlib.Path(weights)
    if path.is_file():
        return path, None
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file of weights")
    if path.suffix or path.parent != pathlib.Path("."):
        raise ValueError(f"{path}: no such file")
    public = known.lookup(network, str(weights))
    return download.fetch(public.url, checksum=public.checksum, cache_dir=cache_dir), public.scaling


def _variant(architecture: ModuleType, read: Any) -> dict[str, str]:
    """The option `variant` that goes with the file's library, where the network has variants of both."""
    if "variant" not in inspect.signature(architecture.create).parameters:
        return {}
    return {"variant": "torchvision" if isinstance(read, files.TorchWeights) else "keras"}


def _find(architecture: Any, read: Any, sources: list[WeightSource]) -> tuple[convert.Found, list[str]]:
    if isinstance(read, files.TorchWeights):
        if all(source.torch is None for source in sources):
            raise ValueError("this network, or this variant of it, has no counterpart in torchvision")
        ignored = getattr(architecture, "IGNORED_TENSORS", ())
        return convert.from_torch(read.tensors, sources, ignored=ignored)
    if all(source.keras is None for source in sources):
        raise ValueError("this network, or this variant of it, has no counterpart in Keras")
    return convert.from_keras(read, sources)


def _outputs(head: dict[str, convert.Tensor]) -> int:
    """Number of outputs of the file's own head."""
    if "bias" not in head or head["bias"].value.ndim != 1:
        raise ValueError(
            "the file holds no classifier; say how many outputs a new one shall have (num_outputs)"
        )
    return len(head["bias"].value)


def _draw(module: nn.Module, channels: int, seed: int) -> Any:
    shape = (1, IMAGE_SIZE, IMAGE_SIZE, channels)
    draw = jax.jit(lambda key: module.init(key, jnp.zeros(shape)))
    return jax.device_get(draw(jax.random.PRNGKey(seed)))


def _stem_channels(stem: dict[str, convert.Tensor]) -> int:
    """Input channels of the file's first convolution (3 where it is missing or no convolution)."""
    kernel = stem.get("kernel")
    return (kernel.value.shape[2] if kernel is not None and kernel.value.ndim == 4 else 0) or 3


def _fresh_layers(found: convert.Found, sources: list[WeightSource], *, new_head: bool) -> set:
    """Layers to draw at random: the logits, and, where the file ends before its classifier, all dense layers."""
    if not new_head:
        return set()
    dense = [source.path for source in sources if source.kind == "dense"]
    without_classifier = not any(found[path] for path in dense)
    return set(dense) if without_classifier else {sources[-1].path}


def _change_stem(first: dict[str, np.ndarray], channels: int, *, stem: str, reverse: bool) -> None:
    """Blue, green, red to red, green, blue; then three channels to `channels`."""
    kernel = first["kernel"][:, :, ::-1] if reverse else first["kernel"]
    first["kernel"] = np.ascontiguousarray(scaling.adapt_stem(kernel, channels, stem=stem))
