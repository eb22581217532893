"""convert/export.py: wrong words, dry runs, the record, and the model card with its code and scores."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support import paths
from support.checkpoint_files import random_state, simsiam_checkpoint
from support.warm_python import run_python

import siamtransfer
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.exports.export import FOLDER_FILES
from siamtransfer.programs import export
from siamtransfer.utils.errors import UserError

PROGRAM = paths.ROOT / "convert" / "export.py"
NARROW = "random:resnet18:width=8:stem=small"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "say what to export to: --to timm, huggingface, onnx or torch-export"),
        (["--to", "timm"], "give the folder or the file to write"),
        (["out.onnx", "--to", "timm"], r"--to timm writes a folder, and out\.onnx looks like a file"),
        (["out", "--to", "onnx"], r"out must end in \.onnx"),
        (["out.onnx", "--to", "torch-export"], r"out\.onnx must end in \.pt2"),
        (
            ["out", "--to", "timm", "--layout", "timm"],
            "--layout belongs to --to huggingface, not to --to timm",
        ),
        (["o.onnx", "--to", "onnx", "--records", "[a.json]"], "--records belongs to --to huggingface"),
        (["out", "--to", "timm", "--dynamic-size"], "--dynamic-size belongs to --to onnx and torch-export"),
        (["out", "--to", "timm", "--with-preprocessing"], "--with-preprocessing belongs to --to onnx and"),
        (["o.pt2", "--to", "torch-export", "--opset", "20"], "--opset belongs to --to onnx, not to"),
        (["o.onnx", "--to", "onnx", "--opset", "3"], "--opset is 3; torch writes 18 to"),
        (["out", "--to", "timm", "--size", "0"], "--size is 0, and images have at least one pixel"),
        (["out", "--to", "coreml"], "coreml"),
    ],
)
def test_wrong_words(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        export.main([NARROW, *words])
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint_and_another_programs_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        export.main([str(tmp_path / "none.pth"), str(tmp_path / "out"), "--to", "timm"])
    (tmp_path / "in.pth").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"in\.pth"):
        export.main([str(tmp_path / "in.pth"), str(tmp_path / "out"), "--to", "timm"])
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = export.main([NARROW, str(tmp_path / "o.onnx"), "--to", "onnx", "--dry-run"])
    assert record["protocol"]["proof"] == "not run: --dry-run"
    assert record["provenance"]["out"] is None
    assert "would write" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(simsiam_checkpoint(random_state("resnet18"), "resnet18"), tmp_path / "in.pth.tar")
    words = ["in.pth.tar", "out", "--to", "timm", "--size", "64"]
    done = run_python(PROGRAM, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the largest difference over 8 images is" in done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["task"] == "convert/export"
    assert record["provenance"]["out"] == ["out"]
    assert record["provenance"]["weights_digest"] == read_backbone(tmp_path / "out").digest
    assert (
        record["provenance"]["assumptions"]
        == json.loads((tmp_path / "out/siamtransfer.json").read_text())["assumptions"]
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^out exists; choose another name or replace it with --force$"):
        export.main(words)


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """The metadata and the text of a model card."""
    text = (folder / "README.md").read_text()
    _, metadata, rest = text.split("---\n", 2)
    return yaml.safe_load(metadata), rest


def test_a_folder_for_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores are those of the record, the code of the card runs, and its features are ours."""
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    state = {
        key: tensor + 0.05 * torch.rand(tensor.shape)
        for key, tensor in read_backbone("random:timm:test_vit").state.items()
    }
    torch.save(state, tmp_path / "in.pth")
    backbone = siamtransfer.load_backbone(
        tmp_path / "in.pth", architecture="timm:test_vit", normalisation="half"
    )
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40) % 4
    train = siamtransfer.from_array(images, labels, name="noise", split="train")
    test = siamtransfer.from_array(images[::2], labels[::2], name="noise", split="test")
    features_of = [siamtransfer.extract_features(backbone, part, crop=160) for part in (train, test)]
    result = siamtransfer.knn(*features_of, k=[5])
    result.save(tmp_path / "knn.json")
    out = tmp_path / "model"
    done = siamtransfer.export(backbone, out, "huggingface", records=[str(tmp_path / "knn.json")])
    assert done.metrics["transformers/proof/max_relative_difference"] <= 1e-5
    assert {path.name for path in out.iterdir()} == set(FOLDER_FILES) - {"preprocessor_config.json"}

    metadata, text = card_of(out)
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("timm", "image-feature-extraction")
    assert "license" not in metadata
    assert "# license: not stated" in (out / "README.md").read_text()
    [model] = metadata["model-index"]
    values = [each["metrics"][0]["value"] for each in model["results"]]
    top1 = [value for name, value in result.metrics.items() if name.endswith("/top1")]
    assert values == pytest.approx(top1, abs=1e-4)
    assert model["results"][0]["dataset"]["name"] == "noise/test"
    assert f"| {top1[0]:.2f} |" in text

    Image.fromarray(images[0]).resize((200, 180)).save(out / "image.jpg")
    monkeypatch.chdir(out)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    found = []
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block, names)
        found.append(names["features"])
    picture = Image.open("image.jpg").convert("RGB")
    resize = round(160 * 8 / 7)
    picture = picture.resize((int(200 * resize / 180), resize), Image.Resampling.BILINEAR)
    left, top = round((picture.width - 160) / 2), round((resize - 160) / 2)
    pixels = torch.from_numpy(np.array(picture.crop((left, top, left + 160, top + 160))))
    with torch.no_grad():
        expected = backbone(pixels.permute(2, 0, 1)[None].float() / 127.5 - 1)
    for features in found:
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)


def test_scores_of_other_weights_and_readings_are_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    train = siamtransfer.from_array(images, np.arange(20) % 2, name="noise", split="train")
    siamtransfer.knn(siamtransfer.extract_features(NARROW, train), k=[5]).save(tmp_path / "knn.json")
    hub = ["--to", "huggingface", "--records", f"[{tmp_path / 'knn.json'}]"]
    for source, words in (
        ("random:resnet18:width=64", "a record of other weights"),
        (NARROW, "was measured with normalisation"),
    ):
        with pytest.raises(UserError, match=words):
            export.main([source, str(tmp_path / "out"), *hub, "--normalisation", "half"])
    assert not (tmp_path / "out").exists()


def test_help_says_what_is_proved() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0
    for word in (
        "--to",
        "--layout",
        "--dynamic-size",
        "nothing is written",
        "pip install 'siamtransfer[export]'",
    ):
        assert word in done.stdout
