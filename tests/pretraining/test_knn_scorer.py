"""The kNN check of a run and its two baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import on_ranks
from torch import Tensor, nn

from siamtransfer.data import open_images
from siamtransfer.data.imageset import ArrayImages
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.knn.search import search
from siamtransfer.evaluation.knn.vote import knn_accuracies
from siamtransfer.features.extract import Transform, extract_pixels
from siamtransfer.metrics.unit_rows import unit_half_rows
from siamtransfer.pretraining.knn_scorer import KnnScorer, choose_bank_dtype

ALONE = Runtime(torch.device("cpu"), torch.float32)
TRANSFORM = Transform(8, None, (0.5,) * 3, (0.5,) * 3)


def coloured(split: str, each: int, seed: int, bright: bool = False) -> ArrayImages:
    """Three classes told apart by their colour, of random brightness that hides it from raw pixels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(3).repeat(each)
    pixels = generator.integers(0, 60, (3 * each, 8, 8, 3))
    pixels[np.arange(3 * each), :, :, labels] += 60
    return ArrayImages("colours", split, pixels.astype(np.uint8), labels, ("red", "green", "blue"))


class Colour(nn.Module):
    """The perfect backbone for colours; `wrong` gives every image the same feature but for its brightness."""

    def __init__(self, wrong: bool = False):
        super().__init__()
        self.wrong = wrong

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3)) + 1
        return mean.sum(dim=1, keepdim=True) * torch.ones(3) if self.wrong else mean


def monitor(test: ArrayImages | None, **options: int) -> KnnScorer:
    return KnnScorer(coloured("train", 10, 0), test, TRANSFORM, ALONE, k=5, temperature=0.1, **options)


def test_it_scores_the_backbone_as_it_is() -> None:
    watch = monitor(coloured("test", 7, 1))
    assert watch.name == "knn/k=5/T=0.1/top1"
    assert watch.score(Colour())[watch.name] == 100
    assert watch.score(Colour(wrong=True))[watch.name] == pytest.approx(100 / 3, abs=20)


def test_without_a_test_part_no_image_is_its_own_neighbour() -> None:
    """Labels that are pure chance are guessed right by an image's own copy only."""
    bank = coloured("train", 40, 0)
    assert bank.labels is not None
    bank.labels = np.random.default_rng(5).permutation(bank.labels)
    left_out = KnnScorer(bank, None, TRANSFORM, ALONE, k=1, temperature=0.1)
    found = KnnScorer(bank, bank, TRANSFORM, ALONE, k=1, temperature=0.1)
    assert found.score(Colour())[found.name] == 100
    assert left_out.score(Colour())[left_out.name] < 50


def test_a_small_bank_is_the_same_each_time_and_has_all_kinds() -> None:
    one, other = monitor(None, bank_size=12), monitor(None, bank_size=12)
    assert np.array_equal(one._bank.indices, other._bank.indices)
    assert len(set(one._bank.indices)) == 12
    assert len(set(one._bank.labels.tolist())) == 3, "not the first images, which are all of one class"
    larger = monitor(None, bank_size=20)._bank.indices
    assert set(one._bank.indices) <= set(larger), "the first of one shuffle"
    assert monitor(None, bank_size=99)._bank.indices.tolist() == list(range(30))


def test_k_is_what_the_bank_can_give() -> None:
    assert monitor(None, bank_size=4).k == 3
    assert monitor(coloured("test", 2, 1), bank_size=4).k == 4
    watch = monitor(None, bank_size=4)
    assert watch.name in watch.score(Colour())


def test_baselines_are_raw_pixels_and_the_backbone_before_training() -> None:
    test = coloured("test", 7, 1)
    watch = monitor(test)
    found = watch.baselines(Colour())
    assert found[f"baseline/untrained/{watch.name}"] == 100
    bank = coloured("train", 10, 0)
    flat = [torch.from_numpy(part.pixels).permute(0, 3, 1, 2).flatten(1) / 127.5 - 1 for part in (bank, test)]
    labels = [torch.from_numpy(part.labels) for part in (bank, test) if part.labels is not None]
    expected = knn_accuracies(flat[0], labels[0], flat[1], labels[1], [5], [0.1])
    assert found[f"baseline/pixels/{watch.name}"] == pytest.approx(expected[watch.name])
    assert len(found) == 4


