"""A recipe for images of other than three channels, or without colours.

The published recipes are of RGB images. Of other images it has to be said which channels are red, green and
blue (`data.rgb`): the operations on colours change these alone, and are left out where there are none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from siamtransfer.utils.errors import UserError
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.view_spec import RGB, Numbers, Recipe, ViewSpec

COLOUR_OPERATIONS = "saturation, hue, grey and solarize"


def colours_of(channels: int, rgb: Sequence[int] | None) -> tuple[int, ...]:
    """The channels that are red, green and blue, as `data.rgb` says; where it says nothing, all of three
    channels and none of another number.

    Raises:
        UserError: it names no three channels of these.
    """
    if rgb is None:
        return RGB if channels == len(RGB) else ()
    named = tuple(rgb)
    if named and (len(named) != 3 or len(set(named)) != 3 or not all(0 <= c < channels for c in named)):
        raise UserError(
            f"data.rgb is {list(rgb)}, but must be three different channels of the {channels}, counted from "
            "0: those of red, green and blue; or [] where there are none"
        )
    return named


def recipe_for(
    views: ViewsConfig,
    channels: int,
    rgb: Sequence[int] | None,
    normalisation: tuple[Numbers, Numbers] | None,
) -> Recipe:
    """The recipe of a configuration for images of so many channels.

    Args:
        rgb: `data.rgb`.
        normalisation: mean and std, where the configuration states none; None: those of the recipe.

    Raises:
        UserError: the configuration asks for an operation on colours and there are none, or a number for
            each channel is missing.
    """
    recipe, colours = views.build(), colours_of(channels, rgb)
    mean, std = recipe.mean, recipe.std
    if views.mean is None and views.std is None and normalisation is not None:
        mean, std = normalisation
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UserError(
                f"views.{name} has {len(values)} numbers, and the images have {channels} channels: give "
                "views.mean and views.std a number for each, or leave both out"
            )
    recipe = dataclasses.replace(recipe, mean=mean, std=std, rgb=colours)
    if colours:
        return recipe
    _refuse_colour_settings(views)
    return dataclasses.replace(recipe, views=tuple(map(_without_colours, recipe.views)))


def channel_remark(views: ViewsConfig, recipe: Recipe) -> str | None:
    """What differs from the published recipe for these channels, in one sentence; None for RGB images."""
    if (recipe.channels, recipe.rgb) == (len(RGB), RGB):
        return None
    if recipe.rgb:
        colours = ", ".join(map(str, recipe.rgb))
        return (
            f"recipe {recipe.name}: {COLOUR_OPERATIONS} change the channels {colours} (data.rgb), all other "
            f"operations change all {recipe.channels}; contrast takes the luminance of the colours, and of "
            "every other channel its own mean"
        )
    left_out = "" if recipe.views == views.build().views else f"{COLOUR_OPERATIONS} are left out, and "
    changed = "the one channel" if recipe.channels == 1 else "all channels"
    return (
        f"recipe {recipe.name}: no channel is red, green or blue (data.rgb), so {left_out}brightness, "
        f"contrast, blur, flip and crop change {changed}"
    )


def _without_colours(view: ViewSpec) -> ViewSpec:
    brightness, contrast, _, _ = view.jitter
    return dataclasses.replace(view, jitter=(brightness, contrast, 0.0, 0.0), grey_p=0.0, solarize_p=0.0)


def _refuse_colour_settings(views: ViewsConfig) -> None:
    """Raises UserError where a setting asks for an operation on colours."""
    own = {"views": {key: getattr(views, key) for key in ("jitter", "grey_p", "solarize_p")}}
    own |= {f"views.per_view.{view}": changes for view, changes in views.per_view.items()}
    for place, settings in own.items():
        jitter = settings.get("jitter")
        asked = [key for key in ("grey_p", "solarize_p") if settings.get(key)]
        asked += ["jitter"] if jitter is not None and any(jitter[2:]) else []
        if asked:
            raise UserError(
                f"{place}.{asked[0]} asks for an operation on colours, and no channel is red, green or blue: "
                "say which are in data.rgb, or leave it out (of jitter, make saturation and hue 0)"
            )
