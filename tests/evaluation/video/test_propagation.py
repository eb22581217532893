"""Masks handed on by nearest patches, against DINO's program and against loops over patches.

golden/video/davis.npz holds what label_propagation, norm_mask and the resizing of facebookresearch/dino's
eval_video_segmentation.py computed: for a neighbourhood, for patches that are equally near, and without one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from siamtransfer.evaluation.video import propagation
from siamtransfer.evaluation.video.propagation import Propagator, Rule, first_shares, propagate, to_mask

GOLDEN = Path(__file__).parents[2] / "golden" / "video" / "davis.npz"


def rows(features: Tensor) -> Tensor:
    """[h, w, D] of length 1 of [D, h, w]."""
    return functional.normalize(features.permute(1, 2, 0), dim=-1)


@pytest.mark.parametrize("case", ["near", "ties", "everywhere"])
def test_shares_and_masks_are_those_of_dinos_program(case: str) -> None:
    with np.load(GOLDEN) as golden:
        features, shares, result, mask, rule = (
            torch.from_numpy(golden[f"{case}/{name}"])
            for name in ("features", "shares", "result", "mask", "rule")
        )
    neighbourhood, topk = rule.tolist()
    keys = torch.stack([rows(each) for each in features[:-1]])
    found = propagate(
        rows(features[-1]), keys, shares.permute(0, 2, 3, 1), Rule(0, neighbourhood, topk)
    ).permute(2, 0, 1)
    assert (found - result).abs().max() < 1e-6
    height, width = result.shape[1:]
    drawn = to_mask(result, (0, 1, 2), (4 * height, 4 * width), (mask.shape[0], mask.shape[1]))
    assert np.array_equal(drawn, mask.numpy())


def by_loops(target: Tensor, keys: Tensor, values: Tensor, rule: Rule) -> Tensor:
    """The same, a patch at a time."""
    height, width, _ = target.shape
    result = torch.zeros(height, width, values.shape[-1], dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            near = [
                (float(key[v, u].double() @ target[y, x].double()), value[v, u].double())
                for key, value in zip(keys, values, strict=True)
                for v in range(height)
                for u in range(width)
                if not rule.neighbourhood or max(abs(v - y), abs(u - x)) <= rule.neighbourhood
            ]
            near = sorted(near, key=lambda pair: -pair[0])[: rule.topk]
            weights = [np.exp(cosine / rule.temperature) for cosine, _ in near]
            result[y, x] = sum(w * value for w, (_, value) in zip(weights, near, strict=True)) / sum(weights)

    return result


@pytest.mark.parametrize(
    "rule", [Rule(2, 2, 3, 0.1), Rule(2, 12, 5, 0.07), Rule(2, 0, 4, 0.1), Rule(2, 1, 50, 0.005)]
)
def test_shares_agree_with_loops_whatever_the_tiles(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [rows(torch.randn(8, 7, 10, generator=generator)) for _ in range(3)]
    values = torch.rand(2, 7, 10, 3, generator=generator)
    expected = by_loops(maps[2], torch.stack(maps[:2]), values, rule)
    for tile, entries in ((3, 2**24), (8, 300), (16, 1)):
        monkeypatch.setattr(propagation, "TILE", tile)
        monkeypatch.setattr(propagation, "ENTRIES", entries)
        found = propagate(maps[2], torch.stack(maps[:2]), values, rule)
        assert (found - expected).abs().max() < 1e-5


def test_the_context_is_the_first_frame_and_the_last_few() -> None:
    """Frame t has a feature of its own, so with the whole context alike only its own mask would do. Frames 1
    and 2 have left a context of 2 when frame 5 comes."""
    rule = Rule(context=2, neighbourhood=0, topk=1, temperature=0.1)
    units = torch.eye(6)[:, :, None, None]  # one patch a frame
    first = torch.tensor([0.0, 1.0])[:, None, None]
    follower = Propagator(units[0], first, rule)
    follower._last.append((rows(units[1]), torch.tensor([[[1.0, 0.0]]])))
    assert follower.next(units[1]).flatten().tolist() == [1, 0]  # frame 1 is remembered
    for frame in (2, 3):
        follower.next(units[frame])
    mixed = functional.normalize(units[1] + 0.1 * units[0], dim=0)
    assert follower.next(mixed).flatten().tolist() == [0, 1]  # frame 1 has left, frame 0 has not


def test_the_first_mask_is_reduced_by_the_centres_of_patches() -> None:
    mask = np.array([[1, 1, 0, 0], [1, 7, 0, 7], [0, 0, 7, 7], [0, 0, 7, 0]], np.uint8)
    shares = first_shares(mask, (0, 1, 7), (2, 2))
    assert shares.argmax(dim=0).tolist() == [[2, 2], [0, 0]]  # the pixels at 1 and 3, from 0
    assert shares.sum(dim=0).eq(1).all()


def test_of_channels_without_a_share_none_is_drawn() -> None:
    """The background is one everywhere, so stretching it is left out; an object that is gone stays gone."""
    shares = torch.stack([torch.ones(3, 3), torch.zeros(3, 3)])
    assert not to_mask(shares, (0, 5), (12, 12), (24, 24)).any()
    assert (to_mask(shares.flip(0), (0, 5), (12, 12), (24, 24)) == 5).all()


def test_nothing_waits_for_a_gpu_and_all_stays_on_it() -> None:
    """On fake CUDA tensors: a value that the host asks for, or a tensor that is elsewhere, raises."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        features = torch.empty(16, 10, 12, device="cuda")
        follower = Propagator(features, torch.empty(3, 10, 12, device="cuda"), Rule(2, 3, 5, 0.1))
        for _ in range(3):
            assert follower.next(features).device.type == "cuda"
        assert follower.next(features).shape == (3, 10, 12)
