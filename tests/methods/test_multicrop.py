"""Crops of several sizes through one backbone, and the loss over pairs of them."""

from __future__ import annotations

import torch
from support.golden_methods import TinyBackbone, random_views
from torch import nn

from siamtransfer.methods.parts.multicrop import cross_entropy_between_views, encode


def test_every_view_but_the_one_that_gave_the_code_predicts_it():
    targets = list(torch.eye(4, dtype=torch.float64)[:2, None])  # [1,4] each: target i chooses column i
    predictions = list(torch.arange(12, dtype=torch.float64).reshape(3, 1, 4))
    # target 0 by views 1 and 2: entries 4 and 8; target 1 by views 0 and 2: entries 1 and 9
    assert cross_entropy_between_views(targets, predictions).item() == -(4 + 8 + 1 + 9) / 4


def test_crops_of_one_size_share_their_batch_norm_statistics():
    backbone, views = TinyBackbone().double(), random_views(16, 16, 8, 8)
    h = encode(backbone, views)
    assert h.shape == (4 * 8, 16)
    assert int(backbone.b1.num_batches_tracked) == 2
    torch.testing.assert_close(h[:16], backbone(torch.cat(views[:2])))
    torch.testing.assert_close(h[16:], backbone(torch.cat(views[2:])))


def test_features_stand_in_the_order_of_the_views():
    """Also where the sizes alternate, which no recipe does: only neighbours share a pass."""
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    views = [torch.full((2, 3, size, size), float(number)) for number, size in enumerate((8, 8, 6, 6, 8))]
    assert encode(backbone, views)[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
