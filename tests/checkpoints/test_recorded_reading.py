"""The record of a reading in or beside a converted file: never lost, changed or of other weights."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from support.checkpoint_files import own_checkpoint, random_state

from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.checkpoints.recorded_reading import read_recorded
from siamtransfer.checkpoints.to_torchvision import to_torchvision
from siamtransfer.detection.detectron2 import convert
from siamtransfer.utils.errors import UserError


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our own checkpoint, whose normalisation and stem its tensors do not show."""
    monkeypatch.setattr(convert, "is_installed", lambda: False)
    state = random_state("resnet18", 4, "small")
    torch.save(own_checkpoint(state, "resnet18", 4, "small"), tmp_path / "own.pth")
    return tmp_path / "own.pth"


def write(checkpoint: Path, name: str) -> Path:
    out = checkpoint.with_name(name)
    (convert.to_detectron2 if out.suffix == ".pkl" else to_torchvision)(checkpoint, out)
    return out


def numbers_of(read: ReadBackbone) -> tuple[object, ...]:
    """All that a feature depends on."""
    return read.digest, read.architecture, read.normalisation


@pytest.mark.parametrize(
    ("name", "damaged"),
    [("out.pth", "out.json"), ("out.pkl", "out.yaml"), ("out.safetensors", "out.safetensors")],
)
def test_two_hundred_damages_never_give_another_number(checkpoint: Path, name: str, damaged: str) -> None:
    out = write(checkpoint, name)
    expected, file = numbers_of(read_backbone(out)), out.with_name(damaged)
    intact, generator = file.read_bytes(), random.Random(0)
    refused = 0
    for trial in range(200):
        content = bytearray(intact)
        place = generator.randrange(min(len(content), 3000 if trial % 2 else len(content)))
        match trial % 4:
            case 0 | 1:
                content[place] ^= 1 << generator.randrange(8)
            case 2:
                del content[place:]
            case _:
                content[place : place + 64] = bytes(len(content[place : place + 64]))
        file.write_bytes(bytes(content))
        try:
            found = read_backbone(out)
        except UserError:
            refused += 1
        else:
            assert numbers_of(found) == expected, (trial, place)
    assert refused > 150


def test_files_of_others_beside_the_weights_are_left_alone(checkpoint: Path) -> None:
    out = write(checkpoint, "out.pth")
    beside = out.with_suffix(".json")
    beside.write_text(json.dumps({"task": "knn", "metrics": {}}))
    assert read_recorded(out) is None
    beside.write_text("no JSON")
    with pytest.raises(UserError, match=r"out\.json is no JSON"):
        read_recorded(out)
    beside.unlink()
    assert read_recorded(out) is None


def test_a_record_of_other_weights_is_refused(checkpoint: Path) -> None:
    out, other = write(checkpoint, "out.pth"), write(checkpoint, "other.pth")
    torch.save(random_state("resnet18", 4, "small", seed=1), other)
    with pytest.raises(UserError, match="does not hold the weights"):
        read_backbone(other)
    assert read_backbone(out).normalisation.mean == (0.5, 0.4, 0.3)


def test_an_older_weights_config_without_a_record_is_read_by_its_settings(checkpoint: Path) -> None:
    out = write(checkpoint, "out.pkl")
    config = out.with_suffix(".yaml")
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("# siamtransfer-reading")))
    assert read_recorded(out) is None
    read = read_backbone(out)
    assert read.normalisation.mean == pytest.approx((0.5, 0.4, 0.3))
    assert "out.yaml" in read.reading.normalisation.source


def test_settings_that_contradict_the_record_are_refused(checkpoint: Path) -> None:
    out = write(checkpoint, "out.pkl")
    config = out.with_suffix(".yaml")
    config.write_text(config.read_text().replace("127.5", "128.5", 1))
    with pytest.raises(UserError, match=r"does not set MODEL\.PIXEL_MEAN"):
        read_backbone(out)
