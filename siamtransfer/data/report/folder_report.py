"""The report of a source of images: everything that is found when each image is read once."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siamtransfer.data.class_tree import unlabelled_splits
from siamtransfer.data.registry import NAMED, open_images
from siamtransfer.data.report.copies import Copies, CopyFinder, Place
from siamtransfer.data.report.examine import Examined, Files, examine
from siamtransfer.data.report.overview import as_record, overview_lines, remarks_of
from siamtransfer.data.report.tally import EXAMPLES, Tally, examples
from siamtransfer.utils.log import say
from siamtransfer.utils.text import printable

SECONDS = 10.0  # between two lines of progress
MOST_UNREADABLE = 0.05  # the usual limit of data.max_unreadable


def open_all_parts(name: str, root: str | Path | None, **options: Any) -> list[Files]:
    """Every part of a set of one's own: those with labels, and those whose folders hold no class folders.

    Raises:
        UserError: see `open_images`.
    """
    find_parts, path = NAMED[name].find_parts, Path(root or ".").expanduser().absolute()
    looks = options.get("parts") != "none" and find_parts is not None
    splits = find_parts(path) if looks and find_parts is not None else []
    sets = [open_images(name, root=root, split=split, **options) for split in splits or ["train"]]
    if looks and name == "folder":
        rest = {key: value for key, value in options.items() if key != "parts"}
        for split, folder in unlabelled_splits(path).items():
            flat = open_images("flat", root=folder, **rest)
            flat.split = split  # type: ignore[misc]
            sets.append(flat)
    return sets  # type: ignore[return-value]


class FolderReport:
    """What is in the parts of a set, image by image.

    Memory: some 60 bytes an image, and the names of what is wrong or odd.
    """

    def __init__(self, sets: Sequence[Files]):
        self.sets = list(sets)
        self.tally = Tally()
        self.problems: dict[str, list[tuple[str, str]]] = {}
        self.copies = Copies([], [])
        self._unreadable = [0] * len(self.sets)

    def examine(self, workers: int) -> None:
        """Reads every image, with progress."""
        finder, total = CopyFinder(), self.images
        began = said = time.perf_counter()
        done = 0
        for part, images in enumerate(self.sets):
            for examined in examine(images, workers):
                self._add(part, examined, finder)
                done += 1
                now = time.perf_counter()
                if now - said > SECONDS:
                    said = now
                    speed = done / (now - began)
                    left = (total - done) / speed
                    say(f"{done:,} of {total:,} images, {speed:.0f} images/s, {left:.0f} s left")
        self.copies = finder.find()

    def _add(self, part: int, examined: Examined, finder: CopyFinder) -> None:
        images = self.sets[part]
        name = self._name(Place(part, examined.index))
        if examined.facts is not None:
            self.tally.add(name, examined.facts, transparent=examined.transparent)
        if examined.status == "readable":
            finder.add(part, examined)
        else:
            self._unreadable[part] += 1
            self.problems.setdefault(examined.status, []).append(
                (images.describe(examined.index), examined.why)
            )

    def lines(self) -> list[str]:
        """The report, a line each."""
        lines = overview_lines(self.sets) + self.tally.lines(decoded=True)
        for status, found in self.problems.items():
            name, why = found[0]
            lines.append(f"{status}: {len(found):,}, such as {printable(name)}: {why}")
        lines += self._copy_lines()
        return lines + [f"remark: {remark}" for remark in remarks_of(self.sets)]

    def _copy_lines(self) -> list[str]:
        lines = []
        for groups, what in (
            (self.copies.same_bytes, "equal files"),
            (self.copies.same_pixels, "equal pixels in different files"),
        ):
            if groups:
                names = [self._name(place) for place in groups[0]]
                count = sum(map(len, groups))
                lines.append(f"{what}: {count:,}, in groups: {len(groups):,}, such as {examples(names)}")
        if leaks := self.leaks:
            pair = [self._name(place) for place in leaks[0]]
            lines.append(
                f"LEAK, images in more than one part: {len(leaks):,}, such as {examples(pair)}; a score on "
                "images that were trained on says little, so take them out of one part"
            )
        if twice := self.two_labels:
            pair = [self._name(place) for place in twice[0]]
            lines.append(f"images in more than one class: {len(twice):,}, such as {examples(pair)}")
        return lines

    @property
    def leaks(self) -> list[list[Place]]:
        """The groups of equal images that lie in more than one part."""
        return [group for group in self.copies.groups if len({place.part for place in group}) > 1]

    @property
    def two_labels(self) -> list[list[Place]]:
        """The groups of equal images with more than one label."""
        return [group for group in self.copies.groups if len(self._labels(group)) > 1]

    def _labels(self, group: Sequence[Place]) -> set[str]:
        found = set()
        for part, index in group:
            images = self.sets[part]
            if images.labels is not None:
                found.add(images.classes[int(images.labels[index])])
        return found

    def _name(self, place: Place) -> str:
        images = self.sets[place.part]
        name = images.relative_name(place.image)
        return f"{images.split}/{name}" if len(self.sets) > 1 else name

    def as_dict(self, *, all_names: bool = False) -> dict[str, Any]:
        """For a record, with EXAMPLES names of each kind, or with all names."""
        most = None if all_names else EXAMPLES
        odd = {what: names[:most] for what, names in self.tally.odd.items()}
        return {
            **as_record(self.sets),
            **self.tally.as_dict(),
            "odd": {
                what: {"images": len(self.tally.odd[what]), "names": names} for what, names in odd.items()
            },
            "problems": {
                status: {
                    "images": len(found),
                    "names": [{"name": name, "why": why} for name, why in found[:most]],
                }
                for status, found in self.problems.items()
            },
            "duplicates": {
                "same_bytes": self._named(self.copies.same_bytes, most),
                "same_pixels": self._named(self.copies.same_pixels, most),
                "in_several_parts": self._named(self.leaks, most),
                "in_several_classes": self._named(self.two_labels, most),
            },
        }

    def _named(self, groups: Sequence[Sequence[Place]], most: int | None) -> dict[str, Any]:
        return {
            "groups": len(groups),
            "images": sum(map(len, groups)),
            "names": [[self._name(place) for place in group] for group in groups[:most]],
        }

    @property
    def images(self) -> int:
        """The images in all parts."""
        return sum(map(len, self.sets))

    @property
    def unreadable(self) -> int:
        """The images that cannot be read."""
        return sum(self._unreadable)

    def share_unreadable(self, part: int) -> float:
        """The share of the images of a part that cannot be read, from 0 to 1."""
        return self._unreadable[part] / len(self.sets[part])

    def metrics(self) -> dict[str, float]:
        """The counts that a record has as numbers."""
        return {
            "inspect/images": float(self.images),
            "inspect/unreadable": float(self.unreadable),
            "inspect/duplicates": float(self.copies.surplus),
            "inspect/in_several_parts": float(len(self.leaks)),
        }


def next_commands(name: str, options: dict[str, Any], report: FolderReport) -> list[str]:
    """Command lines that take the same images, with what lets them leave unreadable ones out."""
    words = [f"--data.name {name}"]
    for key, value in options.items():
        if value is not None:
            words.append(f"--data.{key.replace('_', '-')} {shlex.quote(str(value))}")
    skip = []
    if report.unreadable:
        skip = ["--data.unreadable skip"]
        worst = max(report.share_unreadable(part) for part in range(len(report.sets)))
        if worst > MOST_UNREADABLE:
            words.append(f"--data.max-unreadable {math.ceil(worst * 100) / 100:g}")
    commands = [" ".join(["siamtransfer pretrain", *words])]
    if report.sets[0].labels is not None:
        commands.append(" ".join(["siamtransfer knn CHECKPOINT", *words, *skip]))
    return commands
