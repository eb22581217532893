"""The gradients of methods in closed form, by the methods' options.

A method whose targets are embeddings has a form here. Those of SwAV and DINO are assignments to prototypes
and distributions over outputs, so they have none. A new method works without a form; with one, an entry of
FORMS, its gradient can be decomposed too.

Legend: N rows of this rank, d dimensions, u embeddings [N,d] of every view, x features [N,networks,D] of
every view, n(·) scales rows to unit length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.methods.barlow_twins import BarlowTwins, BarlowTwinsConfig
from siamtransfer.methods.base import Method, Options
from siamtransfer.methods.byol import BYOL, BYOLConfig
from siamtransfer.methods.directpred import DirectPred, DirectPredConfig
from siamtransfer.methods.moco import MoCo, MoCoConfig
from siamtransfer.methods.moco_v3 import MoCoV3, MoCoV3Config
from siamtransfer.methods.parts import unified_gradient as unified
from siamtransfer.methods.parts.precision import l2_normalize
from siamtransfer.methods.parts.unified_gradient import Gradient
from siamtransfer.methods.registry import METHODS
from siamtransfer.methods.simclr import SimCLR, SimCLRConfig
from siamtransfer.methods.simsiam import SimSiam, SimSiamConfig
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.unigrad import UniGrad, UniGradConfig
from siamtransfer.methods.vicreg import EPSILON, VICReg, VICRegConfig
from siamtransfer.utils.errors import UserError

M = TypeVar("M")
C = TypeVar("C")


class ClosedForm(NamedTuple):
    """N ∂L/∂u1 of one view in parts, and the target u2 [N,d] that the positive part pulls u1 to."""

    target: Tensor
    gradient: Gradient


def _projector(method: Any) -> nn.Module:
    return method.projector


@dataclass(frozen=True)
class GradientForm(Generic[M, C]):
    """How the gradient of a method is computed.

    Attributes:
        gradients: from the method, its embeddings u and the features x; of those views that have a gradient.
        embedding: the module whose outputs are the embeddings; None: the unit vectors that the loss makes.
        separable_balance: whether the balance can be separated from the negative part.
        check: raises UserError for options with which the method has another loss.
    """

    gradients: Callable[[M, list[Tensor], list[Tensor]], list[ClosedForm]]
    embedding: Callable[[M], nn.Module | None] = _projector
    separable_balance: bool = True
    check: Callable[[C], None] = lambda options: None


def require_form(options: Options, views: int) -> GradientForm[Any, Any]:
    """The form of the gradient of the method with these options, with `views` views of an image.

    Raises:
        UserError: the gradient has no positive and negative part, or not in closed form, or there are not two
            views.
    """
    form = FORMS.get(type(options))
    if form is None:
        raise UserError(
            f"the gradient of {_name_of(type(options))} has no such parts, or not in a closed form that is "
            f"known here: the gradient view is of {', '.join(map(_name_of, FORMS))}"
        )
    if views != 2:
        raise UserError(
            f"the gradient view is of two views of an image, and the recipe makes {views}: leave "
            "monitor.gradients_every out, or take a views.recipe with two views"
        )
    form.check(options)
    return form


def _name_of(config: type[Options]) -> str:
    try:
        return METHODS.name_of(config)
    except KeyError:  # a class that is not registered
        return config.__name__


def _check_simsiam(options: SimSiamConfig) -> None:
    default = type(options)()
    others = ("stop_gradient", "similarity", "distance", "target", "bottleneck", "clusters", "terms", "hub")
    for key in others:
        if getattr(options, key, None) != getattr(default, key, None):
            raise UserError(
                f"the gradient view knows SimSiam's own loss, and {options.section}.{key} makes it another: "
                "it can be had with the defaults there only"
            )
    if options.per_column is not None:
        raise UserError(
            f"the gradient view knows one network for both views, and {options.per_column} has others for "
            "the second column: leave one of the two out"
        )


def _check_vicreg(options: VICRegConfig) -> None:
    for key, part in (("invariance", "positive"), ("covariance", "negative")):
        if getattr(options, key) == 0:
            raise UserError(
                f"with vicreg.{key} 0 the gradient has no {part} part: there is nothing to balance"
            )


def _unit_vectors(method: Method) -> None:
    """The embeddings are unit vectors that the loss makes and no module."""


def _simclr(method: SimCLR, u: list[Tensor], x: list[Tensor]) -> list[ClosedForm]:
    both = torch.cat([collectives.all_gather(rows) for rows in u])
    all_rows = unified.nt_xent(both, method.config.temperature)  # 2M rows
    first = collectives.local_rows(len(u[0]), both.device)
    forms = []
    for target, own in ((u[1], first), (u[0], first + len(both) // 2)):
        # The loss is a mean over 2M rows, twice as many as in a view.
        scale = 1 / method.config.temperature
        forms.append(
            ClosedForm(target, Gradient(all_rows.positive[own], all_rows.negative[own], scale=scale))
        )
    return forms


def _moco(method: MoCo, u: list[Tensor], x: list[Tensor]) -> list[ClosedForm]:
    k = method.keys(x[1])
    return [ClosedForm(k, unified.with_queue(u[0], k, method.queue, method.config.temperature))]


def _moco_v3(method: MoCoV3, u: list[Tensor], x: list[Tensor]) -> list[ClosedForm]:
    forms = []
    for u1, u2 in zip(u, reversed(_targets(method, x)), strict=True):
        gradient = unified.contrastive(u1, u2, collectives.all_gather(u2), method.config.temperature)
        forms.append(ClosedForm(u2, gradient._replace(scale=2.0)))  # the loss has a factor 2τ
    return forms


def _byol(method: BYOL, u: list[Tensor], x: list[Tensor]) -> list[ClosedForm]:
    forms = []
    for u1, u2 in zip(u, reversed(_targets(method, x)), strict=True):
        gradient = unified.asymmetric_through(u1, u2, method.predictor)
        forms.append(ClosedForm(u2, gradient._replace(scale=2.0)))
    return forms


def _simsiam(method: SimSiam, u: list[Tensor], x: list[Tensor]) -> list[ClosedForm]:
    directions = [(0, 1), (1, 0)] if method.config.symmetric else [(0, 1)]
    forms = []
    for view, target_view in directions:
        target = l2_normalize(u[target_view])
        gradient = unified.asymmetric_through(u[view], target, method.predictor)
        forms.append(ClosedForm(target, gradient._replace(scale=1 / len(directions))))
    return forms


def _directpred(method: DirectPred, u: list[Tensor], x: list[Tensor]) -> list[ClosedForm]:
    """The cosine does not depend on lengths: the parts are those at n(z), and the length is in the scale."""
    forms = []
    for u1, u2 in zip(u, reversed(_targets(method, x)), strict=True):
        gradient = unified.asymmetric(l2_normalize(u1), u2, method.predictor.weight)
        scale = 2 * gradient.scale / u1.norm(dim=1, keepdim=True)
        forms.append(ClosedForm(u2, gradient._replace(scale=scale)))
    return forms if method.config.symmetric else forms[:1]


def _barlow_twins(method: BarlowTwins, u: list[Tensor], x: list[Tensor]) -> list[ClosedForm]:
    banks, config = [collectives.all_gather(rows) for rows in u], method.config
    forms = []
    for view, target_view in ((0, 1), (1, 0)):
        gradient = unified.barlow_twins(
            u[view], u[target_view], config.redundancy, banks[view], banks[target_view]
        )
        forms.append(ClosedForm(u[target_view], gradient._replace(scale=gradient.scale * config.scale)))
    return forms


def _vicreg(method: VICReg, u: list[Tensor], x: list[Tensor]) -> list[ClosedForm]:
    """The published loss has means over dimensions; it is invariance/d times the loss of `unified.vicreg`."""
    weights, d = method.config, u[0].shape[1]
    covariance = d * weights.covariance / weights.invariance
    variance = d * weights.variance / (2 * weights.invariance)
    forms = []
    for u1, u2 in ((u[0], u[1]), (u[1], u[0])):
        gradient = unified.vicreg(u1, u2, collectives.all_gather(u1), covariance, variance, epsilon=EPSILON)
        forms.append(ClosedForm(u2, gradient._replace(scale=gradient.scale * weights.invariance / d)))
    return forms


def _unigrad(method: UniGrad, u: list[Tensor], x: list[Tensor]) -> list[ClosedForm]:
    pair = u[0], u[1]
    targets, negatives = method.references(x, pair)
    gradients = method.decompose(pair, targets, negatives)
    return [
        ClosedForm(target, gradient._replace(scale=gradient.scale / 2))
        for target, gradient in zip(reversed(targets), gradients, strict=True)
    ]


@torch.no_grad()
def _targets(method: MoCoV3 | BYOL | DirectPred, x: list[Tensor]) -> list[Tensor]:
    """The target network's unit vectors of every view."""
    return [l2_normalize(method.target_projector(method.target_backbone(h))) for h in x]


FORMS: dict[type[Options], GradientForm[Any, Any]] = {
    SimSiamConfig: GradientForm(_simsiam, separable_balance=False, check=_check_simsiam),
    SimCLRConfig: GradientForm(_simclr, _unit_vectors),
    MoCoConfig: GradientForm(_moco, _unit_vectors),
    MoCoV3Config: GradientForm(_moco_v3, _unit_vectors),
    BYOLConfig: GradientForm(_byol, separable_balance=False),
    BarlowTwinsConfig: GradientForm(_barlow_twins, lambda method: method.norm),
    VICRegConfig: GradientForm(_vicreg, check=_check_vicreg),
    DirectPredConfig: GradientForm(_directpred),
    UniGradConfig: GradientForm(
        _unigrad, lambda method: None if method.config.normalise == "l2" else method.projector
    ),
    SimSiamVariantsConfig: GradientForm(_simsiam, separable_balance=False, check=_check_simsiam),
}
"""By the type of a method's options."""
