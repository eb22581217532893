"""Odd metadata of folders of torch.distributed.checkpoint: each is refused in one sentence."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from support.odd_weights import HEAD
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

from siamtransfer.checkpoints.distributed_checkpoint import read_distributed
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault

FIRST = "conv1.weight"


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": {FIRST: torch.arange(4.0).view(2, 2)}}, checkpoint_id=str(folder), no_dist=True)
    return folder


def boxes(metadata: Any, *ranges: tuple[int, int], size: int = 4) -> None:
    """The tensor in parts of these rows, all of which lie in the one that is stored."""
    (name, stored), place = (
        next(iter(metadata.state_dict_metadata.items())),
        next(iter(metadata.storage_data.values())),
    )
    stored.size = torch.Size([size, 2])
    stored.chunks = [ChunkStorageMetadata(torch.Size([at, 0]), torch.Size([rows, 2])) for at, rows in ranges]
    for at, _ in ranges:
        metadata.storage_data[MetadataIndex(name, torch.Size([at, 0]))] = place


def each_place(metadata: Any, field: str, value: Any) -> None:
    for place in metadata.storage_data.values():
        setattr(place, field, value)


def stored(metadata: Any) -> Any:
    return next(iter(metadata.state_dict_metadata.values()))


METADATA: dict[str, Callable[[Any], Any]] = {
    "two parts in one place": lambda m: boxes(m, (0, 2), (0, 2)),
    "a part beyond the others": lambda m: boxes(m, (0, 2), (1, 2)),
    "parts of terabytes": lambda m: boxes(m, (0, 2**39), (2**39, 2**39), size=2**40),
    "a tensor of terabytes": lambda m: setattr(stored(m), "size", torch.Size([2**40, 2])),
    "a size of texts": lambda m: setattr(stored(m), "size", ["a"]),
    "no parts": lambda m: setattr(stored(m), "chunks", []),
    "no places": lambda m: setattr(m, "storage_data", None),
    "a list": lambda m: setattr(m, "state_dict_metadata", [1]),
    "keys as a number": lambda m: setattr(m, "planner_data", {f"model.{FIRST}": 3}),
    "no keys": lambda m: setattr(m, "planner_data", {f"model.{FIRST}": ()}),
    "keys that are lists": lambda m: setattr(m, "planner_data", {f"model.{FIRST}": ([],)}),
    **{
        f"{field} {value!r:.20}": lambda m, field=field, value=value: each_place(m, field, value)  # type: ignore[misc]
        for field, values in {
            "relative_path": ("../x", "", ".", "a\0b", 3, None, "absent", ".metadata"),
            "offset": (-5, 2**62, "x", None, float("nan"), 10**400),
            "length": (-1, 2**62, "x", None, 0, 2**33),
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("kind", METADATA)
def test_odd_metadata_of_a_distributed_checkpoint(distributed: Path, tmp_path: Path, kind: str) -> None:
    metadata = pickle.loads((distributed / ".metadata").read_bytes())
    METADATA[kind](metadata)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    for part in distributed.glob("*.distcp"):
        (tmp_path / part.name).write_bytes(part.read_bytes())
    with pytest.raises(UserError) as caught:
        read_distributed(tmp_path)
    assert str(caught.value).isprintable() and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind", ["a pipe", "cut", "deep", "of calls"])
def test_metadata_that_is_none(distributed: Path, tmp_path: Path, kind: str) -> None:
    path, content = tmp_path / ".metadata", (distributed / ".metadata").read_bytes()
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "cut":
            path.write_bytes(content[:-20])
        case "deep":
            path.write_bytes(HEAD + b"]" * 20_000 + b"a" * 19_999 + b".")
        case "of calls":
            path.write_bytes(HEAD + b"cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(UserError) as caught:
        read_distributed(tmp_path)
    assert {"a pipe": "pipe", "deep": "levels deep", "of calls": "os.system"}.get(kind, "damaged") in str(
        caught.value
    )
