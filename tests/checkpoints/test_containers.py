"""Opening files: every wrong file gets one sentence, and nothing in a file is ever run."""

from __future__ import annotations

import argparse
import collections
import fractions
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf
import pytest
import safetensors.torch
import torch

from siamtransfer.checkpoints.containers import read_content
from siamtransfer.checkpoints.foreign_content import describe_content
from siamtransfer.checkpoints.pickles import Inert
from siamtransfer.utils.errors import UserError


class Malice:
    """Touches a marker file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_numbers_and_texts_come_back(tmp_path: Path, zipped: bool) -> None:
    content = {"state_dict": {"a": torch.arange(6.0).view(2, 3)}, "epoch": 3, "arch": "resnet18"}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    read = read_content(tmp_path / "x.pth")
    assert torch.equal(read["state_dict"]["a"], content["state_dict"]["a"])  # type: ignore[index]
    assert (read["epoch"], read["arch"]) == (3, "resnet18")


def test_safetensors_are_recognised_whatever_the_suffix(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(3)}, tmp_path / "x.bin")
    assert torch.equal(read_content(tmp_path / "x.bin")["a"], torch.ones(3))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((tmp_path / "x.bin").read_bytes()[:-4])
    with pytest.raises(UserError, match=r"cut\.safetensors is a truncated safetensors file"):
        read_content(cut)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle2", "pickle5"])
def test_malicious_files_are_refused_by_name_and_not_run(tmp_path: Path, how: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    content = {"state_dict": {"a": torch.zeros(2)}, "payload": Malice(marker)}
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps({"payload": Malice(marker)}, protocol=int(how[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UserError, match=r"evil\.pth holds Python objects \(posix\.system\)"):
        read_content(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Malice(marker)))
    assert marker.exists(), "the payload would have worked"


def test_other_python_objects_are_named(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1), "when": fractions.Fraction(1, 2)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"holds Python objects \(fractions\.Fraction\).*--trust-pickle"):
        read_content(tmp_path / "x.pth")
    trusted = read_content(tmp_path / "x.pth", trust_pickle=True)
    assert (trusted["args"].lr, trusted["when"]) == (1, fractions.Fraction(1, 2))


def test_a_trusted_file_runs_its_code_once(tmp_path: Path) -> None:
    class Noisy:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"echo run >> {tmp_path / 'log'}",)

    torch.save({"a": torch.ones(3), "noise": Noisy()}, tmp_path / "x.pth")
    assert torch.equal(read_content(tmp_path / "x.pth", trust_pickle=True)["a"], torch.ones(3))
    assert (tmp_path / "log").read_text() == "run\n"


class Disguised:
    """Pickled under the name of a setting, whose class it would run if it could."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return argparse.Namespace, (), {"marker": str(self.marker)}


