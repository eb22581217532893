"""Exports a small network of every kind to every target, and prints the differences as a table of Markdown.

    python scripts/export_families.py                    all of NETWORKS; about half an hour on one core
    python scripts/export_families.py resnet50 test_vit  some of them

Weights are random; norms get random statistics, scales and shifts, so that they matter. A cell is the largest
difference of a feature in units of the largest feature, over 8 images, or the beginning of the sentence with
which the target is refused.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of, read_backbone
from siamtransfer.exports.export import export
from siamtransfer.exports.options import ExportOptions
from siamtransfer.utils.errors import UserError

NETWORKS = (
    *("resnet18", "resnet18:width=16:stem=small", "resnet50:width=8", "torchvision:mobilenet_v3_small"),
    *("timm:test_vit", "timm:vit_tiny_patch16_224", "timm:deit_tiny_patch16_224", "timm:test_resnet"),
    *("timm:vit_small_patch16_dinov3", "timm:test_convnext", "timm:convnext_atto", "timm:convnextv2_atto"),
    *(
        "timm:convnext_tiny",
        "timm:swin_tiny_patch4_window7_224",
        "timm:test_efficientnet",
        "timm:regnety_002",
        "timm:resnet26d",
    ),
    *("timm:test_maxvit", "timm:test_coatnet", "timm:test_mambaout", "timm:test_nfnet", "timm:mixer_s32_224"),
)
"""Names behind `random:`."""
TARGETS: dict[str, ExportOptions] = {
    "timm": ExportOptions(out="timm", to="timm"),
    "transformers": ExportOptions(out="transformers", to="huggingface", layout="transformers"),
    "ONNX": ExportOptions(out="out.onnx", to="onnx"),
    "torch.export": ExportOptions(out="out.pt2", to="torch-export"),
}


def main(names: list[str]) -> None:
    """Prints a row for each network as soon as it is known."""
    logging.getLogger("siamtransfer").setLevel(logging.ERROR)
    print(f"| network | {' | '.join(TARGETS)} | seconds |\n|{'---|' * (len(TARGETS) + 2)}", flush=True)
    for name in NETWORKS:
        if names and not any(name.removeprefix("timm:") == each for each in names):
            continue
        begin, read = time.monotonic(), trained(read_backbone(f"random:{name}"))
        cells = [cell(read, options) for options in TARGETS.values()]
        print(f"| `{name}` | {' | '.join(cells)} | {time.monotonic() - begin:.0f} |", flush=True)


def trained(read: ReadBackbone) -> ReadBackbone:
    """The backbone with numbers as after a training where an untrained one has zeros and ones."""
    generator = torch.Generator().manual_seed(0)

    def moved(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.ndim > 1:
            return tensor
        noise = torch.rand(tensor.shape, generator=generator)
        return tensor + (noise if name.endswith("running_var") else 0.2 * (noise - 0.5))

    state = {name: moved(name, tensor) for name, tensor in read.state.items()}
    return dataclasses.replace(read, state=state, digest=digest_of(state))


def cell(read: ReadBackbone, options: ExportOptions) -> str:
    """The largest relative difference, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / str(options.out))
        try:
            done = export(dataclasses.replace(options, checkpoint=read.path, out=out), read)
        except UserError as error:
            return f"refused: {str(error).removeprefix(read.name).strip()[:110]}…"
        largest = [value for name, value in done.metrics.items() if name.endswith("max_relative_difference")]
        return f"{max(largest):.0e}" if max(largest) else "0"


if __name__ == "__main__":
    main(sys.argv[1:])
