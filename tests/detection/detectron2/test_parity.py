"""Detectron2 and torchvision compute the same: golden numbers, the proof, and wrong variants that fail it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.checkpoint_files import GOLDEN, random_state
from support.thorough import more

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import Stem
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.detectron2_keys import to_detectron2
from siamtransfer.checkpoints.file_format import IMAGENET, Normalisation
from siamtransfer.checkpoints.read_backbone import digest_of
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.detectron2.parity import (
    STAGES,
    Parity,
    build_trunk,
    configuration,
    detectron2_stages,
    load_weights,
    measure_parity,
    relative_error,
    torchvision_stages,
)
from siamtransfer.detection.detectron2.weights_config import read_stamp, settings_for, weights_config_text
from siamtransfer.utils.errors import UserError

needs_detectron2 = pytest.mark.skipif(
    not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
)
pytestmark = [pytest.mark.detectron2, needs_detectron2]
PLAIN = Normalisation((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # leaves images in 0..255 as they are


class Converted:
    """A backbone with its weights and weights config as files, which a test may change."""

    def __init__(
        self, folder: Path, architecture: Architecture, state: dict[str, torch.Tensor], normalisation: Any
    ):
        backbone = architecture.build().eval()
        assert isinstance(backbone, ResNetBackbone)
        backbone.load_state_dict(state)
        self.backbone, self.normalisation = backbone, normalisation
        self.weights, self.weights_config = folder / "weights", folder / "weights_config"
        self.model = {to_detectron2(key): tensor.numpy() for key, tensor in state.items()}
        self.settings = dict(settings_for(architecture, normalisation, "weights.pkl"))
        self.write()

    def write(self) -> None:
        content = {"model": self.model, "__author__": "test", "matching_heuristics": True}
        self.weights.write_bytes(pickle.dumps(content))
        self.weights_config.write_text(weights_config_text(list(self.settings.items()), "0" * 64))

    def measure(self) -> Parity:
        return measure_parity(self.weights, self.weights_config, self.backbone, self.normalisation)


def narrow(folder: Path, name: str = "resnet50", width: int = 16, stem: Stem = "imagenet") -> Converted:
    return Converted(folder, Architecture(name, width, stem), random_state(name, width, stem), IMAGENET)


def golden_state() -> dict[str, torch.Tensor]:
    """The weights of the golden file, by its written rule."""
    state: dict[str, torch.Tensor] = {}
    shapes = Architecture("resnet50", 64, "imagenet").shapes()
    for j, (name, shape) in enumerate(shapes.items()):
        i = np.arange(int(np.prod(shape)), dtype=np.int64)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(j)
            continue
        if len(shape) == 4:
            values = np.sqrt(12 / np.prod(shape[1:])) * uniform(i, j)
        elif name.endswith("running_mean"):
            values = 0.1 * np.sin(2 * i + 0.1 * j)
        elif name.endswith("running_var"):
            values = 1 + 0.5 * np.cos(i + 0.1 * j) ** 2
        elif name.endswith("weight"):
            values = 1 + 0.1 * np.sin(i + 0.1 * j)
        else:
            values = 0.1 * np.cos(i + 0.1 * j)
        state[name] = torch.from_numpy(values.astype(np.float32).reshape(shape))
    return state


def uniform(i: np.ndarray, j: int) -> np.ndarray:
    a = (7919 * i + 104729 * j + 17) % 1000003
    return ((a * a + 31 * a) % 1000003) / 1000003 - 0.5


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Converted]:
    state = golden_state()
    checks = json.loads((GOLDEN / "detectron2/parity.json").read_text())["weight_spot_checks"]
    for name, check in checks.items():
        values = state[name].double().flatten()
        assert values[:4].tolist() == check["first4"], name
        assert float(values.sum()) == pytest.approx(check["sum"], rel=1e-12), name
    folder = tmp_path_factory.mktemp("golden")
    yield Converted(folder, Architecture("resnet50", 64, "imagenet"), state, PLAIN)


@pytest.mark.parametrize(("stride_in_1x1", "variant"), [(False, "false"), (True, "true")])
def test_golden_numbers_of_both_libraries(golden: Converted, stride_in_1x1: bool, variant: str) -> None:
    image = torch.from_numpy((np.sqrt(12) * uniform(np.arange(3 * 64 * 96), 1000)).astype(np.float32))
    image = image.view(1, 3, 64, 96).double()
    golden.settings["MODEL.RESNETS.STRIDE_IN_1X1"] = stride_in_1x1
    golden.write()
    cfg = configuration("FPN", golden.weights_config)
    model = build_trunk(cfg, "FPN")
    load_weights(model, golden.weights)
    detectron2_maps = detectron2_stages(model.double(), cfg, "FPN", image)
    torchvision_maps = torchvision_stages(golden.backbone, PLAIN, image)
    numbers = np.load(GOLDEN / "detectron2/parity.npz")
    for index, (a, b) in enumerate(zip(detectron2_maps, torchvision_maps, strict=True)):
        for prefix, output in (
            (f"d2_stride_in_1x1_{variant}/res{index + 2}", a),
            (f"tv/layer{index + 1}", b),
        ):
            values = output.flatten()
            np.testing.assert_allclose(
                values[:64].numpy(), numbers[f"{prefix}/first64"], rtol=1e-10, atol=1e-13
            )
            assert float(values.mean()) == pytest.approx(float(numbers[f"{prefix}/mean"]), rel=1e-10)
            assert float(values.norm()) == pytest.approx(float(numbers[f"{prefix}/l2"]), rel=1e-10)


@pytest.mark.parametrize(
    ("name", "width", "stem", "tensors"),
    [
        ("resnet18", 16, "imagenet", {"FPN": 120, "D16": 120, "D8": 120}),
        more("resnet18", 64, "imagenet", {"FPN": 120, "D16": 120, "D8": 120}),
        ("resnet18", 16, "small", {"FPN": 120, "D16": 120, "D8": 120}),
        ("resnet50", 16, "imagenet", {"C4": 318, "FPN": 318, "D16": 318, "D8": 318}),
        more("resnet50", 16, "small", {"FPN": 318, "D16": 318, "D8": 318}),
        ("resnext50_32x4d", 16, "imagenet", {"C4": 318, "FPN": 318, "D16": 318, "D8": 318}),
        more("wide_resnet50_2", 16, "imagenet", {"C4": 318, "FPN": 318, "D16": 318, "D8": 318}),
    ],
)
def test_the_proof_passes(tmp_path: Path, name: str, width: int, stem: Stem, tensors: dict[str, int]) -> None:
    converted = narrow(tmp_path, name, width, stem)
    before = {key: tensor.clone() for key, tensor in converted.backbone.state_dict().items()}
    parity = converted.measure()
    parity.check()
    assert parity.tensors == tensors
    assert set(parity.errors) == {
        (dtype, layout, stage)
        for dtype in (torch.float32, torch.float64)
        for layout in tensors
        for stage in STAGES
    }
    assert max(error for (dtype, _, _), error in parity.errors.items() if dtype == torch.float32) < 1e-5
    assert max(error for (dtype, _, _), error in parity.errors.items() if dtype == torch.float64) < 1e-13
    assert all(torch.equal(tensor, before[key]) for key, tensor in converted.backbone.state_dict().items())


def test_stride_in_the_first_convolution_fails_the_proof(tmp_path: Path) -> None:
    converted = narrow(tmp_path)
    converted.settings["MODEL.RESNETS.STRIDE_IN_1X1"] = True
    converted.write()
    parity = converted.measure()
    assert parity.errors[torch.float64, "C4", "res2"] < 1e-13
    for layout in ("C4", "FPN"):
        for stage in STAGES[1:]:
            assert parity.errors[torch.float64, layout, stage] > 0.01
    with pytest.raises(UserError, match=r"res3 of C4 .*nothing was written"):
        parity.check()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.FORMAT", "BGR"),
        ("MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]),
        ("MODEL.PIXEL_STD", [1.0] * 3),
    ],
)
def test_wrong_preprocessing_fails_the_proof(tmp_path: Path, key: str, value: Any) -> None:
    converted = narrow(tmp_path, "resnet18")
    converted.settings[key] = value
    converted.write()
    with pytest.raises(UserError, match="res2 of FPN"):
        converted.measure().check()


def swap_blocks(model: dict[str, Any]) -> None:
    """Exchanges the weights of two blocks of one stage, which have the same shapes."""
    for key in [key for key in model if key.startswith("res4.1.")]:
        other = key.replace("res4.1.", "res4.2.")
        model[key], model[other] = model[other], model[key]


def swap_stages(model: dict[str, Any]) -> None:
    """Exchanges blocks of two stages; their shapes differ, which Detectron2 itself only warns about."""
    for key in [key for key in model if key.startswith("res3.1.")]:
        other = key.replace("res3.1.", "res4.1.")
        model[key], model[other] = model[other], model[key]


def lose_a_tensor(model: dict[str, Any]) -> None:
    del model["res5.0.shortcut.norm.running_var"]


def misname_the_stem(model: dict[str, Any]) -> None:
    model["stem.conv0.weight"] = model.pop("stem.conv1.weight")


def change_one_value(model: dict[str, Any]) -> None:
    model["res2.0.conv1.weight"] = model["res2.0.conv1.weight"].copy()
    model["res2.0.conv1.weight"][0, 0, 0, 0] += 1e-6


@pytest.mark.parametrize(
    "spoil", [swap_blocks, swap_stages, lose_a_tensor, misname_the_stem, change_one_value]
)
def test_weights_that_do_not_arrive_fail_the_proof(tmp_path: Path, spoil: Any) -> None:
    converted = narrow(tmp_path)
    spoil(converted.model)
    converted.write()
    with pytest.raises(UserError, match="did not get the value of their source"):
        converted.measure()


def test_a_table_with_two_swapped_blocks_fails_by_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accounting trusts the table of names, so only the outputs can show that the table is wrong."""

    def swapped(key: str) -> str:
        name = to_detectron2(key)
        return name.replace("res4.1.", "res4.X.").replace("res4.2.", "res4.1.").replace("res4.X.", "res4.2.")

    converted = narrow(tmp_path)
    swap_blocks(converted.model)
    converted.write()
    monkeypatch.setattr("siamtransfer.detection.detectron2.parity.to_detectron2", swapped)
    parity = converted.measure()
    assert parity.errors[torch.float64, "FPN", "res3"] < 1e-13
    assert min(parity.errors[torch.float64, layout, "res4"] for layout in ("C4", "FPN")) > 0.01
    with pytest.raises(UserError, match="res4 of C4"):
        parity.check()


