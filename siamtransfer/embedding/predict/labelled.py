"""The few labelled images that `predict` learns from: a table of paths and labels, or a labelled source.

Legend: n labelled images, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.data.class_names import in_order, written_alike
from siamtransfer.data.label_table import read_label_table
from siamtransfer.data.pixel_form import OPTIONS
from siamtransfer.data.sources import kind_of_files, open_files
from siamtransfer.embedding.embed import Listing
from siamtransfer.embedding.sources import Part, open_parts
from siamtransfer.embedding.tables.table import Row
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable


@dataclass(frozen=True)
class LabelledImages:
    """Images with one label each.

    Attributes:
        source: the table or folder that the labels come from.
        parts: their sets, with labels and the same classes.
        unlabelled: images of the table without a label, which teach nothing.
    """

    source: str
    parts: list[Part]
    unlabelled: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the K classes."""
        return tuple(self.parts[0].images.classes)


def open_labels(labels: str, images: str, labels_root: str | None, options: dict[str, Any]) -> LabelledImages:
    """Opens what --labels names; paths in a table begin in `labels_root`, else in the folder `images`.

    Raises:
        UserError: the table or folder cannot be read, has no labels or several for an image, has one class
            only, or names that are written alike.
    """
    options = {key: value for key, value in options.items() if key not in ("split", "root", "list_file")}
    if kind_of_files(Path(labels).expanduser()) == "list":
        found = _from_table(Path(labels).expanduser(), images, labels_root, options)
    else:
        if labels_root is not None:
            raise UserError("--labels-root is for a table of labels, and --labels is none: leave it out")
        found = LabelledImages(labels, open_parts(labels, labelled=True, **options))
    _check(found)
    return found


def _from_table(
    table_file: Path, images: str, labels_root: str | None, options: dict[str, Any]
) -> LabelledImages:
    root = Path(labels_root or images).expanduser()
    if labels_root is None and not root.is_dir():
        root = root.parent if root.is_file() and kind_of_files(root) != "zip" else root
    if not root.is_dir():
        raise UserError(
            f"the paths in {printable(table_file)} begin in a folder, and {printable(images)} is none: "
            "name it with --labels-root"
        )
    try:
        table = read_label_table(table_file, root)
    except UserError as error:  # of lists of images, whose folder is another option
        raise UserError(str(error).replace("--data.root", "--labels-root")) from error
    for remark in table.remarks:
        say(f"remark: {remark}")
    if table.labels is None or not any(table.labels):
        raise UserError(
            f"{printable(table_file)} has no labels; a table of labels has a column path and a column label"
        )
    labelled = [(path, label) for path, label in zip(table.paths, table.labels, strict=True) if label]
    classes = in_order(sorted({label for _, label in labelled}))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[label] for _, label in labelled], np.int64)
    opened = open_files(
        table.base,
        [path for path, _ in labelled],
        name="labels",
        labels=labels,
        classes=classes,
        **{key: value for key, value in options.items() if key in OPTIONS},
    )
    return LabelledImages(str(table_file), [Part(opened, table.base)], len(table.labels) - len(labelled))


def _check(found: LabelledImages) -> None:
    where, first = printable(found.source), found.parts[0].images
    if first.labels is None:
        raise UserError(
            f"{where} has no labels: give a table with the columns path and label, or a folder with a folder "
            "for each class"
        )
    if doubt := getattr(first, "doubt", None):
        raise UserError(doubt)
    if first.labels.ndim == 2:
        raise UserError(f"the images of {where} have several labels each; predict takes one an image")
    similar = written_alike(found.classes)
    if similar:
        named = first_few([" and ".join(names) for names in similar])
        raise UserError(
            f"labels in {where} differ only in upper and lower case, blanks, dashes or zeros before a number "
            f"({printable(named)}); give them one name"
        )
    if len(found.classes) < 2:
        raise UserError(
            f"all labels in {where} are {printable(found.classes[0])}; a classifier needs two classes or more"
        )


def require_every_class(rows: list[Row], labelled: LabelledImages, listing: Listing) -> None:
    """Raises UserError where no image of a class can be read."""
    counts = Counter(row.class_name for row in rows)
    gone = [name for name in labelled.classes if not counts[name]]
    if gone:
        reason = (
            f" ({printable(listing.missing[0].path)}: {listing.missing[0].why})" if listing.missing else ""
        )
        raise UserError(
            f"no image with the label {printable(first_few(gone))} in {printable(labelled.source)} can be "
            f"read{reason}; label others, or take the class out"
        )


def require_one_label(rows: list[Row], identities: Sequence[Hashable | None], source: str) -> None:
    """Raises UserError where one file has two labels under two paths, as links make them; `identities` are
    equal for equal files, and None where an image is no file of its own."""
    seen: dict[Hashable, Row] = {}
    for row, identity in zip(rows, identities, strict=True):
        if identity is None:
            continue
        other = seen.setdefault(identity, row)
        if other.class_name != row.class_name:
            paths = f"{printable(other.path)} and {printable(row.path)}"
            labels = f"{printable(str(other.class_name))} and {printable(str(row.class_name))}"
            raise UserError(
                f"{paths} in {printable(source)} are one file with the labels {labels}; leave one of them out"
            )
