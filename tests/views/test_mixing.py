"""CutMix and mixup: shares that are the areas in pixels, partners, random numbers by key, the preview."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.partners import partners
from siamtransfer.views import preview
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.dataset import Failure, ViewSet, augment_batch, training_views
from siamtransfer.views.mix_spec import Mix, mix_of
from siamtransfer.views.mixing import MixParams, mix_views, sample_mix
from siamtransfer.views.preview import GAP, top_of, write_preview
from siamtransfer.views.random_params import sample_params
from siamtransfer.views.recipes import recipe
from siamtransfer.views.view_spec import Recipe

KEYS = np.arange(6000)


def mixing(kind: str = "cutmix", **values: float) -> Recipe:
    """Two views of 32 pixels and four of 16, mixed."""
    return dataclasses.replace(recipe("scenes-multicrop"), mix=Mix(kind, **values))  # type: ignore[arg-type]


def drawn(kind: str = "cutmix", keys: np.ndarray = KEYS, **values: float) -> MixParams:
    params = sample_mix(mixing(kind, **values), 3, 5, keys)
    assert params is not None
    return params


def read(index: int) -> tuple[np.ndarray, list[Failure]]:
    """An image of one grey level: 100 for even numbers, 200 for odd ones."""
    return np.full((32, 32, 3), 100 + 100 * (index % 2), np.uint8), []


def numbered(count: int, *sides: int) -> list[Tensor]:
    """Views [count,3,S,S] whose pixels are the number of the row, counted from 1."""
    rows = torch.arange(1.0, count + 1)[:, None, None, None]
    return [rows.expand(-1, 3, side, side).contiguous() for side in sides]


def test_the_rows_of_a_batch_are_partners_in_pairs() -> None:
    assert partners(6).tolist() == [1, 0, 3, 2, 5, 4]
    assert partners(5).tolist() == [1, 0, 3, 2, 4]
    assert partners(1).tolist() == [0]
    assert partners(0).tolist() == []


@given(count=st.integers(1, 40), parts=st.integers(1, 4))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_even_parts_of_a_batch_keep_their_partners(count: int, parts: int) -> None:
    whole = partners(2 * count * parts)
    assert torch.equal(whole[whole], torch.arange(len(whole)))
    for number, part in enumerate(whole.chunk(parts)):
        assert torch.equal(part - number * 2 * count, partners(2 * count))


def test_the_share_of_cutmix_is_the_area_that_is_left_in_pixels() -> None:
    params, views = drawn(keys=KEYS[:400]), numbered(400, 32, 32, 16, 16, 16, 16)
    *mixed, share = mix_views(views, params, "cutmix")
    own = torch.arange(1.0, 401)
    other = own[partners(400)]
    for v, view in enumerate(mixed):
        assert view.shape == views[v].shape
        is_own, is_other = (view[:, 0] == own[:, None, None]), (view[:, 0] == other[:, None, None])
        assert torch.all(is_own | is_other)
        assert torch.equal(is_own.double().mean(dim=(1, 2)), share[:, v].double())
    top, left, bottom, right = torch.from_numpy(params.box).unbind(-1)
    first = mixed[0][17, 2] == other[17]  # one box, row by row
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[top[17, 0] : bottom[17, 0], left[17, 0] : right[17, 0]] = True
    assert torch.equal(first, expected)
    assert 0 < expected.sum() < 1024


def test_mixup_blends_all_pixels_by_the_share() -> None:
    params, views = drawn("mixup", keys=KEYS[:100]), numbered(100, 32, 32, 16, 16, 16, 16)
    assert not params.box.any()
    *mixed, share = mix_views(views, params, "mixup")
    own = torch.arange(1.0, 101)
    for v, view in enumerate(mixed):
        expected = share[:, v] * own + (1 - share[:, v]) * own[partners(100)]
        torch.testing.assert_close(view, expected[:, None, None, None].expand_as(view))
    assert share.std() > 0.2


@pytest.mark.parametrize(("alpha", "variance"), [(1.0, 1 / 12), (0.3, 0.25 / 1.6), (4.0, 0.25 / 9)])
def test_shares_are_of_the_beta_distribution(alpha: float, variance: float) -> None:
    share = drawn("mixup", alpha=alpha).share.astype(np.float64).ravel()
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.var() == pytest.approx(variance, rel=0.05)
    assert np.all((share >= 0) & (share <= 1))


def test_a_box_within_the_view_has_the_drawn_area() -> None:
    params, blends = drawn(), drawn("mixup")  # of the same random numbers
    sides = np.array([32, 32, 16, 16, 16, 16])
    within = (params.box[..., :2] > 0).all(axis=-1) & (params.box[..., 2:] < sides[:, None]).all(axis=-1)
    side = np.sqrt(1 - params.share.astype(np.float64)) * sides
    drawn_side = np.sqrt(1 - blends.share.astype(np.float64)) * sides
    assert within.mean() > 0.1
    assert np.abs(side - np.floor(drawn_side + 1e-4))[within].max() < 1e-3
    assert (params.share >= blends.share - 1e-6).all()  # a box that is cut off leaves more


def test_a_fraction_of_the_views_is_mixed_each_on_its_own() -> None:
    mixed = drawn("mixup", p=0.25).share < 1
    assert mixed.mean() == pytest.approx(0.25, abs=0.01)
    assert mixed[:, :2].all(axis=1).mean() == pytest.approx(0.25**2, abs=0.015)
    pasted = drawn(p=0.25)
    top, left, bottom, right = np.moveaxis(pasted.box, -1, 0)
    assert not ((bottom - top) * (right - left))[~mixed].any()
    assert (pasted.share[~mixed] == 1).all()


def test_an_unmixed_view_is_the_plain_one_to_the_bit() -> None:
    torch.manual_seed(0)
    views = [torch.randn(8, 3, 32, 32)]
    for kind in ("cutmix", "mixup"):
        still = MixParams(np.ones((8, 1), np.float32), np.zeros((8, 1, 4), np.int32))
        mixed, share = mix_views(views, still, kind)
        assert torch.equal(mixed, views[0])
        assert torch.equal(share, torch.ones(8, 1))


def test_numbers_depend_on_the_key_alone() -> None:
    whole = drawn(keys=KEYS[:50])
    for order in (KEYS[:50][::-1], KEYS[20:30]):
        part = drawn(keys=order)
        assert np.array_equal(part.share, whole.share[order])
        assert np.array_equal(part.box, whole.box[order])
    again = sample_mix(mixing(), 3, np.full(50, 5), KEYS[:50])
    assert again is not None
    assert np.array_equal(again.box, whole.box)
    for seed, epoch in ((4, 5), (3, 6)):
        other = sample_mix(mixing(), seed, epoch, KEYS[:50])
        assert other is not None
        assert not np.array_equal(other.box, whole.box)
    assert sample_mix(recipe("scenes"), 3, 5, KEYS) is None


def test_the_other_random_numbers_of_a_view_stay() -> None:
    sizes = np.full((50, 2), 32)
    plain, mixed = (sample_params(r, 3, 5, KEYS[:50], sizes) for r in (recipe("scenes-multicrop"), mixing()))
    assert np.array_equal(plain.box, mixed.box)
    assert np.array_equal(plain.augmentation, mixed.augmentation)
    share, flips = (
        drawn("mixup").share[:, 0],
        sample_params(mixing(), 3, 5, KEYS, np.full((6000, 2), 32)).flip,
    )
    assert abs(np.corrcoef(share, flips[:, 0])[0, 1]) < 0.05


def test_a_method_gets_plain_views_mixed_ones_and_shares() -> None:
    views = ViewSet(read, mixing(), seed=2, length=20)
    batch = views.__getitems__([(0, index) for index in range(10)])
    painted = training_views(batch, views.recipe, channels_last=True)
    assert len(painted) == 13
    for plain, expected in zip(painted[:6], augment_batch(batch, views.recipe), strict=True):
        assert torch.equal(plain, expected)
    for plain, mixed in zip(painted[:6], painted[6:12], strict=True):
        assert mixed.shape == plain.shape
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        assert not torch.equal(mixed, plain)
    assert painted[12].shape == (10, 6)
    plain_batch = ViewSet(read, recipe("scenes-multicrop"), 2, 20).__getitems__([(0, 1)])
    assert plain_batch.mix is None
    assert len(training_views(plain_batch, recipe("scenes-multicrop"))) == 6


def test_settings_make_a_mix_and_say_so() -> None:
    built = ViewsConfig("scenes", mix="cutmix", mix_alpha=0.5, mix_p=0.25).build()
    assert built.mix == Mix("cutmix", 0.5, 0.25)
    assert built.describe()[-1] == "mix cutmix, alpha 0.5, p 0.25"
    assert dataclasses.replace(built, mix=None) == ViewsConfig("scenes").build()
    assert ViewsConfig("scenes", mix="mixup").build().mix == Mix("mixup", 1.0, 1.0)
    assert ViewsConfig("scenes").build().mix is None
    assert ViewsConfig.from_dict({"recipe": "scenes"}).mix is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mix": "cutout"}, "views.mix is cutout, but must be cutmix or mixup"),
        ({"mix": "mixup", "mix_alpha": 0.0}, "views.mix_alpha is 0.0, but must be a number above 0"),
        ({"mix": "mixup", "mix_alpha": float("nan")}, "views.mix_alpha is nan"),
        ({"mix": "mixup", "mix_p": 0.0}, "views.mix_p is 0.0, but must be a probability above 0"),
        ({"mix": "cutmix", "mix_p": 1.5}, "views.mix_p is 1.5"),
        ({"mix_alpha": 2.0}, "views.mix_alpha changes nothing without views.mix"),
        ({"mix_p": 0.5}, "views.mix_p changes nothing without views.mix"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ViewsConfig("scenes", **values).build()
    if "mix" not in values:
        assert mix_of(None, None, None) is None


def test_the_preview_shows_the_mixed_views_after_the_plain_ones(tmp_path: Path) -> None:
    still = dataclasses.replace(  # no jitter, so that a grey level says whose pixel it is
        ViewsConfig("scenes", jitter_p=0.0, grey_p=0.0, mix="cutmix").build(), mean=(0.5,) * 3
    )
    views = ViewSet(read, still, seed=1, length=2)
    write_preview(tmp_path / "views.png", views, count=2)
    picture = Image.open(tmp_path / "views.png")
    pixels, side = np.asarray(picture), still.views[0].size
    assert "mix cutmix, alpha 1, p 1" in picture.text["Description"]  # type: ignore[attr-defined]
    batch = views.__getitems__([(0, 0), (0, 1)])
    assert batch.mix is not None
    for row, (own, other) in enumerate(((100, 200), (200, 100))):
        top = top_of(row, side)
        cells = [
            pixels[top : top + side, GAP + n * (side + GAP) : GAP + n * (side + GAP) + side] for n in range(5)
        ]
        for plain in cells[:3]:
            assert (plain == own).all()
        for v, mixed in enumerate(cells[3:]):
            assert np.mean(mixed == own) == pytest.approx(batch.mix.share[row, v])
            assert np.mean(mixed == other) == pytest.approx(1 - batch.mix.share[row, v], abs=1e-6)


def test_the_preview_says_that_a_last_row_without_a_pair_is_mixed_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = dataclasses.replace(
        ViewsConfig("scenes", jitter_p=0.0, grey_p=0.0, mix="cutmix").build(), mean=(0.5,) * 3
    )
    heads: list[str] = []
    monkeypatch.setattr(preview, "_write_texts", lambda sheet, head, *_: heads.append(head))
    for rows in (2, 3):
        write_preview(tmp_path / "views.png", ViewSet(read, still, seed=1, length=rows), count=rows)
    assert ["without a pair: with itself" in head for head in heads] == [False, True]
    side = still.views[0].size
    last = np.asarray(Image.open(tmp_path / "views.png"))[top_of(2, side) :][:side]
    for n in range(1, 5):
        assert (last[:, GAP + n * (side + GAP) :][:, :side] == 100).all(), "its own grey level"
