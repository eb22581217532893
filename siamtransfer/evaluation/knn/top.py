"""The largest similarities of each query, exactly, with ties settled by index; and what is done with them.

Legend: n queries, N columns (rows of the bank), k neighbours, s[n, k] similarities that fall, i int64[n, k]
their columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

Neighbours = tuple[Tensor, Tensor]
"""s[n, k], most similar first, and i int64[n, k]; equal similarities come in the order of their index."""

GROUP = 8  # columns of which the largest stands for all; 4 to 16 were measured to be alike


def top(similarities: Tensor, k: int) -> Neighbours:
    """torch.topk of similarities[n, N], with ties settled by index: topk alone may return any of several
    equal entries.

    One more than k is searched; where it equals the last of the k, the cut goes through a tie, and such rows
    are sorted in full.
    """
    count = min(k + 1, similarities.shape[1])
    s, i = _largest(similarities, count)
    if count > k:
        ambiguous = (s[:, k] == s[:, k - 1]).nonzero()[:, 0]
        s, i = s[:, :k], i[:, :k]
        if len(ambiguous):
            order = similarities[ambiguous].sort(dim=1, descending=True, stable=True)
            s[ambiguous], i[ambiguous] = order.values[:, :k], order.indices[:, :k]
    return by_index_within_ties(s, i)


def by_index_within_ties(s: Tensor, i: Tensor) -> Neighbours:
    """Sorts rows of falling similarities so that indices rise where similarities are equal."""
    equal = (s[:, 1:] == s[:, :-1]).any(dim=1).nonzero()[:, 0]
    if len(equal):
        by_index = i[equal].argsort(dim=1)
        tied_s, tied_i = s[equal].gather(1, by_index), i[equal].gather(1, by_index)
        order = tied_s.sort(dim=1, descending=True, stable=True)
        s[equal], i[equal] = order.values, tied_i.gather(1, order.indices)
    return s, i


def merge(parts: list[Neighbours], k: int) -> Neighbours:
    """The k best of several results. Ties are settled by index where the indices rise from part to part."""
    s, i = (torch.cat(pair, dim=1) for pair in zip(*parts, strict=True))
    order = s.sort(dim=1, descending=True, stable=True)
    return order.values[:, :k], i.gather(1, order.indices[:, :k])


def merge_any_order(s: Tensor, i: Tensor, k: int) -> Neighbours:
    """The k best of s[n, m] and i int64[n, m], which come in any order; ties are settled by index."""
    by_index = i.argsort(dim=1)
    return merge([(s.gather(1, by_index), i.gather(1, by_index))], k)


def without(s: Tensor, i: Tensor, left_out: Tensor, k: int) -> Neighbours:
    """Drops each row's `left_out` index int64[n], or its last column where that index is not among the
    neighbours."""
    hit = i == left_out[:, None]
    hit[:, -1] |= ~hit.any(dim=1)
    keep = (~hit).nonzero()[:, 1].view(len(i), -1)[:, :k]
    return s.gather(1, keep), i.gather(1, keep)


def _largest(similarities: Tensor, k: int, *, ordered: bool = True) -> Neighbours:
    """torch.topk(similarities[n, N], k). On the CPU most columns are left out before topk, which takes half
    the time of a product there.

    A column stands in a group of GROUP. The k groups with the largest maxima hold k entries at least that are
    not smaller than any entry of the other groups, so topk over these groups' columns gives the k largest
    values. The maxima's own k largest are found in the same way.
    """
    n, columns = similarities.shape
    groups = columns // GROUP
    if similarities.device.type != "cpu" or groups < k:
        return similarities.topk(k, dim=1, sorted=ordered)
    grouped = similarities[:, : groups * GROUP].unflatten(1, (GROUP, groups))  # column = row * groups + group
    _, chosen = _largest(grouped.amax(dim=1), k, ordered=False)
    candidates = grouped.gather(2, chosen[:, None].expand(n, GROUP, k)).flatten(1)
    left_over = similarities[:, groups * GROUP :]  # fewer than GROUP columns, always candidates
    values, positions = torch.cat([candidates, left_over], dim=1).topk(k, dim=1, sorted=ordered)
    row = positions // k
    in_group = chosen.gather(1, positions % k) + row * groups
    return values, torch.where(row < GROUP, in_group, positions - GROUP * k + groups * GROUP)
