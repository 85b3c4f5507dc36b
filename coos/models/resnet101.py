"""ResNet-101 (He et al. 2016, arXiv:1512.03385, Table 1).

    224x224  conv1     7x7, stride 2, 64, batch norm, ReLU       112x112
             pool1     max 3x3, stride 2                          56x56
             conv2_x    3 bottlenecks  64,  64,  256              56x56
             conv3_x    4 bottlenecks 128, 128,  512, stride 2    28x28
             conv4_x   23 bottlenecks 256, 256, 1024, stride 2    14x14
             conv5_x    3 bottlenecks 512, 512, 2048, stride 2     7x7
             pool5     global mean, 2048
    logits

Trainable parameters, three channels and 1000 classes: 44,549,160 in torchvision's variant (the default),
44,601,832 in Keras' (variant="keras"); `_resnet` lists the differences. Five channels and 209 assays:
42,934,673, the ResNet-101 of Hofmarcher et al. 2019 (Table 2), whose code has head="pool7".
"""

import functools

from coos.models import _resnet, layers
from coos.models._resnet import layout

PUBLISHED = layers.Published("He 2016; Hofmarcher 2019, Table 2", (520, 696, 5), 209, 42_934_673)

__all__ = ["create", "layout"]


create = functools.partial(_resnet.create, stage_sizes=(3, 4, 23, 3))
