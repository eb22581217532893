"""Labels for images from a few given ones: learn a head, or take a kept one, and write a table.

Legend: N images, n of them labelled, K classes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.embedding.config import PredictConfig
from siamtransfer.embedding.embed import (
    Listing,
    embed_all,
    embedder_of,
    listing_of,
    open_network,
    protocol_of,
    provenance_of,
)
from siamtransfer.embedding.embedder import Embedder
from siamtransfer.embedding.predict.belonging import embedder_of_head, facts_of
from siamtransfer.embedding.predict.estimate import Estimate, estimate
from siamtransfer.embedding.predict.head import Head, own_distances, threshold_of
from siamtransfer.embedding.predict.head_file import read_head, write_head
from siamtransfer.embedding.predict.labelled import (
    LabelledImages,
    open_labels,
    require_every_class,
    require_one_label,
)
from siamtransfer.embedding.predict.labels_table import LabelRow, labels_table
from siamtransfer.embedding.predict.probe import fit_probe
from siamtransfer.embedding.sources import Part, open_parts
from siamtransfer.embedding.tables.table import Row
from siamtransfer.metrics.temperature import probabilities
from siamtransfer.metrics.unit_rows import unit_rows
from siamtransfer.records.result import Result
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable

Identity = tuple[int, int]
"""The device and number of a file, the same for every path to it."""


@dataclass(frozen=True)
class Given:
    """What is known of a labelled image.

    Attributes:
        label: its class, an index.
        probabilities: float64[K] by the classifiers that have not seen it; None where it was never held out.
        distance: to the nearest other labelled image.
    """

    label: int
    probabilities: np.ndarray | None
    distance: float


@dataclass(frozen=True)
class Learnt:
    """A head, what it was learnt from, and what is to be expected of it."""

    head: Head
    given: dict[Identity, Given] = field(default_factory=dict)
    estimate: Estimate | None = None


def evaluate(config: PredictConfig, runtime: Runtime) -> Result:
    """Learns or reads a head, labels all images, and writes them.

    Raises:
        UserError: labels, checkpoint, head or images cannot be used together; says why.
    """
    assert config.images is not None and config.out is not None
    out = Path(config.out)
    if config.head_file is not None:
        head = read_head(config.head_file)
        parts = open_parts(config.images, **config.source_options())
        embedder, learnt = embedder_of_head(head, config, parts, runtime), Learnt(head)
        known = first_few(_shown(head.classes))
        say(f"{printable(config.head_file)} knows {len(head.classes)} classes: {known}")
    else:
        assert config.labels is not None
        labelled = open_labels(config.labels, config.images, config.labels_root, config.source_options())
        parts = open_parts(config.images, **config.source_options())
        embedder = embedder_of(config, open_network(config), [*labelled.parts, *parts], runtime)
        learnt = learn(labelled, embedder, config)
        if config.save_head is not None:
            write_head(learnt.head, Path(config.save_head))
            say(f"kept what was learnt as {printable(config.save_head)}")
    result = write_labels(learnt, embedder, listing_of(config, parts), config.images, out)
    result.provenance.update(out=printable(out), out_digest=digest_of_file(out))
    if config.save_head is not None:
        result.provenance["head_digest"] = digest_of_file(config.save_head)
    return result


def learn(labelled: LabelledImages, embedder: Embedder, config: PredictConfig) -> Learnt:
    """Learns a head from labelled images, and says what is to be expected of it.

    Raises:
        UserError: no image of some class can be read, or one file has two labels.
    """
    listing = Listing(labelled.parts, stop=config.data.unreadable == "stop")
    rows, values = embed_all(embedder, listing)
    require_every_class(rows, labelled, listing)
    identities = _identities(listing, [row.index for row in rows])
    require_one_label(rows, identities, labelled.source)
    classes = labelled.classes
    features = torch.from_numpy(values)
    labels = np.array([row.label for row in rows], np.int64)
    counts = np.bincount(labels, minlength=len(classes))
    named = [f"{name} ({count})" for name, count in zip(_shown(classes), counts.tolist(), strict=True)]
    without = f"; {labelled.unlabelled} images of the table have no label" if labelled.unlabelled else ""
    say(f"{len(rows)} labels of {len(classes)} classes: {first_few(named)}{without}")
    fitted = fit_probe(features, labels, len(classes), seed=config.seed)
    say(_sentence_of_kind(fitted.probe.kind, fitted.probe.strength))
    expected = estimate(fitted, labels, len(classes))
    for sentence in expected.sentences(len(rows)):
        say(sentence)
    unit = unit_rows(features, torch.float32)
    distances = own_distances(unit)
    threshold = threshold_of(distances, config.unknown_quantile)
    p = probabilities(fitted.scores, fitted.temperature)
    given = {
        identity: Given(int(labels[row]), p[row] if fitted.held_out[row] else None, float(distances[row]))
        for row, identity in enumerate(identities)
        if identity is not None
    }
    facts = {
        **facts_of(config, embedder, labelled.parts[0]),
        "calibrated": fitted.calibrated,
        "unknown_quantile": config.unknown_quantile,
        "estimate": {"images": expected.images, **expected.metrics()},
        "labelled_images": [{"path": row.path, "label": row.class_name} for row in rows],
        "labelled_fingerprints": [part.images.fingerprint for part in labelled.parts],
    }
    head = Head(fitted.probe, classes, fitted.temperature, unit, threshold, facts)
    return Learnt(head, given, expected)


def write_labels(learnt: Learnt, embedder: Embedder, listing: Listing, source: str, out: Path) -> Result:
    """Labels all images into a table under `out`; returns what the record beside it says."""
    say(f"labelling {len(listing)} images of {printable(source)}")
    head, counts = learnt.head, Counter[str]()
    numbers = {"images": 0, "given": 0, "unknown": 0}
    with labels_table(out, head.classes, several_splits=len(listing.parts) > 1) as table:
        for row, labelled in label_all(learnt, embedder, listing):
            table.add(row, labelled)
            numbers["images"] += 1
            numbers["given"] += labelled.given
            numbers["unknown"] += labelled.unknown and not labelled.given
            counts[head.classes[labelled.label]] += not (labelled.unknown or labelled.given)
        result = Result(
            "predict",
            {
                **{f"predict/{name}": float(value) for name, value in numbers.items()},
                "predict/unreadable": float(len(listing.missing)),
                "predict/labels": float(len(head.labelled)),
                **(learnt.estimate.metrics() if learnt.estimate else {}),
            },
            {**protocol_of(embedder, listing, source), **_protocol_of_head(head)},
            {**provenance_of(embedder, listing), "labelled": head.facts["labelled_fingerprints"]},
        )
        table.finish(result.record(), listing.missing)
    named = [f"{printable(name)} {count}" for name, count in counts.most_common() if count]
    say(
        f"wrote {printable(out)}: {numbers['images']} images, {numbers['given']} of them with a given label; "
        f"new labels: {first_few(named) or 'none'}; unknown: {numbers['unknown']}"
    )
    return result


def label_all(learnt: Learnt, embedder: Embedder, listing: Listing) -> Iterator[tuple[Row, LabelRow]]:
    """Every readable image of a listing in its order, and what is said of it.

    Raises:
        UserError: at the end, where no image or too few of them could be read.
    """
    for number, part in enumerate(listing.parts):
        for block in embedder.blocks(part.images):
            rows = listing.rows(number, block)
            if not rows:
                continue
            p, distances = learnt.head.label(block.features)
            known = [_given_of(part, index, learnt.given) for index in block.indices.tolist()]
            for row, own, distance, given in zip(rows, p, distances.tolist(), known, strict=True):
                yield row, _label_row(own, distance, given, learnt.head)
    listing.settle()


def _label_row(own: np.ndarray, distance: float, given: Given | None, head: Head) -> LabelRow:
    """The row of an image with probabilities float64[K]; of a labelled one those of cross-validation."""
    if given is None:
        return LabelRow(int(own.argmax()), False, own, distance > head.threshold, distance)
    return LabelRow(given.label, True, given.probabilities, given.distance > head.threshold, given.distance)


def _protocol_of_head(head: Head) -> dict[str, Any]:
    probe = head.probe
    return {
        "classes": list(head.classes),
        "classifier": _sentence_of_kind(probe.kind, probe.strength),
        "temperature": head.temperature,
        "calibrated": head.facts["calibrated"],
        "unknown_quantile": head.facts["unknown_quantile"],
        "unknown_distance": head.threshold,
        "head_estimate": head.facts["estimate"],
    }


def _sentence_of_kind(kind: str, strength: float | None) -> str:
    if kind == "class-mean":
        return "classifier: the nearest class mean, by the cosine of centred features"
    return f"classifier: logistic regression, C = {strength:g}, on centred features of length one"


def _shown(names: tuple[str, ...]) -> list[str]:
    return [printable(name) for name in names]


def _identities(listing: Listing, indices: list[int]) -> list[Identity | None]:
    """The files of images of a listing; None where they are in an archive or in memory."""
    bounds = np.array(listing.offsets)
    found = []
    for index in indices:
        number = int(np.searchsorted(bounds, index, side="right")) - 1
        found.append(_identity(listing.parts[number], index - listing.offsets[number]))
    return found


def _identity(part: Part, index: int) -> Identity | None:
    path = getattr(part.images, "path", None)
    if path is None:
        return None
    try:
        status = os.stat(path(index))  # noqa: PTH116 (names may be surrogates, and there are many)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _given_of(part: Part, index: int, given: dict[Identity, Given]) -> Given | None:
    identity = _identity(part, index) if given else None
    return None if identity is None else given.get(identity)
