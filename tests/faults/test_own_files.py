"""Files that our programs keep and read again, with any value anywhere: read, or refused by a sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import examples
from support.odd_texts import odd_values, places_of, with_value_at
from support.sentences import is_sentence

from siamtransfer.cli.main import program
from siamtransfer.config import PretrainConfig, read_saved_config, refuse_differences
from siamtransfer.config.sections import MethodConfig
from siamtransfer.embedding.predict.head_values import require_values
from siamtransfer.suites.folder import read_state
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import read_checked_text, write_checked_text
from siamtransfer.utils.json_file import read_checked_json
from siamtransfer.utils.text import sentence

CELL = {"identity": {"k": 5}, "weights": "w", "images": None, "files": {"a/knn.json": "00"}, "seconds": 1.0}
SUITE = {
    "suite": "quick",
    "backbones": {"a": {"source": "x", "stamp": "y"}},
    "cells": {"a/knn": CELL},
    "planned": {"a/knn": ["knn", "x"]},
    "not_measured": {"a/svm": "why"},
}
HEAD: dict[str, Any] = {
    "kind": "logistic",
    "strength": 1.0,
    "classes": ["a", "b"],
    "temperature": 1,
    "threshold": 0.5,
    "checkpoint": "x.pth",
    "branch": None,
    "reading": {"crop": None},
    "weights_digest": "00",
    "transform": {"crop": 32, "resize": None, "mean": [0.5], "std": [0.2], "interpolation": "bilinear"},
    "layers": "output",
    "precision": "float32",
    "form": {},
    "calibrated": True,
    "unknown_quantile": 0.99,
    "estimate": {},
    "labelled_fingerprints": ["f"],
}


def changed(tree: Any, data: st.DataObject, value: Any) -> Any:
    return with_value_at(tree, data.draw(st.sampled_from(places_of(tree))), value)


def accepted(use: Callable[[], Any]) -> bool:
    """Whether it is accepted; a refusal is a sentence as a program prints it."""
    try:
        use()
    except UserError as error:
        assert is_sentence(UserError(sentence(str(error))[:600]))
        return False
    return True


@examples(6)
@given(data=st.data(), value=odd_values(), method=st.sampled_from(["simsiam", "simsiam-variants"]))
def test_the_configuration_of_a_run(
    data: st.DataObject, value: Any, method: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = PretrainConfig(method=MethodConfig(method)).as_dict()
    saved = changed(whole, data, value)
    folder = tmp_path_factory.getbasetemp() / "fuzzed-run"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(saved))
    if accepted(lambda: read_saved_config(folder)):
        accepted(lambda: program("pretrain").parse(["--resume", str(folder)]).check())
    accepted(lambda: refuse_differences(saved, whole))


@examples(30)
@given(data=st.data(), value=odd_values())
def test_the_state_of_a_suite(
    data: st.DataObject, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed-suite"
    folder.mkdir(exist_ok=True)
    path = folder / "suite.json"
    path.write_text(json.dumps(SUITE))
    assert vars(read_state(path)) == SUITE
    path.write_text(json.dumps(changed(SUITE, data, value)))
    if accepted(lambda: read_state(path)):
        for entry in read_state(path).cells.values():
            assert isinstance(entry["identity"], dict) and isinstance(entry["files"], dict)


@examples(40)
@given(data=st.data(), value=odd_values())
def test_the_values_of_a_head(data: st.DataObject, value: Any) -> None:
    assert require_values(HEAD, "a.safetensors") is HEAD
    odd = changed(HEAD, data, value)
    if accepted(lambda: require_values(odd, "a.safetensors")):
        assert set(HEAD) <= set(odd) and len(set(odd["classes"])) == len(odd["classes"])


@pytest.mark.parametrize("key", ["kind", "classes", "transform", "threshold", "strength"])
def test_a_head_without_a_value_names_it(key: str) -> None:
    with pytest.raises(UserError, match=f"no usable head: it has no value '{key}'; make it anew"):
        require_values(
            {**HEAD, key: None} if key == "strength" else {k: HEAD[k] for k in HEAD if k != key}, "h"
        )


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: os.mkfifo(path), "is damaged: it is a pipe or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "is damaged: it is a pipe or a device"),
        (lambda path: path.write_text("[" * 100_000), "is nested deeper than the 100 levels"),
        (lambda path: path.write_text('{"a": NaN}'), "holds NaN, and JSON has no such number"),
        (lambda path: path.write_bytes(b"\xff\xfe{"), "is damaged: it is no UTF-8 text"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**30), "is damaged: it has 1,073"),
    ],
)
def test_what_no_program_of_ours_wrote(write: Callable[[Path], Any], says: str, tmp_path: Path) -> None:
    """It is neither waited for nor read without an end, nor is it a traceback."""
    path = tmp_path / "config.json"
    write(path)
    with pytest.raises(ValueError, match=says):
        read_checked_json(path)
    with pytest.raises(UserError, match=r"config.json is damaged: give the run's --config again"):
        read_saved_config(tmp_path)


def test_a_checksum_that_is_a_pipe(tmp_path: Path) -> None:
    write_checked_text(tmp_path / "a.json", "{}")
    (tmp_path / "a.json.sha256").unlink()
    os.mkfifo(tmp_path / "a.json.sha256")
    with pytest.raises(ValueError, match="is a pipe or a device"):
        read_checked_text(tmp_path / "a.json")
