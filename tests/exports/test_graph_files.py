"""ONNX and .pt2 files: other runtimes compute the backbone's features, for any batch."""

from __future__ import annotations

import errno
import importlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.checkpoint_files import random_state
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.exports import onnx_file, torch_export_file
from siamtransfer.exports.network import network_of
from siamtransfer.programs import export
from siamtransfer.utils.errors import UserError

NARROW = Architecture("resnet18", 8, "small")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(random_state("resnet18", 8, "small"), tmp_path / "in.pth")
    return tmp_path / "in.pth"


def features(x: Tensor) -> Tensor:
    """Of the checkpoint, for normalised images."""
    network = NARROW.build().eval()
    network.load_state_dict(random_state("resnet18", 8, "small"))
    with torch.no_grad():
        return network(x)


def test_onnx_with_its_own_preprocessing_at_any_size(checkpoint: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "out.onnx"
    words = ["--to", "onnx", "--with-preprocessing", "--dynamic-size", "--normalisation", "half"]
    record = export.main([str(checkpoint), str(out), *words])
    session = onnxruntime.InferenceSession(out)
    [images] = session.get_inputs()
    assert (images.name, images.type) == ("images", "tensor(uint8)")
    assert images.shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 64]
    pixels = torch.randint(0, 256, (3, 3, 40, 56), dtype=torch.uint8)
    [found] = session.run(["features"], {"images": pixels.numpy()})
    expected = features(pixels.float() / 127.5 - 1)
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["mean"]) == [0.5, 0.5, 0.5]
    assert json.loads(metadata["size"]) == 32
    assert json.loads(metadata["siamtransfer"])["weights_digest"] == metadata["weights_digest"]
    assert record["protocol"]["opset"] == 20
    assert {name for name in record["metrics"] if name.endswith("max_relative_difference")} == {
        "proof/max_relative_difference",
        "64px/proof/max_relative_difference",
    }


def test_weights_too_large_for_onnx_lie_beside_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    exporter: Any = importlib.import_module("torch.onnx._internal.exporter._onnx_program")
    folder = tmp_path / "outputs"
    out, beside = folder / "out.onnx", folder / "out.onnx.data"
    arguments = [str(checkpoint), str(out), "--to", "onnx"]
    with monkeypatch.context() as patch:
        patch.setattr(exporter, "_LARGE_MODEL_THRESHOLD", 0)
        export.main(arguments)
    assert beside.stat().st_size > 500_000
    onnx.checker.check_model(str(out))
    assert onnx.load(str(out), load_external_data=False).opset_import[0].version == 20
    assert sorted(folder.iterdir()) == [out, beside]
    with pytest.raises(UserError, match="exists"):
        export.main(arguments)


def test_a_torch_export_file(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pt2"
    record = export.main([str(checkpoint), str(out), "--to", "torch-export"])
    kept = {"siamtransfer.json": ""}
    module = torch.export.load(out, extra_files=kept).module()
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(module(x), features(x), atol=1e-5, rtol=1e-4)
    assert json.loads(kept["siamtransfer.json"])["weights_digest"] == record["provenance"]["weights_digest"]


@pytest.mark.fault
def test_a_torch_export_file_without_room_ends_no_process(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch ends the process (SIGABRT) where a file that it opens itself finds no room: it gets none."""

    def save(_: Any, file: Any, **__: Any) -> None:
        assert not isinstance(file, str | Path)
        file.write(b"a program")

    def no_room(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch_export_file, "record_graph", lambda *_, **__: None)
    monkeypatch.setattr(torch.export, "save", save)
    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(UserError, match=r"cannot write .*/out\.pt2: No space left on device \("):
        export.main([str(checkpoint), str(tmp_path / "out.pt2"), "--to", "torch-export"])
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_a_process_that_cannot_run_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in the place of the Python that would import torch: what matters is how it ends."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Traceback >&2\necho RuntimeError: no archive >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(torch_export_file.sys, "executable", str(python))
    network = network_of(read_backbone("random:resnet18:width=8:stem=small"))
    why = r"a new process cannot run out\.pt2 \(RuntimeError: no archive\): nothing was written"
    with pytest.raises(UserError, match=why):
        torch_export_file._in_a_process(network, tmp_path / "out.pt2", False)([torch.zeros(1, 3, 8, 8)])


def test_a_network_of_one_size_is_refused_where_sizes_shall_be_free(tmp_path: Path) -> None:
    words = ["--to", "torch-export", "--dynamic-size"]
    with pytest.raises(UserError, match=r"takes images of 160 x 160 pixels and not of 192 .*--dynamic-size"):
        export.main(["random:timm:test_maxvit", str(tmp_path / "out.pt2"), *words])
    assert list(tmp_path.iterdir()) == []


def test_a_reason_of_torch_is_passed_on(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("\n  branches on a tensor\nand much more")

    monkeypatch.setattr(torch.export, "export", refuse)
    with pytest.raises(
        UserError, match=r"resnet18 cannot be recorded .*RuntimeError: branches on a tensor\)"
    ):
        export.main([str(checkpoint), str(tmp_path / "out.pt2"), "--to", "torch-export"])
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_a_missing_extra_is_named_before_any_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(onnx_file.importlib, "import_module", absent)
    with pytest.raises(UserError, match=r"needs onnx, .*: pip install 'siamtransfer\[export\]'"):
        export.main([str(checkpoint), str(tmp_path / "out.onnx"), "--to", "onnx"])
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_onnx_runtime_that_computes_something_else_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")

    class Session:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def run(self, _: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            h = features(torch.from_numpy(inputs["images"]))
            return [(h + 2e-4 * h.abs().max()).numpy()]

    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    monkeypatch.setattr(onnx_file, "_translate", lambda *_: FakeProgram())
    monkeypatch.setattr(onnx_file, "_name_dimensions", lambda _: None)
    with pytest.raises(UserError, match=r"differ by 2\.0e-04 of the largest one, more than 0\.0001"):
        export.main([str(checkpoint), str(tmp_path / "out.onnx"), "--to", "onnx"])
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


class FakeProgram:
    """What the exporter gives, of which only the file is looked at."""

    def __init__(self) -> None:
        self.model = SimpleNamespace(graph=None, metadata_props={})

    def save(self, path: str) -> None:
        Path(path).write_bytes(b"")
