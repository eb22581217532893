"""The declaration of a checkpoint's keys: heads of any name, files without one, files that contradict it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import own_checkpoint, random_state, same_tensors, save
from torch import Tensor, nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.checkpoints.declaration import declare, read_declaration
from siamtransfer.checkpoints.own_format import check_readable
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.methods import Method, Options, StepOutput
from siamtransfer.utils.errors import UserError


class UsersMethod(Method):
    """A method of a user, whose modules have names that no list in this package holds."""

    def __init__(self) -> None:
        super().__init__(build_backbone("resnet18", width=8), Options())
        self.expander = nn.Sequential(nn.Linear(64, 4), nn.BatchNorm1d(4))
        self.whitening = nn.Linear(4, 4, bias=False)
        self.register_buffer("running_mean_of_everything", torch.zeros(4))
        self.head = nn.ModuleDict({"backbone": nn.Linear(4, 4)})
        self.backbone_head = nn.Linear(4, 4)
        self.module = nn.ModuleDict({"backbone": nn.Linear(4, 4)})

    def forward(self, views: list[Tensor]) -> StepOutput:
        z1, z2 = (self.whitening(self.expander(self.backbone(x))) for x in views)
        return StepOutput((z1 - z2).square().mean(), [z1.detach(), z2.detach()])


class WithTarget(UsersMethod):
    evaluated = "target_backbone"

    def __init__(self) -> None:
        super().__init__()
        self.target_backbone = build_backbone("resnet18", width=8)


class Renamed(Method):
    """Its backbone and target have names of its own, and a head is called `target_backbone`."""

    evaluated = "teacher"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(build_backbone("resnet18", width=8), Options())
        self.student, self.teacher = self.backbone, build_backbone("resnet18", width=8)
        del self.backbone
        self.target_backbone = nn.Linear(2, 2)

    def parts(self) -> Any:
        return {"student": "backbone", "teacher": "target", "target_backbone": "head"}


def state_of(method: Method) -> dict[str, Any]:
    """The state that a training loop saves."""
    state = own_checkpoint({}, "resnet18", 8, "imagenet")
    return {**state, "model": method.state_dict(), "keys": declare(method)}


def test_the_declaration_of_a_users_method() -> None:
    heads = ["backbone_head", "expander", "head", "module", "running_mean_of_everything", "whitening"]
    expected = {"backbone": "backbone.", "target": None, "heads": heads, "evaluated": "backbone"}
    assert declare(UsersMethod()) == expected
    expected |= {"target": "target_backbone.", "evaluated": "target_backbone"}
    assert declare(WithTarget()) == expected
    declaration = read_declaration(expected)
    assert declaration.branches == {"target": "target_backbone", "backbone": "backbone"}
    keys = ["backbone.conv1.weight", "target_backbone.bn1.bias", "backbone_head.bias", "head.backbone.weight"]
    assert [declaration.part_of(key) for key in keys] == ["backbone", "target", "head", "head"]
    assert declaration.part_of("running_mean_of_everything") == "head"
    assert declaration.part_of("running_mean_of_everything_else") is None


def test_the_checkpoint_of_a_users_method_is_read_back(tmp_path: Path) -> None:
    method = UsersMethod()
    Checkpoints(tmp_path).save(state_of(method), 1)
    module, read = load_backbone(tmp_path / "checkpoint.pth")
    assert same_tensors(read.state, dict(method.backbone.state_dict()))
    assert same_tensors(dict(module.state_dict()), read.state)
    assert (read.format, read.branch, read.branches) == ("siamtransfer", "backbone", ("backbone",))
    heads = len(method.state_dict()) - len(read.state)
    assert (read.used, read.dropped) == (len(read.state), {"head (declared)": heads})


def test_the_evaluated_target_is_read_by_default(tmp_path: Path) -> None:
    method = WithTarget()
    path = Checkpoints(tmp_path).save(state_of(method), 1)
    read, trained = read_backbone(path), read_backbone(path, branch="backbone")
    assert (read.branch, read.branches) == ("target", ("target", "backbone"))
    assert same_tensors(read.state, dict(method.target_backbone.state_dict()))
    assert same_tensors(trained.state, dict(method.backbone.state_dict()))
    with pytest.raises(UserError, match="has no branch 'teacher': it has target, backbone"):
        read_backbone(path, branch="teacher")


def test_a_method_may_call_its_backbones_as_it_likes(tmp_path: Path) -> None:
    method = Renamed()
    path = Checkpoints(tmp_path).save(state_of(method), 1)
    assert same_tensors(read_backbone(path).state, dict(method.teacher.state_dict()))
    assert same_tensors(read_backbone(path, branch="backbone").state, dict(method.student.state_dict()))


def test_a_method_needs_one_backbone() -> None:
    method = UsersMethod()
    for parts in (
        {"head": "head"},
        {"a": "backbone", "b": "backbone"},
        {"a": "backbone", "b": "target", "c": "target"},
    ):
        method.parts = lambda parts=parts: parts  # type: ignore[method-assign,misc]
        with pytest.raises(UserError, match="has to name one backbone and at most one target"):
            declare(method)


def test_compiled_backbones_are_read_back(tmp_path: Path) -> None:
    method = UsersMethod()
    state = state_of(method)
    state["model"] = {
        key.replace("backbone.", "backbone._orig_mod.", 1): v for key, v in state["model"].items()
    }
    check_readable(state)
    assert same_tensors(read_backbone(save(state, tmp_path)).state, dict(method.backbone.state_dict()))


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:vit_tiny_patch16_224"])
def test_backbones_of_timm_are_read_back(tmp_path: Path, name: str) -> None:
    method = UsersMethod()
    method.backbone = build_backbone(name)
    state = {**state_of(method), "backbone": {"name": name, "width": None, "stem": None}}
    path = Checkpoints(tmp_path).save(state, 1)
    assert same_tensors(read_backbone(path).state, dict(method.backbone.state_dict()))


def test_without_a_declaration_the_list_of_old_names_decides(tmp_path: Path) -> None:
    tensors = random_state("resnet18", 8)
    state = own_checkpoint(tensors, "resnet18", 8, "imagenet")
    check_readable(state)
    assert same_tensors(read_backbone(save(state, tmp_path)).state, tensors)
    state["model"]["expander.0.weight"] = torch.ones(2, 2)
    with pytest.raises(UserError, match=r"no rule explains its key 'expander\.0\.weight'"):
        read_backbone(save(state, tmp_path))


def change(**entries: Any) -> Any:
    return lambda state: state["keys"].update(entries)


def put(key: str, value: Any) -> Any:
    return lambda state: state["model"].update({key: value})


def drop(start: str) -> Any:
    def remove(state: dict[str, Any]) -> None:
        state["model"] = {key: value for key, value in state["model"].items() if not key.startswith(start)}

    return remove


HEADS = declare(UsersMethod())["heads"]
CONTRADICTIONS = {
    "an undeclared head": (change(heads=HEADS[:-1]), r"does not declare its key 'whitening\.weight'"),
    "an undeclared buffer": (
        put("running_mean_of_everything_2", torch.ones(1)),
        "'keys' does not declare its key 'running_mean_of_everything_2'",
    ),
    "a head without keys": (change(heads=[*HEADS, "projector"]), "declares 'projector', and it has no"),
    "a target without keys": (change(target="target_backbone."), "declares 'target_backbone', and it has"),
    "no backbone": (drop("backbone."), "declares 'backbone', and it has no such key"),
    "a backbone among the heads": (change(heads=[*HEADS, "backbone"]), "declares 'backbone' twice"),
    "a head twice": (change(heads=[*HEADS, "expander"]), "declares 'expander' twice"),
    "one network for both": (change(target="backbone."), "declares 'backbone' twice"),
    "a head as the backbone": (change(backbone="expander."), "declares 'expander' twice"),
    "an unknown evaluated network": (change(evaluated="teacher"), "says that 'teacher' is evaluated, and"),
    "a prefix without a dot": (change(backbone="backbone"), "'backbone' where a word and a dot are expected"),
    "a prefix of two words": (change(backbone="backbone.layer1."), "where a word and a dot are expected"),
    "no list of heads": (change(heads="expander"), "'keys' is not understood"),
    "heads that are numbers": (change(heads=[1]), "'keys' is not understood"),
    "no declaration but a text": (lambda state: state.update(keys="backbone."), "'keys' is not understood"),
    "another evaluated network": (
        lambda state: state["backbone"].update(evaluated="target_backbone"),
        "'keys' says that 'backbone' is evaluated, and its entry 'backbone' names 'target_backbone'",
    ),
    "a lost tensor": (drop("backbone.layer1.0.bn1.bias"), r"lacks the tensor 'layer1\.0\.bn1\.bias'"),
    "another architecture": (
        lambda state: state["backbone"].update(width=16),
        r"conv1\.weight.* shape \(8, 3, 7, 7\) where resnet18 has \(16, 3, 7, 7\)",
    ),
    "a tensor too many": (put("backbone.gate", torch.ones(1)), "a tensor 'gate', which resnet18 has not"),
    "no tensor": (put("backbone.gate", 3), r"'backbone\.gate' of a backbone holds int, not a tensor"),
    "a number as a key": (lambda state: state["model"].update({3: torch.ones(1)}), "declare its key '3'"),
    "a tensor twice": (put("backbone.module.bn1.bias", torch.ones(8)), "holds some tensors twice"),
}  # fmt: skip


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradictions_are_refused_by_the_reader_and_before_saving(tmp_path: Path, what: str) -> None:
    tamper, message = CONTRADICTIONS[what]
    state = state_of(UsersMethod())
    tamper(state)
    with pytest.raises(UserError, match=message) as caught:
        read_backbone(save(state, tmp_path))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"could not be read back: it .*{message}") as caught:
        Checkpoints(tmp_path / "run").save(state, 1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists(), "nothing is written"


def test_every_backbone_is_checked_before_saving(tmp_path: Path) -> None:
    state = state_of(WithTarget())
    del state["model"]["backbone.bn1.bias"]
    assert read_backbone(save(state, tmp_path)).branch == "target"
    with pytest.raises(UserError, match=r"lacks the tensor 'bn1\.bias'"):
        check_readable(state)


class WithSecond(UsersMethod):
    """A second column's images have one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.second_backbone = build_backbone("resnet18", width=8, in_channels=1)


