"""What weights, data and device ask of Detectron2's configuration, and the refusals."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support import paths
from support.checkpoint_files import random_state
from torch import nn

from siamtransfer.detection.data.configured import scenes_section
from siamtransfer.detection.detectron2 import convert
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.detection.detectron2.lr_scaling import not_comparable, scale_to
from siamtransfer.detection.detectron2.own_keys import default_settings
from siamtransfer.detection.detectron2.parity import load_weights
from siamtransfer.detection.detectron2.roi_heads import EXTRA_NORM, register_heads
from siamtransfer.detection.detectron2.settings import (
    build_settings,
    fit_to_device,
    recorded_settings,
    require_weights_keys,
)
from siamtransfer.detection.detectron2.trunk import register_trunks
from siamtransfer.detection.detectron2.weights import load_proved, load_published, read_converted
from siamtransfer.detection.detectron2.weights_config import merge_weights_config
from siamtransfer.detection.layered_config import read_layered_config
from siamtransfer.programs import to_d2
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
    ),
]
CONFIGS = paths.CONFIGS / "detection"
C4, FPN = CONFIGS / "voc07-c4-9k.yaml", CONFIGS / "coco-fpn-1x.yaml"
RETINANET, SMALL = CONFIGS / "coco-retinanet-1x.yaml", CONFIGS / "scenes-fpn.yaml"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Converted weights of two sizes; without the numerical proof, which has tests of its own."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "is_installed", lambda: False)
        for name, width in (("resnet18", 16), ("resnet50", 16)):
            state = random_state(name, width)
            torch.save(state, folder / f"{name}.pth")
            files[name] = folder / f"{name}.pkl"
            to_d2.main([str(folder / f"{name}.pth"), str(files[name])])
    return files


def settings(file: Path, weights: Path | None = None, *overrides: str) -> Any:
    layered = read_layered_config([file], overrides)
    register_trunks()
    register_heads()
    cfg = build_settings(layered)
    if weights:
        merge_weights_config(cfg, layered, weights)
    return cfg


def build(cfg: Any) -> nn.Module:
    from detectron2.modeling import build_model

    fit_to_device(cfg, "cpu")
    return build_model(cfg)


def damaged(path: Path, folder: Path, change: Any) -> Path:
    """A copy of OUT.pkl whose dict of arrays went through `change`."""
    content = pickle.loads(path.read_bytes())
    change(content["model"])
    out = folder / "out.pkl"
    out.write_bytes(pickle.dumps(content))
    out.with_suffix(".yaml").write_text(path.with_suffix(".yaml").read_text())
    return out


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_is_understood_by_detectron2(file: Path) -> None:
    """Keys and types as Detectron2 itself merges the file, which reads it on its own way."""
    cfg = build_settings(read_layered_config([file], []))
    expected = default_settings()
    loaded = type(expected).load_yaml_with_base(str(file))
    loaded.pop("SCENES", None)
    expected.merge_from_other_cfg(type(expected)(loaded))
    assert flatten(cfg) == flatten(expected)


def test_unknown_keys_and_wrong_types_are_named() -> None:
    with pytest.raises(UserError, match=r"the command line has the key SOLVER\.BASE_LRR.* SOLVER\.BASE_LR\?"):
        settings(C4, None, "SOLVER.BASE_LRR", "1")
    with pytest.raises(UserError, match=r"SOLVER\.MAX_ITER by the command line"):
        settings(C4, None, "SOLVER.MAX_ITER", "many")
    with pytest.raises(UserError, match=r"SCENES\.SIDES; the section has FORMAT"):
        scenes_section(read_layered_config([], ["SCENES.SIDES", "1"]))
    with pytest.raises(UserError, match=r"SCENES\.SIZE by the command line is 'big'"):
        scenes_section(read_layered_config([], ["SCENES.SIZE", "big"]))


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("INPUT.FORMAT", "BGR", "'RGB'"),
        ("MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]", r"\[58\.395"),
        ("MODEL.PIXEL_MEAN", "[103.53, 116.28, 123.675]", r"\[123\.675"),
        ("MODEL.RESNETS.STRIDE_IN_1X1", "True", "False"),
        ("MODEL.RESNETS.DEPTH", "101", "50"),
    ],
)
def test_what_contradicts_the_weights_is_refused_by_name(
    files: dict[str, Path], tmp_path: Path, key: str, value: str, needed: str
) -> None:
    name = key.replace(".", r"\.")
    message = rf"^{name} is .* by the command line, and resnet50\.pkl needs {needed}"
    with pytest.raises(UserError, match=message):
        settings(FPN, files["resnet50"], key, value)
    *sections, last = key.split(".")
    text = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
    own = tmp_path / "own.yaml"
    own.write_text(f"_BASE_: {FPN}\n{text}{'  ' * len(sections)}{last}: {value}\n")
    with pytest.raises(UserError, match=rf"^{name} is .* by .*own\.yaml, and"):
        settings(own, files["resnet50"])


def test_what_agrees_with_the_weights_may_be_stated(files: dict[str, Path]) -> None:
    same = ("INPUT.FORMAT", "RGB", "MODEL.PIXEL_STD", "(58.395, 57.12, 57.375)")
    stated = settings(FPN, files["resnet50"], *same)
    assert recorded_settings(stated) == recorded_settings(settings(FPN, files["resnet50"]))
    assert stated.MODEL.RESNETS.NORM == "SyncBN", "the norm is the protocol's, not OUT.yaml's"
    assert stated.INPUT.FORMAT == "RGB"


def test_a_changed_weights_config_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    out = damaged(files["resnet50"], tmp_path, lambda model: None)
    text = out.with_suffix(".yaml").read_text()
    out.with_suffix(".yaml").write_text(text.replace('"RGB"', '"BGR"'))
    with pytest.raises(UserError, match=r"out\.yaml does not set INPUT\.FORMAT to 'RGB'"):
        settings(FPN, out)
    out.with_suffix(".yaml").write_text(files["resnet18"].with_suffix(".yaml").read_text())
    with pytest.raises(UserError, match=r"out\.yaml .* written for a resnet18, do not belong together"):
        read_converted(out)
    without_record = [line for line in text.splitlines() if not line.startswith("# siamtransfer-reading")]
    other = "\n".join(without_record).replace("sha256:", "sha256:" + 12 * "0")
    out.with_suffix(".yaml").write_text(re.sub(r"(sha256:0{12}[0-9a-f]{52}).*", r"\1", other))
    with pytest.raises(UserError, match=r"out\.yaml is stamped with 0000.* do not belong together"):
        read_converted(out)
    out.with_suffix(".yaml").unlink()
    with pytest.raises(UserError, match=r"out\.yaml, which says what out\.pkl needs .*, is missing"):
        read_converted(out)


def test_trunks_that_a_layout_cannot_take(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"resnet18\.pkl holds .*C4 layout.*choose an FPN configuration"):
        settings(C4, files["resnet18"])
    with pytest.raises(UserError, match="RetinaNet is only built on Detectron2's own"):
        settings(RETINANET, files["resnet18"])


def test_weights_without_a_weights_config_need_the_keys_that_belong_to_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no weights: give --weights"):
        require_weights_keys(read_layered_config([C4], []))
    with pytest.raises(UserError, match=r"without INPUT\.FORMAT"):
        require_weights_keys(read_layered_config([C4], ["MODEL.WEIGHTS", "R-50.pkl"]))
    for layer in ("supervised", "scratch"):
        require_weights_keys(read_layered_config([C4, CONFIGS / f"{layer}.yaml"], []))


def test_synchronised_norms_on_the_cpu_are_told() -> None:
    cfg = settings(FPN)
    changed = fit_to_device(cfg, "cpu")
    assert (cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.NORM, cfg.MODEL.FPN.NORM) == ("cpu", "BN", "BN")
    assert changed == [
        "MODEL.RESNETS.NORM is BN, because SyncBN refuses the CPU",
        "MODEL.FPN.NORM is BN, because SyncBN refuses the CPU",
    ]
    cfg = settings(C4)
    assert fit_to_device(cfg, "cpu") == []
    assert cfg.MODEL.RESNETS.NORM == "naiveSyncBN"
    assert fit_to_device(settings(FPN), "cuda") == []


@pytest.mark.parametrize(
    ("file", "layout", "tensors"), [(C4, "C4", 318), (FPN, "FPN", 318), (RETINANET, "FPN", 318)]
)
def test_every_tensor_of_the_trunk_is_proved(
    files: dict[str, Path], file: Path, layout: str, tensors: int
) -> None:
    """53 convolutions, 53 norms of 5 tensors each; res5's extra norm has no source."""
    weights = read_converted(files["resnet50"])
    model = build(settings(file, weights.path))
    assert load_proved(model, weights.path, weights.state, layout) == tensors
    if layout == "C4":
        heads: Any = model.roi_heads
        assert type(heads).__name__ == EXTRA_NORM
        assert list(heads.res5._modules) == ["0", "1", "2", "norm"]
        assert heads.res5.norm.num_features == 8 * 4 * 16
    state = dict(weights.state)
    state["res4.3.conv2.weight"] = state["res4.3.conv2.weight"] + 1e-6
    with pytest.raises(UserError, match=r"1 tensors of the model's trunk .*res4\.3\.conv2\.weight for one"):
        load_proved(model, weights.path, state, layout)


