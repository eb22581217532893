"""An annotation in Pascal VOC's XML: one image, its size and its objects.

The files come from many programs and by hand, so each value is checked once, here. The work is bounded before
it is done: a file has at most MOST_BYTES, its tree MOST_ELEMENTS and MOST_LEVELS levels. Entities are refused
where they are declared, for a few lines of them stand for gigabytes, and others name files of the disk. Pipes
and devices are not opened. The encoding that a file declares counts; expat alone knows none of several bytes,
such as gb2312.
"""

from __future__ import annotations

import codecs
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn
from xml.etree import ElementTree as ET
from xml.parsers import expat

from siamtransfer.data.class_names import is_one_line
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.small_files import marked_encoding, read_small_file
from siamtransfer.utils.text import printable

MOST_BYTES = 2**25
"""Of a file; one with ten thousand objects has three million."""
MOST_LEVELS = 50
MOST_ELEMENTS = 200_000
MOST_ATTRIBUTES = 20_000
"""Expat's work grows with the square of those of one element; VOC's have none."""
_FEW = 4000
"""Tags up to which a file is parsed without a look at each: so few are not too many, and nest harmlessly."""
LONGEST_NAME = 200
"""Characters of a class."""
MOST_PIXELS = 2**31 - 1
"""A side of an image has at most so many, by every format."""
_DECLARED = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]{0,40})["']""")
_BEGINNINGS = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
"""Of documents in UTF-16 without a mark."""
_NO_ENCODINGS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7"}
"""Of Python's names of encodings, those of escapes and of tests."""
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "cp950"}
"""What programs of these languages write where they declare the narrower standard; it reads both alike."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_LONGEST_NUMBER = 100  # characters; programs of exact decimals write 50 digits
_SHOWN = 40  # characters of a wrong value


class Annotation(NamedTuple):
    """A file: its path for messages, its bytes, and the element `annotation`."""

    where: str
    content: bytes
    root: ET.Element


class VocObject(NamedTuple):
    """An object: its place in a message, its class, whether VOC's evaluation passes over it, its element."""

    where: str
    label: str
    difficult: bool
    element: ET.Element


def read_annotation(path: Path, cure: str, absent: str) -> Annotation:
    """The tree of a file; `cure` ends the sentence about one that is no XML, `absent` that about one that is
    not there.

    Raises:
        UserError: the file cannot be read, is too large, in another encoding than it says or no XML, declares
            entities, or has too many elements or levels.
    """
    where = printable(path)
    if not os.path.lexists(path):
        raise UserError(f"cannot read the annotation {where} (No such file or directory); {absent}")
    content = read_small_file(path, MOST_BYTES)
    return Annotation(where, content, _parse(_text(content, where, cure), where, cure))


def objects_of(annotation: Annotation) -> Iterator[VocObject]:
    """The objects in their order.

    Raises:
        UserError: an object has no class or two, or a flag `difficult` that is neither 0 nor 1, or objects
            stand where nobody looks for them.
    """
    root, where = annotation.root, annotation.where
    found = root.findall("object")
    known = set(found)
    strange = next((item for item in root.iter() if item.tag.lower() == "object" and item not in known), None)
    if strange is not None:
        raise UserError(
            f"{where} has an <{strange.tag}> that is no <object> directly in <{root.tag[:_SHOWN]}>, where "
            "VOC's objects are; write it there"
        )
    for number, item in enumerate(found, 1):
        place = f"object {number} in {where}"
        yield VocObject(place, _label(item, place), _is_difficult(item, place), item)


def number_in(element: ET.Element, tag: str, where: str) -> float:
    """The finite number in the only element TAG/TAG.

    Raises:
        UserError: there is none, or there are two, or it holds something else.
    """
    text = _text_of(element, tag, where)
    stripped = (text or "").strip()
    if len(stripped) <= _LONGEST_NUMBER and _NUMBER.fullmatch(stripped) and math.isfinite(float(stripped)):
        return float(stripped)
    content = "has none" if text is None else f"says {stripped[:_SHOWN]!r}"
    raise UserError(f"{where} needs a number in <{tag}> and {content}; mend the annotation")


def size_of(annotation: Annotation) -> tuple[int, int]:
    """Height and width of the image.

    Raises:
        UserError: they are no whole numbers from 1.
    """
    where = annotation.where
    height, width = (number_in(annotation.root, f"size/{side}", where) for side in ("height", "width"))
    if not all(1 <= side <= MOST_PIXELS and side == int(side) for side in (height, width)):
        raise UserError(
            f"{where} gives its image {width:.15g} x {height:.15g} pixels; write the true size there"
        )
    return int(height), int(width)


