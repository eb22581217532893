"""Features of every image of a source, as a table: an .npz, a parquet file or a CSV.

Legend: N images, n of them readable, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from siamtransfer.checkpoints.assumptions import say_assumptions
from siamtransfer.checkpoints.read_backbone import ReadBackbone, load_backbone
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.embedding.config import EmbedConfig, SourceConfig
from siamtransfer.embedding.embedder import PIXELS, Embedder, make_embedder
from siamtransfer.embedding.sources import Part, open_parts, require_one_kind
from siamtransfer.embedding.tables.open_table import open_table
from siamtransfer.embedding.tables.table import Columns, Missing, Row
from siamtransfer.evaluation.labelled_images import count_workers, form_of
from siamtransfer.features.readable import FeatureBlock
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable


@dataclass
class Listing:
    """The images of all splits of a source under one numbering, and those that could not be read so far.

    Attributes:
        stop: whether the first unreadable image ends the pass.
        limit: share of unreadable images above which the pass ends with an error, too.
        offsets: the number that the first image of each split has.
        missing: the unreadable ones so far.
    """

    parts: list[Part]
    stop: bool = False
    limit: float = 1.0
    offsets: list[int] = field(init=False)
    missing: list[Missing] = field(default_factory=list)

    def __post_init__(self) -> None:
        require_one_kind(self.parts)
        lengths = [len(part.images) for part in self.parts]
        self.offsets = [sum(lengths[:number]) for number in range(len(lengths))]

    def __len__(self) -> int:
        """N."""
        return sum(len(part.images) for part in self.parts)

    def paths(self) -> list[str]:
        """The paths of all images, in their order."""
        return [part.path(index) for part in self.parts for index in range(len(part.images))]

    def columns(self) -> Columns:
        """What a table of these images has."""
        paths = self.paths()
        first = self.parts[0].images
        return Columns(
            len(self.parts) > 1,
            None if first.labels is None else first.classes,
            all(map(_is_utf8, paths)),
            max(map(len, paths)),
        )

    def rows(self, number: int, block: FeatureBlock) -> list[Row]:
        """The rows of a block of split `number`; the unreadable images of it are noted and said."""
        part, offset = self.parts[number], self.offsets[number]
        labels = part.images.labels
        for image in block.bad:
            if self.stop:
                raise UnreadableImage(image.where, image.why)
            self.missing.append(Missing(offset + image.index, part.path(image.index), image.why))
        return [
            Row(
                offset + index,
                part.path(index),
                width,
                height,
                split=part.images.split if len(self.parts) > 1 else None,
                label=None if labels is None else labels[index],
                class_name=part.class_of(index),
            )
            for index, (height, width) in zip(block.indices.tolist(), block.sizes.tolist(), strict=True)
        ]

    def settle(self) -> None:
        """Names the first unreadable images at the end of a pass; says nothing where all could be read.

        Raises:
            UserError: no image could be read, or more than the limit could not.
        """
        if not self.missing:
            return
        named = first_few([f"{printable(image.path)} ({image.why})" for image in self.missing])
        if len(self.missing) == len(self):
            raise UserError(f"none of the {len(self)} images can be read: {named}")
        sentence = f"{len(self.missing)} of {len(self)} images cannot be read and are left out: {named}"
        if len(self.missing) > self.limit * len(self):
            raise UserError(f"{sentence}; this is above --data.max-unreadable {self.limit:g}")
        say(sentence)


def open_network(config: SourceConfig) -> tuple[nn.Module | None, ReadBackbone | None]:
    """The backbone that the options name, None for raw pixels; what is assumed of it is said."""
    assert config.checkpoint is not None
    if config.checkpoint == PIXELS:
        return None, None
    module, read = load_backbone(
        config.checkpoint, branch=config.branch, trust_pickle=config.trust_pickle, options=config
    )
    say_assumptions(read)
    return module, read


def listing_of(config: SourceConfig, parts: list[Part]) -> Listing:
    """The listing of these parts with what the options say of unreadable images."""
    return Listing(parts, stop=config.data.unreadable == "stop", limit=config.data.max_unreadable)


def embedder_of(
    config: SourceConfig,
    network: tuple[nn.Module | None, ReadBackbone | None],
    parts: list[Part],
    runtime: Runtime,
) -> Embedder:
    """The embedder that the options describe, for these images."""
    assert config.checkpoint is not None
    return make_embedder(
        config.checkpoint,
        *network,
        [part.images for part in parts],
        runtime,
        layers=config.layers,
        crop=config.crop,
        resize=config.resize,
        batch=config.forward_batch_size,
        workers=count_workers(config.data, parts[0].images, runtime),
    )


def evaluate(config: EmbedConfig, runtime: Runtime) -> Result:
    """Embeds and writes; the metrics are the numbers of rows, of unreadable images and of features.

    Raises:
        UserError: the checkpoint or the images cannot be opened, no image can be read, or the file cannot be
            written.
    """
    assert config.images is not None and config.out is not None
    network = open_network(config)
    parts = open_parts(config.images, **config.source_options())
    embedder = embedder_of(config, network, parts, runtime)
    out = Path(config.out)
    result = write_table(embedder, listing_of(config, parts), config.images, out)
    result.provenance.update(out=printable(out), out_digest=digest_of_file(out))
    return result


def write_table(embedder: Embedder, listing: Listing, source: str, out: Path) -> Result:
    """Embeds the images into a table under `out`; returns what the record in it says."""
    say(f"embedding {len(listing)} images of {printable(source)}")
    columns = listing.columns()
    if not columns.plain_names:
        say("remark: some paths are not UTF-8; docs/EMBEDDING.md says how the file holds them")
    count, dim = 0, 0
    with open_table(out, columns) as table:
        for number, part in enumerate(listing.parts):
            for block in embedder.blocks(part.images):
                rows = listing.rows(number, block)
                if rows:
                    table.add(rows, block.features.numpy())
                    count, dim = count + len(rows), block.features.shape[1]
        listing.settle()
        result = Result(
            "embed",
            {"images": float(count), "unreadable": float(len(listing.missing)), "dim": float(dim)},
            protocol_of(embedder, listing, source),
            provenance_of(embedder, listing),
        )
        table.finish(result.record(), listing.missing)
    say(f"wrote {printable(out)}: {count} rows of {dim} features")
    return result


def protocol_of(embedder: Embedder, listing: Listing, source: str) -> dict[str, Any]:
    """What moves the features, for a record."""
    sets = [part.images for part in listing.parts]
    return {
        "images": printable(source),
        "sets": [f"{images.name}/{images.split}" for images in sets],
        "listed": len(listing),
        **({"classes": list(sets[0].classes)} if sets[0].labels is not None else {}),
        **embedder.settings,
        **form_of(*sets),
    }


def provenance_of(embedder: Embedder, listing: Listing) -> dict[str, Any]:
    """What the features are computed from, for a record."""
    return {
        **embedder.backbone_provenance,
        "fingerprints": [part.images.fingerprint for part in listing.parts],
    }


def _is_utf8(text: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in text)


def embed_all(embedder: Embedder, listing: Listing) -> tuple[list[Row], np.ndarray]:
    """The rows of all readable images, and their features float32[n, D] in memory.

    Raises:
        UserError: no image can be read.
    """
    rows: list[Row] = []
    pieces: list[np.ndarray] = []
    for number, part in enumerate(listing.parts):
        for block in embedder.blocks(part.images):
            rows += listing.rows(number, block)
            if len(block.indices):
                pieces.append(block.features.numpy())
    listing.settle()
    return rows, np.concatenate(pieces)
