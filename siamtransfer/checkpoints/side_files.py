"""What lies beside a checkpoint file and states facts about its network.

- OUT.yaml beside OUT.pkl, and config.yaml in the folder, of Detectron2 (for its files alone);
- config.json (with preprocessor_config.json) of timm and of Hugging Face;
- open_clip_config.json of open_clip;
- args.json of solo-learn.

A file that should be one of these and is damaged is refused. One of another kind is left out with a remark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.facts import Facts, facts_from, join
from siamtransfer.checkpoints.file_format import Format
from siamtransfer.checkpoints.hugging_face_formats import HUGGING_FACE
from siamtransfer.checkpoints.hugging_face_settings import vision_settings
from siamtransfer.checkpoints.normalisation import from_pixels
from siamtransfer.checkpoints.open_clip_config import facts_of_open_clip
from siamtransfer.checkpoints.preprocessing import Preprocessing, of_hugging_face, of_timm
from siamtransfer.checkpoints.reading import Fact
from siamtransfer.checkpoints.settings_files import read_json, read_yaml
from siamtransfer.checkpoints.stated_facts import facts_of_pixels, facts_of_solo_learn
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import shown

OPEN_CLIP_FORMAT = "open-clip"
BARE = ("torchvision", "timm", "prefixed", HUGGING_FACE)
"""Formats of weights alone, which a config.json may describe."""


def facts_beside(form: Format, path: Path, architecture: Architecture) -> Facts:
    """What the files beside `path` state about a network of that format and architecture.

    Raises:
        UserError: one of them is damaged.
    """
    if form.name == "detectron2":
        return _detectron2_facts(path)
    if form.name == OPEN_CLIP_FORMAT:
        return facts_of_open_clip(path)
    if form.name in BARE:
        return facts_of_config_json(path)
    if form.name.startswith("solo-learn"):
        file = path.parent / "args.json"
        settings = read_json(file)
        if settings is not None:
            facts = facts_of_solo_learn(settings, architecture, "args.json beside the file")
            if not facts:
                say(f"note: {file} is not of solo-learn; nothing of it was used")
            return facts
    return {}


def facts_of_config_json(path: Path, *, quiet: bool = False) -> Facts:
    """What timm's or Hugging Face's config.json in the folder states; its architecture has not been compared
    with the tensors. `quiet` leaves the remark on another file's kind out."""
    file = path.parent / "config.json"
    config = read_json(file)
    if config is None:
        return {}
    source = "config.json beside the file"
    facts: Facts = {}
    if isinstance(config.get("architecture"), str):
        facts["architecture"] = Fact(config["architecture"], source)
    elif "model_type" not in config and "architectures" not in config:
        if not quiet:
            say(f"note: {file} is neither timm's nor Hugging Face's; nothing of it was used")
        return {}
    heads = vision_settings(config).get("num_attention_heads")
    if isinstance(heads, int) and not isinstance(heads, bool):
        facts["heads"] = Fact(heads, source)
    if isinstance(config.get("downsample_in_bottleneck"), bool):
        facts["stride_in_1x1"] = Fact(config["downsample_in_bottleneck"], source)
    pretrained = config.get("pretrained_cfg", config)
    facts |= _normalisation(pretrained, "mean", "std", source, file)
    facts |= _preprocessing(of_timm, pretrained, source, file)
    beside = path.parent / "preprocessor_config.json"
    preprocessor = read_json(beside)
    if preprocessor is not None:
        source = "preprocessor_config.json beside the file"
        facts = join(facts, _normalisation(preprocessor, "image_mean", "image_std", source, beside))
        facts = join(facts, _preprocessing(of_hugging_face, preprocessor, source, beside))
    return facts


class NetworkSettings(NamedTuple):
    """What Hugging Face's config.json states of a network and its tensors do not show; None where it does
    not: the activation by Hugging Face's name, the epsilon of the layer norms."""

    activation: str | None = None
    norm_eps: float | None = None


def settings_beside(path: Path) -> NetworkSettings:
    """The settings in the config.json of the folder."""
    tower = vision_settings(read_json(path.parent / "config.json") or {})
    activation, eps = tower.get("hidden_act"), tower.get("layer_norm_eps")
    return NetworkSettings(
        activation if isinstance(activation, str) else None, float(eps) if isinstance(eps, float) else None
    )


def _normalisation(config: Any, mean: str, std: str, source: str, file: Path) -> Facts:
    """Mean and std of RGB images in [0, 1], where both are given."""
    if not isinstance(config, Mapping) or mean not in config or std not in config:
        return {}
    try:
        value = from_pixels(config[mean], config[std], 1.0, bgr=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"lies beside {file}, whose mean and std are not understood: {error}") from error
    return facts_from(source, {"normalisation": value, "channels": "rgb"})


def _preprocessing(
    read: Callable[[Mapping[str, Any]], Preprocessing | None], config: Any, source: str, file: Path
) -> Facts:
    """How images are prepared, where the configuration says it."""
    try:
        value = read(config) if isinstance(config, Mapping) else None
    except (TypeError, ValueError) as error:
        raise UserError(f"lies beside {file}, whose sizes of images are not understood: {error}") from error
    return {} if value is None else facts_from(source, {"preprocessing": value})


def _detectron2_facts(path: Path) -> Facts:
    facts: Facts = {}
    for file in dict.fromkeys((path.with_suffix(".yaml"), path.parent / "config.yaml")):
        content = read_yaml(file)
        if content is None:
            continue
        model, given = content.get("MODEL"), content.get("INPUT")
        if not isinstance(model, Mapping):
            say(f"note: {file} is no configuration of Detectron2; nothing of it was used")
            continue
        try:
            stated = _facts_of_configuration(model, given, f"{file.name} beside the file")
        except (TypeError, ValueError) as error:
            raise UserError(f"lies beside {file}, which is not understood: {error}") from error
        facts = join(facts, stated)
    return facts


def _facts_of_configuration(model: Mapping[str, Any], given: Any, source: str) -> Facts:
    facts: Facts = {}
    order = given.get("FORMAT") if isinstance(given, Mapping) else None
    if order not in (None, "BGR", "RGB"):
        raise ValueError(f"INPUT.FORMAT {shown(order)} is neither BGR nor RGB")
    if "PIXEL_MEAN" in model and "PIXEL_STD" in model:
        facts, _ = facts_of_pixels(model["PIXEL_MEAN"], model["PIXEL_STD"], order, source)
    elif order is not None:
        facts["channels"] = Fact(order.lower(), source)
    resnets = model.get("RESNETS", {})
    if not isinstance(resnets, Mapping):
        raise ValueError(f"MODEL.RESNETS is {shown(resnets)}")
    if isinstance(resnets.get("STRIDE_IN_1X1"), bool):
        facts["stride_in_1x1"] = Fact(resnets["STRIDE_IN_1X1"], source)
    if "RES5_DILATION" in resnets:
        dilation = resnets["RES5_DILATION"]
        if dilation not in (1, 2):
            raise ValueError(f"MODEL.RESNETS.RES5_DILATION {shown(dilation)} is neither 1 nor 2")
        facts["output_stride"] = Fact(32 if dilation == 1 else 16, source)
    return facts
