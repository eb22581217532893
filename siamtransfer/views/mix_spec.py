"""How views of two images are mixed, and what a configuration says of it; numbers only, as in `view_spec`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from siamtransfer.utils.errors import UserError

MixKind = Literal["cutmix", "mixup"]


@dataclass(frozen=True)
class Mix:
    """Every view gets, with probability `p`, a part of the same view of another image.

    Attributes:
        kind: cutmix pastes a box (Yun et al., arXiv 1905.04899), mixup blends all pixels (Zhang et al., arXiv
            1710.09412).
        alpha: λ, the share of the image itself, is drawn from Beta(α, α): 1 is uniform, below 1 favours
            views that are nearly of one image.
        p: probability that a view is mixed.

    Raises:
        UserError: a value is out of its range; the sentence names `views.mix`, `views.mix_alpha` or
            `views.mix_p`.
    """

    kind: MixKind
    alpha: float = 1.0
    p: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(MixKind):
            raise UserError(f"views.mix is {self.kind}, but must be {' or '.join(get_args(MixKind))}")
        if not (_is_number(self.alpha) and self.alpha > 0):
            raise UserError(f"views.mix_alpha is {self.alpha}, but must be a number above 0")
        if not (_is_number(self.p) and 0 < self.p <= 1):
            raise UserError(
                f"views.mix_p is {self.p}, but must be a probability above 0 and at most 1; views.mix null "
                "mixes no view"
            )

    def describe(self) -> str:
        """For example `mix cutmix, alpha 1, p 0.5`."""
        return f"mix {self.kind}, alpha {self.alpha:.4g}, p {self.p:.4g}"


def mix_of(kind: MixKind | None, alpha: float | None, p: float | None) -> Mix | None:
    """The mixing of the settings views.mix, views.mix_alpha and views.mix_p; None where nothing is mixed.

    Raises:
        UserError: a value is out of its range, or would change nothing.
    """
    if kind is not None:
        return Mix(kind, **{key: value for key, value in (("alpha", alpha), ("p", p)) if value is not None})
    for key, value in (("mix_alpha", alpha), ("mix_p", p)):
        if value is not None:
            raise UserError(
                f"views.{key} changes nothing without views.mix: leave it out, or set views.mix to "
                f"{' or '.join(get_args(MixKind))}"
            )
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
