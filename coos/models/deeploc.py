"""DeepLoc, the 11-layer network of Kraus et al. 2017, as used for COOS-7 (Lu et al. 2019, section 3.1).

    60x60  conv1, conv2        64     pool1 -> 30x30
    30x30  conv3, conv4       128     pool2 -> 15x15
    15x15  conv5 ... conv8    256     pool3 ->  8x8
    flatten (height, width, channel order), fc1 512, fc2 512, logits

Convolutions are 3x3, stride 1, SAME; pools are max 2x2, stride 2, SAME. Every layer, the logits included, is
affine with bias, then batch norm; all but the logits end in ReLU. 10,985,237 trainable parameters for two
channels and seven classes.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from coos.models import layers

PUBLISHED = layers.Published("Kraus 2017; Lu 2019", (60, 60, 2), 7, 10_985_237)

CONVOLUTIONS = (("conv1", 1), ("conv2", 1), ("conv3", 2), ("conv4", 2)) + tuple(
    (f"conv{i}", 4) for i in range(5, 9)
)
POOL_AFTER = {"conv2": "pool1", "conv4": "pool2", "conv8": "pool3"}
SMALLEST_SIZE = 1


class _BatchNormed(nn.Module):
    """Batch norm of an affine layer's output; the layer's bias is added here.

    A batch norm that uses the batch's own statistics takes the bias out again, so the bias has no gradient.
    Rounding makes that gradient noise instead of zero, which Adam would blow up to full steps in random
    directions; it is cut, and the bias stays where it started.
    """

    momentum: float
    epsilon: float
    dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        bias = self.param("bias", nn.initializers.constant(0.1), x.shape[-1:])
        bias = jax.lax.stop_gradient(bias) if train else bias
        norm = layers.batch_norm(
            train=train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        return norm(name="norm")(x + bias.astype(x.dtype))


class DeepLoc(nn.Module):
    """DeepLoc as a Linen module.

    Attributes:
        num_outputs: number of logits.
        width: channels of the first convolution; all other widths follow in proportion (64 is the original).
        momentum: of the running statistics (0.5 in the original code, which forgets within a few batches).
        epsilon: of the batch norms.
        dtype: compute dtype; parameters and statistics are float32.
        axis_name: pmap axis over which batch statistics are averaged, or None.
    """

    num_outputs: int
    width: int = 64
    momentum: float = 0.5
    epsilon: float = 1e-3
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> dict[str, Any]:
        """images (B, H, W, C) float -> {"logits": (B, num_outputs) float32, "features": {layer: array}}."""
        layers.check_images("DeepLoc", images, smallest=(SMALLEST_SIZE, SMALLEST_SIZE))
        weights = {
            "kernel_init": nn.initializers.truncated_normal(0.1),
            "use_bias": False,
            "dtype": self.dtype,
        }
        norm = {
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "dtype": self.dtype,
            "axis_name": self.axis_name,
        }
        features: dict[str, jax.Array] = {}
        x = images.astype(self.dtype)
        for name, factor in CONVOLUTIONS:
            x = nn.Conv(factor * self.width, (3, 3), name=name, **weights)(x)
            features[name] = x = nn.relu(_BatchNormed(name=f"{name}_norm", **norm)(x, train=train))
            if name in POOL_AFTER:
                features[POOL_AFTER[name]] = x = nn.max_pool(x, (2, 2), (2, 2), "SAME")
        x = layers.flatten(x)
        for name in ("fc1", "fc2"):
            x = nn.Dense(8 * self.width, name=name, **weights)(x)
            features[name] = x = nn.relu(_BatchNormed(name=f"{name}_norm", **norm)(x, train=train))
        x = nn.Dense(self.num_outputs, name="logits", **weights)(x)
        logits = _BatchNormed(name="logits_norm", **norm)(x, train=train)
        return {"logits": layers.as_logits(logits), "features": features}


def create(
    num_outputs: int,
    *,
    width: int = 64,
    momentum: float = 0.5,
    epsilon: float = 1e-3,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> DeepLoc:
    """DeepLoc with the options of `DeepLoc`."""
    return DeepLoc(
        num_outputs, width=width, momentum=momentum, epsilon=epsilon, dtype=dtype, axis_name=axis_name
    )
