"""Which images of a collection are copies of another one, and which of them is kept.

Candidates are pairs of neighbours by their features; the pixels decide (same_picture.py). Pairs that are
linked, also over others, are a group, of which one image is kept.

Legend: n images, P pairs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Literal, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from siamtransfer.embedding.collection import Collection
from siamtransfer.embedding.curate.same_picture import THUMBNAIL, compare, thumbnail
from siamtransfer.evaluation.knn.search import search
from siamtransfer.features.progress import PassProgress
from siamtransfer.utils.log import say
from siamtransfer.utils.workers import worker_init

Kind = Literal["same-file", "same-picture", "mirrored", "near"]
"""same-file: the bytes are equal; same-picture, mirrored: the pixels show it; near: the features alone."""
PAIRS_AT_ONCE = 1024
IMAGES_AT_ONCE = 64


class Candidates(NamedTuple):
    """Pairs of images that may be copies.

    Attributes:
        pairs: int64[P, 2], each pair once, the smaller number first.
        cosines: float32[P].
    """

    pairs: Tensor
    cosines: Tensor


@dataclass(frozen=True)
class Link:
    """A pair of copies: their numbers, cosine, similarity of the pixels (None where they were not compared),
    and what was found."""

    first: int
    second: int
    cosine: float
    similarity: float | None
    kind: Kind


@dataclass(frozen=True)
class Group:
    """Images that are copies of each other.

    Attributes:
        kept: the one that is kept.
        members: all, in their order, with the kept one.
        links: of each other member, the link that says most of it: to the kept one if there is one.
    """

    kept: int
    members: list[int]
    links: dict[int, Link] = field(default_factory=dict)


def candidates_within(features: Tensor, k: int, min_cosine: float | None) -> Candidates:
    """Each of n images with its k nearest among the others (all others where there are fewer)."""
    k = min(k, len(features) - 1)
    if k < 1:
        return Candidates(torch.empty(0, 2, dtype=torch.int64), torch.empty(0))
    own = torch.arange(len(features))
    cosines, found = search(features, features, k, leave_out=own)
    pairs = torch.stack([own[:, None].expand_as(found), found], dim=2).flatten(0, 1)
    return _unique(pairs.sort(dim=1).values, cosines.flatten().float().clamp(-1, 1), min_cosine)


def candidates_across(bank: Tensor, queries: Tensor, k: int, min_cosine: float | None) -> Candidates:
    """Each query with its k nearest of the bank: pairs of a row of the bank and one of the queries, which are
    numbered after the bank."""
    cosines, found = search(bank, queries, min(k, len(bank)))
    numbers = len(bank) + torch.arange(len(queries))[:, None].expand_as(found)
    return _unique(
        torch.stack([found, numbers], dim=2).flatten(0, 1), cosines.flatten().float().clamp(-1, 1), min_cosine
    )


def _unique(pairs: Tensor, cosines: Tensor, min_cosine: float | None) -> Candidates:
    if min_cosine is not None:
        pairs, cosines = pairs[cosines >= min_cosine], cosines[cosines >= min_cosine]
    if not len(pairs):
        return Candidates(pairs, cosines)
    unique, place = torch.unique(pairs, dim=0, return_inverse=True)
    best = torch.full((len(unique),), -torch.inf).scatter_reduce(0, place, cosines, "amax")
    return Candidates(unique, best)


def same_files(collections: Sequence[Collection]) -> list[tuple[int, int]]:
    """Pairs of equal files, numbered over the collections: each with the first that is equal to it, and of
    several collections with the first of each."""
    pairs: list[tuple[int, int]] = []
    firsts: list[dict[bytes, int]] = []
    number = 0
    for collection in collections:
        firsts.append({})
        for content in collection.contents:
            equal = (seen[content.digest] for seen in firsts if content.digest in seen)
            pairs.extend((first, number) for first in equal)
            firsts[-1].setdefault(content.digest, number)
            number += 1
    return pairs


def links_of(
    collections: Sequence[Collection], candidates: Candidates, *, pixel_check: bool, workers: int
) -> list[Link]:
    """The candidates that are copies, and all equal files, ordered by their numbers, which count over the
    collections.

    Raises:
        UserError: an image can no longer be read.
    """
    cosines = {
        (int(first), int(second)): float(cosine)
        for (first, second), cosine in zip(candidates.pairs, candidates.cosines, strict=True)
    }
    links = {(i, j): Link(i, j, cosine, None, "near") for (i, j), cosine in cosines.items()}
    if pixel_check:
        links = _with_pixels(collections, candidates, workers)
    for pair in same_files(collections):
        links[pair] = Link(*pair, cosines.get(pair, 1.0), 1.0, "same-file")
    return [links[pair] for pair in sorted(links)]


def _with_pixels(
    collections: Sequence[Collection], candidates: Candidates, workers: int
) -> dict[tuple[int, int], Link]:
    """The candidates whose pixels show the same picture.

    Thumbnails are kept in a temporary file, so memory does not grow with their number.
    """
    pairs = candidates.pairs
    if not len(pairs):
        return {}
    needed, place = torch.unique(pairs, return_inverse=True)
    links: dict[tuple[int, int], Link] = {}
    with tempfile.TemporaryFile() as file:
        thumbnails = _write_thumbnails(file, collections, needed.tolist(), workers)
        progress = PassProgress("pixels of pairs", len(pairs), shown=True)
        for begin in range(0, len(pairs), PAIRS_AT_ONCE):
            rows = place[begin : begin + PAIRS_AT_ONCE].numpy()
            first, second = (torch.from_numpy(np.array(thumbnails[rows[:, side]])) for side in (0, 1))
            found = compare(first, second)
            for hit in found.same.nonzero()[:, 0].tolist():
                pair = (int(pairs[begin + hit, 0]), int(pairs[begin + hit, 1]))
                kind: Kind = "mirrored" if bool(found.mirrored[hit]) else "same-picture"
                links[pair] = Link(
                    *pair, float(candidates.cosines[begin + hit]), float(found.whole[hit]), kind
                )
            progress.done(begin + len(rows))
    return links


def _write_thumbnails(
    file: IO[bytes], collections: Sequence[Collection], numbers: list[int], workers: int
) -> np.memmap:
    """uint8[len(numbers), C, S, S] in a file: the thumbnails of the images with these numbers."""
    say(f"comparing the pixels of {len(numbers)} images with their neighbours'")
    loader = DataLoader(
        _Thumbnails(collections, numbers),
        batch_size=IMAGES_AT_ONCE,
        num_workers=workers,
        worker_init_fn=worker_init() if workers else None,
    )
    written: np.memmap | None = None
    for number, batch in enumerate(loader):
        if written is None:
            shape = (len(numbers), batch.shape[1], THUMBNAIL, THUMBNAIL)
            written = np.memmap(file, np.uint8, "w+", shape=shape)
        begin = number * IMAGES_AT_ONCE
        written[begin : begin + len(batch)] = batch.numpy()
    assert written is not None
    return written


class _Thumbnails(Dataset[Tensor]):
    """The thumbnails of images of several collections, by their numbers over all."""

    def __init__(self, collections: Sequence[Collection], numbers: list[int]):
        self.collections, self.numbers = collections, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> Tensor:
        number = self.numbers[row]
        for collection in self.collections:
            if number < len(collection):
                return thumbnail(collection.image(number))
            number -= len(collection)
        raise IndexError(row)


def group(links: Sequence[Link], collection: Collection) -> list[Group]:
    """The groups of linked images, by the first member.

    Kept is the image of the most pixels; of equally many, that of the largest file; and then the first.
    """
    if not links:
        return []
    n = len(collection)
    ends = np.array([(link.first, link.second) for link in links])
    graph = coo_array((np.ones(len(links)), (ends[:, 0], ends[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    members: dict[int, list[int]] = {}
    for number in np.unique(ends).tolist():
        members.setdefault(int(component[number]), []).append(number)
    by_component: dict[int, list[Link]] = {}
    for link in links:
        by_component.setdefault(int(component[link.first]), []).append(link)
    return [_group(numbers, by_component[key], collection) for key, numbers in members.items()]


def _group(members: list[int], links: list[Link], collection: Collection) -> Group:
    def quality(number: int) -> tuple[int, int, int]:
        row = collection.rows[number]
        return row.width * row.height, collection.contents[number].length, -number

    kept = max(members, key=quality)

    def weight(number: int, link: Link) -> tuple[bool, bool, float]:
        return kept in (link.first, link.second), link.kind == "same-file", link.similarity or link.cosine

    best: dict[int, Link] = {}
    for link in links:
        for number in (link.first, link.second):
            if number != kept and (number not in best or weight(number, link) > weight(number, best[number])):
                best[number] = link
    return Group(kept, members, best)
