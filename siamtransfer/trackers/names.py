"""Names of numbers and parameters as MLflow and W&B take them, and back.

MLflow takes letters, digits, `_ - . /`, space and `:`, at most 250 of them, and no path with parts that are
empty or `.` or begin with `..`. There `=` becomes `:`, and any other character `_xHH_`, its number in
hexadecimal. W&B takes what is there but for a leading `/` or `_`, which are its own. TensorBoard takes every
name as it is.

    knn/k=20/T=0.07/top1    MLflow: knn/k:20/T:0.07/top1
    retrieval/mP@5          MLflow: retrieval/mP_x40_5
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from siamtransfer.utils.errors import UserError

MLFLOW_LENGTH = 250
_EMPTY = "_x_"
_ESCAPE = re.compile(r"_x([0-9a-f]*)_")
_LOOKS_ESCAPED = re.compile(r"_(?=x)")
_NOT_OF_MLFLOW = re.compile(r"[^\w.\- :]")


def to_mlflow(name: str) -> str:
    """The name for MLflow; different names give different ones.

    Raises:
        UserError: it is longer than MLflow takes.
    """
    encoded = "/".join(map(_encode_part, name.split("/")))
    if len(encoded) > MLFLOW_LENGTH:
        raise UserError(
            f"MLflow takes names of at most {MLFLOW_LENGTH} characters, and {name} has {len(encoded)} there"
        )
    return encoded


def from_mlflow(name: str) -> str:
    """The name of which `to_mlflow` made `name`."""
    return "/".join(map(_decode_part, name.split("/")))


def to_wandb(name: str) -> str:
    """The name for W&B."""
    return _escaped(name[0]) + name[1:] if name[:1] in ("/", "_") else name


def mapped_names(names: Iterable[str], rule: Callable[[str], str]) -> dict[str, str]:
    """{name: its name by `rule`}.

    Raises:
        UserError: two names become one.
    """
    mapped: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        mapped[name] = rule(name)
        other = taken.setdefault(mapped[name], name)
        if other != name:
            raise UserError(f"the names {other} and {name} would both be {mapped[name]}: rename one")
    return mapped


def as_files(names: Mapping[str, str]) -> dict[str, str]:
    """The names of MLflow for a store that keeps each number in a file of its name: one that is a folder of
    others, such as AP50 beside AP50/mean, gets an empty last part."""
    folders = {name[:end] for name in names.values() for end, letter in enumerate(name) if letter == "/"}
    return {key: f"{name}/{_EMPTY}" if name in folders else name for key, name in names.items()}


def _encode_part(part: str) -> str:
    if part in ("", "."):
        return _escaped(part) if part else _EMPTY
    if part.startswith(".."):  # no name may begin so
        return _escaped("..") + _encode_part(part[2:]).removesuffix("" if part[2:] else _EMPTY)
    part = _LOOKS_ESCAPED.sub(_escaped("_"), part)
    part = part.replace(":", _escaped(":")).replace("=", ":")
    return _NOT_OF_MLFLOW.sub(lambda found: _escaped(found.group()), part)


def _decode_part(part: str) -> str:
    pieces = _ESCAPE.split(part)  # text, number, text, number, ..., text
    texts = [text.replace(":", "=") for text in pieces[::2]]
    characters = [chr(int(number, 16)) if number else "" for number in pieces[1::2]]
    return "".join(text + character for text, character in zip(texts, [*characters, ""], strict=True))


def _escaped(text: str) -> str:
    return "".join(f"_x{ord(character):02x}_" for character in text)
