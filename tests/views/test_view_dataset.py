"""The view data set: the same views for any workers, batches, ranks, restarts; augmentation, the preview."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from siamtransfer.utils.errors import UserError
from siamtransfer.views.augment import augment
from siamtransfer.views.crop import centre_crop, crop
from siamtransfer.views.dataset import (
    DECODED_AT_ONCE,
    Failure,
    SampleKey,
    ViewBatch,
    ViewSet,
    augment_batch,
    identity_collate,
)
from siamtransfer.views.preview import GAP, GREY, NARROWEST, RED, top_of, write_preview
from siamtransfer.views.random_params import sample_params
from siamtransfer.views.recipes import recipe
from siamtransfer.views.sampler import StepSampler
from siamtransfer.views.view_spec import Recipe

COUNT = 30
SHAPES = [(1, 1), (1, 9), (40, 1), (3, 5), (20, 20), (33, 50), (64, 48)]  # most are below the crop


def image(index: int) -> np.ndarray:
    """uint8[H,W,3] of many shapes; every fourth one is grey."""
    height, width = SHAPES[index % len(SHAPES)]
    pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.repeat(pixels[..., :1], 3, axis=2) if index % 4 == 0 else pixels


def read(index: int) -> tuple[np.ndarray, list[Failure]]:
    """Image 7 is broken; image 8 stands in."""
    return (image(8), [("seven.jpg", "it is truncated")]) if index == 7 else (image(index), [])


def view_set(views: Recipe | None = None, seed: int = 5) -> ViewSet:
    return ViewSet(read, views or recipe("byol", size=32), seed, COUNT)


def batches(views: ViewSet, workers: int = 0, **sampling: int) -> list[ViewBatch]:
    sampler = StepSampler(COUNT, sampling.pop("batch", 6), 10, seed=1, **sampling)
    return list(DataLoader(views, batch_sampler=sampler, num_workers=workers, collate_fn=identity_collate))


def samples(found: list[ViewBatch]) -> list[tuple[int, bytes, bytes]]:
    """What each sample in turn is made of: its index, the bytes of its crops, and its parameters."""
    return [
        (
            int(batch.index[row]),
            b"".join(crops[row].numpy().tobytes() for crops in batch.crops),
            batch.params[row].tobytes(),
        )
        for batch in found
        for row in range(len(batch))
    ]


def sample_keys(epoch: int = 0) -> list[SampleKey]:
    return [(epoch, index) for index in range(COUNT)]


def test_a_batch_holds_what_sampling_and_cropping_give() -> None:
    views = recipe("dino", size=32)
    batch = view_set(views).__getitems__(sample_keys(epoch=3))
    sizes = np.array([read(index)[0].shape[:2] for index in range(COUNT)])
    params = sample_params(views, 5, 3, np.arange(COUNT), sizes)
    assert len(batch) == COUNT > 2 * DECODED_AT_ONCE
    assert batch.index.tolist() == list(range(COUNT))
    assert batch.index.dtype == torch.int64
    assert np.array_equal(batch.params, params.augmentation)
    for v, spec in enumerate(views.views):
        assert batch.crops[v].shape == (COUNT, 3, spec.size, spec.size)
        for n in range(COUNT):
            expected = crop(
                read(n)[0], params.box[n, v], spec.size, spec.interpolation, bool(params.flip[n, v])
            )
            assert torch.equal(batch.crops[v][n], expected)


def test_an_image_is_read_once_a_sample() -> None:
    asked: list[int] = []

    def counting(index: int) -> tuple[np.ndarray, list[Failure]]:
        asked.append(index)
        return read(index)

    ViewSet(counting, recipe("swav", size=16), 0, COUNT).__getitems__(sample_keys())
    assert asked == list(range(COUNT))


def test_a_stand_in_is_named_and_keeps_the_index_that_was_asked_for() -> None:
    batch = view_set().__getitems__([(0, 6), (0, 7), (1, 7)])
    assert batch.unreadable == [("seven.jpg", "it is truncated")] * 2
    assert batch.index.tolist() == [6, 7, 7]
    assert view_set()[(0, 6)].unreadable == []


def test_views_are_the_same_with_any_number_of_workers() -> None:
    alone = batches(view_set())
    for workers in (1, 2):
        assert samples(batches(view_set(), workers)) == samples(alone)


def test_views_are_the_same_in_any_batch() -> None:
    alone = {sample for n in range(COUNT) for sample in samples([view_set()[(2, n)]])}
    for batch in (1, 4, COUNT):
        shuffled = np.random.default_rng(batch).permutation(COUNT)
        groups = [[(2, int(n)) for n in shuffled[at : at + batch]] for at in range(0, COUNT, batch)]
        assert set(samples([view_set().__getitems__(group) for group in groups])) == alone


def test_views_are_the_same_with_any_number_of_ranks() -> None:
    whole = batches(view_set())
    ranks = [batches(view_set(), rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(10):
        assert samples([ranks[0][step], ranks[1][step]]) == samples([whole[step]])


@pytest.mark.parametrize("start", [3, 5, 9])
def test_a_resumed_run_sees_the_views_it_would_have_seen(start: int) -> None:
    assert samples(batches(view_set(), start=start)) == samples(batches(view_set())[start:])


def test_epochs_and_seeds_bring_new_views() -> None:
    first = set(samples([view_set().__getitems__(sample_keys())]))
    assert not first & set(samples([view_set().__getitems__(sample_keys(epoch=1))]))
    assert not first & set(samples([view_set(seed=6).__getitems__(sample_keys())]))


def test_a_batch_may_hold_several_epochs() -> None:
    mixed = view_set().__getitems__([(0, 4), (1, 4), (2, 5)])
    assert samples([mixed]) == samples([view_set()[sample_key] for sample_key in ((0, 4), (1, 4), (2, 5))])


def test_pinning_copies_the_crops_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through DataLoader's own function; without a GPU nothing can really be pinned."""
    pinned: list[Tensor] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    batch = view_set().__getitems__(sample_keys())
    result = pin_memory(batch)
    assert isinstance(result, ViewBatch)
    assert [id(crops) for crops in result.crops] == [id(tensor) for tensor in pinned]
    assert samples([result]) == samples([batch])
    assert result.unreadable == batch.unreadable


