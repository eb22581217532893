"""The index of a tar shard: where each image begins, and its label.

The index lies beside the shard under the shard's name and `.index`. It holds the size of the shard and the
time of its last change; where either differs, the shard is read again and the index written anew. Layout: a
line that names the format, the SHA-256 of the rest in hexadecimal, a line feed, and an .npz.

A sample is what has the same name up to the first dot after the last slash, as in WebDataset: `KEY.jpg` with,
for its label, `KEY.cls`, `KEY.json` (its key label, cls or class) or `KEY.txt`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from siamtransfer.data.containers.contained import require_ordinary
from siamtransfer.data.listing import STAT_THREADS, PathTable, has_image_ending, is_hidden
from siamtransfer.data.sizes import reason_of
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable

FORMAT = b"siamtransfer tar index 1\n"
BLOCK = 512  # of a tar file
PADDING = 20 * BLOCK  # zeros that a writer may append after the end mark
LABEL_KINDS = ("cls", "json", "txt")  # the first that every sample has is taken
JSON_KEYS = ("label", "cls", "class")
LONGEST_LABEL = 256  # bytes; a longer text is a caption
LARGEST_LABEL = 2**24  # bytes of a file beside an image, in which the label may be one of many values
DIGEST = 64  # hexadecimal digits of SHA-256


@dataclass
class ShardIndex:
    """The N images of a shard, in its order.

    Attributes:
        names: their names in the shard.
        offsets, sizes: int64[N], where the bytes of each begin, and how many they are.
        headers: uint32[N], the CRC-32 of the tar header before each, by which a shard that was replaced
        shows. kind: where the labels come from, one of LABEL_KINDS; empty without labels.
        labels: the labels as text, N or none.
        skipped: other files in the shard, and one of them.
    """

    names: PathTable
    offsets: np.ndarray
    sizes: np.ndarray
    headers: np.ndarray
    kind: str
    labels: PathTable
    skipped: int = 0
    skipped_example: str = ""


def read_indices(shards: Sequence[Path]) -> list[ShardIndex]:
    """The index of each shard, from the file beside it or, where that is missing, older or damaged, from the
    shard; then it is written if the folder can be written.

    Raises:
        UserError: a shard cannot be read, is truncated, compressed or no tar file, a name stands twice, or
            a part of the samples has a label.
    """
    stamps = [stamp_of(shard) for shard in shards]
    indices: dict[int, ShardIndex] = {}
    reasons: dict[int, str] = {}
    for number, (shard, stamp) in enumerate(zip(shards, stamps, strict=True)):
        try:
            indices[number] = _load(index_path(shard), stamp)
        except FileNotFoundError:
            reasons[number] = "there is none yet"
        except Exception as error:  # NumPy and zipfile raise errors of many types for damaged files
            reasons[number] = str(error)
    if reasons:
        first = min(reasons)
        say(
            f"reading {len(reasons)} of {len(shards)} shards in {printable(shards[0].parent)} to index them "
            f"({printable(index_path(shards[first]).name)}: {reasons[first]})"
        )
    with ThreadPoolExecutor(STAT_THREADS) as pool:  # a network file system answers many requests at once
        scanned = pool.map(scan, [shards[number] for number in reasons])
        indices |= dict(zip(reasons, scanned, strict=True))
    for number in reasons:
        with contextlib.suppress(UserError):  # a read-only folder: the index is made again at the next start
            write_index(shards[number], indices[number], stamps[number])
    return [indices[number] for number in range(len(shards))]


def stamp_of(shard: Path) -> np.ndarray:
    """int64[2]: the size of a shard and the time of its last change in nanoseconds; raises UserError."""
    try:
        status = shard.stat()
    except OSError as error:
        raise UserError(f"cannot read the shard {printable(shard)} ({error.strerror}); check it") from error
    return np.array([status.st_size, status.st_mtime_ns], dtype=np.int64)


def index_path(shard: Path) -> Path:
    """The file that holds the index of a shard."""
    return shard.with_name(shard.name + ".index")


def write_index(shard: Path, index: ShardIndex, stamp: np.ndarray) -> None:
    """Writes the index beside its shard; `stamp` is int64[2], size and time of last change of the shard."""
    content = io.BytesIO()
    np.savez(
        content,
        stamp=stamp,
        names=index.names.buffer,
        name_ends=index.names.ends,
        offsets=index.offsets,
        sizes=index.sizes,
        headers=index.headers,
        kind=np.array(index.kind),
        labels=index.labels.buffer,
        label_ends=index.labels.ends,
        skipped=np.array([index.skipped]),
        skipped_example=np.array(index.skipped_example),
    )
    payload = content.getvalue()
    with atomic_write(index_path(shard)) as file:
        file.write(FORMAT + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def _load(path: Path, stamp: np.ndarray) -> ShardIndex:
    data = path.read_bytes()
    head = len(FORMAT) + DIGEST + 1
    if not data.startswith(FORMAT):
        raise ValueError("it has another format")
    if hashlib.sha256(data[head:]).hexdigest().encode() != data[len(FORMAT) : head - 1]:
        raise ValueError("it is damaged")
    with np.load(io.BytesIO(data[head:]), allow_pickle=False) as arrays:
        if (arrays["stamp"] != stamp).any():
            raise ValueError("the shard has changed since")
        names, labels = PathTable("", []), PathTable("", [])
        names.buffer, names.ends = arrays["names"], arrays["name_ends"]
        labels.buffer, labels.ends = arrays["labels"], arrays["label_ends"]
        return ShardIndex(
            names,
            arrays["offsets"],
            arrays["sizes"],
            arrays["headers"],
            str(arrays["kind"]),
            labels,
            int(arrays["skipped"][0]),
            str(arrays["skipped_example"]),
        )


@dataclass
class _Scan:
    """What has been seen of a shard so far."""

    shard: Path
    names: list[bytes] = field(default_factory=list)
    numbers: list[tuple[int, int, int]] = field(default_factory=list)  # offset, size, CRC-32 of the header
    keys: dict[str, str] = field(default_factory=dict)  # key -> name of its image
    texts: dict[str, dict[str, bytes]] = field(default_factory=lambda: {kind: {} for kind in LABEL_KINDS})
    skipped: list[str] = field(default_factory=list)

    def add(self, name: str, offset: int, size: int, descriptor: int) -> None:
        """Takes the file `name`, `size` bytes from `offset` on."""
        key, _, ending = key_and_ending(name)
        kind = ending.lower()
        if any(is_hidden(part) for part in PurePosixPath(name).parts):
            return
        if has_image_ending(name):
            if key in self.keys:
                twice = self.keys[key]
                raise UserError(
                    f"the shard {printable(self.shard)} has two images with the key {printable(key)} "
                    f"({printable(twice)} and {printable(name)}); leave one in, or rename one"
                )
            self.keys[key] = name
            self.names.append(os.fsencode(name))
            header = os.pread(descriptor, BLOCK, offset - BLOCK)
            self.numbers.append((offset, size, zlib.crc32(header)))
        elif kind in LABEL_KINDS:
            if key in self.texts[kind]:
                raise UserError(
                    f"the shard {printable(self.shard)} has {printable(name)} twice; leave one in"
                )
            if size > LARGEST_LABEL:
                raise UserError(
                    f"{printable(name)} in the shard {printable(self.shard)} has {size:,} bytes, and a label "
                    f"or a caption has at most {LARGEST_LABEL:,}; take it out"
                )
            self.texts[kind][key] = os.pread(descriptor, size, offset)
        else:
            self.skipped.append(name)

    def index(self) -> ShardIndex:
        """The index of all that was taken."""
        numbers = np.array(self.numbers, dtype=np.int64).reshape(-1, 3)
        kind, labels = self._labels()
        return ShardIndex(
            PathTable("", self.names),
            np.ascontiguousarray(numbers[:, 0]),
            np.ascontiguousarray(numbers[:, 1]),
            numbers[:, 2].astype(np.uint32),
            kind,
            PathTable("", labels),
            len(self.skipped),
            printable(self.skipped[0]) if self.skipped else "",
        )

    def _labels(self) -> tuple[str, list[bytes]]:
        for kind in LABEL_KINDS:
            texts = {key: self._label(kind, key, text) for key, text in self.texts[kind].items()}
            labels = [texts.get(key) for key in self.keys]
            if missing := [key for key, label in zip(self.keys, labels, strict=True) if label is None]:
                if len(missing) == len(labels):
                    continue
                if kind == "txt":  # captions
                    return "", []
                raise UserError(
                    f"{len(missing)} of the {len(labels)} images of the shard {printable(self.shard)} have "
                    f"no label although others have a .{kind} ({printable(first_few(missing))}); give each "
                    "a label"
                )
            return kind, [label for label in labels if label is not None]
        return "", []

    def _label(self, kind: str, key: str, data: bytes) -> bytes | None:
        """The label in a file beside an image; None where it holds none."""
        where = f"{printable(key)}.{kind} in the shard {printable(self.shard)}"
        if kind == "json":
            try:
                values = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where} is no JSON ({error}); mend it or take it out") from error
            found = [values[name] for name in JSON_KEYS if name in values] if isinstance(values, dict) else []
            if not found:
                return None
            if isinstance(found[0], bool) or not isinstance(found[0], int | str):
                raise UserError(f"the label in {where} is neither an integer nor a name; mend it")
            data = str(found[0]).encode()
        data = data.strip()
        if len(data) > LONGEST_LABEL or b"\n" in data:
            if kind == "txt":
                return None
            raise UserError(f"the label in {where} is longer than {LONGEST_LABEL} bytes or a line; mend it")
        return data


def key_and_ending(name: str) -> tuple[str, str, str]:
    """KEY, the dot and the ending of a member's name."""
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.partition(".")
    return folder + slash + stem, dot, ending


