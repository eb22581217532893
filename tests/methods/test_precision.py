"""What keeps losses out of half precision."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.small_methods import small, some_views
from torch.utils._python_dispatch import TorchDispatchMode

from siamtransfer.methods import StepInfo
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32, to_float32
from siamtransfer.methods.simsiam_variants.hub import Whitening


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_becomes_single_and_all_else_stays(given, kept):
    x = torch.tensor([[3.0, 4.0]], dtype=given)
    assert to_float32(x).dtype == kept
    torch.testing.assert_close(l2_normalize(x), torch.tensor([[0.6, 0.8]], dtype=kept))


def test_products_are_exact_inside_and_what_they_were_outside():
    x = torch.full((1, 1), 1 + 2**-12)  # which neither bfloat16 nor TF32 can hold
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (x @ x).item() == 1
            with no_tf32(x):
                assert (x @ x).item() > 1 + 2**-12
                assert not torch.backends.cuda.matmul.allow_tf32
            assert (x @ x).item() == 1
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class TF32AtProducts(TorchDispatchMode):
    """Notes whether TF32 was allowed at each matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: list[bool] = []

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        if operation._schema.name.split("::")[1] in ("mm", "addmm", "bmm", "baddbmm"):
            self.allowed.append(torch.backends.cuda.matmul.allow_tf32)
        return operation(*arguments, **(named or {}))


@pytest.fixture
def tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def test_the_backward_pass_of_a_product_inside_is_exact_and_that_of_one_outside_is_not(tf32):
    x, layer = torch.randn(4, 3, requires_grad=True), torch.nn.Linear(3, 5)
    with no_tf32(x):
        inside = layer(x) @ torch.randn(5, 2) + torch.einsum("nd,md->nm", x, x).sum()
    loss = (inside @ torch.randn(2, 2, requires_grad=True)).square().mean()
    with TF32AtProducts() as watch:
        loss.backward()
    assert watch.allowed[:2] == [True, True], "the product outside comes first"
    assert watch.allowed[2:] == [False] * (len(watch.allowed) - 2)
    assert len(watch.allowed) > 6
    assert torch.backends.cuda.matmul.allow_tf32


def test_the_backward_pass_of_whitening_is_exact(tf32):
    z = torch.randn(16, 6, requires_grad=True)
    loss = Whitening(3)(z)[:, 0].sum()
    with TF32AtProducts() as watch:
        loss.backward()
    assert watch.allowed == [False] * len(watch.allowed)
    assert len(watch.allowed) > 3, "of the covariance, its factor and the solved system"


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("barlow-twins", 2),  # one product of two factors with gradient
        ("vicreg", 4),  # a covariance of each view
        ("simclr", 4),  # each view as anchor
        ("moco", 1),  # the queue has no gradient
        ("moco-v3", 2),  # keys have none
        ("swav", 2),  # embeddings and prototypes
        ("dino", 2),  # embeddings and the last layer
        ("directpred", 4),  # the predictor, for each view
    ],
)
def test_the_backward_pass_of_a_loss_has_this_many_products_without_tf32(name, products, tf32):
    method, views = small(name), some_views()
    method.before_forward(StepInfo(0, 10, 5))
    loss = method(views).loss
    with TF32AtProducts() as watch:
        loss.backward()
    assert watch.allowed.count(False) == products
    assert watch.allowed.count(True) > 0, "heads may use it"
    assert torch.backends.cuda.matmul.allow_tf32
