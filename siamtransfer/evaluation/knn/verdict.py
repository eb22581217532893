"""Whether kNN by features beats kNN by raw pixels: the least that a network has to do."""

from __future__ import annotations

import math


def interval_of_difference(first: float, second: float, queries: int) -> float:
    """Half the width in percentage points of the 95 % interval of the difference of two accuracies in percent
    of so many queries, as if they were of different queries: wider than that of paired ones."""
    variance = sum(share * (1 - share) for share in (first / 100, second / 100))
    return 100 * 1.96 * math.sqrt(variance / queries)


def remark_on_pixels(top1: float, pixels: float, *, margin: float, queries: int, what: str) -> str | None:
    """A warning where `top1` of `what` is not above that of `pixels`, both in percent, by more than `margin`
    percentage points; else None."""
    if top1 - pixels > margin:
        return None
    return (
        f"{what} does not beat raw pixels: kNN is right for {top1:.2f} % of {queries} images by its features "
        f"and for {pixels:.2f} % by raw pixels, where {margin:.1f} points may be chance. More epochs, more "
        "images or other views (views.recipe, views.scale) may help; weights from elsewhere "
        "(backbone.weights) mostly do"
    )
