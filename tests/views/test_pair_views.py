"""Views of pairs: from which column each is cut, by which numbers, and in any number of workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.pairs import PairImages
from siamtransfer.data.readers import ReplacingReader, ReplacingRowReader
from siamtransfer.views.dataset import ViewBatch, ViewSet, augment_batch
from siamtransfer.views.loading import build_loader
from siamtransfer.views.pairs import ColumnRecipe, PairViewSet, columns_of_views, pair_views
from siamtransfer.views.preview import GAP, top_of, write_preview
from siamtransfer.views.recipes import recipe
from siamtransfer.views.view_spec import Recipe

KEYS = [(0, 3), (0, 11), (1, 3), (1, 7), (1, 0)]


def images(channels: tuple[int, int] = (3, 3)) -> PairImages:
    rng = np.random.default_rng(0)
    columns = [
        ArrayImages(f"p:{name}", "train", rng.integers(0, 256, (12, *side, count), np.uint8))
        for name, side, count in zip("ab", ((20, 24), (30, 18)), channels, strict=True)
    ]
    return PairImages("p", "train", columns, "ab")


def view_set(pairs: PairImages, of: Recipe, *, random: bool = False, seed: int = 5) -> PairViewSet:
    return PairViewSet(
        ReplacingRowReader(pairs), of, seed, len(pairs), columns=len(pairs.columns), random=random
    )


def same(first: ViewBatch, second: ViewBatch) -> bool:
    crops = all(torch.equal(a, b) for a, b in zip(first.crops, second.crops, strict=True))
    return crops and np.array_equal(first.params, second.params) and torch.equal(first.index, second.index)


def test_views_are_those_of_their_columns_alone() -> None:
    pairs, four = images(), recipe("scenes-four-views", size=16)
    batch = view_set(pairs, four).__getitems__(KEYS)
    for view in range(4):
        column = pairs.columns[view % 2]
        alone = ViewSet(ReplacingReader(column), four, 5, 12).__getitems__(KEYS)
        assert torch.equal(batch.crops[view], alone.crops[view])
        assert np.array_equal(batch.params[:, view], alone.params[:, view])


def test_equal_columns_give_the_views_of_one_image_to_the_bit() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (12, 20, 20, 3), np.uint8)
    column, spec = ArrayImages("x", "train", pixels), recipe("scenes", size=16)
    twice = PairImages("x", "train", [column, column], "ab")
    plain = ViewSet(ReplacingReader(column), spec, 5, 12).__getitems__(KEYS)
    for random in (False, True):
        batch = view_set(twice, spec, random=random).__getitems__(KEYS)
        assert same(batch, plain)
        views = zip(pair_views(batch, spec), augment_batch(plain, spec), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in views)


def test_a_random_order_is_a_function_of_seed_epoch_and_index() -> None:
    epochs, indices = np.repeat([0, 1], 500), np.tile(np.arange(500), 2)
    order = columns_of_views(2, 2, 3, epochs, indices, random=True)
    assert set(map(tuple, order.tolist())) == {(0, 1), (1, 0)} and 0.42 < order[:, 0].mean() < 0.58
    assert np.array_equal(columns_of_views(2, 2, 3, epochs[7:9], indices[7:9], random=True), order[7:9])
    assert not np.array_equal(order[:500], order[500:])
    three = columns_of_views(4, 3, 3, epochs, indices, random=True)
    assert np.array_equal(three[:, 0], three[:, 3]) and all(len(set(row[:3])) == 3 for row in three.tolist())
    assert columns_of_views(5, 2, 3, epochs[:1], indices[:1], random=False).tolist() == [[0, 1, 0, 1, 0]]


def test_a_drawn_order_cuts_the_views_from_the_drawn_columns() -> None:
    pairs, spec = images(), recipe("scenes", size=16)
    batch = view_set(pairs, spec, random=True).__getitems__(KEYS)
    epochs, indices = np.array(KEYS).T
    order = columns_of_views(2, 2, 5, epochs, indices, random=True)
    assert {0, 1} == set(order[:, 0].tolist())
    for row, columns in enumerate(order.tolist()):
        for view, column in enumerate(columns):
            alone = ViewSet(ReplacingReader(pairs.columns[column]), spec, 5, 12).__getitems__([KEYS[row]])
            assert torch.equal(batch.crops[view][row], alone.crops[view][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_batches_change_nothing(workers: int) -> None:
    pairs, spec = images(), recipe("scenes", size=16)
    views = view_set(pairs, spec, random=True)
    whole = views.__getitems__(KEYS)
    loader = build_loader(views, [KEYS[:2], KEYS[2:]], workers=workers, pin_memory=False)
    parts = list(loader)
    for view in range(2):
        assert torch.equal(torch.cat([part.crops[view] for part in parts]), whole.crops[view])


def test_columns_of_other_channels_have_recipes_of_their_own() -> None:
    pairs, colour = images((3, 1)), recipe("scenes", size=16)
    plain = recipe("grey", size=16)
    grey = Recipe("scenes", plain.views, (0.5,), (0.25,), "a test", rgb=())
    both = ColumnRecipe.of([colour, grey])
    assert both.channels == 3 and both.views == colour.views
    batch = view_set(pairs, both).__getitems__(KEYS)
    first, second = pair_views(batch, both)
    assert first.shape == (5, 3, 16, 16) and second.shape == (5, 1, 16, 16)
    alone = ViewSet(ReplacingReader(pairs.columns[1]), grey, 5, 12).__getitems__(KEYS)
    assert torch.equal(second, augment_batch(alone, grey)[1])
    alone = ViewSet(ReplacingReader(pairs.columns[0]), colour, 5, 12).__getitems__(KEYS)
    assert torch.equal(first, augment_batch(alone, colour)[0])


def test_the_preview_shows_each_column_by_its_own_channels_and_normalisation(tmp_path: Path) -> None:
    colour = recipe("scenes", size=16, jitter_p=0.0, grey_p=0.0)
    grey = Recipe("scenes", colour.views, (0.5,), (0.25,), "a test", rgb=())
    both = ColumnRecipe.of([colour, grey])
    pixels = [np.full((12, 20, 20, 3), (10, 90, 200), np.uint8), np.full((12, 20, 20, 1), 77, np.uint8)]
    pairs = PairImages("p", "train", [ArrayImages("p", "train", one) for one in pixels], "ab")
    write_preview(tmp_path / "views.png", view_set(pairs, both), count=2)
    with Image.open(tmp_path / "views.png") as picture:
        sheet = np.asarray(picture)
        said = picture.info["Description"].split("\n")
    cells = [sheet[top_of(1, 16) :, GAP + n * (16 + GAP) :][:16, :16] for n in range(3)]
    for cell, value in zip(cells, ((10, 90, 200), (10, 90, 200), (77, 77, 77)), strict=True):
        assert (cell == value).all()
    assert "column 2: mean 0.5, std 0.25" in said and said[0] == "recipe scenes"
