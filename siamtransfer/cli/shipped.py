"""The configurations that come with the package, found by name: `--config demo` is
configs/pretrain/demo.yaml."""

from __future__ import annotations

import difflib
from pathlib import Path

from siamtransfer.utils.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]


def configs_folder() -> Path:
    """The folder of the shipped configurations: inside an installed package, or beside it in a checkout."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """`pretrain/demo` to its file, for every configuration, in alphabetical order."""
    folder = configs_folder()
    files = sorted(folder.rglob("*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def find_config(name: str, kinds: tuple[str, ...] = ()) -> Path:
    """A file of settings: a path, or a shipped configuration by name, of one of the `kinds` (folders).

    Raises:
        UserError: there is neither; names the nearest.
    """
    if Path(name).is_file():
        return Path(name)
    known = shipped_configs()
    stem = name.removesuffix(".yaml").removeprefix("configs/")
    for candidate in (stem, *(f"{kind}/{stem}" for kind in kinds)):
        if candidate in known:
            return known[candidate]
    names = [key.removeprefix(f"{kind}/") for kind in kinds for key in known if key.startswith(f"{kind}/")]
    near = difflib.get_close_matches(stem.rpartition("/")[2], names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(
        f"--config {name}: there is no such file and no such shipped configuration{hint} "
        "(siamtransfer configs lists them)"
    )


def header_line(file: Path) -> str:
    """The first line of a configuration's comment, which says what it is."""
    with file.open(encoding="utf-8") as lines:
        first = next((line for line in lines if line.startswith("#")), "")
    return first.lstrip("# ").strip()
