"""Features that look alike in all groups of the training cells: CORAL over plates, wells or fields.

What tells plates apart is no property of the class. The penalty compares mean and covariance of the features of
every two groups in a batch, and training lowers it together with the cross-entropy. No test image is looked at.
"""

import jax
import jax.numpy as jnp
from jax import Array


def penalty(features: Array, groups: Array, *, num_groups: int) -> Array:
    """Mean over pairs of groups of how far means and covariances of the features lie apart, a scalar.

    mean over pairs (g, h) and entries of (m_g - m_h)^2 plus the same of (C_g - C_h)^2, with covariances of n - 1.
    Groups of fewer than two cells in the batch have no covariance and are left out; with fewer than two groups the
    penalty is 0. (Sun & Saenko 2016 match covariances of a source and a target domain; matching the means too, and
    over all pairs of training domains, is Gulrajani & Lopez-Paz 2021's form.)

    Args:
        features: (B, D) float.
        groups: (B,) int, the number of each cell's group.
        num_groups: how many there are in training.
    """
    x = features.astype(jnp.float32)
    member = jax.nn.one_hot(groups, num_groups, dtype=jnp.float32)
    count = member.sum(0)
    mean = member.T @ x / jnp.maximum(count, 1)[:, None]
    centred = x - mean[groups]
    products = jnp.einsum("bg,bd,be->gde", member, centred, centred, optimize=True)
    covariance = products / jnp.maximum(count - 1, 1)[:, None, None]
    present = (count >= 2).astype(jnp.float32)
    return _mean_over_pairs(mean, present) + _mean_over_pairs(covariance, present)


def _mean_over_pairs(values: Array, present: Array) -> Array:
    """Mean over pairs of present groups, and over entries, of the squared difference of their values (G, ...).

    The sum over all ordered pairs of |v_g - v_h|^2 is 2 n sum_g |v_g - mean|^2.
    """
    number = present.sum()
    weight = present.reshape(-1, *[1] * (values.ndim - 1))
    middle = (weight * values).sum(0) / jnp.maximum(number, 1)
    apart = (weight * jnp.square(values - middle)).sum(0).mean()
    return jnp.where(number >= 2, 2 * apart / jnp.maximum(number - 1, 1), 0.0)
