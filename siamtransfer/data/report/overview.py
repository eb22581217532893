"""What the opened parts of a set say without reading images: counts, classes, where labels come from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from siamtransfer.data.containers.contained import ContainedImages
from siamtransfer.data.file_kinds import kind_of_ending
from siamtransfer.data.folders import FileImages
from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.listing import Skipped
from siamtransfer.data.report.facts import facts_of
from siamtransfer.data.report.tally import Tally
from siamtransfer.data.sizes import reason_of
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable

OWN_SETS = {
    "folder": "the names of the folders",
    "flat": "",
    "list": "the list file",
    "zip": "the names of the folders in the archive",
    "shards": "the label files in the shards",
    "parquet": "the column of labels",
    "huggingface": "the column of labels",
}
"""Sets of one's own, and what their labels are taken from."""

SHOWN_CLASSES = 20
SAMPLED, SAMPLE_SECONDS = 200, 1.0
"""Images whose headers are read before a program begins, and the time for it."""
UNEVEN = 10  # times the images of the smallest class, from which the largest is remarked


def is_own(images: object) -> bool:
    """Whether a set is one of the user's files, in folders or containers, and not a published set."""
    return isinstance(images, FileImages | ContainedImages) and images.name in OWN_SETS


_said: set[tuple[str, ...]] = set()
"""The overviews that this process has printed."""


def say_overview(*sets: ImageSet | None) -> None:
    """Prints what the train and test images of one's own are before a program works with them; nothing of
    published and rendered sets, and nothing twice. Reads at most SAMPLED headers, for SAMPLE_SECONDS."""
    own = [images for images in sets if images is not None and is_own(images)]
    if not own:
        return
    lines = overview_lines(own)
    key = (own[0].describe(0), *lines)
    if key in _said:
        return
    _said.add(key)
    for line in lines:
        say(line)
    sample = sample_headers(own[0])
    if sample.unread:
        name, why = sample.unread[0]
        say(
            f"{len(sample.unread)} of the files that were looked at cannot be read, such as "
            f"{printable(name)}: {why} (siamtransfer inspect names all of a folder)"
        )
    if len(sample):
        say(f"of the {len(sample)} headers of {own[0].split} that were looked at:")
        for line in sample.lines(decoded=False):
            say(f"  {line}")
    for remark in remarks_of(own):
        say(f"remark: {remark}")


def overview_lines(sets: Sequence[ImageSet]) -> list[str]:
    """Images of each part, skipped files, and classes, a line each."""
    parts = ", ".join(f"{len(images):,} {images.split}" for images in sets)
    lines = [f"images: {parts} ({sets[0].name})"]
    if skipped := skipped_files(sets):
        what = [f"{entry.files:,} {_ending(ending)}" for ending, entry in skipped.items()]
        lines.append(f"not images by their ending: {first_few(what)}")
        for ending, entry in skipped.items():
            if advice := kind_of_ending(ending).advice:
                lines.append(f"  {printable(entry.example)}: {advice}")
    return lines + class_lines(sets)


def skipped_files(sets: Sequence[ImageSet]) -> dict[str, Skipped]:
    """The files that were no images by their ending, most frequent endings first."""
    skipped: dict[str, Skipped] = {}
    for images in sets:
        for ending, entry in getattr(images, "skipped_endings", {}).items():
            before = skipped.get(ending, Skipped(0, entry.example))
            skipped[ending] = Skipped(before.files + entry.files, before.example)
    return dict(sorted(skipped.items(), key=lambda item: -item[1].files))


def class_lines(sets: Sequence[ImageSet]) -> list[str]:
    """What labels are taken from, and the classes with their images."""
    first = next((images for images in sets if images.labels is not None), None)
    if first is None:
        return ["labels: none; nothing says which class an image is"]
    counts = class_counts(sets)
    source = OWN_SETS.get(first.name, "the set")
    shown = [
        f"{printable(name)} {'/'.join(f'{count:,}' for count in row)}"
        for name, row in list(counts.items())[:SHOWN_CLASSES]
    ]
    more = f" and {len(counts) - len(shown)} more" if len(counts) > len(shown) else ""
    of = "/".join(images.split for images in sets if images.labels is not None)
    lines = [
        f"labels: from {source}",
        f"{len(counts)} class{'es' * (len(counts) != 1)} ({of}): {', '.join(shown)}{more}",
    ]
    train = {name: row[0] for name, row in counts.items() if row[0]}  # numbers as labels may leave some out
    least, most = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    if train[most] >= UNEVEN * train[least]:
        lines.append(
            f"  classes are uneven: {printable(most)} has {train[most]:,} images of {first.split}, "
            f"{printable(least)} {train[least]:,}; accuracy by class is in mean_per_class"
        )
    return lines


def class_counts(sets: Sequence[ImageSet]) -> dict[str, list[int]]:
    """The images of each class in each labelled part."""
    labelled = [images for images in sets if images.labels is not None]
    classes = labelled[0].classes if labelled else ()
    counts: dict[str, list[int]] = {name: [] for name in classes}
    for images in labelled:
        assert images.labels is not None
        numbers = np.bincount(images.labels, minlength=len(classes))
        for name, number in zip(classes, numbers.tolist(), strict=True):
            counts[name].append(number)
    return counts


def remarks_of(sets: Sequence[ImageSet]) -> list[str]:
    """What was remarked on names, classes and parts, each once."""
    return list(dict.fromkeys(remark for images in sets for remark in getattr(images, "set_remarks", ())))


def sample_headers(images: ImageSet) -> Tally:
    """What the headers of some images say, spread over the set."""
    tally = Tally()
    assert isinstance(images, FileImages | ContainedImages)
    end = time.perf_counter() + SAMPLE_SECONDS
    for index in np.unique(np.linspace(0, len(images) - 1, SAMPLED).round().astype(int)).tolist():
        try:
            tally.add(images.relative_name(index), facts_of(images.encoded(index), images.describe(index)))
        except Exception as error:  # readers raise errors of many types for damaged files
            tally.unread.append((images.relative_name(index), reason_of(error)))
        if time.perf_counter() > end:
            break
    return tally


def as_record(sets: Sequence[ImageSet]) -> dict[str, Any]:
    """What a record says of the parts, their classes and the remarks on them."""
    first = next((images for images in sets if images.labels is not None), None)
    skipped = skipped_files(sets)
    return {
        "parts": {images.split: len(images) for images in sets},
        "labels": None if first is None else OWN_SETS.get(first.name, "the set"),
        "classes": class_counts(sets),
        "skipped": {_ending(ending): list(entry) for ending, entry in skipped.items()},
        "remarks": remarks_of(sets),
    }


def _ending(ending: str) -> str:
    return f".{ending}" if ending and not ending.startswith("(") else ending or "without ending"
