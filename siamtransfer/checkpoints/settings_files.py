"""Files of settings beside a checkpoint: JSON and YAML that is there, of a sane size, and intact."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from siamtransfer.utils.errors import UserError

MOST_JSON = 2**24
"""Bytes of a file: the names of 21,000 classes take a million"""
MOST_YAML = 2**19
"""and of YAML, of which PyYAML reads a million in about two seconds; Detectron2 writes ten thousand."""


def read_json(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file.

    Raises:
        UserError: it is damaged or holds something else; the rest of a sentence that begins with the name of
            the checkpoint.
    """
    text = _text(file, MOST_JSON)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, "JSON") from error
    if not isinstance(content, dict):
        raise _damaged(file, "a JSON object")
    return content


def read_yaml(file: Path) -> dict[str, Any] | None:
    """The mapping in a YAML file; None where there is no such file.

    Raises:
        UserError: as of `read_json`.
    """
    text = _text(file, MOST_YAML)
    if text is None:
        return None
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _damaged(file, "YAML") from error
    if not isinstance(content, dict):
        raise _damaged(file, "a mapping of YAML")
    return content


def _text(file: Path, most: int) -> str | None:
    if not os.path.lexists(file):
        return None
    if not file.is_file():  # a pipe, or a link to what was removed: what it said is not known
        raise _damaged(file, "a file")
    if file.stat().st_size > most:
        raise _damaged(file, f"a file of settings: it has more than {most:,} bytes")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(file, "text") from error


def _damaged(file: Path, what: str) -> UserError:
    return UserError(
        f"lies beside {file}, which may say how to read it and is not {what}: mend or remove that file"
    )
