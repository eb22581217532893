"""Networks of their own for the two columns of pairs: two cameras, visible light and infrared.

Views 1, 3, … are cut from the first column and views 2, 4, … from the second. Of f, g and h each may be one
network for both columns or one for each:

    z_v = g_c(f_c(x_v)),  p_v = h_c(z_v),  c = the column of view v

With two views h_1 predicts z_2 from z_1 and h_2 the other way round. The second column's networks are the
method's children `second_backbone`, `second_projector` and `second_predictor`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.methods.base import ParameterGroup, trainable
from siamtransfer.utils.errors import UserError

SECTION = "simsiam_variants.columns"


@dataclass
class ColumnsConfig:
    """What each of the two columns of pairs has for itself (ours, but for batch_norm)."""

    trunks: Literal[1, 2] = 1
    """Backbones: one for both columns, or one for each, which may then have different channels. A checkpoint
    holds both; readers take the first, and the other as branch second."""
    batch_norm: Literal["shared", "separate"] = "shared"
    """separate: one backbone whose batch norms have weights and statistics of their own for each column
    (domain-specific batch norm, Chang et al., arXiv 1906.03950). A checkpoint holds both networks, as with
    two trunks."""
    heads: Literal["shared", "predictors", "all"] | None = None
    """Heads of their own for each column: none, the predictors, or projectors and predictors. null:
    predictors with two trunks, else none."""

    @property
    def own_heads(self) -> Literal["shared", "predictors", "all"]:
        """`heads`, decided."""
        return self.heads or ("predictors" if self.trunks == 2 else "shared")

    @property
    def named(self) -> str | None:
        """The first option that gives a column something of its own, with its value; None where none does."""
        if self.trunks == 2:
            return f"{SECTION}.trunks 2"
        if self.batch_norm == "separate":
            return f"{SECTION}.batch_norm separate"
        return None if self.own_heads == "shared" else f"{SECTION}.heads {self.own_heads}"

    def check(self, *, target_fraction: float, symmetric: bool, predictor: str) -> None:
        """Raises UserError for options that do not go together."""
        if self.trunks == 2 and self.batch_norm == "separate":
            raise UserError(
                f"{SECTION}.batch_norm separate is of one backbone, and two trunks have batch norms of their "
                f"own: leave it or {SECTION}.trunks 2 out"
            )
        if self.heads == "predictors" and predictor == "none":
            raise UserError(
                f"{SECTION}.heads predictors changes nothing without a predictor: leave it out, or take all"
            )
        if self.named is not None and target_fraction:
            raise UserError(
                f"{self.named} has no second network for targets: leave simsiam_variants.target.fraction 0"
            )
        if self.named is not None and not symmetric:
            raise UserError(
                f"{self.named} needs both directions, or what is the second column's would never learn: "
                "leave simsiam_variants.symmetric true"
            )


def with_own_norms(backbone: Backbone) -> Backbone:
    """A network that shares every tensor with `backbone` but those of batch norms, which begin as equal
    copies.

    Raises:
        UserError: it has no batch norm.
    """
    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise UserError(f"{SECTION}.batch_norm separate: {backbone.name} has no batch norm, so leave it out")
    apart = {id(tensor) for norm in norms for tensor in (*norm.parameters(), *norm.buffers())}
    tensors = (*backbone.parameters(), *backbone.buffers())
    return copy.deepcopy(backbone, {id(tensor): tensor for tensor in tensors if id(tensor) not in apart})


def of_view(method: nn.Module, name: str, view: int) -> nn.Module:
    """The network `name` of a method, or the second column's, for the view of this number from 0."""
    second = getattr(method, f"second_{name}", None) if view % 2 else None
    return method.get_submodule(name) if second is None else second


def with_second(group: ParameterGroup, method: nn.Module, *names: str) -> ParameterGroup:
    """The group with the parameters of the second column's networks of these names that it has not yet."""
    known = {id(parameter) for parameter in group.parameters}
    more = [
        parameter
        for name in names
        if (network := getattr(method, f"second_{name}", None)) is not None
        for parameter in trainable(network)
        if id(parameter) not in known
    ]
    return ParameterGroup(group.name, [*group.parameters, *more], group.constant_lr, group.lr_scale)