def test_a_deeper_trunk_than_the_weights_fails_the_proof(tmp_path: Path) -> None:
    converted = narrow(tmp_path)
    converted.settings["MODEL.RESNETS.DEPTH"] = 101
    converted.write()
    with pytest.raises(UserError, match="did not get the value of their source"):
        converted.measure()


def test_relative_error() -> None:
    b = torch.tensor([1.0, -4.0])
    assert relative_error(torch.tensor([1.0, -3.0]), b) == 0.25
    assert relative_error(torch.zeros(3), b) == float("inf")
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0


def test_undefined_outputs_do_not_pass() -> None:
    parity = Parity({(torch.float32, "FPN", "res2"): float("nan")}, {"FPN": 1}, import_detectron2())
    with pytest.raises(UserError, match="res2"):
        parity.check()


def test_detectron2_merges_the_weights_config_over_its_own_configuration(tmp_path: Path) -> None:
    converted = narrow(tmp_path)
    digest = digest_of(converted.backbone.state_dict())
    converted.weights_config.write_text(weights_config_text(list(converted.settings.items()), digest))
    import_detectron2()
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(converted.weights_config))
    assert cfg.MODEL.WEIGHTS == "weights.pkl"
    assert cfg.INPUT.FORMAT == "RGB"
    assert np.allclose(cfg.MODEL.PIXEL_MEAN, [123.675, 116.28, 103.53])
    assert np.allclose(cfg.MODEL.PIXEL_STD, [58.395, 57.12, 57.375])
    assert cfg.MODEL.BACKBONE.FREEZE_AT == 0
    assert cfg.MODEL.RESNETS.STRIDE_IN_1X1 is False
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS) == (50, 64)
    assert read_stamp(converted.weights_config) == digest


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_a_whole_detector_trains_on_our_own_trunks(tmp_path: Path, stem: Stem) -> None:
    """Our trunks inside GeneralizedRCNN: the weights arrive and the loss has a gradient for them."""
    import_detectron2()
    from detectron2.config import get_cfg

    converted = narrow(tmp_path, "resnet18", stem=stem)
    cfg = get_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.DEVICE, cfg.MODEL.FPN.OUT_CHANNELS = "cpu", 16
    cfg.MODEL.RPN.IN_FEATURES, cfg.MODEL.ROI_HEADS.NAME = ["p2", "p3", "p4", "p5", "p6"], "StandardROIHeads"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.ROI_HEADS.IN_FEATURES, cfg.MODEL.ROI_HEADS.NUM_CLASSES = ["p2", "p3", "p4", "p5"], 3
    cfg.merge_from_file(str(converted.weights_config))
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 16, 7
    from detectron2.modeling import build_model
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    model = build_model(cfg)
    load_weights(model, converted.weights)
    first = model.backbone.bottom_up.stem.conv1.weight
    assert torch.equal(first, converted.backbone.conv1.weight)
    target = Instances(
        (64, 96), gt_boxes=Boxes(torch.tensor([[8.0, 8.0, 40.0, 50.0]])), gt_classes=torch.tensor([1])
    )
    with EventStorage():
        losses = model.train()([{"image": torch.randint(0, 256, (3, 64, 96)), "instances": target}])
    sum(losses.values()).backward()
    assert float(first.grad.abs().max()) > 0
