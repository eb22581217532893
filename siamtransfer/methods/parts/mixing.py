"""Mixed views: what a method is given, and losses of them as the mixture, by area, of those of two images.

With `views.mix` a method gets the V views of every image, V mixed views and the shares [N,V] after them. A
mixed view of image a holds λ of a and 1 - λ of b, the partner of a in the batch. It takes the place of the
view that predicts; the targets are those of views of one image, and

    L(mixed view) = λ L(against the target of a) + (1 - λ) L(against the target of b)

which for losses that are linear in the target is the loss against the mixture of both targets. With λ = 1 it
is the plain loss.

Legend: N rows, V views, d dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from siamtransfer.utils.partners import partners


class TrainingViews(NamedTuple):
    """The views of a step by their roles.

    Attributes:
        online: V views [N,3,S,S] that predict: the mixed ones, or the plain ones where nothing is mixed.
        plain: V views [N,3,S,S] of one image each, of which targets are computed.
        shares: for each view, λ [N]; None where nothing is mixed.
    """

    online: list[Tensor]
    plain: list[Tensor]
    shares: list[Tensor | None]

    @property
    def mixed(self) -> bool:
        """Whether `online` are other tensors than `plain`."""
        return self.online is not self.plain


def by_role(views: Sequence[Tensor]) -> TrainingViews:
    """The list that a method's `forward` takes: V views, or V views, V mixed views and the shares [N,V]."""
    if views[-1].dim() != 2:
        plain = list(views)
        return TrainingViews(plain, plain, [None] * len(plain))
    *images, shares = views
    count = shares.shape[1]
    return TrainingViews(images[count:], images[:count], list(shares.unbind(1)))


def mixed_targets(targets: Tensor, share: Tensor | None) -> Tensor:
    """λ t + (1 - λ) t of the partner for each row of [N,...]; `targets` themselves where nothing is mixed."""
    return over_shares(lambda t: t, targets, share)


def over_shares(loss: Callable[[Tensor], Tensor], targets: Tensor, share: Tensor | None) -> Tensor:
    """The `loss` of each row, λ of it against the row's own target and 1 - λ against that of its partner.

    `loss` takes targets [N,...] to [N,...] row by row. Where nothing is mixed the result is `loss(targets)`,
    of any shape.
    """
    own = loss(targets)
    if share is None:
        return own
    weight = share.to(own.dtype).view(-1, *[1] * (own.dim() - 1))
    other = loss(swapped(targets))
    return weight * own + (1 - weight) * other


def swapped(rows: Tensor) -> Tensor:
    """The row of its partner for each row of [N,...]."""
    return rows[partners(len(rows), rows.device)]


def held(rows: Tensor, share: Tensor | None) -> Tensor:
    """Of int64[N], the rows of plain views, those that each anchor holds: its own [N], and where it is mixed
    its own and its partner's [N,2]; with a share of 1 its own twice, with a share of 0 its partner's."""
    if share is None:
        return rows
    other = swapped(rows)
    return torch.stack([torch.where(share > 0, rows, other), torch.where(share < 1, other, rows)], dim=1)
