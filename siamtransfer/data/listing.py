"""The image files below a folder: fast for a million of them, in the same order on every machine.

A file counts as an image by its ending, in upper or lower case; its content is checked when it is decoded.
Names that begin with a dot (`.DS_Store`, `._a.jpg`, `.ipynb_checkpoints`) and `__MACOSX` are remains of
programs and are skipped. Symbolic links are followed, except to a folder above the link.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from siamtransfer.data.file_kinds import PACKAGES, PLAIN
from siamtransfer.data.name_buffer import NameBuffer
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

ENDINGS = PLAIN | PACKAGES.keys()
ARRAY_ENDINGS = {"npy"}
"""Of arrays, which are images in a set that holds no other: beside images they may be anything."""
MOST_ENDINGS, OTHER_ENDINGS = 100, "(others)"
"""Endings that are counted one by one, and the name of what is beyond."""
MISSING = -1  # the size of a file that is not there, of a link to nothing, and of what is no ordinary file
STAT_THREADS = 16  # a network file system answers many requests at once; for a local disk it is no loss
STAT_CHUNK = 4096


class PathTable:
    """N paths below `root` in one byte buffer, which forked data-loader workers share.

    A list of Python strings takes more than twice the memory, and each worker would get a copy of it, because
    reading a string writes its reference count. `buffer` is uint8[bytes], `ends` int64[N+1]. A path that
    begins with a slash is absolute. Paths that are a NameBuffer stay in its memory.
    """

    def __init__(self, root: str | Path, paths: Sequence[bytes]):
        self.root = str(root)
        names = paths if isinstance(paths, NameBuffer) else NameBuffer(paths)
        self.buffer, self.ends = names.arrays()

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        """The full path of file `index`."""
        path = self.relative(index)
        return path if path.startswith("/") else f"{self.root}/{path}"

    @classmethod
    def joined(cls, tables: Sequence[PathTable]) -> PathTable:
        """The paths of several tables, below the root of the first."""
        table = cls(tables[0].root, [])
        table.buffer = np.concatenate([other.buffer for other in tables])
        counts = np.concatenate([np.diff(other.ends) for other in tables])
        table.ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return table

    def spread(self, count: int) -> PathTable:
        """`count` of the paths, spread evenly over their order."""
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int).tolist()
        return PathTable(self.root, [os.fsencode(self.relative(index)) for index in chosen])

    def relative(self, index: int) -> str:
        """Path `index` as it was given."""
        if not 0 <= index < len(self):
            raise IndexError(f"path {index} of {len(self)}")
        return os.fsdecode(self.buffer[self.ends[index] : self.ends[index + 1]].tobytes())

    def sizes(self) -> np.ndarray:
        """int64[N]: the size in bytes of each file, links followed; MISSING where there is none."""
        return self.sizes_and_times()[:, 0]

    def sizes_and_times(self) -> np.ndarray:
        """int64[N, 2]: the size in bytes of each file and the time of its last change in nanoseconds, links
        followed; MISSING where there is none."""

        root = os.fsencode(self.root)
        found = np.empty((len(self), 2), dtype=np.int64)

        def look_at(start: int) -> None:
            ends = self.ends[start : start + STAT_CHUNK + 1].tolist()
            names = self.buffer[ends[0] : ends[-1]].tobytes()
            paths = (names[one - ends[0] : two - ends[0]] for one, two in pairwise(ends))
            rows = [_size_and_time(path if path[:1] == b"/" else b"%b/%b" % (root, path)) for path in paths]
            found[start : start + len(rows)] = rows

        with ThreadPoolExecutor(STAT_THREADS) as pool:
            deque(pool.map(look_at, range(0, len(self), STAT_CHUNK)), maxlen=0)  # raises what a chunk raised
        return found


class Skipped(NamedTuple):
    """How many files with an ending were skipped, and the first of them."""

    files: int
    example: str


@dataclass
class Listing:
    """The image files below a folder, as relative paths in byte order, and a count of the skipped files.

    `skipped` counts files whose ending is not an image's, sockets and the like, but no hidden files;
    `skipped_endings` counts them by ending (see `ending_of`).
    """

    paths: Sequence[bytes] = field(default_factory=NameBuffer)
    skipped: int = 0
    skipped_example: str = ""
    skipped_endings: dict[str, Skipped] = field(default_factory=dict)

    def skip(self, path: str) -> None:
        """Counts a skipped file."""
        self.skipped += 1
        self.skipped_example = self.skipped_example or printable(path)
        ending = ending_of(path)
        if ending not in self.skipped_endings and len(self.skipped_endings) >= MOST_ENDINGS:
            ending = OTHER_ENDINGS
        self._count(ending, Skipped(1, printable(path)))

    def _count(self, ending: str, skipped: Skipped) -> None:
        before = self.skipped_endings.get(ending, Skipped(0, skipped.example))
        self.skipped_endings[ending] = Skipped(before.files + skipped.files, before.example)

    def skip_all(self, inner: Listing) -> None:
        """Counts the files that another listing skipped."""
        self.skipped += inner.skipped
        self.skipped_example = self.skipped_example or inner.skipped_example
        for ending, skipped in inner.skipped_endings.items():
            self._count(ending, skipped)


class _Folder(NamedTuple):
    """A folder to be listed: its path, what its names begin with, and the identities of it and all above."""

    path: str
    prefix: str
    ancestors: frozenset[tuple[int, int]]


def list_images(
    folder: str | Path, *, nested: bool = True, endings: Set[str] = frozenset(ENDINGS), prefix: str = ""
) -> Listing:
    """Every file with one of these endings in `folder` and, when `nested`, in the folders below it.

    Each path begins with `prefix`. Only the names of one folder at a time are Python's objects.

    Raises:
        UserError: a folder cannot be listed.
    """
    names = NameBuffer()
    listing = Listing(names)
    start = Path(folder).absolute()
    above = frozenset(map(_identity, (start, *start.parents, *start.resolve().parents)))
    pending: list[_Folder | list[bytes]] = [_Folder(str(start), prefix, above)]  # what comes first is last
    while pending:
        piece = pending.pop()
        if isinstance(piece, list):
            names.extend(piece)
        else:
            pending += reversed(_pieces(piece, listing, nested=nested, endings=endings))
    return listing


def _pieces(
    folder: _Folder, listing: Listing, *, nested: bool, endings: Set[str]
) -> list[_Folder | list[bytes]]:
    """The names in a folder, in byte order, and its folders, each in the place of the paths below it."""
    found: list[bytes] = []
    below: dict[bytes, _Folder] = {}
    for entry in _entries(folder.path):
        if is_hidden(entry.name):
            continue
        path = folder.prefix + entry.name
        if _is_folder(entry):
            if nested and (identity := _identity(entry.path)) not in folder.ancestors:
                # no name of a file ends with the slash that the paths below the folder go on with
                key = os.fsencode(f"{path}/")
                below[key] = _Folder(entry.path, f"{path}/", folder.ancestors | {identity})
        elif has_image_ending(entry.name, endings) and _is_file_or_dead_link(entry):
            found.append(os.fsencode(path))
        else:
            listing.skip(entry.path)
    if not below:
        return [sorted(found)]
    pieces: list[_Folder | list[bytes]] = []
    for key in sorted([*found, *below]):
        if key in below:
            pieces.append(below[key])
        elif pieces and isinstance(pieces[-1], list):
            pieces[-1].append(key)
        else:
            pieces.append([key])
    return pieces


def list_folders(folder: str | Path) -> list[str]:
    """The names of the folders directly in `folder` (links included, hidden ones not), sorted.

    Raises:
        UserError: it cannot be listed.
    """
    return sorted(entry.name for entry in _entries(folder) if not is_hidden(entry.name) and _is_folder(entry))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a remain of a program."""
    return name.startswith(".") or name == "__MACOSX"


