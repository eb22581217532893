"""The result of reading: a module with the file's weights, and one digest for one backbone in any file."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from support.checkpoint_files import own_checkpoint, random_state, same_tensors, save, simsiam_checkpoint

from siamtransfer.checkpoints.read_backbone import digest_of, load_backbone, read_backbone


def test_loading_fills_a_module_in_eval_mode_and_draws_nothing(tmp_path: Path) -> None:
    state = random_state("resnet18", 8)
    path = save(state, tmp_path)
    random_numbers = torch.get_rng_state()
    module, read = load_backbone(path)
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert not module.training
    assert same_tensors(dict(module.state_dict()), state)
    next(module.parameters()).data.zero_()
    assert same_tensors(read.state, state), "the record does not change with the module"


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
