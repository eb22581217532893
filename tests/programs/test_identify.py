"""convert/identify.py: the facts about a file, or one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import paths
from support.checkpoint_files import build_content, own_checkpoint, random_state, read_golden
from support.warm_python import run_python

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.read_backbone import digest_of
from siamtransfer.programs import identify
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file

PROGRAM = paths.ROOT / "convert" / "identify.py"


def test_a_file_of_several_backbones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = build_content(read_golden("formats/dino_vits16_full.json.gz")["content"], {})
    torch.save(content, tmp_path / "dino.pth")
    record = identify.main([str(tmp_path / "dino.pth")])
    facts = record["provenance"]
    assert record["metrics"] == {"tensors": 150.0, "parameters": 21_665_664.0}
    assert record["protocol"] == {"branch": "teacher", "branches": ["teacher", "student"]}
    assert (facts["format"], facts["method"], facts["epochs"]) == ("dino", "dino", 800)
    assert facts["architecture"]["name"] == "timm:vit_small_patch16_224"
    assert facts["dropped"] == {"projector": 16, "branch student": 150}
    assert facts["checkpoint_digest"] == digest_of_file(tmp_path / "dino.pth")
    table = capsys.readouterr().err
    for words in (
        "teacher (--branch also takes student)",
        "21.67 M",
        "16 projector, 150 branch student",
        "mean 0.485/0.456/0.406, std 0.229/0.224/0.225",
    ):
        assert words in table
    assert (
        identify.main([str(tmp_path / "dino.pth"), "--branch", "student"])["protocol"]["branch"] == "student"
    )


def test_our_own_files(tmp_path: Path) -> None:
    state = random_state("resnet18", 16, "small")
    torch.save(own_checkpoint(state, "resnet18", 16, "small"), tmp_path / "own.pth")
    facts = identify.main([str(tmp_path / "own.pth")])["provenance"]
    assert (facts["format"], facts["method"], facts["epochs"]) == ("siamtransfer", "simsiam", 30)
    assert facts["architecture"] == {"name": "resnet18", "width": 16, "stem": "small"}
    assert facts["normalisation"] == {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.125)}
    assert facts["weights_digest"] == digest_of(state)


def test_facts_have_sources_and_the_rest_is_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(random_state("resnet50", 8), tmp_path / "x.pth")
    facts = identify.main([str(tmp_path / "x.pth"), "--normalisation", "half"])["provenance"]
    assert facts["reading"]["normalisation"] == {
        "value": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "source": "--normalisation",
    }
    assert facts["reading"]["stride_in_1x1"] == {"value": False, "source": "assumed"}
    assert "stride in the 3x3" in facts["assumptions"][0]
    said = capsys.readouterr().err
    assert "(--normalisation)" in said
    assert f"note: {facts['assumptions'][0]}" in said
    torch.save(own_checkpoint(random_state("resnet18", 8), "resnet18", 8, "imagenet"), tmp_path / "own.pth")
    assert identify.main([str(tmp_path / "own.pth")])["provenance"]["assumptions"] == []
    assert "nothing about the reading was assumed" in capsys.readouterr().err


def test_images_ask_the_batch_norms(
    tmp_path: Path, shapes_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(random_state("resnet18", 4), tmp_path / "x.pth")
    record = identify.main([str(tmp_path / "x.pth"), "--images", str(shapes_folder)])
    assert "normalisation half" in record["provenance"]["witness"]["readings"]
    assert "as read" in capsys.readouterr().err
    for words, message in (
        (["--images", "nowhere"], "nowhere"),
        (["--root", "data"], "name it with --images"),
        (["--images", str(shapes_folder), "--root", "data"], "--root means nothing"),
    ):
        with pytest.raises(UserError, match=message):
            identify.main([str(tmp_path / "x.pth"), *words])


def test_baselines_have_no_file() -> None:
    assert identify.main(["random:resnet18:width=8"])["provenance"]["checkpoint_digest"] is None


def test_a_branch_that_is_not_there(tmp_path: Path) -> None:
    torch.save(random_state("resnet18", 8), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"no branch 'teacher': it has model \(--branch\)"):
        identify.main([str(tmp_path / "x.pth"), "--branch", "teacher"])


def test_on_the_command_line(tmp_path: Path) -> None:
    torch.save(random_state("resnet18", 8), tmp_path / "x.pth")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html></html>")
    for name, status in (("x.pth", 0), ("page.pth", 2)):
        done = run_python(PROGRAM, name, cwd=tmp_path)
        assert done.returncode == status
        if status:
            assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        else:
            assert (
                json.loads(done.stdout.splitlines()[-1])["provenance"]["architecture"]["name"] == "resnet18"
            )


def test_a_plain_network_is_identified_without_the_libraries_that_build_it(tmp_path: Path) -> None:
    """Their import is most of the time that it would take."""
    probe = (
        "import sys; from siamtransfer.checkpoints.read_backbone import read_backbone\n"
        "for path in sys.argv[1:]: print(read_backbone(path).name)\n"
        "print([name for name in ('timm', 'torchvision', 'torch._dynamo') if name in sys.modules])"
    )
    timms = ("timm:vit_tiny_patch16_224", "timm:convnext_atto")
    states = [random_state("resnet18", 16), *map(zeros_of, timms)]
    files = [tmp_path / f"{number}.pth" for number in range(len(states))]
    for file, state in zip(files, states, strict=True):
        torch.save(state, file)
    done = subprocess.run(
        [sys.executable, "-c", probe, *map(str, files)],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:4] == ["resnet18", *timms, "[]"]


def zeros_of(name: str) -> dict[str, torch.Tensor]:
    """Zeros under the names of a network of timm."""
    return {key: torch.zeros(shape) for key, shape in Architecture(name).shapes().items()}
