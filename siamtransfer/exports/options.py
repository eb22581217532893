"""The options of an export. Light: no torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

from siamtransfer.checkpoints.options import ConversionOptions
from siamtransfer.utils.errors import UserError

Target = Literal["timm", "huggingface", "onnx", "torch-export"]
Layout = Literal["timm", "transformers"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
"""The suffix of OUT by target; the other targets are folders."""
OPSETS = range(18, 24)
"""ONNX opsets that torch's exporter writes."""
_FILES = (".onnx", ".pt2", ".pth", ".pt", ".tar", ".ckpt", ".safetensors", ".pkl", ".bin", ".json")


@dataclass
class ExportOptions(ConversionOptions):
    """Which backbone becomes what."""

    common: ClassVar[tuple[str, ...]] = (
        *("checkpoint", "out", "to", "layout", "records", "with_preprocessing", "dynamic_size", "size"),
        *("branch", "force", "dry_run", "trust_pickle"),
    )

    out: str | None = None
    """The folder (timm, huggingface) or the file (OUT.onnx, OUT.pt2) to write."""
    to: Target | None = None
    """What to write: timm (a folder for timm.create_model), huggingface (a folder for the Hub, with a model
    card), onnx, or torch-export (a .pt2)."""
    dry_run: bool = False
    """Say what would be written, and write nothing; nothing is proved then."""
    layout: Layout | None = None
    """Of --to huggingface: timm (the default: timm's tensors, which transformers' AutoModel reads too), or
    transformers (its own network and names: ResNet, ViT, DINOv2, ConvNeXt, Swin)."""
    records: list[str] = field(default_factory=list)
    """Of --to huggingface: records of evaluators (--record FILE.json) of these very weights, whose numbers
    the model card shows."""
    size: int | None = None
    """Side in pixels of the images; null: the authors' or the pretraining's, where stated, else 224."""
    dynamic_size: bool = False
    """Of --to onnx and torch-export: images of any height and width, where the network allows it."""
    with_preprocessing: bool = False
    """Of --to onnx and torch-export: the input is uint8 pixels, and the file normalises them itself."""
    opset: int | None = None
    """Of --to onnx: the version of ONNX's operators; null: 20."""

    def check(self) -> None:
        """Raises UserError for a missing word or file, or options that do not belong together."""
        self.check_target()
        super().check()

    def check_target(self) -> None:
        """Raises UserError for a missing word, or options that do not belong together; the checkpoint is not
        looked at."""
        if self.to not in get_args(Target):
            raise UserError("say what to export to: --to timm, huggingface, onnx or torch-export")
        if self.out is None:
            raise UserError("give the folder or the file to write, after the checkpoint")
        if self.layout not in (None, *get_args(Layout)):
            raise UserError(f"--layout is timm or transformers, not {self.layout!r}")
        self._check_belonging()
        if self.size is not None and self.size < 1:
            raise UserError(f"--size is {self.size}, and images have at least one pixel")
        if self.opset is not None and self.opset not in OPSETS:
            raise UserError(f"--opset is {self.opset}; torch writes {OPSETS[0]} to {OPSETS[-1]}")
        self._check_suffix()

    def _check_belonging(self) -> None:
        graph = ("onnx", "torch-export")
        belongs: dict[str, tuple[str, ...]] = {
            "layout": ("huggingface",),
            "records": ("huggingface",),
            "dynamic_size": graph,
            "with_preprocessing": graph,
            "opset": ("onnx",),
        }
        for name, targets in belongs.items():
            if getattr(self, name) and self.to not in targets:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} belongs to --to {' and '.join(targets)}, not to --to {self.to}")

    def _check_suffix(self) -> None:
        assert self.out is not None
        suffix, expected = Path(self.out).suffix, SUFFIXES.get(str(self.to))
        if expected and suffix != expected:
            raise UserError(f"{self.out} must end in {expected}, for it is written by --to {self.to}")
        if not expected and suffix in _FILES:
            raise UserError(
                f"--to {self.to} writes a folder, and {self.out} looks like a file: leave {suffix} out"
            )
