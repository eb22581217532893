"""The proof tells equal networks from others, and says when it says little."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.exports.network import Network, network_of
from siamtransfer.exports.proof import BATCHES, proof_pixels, prove
from siamtransfer.utils.errors import UserError


@pytest.fixture(scope="module")
def network() -> Network:
    return network_of(read_backbone("random:resnet18:width=8:stem=small"))


def changed(network: Network, change: Callable[[Tensor], Tensor]) -> Callable[[list[Tensor]], list[Tensor]]:
    def written(batches: list[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [change(network.backbone(network.normalise(pixels))) for pixels in batches]

    return written


def test_equal_and_almost_equal_networks(network: Network) -> None:
    assert prove(network, changed(network, lambda h: h), "it").absolute == 0
    proof = prove(network, changed(network, lambda h: h * (1 + 5e-5)), "it")
    assert 4e-5 < proof.relative < 6e-5
    assert proof.images == sum(BATCHES)
    assert proof.metrics()["proof/max_relative_difference"] == proof.relative


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h * (1 + 2e-4),
        lambda h: torch.full_like(h, float("nan")),
        lambda h: h[:, :-1],
        lambda h: h[:1].expand(len(h), -1),
        lambda h: h.flip(0),
        lambda h: h[:2],
    ],
    ids=["larger", "nan", "narrower", "one for all", "other order", "two at most"],
)
def test_other_networks_are_refused(network: Network, change: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UserError, match=r"it gives .*nothing was written"):
        prove(network, changed(network, change), "it")


def test_a_backbone_that_does_not_look_at_images_is_mentioned(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    class Constant(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 4)

    blind = dataclasses.replace(network, backbone=Constant())
    assert prove(blind, changed(blind, lambda h: h), "it").spread == 0
    assert "the proof says little" in capsys.readouterr().err


def test_the_images_are_scenes_and_noise(network: Network) -> None:
    batches = proof_pixels(network)
    assert [tuple(batch.shape) for batch in batches] == [(count, 3, 32, 32) for count in (1, 2, 5)]
    assert all(batch.dtype == torch.uint8 for batch in batches)
    images = torch.cat(batches).float()
    neighbours = (images[..., 1:] - images[..., :-1]).abs().mean(dim=(1, 2, 3))
    assert neighbours[::2].min() > 80 > 40 > neighbours[1::2].max()  # noise has no smooth places
    assert proof_pixels(network, 8)[0].shape == (1, 3, 8, 8)


def test_the_size_of_images(network: Network) -> None:
    assert network.images == (32, 32, "bilinear")
    assert network_of(network.read, 40).images == (40, 40, "bilinear")
    assert network_of(read_backbone("random:timm:test_vit")).images.size == 160
    with pytest.raises(UserError, match=r"takes no images of 96 x 96 pixels .*: say another --size"):
        network_of(read_backbone("random:timm:test_maxvit"), 96)
