"""Files that are no checkpoint of PyTorch are named for what they are, by their content, with the way out."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from support.checkpoint_files import random_state, save
from torch import nn

from siamtransfer.checkpoints.message_fields import BYTES, VARINT, Field, fields_of
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.utils.errors import UserError


def varint(number: int) -> bytes:
    """A number in protobuf's groups of seven bits."""
    groups = []
    while True:
        number, low = number >> 7, number & 0x7F
        groups.append(low | (0x80 if number else 0))
        if not number:
            return bytes(groups)


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protobuf message of numbers and of bytes."""
    parts = [
        varint(number << 3) + varint(value)
        if isinstance(value, int)
        else varint(number << 3 | 2) + varint(len(value)) + value
        for number, value in fields
    ]
    return b"".join(parts)


TENSOR = message((1, 64), (2, 1), (8, b"conv1.weight"), (9, bytes(256)))  # ONNX's TensorProto
ONNX = message(
    (1, 10), (2, b"pytorch"), (3, b"2.5"), (7, message((2, b"main"), (5, TENSOR))), (8, b"\x10\x11")
)
COREML = message((1, 7), (2, message((1, message((1, b"image"))))), (500, bytes(300)))
SAVED_MODEL = message((1, 1), (2, message((1, b"tags"), (2, bytes(500)))))
FROZEN_GRAPH = message((1, message((1, b"x"), (2, b"Placeholder"))), (4, message((1, 1))))
CAFFE = message((1, b"ResNet-50"), (100, message((1, b"conv1"), (7, bytes(64)))))


def zipped(names: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(names: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def numpy_archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def numpy_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


def exported() -> bytes:
    file = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), file)
    return file.getvalue()


def scripted() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return file.getvalue()


WEIGHTS = saved({"conv1.weight": torch.ones(3)})
FLAX = b"\x81\xa6params\x81\xa5Dense\x81\xa6kernel\xc7\x0d\x01\x93\x92\x01\x02\xa7float32\xc4\x00"
PLUGIN = b"# Copyright of the server\nEntry not found"
SAFETENSORS = safetensors.torch.save({"a": torch.ones(100), "b": torch.ones(100)})

# By what a file is: its bytes, and what the sentence says of it and of the way out.
FILES: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "TorchScript": (scripted, r"TorchScript program.*torch\.jit\.load\(FILE.*\.state_dict\(\)"),
    "torch.export": (exported, r"program of torch\.export.*torch\.export\.load\(FILE\)\.state_dict"),
    "AOTInductor": (
        lambda: zipped({"m/archive_format": b"pt2", "m/data/aotinductor/model/x.so": b"\x7fELF"}),
        "compiled code .AOTInductor.: give the checkpoint",
    ),
    "ONNX": (ONNX, "ONNX model.*exported from"),
    "TensorFlow's index": (bytes(100) + bytes.fromhex("57fb808b247547db"), "TensorFlow checkpoint"),
    "TensorFlow's pointer": (b'model_checkpoint_path: "model.ckpt-0"', "TensorFlow checkpoint"),
    "SavedModel": (SAVED_MODEL, "TensorFlow SavedModel"),
    "a frozen graph": (FROZEN_GRAPH, "TensorFlow graph"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(40), "TensorFlow Lite"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5 file.*Keras.*export its weights"),
    "Keras": (lambda: zipped({"config.json": b"{}", "model.weights.h5": b"\x89HDF"}), "file of Keras"),
    "Flax": (FLAX, r"Flax.*msgpack_restore.*HWIO to OIHW"),
    "augreg": (
        lambda: numpy_archive(**{"Transformer/encoder_norm/bias": np.ones(3), "cls": np.ones(1)}),
        r"NumPy archive \(Transformer/encoder_norm/bias, cls\).*augreg.*timm.*checkpoint_path=FILE",
    ),
    "an array": (numpy_array, "array of NumPy"),
    "features": (lambda: numpy_archive(features=np.ones((2, 3)), labels=np.ones(2)), "file of features"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(40), "GGUF or GGML.*converted from"),
    "GGML": (b"lmgg" + bytes(40), "GGUF or GGML"),
    "Core ML": (COREML, "Core ML model"),
    "a Core ML package": (
        lambda: zipped({"Manifest.json": b"{}", "Data/com.apple.CoreML/model.mlmodel": COREML}),
        "Core ML model",
    ),
    "TensorRT": (b"ftrt" + bytes(60), "engine of TensorRT"),
    "OpenVINO": (b'<?xml version="1.0"?>\n<net name="resnet" version="11">', "model of OpenVINO"),
    "ExecuTorch": (b"\x1c\0\0\0ET12" + bytes(40), "ExecuTorch"),
    "Caffe": (CAFFE, "model of Caffe"),
    "Lua Torch": (b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1" + bytes(40), "Lua Torch"),
    "MXNet": (b"\x12\x01" + bytes(40), "MXNet"),
    "MATLAB": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(100), "MATLAB"),
    "a library": (b"\x7fELF\x02\x01" + bytes(40), "machine code"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "git lfs pull"),
    "a page": (b"\xef\xbb\xbf<!-- saved -->\n<!DOCTYPE html><html>Not found</html>", "web page"),
    "a message": (PLUGIN, r"text that begins with '# Copyright of the server'"),
    "settings": (b'{"architecture": "resnet50"}', "JSON file.*file of the weights"),
    "a cut letter": ("é".encode() * 3000, "is a text that begins with 'ééé"),
    "nothing": (b"", "is empty"),
    "blank": (b" \n", "text that begins with ''"),
    "zip": (
        lambda: zipped({"readme.txt": b"x", "run/checkpoint.pth": WEIGHTS}),
        r"zip archive \(run/checkpoint\.pth, readme\.txt\).*unpack it",
    ),
    "tar": (lambda: tarred({"run/best.ckpt": WEIGHTS}), r"tar archive \(run/best\.ckpt\): unpack it"),
    "tar.gz": (
        lambda: gzip.compress(tarred({"x.pth": WEIGHTS})),
        "tar archive compressed with gzip.*tar -xzf",
    ),
    "an early PyTorch": (
        lambda: tarred({"sys_info": b"", "pickle": b"", "tensors": b"", "storages": b""}),
        "PyTorch before 0.2.*torch.load",
    ),
    "gzip": (lambda: gzip.compress(WEIGHTS), "compressed with gzip: decompress it first"),
    "xz": (b"\xfd7zXZ\0" + bytes(40), "xz -d"),
    "Zstandard": (b"\x28\xb5\x2f\xfd" + bytes(40), "zstd -d"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(40), "picture"),
    "safetensors with a cut header": (SAFETENSORS[:40], "truncated safetensors"),
    "safetensors with a cut tensor": (SAFETENSORS[:-10], "truncated safetensors"),
    "safetensors with a damaged header": (SAFETENSORS.replace(b'"dtype"', b"#dtype#"), "damaged safetensors"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_named_for_what_it_is(tmp_path: Path, kind: str) -> None:
    data, message = FILES[kind]
    path = tmp_path / "weights.pth"
    path.write_bytes(data if isinstance(data, bytes) else data())
    with pytest.raises(UserError, match=message) as caught:
        read_backbone(path)
    sentence = str(caught.value)
    assert sentence.startswith((f"{path} is ", f"{path} was "))
    assert "\n" not in sentence
    if "cut" not in kind or kind == "a cut letter":
        assert "truncated" not in sentence


def test_weights_without_a_mark_are_known_by_the_file_that_describes_them(tmp_path: Path) -> None:
    (tmp_path / "resnet.xml").write_text('<net name="resnet" version="11">')
    (tmp_path / "resnet.bin").write_bytes(bytes(range(256)))
    (tmp_path / "model.ckpt-0.data-00000-of-00001").write_bytes(bytes(range(256)))
    (tmp_path / "resnet.engine").write_bytes(bytes(range(256)))
    for name, message in {"bin": "OpenVINO", "engine": "TensorRT"}.items():
        with pytest.raises(UserError, match=message):
            read_backbone(tmp_path / f"resnet.{name}")
    with pytest.raises(UserError, match="TensorFlow"):
        read_backbone(tmp_path / "model.ckpt-0.data-00000-of-00001")
    (tmp_path / "resnet.xml").unlink()
    with pytest.raises(UserError, match=r"resnet\.bin is not a checkpoint"):
        read_backbone(tmp_path / "resnet.bin")


FOLDERS = {
    "saved_model.pb": "SavedModel",
    "model.ckpt-0.index": "TensorFlow checkpoint",
    "_CHECKPOINT_METADATA": "Orbax",
    "manifest.ocdbt": "Orbax",
    "zero_to_fp32.py": "DeepSpeed.*python zero_to_fp32.py",
    "global_step10/mp_rank_00_model_states.pt": "DeepSpeed",
    "Data/com.apple.CoreML/model.mlmodel": "Core ML",
    "adapter_config.json": "adapter of peft.*merge_and_unload",
    "model_index.json": "diffusers",
    "flax_model.msgpack": "Flax",
    "tf_model.h5": "Keras",
    "onnx/model.onnx": "ONNX",
    "data.pkl": "has unpacked",
    "best.ckpt": r"is a folder: give the checkpoint file in it \(best\.ckpt\)",
    "notes.txt": "is a folder: give the checkpoint file in it$",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_named_for_what_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=FOLDERS[name]) as caught:
        read_backbone(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def under(state: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """A trunk whose last convolution has a companion as quantised weights have one."""
    name = "layer4.1.conv2"
    return {**state, f"{name}.{suffix}": torch.ones(2, 2)}


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("SCB", "bitsandbytes.*quantised.*before quantisation"),
        ("weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        ("qweight", "GPTQ or AWQ"),
        ("weight_scale", "quantised"),
        ("lora_A.default.weight", r"LoRA.*merge_and_unload"),
        ("_flat_param", "shard of FSDP.*FULL_STATE_DICT"),
    ],
)
def test_tensors_that_are_no_plain_weights(tmp_path: Path, suffix: str, message: str) -> None:
    content = {"model": under(random_state("resnet18", 8), suffix)}
    with pytest.raises(UserError, match=f"has a tensor 'layer4.*{message}"):
        read_backbone(save(content, tmp_path))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_numbers_of_a_byte_are_quantised_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    state = random_state("resnet18", 8)
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"].to(dtype)
    with pytest.raises(UserError, match=rf"'layer1\.0\.conv1\.weight' of type {dtype}.*quantised"):
        read_backbone(save(state, tmp_path))


def test_weights_that_pytorch_quantised(tmp_path: Path) -> None:
    network = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})
    with pytest.raises(UserError, match="quantised"):
        read_backbone(save(network.state_dict(), tmp_path))


def test_an_adapter_alone(tmp_path: Path) -> None:
    adapter = {"base_model.model.encoder.layer.0.attention.query.lora_A.weight": torch.ones(4, 8)}
    safetensors.torch.save_file(adapter, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        with pytest.raises(UserError, match=r"adapter.*merge_and_unload"):
            read_backbone(path)


@pytest.mark.parametrize("inside", ["nothing", "model"])
def test_a_whole_pickled_model(tmp_path: Path, inside: str) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    torch.save(network if inside == "nothing" else {"model": network, "epoch": 1}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"holds a whole pickled model.*state_dict\(\).*--trust-pickle"):
        read_backbone(tmp_path / "x.pth")
    if inside == "nothing":
        assert read_backbone(tmp_path / "x.pth", trust_pickle=True).name == "resnet18"


@pytest.mark.parametrize(
    "content",
    [
        {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
        {"optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}], "epoch": 1},
    ],
)
def test_an_optimiser_alone(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="state of an optimiser only, no backbone"):
        read_backbone(save(content, tmp_path))


def test_shards_of_deepspeed(tmp_path: Path) -> None:
    stage_3 = {"module": {"conv1.weight": torch.empty(0)}, "ds_version": "0.16", "param_shapes": [{}]}
    optimiser = {"optimizer_state_dict": {"fp32_flat_groups": [torch.ones(9)]}, "ds_version": "0.16"}
    for content, what in ((stage_3, "ZeRO stage 3"), (optimiser, "state of an optimiser")):
        with pytest.raises(UserError, match=rf"{what}.*python zero_to_fp32\.py"):
            read_backbone(save(content, tmp_path))


def test_fields_of_a_message() -> None:
    read = fields_of(io.BytesIO(ONNX))
    assert {number: field.wire_type for number, field in read.items()} == {
        1: VARINT,
        2: BYTES,
        3: BYTES,
        7: BYTES,
        8: BYTES,
    }
    assert (read[1], read[2]) == (Field(VARINT, 10), Field(BYTES, 0, b"pytorch"))
    fixed = varint(3 << 3 | 5) + struct.pack("<f", 1.5) + varint(4 << 3 | 1) + struct.pack("<d", 2.5)
    assert set(fields_of(io.BytesIO(fixed))) == {3, 4}
    for broken in (ONNX[:-1], fixed[:-1], b"\x08", b"\x08" + b"\xff" * 11, b"\x00\x01", b"\x0b\x01"):
        assert fields_of(io.BytesIO(broken)) == {}
