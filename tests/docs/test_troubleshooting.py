"""Every message that docs/TROUBLESHOOTING.md explains is still one that the code has."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from support.paths import ROOT

PAGE = ROOT / "docs" / "TROUBLESHOOTING.md"
HOLE = "\0"
"""Stands in a template of the code for a value that is filled in."""
FEWEST_LETTERS = 12
"""Of a message, that it may not be found everywhere."""


def quoted(text: str) -> list[str]:
    return re.findall(r"^### `(.+)`$", text, re.MULTILINE)


def template(node: ast.AST) -> str | None:
    """The text of a string in the code, with HOLE for every value in it; None for what is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    return None


@cache
def templates() -> list[str]:
    """Every text of the library."""
    found = set()
    for file in (ROOT / "siamtransfer").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found |= {template(node) for node in ast.walk(tree)}
    return [text.replace("\n", " ") for text in found if text]


def is_in_the_code(message: str) -> bool:
    """Whether one text of the code has all pieces of the message between its ellipses, in their order."""
    pieces = [piece for piece in message.split("…") if piece.strip()]
    return any(has_in_order(text, pieces) for text in templates())


def has_in_order(text: str, pieces: list[str]) -> bool:
    at = 0
    for piece in pieces:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def test_every_message_is_one_of_the_code() -> None:
    messages = quoted(PAGE.read_text(encoding="utf-8"))
    assert len(messages) >= 40
    assert len(set(messages)) == len(messages)
    short = [text for text in messages if sum(map(str.isalpha, text)) < FEWEST_LETTERS]
    assert not short
    gone = [text for text in messages if not is_in_the_code(text)]
    assert not gone, "\n".join(gone)


def test_every_message_is_explained() -> None:
    parts = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    bare = [part.splitlines()[0] for part in parts if len(part.split("\n\n## ")[0].splitlines()[1:]) < 2]
    assert not bare, "\n".join(bare)


@pytest.mark.parametrize(
    ("message", "there"),
    [
        ("the set has … images and optim.batch_size is …", True),
        ("optim.batch_size is … the set has … images and", False),
        ("the set has … images and optim.batch_sizes is …", False),
        ("there is no file … an untrained baseline", True),
    ],
)
def test_a_message_that_has_changed_is_found(message: str, there: bool) -> None:
    assert is_in_the_code(message) is there
