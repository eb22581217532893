"""The frozen network in front of the images: batches of pixels to attention maps and feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from siamtransfer.backbones.attention_maps import ClassAttention, why_no_attention
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_maps import FeatureMaps, map_layers
from siamtransfer.checkpoints.assumptions import frozen_provenance
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.attention.config import AttentionConfig, Subject
from siamtransfer.evaluation.dense.network import read_frozen, run_frozen
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


@dataclass(frozen=True)
class Network:
    """A frozen backbone with the normalisation of its images, on the device of `runtime`."""

    source: str
    backbone: Backbone
    read: ReadBackbone
    runtime: Runtime

    @classmethod
    def open(cls, config: AttentionConfig, runtime: Runtime) -> Network:
        """Reads the checkpoint.

        Raises:
            UserError: it cannot be read.
        """
        assert config.checkpoint is not None
        return cls(config.checkpoint, *read_frozen(config, runtime), runtime)

    def attention(self, block: int | None) -> ClassAttention:
        """The attention of the class token in a block (None: the last)."""
        return ClassAttention(self.backbone, block)

    def maps(self, layers: str) -> FeatureMaps:
        """The feature maps of a selection of layers."""
        return FeatureMaps(self.backbone, layers)

    def run(self, part: nn.Module, pixels: Tensor) -> Tensor:
        """What `part` makes of pixels uint8[b, 3, h, w], as float32 on the CPU.

        Raises:
            UserError: a number is not finite.
        """
        return run_frozen(part, pixels, self.read, self.runtime, self.source).cpu()

    @property
    def provenance(self) -> dict[str, Any]:
        """What identifies the network in a record."""
        return frozen_provenance(self.source, self.read)


def choose_subjects(config: AttentionConfig, backbone: Backbone) -> list[Subject]:
    """What is shown: what the options name, or all that applies to the network, with a message about the
    rest.

    Raises:
        UserError: the options name something that the network has not.
    """
    no_attention = why_no_attention(backbone)
    no_maps = None if map_layers(backbone) else f"{backbone.name} has no maps of features"
    if config.show:
        if "attention" in config.show and no_attention:
            raise UserError(f"{no_attention}; show pca or similarity of it")
        if {"pca", "similarity"} & set(config.show) and no_maps:
            raise UserError(f"{no_maps}; show attention of it")
        return list(dict.fromkeys(config.show))
    shown: list[Subject] = []
    if no_attention:
        say(f"no attention is shown: {no_attention}")
    else:
        shown.append("attention")
    if no_maps:
        say(f"no features are shown: {no_maps}")
    else:
        shown += ["pca", "similarity"] if config.patch else ["pca"]
    if not shown:
        raise UserError(
            f"{backbone.name} has nothing to show: {no_attention}, and it has no maps of features"
        )
    return shown
