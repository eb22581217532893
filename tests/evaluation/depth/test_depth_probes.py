"""The probes of depth against closed forms, hand cases and each other's invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from siamtransfer.evaluation.dense.input_size import InputSize
from siamtransfer.evaluation.depth.augment import NYU_SIZE, DepthRecipe
from siamtransfer.evaluation.depth.batches import Batches
from siamtransfer.evaluation.depth.bins import BinsHead, scale_invariant_loss
from siamtransfer.evaluation.depth.config import DepthConfig
from siamtransfer.evaluation.depth.data.rooms import DepthRooms
from siamtransfer.evaluation.depth.patches import DepthPatches, patch_means
from siamtransfer.evaluation.depth.ridge import RidgeProblem, fit_ridge
from siamtransfer.evaluation.depth.scoring import ScoringRule
from siamtransfer.evaluation.depth.train import batch_loss, rate_at
from siamtransfer.evaluation.linear.rows import Rows
from siamtransfer.metrics.depth import DepthRange
from siamtransfer.utils.errors import UserError

METRES = DepthRange(1e-3, 10)


def test_ridge_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(3, 2, (200, 7)).astype(np.float32), draw.random(200) * 5
    x[:, 3] = 2  # a feature that does not vary
    weight, bias = RidgeProblem(Rows.of(torch.from_numpy(x)), torch.from_numpy(y)).solve(0.03)
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    expected = Ridge(alpha=0.03 * 200).fit(scaled, y).predict(scaled)
    assert x.astype(np.float64) @ weight.numpy() + float(bias) == pytest.approx(expected, abs=1e-8)


def test_a_depth_that_is_linear_in_the_features_is_found() -> None:
    """With the logarithm as target, log depth = 0.5 f - 0.2; the weakest penalty is the best."""
    features = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
    logs = 0.5 * features[:, 1].double() - 0.2
    patches = DepthPatches(features, logs, torch.arange(600) // 20)
    probe = fit_ridge(patches, METRES, DepthConfig(strengths=[1e-9, 1e-1, 1.0]), torch.device("cpu"))
    assert probe.protocol["chosen_strength"] == 1e-9 and probe.protocol["chosen_at_edge"]
    grid = features[:6].T.reshape(4, 2, 3)
    assert torch.allclose(probe.depth(grid).flatten(), logs[:6].exp().float(), atol=1e-5)
    far = torch.full((4, 1, 1), 100.0)
    assert float(probe.depth(far)) == METRES.high  # never beyond the range


def test_patches_take_the_mean_of_their_known_pixels() -> None:
    depth = np.array([[1, 3, 0, 8], [1, 3, 0, 0]], np.float32)
    means = patch_means(depth, depth > 0, (1, 2))
    assert means[0] == 2 and np.isnan(means[1])  # a quarter is not enough
    assert patch_means(depth, depth > 0, (1, 4)).tolist()[:2] == [1, 3]
    assert np.isnan(patch_means(depth, depth > 0, (4, 8))).sum() >= 16  # more patches than pixels


def test_bins_normalise_rectified_logits_linearly() -> None:
    """Three bins at 0.001, 5.0005 and 10 m; weights 0.1, 2.1 and 0.1 of logits -4, 2 and 0."""
    head = BinsHead(1, 3, METRES, 1)
    logits = torch.tensor([-4.0, 2, 0]).view(1, 3, 1, 1)
    assert float(head.expected(logits)) == pytest.approx((0.1 * 0.001 + 2.1 * 5.0005 + 0.1 * 10) / 2.3)
    assert float(head.expected(torch.zeros(1, 3, 1, 1))) == pytest.approx(5.0005)


def test_the_layer_before_the_enlargement_is_the_layer_after_it() -> None:
    torch.manual_seed(0)
    head, maps = BinsHead(5, 16, METRES, 4), torch.randn(2, 5, 3, 4)
    enlarged = functional.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False)
    assert isinstance(head.layer, nn.Conv2d)
    assert head(maps).shape == (2, 12, 16)
    assert torch.allclose(head(maps), head.expected(head.layer(enlarged)), atol=1e-5)


def test_the_loss_by_hand_and_its_blindness_to_scale() -> None:
    truth = torch.tensor([[1.0, 2, 4, 0]])
    wrong = torch.tensor([[2.0, 2, 4, 9]])
    g = (wrong[0, :3] + 1e-3).log() - (truth[0, :3] + 1e-3).log()
    expected = (g.var() + 0.15 * g.mean() ** 2).sqrt()
    assert float(scale_invariant_loss(wrong, truth, truth > 0)) == pytest.approx(float(expected))
    scaled = scale_invariant_loss(truth * 2, truth, truth > 0)
    assert float(scaled) == pytest.approx(np.log(2) * 0.15**0.5, rel=2e-3)  # only the mean is left
    assert float(scale_invariant_loss(wrong, truth, truth > 0, warm_up=True)) == pytest.approx(
        float(0.15**0.5 * g.mean().abs())
    )
    assert float(scale_invariant_loss(wrong, truth, truth > 9)) == 0


def test_two_images_share_a_variance() -> None:
    torch.manual_seed(0)
    predicted, truth = torch.rand(4, 2, 2) + 1, torch.rand(4, 2, 2) + 1
    halves = [
        scale_invariant_loss(predicted[part], truth[part], truth[part] > 0)
        for part in (slice(2), slice(2, 4))
    ]
    assert float(batch_loss(predicted, truth, METRES, warm_up=False)) == pytest.approx(float(sum(halves)) / 2)


def test_the_rate_rises_for_a_third_and_falls_to_nothing() -> None:
    rates = [rate_at(step, 300, 1e-4) for step in range(300)]
    assert rates[0] == pytest.approx(1e-7)
    assert max(rates) == rates[100] == pytest.approx(1e-4 * 0.75)  # half a cosine at a third
    assert rates[50] == pytest.approx(1e-4 * 0.5 * (1 + np.cos(np.pi / 6)) * 0.5005)
    assert rates[-1] < 1e-8


def test_the_eigen_crop_is_of_one_size() -> None:
    depth = np.full((480, 640), 2.0)
    counted = ScoringRule(METRES, eigen=True).counted(depth, "x.png")
    assert counted.sum() == 426 * 560
    assert counted[45, 41] and counted[470, 600] and not counted[44, 41] and not counted[471, 600]
    with pytest.raises(UserError, match=r"x\.png has 320 x 240: give --eval-crop none"):
        ScoringRule(METRES, eigen=True).counted(depth[:240, :320], "x.png")


def test_augmentation_keeps_images_and_depths_together() -> None:
    """The image shows its own depth, so that whatever turns one turns the other."""
    ramp = np.linspace(40, 100, 640)[None] + np.zeros((480, 1))
    image = np.repeat(ramp[..., None], 3, axis=2).round().astype(np.uint8)
    recipe = DepthRecipe((416, 544), nyu=True)
    mirrored = 0
    for seed in range(12):
        pixels, depth = recipe.apply(image, ramp.astype(np.float32), np.random.default_rng(seed), "x")
        assert pixels.shape == (416, 544, 3) and depth.shape == (416, 544)
        rising = [np.sign(array[208].astype(float)[-50:].mean() - array[208].astype(float)[:50].mean())
                  for array in (pixels[..., 0], depth)]  # fmt: skip
        assert rising[0] == rising[1]
        mirrored += rising[0] < 0
        correlation = np.corrcoef(pixels[100:300, 100:400, 0].ravel(), depth[100:300, 100:400].ravel())
        assert correlation[0, 1] > 0.98
    assert 0 < mirrored < 12
    whole = DepthRecipe(augment=False).apply(image, ramp, np.random.default_rng(0), "x")
    assert whole[0] is image and ramp.shape == NYU_SIZE


def test_batches_depend_on_seed_and_step_alone() -> None:
    rooms = DepthRooms("train", 64, 5)
    batches = Batches(rooms, DepthRecipe((56, 40)), InputSize(96, False, 16), 3, seed=1)
    first, again = list(batches.take(0, 3)), list(batches.take(0, 2))
    for (pixels, depths), (p, d) in zip(first[:2], again, strict=True):
        assert torch.equal(pixels, p) and torch.equal(depths, d)
        assert pixels.shape == (3, 3, 80, 64)  # 1.5 times the crop, in multiples of 16
        assert depths.shape == (3, 56, 40)
    assert torch.equal(next(batches.take(2, 3))[0], first[2][0])
    other = next(Batches(rooms, DepthRecipe((56, 40)), InputSize(96, False, 16), 3, seed=2).take(0, 1))
    assert not torch.equal(first[0][0], other[0])


class Mixed:
    """Two rooms of 48 and 64 pixels."""

    def __init__(self) -> None:
        self.name, self.split, self.fingerprint = "mixed", "train", ""
        self.remarks: list[str] = []

    def __len__(self) -> int:
        return 2

    def image(self, index: int) -> np.ndarray:
        return DepthRooms("train", 48 + 16 * index).image(0)

    def depth(self, index: int) -> np.ndarray:
        return DepthRooms("train", 48 + 16 * index).depth(0)

    def describe(self, index: int) -> str:
        return str(index)

    describe_depth = describe


def test_images_of_several_sizes_need_a_crop() -> None:
    with pytest.raises(UserError, match=r"several sizes .* give --crop"):
        next(Batches(Mixed(), DepthRecipe(), InputSize(32, True, 1), 2, 0).take(0, 1))
