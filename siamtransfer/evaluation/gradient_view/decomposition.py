"""The gradient of a method's own loss with respect to an embedding, in the parts that all families have in
common (Tao et al., arXiv 2112.05141): a pull to the target, a push away from other images, and their balance.

Before any number is reported, the closed form is compared with autograd. For that the backbone computes in
the run's arithmetic, and copies of the heads and the loss compute in float64 on its features. The method
itself stays as it was: a run with this monitor is equal to the bit to one without it. The embedding is the
unit vector that the loss is a function of (SimCLR, MoCo, MoCo v3, UniGrad), the standardised projection
(Barlow Twins), or the projection (BYOL, SimSiam, DirectPred, VICReg).

Legend: N rows of this rank, M of all ranks, d dimensions, n(·) scales rows to unit length.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.diagnostics import measures
from siamtransfer.evaluation.gradient_view.forms import require_form
from siamtransfer.methods.base import Method
from siamtransfer.methods.parts.precision import l2_normalize
from siamtransfer.methods.parts.unified_gradient import Gradient
from siamtransfer.utils.errors import UserError

TOLERANCE = 1e-8  # of the disagreement between closed form and autograd
SMALLEST = 1e-4  # of the positive part's length: least denominator of the disagreement, for parts that cancel
PREFIX = "gradient/"

GUIDE = {
    "ratio": "length of the negative part over that of the positive one",
    "balance": "weight of the negative part; - where it cannot be separated from the part",
    "radial": "along the embedding; normalising removes it",
    "parts_cosine": "of positive and negative part; -1 they cancel",
    "view_cosine": "of embedding and target; 1 views agree",
    "others_cosine": "mean size, of embedding and other images' targets",
    "effective_rank": "of F, higher, at most d",
    "off_diagonal": "0 decorrelated, 1 redundant",
    "disagreement": f"closed form and autograd; below {TOLERANCE:g}",
}
"""The indicators in the order of a table, with a hint for each."""


@dataclass(eq=False)
class ViewGradient:
    """The gradient with respect to one view's embedding.

    Attributes:
        embedding: u1 [N,d].
        target: u2 [N,d] of the same images.
        gradient: N ∂L/∂u1 in parts.
        autograd: the same by autograd of the method's own loss [N,d].
        separable_balance: whether the balance can be separated from the negative part.
    """

    embedding: Tensor
    target: Tensor
    gradient: Gradient
    autograd: Tensor
    separable_balance: bool

    def disagreement(self) -> float:
        """|closed form - autograd| / |autograd| over the rows of all ranks; NaN where all is zero."""
        difference = self.gradient.total - self.autograd
        pull = self.gradient.scale * self.gradient.positive
        error, total, positive = (collectives.all_gather(x).norm() for x in (difference, self.autograd, pull))
        return float(error / torch.maximum(total, SMALLEST * positive))


def decompose(method: Method, views: Sequence[Tensor], runtime: Runtime) -> list[ViewGradient]:
    """The gradient of `method` on two views [N,3,S,S] in closed form and by autograd, float64, for every view
    whose embedding takes one. In train mode batch norms use the batch's statistics, as the loss does.

    Raises:
        UserError: the method's gradient has no such form, see `require_form`.
    """
    form = require_form(method.config, len(views))
    x, heads = _features(method, views, runtime), _heads_in_double(method)
    with _buffers_restored(heads), _leaves_at(form.embedding(heads)) as leaves:
        gradients = torch.autograd.grad(heads(x).loss, leaves, allow_unused=True)
    u = [leaf.detach() for leaf in leaves]
    closed_forms = form.gradients(heads, u, x)
    return [
        ViewGradient(
            embedding, closed.target, closed.gradient, len(embedding) * gradient, form.separable_balance
        )
        for embedding, closed, gradient in zip(u, closed_forms, gradients, strict=False)
    ]


def indicators(views: Sequence[ViewGradient]) -> dict[str, float]:
    """The numbers of GUIDE under `gradient/…`, means over the views and the rows of all ranks.

    Raises:
        UserError: closed form and autograd disagree, so the parts are not valid.
    """
    disagreement = float(torch.tensor([view.disagreement() for view in views]).max())  # NaN if any is
    if not disagreement < TOLERANCE:
        raise UserError(
            f"the gradient in closed form is {disagreement:.2g} of its length away from autograd's, and "
            f"{TOLERANCE:g} is the most: its parts are not reported (embeddings of length zero do that)"
        )
    numbers = _means([_measure(view) for view in views])
    return {PREFIX + name: value for name, value in (numbers | {"disagreement": disagreement}).items()}


def average(batches: Sequence[dict[str, float]]) -> dict[str, float]:
    """The indicators of several batches as those of one: their means, and the largest disagreement."""
    largest = PREFIX + "disagreement"
    return _means(batches) | {largest: max(numbers[largest] for numbers in batches)}


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _measure(view: ViewGradient) -> dict[str, float]:
    parts = view.gradient
    weighted = parts.scale * parts.positive, parts.scale * parts.balance * parts.negative
    u1, u2, positive, negative = map(
        collectives.all_gather, (l2_normalize(view.embedding), l2_normalize(view.target), *weighted)
    )
    balance = torch.as_tensor(parts.balance, dtype=u1.dtype, device=u1.device).expand(len(view.embedding), 1)
    cosines = (u1 @ u2.T).abs().fill_diagonal_(0)
    return {
        "ratio": float(negative.norm(dim=1).mean() / positive.norm(dim=1).mean()),
        "balance": float(collectives.all_gather(balance).mean()) if view.separable_balance else math.nan,
        "radial": float(((positive + negative) * u1).sum(dim=1).mean()),
        "parts_cosine": float(F.cosine_similarity(positive, negative).mean()),
        "view_cosine": float((u1 * u2).sum(dim=1).mean()),
        "others_cosine": float(cosines.sum() / (len(u1) * (len(u1) - 1))),
        "effective_rank": measures.covariance_effective_rank(measures.singular_values(u1).square()),
        "off_diagonal": measures.off_diagonal_correlation(u1),
    }


# The method's own loss as a function of the backbone's features.


class _FeaturesOf(nn.Module):
    """Replaces a backbone: selects the features of network `number` from [N,networks,D]."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.number]


