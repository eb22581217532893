"""The backbones of a suite: what each is read from, its label in folders and tables, its stamp."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.options import HF, NAMED, require_checkpoint
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.strict_json import flatten

_LABELLED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.+-]*)=(.+)", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
RESERVED = ("suite.json", "report.html", "index.json", "lock")
"""Names of files in the folder of a suite, which no label may have."""
_MEANINGLESS = ("checkpoint", "model", "backbone", "weights", "last", "best", "final", "pytorch_model")


@dataclass(frozen=True)
class SuiteBackbone:
    """One backbone of a suite.

    Attributes:
        label: its folder, and its name in tables.
        source: a file, a folder, or a name (timm:NAME, random:NAME, pixels …), as programs take it.
        options: of how it is read (branch, normalisation, layers …), under dotted keys.
    """

    label: str
    source: str
    options: dict[str, Any] = field(default_factory=dict)

    def stamp(self) -> str:
        """What tells these weights from others: the SHA-256 of the file, or of all files of the folder; for
        names without a file the name itself."""
        if self.source == "pixels" or self.source.startswith("random:"):
            return self.source
        if self.source.startswith(NAMED):
            name, equals, file = self.source.partition("=")
            return f"{name}={_digest(Path(file))}" if equals else self.source
        return _digest(Path(self.source.removeprefix(HF)))


def find_backbones(words: Sequence[str], listed: Mapping[str, Any], where: str) -> list[SuiteBackbone]:
    """The backbones of the command line (PATH, a name or LABEL=PATH) and of a suite's file, in this order.

    Raises:
        UserError: there is none, a file is not there, two have the same label, or a label cannot be the name
            of a folder.
    """
    found = [*_labelled(words), *(_listed(label, value, where) for label, value in listed.items())]
    if not found:
        raise UserError(
            "give a checkpoint or more (siamtransfer suite CKPT… --config quick), or name them in the suite "
            "(backbones: {moco: moco.pth})"
        )
    seen: dict[str, str] = {}
    for backbone in found:
        if not _LABEL.fullmatch(backbone.label) or backbone.label in RESERVED:
            raise UserError(
                f"the label {backbone.label!r} of {backbone.source} is to be the name of a folder: take "
                "letters, digits, _, +, - and . (LABEL=PATH)"
            )
        if backbone.label.lower() in seen:
            raise UserError(
                f"{seen[backbone.label.lower()]} and {backbone.source} have the same label {backbone.label}: "
                "give one of them another one (LABEL=PATH)"
            )
        seen[backbone.label.lower()] = backbone.source
        require_checkpoint(backbone.source)
    return found


def _labelled(words: Sequence[str]) -> list[SuiteBackbone]:
    """The backbones of the command line; those without a label get one from their paths."""
    pairs: list[tuple[str | None, str]] = []
    for word in words:
        match = None if Path(word).exists() else _LABELLED.fullmatch(word)
        pairs.append((match[1], match[2]) if match else (None, word))
    sources = [source for label, source in pairs if label is None]
    usual = {source: _label_of(source) for source in sources}
    count = Counter(usual.values())
    for source in usual:  # of runs/a/x.pth and runs/b/x.pth the folders tell which is which
        if count[_label_of(source)] > 1 and Path(source).exists():
            parent = _clean(Path(source).absolute().parent.name)
            usual[source] = f"{parent}-{_label_of(source)}" if parent else usual[source]
    return [SuiteBackbone(label or usual[source], source) for label, source in pairs]


def _listed(label: str, value: Any, where: str) -> SuiteBackbone:
    where = f"{where}: backbones.{label}"
    if isinstance(value, str):
        return SuiteBackbone(label, value)
    if not isinstance(value, Mapping) or not isinstance(value.get("checkpoint"), str):
        raise UserError(f"{where} must be a checkpoint, or a section with the key checkpoint and options")
    options = flatten(dict(value))
    return SuiteBackbone(label, options.pop("checkpoint"), options)


def _label_of(source: str) -> str:
    """The name of the file without its ending, or of its folder where that says nothing; the name of a
    baseline with - for other signs."""
    if source.startswith(NAMED):
        return _clean(source.partition("=")[0] if not source.startswith("random:") else source)
    path = Path(source.removeprefix(HF)).absolute()
    name = path.name if path.is_dir() else path.name.partition(".")[0]
    return _clean(path.parent.name if name.lower() in _MEANINGLESS and path.parent.name else name)


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip("-.")


def _digest(path: Path) -> str:
    if path.is_file():
        return f"sha256:{digest_of_file(path)}"
    whole = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        whole.update(os.fsencode(file.relative_to(path)) + b"\0" + digest_of_file(file).encode() + b"\0")
    return f"sha256 of files:{whole.hexdigest()}"
