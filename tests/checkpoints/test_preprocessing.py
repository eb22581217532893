"""How authors prepare images: by the configurations of timm and Hugging Face, and in the evaluators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

from siamtransfer.checkpoints.preprocessing import Preprocessing, of_hugging_face, of_timm
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.checkpoints.reading import Fact
from siamtransfer.evaluation.transform import choose_transform
from siamtransfer.programs import to_torchvision
from siamtransfer.utils.errors import UserError


@pytest.mark.parametrize(
    "name",
    ["vit_small_patch14_dinov2.lvd142m", "convnext_tiny.fb_in1k", "resnet50d.ra2_in1k", "resnet18.a1_in1k"],
)
def test_the_sizes_are_those_of_timms_own_transform(name: str) -> None:
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    ours = of_timm(config.to_dict())
    data = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    first = timm.data.create_transform(**data).transforms
    assert ours is not None
    assert (ours.resize, ours.size) == (first[0].size, first[1].size[0])
    assert ours.interpolation == first[0].interpolation.value


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (  # DINOv2
            {
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
                "size": {"shortest_edge": 256},
                "resample": 3,
            },
            Preprocessing(224, 256, "bicubic"),
        ),
        (  # ConvNeXt
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
            Preprocessing(224, 256, "bicubic"),
        ),
        (  # CLIP, in the older form
            {"do_center_crop": True, "crop_size": 224, "size": 224, "resample": 3},
            Preprocessing(224, 224, "bicubic"),
        ),
        ({"size": {"height": 224, "width": 224}, "resample": 2}, None),  # a ViT, which squashes its images
        ({}, None),
    ],
)
def test_settings_of_hugging_face(config: dict[str, Any], expected: Preprocessing | None) -> None:
    assert of_hugging_face(config) == expected


def test_images_that_are_squashed_are_not_taken_for_cropped_ones() -> None:
    config = {"input_size": (3, 224, 224), "crop_pct": 1.0, "interpolation": "bicubic"}
    assert of_timm(config) == Preprocessing(224, 224, "bicubic")
    assert of_timm({**config, "crop_mode": "squash"}) is None


def write(folder: Path, **pretrained: Any) -> Path:
    save_file(timm.create_model("test_resnet").state_dict(), folder / "model.safetensors")
    cfg = {"input_size": [3, 96, 96], "crop_pct": 0.9, "interpolation": "bicubic", **pretrained}
    config = {"architecture": "test_resnet", "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_evaluators_take_the_authors_sizes_unless_told_otherwise(tmp_path: Path) -> None:
    read = read_backbone(write(tmp_path))
    assert read.reading.preprocessing == Fact(
        Preprocessing(96, 106, "bicubic"), "config.json beside the file"
    )
    for images, crop, resize, expected in (
        (None, None, None, (96, 106)),
        (32, None, None, (96, 106)),
        (None, 48, None, (48, 53)),
        (None, 48, 48, (48, 48)),
    ):
        transform = choose_transform(read, images, crop=crop, resize=resize)
        assert (transform.crop, transform.resize, transform.interpolation) == (*expected, "bicubic")


def test_a_converted_file_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    to_torchvision.main([str(write(tmp_path / "source")), str(tmp_path / "out.safetensors")])
    kept = read_backbone(tmp_path / "out.safetensors").reading.preprocessing
    assert kept is not None
    assert kept.value == Preprocessing(96, 106, "bicubic")


@pytest.mark.parametrize("wrong", [{"crop_pct": 0}, {"crop_pct": "all"}, {"input_size": [3, 0, 96]}])
def test_sizes_that_are_none_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json, whose sizes of images are not understood"):
        read_backbone(write(tmp_path, **wrong))
