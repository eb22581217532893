"""The public face: lazy, typed, complete; results are the programs' records; nothing prints or exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.paths import ROOT
from support.small_runs import TINY

import siamtransfer as st
from siamtransfer.config import PretrainConfig
from siamtransfer.programs.knn import main as knn_program

pytestmark = pytest.mark.usefixtures("few_test_scenes")


def test_importing_the_package_costs_nothing_and_every_name_has_a_home() -> None:
    code = (
        "import sys, siamtransfer; print(sorted({'torch', 'numpy', 'jsonargparse'} & set(sys.modules))); "
        "names = [n for n in siamtransfer.__all__ if getattr(siamtransfer, n) is None]; print(names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
    assert set(st.__all__) <= set(dir(st))
    with pytest.raises(AttributeError, match="no attribute 'knm'"):
        st.knm  # noqa: B018


def test_every_public_name_has_a_docstring() -> None:
    for name in st.__all__:
        if name not in ("__version__", "METHODS"):
            assert getattr(st, name).__doc__, name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> st.PretrainResult:
    folder = tmp_path_factory.mktemp("api")
    result = st.pretrain(TINY[1], run={"dir": str(folder / "run")}, optim={"epochs": 1})
    assert result is not None
    return result


def test_a_run_is_a_result_with_its_checkpoint(run: st.PretrainResult) -> None:
    assert run.checkpoint.is_file()
    assert run.folder == run.checkpoint.parent
    assert run.protocol["config"]["optim"]["epochs"] == 1
    assert -1 <= run.metrics["loss"] <= 1
    assert run.record()["task"] == "pretrain"


def test_settings_are_checked_and_a_folder_in_use_is_an_error(run: st.PretrainResult, tmp_path: Path) -> None:
    with pytest.raises(st.UserError, match="holds a run already"):
        st.pretrain(TINY[1], run={"dir": str(run.folder)})
    with pytest.raises(st.UserError, match=r"no option optim\.lrate; did you mean optim\.lr"):
        st.pretrain("demo", optim={"lrate": 1})
    with pytest.raises(st.UserError, match="did you mean demo"):
        st.pretrain("demoo")
    with pytest.raises(st.UserError, match="a PretrainConfig is complete"):
        st.pretrain(PretrainConfig(), optim={"lr": 1})


def test_a_resumed_run_is_that_of_one_go(tmp_path: Path) -> None:
    half, whole = ({"dir": str(tmp_path / name)} for name in ("half", "whole"))
    st.pretrain(TINY[1], run=whole)
    seen: list[int] = []

    class Stop:
        """A monitor of one's own that ends the run as a crash would."""

        headline, protocol = (), {}

        def begin(self) -> dict[str, float]:
            return {}

        def due(self, result: object) -> bool:
            return not seen and result.step == 9  # type: ignore[attr-defined]

        def check(self, result: object) -> dict[str, float]:
            seen.append(9)
            raise RuntimeError("a crash")

    with pytest.raises(RuntimeError, match="a crash"):
        st.pretrain(TINY[1], run=half, monitors=[Stop()])
    st.pretrain(TINY[1], run=half, resume=True)
    states = [torch.load(Path(run["dir"]) / "checkpoint.pth", weights_only=True) for run in (half, whole)]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name


def test_results_are_the_programs_numbers_and_nothing_is_printed(
    run: st.PretrainResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = st.load_backbone(run.checkpoint)
    assert backbone.source.format == "siamtransfer"
    train, test = st.open_dataset("fashion-scenes", size=32, count=60)
    assert test is not None
    features = [st.extract_features(backbone, images) for images in (train, test)]
    result = st.knn(*features, k=[5, 7])
    record = knn_program([str(run.checkpoint), "--data.count", "60", "--k", "5", "7", "--cache", "none"])
    assert record is not None
    assert result.metrics == {
        name: value for name, value in record["metrics"].items() if name in result.metrics
    }
    assert result.protocol["k"] == [5, 7]
    assert result.provenance["weights_digest"] == record["provenance"]["weights_digest"]
    assert result.provenance["test_fingerprint"] == record["provenance"]["test_fingerprint"]
    result.save(tmp_path / "knn.json")
    saved = json.loads((tmp_path / "knn.json").read_text())
    assert saved["metrics"] == result.record()["metrics"]
    capsys.readouterr()
    st.linear_probe(*features, strengths=[1.0])
    st.diagnose(features[0], sample=30)
    assert capsys.readouterr().out == ""


def test_a_backbone_is_converted_with_the_weights_that_it_has_now(
    run: st.PretrainResult, tmp_path: Path
) -> None:
    backbone = st.load_backbone(run.checkpoint)
    first = st.to_torchvision(backbone, tmp_path / "first.pth")
    with torch.no_grad():
        next(backbone.parameters()).add_(1)
    second = st.to_torchvision(backbone, tmp_path / "second.pth")
    assert first.provenance["weights_digest"] != second.provenance["weights_digest"]
    states = [torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("first", "second")]
    assert torch.equal(states[0]["conv1.weight"] + 1, states[1]["conv1.weight"])
    with pytest.raises(st.UserError, match="was not read by load_backbone"):
        st.to_detectron2(torch.nn.Identity(), tmp_path / "out.pkl")  # type: ignore[arg-type]


def test_a_method_of_ones_own_is_known_by_its_name(tmp_path: Path) -> None:
    from siamtransfer.methods.simsiam import SimSiam

    class Shifted(SimSiam):
        """SimSiam under another name."""

        Config = SimSiam.Config

    try:
        result = st.pretrain(
            Shifted, TINY[1], run={"dir": str(tmp_path / "run")}, optim={"epochs": 1},
            shifted={"dim": 16, "projector_layers": 2},
        )  # fmt: skip
        assert result is not None
        assert result.protocol["config"]["method"] == {"name": "shifted"}
        assert result.protocol["config"]["shifted"]["dim"] == 16
        h = st.extract_features(result.checkpoint, np.zeros((3, 32, 32, 3), np.uint8))
        assert h.features.shape[0] == 3
    finally:
        st.METHODS.unregister("shifted")
