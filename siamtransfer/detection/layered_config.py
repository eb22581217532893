"""Configuration files in Detectron2's form, laid one over the other, with KEY VALUE pairs on top; needs no
Detectron2.

A file may name another one under `_BASE_`, relative to its own folder, over which it is laid. Values that
YAML leaves as text, such as (480, 512), are read as Python's literals, as Detectron2 reads them.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from siamtransfer.data.imageset import printable
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

COMMAND_LINE = "the command line"


class StatedValue(NamedTuple):
    """A value, and the file that gave it or `COMMAND_LINE`."""

    value: Any
    where: str


LayeredConfig = dict[str, StatedValue]


def read_layered_config(files: Sequence[Path], overrides: Sequence[str]) -> LayeredConfig:
    """Every key that is stated, by its full name (SOLVER.BASE_LR), with the last value given.

    Raises:
        UserError: a file is missing or broken, or KEY VALUE do not come in pairs.
    """
    found: LayeredConfig = {}
    for file in files:
        found |= _read(file, ())
    if len(overrides) % 2:
        raise UserError(f"KEY VALUE come in pairs and the last, {overrides[-1]!r}, has no partner")
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        found[key] = StatedValue(_decoded(value), COMMAND_LINE)
    return found


def _read(path: Path, above: tuple[Path, ...]) -> LayeredConfig:
    where = printable(path)
    if path.resolve() in above:
        raise UserError(f"{where} is its own _BASE_ in the end; take one of them out")
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(
            f"cannot read the configuration {where} ({error.strerror}); those that belong to this project "
            "are in "
            "configs/detection"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{where} is no YAML: {' '.join(str(error).split())}; mend it") from error
    if not isinstance(content, dict):
        raise UserError(f"{where} holds no keys; give a configuration in Detectron2's form")
    content.pop("VERSION", None)
    base = content.pop("_BASE_", None)
    below = _read(path.parent / Path(base).expanduser(), (*above, path.resolve())) if base else {}
    return below | {key: StatedValue(_decoded(value), where) for key, value in flatten(content).items()}


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
