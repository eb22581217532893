"""Says what is in a folder of images before anything is trained on it.

    siamtransfer inspect FOLDER
    siamtransfer inspect FOLDER --out report.json      with all names
    siamtransfer inspect labels.csv --root FOLDER      a list, or a table of labels
    siamtransfer inspect FOLDER --quick                listing and a sample of headers alone

FOLDER is a folder of images, with class folders and parts (train, val, test) or without; a folder of tar
shards, zip archives or parquet files, or one such file; a folder of save_to_disk; or a list. Every image is
read once: broken and empty files, sizes, formats, transparency, equal images and images that are in train
and test are counted and named.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from siamtransfer.cli import Command, run
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say


@dataclass
class InspectOptions:
    """Which images, and how much of them is looked at."""

    common: ClassVar[tuple[str, ...]] = ("folder", "name", "root", "parts", "quick", "out")
    positional: ClassVar[tuple[str, ...]] = ("folder",)
    aliases: ClassVar[dict[str, str]] = {
        f"data.{key}": key for key in ("name", "root", "parts", "channels", "max_pixels", "workers")
    }
    """As the other programs, and the sentences that name a cure, spell them."""

    folder: str | None = None
    """Folder or file of the images, or a list of them."""
    name: Literal["folder", "flat", "list", "shards", "zip", "parquet", "huggingface"] | None = None
    """Kind of set, as --data.name of the other programs; null: found out."""
    root: str | None = None
    """Folder in which the paths of a list begin; null: the list's own."""
    parts: Literal["auto", "none"] | None = None
    """auto or null: folders named train or test are parts of the set; none: they are classes, as all
    folders."""
    channels: int | None = None
    """Channels of the images; null: 3, or what TIFF files of more than four have."""
    max_pixels: int | None = None
    """The most pixels that an image may have; null: 89 million."""
    quick: bool = False
    """Read a sample of headers only, not every image."""
    out: str | None = None
    """Write the report there (OUT.json), with the names of all images that are broken, odd or equal."""
    workers: int | None = None
    """Processes that read; null: one for each CPU, up to 8."""

    def check(self) -> None:
        """Raises UserError where no folder is given, or an option means nothing."""
        if self.folder is None:
            raise UserError("inspect needs a folder or file of images: siamtransfer inspect FOLDER")
        if self.workers is not None and self.workers < 0:
            raise UserError(f"--workers is a number of processes, not {self.workers}")
        if self.out is not None and self.quick:
            raise UserError("--out is for the full report: leave out --quick")
        if self.out is not None and not Path(self.out).expanduser().absolute().parent.is_dir():
            raise UserError(f"--out: the folder of {self.out} does not exist; make it first")


def inspect(options: InspectOptions) -> dict[str, Any]:
    """Prints the report and returns the record."""
    options.check()
    from siamtransfer.data.report.folder_report import FolderReport, next_commands, open_all_parts
    from siamtransfer.data.report.overview import as_record, say_overview
    from siamtransfer.distributed.runtime import cpu_count
    from siamtransfer.records.record import record
    from siamtransfer.utils.files import write_text
    from siamtransfer.utils.strict_json import to_json

    name, root, stated = _source(options)
    refused = None
    try:
        sets = open_all_parts(name, root, **stated)
    except UserError as error:
        if name == "list":  # the paths of a list begin in a folder that other programs call data.root
            raise UserError(str(error).replace("--data.root", "--root")) from error
        if name != "folder":
            raise
        refused, name = str(error), "flat"
        say(f"not read as class folders: {refused}")
        stated.pop("parts", None)
        sets = open_all_parts(name, root, **stated)
    report = FolderReport(sets)
    if options.quick:
        say_overview(*sets)
        found, metrics = as_record(sets), {"inspect/images": float(report.images)}
    else:
        workers = min(8, cpu_count()) if options.workers is None else options.workers
        report.examine(workers)
        for line in report.lines():
            say(line)
        found, metrics = report.as_dict(), report.metrics()
    commands = next_commands(name, {"root": root, **stated}, report)
    say("next:")
    for command in commands:
        say(f"  {command}")
    protocol = {"name": name, "root": root, "quick": options.quick, "refused": refused, **stated}
    result = record("inspect", metrics, protocol, report=found, next=commands)
    if options.out is not None:
        whole = {**result, "provenance": {**result["provenance"], "report": report.as_dict(all_names=True)}}
        write_text(Path(options.out).expanduser(), to_json(whole) + "\n")
        say(f"wrote {options.out}, with all names")
    return result


def _source(options: InspectOptions) -> tuple[str, str | None, dict[str, Any]]:
    """The name of the set, its root and the options that are stated."""
    from siamtransfer.data.sources import kind_of_files
    from siamtransfer.utils.text import printable

    assert options.folder is not None
    path = Path(options.folder).expanduser().absolute()
    name = options.name or kind_of_files(path)
    if name is None:
        raise UserError(
            f"{printable(path)} does not exist; give a folder or file of images"
            if not path.exists()
            else f"{printable(path)} is a single image; give a folder, an archive or a list"
        )
    stated = {key: getattr(options, key) for key in ("parts", "channels", "max_pixels")}
    stated = {key: value for key, value in stated.items() if value is not None}
    if name == "list":
        return name, options.root, {"list_file": str(path), **stated}
    if options.root is not None:
        raise UserError("--root is the folder in which the paths of a list begin: leave it out")
    return name, str(path), stated


main = Command("inspect", InspectOptions, inspect, __doc__)

if __name__ == "__main__":
    run(main)
