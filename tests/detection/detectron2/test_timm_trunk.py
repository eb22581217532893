"""Networks of timm in Detectron2: converted, proved, merged into configurations, trained and read back."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from support import paths
from support.checkpoint_files import timm_file

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.conversion import Conversion
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import digest_of, load_backbone, read_backbone
from siamtransfer.detection.detectron2 import convert
from siamtransfer.detection.detectron2.check_settings import check_settings
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.detection.detectron2.convert import measure, to_detectron2
from siamtransfer.detection.detectron2.own_keys import default_settings
from siamtransfer.detection.detectron2.settings import build_settings, layout_of
from siamtransfer.detection.detectron2.timm_settings import TIMM_FPN, timm_settings
from siamtransfer.detection.detectron2.trunk import register_trunks
from siamtransfer.detection.detectron2.weights import load_proved, read_converted
from siamtransfer.detection.detectron2.weights_config import merge_weights_config
from siamtransfer.detection.layered_config import read_layered_config
from siamtransfer.utils.errors import UserError

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
    ),
]
CONVNEXT = "timm:test_convnext"
CONFIGS = paths.CONFIGS / "detection"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Conversion]:
    """OUT.pkl of a small ConvNeXt, and what the proved conversion returned; source.pth is beside it."""
    folder = tmp_path_factory.mktemp("timm")
    return folder / "out.pkl", to_detectron2(timm_file(folder, CONVNEXT), folder / "out.pkl")


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "regnety_002"])
def test_the_proof_passes(tmp_path: Path, name: str) -> None:
    source = timm_file(tmp_path, f"timm:{name}")
    conversion = to_detectron2(source, tmp_path / "out.pkl")
    assert conversion.protocol["proof"] == "passed" and conversion.protocol["layouts"] == ["timm"]
    errors = {key: value for key, value in conversion.metrics.items() if key.startswith("parity")}
    assert len(errors) == 8
    for key, error in errors.items():
        assert error < (1e-5 if "float32" in key else 1e-12), key
    there, back = read_backbone(source), read_backbone(tmp_path / "out.pkl")
    assert (back.format, back.digest) == ("detectron2-timm", there.digest)
    assert back.architecture == there.architecture
    assert read_backbone(tmp_path / "out.pkl").normalisation == there.normalisation


def test_the_written_files(converted: tuple[Path, Conversion]) -> None:
    out, conversion = converted
    model = pickle.loads(out.read_bytes())["model"]
    shapes = Architecture("timm:test_convnext").shapes()
    assert {name: array.shape for name, array in model.items()} == {
        f"bottom_up.{name}": shape for name, shape in shapes.items()
    }
    settings = conversion.protocol["settings"]
    assert settings["MODEL.BACKBONE.NAME"] == TIMM_FPN
    assert settings["MODEL.TIMM.NAME"] == "timm:test_convnext"
    assert (settings["MODEL.TIMM.MAP_NORM"], settings["MODEL.TIMM.OPTIONS"]) == ("LN", [])
    assert settings["MODEL.FPN.IN_FEATURES"] == ["res2", "res3", "res4", "res5"]
    assert settings["MODEL.PIXEL_MEAN"] == pytest.approx([123.675, 116.28, 103.53])
    assert settings["INPUT.FORMAT"] == "RGB"
    assert not any(key.startswith("MODEL.RESNETS.") and key != "MODEL.RESNETS.NORM" for key in settings)


def test_without_detectron2_names_and_shapes_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "is_installed", lambda: False)
    conversion = to_detectron2(f"random:{CONVNEXT}", tmp_path / "out.pkl")
    assert conversion.protocol["proof"].startswith("not run") and (tmp_path / "out.yaml").is_file()


# Wrong conversions.


def spoiled(out: Path, folder: Path, change: Any) -> Path:
    """A copy of the weights with a change of their tensors."""
    content = pickle.loads(out.read_bytes())
    change(content["model"])
    (folder / "weights").write_bytes(pickle.dumps(content))
    return folder / "weights"


def swap_blocks(model: dict[str, Any]) -> None:
    for key in [key for key in model if ".stages.2.blocks.0." in key]:
        other = key.replace("blocks.0.", "blocks.1.")
        model[key], model[other] = model[other], model[key]


def lose_a_tensor(model: dict[str, Any]) -> None:
    del model["bottom_up.stages.3.blocks.0.gamma"]  # of one value in the beginning


def leave_the_prefix_out(model: dict[str, Any]) -> None:
    model["norm.weight"] = model.pop("bottom_up.stem.1.weight")


def change_one_value(model: dict[str, Any]) -> None:
    model["bottom_up.stem.0.bias"] = model["bottom_up.stem.0.bias"] + 1e-6


def original_of(out: Path) -> Any:
    """What `measure` takes, of the checkpoint beside OUT.pkl."""
    read = read_backbone(out.with_name("source.pth"))
    return convert.ConvertedBackbone(read, read.state, {}, [], read.digest)


@pytest.mark.parametrize("change", [swap_blocks, lose_a_tensor, leave_the_prefix_out, change_one_value])
def test_weights_that_do_not_arrive_fail_the_proof(
    converted: tuple[Path, Conversion], tmp_path: Path, change: Any
) -> None:
    out, _ = converted
    with pytest.raises(UserError, match="did not get the value of their source"):
        measure(original_of(out), spoiled(out, tmp_path, change), out.with_suffix(".yaml"))


@pytest.mark.parametrize(
    ("written", "wrong", "sentence"),
    [
        ('FORMAT: "RGB"', 'FORMAT: "BGR"', "Detectron2's outputs differ from timm's .res2 of timm by"),
        ('MAP_NORM: "LN"', 'MAP_NORM: ""', "Detectron2's outputs differ from timm's .res2 of timm by"),
        ("58.395", "1.0", "Detectron2's outputs differ from timm's .res2 of timm by"),
        ("timm:test_convnext", "timm:test_convnext2", "did not get the value of their source"),
    ],
)
def test_wrong_settings_fail_the_proof(
    converted: tuple[Path, Conversion], tmp_path: Path, written: str, wrong: str, sentence: str
) -> None:
    out, _ = converted
    lines = out.with_suffix(".yaml").read_text().splitlines(keepends=True)
    text = "".join(line if line.startswith("#") else line.replace(written, wrong) for line in lines)
    assert wrong in text
    (tmp_path / "settings").write_text(text)
    with pytest.raises(UserError, match=sentence):
        measure(original_of(out), out, tmp_path / "settings").check()


def test_another_padding_with_the_same_tensors_fails_by_its_numbers(tmp_path: Path) -> None:
    """Names, shapes and values all arrive; only the maps can show that it is another network."""
    out = tmp_path / "out.pkl"
    options = ReadingOptions(architecture="timm:mobilenetv3_small_075")
    to_detectron2(timm_file(tmp_path, "timm:mobilenetv3_small_075"), out, options=options)
    text = (tmp_path / "out.yaml").read_text().replace('NAME: "timm:mob', 'NAME: "timm:tf_mob')
    (tmp_path / "settings").write_text(text)
    read = read_backbone(out)
    original = convert.ConvertedBackbone(read, read.state, {}, [], read.digest)
    with pytest.raises(UserError, match=r"differ from timm's \(res2 of timm by"):
        measure(original, out, tmp_path / "settings").check()


# Merged into the configuration of a training.


def merged(weights: Path, *files: str, overrides: tuple[str, ...] = ()) -> Any:
    register_trunks()
    layered = read_layered_config([CONFIGS / f"{file}.yaml" for file in files], overrides)
    cfg = build_settings(layered)
    merge_weights_config(cfg, layered, weights)
    return cfg


def test_the_settings_merge_into_the_published_protocol(converted: tuple[Path, Conversion]) -> None:
    out, _ = converted
    cfg = merged(out, "coco-fpn-1x")
    assert layout_of(cfg) == "timm" and cfg.MODEL.TIMM.NAME == "timm:test_convnext"
    assert cfg.MODEL.RESNETS.NORM == "SyncBN"  # the protocol's
    assert str(out) == cfg.MODEL.WEIGHTS
    check_settings(cfg)
    assert merged(out, "coco-fpn-1x", overrides=("MODEL.TIMM.MAP_NORM", "")).MODEL.TIMM.MAP_NORM == ""


@pytest.mark.parametrize(
    ("files", "overrides", "sentence"),
    [
        (("coco-c4-1x",), (), "holds a trunk that Detectron2 lacks, which the C4 layout"),
        (("voc12-fcn16",), (), "holds a network of timm, and FCNSegmentor is built on a dilated ResNet"),
        (("coco-retinanet-1x",), (), "RetinaNet is only built on Detectron2's own"),
        (
            ("coco-fpn-1x",),
            ("MODEL.TIMM.NAME", "timm:convnext_tiny"),
            "MODEL.TIMM.NAME is 'timm:convnext_tin",
        ),
        (
            ("coco-fpn-1x",),
            ("MODEL.BACKBONE.FREEZE_AT", "2"),
            "which counts the stages of a ResNet; for timm:",
        ),
        (
            ("coco-fpn-1x",),
            ("MODEL.RESNETS.NORM", "GN"),
            "NORM is 'GN', and timm:test_convnext keeps its own",
        ),
        (
            ("coco-fpn-1x",),
            ("MODEL.RESNETS.RES5_DILATION", "2"),
            "build_siamtransfer_timm_fpn_backbone of Gen",
        ),
        (("coco-fpn-1x",), ("MODEL.TIMM.DROP_PATH", "1.0"), "DROP_PATH is 1.0; it has to be at least 0 and"),
        (("coco-fpn-1x",), ("MODEL.TIMM.MAP_NORM", "BN"), "MAP_NORM is 'BN'; it is LN, or empty for none"),
    ],
)
def test_configurations_that_do_not_go_with_the_network_are_refused(
    converted: tuple[Path, Conversion], files: tuple[str, ...], overrides: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        check_settings(merged(converted[0], *files, overrides=overrides))


@pytest.mark.parametrize(
    ("written", "wrong", "sentence"),
    [
        ('MAP_NORM: "LN"', 'MAP_NORM: ""', "does not set MODEL.TIMM.MAP_NORM to 'LN'.*was changed"),
        ('NAME: "timm:test_convnext"', 'NAME: "timm:test_convnext3"', "does not set MODEL.TIMM.NAME to"),
        (
            "OPTIONS: []",
            "OPTIONS: []\n    DROP_PATH: 0.1",
            "sets MODEL.TIMM.DROP_PATH, which it did not when",
        ),
        ('FORMAT: "RGB"', 'FORMAT: "BGR"', "does not set INPUT.FORMAT to 'RGB'"),
    ],
)
def test_a_changed_weights_config_is_noticed(
    converted: tuple[Path, Conversion], tmp_path: Path, written: str, wrong: str, sentence: str
) -> None:
    out, _ = converted
    (tmp_path / "out.pkl").symlink_to(out)
    (tmp_path / "out.yaml").write_text(out.with_suffix(".yaml").read_text().replace(written, wrong))
    with pytest.raises(UserError, match=sentence):
        merged(tmp_path / "out.pkl", "coco-fpn-1x")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"NAME": ""}, "MODEL.TIMM.NAME is empty; give --weights OUT.pkl of a network of timm"),
        ({"NAME": "timm:convnext_atom"}, "did you mean convnext_atto"),
        ({"NAME": "resnet18"}, "name timm's, such as timm:resnet18"),
        ({"NAME": "timm:test_vit"}, "needs build_siamtransfer_vit_pyramid_backbone"),
        ({"OPTIONS": ["pool"]}, "has to be NAME, VALUE, NAME, VALUE"),
        ({"OPTIONS": ["colour", 1]}, "has to be NAME, VALUE, NAME, VALUE"),
        ({"OPTIONS": ["heads", 3]}, "is no plain ViT, so it takes no number of attention heads"),
    ],
)
def test_a_network_named_by_hand_is_checked(keys: dict[str, Any], sentence: str) -> None:
    cfg = default_settings()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME = TIMM_FPN, "timm:test_convnext"
    for key, value in keys.items():
        cfg.MODEL.TIMM[key] = value
    with pytest.raises(UserError, match=sentence):
        check_settings(cfg)


# The detector.


def small_detector(weights: Path, *overrides: Any) -> tuple[Any, Any]:
    """A whole detector of Detectron2 on the CPU that holds the weights, and its configuration."""
    from detectron2.modeling import build_model

    cfg = merged(weights, "coco-fpn-1x")
    small: list[Any] = [
        *(
            "MODEL.DEVICE",
            "cpu",
            "MODEL.FPN.NORM",
            "BN",
            "MODEL.FPN.OUT_CHANNELS",
            64,
            "MODEL.MASK_ON",
            False,
        ),
        *("MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_BOX_HEAD.NUM_FC", 1, "MODEL.RESNETS.NORM", "BN"),
    ]
    cfg.merge_from_list([*small, *overrides])
    torch.manual_seed(0)
    model = build_model(cfg)
    read = read_converted(weights)
    assert load_proved(model, read.path, read.state, layout_of(cfg)) > 0
    return model, cfg


def losses_of(model: Any) -> Any:
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    target = Instances(
        (64, 96), gt_boxes=Boxes(torch.tensor([[8.0, 8.0, 40.0, 50.0]])), gt_classes=torch.tensor([1])
    )
    with EventStorage():
        return model.train()([{"image": torch.randint(0, 256, (3, 64, 96)), "instances": target}])


def test_a_detector_trains_every_parameter_that_is_to_learn(converted: tuple[Path, Conversion]) -> None:
    model, _ = small_detector(converted[0], "MODEL.TIMM.DROP_PATH", 0.1)
    sum(losses_of(model).values()).backward()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert all(value.grad is not None for value in trained.values())
    assert sum("bottom_up.pyramid.norms" in name for name in trained) == 8
    resting = [name for name, value in model.named_parameters() if not value.requires_grad]
    assert {name.split(".model.")[1] for name in resting} == {"head.norm.weight", "head.norm.bias"}


def test_names_that_end_alike_elsewhere_are_not_loaded(tmp_path: Path) -> None:
    """Detectron2 matches names by their ends: a `norm.weight` of 64 channels would go into its pyramid."""
    to_detectron2("random:timm:test_mambaout", tmp_path / "out.pkl")
    model, _ = small_detector(tmp_path / "out.pkl")
    above = {n: m for n, m in model.named_modules() if "fpn_" in n and n.endswith("norm")}
    assert len(above) == 8
    for name, norm in above.items():
        assert torch.equal(norm.weight, torch.ones(64)), name
    norms = model.backbone.bottom_up.pyramid.norms
    assert len(norms) == 4
    assert all(torch.equal(norm.weight, torch.ones_like(norm.weight)) for norm in norms.values())


def test_frozen_norms_keep_their_activation_and_do_not_move(tmp_path: Path) -> None:
    backbone, _ = load_backbone("random:timm:test_efficientnet:seed=2")
    out = tmp_path / "out.pkl"
    to_detectron2("random:timm:test_efficientnet:seed=2", out)
    x = torch.randn(1, 3, 64, 64)
    found = {}
    for norm in ("BN", "SyncBN", "FrozenBN"):
        model, _ = small_detector(out, "MODEL.RESNETS.NORM", norm)
        trunk = model.backbone.bottom_up
        kinds = {type(module).__name__ for module in trunk.modules()}
        assert ("FrozenBatchNormAct2d" in kinds) == (norm == "FrozenBN")
        assert ("BatchNormAct2d" in kinds) == (norm != "FrozenBN")
        with torch.no_grad():
            found[norm] = trunk.eval()(x)["res5"]
            expected = backbone.model.forward_intermediates(x, intermediates_only=True)[-1]
            torch.testing.assert_close(found[norm], expected)
        before = digest_of(trunk.state_dict())
        losses_of(model)
        assert (digest_of(trunk.state_dict()) == before) == (norm == "FrozenBN")
    torch.testing.assert_close(found["FrozenBN"], found["BN"])


def test_a_trained_detector_is_read_without_its_heads(
    converted: tuple[Path, Conversion], tmp_path: Path
) -> None:
    model, _ = small_detector(converted[0])
    content = {"model": model.state_dict(), "trainer": {"iteration": 3}, "iteration": 3}
    torch.save(content, tmp_path / "model_final.pth")
    read = read_backbone(tmp_path / "model_final.pth")
    assert (read.format, read.digest) == ("detectron2-timm", read_backbone(converted[0]).digest)
    assert set(read.dropped) == {"detector"}


def test_facts_that_tensors_do_not_show_are_settings() -> None:
    plain = Architecture("timm:test_convnext")
    settings = dict(timm_settings(plain._replace(pool="avg")))
    assert settings["MODEL.TIMM.OPTIONS"] == ["pool", "avg"]
    cfg = default_settings()
    cfg.merge_from_list([item for pair in settings.items() for item in pair])
    from siamtransfer.detection.detectron2.timm_settings import configured_architecture

    assert configured_architecture(cfg) == plain._replace(pool="avg")
