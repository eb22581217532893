"""Reading backbones: known formats, total accounting, and no number from weights that did not load."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from checkpoint_files import build_content, own_checkpoint, random_state, read_golden, simsiam_checkpoint
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from siamtransfer.backbones import build_backbone
from siamtransfer.errors import UserError
from siamtransfer.formats import IMAGENET, digest_of, load_backbone, read_backbone


def save(content: Any, folder: Path, name: str = "x.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


FAMILY = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2")


@pytest.mark.parametrize(
    ("golden", "name", "dropped"),
    [
        ("simsiam_official", "simsiam", {"projector": 17, "predictor": 8}),
        ("simsiam_official_linear", "simsiam-linear", {"classifier": 2}),
        *((f"torchvision_{name}", "torchvision", {"classifier": 2}) for name in FAMILY),
    ],
)
def test_public_containers(tmp_path: Path, golden: str, name: str, dropped: dict[str, int]) -> None:
    description = read_golden(f"formats/{golden}.json.gz")
    values: dict[str, float] = {}
    read = read_backbone(save(build_content(description["content"], values), tmp_path))
    assert (read.format, read.name, read.width, read.stem) == (name, description["arch"], 64, "imagenet")
    assert read.dropped == dropped
    assert read.used == len(description["expected"]) == len(read.state)
    for key, source in description["expected"].items():
        assert bool((read.state[key] == values[source]).all()), key
    assert read.normalisation == IMAGENET
    if golden == "simsiam_official":
        assert (read.meta["method"], read.meta["epochs"], read.meta["arch"]) == ("simsiam", 100, "resnet50")


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_own_checkpoints(tmp_path: Path, stem: Any) -> None:
    state = random_state("resnet18", 16, stem)
    read = read_backbone(save(own_checkpoint(state, "resnet18", 16, stem), tmp_path))
    assert (read.format, read.name, read.width, read.stem) == ("siamtransfer", "resnet18", 16, stem)
    assert same(read.state, state)
    assert read.digest == digest_of(state)
    assert read.normalisation == ((0.5, 0.4, 0.3), (0.25, 0.2, 0.125))
    assert read.dropped == {"projector": 2, "predictor": 2}
    assert read.meta["epochs"] == 30
    assert read.meta["config"] == {"optim": {"lr": 0.05}}
    assert read.meta["method"] == "simsiam"


def test_own_checkpoints_of_timm_models(tmp_path: Path) -> None:
    backbone = build_backbone("timm:resnet10t")
    path = save(own_checkpoint(dict(backbone.state_dict()), "timm:resnet10t", None, None), tmp_path)
    module, read = load_backbone(path)
    assert (read.name, read.width, read.stem) == ("timm:resnet10t", None, None)
    assert same(read.state, dict(backbone.state_dict()))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(module(images), backbone.eval()(images))


def test_loading_fills_a_module_in_eval_mode_and_draws_nothing(tmp_path: Path) -> None:
    state = random_state("resnet18", 8)
    path = save(state, tmp_path)
    random_numbers = torch.get_rng_state()
    module, read = load_backbone(path)
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert not module.training
    assert same(dict(module.state_dict()), state)
    next(module.parameters()).data.zero_()
    assert same(read.state, state), "the record does not change with the module"


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


def test_compiled_parts_of_own_checkpoints(tmp_path: Path) -> None:
    state = random_state("resnet18", 8)
    content = own_checkpoint(state, "resnet18", 8, "imagenet")
    content["model"] = {
        key.replace("backbone.", "backbone._orig_mod."): v for key, v in content["model"].items()
    }
    assert same(read_backbone(save(content, tmp_path)).state, state)


def test_batch_counters_may_be_absent_altogether_only(tmp_path: Path) -> None:
    state = random_state("resnet18", 8)
    without = {key: value for key, value in state.items() if "num_batches" not in key}
    read = read_backbone(save(without, tmp_path))
    assert int(read.state["bn1.num_batches_tracked"]) == 0
    assert read.used == len(without)
    del state["bn1.num_batches_tracked"]
    with pytest.raises(UserError, match=r"lacks the tensor 'bn1\.num_batches_tracked'"):
        read_backbone(save(state, tmp_path))


def drop(key: str) -> Any:
    return lambda tensors: tensors.pop(key)


def put(key: str, value: Tensor) -> Any:
    return lambda tensors: tensors.__setitem__(key, value)


MANGLED = {
    "a missing tensor": (drop("layer3.1.bn2.bias"), r"lacks the tensor 'layer3\.1\.bn2\.bias' of resnet18"),
    "no stem": (drop("conv1.weight"), "lacks the first layers"),
    "a stranger": (
        put("layer3.1.gate.weight", torch.ones(2)),
        r"'layer3\.1\.gate\.weight', which resnet18 has not",
    ),
    "a wrong shape": (put("layer1.0.conv1.weight", torch.ones(8, 8, 1, 1)), r"shape \(8, 8, 1, 1\) where"),
    "a transposed shape": (put("bn1.bias", torch.ones(8, 1)), r"shape \(8, 1\) where resnet18 has \(8,\)"),
    "NaN": (put("bn1.bias", torch.full((8,), float("nan"))), "holds NaN or infinity"),
    "infinity": (put("bn1.running_var", torch.full((8,), float("inf"))), "holds NaN or infinity"),
    "integers": (put("bn1.bias", torch.ones(8, dtype=torch.int32)), "wrong type torch.int32"),
    "a float counter": (put("bn1.num_batches_tracked", torch.tensor(1.0)), "wrong type torch.float32"),
}


@pytest.mark.parametrize("what", MANGLED)
@pytest.mark.parametrize("form", ["torchvision", "simsiam", "siamtransfer"])
def test_mangled_backbones_are_refused(tmp_path: Path, form: str, what: str) -> None:
    mangle, message = MANGLED[what]
    state = random_state("resnet18", 8)
    mangle(state)
    content: Any = state
    if form == "simsiam":
        content = simsiam_checkpoint(state, "resnet18")
    elif form == "siamtransfer":
        content = own_checkpoint(state, "resnet18", 8, "imagenet")
        message = message.replace("lacks the first layers", r"lacks the tensor 'conv1\.weight'")
    with pytest.raises(UserError, match=message) as caught:
        read_backbone(save(content, tmp_path, "mangled.pth"))
    assert "mangled.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def edit_simsiam(**changes: Any) -> dict[str, Any]:
    content = simsiam_checkpoint(random_state("resnet18", 8), "resnet18")
    for key, value in changes.items():
        content["state_dict"][key.replace("__", ".")] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"module.encoder.fc.0.weight": torch.ones(2, 2)}}, "only heads .*projector: 1"),
        ({"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}, "only heads .*classifier: 2"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "epoch": 3}, "optimiser only"),
        ({"state_dict": {"encoder_q.conv1.weight": torch.ones(8, 3, 7, 7)}}, "no known format"),
        (
            edit_simsiam(module__queue=torch.ones(2, 2)),
            "looks like SimSiam.*no rule explains its key 'queue'",
        ),
        ({**edit_simsiam(), "ema": {"conv1.weight": torch.ones(1)}}, "no rule explains its key 'ema'"),
        (edit_simsiam(module__encoder__module__conv1__weight=torch.ones(8, 3, 7, 7)), "twice"),
        (torch.ones(3), "holds a Tensor"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_backbone(save(content, tmp_path))


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("version", 2, "another version"),
        ("backbone", None, "'backbone' is not understood"),
        ("backbone", {"name": "resnet18", "width": "8", "stem": "imagenet"}, "'backbone' is not understood"),
        ("backbone", {"name": "resnet18", "width": 16, "stem": "imagenet"}, "has shape"),
        ("backbone", {"name": "resnet34", "width": 8, "stem": "imagenet"}, "lacks the tensor"),
        ("backbone", {"name": "resnet18", "width": 8, "stem": "small"}, r"has shape \(8, 3, 7, 7\)"),
        ("backbone", {"name": "resnet81", "width": 8, "stem": "imagenet"}, "resnet81.*did you mean"),
        ("normalisation", {"mean": [0.5], "std": [0.5]}, "per RGB channel"),
        ("normalisation", {"mean": [0.5] * 3, "std": [0.5, 0.0, 0.5]}, "positive std"),
        ("normalisation", {"mean": 0.5}, "'normalisation' is not understood"),
        ("model", [1, 2], "no dict of tensors"),
    ],
)
def test_own_checkpoints_that_contradict_themselves(
    tmp_path: Path, entry: str, value: Any, message: str
) -> None:
    content = own_checkpoint(random_state("resnet18", 8), "resnet18", 8, "imagenet")
    with pytest.raises(UserError, match=message):
        read_backbone(save({**content, entry: value}, tmp_path))
    without = {key: item for key, item in content.items() if key != entry}
    with pytest.raises(UserError, match=f"lacks its entry '{entry}'|no dict of tensors"):
        read_backbone(save(without, tmp_path))


def test_random_baselines_are_asked_for_by_name() -> None:
    random_numbers = torch.get_rng_state()
    module, read = load_backbone("random:resnet18:width=8:stem=small:seed=3")
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert (read.format, read.name, read.width, read.stem) == ("random", "resnet18", 8, "small")
    assert same(dict(module.state_dict()), read.state)
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


STATE = random_state("resnet18", 8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_random_subset_or_renaming_passes(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever is lost or renamed, an incomplete or ambiguous backbone is refused."""
    content = copy.copy(STATE)
    chosen = data.draw(st.lists(st.sampled_from(sorted(content)), min_size=1, max_size=30, unique=True))
    assume(set(chosen) != {key for key in content if key.endswith("num_batches_tracked")})
    if data.draw(st.booleans()):
        for key in chosen:
            del content[key]
    else:
        new = data.draw(st.sampled_from(["x.", "encoder.", "layer9.", "fc.", "layer1."]))
        for key in chosen:
            content[new + key] = content.pop(key)
    form = data.draw(st.sampled_from(["torchvision", "simsiam", "siamtransfer"]))
    wrapped: Any = content
    if form == "simsiam":
        wrapped = simsiam_checkpoint(content, "resnet18")
    elif form == "siamtransfer":
        wrapped = own_checkpoint(content, "resnet18", 8, "imagenet")
    with pytest.raises(UserError):
        read_backbone(save(wrapped, tmp_path))


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
