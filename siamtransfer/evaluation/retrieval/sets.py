"""Sets of queries and a database, opened by name; every file is looked for before anything is computed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from siamtransfer.data.folders import FileImages
from siamtransfer.data.listing import PathTable, list_images, require_files, require_folder
from siamtransfer.data.pixel_form import RGB, SHOWN, PixelForm, pixel_form
from siamtransfer.evaluation.retrieval.config import RetrievalData
from siamtransfer.evaluation.retrieval.ground_truth import Box, GroundTruth, read_own, read_revisited
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

PUBLISHED = {"roxford5k": (70, 4993), "rparis6k": (70, 6322)}
"""Queries and images of the database (Radenović et al., arXiv 1803.11285)."""
OWN = "folder"


@dataclass
class RetrievalSet:
    """Queries, a database, and which of its images answer them."""

    name: str
    truth: GroundTruth
    queries: FileImages
    database: FileImages
    remarks: list[str] = field(default_factory=list)

    @property
    def boxes(self) -> list[Box | None]:
        """The boxes of the queries, in their order."""
        return [query.box for query in self.truth.queries]


def open_retrieval_set(data: RetrievalData) -> RetrievalSet:
    """Opens the set that the options name.

    Raises:
        UserError: there is no such set, or a file of it is missing or cannot be read; names it.
    """
    assert data.name is not None
    assert data.root is not None
    root = require_folder(data.root)
    if data.name == OWN:
        assert data.queries is not None
        images = [os.fsdecode(path) for path in list_images(root).paths]
        return _with_files(data, root, read_own(Path(data.queries), images), SHOWN)
    if data.name not in PUBLISHED:
        raise UserError(
            f"data.name: there is no set {data.name!r} (there are {', '.join([*PUBLISHED, OWN])})"
        )
    found = _with_files(data, root, read_revisited(_ground_truth_file(root, data.name)), RGB)
    counts, published = (len(found.queries), len(found.database)), PUBLISHED[data.name]
    if counts != published:
        found.remarks.append(
            f"it has {counts[0]} queries and {counts[1]} images instead of {published[0]} and {published[1]}"
        )
    return found


def images_below(folder: str, name: str, form: PixelForm = SHOWN) -> FileImages:
    """All images below a folder, in the byte order of their paths, read in this form.

    Raises:
        UserError: there are none; `name` is the option that names the folder.
    """
    if not Path(folder).expanduser().is_dir():
        raise UserError(f"{name} {printable(folder)} is no folder")
    root = Path(folder).expanduser().absolute()
    listing = list_images(root)
    if not listing.paths:
        raise UserError(f"{name}: there are no images below {printable(root)}")
    images = FileImages(name, "", PathTable(root, listing.paths))
    images.form = form
    return images


def files(name: str, split: str, root: Path, paths: list[str], form: PixelForm) -> FileImages:
    """These images below `root`, read in this form; raises UserError where one is missing."""
    table = PathTable(root, [os.fsencode(path) for path in paths])
    require_files(f"the {split} of {name}", table)
    images = FileImages(name, split, table)
    images.form = form
    return images


def _with_files(data: RetrievalData, root: Path, truth: GroundTruth, usual: PixelForm) -> RetrievalSet:
    assert data.name is not None
    form = pixel_form(
        orientation=data.orientation, background=data.background, max_pixels=data.max_pixels, usual=usual
    )
    queries = files(data.name, "queries", root, [query.image for query in truth.queries], form)
    database = files(data.name, "database", root, truth.database, form)
    return RetrievalSet(data.name, truth, queries, database)


def _ground_truth_file(root: Path, name: str) -> Path:
    for ending in (".pkl", ".json"):
        if (root / f"gnd_{name}{ending}").is_file():
            return root / f"gnd_{name}{ending}"
    inner = root / name
    hint = f": did you mean --data.root {printable(inner)}" if inner.is_dir() else ""
    raise UserError(
        f"there is no gnd_{name}.pkl (or .json) in {printable(root)}{hint}; it comes with the "
        "revisited benchmark and lies beside the folder jpg"
    )
