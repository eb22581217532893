"""Evaluations of sets with images that cannot be read: they stop, or go on as if these were not there."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.small_runs import complete, images_of, on_ranks

from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.config import EvaluationData
from siamtransfer.evaluation.evaluator import run_evaluator
from siamtransfer.evaluation.knn.config import KnnConfig
from siamtransfer.evaluation.knn.evaluate import evaluate
from siamtransfer.programs.gradients import main as gradients
from siamtransfer.programs.knn import main as knn
from siamtransfer.utils.errors import UserError

COLOURS = {"blue": (40, 40, 170), "green": (40, 170, 40), "red": (170, 40, 40)}
BAD = {"train": ("blue/00.png", "green/07.png", "red/11.png"), "test": ("green/03.png",)}
SOURCE = "random:resnet18:width=8:stem=small"
SMALL = ["--device=cpu", "--crop=12", "--data.workers=0", "--cache=none"]


def write_set(root: Path) -> Path:
    """Three colours with much noise, 12 images each in train and 6 in test."""
    generator = np.random.default_rng(0)
    for part, each in (("train", 12), ("test", 6)):
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(each):
                noise = generator.normal(colour, 60, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(folder / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set with images that are cut short."""
    root = write_set(tmp_path_factory.mktemp("broken"))
    for part, names in BAD.items():
        for name in names:
            path = root / part / name
            path.write_bytes(path.read_bytes()[:-60])
    return root


