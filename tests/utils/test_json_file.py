"""JSON of users is read strictly, and with bounded work."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import examples
from support.sentences import is_sentence

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.json_file import parse_json, read_json

pytestmark = pytest.mark.fault


def test_what_json_writes_is_read(tmp_path: Path) -> None:
    tree = {"a": [1, -2.5, 2**64 - 1, None, True, "é\ud800"], "": {}}
    (tmp_path / "a.json").write_text(json.dumps(tree), encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == tree


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON: Expecting value"),
        ('{"a": 1', "is not JSON: Expecting"),
        ("[1] [2]", "is not JSON: Extra data"),
        ('{"a": NaN}', "holds NaN, and JSON has no such number"),
        ("[-Infinity]", "holds -Infinity"),
        ("[1e400]", "holds the number 1e400, which is beyond the range of numbers"),
        (f"[{'9' * 6000}]", "which is beyond 64 bits"),
        (f"[-{2**63 + 1}]", "which is beyond 64 bits"),
        ('{"a": {"k": 1, "b": 2, "k": 3}}', "holds the key 'k' twice in one object"),
        ("[" * 100_000, "is nested deeper than the 100 levels"),
        ("[" * 300 + "]" * 300, "is nested deeper than the 100 levels"),
        ('{"a":' * 300 + "1" + "}" * 300, "is nested deeper"),
        ("[" + "," * 2_000_000 + "0]", "more than the 2,000,000 that are read"),
        ('["\x1b[31m"]', "is not JSON: Invalid control character"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_json_of_ours_is_one_sentence(text: str, words: str) -> None:
    begin = time.process_time()
    with pytest.raises(UserError) as caught:
        parse_json(text, "a.json")
    assert str(caught.value).startswith("a.json ")
    assert words in str(caught.value)
    assert is_sentence(caught.value)
    assert time.process_time() - begin < 5


@examples(60)
@given(
    text=st.lists(st.sampled_from([*'[]{},:"\\ 019.-e', '"a"', "NaN", "null", "1e999", "\\u12"])).map("".join)
)
def test_any_text_is_read_or_refused_by_a_sentence(text: str) -> None:
    try:
        parse_json(text, "a.json")
    except UserError as error:
        assert is_sentence(error)