def _networks(method: Method) -> list[nn.Module]:
    target = getattr(method, "target_backbone", None)
    return [method.backbone] if target is None else [method.backbone, target]


def _features(method: Method, views: Sequence[Tensor], runtime: Runtime) -> list[Tensor]:
    """float64[N,networks,D] of every view, from the backbone and the target backbone; their buffers stay."""
    networks = _networks(method)
    with contextlib.ExitStack() as stack, torch.no_grad(), runtime.autocast():
        for network in networks:
            stack.enter_context(_buffers_restored(network))
        return [torch.stack([network(x) for network in networks], dim=1).double() for x in views]


def _heads_in_double(method: Method) -> Method:
    """A copy of the method in float64 whose views are features of its backbones."""
    replacements = {id(network): _FeaturesOf(number) for number, network in enumerate(_networks(method))}
    return copy.deepcopy(method, replacements).double()


@contextlib.contextmanager
def _buffers_restored(module: nn.Module) -> Iterator[None]:
    """Restores the buffers (statistics, queues, averages) at the end."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in zip(module.buffers(), before, strict=True):
                buffer.copy_(old)


@contextlib.contextmanager
def _leaves_at(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """Makes the embeddings leaves of the graph, and lists them in their order.

    The embeddings are the outputs of `module`, or, if it is None, the unit vectors (of `F.normalize`) that
    take gradients.
    """
    leaves: list[Tensor] = []

    def make_leaf(x: Tensor) -> Tensor:
        leaves.append(x.detach().requires_grad_())
        return leaves[-1]

    if module is None:
        with _UnitVectors(make_leaf):
            yield leaves
        return
    hook = module.register_forward_hook(lambda _, __, output: make_leaf(output))
    try:
        yield leaves
    finally:
        hook.remove()


class _UnitVectors(TorchFunctionMode):
    """Applies `replace` to every unit vector that takes gradients."""

    def __init__(self, replace: Callable[[Tensor], Tensor]):
        super().__init__()
        self.replace = replace

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        return self.replace(result) if function is F.normalize and result.requires_grad else result
