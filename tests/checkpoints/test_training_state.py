"""Training states on disk: equal after loading, the newest one first, other files refused."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import differences

from siamtransfer.checkpoints.declaration import FORMAT, VERSION, VERSION_OF_CHOICES
from siamtransfer.checkpoints.training_state import Checkpoints, read_state
from siamtransfer.utils.errors import UserError


def state_of(step: int, **more: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": {"w": torch.full((3,), float(step))},
        "step": step,
        **more,
    }


def quiet(_: str) -> None:
    raise AssertionError("no warning was expected")


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_what_is_saved_is_loaded_to_the_bit(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    odd = {
        "half": torch.randn(3).half(),
        "large": torch.tensor(2**60),
        "nan": torch.tensor(float("nan")).view(1),
    }
    state = state_of(
        1, optimizer=optimizer.state_dict(), odd=odd, none=None, flag=True, texts=["a", "ü"], tiny=5e-324
    )
    Checkpoints(tmp_path).save(state, 1)
    loaded = Checkpoints(tmp_path).load_newest(quiet)
    assert loaded is not None
    assert torch.equal(loaded["odd"].pop("nan").isnan(), torch.tensor([True]))
    del odd["nan"]
    assert differences(loaded, state) == []
    momentum = loaded["optimizer"]["state"][0]["momentum_buffer"]
    assert momentum.is_contiguous(memory_format=torch.channels_last), (
        "strides are kept, and with them rounding"
    )


def test_the_name_carries_step_and_digest_and_the_published_file_is_the_same(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(state_of(42), 42)
    content = path.read_bytes()
    assert path.name == f"step-0000042-{hashlib.sha256(content).hexdigest()[:12]}.pth"
    assert (tmp_path / "checkpoint.pth").read_bytes() == content
    assert (tmp_path / "checkpoint.pth").samefile(path)


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    first, second = (Checkpoints(tmp_path / name).save(state_of(7), 7) for name in "ab")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_few_are_kept_by_step_not_by_name_or_time(keep: int, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep)
    # Names of different lengths: the order of texts would be wrong.
    for step in (5, 9_999_999, 10_000_000, 123_456_789):
        path = checkpoints.save(state_of(step), step)
        os.utime(path, (1, 1))
    steps = sorted(int(name.split("-")[1]) for name in names(tmp_path))
    assert steps == [5, 9_999_999, 10_000_000, 123_456_789][-keep:]
    loaded = checkpoints.load_newest(quiet)
    assert loaded is not None
    assert loaded["step"] == 123_456_789


def test_saving_the_same_step_twice_publishes_the_later(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_of(3, note="first"), 3)
    checkpoints.save(state_of(3, note="second"), 3)
    assert torch.load(tmp_path / "checkpoint.pth", weights_only=True)["note"] == "second"


def test_where_links_are_impossible_the_published_file_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no links on this disk")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2):
        path = Checkpoints(tmp_path).save(state_of(step), step)
        assert (tmp_path / "checkpoint.pth").read_bytes() == path.read_bytes()
        assert not (tmp_path / "checkpoint.pth").samefile(path)
    assert [p.name for p in tmp_path.rglob(".*")] == []


def test_an_empty_folder_has_nothing_and_says_so(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert not checkpoints.any()
    assert checkpoints.load_newest(quiet) is None
    checkpoints.clean()
    checkpoints.publish_newest()
    assert list(tmp_path.iterdir()) == []
    checkpoints.save(state_of(1), 1)
    assert checkpoints.any()


def test_files_of_other_names_are_neither_chosen_nor_removed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_of(1), 1)
    others = [
        ".mine.tmp",
        "step-0000009.pth",
        "step-0000009-3fa9c1d2e4b7.pth.bak",
        "best.pth",
        ".step-0000009-3fa9c1d2e4b7.pth.77.tmp",
    ]
    for name in others:
        (checkpoints.folder / name).write_bytes(b"mine")
    checkpoints.save(state_of(2), 2)
    loaded = checkpoints.load_newest(quiet)
    assert loaded is not None
    assert loaded["step"] == 2
    assert set(others) <= set(names(tmp_path))
    checkpoints.clean()
    assert set(others) - set(names(tmp_path)) == {others[-1]}, "only what a killed save leaves is removed"


class Toucher:
    """Unpickled by plain pickle, it writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    buffer, marker = io.BytesIO(), tmp_path / "marker"
    torch.save(state_of(1, more=Toucher(marker)), buffer)
    (tmp_path / "checkpoints").mkdir()
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:12]
    (tmp_path / "checkpoints" / f"step-0000001-{digest}.pth").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        Checkpoints(tmp_path).load_newest(quiet)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {}}, "not a training state"),
        ([1, 2], "not a training state"),
        ({**state_of(1), "version": VERSION_OF_CHOICES + 1}, "newer version"),
    ],
)
def test_other_files_are_refused_with_a_reason(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UserError, match=words):
        read_state(tmp_path / "file.pth")


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", pickle.dumps({"format": FORMAT}, 2), b"PK\x03\x04" + bytes(99)]
)
def test_files_that_are_no_checkpoints_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"file\.pth"):
        read_state(tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"missing\.pth"):
        read_state(tmp_path / "missing.pth")
