"""The gradient view: what a method's own loss asks of an embedding, in the parts that all families have in
common (Tao et al., arXiv 2112.05141; methods/unified.py): a pull to the target, a push off other images, and
the balance of the two.

The closed form is set against autograd before any number is told. For that the backbone computes in the
run's arithmetic and, on its features, copies of the heads and the loss in float64; the method itself is left
as it was, so a run that is watched is the run that is not. The embedding is the unit vector that the loss is
a function of (SimCLR, MoCo, MoCo v3, UniGrad), the standardised projection (Barlow Twins), or the projection
(BYOL, SimSiam, DirectPred, VICReg).

Legend: N rows of this rank, M of all ranks, d dimensions, n(·) scales rows to unit length.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.diagnostics import measures
from siamtransfer.methods import METHODS
from siamtransfer.methods.barlow_twins import BarlowTwins, BarlowTwinsConfig
from siamtransfer.methods.base import Method, Options
from siamtransfer.methods.byol import BYOL, BYOLConfig
from siamtransfer.methods.directpred import DirectPred, DirectPredConfig
from siamtransfer.methods.moco import MoCo, MoCoConfig
from siamtransfer.methods.moco_v3 import MoCoV3, MoCoV3Config
from siamtransfer.methods.parts import unified_gradient as unified
from siamtransfer.methods.parts.precision import l2_normalize
from siamtransfer.methods.parts.unified_gradient import Gradient
from siamtransfer.methods.simclr import SimCLR, SimCLRConfig
from siamtransfer.methods.simsiam import SimSiam, SimSiamConfig
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.unigrad import UniGrad, UniGradConfig
from siamtransfer.methods.vicreg import EPSILON, VICReg, VICRegConfig
from siamtransfer.utils.errors import UserError

TOLERANCE = 1e-8  # of the disagreement between closed form and autograd
SMALLEST = 1e-4  # of the pull's length: a gradient shorter than that counts as so long, for parts that cancel
PREFIX = "gradient/"

GUIDE = {
    "ratio": "length of the negative part over that of the positive one",
    "balance": "weight of the negative part; - where it cannot be told from the part",
    "radial": "along the embedding; normalising removes it",
    "parts_cosine": "of positive and negative part; -1 they cancel",
    "view_cosine": "of embedding and target; 1 views agree",
    "others_cosine": "mean size, of embedding and other images' targets",
    "effective_rank": "of F, higher, at most d",
    "off_diagonal": "0 decorrelated, 1 redundant",
    "disagreement": f"closed form and autograd; below {TOLERANCE:g}",
}
"""The indicators in the order of a table, and how to read them."""


@dataclass(eq=False)
class View:
    """The gradient with respect to one view's embedding.

    Attributes:
        embedding: u1 [N,d].
        target: u2 [N,d] of the same images.
        gradient: N ∂L/∂u1 in parts.
        autograd: the same by autograd of the method's own loss [N,d].
        weighed: whether balance and parts can be told apart.
    """

    embedding: Tensor
    target: Tensor
    gradient: Gradient
    autograd: Tensor
    weighed: bool

    def disagreement(self) -> float:
        """|ours - autograd's| / |autograd's| over the rows of all ranks; NaN where all is zero."""
        difference = self.gradient.total - self.autograd
        pull = self.gradient.scale * self.gradient.positive
        off, whole, part = (collectives.all_gather(x).norm() for x in (difference, self.autograd, pull))
        return float(off / torch.maximum(whole, SMALLEST * part))


def decompose(method: Method, views: Sequence[Tensor], runtime: Runtime) -> list[View]:
    """The gradient of `method` on two views [N,3,S,S] in closed form and by autograd, float64, for every view
    whose embedding takes one. In train mode batch norms use the batch's statistics, as the loss does.

    Raises:
        UserError: the method's gradient has no such form, see `require_form`.
    """
    family = require_form(method.config, len(views))  # type: ignore[arg-type]
    x, twin = _features(method, views, runtime), _heads_in_double(method)
    with _buffers_kept(twin), _cut_at(family.embedding(twin)) as leaves:
        found = torch.autograd.grad(twin(x).loss, leaves, allow_unused=True)
    u = [leaf.detach() for leaf in leaves]
    pulls = family.pulls(twin, u, x)
    return [
        View(embedding, pull.target, pull.gradient, len(embedding) * gradient, family.weighed)
        for embedding, pull, gradient in zip(u, pulls, found, strict=False)
    ]


def indicators(views: Sequence[View]) -> dict[str, float]:
    """The numbers of GUIDE under `gradient/…`, means over the views and the rows of all ranks.

    Raises:
        UserError: closed form and autograd disagree, so that nothing can be said.
    """
    disagreement = float(torch.tensor([view.disagreement() for view in views]).max())  # NaN if any is
    if not disagreement < TOLERANCE:
        raise UserError(
            f"the gradient in closed form is {disagreement:.2g} of its length away from autograd's, and "
            f"{TOLERANCE:g} is the most: its parts are not reported (embeddings of length zero do that)"
        )
    each = [_measure(view) for view in views]
    found = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
    return {PREFIX + name: value for name, value in (found | {"disagreement": disagreement}).items()}


def average(several: Sequence[dict[str, float]]) -> dict[str, float]:
    """The indicators of several batches as one: their means, and the largest disagreement."""
    found = {name: sum(one[name] for one in several) / len(several) for name in several[0]}
    worst = PREFIX + "disagreement"
    return found | {worst: max(one[worst] for one in several)}


def _measure(view: View) -> dict[str, float]:
    parts = view.gradient
    weighted = parts.scale * parts.positive, parts.scale * parts.balance * parts.negative
    u1, u2, positive, negative = map(
        collectives.all_gather, (l2_normalize(view.embedding), l2_normalize(view.target), *weighted)
    )
    balance = torch.as_tensor(parts.balance, dtype=u1.dtype, device=u1.device).expand(len(view.embedding), 1)
    cosines = (u1 @ u2.T).abs().fill_diagonal_(0)
    return {
        "ratio": float(negative.norm(dim=1).mean() / positive.norm(dim=1).mean()),
        "balance": float(collectives.all_gather(balance).mean()) if view.weighed else math.nan,
        "radial": float(((positive + negative) * u1).sum(dim=1).mean()),
        "parts_cosine": float(F.cosine_similarity(positive, negative).mean()),
        "view_cosine": float((u1 * u2).sum(dim=1).mean()),
        "others_cosine": float(cosines.sum() / (len(u1) * (len(u1) - 1))),
        "effective_rank": measures.covariance_effective_rank(measures.singular_values(u1).square()),
        "off_diagonal": measures.off_diagonal_correlation(u1),
    }


# Which methods have such a form.


class Pull(NamedTuple):
    """What a view's embedding is pulled to, u2 [N,d], and N ∂L/∂u1 in parts."""

    target: Tensor
    gradient: Gradient


