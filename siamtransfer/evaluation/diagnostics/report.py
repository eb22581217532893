"""The messages of the diagnostics: a table, and what the numbers do not cover."""

from __future__ import annotations

from collections.abc import Sequence

from siamtransfer.evaluation.diagnostics.model_features import ModelFeatures
from siamtransfer.evaluation.diagnostics.representation import GUIDE
from siamtransfer.utils.log import say


def say_limits(models: Sequence[ModelFeatures]) -> None:
    """Says what is left out, and which numbers cannot be compared."""
    for model in models:
        name, representation = next(iter(model.representations.items()))
        if "projection" not in model.representations:
            say(f"{model.name}: there are no projections, so every number is of {name}")
        if not representation.has_classes:
            say(f"{model.name}: no tolerance and clusters, which need one label an image and two classes")
        if representation.views is None:
            say(f"{model.name}: no alignment and LiDAR, for there are no views of images")
        for name, representation in model.representations.items():
            views = representation.views
            if views is not None and len(views) * (views.shape[1] - 1) < views.shape[2]:
                say(
                    f"{model.name}: {len(views)} images with {views.shape[1]} views are few for "
                    f"LiDAR of width {views.shape[2]} ({name}), which then depends on its delta: take more"
                )
    if len({model.protocol["recipe"] for model in models} - {None}) > 1:
        say("views are made by different recipes: name one with --recipe to compare alignment and LiDAR")


def say_table(
    models: Sequence[ModelFeatures], numbers: Sequence[dict[str, float]], pairs: dict[str, float]
) -> None:
    """A column for each checkpoint and representation, a row for each diagnostic."""
    for n, model in enumerate(models, 1):
        say(f"[{n}] {model.name}")
    columns = [(n, name) for n, model in enumerate(models) for name in model.representations]
    say(f"{'':26}" + "".join(f"{f'[{n + 1}] {name}':>16}" for n, name in columns))
    for diagnostic, guide in GUIDE.items():
        values = [numbers[n].get(f"{diagnostic}/{name}") for n, name in columns]
        if any(value is not None for value in values):
            cells = "".join(f"{'-' if value is None else f'{value:.4g}':>16}" for value in values)
            say(f"{diagnostic:26}{cells}   {guide}")
    for name, value in pairs.items():
        say(f"{name:42}{value:.4f}")
