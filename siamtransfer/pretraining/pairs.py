"""Pretraining on pairs: what goes together, the recipe of each column, and the set of views."""

from __future__ import annotations

import dataclasses
from typing import Any

from siamtransfer.adaptation.config import AdaptConfig
from siamtransfer.config import PretrainConfig
from siamtransfer.data import ImageSet
from siamtransfer.data.pairs import PairImages
from siamtransfer.data.readers import ReplacingReader, ReplacingRowReader
from siamtransfer.distributed import collectives
from siamtransfer.pretraining.normalisation import measure_normalisation, saved_normalisation
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.views.channels import recipe_for
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.dataset import ViewSet
from siamtransfer.views.pairs import ColumnRecipe, PairViewSet
from siamtransfer.views.view_spec import RGB, Recipe


def check_pairs(config: PretrainConfig, images: ImageSet) -> None:
    """Says what pairs there are.

    Raises:
        UserError: `data.pair_order` or an option of the method is for pairs and there are none, a column has
            no view, or networks of their own for each column do not go together with the run.
    """
    order, option = config.data.pair_order, config.options.per_column
    if not isinstance(images, PairImages):
        if order is not None:
            raise UserError(
                f"data.pair_order {order} is for pairs, and {config.data.name} has one image for all views: "
                "leave it out"
            )
        if option is not None:
            raise UserError(
                f"{option} is for pairs, whose views are of different columns, and {config.data.name} has "
                "one image for all views: name pairs in data.name, or leave it out"
            )
        return
    views = len(config.views.build().views)
    if len(images.columns) > views and order != "random":
        raise UserError(
            f"{images.name} has {len(images.columns)} columns of images ({', '.join(images.column_names)}) "
            f"and views.recipe {config.views.recipe} makes {views} views: choose columns by data.columns, or "
            "take data.pair_order random"
        )
    _check_channels(config, images)
    if option is not None:
        _check_per_column(config, images, option)
    if collectives.rank() == 0:
        drawn = "in an order drawn for each pair" if order == "random" else "in turn"
        say(f"pairs: {len(images):,} of {', '.join(images.column_names)}; views are cut from them {drawn}")
        for remark in dict.fromkeys([*images.set_remarks, *_form_remarks(images)]):
            say(f"remark: {remark}")


def _form_remarks(images: PairImages) -> list[str]:
    return [remark for column in images.columns if (remark := getattr(column, "remark", None))]


def _check_channels(config: PretrainConfig, images: PairImages) -> None:
    """Refuses columns of different channels for one network."""
    channels = images.column_channels
    if len(set(channels)) == 1 or config.options.trunks == 2:
        return
    numbers = ", ".join(f"{name} {count}" for name, count in zip(images.column_names, channels, strict=True))
    raise UserError(
        f"the columns of {images.name} have different channels ({numbers}), and one network takes images of "
        "one number: leave data.column_channels out, which reads grey images as three channels, or take "
        "method simsiam-variants with --simsiam_variants.columns.trunks 2"
    )


def _check_per_column(config: PretrainConfig, images: PairImages, option: str) -> None:
    """Refuses what networks of their own for each column do not go together with."""
    different = len(set(images.column_channels)) > 1
    reasons = (
        (
            len(images.columns) != 2,
            f"it is for two columns, and there are {len(images.columns)}: choose two by data.columns",
        ),
        (
            config.data.pair_order == "random",
            "each column has its own views: leave data.pair_order random out",
        ),
        (
            different and config.data.rgb is not None,
            "data.rgb counts the channels of all columns alike, and they differ: leave it out",
        ),
        (
            different and config.backbone.weights is not None,
            "backbone.weights are for one number of channels, and the columns have two: leave them out",
        ),
        (
            config.adapt != AdaptConfig(),
            "adapt. is for one backbone: leave it out",
        ),
        (config.hardware.shard != "none", "backbones that share weights are not sharded: take none"),
    )
    for holds, reason in reasons:
        if holds:
            raise UserError(f"{option}: {reason}")


def recipe_of_columns(
    views: ViewsConfig, images: ImageSet, recipe: Recipe, saved: dict[str, Any] | None
) -> Recipe:
    """`recipe`, which is that of the first column, or with one for each where their channels differ. Mean and
    std of the second are those of the recipe for images of three channels, of the checkpoint `saved`, or
    measured."""
    if not isinstance(images, PairImages) or len(set(images.column_channels)) == 1:
        return recipe
    column, channels = images.columns[1], images.column_channels[1]
    normalisation = None
    if channels != len(RGB):
        own = None if saved is None else saved.get("second")
        normalisation = saved_normalisation(own, channels) or measure_normalisation(column)
    plain = dataclasses.replace(views, mean=None, std=None)
    if channels != len(RGB):
        plain = _without_colour_settings(plain)
    return ColumnRecipe.of([recipe, recipe_for(plain, channels, None, normalisation)])


def _without_colour_settings(views: ViewsConfig) -> ViewsConfig:
    """The settings but for those of colours, which a column without colours does not take."""

    def plain(settings: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in settings.items() if key not in ("grey_p", "solarize_p")}
        if kept.get("jitter") is not None:
            kept["jitter"] = [*kept["jitter"][:2], 0.0, 0.0]
        return kept

    own = plain({field.name: getattr(views, field.name) for field in dataclasses.fields(views)})
    own["per_view"] = {view: plain(settings) for view, settings in views.per_view.items()}
    return ViewsConfig(**own)


def view_set(images: ImageSet, recipe: Recipe, config: PretrainConfig) -> ViewSet:
    """What workers run: the views of each image, or of each pair."""
    seed, length = config.run.seed, len(images)
    if not isinstance(images, PairImages):
        return ViewSet(ReplacingReader(images), recipe, seed, length)
    return PairViewSet(
        ReplacingRowReader(images),
        recipe,
        seed,
        length,
        columns=len(images.columns),
        random=config.data.pair_order == "random",
    )