class Family(NamedTuple):
    """How the gradient of one method is found.

    Attributes:
        pulls: of the method, its embeddings and the features, the pulls of those views that have a gradient.
        embedding: the module whose outputs are the embeddings; None: the unit vectors that the loss makes.
        weighed: whether balance and parts can be told apart.
        refuse: raises UserError for options with which the loss is another.
    """

    pulls: Callable[[Any, list[Tensor], list[Tensor]], list[Pull]]
    embedding: Callable[[Any], nn.Module | None] = lambda method: method.projector
    weighed: bool = True
    refuse: Callable[[Any], None] = lambda options: None


def require_form(options: Options, views: int) -> Family:
    """How the gradient of the method with these options, of so many views of an image, is found.

    Raises:
        UserError: it has no positive and negative part, or not in closed form, or there are not two views.
    """
    if type(options) not in FAMILIES:
        names = {cls.Config: name for name, cls in METHODS.items()}
        raise UserError(
            f"the gradient of {names[type(options)]} has no such parts, for its targets are assignments to "
            "prototypes or outputs and not embeddings: the gradient view is of "
            f"{', '.join(name for kind, name in names.items() if kind in FAMILIES)}"
        )
    if views != 2:
        raise UserError(f"the gradient view is of two views of an image, and the recipe makes {views}")
    family = FAMILIES[type(options)]
    family.refuse(options)
    return family


