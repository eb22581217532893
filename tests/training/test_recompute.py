"""Activation checkpointing: the numbers, buffers and names of a training without, and less memory."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_networks import small_vit
from support.small_runs import TINY, assert_same_run, on_ranks
from torch import Tensor

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.programs.pretrain import main
from siamtransfer.training.recompute import recompute_blocks
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("few_test_scenes")

NETWORKS = {
    "vit": lambda: small_vit(drop_path=0.4),
    "resnet": lambda: build_backbone("resnet18", width=8, stem="small"),
    "timm": lambda: build_backbone("timm:resnet10t"),
}


def state_after(backbone: Backbone, half: bool = False) -> Any:
    """Two passes and one backward pass; the loss, the gradients and the buffers."""
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16) if half else contextlib.nullcontext():
        loss = backbone(x).square().mean() + backbone(x.flip(3)).float().tanh().sum()
    loss.backward()
    gradients = {name: p.grad for name, p in backbone.named_parameters()}
    return loss.detach(), gradients, dict(backbone.named_buffers()), torch.rand(1)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", NETWORKS)
def test_loss_gradients_buffers_and_random_numbers_are_equal_to_the_bit(kind: str, half: bool) -> None:
    torch.manual_seed(0)
    plain = NETWORKS[kind]().train()
    ours = copy.deepcopy(plain)
    recompute_blocks(ours)
    assert list(ours.state_dict()) == list(plain.state_dict())
    found, expected = state_after(ours, half), state_after(plain, half)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_copy_computes_with_its_own_weights() -> None:
    """Methods copy the backbone; a copy that ran the blocks of the original would go unnoticed."""
    ours = small_vit()
    recompute_blocks(ours)
    other = copy.deepcopy(ours)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    x = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(ours(x), other(x))


def kept_bytes(backbone: Backbone) -> int:
    total: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        total.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        backbone(torch.randn(4, 3, 32, 32))
    return sum(total)


def test_a_pass_keeps_less_and_one_without_gradients_runs_once() -> None:
    backbone = small_vit()
    before = kept_bytes(backbone)
    recompute_blocks(backbone)
    assert kept_bytes(backbone) < before / 3
    block, calls = backbone.get_submodule("model.blocks.0.attn"), []
    block.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    with torch.no_grad():
        backbone(torch.randn(1, 3, 32, 32))
    assert calls == [False]
    backbone(torch.randn(1, 3, 32, 32)).sum().backward()
    assert calls == [False, True, True]


def without_and_with(runtime: Runtime) -> Any:
    return [on_synchronised(runtime, recompute) for recompute in (False, True)]


def on_synchronised(runtime: Runtime, recompute: bool) -> Any:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", width=8, stem="small")
    model = runtime.distribute(backbone)
    if recompute:
        recompute_blocks(backbone)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(runtime.rank))
    with torch.profiler.profile() as profile:
        model(x).square().mean().backward()
    exchanges = {event.key: event.count for event in profile.key_averages() if event.key.startswith("c10d::")}
    return [p.grad for p in backbone.parameters()], dict(backbone.named_buffers()), exchanges


def test_synchronised_batch_norm_exchanges_nothing_in_the_recomputation() -> None:
    for plain, ours in on_ranks(without_and_with):
        assert plain[2]
        torch.testing.assert_close(ours, plain, rtol=0, atol=0)


def test_a_run_is_the_run_without_across_knn_checks(tmp_path: Path) -> None:
    options = [*TINY, "--method.name=byol", "--byol.dim=16", "--byol.hidden=16", "--monitor.knn_every=1"]
    options += ["--monitor.knn_k=5", "--optim.lr=0.05", "--optim.epochs=1", "--optim.grad_accum_steps=2"]
    assert main([*options, f"--run.dir={tmp_path / 'plain'}"]) is not None
    ours = [*options, f"--run.dir={tmp_path / 'ours'}", "--hardware.activation_checkpointing"]
    assert main(ours) is not None
    free = ("config.run.dir", "config.hardware.activation_checkpointing")
    assert_same_run(tmp_path / "plain", tmp_path / "ours", free)


def test_networks_without_known_blocks_and_other_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not know the blocks of timm:vgg11"):
        recompute_blocks(build_backbone("timm:vgg11"))
    for option in ("cuda_graph", "compile"):
        options = ["--hardware.activation_checkpointing", f"--hardware.{option}"]
        with pytest.raises(UserError, match=f"hardware.{option} do not go together"):
            main([*TINY, *options, f"--run.dir={tmp_path}/x"])
