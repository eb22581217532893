"""Counts over the images of a report: formats, sizes, kinds of pixels, and what is odd."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import numpy as np

from siamtransfer.data.listing import ending_of
from siamtransfer.data.report.facts import FORMATS_OF_ENDINGS, ImageFacts
from siamtransfer.utils.text import first_few, printable

SMALL = 32  # pixels of the shorter side below which little is left to see
EXTREME = 4  # times the shorter side, above which a square crop shows a small part
EXAMPLES = 3  # names that a line has


class Tally:
    """Counts, and the names of images that are odd.

    Memory: eight bytes an image, and the names of the odd ones.
    """

    def __init__(self) -> None:
        self.formats, self.pixels = Counter[str](), Counter[str]()
        self.turned = self.alpha = self.transparent = 0
        self.odd: dict[str, list[str]] = {}
        self.unread: list[tuple[str, str]] = []  # names of files that cannot be read, and why
        self._heights, self._widths = array("l"), array("l")

    def __len__(self) -> int:
        return len(self._heights)

    def add(self, name: str, facts: ImageFacts, *, transparent: bool = False) -> None:
        """Counts an image that is called `name`; `transparent` says that a pixel of it is."""
        self.formats[facts.format] += 1
        self.pixels[facts.pixels] += 1
        self.turned += facts.turned
        self.alpha += facts.alpha
        self.transparent += transparent
        self._heights.append(facts.height)
        self._widths.append(facts.width)
        shorter, longer = sorted((facts.height, facts.width))
        expected = FORMATS_OF_ENDINGS.get(ending_of(name), facts.format)
        for what, holds in (
            (f"smaller than {SMALL} pixels", shorter < SMALL),
            (f"longer than {EXTREME} times their width or height", longer > EXTREME * shorter),
            ("of several pictures, of which the first is read", facts.frames > 1),
            (
                "of another format than their ending says, which is read all the same",
                expected != facts.format,
            ),
        ):
            if holds:
                self.odd.setdefault(what, []).append(name)

    def as_dict(self) -> dict[str, Any]:
        """For a record: counts and sizes; what is odd stands in `odd`."""
        return {
            "looked_at": len(self),
            "formats": dict(self.formats.most_common()),
            "pixels": dict(self.pixels.most_common()),
            "sizes": self._sizes(),
            "turned_by_exif": self.turned,
            "with_alpha": self.alpha,
            "transparent": self.transparent,
        }

    def lines(self, *, decoded: bool) -> list[str]:
        """What a report prints; `decoded` says that the pixels were looked at, too."""
        if not len(self):
            return []
        sizes = self._sizes()
        lines = [
            f"formats: {_counted(self.formats)}",
            f"pixels: {_counted(self.pixels)}",
            f"sizes, width x height: {sizes['smallest']} to {sizes['largest']}, median {sizes['median']}",
        ]
        if self.alpha:
            really = f", with transparent pixels: {self.transparent:,}" if decoded else ""
            lines.append(f"with alpha or a transparent colour: {self.alpha:,}{really}")
        if self.turned:
            lines.append(f"turned by their EXIF orientation: {self.turned:,}")
        lines += [f"{what}: {len(names):,} ({examples(names)})" for what, names in self.odd.items()]
        return lines

    def _sizes(self) -> dict[str, str]:
        """The images of least, median and most pixels, as `width x height`; the median is of each side."""
        if not len(self):
            return {}
        heights, widths = np.array(self._heights), np.array(self._widths)
        order = np.argsort(heights * widths, kind="stable")
        first, last = int(order[0]), int(order[-1])
        return {
            "smallest": f"{widths[first]}x{heights[first]}",
            "median": f"{int(np.median(widths))}x{int(np.median(heights))}",
            "largest": f"{widths[last]}x{heights[last]}",
        }


def examples(names: list[str]) -> str:
    """The first names in a line."""
    more = len(names) - EXAMPLES
    return printable(", ".join(names[:EXAMPLES])) + (f" and {more} more" if more > 0 else "")


def _counted(counts: Counter[str]) -> str:
    return first_few([f"{count:,} {what}" for what, count in counts.most_common()])
