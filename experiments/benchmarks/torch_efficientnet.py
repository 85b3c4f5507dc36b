"""EfficientNet-B0 in PyTorch with torchvision's parameter names, in its own padding and norm or in Keras'."""

import torch
from torch import Tensor, nn
from torch.nn import functional

# kernel, repeats, output channels, expansion, stride of the first repeat
STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
VARIANTS = {"keras": (1e-3, 0.01), "torchvision": (1e-5, 0.1)}  # epsilon and momentum of the norms


class SameConv(nn.Conv2d):
    """Convolution whose padding is TensorFlow's SAME: the smaller half before the image, the larger after it."""

    def forward(self, x: Tensor) -> Tensor:
        """Output of ceil(size / stride)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        totals = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (x.shape[3], x.shape[2])]
        pads = [pad for total in totals for pad in (total // 2, total - total // 2)]
        return super().forward(functional.pad(x, pads))


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, SiLU unless `linear`."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1,
                 variant: str, linear: bool = False):  # fmt: skip
        same = variant == "keras" and stride > 1  # with stride 1 both paddings are (kernel - 1) / 2
        layer = SameConv if same else nn.Conv2d
        padding = 0 if same else kernel // 2
        conv = layer(inputs, outputs, kernel, stride, padding=padding, groups=groups, bias=False)
        epsilon, momentum = VARIANTS[variant]
        norm = nn.BatchNorm2d(outputs, epsilon, momentum)
        super().__init__(conv, norm, *([] if linear else [nn.SiLU(inplace=True)]))


class SqueezeExcitation(nn.Module):
    """Channels scaled by a function of their means."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x, scaled."""
        scale = self.fc2(functional.silu(self.fc1(x.mean((2, 3), keepdim=True)), inplace=True))
        return x * torch.sigmoid(scale)


class MBConv(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection; dropped whole with `drop` in training."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, *, drop: float,
                 variant: str):  # fmt: skip
        super().__init__()
        wide = inputs * expansion
        layers: list[nn.Module] = [ConvNorm(inputs, wide, variant=variant)] if expansion > 1 else []
        layers.append(ConvNorm(wide, wide, kernel, stride, groups=wide, variant=variant))
        layers.append(SqueezeExcitation(wide, max(1, inputs // 4)))
        layers.append(ConvNorm(wide, outputs, variant=variant, linear=True))
        self.block = nn.Sequential(*layers)
        self.residual, self.drop = stride == 1 and inputs == outputs, drop

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, without activation."""
        y = self.block(x)
        if not self.residual:
            return y
        if self.training and self.drop:
            keep = 1 - self.drop
            y = y * (torch.rand(len(x), 1, 1, 1, device=x.device, dtype=y.dtype) < keep) / keep
        return x + y


class EfficientNetB0(nn.Module):
    """EfficientNet-B0.

    `variant` "keras": TensorFlow's SAME padding, epsilon 1e-3; "torchvision": symmetric padding, epsilon 1e-5.
    DeepProfiler's head has no dropout (0.2 is the published one). `width`: of the stem, 32 is the original.
    """

    def __init__(self, num_outputs: int, *, channels: int = 3, width: int = 32, variant: str = "keras",
                 dropout: float = 0.0, drop_connect: float = 0.2, stages: tuple = STAGES):  # fmt: skip
        super().__init__()
        blocks = sum(stage[1] for stage in stages)
        layers: list[nn.Module] = [ConvNorm(channels, width, 3, 2, variant=variant)]
        inputs, number = width, 0
        for kernel, repeats, outputs, expansion, first_stride in stages:
            stage = []
            for i in range(repeats):
                sizes = (inputs, outputs * width // 32, kernel, first_stride if i == 0 else 1, expansion)
                stage.append(MBConv(*sizes, drop=drop_connect * number / blocks, variant=variant))
                inputs, number = sizes[1], number + 1
            layers.append(nn.Sequential(*stage))
        layers.append(ConvNorm(inputs, 40 * width, variant=variant))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(40 * width, num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.features(x).mean((2, 3)))
