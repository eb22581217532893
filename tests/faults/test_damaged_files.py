"""A damaged file never gives another number: of every kind that is read back, 200 random damages.

What is read is what was written; or it is read as absent and computed again, with a remark; or an error says
so in a sentence.
"""

from __future__ import annotations

import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.damage import damages
from support.small_runs import differences

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.config import read_saved_config
from siamtransfer.data.scenes.export import SceneCounts, is_intact, write_coco
from siamtransfer.detection.data.written_scenes import written_scenes
from siamtransfer.detection.finetune_run import FinetuneRun
from siamtransfer.detection.study import DetectionStudy
from siamtransfer.features.cache import FeatureCache
from siamtransfer.features.extract import Transform
from siamtransfer.features.feature_file import read_feature_file
from siamtransfer.records.predictions import Predictions, publish, read_record
from siamtransfer.records.record import record
from siamtransfer.trackers.weights_and_biases import kept_id
from siamtransfer.training.journal import Journal
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_checked_text

TRANSFORM = Transform(16, 18, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
REFUSED = object()


def try_all(
    file: Path,
    read: Callable[[], Any],
    same: Callable[[Any], bool],
    *,
    another: Path | None = None,
) -> float:
    """Damages `file` and reads: `same` says whether what is read may be. A sentence of error may always be.

    Returns the share of the damages that were noticed; a test demands some, so that it notices a reader that
    looks at nothing.
    """
    content, noticed, count = file.read_bytes(), 0, 0
    assert same(read())
    for damaged in damages(content, another.read_bytes() if another else None):
        count += 1
        file.write_bytes(damaged)
        try:
            value = read()
        except UserError as error:
            assert str(error) and "\n" not in str(error)
            noticed += 1
            continue
        noticed += value is None
        assert value is None or same(value), f"damage {count} of {file.name} gave other numbers"
    file.write_bytes(content)
    assert same(read())
    return noticed / count


def test_features_in_the_cache(tmp_path: Path) -> None:
    cache, features = FeatureCache(tmp_path), torch.randn(40, 8)
    path, other = (cache.path(name, "images", TRANSFORM, "float32") for name in "ab")
    cache.write(path, features)
    cache.write(other, torch.randn(40, 8))
    remarks: list[str] = []
    assert (
        try_all(
            path,
            lambda: cache.read(path, 40, remark=remarks.append),
            lambda read: torch.equal(read, features),
            another=other,
        )
        >= 1
    )
    assert len(remarks) == 200


@pytest.mark.parametrize("name", ["probe", "semisup", "detector"])
def test_states_of_evaluators(name: str, tmp_path: Path) -> None:
    saved = SavedTraining(tmp_path / f"{name}.pth", {"weights": "abc"}, resume=True)
    for step in (1, 2):
        saved.save({"notes": [], "w": torch.full((50,), float(step))}, step)
    newest = max((tmp_path / f"{name}s").iterdir())

    def same(state: Any) -> bool:
        return state["step"] in (1, 2) and torch.equal(state["w"], torch.full((50,), float(state["step"])))

    kept = newest.read_bytes()
    for damaged in damages(kept, None):
        newest.write_bytes(damaged)
        state = saved.load()
        assert state is not None and state["step"] == 1 and same(state), "the one before is taken"
    newest.write_bytes(kept)
    older = min((tmp_path / f"{name}s").iterdir())
    assert try_all(newest, saved.load, same, another=older) >= 0
    shutil.rmtree(tmp_path / f"{name}s")  # what an older version left, or a copy of the published file alone
    assert try_all(tmp_path / f"{name}.pth", saved.load, same) >= 0.6


def test_checkpoints(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    state = {"format": "siamtransfer", "version": 1, "w": torch.randn(60), "lr": 0.25}
    path = checkpoints.save(state, 7)
    warnings: list[str] = []

    def load() -> Any:
        return checkpoints.load_newest(warnings.append)

    assert try_all(path, load, lambda read: differences(read, state) == []) >= 1


def test_a_backbone_in_a_file_of_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(build_backbone("resnet18", width=2).state_dict(), tmp_path / "file.pth")
    digest = read_backbone(tmp_path / "file.pth").digest
    assert (
        try_all(
            tmp_path / "file.pth",
            lambda: read_backbone(tmp_path / "file.pth"),
            lambda read: (
                read.digest == digest
            ),  # a zip file's headers say most things twice, and PyTorch fills gaps between records
        )
        >= 0.5
    )


def test_the_configuration_of_a_run(tmp_path: Path) -> None:
    config = {"optim": {"lr": 0.05, "batch_size": 64}, "log": {"every": 10}, "run": {"dir": "runs/a"}}
    write_checked_text(tmp_path / "config.json", json.dumps(config) + "\n")
    (tmp_path / "other").write_text(json.dumps({**config, "log": {"every": 20}}) + "\n")

    def read() -> dict[str, Any]:
        return read_saved_config(tmp_path)

    for file in ("config.json", "config.json.sha256"):
        other = tmp_path / "other" if file == "config.json" else None
        assert try_all(tmp_path / file, read, config.__eq__, another=other) >= 0.7


def test_the_rows_of_a_run(tmp_path: Path) -> None:
    for name, factor in (("a", 1), ("b", 2)):
        journal = Journal(tmp_path / name, tensorboard=False)
        for step in range(1, 21):
            journal.write(step, {"loss": factor / step, "words": "ü"})
        journal.close()
    rows = read_rows(tmp_path / "a" / "metrics.jsonl")
    assert len(rows) == 20
    for file in ("metrics.jsonl", "metrics.jsonl.crc32"):
        for up_to in (20, 15):
            assert (
                try_all(
                    tmp_path / "a" / file,
                    lambda up_to=up_to: read_rows(tmp_path / "a" / "metrics.jsonl", up_to=up_to),  # type: ignore[misc]
                    rows[:up_to].__eq__,
                    another=tmp_path / "b" / file,  # the rows after the step may be damaged, and are left out
                )
                >= 0.6
            )
        assert (
            try_all(
                tmp_path / "a" / file,
                lambda: read_rows(tmp_path / "a" / "metrics.jsonl"),
                lambda read: read in (rows, rows[:-1]),
                another=tmp_path / "b" / file,
            )
            >= 0.9
        )


def test_rows_that_are_lost_or_moved_are_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, tensorboard=False)
    for step in (1, 2, 2, 3):
        journal.write(step, {"loss": step / 8})
    journal.close()
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for wrong in (lines[:3], lines[1:], [*lines[:1], *lines[2:]], [lines[1], lines[0], *lines[2:]]):
        path.write_bytes(b"".join(wrong))
        with pytest.raises(UserError, match=r"line \d is damaged: it does not match its checksum"):
            Journal(tmp_path, start=3, tensorboard=False)
    path.write_bytes(b"".join(lines[:3]))
    assert len(read_rows(path, up_to=2)) == 3, "what comes after the checkpoint may be lost"


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_records(ending: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in "ab":
        labels, predicted = generator.integers(0, 3, (2, 30))
        metrics = {"knn/top1": float(np.mean(labels == predicted))}
        predictions = Predictions(labels, {"k=20": predicted})
        publish(record("knn", metrics, {"k": [20]}), predictions, str(tmp_path / f"{name}.json"))
    first = read_record(tmp_path / "a.json")

    def same(read: Any) -> bool:
        return (
            read.record == first.record
            and np.array_equal(read.predictions.labels, first.predictions.labels)
            and np.array_equal(read.predictions.settings["k=20"], first.predictions.settings["k=20"])
        )

    another = tmp_path / "b.npz" if ending == ".npz" else None  # a.json beside b.npz
    assert (
        try_all(
            (tmp_path / "a.json").with_suffix(ending),
            lambda: read_record(tmp_path / "a.json"),
            same,
            another=another,
        )
        >= 0.9
    )


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_feature_files(compressed: bool, mapped: bool, tmp_path: Path) -> None:
    features, labels = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32), np.arange(30) % 3
    path = tmp_path / "f.npz"
    (np.savez_compressed if compressed else np.savez)(path, features=features, labels=labels)

    def same(read: Any) -> bool:
        return np.array_equal(np.asarray(read.features), features) and labels.tolist() == read.labels.tolist()

    assert try_all(path, lambda: read_feature_file(path, mapped=mapped), same) >= 0.7


def test_an_array_header_that_names_fewer_numbers_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, features=np.arange(40, dtype=np.float32).reshape(10, 4), labels=np.arange(10))
    path.write_bytes(path.read_bytes().replace(b"'shape': (10, 4)", b"'shape': (10, 3)"))
    with pytest.raises(UserError, match="Bad CRC-32"):
        read_feature_file(path)


