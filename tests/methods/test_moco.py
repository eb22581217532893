"""What follows from the definitions of MoCo and MoCo v3: values that can be had by hand, and changes that
change nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
from support.small_methods import BATCH, SMALL, Constant, small, some_views, unit_rows
from support.small_runs import on_ranks
from torch import Tensor, nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import Method
from siamtransfer.methods.moco import MoCo, MoCoConfig
from siamtransfer.methods.moco_v3 import MoCoV3, MoCoV3Config
from siamtransfer.methods.parts.vit_init import positions

# MoCo.


def moco(**changes: Any) -> MoCo:
    return small("moco", **changes)  # type: ignore[return-value]


def test_moco_puts_its_keys_in_the_place_of_the_oldest():
    method = moco()
    start = method.queue.clone()
    assert start.shape == (40, 8)
    keys = [unit_rows(BATCH, 8, seed) for seed in range(3)]
    for batch in keys:
        method.enqueue(batch)
    # 48 keys in 40 places: the last eight have come round.
    expected = torch.cat([keys[2][8:], keys[0][8:], keys[1], keys[2][:8]])
    torch.testing.assert_close(method.queue, expected, rtol=0, atol=0)
    assert method.queue_start.item() == 8


def test_mocos_queue_holds_unit_vectors_from_the_start_and_takes_the_batchs_own_after_its_loss():
    method = moco()
    method.target_projector = Constant(k := unit_rows(BATCH, 8, 1))
    method.projector = Constant(q := unit_rows(BATCH, 8, 2))
    before = method.queue.clone()
    loss = method(some_views()).loss.item()
    logits = np.concatenate([(q * k).sum(1, keepdim=True), q @ before.T], axis=1) / 0.2
    assert loss == pytest.approx(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[:, 0]), rel=1e-12)
    torch.testing.assert_close(method.queue[:BATCH], k, rtol=1e-12, atol=1e-12)
    assert torch.equal(method.queue[BATCH:], before[BATCH:])
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(40, dtype=torch.float64))
    assert method(some_views()).loss.item() != pytest.approx(loss, abs=1e-6), "the queue has moved"


def keys_on_ranks(runtime: Runtime, shuffle: bool, with_norm: bool) -> Tensor:
    """Keys of this rank's images, by an encoder whose batch norm, if any, sees one rank's share."""
    method = moco(shuffle=shuffle)
    if not with_norm:
        method.target_backbone = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(3, 16)).double()
    torch.manual_seed(runtime.rank)
    return method.keys(some_views()[0].chunk(runtime.world_size)[runtime.rank])


def test_mocos_keys_come_back_to_their_images_from_whichever_rank_encoded_them():
    plain, mixed = ([*on_ranks(keys_on_ranks, shuffle, False)] for shuffle in (False, True))
    for ours, theirs in zip(plain, mixed, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    plain, mixed = ([*on_ranks(keys_on_ranks, shuffle, True)] for shuffle in (False, True))
    assert (plain[0] - mixed[0]).abs().max() > 1e-3, "other images share the batch norm"


def test_moco_refuses_a_queue_that_is_shorter_than_a_batch():
    with pytest.raises(Exception, match=r"moco\.queue 100 is shorter than optim\.batch_size 256"):
        MoCoConfig(queue=100).check(batch=256)


# MoCo v3.


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_moco_v3_of_equal_similarities_is_four_temperatures_times_ln_of_the_batch(temperature):
    method = small("moco-v3", temperature=temperature)
    z = unit_rows(1, 8).expand(BATCH, 8)
    method.predictor, method.target_projector = Constant(z), Constant(z)
    assert method(some_views()).loss.item() == pytest.approx(4 * temperature * math.log(BATCH), rel=1e-12)


def test_each_prediction_of_moco_v3_looks_for_the_other_view_of_its_image():
    method: MoCoV3 = small("moco-v3", temperature=0.2)  # type: ignore[assignment]
    q1, q2, k1, k2 = (unit_rows(BATCH, 8, seed) for seed in range(4))
    method.predictor, method.target_projector = Constant(q1, q2), Constant(k1, k2)

    def contrast(q: Tensor, k: Tensor) -> float:
        logits = (q @ k.T / 0.2).numpy()
        return 0.4 * np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))

    assert method(some_views()).loss.item() == pytest.approx(contrast(q1, k2) + contrast(q2, k1), rel=1e-12)


def vit(**options: Any) -> MoCoV3:
    backbone = nn.Module()
    backbone.model = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=2, num_classes=0
    )
    backbone.dim = 48  # type: ignore[assignment]
    backbone.forward = backbone.model.forward  # type: ignore[method-assign]
    settings = {"dim": 8, "hidden": 12, "projector_layers": 3, "predictor_norm": True, "temperature": 0.2}
    return MoCoV3(backbone, MoCoV3Config(**settings | options))


def test_moco_v3_trains_a_vit_without_its_patch_embedding_and_positions():
    method = vit()
    out = method(list(torch.randn(2, 4, 3, 32, 32)))
    out.loss.backward()
    still = {name for name, p in method.backbone.model.named_parameters() if p.grad is None}
    assert still == {"patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"}
    assert [type(layer).__name__ for layer in method.projector] == [
        "Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d",
    ]  # fmt: skip
    assert not method.projector[-1].affine
    assert isinstance(method.predictor[-1], nn.BatchNorm1d)
    assert vit(freeze_patches=False).backbone.model.patch_embed.proj.weight.requires_grad


def test_moco_v3_starts_a_vit_as_published():
    model = vit().backbone.model
    for name, fan in {"attn.qkv": 48 + 48, "attn.proj": 48 + 48, "mlp.fc1": 48 + 192}.items():
        weight = model.get_parameter(f"blocks.0.{name}.weight")
        bound = math.sqrt(6 / fan)
        assert 0.98 * bound < weight.abs().max() <= bound, name
        assert not model.get_parameter(f"blocks.0.{name}.bias").any()
    patches = model.patch_embed.proj.weight
    bound = math.sqrt(6 / (3 * 8 * 8 + 48))
    assert 0.98 * bound < patches.abs().max() <= bound
    assert model.cls_token.abs().max() < 1e-5
    assert not model.pos_embed[:, 0].any()
    torch.testing.assert_close(model.pos_embed[0, 1:], positions(4, 4, 48))


def test_positions_are_sines_and_cosines_of_row_and_column():
    grid = positions(3, 5, 8).view(3, 5, 8).double()
    for row in range(3):
        for column in range(5):
            expected = [
                wave(position / base)
                for position in (row, column)
                for wave in (math.sin, math.cos)
                for base in (1.0, 100.0)  # 10000 ** (0, 1/2)
            ]
            assert grid[row, column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "version_1"), [("moco", {"projector_layers": 1})])
def test_version_1_of_moco_has_one_layer(name, version_1):
    method: Method = small(name, **version_1)
    assert [type(layer) for layer in method.projector] == [nn.Linear]
    assert {**SMALL[name], **version_1}["dim"] == method.projector[0].out_features


def test_moco_v3s_small_vit_is_the_one_with_twelve_heads():
    method = MoCoV3(
        build_backbone("vit_small_moco_v3"), MoCoV3Config(projector_layers=3, predictor_norm=True)
    )
    assert method.backbone.model.blocks[0].attn.num_heads == 12
    assert method.projector[0].in_features == 384