def _label(item: ET.Element, where: str) -> str:
    label = (_text_of(item, "name", where) or "").strip()
    if not label:
        raise UserError(f"{where} has no name; name its class or take it out")
    if len(label) > LONGEST_NAME or not is_one_line(label):
        what = f"of {len(label):,} characters" if len(label) > LONGEST_NAME else "with unprintable characters"
        raise UserError(f"{where} has a name {what}, {label[:_SHOWN]!r}; name its class in one short line")
    return label


def _is_difficult(item: ET.Element, where: str) -> bool:
    text = _text_of(item, "difficult", where)
    if text is None or not text.strip():
        return False
    flag = _FLAGS.get(text.strip().lower())
    if flag is None:
        raise UserError(
            f"{where} says {text.strip()[:_SHOWN]!r} in <difficult>, which decides whether it counts; write "
            "1 if it is to be left out of the evaluation, else 0"
        )
    return flag


def _text_of(element: ET.Element, path: str, where: str) -> str | None:
    """The text of the only element at a path of tags; None where there is none.

    Raises:
        UserError: a tag of the path is there twice.
    """
    for tag in path.split("/"):
        found = element.findall(tag)
        if len(found) > 1:
            raise UserError(
                f"{where} has {len(found)} elements <{tag}>, and one is needed; take the wrong out"
            )
        if not found:
            return None
        element = found[0]
    return element.text or ""


def _text(content: bytes, where: str, cure: str) -> str:
    """The text of a file by its mark, or by the encoding that it declares, else UTF-8."""
    marked = marked_encoding(content) or _BEGINNINGS.get(content[:2])
    match = _DECLARED.match(content)
    declared = match[1].decode() if match and marked is None else "utf-8"
    try:
        name = codecs.lookup(declared).name
        if name in _NO_ENCODINGS:
            raise LookupError
        if marked is None and name.startswith(("utf-16", "utf-32")):
            raise UnicodeError  # their texts begin with a mark, or with a byte of zero
        encoding = marked or _WIDER.get(name, name)
        return content.decode(encoding)
    except LookupError:  # also of codecs that are no encodings of text, such as zip
        raise UserError(
            f"{where} says that its encoding is {declared}, which is unknown; save it as UTF-8"
        ) from None
    except UnicodeError as error:
        at = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        said = (
            f"is not in the encoding {declared} that it declares" if match and not marked else "is no UTF-8"
        )
        said = f"begins as {marked.upper()} and is damaged" if marked else said
        raise UserError(
            f"the annotation {where} is no XML: it {said}{at}; save it as UTF-8, or {cure}"
        ) from error


class _Tree:
    """Builds the elements of a document, with bounds."""

    def __init__(self, where: str):
        self.where, self.levels = where, 0
        self.builder = ET.TreeBuilder()

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.levels += 1
        if self.levels > MOST_LEVELS:
            raise UserError(
                f"{self.where} is nested deeper than the {MOST_LEVELS} levels that are read; an annotation "
                "has five: write it anew"
            )
        self.builder.start(tag, attributes)

    def end(self, tag: str) -> None:
        self.levels -= 1
        self.builder.end(tag)

    def refuse_entity(self, name: str, *_: object) -> NoReturn:
        raise UserError(
            f"{self.where} declares or uses the entity {name[:_SHOWN]!r}, and annotations are read without "
            "entities; write the text itself"
        )


def _parse(text: str, where: str, cure: str) -> ET.Element:
    """The root of a document, after a look at what it would cost."""
    tags = text.count("<")
    if tags > 2 * MOST_ELEMENTS:
        raise UserError(f"{where} has more than the {MOST_ELEMENTS:,} elements that are read; split it")
    if text.count("=") > MOST_ATTRIBUTES:
        raise UserError(
            f"{where} has more than the {MOST_ATTRIBUTES:,} attributes that are read; VOC's has none"
        )
    try:
        if tags <= _FEW and "<!" not in text and "xmlns" not in text:
            return ET.fromstring(text, ET.XMLParser(encoding="utf-8"))
        return _parse_watched(text, where)
    except (expat.ExpatError, ET.ParseError) as error:
        raise UserError(f"the annotation {where} is no XML ({error}); {cure}") from error


def _parse_watched(text: str, where: str) -> ET.Element:
    tree = _Tree(where)
    parser = expat.ParserCreate("utf-8")  # whatever the text says, which has been decoded
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = tree.start, tree.end
    parser.CharacterDataHandler = tree.builder.data
    parser.EntityDeclHandler = tree.refuse_entity
    parser.SkippedEntityHandler = tree.refuse_entity
    parser.Parse(text.encode(), True)
    return tree.builder.close()
