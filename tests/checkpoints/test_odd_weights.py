"""Odd values and names in files of weights: each is read with the weights that were written, or refused in
one sentence."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import own_checkpoint, random_state, same_tensors, save
from support.odd_weights import HEAD, refused, write_zip
from support.thorough import more

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.checkpoints.training_state import read_state
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.unexpected import TRACEBACK

pytestmark = pytest.mark.fault

STATE = random_state("resnet18", 2)
read_backbone_module = sys.modules["siamtransfer.checkpoints.read_backbone"]

# Values in a checkpoint of this program.

VALUES: dict[str, Any] = {
    "a tensor": torch.ones(3),
    "a number in a tensor": torch.tensor(1),
    "a list": [1],
    "None": None,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "400 digits": 10**400,
    "a text": "1",
    "a line": "a\nb\x1b[31m",
    "minus one": -1,
    "a dict": {},
    "True": True,
    "a tuple": (1, 2),
    "bytes": b"1",
}
PLACES = (
    *("version", "model", "backbone", "normalisation", "keys"),
    *("backbone.name", "backbone.width", "backbone.stem", "backbone.in_channels", "backbone.heads"),
    *("normalisation.mean", "normalisation.std", "keys.backbone", "keys.heads", "keys.evaluated"),
)
_FEW = ("a tensor", "NaN", "400 digits")


@pytest.mark.parametrize("value", [value if value in _FEW else more(value) for value in VALUES])
@pytest.mark.parametrize("place", PLACES)
def test_an_odd_value_of_ours_is_refused(tmp_path: Path, place: str, value: str) -> None:
    own = own_checkpoint(STATE, "resnet18", 2, "imagenet", declared=True)
    holder, _, entry = place.rpartition(".")
    (own[holder] if holder else own)[entry] = VALUES[value]
    path = save(own, tmp_path)
    if (place, value) == ("backbone.heads", "None"):
        assert same_tensors(read_backbone(path).state, STATE)
        return
    refused(path)


@pytest.mark.parametrize("entry", ["mean", "std"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "1", None, True])
def test_a_normalisation_is_of_finite_numbers(tmp_path: Path, entry: str, value: Any) -> None:
    own = own_checkpoint(STATE, "resnet18", 2, "imagenet", declared=True)
    own["normalisation"][entry] = [value] * 3
    assert "normalisation" in refused(save(own, tmp_path))


@pytest.mark.parametrize("value", [torch.ones(3), [1], None, "1", 1.5, float("nan")])
def test_a_run_does_not_resume_from_an_odd_version(tmp_path: Path, value: Any) -> None:
    path = save({"format": "siamtransfer", "version": value}, tmp_path)
    assert "its version is" in refused(path, read_state)


def test_a_run_does_not_resume_from_a_bomb(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.pth", HEAD + b"]" * 20_000 + b"a" * 19_999 + b".")
    assert "levels deep" in refused(path, read_state)
    os.mkfifo(tmp_path / "pipe.pth")
    assert "is a pipe" in refused(tmp_path / "pipe.pth", read_state)


# Names.

NAMES: dict[str, tuple[Callable[[], Any], str]] = {
    "thousands of words": (
        lambda: {"model." * 3000 + key: t for key, t in STATE.items()},
        "18,012 characters",
    ),
    "lines": (lambda: {"a\nerror: fine\x1b[31m.weight": torch.ones(2)}, r"a\nerror: fine\x1b[31m"),
    "numbers": (lambda: dict(enumerate(STATE.values())), "0, 1, 2"),
    "bytes": (lambda: {key.encode(): t for key, t in STATE.items()}, "no known format"),
    "a huge number": (lambda: {10**400: 1, "model": {"a": 1}}, "no tensors"),
    "NaN": (lambda: {**STATE, float("nan"): torch.ones(1)}, "nan"),
}


@pytest.mark.parametrize("kind", [more(kind) if kind in ("numbers", "bytes") else kind for kind in NAMES])
def test_odd_names_are_shown_as_they_are(tmp_path: Path, kind: str) -> None:
    make, words = NAMES[kind]
    assert words in refused(save(make(), tmp_path))


def test_many_wrappers_are_taken_away(tmp_path: Path) -> None:
    path = save({"module.model.net.model.module." + key: tensor for key, tensor in STATE.items()}, tmp_path)
    assert same_tensors(read_backbone(path).state, STATE)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (KeyError("x"), False),
        (RuntimeError("shapes\ndiffer"), False),
        (RuntimeError("you tried to allocate 9 bytes"), True),
        (AssertionError("x"), True),
    ],
)
def test_a_defect_is_told_as_one(
    error: Exception, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as the file's fault alone, with a way to its traceback."""

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(read_backbone_module, "read_public", fail)
    path = save(STATE, tmp_path)
    with pytest.raises(type(error) if shown else UserError) as caught:
        read_backbone(path)
    if not shown:
        assert re.search(
            r"/x\.pth cannot be read, by its values or by a defect here \(\w+Error: ('x'|shapes)\): .*"
            r"with SIAMTRANSFER_TRACEBACK=1 in the environment the place in the code is shown$",
            str(caught.value),
        )
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(type(error)):
        read_backbone(path)
