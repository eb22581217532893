"""From files and folders to measurements whose backbones have short names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from siamtransfer.leaderboard.measurement import FEATURE_FILES, BackboneId, Measurement, Part, parts_of
from siamtransfer.records.predictions import read_document
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.folders import files_below
from siamtransfer.utils.json_file import read_json
from siamtransfer.utils.log import say
from siamtransfer.utils.text import printable

ENTRIES = ("task", "metrics", "protocol", "provenance")
"""What every record has; files of JSON without them are others' and are passed over in folders."""
_PLAIN_NAMES = frozenset(
    {
        "checkpoint",
        "checkpoint_last",
        "last",
        "final",
        "best",
        "model",
        "pytorch_model",
        "weights",
        "backbone",
    }
)
"""Names of files that say nothing of what is in them; their folder does."""


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        measurements: in the order of their paths.
        left_out: a sentence for each file that looks like a record and is damaged.
    """

    measurements: list[Measurement]
    left_out: list[str]


def collect(paths: Iterable[str | Path]) -> list[Measurement]:
    """The measurements in files and folders; folders (of a suite, of runs) are searched with all below them.
    What is left out there is said in a sentence each.

    Raises:
        UserError: a path is absent; or a file that is named is damaged, no record, or of a program that
            measures no backbone.
    """
    found = collect_all(paths)
    for sentence in found.left_out:
        say(f"note: left out: {sentence}")
    return found.measurements


def collect_all(paths: Iterable[str | Path]) -> Collection:
    """As `collect`, with the sentences on what is left out.

    Raises:
        UserError: see `collect`.
    """
    parts: dict[Path, list[Part]] = {}
    left_out: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            for file in json_files_below(path):
                try:
                    document = read_if_record(file)
                except UserError as error:
                    left_out.append(str(error))
                    continue
                parts.setdefault(file, [] if document is None else list(parts_of(document)))
        else:
            document = read_document(path)
            found = list(parts_of(document))
            if not found:
                raise UserError(
                    f"{printable(path)} is a record of {document['task']}, which measures no backbone: leave "
                    "it out"
                )
            parts[path] = found
    return Collection(_label([(path, part) for path in sorted(parts) for part in parts[path]]), left_out)


def json_files_below(folder: Path) -> list[Path]:
    """The files of a folder and of all below it that end in .json, sorted; hidden ones are left out.

    Raises:
        UserError: a folder cannot be read.
    """
    return [file for file in files_below(folder) if file.name.endswith(".json")]


def read_if_record(file: Path) -> dict[str, Any] | None:
    """The record in a file of JSON; None where it holds something else.

    Raises:
        UserError: the file cannot be read or is no JSON; or it is a record that was changed.
    """
    content = read_json(file)
    if not isinstance(content, dict) or any(entry not in content for entry in ENTRIES):
        return None
    return read_document(file)


def _label(found: Sequence[tuple[Path, Part]]) -> list[Measurement]:
    """The measurements, with names for their backbones."""
    sources: dict[BackboneId, tuple[str, str]] = {}
    branches: dict[BackboneId, str] = {}
    for path, part in found:
        backbone = BackboneId(part.digest, part.reading)
        source = str(path) if part.source == FEATURE_FILES else part.source
        time = str(part.record["provenance"].get("time") or "")
        sources[backbone] = max(sources.get(backbone, ("", "")), (time, source))
        branches[backbone] = str(part.record["provenance"].get("branch") or "")
    labels = short_names({backbone: source for backbone, (_, source) in sources.items()}, branches)
    labels |= _suite_labels(found, labels)
    named = {backbone: replace(backbone, label=label) for backbone, label in labels.items()}
    of_path: dict[Path, list[str]] = defaultdict(list)
    for path, part in found:
        of_path[path].append(part.source)
    return [
        Measurement(
            path,
            part.record,
            named[BackboneId(part.digest, part.reading)],
            part.source,
            tuple(source for source in of_path[path] if source != part.source),
        )
        for path, part in found
    ]


def _suite_labels(found: Sequence[tuple[Path, Part]], others: dict[BackboneId, str]) -> dict[BackboneId, str]:
    """The labels that a suite's user chose, after which it calls the folders below its suite.json; none where
    two backbones would have the same."""
    chosen: dict[BackboneId, str] = {}
    for path, part in found:
        folder = path.absolute().parent
        if (folder.parent / "suite.json").is_file():
            chosen[BackboneId(part.digest, part.reading)] = printable(folder.name)
    count = Counter({**others, **chosen}.values())
    return {backbone: label for backbone, label in chosen.items() if count[label] == 1}


def short_names(sources: dict[BackboneId, str], branches: dict[BackboneId, str]) -> dict[BackboneId, str]:
    """A short name for each backbone, of the file that it came from: the file's name without its ending, or
    with as many folders as tell it from the others'. Backbones of one file have their branch behind it, or
    the beginning of a digest where that does not tell them apart."""
    names: dict[BackboneId, str] = {}
    by_source: dict[str, list[BackboneId]] = defaultdict(list)
    for backbone, source in sources.items():
        by_source[source].append(backbone)
    for source, name in _of_sources(list(by_source)).items():
        backbones = by_source[source]
        count = Counter(branches[backbone] for backbone in backbones)
        for backbone in backbones:
            apart = count[branches[backbone]] == 1 and branches[backbone]
            mark = branches[backbone] if apart else f"{backbone.digest[:6]}-{backbone.reading[:4]}"
            names[backbone] = name if len(backbones) == 1 else f"{name} ({mark})"
    return names


def _of_sources(sources: Sequence[str]) -> dict[str, str]:
    """A name for each source that no other has."""
    names = {source: _tail(source, 1) for source in sources}
    for parts in range(2, max((len(PurePath(source).parts) for source in sources), default=1) + 1):
        count = Counter(names.values())
        for source, name in names.items():
            if count[name] > 1:
                names[source] = _tail(source, parts)
    count = Counter(names.values())
    return {source: name if count[name] == 1 else printable(source) for source, name in names.items()}


def _tail(source: str, parts: int) -> str:
    """The last `parts` parts of a path, without the ending of a file of weights; a name such as
    random:resnet50 is kept as it is, and a file with a plain name has its folder's."""
    if ":" in source.partition("/")[0]:
        return printable(source)
    path = PurePath(source)
    stem = path.name
    for ending in (".tar", ".pth", ".pt", ".ckpt", ".safetensors", ".pkl", ".bin", ".npz", ".json"):
        stem = stem.removesuffix(ending)
    components = [*(part for part in path.parent.parts if part != path.anchor), stem]
    if parts == 1 and stem.lower() in _PLAIN_NAMES and len(components) > 1:
        return printable(components[-2])
    return printable("/".join(components[-parts:]))
