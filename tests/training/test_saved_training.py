"""The saved states of evaluators that train: verified, of this training only, and older ones still read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.small_runs import context

from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.utils.errors import UserError

IDENTITY = {"weights": "abc", "seed": "0"}


def opened(folder: Path, *, resume: bool = True, **identity: str) -> SavedTraining:
    return SavedTraining(folder / "probe.pth", {**IDENTITY, **identity}, resume=resume)


def written(folder: Path, steps: int = 3) -> SavedTraining:
    saved = opened(folder)
    for step in range(1, steps + 1):
        saved.save({"notes": [], "weight": torch.full((3,), float(step))}, step)
    return saved


def test_the_newest_state_comes_back(tmp_path: Path) -> None:
    written(tmp_path)
    state = opened(tmp_path).load()
    assert state is not None
    assert (state["step"], state["weight"].tolist()) == (3, [3.0, 3.0, 3.0])
    assert sorted(path.name.split("-")[1] for path in (tmp_path / "probes").iterdir()) == [
        "0000002",
        "0000003",
    ]
    assert torch.equal(torch.load(tmp_path / "probe.pth", weights_only=True)["weight"], state["weight"])


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    assert opened(tmp_path).load() is None
    assert opened(tmp_path, resume=False).load() is None
    assert list(tmp_path.iterdir()) == []


def test_a_state_is_used_only_where_that_is_asked_for(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(UserError, match=r"probe\.pth holds a training that was begun: go on with --resume"):
        opened(tmp_path, resume=False).load()


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(UserError, match=r"is of another training: seed is 0 there and 7 now"):
        opened(tmp_path, seed="7").load()


def test_another_reading_of_the_weights_is_another_training(tmp_path: Path) -> None:
    written(tmp_path)
    state = opened(tmp_path, network="6 heads").load()
    assert state is not None, "a state of an older version does not say it"
    opened(tmp_path, network="6 heads").save({"notes": []}, 4)
    with pytest.raises(UserError, match="network is 6 heads there and 12 heads now"):
        opened(tmp_path, network="12 heads").load()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_state_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path)
    newest = max((tmp_path / "probes").iterdir())
    flip_a_bit(newest)
    state = opened(tmp_path).load()
    assert state is not None and state["step"] == 2
    assert f"{newest} is damaged" in capsys.readouterr().err
    assert torch.load(tmp_path / "probe.pth", weights_only=True)["step"] == 2
    for path in (tmp_path / "probes").iterdir():
        flip_a_bit(path) if path != newest else None
    with pytest.raises(UserError, match=r"all 2 checkpoints .* are damaged: .* in another --run"):
        opened(tmp_path).load()


def test_a_file_of_an_older_version_has_no_digest_and_is_read(tmp_path: Path) -> None:
    torch.save({"notes": [{"top1": 1.0}], "identity": IDENTITY}, tmp_path / "probe.pth")
    state = opened(tmp_path).load()
    assert state is not None and state["notes"] == [{"top1": 1.0}]
    (tmp_path / "probe.pth").write_bytes(b"no state")
    with pytest.raises(UserError, match=r"probe\.pth cannot be read"):
        opened(tmp_path).load()


@pytest.mark.fault
def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with opened(tmp_path).locked():
        process = context().Process(target=train_there, args=(tmp_path,))
        process.start()
        process.join(30)
        assert process.exitcode == 3
    assert list(tmp_path.iterdir()) == [], "a training that kept nothing leaves nothing"


def train_there(folder: Path) -> None:
    try:
        with opened(folder).locked():
            raise SystemExit(4)
    except UserError as error:
        assert str(error).startswith(f"the run folder {folder} is in use by process "), error
        assert str(error).endswith("stop that run or choose another --run"), error
        raise SystemExit(3) from error


@pytest.mark.fault
def test_nothing_is_saved_into_a_folder_that_has_the_name_of_the_locked_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    saved = opened(folder)
    with saved.locked():
        saved.save({"notes": []}, 1)
        folder.rename(tmp_path / "elsewhere")
        written(folder, 2)
        with pytest.raises(
            UserError, match=r"is no longer the one that this program has locked: .*/elsewhere now"
        ):
            saved.save({"notes": []}, 3)
    assert sorted(path.name.split("-")[1] for path in (folder / "probes").iterdir()) == ["0000001", "0000002"]
