"""What training libraries put around a backbone: words in its names, dicts, counters, averages, settings."""

from __future__ import annotations

import argparse
import functools
import sys
import types
from collections import deque
from pathlib import Path, PureWindowsPath
from typing import Any

import omegaconf
import pytest
import torch
from support.checkpoint_files import random_state, same_tensors, save
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from siamtransfer.checkpoints.containers import read_content
from siamtransfer.checkpoints.pickles import as_plain
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.checkpoints.wrappers import without_wrappers
from siamtransfer.utils.errors import UserError

STATE = random_state("resnet18", 8)
OTHER = {name: tensor + 1 for name, tensor in STATE.items()}
COUNTER = torch.tensor(7)


def test_wrappers_are_removed_wherever_they_stand() -> None:
    for key in (
        "module.backbone.conv1.weight",
        "_orig_mod.module.backbone.conv1.weight",
        "backbone._orig_mod.conv1.weight",
        "_fsdp_wrapped_module.backbone._fsdp_wrapped_module.conv1._checkpoint_wrapped_module.weight",
        "_forward_module.module.backbone.conv1.weight",
    ):
        assert without_wrappers(key) == "backbone.conv1.weight"
    assert without_wrappers("submodule.x") == "submodule.x"


def before_the_last(word: str) -> dict[str, Tensor]:
    """The words of a wrapper inside the names: that of a block of a stage."""
    return {name.replace("layer2.0.", f"layer2.0.{word}."): tensor for name, tensor in STATE.items()}


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        prefixed("module."),
        {"state_dict": prefixed("_forward_module.model.")},
        {"state_dict": prefixed("model._orig_mod.")},
        {"model": prefixed("_orig_mod.module.net.")},
        {"module": prefixed("_forward_module.model."), "ds_version": "0.16", "optimizer": None},
        before_the_last("_checkpoint_wrapped_module"),
        {
            "state_dict": {
                f"_fsdp_wrapped_module.{k}": v for k, v in before_the_last("_fsdp_wrapped_module").items()
            }
        },
        {"n_averaged": COUNTER, **prefixed("module.model.")},
        {"state_dict": {"n_averaged": COUNTER, **prefixed("module._orig_mod.")}},
    ],
    ids=range(9),
)
def test_a_wrapped_backbone_is_the_backbone(tmp_path: Path, content: Any) -> None:
    read = read_backbone(save(content, tmp_path))
    assert read.format == "torchvision"
    assert same_tensors(read.state, STATE)
    counters = sum(name.endswith("n_averaged") for name in content.get("state_dict", content))
    assert read.dropped == ({"counter of the moving average": 1} if counters else {})


