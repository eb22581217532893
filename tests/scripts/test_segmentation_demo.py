"""scripts/segmentation_demo.py at tiny size: what it measures, what it keeps, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import segmentation_demo
from support.stages import stage_here

from siamtransfer.utils.errors import UserError

PRETRAINING = [
    "--data.count=16", "--data.workers=0", "--backbone.width=8", "--optim.epochs=1", "--optim.batch_size=8",
    "--monitor.knn_every=0", "--monitor.health_every=0", "--log.tensorboard=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmentation-demo") / "run"
    stage_here("pretrain/main.py", "--run.dir", folder, *PRETRAINING)
    return folder


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that the demo calls, in this process."""
    called: list[str] = []

    def call(program: str, *arguments: object) -> dict[str, Any]:
        called.append(program)
        return stage_here(program, *arguments)

    monkeypatch.setattr(segmentation_demo, "stage", call)
    return called


@pytest.mark.slow
@pytest.mark.detectron2
def test_the_demo_measures_tells_and_keeps(
    pretrained: Path, stages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    argv = ["--run", str(pretrained), "--out", str(out), "--quick", "--trials", "2", "--at-once", "1"]
    first = segmentation_demo.main(argv)["metrics"]
    told = capsys.readouterr().err
    for name in ("simsiam", "untrained", "pixels"):
        for probe in ("linear", "knn/k=30", "kmeans"):
            assert f"{first[f'layer3/{name}/{probe}/miou']:.2f} (" in told
    for other in ("untrained", "pixels"):
        key = f"layer3/simsiam - {other}/linear/miou"
        expected = first["layer3/simsiam/linear/miou"] - first[f"layer3/{other}/linear/miou"]
        assert first[f"{key}/difference"] == pytest.approx(expected)
        assert f"{expected:+.2f} (" in told
    difference = first["fcn/compare/semantic/mIoU/difference"]
    assert difference == pytest.approx(
        first["fcn/semantic/mIoU/mean"] - first["fcn/other/semantic/mIoU/mean"]
    )
    assert f"{difference:+.2f}" in told
    jaccards = [first[f"{network}/jaccard/best-head-of-object"] for network in ("DINO", "untrained ViT")]
    assert first["DINO - untrained ViT/best-head-of-object/mean/difference"] == pytest.approx(
        jaccards[0] - jaccards[1]
    )
    table = json.loads((out / "table.json").read_text())
    assert all(line in told for line in table["table"])
    assert table["metrics"] == {name: value for name, value in first.items() if name != "seconds"}
    for picture in (
        "probes/layer3/simsiam.png", "fcn-simsiam.png", "fcn-scratch.png",
        "attention/trained/attention.png", "attention/untrained/masks.png",
    ):  # fmt: skip
        assert (out / picture).stat().st_size > 0

    # Without one record, as after a kill, that one is measured again, to the same numbers, and nothing else.
    stages.clear()
    (out / "probes" / "layer3" / "untrained.json").unlink()
    again = segmentation_demo.main(argv)["metrics"]
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    assert stages.count("eval/segmentation.py") == 1
    assert not {"pretrain/main.py", "convert/to_d2.py", "eval/attention.py"} & set(stages)

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "checkpoint.pth").write_bytes(b"another")
    with pytest.raises(UserError, match="holds numbers of another checkpoint or other sizes"):
        segmentation_demo.main([*argv, "--run", str(tmp_path / "other")])


def test_a_demo_without_a_pretrained_backbone_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no pretrained .*checkpoint.pth: run `make demo` first"):
        segmentation_demo.main(["--run", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
