"""Runs the tutorials from top to bottom at full size, each command in a process of its own, and times it.

    make tutorials                                     all that need no cluster
    python scripts/tutorials.py PAGE.md … --folder DIR --images FOLDER --labels few.csv

A tutorial begins in a new folder with my_images, few.csv and new_images: copies of what --images and
--labels name, or pictures of Fashion Scenes. Commands marked "only read" (a cluster, Docker) are not run. The
last line of stdout is one JSON document: the seconds of every command. `run_page` is what tests/docs/ run
with small settings.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from doc_pages import Block, blocks_of, logical_lines
from PIL import Image

from siamtransfer.data.scenes.scenes import FashionScenes

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
RUN = ("first-hour.md", "checkpoint-from-elsewhere.md")
"""The tutorials that run without a cluster."""
PICTURES, SIDE = 600, 96
"""Pictures that are written where --images names none, and their side in pixels."""
LABELLED, NEW = 4, 20
"""Pictures of each class in few.csv, and pictures in new_images."""


@dataclass(frozen=True)
class Done:
    """A command of a page that was run: where it stands, its text, what it printed, its seconds."""

    place: str
    command: str
    out: str
    seconds: float


Runner = Callable[[str, Path], str]
"""Runs a command in a folder, returns what it printed to stdout, and raises where it fails."""


def run_in_shell(command: str, folder: Path) -> str:
    """Runs a command as a user does; `siamtransfer` is the module of this checkout.

    Raises:
        subprocess.CalledProcessError: its status is not 0.
    """
    python = shlex.quote(sys.executable)
    text = f'python() {{ {python} "$@"; }}; siamtransfer() {{ python -m siamtransfer "$@"; }}\n{command}'
    done = subprocess.run(
        ["bash", "-ec", text], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
    )  # fmt: skip
    return done.stdout


def run_page(page: Path, folder: Path, runner: Runner = run_in_shell, *, small: bool = False) -> list[Done]:
    """Runs the commands of a page in their order.

    Args:
        page: a Markdown page.
        folder: where the commands run.
        runner: runs one of them.
        small: do what the page's comments say for a small run.
    """
    done = []
    for block in blocks_of(page):
        for line, command in commands_to_run(block, small=small):
            started = time.monotonic()
            out = runner(command, folder)
            done.append(Done(f"{page.name}:{line}", command, out, time.monotonic() - started))
    return done


def commands_to_run(block: Block, *, small: bool) -> list[tuple[int, str]]:
    """The commands of a block, as a shell takes them, with their lines."""
    directive = block.directive
    if not block.has_commands or (directive is not None and directive.kind == "only read"):
        return []
    if small and directive is not None and directive.kind == "instead":
        return [(block.line, directive.text)]
    more = f" {directive.text}" if small and directive is not None and directive.kind == "add" else ""
    return [(line, command + more) for line, command in logical_lines(block)]


def write_pictures(folder: Path, count: int = PICTURES, side: int = SIDE) -> None:
    """Writes what a tutorial begins with: my_images, few.csv with labels of some of them, and new_images."""
    rows: list[tuple[str, str]] = []
    for name, split, number in (("my_images", "train", count), ("new_images", "test", NEW)):
        scenes = FashionScenes(split, side, number, 0)
        assert scenes.labels is not None
        (folder / name).mkdir(parents=True)
        for index, (pixels, label) in enumerate(zip(scenes.pixels, scenes.labels, strict=True)):
            Image.fromarray(pixels).save(folder / name / f"{index:04}.png")
            if split == "train":
                rows.append((f"{index:04}.png", scenes.classes[label]))
    few = [row for label in scenes.classes for row in [row for row in rows if row[1] == label][:LABELLED]]
    with (folder / "few.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *few])


def copy_images(folder: Path, images: Path, labels: Path | None) -> None:
    """Copies a folder of images, which are the new ones too, and a table of labels to a tutorial's folder."""
    for name in ("my_images", "new_images"):
        shutil.copytree(images, folder / name)
    if labels is not None:
        shutil.copy(labels, folder / "few.csv")


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs the pages, and prints the seconds of every command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path, help="pages (default: the tutorials)")
    parser.add_argument("--folder", type=Path, default=Path("runs/tutorials"), help="new folder to work in")
    parser.add_argument("--images", type=Path, help="folder of images that becomes my_images")
    parser.add_argument("--labels", type=Path, help="table of a few labels that becomes few.csv")
    parser.add_argument("--small", action="store_true", help="do what the pages' comments say for tests")
    options = parser.parse_args(arguments)
    found: dict[str, list[dict[str, object]]] = {}
    for page in options.pages or [TUTORIALS / name for name in RUN]:
        folder = options.folder / page.stem
        folder.mkdir(parents=True)
        if options.images is None:
            write_pictures(folder)
        else:
            copy_images(folder, options.images, options.labels)
        done = run_page(page, folder, small=options.small)
        found[page.name] = [
            {key: value for key, value in asdict(one).items() if key != "out"} for one in done
        ]
        for one in done:
            print(f"{one.seconds:8.1f} s  {one.place}  {one.command}")
    print(json.dumps({"task": "tutorials", "pages": found}))


if __name__ == "__main__":
    main()