def test_the_words_are_those_of_the_libraries() -> None:
    """The names that torch's own wrappers give, not only those that this test writes."""
    network = nn.Sequential(checkpoint_wrapper(nn.Linear(2, 2)), nn.Linear(2, 2))
    inner = {"0._checkpoint_wrapped_module.weight": "0.weight", "1.bias": "1.bias"}
    named = dict(network.named_parameters())
    assert inner.keys() <= named.keys()
    assert {without_wrappers(name) for name in inner} == set(inner.values())
    average = AveragedModel(nn.Linear(2, 2), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    assert set(average.state_dict()) == {"n_averaged", "module.weight", "module.bias"}


def lightning(branch_of_state_dict: dict[str, Tensor], plain: dict[str, Tensor]) -> dict[str, Any]:
    """As Lightning's callback WeightAveraging writes it."""
    return {
        "state_dict": prefixed("model.", branch_of_state_dict),
        "current_model_state": prefixed("model.", plain),
        "averaging_state": {"n_averaged": COUNTER},
        "pytorch-lightning_version": "2.6.0",
    }


BOTH = {
    "two entries": {"model": STATE, "model_ema": {"n_averaged": COUNTER, **prefixed("module.", OTHER)}},
    "DeepSpeed": {"module": STATE, "ema": {"module": OTHER}},
    "one dict": {"state_dict": {**prefixed("model."), **prefixed("ema_model.", OTHER)}},
    "with counters": {
        "state_dict": {
            **prefixed("model."),
            **prefixed("ema.module.", OTHER),
            "ema.n_averaged": COUNTER,
        }
    },
    "beside the bare names": {**STATE, **prefixed("ema.module.", OTHER), "ema.n_averaged": COUNTER},
}


@pytest.mark.parametrize("what", BOTH)
def test_weights_and_their_average_are_two_branches(tmp_path: Path, what: str) -> None:
    path = save(BOTH[what], tmp_path)
    read = read_backbone(path)
    assert (read.branch, read.branches) == ("model", ("model", "ema"))
    assert same_tensors(read.state, STATE)
    assert read.dropped["moving average"] == len(OTHER)
    averaged = read_backbone(path, branch="ema")
    assert same_tensors(averaged.state, OTHER)
    assert averaged.dropped["the weights that were averaged"] == len(STATE)
    with pytest.raises(UserError, match=r"no branch 'teacher': it has model, ema \(--branch\)"):
        read_backbone(path, branch="teacher")


def test_lightnings_state_dict_is_the_average_where_it_says_so(tmp_path: Path) -> None:
    path = save(lightning(OTHER, STATE), tmp_path)
    read = read_backbone(path)
    assert (read.branch, read.branches) == ("ema", ("ema", "model"))
    assert same_tensors(read.state, OTHER)
    plain = read_backbone(path, branch="model")
    assert (plain.branch, plain.branches) == ("model", ("model", "ema"))
    assert same_tensors(plain.state, STATE)


def test_heads_beside_the_averaged_network_stay_its_heads(tmp_path: Path) -> None:
    heads = {"projector.0.weight": torch.ones(2, 2)}
    content = {"model": {**prefixed("backbone."), **prefixed("ema.", OTHER), **heads}}
    for branch, state in ((None, STATE), ("ema", OTHER)):
        read = read_backbone(save(content, tmp_path), branch=branch)
        assert same_tensors(read.state, state)
        assert read.dropped["projector"] == 1


def test_an_average_alone_is_the_backbone(tmp_path: Path) -> None:
    read = read_backbone(save({"state_dict": prefixed("ema_model.", OTHER)}, tmp_path))
    assert (read.branch, read.branches) == ("ema", ("ema",))
    assert same_tensors(read.state, OTHER)


def test_an_average_does_not_hide_a_tensor_that_is_there_twice(tmp_path: Path) -> None:
    twice = {**prefixed("model."), "module.model.conv1.weight": STATE["conv1.weight"], **prefixed("ema.")}
    with pytest.raises(UserError, match="twice"):
        read_backbone(save({"state_dict": twice}, tmp_path))


def test_an_average_of_something_else_is_refused(tmp_path: Path) -> None:
    half = {"state_dict": prefixed("model."), "current_model_state": {"model.fc.weight": torch.ones(2, 2)}}
    with pytest.raises(UserError, match="no rule explains its key 'current_model_state'"):
        read_backbone(save(half, tmp_path))
    content = {"state_dict": {**prefixed("model."), "ema_model.conv1.weight": torch.ones(8, 3, 7, 7)}}
    with pytest.raises(UserError, match=r"called model\.conv1.*ema_model\.conv1\.weight"):
        read_backbone(save(content, tmp_path))


@pytest.fixture
def absent_library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a class of a library that is absent when the file is read."""

    def make(module: str, name: str, base: type) -> Any:
        kind = type(name, (base,), {"__module__": module})
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:depth]), types.ModuleType(parts[depth - 1]))
        setattr(sys.modules[module], name, kind)
        return kind

    return make


@pytest.mark.parametrize(
    "module",
    [
        "lightning.fabric.utilities.data",
        "lightning_fabric.utilities.data",
        "pytorch_lightning.utilities.parsing",
    ],
)
def test_lightnings_hyperparameters_are_read_without_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent_library: Any, module: str
) -> None:
    kind = absent_library(module, "AttributeDict", dict)
    parameters = kind(
        arch="resnet18",
        out=tmp_path,
        drive=PureWindowsPath("C:/runs"),
        optimizer=torch.optim.AdamW,
        partial=functools.partial(torch.optim.SGD, lr=0.1),
        activation=nn.GELU,
        network=nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
        function=nn.functional.relu,
        args=argparse.Namespace(lr=0.1),
        config=omegaconf.OmegaConf.create({"a": [1, {"b": 2}]}),
        recent=deque([1, 2], maxlen=5),
        inner=kind(x=(1, 2)),
        dtype=torch.bfloat16,
    )
    content = {"state_dict": prefixed("model."), "hyper_parameters": parameters, "epoch": 3}
    path = save(content, tmp_path)
    for part in module.split("."):
        monkeypatch.delitem(sys.modules, part, raising=False)
    monkeypatch.delitem(sys.modules, module)
    read = read_backbone(path)
    assert same_tensors(read.state, STATE)
    assert read.meta["epochs"] == 3
    kept = as_plain(read_content(path)["hyper_parameters"])
    assert (kept["arch"], kept["recent"], kept["args"], kept["inner"]) == (
        "resnet18",
        [1, 2],
        {"lr": 0.1},
        {"x": (1, 2)},
    )
