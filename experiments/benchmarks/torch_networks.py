"""The papers' networks in PyTorch: peers for speed in `models.py`, oracles for correctness in the tests.

Images are (B, C, H, W), results are logits. Weights start from PyTorch's defaults: what is compared is speed, and
results with the same weights. `create(name, num_outputs, channels=..., **options)` makes one of `NETWORKS` or of
the standard networks in `torch_standard`. Layers with weights are registered in the order of the forward pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import torch_standard


def count(network: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


class GapNet(nn.Module):
    """GapNet of Hofmarcher et al. 2019: three blocks with pools, one dilated; means of all four blocks concatenated.

    `single_cell`: SC-CNN, the same without dilation and with an unpadded second pool, for crops of 96 x 96.
    """

    def __init__(self, num_outputs: int, *, channels: int = 5, width: int = 32, fc_units: int = 1024,
                 dropout: float = 0.0, single_cell: bool = False):  # fmt: skip
        super().__init__()

        def conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation), nn.SELU(inplace=True)]

        w, (d1, d2) = width, (1, 1) if single_cell else (2, 4)
        second_pool = nn.MaxPool2d(2, 2, padding=0 if single_cell else 1)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(*conv(channels, w, 2), nn.MaxPool2d(2)),
                nn.Sequential(*conv(w, 2 * w, 2), *conv(2 * w, 2 * w), *conv(2 * w, 2 * w), second_pool),
                nn.Sequential(*conv(2 * w, 4 * w), *conv(4 * w, 4 * w), *conv(4 * w, 4 * w), nn.MaxPool2d(2)),
                nn.Sequential(
                    *conv(4 * w, 8 * w, 1, d1), *conv(8 * w, 8 * w, 1, d1), *conv(8 * w, 8 * w, 1, d2)
                ),
            ]
        )
        after = [nn.AlphaDropout(dropout)] if dropout else []
        self.head = nn.Sequential(
            nn.Linear(15 * w, fc_units), nn.SELU(inplace=True), *after,
            nn.Linear(fc_units, fc_units), nn.SELU(inplace=True), *after,
            nn.Linear(fc_units, num_outputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        means = []
        for block in self.blocks:
            x = block(x)
            means.append(x.mean((2, 3)))
        return self.head(torch.cat(means, 1))


def sc_cnn(num_outputs: int, **options) -> GapNet:
    """SC-CNN: `GapNet(single_cell=True)`."""
    return GapNet(num_outputs, single_cell=True, **options)


class MilNet(nn.Module):
    """MIL-Net of Kraus et al. 2016 as in the GapNet paper: instance maps, noisy-AND pooling, a last linear layer."""

    def __init__(self, num_outputs: int, *, channels: int = 5, width: int = 32, instances: int = 1000,
                 sharpness: float = 10.0):  # fmt: skip
        super().__init__()

        def conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, kernel), nn.ReLU(inplace=True)]

        def pool() -> list[nn.Module]:
            return [nn.MaxPool2d(3, 2), nn.Dropout(0.2)]

        w = width
        self.maps = nn.Sequential(
            nn.AvgPool2d(3, 2),
            *conv(channels, w, 3), *conv(w, 2 * w, 3), *pool(), *conv(2 * w, 2 * w, 5), *pool(),
            *conv(2 * w, 4 * w, 3), *pool(), *conv(4 * w, 4 * w, 3), *pool(),
            *conv(4 * w, instances, 1), nn.Dropout(0.5), nn.Conv2d(instances, num_outputs, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.sharpness = sharpness
        self.threshold = nn.Parameter(torch.full((num_outputs,), 0.1))
        self.logits = nn.Linear(num_outputs, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the last linear layer."""
        mean = self.maps(x).mean((2, 3))
        low = torch.sigmoid(-self.sharpness * self.threshold)
        high = torch.sigmoid(self.sharpness * (1 - self.threshold))
        pooled = (torch.sigmoid(self.sharpness * (mean - self.threshold)) - low) / (high - low)
        return self.logits(pooled)


