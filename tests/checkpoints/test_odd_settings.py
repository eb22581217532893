"""Odd files of settings beside weights, and odd settings in them: facts, or one sentence with the file."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.sentences import is_sentence

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.file_format import Format
from siamtransfer.checkpoints.open_clip_config import activation_beside
from siamtransfer.checkpoints.openmmlab_config import facts_of_config
from siamtransfer.checkpoints.recorded_reading import MARK, read_recorded
from siamtransfer.checkpoints.settings_files import MOST_YAML
from siamtransfer.checkpoints.side_files import facts_beside
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault

NETWORK = Architecture("resnet18", 64, "imagenet")
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**400, 2**63, 1e-320, float("nan"), float("inf"), "", "x", "a\nb\x1b[31m"),
    *([], [1], [[1]], {}, {"a": 1}, ["a", "b", "c"], [0, 0, 0], [10**400] * 3, [1e308] * 3, [{}] * 3),
)
PIXELS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HUGGING_FACE = {
    "do_resize": True,
    "do_center_crop": True,
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "image_mean": PIXELS["mean"],
    "image_std": PIXELS["std"],
    "resample": 3,
}
SETTINGS: dict[str, tuple[str, str, Any]] = {
    "timm": (
        "timm",
        "config.json",
        {
            "architecture": "resnet18",
            "pretrained_cfg": {
                "input_size": [3, 224, 224],
                "crop_pct": 0.95,
                "interpolation": "bicubic",
                **PIXELS,
            },
        },
    ),
    "a ViT": (
        "huggingface",
        "config.json",
        {"model_type": "vit", "num_attention_heads": 3, "downsample_in_bottleneck": False},
    ),
    "cropped": ("huggingface", "preprocessor_config.json", HUGGING_FACE),
    "resized": (
        "huggingface",
        "preprocessor_config.json",
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
    ),
    "Detectron2": (
        "detectron2",
        "config.yaml",
        {
            "MODEL": {
                "PIXEL_MEAN": [103.5, 116.3, 123.7],
                "PIXEL_STD": [1.0, 1.0, 1.0],
                "RESNETS": {"STRIDE_IN_1X1": False, "RES5_DILATION": 1},
            },
            "INPUT": {"FORMAT": "BGR"},
        },
    ),
    "open_clip": (
        "open-clip",
        "open_clip_config.json",
        {
            "model_cfg": {"vision_cfg": {"layers": 12, "width": 768, "head_width": 64, "pool_type": "tok"}},
            "preprocess_cfg": {"size": [224, 224], "resize_mode": "shortest", **PIXELS},
        },
    ),
    "solo-learn": (
        "solo-learn",
        "args.json",
        {"pretrain_method": "simclr", "method": "simclr", "dataset": "cifar10", "data": {"dataset": "x"}},
    ),
}


def places(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value of a tree, of lists to the first."""
    yield place
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from places(value, (*place, key))
    elif isinstance(tree, list):
        yield from places(tree[0], (*place, 0))


