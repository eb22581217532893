"""Odd annotations and lists in VOC's layout: read rightly, or refused in one sentence, with bounded work.

python -m pytest tests/detection/data/test_odd_voc.py
"""

from __future__ import annotations

import encodings.aliases
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.fuzz import examples
from support.sentences import is_sentence

from siamtransfer.data import voc_xml
from siamtransfer.data.voc import VocImages, ignored_of
from siamtransfer.detection.data.dataset_split import DetectionSplit
from siamtransfer.detection.data.voc_annotations import read_voc
from siamtransfer.segmentation.data.registry import open_segmentation
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault
SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"
BOX = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>25</ymax></bndbox>"


def thing(name: str = "<name>dog</name>", difficult: str = "", box: str = BOX) -> str:
    return f"<object>{name}{difficult}{box}</object>"


def annotation(objects: str = thing(), size: str = SIZE, more: str = "") -> str:
    return f"<annotation>{more}{size}{objects}</annotation>"


def write_set(root: Path, content: str | bytes, names: str | bytes = "a\n", *, ending: str = "jpg") -> Path:
    """A set of the image `a`, 40 x 30 pixels, with this annotation and this list."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    (root / "Annotations/a.xml").write_bytes(content)
    Image.new("RGB", (40, 30)).save(root / f"JPEGImages/a.{ending}", "JPEG")
    for part in ("trainval", "test"):
        names = names.encode() if isinstance(names, str) else names
        (root / f"ImageSets/Main/{part}.txt").write_bytes(names)
    return root


def read(root: Path) -> DetectionSplit:
    return read_voc(root, "trainval", "set:trainval")


def refusal(action: Callable[[], Any]) -> str:
    """The sentence of a refusal, which takes less than two seconds."""
    began = time.process_time()
    with pytest.raises(UserError) as caught:
        action()
    assert time.process_time() - began < 2
    assert is_sentence(caught.value), str(caught.value)
    return str(caught.value)


def declared(encoding: str, text: str | None = None) -> str:
    return f'<?xml version="1.0" encoding="{encoding}"?>{text or annotation(thing("<name>狗</name>"))}'


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("1", True),
        ("1.0", True),
        (" True\n", True),
        ("0", False),
        ("0.0", False),
        ("false", False),
        ("", False),  # as where the element is absent
    ],
)
def test_a_flag_is_read_however_it_is_written(tmp_path: Path, text: str, flag: bool) -> None:
    """By both readers: of boxes, and of the classes that an image shows."""
    root = write_set(tmp_path, annotation(thing(difficult=f"<difficult>{text}</difficult>")))
    assert [item["difficult"] for item in read(root).annotations] == [flag]
    images = VocImages(root)
    ignored = ignored_of(images)
    assert ignored is not None
    assert (images.labels.tolist(), ignored.tolist()) == ([[int(not flag)]], [[flag]])


@pytest.mark.parametrize("text", ["yes", "2", "Unspecified", "-1", "nan", "1" * 5000])
def test_another_flag_is_refused(tmp_path: Path, text: str) -> None:
    root = write_set(tmp_path, annotation(thing(difficult=f"<difficult>{text}</difficult>")))
    for action in (lambda: read(root), lambda: VocImages(root)):
        sentence = refusal(action)
        assert f"object 1 in {root}/Annotations/a.xml says {text[:40]!r} in <difficult>" in sentence
        assert "write 1 if" in sentence


def test_no_encoding_that_python_has_breaks_the_reader(tmp_path: Path) -> None:
    """Those of escapes, of tests, of bytes, and aliases of them: a tree, or a sentence."""
    path, known = tmp_path / "a.xml", {*encodings.aliases.aliases.values(), "unicode_escape", "undefined"}
    for name in sorted({*known, *(name.replace("_", "-") for name in known)}):
        path.write_text(declared(name, annotation(thing(r"<name>\ud800</name>"))))
        try:
            voc_xml.read_annotation(path, "unpack it again", "unpack the set again")
        except UserError as error:
            assert is_sentence(error), str(error)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-16", "utf-16-le", "utf-8-sig", "gb2312", "GBK", "big5", "Shift_JIS", "euc-kr"]
)
def test_the_declared_encoding_counts(tmp_path: Path, encoding: str) -> None:
    label = "개" if encoding == "euc-kr" else "犬"
    stated = encoding.removesuffix("-sig")
    text = declared(stated, annotation(thing(f"<name>{label}</name>")))
    assert read(write_set(tmp_path, text.encode(encoding))).classes == (label,)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (declared("utf-9"), "says that its encoding is utf-9, which is unknown; save it as UTF-8"),
        (declared("rot13"), "says that its encoding is rot13, which is unknown"),
        (declared("zip"), "says that its encoding is zip, which is unknown"),
        (declared("punycode"), "says that its encoding is punycode, which is unknown"),
        (declared("utf-8").encode("gb2312"), "is no XML: it is not in the encoding utf-8 that it declares"),
        (declared("ascii"), "is not in the encoding ascii that it declares at byte"),
        (declared("utf-16"), "is not in the encoding utf-16 that it declares"),
        (annotation().encode("utf-16")[:101], "begins as UTF-16 and is damaged"),
        (annotation(thing("<name>é</name>")).encode("latin-1"), "it is no UTF-8 at byte"),
        (b"", "is no XML (no element found"),
        (annotation() * 2, "is no XML (junk after document element"),
        ("\0" * 100, "is no XML"),
    ],
)
def test_what_is_no_text_or_no_xml(tmp_path: Path, content: str | bytes, says: str) -> None:
    sentence = refusal(lambda: read(write_set(tmp_path, content)))
    assert says in sentence
    assert "Annotations/a.xml" in sentence
    assert ";" in sentence


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]>' + annotation("&l11;"), "uses the entity 'l0'"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + annotation(thing("<name>&x;</name>")),
            "uses the entity 'x', and annotations are read without",
        ),
        ('<!DOCTYPE a [<!ENTITY % p SYSTEM "http://x.invalid/">%p;]>' + annotation(), "uses the entity 'p'"),
        ('<!DOCTYPE a SYSTEM "a.dtd">' + annotation(thing("<name>d&y;g</name>")), "uses the entity 'y'"),
        (annotation(thing("<name>d&y;g</name>")), "is no XML (undefined entity"),
        ("<a>" * 200_000 + "</a>" * 200_000, "is nested deeper than the 50 levels"),
        ("<a>" * 200_000, "is nested deeper than the 50 levels"),
        (annotation("<x/>" * 5000), "has more than the 2,000 elements"),
        (
            annotation("<x " + " ".join(f'a{n}="1"' for n in range(30_000)) + "/>"),
            "than the 20,000 attributes",
        ),
        (b" " * (voc_xml.MOST_BYTES + 1), "has at most 33,554,432"),
    ],
    ids=["laughs", "file", "parameter", "skipped", "undefined", "deep", "open", "many", "wide", "large"],
)
def test_the_work_before_a_refusal_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes, says: str
) -> None:
    if "elements" in says:
        monkeypatch.setattr(voc_xml, "MOST_ELEMENTS", 2000)
    assert says in refusal(lambda: read(write_set(tmp_path, content)))


def sides(**values: str) -> str:
    corners = {"xmin": "3", "ymin": "4", "xmax": "20", "ymax": "25"} | values
    return "<bndbox>" + "".join(f"<{tag}>{text}</{tag}>" for tag, text in corners.items()) + "</bndbox>"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (annotation(size=SIZE.replace("40", "nan")), "needs a number in <size/width> and says 'nan'"),
        (annotation(size=SIZE.replace("40", "inf")), "needs a number in <size/width> and says 'inf'"),
        (annotation(size=SIZE.replace("40", "1e999")), "needs a number in <size/width> and says '1e999'"),
        (annotation(size=SIZE.replace("40", "4_0")), "needs a number in <size/width> and says '4_0'"),
        (annotation(size=SIZE.replace("40", "９")), "needs a number in <size/width> and says '９'"),
        (annotation(size=SIZE.replace("40", "-40")), "gives its image -40 x 30 pixels; write the true size"),
        (annotation(size=SIZE.replace("40", "1e300")), r"gives its image 1e\+300 x 30 pixels"),
        (annotation(size=SIZE.replace("40", "40.5")), "gives its image 40.5 x 30 pixels"),
        (annotation(size=SIZE * 2), "has 2 elements <size>, and one is needed"),
        (annotation(size=""), "needs a number in <size/height> and has none"),
        (annotation(thing(box=BOX * 2)), "object 1 in .* has 2 elements <bndbox>, and one is needed"),
        (annotation(thing(box=sides(xmax="nan"))), "object 1 in .* <bndbox/xmax> and says 'nan'"),
        (annotation(thing(box=sides(xmax="-inf"))), "object 1 in .* <bndbox/xmax> and says '-inf'"),
        (annotation(thing(box=sides(xmax=""))), "object 1 in .* <bndbox/xmax> and says ''"),
        (annotation(thing() + thing(box=sides(xmax="1"))), "object 2 in .* second corner before the first"),
        (annotation(thing(box=sides(xmax="1e9"))), "object 1 in .*; mend"),
        (annotation(thing(box=sides(xmin="90", xmax="95"))), "lie outside the image of 40 x 30 pixels"),
        (annotation(thing("<name>dog</name><name>cat</name>")), "object 1 in .* has 2 elements <name>"),
        (annotation(thing("<name> </name>")), "object 1 in .* has no name; name its class"),
        (annotation(thing(f"<name>{'x' * 5000}</name>")), "has a name of 5,000 characters"),
        (annotation(thing("<name>a\u202eb</name>")), "has a name with unprintable characters"),
        (annotation(f"<objects>{thing()}</objects>"), "has an <object> that is no <object> directly in"),
        (annotation("<Object/>"), "has an <Object> that is no <object> directly in <annotation>"),
        ("<html><body>404</body></html>", "needs a number in <size/height> and has none"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(tmp_path: Path, content: str, says: str) -> None:
    sentence = refusal(lambda: read(write_set(tmp_path, content)))
    assert re.search(says, sentence), sentence
    assert "Annotations/a.xml" in sentence
    assert ";" in sentence


def test_what_is_odd_and_right(tmp_path: Path) -> None:
    """No object, parts with names and boxes of their own, a default namespace, whole numbers with a point."""
    assert read(write_set(tmp_path / "1", annotation(""))).records[0]["annotations"] == []
    part = f"<part><name>head</name>{BOX}</part>"
    odd = f'<annotation xmlns="urn:x">{SIZE.replace("40", "40.0")}{thing(box=BOX + part)}</annotation>'
    (item,) = read(write_set(tmp_path / "2", odd)).annotations
    assert item["bbox"] == [2.0, 3.0, 20.0, 25.0]
    assert item["difficult"] is False


def test_the_image_of_an_annotation_is_that_of_its_name(tmp_path: Path) -> None:
    split = read(write_set(tmp_path, annotation(more="<filename>C:\\old\\b.jpg</filename>")))
    assert split.records[0]["file_name"] == str(tmp_path / "JPEGImages/a.jpg")
    assert any("1 annotations name another image in <filename> (the first, a.xml is of b.jpg)" in remark
               for remark in split.remarks)  # fmt: skip
    for same in ("a.jpg", "x/a.JPG", "a"):
        split = read(write_set(tmp_path, annotation(more=f"<filename>{same}</filename>")))
        assert not any("filename" in remark for remark in split.remarks)


def test_endings_in_capitals_and_of_other_kinds(tmp_path: Path) -> None:
    for ending in ("JPG", "jpeg", "PNG"):
        root = write_set(tmp_path / ending, annotation(), ending=ending)
        (root / "Annotations/a.xml").rename(root / "Annotations/a.XML")
        assert read(root).records[0]["file_name"] == str(root / f"JPEGImages/a.{ending}")
        assert VocImages(root).describe(0).endswith(f"a.{ending}")
    (tmp_path / "JPG/JPEGImages/a.png").write_bytes(b"")
    assert "has 2 files of a, a.JPG and a.png; take the wrong one out" in refusal(
        lambda: read(tmp_path / "JPG")
    )


@pytest.mark.parametrize("names", ["\ufeffa\n", "\r\na\r\n\r\n", "  a  ", "a\r", "\n\n\na\n"])
def test_lists_of_any_program(tmp_path: Path, names: str) -> None:
    root = write_set(tmp_path, annotation(), names)
    assert [record["image_id"] for record in read(root).records] == ["a"]
    assert len(VocImages(root)) == 1


def test_names_with_blanks_are_no_list_of_a_class(tmp_path: Path) -> None:
    root = write_set(tmp_path, annotation(), "a 1\n")
    for path in (root / "Annotations/a.xml", root / "JPEGImages/a.jpg"):
        path.rename(path.with_stem("a 1"))
    assert [record["image_id"] for record in read(root).records] == ["a 1"]


def test_a_name_that_is_no_utf8_is_a_files_own(tmp_path: Path) -> None:
    root = write_set(tmp_path, annotation(), "\xe9\n".encode("latin-1"))
    assert "is no UTF-8: of its name '\\\\xe9' there is no file" in refusal(lambda: read(root))
    for folder, ending in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        (root / f"{folder}/a.{ending}").rename(
            root / folder / os.fsdecode(f"\xe9.{ending}".encode("latin-1"))
        )
    assert os.fsencode(read(root).records[0]["file_name"]).endswith(b"/\xe9.jpg")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("a\n".encode("utf-16"), "is UTF-16, or no text"),
        (b"a\0\n", "is UTF-16, or no text"),
        ("a 1\n", "is the list of one class: its lines end in 1, 0 or -1, 'a 1' for one; name"),
        ("a -1\n", "is the list of one class"),
        ("../a\n", "lists '../a', which lies outside of the set"),
        ("..\\a\n", "lists '..\\\\a', which lies outside of the set"),
        ("/etc/passwd\n", "lists '/etc/passwd', which lies outside of the set"),
        ("a\na\n", "lists 1 images more than once, a for one; list each image once"),
        ("x" * 5000, "lists a name of 5,000 characters, 'xxx"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, names: str | bytes, says: str) -> None:
    root = write_set(tmp_path, annotation(), names)
    for action in (lambda: read(root), lambda: VocImages(root)):
        assert says in refusal(action)


def test_pipes_and_folders_are_not_waited_for(tmp_path: Path) -> None:
    root = write_set(tmp_path, annotation())
    for file in ("Annotations/a.xml", "ImageSets/Main/trainval.txt"):
        (root / file).rename(tmp_path / "kept")
        os.mkfifo(root / file)
        assert "is a pipe" in refusal(lambda: read(root))
        (root / file).unlink()
        (root / file).mkdir()
        assert "is a folder" in refusal(lambda: read(root))
        (root / file).rmdir()
        (tmp_path / "kept").rename(root / file)
    assert len(read(root).records) == 1


def test_the_list_of_masks_keeps_names_with_points(tmp_path: Path) -> None:
    """Only an image's ending and the folders are taken off; a name stands once."""
    folder = tmp_path / "VOC2012"
    for inner in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / inner).mkdir(parents=True)
    for name in ("2007.01", "b"):
        Image.new("RGB", (8, 8)).save(folder / f"JPEGImages/{name}.JPG", "JPEG")
        Image.new("L", (8, 8)).save(folder / f"SegmentationClass/{name}.png")
    listed = folder / "ImageSets/Segmentation/train.txt"
    listed.write_text("2007.01\nJPEGImages/b.jpg SegmentationClass/b.png\n")
    images = open_segmentation("voc2012", root=folder)
    assert [Path(images.path(index) or "").name for index in range(2)] == ["2007.01.JPG", "b.JPG"]
    listed.write_text("b\nb\n")
    assert "lists 1 images more than once" in refusal(lambda: open_segmentation("voc2012", root=folder))
    listed.write_bytes("b\n".encode("utf-16"))
    assert "is UTF-16" in refusal(lambda: open_segmentation("voc2012", root=folder))


