"""What several networks share and Flax does not have: input checks, pools with explicit padding, pooling of features.

All images are (B, H, W, C). Sizes follow PyTorch's floor rule unless a function says otherwise.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

POOLINGS = ("mean", "max")


def check_images(network: str, images: Array, *, smallest: tuple[int, int]) -> None:
    """Raise ValueError unless images are (B, H, W, C) floats of at least `smallest` = (height, width) pixels."""
    if images.ndim != 4:
        raise ValueError(f"{network} takes images (batch, height, width, channels); got shape {images.shape}")
    if images.shape[3] < 1:
        raise ValueError(f"{network} takes images with at least one channel; got shape {images.shape}")
    if images.shape[1] < smallest[0] or images.shape[2] < smallest[1]:
        raise ValueError(
            f"{network} takes images of at least {smallest[0]} x {smallest[1]} pixels; "
            f"got {images.shape[1]} x {images.shape[2]}"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"{network} takes floating-point images; got {images.dtype}: scale them first")


def batch_norm(
    *, train: bool, momentum: float, epsilon: float, dtype: Any, axis_name: str | None
) -> Callable[..., nn.BatchNorm]:
    """`nn.BatchNorm` with a network's settings; call it with `name=`.

    Running statistics move by (1 - momentum) per step: 0.9 is PyTorch's "momentum 0.1". With `axis_name`, the
    batch is that of all devices of the pmap axis. The running variance is biased, as in Keras (PyTorch's is not).
    """
    return functools.partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=axis_name if train else None,
    )


def max_pool(x: Array, window: int, stride: int, padding: int = 0) -> Array:
    """Max pool of square windows; `padding` pixels of -inf on every side; an incomplete last window is left out."""
    return nn.max_pool(x, (window, window), (stride, stride), [(padding, padding)] * 2)


def ceil_max_pool(x: Array, window: int, stride: int, padding: int = 0) -> Array:
    """Max pool that keeps an incomplete last window: PyTorch's ceil_mode, Caffe's pooling.

    Output size ceil((n + 2 padding - window) / stride) + 1, less one where the last window would start beyond
    the image and its left padding.
    """

    def pads(size: int) -> tuple[int, int]:
        outputs = -(-(size + 2 * padding - window) // stride) + 1
        outputs -= (outputs - 1) * stride >= size + padding
        return padding, max((outputs - 1) * stride + window - size - padding, 0)

    return nn.max_pool(x, (window, window), (stride, stride), [pads(x.shape[1]), pads(x.shape[2])])


def zero_padded(x: Array, padding: int | tuple[int, int]) -> Array:
    """x with `padding` (or before, after) rows and columns of zeros on every side: Keras' ZeroPadding2D."""
    before, after = (padding, padding) if isinstance(padding, int) else padding
    return jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))


def adaptive_average_pool(x: Array, size: int) -> Array:
    """Means of `size` x `size` windows that cover the image evenly: PyTorch's AdaptiveAvgPool2d.

    Window i of n pixels runs from floor(i n / size) to ceil((i + 1) n / size): windows overlap where size does
    not divide n, and repeat pixels where n < size. The identity where n == size.
    """

    def weights(n: int) -> Array:
        i = jnp.arange(size)
        first, last = i * n // size, -(-(i + 1) * n // size)
        inside = (jnp.arange(n) >= first[:, None]) & (jnp.arange(n) < last[:, None])
        return (inside / inside.sum(1, keepdims=True)).astype(x.dtype)

    if x.shape[1:3] == (size, size):
        return x
    return jnp.einsum("ih,bhwc,jw->bijc", weights(x.shape[1]), x, weights(x.shape[2]))


