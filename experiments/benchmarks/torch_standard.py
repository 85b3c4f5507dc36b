"""The standard networks in PyTorch, with torchvision's parameter names (torchvision itself is not needed).

So a state dict of these stands for a torchvision checkpoint. ResNet-50 V2, which torchvision does not have, has
Keras' layers under names of our own. Images are (B, C, H, W), results are logits; `width` makes a network narrow.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_efficientnet import EfficientNetB0


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 with four times the width; a shortcut by convolution where shapes differ."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, after ReLU."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (self.downsample(x) if self.downsample else x), inplace=True)


class ResNet(nn.Module):
    """ResNet with bottleneck blocks, the stride on their 3x3 convolution."""

    def __init__(self, num_outputs: int, *, channels: int = 3, stages: tuple[int, ...], width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = len(stages)
        inputs = width
        for i, blocks in enumerate(stages):
            block_width = width * 2**i
            layers = []
            for j in range(blocks):
                layers.append(Bottleneck(inputs, block_width, 2 if i > 0 and j == 0 else 1))
                inputs = 4 * block_width
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.max_pool2d(x, 3, 2, padding=1)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((2, 3)))


class PreactivationBlock(nn.Module):
    """Keras' block of ResNet V2: norm first; biases in the shortcut and the last convolution alone."""

    def __init__(self, inputs: int, width: int, stride: int, shortcut: bool, epsilon: float):
        super().__init__()
        norm = functools.partial(nn.BatchNorm2d, eps=epsilon)
        self.norm0, self.stride = norm(inputs), stride
        self.shortcut = nn.Conv2d(inputs, 4 * width, 1, stride) if shortcut else None
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 1, bias=False), norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.norm2 = norm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, a sum without activation."""
        first = functional.relu(self.norm0(x), inplace=True)
        if self.shortcut is not None:
            x = self.shortcut(first)
        elif self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        y = functional.relu(self.norm1(self.conv1(first)), inplace=True)
        y = functional.relu(self.norm2(self.conv2(y)), inplace=True)
        return self.conv3(y) + x


class ResNetV2(nn.Module):
    """Keras' ResNet V2: the stride in the last block of a stack, zeros around the input of the stem's pool."""

    def __init__(self, num_outputs: int, *, channels: int = 3, stages: tuple[int, ...] = (3, 4, 6, 3),
                 width: int = 64, epsilon: float = 1.001e-5):  # fmt: skip
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 7, 2, padding=3)
        blocks: list[nn.Module] = []
        inputs = width
        for i, number in enumerate(stages):
            for j in range(number):
                stride = 2 if j == number - 1 and i < len(stages) - 1 else 1
                blocks.append(PreactivationBlock(inputs, width * 2**i, stride, j == 0, epsilon))
                inputs = 4 * width * 2**i
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs, epsilon)
        self.logits = nn.Linear(inputs, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = functional.max_pool2d(functional.pad(self.stem(x), (1, 1, 1, 1)), 3, 2)
        return self.logits(functional.relu(self.norm(self.blocks(x)), inplace=True).mean((2, 3)))


class DenseLayer(nn.Sequential):
    """Norm, ReLU, 1x1 to four times the growth, norm, ReLU, 3x3; the result is appended to the input."""

    def __init__(self, inputs: int, growth: int):
        layers = {"norm1": nn.BatchNorm2d(inputs), "relu1": nn.ReLU(inplace=True)}
        layers |= {"conv1": nn.Conv2d(inputs, 4 * growth, 1, bias=False), "norm2": nn.BatchNorm2d(4 * growth)}
        layers |= {"relu2": nn.ReLU(inplace=True)}
        layers |= {"conv2": nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)}
        super().__init__(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """x with `growth` more channels."""
        return torch.cat([x, super().forward(x)], 1)


class DenseNet(nn.Module):
    """DenseNet: `growth` channels more per layer, halved between blocks."""

    def __init__(self, num_outputs: int, *, channels: int = 3, stages: tuple[int, ...] = (6, 12, 24, 16),
                 width: int = 64):  # fmt: skip
        super().__init__()
        growth, inputs = width // 2, width
        layers: dict[str, nn.Module] = {"conv0": nn.Conv2d(channels, width, 7, 2, padding=3, bias=False)}
        layers |= {"norm0": nn.BatchNorm2d(width), "relu0": nn.ReLU(inplace=True)}
        layers["pool0"] = nn.MaxPool2d(3, 2, padding=1)
        for i, number in enumerate(stages):
            block = {f"denselayer{j + 1}": DenseLayer(inputs + j * growth, growth) for j in range(number)}
            layers[f"denseblock{i + 1}"] = nn.Sequential(OrderedDict(block))
            inputs += number * growth
            if i < len(stages) - 1:
                steps = {"norm": nn.BatchNorm2d(inputs), "relu": nn.ReLU(inplace=True)}
                steps |= {"conv": nn.Conv2d(inputs, inputs // 2, 1, bias=False), "pool": nn.AvgPool2d(2)}
                layers[f"transition{i + 1}"] = nn.Sequential(OrderedDict(steps))
                inputs //= 2
        layers["norm5"] = nn.BatchNorm2d(inputs)
        self.features = nn.Sequential(OrderedDict(layers))
        self.classifier = nn.Linear(inputs, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(functional.relu(self.features(x), inplace=True).mean((2, 3)))


VGG16 = (1, 1, "pool", 2, 2, "pool", 4, 4, 4, "pool", 8, 8, 8, "pool", 8, 8, 8, "pool")


class FlattenedNet(nn.Module):
    """Convolutions, a pool to a fixed size, and a classifier on the flattened map: what VGG and AlexNet share."""

    def __init__(self, features: nn.Module, size: int, classifier: nn.Module):
        super().__init__()
        self.features, self.avgpool = features, nn.AdaptiveAvgPool2d(size)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def vgg16(num_outputs: int, *, channels: int = 3, width: int = 64) -> FlattenedNet:
    """VGG-16 without batch norm."""
    layers: list[nn.Module] = []
    inputs, units = channels, 64 * width
    for factor in VGG16:
        if isinstance(factor, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(inputs, factor * width, 3, padding=1), nn.ReLU(inplace=True)]
        inputs = factor * width
    classifier = nn.Sequential(
        nn.Linear(49 * inputs, units), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(units, units), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(units, num_outputs),
    )  # fmt: skip
    return FlattenedNet(nn.Sequential(*layers), 7, classifier)


def alexnet(num_outputs: int, *, channels: int = 3, width: int = 64) -> FlattenedNet:
    """AlexNet in one tower, without local response normalization."""
    w, units = width, 64 * width
    features = nn.Sequential(
        nn.Conv2d(channels, w, 11, 4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(w, 3 * w, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(3 * w, 6 * w, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(6 * w, 4 * w, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(4 * w, 4 * w, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(36 * 4 * w, units), nn.ReLU(inplace=True),
        nn.Dropout(), nn.Linear(units, units), nn.ReLU(inplace=True), nn.Linear(units, num_outputs),
    )  # fmt: skip
    return FlattenedNet(features, 6, classifier)


class BasicConv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, 1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, after ReLU."""
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    """Four branches side by side; the third is 3x3, as torchvision has it."""

    def __init__(self, inputs: int, w1: int, w3: tuple[int, int], w5: tuple[int, int], pooled: int):
        super().__init__()
        self.branch1 = BasicConv(inputs, w1, 1)
        self.branch2 = nn.Sequential(BasicConv(inputs, w3[0], 1), BasicConv(*w3, 3))
        self.branch3 = nn.Sequential(BasicConv(inputs, w5[0], 1), BasicConv(*w5, 3))
        pool = nn.MaxPool2d(3, 1, padding=1, ceil_mode=True)
        self.branch4 = nn.Sequential(pool, BasicConv(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The four branches' channels."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


INCEPTIONS = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


class GoogLeNet(nn.Module):
    """GoogLeNet with batch norm and without auxiliary classifiers; pools keep incomplete last windows."""

    def __init__(self, num_outputs: int, *, channels: int = 3, width: int = 64):
        super().__init__()

        def wide(x: int) -> int:
            return x * width // 64

        self.conv1 = BasicConv(channels, width, 7, 2)
        self.conv2 = BasicConv(width, width, 1)
        self.conv3 = BasicConv(width, 3 * width, 3)
        inputs = 3 * width
        for name, (w1, w3, w5, pooled) in INCEPTIONS.items():
            three, five = (wide(w3[0]), wide(w3[1])), (wide(w5[0]), wide(w5[1]))
            setattr(self, f"inception{name}", Inception(inputs, wide(w1), three, five, wide(pooled)))
            inputs = wide(w1) + three[1] + five[1] + wide(pooled)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(inputs, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = functional.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        for name in INCEPTIONS:
            if name in ("4a", "5a"):
                window = 3 if name == "4a" else 2
                x = functional.max_pool2d(x, window, 2, ceil_mode=True)
            x = getattr(self, f"inception{name}")(x)
        return self.fc(self.dropout(x.mean((2, 3))))


resnet50 = functools.partial(ResNet, stages=(3, 4, 6, 3))
resnet101 = functools.partial(ResNet, stages=(3, 4, 23, 3))

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet50v2": ResNetV2,
    "densenet121": DenseNet,
    "vgg16": vgg16,
    "alexnet": alexnet,
    "googlenet": GoogLeNet,
    "efficientnet_b0": EfficientNetB0,
}