def ending_of(path: str) -> str:
    """The ending of a file's name in lower case, without its dot; empty where it has none."""
    stem, dot, ending = path.rpartition("/")[2].rpartition(".")
    return ending.lower() if dot and stem else ""


def has_image_ending(name: str, endings: Set[str] = frozenset(ENDINGS)) -> bool:
    """Whether the name has an image's ending."""
    return name.rpartition(".")[2].lower() in endings


def require_folder(root: str | Path) -> Path:
    """The folder as an absolute path.

    Raises:
        UserError: there is no such folder, it is a file, or it cannot be entered.
    """
    path = Path(root).expanduser().absolute()
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return path
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"the folder {printable(path)} does not exist; give the one with the images in --data.root"
        ) from None
    except OSError as error:
        raise _cannot_list(path, error) from error
    raise UserError(f"{printable(path)} is a file; --data.root takes the folder that holds the images")


def require_files(name: str, files: PathTable) -> None:
    """Raises UserError when files that a set lists are not there; names the first."""
    missing = np.flatnonzero(files.sizes() == MISSING)
    if len(missing):
        raise UserError(
            f"{len(missing)} of the {len(files)} images that {name} lists are missing, the first is "
            f"{printable(files[int(missing[0])])}; unpack the whole set again"
        )


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, one by one: an entry takes many times the memory of its name."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise _cannot_list(folder, error) from error


def _identity(folder: str | Path) -> tuple[int, int]:
    """The device and number of a folder, the same for every path to it."""
    try:
        status = Path(folder).stat()
    except OSError as error:
        raise _cannot_list(folder, error) from error
    return status.st_dev, status.st_ino


def _cannot_list(folder: str | Path, error: OSError) -> UserError:
    return UserError(
        f"cannot list the folder {printable(folder)} ({error.strerror}); make it readable or take it out"
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file_or_dead_link(entry: os.DirEntry[str]) -> bool:
    """A link to nothing counts as an image, so that reading it raises an error that names it."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return entry.is_symlink()


def _size_and_time(path: bytes) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 (a Path takes three times as long, a million times)
    except OSError:
        return MISSING, MISSING
    if not stat.S_ISREG(status.st_mode):  # a folder or a pipe that a list names
        return MISSING, MISSING
    return status.st_size, status.st_mtime_ns
