"""There and back: what a file is read as survives each of our converters, numbers included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import own_checkpoint, random_state
from support.thorough import more
from torch import Tensor

from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import ReadBackbone, load_backbone, read_backbone
from siamtransfer.checkpoints.reading import Reading
from siamtransfer.checkpoints.to_torchvision import to_torchvision
from siamtransfer.detection.detectron2 import convert
from siamtransfer.utils.errors import UserError

Source = tuple[Path, ReadingOptions]
OUTPUTS = ("out.safetensors", "out.pth")


def own(name: str, width: int, stem: Any) -> Callable[[Path], Source]:
    """Our own checkpoint, which records the mean 0.5/0.4/0.3 and the std 0.25/0.2/0.125."""

    def write(folder: Path) -> Source:
        state = random_state(name, width, stem)
        torch.save(own_checkpoint(state, name, width, stem), folder / "own.pth")
        return folder / "own.pth", ReadingOptions()

    return write


def plain(tensors: Any, /, **said: Any) -> Callable[[Path], Source]:
    """A ResNet-50 with the tensors of a stem, under torchvision's names, and what the user says of it."""

    def write(folder: Path) -> Source:
        torch.save(random_state("resnet50", 8, tensors), folder / "plain.pth")
        return folder / "plain.pth", ReadingOptions(**said)

    return write


def moco_v3(folder: Path) -> Source:
    """A ViT-S with 12 heads."""
    state = read_backbone("random:vit_small_moco_v3").state
    content = {f"module.base_encoder.{key}": tensor for key, tensor in state.items()}
    content["module.predictor.0.weight"] = torch.ones(2, 2)
    torch.save({"state_dict": content, "arch": "vit_small", "epoch": 300}, folder / "moco.pth")
    return folder / "moco.pth", ReadingOptions()


CONVERTIBLE = {
    "resnet18": own("resnet18", 8, "imagenet"),
    "resnet50": own("resnet50", 8, "imagenet"),
    "small": own("resnet18", 8, "small"),
    "assumed": plain("imagenet"),
    "stride in the 1x1": plain("imagenet", stride_in_1x1=True),
    "MSRA's": plain("imagenet", stride_in_1x1=True, channels="bgr", normalisation="0.4,0.45,0.5/0.1,0.2,0.3"),
}
SOURCES = {
    **CONVERTIBLE,
    "small-pad2": own("resnet18", 8, "small-pad2"),
    "dilated": plain("imagenet", output_stride=8, normalisation="half"),
    "3x3 with pooling": plain("small", stem="small-pool", normalisation="none"),
    "MoCo v3's ViT-S": moco_v3,
}


FURTHER = ("resnet50",)
"""A network of others, with the record of others."""


def features(path: Path, options: ReadingOptions | None = None) -> tuple[Tensor, ReadBackbone]:
    """Of three RGB images, normalised as the file is read."""
    backbone, read = load_backbone(path, options=options)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(row).view(3, 1, 1) for row in read.normalisation)
    with torch.no_grad():
        return backbone((images - mean) / std), read


def said(reading: Reading) -> dict[str, Any]:
    """Values, and which of them are assumed; a converted file always takes RGB."""
    facts = {name: (fact.value, fact.assumed) for name, fact in reading.facts.items()}
    return facts | {"channels": ("rgb", reading.channels.assumed)}


def same(source: Source, out: Path) -> None:
    expected, there = features(*source)
    found, back = features(out)
    assert torch.allclose(found, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    assert said(back.reading) == said(there.reading)
    assert back.architecture == there.architecture
    assert back.digest == there.digest


@pytest.mark.parametrize("out", [OUTPUTS[0], more(OUTPUTS[1])])
@pytest.mark.parametrize("name", [more(name) if name in FURTHER else name for name in SOURCES])
def test_by_torchvisions_names(tmp_path: Path, name: str, out: str) -> None:
    source = SOURCES[name](tmp_path)
    to_torchvision(source[0], tmp_path / out, options=source[1])
    same(source, tmp_path / out)
    again = tmp_path / f"again{Path(out).suffix}"
    to_torchvision(tmp_path / out, again)
    same(source, again)
    assert read_backbone(again).reading == read_backbone(tmp_path / out).reading


@pytest.mark.parametrize("name", [more(name) if name in FURTHER else name for name in CONVERTIBLE])
def test_by_detectron2(tmp_path: Path, name: str) -> None:
    source = CONVERTIBLE[name](tmp_path)
    conversion = convert.to_detectron2(source[0], tmp_path / "out.pkl", options=source[1])
    assert conversion.provenance["assumptions"] == read_backbone(tmp_path / "out.pkl").reading.assumptions()
    same(source, tmp_path / "out.pkl")
    to_torchvision(tmp_path / "out.pkl", tmp_path / "back.pth")
    same(source, tmp_path / "back.pth")


def test_detectron2_is_told_what_the_network_takes(tmp_path: Path) -> None:
    path, options = CONVERTIBLE["MSRA's"](tmp_path)
    settings = convert.to_detectron2(path, tmp_path / "out.pkl", options=options).protocol["settings"]
    assert settings["INPUT.FORMAT"] == "RGB"
    assert settings["MODEL.RESNETS.STRIDE_IN_1X1"] is True
    assert settings["MODEL.PIXEL_MEAN"] == pytest.approx([102, 114.75, 127.5])
    assert settings["MODEL.PIXEL_STD"] == pytest.approx([25.5, 51, 76.5])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("small-pad2", "padding 2"), ("dilated", "output stride 8"), ("3x3 with pooling", "small-pool")],
)
def test_what_detectron2_cannot_compute_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    path, options = SOURCES[name](tmp_path)
    with pytest.raises(UserError, match=reason):
        convert.to_detectron2(path, tmp_path / "out.pkl", options=options)


def test_what_was_assumed_is_still_an_assumption_and_can_be_said(tmp_path: Path) -> None:
    path, _ = CONVERTIBLE["assumed"](tmp_path)
    to_torchvision(path, tmp_path / "out.pth")
    assert (
        read_backbone(tmp_path / "out.pth").reading.assumptions() == read_backbone(path).reading.assumptions()
    )
    read = read_backbone(tmp_path / "out.pth", options=ReadingOptions(normalisation="half"))
    assert (read.normalisation.mean, read.reading.normalisation.assumed) == ((0.5, 0.5, 0.5), False)


def test_a_flag_that_contradicts_the_record_is_refused(tmp_path: Path) -> None:
    path, options = CONVERTIBLE["stride in the 1x1"](tmp_path)
    to_torchvision(path, tmp_path / "out.safetensors", options=options)
    with pytest.raises(UserError, match="stride"):
        read_backbone(tmp_path / "out.safetensors", options=ReadingOptions(stride_in_1x1=False))
