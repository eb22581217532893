"""A plain ViT in detection: its map against timm's, windows against timm's block under a mask, the levels.

python -m pytest tests/detection/test_vit_pyramid.py
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.detection.vit_pyramid import VitOptions, VitPyramid, build_vit_pyramid
from siamtransfer.detection.vit_windows import RelativePositions, TokenGrid, partition, unpartition
from siamtransfer.utils.errors import UserError

CLOSE = 1e-5
PLAIN = "test_vit"
NETWORKS = (
    PLAIN,  # a class token
    "test_vit3",  # a register, layer scale and a pooling by attention
    "test_vit4",  # a register, layer scale and RMS norms
    "deit_tiny_distilled_patch16_224",  # two tokens of classes
    "vit_tiny_patch16_224.augreg_in21k",
    "vit_pe_core_tiny_patch16_384",  # positions of both kinds, a norm before the blocks
    "vit_small_patch16_dinov3",  # rotary positions, registers, layer scale, no bias of keys
)


def pyramid(name: str = PLAIN, **options: Any) -> VitPyramid:
    """With weights of which every tensor matters: fresh layer scales and biases would hide a difference."""
    torch.manual_seed(0)
    built = build_vit_pyramid(
        Architecture(f"timm:{name}"), VitOptions(**{"channels": 8, "image_size": 96, **options})
    )
    for parameter in built.bottom_up.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim < 2 else 0.1)
    return built.eval()


def image(height: int = 96, width: int = 80, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def timms_map(built: VitPyramid, x: Tensor, *, norm: bool = True, mask: Tensor | None = None) -> Tensor:
    maps = built.bottom_up.model.forward_intermediates(  # type: ignore[operator]
        x, indices=1, norm=norm, intermediates_only=True, attn_mask=mask
    )
    return maps[0]


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def window_mask(grid: TokenGrid, window: int) -> Tensor:
    """bool[L, L]: True where a token sees another, written out place by place."""
    length = grid.prefix + grid.height * grid.width
    sees = torch.ones(length, length, dtype=torch.bool)
    for a in range(grid.height * grid.width):
        for b in range(grid.height * grid.width):
            rows = a // grid.width // window == b // grid.width // window
            columns = a % grid.width // window == b % grid.width // window
            sees[grid.prefix + a, grid.prefix + b] = rows and columns
    return sees


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_over_the_whole_image_the_map_is_timms(name: str) -> None:
    built, x = pyramid(name, attention="global"), image()
    assert difference(built.map(x), timms_map(built, x)) < CLOSE


@torch.no_grad()
def test_without_the_final_norm_the_map_is_that_of_the_last_block() -> None:
    built, x = pyramid(attention="global", final_norm=False), image()
    assert difference(built.map(x), timms_map(built, x, norm=False)) < CLOSE
    assert difference(built.map(x), timms_map(built, x)) > 0.01


@pytest.mark.parametrize("name", [PLAIN, "test_vit3", "test_vit4", "vit_small_patch16_dinov3"])
@torch.no_grad()
def test_windows_are_timms_blocks_under_a_mask(name: str) -> None:
    """The map of 6 x 5 patches does not fill windows of 4."""
    built, x = pyramid(name, window=4, global_blocks=0), image()
    grid = TokenGrid(built.bottom_up.model.num_prefix_tokens, 6, 5)  # type: ignore[arg-type]
    masked = timms_map(built, x, mask=window_mask(grid, 4))
    assert difference(built.map(x), masked) < CLOSE
    assert difference(built.map(x), timms_map(built, x)) > 0.01


@torch.no_grad()
def test_a_window_that_holds_the_map_is_the_whole_image() -> None:
    built, x = pyramid("test_vit4", window=14, global_blocks=0), image()
    assert difference(built.map(x), timms_map(built, x)) < CLOSE


@torch.no_grad()
def test_patches_of_14_pixels_are_resampled_as_timm_resamples_them() -> None:
    built, x = pyramid("vit_small_patch14_reg4_dinov2", attention="global", patch_size=16), image()
    assert {name: tuple(t.shape) for name, t in built.bottom_up.state_dict().items()} == Architecture(
        "timm:vit_small_patch14_reg4_dinov2"
    ).shapes()
    reference = copy.deepcopy(built)
    embedding: Any = reference.bottom_up.model.patch_embed
    grid = embedding.grid_size
    embedding.set_input_size(patch_size=16)
    embedding.grid_size = grid  # of the position embeddings
    assert difference(built.map(x), timms_map(reference, x)) < CLOSE


def test_resampled_patches_learn() -> None:
    built = pyramid("vit_small_patch14_dinov2", attention="global", patch_size=16)
    built.map(image(32, 32, 1)).sum().backward()
    gradient = built.bottom_up.model.patch_embed.proj.weight.grad  # type: ignore[union-attr]
    assert gradient.shape[-1] == 14  # type: ignore[union-attr]
    assert gradient.abs().sum() > 0  # type: ignore[union-attr]


@torch.no_grad()
def test_queries_and_keys_keep_their_norms() -> None:
    built, x = pyramid(attention="global"), image()
    without = built.map(x)
    for block in built.bottom_up.blocks:
        for name in ("q_norm", "k_norm"):
            setattr(block.attn, name, torch.nn.LayerNorm(block.attn.head_dim))
    assert difference(built.map(x), timms_map(built, x)) < CLOSE
    assert difference(built.map(x), without) > 0.01


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("test_vit4", "blocks.0.ls1.gamma"),
        ("test_vit4", "blocks.5.ls2.gamma"),
        ("test_vit4", "reg_token"),
        (PLAIN, "cls_token"),
        ("vit_small_patch16_dinov3", "blocks.3.gamma_1"),
        ("vit_small_patch16_dinov3", "blocks.11.gamma_2"),
    ],
)
@torch.no_grad()
def test_nothing_of_the_network_is_dropped(name: str, tensor: str) -> None:
    built, x = pyramid(name, window=4), image()
    before = built.map(x)
    built.bottom_up.state_dict()[tensor].mul_(-1)
    assert difference(built.map(x), before) > 1e-4


@torch.no_grad()
def test_relative_positions_begin_at_zero_and_count() -> None:
    built, x = pyramid("test_vit4", window=4, global_blocks=2), image()
    without = pyramid("test_vit4", window=4, global_blocks=2, relative_positions=False)
    before = built.map(x)
    assert torch.equal(before, without.map(x))
    assert not without.relative
    for block in range(len(built.bottom_up.blocks)):
        changed = copy.deepcopy(built)
        changed.relative[str(block)].height.normal_(std=0.5)  # type: ignore[operator,union-attr]
        assert difference(changed.map(x), before) > 1e-4


@torch.no_grad()
def test_relative_positions_are_products_of_query_and_distance() -> None:
    positions = RelativePositions(4, 3)
    for table in positions.parameters():
        table.normal_()
    queries = torch.randn(1, 2, 12, 3)
    bias = positions(queries, 4, 3)
    columns = torch.nn.functional.interpolate(positions.width.T[None], size=5, mode="linear")[0].T
    for query in range(12):
        for key in range(12):
            down, right = query // 3 - key // 3, query % 3 - key % 3
            expected = queries[0, :, query] @ (positions.height[down + 3] + columns[right + 2])
            assert torch.allclose(bias[0, :, query, key], expected, atol=1e-5)


def test_windows_go_there_and_back() -> None:
    x, grid = torch.randn(2, 3, 35, 4), TokenGrid(1, 5, 7)
    windows = partition(x, grid, 3)
    assert windows.shape == (2 * 2 * 3, 3, 9, 4)
    assert torch.equal(windows[1, 0, 4], x[0, 0, 1 * 7 + 4])  # the middle of the second window
    assert torch.equal(unpartition(windows, grid, 3), x)


@pytest.mark.parametrize(
    ("depth", "published"), [(12, [2, 5, 8, 11]), (24, [5, 11, 17, 23]), (32, [7, 15, 23, 31])]
)
def test_global_blocks_are_where_vitdet_has_them(depth: int, published: list[int]) -> None:
    windows = VitOptions().windows(depth)
    assert [number for number, window in enumerate(windows) if window is None] == published
    assert set(windows) == {None, 14}


@pytest.mark.parametrize("name", [PLAIN, "vit_small_patch8_224", "vit_tiny_r_s16_p8_224"])
@torch.no_grad()
def test_levels_have_their_strides_whatever_the_patch(name: str) -> None:
    built = pyramid(name)
    levels = built(image(96, 70))  # enlarged to 96 x 96
    assert {name: tuple(level.shape[1:]) for name, level in levels.items()} == {
        "p2": (8, 24, 24),
        "p3": (8, 12, 12),
        "p4": (8, 6, 6),
        "p5": (8, 3, 3),
        "p6": (8, 2, 2),
    }
    assert built.strides == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
    assert built.channels == dict.fromkeys(built.strides, 8)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_vit3", {"final_norm": False}),
        ("test_vit4", {"window": 4, "global_blocks": 1}),
        ("test_vit4", {"window": 4, "global_blocks": 0}),
        ("vit_small_patch16_dinov3", {"window": 4}),
    ],
)
def test_all_that_requires_a_gradient_gets_one(name: str, options: dict[str, Any]) -> None:
    """DistributedDataParallel ends a training otherwise."""
    built = pyramid(name, **options).train()
    sum(level.sum() for level in built(image()).values()).backward()  # type: ignore[union-attr]
    without = [key for key, p in built.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_stochastic_depth_grows_over_the_blocks() -> None:
    blocks = pyramid("vit_tiny_patch16_224", drop_path=0.1).bottom_up.blocks
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.1 * number / 11 for number in range(12)])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vit_small_patch14_dinov2", {}, "patches of 14 pixels.*PATCH_SIZE 16"),
        ("vit_tiny_r_s16_p8_224", {"patch_size": 16}, "not embedded by one convolution"),
        ("convnext_atto", {}, "no plain ViT"),
        ("beit_base_patch16_224", {}, "no plain ViT"),
        ("vit_pwee_patch16_reg1_gap_256", {}, "ParallelScalingBlock"),
        ("vit_dwee_patch16_reg1_gap_256", {}, "DiffAttention"),
        (PLAIN, {"window": 0}, "WINDOW is 0"),
        (PLAIN, {"global_blocks": 7}, "GLOBAL_BLOCKS is 7"),
        (PLAIN, {"global_blocks": -1}, "GLOBAL_BLOCKS is -1"),
        (PLAIN, {"attention": "local"}, "ATTENTION is 'local'"),
        (PLAIN, {"patch_size": 12}, "PATCH_SIZE is 12"),
        (PLAIN, {"drop_path": 1.0}, "TIMM.DROP_PATH is 1.0"),
        (PLAIN, {"norm": "IN"}, "FPN.NORM is .IN."),
        (PLAIN, {"norm": "GN"}, "32 groups, which do not divide 8"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        pyramid(name, **options)


@pytest.mark.parametrize(
    ("norm", "kind"), [("LN", torch.nn.LayerNorm), ("BN", torch.nn.BatchNorm2d), ("", None)]
)
def test_levels_have_the_chosen_norm(norm: str, kind: type[torch.nn.Module] | None) -> None:
    built = pyramid(norm=norm)
    norms = [module for module in built.levels.modules() if "Norm" in type(module).__name__]
    assert len(norms) == (0 if kind is None else 9)  # two a level, one between transposed convolutions
    assert all(isinstance(module, kind or ()) for module in norms)
    biased = {m.bias is not None for m in built.levels.modules() if isinstance(m, torch.nn.Conv2d)}
    assert biased == {kind is None}
