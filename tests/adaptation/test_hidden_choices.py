"""A run from a file whose network is not the library's: what no tensor shows is taken over, kept in the
checkpoint, and built again by a resumed run and by every reader."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.small_runs import assert_same_run, complete, launch, launch_ranks, newest, run_here, stop_at
from support.thorough import more
from timm.models import save_for_hf

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.programs import to_torchvision

STILL = (
    "--backbone.width=null",
    "--optim.lr=0",
    "--optim.epochs=1",
    "--data.count=8",
    "--optim.warmup_epochs=0",
)
"""One step that changes no weight of the backbone."""
PATCH16 = {"patch_size": 16, "hidden_size": 384, "num_attention_heads": 6}
DINOV2 = {**PATCH16, "patch_size": 14, "image_size": 98}
TINY_VIT = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}


def write(network: str, folder: Path, **options: Any) -> Any:
    """A network of transformers with positions that matter, and its folder."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    built = getattr(transformers, f"{network}Model")(getattr(transformers, f"{network}Config")(**options))
    for name, tensor in built.state_dict().items():
        if "position_embedding" in name and tensor.is_floating_point():
            tensor.copy_(torch.randn_like(tensor))
    built.save_pretrained(folder)
    return built.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "options", "expected", "sizes"),
    [
        ("Dinov2", DINOV2, {"image_size": 98, "positions": "bicubic"}, ((98, 98), (84, 112))),
        more("DINOv3ViT", {**PATCH16, "num_register_tokens": 4}, {"pool": "token"}, ((224, 224), (64, 96))),
        ("ViT", TINY_VIT, {"norm_eps": 1e-12, "positions": "bicubic"}, ((224, 224), (64, 96))),
    ],
)
def test_a_checkpoint_has_the_features_of_the_file(
    network: str, options: Any, expected: dict[str, Any], sizes: Any, tmp_path: Path
) -> None:
    theirs = write(network, tmp_path / "source", **options)
    words = (*STILL, "--backbone.name=null", f"--backbone.weights=hf:{tmp_path / 'source'}")
    run = complete(tmp_path / "run", *words, f"--views.size={2 * options.get('patch_size', 16)}")
    said = ", ".join(f"{name} {value}" for name, value in expected.items())
    assert f"the network keeps what it has beyond its name: {said}" in run.said
    before, start = load_backbone(tmp_path / "source")
    after, read = load_backbone(tmp_path / "run" / "checkpoint.pth")
    assert read.architecture == start.architecture
    assert {**start.architecture.hidden_choices} == expected
    for size in sizes:
        images = torch.randn(1, 3, *size)
        torch.testing.assert_close(after(images), before(images), rtol=0, atol=1e-6)
        always = {} if network.startswith(("Dino", "DINO")) else {"interpolate_pos_encoding": True}
        output = theirs(images, **always).last_hidden_state[:, 0]
        torch.testing.assert_close(after(images), output, rtol=1e-5, atol=2e-5)


CHOSEN = {
    "heads": 4,
    "image_size": 96,
    "pool": "avg",
    "activation": "quick_gelu",
    "positions": "bicubic-offset",
}


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of timm with a network that was built otherwise than named."""
    folder = tmp_path_factory.mktemp("chosen") / "folder"
    built = {"num_heads": 4, "img_size": 96, "global_pool": "avg", "act_layer": "quick_gelu"}
    torch.manual_seed(3)
    model = timm.create_model("test_vit", num_classes=0, **built)
    with torch.no_grad():
        for parameter in model.parameters():  # as after a training, so that every choice matters
            parameter.add_(0.2 * torch.randn_like(parameter))
    save_for_hf(model, str(folder), model_args=built, safe_serialization=True)
    assert json.loads((folder / "config.json").read_text())["model_args"]["num_heads"] == 4
    return folder


def words_of(folder: Path) -> tuple[str, ...]:
    return (
        "--method.name=byol", "--byol.hidden=32", "--byol.dim=16", "--backbone.name=test_vit",
        "--backbone.width=null", "--views.size=32", f"--backbone.weights={folder}", "--optim.epochs=2",
        "--backbone.reading.positions=bicubic-offset", "--adapt.layer_decay=0.8", "--adapt.warmup_epochs=0.6",
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(chosen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    assert run_here(folder, *words_of(chosen), "--adapt.lora_rank=4") == 0
    return folder


def test_a_run_goes_on_to_the_bit(chosen: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Without the file, with corrections and a momentum encoder, and with the name left to the checkpoint."""
    folder, words = tmp_path / "run", (*words_of(chosen), "--adapt.lora_rank=4")
    assert run_here(folder, *words, fault=stop_at(7)) == 128 + signal.SIGTERM
    other = launch(folder, *words, "--backbone.name=null", "--backbone.stem=small", "--resume")
    assert other.wait() == 2
    assert (
        "the checkpoint to resume from holds name timm:test_vit, and the run is to train stem small"
        in other.said
    )
    moved = chosen.rename(chosen.parent / "moved")
    complete(folder, *words, "--resume")
    moved.rename(chosen)
    assert_same_run(folder, undisturbed)


def test_both_branches_are_the_network_of_the_file(chosen: Path, undisturbed: Path, tmp_path: Path) -> None:
    start = read_backbone(chosen).architecture._replace(positions="bicubic-offset")
    assert start == Architecture("timm:test_vit", **CHOSEN)
    for branch in ("backbone", "target"):
        assert read_backbone(undisturbed / "checkpoint.pth", branch=branch).architecture == start
    record = newest(undisturbed)["backbone"]
    assert {key: record[key] for key in CHOSEN} == CHOSEN
    out = tmp_path / "out.safetensors"
    to_torchvision.main([str(undisturbed / "checkpoint.pth"), str(out)])
    assert read_backbone(out).architecture == start


def test_ranks_take_the_same_network(chosen: Path, tmp_path: Path) -> None:
    runs = launch_ranks(tmp_path / "run", *words_of(chosen))
    assert [run.wait() for run in runs] == [0, 0], runs[0].said
    assert read_backbone(tmp_path / "run" / "checkpoint.pth").architecture.hidden_choices == CHOSEN


def test_what_contradicts_the_file_is_refused(chosen: Path, tmp_path: Path) -> None:
    for number, (word, sentence) in enumerate(
        (
            (
                "--backbone.name=resnet18",
                "holds name timm:test_vit, and the run is to train name resnet18: set ",
            ),
            ("--backbone.width=8", "the run is to train name timm:test_vit, width 8: set "),
            ("--backbone.reading.heads=8", "heads"),
        )
    ):
        run = launch(tmp_path / f"run{number}", *words_of(chosen), word)
        assert run.wait() == 2
        assert sentence in run.said.splitlines()[-1]
        assert not list(run.folder.glob("checkpoints/*"))