VALUES = st.one_of(
    st.sampled_from(["", "0", "1", "40", "30", "nan", "-1e9", "1e400", "True", "0x10", "１", "<x/>", "]]>"]),
    st.text(max_size=5).map(lambda text: re.sub(r"[<&\x00-\x1f]", "", text)),
    st.floats().map(str),
)  # fmt: skip
TAGS = st.sampled_from(
    [
        "size",
        "width",
        "height",
        "object",
        "name",
        "difficult",
        "bndbox",
        "xmin",
        "ymin",
        "xmax",
        "ymax",
        "part",
    ]
)
TREES = st.recursive(
    VALUES,
    lambda inner: st.lists(st.tuples(TAGS, inner), max_size=6).map(
        lambda items: "".join(f"<{tag}>{content}</{tag}>" for tag, content in items)
    ),
    max_leaves=20,
)
TEXT = annotation(thing(difficult="<difficult>0</difficult>"))


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A good annotation with one change: a value, a tree in place of one, or bytes."""
    kind = draw(st.sampled_from(["value", "tree", "bytes", "encoding"]))
    if kind == "value":
        places = list(re.finditer(r">([^<>]+)<", TEXT))
        place = draw(st.sampled_from(places))
        return (TEXT[: place.start(1)] + draw(VALUES) + TEXT[place.end(1) :]).encode("utf-8", "replace")
    if kind == "tree":
        return annotation(draw(TREES), draw(st.sampled_from([SIZE, ""]))).encode("utf-8", "replace")
    if kind == "encoding":
        encodings = st.sampled_from(
            ["utf-8", "utf-16", "utf-32", "gbk", "latin-1", "cp037", "hz", "iso2022_jp"]
        )
        return declared(draw(encodings)).encode(draw(encodings), "replace")
    content = bytearray(TEXT.encode())
    start = draw(st.integers(0, len(content)))
    content[start : start + draw(st.integers(0, 20))] = draw(st.binary(max_size=8))
    return bytes(content)


@examples(30)
@given(content=changed())
def test_any_annotation_is_read_or_refused_in_a_sentence(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed-voc"
    if not root.exists():
        write_set(root, "")
    (root / "Annotations/a.xml").write_bytes(content)
    try:
        split = read(root)
    except UserError as error:
        assert is_sentence(error), str(error)
    else:
        for item in split.annotations:
            x0, y0, x1, y1 = item["bbox"]
            assert 0 <= x1 - x0 < 1000
            assert 0 <= y1 - y0 < 1000
            assert type(item["difficult"]) is bool


@examples(20)
@given(
    names=st.one_of(st.binary(max_size=30), st.text(max_size=20).map(lambda t: t.encode("utf-8", "replace")))
)
def test_any_list_is_read_or_refused_in_a_sentence(
    names: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed-list"
    if not root.exists():
        write_set(root, TEXT)
    for part in ("trainval", "test"):
        (root / f"ImageSets/Main/{part}.txt").write_bytes(names)
    for action in (lambda: read(root), lambda: VocImages(root)):
        try:
            action()
        except UserError as error:
            assert is_sentence(error), str(error)
