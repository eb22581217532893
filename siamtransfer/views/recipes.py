"""The augmentation recipes by name, as published, and `recipe`, which changes single numbers of them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from typing import Any

from siamtransfer.utils.errors import UserError
from siamtransfer.views.view_spec import (
    NORMALISATION,
    VIEW_FIELDS,
    Numbers,
    Range,
    Recipe,
    ViewSpec,
    check_setting,
    is_integer,
)  # fmt: skip

SMALLEST_SIZE = 8  # pixels a side; below it, local views could get the size of the global ones
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

_MILD, _BYOL, _STRONG = (0.4, 0.4, 0.4, 0.1), (0.4, 0.4, 0.2, 0.1), (0.8, 0.8, 0.8, 0.2)
_SIMSIAM = ViewSpec(224, scale=(0.2, 1.0), jitter=_MILD, blur_p=0.5)
_SIMCLR = ViewSpec(224, jitter=_STRONG, blur_p=0.5)
_BLURRED = ViewSpec(224, jitter=_BYOL, blur_p=1.0)  # BYOL's first view, its second one below
_SOLARIZED = dataclasses.replace(_BLURRED, blur_p=0.1, solarize_p=0.2)
_SMALL = ViewSpec(32, jitter=_MILD)
_SCENES = ViewSpec(32, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.8, 0.5), jitter_p=1.0, grey_p=0.8)


def _recipe(
    name: str, source: str, *views: ViewSpec, mean: Numbers = IMAGENET_MEAN, std: Numbers = IMAGENET_STD
) -> Recipe:
    return Recipe(name, views, mean, std, source)


def _replace_all(views: tuple[ViewSpec, ...], **changes: Any) -> tuple[ViewSpec, ...]:
    return tuple(dataclasses.replace(view, **changes) for view in views)


def _dino(global_scale: Range, local_scale: Range | None = None) -> tuple[ViewSpec, ...]:
    large = _replace_all((_BLURRED, _SOLARIZED), scale=global_scale, interpolation="bicubic")
    if local_scale is None:
        return large
    local = dataclasses.replace(large[0], size=96, scale=local_scale, blur_p=0.5)
    return (*large, *[local] * 8)


_ALL = (
    _recipe("simsiam", "facebookresearch/simsiam, main_simsiam.py", _SIMSIAM, _SIMSIAM),
    _recipe(
        "moco-v1",
        "facebookresearch/moco, main_moco.py without --aug-plus",
        *[ViewSpec(224, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, grey_first=True)] * 2,
    ),
    _recipe(
        "simclr",
        "arXiv 2002.05709, appendix A, strength 1; bicubic as in google-research/simclr, data_util.py",
        *_replace_all((_SIMCLR, _SIMCLR), interpolation="bicubic"),
    ),
    _recipe(
        "byol",
        "arXiv 2006.07733, table 6; facebookresearch/barlowtwins and facebookresearch/vicreg",
        *_replace_all((_BLURRED, _SOLARIZED), interpolation="bicubic"),
    ),
    _recipe(
        "moco-v3",
        "facebookresearch/moco-v3, main_moco.py, --crop-min 0.2 (ResNet-50)",
        *_replace_all((_BLURRED, _SOLARIZED), scale=(0.2, 1.0)),
    ),
    _recipe(
        "moco-v3-vit",
        "facebookresearch/moco-v3, main_moco.py, --crop-min 0.08 (ViT)",
        _BLURRED,
        _SOLARIZED,
    ),
    _recipe(
        "swav",
        "facebookresearch/swav, src/multicropdataset.py, 2x224 + 6x96; its std really starts with 0.228",
        *[dataclasses.replace(_SIMCLR, scale=(0.14, 1.0))] * 2,
        *[dataclasses.replace(_SIMCLR, size=96, scale=(0.05, 0.14))] * 6,
        std=(0.228, 0.224, 0.225),
    ),
    _recipe(
        "swav-2x224",
        "facebookresearch/swav, two crops of 224 with scale from 0.08",
        _SIMCLR,
        _SIMCLR,
        std=(0.228, 0.224, 0.225),
    ),
    _recipe("dino", "facebookresearch/dino, main_dino.py, 2x224 + 8x96", *_dino((0.4, 1.0), (0.05, 0.4))),
    _recipe(
        "dino-no-multicrop", "facebookresearch/dino, README, --local_crops_number 0", *_dino((0.14, 1.0))
    ),
    _recipe("dino-resnet50", "facebookresearch/dino, README, ResNet-50", *_dino((0.14, 1.0), (0.05, 0.14))),
    _recipe(
        "cifar-simsiam",
        "arXiv 2011.10566, section 4 (ImageNet's without blur); PatrickHua/SimSiam",
        *[dataclasses.replace(_SMALL, scale=(0.2, 1.0))] * 2,
    ),
    _recipe(
        "cifar-solo-symmetric",
        "vturrisi/solo-learn, cifar/augmentations/symmetric_weak.yaml",
        *_replace_all((_SMALL, _SMALL), blur_p=0.5, interpolation="bicubic"),
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    ),
    _recipe(
        "cifar-solo-asymmetric",
        "vturrisi/solo-learn, cifar/augmentations/asymmetric.yaml",
        dataclasses.replace(_SMALL, jitter=_BYOL, interpolation="bicubic"),
        dataclasses.replace(_SMALL, jitter=_BYOL, interpolation="bicubic", solarize_p=0.2),
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    ),
    _recipe(
        "cifar-solo-strong",
        "vturrisi/solo-learn, cifar/augmentations/symmetric.yaml",
        *_replace_all((_SMALL, _SMALL), jitter=_STRONG, blur_p=0.5, interpolation="bicubic"),
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    ),
    _recipe(
        "cifar-solo-vicreg",
        "vturrisi/solo-learn, cifar/vicreg.yaml",
        *_replace_all(
            (_SMALL, _SMALL), scale=(0.2, 1.0), jitter=_BYOL, solarize_p=0.1, interpolation="bicubic"
        ),
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    ),
    _recipe(
        "cifar-directpred",
        "facebookresearch/luckmatters, ssl/real-dataset/data/transforms.py, cifar10",
        _SMALL,
        _SMALL,
        mean=CIFAR10_MEAN,
        std=(0.2023, 0.1994, 0.2010),
    ),
    _recipe(
        "stl10-directpred",
        "facebookresearch/luckmatters, ssl/real-dataset/data/transforms.py, stl10 (every view is blurred, "
        "none normalised)",
        *[dataclasses.replace(_SIMCLR, size=96, blur_p=1.0)] * 2,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    ),
    _recipe(
        "scenes",
        "ours, from no paper: cifar-simsiam with most colour lost, for the embedded Fashion Scenes, whose "
        "colour says nothing",
        _SCENES,
        _SCENES,
    ),
    _recipe(
        "scenes-four-views",
        "ours, from no paper: four views by scenes, for SimSiam with more than two",
        *[_SCENES] * 4,
    ),
    _recipe(
        "scenes-multicrop",
        "ours, from no paper: scenes with four local crops of half the size, for SwAV and DINO",
        _SCENES,
        _SCENES,
        *[dataclasses.replace(_SCENES, size=16, scale=(0.1, 0.4))] * 4,
    ),
    _recipe(
        "grey",
        "ours, from no paper: simsiam for images without colour (no saturation, hue or greying); mean and "
        "std are the luminance of ImageNet's",
        *[dataclasses.replace(_SIMSIAM, jitter=(0.4, 0.4, 0.0, 0.0), grey_p=0.0)] * 2,
        mean=(0.459, 0.459, 0.459),
        std=(0.226, 0.226, 0.226),
    ),
)

RECIPES = types.MappingProxyType({entry.name: entry for entry in _ALL})
ALIASES = types.MappingProxyType(
    {"moco-v2": "simsiam", "unigrad": "simsiam", "barlow-twins": "byol", "vicreg": "byol"}
)
GROUPS = ("global", "local")


def recipe(
    name: str,
    *,
    size: int | None = None,
    per_view: Mapping[str, Mapping[str, Any]] | None = None,
    **overrides: Any,
) -> Recipe:
    """The recipe called `name`, or its alias, at another size or with some numbers changed.

    Args:
        size: side in pixels of the global views; local views shrink or grow in proportion.
        overrides: a field of ViewSpec, set in every view (`scale` only in the global ones: local views keep
            theirs), or `mean` or `std`. Lists are taken for tuples, and None leaves the field as it is.
        per_view: fields of single views, which go before `overrides`. Keys are "1", "2", ... in the order of
            the views, or "global" and "local" for all views of the largest size and for all others; a number
            goes before its group. The size of a local view can be set here, that of global ones cannot.

    Raises:
        UserError: no such recipe, view or field (the nearest is named), or a value out of its range.
    """
    known = _require_known(name, {*RECIPES, *ALIASES}, "recipe of views")
    original = RECIPES[ALIASES.get(known, known)]
    largest = original.views[0].size
    size = largest if size is None else size
    if not is_integer(size, SMALLEST_SIZE, math.inf):
        raise UserError(f"views.size is {size}, but must be a number of pixels from {SMALLEST_SIZE}")
    names = (set(VIEW_FIELDS) | set(NORMALISATION)) - {"size"}
    changes = _read_changes("views", overrides, names)
    mean, std = changes.pop("mean", original.mean), changes.pop("std", original.std)
    is_global = [spec.size == largest for spec in original.views]
    own_changes = _changes_by_view(original.name, is_global, size, per_view or {})
    views = []
    for spec, is_large, own in zip(original.views, is_global, own_changes, strict=True):
        new: dict[str, Any] = {"size": round(spec.size * size / largest), **changes}
        if not is_large:
            new.pop("scale", None)
        views.append(dataclasses.replace(spec, **(new | own)))
    return Recipe(name, tuple(views), mean, std, original.source)


def _read_changes(key: str, changes: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """The changes that are not None, checked, with tuples for lists; `key` is where they were set."""
    checked = {}
    for field, value in changes.items():
        _require_known(field, names, f"setting of {key}")
        if value is not None:
            check_setting(f"{key}.{field}", field, value)
            checked[field] = tuple(value) if isinstance(value, list) else value
    return checked


def _changes_by_view(
    name: str, is_global: list[bool], size: int, per_view: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What `per_view` changes in each view of the recipe `name`."""
    numbers = {str(number): [number - 1] for number in range(1, len(is_global) + 1)}
    groups = {
        "global": [view for view, is_large in enumerate(is_global) if is_large],
        "local": [view for view, is_large in enumerate(is_global) if not is_large],
    }
    members = groups | numbers
    changes: list[dict[str, Any]] = [{} for _ in is_global]
    for key in sorted(per_view, key=lambda key: key not in groups):  # a number goes before its group
        path = f"views.per_view.{key}"
        if not members.get(key):
            known = ", ".join(member for member, views in members.items() if views)
            raise UserError(f"{path}: the recipe {name} has no such view; its views are {known}")
        if not isinstance(per_view[key], Mapping):
            raise UserError(
                f"{path} is {per_view[key]}, but must be settings of a view, such as {{blur_p: 0.5}}"
            )
        own = _read_changes(path, per_view[key], set(VIEW_FIELDS))
        if "size" in own:
            if any(is_global[view] for view in members[key]):
                raise UserError(f"{path}.size: the size of global views is views.size; set that one")
            if own["size"] >= size:
                raise UserError(
                    f"{path}.size is {own['size']}, but must be below views.size, which is {size}"
                )
        for view in members[key]:
            changes[view] |= own
    return changes


def _require_known(name: str, names: set[str], kind: str) -> str:
    """`name`; raises UserError, which names the nearest, when it is not among `names`."""
    if name in names:
        return name
    nearest = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.0)[0]
    raise UserError(
        f"there is no {kind} called '{name}'; did you mean '{nearest}'? Known are {', '.join(sorted(names))}"
    )
