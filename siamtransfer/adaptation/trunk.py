"""What an adaptation does to the trunk of a method: corrections, a warm-up of the heads, rates by layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from siamtransfer.adaptation import lora
from siamtransfer.adaptation.config import AdaptConfig
from siamtransfer.adaptation.layer_rates import slow_trunk
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.methods.base import Method, ParameterGroup

_NETWORKS = ("backbone", "target_backbone")


class AdaptedTrunk:
    """The backbone of a method and its momentum encoder, whose weights are loaded already.

    With low-rank corrections the two get them here. `freeze` and `release` are around the warm-up of the
    heads. Frozen networks take no gradients and work as in evaluation: batch norm by its running statistics,
    which stay, and no stochastic depth. A momentum encoder is not moved meanwhile, because
    `methods.parts.ema.move` passes over what takes no gradients. What took none before a freeze takes none
    after a release.

    Raises:
        UserError: the network cannot be corrected as `settings` ask; see `lora.correct`.
    """

    def __init__(self, method: Method, settings: AdaptConfig):
        self.method, self.settings = method, settings
        self._networks: dict[str, Backbone] = {
            name: network
            for name in _NETWORKS
            if isinstance(network := getattr(method, name, None), Backbone)
        }
        self.corrected: list[str] = []
        if settings.lora_rank:
            self._correct()
        self._trained = {name for name, p in method.backbone.named_parameters() if p.requires_grad}

    def _correct(self) -> None:
        settings, backbone = self.settings, self.method.backbone
        how: Any = {
            "rank": settings.lora_rank,
            "alpha": settings.lora_alpha,
            "targets": settings.lora_targets,
        }
        self.corrected = lora.correct(backbone, **how)
        if (target := self._networks.get("target_backbone")) is not None:
            lora.follow(target, backbone, **how)

    def groups(self) -> list[ParameterGroup]:
        """The method's groups with the rates of layers; call it while the trunk is not frozen."""
        settings = self.settings
        return slow_trunk(
            self.method.groups(),
            self.method.backbone,
            layer_decay=settings.layer_decay,
            trunk_lr=settings.trunk_lr,
        )

    def freeze(self) -> None:
        """Keeps every tensor of the networks as it is."""
        self._set(learns=False)

    def release(self) -> None:
        """Lets the networks learn again."""
        self._set(learns=True)

    def _set(self, *, learns: bool) -> None:
        for name, parameter in self.method.backbone.named_parameters():
            if name in self._trained:
                parameter.requires_grad_(learns)
        for network in self._networks.values():
            network.train(learns)

    def plain_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """`state` of the method with the weights of the networks as any reader knows them: corrections are
        merged."""
        if not self.corrected:
            return state
        plain: dict[str, Tensor] = {}
        for word in dict.fromkeys(key.partition(".")[0] for key in state):
            if word in self._networks:
                merged = lora.merged_state(self._networks[word])
                plain |= {f"{word}.{name}": tensor for name, tensor in merged.items()}
            else:
                plain |= {key: value for key, value in state.items() if key.partition(".")[0] == word}
        return plain

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs besides the plain weights; empty without corrections."""
        if not self.corrected:
            return {}
        return {
            "original": lora.original_weights(self.method.backbone),
            **{word: lora.corrections(network) for word, network in self._networks.items()},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Sets what `state_dict` returned, after the plain weights were loaded and corrected.

        Raises:
            UserError: it lacks a correction.
        """
        if self.corrected:
            for word, network in self._networks.items():
                lora.load_corrections(network, saved.get(word, {}), saved.get("original", {}))
