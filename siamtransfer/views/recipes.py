"""The augmentation recipes by name, as data: what may happen to an image on its way to becoming a view.

Everything here is numbers. `draw` turns a recipe into random numbers, `geometry` cuts by them and
`photometry` paints by them. A view always goes through the same chain:

    crop and resize, flip, [grey], colour jitter in random order, [grey], blur, solarize, normalise

`grey` stands first only in MoCo v1. Some papers flip at the end; that is the same view, for no later
operation looks left or right.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from dataclasses import dataclass
from typing import Any, Literal, get_args

from siamtransfer.utils.errors import UserError

Interpolation = Literal["bilinear", "bicubic"]
Range = tuple[float, float]
Triple = tuple[float, float, float]

SMALLEST_SIZE = 8  # pixels a side; below this the crops of a multi-crop recipe are no longer told apart


def _require(good: bool, field: str, value: object, rule: str) -> None:
    if not good:
        raise UserError(f"views: {field} is {value}, but must be {rule}")


@dataclass(frozen=True)
class ViewSpec:
    """How one view of an image is made.

    Attributes:
        size: side of the square view in pixels.
        scale: smallest and largest share of the image's area that the crop covers, drawn uniformly.
        ratio: narrowest and widest crop, width / height, drawn uniformly in its logarithm.
        interpolation: bilinear or bicubic, both antialiased.
        flip_p: probability of a horizontal flip.
        jitter: strengths of brightness, contrast, saturation (factors from 1 - s, at least 0, to 1 + s) and
            of hue (a turn from -s to s of the colour circle, at most 0.5); 0 leaves an operation out.
        jitter_p: probability that the colour jitter happens at all.
        grey_p: probability of losing all colour; `grey_first` does it before the jitter.
        blur_p: probability of a Gaussian blur with a sigma from `blur_sigma`, in pixels of the view.
        solarize_p: probability that grey levels from `solarize_threshold` (of 255) upwards are inverted.
    """

    size: int
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    flip_p: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.8
    grey_p: float = 0.2
    grey_first: bool = False
    blur_p: float = 0.0
    blur_sigma: Range = (0.1, 2.0)
    solarize_p: float = 0.0
    solarize_threshold: int = 128

    def __post_init__(self) -> None:
        for field in ("flip_p", "jitter_p", "grey_p", "blur_p", "solarize_p"):
            _require(0 <= getattr(self, field) <= 1, field, getattr(self, field), "a probability from 0 to 1")
        for field, top in (("scale", 1.0), ("ratio", float("inf")), ("blur_sigma", float("inf"))):
            value = getattr(self, field)
            good = len(value) == 2 and 0 < value[0] <= value[1] <= top
            _require(good, field, value, f"two rising numbers above 0{' and at most 1' if top == 1 else ''}")
        good = len(self.jitter) == 4 and min(self.jitter) >= 0 and self.jitter[3] <= 0.5
        _require(good, "jitter", self.jitter, "four strengths from 0, the last (hue) at most 0.5")
        known = get_args(Interpolation)
        _require(self.interpolation in known, "interpolation", self.interpolation, " or ".join(known))
        _require(self.size >= 1, "size", self.size, "a number of pixels from 1")
        good = 0 <= self.solarize_threshold <= 255
        _require(good, "solarize_threshold", self.solarize_threshold, "a grey level from 0 to 255")


@dataclass(frozen=True)
class Recipe:
    """All views of one sample, the large (global) ones first, and the normalisation of all of them.

    Attributes:
        mean, std: per channel, for values from 0 to 1; evaluation uses the same.
        source: where the numbers were read.
    """

    name: str
    views: tuple[ViewSpec, ...]
    mean: Triple
    std: Triple
    source: str

    @property
    def global_views(self) -> tuple[ViewSpec, ...]:
        """The views of the largest size, which are the first ones; the others are local crops."""
        return tuple(view for view in self.views if view.size == self.views[0].size)


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
    name: str, source: str, *views: ViewSpec, mean: Triple = IMAGENET_MEAN, std: Triple = IMAGENET_STD
) -> Recipe:
    return Recipe(name, views, mean, std, source)


def _each(views: tuple[ViewSpec, ...], **changes: Any) -> tuple[ViewSpec, ...]:
    return tuple(dataclasses.replace(view, **changes) for view in views)


def _dino(globals_scale: Range, locals_scale: Range | None = None) -> tuple[ViewSpec, ...]:
    large = _each((_BLURRED, _SOLARIZED), scale=globals_scale, interpolation="bicubic")
    if locals_scale is None:
        return large
    local = dataclasses.replace(large[0], size=96, scale=locals_scale, blur_p=0.5)
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
        *_each((_SIMCLR, _SIMCLR), interpolation="bicubic"),
    ),
    _recipe(
        "byol",
        "arXiv 2006.07733, table 6; facebookresearch/barlowtwins and facebookresearch/vicreg",
        *_each((_BLURRED, _SOLARIZED), interpolation="bicubic"),
    ),
    _recipe(
        "moco-v3",
        "facebookresearch/moco-v3, main_moco.py, --crop-min 0.2 (ResNet-50)",
        *_each((_BLURRED, _SOLARIZED), scale=(0.2, 1.0)),
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
        *_each((_SMALL, _SMALL), blur_p=0.5, interpolation="bicubic"),
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
        *_each((_SMALL, _SMALL), jitter=_STRONG, blur_p=0.5, interpolation="bicubic"),
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    ),
    _recipe(
        "cifar-solo-vicreg",
        "vturrisi/solo-learn, cifar/vicreg.yaml",
        *_each((_SMALL, _SMALL), scale=(0.2, 1.0), jitter=_BYOL, solarize_p=0.1, interpolation="bicubic"),
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
        "facebookresearch/luckmatters, ssl/real-dataset/data/transforms.py, stl10 (not normalised)",
        *[dataclasses.replace(_SIMCLR, size=96)] * 2,
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

RECIPES = types.MappingProxyType({one.name: one for one in _ALL})
ALIASES = types.MappingProxyType(
    {"moco-v2": "simsiam", "unigrad": "simsiam", "barlow-twins": "byol", "vicreg": "byol"}
)
_VIEW_FIELDS = {field.name for field in dataclasses.fields(ViewSpec)} - {"size"}


def recipe(name: str, *, size: int | None = None, **overrides: Any) -> Recipe:
    """The recipe called `name`, or its alias, at another size or with single numbers changed.

    `size` is the new side of the global views; local crops shrink or grow in proportion. An override is a
    field of ViewSpec, set in every view (`scale` only in the global ones: local crops keep theirs), or
    `mean` or `std`; lists are taken for tuples and None leaves the field as it is.

    Raises:
        UserError: no such recipe or field (the nearest is named), or a value out of its range.
    """
    found = RECIPES[ALIASES.get(known := _known(name, {*RECIPES, *ALIASES}, "recipe of views"), known)]
    changes = {
        _known(key, _VIEW_FIELDS | {"mean", "std"}, "setting of views"): tuple(value)
        if isinstance(value, list)
        else value
        for key, value in overrides.items()
        if value is not None
    }
    mean, std = changes.pop("mean", found.mean), changes.pop("std", found.std)
    _require(len(mean) == 3, "mean", mean, "three numbers")
    _require(len(std) == 3 and min(std) > 0, "std", std, "three numbers above 0")
    largest = found.views[0].size
    size = largest if size is None else size
    _require(size >= SMALLEST_SIZE, "size", size, f"a number of pixels from {SMALLEST_SIZE}")
    views = _each(found.views, **{key: value for key, value in changes.items() if key != "scale"})
    views = tuple(
        dataclasses.replace(
            view,
            size=round(view.size * size / largest),
            scale=changes.get("scale", view.scale) if view.size == largest else view.scale,
        )
        for view in views
    )
    return Recipe(name, views, mean, std, found.source)


def _known(name: str, names: set[str], kind: str) -> str:
    if name in names:
        return name
    nearest = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.0)[0]
    raise UserError(
        f"there is no {kind} called '{name}'; did you mean '{nearest}'? Known are {', '.join(sorted(names))}"
    )
