"""The methods by name: found from their files, imported when used, and options of older versions."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from siamtransfer.methods import METHODS, Method, Options, StepOutput
from siamtransfer.methods.registry import RENAMED, MethodRegistry, current_names, in_hyphens, saved_options
from siamtransfer.optim.config import OptimConfig
from siamtransfer.utils.errors import UserError

PAPERS = [
    "simsiam", "simclr", "moco", "moco-v3", "byol", "swav", "dino", "barlow-twins", "vicreg", "directpred",
    "unigrad",
]  # fmt: skip


@dataclass
class MeanConfig(Options):
    """Options of the method below."""

    dim: int = 8


class MeanDistance(Method):
    """A method that is not in siamtransfer."""

    Config = MeanConfig

    def forward(self, views: list[Tensor]) -> StepOutput:
        h1, h2 = (self.backbone(x) for x in views)
        return StepOutput((h1 - h2).square().mean(), [h1.detach(), h2.detach()])


def test_names_come_in_the_order_of_the_papers_and_the_variants_last() -> None:
    assert list(METHODS)[: len(PAPERS)] == PAPERS
    assert list(METHODS)[len(PAPERS)] == "simsiam-variants"
    assert len(METHODS) == len(list(METHODS))
    assert "barlow-twins" in METHODS
    assert "barlow_twins" not in METHODS
    assert METHODS["moco-v3"].__name__ == "MoCoV3"
    with pytest.raises(KeyError):
        METHODS["moco-v4"]


def imported(code: str) -> set[str]:
    """The top packages that are imported after `code` in a new process."""
    code += "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_the_names_of_the_methods_need_no_torch() -> None:
    code = "import siamtransfer.methods.registry, siamtransfer.methods as m; assert 'byol' in m.METHODS"
    assert not imported(code) & {"torch", "numpy", "torchvision", "timm"}


def test_a_methods_class_needs_torch_but_neither_torchvision_nor_timm() -> None:
    code = "from siamtransfer.methods import METHODS, SimSiam\nfor name in METHODS: METHODS[name].Config()"
    packages = imported(code)
    assert "torch" in packages
    assert not packages & {"torchvision", "timm"}


# New methods.


METHOD = """
from dataclasses import dataclass
from siamtransfer.methods.base import Method, Options

@dataclass
class NewConfig(Options):
    dim: int = 4

class Helper(Method):
    pass

class New(Helper):
    Config = NewConfig
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package `more_methods` in a folder of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "more_methods"
    folder.mkdir()
    (folder / "__init__.py").touch()
    yield folder
    for name in [name for name in sys.modules if name.startswith("more_methods")]:
        del sys.modules[name]


def test_a_new_method_is_one_file(folder: Path) -> None:
    (folder / "a_new_one.py").write_text(METHOD)
    (folder / "_helpers.py").write_text("raise RuntimeError")
    (folder / "base.py").write_text("raise RuntimeError")
    (folder / "big").mkdir()
    (folder / "big" / "__init__.py").touch()
    (folder / "big" / "model.py").write_text(METHOD)
    (folder / "simclr.py").write_text(METHOD)
    methods = MethodRegistry(folder, "more_methods")
    assert list(methods) == ["simclr", "a-new-one", "big"]
    assert methods["a-new-one"].__name__ == "New"
    assert methods["a-new-one"].Config(dim=3).dim == 3
    assert methods["big"].__module__ == "more_methods.big.model"
    assert methods.name_of(methods["big"].Config) == "big"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nothing_like_this", r"more_methods/broken\.py cannot be imported: ModuleNotFoundError"),
        ("x = 1", r"more_methods/broken\.py must define one subclass of Method with a Config.*none"),
        (METHOD + "\nclass Second(Method):\n    Config = NewConfig", "defines New, Second"),
    ],
)
def test_a_file_without_a_method_is_told_when_it_is_asked_for(
    folder: Path, content: str, message: str
) -> None:
    (folder / "broken.py").write_text(content)
    (folder / "good.py").write_text(METHOD)
    methods = MethodRegistry(folder, "more_methods")
    assert list(methods) == ["broken", "good"]
    assert methods["good"].__name__ == "New"
    with pytest.raises(UserError, match=message):
        methods["broken"]


def test_a_class_of_ones_own_is_registered_under_its_name() -> None:
    try:
        assert METHODS.register(MeanDistance) == "mean-distance"
        assert METHODS["mean-distance"] is MeanDistance
        assert list(METHODS)[-1] == "mean-distance"
        assert METHODS.register(MeanDistance) == "mean-distance"
        assert len(METHODS) == len(set(METHODS))
        assert METHODS.register(MeanDistance, "mine") == "mine"
        assert METHODS.register(METHODS["moco-v3"]) == "moco-v3"
        config = {"method": {"name": "mean-distance"}, "mean_distance": {"dim": 3}}
        assert saved_options(config) == ("mean-distance", MeanConfig(3))
    finally:
        METHODS.unregister("mean-distance")
        METHODS.unregister("mine")
    assert "mean-distance" not in METHODS
    with pytest.raises(UserError, match="siamtransfer has a method byol"):
        METHODS.register(MeanDistance, "byol")
    with pytest.raises(UserError, match="small letters, digits and hyphens, and 'My method' is not"):
        METHODS.register(MeanDistance, "My method")
    for wrong in (Method, MeanConfig, MeanDistance.forward):
        with pytest.raises(UserError, match="must be a subclass of Method whose Config"):
            METHODS.register(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "hyphens"),
    [("Alignment", "alignment"), ("MyMethod", "my-method"), ("VICRegPlus", "vic-reg-plus"), ("A2B", "a2-b")],
)
def test_a_class_name_in_hyphens(name: str, hyphens: str) -> None:
    assert in_hyphens(name) == hyphens


