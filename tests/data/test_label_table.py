"""Lists and tables of labels as other programs write them: columns, encodings, ways to name files."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from siamtransfer.data.label_table import LabelTable, read_label_table
from siamtransfer.data.lists import ListedImages
from siamtransfer.utils.errors import UserError

FILES = ("cats/1.jpg", "cats/2.JPG", "dogs/a, b.png", "dogs/3.jpg")
EXPECTED = dict(zip(FILES, ("cat", "cat", "dog", "dog"), strict=True))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "images", *FILES)


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def read(root: Path, content: str | bytes, name: str = "labels.csv") -> LabelTable:
    path = root.parent / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return read_label_table(path, root)


def pairs(table: LabelTable) -> dict[str, str]:
    assert table.labels is not None
    return dict(zip(table.paths, table.labels, strict=True))


TABLES: dict[str, tuple[str, str]] = {
    "csv": (
        "labels.csv", 'path,label\ncats/1.jpg,cat\ncats/2.JPG,cat\n"dogs/a, b.png",dog\ndogs/3.jpg,dog\n'),
    "without a header": (
        "labels.csv", 'cats/1.jpg,cat\ncats/2.JPG,cat\n"dogs/a, b.png",dog\ndogs/3.jpg,dog'),
    "labels first": (
        "l.csv",
        'Class,File Name\r\ncat,cats/1.jpg\r\ncat,cats/2.JPG\r\ndog,"dogs/a, b.png"\r\ndog,dogs/3.jpg'),
    "tsv": (
        "l.tsv", "file\tspecies\ncats/1.jpg\tcat\ncats/2.JPG\tcat\ndogs/a, b.png\tdog\ndogs/3.jpg\tdog"),
    "semicolons": ("x.csv", "Bild;Tier\ncats/1.jpg;cat\ncats/2.JPG;cat\ndogs/a, b.png;dog\ndogs/3.jpg;dog\n"),
    "spreadsheet": ("x.csv", "sep=;\ncats/1.jpg;cat\ncats/2.JPG;cat\ndogs/a, b.png;dog\ndogs/3.jpg;dog\n"),
    "comments": (
        "l.csv",
        '# by hand\n\npath, label\n# cats\ncats/1.jpg, cat\ncats/2.JPG, cat\n"dogs/a, b.png", dog\n\n'
        "dogs/3.jpg,dog"),
    "other columns": (
        "l.csv",
        ',width,image,label\n0,3,cats/1.jpg,cat\n1,4,cats/2.JPG,cat\n2,5,"dogs/a, b.png",dog\n'
        "3,6,dogs/3.jpg,dog"),
    "numbers and names": (
        "l.csv",
        'image,class_id,class_name\ncats/1.jpg,0,cat\ncats/2.JPG,0,cat\n"dogs/a, b.png",1,dog\n'
        "dogs/3.jpg,1,dog"),
    "names without endings": ("l.csv", "id,breed\ncats/1,cat\ncats/2,cat\n\"dogs/a, b\",dog\ndogs/3,dog"),
    "names without folders": (
        "l.csv", 'file,label\n1.jpg,cat\n2.JPG,cat\n"a, b.png",dog\n3.jpg,dog'),
    "bare names": ("l.csv", 'image_id,label\n1,cat\n2,cat\n"a, b",dog\n3,dog'),
    "bare names without a header": ("l.csv", '1,cat\n2,cat\n"a, b",dog\n3,dog'),
    "other letters": (
        "l.csv", 'file,label\nCats/1.JPG,cat\ncats/2.jpg,cat\n"DOGS/a, b.png",dog\ndogs/3.jpg,dog'),
    "backslashes": ("l.csv", 'file,label\r\ncats\\1.jpg,cat\r\n.\\cats\\2.JPG,cat\r\n"dogs\\a, b.png",dog\r\n'
                    "dogs\\3.jpg,dog"),
    "table as text": ("l.txt", "cat,cats/1.jpg\ncat,cats/2.JPG\ndog,\"dogs/a, b.png\"\ndog,dogs/3.jpg"),
    "plain": ("l.txt", "cats/1.jpg cat\ncats/2.JPG cat\ndogs/a, b.png dog\ndogs/3.jpg dog"),
    "quoted and plain": (
        "l.txt", '"cats/1.jpg" cat\n"cats/2.JPG" cat\n"dogs/a, b.png" dog\n"dogs/3.jpg" dog'),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_any_kind_say_the_same(kind: str, root: Path) -> None:
    name, text = TABLES[kind]
    assert pairs(read(root, text, name)) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_encodings(encoding: str, ends: str, tmp_path: Path) -> None:
    root = make(tmp_path / "images", "Übung/1.jpg", "a/2.jpg")
    text = ends.join(["Datei;Klasse", "Übung/1.jpg;Käfer", "a/2.jpg;Löwe", ""])
    table = read(root, text.encode(encoding))
    assert pairs(table) == {"Übung/1.jpg": "Käfer", "a/2.jpg": "Löwe"}
    assert any("western encoding" in remark for remark in table.remarks) == (encoding == "cp1252")


def test_decomposed_names_mean_composed_files(tmp_path: Path) -> None:
    root = make(tmp_path / "images", unicodedata.normalize("NFC", "café/é.jpg"))
    table = read(root, unicodedata.normalize("NFD", "path,label\ncafé/é.jpg,café\n"))
    assert pairs(table) == {unicodedata.normalize("NFC", "café/é.jpg"): unicodedata.normalize("NFC", "café")}
    assert "other forms of letters" in table.remarks[0]


def test_file_names_that_are_no_text_and_labels_from_them(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9/1.jpg")
    root = make(tmp_path / "images", name)
    assert pairs(read(root, f"{name} {os.fsdecode(b'caf' + bytes([0xE9]))}", "list.txt")) == {
        name: os.fsdecode(b"caf\xe9")
    }


def test_plain_lists_of_names_with_commas_stay_plain(tmp_path: Path) -> None:
    root = make(tmp_path / "images", "Smith, John.jpg", "Doe, Jane.jpg")
    table = read(root, "Smith, John.jpg\nDoe, Jane.jpg\n", "list.txt")
    assert table.paths == ["Smith, John.jpg", "Doe, Jane.jpg"] and table.labels is None
    assert read(root, '"Smith, John.jpg"\n"Doe, Jane.jpg"\n').paths == table.paths


def test_no_labels_and_empty_labels(root: Path) -> None:
    assert read(root, "path\ncats/1.jpg\ncats/2.JPG").labels is None
    table = read(root, "path,label\ncats/1.jpg,cat\ncats/2.JPG,\n")
    assert table.labels == ["cat", ""] and table.lines == [2, 3]
    with pytest.raises(UserError, match=r"line 3 of .*labels\.csv has no label although 1 other"):
        ListedImages(root.parent / "labels.csv", root)


def test_a_column_of_parts_and_labels_that_are_none_are_remarked(root: Path) -> None:
    rows = "cats/1.jpg,cat,train\ncats/2.JPG,NaN,Train\ndogs/3.jpg,nan,test\n"
    table = read(root, f"path,label,split\n{rows}")
    assert "column split names parts of the set (Train, test, train)" in table.remarks[1]
    assert ["NaN is a label" in remark for remark in table.remarks] == [False, False, True, False]


def test_a_table_is_a_labelled_set(root: Path) -> None:
    (root / "labels.csv").write_text('label,file\ndog,3\ncat,2\ncat,1\ndog,"a, b"\n')
    images = ListedImages(root / "labels.csv")
    assert images.classes == ("cat", "dog")
    assert images.labels is not None and images.labels.tolist() == [1, 0, 0, 1]
    assert [images.relative_name(index) for index in range(4)] == [
        "dogs/3.jpg", "cats/2.JPG", "cats/1.jpg", "dogs/a, b.png",
    ]  # fmt: skip
    assert "4 paths" in images.set_remarks[0]


MISTAKES: dict[str, tuple[str, str | bytes, str]] = {
    "no such file": ("l.csv", "path,label\ncats/1.jpg,cat\ncats/9.jpg,cat",
                     r"1 of the 2 files .* line 3, .*/cats/9\.jpg; --data\.root"),
    "root too deep": ("l.csv", "path,label\nimages/cats/1.jpg,cat\n", r"which the paths begin, here .*[^/]$"),
    "of another encoding": ("l.csv", "path,label\nKäfer.jpg,x\n".encode("mac-roman"), "is not UTF-8: save"),
    "of Windows": ("l.csv", "path,label\nC:\\me\\cats\\1.jpg,cat\n", "a path of Windows"),
    "two files": ("l.csv", "path,label\nx,cat\n", r"line 2 .* names x, which may be a/x\.png, b/x\.png"),
    "ragged": ("l.csv", "path,label\ncats/1.jpg,cat\ndogs/a, b.png,dog\n",
               r'line 3 of .* has 3 columns, divided by commas, .* 2; .* holds a "," in quotes'),
    "open quotes": ("l.csv", 'path,label\n"cats/1.jpg,cat\ncats/2.JPG,cat\n', "is no row of a table"),
    "two labels": ("l.csv", "path,label\ncats/1.jpg,cat\n./cats/1.jpg,dog\n",
                   r"more than once \(cats/1\.jpg 2 times, in lines 2 and 3, with the labels cat, dog\)"),
    "columns without names": ("l.csv", "cats/1.jpg,cat,3\ncats/2.JPG,cat,4\n", "has 3 columns and no header"),
    "two columns of labels": ("l.csv", "path,label,class\ncats/1.jpg,cat,x\ncats/2.JPG,cat,y\n",
                              r"may be the labels \(label, class\)"),
    "many columns": ("l.csv", "path,width,height\ncats/1.jpg,3,4\n", r"may be the labels \(width, height\)"),
    "no paths": ("l.csv", "label,width\ncat,77\n", r"no column that names images \(its first row is cat, 77"),
    "empty path": ("l.csv", "path,label\ncats/1.jpg,cat\n,cat\n", "line 3 of .* has no path"),
    "header alone": ("l.csv", "path,label\n", "has a header and no rows"),
    "labels of another encoding": ("l.csv", "path,label\ncats/1.jpg,Käfer\n".encode("cp1252"),
                                   r"label in line 2 of .* is not UTF-8 \(K\\xe4fer\); save"),
    "UTF-16 without mark": ("l.csv", "path,label\n".encode("utf-16-le"), "UTF-16 without its mark"),
    "half of UTF-16": ("l.csv", "path,label\ncats/1.jpg,cat".encode("utf-16")[:-1], "begins as UTF-16"),
    "comment that is a file": ("l.txt", "#1.jpg\ncats/1.jpg", r"line 1 of .* begins with #.* write \./"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_understood_is_refused_with_its_line(mistake: str, root: Path) -> None:
    make(root, "a/x.png", "b/x.png", "#1.jpg")
    name, content, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as caught:
        read(root, content, name)
    assert "\n" not in str(caught.value)
