"""The names of classes: their order, and names that are the same to a reader."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that end or turn a line, control a terminal, or are half a character."""


def in_order(names: Sequence[str]) -> list[str]:
    """Class names in the order of their labels: as numbers where all of them count classes, else as text.

    ImageNet-V2 has the folders 0 to 999, whose names are the labels. Names of one length, such as 00 to 99,
    have the same order in both ways. A name such as 007 beside 12 is a text: its zeros say that it is one.
    """
    counting = all(name.isascii() and name.isdigit() and str(int(name)) == name for name in names)
    return sorted(names, key=int) if counting else sorted(names)


def is_one_line(name: str) -> bool:
    """Whether a name is text in one line. Joiners without width, which Persian and emoji are written with,
    and the blanks of any script belong to text."""
    return not _CONTROLS.search(name)


def same_text(name: str) -> str:
    """The composed form of a name (NFC): macOS writes the names of files decomposed, other systems as they
    were typed, and both look the same."""
    return unicodedata.normalize("NFC", name)


def spelled_out(name: str) -> str:
    """A name and, where letters of it could be written in other bytes, how they are: `café (caf\\xe9)`."""
    shown, codes = printable(name), ascii(name)[1:-1]
    return shown if name.isascii() else f"{shown} ({codes})"


def alike(names: Sequence[str], form: Callable[[str], str]) -> list[list[str]]:
    """The groups of two or more different names that `form` makes equal, sorted."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(form(name), set()).add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def written_alike(names: Sequence[str]) -> list[list[str]]:
    """The groups of different names that are the same but for upper and lower case, blanks, dashes between
    letters and zeros before a number, and so may be one class."""
    return alike(names, _plain)


def similar_names(names: Sequence[str]) -> list[str]:
    """A remark where classes have names that are written alike."""
    pairs = written_alike(names)
    if not pairs:
        return []
    named = first_few([" and ".join(group) for group in pairs])
    return [
        f"classes differ only in upper and lower case, blanks, dashes or zeros before a number "
        f"({printable(named)}) and are kept as different classes; give them one name if they are one"
    ]


def classes_of(filled: Sequence[str], empty: Sequence[str], where: str) -> tuple[list[str], list[str]]:
    """The classes that the folders of a set name, in the order of their labels, and remarks. A folder without
    images is no class.

    Raises:
        UserError: two names look the same.
    """
    if same := alike(filled, same_text):
        raise UserError(
            f"{len(same[0])} folders of {where} have names that look the same, "
            f"{' and '.join(map(spelled_out, same[0]))}, and differ in the bytes of their letters (composed "
            "and decomposed); move the images of one into the other"
        )
    remarks = similar_names(filled)
    if empty:
        remarks.append(
            f"{len(empty)} folders of {where} hold no image and are no classes "
            f"({printable(first_few(empty))})"
        )
    return in_order(filled), remarks


def match_to_train(
    names: Sequence[str], train: Sequence[str], split: str, where: str
) -> tuple[dict[str, int], list[str]]:
    """The label of each class that a part has images of: its position among the classes `train`; and remarks.

    Raises:
        UserError: train has no such class, or two names look the same.
    """
    _, remarks = classes_of(names, [], where)
    exact = {name: label for label, name in enumerate(train)}
    composed = {same_text(name): label for label, name in enumerate(train)}
    labels = {name: exact.get(name, composed.get(same_text(name), -1)) for name in names}
    unknown = [name for name, label in labels.items() if label < 0]
    if unknown:
        raise UserError(_unknown_classes(unknown, names, train, split, where))
    other_bytes = [name for name in names if name not in exact]
    if other_bytes:
        remarks.append(
            f"{len(other_bytes)} classes of {split} ({first_few([*map(spelled_out, other_bytes)])}) have the "
            "names of "
            "train in other bytes of the same letters (composed and decomposed)"
        )
    present = set(labels.values())
    missing = [name for label, name in enumerate(train) if label not in present]
    if missing:
        remarks.append(
            f"{len(missing)} of the {len(train)} classes have no image in {split} "
            f"({printable(first_few(missing))}), so nothing is measured on them"
        )
    return labels, remarks


def _unknown_classes(
    unknown: Sequence[str], names: Sequence[str], train: Sequence[str], split: str, where: str
) -> str:
    first = unknown[0]
    near = next((name for name in train if _plain(name) == _plain(first)), None)
    if near is not None:
        cure = f"train has {printable(near)}, which is written otherwise: give both one name"
    elif len(names) > 1 and all(map(str.isdigit, names)) and not any(map(str.isdigit, train)):
        cure = (
            "they are numbers and the classes of train are names; if a number is the position of a class in "
            "the sorted names (as in ImageNet-V2), rename each folder to that name, or give the set to "
            "robustness as imagenet-v2"
        )
    else:
        cure = f"put images of it into train, or take it out of {split}"
    return (
        f"{split} in {where} has classes that are not among those of train "
        f"({printable(first_few(unknown))}), so nothing was learned of them; {cure}"
    )


def _plain(name: str) -> str:
    """What stays of a name however it is written: without upper case, blanks, dashes between letters and
    zeros before a number."""
    return re.sub(r"\s+|(?<=\w)[\s_-]+(?=\w)|^0+(?=\d)", "", same_text(name).casefold().strip())
