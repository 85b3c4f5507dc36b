"""ResNet-50 (He et al. 2016, arXiv:1512.03385, Table 1).

    224x224  conv1     7x7, stride 2, 64, batch norm, ReLU       112x112
             pool1     max 3x3, stride 2                          56x56
             conv2_x   3 bottlenecks  64,  64,  256               56x56
             conv3_x   4 bottlenecks 128, 128,  512, stride 2     28x28
             conv4_x   6 bottlenecks 256, 256, 1024, stride 2     14x14
             conv5_x   3 bottlenecks 512, 512, 2048, stride 2      7x7
             pool5     global mean, 2048
    logits

Trainable parameters, three channels and 1000 classes: 25,557,032 in torchvision's variant (the default),
25,583,592 in Keras' (variant="keras"), which has convolution biases; `_resnet` lists the differences.
"""

import functools

from coos.models import _resnet, layers
from coos.models._resnet import layout

PUBLISHED = layers.Published("He 2016", (224, 224, 3), 1000, 25_557_032)

__all__ = ["create", "layout"]


create = functools.partial(_resnet.create, stage_sizes=(3, 4, 6, 3))
