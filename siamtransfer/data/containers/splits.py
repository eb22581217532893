"""Which of the files below a folder hold a split."""

from __future__ import annotations

from pathlib import Path

from siamtransfer.data.depth import remark_on_set
from siamtransfer.data.listing import is_hidden, list_folders
from siamtransfer.data.parts import TAKEN_FOR, Part, PartsOption, choose_part, part_in, part_of, part_word
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

TEST_SPLITS = ("test", "val", "valid", "validation")


def find_files(
    root: str | Path, split: str, ending: str, what: str, parts: PartsOption = "auto"
) -> tuple[list[Path], str]:
    """The files of a split below `root`, sorted by name, and the name of the split there.

    A file as `root` is the split train. In a folder the files of a split lie in a folder of its name, or
    their names hold it as a word (`train.zip`, `train-000000.tar`, `flowers-Test-0.tar`), in `root` or in
    `root/data`. Files of which none names a split are train, and all files with `parts` "none". `test` may be
    `val`, as for folders of images.

    `ending` is that of the files (`.tar`), `what` names them in errors ("tar shards").

    Raises:
        UserError: there is no such file, folder or split, or the files of one have two names for it.
    """
    path = Path(root).expanduser().absolute()
    if path.is_file():
        if split != "train":
            raise UserError(
                f"{printable(path)} is a single file, which is the split train; name the folder with the "
                f"files of {split} with --data.root"
            )
        return [path], split
    groups = files_of_splits(path, ending, parts)
    part = choose_part(groups, split)
    if part is not None:
        return groups[part], part
    if groups:
        raise UserError(f"{printable(path)} has no split {split}; its splits are {', '.join(groups)}")
    raise UserError(
        f"there are no {what} ({ending}) in {printable(path)}; check the path"
        if path.is_dir()
        else f"{printable(path)} does not exist; give the folder or file of the {what} with --data.root"
    )


def files_of_splits(root: Path, ending: str, parts: PartsOption = "auto") -> dict[Part, list[Path]]:
    """The files of every part below a folder; empty where there are none or no folder.

    Raises:
        UserError: a part has two names.
    """
    groups: dict[Part, list[Path]] = {}
    spelled: dict[Part, dict[str, Path]] = {}
    rest: list[Path] = []

    def add(part: Part | None, name: str, files: list[Path]) -> None:
        if part is None or parts == "none":
            rest.extend(files)
        elif files:
            groups.setdefault(part, []).extend(files)
            spelled.setdefault(part, {}).setdefault(part_word(name), files[0])

    for folder in (root, root / "data"):
        for path in _files(folder, ending):
            name = path.name.removesuffix(ending)
            add(part_in(name), name, [path])
    for name in list_folders(root) if root.is_dir() else []:
        if part_of(name):
            add(part_of(name), name, _files(root / name, ending))
    for part, names in spelled.items():
        if len(names) > 1:
            shown = first_few([printable(path.relative_to(root)) for path in names.values()])
            raise UserError(
                f"{shown} in {printable(root)} all name the part {part}, in different words; give the files "
                "of a part one name, or, if all files belong together, say --data.parts none"
            )
    if groups and rest:
        remark_on_set(
            f"files of no part {root}",
            f"{len(rest)} {ending} files of {printable(root)} name no part ({printable(rest[0].name)}) "
            f"beside others that do ({printable(next(iter(groups.values()))[0].name)}), and are not read; "
            "if all belong together say --data.parts none",
        )
    if not groups:
        return {"train": rest} if rest else {}
    return {part: groups[part] for part in TAKEN_FOR if part in groups}


def _files(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.name.endswith(ending) and not is_hidden(path.name)
    )
