"""SimSiam against the published code: outputs, loss, every gradient and five training steps, at small size.

The numbers in golden/methods/simsiam.npz were computed in float64 by facebookresearch/simsiam (commit
a7bc177) with a tiny encoder in the place of ResNet-50; no line of that code is here. Then the method's
invariances.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import paths
from torch import Tensor, nn

from siamtransfer.methods import SimSiam, SimSiamConfig
from siamtransfer.optim.optimizers import OptimConfig, build_optimizer

GOLDEN = paths.GOLDEN / "methods" / "simsiam.npz"
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


class TinyBackbone(nn.Module):
    """Two convolutions, x[N,3,16,16] -> h[N,16]; its parts are named as in the golden file."""

    dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.b1 = nn.BatchNorm2d(8)
        self.c2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.b2 = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b1(self.c1(x)).relu()
        return self.b2(self.c2(x)).relu().mean(dim=(2, 3))


def official_name(name: str) -> str:
    if name.startswith("projector."):
        return name.replace("projector.", "encoder.fc.")
    return name.replace("backbone.", "encoder.")


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(GOLDEN).items()}


def build(golden: dict[str, Tensor], dtype: torch.dtype, **switches: object) -> SimSiam:
    method = SimSiam(TinyBackbone(), SimSiamConfig(dim=32, predictor_hidden=8, **switches)).to(dtype)
    initial = {name: golden[f"init/{official_name(name)}"] for name in method.state_dict()}
    method.load_state_dict(initial)
    return method


def first_views(golden: dict[str, Tensor]) -> list[Tensor]:
    return list(golden["views"][0].double())


def assert_close(ours: Tensor, theirs: Tensor, dtype: torch.dtype, what: str) -> None:
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(
        ours.double(), theirs.double(), rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_loss_and_every_gradient_equal_the_published_code(golden, dtype):
    method = build(golden, dtype)
    x1, x2 = golden["views"][0].to(dtype)
    out = method([x1, x2])
    for z, name in zip(out.projections, ("z1", "z2"), strict=True):
        assert_close(z, golden[f"step0/{name}"], dtype, name)
        assert_close(method.predictor(z), golden[f"step0/{name.replace('z', 'p')}"], dtype, f"p of {name}")
    assert_close(out.loss, golden["losses"][0], dtype, "loss")
    out.loss.backward()
    compared = 0
    for name, parameter in method.named_parameters():
        key = f"grad/{official_name(name)}"
        if parameter.grad is None:
            assert key not in golden, f"{name} has a gradient in the published code"
            assert name == "projector.6.bias"
        else:
            assert_close(parameter.grad, golden[key], dtype, key)
            compared += 1
    assert compared == sum(key.startswith("grad/") for key in golden)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_five_training_steps_equal_the_published_code(golden, dtype):
    method = build(golden, dtype)
    optimizer = build_optimizer(OptimConfig(lr=0.05, batch=256), method.groups())
    for x1, x2 in golden["views"].to(dtype):
        loss = method([x1, x2]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert_close(
            loss.detach(),
            golden["losses"][int(method.backbone.b1.num_batches_tracked) // 2 - 1],
            dtype,
            "loss",
        )
    for name, value in method.state_dict().items():
        assert_close(value, golden[f"final/{official_name(name)}"], dtype, name)


def test_the_golden_file_notices_a_missing_stop_gradient(golden):
    method = build(golden, torch.float64, stop_gradient=False)
    method(first_views(golden)).loss.backward()
    difference = method.backbone.c1.weight.grad - golden["grad/encoder.c1.weight"]
    assert difference.abs().max() > 1e-4


def test_loss_lies_between_minus_one_and_one_and_reaches_minus_one_for_agreeing_views(golden):
    x = golden["views"][0][0].double()
    plain = SimSiam(TinyBackbone(), SimSiamConfig(dim=32, predictor="none")).double()
    assert plain([x, x]).loss.item() == pytest.approx(-1, abs=1e-12)
    loss = build(golden, torch.float64)(first_views(golden)).loss.item()
    assert -1 <= loss <= 1


def test_without_a_predictor_the_stop_gradient_halves_the_gradient_and_changes_nothing_else(golden):
    """Section 4.2: symmetric loss without h has half the gradient of the loss without stop-gradient."""

    def gradient(stop: bool) -> Tensor:
        torch.manual_seed(0)
        config = SimSiamConfig(dim=32, predictor="none", stop_gradient=stop)
        method = SimSiam(TinyBackbone(), config).double()
        method(first_views(golden)).loss.backward()
        return method.backbone.c1.weight.grad

    torch.testing.assert_close(2 * gradient(True), gradient(False), rtol=1e-10, atol=1e-14)


def test_the_target_passes_no_gradient(golden):
    method = build(golden, torch.float64)
    z = torch.randn(4, 32, dtype=torch.float64, requires_grad=True)
    assert not method.target(z).requires_grad
    assert build(golden, torch.float64, stop_gradient=False).target(z) is z


def test_asymmetric_loss_is_the_first_direction_alone(golden):
    views = first_views(golden)
    both = build(golden, torch.float64)(views).loss
    forth = build(golden, torch.float64, symmetric=False)(views).loss
    back = build(golden, torch.float64, symmetric=False)(views[::-1]).loss
    torch.testing.assert_close(both, (forth + back) / 2, rtol=1e-12, atol=1e-12)
    assert abs(forth - back) > 1e-6


def test_cross_entropy_similarity_matches_its_formula(golden):
    method = build(golden, torch.float64, similarity="cross-entropy")
    p, z = torch.randn(2, 5, 32, dtype=torch.float64)
    expected = torch.stack(
        [-(zi.softmax(0) * pi.log_softmax(0)).sum() for pi, zi in zip(p, z, strict=True)]
    ).mean()
    torch.testing.assert_close(method.distance(p, z), expected)


NORMS = {  # affine BN in g, plain BN in g, affine BN in h (table 3 of the paper)
    "none": (0, 0, 0),
    "hidden": (2, 0, 1),
    "default": (2, 1, 1),
    "output-affine": (3, 0, 1),
    "all": (2, 1, 2),
}


@pytest.mark.parametrize("places", NORMS)
def test_batch_norm_stands_where_table_3_says(places):
    method = SimSiam(TinyBackbone(), SimSiamConfig(dim=32, batch_norm=places))

    def count(module: nn.Module, affine: bool) -> int:
        return sum(isinstance(m, nn.BatchNorm1d) and m.affine == affine for m in module.modules())

    assert (
        count(method.projector, True),
        count(method.projector, False),
        count(method.predictor, True),
    ) == NORMS[places]
    hidden_bias = method.projector[0].bias is not None
    assert hidden_bias == (places == "none")


@pytest.mark.parametrize(("predictor", "trained"), [("trained", True), ("fixed", False), ("none", False)])
def test_predictor_switch(predictor, trained):
    method = SimSiam(TinyBackbone(), SimSiamConfig(dim=32, predictor=predictor))
    assert isinstance(method.predictor, nn.Identity) == (predictor == "none")
    assert any(group.name == "predictor" for group in method.groups()) == trained
    grouped = [p for group in method.groups() for p in group.parameters]
    assert {id(p) for p in grouped} == {id(p) for p in method.parameters() if p.requires_grad}
    assert len(grouped) == len({id(p) for p in grouped})


@pytest.mark.parametrize("rate", ["constant", "decayed"])
def test_predictor_rate_switch(rate):
    method = SimSiam(TinyBackbone(), SimSiamConfig(dim=32, predictor_rate=rate))
    assert [group.constant_lr for group in method.groups()] == [False, rate == "constant"]


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
