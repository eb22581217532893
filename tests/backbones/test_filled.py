"""A network filled with given tensors is the network that was built and loaded, in memory once."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.filled import _build_without_memory, _parameters_without_memory, build_filled

NETWORKS = {
    Architecture("resnet18", 8, "small"): 0,
    Architecture("timm:vit_tiny_patch16_224", heads=6): 0,
    Architecture("timm:vit_small_patch16_dinov3"): 0,
    Architecture("timm:swin_tiny_patch4_window7_224"): 12,
    Architecture("timm:tiny_vit_5m_224"): 10,
    Architecture("torchvision:shufflenet_v2_x0_5"): 0,
}
"""Networks, and how many of their buffers no state has, at least."""


@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda architecture: architecture.name)
def test_a_filled_network_is_the_one_that_was_loaded(architecture: Architecture) -> None:
    torch.manual_seed(0)
    usual = architecture.build().eval()
    state = dict(usual.state_dict())
    random_numbers = torch.get_rng_state()
    assert _build_without_memory(architecture) is not None
    filled = build_filled(architecture, state)
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert not any(module.training for module in filled.modules())
    for name, tensor in filled.state_dict().items():
        assert tensor.data_ptr() == state[name].data_ptr(), "the weights are in memory once"
    buffers = dict(filled.named_buffers())
    expected = dict(usual.named_buffers())
    assert buffers.keys() == expected.keys()
    for name, buffer in buffers.items():
        assert buffer.dtype == expected[name].dtype
        assert torch.equal(buffer, expected[name]), name
    assert (
        len([name for name in buffers if name.removeprefix("model.") not in state]) >= NETWORKS[architecture]
    )
    images = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(filled(images), usual(images))
    assert all(parameter.requires_grad for parameter in filled.parameters())


def test_a_network_whose_buffers_need_its_parameters_is_copied_into() -> None:
    architecture = Architecture("timm:swinv2_cr_tiny_ns_224")
    assert _build_without_memory(architecture) is None
    usual = architecture.build().eval()
    filled = build_filled(architecture, dict(usual.state_dict()))
    assert all(
        torch.equal(*pair)
        for pair in zip(
            (*usual.buffers(), *usual.parameters()), (*filled.buffers(), *filled.parameters()), strict=True
        )
    )


def test_other_threads_and_shared_parameters() -> None:
    """Another thread's modules are built as always meanwhile, and a parameter in two places stays one."""
    built: list[nn.Module] = []
    with _parameters_without_memory():
        thread = threading.Thread(target=lambda: built.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
        first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        second.weight = first.weight
    assert not built[0].weight.is_meta  # type: ignore[union-attr]
    assert first.weight.is_meta
    assert second.weight is first.weight
    assert not nn.Linear(2, 2).weight.is_meta