def test_the_protocol_says_what_the_number_depends_on(shapes_folder: Path) -> None:
    images = open_images("folder", root=shapes_folder)
    watch = KnnScorer(images, None, TRANSFORM, ALONE, k=3, temperature=0.07, bank_size=30)
    assert watch.protocol["knn_bank_images"] == 30
    assert watch.protocol["knn_leave_one_out"] is True
    assert watch.protocol["knn_bank"] == watch.protocol["knn_queries"] == "folder/train"


def large(split: str, seed: int) -> ArrayImages:
    """The same three classes in images of 64 pixels a side, whose colour is that of all their pixels."""
    small = coloured(split, 7, seed)
    pixels = small.pixels.repeat(8, axis=1).repeat(8, axis=2)
    return ArrayImages("colours", split, pixels, small.labels, small.classes)


def scorer_of_large_images(runtime: Runtime, **options: Any) -> KnnScorer:
    transform = Transform(64, 73, (0.5,) * 3, (0.5,) * 3)
    return KnnScorer(large("train", 0), large("test", 1), transform, runtime, 5, 0.1, **options)


def test_pixels_of_many_large_images_are_small_crops_and_the_protocol_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = scorer_of_large_images(ALONE)
    assert watch.protocol["knn_pixel_crop"] == 64
    monkeypatch.setattr("siamtransfer.features.extract.PIXEL_BYTES", 42 * 3 * 64 * 64 * 4 - 1)
    assert watch.protocol["knn_pixel_crop"] == 32
    images = watch.bank, watch.test
    flat = [extract_pixels(part, Transform(32, 36, (0.5,) * 3, (0.5,) * 3)) for part in images if part]
    labels = [
        torch.from_numpy(part.labels) for part in images if part is not None and part.labels is not None
    ]
    expected = knn_accuracies(flat[0], labels[0], flat[1], labels[1], [5], [0.1])
    found = watch.baselines(Colour())
    assert {
        name.removeprefix("baseline/pixels/"): value for name, value in found.items() if "pixels" in name
    } == (expected)


def baselines_and_calls(runtime: Runtime) -> tuple[dict[str, float], dict[str, float], int]:
    calls: list[int] = []
    torch.manual_seed(0)
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(192, 16))
    scorer = scorer_of_large_images(runtime)
    rows = scorer.baselines(network, between_chunks=lambda: calls.append(1))
    half = scorer_of_large_images(runtime, bank_dtype="float16").score(network)
    return rows, half, len(calls)


def test_ranks_have_the_numbers_of_one_process() -> None:
    expected, half, _ = baselines_and_calls(ALONE)
    ranks = on_ranks(baselines_and_calls, world_size=2)
    assert [rank[:2] for rank in ranks] == [(expected, half)] * 2
    assert ranks[0][2] == ranks[1][2] >= 6


@pytest.mark.parametrize(
    ("setting", "images", "expected"),
    [
        ("auto", 128_000, "float32"),
        ("auto", 1_281_167, "float16"),
        ("float32", 1_281_167, "float32"),
        ("float16", 10, "float16"),
    ],
)
def test_a_bank_is_in_half_precision_where_it_is_large_or_asked_for(
    setting: str, images: int, expected: str
) -> None:
    assert choose_bank_dtype(setting, images, 2048) == expected


def test_a_bank_in_half_precision_changes_cosines_by_its_rounding_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(200, 64, generator=generator), torch.randn(50, 64, generator=generator)
    found, expected = (search(rows, queries, 5)[0] for rows in (unit_half_rows(bank * 1e6), bank))
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-4)
    assert not torch.equal(found, expected)
