"""The converter: what it writes, what it refuses, and that it leaves nothing behind when it fails."""

from __future__ import annotations

import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import paths
from support.checkpoint_files import own_checkpoint, random_state, simsiam_checkpoint
from support.warm_python import run_python

from siamtransfer.checkpoints.detectron2_keys import to_detectron2, to_torchvision
from siamtransfer.checkpoints.read_backbone import digest_of, read_backbone
from siamtransfer.detection.detectron2 import convert, shapes
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.detection.detectron2.weights_config import read_stamp
from siamtransfer.programs import to_d2
from siamtransfer.utils.errors import UserError

ROOT = paths.ROOT
SCRIPT = ROOT / "convert" / "to_d2.py"


class ArraysOnly(pickle.Unpickler):
    """Reads a pickle that may call nothing but numpy.ndarray."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save(own_checkpoint(random_state("resnet18", 16), "resnet18", 16, "imagenet"), path)
    return path


@pytest.fixture
def without_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "is_installed", lambda: False)


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_written_weights(tmp_path: Path, without_detectron2: None, dtype: torch.dtype) -> None:
    state = random_state("resnet18", 16)
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    torch.save(simsiam_checkpoint(stored, "resnet18"), tmp_path / "c.pth")
    out = tmp_path / "new folder" / "out.pkl"
    record = to_d2.main([str(tmp_path / "c.pth"), str(out)])
    assert files_of(out.parent) == ["out.pkl", "out.yaml"]

    content = ArraysOnly(io.BytesIO(out.read_bytes())).load()
    assert set(content) == {"model", "__author__", "matching_heuristics"}
    assert content["matching_heuristics"] is True
    assert content["__author__"] != "Caffe2"
    back = {to_torchvision(name): torch.from_numpy(array) for name, array in content["model"].items()}
    expected = {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}
    assert {key: value.dtype for key, value in back.items()} == {key: v.dtype for key, v in expected.items()}
    assert digest_of(back) == digest_of(expected)
    assert list(content["model"]) == [to_detectron2(key) for key in expected]

    assert digest_of(read_backbone(out).state) == digest_of(expected), "our own reader takes it, too"
    assert read_stamp(out.with_suffix(".yaml")) == digest_of(expected)
    assert record["provenance"]["weights_digest"] == digest_of(expected)
    assert record["provenance"]["format"] == "simsiam"
    assert record["metrics"] == {"tensors": 120.0, "parameters": 702096.0}
    assert record["protocol"]["proof"] == "not run: Detectron2 is not installed"


def test_the_settings_follow_the_checkpoint(
    tmp_path: Path, checkpoint: Path, without_detectron2: None
) -> None:
    settings = to_d2.main([str(checkpoint), str(tmp_path / "out.pkl")])["protocol"]["settings"]
    assert settings["MODEL.PIXEL_MEAN"] == [127.5, 102.0, 76.5]
    assert settings["MODEL.PIXEL_STD"] == [63.75, 51.0, 31.875]
    assert (settings["MODEL.RESNETS.DEPTH"], settings["MODEL.RESNETS.RES2_OUT_CHANNELS"]) == (18, 16)
    text = (tmp_path / "out.yaml").read_text()
    assert '  WEIGHTS: "out.pkl"\n' in text
    assert 'INPUT:\n  FORMAT: "RGB"\n' in text
    assert "    STRIDE_IN_1X1: false\n" in text
    assert "register_trunks()" in text


@pytest.mark.detectron2
@pytest.mark.skipif(
    not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
)
def test_the_command_line_with_the_proof(tmp_path: Path, checkpoint: Path) -> None:
    done = run_python(SCRIPT, "checkpoint.pth", "out.pkl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["task"] == "convert/to_d2"
    assert record["protocol"]["proof"] == "passed"
    assert record["protocol"]["layouts"] == ["FPN", "D16", "D8"]
    for layout in record["protocol"]["layouts"]:
        assert 0 <= record["metrics"][f"parity/float32/{layout}/max_relative_error"] < 1e-5
        assert 0 <= record["metrics"][f"parity/float64/{layout}/max_relative_error"] < 1e-13
    assert "detectron2 0.6" in record["provenance"]["detectron2"]
    assert "FPN only" in done.stderr
    assert files_of(tmp_path) == ["checkpoint.pth", "out.pkl", "out.yaml"]


@pytest.mark.detectron2
@pytest.mark.skipif(
    not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
)
def test_a_failed_proof_leaves_everything_as_it_was(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = convert.settings_for
    wrong = ("INPUT.FORMAT", "BGR")
    monkeypatch.setattr(convert, "settings_for", lambda *arguments: [*real(*arguments)[:-1], wrong])
    with pytest.raises(UserError, match="differ from torchvision's"):
        to_d2.main([str(checkpoint), str(tmp_path / "out.pkl")])
    assert files_of(tmp_path) == ["checkpoint.pth"]
    (tmp_path / "out.pkl").write_text("old weights")
    (tmp_path / "out.yaml").write_text("old settings")
    with pytest.raises(UserError, match="differ from torchvision's"):
        to_d2.main([str(checkpoint), str(tmp_path / "out.pkl"), "--force"])
    assert (tmp_path / "out.pkl").read_text() == "old weights"
    assert (tmp_path / "out.yaml").read_text() == "old settings"


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, checkpoint: Path, without_detectron2: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(weights: dict[str, Any], file: Any) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "write_pickle", interrupt)
    with pytest.raises(KeyboardInterrupt):
        to_d2.main([str(checkpoint), str(tmp_path / "out.pkl")])
    assert files_of(tmp_path) == ["checkpoint.pth"]


def test_dry_run_prints_the_mapping_and_writes_nothing(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = to_d2.main([str(checkpoint), str(tmp_path / "out.pkl"), "--dry-run"])
    said = capsys.readouterr().err
    assert re.search(r"layer2\.0\.downsample\.1\.bias +-> +res3\.0\.shortcut\.norm\.bias +\(32,\)", said)
    assert said.count("  ->  ") == 120
    assert record["protocol"]["proof"] == "not run: --dry-run"
    assert files_of(tmp_path) == ["checkpoint.pth"]


def test_existing_files_need_force_and_the_input_is_never_replaced(
    tmp_path: Path, checkpoint: Path, without_detectron2: None
) -> None:
    out = tmp_path / "out.pkl"
    (tmp_path / "out.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"out\.yaml exists.*--force"):
        to_d2.main([str(checkpoint), str(out)])
    assert (tmp_path / "out.yaml").read_text() == "mine"
    to_d2.main([str(checkpoint), str(out), "--force"])
    with pytest.raises(UserError, match=r"out\.pkl exists.*--force"):
        to_d2.main([str(checkpoint), str(out)])

    before = checkpoint.read_bytes()
    for name in ("input.pkl", "link.pkl"):
        other = tmp_path / name
        other.write_bytes(before) if name == "input.pkl" else other.symlink_to(checkpoint)
        source = other if name == "input.pkl" else checkpoint
        with pytest.raises(UserError, match="is the checkpoint itself"):
            to_d2.main([str(source), str(other), "--force"])
    assert checkpoint.read_bytes() == before == (tmp_path / "input.pkl").read_bytes()


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("random:timm:visformer_tiny", "out.pkl", "visformer_tiny has maps of the strides 8, 16, 32, and"),
        ("random:timm:maxvit_tiny_rw_224", "out.pkl", "does not take images of 96x160 pixels, and detectors"),
        ("random:timm:inception_v3", "out.pkl", "makes a map of 20x36 from 96x160 pixels, where"),
        ("random:torchvision:vgg11", "out.pkl", "of torchvision's networks only ResNets"),
        ("random:resnet18", "out.pth", r"must end in \.pkl"),
        ("absent.pth", "out.pkl", "there is no file"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(
    tmp_path: Path, source: str, out: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        to_d2.main([source, str(tmp_path / out)])
    assert files_of(tmp_path) == []


def test_names_and_shapes_are_checked_without_detectron2(
    tmp_path: Path, checkpoint: Path, without_detectron2: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(architecture: Any) -> dict[str, tuple[int, ...]]:
        return {**real(architecture), "res5.1.conv2.weight": (128, 128, 1, 1)}

    real = shapes.expected_shapes
    monkeypatch.setattr(shapes, "expected_shapes", other)
    with pytest.raises(UserError, match=r"1 tensors .*res5\.1\.conv2\.weight.*\(128, 128, 3, 3\) instead of"):
        to_d2.main([str(checkpoint), str(tmp_path / "out.pkl")])
    assert files_of(tmp_path) == ["checkpoint.pth"]


def test_a_wrong_file_ends_with_one_sentence_and_status_2(tmp_path: Path) -> None:
    """Also run as a module, from the repository's folder."""
    page = tmp_path / "page.pth"
    page.write_text("<html>404</html>")
    done = run_python("-m", "convert.to_d2", page, tmp_path / "out.pkl", cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {page} is a web page")
    assert done.stderr.count("\n") == 1


def test_the_way_back_is_bit_equal(tmp_path: Path, checkpoint: Path, without_detectron2: None) -> None:
    to_d2.main([str(checkpoint), str(tmp_path / "out.pkl")])
    there, back = read_backbone(checkpoint), read_backbone(tmp_path / "out.pkl")
    assert (back.format, back.architecture) == ("detectron2", there.architecture)
    assert back.digest == there.digest
