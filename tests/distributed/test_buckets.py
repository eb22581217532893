"""From three ranks on, the order of a sum depends on the bucket, so a process keeps its buckets."""

from __future__ import annotations

from typing import Any

import torch
from support.small_runs import on_ranks
from torch import nn

from siamtransfer.distributed.buckets import settle_buckets
from siamtransfer.distributed.runtime import Runtime


def gradients_of_two_steps(runtime: Runtime, settled: bool) -> Any:
    """The same step twice: its gradients, and the model's state before and after."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 400), nn.BatchNorm1d(400), nn.ReLU(), nn.Linear(400, 900))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    distributed = (
        runtime.distribute(model, synchronise_batch_norm=False)
        if settled
        else nn.parallel.DistributedDataParallel(model)
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    unchanged = all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(runtime.rank))
    steps = []
    for _ in range(2):
        model.zero_grad()
        distributed(x).square().mean().backward()
        steps.append([parameter.grad.clone() for parameter in model.parameters()])
    return unchanged, steps


def test_the_first_step_of_a_process_sums_in_the_order_of_the_later_ones() -> None:
    for unchanged, (first, second) in on_ranks(gradients_of_two_steps, True, world_size=4):
        assert unchanged
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    _, (first, second) = on_ranks(gradients_of_two_steps, False, world_size=4)[0]
    # Where this no longer fails, torch keeps its buckets, and `settle_buckets` can go.
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), settle_buckets.__doc__
