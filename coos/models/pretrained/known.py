"""Public ImageNet weights: where they are, their checksums, and the input scaling they were trained with.

Addresses and checksums are those that Keras (keras.applications), the `efficientnet` package (EFN, which
DeepProfiler uses) and torchvision publish. torchvision puts the first eight digits of the SHA-256 in the file name.
"""

from typing import NamedTuple


class Known(NamedTuple):
    """One public file of weights: 1,000 ImageNet classes, three channels; `top`: whether it holds the classifier."""

    url: str
    checksum: str
    scaling: str
    top: bool = True


KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
KERAS_FILE = "_weights_tf_dim_ordering_tf_kernels"
EFN = (
    "https://github.com/Callidior/keras-applications/releases/download/efficientnet/"
    "efficientnet-b0_weights_tf_dim_ordering_tf_kernels_autoaugment"
)
TORCH = "https://download.pytorch.org/models/"


def _keras(folder: str, network: str, top: str, without: str, *, scaling: str) -> dict[str, Known]:
    stem = f"{KERAS}{folder}/{network}{KERAS_FILE}"
    return {
        "keras": Known(f"{stem}.h5", f"md5:{top}", scaling),
        "keras_notop": Known(f"{stem}_notop.h5", f"md5:{without}", scaling, top=False),
    }


def _torch(name: str, *, scaling: str = "torch") -> Known:
    return Known(f"{TORCH}{name}.pth", f"sha256-prefix:{name[-8:]}", scaling)


KNOWN: dict[str, dict[str, Known]] = {
    "alexnet": {"torchvision": _torch("alexnet-owt-7be5be79")},
    "densenet121": {
        **_keras(
            "densenet",
            "densenet121",
            "9d60b8095a5708f2dcce2bca79d332c7",
            "30ee3e1110167f948a6b9946edeeb738",
            scaling="torch",
        ),
        "torchvision": _torch("densenet121-a639ec97"),
    },
    "efficientnet_b0": {
        "efn": Known(
            f"{EFN}.h5",
            "sha256:163292582f1c6eaca8e7dc7b51b01c615b0dbc0039699b4dcd0b975cc21533dc",
            "torch",
        ),
        "efn_notop": Known(
            f"{EFN}_notop.h5",
            "sha256:c1421ad80a9fc67c2cc4000f666aa50789ce39eedb4e06d531b0c593890ccff3",
            "torch",
            top=False,
        ),
        "keras": Known(
            "https://storage.googleapis.com/keras-applications/efficientnetb0.h5",
            "md5:902e53a9f72be733fc0bcb005b3ebbac",
            "torch",
        ),
        "keras_notop": Known(
            "https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5",
            "md5:50bc09e76180e00e4465e1a485ddc09d",
            "torch",
            top=False,
        ),
        "torchvision": _torch("efficientnet_b0_rwightman-7f5810bc"),
    },
    "googlenet": {"torchvision": _torch("googlenet-1378be20", scaling="tf")},
    "resnet50": {
        **_keras(
            "resnet",
            "resnet50",
            "2cb95161c43110f7111970584f804107",
            "4d473c1dd8becc155b73f8504c6f6626",
            scaling="caffe",
        ),
        "torchvision": _torch("resnet50-0676ba61"),
        "torchvision_v2": _torch("resnet50-11ad3fa6"),
    },
    "resnet50v2": _keras(
        "resnet",
        "resnet50v2",
        "3ef43a0b657b3be2300d5770ece849e0",
        "fac2f116257151a9d068a22e544a4917",
        scaling="tf",
    ),
    "resnet101": {
        **_keras(
            "resnet",
            "resnet101",
            "f1aeb4b969a6efcfb50fad2f0c20cfc5",
            "88cf7a10940856eca736dc7b7e228a21",
            scaling="caffe",
        ),
        "torchvision": _torch("resnet101-63fe2227"),
        "torchvision_v2": _torch("resnet101-cd907fc2"),
    },
    "vgg16": {
        **_keras(
            "vgg16",
            "vgg16",
            "64373286793e3c8b2b4e3219cbf3544b",
            "6d6bbae143d832006294945121d1f1fc",
            scaling="caffe",
        ),
        "torchvision": _torch("vgg16-397923af"),
    },
}


def lookup(network: str, name: str) -> Known:
    """The public weights called `name` of `network`; ValueError lists what there is."""
    if network not in KNOWN:
        raise ValueError(f"no public weights for {network!r}; there are some for {', '.join(sorted(KNOWN))}")
    if name not in KNOWN[network]:
        raise ValueError(
            f"{network}: no public weights {name!r}; there are {', '.join(sorted(KNOWN[network]))}; "
            "or give the path of a file"
        )
    return KNOWN[network][name]
