"""Plain text of the code (docstrings, help, comments) as Markdown: escaped, with links, in tables.

Pages are `PATH.md` below docs/. A path in a text, such as docs/CLUSTER.md, becomes a link to that page.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from doc_pages import FIRST_WORDS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_CODE = re.compile(r"(`[^`]+`)")
_SPECIAL = re.compile(r"([\\`*_{}\[\]|>])")
_LINKED = re.compile(r"(\bdocs/[\w/-]+\.md\b|\barXiv\s+\d{4}\.\d{4,5})")
_BARE_PAGE = re.compile(r"(?<![`\[/\w])(?<!\]\()docs/[\w/-]+\.md\b(?!`)")
_PLAIN_BLOCK = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"^(?P<command>\S.*?\S) {2,}(?P<comment>[^\s-].*)$")


def escape(text: str) -> str:
    """The text with nothing in it that Markdown would read as markup; parts in backticks stay code."""
    parts = _CODE.split(text)
    return "".join(
        part if index % 2 else _SPECIAL.sub(r"\\\1", part.replace("&", "&amp;").replace("<", "&lt;"))
        for index, part in enumerate(parts)
    )


def prose(text: str, page: str) -> str:
    """Escaped text of the page `page`, whose mentions of pages and of arXiv are links."""
    parts = _LINKED.split(text)
    return "".join(_link(part, page) if index % 2 else escape(part) for index, part in enumerate(parts))


def link_pages(text: str, page: str) -> str:
    """Markdown of the page `page` whose bare mentions of pages (docs/CLUSTER.md) are links, but for those in
    code and in links."""
    return _BARE_PAGE.sub(lambda match: _link(match[0], page), text)


def _link(mention: str, page: str) -> str:
    """A mention of a page or of arXiv as a link; as it is where there is no such page."""
    if mention.startswith("arXiv"):
        number = mention.split()[-1]
        return f"[arXiv {number}](https://arxiv.org/abs/{number})"
    target = mention.removeprefix("docs/")
    if not (DOCS / target).is_file():
        return escape(mention)
    return f"[{title_of(DOCS / target)}]({relative(target, page)})"


def relative(target: str, page: str) -> str:
    """The path from the page `page` to the page `target`."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def title_of(file: Path) -> str:
    """The first heading of a page, or its name where it has none."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            return line.removeprefix("# ").strip()
    return file.stem


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown of one line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def docstring(text: str, page: str) -> str:
    """A docstring as Markdown: paragraphs, and its indented blocks as blocks of commands."""
    blocks: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        if all(line.startswith("    ") for line in lines):
            blocks.append(_commands([line.strip() for line in lines]))
        else:
            blocks.append(prose("\n".join(line.strip() for line in lines), page))
    return "\n\n".join(blocks) + "\n"


def copyable(markdown: str) -> str:
    """The Markdown with every block of commands and remarks in columns (`COMMAND   what it does`) as one that
    may be copied whole. Blocks of output, and those in which a command has several lines, stay."""

    def rewrite(match: re.Match[str]) -> str:
        lines = match[1].splitlines()
        if any(line.partition(" ")[0] not in FIRST_WORDS or line.endswith("\\") for line in lines):
            return match[0]
        return _commands(lines)

    return _PLAIN_BLOCK.sub(rewrite, markdown)


def _commands(lines: list[str]) -> str:
    """Lines `COMMAND   what it does` as a block that may be copied whole."""
    pairs = [
        (match["command"], match["comment"]) if (match := _COMMENT.match(line)) else (line, "")
        for line in lines
    ]
    body: list[str] = []
    for command, comment in pairs:
        body += [f"# {comment}", command] if comment else [command]
    return "\n".join(["```sh", *body, "```"])
