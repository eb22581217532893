"""The result of reading: a module with the file's weights, and one digest for one backbone in any file."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.checkpoint_files import own_checkpoint, random_state, same_tensors, save, simsiam_checkpoint

from siamtransfer.checkpoints import containers
from siamtransfer.checkpoints.containers import open_file, read_content
from siamtransfer.checkpoints.read_backbone import digest_of, load_backbone, read_backbone


def test_loading_fills_a_module_in_eval_mode_and_draws_nothing(tmp_path: Path) -> None:
    state = random_state("resnet18", 8)
    path = save(state, tmp_path)
    random_numbers = torch.get_rng_state()
    module, read = load_backbone(path)
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert not module.training
    assert same_tensors(dict(module.state_dict()), state)
    assert same_tensors(read.state, state)
    for name, tensor in module.state_dict().items():
        assert tensor.data_ptr() == read.state[name].data_ptr(), "the weights are in memory once"


def test_one_backbone_has_one_digest_in_every_file(tmp_path: Path) -> None:
    state = random_state("resnet18", 8)
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    wrapped = {f"_orig_mod.module.{key}": value for key, value in state.items()}
    digests = {
        read_backbone(save(state, tmp_path, "a.pth")).digest,
        read_backbone(save(dict(reversed(state.items())), tmp_path, "b.pth")).digest,
        read_backbone(save(wrapped, tmp_path, "c.pth")).digest,
        read_backbone(save(simsiam_checkpoint(state, "resnet18"), tmp_path, "d.pth")).digest,
        read_backbone(save(own_checkpoint(state, "resnet18", 8, "imagenet"), tmp_path, "e.pth")).digest,
        read_backbone(tmp_path / "x.safetensors").digest,
    }
    assert digests == {digest_of(state)}
    changed = {**state, "bn1.bias": state["bn1.bias"] + 1e-7}
    assert digest_of(changed) != digest_of(state)


def test_the_digest_depends_on_names_shapes_types_and_values_but_not_on_the_order() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    digest = digest_of({"a": a, "b": b})
    assert digest == digest_of({"b": b.clone(), "a": a.clone()})
    for other in (
        {"a": b, "b": a},
        {"a": a},
        {"a": a.view(1, 2), "b": b},
        {"a": a.double(), "b": b},
        {"a": a, "c": b},
    ):
        assert digest_of(other) != digest
    assert digest_of({"a": a[1:].expand(2)}) == digest_of({"a": torch.tensor([2.0, 2.0])})


@pytest.mark.parametrize("kind", ["weights", "training", "safetensors"])
def test_a_file_that_changes_later_changes_no_weights(tmp_path: Path, kind: str) -> None:
    """Whether the file was mapped into memory or not."""
    state = random_state("resnet18", 8)
    path = tmp_path / "x.pth"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    elif kind == "weights":
        save(state, tmp_path)
    else:
        save({"model": state, "optimizer": {"state": {0: torch.ones(10**6)}}}, tmp_path)
        assert open_file(path).mapped
    module, read = load_backbone(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert same_tensors(dict(module.state_dict()), state)
    assert same_tensors(read.state, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = random_state("resnet18", 8)
    narrow = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    module, read = load_backbone(save(narrow, tmp_path))
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32, torch.int64}
    expected = {name: t.float() if t.is_floating_point() else t for name, t in narrow.items()}
    assert same_tensors(dict(module.state_dict()), expected)
    assert read.digest == digest_of(expected)


def test_many_tensors_of_safetensors_are_copied_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {**random_state("resnet18", 8), "fc.weight": torch.empty(0, 64), "fc.bias": torch.empty(0)}
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    monkeypatch.setattr(containers, "_MAPPED_BYTES", 1000)
    assert same_tensors(read_content(tmp_path / "x.safetensors"), state)
    safetensors.torch.save_file({}, tmp_path / "empty.safetensors")
    assert read_content(tmp_path / "empty.safetensors") == {}