@pytest.mark.parametrize("kind", ["renamed", "reshaped"])
def test_detectron2_alone_would_train_on_from_random_weights(
    files: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Its checkpointer takes the damaged file with a warning; the proof stops, as does reading the file."""
    key = "res3.1.conv1.weight"

    def change(model: dict[str, Any]) -> None:
        if kind == "renamed":
            model["res3.1.convolution1.weight"] = model.pop(key)
        else:
            model[key] = model[key][:, :1]

    weights = read_converted(files["resnet18"])
    model = build(settings(SMALL, weights.path))
    before = model.state_dict()[f"backbone.bottom_up.{key}"].clone()
    out = damaged(weights.path, tmp_path, change)
    load_weights(model, out)  # no error
    assert torch.equal(model.state_dict()[f"backbone.bottom_up.{key}"], before)
    with pytest.raises(UserError, match=rf"backbone\.bottom_up\.{key} for one: it would have trained"):
        load_proved(model, out, weights.state, "FPN")
    with pytest.raises(UserError):
        read_converted(out)


def test_files_of_detectron2s_own_are_checked_by_name(files: dict[str, Path], tmp_path: Path) -> None:
    model = build(settings(FPN, files["resnet50"]))
    assert load_published(model, str(files["resnet50"]), "FPN") == 318
    statistics = ("running_mean", "running_var", "num_batches_tracked")

    def without_statistics(model: dict[str, Any]) -> None:
        for key in [key for key in model if key.endswith(statistics)]:
            del model[key]

    assert load_published(model, str(damaged(files["resnet50"], tmp_path, without_statistics)), "FPN") == 318
    without = damaged(files["resnet50"], tmp_path, lambda model: model.pop("stem.conv1.weight"))
    with pytest.raises(UserError, match=r"1 tensors .*bottom_up\.stem\.conv1\.weight for one"):
        load_published(model, str(without), "FPN")
    with pytest.raises(UserError, match=r"absent\.pkl cannot be had"):
        load_published(model, str(tmp_path / "absent.pkl"), "FPN")


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_scaling_is_detectron2s_own(gpus: int) -> None:
    from detectron2.engine import DefaultTrainer

    cfg = settings(C4, None, "TEST.EVAL_PERIOD", "1000")
    reference = cfg.clone()
    reference.SOLVER.REFERENCE_WORLD_SIZE = 8
    reference = DefaultTrainer.auto_scale_workers(reference, gpus)
    changed = scale_to(cfg, gpus)
    expected = flatten(reference) | {
        "SOLVER.REFERENCE_WORLD_SIZE": 0,
        "TEST.PRECISE_BN.NUM_ITER": 200 * 8 // gpus,
    }
    assert flatten(cfg) == expected
    assert changed["SOLVER.IMS_PER_BATCH"] == [16, 2 * gpus]
    assert changed["SOLVER.MAX_ITER"] == [9000, 9000 * 8 // gpus]
    assert f"norms see {2 * gpus} images a step" in not_comparable(cfg)


def test_scaling_that_changes_nothing_or_cannot_be() -> None:
    cfg = settings(C4)
    before = flatten(cfg.clone())
    assert scale_to(cfg, 8) == {}
    assert flatten(cfg) == before
    with pytest.raises(UserError, match="--scale-to 3: 12 images a step"):
        scale_to(settings(C4, None, "SOLVER.IMS_PER_BATCH", "12"), 3)
