"""Putting synchronised batch norms in the place of ordinary ones (what they compute: test_distributed.py)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.distributed.batchnorm import SyncedBatchNorm, synchronise
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


def test_input_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[N, C"):
        SyncedBatchNorm(3)(torch.ones(3))
