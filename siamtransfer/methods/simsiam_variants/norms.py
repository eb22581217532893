"""Which options about norms in the heads change nothing beside the others."""

from __future__ import annotations

from typing import ClassVar, Protocol

from siamtransfer.methods.parts.norms import HeadNorm
from siamtransfer.utils.errors import UserError

_PLACES = {"projector": ("hidden", "output-affine"), "predictor": ("all",)}
"""Values of batch_norm that differ from the default by what is behind the last layer of a head."""


class HeadOptions(Protocol):
    """The options of simsiam-variants that decide on norms."""

    section: ClassVar[str]

    @property
    def batch_norm(self) -> str: ...

    @property
    def projector_norm(self) -> HeadNorm: ...

    @property
    def predictor_norm(self) -> HeadNorm: ...

    @property
    def predictor(self) -> str: ...

    @property
    def predictor_layers(self) -> int: ...


def refuse_idle_norms(config: HeadOptions) -> None:
    """Raises UserError where `batch_norm`, `projector_norm` and `predictor_norm` contradict each other."""
    section, places = config.section, config.batch_norm
    kinds: dict[str, HeadNorm] = {"projector": config.projector_norm, "predictor": config.predictor_norm}
    for head, kind in kinds.items():
        if kind == "batch":
            continue
        if places == "none":
            raise UserError(
                f"{section}.batch_norm none leaves no norm that {section}.{head}_norm {kind} could be: leave "
                f"{section}.batch_norm out, and set the norms of the heads alone"
            )
        if kind == "none" and places in _PLACES[head]:
            raise UserError(
                f"{section}.batch_norm {places} puts a norm after the {head}, and {section}.{head}_norm none "
                f"takes it away: leave {section}.batch_norm out"
            )
    kind = config.predictor_norm
    if kind == "batch":
        return
    if config.predictor == "none":
        raise UserError(
            f"{section}.predictor none has no norm that {section}.predictor_norm {kind} could be: leave "
            f"{section}.predictor_norm out"
        )
    if config.predictor_layers == 1 and places != "all":
        raise UserError(
            f"a predictor of one layer has no norm that {section}.predictor_norm {kind} could be: leave it "
            f"out, or set {section}.predictor_layers 2"
        )
