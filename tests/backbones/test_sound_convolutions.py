"""Gradients of strided convolutions on the CPU, where oneDNN's own ones crash or hold unwritten memory."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from support.thorough import more
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.sound_convolutions import SoundConv2d, with_sound_convolutions

pytestmark = pytest.mark.fault

LAYOUTS = (torch.channels_last, torch.contiguous_format)


def leave_nan_in_memory() -> None:
    """Frees blocks of many sizes that are full of NaN, so that memory which is read unwritten shows."""
    blocks = [torch.full((2**power * part,), float("nan")) for power in range(8, 18) for part in (2, 3)]
    del blocks


def gradients(
    layer: nn.Conv2d, x: Tensor, up: Tensor, layout: torch.memory_format, dtype: torch.dtype
) -> list[Tensor]:
    """y, dL/dx and dL/dw of the layer, in an autocast to `dtype` where that is not the layer's own."""
    layer.to(memory_format=layout)
    x = x.contiguous(memory_format=layout).requires_grad_()
    leave_nan_in_memory()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
        y = layer(x)
    up = up.to(y.dtype).contiguous(memory_format=layout)
    return [y, *torch.autograd.grad(y, (x, layer.weight), up)]


def errors_of(layer: nn.Conv2d, size: int, layout: torch.memory_format, dtype: torch.dtype) -> list[float]:
    """How far y, dL/dx and dL/dw are from those in double precision, relative to their norms."""
    x = torch.randn(2, layer.in_channels, size, size)
    w = layer.weight.detach().double().contiguous().requires_grad_()
    x64 = x.double().requires_grad_()
    y = F.conv2d(x64, w, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    up = torch.randn(y.shape)
    exact = [y, *torch.autograd.grad(y, (x64, w), up.double())]
    found = gradients(layer, x, up, layout, dtype)
    return [float((a - b).detach().norm() / b.detach().norm()) for a, b in zip(found, exact, strict=True)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size", "channels", "groups"),
    [
        (3, 2, 1, 1, 24, 1),  # layer4 of a ResNet and images of 16 pixels
        (3, 2, 1, 2, 24, 1),
        (5, 4, 2, 3, 24, 1),
        (3, 2, 1, 1, 24, 24),
        more(7, 4, 3, 2, 24, 1),
        more(7, 2, 3, 1, 3, 1),
        more(3, 3, 1, 2, 8, 1),
        more(3, 4, 1, 3, 32, 4),
        more(3, 2, 1, 7, 24, 1),
        more(3, 2, 1, 6, 8, 1),
        more(1, 2, 0, 1, 24, 1),
    ],
)
def test_bfloat16_gradients_are_those_of_double_precision(
    kernel: int,
    stride: int,
    padding: int,
    size: int,
    channels: int,
    groups: int,
    layout: torch.memory_format,
) -> None:
    plain = nn.Conv2d(channels, 48, kernel, stride, padding, groups=groups, bias=False)
    layer = with_sound_convolutions(plain)
    assert max(errors_of(layer, size, layout, torch.bfloat16)) < 0.01


def _narrow(channels: int, outputs: int, size: int) -> None:
    """Of a 1x1 convolution, in a process of its own: a status other than 0 where a number is wrong."""
    layer = with_sound_convolutions(nn.Conv2d(channels, outputs, 1, 2, bias=False))
    for _ in range(3):
        assert max(errors_of(layer, size, torch.channels_last, torch.float32)) < 1e-5


@pytest.mark.parametrize(
    ("channels", "outputs", "size"),
    [(8, 16, 56), (2, 1, 64), more(15, 8, 56), more(4, 8, 128), more(16, 16, 56), more(1, 1, 57)],
)
def test_a_narrow_projection_with_a_stride_does_not_write_past_its_memory(
    channels: int, outputs: int, size: int
) -> None:
    process = multiprocessing.get_context("fork").Process(target=_narrow, args=(channels, outputs, size))
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
    assert process.exitcode == 0


def test_a_bias_and_dilation_stay() -> None:
    x = torch.randn(2, 4, 9, 9)
    for plain in (nn.Conv2d(4, 6, 1, 2), nn.Conv2d(4, 6, 3, 2, 2, dilation=2)):
        expected = F.conv2d(x, plain.weight, plain.bias, plain.stride, plain.padding, plain.dilation)
        assert torch.equal(plain(x), expected)
        torch.testing.assert_close(with_sound_convolutions(plain)(x), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(plain(x).float(), expected, rtol=0.02, atol=0.02)


def test_wide_layers_in_float32_stay_as_they_were_to_the_bit() -> None:
    for kernel, padding in ((1, 0), (3, 1)):
        plain = nn.Conv2d(16, 24, kernel, 2, padding, bias=False)
        x, up = torch.randn(2, 16, 12, 12), torch.randn(2, 24, 6, 6)
        before = gradients(plain, x, up, torch.channels_last, torch.float32)
        sound = with_sound_convolutions(plain)
        assert type(sound) is SoundConv2d
        after = gradients(sound, x, up, torch.channels_last, torch.float32)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["resnet18", "torchvision:squeezenet1_1", more("timm:test_resnet")])
def test_every_strided_convolution_of_a_network_is_sound(name: str) -> None:
    network = build_backbone(name)
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    assert strided
    assert all(isinstance(module, SoundConv2d) for module in strided)


def test_a_narrow_resnet_of_small_images_has_bfloat16_gradients() -> None:
    network = build_backbone("resnet18", width=12).to(memory_format=torch.channels_last)
    x = torch.randn(8, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        leave_nan_in_memory()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
            h = network(x)
        h.float().square().mean().backward()
        found[dtype] = network.get_parameter("layer4.0.conv1.weight").grad
        network.zero_grad()
    exact, short = found[torch.float32], found[torch.bfloat16]
    assert exact is not None
    assert short is not None
    assert torch.isfinite(short).all()
    unseen = torch.ones(3, 3, dtype=torch.bool)
    unseen[1, 1] = False
    assert torch.count_nonzero(short[:, :, unseen]) == 0  # a map of one pixel reaches the centre alone
    # 17 layers of rounding and norms over eight values lie between; unwritten memory is not near at all.
    assert float((short - exact).norm() / exact.norm()) < 0.5
