"""eval/detection.py from the command line to the record, with real Detectron2 on the CPU, at tiny size."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support import paths
from support.checkpoint_files import random_state
from support.thorough import more

from siamtransfer.data.scenes.export import SceneCounts, write_coco, write_voc
from siamtransfer.detection.data.datasets import open_detection_data
from siamtransfer.detection.detectron2 import convert
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.engines import Detectron2Engine, TorchvisionEngine
from siamtransfer.detection.finetune_run import FinetuneRun
from siamtransfer.detection.layered_config import read_layered_config
from siamtransfer.detection.lr_search import hold_out
from siamtransfer.detection.tasks.instances import InstancesTask
from siamtransfer.programs import detection, to_d2
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError

needs_detectron2 = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
    ),
]
CONFIGS = paths.CONFIGS / "detection"
SIZE = 64
TINY = [
    "INPUT.MIN_SIZE_TRAIN", f"({SIZE},)",
    "INPUT.MIN_SIZE_TEST", str(SIZE),
    "DATALOADER.NUM_WORKERS", "0",
    "SOLVER.IMS_PER_BATCH", "2",
    "SOLVER.STEPS", "()",
    "SOLVER.WARMUP_ITERS", "1",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", "16",
    "MODEL.RPN.POST_NMS_TOPK_TEST", "8",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
    "MODEL.RETINANET.SCORE_THRESH_TEST", "0.0",
    "TEST.PRECISE_BN.NUM_ITER", "2",
]  # fmt: skip
FPN = [
    "MODEL.FPN.OUT_CHANNELS", "16",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "32",
    "MODEL.ROI_MASK_HEAD.CONV_DIM", "16",
]  # fmt: skip
MAIN = [f"{task}/{name}" for task in ("detection", "segmentation") for name in ("AP", "AP50", "AP75")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in both formats, and weights a.pkl, b.pkl (ResNet-18) and c4.pkl (ResNet-50), all narrow."""
    root = tmp_path_factory.mktemp("detection")
    counts = SceneCounts(train=10, test=4, size=SIZE)
    write_voc(root / "voc", counts)
    write_coco(root / "coco", counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "is_installed", lambda: False)  # the numerical proof has tests of its own
        for name, kind, width, seed in (
            ("a", "resnet18", 8, 0),
            ("b", "resnet18", 8, 1),
            ("c4", "resnet50", 8, 0),
        ):
            torch.save(random_state(kind, width, seed=seed), root / f"{name}.pth")
            to_d2.main([str(root / f"{name}.pth"), str(root / f"{name}.pkl")])
    return root


def data(folder: Path, kind: str) -> list[str]:
    if kind == "voc":
        return ["--train", f"{folder / 'voc'}:trainval", "--test", f"{folder / 'voc'}:test"]
    parts = [
        f"{folder}/coco/annotations/instances_{part}.json@{folder}/coco/{part}" for part in ("train", "val")
    ]
    return ["--train", parts[0], "--test", parts[1]]


def measure(
    folder: Path, config: str, weights: str, kind: str, run: Path, *more: str, steps: int = 2
) -> dict[str, Any]:
    arguments = ["--config", str(CONFIGS / f"{config}.yaml"), "--weights", str(folder / f"{weights}.pkl")]
    small = TINY if config.startswith("voc") or "c4" in config else [*TINY, *FPN]
    return detection.main(
        [*arguments, "--run", str(run), *data(folder, kind), *more, *small, "SOLVER.MAX_ITER", str(steps)]
    )


