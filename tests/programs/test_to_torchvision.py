"""convert/to_torchvision.py: names, bits, the way back from Detectron2, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from support import paths
from support.checkpoint_files import own_checkpoint, random_state, simsiam_checkpoint
from support.warm_python import run_python

from siamtransfer.checkpoints.read_backbone import digest_of, read_backbone
from siamtransfer.detection.detectron2 import convert
from siamtransfer.programs import to_d2, to_torchvision
from siamtransfer.utils.errors import UserError

PROGRAM = paths.ROOT / "convert" / "to_torchvision.py"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    state = random_state("resnet18", seed=4)
    torch.save(simsiam_checkpoint(state, "resnet18"), tmp_path / "checkpoint.pth.tar")
    return tmp_path / "checkpoint.pth.tar"


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_torchvision_takes_what_is_written(tmp_path: Path, checkpoint: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    record = to_torchvision.main([str(checkpoint), str(out)])
    state = safetensors.torch.load_file(out) if suffix == ".safetensors" else torch.load(out)
    expected = random_state("resnet18", seed=4)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    missed = torchvision.models.resnet18().load_state_dict(state, strict=False)
    assert (missed.missing_keys, missed.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    assert record["provenance"]["weights_digest"] == digest_of(expected) == read_backbone(out).digest
    assert record["metrics"]["parameters"] == sum(
        p.numel() for name, p in torchvision.models.resnet18().named_parameters() if "fc" not in name
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_any_type_are_written_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for key, tensor in random_state("resnet18", 8).items()
    }
    torch.save(state, tmp_path / "in.pth")
    to_torchvision.main([str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors")])
    expected = {
        key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()
    }
    assert digest_of(safetensors.torch.load_file(tmp_path / "out.safetensors")) == digest_of(expected)


def test_to_detectron2_and_back_is_bit_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "is_installed", lambda: False)
    state = random_state("resnet50", seed=2)
    torch.save(state, tmp_path / "there.pth")
    to_d2.main([str(tmp_path / "there.pth"), str(tmp_path / "there.pkl")])
    record = to_torchvision.main([str(tmp_path / "there.pkl"), str(tmp_path / "back.pth")])
    assert record["provenance"]["format"] == "detectron2"
    back = torch.load(tmp_path / "back.pth")
    assert list(back) == list(state)
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_vits_keep_timms_names_and_the_heads_are_mentioned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = read_backbone("random:vit_small_moco_v3").state
    content = {"state_dict": {f"module.base_encoder.{key}": tensor for key, tensor in state.items()}}
    torch.save(content, tmp_path / "moco.pth")
    to_torchvision.main([str(tmp_path / "moco.pth"), str(tmp_path / "vit.pth")])
    assert digest_of(torch.load(tmp_path / "vit.pth")) == digest_of(state)
    assert "note: these tensors alone look like name timm:vit_small_patch16_224" in capsys.readouterr().err


def test_a_branch_can_be_chosen(tmp_path: Path) -> None:
    query, key = random_state("resnet18", 8, seed=1), random_state("resnet18", 8, seed=2)
    content = {
        "state_dict": {
            **{f"module.encoder_q.{name}": tensor for name, tensor in query.items()},
            **{f"module.encoder_k.{name}": tensor for name, tensor in key.items()},
        }
    }
    torch.save(content, tmp_path / "moco.pth")
    for options, expected in (([], query), (["--branch", "key"], key)):
        out = tmp_path / f"{len(options)}.pth"
        to_torchvision.main([str(tmp_path / "moco.pth"), str(out), *options])
        assert digest_of(torch.load(out)) == digest_of(expected)


def test_dry_run_and_refusals_write_nothing(tmp_path: Path, checkpoint: Path, capsys: Any) -> None:
    out = tmp_path / "out.pth"
    assert to_torchvision.main([str(checkpoint), str(out), "--dry-run"])["provenance"]["out"] is None
    assert "layer4.1.conv2.weight" in capsys.readouterr().err
    before = checkpoint.read_bytes()
    for arguments, words in [
        ([str(checkpoint), str(tmp_path / "out.pkl")], r"must end in one of \.pth"),
        ([str(checkpoint), str(tmp_path)], "must end in"),
        ([str(tmp_path / "none.pth"), str(out)], "there is no file"),
    ]:
        with pytest.raises(UserError, match=words):
            to_torchvision.main(arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.name]
    own = tmp_path / "own.pth"
    own.write_bytes(before)
    with pytest.raises(UserError, match="never overwritten"):
        to_torchvision.main([str(own), str(own), "--force"])
    out.write_bytes(b"old")
    with pytest.raises(UserError, match="exists"):
        to_torchvision.main([str(own), str(out)])
    assert out.read_bytes() == b"old"
    to_torchvision.main([str(own), str(out), "--force"])
    assert read_backbone(out).name == "resnet18"
    assert own.read_bytes() == before


def test_on_the_command_line(tmp_path: Path) -> None:
    torch.save(
        own_checkpoint(random_state("resnet18", 8, "small"), "resnet18", 8, "small"), tmp_path / "c.pth"
    )
    done = run_python(PROGRAM, "c.pth", "out.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["task"] == "convert/to_torchvision"
    assert (tmp_path / "out.safetensors").exists()
