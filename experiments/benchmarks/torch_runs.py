"""PyTorch's side of `models.py`: steps of a network in `torch_networks` on the device that JAX uses."""

import os
import pathlib
import sys
from collections.abc import Callable

import jax
import numpy as np
import torch
from torch.nn import functional

from benchmarks import torch_networks


def import_profile() -> None:
    """Import the standard library's `profile`, which PyTorch's compiler needs and experiments/profile.py shadows."""
    scripts = pathlib.Path(__file__).resolve().parent.parent
    whole = sys.path[:]
    sys.path[:] = [folder for folder in whole if pathlib.Path(folder).resolve() != scripts]
    try:
        import cProfile  # noqa: F401
    finally:
        sys.path[:] = whole


def torch_device() -> str:
    """The device that JAX uses, in PyTorch's words. Raises ImportError where PyTorch cannot use it."""
    if jax.default_backend() == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise ImportError("the installed PyTorch has no GPU")
    return "cuda"


def torch_runs(
    name: str, outputs: int, options: dict, data: tuple[np.ndarray, np.ndarray], dtype: str, compiled: bool
) -> dict[str, Callable[[int], None]]:
    """Functions that take a number of forward or training steps of the PyTorch network and wait for their end."""
    import_profile()
    device = torch_device()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high")  # TF32, as XLA's default on GPUs
    torch.backends.cudnn.benchmark = True
    inputs, goals = data
    axes = (0, inputs.ndim - 1, *range(1, inputs.ndim - 1))
    images, targets = torch.tensor(inputs.transpose(axes)).to(device), torch.tensor(goals).to(device)
    module = torch_networks.create(name, outputs, channels=inputs.shape[-1], **options).to(device)
    if images.ndim == 4:  # the faster layout, on CPUs too
        images = images.contiguous(memory_format=torch.channels_last)
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if targets.ndim == 4:
        targets = targets.permute(0, 3, 1, 2)
    optimizer = torch.optim.SGD(module.parameters(), 1e-3, momentum=0.9, fused=device == "cuda")

    def forward() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return module(images).float()

    def loss() -> torch.Tensor:
        return (functional.mse_loss if targets.ndim == 4 else functional.cross_entropy)(forward(), targets)

    if compiled:
        forward_step, loss_step = torch.compile(forward), torch.compile(loss)
    else:
        forward_step, loss_step = forward, loss

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def run_forward(steps: int) -> None:
        module.eval()
        with torch.inference_mode():
            for _ in range(steps):
                forward_step()
        wait()

    def run_training(steps: int) -> None:
        module.train()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss_step().backward()
            optimizer.step()
        wait()

    return {"forward": run_forward, "training": run_training}