class TestWithDetectron2:
    pytestmark = needs_detectron2

    @pytest.mark.parametrize(
        ("config", "weights", "kind", "mask", "tensors"),
        [
            ("coco-fpn-1x", "a", "coco", True, 120),
            ("coco-fpn-1x", "a", "voc", False, 120),
            ("voc07-c4-9k", "c4", "voc", False, 318),
            ("coco-c4-1x", "c4", "coco", True, 318),
            ("coco-retinanet-1x", "c4", "coco", False, 318),
        ],
    )
    def test_trains_and_scores(
        self, folder: Path, tmp_path: Path, config: str, weights: str, kind: str, mask: bool, tensors: int
    ) -> None:
        run = tmp_path / "run"
        overrides = ["MODEL.MASK_ON", str(mask)]
        record = measure(folder, config, weights, kind, run, *overrides)
        assert record["task"] == "detection"
        expected = MAIN if mask else MAIN[:3]
        assert [name for name in MAIN if name in record["metrics"]] == expected
        assert all(0 <= record["metrics"][name] <= 100 for name in expected)
        assert any(name.startswith("detection/AP/") for name in record["metrics"]), "AP of each class"
        protocol = record["protocol"]
        assert protocol["metric"] == kind
        assert protocol["settings"]["SOLVER.MAX_ITER"] == 2
        classes = "RETINANET" if "retinanet" in config else "ROI_HEADS"
        assert protocol["settings"][f"MODEL.{classes}.NUM_CLASSES"] == 10
        assert protocol["data"]["test"]["images"] == 4
        changed = [] if "c4" in config else ["RESNETS", "FPN"]
        assert [sentence.split(".")[1] for sentence in protocol["norms_changed"]] == changed
        assert record["provenance"]["arms"][0]["trials"][0]["tensors_proved"] == tensors
        trial = run / weights / "trial-0"
        assert {"model_final.pth", "metrics.jsonl", "result.json", "log.txt", "predictions.png"} <= {
            path.name for path in trial.iterdir()
        }
        rows = read_rows(trial / "metrics.jsonl")
        assert rows[-1]["step"] == 2
        assert rows[-1]["detection/AP"] == record["metrics"]["detection/AP"]

    def test_trials_go_on_and_grow_and_are_compared(
        self,
        folder: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        import_detectron2()
        from siamtransfer.detection.detectron2 import prediction_collector

        def score(found: Any, records: Any, metric: str, classes: Any) -> dict[str, float]:
            """AP of so short a training is zero; the confidence is not."""
            scores = np.concatenate([item["scores"] for item in found])
            return {"detection/AP": 100 * float(scores.mean()), "segmentation/AP": 100 * float(scores.max())}

        monkeypatch.setattr(prediction_collector, "score_predictions", score)
        run, options = tmp_path / "run", ["--compare", str(folder / "b.pkl")]
        one = measure(folder, "coco-fpn-1x", "a", "coco", run, *options)
        assert "compare/detection/AP/ci95_low" not in one["metrics"]
        costs = [arm["trials"][0]["cost"] for arm in one["provenance"]["arms"]]
        assert costs[0]["images"] == costs[1]["images"] > 0
        assert one["provenance"]["cost"]["images"] == 2 * costs[0]["images"]
        assert one["provenance"]["cost"]["seconds"] > costs[0]["seconds"] + costs[1]["seconds"]
        with pytest.raises(UserError, match="holds a run already: go on with it by --resume"):
            measure(folder, "coco-fpn-1x", "a", "coco", run, *options)
        first = (run / "a" / "trial-0" / "result.json").stat().st_mtime_ns
        two = measure(folder, "coco-fpn-1x", "a", "coco", run, *options, "--resume", "--trials", "2")
        assert (run / "a" / "trial-0" / "result.json").stat().st_mtime_ns == first, "a finished trial stays"
        assert two["protocol"]["seeds"] == [0, 1]
        of_a, of_b = (
            [trial["metrics"]["segmentation/AP"] for trial in arm["trials"]]
            for arm in two["provenance"]["arms"]
        )
        metrics = two["metrics"]
        assert metrics["segmentation/AP/mean"] == pytest.approx(sum(of_a) / 2)
        assert metrics["other/segmentation/AP/mean"] == pytest.approx(sum(of_b) / 2)
        difference = [a - b for a, b in zip(of_a, of_b, strict=True)]
        assert metrics["compare/segmentation/AP/difference"] == pytest.approx(sum(difference) / 2)
        half = stats.t.ppf(0.975, 1) * abs(difference[0] - difference[1]) / 2
        found = metrics["compare/segmentation/AP/ci95_high"] - metrics["compare/segmentation/AP/difference"]
        assert found == pytest.approx(half)
        assert "detection/AP: a - b = " in capsys.readouterr().err

        with pytest.raises(UserError, match=r"another configuration \(SOLVER\.MAX_ITER 2 -> 3\)"):
            measure(folder, "coco-fpn-1x", "a", "coco", run, *options, "--resume", steps=3)
        again = measure(folder, "coco-fpn-1x", "a", "coco", run, *options, "--eval-only", "--trials", "2")
        assert metrics["detection/AP/std"] > 0
        for name, value in metrics.items():
            assert again["metrics"][name] == pytest.approx(value, rel=1e-6)

    @pytest.mark.parametrize("within", ["a step", more("a measurement")])
    def test_a_stopped_run_goes_on_as_if_it_had_not_been(
        self, within: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SIGTERM in step 2 of 4, or in the measurement after it: saved, status 143, and --resume ends in an
        undisturbed run's weights."""
        often = ["TEST.EVAL_PERIOD", "1", "TEST.PRECISE_BN.ENABLED", "False"]
        whole = measure(folder, "coco-fpn-1x", "a", "coco", tmp_path / "whole", *often, steps=4)
        from detectron2.engine import SimpleTrainer

        from siamtransfer.detection.detectron2 import trainer

        real, steps = SimpleTrainer.run_step, []
        real_scores, scored = trainer.inference_on_dataset, []

        def run_step(self: Any) -> None:
            real(self)
            steps.append(len(steps))
            if within == "a step" and len(steps) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        def score(*arguments: Any) -> Any:
            scored.append(len(steps))
            if within == "a measurement" and scored == [1, 2]:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            return real_scores(*arguments)

        monkeypatch.setattr(SimpleTrainer, "run_step", run_step)
        monkeypatch.setattr(trainer, "inference_on_dataset", score)
        with pytest.raises(SystemExit) as stopped:
            measure(folder, "coco-fpn-1x", "a", "coco", tmp_path / "run", *often, steps=4)
        assert (stopped.value.code, len(steps)) == (143, 2)
        trial = tmp_path / "run" / "a" / "trial-0"
        assert (trial / "last_checkpoint").read_text() == "model_0000001.pth"
        assert not (trial / "result.json").exists()
        resumed = measure(folder, "coco-fpn-1x", "a", "coco", tmp_path / "run", "--resume", *often, steps=4)
        assert len(steps) == 4, "two steps were left"
        assert resumed["metrics"] == pytest.approx(whole["metrics"], nan_ok=True)
        of_steps = [
            [step for step, _ in record["provenance"]["arms"][0]["trials"][0]["AP_by_step"]]
            for record in (whole, resumed)
        ]
        assert of_steps == [[1, 2, 3, 4], [1, 2, 3, 4]]
        weights = [
            torch.load(tmp_path / name / "a" / "trial-0" / "model_final.pth", weights_only=True)["model"]
            for name in ("whole", "run")
        ]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())

    def test_the_search_chooses_on_held_out_images(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import_detectron2()
        from siamtransfer.detection.detectron2 import prediction_collector

        scored: list[frozenset[str]] = []

        def score(found: Any, records: Any, metric: str, classes: Any) -> dict[str, float]:
            scored.append(frozenset(record["file_name"] for record in records))
            return {"detection/AP": float([30, 50, 40, 7][len(scored) - 1])}

        monkeypatch.setattr(prediction_collector, "score_predictions", score)
        record = measure(
            folder, "coco-fpn-1x", "a", "coco", tmp_path / "run",
            "--search", "--rates", "0.001", "0.002", "0.003", "--decays", "0.0001", "--held-out", "0.2",
        )  # fmt: skip
        assert record["metrics"]["detection/AP"] == 7
        assert record["protocol"]["chosen"] == {"a": {"SOLVER.BASE_LR": 0.002, "SOLVER.WEIGHT_DECAY": 0.0001}}
        assert record["protocol"]["chosen_on"].startswith("0.2 of the training images")
        opened = open_detection_data(*data(folder, "coco")[1::2])
        train, test = ({item["file_name"] for item in part} for part in (opened.train, opened.test))
        assert [part <= train and len(part) == 2 for part in scored] == [True, True, True, False]
        assert scored[3] == test, "the test images are scored once"
        rows = read_rows(tmp_path / "run" / "a" / "trial-0" / "metrics.jsonl")
        assert [row["lr"] for row in rows if "lr" in row] == [pytest.approx(0.002)]

    @pytest.mark.thorough
    def test_trainings_side_by_side_are_those_of_one_after_the_other(
        self, folder: Path, tmp_path: Path
    ) -> None:
        box = ["MODEL.MASK_ON", "False"]
        measure(folder, "coco-fpn-1x", "a", "coco", tmp_path / "one", *box)
        both = ["--trials", "2", "--at-once", "2", *box]
        record = measure(folder, "coco-fpn-1x", "a", "coco", tmp_path / "two", *both)
        assert record["protocol"]["seeds"] == [0, 1]
        weights = [
            torch.load(tmp_path / trial / "model_final.pth")["model"]
            for trial in ("one/a/trial-0", "two/a/trial-0", "two/a/trial-1")
        ]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
        other = "backbone.fpn_lateral2.weight"
        assert not torch.equal(weights[1][other], weights[2][other])

    def test_a_layered_configuration_without_weights(self, folder: Path, tmp_path: Path) -> None:
        """The from-scratch row, as a layer over a protocol."""
        files = [f"--config={CONFIGS / name}.yaml" for name in ("coco-fpn-1x", "scratch")]
        small = [
            "MODEL.RESNETS.DEPTH",
            "18",
            "MODEL.RESNETS.RES2_OUT_CHANNELS",
            "64",
            "MODEL.MASK_ON",
            "False",
        ]
        short = [*TINY, *FPN, *small, "SOLVER.MAX_ITER", "1"]
        record = detection.main([*files, "--run", str(tmp_path / "run"), *data(folder, "coco"), *short])
        assert record["protocol"]["configurations"] == ["coco-fpn-1x.yaml", "scratch.yaml"]
        assert record["protocol"]["settings"]["INPUT.FORMAT"] == "RGB"
        assert record["provenance"]["arms"][0]["trials"][0]["tensors_proved"] == 0
        with pytest.raises(UserError, match=r"MODEL\.WEIGHTS by .*scratch\.yaml were both given"):
            detection.main([*files, "--weights", str(folder / "a.pkl"), *data(folder, "coco")])

    def test_the_scale_is_in_the_record(self, folder: Path, tmp_path: Path) -> None:
        record = measure(
            folder, "coco-fpn-1x", "a", "coco", tmp_path / "run", "--scale-to", "4", "--compare", "scratch"
        )
        assert record["protocol"]["scaled"]["SOLVER.IMS_PER_BATCH"] == [2, 1]
        assert record["protocol"]["settings"]["SOLVER.MAX_ITER"] == 4
        assert "no longer the measure" in record["protocol"]["not_comparable"]
        assert [arm["name"] for arm in record["provenance"]["arms"]] == ["a", "scratch"]
        assert [arm["trials"][0]["tensors_proved"] for arm in record["provenance"]["arms"]] == [120, 0]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--trials", "0"], "--trials is 0"),
            (["--gpus", "2"], "--gpus 2 were asked for"),
            (["--eval-only"], "holds no run"),
            (["--weights", "scratch"], "`scratch` goes with --compare; .* configs/detection/scratch.yaml"),
            (["INPUT.FORMAT", "BGR"], r"INPUT\.FORMAT is 'BGR' by the command line, and a\.pkl needs 'RGB'"),
            (["MODEL.WEIGHTS", "x.pkl"], r"--weights and MODEL\.WEIGHTS by the command line were both given"),
        ],
    )
    def test_refusals_before_any_work(
        self, folder: Path, tmp_path: Path, options: list[str], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            measure(folder, "coco-fpn-1x", "a", "coco", tmp_path / "run", *options)
        assert not (tmp_path / "run").exists()

    def test_a_diverging_loss_ends_in_a_sentence(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(
            UserError, match=r"a, seed 0: the loss is no longer a number .*lower SOLVER\.BASE_LR"
        ):
            measure(folder, "coco-fpn-1x", "a", "coco", tmp_path / "run", "SOLVER.BASE_LR", "1e20")

    def test_a_run_can_be_sent_to_other_processes(self, folder: Path, tmp_path: Path) -> None:
        """As Detectron2's launcher does for several GPUs."""
        engine = Detectron2Engine(read_layered_config([CONFIGS / "coco-fpn-1x.yaml"], []))
        opened = open_detection_data(*data(folder, "coco")[1::2])
        start = engine.initialization(str(folder / "a.pkl"))
        run = FinetuneRun(start, "a", tmp_path, 3, InstancesTask(opened, "coco"))
        sent = pickle.loads(pickle.dumps(run))
        assert sent.initialization.settings == start.settings
        assert isinstance(sent.task, InstancesTask)
        assert (sent.seed, sent.folder, sent.task.data.test) == (3, tmp_path, opened.test)
        state = sent.initialization.weights.state
        assert all(torch.equal(value, state[name]) for name, value in start.weights.state.items())

    def test_masks_that_the_data_lack(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"MODEL\.MASK_ON is set and .* has boxes only"):
            measure(folder, "coco-fpn-1x", "a", "voc", tmp_path / "run")


def test_without_detectron2_both_ways_out_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from siamtransfer.detection import engines

    monkeypatch.setattr(engines, "is_installed", lambda: False)
    with pytest.raises(
        UserError, match=r"not installed; get it with .*get_detectron2\.py.*--engine torchvision"
    ):
        measure(folder, "coco-fpn-1x", "a", "coco", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_torchvision_is_marked_as_not_comparable(folder: Path, tmp_path: Path) -> None:
    arguments = [
        "--config", str(CONFIGS / "scenes-fpn.yaml"), *data(folder, "coco"),
        "--weights", str(folder / "a.pkl"),
        "--run", str(tmp_path / "run"), "--engine", "torchvision", "--compare", "scratch", "--trials", "2",
        "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "INPUT.MIN_SIZE_TRAIN", f"({SIZE},)",
        "MODEL.FPN.OUT_CHANNELS", "16", "TEST.PRECISE_BN.NUM_ITER", "1",
    ]  # fmt: skip
    record = detection.main(arguments)
    assert record["protocol"]["comparable"] is False
    assert "published numbers" in record["protocol"]["not_comparable"]
    assert [arm["name"] for arm in record["provenance"]["arms"]] == ["a", "scratch"]
    assert 0 <= record["metrics"]["segmentation/AP/mean"] <= 100
    assert "compare/detection/AP/ci95_low" in record["metrics"]
    written = json.loads((tmp_path / "run" / "scratch" / "trial-1" / "result.json").read_text())
    assert written["seed"] == 1


def test_held_out_images_are_the_same_every_time(folder: Path) -> None:
    opened = open_detection_data(*data(folder, "coco")[1::2])
    first, second = hold_out(opened, 0.3), hold_out(opened, 0.3)
    names = [[item["file_name"] for item in part] for part in (first.train, first.test)]
    assert names == [[item["file_name"] for item in part] for part in (second.train, second.test)]
    assert (len(names[0]), len(names[1])) == (7, 3)
    assert sorted(names[0] + names[1]) == sorted(item["file_name"] for item in opened.train)
    prints = {opened.train_fingerprint, first.train_fingerprint, first.test_fingerprint}
    assert len(prints) == 3
    with pytest.raises(UserError, match="choose another --held-out"):
        hold_out(opened, 0.01)


def test_torchvisions_engine_takes_the_pixels_that_the_file_beside_the_weights_says(
    folder: Path, tmp_path: Path
) -> None:
    for suffix in (".pkl", ".yaml"):
        shutil.copy(folder / f"a{suffix}", tmp_path / f"w{suffix}")
    weights_config = tmp_path / "w.yaml"
    text = weights_config.read_text()
    stated = re.search(r"PIXEL_MEAN: .*", text)
    assert stated
    changed = text.replace(stated[0], "PIXEL_MEAN: [51.0, 102.0, 153.0]")
    weights_config.write_text(changed)
    with pytest.raises(UserError, match=r"w\.yaml does not set MODEL\.PIXEL_MEAN"):
        TorchvisionEngine({}).initialization(str(tmp_path / "w.pkl"))
    older = [line for line in changed.splitlines() if not line.startswith("# siamtransfer-reading")]
    weights_config.write_text("\n".join(older))
    start = TorchvisionEngine({}).initialization(str(tmp_path / "w.pkl"))
    assert start.weights.normalisation.mean == pytest.approx((0.2, 0.4, 0.6))
    weights_config.unlink()
    with pytest.raises(UserError, match=r"w\.yaml"):
        TorchvisionEngine({}).initialization(str(tmp_path / "w.pkl"))
