"""The reading of a backbone, recorded with the files that the converters write, so that nothing is lost.

Tensors do not say how images were normalised, how a stem pads, or how many heads an attention has. The
converters write it down, and the reader takes it from there:

- OUT.safetensors: the entry `siamtransfer` of the file's metadata;
- OUT.pth, OUT.pt: the file OUT.json beside it, because loaders of torchvision need nothing but tensors;
- OUT.pkl: a comment line `# siamtransfer-reading: {...}` in OUT.yaml beside it.

The record is JSON with a checksum of itself and the digest of the weights that it belongs to. A damaged
record, or one of other weights, is refused: it is never left out silently.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import RESNETS
from siamtransfer.checkpoints.normalisation import Normalisation
from siamtransfer.checkpoints.preprocessing import Interpolation, Preprocessing
from siamtransfer.checkpoints.reading import ASSUMED, Fact, Reading
from siamtransfer.checkpoints.settings_files import MOST_YAML
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

MARK = "siamtransfer-reading"
"""Stands twice in every record, so that a damaged record is told from a file without one."""
METADATA = "siamtransfer"
"""The entry in the metadata of .safetensors files."""
VERSION = 1
_MOST_HEADER = 2**25  # of safetensors, in bytes
_RECORDED = "recorded at conversion: "
_COMMENT = f"# {MARK}: "
_TYPES: dict[str, tuple[type, ...]] = {
    "channels": (str,),
    "stride_in_1x1": (bool,),
    "stem": (str,),
    "output_stride": (int,),
    "heads": (int,),
    "positions": (str,),
}


@dataclass(frozen=True)
class RecordedReading:
    """What a converter recorded of a backbone.

    Attributes:
        architecture: the backbone without its weights.
        reading: a fact's source is what it was at the conversion; what was assumed is still an assumption.
        digest: `digest_of` the weights that this belongs to.
        where: the place of the record, in words.
    """

    architecture: Architecture
    reading: Reading
    digest: str
    where: str = ""

    def require_weights(self, digest: str) -> None:
        """Raises UserError unless the record belongs to the weights with this digest; the message is the rest
        of a sentence that begins with the file's name."""
        if digest != self.digest:
            raise UserError(
                f"does not hold the weights that {self.where} was written for (digests {digest[:12]}… and "
                f"{self.digest[:12]}…): one of the two was replaced or damaged; convert the checkpoint again"
            )


def recorded(architecture: Architecture, reading: Reading, digest: str) -> dict[str, Any]:
    """The record of a converted backbone, whose first convolution takes RGB whatever the source's took."""
    channels = reading.channels
    if channels.value == "bgr":
        channels = Fact("rgb", f"reversed by the reader; the source took BGR by {channels.source}")
    content = {
        MARK: VERSION,
        "weights": digest,
        "architecture": architecture.as_dict(),
        "reading": {
            name: {**entry, "source": entry["source"].removeprefix(_RECORDED)}
            for name, entry in replace(reading, channels=channels).as_dict().items()
        },
        "format": MARK,
    }
    return {**content, "checksum": _checksum(content)}


def record_text(record: dict[str, Any]) -> str:
    """The record as one line of JSON."""
    return json.dumps(record, allow_nan=False)


def record_comment(record: dict[str, Any]) -> str:
    """The record as a comment line of a YAML file."""
    return _COMMENT + record_text(record)


def side_file(path: Path) -> Path | None:
    """The file beside `path` that may hold its record; None for files that hold it themselves."""
    suffix = {".pth": ".json", ".pt": ".json", ".pkl": ".yaml"}.get(path.suffix)
    return path.with_suffix(suffix) if suffix else None


def read_recorded(path: Path) -> RecordedReading | None:
    """The record in or beside a checkpoint file, or None where there is none.

    Raises:
        UserError: there is one, and it is damaged or of a newer version; names the file.
    """
    beside = side_file(path)
    if beside is not None and os.path.lexists(beside):
        return _read_side_file(beside)
    metadata = _safetensors_metadata(path)
    text = metadata.get(METADATA)
    if text is None and not any(MARK in value or MARK in key for key, value in metadata.items()):
        return None
    return parse_record(text or "", "the metadata of the file", path)


