"""Reads the pages of the documentation: their blocks of code, and the commands in them.

A block without a language whose first line begins with a program's name holds commands, and so does a block
`sh`, `bash` or `console`. In such blocks two spaces or more end a command: what follows describes it.
A comment in front of a block tells the runner of pages about it; readers of the page do not see it:

    <!-- test: add --optim.epochs 1 -->    the small run adds these words to every command of the block
    <!-- test: instead cp a b -->          the small run does this instead of the block
    <!-- test: only read: a cluster -->    the block's commands are parsed and never run
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

SHELLS = ("sh", "bash", "console", "shell")
FIRST_WORDS = (
    "siamtransfer", "python", "python3", "make", "pip", "torchrun", "sbatch", "docker", "source", "sudo",
    "apt-get",
)  # fmt: skip
"""What a line of a block without a language begins with where it is a command."""

_DIRECTIVE = re.compile(r"<!--\s*test:\s*(add|instead|only read:)\s+(.*?)\s*-->", re.DOTALL)
_ANY_DIRECTIVE = re.compile(r"<!--\s*test\b")
_SEPARATORS = {"&&", "||", ";", "|", "&", "(", ")", "<(", ";;"}


class PageError(ValueError):
    """A page that cannot be read; says where and why."""


@dataclass(frozen=True)
class Directive:
    """What a comment in front of a block says: add, instead or only read, and the words or the reason."""

    kind: str
    text: str


@dataclass(frozen=True)
class Block:
    """A block of code of a page; `line` is that of its first line, counted from 1."""

    page: Path
    line: int
    language: str
    text: str
    directive: Directive | None = None

    @property
    def place(self) -> str:
        """PAGE:LINE."""
        return f"{self.page}:{self.line}"

    @property
    def has_commands(self) -> bool:
        """True for a block of shell commands."""
        return self.language in SHELLS or (not self.language and _is_command(self.text))


@dataclass(frozen=True)
class ShellCommand:
    """One simple command of a page, without redirections, comments and variables set in front of it."""

    page: Path
    line: int
    words: tuple[str, ...]

    @property
    def place(self) -> str:
        """PAGE:LINE."""
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of code of a Markdown page, in order, each with the comment in front of it.

    Raises:
        PageError: a comment for the runner that is none of the three kinds, or that no block follows.
    """
    blocks: list[Block] = []
    waiting: Directive | None = None
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block" and _ANY_DIRECTIVE.search(token.content):
            waiting = _directive(token, f"{page}:{line}")
        elif token.type in ("fence", "code_block"):
            language = token.info.split()[0] if token.info.strip() else ""
            first = line + (token.type == "fence")
            blocks.append(Block(page, first, language, token.content, waiting))
            waiting = None
        elif waiting is not None and token.type.endswith("_open"):
            raise PageError(
                f"{page}:{line}: a comment for the runner of pages must stand right before a block"
            )
    if waiting is not None:
        raise PageError(f"{page}: no block follows the last comment for the runner of pages")
    return blocks


def code_spans(page: Path) -> Iterator[tuple[int, str]]:
    """The code inside sentences: line and text of each."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            if child.type == "code_inline":
                yield (token.map[0] + 1 if token.map else 0), child.content


def commands_of(block: Block) -> list[ShellCommand]:
    """The simple commands of a block.

    Raises:
        PageError: a line that a shell cannot split into words.
    """
    found = []
    for line, text in logical_lines(block):
        if not block.language and not _is_command(text):
            continue
        try:
            found += [ShellCommand(block.page, line, words) for words in split_commands(text)]
        except ValueError as error:
            raise PageError(f"{block.page}:{line}: a shell cannot read {text!r}: {error}") from error
    return found


def logical_lines(block: Block) -> Iterator[tuple[int, str]]:
    """The commands of a block as a shell takes them, with the line of each.

    Continued lines are joined, and what describes a command behind two spaces is left out.
    """
    number, parts = block.line, [""]
    for offset, line in enumerate(block.text.splitlines()):
        if not any(parts):
            number = block.line + offset
        text = line.removeprefix("$ ").strip()
        if text.endswith("\\"):
            parts.append(text[:-1].strip())
            continue
        whole = re.split(r"\s{2,}|\s#\s", " ".join([*filter(None, parts), text]))[0].strip()
        parts = [""]
        if whole and not whole.startswith("#"):
            yield number, whole


def split_commands(text: str) -> list[tuple[str, ...]]:
    """The simple commands of a line of shell: `a --x 1 | b > c` holds a --x 1 and b."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    skip = False
    for token in lexer:
        if skip:
            skip = False
        elif token in _SEPARATORS:
            commands.append([])
        elif token in ("<", ">", ">>"):
            skip = True
            if commands[-1][-1:] == ["2"]:
                commands[-1].pop()
        elif commands[-1] or not re.match(r"[A-Za-z_]\w*=", token):
            commands[-1].append(token)
    return [tuple(words) for words in commands if words]


def _is_command(text: str) -> bool:
    """True where the first word, behind variables that are set in front of it, is one of FIRST_WORDS."""
    words = [word for word in text.split() if not re.match(r"[A-Za-z_]\w*=", word)]
    return words[:1] != [] and words[0] in FIRST_WORDS


def _directive(token: Token, place: str) -> Directive:
    match = _DIRECTIVE.search(token.content)
    if match is None:
        raise PageError(
            f"{place}: a comment for the runner of pages is <!-- test: add WORDS -->, "
            "<!-- test: instead COMMAND --> or <!-- test: only read: REASON -->"
        )
    return Directive(match[1].rstrip(":"), match[2])