def test_the_backbone_of_a_second_column_has_entries_of_its_own(tmp_path: Path) -> None:
    method = WithSecond()
    state = state_of(method)
    assert state["keys"]["second"] == "second_backbone."
    path = save(state, tmp_path)
    assert read_backbone(path).branches == ("backbone", "second")
    for refused in (lambda: read_backbone(path, branch="second"), lambda: check_readable(state)):
        with pytest.raises(UserError, match="its entry 'second' is not understood: None"):
            refused()
    normalisation = {"mean": [0.5], "std": [0.25]}
    state["second"] = {"backbone": {**state["backbone"], "in_channels": 1}, "normalisation": normalisation}
    check_readable(state)
    read = read_backbone(save(state, tmp_path), branch="second")
    assert same_tensors(read.state, dict(method.second_backbone.state_dict()))
    assert (read.architecture.in_channels, read.normalisation.std) == (1, (0.25,))
    state["keys"]["evaluated"] = "second_backbone"
    with pytest.raises(UserError, match="'second_backbone' is evaluated, and there is no such network"):
        check_readable(state)


def test_the_check_copies_no_tensor() -> None:
    state = state_of(UsersMethod())
    state["model"] = {key: tensor.to("meta") for key, tensor in state["model"].items()}
    check_readable(state)  # reading a value of a meta tensor would raise
    assert all(tensor.is_meta for tensor in state["model"].values())
