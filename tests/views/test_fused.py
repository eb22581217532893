"""Painting in few launches equals the painting that picks rows; and how few the launches are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from siamtransfer.utils.errors import UserError
from siamtransfer.views import fused
from siamtransfer.views.augment import augment
from siamtransfer.views.fused import augment_fused
from siamtransfer.views.random_params import sample_params
from siamtransfer.views.recipes import recipe

SAME = 1e-5  # of a standard deviation; float32 rounding, a grey level is 2e-2
RECIPES = ["simsiam", "byol", "moco-v1", "cifar-simsiam", "dino"]


def drawn(name: str, count: int = 40) -> tuple[torch.Tensor, np.ndarray]:
    """Noise beside flat colours, and the parameters of all views of a recipe."""
    params = sample_params(recipe(name), 5, 1, np.arange(count), np.full((count, 2), 50)).augmentation
    params = params.reshape(-1, params.shape[-1])
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (len(params), 3, 36, 36), generator=generator, dtype=torch.uint8)
    crops[::4] = crops[::4, :, :1, :1]
    crops[1::4] = crops[1::4, :1]
    return crops, params


@pytest.mark.parametrize("name", RECIPES)
def test_it_equals_the_painting_that_picks_rows(name: str) -> None:
    crops, params = drawn(name)
    normalisation = recipe(name).mean, recipe(name).std
    exact = augment(crops, params, *normalisation)
    fused = augment_fused(crops, params, *normalisation, at_once=33)
    assert torch.allclose(fused, exact, rtol=0, atol=SAME)
    assert (exact - augment(crops, params * 0 + params[:1], *normalisation)).abs().max() > 0.1


def test_one_graph_without_breaks_serves_all_batches_of_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    paint = torch.compile(fused._paint, fullgraph=True, dynamic=False, backend=backend)
    monkeypatch.setattr(fused, "_compiled_paint", lambda: paint)
    crops, params = drawn("byol")
    normalisation = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    plain = params[:4].copy()
    plain[:, :4], plain[:, 8], plain[:, 9], plain[:, 10] = -1, 0, 0, 2  # views that nothing changes
    for numbers in (plain, *(params[4 * n : 4 * n + 4] for n in range(6))):
        compiled = augment_fused(crops[:4], numbers, *normalisation, compiled=True)
        assert torch.allclose(compiled, augment(crops[:4], numbers, *normalisation), rtol=0, atol=SAME)
    assert len(graphs) == 1


def test_a_compiler_that_is_missing_is_named_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(*_: Any) -> Any:
        raise OSError("no compiler")

    torch.compiler.reset()
    fused._compiled_paint.cache_clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    crops, params = drawn("byol", 2)
    with pytest.raises(UserError, match=r"no compiler.*--hardware.augment fused"):
        augment_fused(crops, params, (0, 0, 0), (1, 1, 1), compiled=True)
    fused._compiled_paint.cache_clear()


def test_dtype_and_layout_are_as_asked() -> None:
    crops, params = drawn("byol", 3)
    out = augment_fused(crops, params, (0, 0, 0), (1, 1, 1), dtype=torch.bfloat16, channels_last=True)
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert len(augment_fused(crops[:0], params[:0], (0, 0, 0), (1, 1, 1))) == 0


class Count(TorchDispatchMode):
    launches = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        counted = operation.namespace == "aten" and not operation.is_view
        self.launches += counted and "empty" not in str(operation)
        return operation(*arguments, **(named or {}))


@pytest.mark.parametrize("name", ["simsiam", "byol", "moco-v1"])
def test_it_launches_a_fifth_of_the_operations_on_a_fake_gpu(name: str) -> None:
    _, params = drawn(name)
    counts = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        crops = torch.empty(len(params), 3, 224, 224, dtype=torch.uint8, device="cuda")
        for paint in (augment, augment_fused):
            with Count() as count:
                assert paint(crops, params, (0, 0, 0), (1, 1, 1)).device.type == "cuda"
            counts.append(count.launches)
    assert counts[0] > 5 * counts[1]