def replaced(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    tree = holder = copy.deepcopy(tree)
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return tree


def facts(folder: Path, form: str) -> Any:
    """What the files in the folder state, as the reader of weights `x.pth` asks them."""
    weights = folder / "x.pth"
    return facts_beside(Format(form, ""), weights, NETWORK), form == "open-clip" and activation_beside(
        weights
    )


def refused(read: Callable[[], Any], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read()
    assert is_sentence(caught.value), caught.value
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", SETTINGS)
def test_any_value_at_any_place_is_a_fact_or_a_sentence(tmp_path: Path, kind: str) -> None:
    form, name, settings = SETTINGS[kind]
    if name.startswith("preprocessor"):
        (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    dump: Callable[[Any], str] = yaml.safe_dump if name.endswith("yaml") else json.dumps
    (tmp_path / name).write_text(dump(settings))
    assert facts(tmp_path, form)[0]
    refusals = 0
    for place in places(settings):
        for value in ODD:
            (tmp_path / name).write_text(dump(replaced(settings, place, value)))
            try:
                facts(tmp_path, form)
            except UserError as error:
                refusals += 1
                assert is_sentence(error), error
                assert name in str(error)
                assert "Error" not in str(error) and "NoneType" not in str(error), error
    assert refusals > 10, "some of these values are wrong"


def aliases(levels: int) -> str:
    """YAML whose list `z` stands for nine to that power of values."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(levels)]
    return "\n".join(lines).replace(f"a{levels}: &a{levels}", "z: &z") + "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [" + "1, " * MOST_YAML + "]", "more than 524,288 bytes"),
        ("[" * 100_000, "not YAML"),
        (aliases(12) + "MODEL: {PIXEL_MEAN: *z, PIXEL_STD: *z}", "is no list of numbers"),
        (aliases(12) + "INPUT: {FORMAT: *z}\nMODEL: {}", "neither BGR nor RGB"),
        (aliases(12) + "MODEL: {RESNETS: *z}", "MODEL.RESNETS is"),
        ("MODEL: &a {PIXEL_MEAN: *a, PIXEL_STD: *a}", "is no list of numbers"),
        ("MODEL: {RESNETS: {RES5_DILATION: 4}}", "neither 1 nor 2"),
    ],
)
def test_yaml_is_read_with_bounded_work(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    refused(lambda: facts(tmp_path, "detectron2"), words, "x.yaml")


@pytest.mark.parametrize(("form", "name"), [("timm", "config.json"), ("detectron2", "x.yaml")])
def test_a_file_of_settings_that_is_there_and_cannot_be_read_is_not_left_out(
    tmp_path: Path, form: str, name: str
) -> None:
    (tmp_path / name).symlink_to(tmp_path / "removed")
    refused(lambda: facts(tmp_path, form), "is not a file", name)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    refused(lambda: facts(tmp_path, form), "is not a file", name)


def test_a_record_that_is_there_and_cannot_be_read_is_not_left_out(tmp_path: Path) -> None:
    beside, weights = tmp_path / "x.json", tmp_path / "x.pth"
    weights.touch()
    beside.symlink_to(tmp_path / "removed")
    refused(lambda: read_recorded(weights), "is no file that can be read", "x.json")
    beside.unlink()
    beside.write_text("[" + " " * MOST_YAML)
    assert read_recorded(weights) is None, "a large file of somebody else's"
    beside.write_text(" " * MOST_YAML + f'{{"{MARK}": 1}}')
    refused(lambda: read_recorded(weights), "more than 524,288 bytes", "x.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = 1\n" * 2**18, "has 1,572,864 characters"),
        ("a = [1, 2]\n" + "a = [a, a]\n" * 60, "too many values"),
        ("a = dict(x=1)\n" + "a = dict(x=a, y=a)\n" * 60, "too many values"),
        ("img_norm_cfg = dict(mean=None, std=[1, 1, 1])", "None is no list of numbers"),
        (f"img_norm_cfg = dict(mean=[{10**400}, 1, 1], std=[1, 1, 1])", "is no list of numbers"),
        ("img_norm_cfg = dict(mean={}, std={})", "{} is no list of numbers"),
        ("model = dict(backbone=dict(type='ResNet', strides=[dict()] * 4))", None),
        ("model = dict(backbone=dict(type='ResNet', strides=[dict()], dilations=3))", "strides [{}] and dil"),
        ("a = " + "-" * 100_000 + "1", None),
    ],
)
def test_the_text_of_a_configuration_is_read_with_bounded_work(text: str, words: str | None) -> None:
    if words is None:
        assert "normalisation" not in facts_of_config(text)
        return
    with pytest.raises(ValueError) as caught:
        facts_of_config(text)
    assert words in str(caught.value) and len(str(caught.value)) < 500
