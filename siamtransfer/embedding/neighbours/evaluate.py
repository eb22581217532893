"""A query's nearest images by the cosine of their features: a table, a CSV, a picture.

Legend: Q queries, n images that are searched, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.embedding.collection import Collection
from siamtransfer.embedding.embed import (
    embedder_of,
    listing_of,
    open_network,
    protocol_of,
    provenance_of,
)
from siamtransfer.embedding.neighbours.config import NeighboursConfig
from siamtransfer.embedding.sources import open_parts
from siamtransfer.embedding.tables.csv_table import write_csv
from siamtransfer.evaluation.dense.sheet import Cell, Sheet, in_colours
from siamtransfer.evaluation.knn.search import search
from siamtransfer.records.result import Result
from siamtransfer.utils.log import say
from siamtransfer.utils.text import printable

SPARE = 8  # neighbours beyond k that are searched at once, in place of files that are the query itself
PRINTED = 3  # queries whose neighbours are printed
COLUMNS = ("query", "rank", "path", "class", "cosine")


class Neighbour(NamedTuple):
    """A neighbour: its number among the searched images, and the cosine of its features and the query's."""

    row: int
    cosine: float


@dataclass(frozen=True)
class Nearest:
    """The neighbours of a query, nearest first, and how many files are the query itself."""

    neighbours: list[Neighbour]
    identical: int


def evaluate(config: NeighboursConfig, runtime: Runtime) -> Result:
    """Searches, prints and writes; the metrics are counts and the mean cosine of the nearest ones.

    Raises:
        UserError: the checkpoint or the images cannot be opened, none can be read, or a file cannot be
            written.
    """
    assert config.images is not None and config.query is not None
    options = config.source_options()
    parts = open_parts(config.images, **options)
    queries = open_parts(config.query, **options | {"split": None})
    embedder = embedder_of(config, open_network(config), [*parts, *queries], runtime)
    say(f"embedding {sum(len(part.images) for part in parts)} images of {printable(config.images)}")
    asked = Collection.embed(embedder, listing_of(config, queries))
    bank = Collection.embed(embedder, listing_of(config, parts))
    nearest = find_nearest(bank, asked, config.k)
    report(bank, asked, nearest, config)
    listed = {printable(config.query): len(asked.listing), printable(config.images): len(bank.listing)}
    firsts = [found.neighbours[0].cosine for found in nearest if found.neighbours]
    metrics = {
        "queries": float(len(asked)),
        "images": float(len(bank)),
        "unreadable": float(len(bank.listing.missing) + len(asked.listing.missing)),
        "identical": float(sum(found.identical for found in nearest)),
        **({"nearest-cosine": float(np.mean(firsts))} if firsts else {}),
    }
    protocol = protocol_of(embedder, bank.listing, config.images) | {
        "k": config.k,
        "similarity": "cosine",
        "listed": listed,
        "left_out": "files whose bytes are the query's",
    }
    provenance = provenance_of(embedder, bank.listing)
    provenance["query_fingerprints"] = provenance_of(embedder, asked.listing)["fingerprints"]
    return Result("neighbours", metrics, protocol, provenance)


def find_nearest(bank: Collection, queries: Collection, k: int) -> list[Nearest]:
    """The k nearest images of each query that are not the query itself, as a file of the same bytes is; fewer
    where there are not so many."""
    digest = cache(lambda row: bank.content(row).digest)
    count = min(k + SPARE, len(bank))
    while True:
        cosines, found = search(bank.features, queries.features, count)
        answers = []
        for query, (values, rows) in enumerate(
            zip(cosines.clamp(-1, 1).tolist(), found.tolist(), strict=True)
        ):
            own = queries.content(query).digest
            others = [Neighbour(r, c) for r, c in zip(rows, values, strict=True) if digest(r) != own]
            answers.append(Nearest(others[:k], count - len(others)))
        if count == len(bank) or all(len(answer.neighbours) == k for answer in answers):
            return answers
        count = min(2 * count, len(bank))


def report(bank: Collection, queries: Collection, nearest: list[Nearest], config: NeighboursConfig) -> None:
    """Prints the neighbours of the first queries, and writes the table and the picture that are asked for.

    Raises:
        UserError: a file cannot be written.
    """
    for query in range(min(PRINTED, len(queries))):
        found = nearest[query]
        say(f"nearest to {printable(queries.rows[query].path)}:")
        if found.identical:
            say(f"  {found.identical} file{'s' * (found.identical > 1)} equal to it, left out")
        for neighbour in found.neighbours:
            row = bank.rows[neighbour.row]
            name = f"  ({printable(row.class_name)})" if row.class_name is not None else ""
            say(f"  {neighbour.cosine:7.4f}  {printable(row.path)}{name}")
    if len(queries) > PRINTED:
        say(f"and {len(queries) - PRINTED} more queries; --out OUT.csv writes all")
    if min(len(found.neighbours) for found in nearest) < config.k:
        say(f"remark: there are fewer than {config.k} other images, so these are all")
    if config.out is not None:
        write_csv(Path(config.out), COLUMNS, _cells(bank, queries, nearest))
        say(f"wrote {printable(config.out)}: the neighbours of {len(queries)} queries")
    if config.picture is not None:
        _sheet(bank, queries, nearest, config).write(Path(config.picture))
        say(f"wrote {printable(config.picture)}: a row for each query, which comes first")


def _cells(bank: Collection, queries: Collection, nearest: list[Nearest]) -> list[list[object]]:
    return [
        [queries.rows[query].path, rank, bank.rows[row].path, bank.rows[row].class_name, cosine]
        for query, found in enumerate(nearest)
        for rank, (row, cosine) in enumerate(found.neighbours, 1)
    ]


def _sheet(bank: Collection, queries: Collection, nearest: list[Nearest], config: NeighboursConfig) -> Sheet:
    """A row for each query: the query, then its neighbours with name, cosine and class."""
    chosen = np.linspace(0, len(queries) - 1, min(config.rows, len(queries))).round().astype(int)
    rows = []
    for query in chosen.tolist():
        path = queries.rows[query].path
        cells = [Cell(in_colours(queries.image(query)), Path(path).name, note="query", marked=True)]
        for row, cosine in nearest[query].neighbours:
            named = bank.rows[row]
            note = f"{cosine:.3f}" + (f"  {named.class_name}" if named.class_name is not None else "")
            cells.append(Cell(in_colours(bank.image(row)), Path(named.path).name, note=note))
        rows.append(cells)
    head = [
        f"the nearest of {len(bank)} images of {config.images}, by {config.checkpoint}",
        "below each name: the cosine of its features and the query's, and its class if it has one",
    ]
    return Sheet(head, rows)
