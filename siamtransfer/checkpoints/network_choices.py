"""How a named network was built where that differs from its name: by the settings beside a file or in it.

- `model_args` in timm's config.json, which timm passes to `create_model`;
- the arguments of timm's train.py in its checkpoints: `gp`, `in_chans`, `model_kwargs`;
- `vision_cfg` in open_clip's open_clip_config.json, for an image tower of timm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import RESNETS, TIMM, TORCHVISION
from siamtransfer.backbones.timm import usual_choices
from siamtransfer.checkpoints.open_clip_config import tower_of_timm
from siamtransfer.checkpoints.pickles import as_plain
from siamtransfer.checkpoints.settings_files import read_json
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import shown

_OURS = {
    "img_size": "image_size",
    "global_pool": "pool",
    "num_heads": "heads",
    "act_layer": "activation",
    "in_chans": "in_channels",
}
"""Arguments of timm's networks, and the names of our choices."""
_HARMLESS = frozenset(
    (
        *("num_classes", "pretrained", "scriptable", "exportable", "no_jit", "cache_dir", "dynamic_img_size"),
        *("strict_img_size", "drop_rate", "drop_path_rate", "drop_block_rate", "proj_drop_rate"),
        *("attn_drop_rate", "pos_drop_rate", "patch_drop_rate", "bn_momentum", "weight_init", "fix_init"),
        "zero_init_last",
    )
)
"""Arguments of training alone, or of what a network takes and not of what it computes."""


def with_choices(network: Architecture, content: Any, path: Path) -> Architecture:
    """The network of a name as the settings in `content` or beside the file `path` say that it was built.

    Raises:
        UserError: they state what is not read here; the rest of a sentence that begins with the file's name.
    """
    if network.name.startswith(TORCHVISION):
        return network
    arguments, source = _arguments(network.name.removeprefix(TIMM), content, path)
    choices = _choices(arguments, source)
    if network.name in RESNETS:
        choices.pop("in_channels", None)  # which the tensors of a ResNet show
        if choices.get("pool", "avg") == "avg":
            return network
        network = network._replace(name=TIMM + network.name)
    heads = choices.pop("heads", None)
    usual = {"in_channels": 3, **usual_choices(network.name)}
    chosen = {name: value for name, value in choices.items() if value != usual.get(name)}
    network = network._replace(**chosen)
    return network if heads is None else network.with_heads(heads)


def _arguments(name: str, content: Any, path: Path) -> tuple[dict[str, Any], str]:
    """What timm's create_model was given for the network of that name, and where it is said."""
    if isinstance(content, Mapping):
        training = as_plain(content.get("args"))
        if isinstance(training, dict) and training.get("model") == name:
            more = training.get("model_kwargs")
            given = {"global_pool": training.get("gp"), "in_chans": training.get("in_chans")}
            return {**given, **(more if isinstance(more, dict) else {})}, "args in the file"
    config = read_json(path.parent / "config.json") or {}
    if str(config.get("architecture")).partition(".")[0] == name:
        stated = config.get("model_args")
        return (dict(stated) if isinstance(stated, Mapping) else {}), "model_args in config.json"
    tower = tower_of_timm(path)
    if tower is not None and tower.name == name:
        return {"global_pool": tower.pool}, "vision_cfg in open_clip_config.json"
    return {}, ""


def _choices(arguments: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Our choices by timm's arguments; None stands for timm's own choice.

    Raises:
        UserError: an argument changes what the network computes and is not known here.
    """
    choices: dict[str, Any] = {}
    for argument, value in arguments.items():
        if value is None or argument in _HARMLESS:
            continue
        if argument not in _OURS:
            raise UserError(
                f"was built with {argument}={shown(value)}, as {source} says, which is not read here: only "
                f"{', '.join(_OURS)} are"
            )
        choices[_OURS[argument]] = _value(argument, value, source)
    return choices


def _value(argument: str, value: Any, source: str) -> Any:
    """The value of one of our choices.

    Raises:
        UserError: it is of the wrong kind.
    """
    wanted: type = str if argument in ("global_pool", "act_layer") else int
    if (
        argument == "img_size"
        and isinstance(value, list | tuple)
        and value
        and value == value[:1] * len(value)
    ):
        value = value[0]
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise UserError(
            f"was built with {argument}={shown(value)}, as {source} says, which is not understood"
        )
    return value
