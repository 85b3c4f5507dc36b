"""Mixup (Zhang et al. 2018): training on blends of two images and of their labels."""

import jax
import jax.numpy as jnp
from jax import Array


def mixup(keys: Array, images: Array, *, alpha: float) -> tuple[Array, Array]:
    """Each image of a batch blended with the one before it: s x_i + (1 - s) x_(i-1), s ~ Beta(alpha, alpha).

    A batch is shuffled, so that its neighbours are random partners. They are those on the same device: unlike
    augmentation, the blends depend on the number of devices. Each image has its own key (B,) and its own share.

    Args:
        keys: (B,) of the images.
        images: (B, H, W, C) float.
        alpha: above 0; small values blend little, 1 draws every share alike.

    Returns:
        Blends (B, H, W, C) and shares s (B,) of the image itself; the partner of image i is `partners`'.
    """
    share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)
    weight = share.reshape(-1, *[1] * (images.ndim - 1))
    return weight * images + (1 - weight) * partners(images), share


def partners(values: Array) -> Array:
    """What belongs to the partner of each image: the values (B, ...) moved on by one."""
    return jnp.roll(values, 1, axis=0)
