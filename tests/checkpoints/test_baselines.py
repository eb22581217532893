"""Baselines by name: untrained backbones, and torchvision's supervised weights from the right file only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import random_state, same_tensors, simsiam_checkpoint
from support.pictures import write_shapes
from torchvision.models import ResNet18_Weights, ResNet50_Weights, resnet18

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints import baselines
from siamtransfer.checkpoints.baselines import build_untrained, find_torchvision_weights, weight_urls
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.programs import identify, to_d2, to_torchvision
from siamtransfer.programs.knn import main as knn
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file


def keep(content: Any, folder: Path, name: str = "resnet18") -> Path:
    """Saves under a name with the digest, as torchvision does."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "new")
    return (folder / "new").rename(folder / f"{name}-{digest_of_file(folder / 'new')[:8]}.pth")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like torchvision's, of random weights."""
    torch.manual_seed(5)
    return keep(resnet18().state_dict(), tmp_path_factory.mktemp("weights"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of torch hub; nothing of it can reach a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def download(*_: object, **__: object) -> None:
        raise AssertionError("nothing is downloaded")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    return tmp_path / "hub" / "checkpoints"


def refused(source: object) -> str:
    with pytest.raises(UserError) as caught:
        read_backbone(str(source))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_by_its_path(weights: Path) -> None:
    backbone, read = load_backbone(f"torchvision:resnet18={weights}")
    plain = read_backbone(weights)
    assert (read.format, read.name, read.width, read.stem) == ("torchvision", "resnet18", 64, "imagenet")
    assert read.digest == plain.digest
    assert Path(read.path) == weights
    model = resnet18()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), model.eval()(images))


def test_addresses_are_torchvisions() -> None:
    assert weight_urls("resnet18") == {"IMAGENET1K_V1": ResNet18_Weights.IMAGENET1K_V1.url}
    assert list(weight_urls("resnet50")) == ["IMAGENET1K_V1", "IMAGENET1K_V2"]
    assert weight_urls("resnet50")["IMAGENET1K_V1"].endswith("/resnet50-0676ba61.pth")
    assert weight_urls("resnet50")["IMAGENET1K_V2"] == ResNet50_Weights.DEFAULT.url
    for name in set(baselines.RESNETS) - set(baselines.WITHOUT_WEIGHTS):
        for address in weight_urls(name).values():
            assert address.rsplit("/", 1)[1].startswith(f"{name}-")


def test_the_hub_s_folder_is_looked_into(weights: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"https://example.org/models/{weights.name}"
    monkeypatch.setattr(
        baselines, "weight_urls", lambda name: {"V1": address, "V2": "https://x/resnet18-0.pth"}
    )
    hub.mkdir(parents=True)
    (hub / weights.name).symlink_to(weights)
    assert find_torchvision_weights("torchvision:resnet18") == ("resnet18", hub / weights.name)
    assert read_backbone("torchvision:resnet18").digest == read_backbone(weights).digest
    assert find_torchvision_weights("torchvision:resnet18:V1")[1] == hub / weights.name
    assert "fetch https://x/resnet18-0.pth (V2) into" in refused("torchvision:resnet18:V2")
    (hub / "resnet18-0.pth").touch()
    said = refused("torchvision:resnet18")
    assert f"{hub} has several weights of resnet18" in said
    assert "torchvision:resnet18:V1 or torchvision:resnet18:V2" in said


def test_what_is_absent_is_told_with_where_to_get_it(hub: Path) -> None:
    said = refused("torchvision:resnet50")
    for weights in ResNet50_Weights:
        assert f"{weights.url} ({weights.name})" in said
    assert f"into {hub}" in said
    assert "torchvision:resnet50=FILE" in said
    assert not hub.exists()
    only = refused("torchvision:resnet50:IMAGENET1K_V1")
    assert "0676ba61" in only
    assert "11ad3fa6" not in only


def test_bytes_have_to_match_the_digest_of_the_name(weights: Path, hub: Path, tmp_path: Path) -> None:
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / weights.name).write_bytes(damaged)
    said = refused(f"torchvision:resnet18={tmp_path / weights.name}")
    assert f"{weights.name} is damaged: its SHA-256 begins with" in said
    assert f"not with the {weights.name[9:17]} of its name" in said
    hub.mkdir(parents=True)
    named = hub / ResNet18_Weights.DEFAULT.url.rsplit("/", 1)[1]
    named.symlink_to(weights)
    assert "is damaged" in refused("torchvision:resnet18")


