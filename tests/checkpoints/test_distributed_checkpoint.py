"""Folders of torch.distributed.checkpoint are read as PyTorch reads them, and no code in them runs."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from support.checkpoint_files import random_state, same_tensors
from support.small_runs import on_ranks
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from siamtransfer.checkpoints.containers import read_content
from siamtransfer.checkpoints.read_backbone import digest_of, read_backbone
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.errors import UserError

STATE = random_state("resnet18", 8)
TRAINING = {"state": {"conv1.weight": {"exp_avg": torch.ones(3, 4), "step": torch.tensor(5.0)}}}


class Stateful:
    """As PyTorch's tutorial keeps a model and its optimiser."""

    def state_dict(self) -> dict[str, Any]:
        return {"model": {f"module.{name}": tensor for name, tensor in STATE.items()}, "optim": TRAINING}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """DCP asks for the method."""


def written(content: Any, folder: Path) -> Path:
    dcp.save(content, checkpoint_id=folder, no_dist=True)
    return folder


def same_state(mine: Any, theirs: Any) -> bool:
    """Whether two nested dicts have the same tensors."""
    if isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(same_state(mine[key], theirs[key]) for key in theirs)
    return torch.equal(mine, theirs) if isinstance(theirs, Tensor) else mine == theirs


def test_the_content_is_that_of_pytorchs_own_reader(tmp_path: Path) -> None:
    content = {"model": STATE, "epoch": 7, "names": ["a", "b"], "half": {"x": torch.ones(2, 0).bfloat16()}}
    folder = written(content, tmp_path / "run")
    dcp_to_torch_save(folder, tmp_path / "theirs.pth")
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=False)
    assert same_state(read_content(folder), theirs)


@pytest.mark.parametrize(
    "content",
    [
        {"model": STATE, "optimizer": TRAINING},
        STATE,
        {**STATE, "optimizer": TRAINING, "train_state": {"step": 3}},
        {"app": Stateful()},
    ],
    ids=["entries", "bare", "loose", "stateful"],
)
def test_the_backbone_is_read_from_a_folder(tmp_path: Path, content: Any) -> None:
    folder = written(content, tmp_path / "run")
    for source in (folder, folder / ".metadata"):
        read = read_backbone(source)
        assert same_tensors(read.state, STATE)
        assert read.digest == digest_of(STATE)


def test_an_optimiser_is_not_read(tmp_path: Path) -> None:
    folder = written({"model": STATE, "optimizer": TRAINING}, tmp_path / "run")
    moment = read_content(folder)["optimizer"]["state"]["conv1.weight"]["exp_avg"]
    assert (moment.device.type, moment.shape) == ("meta", (3, 4))
    with pytest.raises(UserError, match="optimiser only"):
        read_backbone(written({"optimizer": TRAINING}, tmp_path / "other"))


def save_sharded(_: Runtime, folder: Path) -> None:
    """A rank's share of the rows of each tensor."""
    mesh = init_device_mesh("cpu", (2,))
    sharded = {
        name: distribute_tensor(tensor, mesh, [Shard(0)]) if tensor.ndim else tensor
        for name, tensor in STATE.items()
    }
    dcp.save({"model": sharded}, checkpoint_id=folder)


def test_shards_of_two_ranks_are_put_together(tmp_path: Path) -> None:
    on_ranks(save_sharded, tmp_path / "run")
    assert len(list((tmp_path / "run").glob("*.distcp"))) == 2
    assert same_tensors(read_backbone(tmp_path / "run").state, STATE)


def test_missing_cut_and_changed_parts_are_refused(tmp_path: Path) -> None:
    folder = written({"model": STATE}, tmp_path / "run")
    (part,) = folder.glob("*.distcp")
    with pytest.raises(UserError, match=r"part of a checkpoint of torch\.distributed: give its folder"):
        read_backbone(part)
    data = part.read_bytes()
    middle = len(data) // 2
    for damaged in (data[:middle], data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]):
        part.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            read_backbone(folder)
    part.unlink()
    with pytest.raises(UserError, match=r"__0_0\.distcp.*is missing"):
        read_backbone(folder)
    (folder / ".metadata").write_bytes(b"\x80\x02 and no more")
    with pytest.raises(UserError, match=r"damaged checkpoint of torch\.distributed"):
        read_backbone(folder)


class Malice:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def changed_metadata(folder: Path, change: Any) -> None:
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def test_no_code_of_the_metadata_runs(tmp_path: Path) -> None:
    folder = written({"model": STATE}, tmp_path / "run")
    marker = tmp_path / "marker"
    changed_metadata(folder, lambda metadata: setattr(metadata, "planner_data", Malice(marker)))
    with pytest.raises(UserError, match=r"names posix\.system, which could run code"):
        read_backbone(folder)
    assert not marker.exists()


@pytest.mark.parametrize("module", ["torch.distributed.rpc", "torch.distributed.run"])
def test_functions_of_torch_distributed_are_not_called(tmp_path: Path, module: str) -> None:
    folder = written({"model": STATE}, tmp_path / "run")
    (folder / ".metadata").write_bytes(b"c" + module.encode() + b"\nmain\n(S'x'\ntR.")
    loaded = set(sys.modules)
    with pytest.raises(UserError, match=r"checkpoint of torch\.distributed"):
        read_backbone(folder)
    assert set(sys.modules) == loaded


def test_a_metadata_file_cannot_lead_out_of_its_folder_nor_leave_a_tensor_incomplete(tmp_path: Path) -> None:
    folder = written({"model": STATE}, tmp_path / "run")
    shutil.copytree(folder, tmp_path / "other")

    def lead_out(metadata: Any) -> None:
        next(iter(metadata.storage_data.values())).relative_path = "../secret"

    def leave_out(metadata: Any) -> None:
        metadata.state_dict_metadata["model.conv1.weight"].chunks.clear()

    def compress(metadata: Any) -> None:
        next(iter(metadata.storage_data.values())).transform_descriptors = ["zstd"]

    for change, message in (
        (lead_out, "outside its folder"),
        (leave_out, r"'conv1\.weight' is incomplete"),
        (compress, "dcp_to_torch FOLDER FILE"),
    ):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "other", folder)
        changed_metadata(folder, change)
        with pytest.raises(UserError, match=message):
            read_backbone(folder)
