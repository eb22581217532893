"""What keeps losses out of half precision."""

from __future__ import annotations

import pytest
import torch

from siamtransfer.methods.parts.precision import l2_normalize, no_tf32, to_float32


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
