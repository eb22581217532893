"""Configuration files in Detectron2's form, merged in order, then KEY VALUE pairs; needs no Detectron2.

A file may name a base file under `_BASE_`, relative to its own folder; its own values replace the base's.
Values that YAML leaves as text, such as (480, 512), are read as Python literals, as Detectron2 reads them.
The YAML is read as strictly as the other settings' (cli/yaml_file.py).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from siamtransfer.cli.yaml_file import MOST_BYTES, parse_yaml
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.small_files import read_small_text
from siamtransfer.utils.strict_json import flatten
from siamtransfer.utils.text import printable

COMMAND_LINE = "the command line"
OWN_SECTIONS = ("SCENES.", "MASKS.")
"""How the keys begin that are of this project and say which data are opened."""


class StatedValue(NamedTuple):
    """A value, and where it is stated: a file, or `COMMAND_LINE`."""

    value: Any
    where: str


LayeredConfig = dict[str, StatedValue]


def read_layered_config(files: Sequence[Path], overrides: Sequence[str]) -> LayeredConfig:
    """Full key (SOLVER.BASE_LR) to its value; a later file replaces an earlier one, `overrides` replace both.

    Raises:
        UserError: a file is missing or broken, or KEY VALUE do not come in pairs.
    """
    layered: LayeredConfig = {}
    for file in files:
        layered |= _read(file, ())
    if len(overrides) % 2:
        raise UserError(f"KEY VALUE come in pairs and the last, {overrides[-1]!r}, has no partner")
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        layered[key] = StatedValue(_literal(value), COMMAND_LINE)
    return layered


def _read(path: Path, derived: tuple[Path, ...]) -> LayeredConfig:
    """The file over its base files; `derived` are the files that name it as their base."""
    where = printable(path)
    if path.resolve() in derived:
        raise UserError(f"{where} is its own _BASE_ in the end; take one of them out")
    try:
        text = read_small_text(path, MOST_BYTES)
    except UserError as error:
        raise UserError(f"{error}; the configurations of this project are in configs/detection") from error
    content = parse_yaml(text, where)
    if not isinstance(content, dict):
        raise UserError(f"{where} holds no keys; give a configuration in Detectron2's form")
    content.pop("VERSION", None)
    base = content.pop("_BASE_", None)
    if not isinstance(base, str | None):
        raise UserError(f"{where}: _BASE_ is {base!r}, but must be the path of one file")
    of_base = _read(path.parent / Path(base).expanduser(), (*derived, path.resolve())) if base else {}
    return of_base | {key: StatedValue(_literal(value), where) for key, value in flatten(content).items()}


def _literal(value: Any) -> Any:
    """The Python literal that a text is; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two of thousands of brackets
        return value
