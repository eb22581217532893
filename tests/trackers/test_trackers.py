"""Records and rows at TensorBoard and MLflow themselves and at a stand-in for W&B; and what fails there."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamtransfer.cli.entry import run
from siamtransfer.programs.knn import main as knn
from siamtransfer.programs.track import main as track_records
from siamtransfer.trackers import mirrors, mlflow_runs
from siamtransfer.trackers.document import Document
from siamtransfer.trackers.mirrors import Mirrors, open_mirrors
from siamtransfer.trackers.names import from_mlflow
from siamtransfer.trackers.targets import Target, parse_targets
from siamtransfer.trackers.track import look_at_trackers, send
from siamtransfer.training.journal import Journal
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import ErrorAfterRecord, UserError

DIGEST = "d4e5" * 16
RECORD: dict[str, Any] = {
    "task": "knn",
    "metrics": {
        "knn/k=20/T=0.07/top1": 81.5,
        "detection/AP": 40.0,
        "detection/AP/mean": 39.0,  # in a file store below the one before
        "linear/top1": float("nan"),
    },
    "protocol": {"k": [20], "transform": {"crop": 32, "resize": None}, "note": "x" * 7000, "a|b": True},
    "provenance": {
        "backbone": "runs/demo/checkpoint.pth",
        "weights_digest": DIGEST,
        "cost": {"seconds": 2.5, "images": 10, "device": "cpu"},
        "versions": {"siamtransfer": "0.1.0"},
    },
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Feature files of two classes that no neighbour confuses."""
    paths = []
    for name, count in (("train", 40), ("test", 20)):
        labels = np.arange(count) % 2
        features = np.eye(4, dtype=np.float32)[labels] + np.float32(0.01) * np.arange(count)[:, None]
        np.savez(tmp_path / f"{name}.npz", features=features.astype(np.float32), labels=labels)
        paths.append(str(tmp_path / f"{name}.npz"))
    return paths[0], paths[1]


def knn_words(files: tuple[str, str], *more: str) -> list[str]:
    return ["--train-features", files[0], "--test-features", files[1], "--k", "5", "--device", "cpu", *more]


