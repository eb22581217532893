"""The order of training images goes on where a run has stopped, on any number of ranks."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed"),
]
FACTORS = torch.tensor([1.0, 2.5, 1.0, 3.3, 1.2])


def orders(skip: int) -> Any:
    import_detectron2()
    from siamtransfer.detection.detectron2.samplers import ResumedOrder

    return ResumedOrder(7, skip)


@pytest.mark.parametrize("kind", ["shuffled", "repeated"])
def test_streams_are_detectron2_s_without_their_beginning(kind: str) -> None:
    import_detectron2()
    from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler

    whole = TrainingSampler(5, seed=7) if kind == "shuffled" else RepeatFactorTrainingSampler(FACTORS, seed=7)
    expected = list(islice(whole, 60))
    for skip in (0, 3, 26):  # within an epoch, and several epochs on
        order = orders(skip)
        sampler = order.shuffled(5) if kind == "shuffled" else order.repeated(FACTORS)
        assert list(islice(sampler, 30)) == expected[skip : skip + 30]
    counts = torch.bincount(torch.tensor(list(islice(whole, 3000))), minlength=5)
    shares = torch.ones(5) if kind == "shuffled" else FACTORS
    torch.testing.assert_close(counts / 3000, shares / shares.sum(), rtol=0.1, atol=0)


def test_ranks_share_the_stream() -> None:
    alone = list(islice(orders(4).repeated(FACTORS), 20))
    ranks = []
    for rank in range(2):
        sampler = orders(4).repeated(FACTORS)
        sampler._rank, sampler._world_size = rank, 2
        ranks.append(list(islice(sampler, 10)))
    assert [index for pair in zip(*ranks, strict=True) for index in pair] == alone