@pytest.mark.parametrize("zipped", [True, False])
def test_settings_of_old_scripts_are_read_without_their_classes(tmp_path: Path, zipped: bool) -> None:
    content = {
        "state_dict": {"a": torch.arange(3.0)},
        "args": argparse.Namespace(lr=0.1, out=tmp_path, deep={"k": [1, 2]}),
        "cfg": omegaconf.OmegaConf.create({"model": {"sizes": [1, 2], "name": "x", "none": None}}),
        "log": {"loss": np.float64(0.5), "curve": np.zeros(3), "defaults": collections.defaultdict(list)},
        "disguised": Disguised(tmp_path / "marker"),
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    read = read_content(tmp_path / "x.pth")
    assert torch.equal(read["state_dict"]["a"], content["state_dict"]["a"])  # type: ignore[index]
    for entry in ("args", "cfg", "disguised"):
        assert type(read[entry]) is Inert
    assert type(read["log"]["curve"]) is Inert
    assert (read["args"].state["lr"], read["args"].state["deep"]) == (0.1, {"k": [1, 2]})


def test_a_setting_beside_a_payload_does_not_open_the_door(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({"args": argparse.Namespace(lr=1), "evil": Malice(marker)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"holds Python objects \(posix\.system\)"):
        read_content(tmp_path / "x.pth")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_arrays_become_tensors(tmp_path: Path, protocol: int) -> None:
    content = {
        "model": {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7)},
        "__author__": "somebody",
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_content(tmp_path / "x.pkl")
    assert torch.equal(read["model"]["a"], torch.arange(6.0).view(2, 3))
    assert (read["model"]["n"].shape, int(read["model"]["n"]), read["__author__"]) == ((), 7, "somebody")


def test_arrays_of_objects_are_not_made(tmp_path: Path) -> None:
    class Forged:
        def __reduce__(self) -> tuple[Any, ...]:
            return np.ndarray, ((1,), "O", bytearray(8))

    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": {"a": Forged()}}))
    with pytest.raises(UserError, match=r"x\.pkl"):
        read_content(tmp_path / "x.pkl")


def test_files_of_other_frameworks_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt-0.index").write_bytes(b"\0\0")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-0"')
    for path in (tmp_path, tmp_path / "model.ckpt-0.index", tmp_path / "checkpoint"):
        with pytest.raises(UserError, match="TensorFlow checkpoint"):
            read_content(path)
    haiku = b"chaiku._src.data_structures\nFlatMapping\n"
    (tmp_path / "byol.pkl").write_bytes(b"\x80\x02" + haiku + b")\x81.")
    with pytest.raises(UserError, match="JAX and Haiku"):
        read_content(tmp_path / "byol.pkl")
    plain = {
        "experiment_state": {"online_params": {"res_net50/~/initial_conv": {"w": np.ones((7, 7, 3, 4))}}}
    }
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(plain))
    assert "JAX and Haiku" in describe_content(read_content(tmp_path / "plain.pkl"))


def test_a_whole_module_is_read_when_trusted(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 3)
    torch.save(module, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"Linear"):
        read_content(tmp_path / "x.pth")
    assert torch.equal(read_content(tmp_path / "x.pth", trust_pickle=True)["weight"], module.weight)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_files(tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.randn(1000)}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"x\.pth is truncated"):
        read_content(path)


def test_a_flipped_bit_in_a_tensor_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.randn(1000)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert torch.load(path)["a"].shape == (1000,), "torch itself does not notice"
    with pytest.raises(UserError, match="damaged"):
        read_content(path)


def test_files_saved_without_checksums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(5)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_content(tmp_path / "x.pth")["a"], torch.ones(5))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "web page"),
        (b"<HTML><body>", "web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "XML"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"epoch,loss\n1,2\n", "is not a checkpoint"),
        (b"PK\x03\x04 and no more", "truncated or damaged"),
        (b"\x80\x02 and no more", "truncated, damaged or not a checkpoint"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_content(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_torchscript_and_arrays(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "s.pth")
    with pytest.raises(UserError, match="TorchScript"):
        read_content(tmp_path / "s.pth")
    np.savez(tmp_path / "a.npz", features=np.zeros((2, 3)))
    with pytest.raises(UserError, match="not a checkpoint"):
        read_content(tmp_path / "a.npz")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*random:resnet50"):
        read_content(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="is a folder: give the checkpoint file in it"):
        read_content(tmp_path)
    (tmp_path / "checkpoint.pth").touch()
    with pytest.raises(UserError, match=r"is a folder: give .*checkpoint\.pth"):
        read_content(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "holds a Tensor, not a checkpoint"),
        ([1, 2], "holds a list"),
        ({}, "no tensors, only an empty dict"),
        ({"epoch": 3, "acc": torch.tensor(0.5)}, "no tensors, only 'epoch', 'acc'"),
        ({"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": []}, "optimiser only"),
        ({"optimizer": {"state": {0: torch.ones(2)}}, "epoch": 1}, "optimiser only"),
        ({"state_dict": {"module.projector.0.weight": torch.ones(2)}}, r"only heads \(projector\)"),
        ({"state_dict": {"blocks.0.attn.qkv.weight": torch.ones(2)}}, r"called blocks\.0\.attn"),
    ],
)
def test_what_unknown_content_is_called(content: Any, message: str) -> None:
    import re

    assert re.search(message, describe_content(content)), describe_content(content)