# Options of older versions.


OLD: dict[str, Any] = {
    "run": {"dir": "runs/demo", "seed": 0},
    "method": {"name": "simsiam"},
    "simsiam": {
        "dim": 256, "projector_layers": 2, "projector_rank": None, "activation": "relu",
        "predictor": "trained", "predictor_hidden": None, "predictor_layers": 2,
        "predictor_shape": "bottleneck", "predictor_experts": 4,
        "predictor_rate": "decayed", "predictor_rate_scale": 10.0,
        "backbone_rate_scale": 1.0, "freeze_patches": False, "batch_norm": "default", "stop_gradient": True,
        "symmetric": True, "similarity": "cosine",
        "distance": {
            "weights": {}, "learned": False, "prediction_temperature": 1.0, "target_temperature": 1.0,
            "slices": 64,
        },
        "target": {
            "gradient": 0.0, "spread": None, "share": 0.0, "momentum": 0.99, "every": 1, "start_epoch": 0,
            "stop_epoch": None, "memory": None, "views": "each",
        },
        "clusters": {"share": 0.0, "count": 100, "every": 1},
        "terms": {
            "labels": 0.0, "labelled_share": 0.1, "labels_reach_backbone": True, "rotation": 0.0,
            "contrast": 0.0, "contrast_margin": 0.3, "contrast_band": [0.25, 0.75], "rate_scale": 1.0,
        },
    },
}  # fmt: skip
"""What the version before simsiam-variants saved: its PretrainConfig as a dict, of simsiam."""


def old(**changes: Any) -> dict[str, Any]:
    """OLD with other options of simsiam; a dict changes a part of a section."""
    config = copy.deepcopy(OLD)
    for key, value in changes.items():
        if isinstance(value, dict):
            config["simsiam"][key] |= value
        else:
            config["simsiam"][key] = value
    return config


def test_an_old_configuration_of_the_papers_method_has_the_papers_options() -> None:
    config = old()
    current = current_names(config)
    assert config == OLD, "the argument stays"
    assert current["method"] == {"name": "simsiam"}
    assert current["simsiam"] == {
        "dim": 256, "projector_layers": 2, "predictor_hidden": None, "predictor_lr": "decayed",
        "predictor_lr_scale": 10.0, "stop_gradient": True, "symmetric": True,
    }  # fmt: skip
    assert current["run"] == OLD["run"]
    name, options = saved_options(config)
    assert (name, options) == ("simsiam", METHODS["simsiam"].Config(**current["simsiam"]))


@pytest.mark.parametrize(
    ("change", "section", "key", "value"),
    [
        ({"batch_norm": "all"}, None, "batch_norm", "all"),
        ({"backbone_rate_scale": 0.1}, None, "backbone_lr_scale", 0.1),
        ({"target": {"share": 0.5}}, "target", "fraction", 0.5),
        ({"clusters": {"share": 0.25}}, "clusters", "fraction", 0.25),
        ({"terms": {"labelled_share": 0.2, "labels": 1.0}}, "terms", "labelled_fraction", 0.2),
        ({"terms": {"rate_scale": 2.0}}, "terms", "lr_scale", 2.0),
        ({"distance": {"weights": {"cosine": 1.0}}}, "distance", "weights", {"cosine": 1.0}),
    ],
)
def test_an_old_configuration_with_a_variants_option_is_of_the_variants(
    change: Any, section: str | None, key: str, value: Any
) -> None:
    current = current_names(old(**change))
    assert current["method"] == {"name": "simsiam-variants"}
    assert "simsiam" not in current
    options = current["simsiam_variants"]
    assert (options[section] if section else options)[key] == value
    name, built = saved_options(old(**change))
    assert name == "simsiam-variants"
    part = getattr(built, section) if section else built
    assert getattr(part, key) == value
    assert (built.dim, built.predictor_lr_scale) == (256, 10.0)  # type: ignore[attr-defined]


def test_more_than_two_views_were_simsiam_and_are_the_variants() -> None:
    assert current_names(old(), views=4)["method"] == {"name": "simsiam-variants"}
    assert current_names(old(), views=2)["method"] == {"name": "simsiam"}


def test_parts_of_a_configuration_and_those_of_today_stay_what_they_are() -> None:
    for config in (
        {},
        {"optim": {"lr": 1.0}},
        {"method": {"name": "byol"}, "byol": {"dim": 4}},
        {"simsiam": {"dim": 5}},
        {"method": {"name": "simsiam-variants"}, "simsiam_variants": {"target": {"fraction": 0.5}}},
    ):
        assert current_names(config) == config
    assert current_names({"simsiam": {"predictor": "none"}}) == {
        "method": {"name": "simsiam-variants"},
        "simsiam_variants": {"predictor": "none"},
    }
    assert current_names({"method": {"name": "byol"}, "simsiam": {"predictor_rate": "constant"}}) == {
        "method": {"name": "byol"},
        "simsiam": {"predictor_lr": "constant"},
    }


def test_every_new_name_is_an_option() -> None:
    sections = {"simsiam": METHODS["simsiam-variants"].Config(), "optim": OptimConfig()}
    for name in RENAMED.values():
        section, *words = name.split(".")
        value: Any = sections[section]
        for word in words:
            assert hasattr(value, word), name
            value = getattr(value, word)
