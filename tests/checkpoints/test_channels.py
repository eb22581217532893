"""Networks for images of other than three channels: read whole, with a normalisation for each channel."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from support.checkpoint_files import own_checkpoint, save
from support.thorough import more

from siamtransfer.backbones.architecture import Architecture, build_backbone
from siamtransfer.checkpoints.normalisation import Normalisation, parse_normalisation
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.own_format import read_own
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.pretraining.first_convolution import adapt_first_convolution
from siamtransfer.utils.errors import UserError

HALF4 = Normalisation((0.5,) * 4, (0.5,) * 4)
FOUR = "0.1,0.2,0.3,0.4/0.5,0.6,0.7,0.8"


def resnet(channels: int, width: int = 8) -> dict[str, torch.Tensor]:
    torch.manual_seed(channels)
    return build_backbone("resnet18", width=width, stem="small", in_channels=channels).state_dict()


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", 1),
        ("test_vit", 13),
        ("test_convnext", 1),
        ("test_efficientnet", 13),
        *(more(name, channels) for name in ("resnet18", "test_convnext") for channels in (2, 4, 13)),
        *(more(name, channels) for name in ("test_vit", "test_efficientnet") for channels in (1, 2, 4)),
    ],
)
def test_files_of_other_channels_give_the_features_of_their_network(tmp_path: Path, name: str, channels: int):
    torch.manual_seed(0)
    model = timm.create_model(name, in_chans=channels, num_classes=5).eval()
    backbone, read = load_backbone(save(model.state_dict(), tmp_path))
    assert read.architecture.in_channels == backbone.in_channels == channels
    x = torch.randn(2, channels, 160, 160)
    model.reset_classifier(0)
    with torch.no_grad():
        assert torch.allclose(backbone(x), model(x), rtol=0, atol=1e-5)
    assert read.normalisation == Normalisation((0.5,) * channels, (0.5,) * channels)
    assumption = read.reading.assumptions()[0]
    other = f"--normalisation {','.join(['0.25'] * channels)}/"
    assert "images normalised with" in assumption and other in assumption
    assert "rgb" not in assumption.lower(), "there is no order of colours to assume"
    assert read.architecture.as_dict()["in_channels"] == channels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FOUR, Normalisation((0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8))),
        ("half", HALF4),
        ("none", Normalisation((0.0,) * 4, (1.0,) * 4)),
        ("0.3/0.2", Normalisation((0.3,) * 4, (0.2,) * 4)),
    ],
)
def test_a_normalisation_of_each_channel_is_stated_or_one_value_of_all(tmp_path, text, expected):
    read = read_backbone(save(resnet(4), tmp_path), options=ReadingOptions(normalisation=text))
    assert read.normalisation == expected
    assert "images normalised" not in " ".join(read.reading.assumptions())


@pytest.mark.parametrize(
    ("channels", "options", "reason"),
    [
        (
            4,
            {"normalisation": "imagenet"},
            "--normalisation gives a mean and std of 3: say --normalisation with 4",
        ),
        (4, {"normalisation": "0.1,0.2/0.3,0.4"}, "gives a mean and std of 2"),
        (
            3,
            {"normalisation": FOUR},
            "for images of 3 channels, and --normalisation gives a mean and std of 4",
        ),
        (4, {"channels": "bgr"}, "4 channels, and --channels says the order BGR"),
        (1, {"normalisation": "swav"}, "images of 1 channel, and"),
    ],
)
def test_what_does_not_fit_is_one_sentence_with_the_cure(tmp_path, channels, options, reason):
    with pytest.raises(UserError, match=reason) as caught:
        read_backbone(save(resnet(channels), tmp_path), options=ReadingOptions(**options))
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize("text", ["0.1,0.2/0.3", "/", "0.1,0.2,0.3,0.4/0.1,0.2,0.3,-1", "0.1,nan/0.1,0.1"])
def test_malformed_normalisations_stay_errors(text):
    with pytest.raises(UserError, match="is not understood"):
        parse_normalisation(text)


def test_a_network_that_is_named_takes_the_channels_of_the_file(tmp_path):
    model = timm.create_model("test_efficientnet", in_chans=5, num_classes=3)
    file = save(model.state_dict(), tmp_path)
    read = read_backbone(file, options=ReadingOptions(architecture="timm:test_efficientnet"))
    assert read.architecture.in_channels == 5
    with pytest.raises(UserError, match="timm:test_convnext"):
        read_backbone(file, options=ReadingOptions(architecture="timm:test_convnext"))


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", more("vit_b_32")])
def test_classifiers_of_torchvision_are_read_with_other_channels(tmp_path, name):
    model = torchvision.models.get_model(name, num_classes=3).eval()
    path, first = next((p, m) for p, m in model.named_modules() if isinstance(m, torch.nn.Conv2d))
    new = torch.nn.Conv2d(
        4, first.out_channels, first.kernel_size, first.stride, first.padding, bias=first.bias is not None
    )  # type: ignore[arg-type]
    model.set_submodule(path, new)
    backbone, read = load_backbone(save(model.state_dict(), tmp_path))
    assert (
        read.architecture == Architecture(f"torchvision:{name}", in_channels=4) and backbone.in_channels == 4
    )
    side = 224 if name == "vit_b_32" else 64
    x = torch.randn(1, 4, side, side)
    seen: list[torch.Tensor] = []
    last = [m for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)][-1]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(x)
        h = backbone(x)
    expected = seen[0].mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]
    assert torch.allclose(h, expected, rtol=0, atol=1e-5)


def folder_of_timm(path: Path, config: dict[str, Any]) -> Path:
    model = timm.create_model("test_vit", in_chans=4, num_classes=0)
    path.mkdir()
    save_file(model.state_dict(), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 0, **config}))
    return path


def test_a_configuration_of_three_channels_beside_a_network_of_four_is_not_taken(tmp_path):
    three = {"pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "input_size": [4, 160, 160]}}
    folder = folder_of_timm(tmp_path / "three", three)
    with pytest.raises(UserError, match=r"config\.json.* gives a mean and std of 3"):
        read_backbone(folder)
    stated = read_backbone(folder, options=ReadingOptions(normalisation=FOUR))
    assert stated.normalisation == parse_normalisation(FOUR)
    four = {"pretrained_cfg": {"mean": [0.1, 0.2, 0.3, 0.4], "std": [0.5, 0.6, 0.7, 0.8]}}
    assert read_backbone(folder_of_timm(tmp_path / "four", four)).normalisation == parse_normalisation(FOUR)


def own(channels: int, **changes: Any) -> dict[str, Any]:
    content = own_checkpoint(resnet(channels), "resnet18", 8, "small", declared=True)
    content["backbone"]["in_channels"] = channels
    content["normalisation"] = {"mean": [0.4] * channels, "std": [0.2] * channels}
    return content | changes


def test_our_own_files_say_their_channels(tmp_path):
    read = read_backbone(save(own(13), tmp_path))
    assert read.architecture == Architecture("resnet18", 8, "small", in_channels=13)
    assert read.normalisation == Normalisation((0.4,) * 13, (0.2,) * 13) and not read.reading.assumptions()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalisation": {"mean": [0.4] * 3, "std": [0.2] * 3}}, "for each of 13 channels"),
        (
            {"backbone": {"name": "resnet18", "width": 8, "stem": "small", "in_channels": 0}},
            "'backbone' is not",
        ),
        (
            {"backbone": {"name": "resnet18", "width": 8, "stem": "small", "in_channels": "4"}},
            "'backbone' is not",
        ),
        (
            {"backbone": {"name": "resnet18", "width": 8, "stem": "small", "in_channels": True}},
            "'backbone' is not",
        ),
        ({"backbone": {"name": "resnet18", "width": 8, "stem": "small"}}, "for each of 3 channels"),
    ],
)
def test_our_own_files_that_contradict_themselves_are_refused(changes, reason):
    with pytest.raises(UserError, match=reason):
        read_own(own(13, **changes), None)


def test_an_untrained_baseline_has_channels():
    backbone, read = load_backbone("random:resnet18:width=8:stem=small:channels=4")
    assert backbone.in_channels == 4 and read.normalisation == HALF4
    with pytest.raises(UserError, match="channels=NUMBER"):
        load_backbone("random:resnet18:channels=four")
    with pytest.raises(UserError, match="one channel or more"):
        load_backbone("random:resnet18:channels=0")


@pytest.mark.parametrize(
    ("channels", "name"),
    [
        *itertools.product((1, 4, 7), ("timm:test_vit", "timm:test_convnext")),
        (7, "resnet18"),
        (4, "timm:resnet18d"),
        *(
            more(*each)
            for each in ((1, "resnet18"), (4, "resnet18"), (1, "timm:resnet18d"), (7, "timm:resnet18d"))
        ),
    ],
)
def test_weights_for_colours_are_adapted_as_timm_adapts_them(tmp_path, name, channels):
    bare = name.removeprefix("timm:")
    torch.manual_seed(1)
    source = timm.create_model(bare, num_classes=0)
    file = save(source.state_dict(), tmp_path)
    read = read_backbone(file)
    wanted = read.architecture._replace(in_channels=channels)
    adapted, done = adapt_first_convolution(read, wanted, "repeat", ())
    assert done is not None and ("repeated" in done or channels == 1) and adapted.architecture == wanted
    torch.save(source.state_dict(), tmp_path / "pretrained.pth")
    theirs = timm.create_model(
        bare, num_classes=0, in_chans=channels, pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "pretrained.pth"), "num_classes": 0},
    )  # fmt: skip
    expected = theirs.state_dict()
    assert adapted.state.keys() == expected.keys()
    for key, tensor in adapted.state.items():
        assert torch.allclose(tensor, expected[key]), key
    assert adapted.digest != read.digest


def test_colours_keep_their_filters_and_the_others_start_at_zero(tmp_path):
    read = read_backbone(save(resnet(3), tmp_path))
    wanted = read.architecture._replace(in_channels=5)
    adapted, done = adapt_first_convolution(read, wanted, "colours", (4, 0, 2))
    assert done is not None and "4, 0, 2" in done
    x = torch.randn(2, 5, 32, 32)
    five, three = wanted.build(), read.architecture.build()
    five.load_state_dict(adapted.state)
    three.load_state_dict(read.state)
    with torch.no_grad():
        assert torch.allclose(five.eval()(x), three.eval()(x[:, [4, 0, 2]]), atol=1e-5)


@pytest.mark.parametrize(
    ("stored", "wanted", "how", "rgb", "reason"),
    [
        (3, 4, None, (0, 1, 2), "say how its first convolution starts"),
        (3, 4, "colours", (), "say which are with --data.rgb"),
        (4, 4, "repeat", (), "for images of 4 channels already: leave it out"),
        (4, 13, "repeat", (), "only weights for three channels can be adapted"),
        (4, 3, "repeat", (), "only weights for three channels"),
    ],
)
def test_adaptations_that_mean_nothing_are_refused(tmp_path, stored, wanted, how, rgb, reason):
    read = read_backbone(save(resnet(stored), tmp_path))
    with pytest.raises(UserError, match=reason):
        adapt_first_convolution(read, read.architecture._replace(in_channels=wanted), how, rgb)
