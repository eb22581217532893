"""Attention of a ViT's tokens over the whole image or within windows, with relative positions.

Li et al. 2022 (ViTDet, arXiv 2203.16527, section 3) let most blocks attend within windows that do not
overlap, and a few over the whole image. ViTDet drops the tokens beside the patches (class token, registers).
Here they stay: in a window every patch sees the patches of its window and all such tokens, and these tokens
see the whole image. A windowed block thus is the pretrained block under a mask.

Windows that the map does not fill have no content there: nothing attends to it. (ViTDet's published code lets
the zeros take part.)

Shapes: N images, A heads, P prefix tokens, H x W patches, D channels of a head, s the side of a window.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class TokenGrid(NamedTuple):
    """How tokens lie in the image: `prefix` tokens of no place, then height x width patches."""

    prefix: int
    height: int
    width: int


class Heads(NamedTuple):
    """Queries, keys and values [N, A, P + H*W, D]; `content` are the queries before any rotation by their
    place."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    content: Tensor


class RelativePositions(nn.Module):
    """Relative positions of the patches along both axes, added to the attention's logits: the query times a
    learned vector of the distance (MViTv2, arXiv 2112.01526, section 4.1). They begin at zero, where
    attention is that of the pretrained network.

    side: of the map or window that it is made for, in patches. A larger or smaller map gets linearly
    interpolated vectors.
    """

    def __init__(self, side: int, channels: int):
        super().__init__()
        self.height = nn.Parameter(torch.zeros(2 * side - 1, channels))
        self.width = nn.Parameter(torch.zeros(2 * side - 1, channels))

    def forward(self, queries: Tensor, height: int, width: int) -> Tensor:
        """queries[N, A, H*W, D] -> [N, A, H*W, H*W], to be added to the logits."""
        q = queries.unflatten(2, (height, width))
        rows = torch.einsum("naijd,ikd->naijk", q, _by_distance(self.height, height))
        columns = torch.einsum("naijd,jkd->naijk", q, _by_distance(self.width, width))
        return (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(4).flatten(2, 3)


def _by_distance(table: Tensor, side: int) -> Tensor:
    """The vectors [side, side, D] of each pair of query and key out of the table [2 * own side - 1, D]."""
    if table.shape[0] != 2 * side - 1:
        resized = functional.interpolate(table.T[None], size=2 * side - 1, mode="linear", align_corners=False)
        table = resized[0].T
    place = torch.arange(side, device=table.device)
    return table[place[:, None] - place[None, :] + side - 1]


def attend(
    heads: Heads,
    grid: TokenGrid,
    *,
    window: int | None,
    relative: RelativePositions | None,
    dropout: float = 0.0,
) -> Tensor:
    """The attention's outputs [N, A, P + H*W, D]; `window` is the side of a window in patches, None for the
    whole image."""
    if window is None:
        bias = None
        if relative is not None:
            patches = relative(heads.content[:, :, grid.prefix :], grid.height, grid.width)
            bias = functional.pad(patches, (grid.prefix, 0, grid.prefix, 0))
        return _attention(heads.queries, heads.keys, heads.values, bias, dropout)
    patches = _attend_in_windows(heads, grid, window, relative, dropout)
    if not grid.prefix:
        return patches
    prefix = _attention(heads.queries[:, :, : grid.prefix], heads.keys, heads.values, None, dropout)
    return torch.cat([prefix, patches], dim=2)


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    bias = None if bias is None else bias.to(q.dtype)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)


def _attend_in_windows(
    heads: Heads, grid: TokenGrid, window: int, relative: RelativePositions | None, dropout: float
) -> Tensor:
    """The outputs of the patches, [N, A, H*W, D]."""
    queries = partition(heads.queries[:, :, grid.prefix :], grid, window)
    keys, values = (
        torch.cat(
            [_per_window(x[:, :, : grid.prefix], grid, window), partition(patches, grid, window)], dim=2
        )
        for x in (heads.keys, heads.values)
        for patches in (x[:, :, grid.prefix :],)
    )
    bias = None
    if relative is not None:
        content = partition(heads.content[:, :, grid.prefix :], grid, window)
        bias = functional.pad(relative(content, window, window), (grid.prefix, 0))
    if grid.height % window or grid.width % window:
        absent = functional.pad(_absent(grid, window, queries.device), (grid.prefix, 0))
        absent = absent.repeat(heads.queries.shape[0], 1)[:, None, None, :]  # as partition orders windows
        empty = torch.zeros((), dtype=queries.dtype, device=queries.device) if bias is None else bias
        bias = torch.where(absent, torch.full_like(empty, -torch.inf), empty)
    return unpartition(_attention(queries, keys, values, bias, dropout), grid, window)


def partition(patches: Tensor, grid: TokenGrid, window: int) -> Tensor:
    """x[N, A, H*W, D] -> [N * windows, A, s*s, D], row by row of windows, zeros where the map ends."""
    count, heads, _, channels = patches.shape
    down, right = -grid.height % window, -grid.width % window
    x = functional.pad(patches.unflatten(2, (grid.height, grid.width)), (0, 0, 0, right, 0, down))
    rows, columns = x.shape[2] // window, x.shape[3] // window
    x = x.reshape(count, heads, rows, window, columns, window, channels)
    return x.permute(0, 2, 4, 1, 3, 5, 6).reshape(count * rows * columns, heads, window**2, channels)


def unpartition(windows: Tensor, grid: TokenGrid, window: int) -> Tensor:
    """The inverse of `partition`: [N * windows, A, s*s, D] -> [N, A, H*W, D]."""
    _, heads, _, channels = windows.shape
    rows, columns = -(-grid.height // window), -(-grid.width // window)
    x = windows.reshape(-1, rows, columns, heads, window, window, channels).permute(0, 3, 1, 4, 2, 5, 6)
    x = x.reshape(-1, heads, rows * window, columns * window, channels)
    return x[:, :, : grid.height, : grid.width].flatten(2, 3)


def _per_window(prefix: Tensor, grid: TokenGrid, window: int) -> Tensor:
    """The prefix tokens x[N, A, P, D] of its image for each window."""
    windows = -(-grid.height // window) * -(-grid.width // window)
    return prefix.repeat_interleave(windows, dim=0)


def _absent(grid: TokenGrid, window: int, device: torch.device) -> Tensor:
    """Of the windows of one image, [windows, s*s]: True where the map has ended."""
    present = torch.ones(1, 1, grid.height * grid.width, 1, device=device)
    return partition(present, grid, window)[:, 0, :, 0] == 0