@pytest.fixture(scope="module")
def clean(broken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without these images."""
    root = tmp_path_factory.mktemp("clean") / "set"
    shutil.copytree(broken, root)
    for part, names in BAD.items():
        for name in names:
            (root / part / name).unlink()
    return root


def skip(root: Path, limit: float = 0.1) -> list[str]:
    return [
        "--data.name=folder",
        f"--data.root={root}",
        "--data.unreadable=skip",
        f"--data.max-unreadable={limit}",
    ]


PROGRAMS = {
    "knn": [SOURCE, "--k=3"],
    "linear": [SOURCE, "--protocol=logistic", "--strengths=1"],
    "linear augment": [SOURCE, "--protocol=sweep", "--augment", "--epochs=1", "--lrs=0.1", "--batch-size=8"],
    "fewshot": [SOURCE, "--shots=2", "--repeats=2"],
    "semisup": [SOURCE, "--percent=50", "--epochs=1", "--batch-size=4", "--lrs", "0.01", "0.1"],
    "svm": [SOURCE, "--protocol=swav", "--one-hot", "--costs=1", "--jobs=1"],
    "diagnose": [SOURCE, "--restarts=1"],
}


def run(program: str, options: list[str], root: Path) -> dict[str, Any]:
    main = importlib.import_module(f"siamtransfer.programs.{program.partition(' ')[0]}").main
    record = main([*options, *SMALL, *skip(root)])
    return json.loads(json.dumps(record))


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_evaluator_gives_the_numbers_of_the_readable_images(
    program: str, broken: Path, clean: Path
) -> None:
    found = run(program, PROGRAMS[program], broken)
    expected = run(program, PROGRAMS[program], clean)
    assert found["metrics"] == expected["metrics"]
    protocol, other = (
        record["protocol"].get("checkpoints", [record["protocol"]])[0] for record in (found, expected)
    )
    record = protocol.pop("unreadable")
    assert record == {
        "rule": "skip",
        "limit": 0.1,
        **{part: {"images": len(names), "names": list(names)} for part, names in BAD.items()},
    }
    nothing = {"images": 0, "names": []}
    assert other.pop("unreadable") == {"rule": "skip", "limit": 0.1, "train": nothing, "test": nothing}
    assert protocol == other
    assert (protocol["train_images"], protocol["test_images"]) == (33, 17)


def test_exported_features_have_the_labels_of_the_readable_images(
    broken: Path, clean: Path, tmp_path: Path
) -> None:
    arrays = []
    for root in (broken, clean):
        out = tmp_path / f"{root.name}.npz"
        run("features", [SOURCE, f"--out={out}", "--part=train"], root)
        arrays.append(np.load(out))
    for name in ("features", "labels"):
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name])


def test_the_cache_tells_a_set_with_unreadable_images_from_one_that_was_mended(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    shutil.copytree(broken, root)
    options = [SOURCE, "--k=3", *SMALL[:-1], f"--cache={tmp_path / 'cache'}"]
    first = knn([*options, *skip(root)])
    assert first is not None
    with monkeypatch.context() as patch:
        patch.setattr("siamtransfer.features.kept_failures.find_unreadable", None)
        patch.setattr("siamtransfer.evaluation.frozen_model.extract_share", None)
        again = knn([*options, *skip(root)])  # all from the cache
    assert again is not None
    assert again["protocol"] == first["protocol"]
    for kept in (tmp_path / "cache").glob("unreadable-*.json"):
        kept.write_text("[]")
    assert knn([*options, *skip(root)])["protocol"] == first["protocol"]
    assert "is damaged and is not used" in capsys.readouterr().err
    assert first["metrics"] == again["metrics"]
    assert first["provenance"]["train_fingerprint"] == again["provenance"]["train_fingerprint"]
    for part, names in BAD.items():  # other images of these names, of the same size
        for name in names:
            size = (root / part / name).stat().st_size
            path = root / part / name
            Image.new("RGB", (16, 16)).save(path)
            path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    mended = knn([*options, *skip(root)])
    assert mended is not None
    assert (mended["protocol"]["train_images"], mended["protocol"]["test_images"]) == (36, 18)
    assert mended["provenance"]["train_fingerprint"] != first["provenance"]["train_fingerprint"]


def test_without_the_option_an_evaluation_stops_at_the_first_and_names_the_cure(broken: Path) -> None:
    argv = [SOURCE, "--k=3", *SMALL, "--data.name=folder", f"--data.root={broken}"]
    with pytest.raises(UserError, match=r"blue/00\.png because .*--data\.unreadable skip"):
        knn(argv)


def test_a_file_that_breaks_while_others_are_left_out_is_no_reason_to_say_the_option_again() -> None:
    def breaks(config: KnnConfig, runtime: Runtime) -> None:
        raise UnreadableImage("late.png", "the file is empty")

    for rule, cured in (("stop", True), ("skip", False)):
        config = KnnConfig(checkpoint=SOURCE, data=EvaluationData(unreadable=rule), device="cpu")
        with pytest.raises(UserError, match=r"late\.png because the file is empty") as caught:
            run_evaluator(breaks, config)
        assert ("--data.unreadable skip" in str(caught.value)) is cured


def test_without_the_option_empty_and_missing_files_are_counted_before_anything_is_computed(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    shutil.copytree(clean, root)
    (root / "train/red/98.png").touch()
    (root / "train/red/99.png").symlink_to("nowhere")
    argv = [SOURCE, "--k=3", *SMALL, "--data.name=folder", f"--data.root={root}"]
    with pytest.raises(UserError, match=r"2 of the 35 files of folder/train are empty or missing .*98\.png"):
        knn(argv)
    assert "extracting" not in capsys.readouterr().err


def metrics_of_rank(runtime: Runtime, root: str) -> tuple[dict[str, float], dict[str, Any]] | None:
    data = EvaluationData(name="folder", root=root, unreadable="skip", max_unreadable=0.1, workers=0)
    config = KnnConfig(checkpoint=SOURCE, data=data, k=[3], device="cpu", crop=12, cache="none")
    result = evaluate(config, runtime)
    return None if result is None else (result.metrics, result.protocol["unreadable"])


def test_several_ranks_leave_the_same_images_out(broken: Path, clean: Path) -> None:
    first, second = on_ranks(metrics_of_rank, str(broken))
    alone = run("knn", PROGRAMS["knn"], clean)
    assert second is None
    metrics, record = first
    assert metrics == alone["metrics"]
    assert record["train"] == {"images": 3, "names": list(BAD["train"])}


def test_leave_one_out_leaves_unreadable_images_out_of_bank_and_queries(broken: Path, clean: Path) -> None:
    numbers = []
    for root in (broken, clean):
        record = knn([SOURCE, "--k=3", *SMALL, *skip(root / "train")])
        assert record is not None
        assert record["protocol"]["test"] == "leave-one-out on train"
        assert "test" not in record["protocol"]["unreadable"]
        numbers.append(record["metrics"])
    assert numbers[0] == numbers[1]


def break_all(files: list[Path]) -> None:
    for path in files:
        path.write_bytes(b"no image")


def test_too_many_and_whole_classes_and_whole_sets_are_refused(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [SOURCE, "--k=3", *SMALL]
    with pytest.raises(UserError, match=r"3 of 36 images \(8\.33%\) .*data\.max_unreadable = 0\.05"):
        knn([*base, *skip(broken, 0.05)])
    root = tmp_path / "set"
    shutil.copytree(broken, root)
    break_all(list((root / "test/green").iterdir()))
    assert knn([*base, *skip(root, 1)]) is not None
    assert "no image of green can be read, so nothing is scored on it" in capsys.readouterr().err
    break_all(list((root / "train/green").iterdir()))
    with pytest.raises(UserError, match="no image of green in folder/train can be read"):
        knn([*base, *skip(root, 1)])
    break_all(list((root / "train").rglob("*.png")))
    with pytest.raises(UserError, match="none of the 36 images of folder/train can be read"):
        knn([*base, *skip(root, 1)])


def test_feature_files_hold_no_images_to_skip(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, features=np.eye(4, dtype=np.float32), labels=np.arange(4))
    files = [f"--train-features={tmp_path / 'a.npz'}", f"--test-features={tmp_path / 'b.npz'}"]
    with pytest.raises(UserError, match="feature files hold none"):
        knn([*files, "--k=1", "--data.unreadable=skip"])
    with pytest.raises(UserError, match=r"--data\.max-unreadable is 2"):
        knn([*files, "--k=1", "--data.max-unreadable=2"])


def test_a_run_its_knn_check_and_its_gradient_view_go_on_without_bad_files(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--monitor.knn_every=1", "--monitor.knn_k=3", "--optim.epochs=1", "--data.max_unreadable=0.2"]
    run = complete(tmp_path / "run", *images_of(broken), *options)
    assert "kNN check: 3 of 36 images (8.33%) could not be read" in run.said
    assert "kNN check: 1 of 18 images (5.56%) could not be read" in run.said
    protocol = run.record["protocol"]
    assert (protocol["knn_bank_images"], protocol["knn_query_images"]) == (33, 17)
    argv = [str(tmp_path / "run" / "checkpoint.pth"), "--batches=4", "--device=cpu"]
    with pytest.raises(UserError, match=r"cannot read the image .*--data\.unreadable skip"):
        gradients(argv)
    record = gradients([*argv, "--data.unreadable=skip"])
    assert record is not None
    told = record["protocol"]["unreadable"]
    assert told["images"] == len(told["names"]) > 0
    assert {Path(name).name for name in told["names"]} <= {"00.png", "07.png", "11.png"}
    assert "replaced as in pretraining" in capsys.readouterr().err
