"""ResNets without batch statistics: what stands in the place of batch norm, and who refuses them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.thorough import more
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.backbones.architecture import Architecture, build_backbone
from siamtransfer.backbones.fold_batchnorm import fold_batchnorm
from siamtransfer.backbones.names import NORMS, NetworkNorm
from siamtransfer.backbones.norms import (
    ChannelAffine,
    StandardisedConv2d,
    StandardisedLinear,
    group_count,
    standardised,
)
from siamtransfer.backbones.resnet import ResNetBackbone, resnet_tensors
from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.programs import to_d2, to_torchvision
from siamtransfer.utils.errors import UserError

WITHOUT_STATISTICS: tuple[NetworkNorm, ...] = ("group", "group-ws", "none")


def resnet(norm: NetworkNorm, name: str = "resnet18", *, zero_init_residual: bool = False) -> ResNetBackbone:
    torch.manual_seed(0)
    network = build_backbone(name, width=8, stem="small", norm=norm, zero_init_residual=zero_init_residual)
    assert isinstance(network, ResNetBackbone)
    return network


def perturbed(network: nn.Module) -> nn.Module:
    """The network with other scales and shifts than those that it begins with."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(64, 16), (2048, 16), (32, 8), (16, 4), (24, 6), (20, 5), (22, 2), (4, 1), (3, 1)],
)
def test_groups_are_16_and_fewer_where_they_would_be_narrow(channels: int, groups: int) -> None:
    assert group_count(channels) == groups


def test_standardised_weights_by_hand() -> None:
    weight = torch.tensor([[1.0, 2.0, 3.0, 6.0], [-1.0, -1.0, 1.0, 1.0]]).view(2, 1, 2, 2)
    expected = torch.tensor([[-2.0, -1.0, 0.0, 3.0], [-1.0, -1.0, 1.0, 1.0]])
    expected[0] /= 3.5**0.5  # the mean of 4, 1, 0 and 9 is the variance
    assert torch.allclose(standardised(weight).flatten(1), expected)
    assert torch.allclose(standardised(0.01 * weight - 5).flatten(1), expected, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), more(3, 1)])
def test_a_standardised_convolution_is_one_with_such_weights(kernel: int, stride: int, padding: int) -> None:
    layer = StandardisedConv2d(5, 7, kernel, stride, padding, bias=False)
    x = torch.randn(2, 5, 8, 8)
    expected = F.conv2d(x, standardised(layer.weight), None, stride, padding)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    along_weights = (gradient * layer.weight).flatten(1).sum(dim=1)
    assert float(gradient.norm()) > 1
    assert torch.allclose(along_weights, torch.zeros(7), atol=1e-2)  # their length changes nothing


def test_a_standardised_linear_layer_by_hand() -> None:
    layer = StandardisedLinear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 7.0]]))  # standardised -1 and 1
        layer.bias.fill_(0.5)
    assert torch.allclose(layer(torch.tensor([[2.0, 10.0]])), torch.tensor([[8.5]]))


def test_a_scale_and_a_shift_by_hand() -> None:
    layer = ChannelAffine(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 3.0]))
        layer.bias.copy_(torch.tensor([1.0, -1.0]))
    assert torch.equal(layer(torch.ones(1, 2, 1, 2)).flatten(), torch.tensor([3.0, 3.0, 2.0, 2.0]))
    assert torch.equal(layer(torch.ones(1, 2)), torch.tensor([[3.0, 2.0]]))


def features_alone_and_among_others(network: nn.Module) -> tuple[Tensor, Tensor]:
    images = torch.randn(4, 3, 16, 16)
    network.train()
    with torch.no_grad():
        return network(images[:1]), network(images)[:1]


@pytest.mark.parametrize("norm", WITHOUT_STATISTICS)
def test_features_do_not_depend_on_the_other_images_of_a_batch(norm: NetworkNorm) -> None:
    alone, among = features_alone_and_among_others(perturbed(resnet(norm)))
    assert torch.allclose(alone, among, rtol=1e-4, atol=1e-5)
    assert not any(name.endswith("running_mean") for name in resnet(norm).state_dict())


def test_with_batch_norm_they_do() -> None:
    alone, among = features_alone_and_among_others(perturbed(resnet("batch")))
    assert float((alone - among).abs().max()) > 0.1


def test_only_standardised_networks_have_standardised_convolutions() -> None:
    for norm in NORMS:
        convolutions = [layer for layer in resnet(norm).modules() if isinstance(layer, nn.Conv2d)]
        standardises = {isinstance(layer, StandardisedConv2d) for layer in convolutions}
        assert standardises == {norm == "group-ws"}, norm
        assert len(convolutions) == 20


@pytest.mark.parametrize("name", ["resnet18", more("resnet50")])
@pytest.mark.parametrize("norm", WITHOUT_STATISTICS)
def test_the_tensors_are_known_without_building(name: str, norm: NetworkNorm) -> None:
    known = {key: tensor.shape for key, tensor in resnet_tensors(name, 8, "small", norm=norm).items()}
    assert known == {key: tensor.shape for key, tensor in resnet(norm, name).state_dict().items()}
    assert Architecture(name, 8, "small", norm=norm).hidden_choices == {"norm": norm}


def test_without_norms_blocks_that_start_at_zero_keep_the_scale_of_activations() -> None:
    images = torch.randn(2, 3, 32, 32)

    def scales(*, zero_init_residual: bool) -> list[float]:
        network = resnet("none", "resnet50", zero_init_residual=zero_init_residual)
        with torch.no_grad():
            return [float(stage.square().mean().sqrt()) for stage in network.stages(images)]

    kept, grown = scales(zero_init_residual=True), scales(zero_init_residual=False)
    assert all(0.5 < later / kept[0] < 2 for later in kept)
    assert grown[-1] > 20 * grown[0]


@pytest.mark.parametrize("norm", WITHOUT_STATISTICS)
def test_nothing_is_folded_where_no_batch_norm_is(norm: NetworkNorm) -> None:
    network, images = perturbed(resnet(norm)).eval(), torch.randn(2, 3, 16, 16)
    assert isinstance(network, ResNetBackbone)
    folded = fold_batchnorm(network)
    assert folded is not network
    assert torch.equal(folded(images), network(images))


def test_a_baseline_without_batch_norm_is_read() -> None:
    network, read = load_backbone("random:resnet18:width=8:stem=small:norm=group")
    assert read.architecture == Architecture("resnet18", 8, "small", norm="group")
    assert isinstance(network.bn1, nn.GroupNorm)


@pytest.mark.parametrize(
    ("name", "choices", "words"),
    [
        ("timm:test_vit", {"norm": "group"}, "norm can be chosen for torchvision's ResNets only"),
        ("resnet18", {"norm": "instance"}, "'instance' is unknown; take batch, group, group-ws, none"),
        ("resnet18", {"norm": "group", "width": 2}, "backbone width is 2: take a width of 4 or more"),
    ],
)
def test_choices_that_cannot_be(name: str, choices: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_backbone(name, **choices)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["group", "group-ws", more("none")])
def test_converters_refuse_what_they_have_no_layers_for(norm: NetworkNorm, tmp_path: Path) -> None:
    source = f"random:resnet18:norm={norm}"
    for convert, out, taker in (
        (to_d2.main, "out.pkl", "Detectron2's trunk"),
        (to_torchvision.main, "out.pth", "torchvision's ResNet"),
    ):
        with pytest.raises(
            UserError, match=rf"backbone.norm was {norm}\), and {taker} has no layers for that"
        ):
            convert([source, str(tmp_path / out)])
    assert list(tmp_path.iterdir()) == []