def test_the_result_of_a_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = types.SimpleNamespace(folder=tmp_path, name="a, seed 0")
    content = {"metrics": {"detection/AP": 31.25, "detection/AP/dog": 12.5}, "seed": 0}
    write_checked_text(tmp_path / "result.json", json.dumps(content) + "\n")
    (tmp_path / "other").write_text(json.dumps({**content, "seed": 1}) + "\n")
    for file in ("result.json", "result.json.sha256"):
        assert (
            try_all(
                tmp_path / file,
                lambda: FinetuneRun.result(run),  # type: ignore[arg-type]
                content.__eq__,
                another=tmp_path / "other" if file == "result.json" else None,
            )
            >= 0.7
        )


def test_the_settings_of_a_study(tmp_path: Path) -> None:
    study = types.SimpleNamespace(
        folder=tmp_path, evaluate_only=False, identity=lambda: {"engine": "torchvision", "lr": 0.02}
    )

    def claim() -> str:
        DetectionStudy.claim_folder(study, resume=True)  # type: ignore[arg-type]
        return "claimed"

    claim()
    assert try_all(tmp_path / "settings.json", claim, "claimed".__eq__) >= 0.9


def test_the_id_of_a_run_on_wandb(tmp_path: Path) -> None:
    known = kept_id(tmp_path)
    path, beside = tmp_path / "wandb_id.txt", tmp_path / "wandb_id.txt.sha256"
    content, checksum = path.read_bytes(), beside.read_bytes()
    for damaged in damages(content, b"0" * 32 + b"\n"):
        path.write_bytes(damaged)
        fresh = kept_id(tmp_path)
        assert len(fresh) == 32 and fresh != damaged.decode(errors="replace").strip()
        assert fresh == known or path.read_text().strip() == fresh
        path.write_bytes(content)
        beside.write_bytes(checksum)
    assert kept_id(tmp_path) == known


def test_the_scenes_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    counts = SceneCounts(train=4, test=2, size=32)
    folder = written_scenes("coco", counts)
    assert is_intact(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, contents, strict=True):
        for damaged in damages(content, None, count=200 // len(files)):
            path.write_bytes(damaged)
            assert not is_intact(folder)
        path.write_bytes(content)
    files[0].unlink()
    with caplog.at_level("INFO"):
        assert written_scenes("coco", counts) == folder
    assert "is written again" in caplog.text
    assert [path.read_bytes() for path in files] == contents
    write_coco(tmp_path / "plain", counts)
    assert is_intact(tmp_path / "plain")