# Painting.


@pytest.mark.parametrize("name", ["byol", "swav"])
def test_a_batch_is_augmented_view_by_view(name: str) -> None:
    views = recipe(name, size=24, solarize_p=0.0)
    batch = view_set(views).__getitems__(sample_keys())
    augmented = augment_batch(batch, views)
    assert len(augmented) == len(views.views)
    for v, spec in enumerate(views.views):
        alone = augment(batch.crops[v], batch.params[:, v], views.mean, views.std)
        assert augmented[v].shape == (COUNT, 3, spec.size, spec.size)
        assert torch.allclose(augmented[v], alone, rtol=0, atol=1e-5)


def test_augmentation_follows_the_type_and_layout_asked_for() -> None:
    views = recipe("simsiam", size=16)
    batch = view_set(views).__getitems__(sample_keys())
    for view in augment_batch(batch, views, dtype=torch.bfloat16, channels_last=True):
        assert view.dtype == torch.bfloat16
        assert view.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_goes_to_a_gpu_and_is_augmented_there() -> None:
    views = recipe("dino", size=32)
    batch = view_set(views).__getitems__(sample_keys())
    with FakeTensorMode(allow_non_fake_inputs=True):
        augmented = augment_batch(batch, views, "cuda", dtype=torch.bfloat16)
    assert {(view.device.type, view.dtype) for view in augmented} == {("cuda", torch.bfloat16)}
    assert [view.shape[-1] for view in augmented] == [32, 32] + [14] * 8


def test_grey_images_of_any_shape_become_finite_grey_views() -> None:
    views = recipe("grey", size=16)
    greys = [(0, index) for index in range(0, COUNT, 4)]
    for view in augment_batch(view_set(views).__getitems__(greys), views):
        assert view.isfinite().all()
        assert (view - view[:, :1]).abs().max() < 1e-5


# The preview.


def cell(sheet: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    top, left = top_of(row, side), GAP + column * (side + GAP)
    return sheet[top : top + side, left : left + side]


def test_the_preview_shows_the_image_and_then_its_views(tmp_path: Path) -> None:
    views = recipe("byol", size=32)
    unreadable = write_preview(tmp_path / "views.png", view_set(views), count=5, epoch=2)
    assert unreadable == [("seven.jpg", "it is truncated")]
    assert [path.name for path in tmp_path.iterdir()] == ["views.png"]
    sheet = np.asarray(Image.open(tmp_path / "views.png"))
    assert sheet.shape == (top_of(4, 32) + 32 + GAP, NARROWEST, 3)
    assert (cell(sheet, 1, 0, 32) == GREY).all()
    names = [sheet[top_of(row, 32) - 15 : top_of(row, 32)].reshape(-1, 3) for row in range(5)]
    assert [bool((name == RED).all(axis=1).any()) for name in names] == [False, True, False, False, False]
    assert all((name != 255).any() for name in names)
    for row, index in enumerate((0, 7, 14, 22, 29)):
        original = centre_crop(read(index)[0], 32, 32).permute(1, 2, 0).numpy()
        assert row == 1 or np.array_equal(cell(sheet, row, 0, 32), original)
        batch = view_set(views)[(2, index)]
        for v in range(2):
            plain = augment(batch.crops[v], batch.params[:, v], (0, 0, 0), (1, 1, 1))[0].permute(1, 2, 0)
            shown = cell(sheet, row, 1 + v, 32)
            # A value on the solarize threshold may fall on the other side by rounding.
            assert (np.abs(shown - plain.numpy() * 255) < 0.51).mean() > 0.999


def test_the_preview_holds_the_parameters_of_its_views(tmp_path: Path) -> None:
    views = recipe("byol", size=32, blur_p=0.3, per_view={"2": {"solarize_p": 0.4}})
    write_preview(tmp_path / "views.png", view_set(views), count=1)
    with Image.open(tmp_path / "views.png") as picture:
        assert picture.info["Description"].split("\n") == ["recipe byol", *views.describe()]
    assert "blur_p 0.3, " in views.describe()[1]
    assert "solarize_p 0.4, " in views.describe()[1]


def test_local_crops_are_shown_in_their_own_size(tmp_path: Path) -> None:
    views = recipe("swav", size=32)
    write_preview(tmp_path / "views.png", view_set(views), count=99)
    sheet = np.asarray(Image.open(tmp_path / "views.png"))
    assert sheet.shape == (top_of(COUNT - 1, 32) + 32 + GAP, NARROWEST, 3)
    assert 3 * (32 + GAP) + 6 * (14 + GAP) + GAP <= NARROWEST
    top = top_of(0, 32)
    assert (sheet[top + 14 : top + 32, 3 * (32 + GAP) + GAP :] == 255).all()
    assert (sheet[top : top + 14, 3 * (32 + GAP) + GAP :][:, : 6 * (14 + GAP) - GAP] != 255).any()


def test_a_preview_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_preview(tmp_path / "file" / "views.png", view_set(), count=1)


def test_batches_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        view_set()[(0, 0)].index = torch.zeros(1)  # type: ignore[misc]
