"""Low-rank corrections: only they learn, the momentum encoder follows, and readers get merged weights."""

from __future__ import annotations

import copy
import signal
from pathlib import Path

import pytest
import torch
from support.small_runs import assert_same_run, complete, newest, run_here, stop_at

from siamtransfer.adaptation.config import AdaptConfig
from siamtransfer.adaptation.lora import correct, corrections, load_corrections, merged_state
from siamtransfer.adaptation.trunk import AdaptedTrunk
from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.methods import METHODS
from siamtransfer.utils.errors import UserError

START = "random:timm:test_vit"
RUN = (
    "--method.name=byol", "--byol.hidden=32", "--byol.dim=16", "--backbone.name=timm:test_vit",
    "--backbone.width=64", "--views.size=32", f"--backbone.weights={START}", "--optim.epochs=2",
    "--adapt.lora_rank=4", "--adapt.warmup_epochs=0.6", "--adapt.layer_decay=0.8",
)  # fmt: skip


def randomise(backbone: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize(
    ("name", "targets", "layers"),
    [
        ("timm:vit_tiny_patch16_224", ["qkv", "proj"], 24),
        ("timm:test_convnext", ["fc1", "fc2"], 18),
        ("timm:test_efficientnet_ln", ["conv_pw"], None),  # convolutions of 1 x 1
    ],
)
def test_merged_weights_compute_what_corrections_do(name, targets, layers):
    torch.manual_seed(0)
    backbone = build_backbone(name).eval()
    plain = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in plain.parameters():  # layer scales near zero would hide every change
            parameter.copy_(parameter + 0.05 * torch.randn_like(parameter))
    backbone.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        before = plain(images)
        corrected = correct(backbone, rank=4, alpha=8, targets=targets)
        assert len(corrected) == layers or layers is None
        assert corrected and all(layer.rpartition(".")[2] in targets for layer in corrected)
        torch.testing.assert_close(backbone(images), before, rtol=0, atol=0)  # B starts at zero
        randomise(backbone)
        after = backbone(images)
        assert (after - before).abs().max() > 1e-3 * before.abs().max()
        merged = merged_state(backbone)
        assert list(merged) == list(plain.state_dict())
        plain.load_state_dict(merged)
        assert (plain(images) - after).abs().max() <= 1e-5 * after.abs().max()
        assert torch.equal(copy.deepcopy(backbone)(images), after)
    trained = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained) and len(trained) == 2 * len(corrected)


def test_the_formula():
    """W + (alpha / r) B A, of one layer, by hand."""
    backbone = build_backbone("timm:test_vit")
    original = backbone.model.blocks[0].attn.qkv.weight.detach().clone()
    correct(backbone, rank=4, alpha=10, targets=["qkv"])
    randomise(backbone)
    parts = corrections(backbone)
    a, b = (parts[f"blocks.0.attn.qkv.{part}"] for part in "AB")
    assert a.shape == (4, original.shape[1]) and b.shape == (original.shape[0], 4)
    expected = original + 10 / 4 * b @ a
    torch.testing.assert_close(merged_state(backbone)["blocks.0.attn.qkv.weight"], expected)


def test_a_momentum_encoder_averages_what_learns_and_keeps_the_rest():
    config = METHODS["byol"].Config(hidden=32, dim=16)
    method = METHODS["byol"](build_backbone("timm:test_vit"), config)
    AdaptedTrunk(method, AdaptConfig(lora_rank=4))
    start = {name: p.detach().clone() for name, p in method.target_backbone.named_parameters()}
    online = dict(method.backbone.named_parameters())
    assert all(torch.equal(p, online[name]) for name, p in start.items())
    randomise(method.backbone)
    from siamtransfer.methods.parts.ema import move

    move(method.target_backbone, method.backbone, 0.75)
    for name, parameter in method.target_backbone.named_parameters():
        assert not parameter.requires_grad
        if ".lora_" in name:
            torch.testing.assert_close(parameter, 0.75 * start[name] + 0.25 * online[name])
        else:
            assert torch.equal(parameter, start[name])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "run"
    assert run_here(folder, *RUN) == 0
    return folder


def test_a_checkpoint_holds_plain_weights_and_what_a_resumed_run_needs(undisturbed: Path) -> None:
    state, before = newest(undisturbed), read_backbone(START).state
    backbone, read = load_backbone(undisturbed / "checkpoint.pth")
    assert read.name == "timm:test_vit" and list(read.state) == list(before)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, read.state[name])}
    assert changed == {f"blocks.{n}.attn.{layer}.weight" for n in range(6) for layer in ("qkv", "proj")}
    # The corrected network, built anew from W, A and B, gives the features of the merged one.
    corrected = build_backbone("timm:test_vit").eval()
    corrected.load_state_dict(before)
    correct(corrected, rank=4, alpha=16, targets=["qkv", "proj"])
    load_corrections(corrected, state["lora"]["backbone"], state["lora"]["original"])
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (corrected(images) - backbone(images)).abs().max() <= 1e-5
    assert all(torch.equal(before[f"{name}.weight"], w) for name, w in state["lora"]["original"].items())
    assert set(state["lora"]["backbone"]) == set(state["lora"]["target_backbone"])
    read_backbone(undisturbed / "checkpoint.pth", branch="target")


def test_a_run_goes_on_to_the_bit(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run_here(folder, *RUN, fault=stop_at(7)) == 128 + signal.SIGTERM
    complete(folder, *RUN, "--resume")
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize(
    ("name", "targets", "sentence"),
    [
        ("resnet18", ["qkv"], "resnet18 has batch norm, whose statistics would go on moving"),
        ("timm:test_vit", ["query"], "has no layer query in its blocks .* those .* are qkv, proj, fc1, fc2"),
        ("timm:test_convnext", ["conv_dw"], "has no layer conv_dw in its blocks that can be corrected"),
    ],
)
def test_networks_that_cannot_be_corrected(name, targets, sentence):
    with pytest.raises(UserError, match=sentence):
        correct(build_backbone(name), rank=4, alpha=8, targets=targets)