def events(folder: Path) -> tuple[dict[str, float], dict[str, str]]:
    """The scalars at step 0 and the texts of the only run below a folder, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run_folder,) = folder.iterdir()
    accumulator = EventAccumulator(str(run_folder))
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = {tag: accumulator.Scalars(tag)[0].value for tag in tags["scalars"]}
    texts = {tag: accumulator.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in tags["tensors"]}
    return scalars, texts


def test_an_evaluator_writes_its_record_to_tensorboard(tmp_path: Path, files: tuple[str, str]) -> None:
    board = tmp_path / "board"
    record = knn(knn_words(files, "--track", f"tensorboard:{board}"))
    assert record is not None
    scalars, texts = events(board)
    for name, value in record["metrics"].items():
        assert scalars[name] == pytest.approx(value), name
    assert scalars["cost/seconds"] > 0
    kept = json.loads(texts["record/text_summary"])
    assert kept["metrics"] == record["metrics"]
    assert "| k | [5] |" in texts["protocol/text_summary"]


def test_the_program_sends_records_of_files_and_folders_each_once(
    tmp_path: Path, files: tuple[str, str]
) -> None:
    folder, board = tmp_path / "records", tmp_path / "board"
    folder.mkdir()
    knn(knn_words(files, "--record", str(folder / "a.json")))
    (folder / "other.json").write_text("{}")
    words = [str(folder), str(folder / "a.json"), "--to", f"tensorboard:{board}"]
    record = track_records(words)
    assert record is not None and record["metrics"] == {"track/records": 1}
    scalars, _ = events(board)
    assert scalars["knn/k=5/T=0.07/top1"] == 100


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "name the records"),
        (["a.json"], "name a tracker by --to"),
        (["absent.json", "--to", "tensorboard:b"], "absent.json cannot be read"),
        (["a.json", "--to", "comet"], "--to comet names no tracker"),
    ],
)
def test_the_program_says_what_it_lacks(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        track_records(words)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_records_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no record in"):
        track_records([str(tmp_path), "--to", f"tensorboard:{tmp_path / 'b'}"])


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["neptune"], "names no tracker"),
        (["tensorboard"], "needs a folder"),
        (["tensorboard:"], "needs a folder"),
        (["tensorboard:a", "tensorboard:a"], "given twice"),
        (["mlflow:https://me:secret@host"], "MLFLOW_TRACKING_PASSWORD"),
        (["mlflow:http://[::1"], "is no URI"),
    ],
)
def test_targets_that_mean_nothing_are_refused(texts: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        parse_targets(texts)
    assert "secret" not in str(caught.value)


def test_targets_keep_what_follows_the_first_colon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    texts = ["tensorboard:a:b", "wandb", "wandb:project", "mlflow:http://host:5000", "mlflow"]
    targets = parse_targets(texts)
    assert [target.place for target in targets] == ["a:b", "", "project", "http://host:5000", ""]
    assert list(map(str, targets)) == texts
    assert targets[1] == Target("wandb", "")


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_told_before_any_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"--track {name} needs .* pip install 'siamtransfer\[{name}\]'"):
        parse_targets([name])


def test_a_folder_that_cannot_be_is_told_before_any_work(tmp_path: Path, files: tuple[str, str]) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "r.json"
    with pytest.raises(UserError, match=r"--track tensorboard:.*file.* cannot be used"):
        knn(knn_words(files, "--track", f"tensorboard:{tmp_path / 'file'}", "--record", str(out)))
    assert not out.exists()


def failing(*_: Any, **__: Any) -> None:
    raise RuntimeError("the server has gone away.\n  at line 3")


def test_a_tracker_that_fails_costs_the_status_and_not_the_record(
    tmp_path: Path, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = types.ModuleType("wandb")
    fake.init = failing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    out, board = tmp_path / "r.json", tmp_path / "board"
    words = knn_words(files, "--track", "wandb", "--track", f"tensorboard:{board}", "--record", str(out))
    monkeypatch.setattr(sys, "argv", ["knn", *words])
    with pytest.raises(SystemExit) as ended:
        run(knn)
    assert ended.value.code == 3
    printed, said = capfd.readouterr()
    record = json.loads(printed.splitlines()[-1])
    assert json.loads(out.read_text()) == record
    assert record["metrics"]["knn/k=5/T=0.07/top1"] == 100
    assert said.splitlines()[-1] == (
        "error: wandb did not take the record (the server has gone away); no number is lost: "
        f"send {out} by `siamtransfer track`"
    )
    assert events(board)[0]["knn/k=5/T=0.07/top1"] == 100, "the other tracker has got it"


def test_the_error_after_a_record_has_the_record(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = types.ModuleType("wandb")
    fake.init = failing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(ErrorAfterRecord, match="--record would keep it") as caught:
        knn(knn_words(files, "--track", "wandb"))
    assert caught.value.record["task"] == "knn"


class Wandb(types.ModuleType):
    """A stand-in for the package: notes what it is called with."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[Any] = []
        self.files: dict[str, str] = {}
        self.id = "abc"

    def init(self, **options: Any) -> Wandb:
        self.calls.append(("init", options))
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.calls.append(("log", step, numbers))

    def log_artifact(self, artifact: Any) -> None:
        self.calls.append(("artifact", artifact.name, artifact.type))

    def finish(self) -> None:
        self.calls.append(("finish",))

    def Artifact(self, name: str, type: str) -> Any:  # noqa: A002
        @contextlib.contextmanager
        def new_file(file: str, encoding: str) -> Iterator[io.StringIO]:
            content = io.StringIO()
            yield content
            self.files[file] = content.getvalue()

        def add_file(path: str) -> None:
            self.files[Path(path).name] = "a file"

        return types.SimpleNamespace(name=name, type=type, new_file=new_file, add_file=add_file)


def test_wandb_gets_configuration_numbers_and_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    (tmp_path / "r.npz").write_bytes(b"")
    assert send([Document(RECORD, [tmp_path / "r.npz"], "imagenet-v2")], ["wandb:mine"]) == []
    (_, options), (_, step, numbers), artifact, end = fake.calls
    assert (options["project"], options["name"]) == ("mine", "knn checkpoint.pth imagenet-v2")
    assert options["config"]["transform.crop"] == "32"
    assert options["tags"] == ["knn", DIGEST, "0.1.0"]
    assert "id" not in options, "no run is gone on with"
    assert step == 0
    assert numbers["knn/k=20/T=0.07/top1"] == numbers["knn/top1"] == 81.5
    assert numbers["cost/images"] == 10
    assert numbers.keys().isdisjoint({"linear/top1", "cost/device"})
    assert artifact == ("artifact", "record-abc", "record")
    assert end == ("finish",)
    assert json.loads(fake.files["record.json"])["metrics"]["linear/top1"] is None
    assert "r.npz" in fake.files


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of an MLflow store."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return str(tmp_path / "store")


