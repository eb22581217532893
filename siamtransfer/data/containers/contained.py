"""What sets of images inside larger files have in common.

An image is read by its index, in any order, so the order of samples, the resumption of a run and the random
numbers of a view are those of a folder. Files are opened when a process first reads from them, never before a
fork: processes that share a file descriptor would share its position.
"""

from __future__ import annotations

import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.data.decode import decode
from siamtransfer.data.folders import CONTENT_LIMIT, fingerprint_of_files
from siamtransfer.data.imageset import fingerprint_of_arrays
from siamtransfer.data.listing import STAT_THREADS, PathTable
from siamtransfer.data.pixel_form import RGB, PixelForm
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.text import printable

OPEN_FILES = 64  # file descriptors that a process keeps; 14 million images are 1,500 shards, a limit is 1,024


class ContainedImages(ABC):
    """N images inside `containers`, as an ImageSet; a subclass reads the bytes of one.

    The fingerprint covers names, sizes, labels and class names, as that of a folder does, and is the same for
    a copy. `content_fingerprint` covers the bytes of the containers or, of large ones, the times of their
    last changes. `form`, `remark` and `set_remarks` are those of `folders.FileImages`.
    """

    image_size: int | None = None
    form: PixelForm = RGB
    remark: str | None = None
    set_remarks: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        split: str,
        containers: Sequence[Path],
        names: PathTable,
        sizes: np.ndarray,
        *,
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
    ):
        self.name, self.split, self.classes, self.labels = name, split, tuple(classes), labels
        self.containers, self.names, self.sizes = [str(path) for path in containers], names, sizes

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The bytes of image `index` as they are stored; raises UnreadableImage."""

    @abstractmethod
    def container_of(self, index: int) -> int:
        """The position in `containers` of the file that holds image `index`."""

    @property
    def channels(self) -> int:
        """C."""
        return self.form.channels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, sizes, labels and class names."""
        return fingerprint_of_files(self.names, self.sizes, self.labels, self.classes, self.form)

    @cached_property
    def content_fingerprint(self) -> str:
        """SHA-256 over the fingerprint and the bytes of the containers; where they are larger than
        CONTENT_LIMIT, over the times of their last changes instead."""
        text = self.fingerprint + self.form.view_text
        status = [Path(path).stat() for path in self.containers]
        if sum(entry.st_size for entry in status) > CONTENT_LIMIT:
            times = np.array([entry.st_mtime_ns for entry in status], dtype=np.int64)
            return fingerprint_of_arrays(times, text=text)
        with ThreadPoolExecutor(STAT_THREADS) as pool:
            digests = list(pool.map(digest_of_file, self.containers))
        return hashlib.sha256("\n".join([text, *digests]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,C]; raises UnreadableImage, or WrongChannels."""
        return decode(self.encoded(index), self.describe(index), self.form)

    def relative_name(self, index: int) -> str:
        """The name of image `index` inside its container."""
        return self.names.relative(index)

    def describe(self, index: int) -> str:
        """The container and the name in it, such as `/data/train-000003.tar:n01440764/x.JPEG`."""
        return printable(f"{self.containers[self.container_of(index)]}:{self.names.relative(index)}")

    def opened(self, index: int) -> io.BytesIO:
        """The file of image `index`; raises UnreadableImage. The container does not stay open."""
        data = self.encoded(index)
        handles = getattr(self, "_handles", None)
        if isinstance(handles, Handles):
            handles.close()
        return io.BytesIO(data)


def require_ordinary(path: Path) -> None:
    """Raises UserError where a container is no ordinary file: a pipe would be waited for without an end."""
    if path.exists() and not path.is_file():
        raise UserError(f"{printable(path)} is no ordinary file; copy the images into one, and name that")


class Handles:
    """File descriptors of a process, opened at their first use; at most OPEN_FILES are kept.

    For one thread. A fork or a copy to another process begins with none.
    """

    def __init__(self, paths: Sequence[str]):
        self.paths = list(paths)
        self._owner, self._open = os.getpid(), OrderedDict[int, int]()

    def read(self, file: int, offset: int, size: int) -> bytes:
        """`size` bytes of file number `file` from `offset` on, fewer at its end; raises OSError."""
        descriptor = self._descriptor(file)
        data = os.pread(descriptor, size, offset)
        while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
            data += more
        return data

    def close(self) -> None:
        """Closes what this process has opened."""
        if self._owner == os.getpid():
            for descriptor in self._open.values():
                os.close(descriptor)
        self._owner, self._open = os.getpid(), OrderedDict()

    def _descriptor(self, file: int) -> int:
        if self._owner != os.getpid():  # after a fork; the parent's descriptors stay its own
            self._owner, self._open = os.getpid(), OrderedDict()
        if file in self._open:
            self._open.move_to_end(file)
            return self._open[file]
        if len(self._open) >= OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        self._open[file] = os.open(self.paths[file], os.O_RDONLY | os.O_CLOEXEC)
        return self._open[file]

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["paths"])  # type: ignore[misc]

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()
