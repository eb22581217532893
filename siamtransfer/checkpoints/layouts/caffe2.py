"""ResNets of Caffe2, whose batch norms are merged into a scale and a shift."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_CONVOLUTION_BIAS = re.compile(r"(conv1|res\d_\d+_branch(1|2[abc]))_b")


def with_statistics(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with a running mean of zero and a running variance of one for each scale, as Detectron2
    reads them, and without the biases of convolutions, which are zero.

    Raises:
        ValueError: such a bias is not zero.
    """
    result = {}
    for name, tensor in tensors.items():
        if _CONVOLUTION_BIAS.fullmatch(name):
            if bool((tensor != 0).any()):
                raise ValueError(
                    f"its tensor {name!r} is a bias that is not zero, and Detectron2 has none there"
                )
            continue
        result[name] = tensor
        if name.endswith("_bn_s"):
            norm = name.removesuffix("_s")
            result[f"{norm}_rm"] = torch.zeros_like(tensor)
            result[f"{norm}_riv"] = torch.ones_like(tensor)
    return result
