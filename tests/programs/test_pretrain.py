"""The pretraining program from outside: what it says, writes and refuses; every switch runs and resumes.

That it is exact is shown elsewhere: SimSiam in test_simsiam.py, ranks in test_distributed.py, kills in
faults/.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.checkpoint_files import random_state, simsiam_checkpoint
from support.small_runs import (
    ROOT,
    TINY,
    all_finite,
    assert_same_run,
    complete,
    images_of,
    launch,
    launch_ranks,
    newest,
    rows,
    stop_at,
)

import siamtransfer.programs.pretrain as program
from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.config import PretrainConfig
from siamtransfer.data import open_images
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import StepOutput
from siamtransfer.optim.config import OptimConfig
from siamtransfer.pretraining import images as pretraining_images
from siamtransfer.pretraining.run import RunFolder
from siamtransfer.pretraining.schedule import Schedule
from siamtransfer.pretraining.step_result import StepResult
from siamtransfer.training.guard import StepReport
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

ALONE = Runtime(torch.device("cpu"), torch.float32)


def test_a_run_says_and_writes_what_it_did(shapes_folder: Path, tmp_path: Path) -> None:
    options = [
        *images_of(shapes_folder),
        "--monitor.knn_every=2",
        "--monitor.knn_k=5",
        "--log.every=5",
        "--log.tensorboard=true",
    ]
    run = complete(tmp_path / "run", *options)
    record, folder = run.record, run.folder
    assert run.out.read_text().count("\n") == 1
    metrics, name = record["metrics"], "knn/k=5/T=0.07/top1"
    assert set(metrics) >= {
        "loss",
        "health/std",
        name,
        f"baseline/pixels/{name}",
        f"baseline/untrained/{name}",
    }
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert record["protocol"]["steps"] == 15
    assert record["protocol"]["config"] == json.loads((folder / "config.json").read_text())
    assert record["provenance"]["data_fingerprint"] == open_images("folder", root=shapes_folder).fingerprint
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.pth", "checkpoints", "config.json", "config.json.sha256", "cost.json", "cost.json.sha256",
        "lock", "metrics.jsonl", "metrics.jsonl.crc32", "tensorboard",
    ]  # fmt: skip
    said = run.said.splitlines()
    summary = "40 images of folder/train · batch size 8 on 1 x cpu in float32 · steps 0 to 15"
    assert sum(summary in line for line in said) == 1
    assert [line.split("]")[0] for line in said if line.startswith("[")] == ["[5/15", "[10/15", "[15/15"]
    assert [line.split(" epochs")[0] for line in said if line.startswith("kNN")] == [
        "kNN after 2",
        "kNN after 3",
    ]
    pixels, untrained = (metrics[f"baseline/{baseline}/{name}"] for baseline in ("pixels", "untrained"))
    beside = f"; raw pixels {pixels:.2f} %, untrained {untrained:.2f} %"
    assert all(line.endswith(f"({name}){beside}") for line in said if line.startswith("kNN"))
    assert said[-1] == f"done: {folder / 'checkpoint.pth'}"
    logged = [row for row in rows(folder) if "loss" in row]
    assert [(row["step"], row["epoch"]) for row in logged] == [(5, 1.0), (10, 2.0), (15, 3.0)]
    assert [row["lr"] for row in logged] == pytest.approx([0.025, 0.01875, 0.00625])


def test_the_checkpoint_is_read_as_a_backbone_with_its_constants(tmp_path: Path) -> None:
    complete(tmp_path / "run", "--optim.epochs=1")
    backbone, read = load_backbone(tmp_path / "run" / "checkpoint.pth")
    state = newest(tmp_path / "run")
    assert (read.name, read.width, read.stem) == ("resnet18", 8, "imagenet")
    assert list(read.normalisation.mean) == state["normalisation"]["mean"]
    assert state["backbone"]["dim"] == backbone.dim == 64
    assert all(
        torch.equal(state["model"][f"backbone.{name}"], tensor)
        for name, tensor in backbone.state_dict().items()
    )
    assert state["progress"]["epoch"] == 1
    assert flatten(state["config"]).keys() == flatten(PretrainConfig().as_dict()).keys()


# The small stem keeps feature maps above 1 x 1, where oneDNN's bfloat16 gradients of 3 x 3 convolutions hold
# numbers from uninitialised memory (torch 2.14 on CPUs with AMX).
IN_BFLOAT16 = ["--hardware.precision=bfloat16", "--backbone.stem=small", "--optim.grad_accum_steps=2"]
SWITCHES = [
    IN_BFLOAT16,
    ["--optim.name=adamw", "--optim.lr=0.03", "--optim.schedule=cosine-step", "--optim.warmup_epochs=1"],
    ["--simsiam.predictor=fixed", "--simsiam.symmetric=false", "--simsiam.similarity=cross-entropy"],
    [
        "--simsiam.predictor=none",
        "--simsiam.batch_norm=all",
        "--simsiam.projector_layers=3",
        "--views.recipe=moco-v1",
    ],
    [
        "--simsiam.batch_norm=none",
        "--simsiam.predictor_rate=decayed",
        "--optim.schedule=constant",
        "--optim.lr=0.01",
    ],
    ["--backbone.name=test_resnet", "--backbone.width=64", "--views.size=32"],  # of timm
]


@pytest.mark.parametrize("switches", SWITCHES, ids=" ".join)
def test_every_switch_runs_and_goes_on_to_the_bit(switches: list[str], tmp_path: Path) -> None:
    options = [*switches, "--optim.epochs=2"]
    complete(tmp_path / "whole", *options)
    assert launch(tmp_path / "parts", *options, fault=stop_at(5)).wait() == 143
    complete(tmp_path / "parts", *options, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert all_finite(newest(tmp_path / "whole"))
    losses = [row["loss"] for row in rows(tmp_path / "whole") if "loss" in row]
    assert len(set(losses)) == len(losses) == 10
    load_backbone(tmp_path / "whole" / "checkpoint.pth")


def test_two_ranks_in_bfloat16_run(tmp_path: Path) -> None:
    ranks = launch_ranks(tmp_path / "run", *IN_BFLOAT16, "--optim.epochs=1")
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.said for rank in ranks]
    assert all_finite(newest(tmp_path / "run"))
    assert ranks[1].said + ranks[1].out.read_text() == "", "only rank 0 talks"
    assert "correlations are those of 2 images a rank" in ranks[0].said


def test_one_seed_one_result_and_another_another(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        complete(tmp_path / name, "--optim.epochs=1", f"--run.seed={seed}")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert rows(tmp_path / "a")[0]["loss"] != rows(tmp_path / "c")[0]["loss"]


def test_a_flat_folder_is_trained_on_without_knn(shapes_folder: Path, tmp_path: Path) -> None:
    options = [*images_of(shapes_folder), "--data.name=flat", "--monitor.knn_every=1", "--optim.epochs=1"]
    run = complete(tmp_path / "run", *options)
    assert "no kNN check: a flat folder has no labels" in run.said
    assert not any("knn" in key for row in rows(run.folder) for key in row)


def bad_images(shapes: Path, root: Path) -> list[Path]:
    """Makes five of 40 images unreadable."""
    shutil.copytree(shapes, root)
    bad = [root / "upper" / f"{number:02d}.png" for number in range(5)]
    for path in bad:
        path.write_bytes(b"not an image")
    return bad


def test_unreadable_images_are_replaced_and_named_whichever_rank_met_them(
    shapes_folder: Path, tmp_path: Path
) -> None:
    bad = bad_images(shapes_folder, tmp_path / "images")
    options = [
        *images_of(tmp_path / "images"),
        "--data.max_unreadable=0.2",
        "--log.every=4",
        "--optim.epochs=1",
    ]
    ranks = launch_ranks(tmp_path / "two", *options)
    alone = complete(tmp_path / "one", *options)
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.said for rank in ranks]
    for said in (alone.said, ranks[0].said):
        assert said.count("replaced an unreadable image: ") == 5
        assert all(said.count(f"replaced an unreadable image: {path} (") == 1 for path in bad)
        assert "5 of 40 images (12.50%) could not be read" in said


def test_too_many_unreadable_images_stop_all_ranks(shapes_folder: Path, tmp_path: Path) -> None:
    bad_images(shapes_folder, tmp_path / "images")
    ranks = launch_ranks(tmp_path / "run", *images_of(tmp_path / "images"), "--data.max_unreadable=0.1")
    assert [rank.wait() for rank in ranks] == [2, 2]
    assert all("5 of 40 images" in rank.said and "data.max_unreadable" in rank.said for rank in ranks)


def test_the_preview_shows_the_views_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = program.main([*TINY, f"--run.dir={tmp_path / 'run'}", "--preview", str(tmp_path / "views.png")])
    assert record is not None
    assert record["task"] == "preview"
    with Image.open(tmp_path / "views.png") as picture:
        assert min(picture.size) >= 16
        assert len(picture.convert("RGB").getcolors(2**20) or []) > 100
    assert not (tmp_path / "run").exists()


def test_mistakes_are_told_before_the_first_batch(tmp_path: Path) -> None:
    for options, words in (
        (["--data.name=cifar11"], "cifar10"),
        (["--data.name=folder", "--data.size=null", "--data.count=null"], "--data.root"),
        (["--views.recipe=simsam"], "simsiam"),
        (["--backbone.name=resnet19"], "resnet18"),
        (["--optim.batch_size=64"], "40 images"),
        (["--hardware.device=cuda:99"], "GPU"),
        (["--log.every=0"], "log.every"),
        (["--optim.momentum=-1"], "optim.momentum"),
    ):
        with pytest.raises(UserError, match=words):
            program.main([*TINY, f"--run.dir={tmp_path / 'run'}", *options])
        assert not (tmp_path / "run" / "checkpoints").exists(), options
    program.main([*TINY, f"--run.dir={tmp_path / 'run'}", "--optim.epochs=1"])  # the folder is free again


def test_on_the_command_line(tmp_path: Path) -> None:
    """One process each for help, a mistake and a module: what argparse, the shell and `python -m` see."""
    script = [sys.executable, str(ROOT / "pretrain" / "main.py")]
    asked = subprocess.run([*script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert asked.returncode == 0
    assert "Pretrains a backbone without labels" in asked.stdout
    wrong = subprocess.run(
        [*script, "--optim.lrr=1"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: ")
    assert "--optim.lr" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# When things are due.


def config_with(section: str, **values: Any) -> PretrainConfig:
    config = PretrainConfig()
    setattr(config, section, replace(getattr(config, section), **values))
    return config


def result_after(step: int, status: int | None = None) -> StepResult:
    output = StepOutput(torch.tensor(0.0), [])
    return StepResult(step, 0.1, StepReport(0.0, True, True, status), output, [], [])


def test_saves_are_due_by_steps_by_minutes_at_the_end_and_on_a_signal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def due(done: int, saved_at: float = 1000.0, status: int | None = None, **values: Any) -> bool:
        config = config_with("checkpoint", **values)
        config.run.dir = str(tmp_path)
        now[0] = saved_at
        with RunFolder(config, ALONE) as folder:
            now[0] = 1000.0
            return folder.save_due(result_after(done, status or folder.save_wish()), 100)

    by_steps: dict[str, Any] = {"every_steps": 7, "every_minutes": 0.0}
    assert [step for step in range(1, 30) if due(step, **by_steps)] == [7, 14, 21, 28]
    by_minutes: dict[str, Any] = {"every_steps": 0, "every_minutes": 2.0}
    assert [due(5, 1000.0 - ago, **by_minutes) for ago in (0, 119, 120, 500)] == [False, False, True, True]
    never: dict[str, Any] = {"every_steps": 0, "every_minutes": 0.0}
    assert [due(5, 0.0, **never), due(100, **never), due(5, status=143, **never)] == [False, True, True]


def test_knn_is_due_every_few_epochs_and_at_the_end() -> None:
    for every, expected in ((0, []), (1, [5, 10, 15, 17]), (2, [10, 17])):
        schedule = Schedule(OptimConfig(batch_size=8, epochs=3), 40, 1)
        schedule.steps = 17
        assert [step for step in range(1, 18) if schedule.ends_epochs(step, every)] == expected


@pytest.mark.parametrize(
    ("device", "asked", "in_memory", "local_world_size", "expected"),
    [
        ("cpu", 3, False, 1, 3), ("cpu", None, True, 1, 0), ("cpu", None, False, 1, 4),
        ("cpu", None, False, 8, 1), ("cuda", None, True, 1, 8), ("cuda", None, False, 4, 2),
        ("cuda", None, False, 100, 1), ("cuda", 0, False, 1, 0),
    ],
)  # fmt: skip
def test_workers_are_as_asked_or_what_the_machine_has(
    device: str, asked: int | None, in_memory: bool, local_world_size: int, expected: int,
    shapes_folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(pretraining_images, "cpu_count", lambda: 8)
    images = open_images("fashion-objects") if in_memory else open_images("folder", root=shapes_folder)
    runtime = replace(ALONE, device=torch.device(device), local_world_size=local_world_size)
    assert (
        pretraining_images.count_workers(config_with("data", workers=asked).data, images, runtime) == expected
    )


def test_a_run_starts_from_any_known_backbone(tmp_path: Path) -> None:
    state = random_state("resnet18", 8, "small", seed=7)
    torch.save(simsiam_checkpoint(state, "resnet18"), tmp_path / "official.pth")
    options = ["--backbone.width=8", "--backbone.stem=small", "--optim.lr=0", "--optim.weight_decay=0"]
    given = f"--resume-from-backbone={tmp_path / 'official.pth'}"
    assert "the backbone starts from" in complete(tmp_path / "run", *options, given).said
    model = newest(tmp_path / "run")["model"]
    for key, tensor in state.items():  # at rate 0 only batch norm's statistics move
        if key.endswith(("weight", "bias")):
            assert torch.equal(model[f"backbone.{key}"], tensor), key
    for change, words in (
        ("--backbone.width=16", r"holds .*width 8,.* is to train .*width 16,"),
        ("--backbone.branch=key", "no branch 'key'"),
        (f"--resume-from-backbone={tmp_path / 'none.pth'}", "there is no file"),
    ):
        refused = launch(tmp_path / "other", *options, given, change)
        assert refused.wait() == 2
        assert re.search(words, refused.said), refused.said
    (tmp_path / "official.pth").unlink()
    complete(tmp_path / "run", *options, given, "--resume")  # the run's own checkpoint is all that it needs


def test_resume_with_a_folder_needs_no_other_word(tmp_path: Path) -> None:
    whole = complete(tmp_path / "whole")
    stopped = launch(tmp_path / "stopped", fault=stop_at(7))
    assert stopped.wait() == 143
    config = program.main.parse(["--resume", str(tmp_path / "stopped")])
    assert config.run.dir == str(tmp_path / "stopped")
    assert config.as_dict() == {
        **whole.record["protocol"]["config"],
        "run": {"dir": config.run.dir, "seed": 0},
    }
    moved = (tmp_path / "stopped").rename(tmp_path / "moved")
    record = program.main(["--resume", str(moved)])
    assert record is not None
    assert_same_run(tmp_path / "whole", moved)


@pytest.mark.parametrize("words", [["--resume", "no/such"], ["--resume=no/such"]])
def test_resume_with_a_folder_that_holds_no_run_is_one_sentence(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"no/such holds no run: there is no config\.json in it"):
        program.main.parse(words)
