"""Files of settings are read strictly: no value that YAML 1.1 would turn into another one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from support.fuzz import examples
from support.odd_texts import yaml_texts
from support.sentences import is_sentence
from support.thorough import more

from siamtransfer.cli.yaml_file import parse_yaml, read_yaml
from siamtransfer.utils.errors import UserError


def read(text: str, folder: Path) -> dict[str, object]:
    (folder / "a.yaml").write_text(text, encoding="utf-8")
    return read_yaml(folder / "a.yaml")


def test_plain_values_have_the_types_that_people_expect(tmp_path: Path) -> None:
    text = (
        "a: 5e-4\nb: 1.0\nc: -3\nd: true\ne: null\nf: hello no\ng: 'no'\nh: [1, 2e3, .5]\ni: ~\nj: 0\n"
        "k: .inf\nl: 2026-01-01\nm: '010'\nn: v1\no: 1e3\n"
    )
    values = read(text, tmp_path)
    assert values == {
        "a": 5e-4, "b": 1.0, "c": -3, "d": True, "e": None, "f": "hello no", "g": "no", "h": [1, 2000.0, 0.5],
        "i": None, "j": 0, "k": math.inf, "l": "2026-01-01", "m": "010", "n": "v1", "o": 1000.0,
    }  # fmt: skip
    assert math.isnan(read("a: .nan", tmp_path)["a"])  # type: ignore[arg-type]
    assert read("", tmp_path) == {}
    assert read("# only a comment", tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: no", "line 1: no is ambiguous: write true or false"),
        ("a: 1\nb: Off", "line 2: Off is ambiguous"),
        ("a: 010", "010 is ambiguous: write it without the leading zero"),
        ("a: -007", "-007 is ambiguous"),
        ("a: 1:30", "1:30 is ambiguous: write the number out"),
        ("a: 1_000", "1_000 is ambiguous"),
        ("optim:\n  lr: 1\n  lr: 2", "line 3: the key 'lr' stands there twice"),
        ("a: 1\na: 1", "the key 'a' stands there twice"),
        ("a: [1, 2", "this is no YAML"),
        ("just words", "sections of settings are expected"),
        ("a: &d {lr: 1}\nb: {<<: *d}", "line 2: merges (<<) are not read"),
        ("optim: &o {lr: *o}", "a section cannot be within itself"),
        ("a: 1\n---\na: 2", "this is no YAML"),
        ("optim:\n\tlr: 1", "this is no YAML"),
        ("optim: {lr: 0,3}", "the key 3 is a number"),
        ("1: 2", "the key 1 is a number"),
        ("true: 2", "a key is a word, and 'True' is none"),
        ("~: 2", "a key is a word, and 'None' is none"),
        ("? [a, b]\n: 1", "a key is a word"),
        ("a: !!binary aGVsbG8=", "no setting is of YAML's type !!binary"),
        ("a: !!set {b}", "no setting is of YAML's type !!set"),
        ("a: !!timestamp 2026-01-01", "no setting is of YAML's type !!timestamp"),
        ("- 1", "sections of settings are expected"),
        ("a: !!python/object/apply:os.system ['true']", "this is no YAML"),
    ],
)
def test_what_is_ambiguous_or_no_yaml_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(text, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'a.yaml'}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_and_aliases_are_read(tmp_path: Path) -> None:
    assert read("\ufeffa: &x {b: 1}\nc: *x", tmp_path) == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.fault
def test_what_aliases_of_aliases_name_is_counted_each_time(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))]
    with pytest.raises(UserError, match="more than 30,000 values, where what an alias"):
        read("\n".join(lines), tmp_path)
    assert len(read("\n".join(lines[:4]), tmp_path)) == 4


@pytest.mark.fault
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: " + "[" * 1000, "line 1: sections are nested deeper than the 50 levels"),
        ("\n".join(" " * n + "a:" for n in range(60)), "line 51: sections are nested deeper"),
        ("- " * 60, "nested deeper"),
        more("a: " + "{a: " * 50_000, "nested deeper"),
        more("a: [" + "1," * 120_000 + "]", "more than 30,000 values"),
        more("".join(f"k{n}: 1\n" for n in range(20_000)), "line 15000: more than 30,000 values"),
        ("a: " + "9" * 5000, "line 1: a number of 5000 digits"),
        ("a: 1e999", "line 1: 1e999 is beyond the range of numbers"),
        ("a: !!bool abc", "'abc' is neither true nor false"),
        ("a: !!str [1]", "this is no YAML"),
        ("a: !!int [1]", "this is no YAML"),
        ("a: !!float {b: 1}", "this is no YAML"),
        ("a: !!map abc", "this is no YAML"),
        ('a: "\\UFFFFFFFF"', "this is no YAML"),
        ('a: "\\ud800"', "line 1: '\\ud800' holds a character that no text has"),
        ('"a\\0b": 1', "holds a character that no text has"),
        ("a: \x1b[31m", "this is no YAML"),
        ("#" * 2**18 + "#", "has 262,145 bytes, and a file of this kind has at most 262,144"),
    ],
)
def test_bombs_and_impossible_values_are_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(text, tmp_path)
    assert words in str(caught.value)
    assert is_sentence(caught.value)


@pytest.mark.fault
@examples(60)
@given(text=yaml_texts())
def test_any_text_is_read_or_refused_by_a_sentence(text: str) -> None:
    try:
        tree = parse_yaml(text, "a.yaml")
    except UserError as error:
        assert is_sentence(error)
    else:
        assert len(json.dumps(tree)) < 100 * len(text) + 100_000  # no bomb came through
