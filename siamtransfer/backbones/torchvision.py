"""torchvision's classifiers other than its ResNets, without their last layer."""

from __future__ import annotations

import contextlib
import difflib
import functools
import warnings
from typing import Any

import torch
from torch import nn

from siamtransfer.backbones.backbone import check_channels
from siamtransfer.backbones.library_backbone import LibraryBackbone
from siamtransfer.backbones.names import RESNETS, TORCHVISION
from siamtransfer.utils.errors import UserError

_WITH_AUXILIARY = {"googlenet", "inception_v3"}
"""Networks with further classifiers, which training alone uses. torchvision's weights of these two take
images that are normalised with a mean and a std of 0.5."""


class TorchvisionBackbone(LibraryBackbone):
    """A classifier of torchvision without its last layer: x[N, 3, H, W] to h[N, D].

    h is what the last linear layer takes, so VGG and AlexNet keep their other linear layers. SqueezeNet ends
    in a convolution instead; there h is the mean of what that takes.
    """

    def __init__(self, name: str, in_channels: int = 3):
        check_channels(in_channels)
        model, dim = without_classifier(name.removeprefix(TORCHVISION))
        if in_channels != 3:
            _take_channels(model, in_channels)
        super().__init__(name, model, dim)
        self.in_channels = in_channels


def _take_channels(model: nn.Module, in_channels: int) -> None:
    """Puts a new convolution of another number of channels in the place of the first."""
    for path, old in model.named_modules():
        if isinstance(old, nn.Conv2d) and old.in_channels == 3:
            settings: Any = {
                key: getattr(old, key)
                for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
            }
            new = nn.Conv2d(in_channels, old.out_channels, bias=old.bias is not None, **settings)
            model.set_submodule(path, new)
            return
    raise UserError("the network has no convolution of three channels that could take others")


@functools.cache
def classifiers() -> tuple[str, ...]:
    """torchvision's names of all its classifiers but the ResNets of RESNETS."""
    import torchvision

    return tuple(name for name in torchvision.models.list_models(torchvision.models) if name not in RESNETS)


def torchvision_name(name: str) -> str:
    """`torchvision:NAME`, after a check that torchvision has such a classifier.

    Raises:
        UserError: it has none; names the nearest known ones.
    """
    bare = name.removeprefix(TORCHVISION)
    if bare not in classifiers():
        nearest = difflib.get_close_matches(bare, [*classifiers(), *RESNETS], n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else "see torchvision.models.list_models()"
        raise UserError(f"{bare!r} is no classifier of torchvision; {hint}")
    return TORCHVISION + bare


def with_classifier(name: str) -> nn.Module:
    """torchvision's network of that name as it is, with random weights from the global generator."""
    return _build(name, {})


def without_classifier(name: str) -> tuple[nn.Module, int]:
    """The same network with a last layer that passes on what it gets, and the width of that.

    Classifiers that training alone uses are left out.
    """
    model = _build(name, {"aux_logits": False} if name in _WITH_AUXILIARY else {})
    layers = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    path, last = layers[-1]
    model.set_submodule(path, nn.Identity())
    return model, last.in_features if isinstance(last, nn.Linear) else last.in_channels


def classifier_names(name: str) -> list[str]:
    """The names of the tensors of a network's classifier, and of those that training alone uses."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        whole, trunk = with_classifier(name).state_dict(), without_classifier(name)[0].state_dict()
    return [key for key in whole if key not in trunk]


def _build(name: str, options: dict[str, bool]) -> nn.Module:
    """RegNet computes its widths with tensors, for which the device `meta` has no numbers, so it is built on
    the CPU."""
    import torchvision

    place = torch.device("cpu") if name.startswith("regnet_") else contextlib.nullcontext()
    with warnings.catch_warnings(), place:
        warnings.simplefilter("ignore")  # about the random weights of the two above
        model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model
