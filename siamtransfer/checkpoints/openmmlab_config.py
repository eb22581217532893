"""What the text of an OpenMMLab configuration says about its backbone; no code of the text runs.

MMCV and MMEngine store the text of the run's configuration in a checkpoint's `meta`. It is Python:
assignments of literals and of `dict(...)`. Later assignments of a name are merged into
earlier ones, as MMCV does.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from siamtransfer.checkpoints.normalisation import from_pixels, numbers_of
from siamtransfer.utils.text import shown

_MOST_CHARACTERS = 2**20
_MOST_VALUES = 200_000
"""That the names of a text stand for, all assignments together: a name of two lists of names doubles."""


class _Unknown(Exception):
    """A part of the text that is no literal."""


def facts_of_config(text: str) -> dict[str, Any]:
    """The facts of a reading (`stride_in_1x1`, `output_stride`, `normalisation`, `channels`) that a
    configuration states; none for a text without such.

    Raises:
        ValueError: the backbone is of a kind that `build_backbone` does not make, or mean and std are no
            numbers; the message is the rest of a sentence.
    """
    settings = _settings(text)
    model = _mapping(settings.get("model"))
    backbone = _mapping(model.get("backbone"))
    return _backbone_facts(backbone) | _pixel_facts(settings, model)


def _backbone_facts(backbone: Mapping[str, Any]) -> dict[str, Any]:
    if not str(backbone.get("type", "")).startswith("ResNe"):
        return {}
    facts: dict[str, Any] = {"stride_in_1x1": backbone.get("style", "pytorch") == "caffe"}
    dilations = backbone.get("dilations") or [1, 1, 1, 1]
    strides = backbone.get("strides") or [1, 2, 2, 2]
    known = (
        ([1, 2, 2, 2], [1, 1, 1, 1], 32),
        ([1, 2, 2, 1], [1, 1, 1, 2], 16),
        ([1, 2, 1, 1], [1, 1, 2, 4], 8),
    )
    stride = next((last for *pair, last in known if pair == [strides, dilations]), None)
    if stride is None:
        raise ValueError(
            f"its configuration has strides {shown(strides)} and dilations {shown(dilations)}, "
            "which are not read"
        )
    if stride != 32 and not backbone.get("contract_dilation", False):
        raise ValueError("its configuration dilates without contract_dilation, which is not read")
    for option in ("dcn", "plugins", "deep_stem", "avg_down", "multi_grid"):
        if backbone.get(option):
            raise ValueError(f"its configuration gives the ResNet {option}, which is not read")
    return facts | {"output_stride": stride}


def _pixel_facts(settings: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    places = (
        _mapping(model.get("data_preprocessor")),
        _mapping(settings.get("data_preprocessor")),
        _mapping(settings.get("img_norm_cfg")),
    )
    place = next((place for place in places if "mean" in place and "std" in place), None)
    if place is None:
        return {}
    order = next((place[key] for key in ("to_rgb", "bgr_to_rgb") if key in place), None)
    # only cv2's images are 0 to 255
    scale = 1.0 if order is None and max(numbers_of(place["mean"])) <= 1 else 255.0
    rgb = order is not False
    return {
        "normalisation": from_pixels(place["mean"], place["std"], scale, bgr=not rgb),
        "channels": "rgb" if rgb else "bgr",
    }


def _settings(text: str) -> dict[str, Any]:
    """The names that the text assigns literals to.

    Raises:
        ValueError: the text is longer, or stands for more values, than any configuration.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"its configuration has {len(text):,} characters")
    left = _MOST_VALUES
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    settings: dict[str, Any] = {}
    for statement in statements:
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            continue
        target = statement.targets[0]
        if isinstance(target, ast.Name):
            try:
                value = _literal(statement.value, settings)
            except (_Unknown, RecursionError):
                continue
            left = _less_values_of(value, left)
            settings[target.id] = _merge(settings.get(target.id), value)
            left = _less_values_of(settings[target.id], left)
    return settings


def _less_values_of(content: Any, left: int) -> int:
    """`left` less the number of values in the content; raises ValueError below zero."""
    pending = [content]
    while pending:
        value = pending.pop()
        left -= 1
        if left < 0:
            raise ValueError("the names in its configuration stand for too many values")
        pending.extend(
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        )
    return left


def _literal(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal_or_none(item, names) for item in items]
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=words):
            return {word.arg: _literal_or_none(word.value, names) for word in words if word.arg is not None}
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {
                key.value: _literal_or_none(value, names)
                for key, value in pairs
                if isinstance(key, ast.Constant)
            }
    raise _Unknown


def _literal_or_none(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of a part; None for a part that is no literal, of which no fact is taken."""
    try:
        return _literal(node, names)
    except _Unknown:
        return None


def _merge(base: Any, update: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(update, dict) or update.get("_delete_"):
        return update
    return base | {key: _merge(base.get(key), value) for key, value in update.items()}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
