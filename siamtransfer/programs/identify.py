"""Says what a checkpoint file is: format, method, branch, architecture, tensors, digest, and how it is read.

    siamtransfer identify CKPT
    siamtransfer identify CKPT --branch student           another backbone of the same file
    siamtransfer identify CKPT --images photographs       ask the batch norms which reading explains them

The file is read as every program here reads it: its format is recognised, every key is accounted for, and
nothing in it is run. A file that cannot be read gives one sentence and status 2.

Each fact of the reading (normalisation, order of channels, stride, stem, dilation, heads) is printed with its
source: the file, a file beside it, its format, or a flag. What nothing states is an assumption. With images
like those of the training, 50 or more, the batch norms' memory is compared with what they see under each
reading: a witness and not a judge (docs/WITNESS.md).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from siamtransfer.checkpoints.options import ReaderOptions
from siamtransfer.cli import Command, run
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

if TYPE_CHECKING:
    from siamtransfer.checkpoints.read_backbone import ReadBackbone
    from siamtransfer.data.imageset import ImageSet
    from siamtransfer.evaluation.norm_witness import WitnessReport


@dataclass
class IdentifyOptions(ReaderOptions):
    """Which backbone of which file, and images to ask its batch norms with."""

    common: ClassVar[tuple[str, ...]] = (
        "checkpoint",
        "branch",
        "images",
        "normalisation",
        "channels",
        "stride_in_1x1",
        "stem",
        "output_stride",
        "heads",
        "architecture",
        "trust_pickle",
    )

    images: str | None = None
    """Folder of images (with or without class folders) like those of the training, or a named set."""
    root: str | None = None
    """Folder of a named set, as --data.root of the evaluators."""

    def check(self) -> None:
        """Raises UserError where no checkpoint is given, or a folder is given for no set."""
        super().check()
        if self.root is not None and self.images is None:
            raise UserError("--root is the folder of a named set: name it with --images")


def identify(options: IdentifyOptions) -> dict[str, Any]:
    """Prints the table and returns the record."""
    options.check()
    from siamtransfer.checkpoints.assumptions import reading_provenance
    from siamtransfer.checkpoints.read_backbone import read_backbone
    from siamtransfer.records.record import record
    from siamtransfer.utils.files import digest_of_file

    assert options.checkpoint is not None
    images = open_witness_images(options) if options.images is not None else None
    with ThreadPoolExecutor(1) as beside:  # both digests of a large file take as long as reading it
        given = Path(options.checkpoint)
        hashed = beside.submit(digest_of_file, given) if given.is_file() else None
        read = read_backbone(
            options.checkpoint, branch=options.branch, trust_pickle=options.trust_pickle, options=options
        )
    digest: str | None = None  # of a folder or a baseline
    if hashed is not None:
        digest = hashed.result()
    elif Path(read.path).is_file():
        digest = digest_of_file(read.path)
    for name, value in describe(read).items():
        say(f"{name:16}{value}")
    say_reading(read)
    provenance: dict[str, Any] = {}
    if images is not None:
        provenance["witness"] = ask_witness(read, images).as_dict()
        provenance["images_fingerprint"] = images.fingerprint
    return record(
        "identify",
        {"tensors": float(len(read.state)), "parameters": float(read.parameters)},
        {"branch": read.branch, "branches": list(read.branches)},
        checkpoint=read.path,
        checkpoint_digest=digest,
        format=read.format,
        method=read.meta.get("method"),
        epochs=read.meta.get("epochs"),
        architecture=read.architecture.as_dict(),
        dropped=read.dropped,
        normalisation=read.normalisation._asdict(),
        **reading_provenance(read),
        weights_digest=read.digest,
        **provenance,
    )


def describe(read: ReadBackbone) -> dict[str, Any]:
    """What a file holds, by the name of each fact."""
    others = [name for name in read.branches if name != read.branch]
    width = "" if read.width is None else f", width {read.width}, {read.stem} stem"
    channels = read.architecture.in_channels
    width += "" if channels == 3 else f", images of {channels} channel{'s' * (channels != 1)}"
    return {
        "file": read.path,
        "format": read.format,
        "method": read.meta.get("method") or "not recorded",
        "epochs": read.meta.get("epochs", "not recorded"),
        "branch": read.branch + (f" (--branch also takes {', '.join(others)})" if others else ""),
        "architecture": read.name + width,
        "tensors": f"{len(read.state)} ({read.used} keys of the file)",
        "parameters": f"{read.parameters / 1e6:.2f} M",
        "left out": ", ".join(f"{count} {rule}" for rule, count in read.dropped.items()) or "nothing",
        "weights digest": read.digest,
    }


def say_reading(read: ReadBackbone) -> None:
    """Prints each fact of the reading with its source, then the assumptions."""
    say("how it is read, and how that is known:")
    for name, fact in read.reading.facts.items():
        value = fact.value
        if name == "normalisation":
            mean, std = ("/".join(f"{number:g}" for number in row) for row in value)
            value = f"mean {mean}, std {std}, of RGB in [0, 1]"
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        say(f"  {name.replace('_', ' '):14}{value}  ({fact.source})")
    for sentence in read.reading.assumptions():
        say(f"note: {sentence}")
    if not read.reading.assumptions():
        say("nothing about the reading was assumed")


def open_witness_images(options: IdentifyOptions) -> ImageSet:
    """The images that --images names.

    Raises:
        UserError: there is no such folder or set.
    """
    from siamtransfer.data import open_images

    assert options.images is not None
    if Path(options.images).is_dir():
        if options.root is not None:
            raise UserError("--images names a folder, so --root means nothing: leave it out")
        return open_images("folder", root=options.images)
    return open_images(options.images, root=options.root)


def ask_witness(read: ReadBackbone, images: ImageSet) -> WitnessReport:
    """Prints what the batch norms say of each reading; returns the report."""
    from siamtransfer.evaluation.norm_witness import explain

    report = explain(read, images)
    say(f"what the batch norms say, asked with {images.name}:")
    for line in report.table():
        say(f"  {line}")
    return report


main = Command("identify", IdentifyOptions, identify, __doc__)

if __name__ == "__main__":
    run(main)
