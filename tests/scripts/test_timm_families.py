"""The sweep over timm's families: on small networks it passes, and it notices what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm_families
import torch
from support.thorough import more
from timm_families import KINDS, Outcome, check

SMALL = {
    "test_vit": "equal",
    "test_convnext": "equal",
    "test_resnet": "equal",
    "test_efficientnet_gn": "named",
}


@pytest.mark.parametrize(
    ("name", "unnamed"), [more(*case) if case[0] == "test_convnext" else case for case in SMALL.items()]
)
def test_every_kind_of_file_gives_timms_features(name: str, unnamed: str) -> None:
    outcomes = check(name)
    assert {kind: outcome.word for kind, outcome in outcomes.items()} == {
        "backbone": unnamed,
        "classifier": unnamed,
        "float16": unnamed,
        "bfloat16": unnamed,
        "folder": "equal",
        "train.py": "equal",
        "its average": "equal",
    }
    assert all(outcome.passed for outcome in outcomes.values())


def test_a_wrong_reading_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file with one other number, and one that the reader refuses."""
    plain = KINDS["backbone"]

    def changed(model: torch.nn.Module, folder: Path) -> timm_families.Written:
        written = plain(model, folder)
        other = {key: tensor.clone() for key, tensor in written.weights.items()}
        next(iter(other.values())).view(-1)[0] += 1
        return written._replace(weights=other)

    def damaged(model: torch.nn.Module, folder: Path) -> timm_families.Written:
        written = plain(model, folder)
        torch.save(written.weights | {"another.weight": torch.zeros(3)}, written.path)
        return written

    monkeypatch.setitem(KINDS, "backbone", changed)
    [outcome] = check("test_resnet", ["backbone"]).values()
    assert not outcome.passed
    assert outcome.word.startswith("differs by")
    monkeypatch.setitem(KINDS, "backbone", damaged)
    [outcome] = check("test_resnet", ["backbone"]).values()
    assert outcome == Outcome(outcome.word, passed=False)
    assert outcome.word.startswith("UserError: ")


@pytest.mark.parametrize("name", ["shvit_s1", more("iformer_t")])
def test_networks_whose_names_are_unusual(name: str) -> None:
    """A batch norm inside the classifier, which timm's own list of its layers leaves out; layers called
    `module`, which is no wrapper's word there."""
    outcomes = check(name, ["backbone", "folder"])
    assert [outcome.word for outcome in outcomes.values()] == ["equal", "equal"]
