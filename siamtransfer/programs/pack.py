"""Packs a set of images into tar shards, which are read from any disk in large pieces.

    siamtransfer pack /data/imagenet /data/imagenet-shards
    siamtransfer pack /data/imagenet /data/imagenet-256 --size 256 --shard-size 500MB
    siamtransfer pack cifar10 /data/cifar10-shards --root /data
    siamtransfer pretrain --config imagenet-resnet50-100ep --data.name shards --data.root /data/imagenet-256

IN is a folder, a zip archive, parquet files, shards, a folder that Hugging Face's save_to_disk wrote, a text
file of paths, or the name of a set. OUT becomes a folder of shards in WebDataset's layout (KEY.jpg, KEY.cls),
each with an index beside it, and classes.txt. Files are copied byte by byte, in order and under their names,
so a run on a folder goes on with shards of it; --size reduces them, which makes another set. Every shard is
read back before it gets its name. Nothing is replaced; --resume goes on with a pack that was stopped.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from siamtransfer.cli import Command, run
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

if TYPE_CHECKING:
    from siamtransfer.data import ImageSet


@dataclass
class PackOptions:
    """Images, and the shards that they become."""

    positional: ClassVar[tuple[str, ...]] = ("source", "out")
    common: ClassVar[tuple[str, ...]] = (
        "source",
        "out",
        "root",
        "split",
        "shard_size",
        "size",
        "quality",
        "resume",
    )

    source: str | None = None
    """IN: a folder, an archive, files or the name of a set."""
    out: str | None = None
    """OUT: a folder for the shards, new or empty."""
    root: str | None = None
    """Folder of a set that is given by its name."""
    split: str | None = None
    """Only this split; null: train, and test or val where there is one."""
    shard_size: str = "1GB"
    """Size of a shard, such as 1GB or 500MB."""
    size: int | None = None
    """Reduce images whose shorter side is larger to this side in pixels; null: keep the files as they are."""
    quality: int = 92
    """JPEG quality of reduced images."""
    max_unreadable: float = 0.05
    """Share of images that may be left out because they cannot be read."""
    max_pixels: int | None = None
    """The most pixels of an image that is reduced; null: 89 million, as in Pillow."""
    threads: int | None = None
    """Threads that read and reduce; null: one a processor, up to 16."""
    resume: bool = False
    """Go on with a pack that was stopped."""

    def check(self) -> None:
        """Raises UserError for a missing argument or a number out of its range."""
        if self.source is None or self.out is None:
            raise UserError("give the images and a new folder: siamtransfer pack IN OUT")
        if self.size is not None and self.size < 1:
            raise UserError(f"--size {self.size} must be at least 1 pixel")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality} must be from 1 to 100")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--threads {self.threads} must be at least 1")
        source, out = Path(self.source).expanduser().resolve(), Path(self.out).expanduser().resolve()
        if source.is_dir() and (out == source or source in out.parents):
            raise UserError(
                f"the shards cannot go into {source}, which holds the images; name a folder elsewhere"
            )


def pack_images(options: PackOptions) -> dict[str, Any]:
    """Packs and returns the record."""
    options.check()
    from siamtransfer.data import open_dataset
    from siamtransfer.data.packing import PackSettings, pack, parse_bytes
    from siamtransfer.features.progress import PassProgress
    from siamtransfer.records.record import record

    assert options.source is not None
    assert options.out is not None
    shard_bytes = parse_bytes(options.shard_size)
    limit: dict[str, Any] = {} if options.max_pixels is None else {"max_pixels": options.max_pixels}
    train, test = open_dataset(options.source, options.root, split=options.split, **limit)
    sets: list[ImageSet] = [train] if test is None else [train, test]
    threads = options.threads or min(16, os.cpu_count() or 1)
    settings = PackSettings(shard_bytes, options.size, options.quality, options.max_unreadable, threads)
    lines: dict[str, PassProgress] = {}

    def progress(split: str, done: int, total: int) -> None:
        lines.setdefault(split, PassProgress(f"packing {split}", total, shown=True)).done(done)

    out = Path(options.out).expanduser().absolute()
    packed = pack(sets, out, settings, resume=options.resume, progress=progress)
    metrics: dict[str, float] = {}
    for split, result in packed.items():
        say(
            f"{split}: {result.images} images, {result.bytes / 1e9:.3f} GB, in {result.shards} shards"
            + (f"; {result.unreadable} left out, being unreadable" if result.unreadable else "")
        )
        metrics |= {f"pack/{split}/{key}": float(value) for key, value in asdict(result).items()}
    protocol = {"shard_size": shard_bytes, "size": options.size, "quality": options.quality}
    say(f"train on them with --data.name shards --data.root {out}")
    return record(
        "pack",
        metrics,
        protocol,
        out=str(out),
        images={images.split: images.fingerprint for images in sets},
    )


main = Command("pack", PackOptions, pack_images, __doc__)

if __name__ == "__main__":
    run(main)
