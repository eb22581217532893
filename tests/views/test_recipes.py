"""Recipes: every number against the published tables, sizes, overrides and one-sentence errors."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from siamtransfer.utils.errors import UserError
from siamtransfer.views.recipes import ALIASES, RECIPES, recipe
from siamtransfer.views.view_spec import ViewSpec

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SWAV = (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)
CIFAR = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MILD, BYOL, STRONG = (0.4, 0.4, 0.4, 0.1), (0.4, 0.4, 0.2, 0.1), (0.8, 0.8, 0.8, 0.2)

# name: normalisation, then for each view: how many, size, scale, interpolation, jitter, blur_p, solarize_p
PUBLISHED: dict[str, tuple[Any, ...]] = {
    "simsiam": (IMAGENET, (2, 224, (0.2, 1), "bilinear", MILD, 0.5, 0)),
    "moco-v1": (IMAGENET, (2, 224, (0.2, 1), "bilinear", (0.4, 0.4, 0.4, 0.4), 0, 0)),
    "simclr": (IMAGENET, (2, 224, (0.08, 1), "bicubic", STRONG, 0.5, 0)),
    "byol": (
        IMAGENET,
        (1, 224, (0.08, 1), "bicubic", BYOL, 1, 0),
        (1, 224, (0.08, 1), "bicubic", BYOL, 0.1, 0.2),
    ),
    "moco-v3": (
        IMAGENET,
        (1, 224, (0.2, 1), "bilinear", BYOL, 1, 0),
        (1, 224, (0.2, 1), "bilinear", BYOL, 0.1, 0.2),
    ),
    "moco-v3-vit": (
        IMAGENET,
        (1, 224, (0.08, 1), "bilinear", BYOL, 1, 0),
        (1, 224, (0.08, 1), "bilinear", BYOL, 0.1, 0.2),
    ),
    "swav": (
        SWAV,
        (2, 224, (0.14, 1), "bilinear", STRONG, 0.5, 0),
        (6, 96, (0.05, 0.14), "bilinear", STRONG, 0.5, 0),
    ),
    "swav-2x224": (SWAV, (2, 224, (0.08, 1), "bilinear", STRONG, 0.5, 0)),
    "dino": (
        IMAGENET,
        (1, 224, (0.4, 1), "bicubic", BYOL, 1, 0),
        (1, 224, (0.4, 1), "bicubic", BYOL, 0.1, 0.2),
        (8, 96, (0.05, 0.4), "bicubic", BYOL, 0.5, 0),
    ),
    "dino-no-multicrop": (
        IMAGENET,
        (1, 224, (0.14, 1), "bicubic", BYOL, 1, 0),
        (1, 224, (0.14, 1), "bicubic", BYOL, 0.1, 0.2),
    ),
    "dino-resnet50": (
        IMAGENET,
        (1, 224, (0.14, 1), "bicubic", BYOL, 1, 0),
        (1, 224, (0.14, 1), "bicubic", BYOL, 0.1, 0.2),
        (8, 96, (0.05, 0.14), "bicubic", BYOL, 0.5, 0),
    ),
    "cifar-simsiam": (IMAGENET, (2, 32, (0.2, 1), "bilinear", MILD, 0, 0)),
    "cifar-solo-symmetric": (CIFAR, (2, 32, (0.08, 1), "bicubic", MILD, 0.5, 0)),
    "cifar-solo-asymmetric": (
        CIFAR,
        (1, 32, (0.08, 1), "bicubic", BYOL, 0, 0),
        (1, 32, (0.08, 1), "bicubic", BYOL, 0, 0.2),
    ),
    "cifar-solo-strong": (CIFAR, (2, 32, (0.08, 1), "bicubic", STRONG, 0.5, 0)),
    "cifar-solo-vicreg": (CIFAR, (2, 32, (0.2, 1), "bicubic", BYOL, 0, 0.1)),
    "cifar-directpred": (
        (CIFAR[0], (0.2023, 0.1994, 0.2010)),
        (2, 32, (0.08, 1), "bilinear", MILD, 0, 0),
    ),
    "stl10-directpred": (((0, 0, 0), (1, 1, 1)), (2, 96, (0.08, 1), "bilinear", STRONG, 1, 0)),
    "scenes": (IMAGENET, (2, 32, (0.2, 1), "bilinear", (0.4, 0.4, 0.8, 0.5), 0, 0)),
    "scenes-four-views": (IMAGENET, (4, 32, (0.2, 1), "bilinear", (0.4, 0.4, 0.8, 0.5), 0, 0)),
    "scenes-multicrop": (
        IMAGENET,
        (2, 32, (0.2, 1), "bilinear", (0.4, 0.4, 0.8, 0.5), 0, 0),
        (4, 16, (0.1, 0.4), "bilinear", (0.4, 0.4, 0.8, 0.5), 0, 0),
    ),
    "grey": (((0.459,) * 3, (0.226,) * 3), (2, 224, (0.2, 1), "bilinear", (0.4, 0.4, 0, 0), 0.5, 0)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_are_the_published_ones(name: str) -> None:
    normalisation, *groups = PUBLISHED[name]
    expected = [view for count, *view in groups for _ in range(count)]
    found = recipe(name)
    assert [
        [v.size, v.scale, v.interpolation, v.jitter, v.blur_p, v.solarize_p] for v in found.views
    ] == expected
    assert (found.mean, found.std) == normalisation
    assert found.name == name
    assert found.source
    for view in found.views:
        assert (view.ratio, view.flip_p, view.blur_sigma) == ((3 / 4, 4 / 3), 0.5, (0.1, 2.0))
        scenes = name in ("scenes", "scenes-four-views", "scenes-multicrop")
        assert view.jitter_p == (1.0 if scenes or name == "moco-v1" else 0.8)
        assert view.grey_p == (0.8 if scenes else {"grey": 0.0}.get(name, 0.2))
        assert view.grey_first == (name == "moco-v1")
        assert view.solarize_threshold == 128


def test_every_recipe_is_in_the_table() -> None:
    assert set(RECIPES) == set(PUBLISHED)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("moco-v2", "simsiam"), ("unigrad", "simsiam"), ("barlow-twins", "byol"), ("vicreg", "byol")],
)
def test_aliases_share_their_views(alias: str, name: str) -> None:
    assert ALIASES[alias] == name
    assert recipe(alias).views == recipe(name).views
    assert recipe(alias).name == alias


def test_global_views_come_first_at_every_size() -> None:
    for name, found in RECIPES.items():
        for size in (8, 64, 224):
            views = recipe(name, size=size).views
            count = sum(view.size == found.views[0].size for view in found.views)
            assert all(view.size == size for view in views[:count])
            assert count == (4 if name == "scenes-four-views" else 2)
            assert all(view.size < views[0].size for view in views[count:])


def test_size_scales_local_crops_in_proportion() -> None:
    assert [view.size for view in recipe("swav", size=64).views] == [64, 64] + [27] * 6
    assert [view.size for view in recipe("cifar-simsiam", size=224).views] == [224, 224]
    assert recipe("dino", size=224) == recipe("dino")


def test_overrides_reach_every_view_but_scale_only_the_global_ones() -> None:
    changed = recipe("dino", scale=[0.3, 0.9], blur_p=0.25, mean=[0.5, 0.5, 0.5], flip_p=None)
    assert {view.blur_p for view in changed.views} == {0.25}
    assert {view.flip_p for view in changed.views} == {0.5}
    assert [view.scale for view in changed.views] == [(0.3, 0.9)] * 2 + [(0.05, 0.4)] * 8
    assert changed.mean == (0.5, 0.5, 0.5)
    assert changed.std == recipe("dino").std
    assert [view.solarize_p for view in changed.views[:2]] == [0.0, 0.2]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("simsam", {}, "no recipe of views called 'simsam'; did you mean 'simsiam'"),
        ("moco2", {}, "did you mean 'moco-v2'"),
        ("simsiam", {"blur": 0.1}, "no setting of views called 'blur'; did you mean 'blur_p'"),
        ("simsiam", {"size": 4}, "size is 4, but must be a number of pixels from 8"),
        ("simsiam", {"blur_p": 1.5}, "blur_p is 1.5, but must be a probability from 0 to 1"),
        ("simsiam", {"scale": (0.9, 0.2)}, "scale is .* two rising numbers above 0 and at most 1"),
        ("simsiam", {"scale": (0.2, 1.2)}, "scale is .* two rising numbers above 0 and at most 1"),
        ("simsiam", {"ratio": (0.0, 1.0)}, "ratio is .* two rising numbers above 0"),
        ("simsiam", {"blur_sigma": (0.0, 2.0)}, "blur_sigma is .* two rising numbers above 0"),
        ("simsiam", {"jitter": (0.4, 0.4, 0.4)}, "jitter is .*four strengths"),
        ("simsiam", {"jitter": (0.4, 0.4, 0.4, 0.6)}, "jitter is .*hue.* at most 0.5"),
        ("simsiam", {"jitter": (-0.4, 0.4, 0.4, 0.1)}, "jitter is .*four strengths from 0"),
        ("simsiam", {"interpolation": "cubic"}, "interpolation is cubic, but must be bilinear or bicubic"),
        ("simsiam", {"solarize_threshold": 300}, "solarize_threshold is 300"),
        ("simsiam", {"std": (0.2, 0.0, 0.2)}, "std is .* a number above 0 for each channel"),
        ("simsiam", {"mean": ()}, "mean is .* a number for each channel"),
        ("simsiam", {"mean": (0.5,)}, "mean has 1 numbers and views.std has 3"),
    ],
)
def test_a_mistake_is_named_in_one_sentence(name: str, overrides: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(name, **overrides)


def test_recipes_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe("simsiam").views[0].size = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        RECIPES["simsiam"] = recipe("byol")  # type: ignore[index]


def test_a_view_of_its_own_is_checked_too() -> None:
    with pytest.raises(UserError, match="size is 0"):
        ViewSpec(0)