def mlflow_run(store: str) -> Any:
    """The only run of the experiment."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("siamtransfer")
    assert experiment is not None
    (only,) = client.search_runs([experiment.experiment_id])
    return only


def test_mlflow_gets_parameters_numbers_and_the_record(tmp_path: Path, store: str) -> None:
    (tmp_path / "r.npz").write_bytes(b"PK")
    many = {**RECORD, "protocol": {**RECORD["protocol"], **{f"key {n}": n for n in range(150)}}}
    look_at_trackers([f"mlflow:{store}"])
    assert send([Document(many, [tmp_path / "r.npz"])], [f"mlflow:{store}"]) == []
    found = mlflow_run(store)
    numbers = {from_mlflow(name).removesuffix("/"): value for name, value in found.data.metrics.items()}
    assert numbers["knn/k=20/T=0.07/top1"] == numbers["knn/top1"] == 81.5
    assert (numbers["detection/AP"], numbers["detection/AP/mean"]) == (40, 39)
    assert numbers["cost/seconds"] == 2.5
    parameters = found.data.params
    assert (parameters["transform.crop"], parameters["k"], parameters["key 149"]) == ("32", "[20]", "149")
    assert parameters["a_x7c_b"] == "true"
    assert len(parameters["note"]) == 6000 and parameters["note"].endswith("(cut)")
    assert found.data.tags["task"] == "knn" and found.data.tags["weights_digest"] == DIGEST
    assert found.info.run_name == "knn checkpoint.pth"
    assert found.info.status == "FINISHED"
    kept = Path(found.info.artifact_uri.removeprefix("file://"))
    assert json.loads((kept / "record.json").read_text())["protocol"]["note"] == "x" * 7000
    assert (kept / "r.npz").read_bytes() == b"PK"


def test_a_resumed_training_goes_on_in_its_mlflow_run(tmp_path: Path, store: str) -> None:
    def write(start: int, steps: range) -> None:
        journal = Journal(tmp_path, start=start, tensorboard=False, mlflow=store, config={"optim": {"lr": 1}})
        for step in steps:
            journal.write(step, {"loss": step / 2, "words": "left out"})
        journal.close()

    write(0, range(1, 4))
    write(3, range(4, 6))
    found = mlflow_run(store)
    assert found.data.params == {"optim.lr": "1"}
    assert found.info.run_name == tmp_path.name
    assert found.data.metrics == {"loss": 2.5}
    history = mlflow_runs._client(store).get_metric_history(found.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, step / 2) for step in range(1, 6)]


def test_a_run_that_mlflow_does_not_know_goes_on_as_a_new_one(
    tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mlflow_id.txt").write_text("0" * 32 + "\n")
    open_mirrors(tmp_path, {}, start=3, tensorboard=False, mlflow=store).close()
    assert mlflow_run(store).info.run_id == (tmp_path / "mlflow_id.txt").read_text().strip()


def test_mlflow_that_cannot_be_opened_stops_a_training_before_its_first_step(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    with pytest.raises(UserError, match=r"log\.mlflow cannot be used: .*MLFLOW_ALLOW_FILE_STORE=true"):
        open_mirrors(tmp_path, {}, tensorboard=False, mlflow=store)


def test_a_viewer_that_fails_is_told_once_and_the_rows_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(mirrors, "say", said.append)
    rows: list[tuple[int, dict[str, float]]] = []
    good = types.SimpleNamespace(write=lambda step, row: rows.append((step, row)), close=lambda: None)
    bad = types.SimpleNamespace(write=failing, close=failing)
    journal = Journal(tmp_path, tensorboard=False)
    journal._mirrors = Mirrors({"W&B": bad, "TensorBoard": good})
    for step in (1, 2):
        journal.write(step, {"loss": 0.5})
    journal.close()
    assert rows == [(1, {"loss": 0.5}), (2, {"loss": 0.5})]
    assert said == [
        "W&B takes no more rows from step 1 on (the server has gone away); metrics.jsonl has them all"
    ]
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 2