def _refuse_further_terms(options: SimSiamConfig) -> None:
    plain = type(options)()
    for key in ("stop_gradient", "similarity", "distance", "target", "clusters", "terms"):
        if getattr(options, key, None) != getattr(plain, key, None):
            raise UserError(
                f"the gradient view knows SimSiam's own loss, and {options.section}.{key} makes it another: it can be "
                "had with the defaults there only"
            )


def _refuse_missing_terms(options: VICRegConfig) -> None:
    for key, part in (("invariance", "positive"), ("covariance", "negative")):
        if getattr(options, key) == 0:
            raise UserError(
                f"with vicreg.{key} 0 the gradient has no {part} part: there is nothing to balance"
            )


def _no_module(method: Method) -> None:
    """The loss takes unit vectors, which no module makes."""


def _simclr(method: SimCLR, u: list[Tensor], x: list[Tensor]) -> list[Pull]:
    both = torch.cat([collectives.all_gather(each) for each in u])
    whole = unified.nt_xent(both, method.config.temperature)  # of 2M rows, twice a view's
    first = collectives.local_rows(len(u[0]), both.device)
    pulls = []
    for target, own in ((u[1], first), (u[0], first + len(both) // 2)):
        gradient = Gradient(whole.positive[own], whole.negative[own], scale=1 / method.config.temperature)
        pulls.append(Pull(target, gradient))
    return pulls


def _moco(method: MoCo, u: list[Tensor], x: list[Tensor]) -> list[Pull]:
    k = method.keys(x[1])
    return [Pull(k, unified.with_queue(u[0], k, method.queue, method.config.temperature))]


def _moco_v3(method: MoCoV3, u: list[Tensor], x: list[Tensor]) -> list[Pull]:
    temperature, pulls = method.config.temperature, []
    for u1, u2 in zip(u, reversed(_targets(method, x)), strict=True):
        gradient = unified.contrastive(u1, u2, collectives.all_gather(u2), temperature)
        pulls.append(Pull(u2, gradient._replace(scale=2.0)))  # 2τ times the contrastive loss
    return pulls


def _byol(method: BYOL, u: list[Tensor], x: list[Tensor]) -> list[Pull]:
    pulls = []
    for u1, u2 in zip(u, reversed(_targets(method, x)), strict=True):
        gradient = unified.asymmetric_through(u1, u2, method.predictor)
        pulls.append(Pull(u2, gradient._replace(scale=2.0)))
    return pulls


def _simsiam(method: SimSiam, u: list[Tensor], x: list[Tensor]) -> list[Pull]:
    directions = [(0, 1), (1, 0)] if method.config.symmetric else [(0, 1)]
    pulls = []
    for view, other in directions:
        target = l2_normalize(u[other])
        gradient = unified.asymmetric_through(u[view], target, method.predictor)
        pulls.append(Pull(target, gradient._replace(scale=1 / len(directions))))
    return pulls


def _directpred(method: DirectPred, u: list[Tensor], x: list[Tensor]) -> list[Pull]:
    """The cosine does not see lengths, so the parts are those at n(z), and the length is in the scale."""
    pulls = []
    for u1, u2 in zip(u, reversed(_targets(method, x)), strict=True):
        gradient = unified.asymmetric(l2_normalize(u1), u2, method.predictor.weight)
        pulls.append(Pull(u2, gradient._replace(scale=2 * gradient.scale / u1.norm(dim=1, keepdim=True))))
    return pulls if method.config.symmetric else pulls[:1]


def _barlow_twins(method: BarlowTwins, u: list[Tensor], x: list[Tensor]) -> list[Pull]:
    banks, settings = [collectives.all_gather(each) for each in u], method.config
    pulls = []
    for one, other in ((0, 1), (1, 0)):
        gradient = unified.barlow_twins(u[one], u[other], settings.redundancy, banks[one], banks[other])
        pulls.append(Pull(u[other], gradient._replace(scale=gradient.scale * settings.scale)))
    return pulls


def _vicreg(method: VICReg, u: list[Tensor], x: list[Tensor]) -> list[Pull]:
    """The code's loss, of means over dimensions, is invariance/d times the form's."""
    weights, d = method.config, u[0].shape[1]
    covariance = d * weights.covariance / weights.invariance
    variance = d * weights.variance / (2 * weights.invariance)
    pulls = []
    for u1, u2 in ((u[0], u[1]), (u[1], u[0])):
        gradient = unified.vicreg(u1, u2, collectives.all_gather(u1), covariance, variance, epsilon=EPSILON)
        pulls.append(Pull(u2, gradient._replace(scale=gradient.scale * weights.invariance / d)))
    return pulls


def _unigrad(method: UniGrad, u: list[Tensor], x: list[Tensor]) -> list[Pull]:
    pair = u[0], u[1]
    targets, negatives = method.references(x, pair)
    parts = method.decompose(pair, targets, negatives)
    return [
        Pull(target, gradient._replace(scale=gradient.scale / 2))
        for target, gradient in zip(reversed(targets), parts, strict=True)
    ]


@torch.no_grad()
def _targets(method: Any, x: list[Tensor]) -> list[Tensor]:
    """The target network's unit vectors of every view."""
    return [l2_normalize(method.target_projector(method.target_backbone(each))) for each in x]


FAMILIES: dict[type[Options], Family] = {
    SimSiamConfig: Family(_simsiam, weighed=False, refuse=_refuse_further_terms),
    SimSiamVariantsConfig: Family(_simsiam, weighed=False, refuse=_refuse_further_terms),
    SimCLRConfig: Family(_simclr, _no_module),
    MoCoConfig: Family(_moco, _no_module),
    MoCoV3Config: Family(_moco_v3, _no_module),
    BYOLConfig: Family(_byol, weighed=False),
    BarlowTwinsConfig: Family(_barlow_twins, lambda method: method.norm),
    VICRegConfig: Family(_vicreg, refuse=_refuse_missing_terms),
    DirectPredConfig: Family(_directpred),
    UniGradConfig: Family(
        _unigrad, lambda method: None if method.config.normalise == "l2" else method.projector
    ),
}
"""By the type of a method's options."""


# The method's own loss on given features.


class _Taken(nn.Module):
    """Stands in for network `number` of those whose features [N,networks,D] are the views."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.number]


def _networks(method: Method) -> list[nn.Module]:
    target = getattr(method, "target_backbone", None)
    return [method.backbone] if target is None else [method.backbone, target]


def _features(method: Method, views: Sequence[Tensor], runtime: Runtime) -> list[Tensor]:
    """float64[N,networks,D] of every view, by the backbone and the target's, whose buffers stay."""
    networks = _networks(method)
    with contextlib.ExitStack() as kept, torch.no_grad(), runtime.autocast():
        for network in networks:
            kept.enter_context(_buffers_kept(network))
        return [torch.stack([network(x) for network in networks], dim=1).double() for x in views]


def _heads_in_double(method: Method) -> Method:
    """A copy of the method in float64 whose views are features of its backbones."""
    stand_ins = {id(network): _Taken(number) for number, network in enumerate(_networks(method))}
    return copy.deepcopy(method, stand_ins).double()


@contextlib.contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Afterwards the buffers (statistics, queues, averages) are what they were."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in zip(module.buffers(), before, strict=True):
                buffer.copy_(old)


@contextlib.contextmanager
def _cut_at(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """Makes leaves of the embeddings that pass, in their order: what `module` gives, or, where that is None,
    the unit vectors (of `F.normalize`) that take gradients."""
    leaves: list[Tensor] = []

    def cut(x: Tensor) -> Tensor:
        leaves.append(x.detach().requires_grad_())
        return leaves[-1]

    if module is None:
        with _UnitVectors(cut):
            yield leaves
        return
    hook = module.register_forward_hook(lambda _, __, output: cut(output))
    try:
        yield leaves
    finally:
        hook.remove()


class _UnitVectors(TorchFunctionMode):
    """Puts every unit vector that takes gradients through `cut`."""

    def __init__(self, cut: Callable[[Tensor], Tensor]):
        super().__init__()
        self.cut = cut

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        return self.cut(found) if function is F.normalize and found.requires_grad else found
