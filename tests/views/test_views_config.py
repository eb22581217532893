"""Settings of views in a configuration: each changes one thing only, and mistakes name their key."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamtransfer.cli import Command
from siamtransfer.config import PretrainConfig
from siamtransfer.utils.errors import UserError
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.random_params import sample_params
from siamtransfer.views.recipes import ALIASES, RECIPES, recipe
from siamtransfer.views.view_spec import NORMALISATION, VIEW_FIELDS

CHANGES: dict[str, Any] = {
    "scale": [0.3, 0.9],
    "ratio": [0.5, 2.0],
    "interpolation": "bicubic",
    "flip_p": 0.25,
    "jitter": [0.1, 0.2, 0.3, 0.05],
    "jitter_p": 0.7,
    "grey_p": 0.6,
    "grey_first": True,
    "blur_p": 0.45,
    "blur_sigma": [0.2, 1.5],
    "solarize_p": 0.15,
    "solarize_threshold": 100,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.3, 0.2, 0.1],
}


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def test_every_setting_of_a_view_can_be_changed() -> None:
    assert set(CHANGES) == {*VIEW_FIELDS, *NORMALISATION} - {"size"}
    fields = {field.name for field in dataclasses.fields(ViewsConfig)}
    mixing = {"mix", "mix_alpha", "mix_p"}  # in test_mixing.py
    assert fields == {"recipe", "per_view", *mixing, *VIEW_FIELDS, *NORMALISATION}


@pytest.mark.parametrize("name", [*RECIPES, *ALIASES])
def test_without_settings_the_recipe_is_the_published_one(name: str) -> None:
    published = RECIPES[ALIASES.get(name, name)]
    assert ViewsConfig(name).build() == dataclasses.replace(published, name=name)


@pytest.mark.parametrize("field", CHANGES)
def test_a_setting_changes_its_field_and_no_other(field: str) -> None:
    published, changed = recipe("dino"), ViewsConfig("dino", **{field: CHANGES[field]}).build()
    if field in NORMALISATION:
        assert changed == dataclasses.replace(published, **{field: as_tuple(CHANGES[field])})
        return
    for old, new in zip(published.views, changed.views, strict=True):
        keeps_its_own = field == "scale" and old.size < 224
        expected = getattr(old, field) if keeps_its_own else as_tuple(CHANGES[field])
        assert new == dataclasses.replace(old, **{field: expected})


@pytest.mark.parametrize("field", [field for field in CHANGES if field not in NORMALISATION])
def test_a_setting_of_one_view_leaves_the_others_alone(field: str) -> None:
    published, changed = recipe("byol"), ViewsConfig("byol", per_view={"2": {field: CHANGES[field]}}).build()
    assert changed.views[0] == published.views[0]
    assert changed.views[1] == dataclasses.replace(published.views[1], **{field: as_tuple(CHANGES[field])})


def test_a_number_goes_before_its_group_and_a_group_before_all_views() -> None:
    views = ViewsConfig(
        "swav", blur_p=0.1, per_view={3: {"blur_p": 0.4}, "local": {"blur_p": 0.3}, "global": {"blur_p": 0.2}}
    )
    assert [view.blur_p for view in views.build().views] == [0.2, 0.2, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3]


def test_local_views_have_a_size_and_a_scale_of_their_own() -> None:
    views = ViewsConfig("swav", size=128, per_view={"local": {"size": 48, "scale": [0.02, 0.1]}}).build()
    assert [view.size for view in views.views] == [128, 128] + [48] * 6
    assert [view.scale for view in views.views] == [(0.14, 1.0)] * 2 + [(0.02, 0.1)] * 6


def test_random_numbers_of_other_operations_stay() -> None:
    indices, sizes = np.arange(50), np.full((50, 2), 60)
    old = sample_params(recipe("simsiam"), 0, 0, indices, sizes)
    new = sample_params(ViewsConfig("simsiam", blur_p=0.0).build(), 0, 0, indices, sizes)
    assert np.array_equal(old.box, new.box)
    assert np.array_equal(old.flip, new.flip)
    differing = (old.augmentation != new.augmentation).any(axis=(0, 1))
    assert differing.nonzero()[0].tolist() == [9]  # the column of the blur's sigma


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "simsam"}, "did you mean 'simsiam'"),
        ({"blur_p": 2}, "^views.blur_p is 2, but must be a probability from 0 to 1$"),
        ({"blur_p": float("nan")}, "^views.blur_p is nan, but must be a probability"),
        ({"scale": [0.9, 0.2]}, "^views.scale is .*, but must be two rising numbers above 0 and at most 1$"),
        ({"scale": [0.2]}, "^views.scale is .*two rising numbers"),
        ({"size": 4}, "^views.size is 4, but must be a number of pixels from 8$"),
        ({"jitter": [0.4, 0.4, 0.4, 0.6]}, "^views.jitter is .*hue"),
        ({"std": [0.2, 0.0, 0.2]}, "^views.std is .*a number above 0 for each channel$"),
        ({"per_view": {"1": {"blur": 0.1}}}, "views.per_view.1 called 'blur'; did you mean 'blur_p'"),
        ({"per_view": {"1": {"mean": [0, 0, 0]}}}, "no setting of views.per_view.1 called 'mean'"),
        ({"per_view": {"2": {"grey_p": "often"}}}, "^views.per_view.2.grey_p is often, but must be"),
        ({"per_view": {"2": {"grey_first": 1}}}, "per_view.2.grey_first is 1, but must be true or false"),
        ({"per_view": {"2": 0.5}}, "^views.per_view.2 is 0.5, but must be settings of a view"),
        ({"per_view": {"3": {}}}, "per_view.3: the recipe simsiam has no such view.*are global, 1, 2$"),
        ({"per_view": {"local": {}}}, "^views.per_view.local: the recipe simsiam has no such view"),
        ({"per_view": {"1": {"size": 32}}}, "^views.per_view.1.size: the size of global views is views.size"),
        ({"recipe": "swav", "per_view": {"3": {"size": 224}}}, "per_view.3.size is 224, but must be below"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_the_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ViewsConfig(**settings).build()


def test_a_saved_section_of_an_older_version_has_recipe_and_size_only() -> None:
    assert ViewsConfig.from_dict({"recipe": "byol", "size": 64}).build() == recipe("byol", size=64)
    settings = ViewsConfig("swav", blur_p=0.2, per_view={"local": {"size": 48}})
    assert ViewsConfig.from_dict(dataclasses.asdict(settings)) == settings
    with pytest.raises(UserError, match=r"unknown key views\.shear_p; a newer version wrote it"):
        ViewsConfig.from_dict({"recipe": "byol", "shear_p": 0.1})


def test_yaml_and_the_command_line_set_views(tmp_path: Path) -> None:
    (tmp_path / "views.yaml").write_text(
        "views: {recipe: swav, size: 64, scale: [0.3, 1], blur_p: 0.2, per_view: {2: {grey_p: 0.5}}}\n"
    )
    command = Command("test", PretrainConfig, lambda config: None, "A test.", (), None)
    words = [
        f"--config={tmp_path / 'views.yaml'}",
        "--views.flip-p=0.25",
        "--views.jitter",
        *["0.1", "0.2", "0.3", "0"],
    ]
    config = command.parse(words)
    expected = recipe(
        "swav", size=64, scale=(0.3, 1.0), blur_p=0.2, flip_p=0.25, jitter=(0.1, 0.2, 0.3, 0.0),
        per_view={"2": {"grey_p": 0.5}},
    )  # fmt: skip
    assert config.views.build() == expected
    assert PretrainConfig.from_dict(config.as_dict()).views.build() == expected


def test_the_description_has_every_parameter_of_every_view() -> None:
    lines = ViewsConfig("swav", size=64, blur_p=0.2, per_view={"1": {"flip_p": 0.25}}).build().describe()
    assert [line.partition(":")[0] for line in lines[:-1]] == ["view 1", "view 2", "views 3 to 8"]
    assert "size 64, scale 0.14 1, ratio 0.75 1.333, interpolation bilinear, flip_p 0.25" in lines[0]
    assert all(f" {field} " in line for line in lines[:-1] for field in VIEW_FIELDS)
    assert lines[-1] == "mean 0.485 0.456 0.406, std 0.228 0.224 0.225"


def test_settings_are_read_without_torch_and_numpy() -> None:
    code = (
        "import sys, siamtransfer.views.config, siamtransfer.backbones.names, siamtransfer.data, "
        "siamtransfer.utils.files, siamtransfer.utils.checks, siamtransfer.utils.log, "
        "siamtransfer.utils.strict_json\n"
        "print(sorted({'torch', 'torchvision', 'timm', 'numpy', 'scipy', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
