"""Configs that count in epochs: what that is in steps of their data."""

import ml_collections


def in_steps(config: ml_collections.ConfigDict, *, examples: int) -> ml_collections.ConfigDict:
    """A copy of the config with everything in steps, for epochs of `examples` examples.

    num_steps 0 means `num_epochs` epochs, evaluate_every and checkpoint_every 0 once an epoch; the optimizer learns
    how many steps an epoch has, and `warmup_epochs`, where there is such a field, become `warmup_steps`.
    """
    epoch = -(-examples // max(1, config.batch_size))
    config = config.copy_and_resolve_references()
    config.num_steps = config.num_steps or config.num_epochs * epoch
    config.evaluate_every = min(config.evaluate_every or epoch, config.num_steps)
    config.checkpoint_every = min(config.checkpoint_every or epoch, config.num_steps)
    if "steps_per_epoch" in config.optimizer:
        config.optimizer.steps_per_epoch = epoch
    if config.optimizer.get("warmup_epochs", 0):
        config.optimizer.warmup_steps = config.optimizer.warmup_epochs * epoch
    return config
