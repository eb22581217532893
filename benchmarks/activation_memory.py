"""Memory that a backbone keeps for its backward pass, with and without hardware.activation_checkpointing.

    python -m benchmarks.activation_memory [BACKBONE ...]

Counted on the CPU in bfloat16, as in rehearsal/device_memory.py, from passes of one and of two images of 224
pixels: the memory of an image, and what does not grow with images (weights in bfloat16). Neither the memory
of one block's recomputation nor workspaces are counted.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from benchmarks.rehearsal.device_memory import saved_bytes
from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.methods import Method, StepOutput
from siamtransfer.methods.base import Options
from siamtransfer.training.recompute import recompute_blocks

SIDE = 224
BACKBONES = ("vit_base_patch16_224", "vit_large_patch16_224", "resnet50")


class BackboneAlone(Method):
    """The mean of the features of the first view."""

    Config = Options

    def forward(self, views: list[Tensor]) -> StepOutput:
        return StepOutput(self.backbone(views[0]).float().mean(), [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=BACKBONES, metavar="BACKBONE")
    print(f"{'backbone':24} {'recomputed':>10} {'MiB an image':>13} {'MiB else':>9}")
    for name in parser.parse_args().backbones:
        method = BackboneAlone(build_backbone(name), Options()).to(memory_format=torch.channels_last)
        for recomputed in (False, True):
            if recomputed:
                recompute_blocks(method.backbone)
            one, two = (saved_bytes(method, [SIDE], count) / 2**20 for count in (1, 2))
            print(f"{name:24} {'yes' if recomputed else 'no':>10} {two - one:13.1f} {2 * one - two:9.1f}")


if __name__ == "__main__":
    main()