def scan(shard: Path) -> ShardIndex:
    """The index of a shard, from its headers and the small files beside the images; raises UserError."""
    found = _Scan(shard)
    require_ordinary(shard)
    try:
        with shard.open("rb") as file:
            _require_plain(shard, file.read(6))
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                before = -1
                while (member := archive.next()) is not None:
                    if member.size < 0 or archive.offset <= before:  # which would go round for ever
                        raise tarfile.ReadError(
                            f"{printable(member.name)} claims to have {member.size} bytes"
                        )
                    before = archive.offset
                    archive.members.clear()  # type: ignore[attr-defined]  # it would grow
                    if member.isreg() and not member.issparse():
                        found.add(
                            member.name.removeprefix("./"), member.offset_data, member.size, file.fileno()
                        )
                    elif not member.isdir():
                        found.skipped.append(member.name)
                end = archive.offset
            _require_end(shard, file.fileno(), end)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read the shard {printable(shard)} ({error.strerror}); check it") from error
    except Exception as error:  # tarfile raises errors of many types for damaged headers
        raise UserError(
            f"the shard {printable(shard)} is truncated, damaged or no tar file ({reason_of(error)}); copy "
            "it again"
        ) from error
    return found.index()


def _require_plain(shard: Path, start: bytes) -> None:
    for magic, name in (
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ):
        if start.startswith(magic):
            raise UserError(
                f"the shard {printable(shard)} is compressed ({name}), so no image in it can be read by "
                f"itself; uncompress it, which costs little space, as JPEGs are compressed already"
            )


def _require_end(shard: Path, descriptor: int, end: int) -> None:
    """tarfile takes a damaged header, and the end of the file, for the end of the archive."""
    tail = os.pread(descriptor, PADDING + 1, end)
    if len(tail) < 2 * BLOCK or any(tail[: 2 * BLOCK]):
        raise UserError(
            f"the shard {printable(shard)} is truncated or damaged at byte {end:,}, where its end mark or "
            "another file should be; copy it again"
        )
    if len(tail) > PADDING or any(tail):
        raise UserError(
            f"the shard {printable(shard)} goes on after its end mark at byte {end:,}; make one shard of "
            "each of the archives in it"
        )
