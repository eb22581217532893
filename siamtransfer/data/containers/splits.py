"""Which of the files below a folder hold a split."""

from __future__ import annotations

import re
from pathlib import Path

from siamtransfer.data.folders import FOLDERS_OF_SPLITS, SPLIT_FOLDERS
from siamtransfer.data.listing import is_hidden
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

TEST_SPLITS = ("test", "val", "valid", "validation")


def find_files(root: str | Path, split: str, ending: str, what: str) -> tuple[list[Path], str]:
    """The files of a split below `root`, sorted by name, and the name of the split there.

    A file as `root` is the split train. In a folder the files of a split lie in a folder of its name, or have
    names that begin with it (`train.zip`, `train-000000.tar`), in `root` or in `root/data`. Files of which
    none names a split are train. `test` may be `val`, as for folders of images.

    `ending` is that of the files (`.tar`), `what` names them in errors ("tar shards").

    Raises:
        UserError: there is no such file, folder or split.
    """
    path = Path(root).expanduser().absolute()
    if path.is_file():
        if split != "train":
            raise UserError(
                f"{printable(path)} is a single file, which is the split train; name the folder with the "
                f"files of {split} with --data.root"
            )
        return [path], split
    groups = files_of_splits(path, ending)
    for name in SPLIT_FOLDERS.get(split, (split,)):
        if name in groups:
            return groups[name], name
    if groups:
        there = ", ".join(sorted(groups))
        raise UserError(f"{printable(path)} has no split {split}; its splits are {there}")
    raise UserError(
        f"there are no {what} ({ending}) in {printable(path)}; check --data.root"
        if path.is_dir()
        else f"{printable(path)} does not exist; give the folder or file of the {what} with --data.root"
    )


def files_of_splits(root: Path, ending: str) -> dict[str, list[Path]]:
    """The files of every split below a folder; empty where there are none or no folder."""
    groups: dict[str, list[Path]] = {}
    rest: list[Path] = []
    for folder in (root, root / "data"):
        for path in _files(folder, ending):
            match = re.match(rf"({'|'.join(FOLDERS_OF_SPLITS)})(?![a-zA-Z])", path.name)
            if match:
                groups.setdefault(match[1], []).append(path)
            else:
                rest.append(path)
        for name in FOLDERS_OF_SPLITS:
            if files := _files(folder / name, ending):
                groups.setdefault(name, []).extend(files)
    return groups or ({"train": rest} if rest else {})


def test_split(splits: dict[str, list[Path]]) -> str | None:
    """The test or validation split, None where there is none or no train split."""
    return next((name for name in TEST_SPLITS if name in splits), None) if "train" in splits else None


def _files(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.name.endswith(ending) and not is_hidden(path.name)
    )