def _read_side_file(path: Path) -> RecordedReading | None:
    where = f"{printable(path.name)} beside the file"
    if not path.is_file():  # such as a link to a record that was removed
        raise _damaged(path, "is no file that can be read")
    if path.stat().st_size > MOST_YAML:
        if not _has_mark(path):
            return None  # somebody's file; one of settings is refused by its own reader
        raise _damaged(path, f"has more than {MOST_YAML:,} bytes")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, "cannot be read as text") from error
    if path.suffix == ".yaml":
        lines = [line.removeprefix(_COMMENT) for line in text.splitlines() if line.startswith(_COMMENT)]
        if not lines and MARK not in text:
            return None
        recorded = parse_record(lines[0] if len(lines) == 1 else "", where, path)
        _require_settings(text, recorded, path)
        return recorded
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "is no JSON") from error
    if MARK not in text or not isinstance(content, dict):
        return None  # a record of a measurement, or somebody's file
    return parse_record(text, where, path)


def _has_mark(path: Path) -> bool:
    """Whether a file that is too large to be read as a whole names a record of ours."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(MARK.encode()) >= 0
    except OSError as error:
        raise _damaged(path, "cannot be read") from error


def _require_settings(text: str, recorded: RecordedReading, path: Path) -> None:
    """Raises UserError where the settings in OUT.yaml contradict the record in its comment."""
    try:
        content = yaml.safe_load(text)
        model, image_format = content["MODEL"], content["INPUT"]["FORMAT"]
        resnet = recorded.architecture.name in RESNETS
        stride = model["RESNETS"]["STRIDE_IN_1X1"] if resnet else False
        pixels = [number / 255 for key in ("PIXEL_MEAN", "PIXEL_STD") for number in model[key]]
    except (yaml.YAMLError, RecursionError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise _damaged(path, "lacks the settings of converted weights") from error
    reading = recorded.reading
    normalisation = [*reading.normalisation.value.mean, *reading.normalisation.value.std]
    strided = reading.stride_in_1x1.value if reading.stride_in_1x1 else False
    same_pixels = len(pixels) == 6 and all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in zip(pixels, normalisation, strict=True)
    )
    for key, value, same in (
        ("INPUT.FORMAT", "RGB", image_format == "RGB"),
        ("MODEL.RESNETS.STRIDE_IN_1X1", strided, stride is strided),
        ("MODEL.PIXEL_MEAN and PIXEL_STD", [round(255 * x, 6) for x in normalisation], same_pixels),
    ):
        if not same:
            raise _damaged(path, f"does not set {key} to {value!r}, as the record in its comment has it")


def parse_record(text: str, where: str, path: Path) -> RecordedReading:
    """The record in a text of JSON, which stands `where` and in the file `path`.

    Raises:
        UserError: it is damaged, or of a newer version.
    """
    try:
        content = json.loads(text)
        version = content[MARK]
        if isinstance(version, int) and version > VERSION:
            raise UserError(f"{printable(path)} was written by a newer version of siamtransfer: update")
        if content.pop("checksum") != _checksum(content):
            raise ValueError("checksum")
        return RecordedReading(
            Architecture.from_dict(content["architecture"]),
            _reading(content["reading"]),
            content["weights"],
            where,
        )
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise _damaged(path, f"does not hold an intact record of the conversion ({where})") from error


def _checksum(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _reading(content: dict[str, Any]) -> Reading:
    """The reading with the sources that the record gives."""
    facts: Any = {}  # Fact by name
    for name, entry in content.items():
        value, source = entry["value"], str(entry["source"])
        if name == "normalisation":
            mean, std = (tuple(float(number) for number in value[key]) for key in ("mean", "std"))
            if len(mean) != len(std) or not std or not all(map(math.isfinite, mean)) or min(std) <= 0:
                raise ValueError(name)
            value = Normalisation(mean, std)
        elif name == "preprocessing":
            value = Preprocessing(int(value["size"]), int(value["resize"]), _interpolation(value))
        elif not isinstance(value, _TYPES[name]):
            raise ValueError(name)
        facts[name] = Fact(value, source if source == ASSUMED else _RECORDED + source)
    return Reading(**facts)


def _interpolation(preprocessing: dict[str, Any]) -> Interpolation:
    value = preprocessing["interpolation"]
    if value not in get_args(Interpolation):
        raise ValueError(value)
    return cast(Interpolation, value)


def _safetensors_metadata(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file, whatever its suffix; nothing for another file or a damaged one,
    which the reader of tensors refuses."""
    try:
        with path.open("rb") as file:
            size, begin = int.from_bytes(file.read(8), "little"), file.read(1)
            if begin != b"{" or size > min(path.stat().st_size, _MOST_HEADER):
                return {}
            header = json.loads(begin + file.read(size - 1))
    except (OSError, ValueError, RecursionError):
        return {}
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{printable(path)} {reason}: it says how the weights are to be read, so convert the checkpoint "
        "again, or remove it and say yourself what it said"
    )
