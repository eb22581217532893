"""SimSiam against the published code: outputs, loss, every gradient and five training steps, at small size.

The numbers in golden/methods/simsiam.npz were computed in float64 by facebookresearch/simsiam (commit
a7bc177) with a tiny encoder in the place of ResNet-50; no line of that code is here. With its default options
simsiam-variants gives the same numbers. Then the method's invariances.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.golden_methods import DTYPES, Golden, TinyBackbone, assert_close, assert_same_gradients
from torch import Tensor

from siamtransfer.methods import METHODS, SimSiam, SimSiamConfig
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer

BOTH = ["simsiam", "simsiam-variants"]


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("simsiam.npz", {"projector.": "encoder.fc.", "backbone.": "encoder."})


def build(golden: Golden, dtype: torch.dtype, name: str = "simsiam", **options: Any) -> SimSiam:
    cls = METHODS[name]
    method = cls(TinyBackbone(), cls.Config(dim=32, predictor_hidden=8, **options)).to(dtype)
    golden.fill(method)
    return method


def first_views(golden: Golden) -> list[Tensor]:
    return golden.views(0, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BOTH)
def test_outputs_loss_and_every_gradient_equal_the_published_code(golden, name, dtype):
    method = build(golden, dtype, name)
    out = method(golden.views(0, dtype))
    for z, output in zip(out.projections, ("z1", "z2"), strict=True):
        assert_close(z, golden.get("out", output, dtype), dtype, output)
        assert_close(method.predictor(z), golden.get("out", output.replace("z", "p"), dtype), dtype, output)
    assert_close(out.loss, golden.losses(dtype)[0], dtype, "loss")
    out.loss.backward()
    assert_same_gradients(method, golden, dtype)
    assert [key for key, p in method.named_parameters() if p.grad is None] == ["projector.6.bias"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BOTH)
def test_five_training_steps_equal_the_published_code(golden, name, dtype):
    method = build(golden, dtype, name)
    optimizer = build_optimizer(OptimConfig(lr=0.05, batch_size=256), method.groups())
    for step, published in enumerate(golden.losses(dtype)):
        loss = method(golden.views(step, dtype)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert_close(loss.detach(), published, dtype, "loss")
    for key, value in method.state_dict().items():
        assert_close(value, golden.get("final", golden.published(key), dtype), dtype, key)


def test_the_golden_file_notices_a_missing_stop_gradient(golden):
    method = build(golden, torch.float64, stop_gradient=False)
    method(first_views(golden)).loss.backward()
    published = golden.get("grad", "encoder.c1.weight", torch.float64)
    assert (method.backbone.c1.weight.grad - published).abs().max() > 1e-4


def test_loss_lies_between_minus_one_and_one(golden):
    assert -1 <= build(golden, torch.float64)(first_views(golden)).loss.item() <= 1


@pytest.mark.parametrize("options", [{}, {"symmetric": False}, {"stop_gradient": False}])
def test_the_variants_are_simsiam_to_the_bit_by_default(options):
    outcomes = []
    for name in BOTH:
        torch.manual_seed(0)
        method = METHODS[name](TinyBackbone(), METHODS[name].Config(dim=12, **options))
        optimizer = build_optimizer(OptimConfig(lr=0.1, batch_size=256), method.groups())
        losses = []
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            loss = method(list(torch.randn(2, 8, 3, 16, 16, generator=generator))).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        groups = [(group.name, len(group.parameters), group.constant_lr) for group in method.groups()]
        outcomes.append((losses, groups, method.state_dict()))
    (losses, groups, state), (variant_losses, variant_groups, variant_state) = outcomes
    assert losses == variant_losses
    assert groups == variant_groups
    assert list(state) == list(variant_state)
    assert all(torch.equal(state[key], variant_state[key]) for key in state)


def test_asymmetric_loss_is_the_first_direction_alone(golden):
    views = first_views(golden)
    both = build(golden, torch.float64)(views).loss
    forth = build(golden, torch.float64, symmetric=False)(views).loss
    back = build(golden, torch.float64, symmetric=False)(views[::-1]).loss
    torch.testing.assert_close(both, (forth + back) / 2, rtol=1e-12, atol=1e-12)
    assert abs(forth - back) > 1e-6


@pytest.mark.parametrize("lr", ["constant", "decayed"])
def test_predictor_lr_switch(lr):
    method = SimSiam(TinyBackbone(), SimSiamConfig(dim=32, predictor_lr=lr))
    assert [group.constant_lr for group in method.groups()] == [False, lr == "constant"]


def test_paper_sizes():
    backbone = TinyBackbone()
    backbone.dim = 2048
    with torch.device("meta"):
        method = SimSiam(backbone, SimSiamConfig())
    shapes = {
        name: tuple(p.shape) for name, p in method.named_parameters() if not name.startswith("backbone")
    }
    assert shapes["projector.0.weight"] == (2048, 2048)
    assert shapes["projector.6.bias"] == (2048,)
    assert "projector.7.weight" not in shapes
    assert shapes["predictor.0.weight"] == (512, 2048)
    assert shapes["predictor.3.bias"] == (2048,)
