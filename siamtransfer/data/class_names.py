"""The names of classes: their order, and names that are the same to a reader."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

from siamtransfer.utils.text import first_few, printable


def in_order(names: Sequence[str]) -> list[str]:
    """Class names in the order of their labels: as numbers where all of them count classes, else as text.

    ImageNet-V2 has the folders 0 to 999, whose names are the labels. Names of one length, such as 00 to 99,
    have the same order in both ways. A name such as 007 beside 12 is a text: its zeros say that it is one.
    """
    counting = all(name.isascii() and name.isdigit() and str(int(name)) == name for name in names)
    return sorted(names, key=int) if counting else sorted(names)


def same_text(name: str) -> str:
    """The composed form of a name (NFC): macOS writes the names of files decomposed, other systems as they
    were typed, and both look the same."""
    return unicodedata.normalize("NFC", name)


def alike(names: Sequence[str], form: Callable[[str], str]) -> list[list[str]]:
    """The groups of two or more different names that `form` makes equal, sorted."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(form(name), set()).add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def similar_names(names: Sequence[str]) -> list[str]:
    """A remark where classes have names that differ in upper and lower case or blanks only, and so may be one
    class that was written in two ways."""
    pairs = alike(names, lambda name: "".join(same_text(name).casefold().split()))
    if not pairs:
        return []
    named = first_few([" and ".join(group) for group in pairs])
    return [
        f"classes differ in upper and lower case or blanks only ({printable(named)}) and are kept as "
        "different classes; give them one name if they are one"
    ]