def depthwise_convolution(
    x: Array, kernel: Array, strides: Sequence[int], padding: Any, **options: Any
) -> Array:
    """`lax.conv_general_dilated` for kernels (k, k, 1, C) on (B, H, W, C), one filter per channel.

    On CPUs it is written out as k * k shifted products: XLA's own takes 20 to 50 times as long there, and 5 to 20
    times as long backward. Given to `nn.Conv` as its `conv_general_dilated`.
    """
    window, dtype = kernel.shape[:2], x.dtype
    pads = (
        jax.lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
        if isinstance(padding, str)
        else padding
    )

    def library(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)

    def written_out(x: Array, kernel: Array) -> Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)  # as XLA's own, sums are made in full precision
        x, kernel = jnp.pad(x, ((0, 0), *pads, (0, 0))).astype(wide), kernel.astype(wide)
        last = [(n - k) // s * s + 1 for n, k, s in zip(x.shape[1:3], window, strides, strict=True)]
        taps = itertools.product(range(window[0]), range(window[1]))
        products = [
            x[:, i : i + last[0] : strides[0], j : j + last[1] : strides[1]] * kernel[i, j, 0]
            for i, j in taps
        ]
        return functools.reduce(jnp.add, products).astype(dtype)

    return jax.lax.platform_dependent(x, kernel, cpu=written_out, default=library)


def flatten(x: Array) -> Array:
    """(B, H, W, C) -> (B, H W C), in that order; an empty batch stays one."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def global_mean(x: Array) -> Array:
    """Mean over height and width, accumulated in float32: (B, H, W, C) -> (B, C)."""
    return x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32)).astype(x.dtype)


def pool_features(features: dict[str, Array], *, pooling: str = "mean") -> dict[str, Array]:
    """Every feature map as one vector per image: (B, H, W, C) -> (B, C); vectors stay. `pooling`: mean or max."""
    if pooling not in POOLINGS:
        raise ValueError(f"pooling {pooling!r}: choose one of {POOLINGS}")
    reduce = global_mean if pooling == "mean" else functools.partial(jnp.max, axis=(1, 2))
    return {name: reduce(x) if x.ndim == 4 else x for name, x in features.items()}


def layer_of(output: dict[str, Any], layer: str) -> Array:
    """The features called `layer` of a network's output, or its "logits", as vectors: (B, D) float32.

    Maps are averaged over space. ValueError lists the layers there are.
    """
    if layer == "logits":
        return output["logits"].astype(jnp.float32)
    if layer not in output["features"]:
        raise ValueError(f"layer {layer!r}: the network has {', '.join([*output['features'], 'logits'])}")
    x = output["features"][layer].astype(jnp.float32)
    return global_mean(x) if x.ndim == 4 else x


def local_response_norm(x: Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> Array:
    """x / (1 + alpha / size * sum of x^2 over `size` neighbouring channels) ^ beta (Krizhevsky 2012; Caffe's form)."""
    half = size // 2
    squares = jnp.pad(jnp.square(x.astype(jnp.float32)), ((0, 0), (0, 0), (0, 0), (half, half)))
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(size))
    return (x / (1 + alpha / size * total) ** beta).astype(x.dtype)


def as_logits(x: Array) -> Array:
    """At least float32, whatever the compute dtype: losses are taken in full precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def torch_linear_uniform(fan_in_scale: float = 1 / 3) -> Callable[..., Array]:
    """PyTorch's default for convolutions and linear layers: uniform in +-sqrt(3 fan_in_scale / fan_in)."""
    return jax.nn.initializers.variance_scaling(fan_in_scale, "fan_in", "uniform")


class WeightSource(NamedTuple):
    """Where the parameters of one of our layers stand in other libraries' checkpoints.

    Attributes:
        path: of our layer in the variables, such as ("conv2_1", "conv1").
        kind: "conv" (kernel, perhaps bias), "depthwise", "dense" or "norm" (scale, bias, mean, variance).
        torch: prefix of its tensors in torchvision's state dict ("layer1.0.conv1"), None where it has none.
        keras: name of the layer in Keras Applications ("conv2_block1_1_conv"), None where it has none.
        flattened: (C, H, W) of the feature map that a dense layer takes flattened: PyTorch flattens it in that order,
            Keras and we do in (H, W, C).
    """

    path: tuple[str, ...]
    kind: str
    torch: str | None = None
    keras: str | None = None
    flattened: tuple[int, int, int] | None = None


class Published(NamedTuple):
    """The setting in which a network was published: every file of `coos.models` has one as `PUBLISHED`.

    Attributes:
        paper: author and year, and the table or code that the parameter count is from.
        input_shape: of one example, (H, W, C) or (features,).
        num_outputs: of the published head.
        parameters: trainable ones, in that setting.
    """

    paper: str
    input_shape: tuple[int, ...]
    num_outputs: int
    parameters: int