class MCnn(nn.Module):
    """M-CNN of Godinez et al. 2017: seven pathways of three 5x5 convolutions on ever coarser images."""

    def __init__(self, num_outputs: int, *, channels: int = 5, size: tuple[int, int] = (520, 696),
                 width: int = 16, fc_units: int = 512):  # fmt: skip
        super().__init__()

        def pathway(n: int, outputs: int) -> nn.Sequential:
            steps: list[nn.Module] = [nn.MaxPool2d(2**n)] if n else []
            for inputs in (channels, outputs, outputs):
                steps += [nn.Conv2d(inputs, outputs, 5, padding=2), nn.ReLU(inplace=True)]
            return nn.Sequential(*steps, *([nn.MaxPool2d(2 ** (6 - n))] if n < 6 else []))

        w = width
        widths = (w, w, w, 2 * w, 2 * w, 2 * w, 4 * w)
        self.pathways = nn.ModuleList(pathway(n, outputs) for n, outputs in enumerate(widths))
        self.mixed = nn.Sequential(
            nn.Conv2d(13 * w, 64 * w, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten()
        )
        flattened = 64 * w * (size[0] // 128) * (size[1] // 128)
        self.head = nn.Sequential(
            nn.Linear(flattened, fc_units), nn.ReLU(inplace=True), nn.Linear(fc_units, num_outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.mixed(torch.cat([pathway(x) for pathway in self.pathways], 1)))


def fnn(num_outputs: int, *, channels: int = 1783, fc_units: int = 2048) -> nn.Sequential:
    """The fully connected network of Simm et al. 2018 on profiles of `channels` features."""
    layers: list[nn.Module] = [nn.Dropout(0.1)]
    for inputs in (channels, fc_units, fc_units):
        layers += [nn.Linear(inputs, fc_units), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(fc_units, num_outputs))


class DeepLoc(nn.Module):
    """DeepLoc of Kraus et al. 2017: eight convolutions, three linear layers, batch norm after each."""

    def __init__(
        self, num_outputs: int, *, channels: int = 2, size: tuple[int, int] = (60, 60), width: int = 64
    ):
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for i, factor in enumerate((1, 1, 2, 2, 4, 4, 4, 4)):
            outputs = factor * width
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs, 1e-3, 0.5),
                nn.ReLU(),
            ]
            layers += [nn.MaxPool2d(2, 2, ceil_mode=True)] if i in (1, 3, 7) else []
            inputs = outputs
        inputs *= -(-size[0] // 8) * -(-size[1] // 8)
        layers.append(nn.Flatten())
        for outputs in (8 * width, 8 * width, num_outputs):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, 1e-3, 0.5), nn.ReLU()]
            inputs = outputs
        self.layers = nn.Sequential(*layers[:-1])  # no ReLU on the logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits, batch-normed."""
        return self.layers(x)


class Pci(nn.Module):
    """Paired cell inpainting of Lu et al. 2019: two encoders and a decoder; batch norm after the encoders' ReLU.

    Channels: those of the source cell (protein, markers), then the target cell's `target_channels` markers.
    """

    def __init__(self, num_outputs: int = 1, *, channels: int = 3, target_channels: int = 1, width: int = 96):
        super().__init__()
        self.source_channels = channels - target_channels
        w = width // 3  # widths are multiples of 32: 96 = 3 w, 256 = 8 w, 384 = 12 w; 16 = w / 2

        def conv(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]

        def encoder(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
            layers: list[nn.Module] = []
            for i, outputs in enumerate(widths):
                layers += [*conv(inputs, outputs), nn.BatchNorm2d(outputs, 1e-3, 0.01)]
                layers += [nn.MaxPool2d(2)] if i < 2 else []
                inputs = outputs
            return nn.Sequential(*layers)

        self.source = encoder(self.source_channels, (3 * w, 8 * w, 12 * w, 12 * w, 8 * w))
        self.target = encoder(target_channels, (w // 2, w, w))
        self.decoder = nn.Sequential(
            *conv(9 * w, 8 * w), *conv(8 * w, 12 * w), *conv(12 * w, 12 * w), nn.Upsample(scale_factor=2),
            *conv(12 * w, 8 * w), nn.Upsample(scale_factor=2), *conv(8 * w, 3 * w), nn.Conv2d(3 * w, num_outputs, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """The target cell's protein image, (B, num_outputs, H, W)."""
        source, target = x[:, : self.source_channels], x[:, self.source_channels :]
        return self.decoder(torch.cat([self.source(source), self.target(target)], 1))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "gapnet": GapNet,
    "sc_cnn": sc_cnn,
    "milnet": MilNet,
    "mcnn": MCnn,
    "fnn": fnn,
    "deeploc": DeepLoc,
    "pci": Pci,
}


def create(name: str, num_outputs: int, **options) -> nn.Module:
    """The network called `name`, one of `NETWORKS` or `torch_standard.NETWORKS`."""
    return {**NETWORKS, **torch_standard.NETWORKS}[name](num_outputs, **options)
