"""Rates by layer against timm's, with rules of groups and exemptions of vectors that stay."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from siamtransfer.adaptation.layer_rates import slow_trunk
from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.methods import METHODS
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer, load_optimizer, set_lr


def on_meta(name, method="simsiam", width=64):
    with torch.device("meta"):
        backbone = build_backbone(name, width=width)
        return METHODS[method](backbone, METHODS[method].Config())


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "timm:convnext_atto", "resnet18"])
def test_rates_are_timms(name):
    method = on_meta(name)
    config = OptimConfig(lr=0.1, batch_size=256, schedule="constant")
    optimizer = build_optimizer(config, slow_trunk(method.groups(), method.backbone, layer_decay=0.75))
    set_lr(optimizer, config, 0, 10)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == sum(p.requires_grad for p in method.parameters())
    with torch.device("meta"):
        whole = timm.create_model(name.removeprefix("timm:"), num_classes=3)
    names = {id(parameter): key for key, parameter in whole.named_parameters()}
    timms = {
        names[id(parameter)]: 0.1 * group["lr_scale"]
        for group in param_groups_layer_decay(whole, layer_decay=0.75)
        for parameter in group["params"]
    }
    ours = {key.removeprefix("model."): rates[id(p)] for key, p in method.backbone.named_parameters()}
    assert ours == pytest.approx({key: timms[key] for key in ours}, rel=1e-12)
    heads = [p for head in (method.projector, method.predictor) for p in head.parameters() if p.requires_grad]
    assert {rates[id(parameter)] for parameter in heads} == {0.1}


def test_factors_multiply_and_constant_rates_stay_constant():
    method = on_meta("resnet18", "simsiam-variants")
    method.config.backbone_lr_scale = 0.5
    groups = slow_trunk(method.groups(), method.backbone, layer_decay=0.5, trunk_lr=0.1)
    scales = {group.name: group.lr_scale for group in groups}
    assert scales["backbone, layer 8"] == pytest.approx(0.5 * 0.1 * 0.5)
    assert scales["backbone, layer 0"] == pytest.approx(0.5 * 0.1 * 0.5**9)
    assert scales["projector"] == 1 and scales["predictor"] == 1
    assert [group.constant_lr for group in groups if group.name == "predictor"] == [True]
    assert not any(group.constant_lr for group in groups if group.name.startswith("backbone"))
    given = [id(p) for group in method.groups() for p in group.parameters]
    assert sorted(given) == sorted(id(p) for group in groups for p in group.parameters)


def test_one_factor_for_the_trunk_needs_no_layers():
    method = on_meta("timm:pit_ti_224")  # whose layers timm does not group
    scales = {g.name: g.lr_scale for g in slow_trunk(method.groups(), method.backbone, trunk_lr=0.1)}
    assert scales == {"encoder, trunk": 0.1, "encoder": 1, "predictor": 1}


def test_without_factors_groups_are_the_methods():
    method = on_meta("resnet18")
    assert [vars(g) for g in slow_trunk(method.groups(), method.backbone)] == [
        vars(g) for g in method.groups()
    ]


@pytest.mark.parametrize("name", ["lars", "adamw", "sgd", "larc"])
def test_vectors_keep_their_exemptions_and_the_state_is_restored(name):
    torch.manual_seed(0)
    method = METHODS["simsiam"](build_backbone("resnet18", width=8), METHODS["simsiam"].Config(dim=32))
    config = OptimConfig(name=name, lr=0.1, decay_vectors=False, schedule="constant")
    groups = slow_trunk(method.groups(), method.backbone, layer_decay=0.75)
    optimizer = build_optimizer(config, groups)
    for parameter in method.parameters():
        parameter.grad = torch.randn_like(parameter)
    set_lr(optimizer, config, 0, 10)
    optimizer.step()
    for group in optimizer.param_groups:
        assert all((p.ndim <= 1) == group["vectors"] for p in group["params"])
        assert group["weight_decay"] == (0 if group["vectors"] else config.weight_decay)
        assert group.get("adapted", not group["vectors"]) == (not group["vectors"])
    again = build_optimizer(config, slow_trunk(method.groups(), method.backbone, layer_decay=0.75))
    load_optimizer(again, optimizer.state_dict())
    old, new = optimizer.state_dict(), again.state_dict()
    assert [g["rate_scale"] for g in old["param_groups"]] == [g["rate_scale"] for g in new["param_groups"]]
    assert len(old["state"]) == len(new["state"]) == sum(p.requires_grad for p in method.parameters())


def test_a_step_of_sgd_moves_each_layer_by_its_rate():
    torch.manual_seed(0)
    method = METHODS["simsiam"](build_backbone("resnet18", width=8), METHODS["simsiam"].Config(dim=32))
    config = OptimConfig(lr=1.0, batch_size=256, weight_decay=0, schedule="constant")
    optimizer = build_optimizer(config, slow_trunk(method.groups(), method.backbone, layer_decay=0.5))
    before = {name: p.detach().clone() for name, p in method.backbone.named_parameters()}
    for parameter in method.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_lr(optimizer, config, 0, 10)
    optimizer.step()
    moved = {name: float((before[name] - p.detach()).max()) for name, p in method.backbone.named_parameters()}
    assert moved["conv1.weight"] == pytest.approx(0.5**9, rel=1e-4)
    assert moved["layer2.1.conv1.weight"] == pytest.approx(0.5**5, rel=1e-4)
    assert moved["layer4.1.bn2.bias"] == pytest.approx(0.5, rel=1e-4)
