"""Putting synchronised batch norms in the place of ordinary ones (what they compute: test_distributed.py)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.distributed.batchnorm import (
    SyncedBatchNorm,
    _Normalise,
    synchronise,
    synchronise_by_torch,
)
from siamtransfer.methods import SimSiam, SimSiamConfig


def test_every_batch_norm_is_replaced_and_every_tensor_is_the_same_object() -> None:
    method = SimSiam(build_backbone("resnet18", width=8), SimSiamConfig(dim=16))
    before = {**dict(method.named_parameters()), **dict(method.named_buffers())}
    count = sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in method.modules())
    options = [
        (m.eps, m.momentum, m.affine)
        for m in method.modules()
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)
    ]
    synchronise(method)
    synced = [m for m in method.modules() if isinstance(m, SyncedBatchNorm)]
    assert len(synced) == count == 24
    assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in method.modules())
    assert [(m.eps, m.momentum, m.affine) for m in synced] == options
    after = {**dict(method.named_parameters()), **dict(method.named_buffers())}
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_mode_is_kept_and_a_second_time_changes_nothing() -> None:
    inner = nn.Sequential(nn.BatchNorm1d(2, affine=False).eval())
    model = nn.Sequential(nn.BatchNorm2d(3), inner)
    synchronise(model)
    first = list(model.modules())
    assert model[0].training
    assert not inner[0].training
    synchronise(model)
    assert list(model.modules()) == first


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, SyncedBatchNorm])
def test_in_evaluation_it_is_ordinary_batch_norm(kind: type[nn.Module]) -> None:
    norm = kind(3).eval()
    norm.get_buffer("running_mean").copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.get_buffer("running_var").copy_(torch.tensor([1.0, 4.0, 9.0]))
    out = norm(torch.ones(2, 3, 1, 1))
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([0.0, -0.5, -2 / 3]), rtol=1e-4, atol=1e-4)


def test_timms_norms_keep_their_activation() -> None:
    """In timm's EfficientNets the activation is part of the norm; without it a network computes otherwise."""
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    original = build_backbone("timm:test_efficientnet").eval()
    expected = original(x)
    by_torch = synchronise_by_torch(build_backbone("timm:test_efficientnet"))
    by_torch.load_state_dict(original.state_dict())
    assert any(isinstance(m, nn.SyncBatchNorm) for m in by_torch.modules())
    torch.testing.assert_close(by_torch.eval()(x), expected)
    in_training = original.train()(x)
    ours = build_backbone("timm:test_efficientnet")
    ours.load_state_dict(by_torch.state_dict())  # the statistics of before the training pass
    synchronise(ours)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ours.modules())
    assert ours.state_dict().keys() == original.state_dict().keys()
    torch.testing.assert_close(ours.eval()(x), expected)
    torch.testing.assert_close(ours.train()(x), in_training, rtol=1e-4, atol=1e-4)


def test_input_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[N, C"):
        SyncedBatchNorm(3)(torch.ones(3))


# The path of CUDA, with torch's kernels as their documentation says.


class Kernels:
    """Under the names of torch's kernels, what they compute in plain operations."""

    @staticmethod
    def batch_norm_stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, [0, 2, 3], correction=0)
        return mean, torch.rsqrt(variance + eps)

    @staticmethod
    def batch_norm_elemt(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, scale: Tensor, eps: float
    ) -> Tensor:
        out = (x - over(mean)) * over(scale)
        return out if weight is None or bias is None else out * over(weight) + over(bias)

    @staticmethod
    def batch_norm_backward_reduce(
        dy: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None, *needed: bool
    ) -> tuple[Tensor, ...]:
        product = (dy * (x - over(mean))).sum([0, 2, 3])
        return dy.sum([0, 2, 3]), product, product * scale, dy.sum([0, 2, 3])

    @staticmethod
    def batch_norm_backward_elemt(
        dy: Tensor,
        x: Tensor,
        mean: Tensor,
        scale: Tensor,
        weight: Tensor | None,
        total: Tensor,
        product: Tensor,
        counts: Tensor,
    ) -> Tensor:
        assert counts.dtype == torch.int32
        n = counts.sum()
        out = dy - over(total / n) - (x - over(mean)) * over(scale.square() * product / n)
        return out * over(scale if weight is None else scale * weight)


def over(channels: Tensor) -> Tensor:
    return channels.view(1, -1, 1, 1)


@pytest.mark.parametrize("affine", [True, False])
def test_the_path_of_cuda_computes_what_the_plain_one_does(
    affine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in vars(Kernels):
        if name.startswith("batch_norm"):
            monkeypatch.setattr(torch, name, getattr(Kernels, name))
    x = (torch.randn(6, 3, 4, 5, dtype=torch.float64) * 2 + 5).requires_grad_()
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    inputs = [x, weight, bias] if affine else [x]
    found = []
    for fused in (True, False):
        out, *moments = _Normalise.apply(x, *(inputs[1:] or [None, None]), 1e-5, fused)
        found.append([out, *moments, *torch.autograd.grad(out.tanh().sum(), inputs)])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-10)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_it_is_torchs_batch_norm(dtype: torch.dtype) -> None:
    x = (torch.randn(8, 16, 7, 7, device="cuda") * 2 + 5).to(dtype)
    found = []
    for kind in (nn.BatchNorm2d, SyncedBatchNorm):
        norm, part = kind(16).cuda(), x.clone().requires_grad_()
        out = norm(part)
        out.float().tanh().sum().backward()
        assert part.grad is not None
        found.append([out.float(), part.grad.float(), *norm.buffers(), *(p.grad for p in norm.parameters())])
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found[0], found[1], rtol=tolerance, atol=tolerance)
