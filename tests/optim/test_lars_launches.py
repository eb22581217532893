"""LARS, LARC and clipping by multi-tensor operations equal one tensor after another, in few launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from siamtransfer.methods.parts.clipping import clip_each
from siamtransfer.optim.lars import LARC, LARS

SHAPES = [(8, 3, 7, 7), (8,), (16, 8, 3, 3), (10, 7), (5, 5), (4, 4), (1,)]
ZERO_WEIGHTS, ZERO_GRADIENT, NO_GRADIENT = 4, 5, 6
DECAY, TRUST, MOMENTUM = 1e-2, 1e-3, 0.9


def lars_alone(w: Tensor, g: Tensor, lr: float, *, clip: bool) -> Tensor:
    u = g + DECAY * w
    if not w.norm() or not u.norm():
        return u
    ratio = TRUST * w.norm() / u.norm()
    return u * ((ratio / lr).clamp(max=1) if clip else ratio)


def larc_alone(w: Tensor, g: Tensor, lr: float, *, clip: bool) -> Tensor:
    if not w.norm() or not g.norm():
        return g
    ratio = TRUST * w.norm() / (g.norm() + DECAY * w.norm() + 1e-8)
    return (g + DECAY * w) * ((ratio / lr).clamp(max=1) if clip else ratio)


def weights() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    made[ZERO_WEIGHTS].data.zero_()
    return made


def draw_gradients(parameters: list[torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for index, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if index == NO_GRADIENT else gradient * (index != ZERO_GRADIENT)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("kind", "alone"), [(LARS, lars_alone), (LARC, larc_alone)])
def test_many_tensors_at_once_equal_one_after_another(
    kind: type[LARS | LARC], alone: Callable[..., Tensor], clip: bool
) -> None:
    together, one_by_one = weights(), weights()
    optimizer = kind(together, lr=0.3, weight_decay=DECAY, trust=TRUST, momentum=MOMENTUM, clip=clip)
    momenta = [torch.zeros_like(w) for w in one_by_one]
    for step in range(5):
        draw_gradients(together, step)
        draw_gradients(one_by_one, step)
        optimizer.step()
        with torch.no_grad():
            for w, momentum in zip(one_by_one, momenta, strict=True):
                if w.grad is not None:
                    momentum.mul_(MOMENTUM).add_(alone(w, w.grad, 0.3, clip=clip))
                    w.sub_(0.3 * momentum)
    for ours, expected in zip(together, one_by_one, strict=True):
        assert torch.allclose(ours, expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(together[NO_GRADIENT], weights()[NO_GRADIENT])
    assert list(optimizer.state_dict()["state"][0]) == ["momentum_buffer"]


def test_clipping_scales_each_gradient_by_its_own_norm() -> None:
    parameters = weights()
    draw_gradients(parameters, 1)
    before = [None if p.grad is None else p.grad.clone() for p in parameters]
    clip_each(parameters, 3.0)
    for parameter, gradient in zip(parameters, before, strict=True):
        if gradient is None:
            assert parameter.grad is None
        else:
            gradient *= (3.0 / (gradient.norm() + 1e-6)).clamp(max=1)
            assert torch.equal(parameter.grad, gradient)
    clip_each([], 3.0)
    clip_each(parameters[NO_GRADIENT:], 3.0)


class Count(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.calls += 1
        return operation(*arguments, **(named or {}))


@pytest.mark.parametrize("work", [LARS, LARC, clip_each])
def test_the_number_of_operations_does_not_grow_with_the_tensors(work: Any) -> None:
    def calls(tensors: int) -> int:
        parameters = [torch.nn.Parameter(torch.ones(3, 3)) for _ in range(tensors)]
        step = (lambda: clip_each(parameters, 1.0)) if work is clip_each else work(parameters, lr=0.1).step
        for _ in range(2):  # the first step makes the momenta
            for parameter in parameters:
                parameter.grad = torch.ones(3, 3)
            with Count() as count:
                step()
        return count.calls

    assert calls(40) == calls(4) < 40
