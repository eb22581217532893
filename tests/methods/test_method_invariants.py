"""What follows from the definitions of SimCLR, MoCo, MoCo v3, BYOL, Barlow Twins and VICReg, and of momentum
encoders: values that can be had by hand, and changes that change nothing."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
from support import paths
from support.golden_methods import FIRST, TinyBackbone
from support.small_methods import BATCH, SMALL, small, some_views
from support.small_runs import on_ranks
from torch import Tensor, nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import METHODS, Method, SimSiam, SimSiamConfig, StepInfo
from siamtransfer.methods.byol import BYOL, BYOLConfig
from siamtransfer.methods.moco import MoCo, MoCoConfig
from siamtransfer.methods.moco_v3 import MoCoV3, MoCoV3Config
from siamtransfer.methods.parts.ema import momentum_copy, move, rising
from siamtransfer.methods.parts.vit_init import positions
from siamtransfer.methods.simclr import SimCLR
from siamtransfer.methods.vicreg import covariance, variance

SCHEDULES = json.loads((paths.GOLDEN / "schedules_full.json").read_text())["ema_momentum"]


class Constant(nn.Module):
    """A head with fixed outputs, in turn where there are several."""

    def __init__(self, *outputs: Tensor):
        super().__init__()
        self.outputs, self.calls = outputs, 0

    def forward(self, h: Tensor) -> Tensor:
        self.calls += 1
        return self.outputs[(self.calls - 1) % len(self.outputs)] + 0 * h.sum()


def unit_rows(n: int, d: int, seed: int = 0) -> Tensor:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


# Momentum encoders.


@pytest.mark.parametrize("name", ["moco_v3", "dino", "unigrad", "solo_learn"])
def test_momentum_rises_as_in_published_code(name):
    golden = SCHEDULES[name]
    base = golden.get("base", golden.get("base_momentum"))
    steps = len(golden["values"])
    ours = [rising(base, StepInfo(step, steps, 7).done) for step in range(steps)]
    assert ours == pytest.approx(golden["values"], abs=1e-14)
    assert rising(base, 1) == 1


def test_an_average_moves_parameters_and_leaves_buffers():
    online, target = TinyBackbone(), TinyBackbone()
    online.b1.running_mean.fill_(5)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    buffers = {name: buffer.clone() for name, buffer in target.named_buffers()}
    move(target, online, 0.75)
    for (name, ours), theirs in zip(target.named_parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs / 4, msg=name)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in target.named_buffers())
    assert not any(p.requires_grad for p in momentum_copy(online).parameters())


MOMENTUM = {"moco": "before_forward", "moco-v3": "before_forward", "byol": "after_update"}


@pytest.mark.parametrize("name", MOMENTUM)
@pytest.mark.parametrize(("momentum", "moves"), [(0.0, True), (1.0, False)])
def test_momentum_0_copies_the_online_network_and_1_never_moves(name, momentum, moves):
    method = small(name, momentum=momentum)
    with torch.no_grad():
        for parameter in [*method.backbone.parameters(), *method.projector.parameters()]:
            parameter.add_(1)
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    moved = []
    for info in ("before_forward", "before_update", "after_update"):
        getattr(method, info)(FIRST)
        now = {key: tensor.clone() for key, tensor in method.state_dict().items()}
        moved += [info] if any(not torch.equal(now[key], before[key]) for key in now) else []
        before = now
    assert moved == ([MOMENTUM[name]] if moves else [])
    state = method.state_dict()
    for part in ("backbone", "projector"):
        for key, _ in getattr(method, part).named_parameters():
            same = torch.equal(state[f"target_{part}.{key}"], state[f"{part}.{key}"])
            assert same == moves


@pytest.mark.parametrize("name", MOMENTUM)
def test_a_target_network_learns_its_own_statistics_and_no_gradient_reaches_it(name):
    method = small(name)
    before = method.target_backbone.b1.running_mean.clone()
    method(some_views()).loss.backward()
    assert not torch.equal(method.target_backbone.b1.running_mean, before)
    assert all(p.grad is None for key, p in method.named_parameters() if key.startswith("target_"))


# SimCLR.


def simclr_of(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> float:
    method: SimCLR = small("simclr", temperature=temperature)  # type: ignore[assignment]
    method.projector = Constant(z1, z2)
    return method(some_views()).loss.item()


def test_simclr_of_equal_projections_is_ln_of_what_there_is_to_choose_from():
    z = unit_rows(1, 8).expand(BATCH, 8)
    assert simclr_of(z, z) == pytest.approx(math.log(2 * BATCH - 1), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_is_the_papers_double_sum(temperature):
    z1, z2 = unit_rows(BATCH, 8, 1) * 3, unit_rows(BATCH, 8, 2)  # lengths do not matter
    z = np.concatenate([z1.numpy() / 3, z2.numpy()])
    losses = []
    for i in range(2 * BATCH):
        similarity = np.exp(z @ z[i] / temperature)
        losses.append(-np.log(similarity[(i + BATCH) % (2 * BATCH)] / (similarity.sum() - similarity[i])))
    assert simclr_of(z1, z2, temperature) == pytest.approx(np.mean(losses), rel=1e-12)


def test_simclr_has_a_gradient_in_both_views_and_negatives():
    method: SimCLR = small("simclr")  # type: ignore[assignment]
    anchors, partners = (unit_rows(4, 8, seed).requires_grad_() for seed in (1, 2))
    method.contrast(anchors[:1], partners[:1]).backward()
    assert anchors.grad is not None
    assert partners.grad is not None
    method.contrast(anchors, partners).backward()
    assert all(row.any() for row in partners.grad)


@pytest.mark.parametrize(
    ("norm", "affine", "shift"), [("none", 0, False), ("scale", 1, False), ("affine", 1, True)]
)
def test_batch_norm_after_simclrs_projector(norm, affine, shift):
    projector = small("simclr", output_norm=norm).projector
    assert sum(isinstance(module, nn.BatchNorm1d) for module in projector) == 1 + affine
    assert getattr(projector[-1], "bias", None) is None or projector[-1].bias.requires_grad == shift


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


# BYOL.


def test_byol_whose_target_is_itself_is_four_times_simsiam_plus_four():
    method: BYOL = small("byol")  # type: ignore[assignment]
    twin = SimSiam(TinyBackbone(), SimSiamConfig(dim=8)).double()
    twin.backbone, twin.projector, twin.predictor = method.backbone, method.projector, method.predictor
    views = some_views()
    ours, theirs = method(views).loss, twin(views).loss
    torch.testing.assert_close(ours, 4 + 4 * theirs)
    method.zero_grad()
    ours.backward()
    gradient = method.backbone.c1.weight.grad.clone()
    method.zero_grad()
    theirs.backward()
    torch.testing.assert_close(gradient, 4 * method.backbone.c1.weight.grad)


def test_byols_projector_may_have_three_layers():
    """As in arXiv 2112.05141: hidden layers of one width with batch norm, none after the output."""
    method = BYOL(TinyBackbone(), BYOLConfig(hidden=10, dim=6, projector_layers=3))
    kinds = ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [type(layer).__name__ for layer in method.projector] == kinds
    assert [layer.weight.shape for layer in method.projector[::3]] == [(10, 16), (10, 10), (6, 10)]
    assert method.target_projector.state_dict().keys() == method.projector.state_dict().keys()


def test_byol_lies_between_agreement_and_opposition():
    method = small("byol")
    z = unit_rows(BATCH, 8)
    for target, expected in ((z, 0.0), (-3 * z, 8.0), (z.roll(1, 1), None)):
        method.predictor, method.target_projector = Constant(z), Constant(target)
        loss = method(some_views()).loss.item()
        assert 0 <= loss <= 8
        assert expected is None or loss == pytest.approx(expected, abs=1e-12)


# Barlow Twins and VICReg.


def barlow_of(z1: Tensor, z2: Tensor) -> float:
    torch.manual_seed(0)
    entry = METHODS["barlow-twins"]
    method = entry(TinyBackbone(), entry.Config(dim=z1.shape[1], hidden=4)).double()
    method.projector, method.norm.eps = Constant(z1, z2), 1e-15
    return method(some_views()).loss.item()


def white(n: int, d: int) -> Tensor:
    """Rows whose channels are not correlated; each has its own mean and variance."""
    z = unit_rows(n, d)
    q, _ = torch.linalg.qr(z - z.mean(dim=0))
    return q * torch.arange(1, d + 1) + torch.arange(d)


def test_barlow_twins_is_zero_for_uncorrelated_channels_and_counts_a_doubled_one_twice():
    z = white(BATCH, 6)
    assert barlow_of(z, z) == pytest.approx(0, abs=1e-12)
    doubled = torch.cat([z, z[:, :1]], dim=1)
    assert barlow_of(doubled, doubled) == pytest.approx(2 * 0.0051, rel=1e-9)
    opposed = torch.cat([z[:, :1], -z[:, 1:]], dim=1)
    assert barlow_of(z, opposed) == pytest.approx(5 * 4, rel=1e-9)


def test_barlow_twins_is_the_papers_sum_over_correlations():
    z1, z2 = unit_rows(BATCH, 5, 1), unit_rows(BATCH, 5, 2)
    c = np.corrcoef(z1.T.numpy(), z2.T.numpy())[:5, 5:]
    expected = ((np.diag(c) - 1) ** 2).sum() + 0.0051 * (c**2 - np.diag(np.diag(c) ** 2)).sum()
    assert barlow_of(z1, z2) == pytest.approx(expected, rel=1e-10)


def vicreg_of(z1: Tensor, z2: Tensor) -> float:
    method = small("vicreg")
    method.projector = Constant(z1, z2)
    return method(some_views()).loss.item()


def test_vicreg_of_equal_embeddings_is_its_variance_term_alone():
    z = torch.ones(BATCH, 5, dtype=torch.float64)
    assert vicreg_of(z, z) == pytest.approx(25 * (1 - math.sqrt(1e-4)), rel=1e-12)  # 24.75


def test_vicreg_is_the_papers_three_terms():
    z1, z2 = unit_rows(BATCH, 5, 1) * 2, unit_rows(BATCH, 5, 2) * 2
    invariance = ((z1 - z2) ** 2).mean().item()
    expected = 25 * invariance
    for z in (z1.numpy(), z2.numpy()):
        cov = np.cov(z.T)
        expected += 25 / 2 * np.maximum(0, 1 - np.sqrt(np.diag(cov) + 1e-4)).mean()
        expected += (cov**2 - np.diag(np.diag(cov) ** 2)).sum() / 5
    assert vicreg_of(z1, z2) == pytest.approx(expected, rel=1e-10)
    wide = white(BATCH, 5) * 40
    assert variance(wide).item() == 0
    assert covariance(wide).item() == pytest.approx(0, abs=1e-20)


# Sizes.

PUBLISHED: dict[str, dict[str, tuple[int, ...]]] = {
    "simclr": {"projector.0.weight": (2048, 2048), "projector.3.weight": (128, 2048)},
    "moco": {
        "projector.0.weight": (2048, 2048), "projector.2.weight": (128, 2048), "projector.2.bias": (128,),
        "queue": (65536, 128),
    },
    "moco-v3": {
        "projector.0.weight": (4096, 2048), "projector.3.weight": (256, 4096),
        "predictor.0.weight": (4096, 256), "predictor.3.weight": (256, 4096),
        "projector.4.running_var": (256,),
    },
    "byol": {
        "projector.0.weight": (4096, 2048), "projector.3.weight": (256, 4096), "projector.3.bias": (256,),
        "predictor.0.weight": (4096, 256), "predictor.3.weight": (256, 4096),
    },
    "barlow-twins": {
        "projector.0.weight": (8192, 2048), "projector.3.weight": (8192, 8192),
        "projector.6.weight": (8192, 8192), "norm.running_var": (8192,),
    },
    "vicreg": {
        "projector.0.bias": (8192,), "projector.3.weight": (8192, 8192), "projector.6.weight": (8192, 8192),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    backbone = TinyBackbone()
    backbone.dim = 2048
    with torch.device("meta"):
        method = METHODS[name](backbone, METHODS[name].Config())
    shapes = {key: tuple(tensor.shape) for key, tensor in method.state_dict().items()}
    assert {key: shapes[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    biases = {
        key for key in shapes if key.endswith("bias") and shapes[key.replace("bias", "weight")] != shapes[key]
    }
    heads = {key for key in biases if key.startswith(("projector", "predictor"))}
    assert heads == {
        "simclr": set(), "moco-v3": set(), "barlow-twins": set(),
        "moco": {"projector.0.bias", "projector.2.bias"},
        "byol": {f"{head}.{layer}.bias" for head in ("projector", "predictor") for layer in (0, 3)},
        "vicreg": {"projector.0.bias", "projector.3.bias"},
    }[name]  # fmt: skip


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
