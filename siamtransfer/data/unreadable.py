"""Images that cannot be read: the error, the replacement in pretraining, and the count of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few

ATTEMPTS = 16  # images tried for one index, itself included, before the run stops


class UnreadableImage(UserError):
    """One image that cannot be decoded.

    Attributes:
        where: its path or position.
        why: the reason.
    """

    def __init__(self, where: str, why: str | None = None):
        if why is None:  # `where` is what PyTorch passes of the error of a worker process, see UserError
            super().__init__(where)
            sentence = super().__str__()
            where, _, why = sentence.removeprefix(_HEAD).removesuffix(_CURE).rpartition(_BECAUSE)
        super().__init__(where, why)
        self.where, self.why = where, why

    def __str__(self) -> str:
        return f"{_HEAD}{self.where}{_BECAUSE}{self.why}{_CURE}"


_HEAD, _BECAUSE, _CURE = "cannot read the image ", " because ", "; mend the file or take it out of the set"


@dataclass(frozen=True, order=True)
class BadImage:
    """An image of a set that cannot be read: its index, what names it (see `ImageSet.describe`), and why."""

    index: int
    where: str
    why: str


class NothingReadable(UserError):
    """Neither an image nor any of its replacements could be read."""


class WrongChannels(UserError):
    """An image has not the channels of its set. Pretraining replaces no such image: the set is a mixed one,
    or its number of channels was said wrongly."""


class BeyondFound(UserError):
    """An image has values beyond the depth or the range that was found in other files of its set. Pretraining
    replaces no such image: the set needs another depth, and the image is intact."""


Pixels = TypeVar("Pixels", covariant=True)


class Readable(Protocol[Pixels]):
    """A set of what is read by an index: an image, or a row of several."""

    def image(self, index: int) -> Pixels: ...

    def __len__(self) -> int: ...


def read_or_replace(images: Readable[Pixels], index: int) -> tuple[Pixels, int, list[UnreadableImage]]:
    """Image `index`, or another image of the set if it cannot be read.

    The replacement is a pure function of (index, attempt) and the size of the set. It uses no random state,
    so a resumed run and any number of workers and ranks have the same one. For pretraining only: an
    evaluation calls `images.image`, and UnreadableImage stops it.

    Returns the image, its own index, and the failures on the way (empty as a rule).

    Raises:
        NothingReadable: ATTEMPTS images in a row (or the whole set, if smaller) could not be read.
    """
    failures: list[UnreadableImage] = []
    tried: set[int] = set()
    for attempt in range(min(ATTEMPTS, len(images))):
        candidate = index if attempt == 0 else _replacement(index, attempt, len(images), tried)
        try:
            return images.image(candidate), candidate, failures
        except UnreadableImage as failure:
            failures.append(failure)
            tried.add(candidate)
    raise NothingReadable(
        f"{failures[0].where} and the {len(failures) - 1} images tried in its place could all not be read "
        f"(the first because {failures[0].why}); check that the folder really holds images"
    )


def _replacement(index: int, attempt: int, size: int, tried: set[int]) -> int:
    """A hashed index of the set, or the next index that has not been tried."""
    digest = hashlib.blake2b(f"{index} {attempt}".encode(), digest_size=8).digest()
    candidate = int.from_bytes(digest, "little") % size
    while candidate in tried:
        candidate = (candidate + 1) % size
    return candidate


class UnreadableImages:
    """Counts the distinct unreadable files of a run and stops it when they are too large a part of the set.

    `size` is the number of images in the set. `limit`, a fraction from 0 to 1, is `data.max_unreadable`: at 0
    the first bad file stops the run, at 1 none does.
    """

    def __init__(self, size: int, limit: float):
        if not 0 <= limit <= 1:
            raise UserError(f"data.max_unreadable is a fraction from 0 to 1, not {limit}")
        self.size, self.limit = size, limit
        self.reasons: dict[str, str] = {}  # where -> why, in the order of discovery

    @property
    def count(self) -> int:
        """Distinct bad files so far."""
        return len(self.reasons)

    def add(self, where: str, why: str) -> bool:
        """Counts one failure; True if the file is new, so that the caller reports it once.

        Raises:
            UserError: the distinct bad files are now more than `limit` of the set.
        """
        new = where not in self.reasons
        self.reasons.setdefault(where, why)
        if self.count > self.limit * self.size:
            raise UserError(
                f"{self.summary()}; this is above the limit data.max_unreadable = {self.limit:g}: "
                "mend or remove these files, or raise the limit"
            )
        return new

    def add_all(self, failures: Iterable[BadImage]) -> None:
        """Counts failures that are all known at once, so that the error is of the whole number.

        Raises:
            UserError: see `add`.
        """
        last = None
        for last in failures:
            self.reasons.setdefault(last.where, last.why)
        if last is not None:
            self.add(last.where, last.why)

    def summary(self) -> str:
        """One line with count, percentage and the first few files; empty when every image was readable."""
        if not self.reasons:
            return ""
        named = first_few([f"{where} ({why})" for where, why in self.reasons.items()])
        return f"{self.count} of {self.size} images ({self.count / self.size:.2%}) could not be read: {named}"
