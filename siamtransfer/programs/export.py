"""Writes the backbone of any known checkpoint for other programs, and proves that they get its features.

    siamtransfer export CKPT FOLDER --to timm              for timm.create_model("local-dir:FOLDER", ...)
    siamtransfer export CKPT FOLDER --to huggingface       the same with a model card, for the Hub
    siamtransfer export CKPT FOLDER --to huggingface --layout transformers
    siamtransfer export CKPT OUT.onnx --to onnx            needs pip install 'siamtransfer[export]'
    siamtransfer export CKPT OUT.pt2 --to torch-export     torch.export.load("OUT.pt2").module()(images)

What was written is read back by timm, transformers, ONNX Runtime or a new process with torch alone. It gets
rendered scenes and noise in batches of 1, 2 and 5. The largest difference of its features is printed; above
1e-4 of the largest feature nothing is written. The export says of itself which weights it holds, how images
are prepared, and what was assumed on reading. docs/EXPORT.md has the details.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.exports.options import ExportOptions


def convert(options: ExportOptions) -> dict[str, Any]:
    """The export; returns the record."""
    options.check()
    from siamtransfer.exports.export import export
    from siamtransfer.records.record import record

    done = export(options)
    return record("convert/export", done.metrics, done.protocol, **done.provenance)


main = Command("export", ExportOptions, convert, __doc__)

if __name__ == "__main__":
    run(main)