def test_only_torchvision_s_own_format_with_its_classifier_will_do(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    trunk = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    head = {"fc.weight": torch.ones(2, 512), "fc.bias": torch.ones(2)}
    contents = {
        "no classifier": trunk,
        "another format": simsiam_checkpoint(trunk, "resnet18"),
        "another width": {**random_state("resnet18", 8), **head},
        "another stem": {**random_state("resnet18", 64, "small"), **head},
        "another architecture": {**random_state("resnet34", 64), **head},
    }
    for what, content in contents.items():
        said = refused(f"torchvision:resnet18={keep(content, tmp_path)}")
        assert "has to be torchvision's resnet18 with its classifier, and the file is not: " in said, what
    incomplete = {key: tensor for key, tensor in state.items() if key != "layer1.0.bn2.bias"}
    assert "lacks the tensor 'layer1.0.bn2.bias'" in refused(
        f"torchvision:resnet18={keep(incomplete, tmp_path)}"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision:resnet51", "'resnet51' is no classifier of torchvision; did you mean resnet50"),
        ("torchvision:vit_b_16", "nothing is downloaded here: fetch https://"),
        ("torchvision:", "'' is no classifier of torchvision; see torchvision.models.list_models()"),
        ("torchvision:resnet18:IMAGENET1K_V2", "torchvision's weights of resnet18 are IMAGENET1K_V1"),
        ("torchvision:resnet18:IMAGENET1K_V1=x.pth", "give either IMAGENET1K_V1 or a file, not both"),
        ("torchvision:resnet18=mine.pth", "would be called resnet18-DIGEST.pth; other weights are scored by"),
        ("torchvision:resnet18=resnet50-0676ba61.pth", "would be called resnet18-DIGEST.pth"),
        ("torchvision:resnet18=no/resnet18-f37072fd.pth", "there is no file no/resnet18-f37072fd.pth"),
    ],
)
def test_wrong_names_are_one_sentence(hub: Path, source: str, message: str) -> None:
    said = refused(source)
    assert said.startswith(f"{source}: ")
    assert message in said


def test_branches_are_those_of_the_file(weights: Path) -> None:
    with pytest.raises(UserError, match="no branch 'teacher': it has model"):
        read_backbone(f"torchvision:resnet18={weights}", branch="teacher")


def test_every_program_that_reads_a_checkpoint_takes_them(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"torchvision:resnet18={weights}"
    facts = identify.main([source])["provenance"]
    assert (facts["format"], facts["checkpoint_digest"]) == ("torchvision", digest_of_file(weights))
    digest = read_backbone(weights).digest
    record = to_torchvision.main([source, str(tmp_path / "out.pth")])
    assert record["provenance"]["weights_digest"] == digest == read_backbone(tmp_path / "out.pth").digest
    record = to_d2.main([source, str(tmp_path / "out.pkl"), "--dry-run"])
    assert record["provenance"]["checkpoint_digest"] == digest_of_file(weights)
    (tmp_path / "images").mkdir()
    write_shapes(tmp_path / "images", each=4)
    options = ["--data.name=folder", f"--data.root={tmp_path / 'images'}", "--crop=32", "--k=1"]
    record = knn([source, *options, "--device=cpu", "--data.workers=0", "--cache=none"])
    assert record is not None
    assert record["provenance"]["weights_digest"] == digest
    assert record["provenance"]["backbone"] == source


@pytest.mark.parametrize("program", [knn, identify.main])
def test_help_mentions_them(program: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program(["--help"])
    assert "torchvision:NAME" in " ".join(capsys.readouterr().out.split())


def test_untrained_backbones_leave_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    backbone, seed = build_untrained("random:resnet18:width=8:stem=small:seed=3")
    assert torch.equal(torch.get_rng_state(), before)
    assert (Architecture.of(backbone), seed) == (Architecture("resnet18", 8, "small"), 3)


def test_random_baselines_are_asked_for_by_name() -> None:
    random_numbers = torch.get_rng_state()
    module, read = load_backbone("random:resnet18:width=8:stem=small:seed=3")
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert (read.format, read.name, read.width, read.stem) == ("random", "resnet18", 8, "small")
    assert same_tensors(dict(module.state_dict()), read.state)
    assert read.digest == read_backbone("random:resnet18:stem=small:width=8:seed=3").digest
    assert read.digest != read_backbone("random:resnet18:stem=small:width=8:seed=4").digest
    assert read_backbone("random:resnet18").width == 64
    assert read_backbone("random:timm:resnet10t").name == "timm:resnet10t"


@pytest.mark.parametrize(
    "path", ["random:resnet18:width=x", "random:resnet18:depth=3", "random:resnet18:seed=-1"]
)
def test_wrong_options_of_random_baselines(path: str) -> None:
    with pytest.raises(UserError, match="the options are"):
        read_backbone(path)
    with pytest.raises(UserError, match=r"resnet17.*did you mean"):
        read_backbone("random:resnet17")
