"""A .pt2 file of torch.export, which runs wherever torch does: without siamtransfer, timm or torchvision.

    program = torch.export.load("OUT.pt2")
    features = program.module()(images)

The archive holds the account of the export: torch.export.load(OUT, extra_files={"siamtransfer.json": ""})
fills it in.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from siamtransfer.exports.account import NAME, account_of, account_text
from siamtransfer.exports.graph import as_input, prove_sizes, record_graph
from siamtransfer.exports.network import Network
from siamtransfer.exports.proof import Proof, Written
from siamtransfer.utils.errors import UserError

_PROGRAM = """
import sys, torch
program, inputs, outputs = sys.argv[1:]
module = torch.export.load(program).module()
with torch.inference_mode():
    torch.save([module(images) for images in torch.load(inputs, weights_only=True)], outputs)
"""
"""What the process of the proof runs."""


def write_torch_export(
    network: Network, out: Path, *, dynamic_size: bool = False, with_preprocessing: bool = False
) -> dict[str, Proof]:
    """Writes `out`, and proves it in a process of its own that imports torch alone.

    Raises:
        UserError: torch.export cannot record the network, or the file gives other features.
    """
    program = record_graph(network, dynamic_size=dynamic_size, with_preprocessing=with_preprocessing)
    content = io.BytesIO()  # where a file that torch opens finds no room, torch ends the process
    torch.export.save(program, content, extra_files={NAME: account_text(account_of(network, "torch-export"))})
    out.write_bytes(content.getbuffer())
    return prove_sizes(
        network,
        _in_a_process(network, out, with_preprocessing),
        "torch.export.load in a process of its own",
        dynamic_size=dynamic_size,
    )


def _in_a_process(network: Network, out: Path, with_preprocessing: bool) -> Written:
    """The network in the file, loaded by a new process without this package in its memory.

    Raises:
        UserError: (on use) the process ends with an error.
    """

    def features(batches: list[Tensor]) -> list[Tensor]:
        with tempfile.TemporaryDirectory() as folder:
            inputs, outputs = Path(folder) / "inputs.pt", Path(folder) / "outputs.pt"
            torch.save([as_input(network, pixels, with_preprocessing) for pixels in batches], inputs)
            words = [sys.executable, "-I", "-c", _PROGRAM, str(out), str(inputs), str(outputs)]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["without a reason"])[-1][:200]
                raise UserError(f"a new process cannot run {out.name} ({last}): nothing was written")
            found: list[Tensor] = torch.load(outputs, weights_only=True)
        return found

    return features
