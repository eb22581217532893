"""Copies, images in both train and test, outliers and a coreset of a folder, as lists; nothing is deleted.

Legend: n readable images of the set that is curated.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.embedding.collection import Collection
from siamtransfer.embedding.curate import same_picture
from siamtransfer.embedding.curate.config import CurateConfig
from siamtransfer.embedding.curate.coreset import Coreset, choose
from siamtransfer.embedding.curate.duplicates import (
    Group,
    Link,
    candidates_across,
    candidates_within,
    group,
    links_of,
)
from siamtransfer.embedding.curate.lists import classes_fit, write_list
from siamtransfer.embedding.curate.outliers import Outliers, find_outliers
from siamtransfer.embedding.embed import (
    embedder_of,
    listing_of,
    open_network,
    protocol_of,
    provenance_of,
)
from siamtransfer.embedding.sources import Part, open_parts
from siamtransfer.embedding.tables.csv_table import write_csv
from siamtransfer.evaluation.labelled_images import count_workers
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable

FEWEST = 3  # images that can be told apart as inliers and outliers


@dataclass
class Findings:
    """What was found in a collection, by the numbers of its images.

    Attributes:
        groups: of copies.
        leaks: links of an image of the set and one of the test set, whose number counts after the n.
        unique: the images that are no copy of a kept one.
        clean: those of them that have no copy in the test set.
        outliers: among the unique ones, whose positions it counts; None where there are too few.
        coreset: the chosen images; None where none were asked for.
    """

    groups: list[Group]
    leaks: list[Link]
    unique: np.ndarray
    clean: np.ndarray
    outliers: Outliers | None
    coreset: Coreset | None

    @property
    def outlying(self) -> np.ndarray:
        """int64[m]: the numbers of the outliers, the farthest first."""
        return self.unique[:0] if self.outliers is None else self.unique[self.outliers.rows]


def evaluate(config: CurateConfig, runtime: Runtime) -> Result:
    """Embeds, compares and writes the lists; the metrics are counts.

    Raises:
        UserError: the checkpoint or the images cannot be opened, none can be read, or a file cannot be
            written.
    """
    assert config.images is not None and config.out is not None
    parts, test_parts = open_both(config)
    count = sum(len(part.images) for part in parts)
    if config.coreset > count:
        raise UserError(f"--coreset {config.coreset} is more than the {count} images there are")
    embedder = embedder_of(config, open_network(config), [*parts, *test_parts], runtime)
    say(f"embedding {count} images of {printable(config.images)}")
    collection = Collection.embed(embedder, listing_of(config, parts))
    test = Collection.embed(embedder, listing_of(config, test_parts)) if test_parts else None
    found = find(collection, test, config, count_workers(config.data, parts[0].images, runtime))
    with _all_or_none(Path(config.out)):
        write(Path(config.out), collection, test, found, config)
    metrics = metrics_of(collection, test, found, config)
    protocol = protocol_of(embedder, collection.listing, config.images) | _protocol(config, found)
    if test is not None:
        protocol["against"] = printable(config.against or config.images)
        protocol["against_images"] = len(test.listing)
    provenance = provenance_of(embedder, collection.listing)
    if test is not None:
        provenance["against_fingerprints"] = provenance_of(embedder, test.listing)["fingerprints"]
    return Result("curate", metrics, protocol, {**provenance, "out": printable(config.out)})


@contextlib.contextmanager
def _all_or_none(out: Path) -> Iterator[None]:
    """Takes the lists out of the folder `out` again where one of them cannot be written."""
    try:
        yield
    except BaseException:
        for name in FILES:
            with contextlib.suppress(OSError):
                (out / name).unlink(missing_ok=True)
        raise


def open_both(config: CurateConfig) -> tuple[list[Part], list[Part]]:
    """The parts that are curated, and those of the test set; a set of several splits is its first against the
    others."""
    assert config.images is not None
    options = config.source_options()
    parts = open_parts(config.images, **options)
    if config.against is not None:
        return parts, open_parts(config.against, **options | {"split": None})
    if len(parts) > 1:
        names = " and ".join(part.images.split for part in parts[1:])
        say(
            f"the split {parts[0].images.split} is curated, and compared with {names}; "
            "--split NAME takes one alone"
        )
    return parts[:1], parts[1:]


def find(collection: Collection, test: Collection | None, config: CurateConfig, workers: int) -> Findings:
    """Everything that the options ask for."""
    n = len(collection)
    candidates = candidates_within(collection.features, config.neighbours, config.min_cosine)
    links = links_of([collection], candidates, pixel_check=config.pixel_check, workers=workers)
    groups = group(links, collection)
    leaks: list[Link] = []
    if test is not None:
        across = candidates_across(collection.features, test.features, config.neighbours, config.min_cosine)
        found = links_of([collection, test], across, pixel_check=config.pixel_check, workers=workers)
        leaks = [link for link in found if link.first < n <= link.second]
    copies = {member for each in groups for member in each.members if member != each.kept}
    unique = np.array([number for number in range(n) if number not in copies], dtype=np.int64)
    leaked = {link.first for link in leaks}
    leaked |= {each.kept for each in groups if leaked & set(each.members)}
    clean = np.array([number for number in unique.tolist() if number not in leaked], dtype=np.int64)
    outliers = None
    if len(unique) >= FEWEST:
        k = config.outlier_neighbours
        outliers = find_outliers(collection.features[unique], k, config.outlier_share)
        if outliers.k < k:
            say(f"remark: {len(unique)} different images have {outliers.k} neighbours each, so k is that")
    else:
        say(f"remark: {len(unique)} different images are too few to have outliers")
    findings = Findings(groups, leaks, unique, clean, outliers, None)
    if config.coreset:
        findings.coreset = _choose(collection, findings, config)
    return findings


def _choose(collection: Collection, found: Findings, config: CurateConfig) -> Coreset | None:
    """The coreset of the clean images that are no outliers, or of fewer where there are not so many."""
    pool = np.setdiff1d(found.clean, found.outlying)
    if not len(pool):
        say("remark: no image is left to choose a coreset of")
        return None
    m = min(config.coreset, len(pool))
    if m < config.coreset:
        say(f"remark: {m} images are left without copies and outliers, so the coreset is all of them")
    chosen = choose(collection.features[pool], m, config.coreset_method)
    return Coreset(pool[chosen.rows].tolist(), chosen.nearest)


def metrics_of(
    collection: Collection, test: Collection | None, found: Findings, config: CurateConfig
) -> dict[str, float]:
    """Counts, and how near the coreset is to what it stands for."""
    links = [link for each in found.groups for link in each.links.values()]
    kinds = Counter(link.kind for link in links)
    classes = [{collection.rows[n].class_name for n in each.members} for each in found.groups]
    counts = {
        "images": len(collection),
        "unreadable": len(collection.listing.missing),
        "duplicates": len(links),
        "duplicates/groups": len(found.groups),
        "duplicates/same-file": kinds["same-file"],
        "duplicates/mirrored": kinds["mirrored"],
        "duplicates/groups-of-several-classes": sum(len(names) > 1 for names in classes),
        "outliers": len(found.outlying),
        "kept": len(kept_of(found, config.drop_outliers)),
    }
    if test is not None:
        counts["leaks"] = len({link.first for link in found.leaks})
        counts["leaks/test-images"] = len({link.second for link in found.leaks})
    metrics = {name: float(value) for name, value in counts.items()}
    if found.coreset is not None:
        metrics["coreset"] = float(len(found.coreset.rows))
        metrics["coreset/mean-cosine"] = float(found.coreset.nearest.mean())
        metrics["coreset/lowest-cosine"] = float(found.coreset.nearest.min())
    return metrics


def kept_of(found: Findings, drop_outliers: bool) -> list[int]:
    """The numbers of the images that kept.txt names."""
    left_out = set(found.outlying.tolist()) if drop_outliers else set()
    return [number for number in found.clean.tolist() if number not in left_out]


def write(
    out: Path, collection: Collection, test: Collection | None, found: Findings, config: CurateConfig
) -> None:
    """Writes the lists and tables into the folder `out`, and says what is in them.

    Raises:
        UserError: a file cannot be written.
    """
    rows = collection.rows
    kept = [rows[number] for number in kept_of(found, config.drop_outliers)]
    lists = {"kept.txt": kept}
    if found.coreset is not None:
        lists["coreset.txt"] = [rows[number] for number in found.coreset.rows]
    classes = classes_fit(rows)
    for name, listed in lists.items():
        left_out = write_list(out / name, listed, classes=classes)
        say(f"wrote {printable(out / name)}: {len(listed) - len(left_out)} images")
        if left_out:
            names = first_few([printable(path) for path in left_out])
            say(f"remark: {name} cannot name paths that hold a line break: {names}")
    write_csv(out / "duplicates.csv", DUPLICATES, _duplicate_rows(collection, found))
    copies = sum(len(each.members) - 1 for each in found.groups)
    say(f"wrote {printable(out / 'duplicates.csv')}: copies: {copies}, groups: {len(found.groups)}")
    write_csv(out / "outliers.csv", OUTLIERS, _outlier_rows(collection, found))
    say(f"wrote {printable(out / 'outliers.csv')}: {len(found.outlying)} images")
    if test is not None:
        write_csv(out / "leaks.csv", LEAKS, _leak_rows(collection, test, found))
        say(f"wrote {printable(out / 'leaks.csv')}: {len(found.leaks)} pairs of the two sets")
    if not hasattr(collection.listing.parts[0].images, "path"):
        say("remark: the names are inside an archive or a set, and pretrain reads lists of files only")


FILES = ("kept.txt", "coreset.txt", "duplicates.csv", "outliers.csv", "leaks.csv")
DUPLICATES = (
    "group",
    "kept",
    "path",
    "class",
    "width",
    "height",
    "bytes",
    "copy_of",
    "kind",
    "cosine",
    "pixels",
)
OUTLIERS = ("path", "class", "distance", "score", "nearest")
LEAKS = ("path", "class", "test_path", "test_class", "kind", "cosine", "pixels")


def _duplicate_rows(collection: Collection, found: Findings) -> list[list[Any]]:
    table: list[list[Any]] = []
    for number, each in enumerate(found.groups, 1):
        for member in sorted(each.members, key=lambda member, kept=each.kept: (member != kept, member)):  # type: ignore[misc]
            row, link = collection.rows[member], each.links.get(member)
            cells: list[Any] = [number, "yes" if link is None else "no", row.path, row.class_name]
            cells += [row.width, row.height, collection.contents[member].length]
            if link is None:
                cells += [None] * 4
            else:
                other = link.first + link.second - member
                cells += [collection.rows[other].path, link.kind, link.cosine, link.similarity]
            table.append(cells)
    return table


def _outlier_rows(collection: Collection, found: Findings) -> list[list[Any]]:
    if found.outliers is None:
        return []
    rows, table = collection.rows, list[list[Any]]()
    for position in found.outliers.rows.tolist():
        row = rows[int(found.unique[position])]
        nearest = rows[int(found.unique[found.outliers.nearest[position]])]
        distance, score = (float(v[position]) for v in (found.outliers.distances, found.outliers.scores))
        table.append([row.path, row.class_name, distance, score, nearest.path])
    return table


def _leak_rows(collection: Collection, test: Collection, found: Findings) -> list[list[Any]]:
    table: list[list[Any]] = []
    for link in found.leaks:
        row, other = collection.rows[link.first], test.rows[link.second - len(collection)]
        cells = [row.path, row.class_name, other.path, other.class_name]
        table.append([*cells, link.kind, link.cosine, link.similarity])
    return table


def _protocol(config: CurateConfig, found: Findings) -> dict[str, Any]:
    """What moves the lists, beside the features."""
    check = {
        "similarity": same_picture.ALIKE,
        "largest_difference": same_picture.LARGEST_DIFFERENCE,
        "or_similarity": same_picture.ALIKE_IN_DETAIL,
        "with_largest_difference": same_picture.LITTLE_DIFFERENCE,
        "most_cut": same_picture.MOST_CUT,
    }
    protocol: dict[str, Any] = {
        "neighbours": config.neighbours,
        "min_cosine": config.min_cosine,
        "pixel_check": check if config.pixel_check else None,
        "kept": "the most pixels, then the largest file, then the first",
        "drop_outliers": config.drop_outliers,
    }
    if found.outliers is not None:
        rule = "share" if config.outlier_share else "median + 3.5 robust standard deviations"
        protocol["outliers"] = {
            "distance": f"1 - cosine of neighbour {found.outliers.k}",
            "rule": rule,
            "share": config.outlier_share,
            "limit": found.outliers.limit,
        }
    if found.coreset is not None:
        protocol["coreset"] = {"method": config.coreset_method, "of": "images without copies and outliers"}
    cosines = [
        link.cosine for each in found.groups for link in each.links.values() if link.kind != "same-file"
    ]
    if cosines:
        protocol["cosines_of_copies"] = {"lowest": min(cosines), "median": float(np.median(cosines))}
    return protocol
